"""Bytes of a client -> request head, body pieces, end of message, or a Failure.

Lives here: `RequestParser`, and every rule that refuses an ambiguous request (RFC 9112; HTTP.md 1).
May not live here: what a path or a key means; sockets; clocks.
How it works: a head is collected whole, measured, and only then given to httptools, because httptools has no limits,
swallows the body behind an upgrade offer and parses on into a pipelined request. It never sees a byte of a body: those
are cut by us, since their end must be known to the byte: what lies behind it stays in `rest`, unparsed, until `next()`.
What is refused, and why, does not depend on how the bytes were cut into reads: of several faults the first counts.
Parsing a head of 16 fields: 4.4 us in httptools, 11 us in all (bench/micro.py). All connections of one application
send the same head but for its length: it is read once and held once for all parsers that share a memory.
Doubted: nothing but what head says of that memory.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Final

import httptools

from proxy.outcome import Failure, Kind, Phase, Side
from proxy.wire.chunked import ChunkDecoder
from proxy.wire.head import (
    BLANKS,
    Field,
    Framing,
    HeadLimits,
    Heads,
    Parts,
    RequestHead,
    end_to_end,
    joined,
    with_length,
)
from proxy.wire.target import REQUEST_LINE, place, seeming_path

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})

_FIRST_BYTE: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\r\n")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LENGTH_LINE: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]{1,18})\r\n")
MAX_EMPTY: Final = 64  # bytes of empty lines before a request line; old clients send one such line behind a POST

# A second one of these could be read differently by two readers; lists (Accept, Via, Connection ...) may repeat.
_ONCE: Final = frozenset(
    b"host authorization x-api-key api-key x-goog-api-key content-type content-length content-encoding expect".split()
)

_HEAD: Final = 0
_LENGTH: Final = 1
_CHUNKED: Final = 2
_COMPLETE: Final = 3
_BROKEN: Final = 4
_IN_CHUNKS: Final = Framing.CHUNKED  # looked up once: on Python 3.11 a member of an enum costs 0.12 us each time


# Larger heads are read each time: what is remembered of one stays with an idle connection (SDKs send 0.5 to 1.5 KiB).
MAX_KNOWN: Final = 4 * 1024
MAX_DIGITS: Final = 18  # of a length; nothing is as long as 19 digits can say


class _Fields:
    """What httptools calls back into while it parses one head."""

    __slots__ = ("fields", "is_complete")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), name, value.rstrip(BLANKS)))

    def on_headers_complete(self) -> None:
        self.is_complete = True


class RequestParser:
    """Feed it what the socket gives; after each feed look at `failure`, `head`, `pieces`, `is_complete`.

    `pieces` is taken (and emptied) by the caller. `received` counts the raw bytes of the body, framing included.
    Bytes behind the end of a message wait in `rest`; `next()` goes on with them.
    """

    __slots__ = (
        "failure",
        "head",
        "is_complete",
        "is_familiar",
        "pieces",
        "received",
        "rest",
        "_buffer",
        "_chunks",
        "_heads",
        "_known",
        "_known_bytes",
        "_limits",
        "_refused",
        "_remaining",
        "_state",
    )

    def __init__(self, limits: HeadLimits, heads: Heads | None = None) -> None:
        self._limits = limits
        self._heads = Heads() if heads is None else heads
        self.failure: Failure | None = None
        self.rest = b""
        self._buffer = bytearray()
        self.pieces: list[bytes] = []
        self.is_familiar = False  # the head is the one before, but for its length
        self._refused = b""  # how a head that was refused began
        self._known: RequestHead | None = None
        self._known_bytes: Parts = (b"", b"")  # of the last head
        self._start()

    def _start(self) -> None:
        self.head: RequestHead | None = None
        self.is_complete = False
        self.received = 0
        self._remaining = 0
        self._chunks: ChunkDecoder | None = None
        self._state = _HEAD

    @property
    def has_begun(self) -> bool:
        """Whether some byte of the next head has arrived."""
        return self._state != _HEAD or bool(self._buffer)

    @property
    def path(self) -> bytes:
        """The path that is asked for, or seems to be: also of a head that is not there yet, or was refused."""
        return self.head.path if self.head is not None else seeming_path(self._refused or self._buffer)

    def next(self) -> None:
        """The message is done with: go on with the bytes behind it."""
        rest, self.rest = self.rest, b""
        if self._state != _BROKEN:
            self._start()
            if rest:
                self.feed(rest)

    def feed(self, data: bytes) -> None:
        state = self._state
        if state == _HEAD:
            self._feed_head(data)
        elif state == _LENGTH:
            self._feed_length(data)
        elif state == _CHUNKED:
            self._feed_chunks(data, 0)
        elif state == _COMPLETE:
            self.rest += data

    # -- bodies -------------------------------------------------------------------------------------------------------

    def _feed_length(self, data: bytes) -> None:
        remaining = self._remaining
        size = len(data)
        if size < remaining:
            self.pieces.append(data)
            self.received += size
            self._remaining = remaining - size
            return
        self.received += remaining
        self._remaining = 0
        if size > remaining:
            self.rest = data[remaining:]
            data = data[:remaining]
        if data:
            self.pieces.append(data)
        self._complete()

    def _feed_chunks(self, data: bytes, start: int) -> None:
        chunks = self._chunks
        assert chunks is not None
        end = chunks.feed(data, start, self.pieces)
        self.received += end - start
        if chunks.error:
            self._fail(Kind.BAD_REQUEST, chunks.error, Phase.BODY)
        elif chunks.is_complete:
            self.rest = data[end:]
            self._complete()

    def _complete(self) -> None:
        self._state = _COMPLETE
        self.is_complete = True

    # -- heads --------------------------------------------------------------------------------------------------------

    def _feed_head(self, data: bytes) -> None:
        buffer = self._buffer
        if not buffer and data[:1] != b"\r":
            end = data.find(b"\r\n\r\n") + 4  # nearly every head comes in one read
            if end > 3:
                return self._take_head(data[:end], data[end:])
        seen = len(buffer)
        buffer += data
        if buffer.startswith(b"\r\n"):
            self._skip_empty_lines(buffer)
            seen = 0
        if not buffer or self.failure is not None:
            return
        end = buffer.find(b"\r\n\r\n", max(0, seen - 3)) + 4
        if end > 3:
            raw, rest = bytes(buffer[:end]), bytes(buffer[end:])
            buffer.clear()
            return self._take_head(raw, rest)
        fault = _first_fault(buffer, seen, self._limits)
        if fault is not None:
            self._refuse(*fault)

    def _skip_empty_lines(self, buffer: bytearray) -> None:
        """Empty lines before a request line are tolerated (RFC 9112 section 2.2), a few of them: `received` counts
        them until the head is there."""
        while buffer.startswith(b"\r\n"):
            del buffer[:2]
            self.received += 2
            if self.received > MAX_EMPTY:
                return self._refuse(Kind.BAD_REQUEST, "too many empty lines before the request line")

    def _take_head(self, raw: bytes, rest: bytes) -> None:
        """`raw` is everything up to the empty line and with it, `rest` what came behind."""
        limits = self._limits
        line_end = raw.find(b"\r\n")
        if line_end <= limits.line and len(raw) <= limits.head and not self._recognise(raw):
            self._read_head(raw, line_end)
        if self.head is None:
            self._refused = raw[: limits.line + 2]
            fault = _first_fault(raw, 0, limits)
            if fault is not None:
                self._refuse(*fault)
        elif self._state == _COMPLETE:
            self.rest = rest
        elif rest:
            self.feed(rest)

    def _fail(self, kind: Kind, detail: str, phase: Phase) -> None:
        self.failure = Failure(Side.CLIENT, phase, kind, detail)
        self._state = _BROKEN
        if self._buffer:
            self._refused = bytes(self._buffer[: self._limits.line + 2])
            self._buffer.clear()

    def _refuse(self, kind: Kind, detail: str) -> None:
        self._fail(kind, detail, Phase.HEAD)

    def _recognise(self, raw: bytes) -> bool:
        """A client on a kept connection sends the same head again and again, but for its length: what was found out
        about it still holds, to the byte. Saves 11 of 14 us (bench/micro.py). So does what another connection has
        found out, but that head is familiar only from its second time here on."""
        known = self._known
        before, after = self._known_bytes
        # The length first: where the two overlap, what is compiled would raise SystemError for bytes[a:b] with b < a.
        has_room = len(raw) >= len(before) + len(after)
        if known is not None and has_room and raw.startswith(before) and raw.endswith(after):
            digits = raw[len(before) : len(raw) - len(after)]
            if after and len(digits) <= MAX_DIGITS and digits.isdigit():
                return self._repeat(known if int(digits) == known.length else with_length(known, int(digits)), True)
            if not after and not digits:  # no length, or one written in some rarer way: the same in all bytes
                return self._repeat(known, True)
        self._known = None
        self.is_familiar = False
        if len(raw) > MAX_KNOWN:
            self._known_bytes = (b"", b"")
            return False
        line = _LENGTH_LINE.search(raw)
        parts = (raw, b"") if line is None else (raw[: line.start(1)], raw[line.end(1) :])
        shared = self._heads.get(parts)
        if shared is None:
            self._known_bytes = parts
            return False
        self._known_bytes, head = shared
        self._known = head
        length = head.length if line is None else int(line[1])  # at most MAX_DIGITS, or they are no such line
        return self._repeat(head if length == head.length else with_length(head, length), False)

    def _repeat(self, head: RequestHead, is_familiar: bool) -> bool:
        self.is_familiar = is_familiar
        self.received = 0
        self.head = head
        self._begin_body(head.framing, head.length)
        return True

    def _read_head(self, raw: bytes, line_end: int) -> None:
        matched = REQUEST_LINE.fullmatch(raw, 0, line_end)
        if matched is None:
            return self._refuse(Kind.BAD_REQUEST, "the request line is not <method> <target> HTTP/1.1")
        method, target, major, minor = matched.groups()
        if major != b"1" or minor not in b"01":
            return self._refuse(Kind.VERSION_UNSUPPORTED, "only HTTP/1.1 and HTTP/1.0 are served here, not HTTP/2")
        if method not in METHODS:
            return self._refuse(Kind.METHOD_UNKNOWN, "this method is not served here")
        read = _Fields()
        try:
            httptools.HttpRequestParser(read).feed_data(raw)
        except httptools.HttpParserUpgrade:
            # An offer to change protocols (JDK clients make one with every request). It may be ignored (RFC 9110
            # section 7.8), and the head has been read in full: httptools says this behind the last field.
            pass
        except httptools.HttpParserError:
            return self._refuse(Kind.BAD_REQUEST, "the head is not valid HTTP/1.1")
        if not read.is_complete:
            return self._refuse(Kind.BAD_REQUEST, "the head is not valid HTTP/1.1")
        self._accept(method, target, minor, read.fields)

    def _accept(self, method: bytes, target: bytes, minor: bytes, fields: list[Field]) -> None:
        if len(fields) > self._limits.fields:
            return self._refuse(Kind.HEAD_TOO_LARGE, f"the head has more than {self._limits.fields} fields")
        index = {lower: value for lower, _, value in reversed(fields)}
        if len(index) < len(fields):
            twice = _repeated(fields)
            if twice is not None:
                return self._refuse(Kind.BAD_REQUEST, f"the field {twice} occurs twice")
        placed = place(target, method, index.get(b"host"), minor)
        if isinstance(placed, str):
            return self._refuse(Kind.BAD_REQUEST, placed)
        host, path, query = placed
        travelling, tokens = end_to_end(fields, index)
        framing = Framing.NONE
        length = 0
        declared = index.pop(b"content-length", None)
        if b"transfer-encoding" in index:
            if joined(fields, b"transfer-encoding").lower() != b"chunked":
                return self._refuse(Kind.CODING_UNSUPPORTED, "the only transfer coding served here is chunked")
            if minor == b"0":
                return self._refuse(Kind.BAD_REQUEST, "HTTP/1.0 has no transfer codings")
            if declared is not None:
                return self._refuse(Kind.BAD_REQUEST, "the body has both a length and a transfer coding")
            framing = Framing.CHUNKED
        elif declared is not None:
            if not declared.isdigit() or len(declared) > MAX_DIGITS:
                return self._refuse(Kind.BAD_REQUEST, "Content-Length is not a number of bytes")
            framing = Framing.LENGTH
            length = int(declared)
        expect = index.get(b"expect")
        if expect is not None and expect.lower() != b"100-continue":
            return self._refuse(Kind.EXPECTATION_FAILED, "the only expectation served here is 100-continue")
        # Close wins where both are named (RFC 9112 section 9.3).
        keep_alive = b"close" not in tokens and (minor == b"1" or b"keep-alive" in tokens)
        self.received = 0
        head = self.head = RequestHead(
            method,
            path,
            query,
            b"1." + minor,
            host,
            travelling,
            index,
            framing,
            length,
            keep_alive,
            # HTTP/1.0 clients cannot read a 100 (RFC 9110 section 10.1.1); an empty body needs none.
            expect is not None and minor == b"1" and (framing is Framing.CHUNKED or length > 0),
        )
        if expect is None and self._known_bytes[0]:  # whether that is answered depends on the length
            self._known = head
            self._heads.put(self._known_bytes, head)
        self._begin_body(framing, length)

    def _begin_body(self, framing: Framing, length: int) -> None:
        if framing is _IN_CHUNKS:
            self._state = _CHUNKED
            self._chunks = ChunkDecoder()
        elif length:
            self._state = _LENGTH
            self._remaining = length
        else:
            self._complete()


def _first_fault(head: bytes | bytearray, seen: int, limits: HeadLimits) -> tuple[Kind, str] | None:
    """The first byte by which `head`, be it finished or not, cannot become one that is served: refused at once, rather
    than at a time limit. The first `seen` bytes are known to be free of bare LF. Whatever is added to `head`, the
    answer stays, so a client is told the same however its bytes were cut."""
    if head[0] not in _FIRST_BYTE or (head[0] == 13 and head[1:2] not in b"\n"):
        return Kind.BAD_REQUEST, "this is not HTTP/1.1 (TLS or HTTP/2 on a plain port?)"
    size = len(head)
    faults: list[tuple[int, Kind, str]] = []  # by position
    bare = _BARE_LF.search(head, max(0, seen - 1))
    if bare is not None:
        faults.append((bare.start(), Kind.BAD_REQUEST, "a line of the head does not end in CRLF"))
    if size > limits.line + 1 and head.find(b"\r\n", 0, limits.line + 2) < 0:
        detail = f"the request line is longer than {limits.line} bytes"
        faults.append((limits.line + 1, Kind.LINE_TOO_LONG, detail))
    if size > limits.head:
        faults.append((limits.head, Kind.HEAD_TOO_LARGE, f"the head is larger than {limits.head} bytes"))
    return min(faults, key=itemgetter(0))[1:] if faults else None


def _repeated(fields: list[Field]) -> str | None:
    """The name of a field that may occur once and does so more often."""
    seen = set()
    for lower, _, _ in fields:
        if lower in seen:
            return lower.decode()
        if lower in _ONCE:
            seen.add(lower)
    return None
