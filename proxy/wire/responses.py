"""Bytes of an upstream -> response head, body pieces, end of message, or a Failure.

Lives here: `ResponseParser`, and every rule by which an answer is refused (RFC 9112; HTTP.md 1, response side).
May not live here: what an answer means; sockets; clocks.
How it works: heads are collected whole and measured, 1xx are skipped, then httptools parses the head and, for chunked
bodies, the chunks: its `on_body` is the append of a list, so a chunk costs no Python frame (0.2 us a chunk, against
0.95 for a decoder in Python; bench/micro.py). Length and until-close bodies need no parser at all, nor do chunks as
long as each read brings a few whole ones.
After each feed look at `head`, `pieces`, `is_complete`, `failure`, `is_clean`. Bytes behind the end never reach
`pieces`.
Doubted: over TLS an end without close_notify should cut an until-close answer (RFC 9112 section 9.8), but the loop does
not tell it from a proper one. Streams that are read have their terminal event, everything else has only this.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from proxy.outcome import Failure, Kind, Phase, Side
from proxy.wire.chunked import take_chunks
from proxy.wire.encode import CHUNKED, LAST_CHUNK, STATUS_LINES
from proxy.wire.head import Field, Framing, ResponseHead, end_to_end, joined

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")

# 1xx answers before the final one. Time bounds them too (FIRST_BYTE is not re-armed); neither nginx nor HAProxy ends an
# endless series (HTTP.md 2).
MAX_INTERIM: Final = 32
MAX_FIELDS: Final = 200
# Bytes in a row of reads that bring no byte of a body, within the chunked coding: trailers and extensions of chunks.
# httptools gathers trailers without end. Neighbours: nginx counts trailers to the 4/8 KiB of a head.
MAX_OVERHEAD: Final = 64 * 1024
# Chunks of one read that are taken here, as long as no read has brought anything else: what httptools holds of a stream
# stays untouched, and lies in other pages of memory (0.4 us for each that is touched, among 5,000 streams). With two
# such looks less in the relay, an event in 5,000 streams takes 41.1 us instead of 45.2, in 50 the same
# (python -m bench --only paced-50,paced-5000). Of more than a few httptools takes each in a third of the time.
_FEW_CHUNKS: Final = 4
_CHUNKED_HEAD: Final = STATUS_LINES[200] + CHUNKED + b"\r\n"
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")

_HEAD: Final = 0
_LENGTH: Final = 1
_CHUNKED: Final = 2
_UNTIL_CLOSE: Final = 3
_COMPLETE: Final = 4
_BROKEN: Final = 5

# How a body ends, and the state that reads it. Looked up once: on Python 3.11 a member of an enum costs 0.12 us each
# time.
_WITHOUT_BODY: Final = Framing.NONE, _COMPLETE
_BY_LENGTH: Final = Framing.LENGTH, _LENGTH
_IN_CHUNKS: Final = Framing.CHUNKED, _CHUNKED
_BY_CLOSE: Final = Framing.UNTIL_CLOSE, _UNTIL_CLOSE


def _read_status_line(line: bytes) -> tuple[bytes, int, bytes] | None:
    """Minor version, status and reason (RFC 9112 section 4)."""
    matched = _STATUS_LINE.fullmatch(line)
    return None if matched is None else (matched[1], int(matched[2]), matched[3] or b"")


# Nearly every line is one of these; a look-up takes a tenth of matching.
_KNOWN_LINES: Final = {
    line: _read_status_line(line) for line in (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200")
}


# Instead of an empty list in each parser, which would be one more to look at for each read. Nobody appends to it.
NOTHING: Final[list[bytes]] = []
_new: Final = tuple.__new__


class ResponseParser:
    """One per upstream connection; `expect()` begins a new answer."""

    __slots__ = (
        "failure",
        "head",
        "is_clean",
        "is_complete",
        "on_body",
        "pieces",
        "_appended",
        "_buffer",
        "_fields",
        "_has_ended",
        "_has_fed",
        "_interim",
        "_is_head_request",
        "_max_head",
        "_messages",
        "_overhead",
        "_parser",
        "_remaining",
        "_seen",
        "_state",
        "_tail",
    )

    def __init__(self, max_head: int) -> None:
        self._max_head = max_head
        self._buffer = bytearray()
        self.pieces = NOTHING  # of the body; who takes them puts NOTHING in their place
        self._appended: list[bytes] = []  # by httptools
        self.on_body = self._appended.append
        self.expect(b"GET")

    def expect(self, method: bytes) -> None:
        """A request with `method` has been written; read its answer."""
        self.failure: Failure | None = None
        self.head: ResponseHead | None = None
        self.is_complete = False
        self.is_clean = True  # nothing came behind the end of the message
        self.pieces = NOTHING
        self._buffer.clear()
        self._fields: list[Field] = []
        self._has_ended = False
        self._has_fed = False  # httptools has seen a part of the body
        self._interim = 0
        self._is_head_request = method == b"HEAD"
        self._messages = 0  # that httptools has seen the beginning of
        self._overhead = 0
        self._parser: httptools.HttpResponseParser | None = None
        self._remaining = 0
        self._seen = 0  # bytes of heads, 1xx included
        self._state = _HEAD
        self._tail = b""

    # -- httptools calls these ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._messages += 1  # a second one begins with the first byte behind the end that is not CR or LF

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state == _HEAD:  # later ones are trailers: they end here
            # Not tabs: httptools does not see a `chunked` with a tab behind it, and would take the framing for body.
            self._fields.append((name.lower(), name, value.rstrip(b" ")))

    def on_message_complete(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._remaining = len(self.pieces)  # what is appended beyond this came behind the end

    # -- the caller's side --------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        state = self._state
        if state == _CHUNKED:
            if self._has_fed:  # so only httptools knows where in a chunk this begins
                return self._feed_chunks(data)
            found: list[bytes] = []
            rest = data[take_chunks(data, 0, _FEW_CHUNKS, found) :]
            if rest and rest != LAST_CHUNK:
                return self._feed_chunks(data)
            self.pieces = [*self.pieces, *found] if self.pieces else found
            if rest:
                self._complete()
        elif state == _LENGTH:
            self._feed_length(data)
        elif state == _UNTIL_CLOSE:
            self.pieces = [*self.pieces, data]
        elif state == _HEAD:
            self._feed_head(data)
        elif data:
            self.is_clean = False

    def eof(self, is_cut: bool = False) -> None:
        """The upstream closed. Only an until-close body ends by that, and not by a reset (`is_cut`); all else is cut
        (RFC 9112 section 8)."""
        if self._state == _UNTIL_CLOSE and not is_cut:
            self._complete()
        elif not self.has_begun:
            self._fail("the upstream closed the connection without an answer", Kind.RESET)
        elif self._state not in (_COMPLETE, _BROKEN):
            self._fail("the upstream closed the connection in the middle of its answer", Kind.RESET)

    @property
    def has_begun(self) -> bool:
        """Whether any byte of an answer has arrived, be it a 1xx."""
        return self._seen > 0 or bool(self._buffer)

    def forget_fields(self) -> None:
        """Nobody will ask for the fields of the head any more: 2 KiB of a stream that may stay for an hour. Nor, if all
        reads are a few whole chunks, for httptools, whose objects hold 0.7 KiB."""
        head = self.head
        if head is not None:
            self.head = _new(
                ResponseHead,
                (head.status, head.reason, head.version, [], {}, head.framing, head.length, head.keep_alive),
            )
            self._fields = []
            if not self._has_fed:
                self._parser = None

    # -- bodies -------------------------------------------------------------------------------------------------------

    def _feed_chunks(self, data: bytes) -> None:
        self._has_fed = True
        self._appended[:] = self.pieces
        self.pieces = self._appended
        parser = self._parser or self._within_chunks()
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._has_ended:
                self._fail("the upstream sent a broken chunk")
                return
            self._messages += 1  # there are bytes behind the end, be they a message or not
        if self._has_ended:
            self._end_chunks(data)
            return
        self._tail = data[-8:] if len(data) >= 8 else (self._tail + data)[-8:]
        if self.pieces:
            self._overhead = 0
        else:
            self._overhead += len(data)
            if self._overhead > MAX_OVERHEAD:
                self._fail("the upstream sends trailers or extensions of chunks without end")

    def _within_chunks(self) -> httptools.HttpResponseParser:
        """One that is where the one was that has been let go of: between two chunks."""
        self._messages = 0
        self._parser = parser = httptools.HttpResponseParser(self)
        parser.feed_data(_CHUNKED_HEAD)
        return parser

    def _end_chunks(self, data: bytes) -> None:
        """httptools tells of another message, but skips CR and LF between messages without a word, so the end is
        checked in the bytes, too: it is an empty line behind a line that is not empty, and nothing follows."""
        tail = (self._tail + data[-8:])[-8:]
        del self.pieces[self._remaining :]
        if self._messages > 1 or not tail.endswith(b"\r\n\r\n") or tail[-5:-4] in (b"\r", b"\n"):
            self.is_clean = False
            self._fail("the upstream sent bytes behind the end of its answer")
            return
        self._complete()

    def _feed_length(self, data: bytes) -> None:
        remaining = self._remaining
        size = len(data)
        if size < remaining:
            self.pieces = [*self.pieces, data]
            self._remaining = remaining - size
        elif size == remaining:
            self.pieces = [*self.pieces, data]
            self._complete()
        else:
            # The length was wrong, or this is another answer: nobody can tell, so the answer does not count as whole.
            self.is_clean = False
            self._fail("the upstream sent bytes behind the end of its answer")

    def _complete(self) -> None:
        self._state = _COMPLETE
        self.is_complete = True

    def _fail(self, detail: str, kind: Kind = Kind.PROTOCOL) -> None:
        phase = Phase.FIRST_BYTE if self.head is None else Phase.STREAM
        self.failure = Failure(Side.UPSTREAM, phase, kind, detail)
        self.is_clean = False
        self._state = _BROKEN

    # -- heads --------------------------------------------------------------------------------------------------------

    def _feed_head(self, data: bytes) -> None:
        buffer = self._buffer
        if not buffer and not self._seen:  # nearly every head comes in one read, and is the final one
            end = data.find(b"\r\n\r\n") + 4
            if 3 < end <= self._max_head:
                self._seen = end
                self._read_head(data[:end])
                return self._feed_behind(data[end:])
        seen = len(buffer)
        buffer += data
        while self._state == _HEAD:
            end = buffer.find(b"\r\n\r\n", max(0, seen - 3)) + 4
            size = self._seen + (end if end > 3 else len(buffer))
            if size > self._max_head:
                return self._fail(f"the upstream's head is larger than {self._max_head} bytes")
            if end < 4:
                if not b"HTTP/1.".startswith(buffer[:7]) or _BARE_LF.search(buffer, max(0, seen - 1)):
                    self._fail("the upstream does not speak HTTP/1.1")
                return
            raw = bytes(buffer[:end])
            del buffer[:end]
            seen = 0
            self._seen += end
            self._read_head(raw)
        rest = bytes(buffer)
        buffer.clear()
        self._feed_behind(rest)

    def _feed_behind(self, rest: bytes) -> None:
        """What came behind a head in the same read: body, the next head after a 1xx, or what must not be."""
        if not rest or self._state == _BROKEN:
            return
        if self._state == _COMPLETE:
            self.is_clean = False  # behind an answer without a body: dropped, and the connection with it
        else:
            self.feed(rest)

    def _read_head(self, raw: bytes) -> None:
        line = raw[: raw.find(b"\r\n")]
        known = _KNOWN_LINES.get(line) or _read_status_line(line)
        if known is None:
            return self._fail("the upstream's status line is not HTTP/1.1")
        minor, status, reason = known
        if status == 101:
            return self._fail("the upstream changed protocols unasked")
        self._fields.clear()
        self._messages = 0
        self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(raw)
        except httptools.HttpParserError:
            return self._fail("the upstream's head is not valid HTTP/1.1")
        if status >= 200:
            self._accept(status, reason, minor)
            return
        self._has_ended = False
        self._interim += 1
        if self._interim > MAX_INTERIM:
            self._fail("too many 1xx answers")

    def _accept(self, status: int, reason: bytes, minor: bytes) -> None:
        fields = self._fields
        if len(fields) > MAX_FIELDS:
            return self._fail(f"the upstream's head has more than {MAX_FIELDS} fields")
        index = {lower: value for lower, _, value in reversed(fields)}
        travelling, tokens = end_to_end(fields, index)
        declared = index.get(b"content-length")
        codings: bytes | None = None
        if b"transfer-encoding" in index:
            codings = joined(fields, b"transfer-encoding").lower()
            if codings != b"chunked" or minor == b"0":
                return self._fail("the upstream uses a transfer coding other than chunked")
        if declared is not None and (not declared.isdigit() or len(declared) > 18):
            return self._fail("the upstream's Content-Length is not a number of bytes")
        length = int(declared or 0)
        framing, state = self._frame(status, codings, declared)
        keep_alive = state != _UNTIL_CLOSE and b"close" not in tokens
        if minor == b"0":
            keep_alive = keep_alive and b"keep-alive" in tokens
        # 0.33 us less than ResponseHead(...): see head.with_length.
        self.head = _new(ResponseHead, (status, reason, b"1." + minor, travelling, index, framing, length, keep_alive))
        self._remaining = length
        if state == _COMPLETE or (state == _LENGTH and not length):
            self._complete()
        else:
            self._state = state

    def _frame(self, status: int, codings: bytes | None, declared: bytes | None) -> tuple[Framing, int]:
        """RFC 9112 section 6.3, in its order."""
        if self._is_head_request or status in (204, 304):
            return _WITHOUT_BODY
        if codings is not None:
            return _IN_CHUNKS
        return _BY_CLOSE if declared is None else _BY_LENGTH
