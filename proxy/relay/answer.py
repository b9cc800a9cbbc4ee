"""An upstream's answer on its way to the client.

Lives here: `Answer`: the head the client gets, the framing of the body, events and their boundaries, the honest ending.
May not live here: phases and time limits (exchange), parsing (wire), what an event means (dialects).
How it works: the pieces of one read go out in one write, as one chunk of ours, or raw under content-length. A streamed
answer of a dialect that we read is written up to its last event boundary; when it breaks, the rest is dropped, the
dialect's error event goes out at the boundary, and the terminating chunk never does (DESIGN 6).
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache, partial
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.catalog.mask import Mask, MaskedBody
from proxy.dialects.call import Watch
from proxy.dialects.openai import without_usage_event
from proxy.dialects.resume import Said, resumable
from proxy.outcome import Failure, Kind, Phase, Receipt, Side
from proxy.relay.masking import SealedError
from proxy.relay.metering import FIRST_BYTES, Metering
from proxy.relay.options import ByteLimits
from proxy.wire import encode
from proxy.wire.head import Framing, RequestHead, ResponseHead
from proxy.wire.sse import BETWEEN, EventCutter, EventFraming

if TYPE_CHECKING:
    import asyncio

    from proxy.relay.absent import AbsentClient
    from proxy.relay.client import ClientConnection
    from proxy.relay.exchange import Exchange
    from proxy.relay.held import Held

# Looked up once: on Python 3.11 a member of an enum costs 0.12 us each time, and a request has thirty of them.
_NO_BODY: Final = Framing.NONE
_LENGTH: Final = Framing.LENGTH
_NOT_CUT: Final = EventFraming.NONE

VIA: Final = b"via: 1.1 llm-proxy\r\n"
_ERROR_WITHIN: Final = 64  # bytes at the start of a document, where all vendors' errors say that they are one
_UNREADABLE: Final = "the provider's error came in a coding that this proxy cannot read, so it is not sent on"
# WIRE 5
_REQUEST_IDS: Final = (b"x-request-id", b"request-id", b"x-generation-id", b"apim-request-id", b"x-ds-trace-id")


class Answer:
    """From the upstream's head on. `closes` says that the client's connection ends with this answer; `hides_usage` that
    its stream was asked to report usage by us and not by the client; `lines` are fields of ours for the client; `mask`
    knows the credential of ours that an error may repeat; `resumes`: if it breaks off, another one may carry it on."""

    __slots__ = (
        "bytes_out", "closes", "cutter", "heard_at", "is_chunked", "is_stream", "metering", "remark", "said", "status",
        "stop_at", "watch", "_dialect", "_ends", "_events", "_framing", "_hides_usage", "_is_between", "_is_blind",
        "_limits", "_mask", "_masked", "_prefix", "_read_at", "_request_id", "_resumes", "_sealed", "_skipped",
        "_transport", "_unread",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        request: RequestHead,
        head: ResponseHead,
        limits: ByteLimits,
        metering: Metering | None,
        mask: Mask | None,
        lines: bytes,
        hides_usage: bool,
        resumes: bool,
    ) -> None:
        client, call, dialect = exchange.client, exchange.call, exchange.dialect
        closes = not (request.keep_alive and exchange.has_body and client.can_go_on)
        self._transport: asyncio.Transport | AbsentClient | Held = client.transport
        self._dialect = dialect
        self._limits = limits
        self.status = head.status
        self.bytes_out = 0
        self.stop_at = inf  # value of `bytes_out` beyond which its budget is looked at again
        self.heard_at = 0.0  # when its link passed on something by itself that was progress
        self.cutter: EventCutter | None = None
        self.watch: Watch | None = None
        self.metering = metering
        self.said: Said | None = None  # what the client has of it
        self._ends: tuple[bytes, ...] = ()
        self._is_between = False  # a boundary stands here, and nothing was too large to be looked at
        self._events = 0  # of what it carries on
        self._resumes = resumes
        self._hides_usage = hides_usage
        self._request_id = exchange.id
        self._mask = mask
        self._masked: MaskedBody | None = None  # the body is searched for our credential
        self._is_blind = False  # the last event was too large to be looked at
        self._skipped = 0
        self._unread: list[bytes] | None = None  # events for `metering`
        self._read_at: float = inf  # value of `bytes_out` beyond which it reads them
        self._framing = call.framing or dialect.framing if call is not None else _NOT_CUT
        is_stream = call is not None and call.stream and 200 <= head.status < 300 and head.framing is not _NO_BODY
        coding = head.get(b"content-encoding")
        is_encoded = coding is not None and coding.lower() not in (b"identity", b"")
        if is_encoded and metering is not None and coding is not None:
            metering.decode(coding, self._framing if is_stream else None)
        has_body = head.framing is not _NO_BODY
        sealed: SealedError | None = None
        if self._mask is not None and head.status >= 400 and has_body:
            sealed = self._search(self._mask, head, coding if is_encoded else None)
        is_encoded = is_encoded and is_stream
        self.remark = "the stream came compressed, its end could not be read" if is_encoded else ""
        # A streamed answer may have to carry an error event, so it never goes out under a length.
        self.is_stream = is_stream and not is_encoded
        has_length = head.framing is _LENGTH and not self.is_stream
        speaks_chunks = request.version == b"1.1"
        self.is_chunked = speaks_chunks and has_body and not has_length
        self.closes = closes or (has_body and not has_length and not speaks_chunks)
        self._prefix = _client_head(request, head, self.is_chunked, has_length, self.closes, lines, self._mask)
        if sealed is not None and mask is not None:
            sealed.head_of = partial(_retold, request, self.closes, lines, mask)
        self._sealed = sealed  # as `_masked`, of one that comes compressed

    def feed(self, pieces: list[bytes], is_last: bool) -> bool:
        """Send on what one read brought; `is_last`: the message has ended properly. True if that was progress."""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        progress = True
        # Asked for together, since among thousands of streams each is somewhere else: so the processor waits once.
        watch = self.watch
        unread = self._unread
        transport = self._transport
        if watch is None and self.is_stream and self._choose_events(data):
            watch = self.watch
            unread = self._unread
        if watch is not None:
            block = data
            is_whole = self._is_between and data.endswith(self._ends) and len(data) <= self._limits.event
            if not is_whole:  # else the cutter would return what it gets; among 5,000 streams each look costs 0.4 us
                data, block = self._cut(data)
            progress = watch.feed(block) if block else False
            if unread is not None and block:
                unread.append(block)
                if watch.has_report and self._hides_usage:
                    data = without_usage_event(data)
            if self.said is not None:
                self._note_said(self.said, block)
            if not is_whole:
                progress = self._note_skipped(block) or progress
            if is_last:
                data += self._flush(watch)
            if watch.has_error and self._mask is not None:
                data = self._mask.hide(data)
        elif self.is_stream:
            progress = False  # empty lines before the first event
        elif self._sealed is not None:
            body = self._sealed.feed(data, is_last)
            if body is None:
                return True
            data = body
            if self._sealed.new_head:
                self._prefix, self.is_chunked = self._sealed.new_head, False
        else:
            if self.metering is not None and data:
                self.metering.feed(data)
            if self._masked is not None:
                data = self._masked.feed(data, is_last)
            elif not self.bytes_out and self._mask is not None and b'"error"' in data[:_ERROR_WITHIN]:
                # A status of 200 says nothing (WIRE 0.12): this document is an error all the same.
                self._masked = MaskedBody(self._mask)
                data = self._masked.feed(data, is_last)
        if is_last and self.lacks_end:
            is_last = False  # the message has ended, the stream has not: no last chunk (DESIGN 6)
        out = self._prefix
        if data:
            self.bytes_out += len(data)
            if self.bytes_out > self._read_at:
                self._read_usage()
            out += b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked else data
        if is_last and self.is_chunked:
            out += encode.LAST_CHUNK
        if out:
            self._prefix = b""
            transport.write(out)  # not by the client: a frame for each read, and 0.4 us if there are thousands
        return progress

    def _note_said(self, said: Said, block: bytes) -> None:
        if block:
            said.feed(block)
        if self.cutter is not None and (self.cutter.skipped or self.cutter.is_open):
            said.skip()

    @property
    def can_be_resumed(self) -> bool:
        return self.said is not None and self.said.can_resume

    @property
    def events(self) -> int:
        """Data events so far."""
        return self._events + (0 if self.watch is None else self.watch.events)

    @property
    def lacks_end(self) -> bool:
        """Whether the stream has told neither a finish nor a terminal event so far. If the event that came last was
        too large to be looked at, it may have told: then the message's own end counts."""
        return self.is_stream and (self.watch is None or not self.watch.is_complete) and not self._is_blind

    @property
    def is_said(self) -> bool:
        """Whether all of the text has come, and what was used has not: that comes at once, if it comes."""
        watch = self.watch
        if not self.is_stream:
            return self.metering is not None  # a document is sent in one go
        return watch is not None and watch.is_complete and not (watch.is_terminal or watch.has_report)

    def replace_client(self, client: ClientConnection | AbsentClient | Held) -> None:
        """`client` takes what is still to come."""
        self._transport = client.transport

    def break_off(self, failure: Failure, status: int) -> None:
        """Tell a client in the middle of a stream that it broke. The caller closes; the last chunk is never written."""
        event = b""
        if self.has_place:
            event = self._dialect.error_event(failure, status, self._request_id)
        if event and self.is_chunked:
            event = encode.chunk(event)
        if self._prefix or event:
            self._transport.write(self._prefix + event)
            self._prefix = b""

    @property
    def has_place(self) -> bool:
        """Whether an event may stand behind what the client has."""
        cutter, watch = self.cutter, self.watch
        if not self.is_stream or self._framing is EventFraming.JSON_ARRAY:  # no event can stand in an array
            return False
        return (cutter is None or not cutter.is_open) and (watch is None or not watch.is_terminal)

    # -- our credential in an error -----------------------------------------------------------------------------------

    def _search(self, mask: Mask, head: ResponseHead, coding: bytes | None) -> SealedError | None:
        """The answer is no success: it may quote what it refuses."""
        if coding is None:
            self._masked = MaskedBody(mask)
            return None
        failure = Failure(Side.UPSTREAM, Phase.DONE, Kind.ERROR_STATUS, _UNREADABLE)
        instead = self._dialect.error_body(failure, head.status, self._request_id)
        return SealedError(mask, head, coding, instead)

    # -- events -------------------------------------------------------------------------------------------------------

    def _choose_events(self, data: bytes) -> bool:
        """Look at the first bytes: some providers answer a streaming call with one JSON document, under any content
        type (WIRE 6: Gemini's errors, OpenRouter and Azure with status 200)."""
        framing = self._framing
        first = data.lstrip()[:1]
        if not first:
            return False
        is_document = first in (b"{", b"[") if framing is EventFraming.SSE else framing is EventFraming.JSON_ARRAY
        if (is_document and not (framing is EventFraming.JSON_ARRAY and first == b"[")) or framing is _NOT_CUT:
            self.is_stream = False
            return False
        self.cutter = EventCutter(framing, self._limits.buffer, self._limits.event)
        if self._resumes:
            self.said = resumable(self._dialect.name)
        self._ends = self.cutter.clean_ends
        self._is_between = True
        self.watch = self._dialect.watch()
        if self.metering is not None:
            self.metering.begin_stream(self.watch)
            self._unread = self.metering.unread
            self._read_at = float(FIRST_BYTES)
        return True

    def _read_usage(self) -> None:
        assert self.metering is not None
        self.metering.read_events()
        self._read_at = float(self.bytes_out + FIRST_BYTES)

    def _cut(self, data: bytes) -> tuple[bytes, bytes]:
        """What may be written now, and the whole events to look at."""
        cutter = self.cutter
        assert cutter is not None
        data = cutter.feed(data)
        block, cutter.block = cutter.block, b""  # nobody else looks at it, and it is as long as the read was
        self._is_between = cutter.is_between and not cutter.skipped
        return data, block

    def _note_skipped(self, block: bytes) -> bool:
        """Whether an event of this read or an earlier one was too large to be looked at. If it is the last so far,
        nobody can say what it told. True if it was of this read: that is progress."""
        cutter = self.cutter
        assert cutter is not None
        if cutter.skipped == self._skipped:
            if self._is_blind and block.strip(BETWEEN):
                self._is_blind = False
            return False
        self._skipped = cutter.skipped
        self._is_blind = cutter.ends_skipped
        return True

    def _flush(self, watch: Watch) -> bytes:
        """The rest behind the last boundary, once the message has ended. It goes out only if the stream is complete:
        otherwise an error event takes its place."""
        cutter = self.cutter
        assert cutter is not None
        is_open = cutter.is_open
        rest = cutter.flush()
        if cutter.block:
            if self.metering is not None:  # first, since the watch counts for it what is nothing but text
                self.metering.read_unfinished(cutter.block)
            watch.feed(cutter.block)
        self._note_skipped(cutter.block)
        if watch.is_complete or self._is_blind:
            return without_usage_event(rest) if self._hides_usage else rest
        cutter.is_open = is_open
        return b""


def _client_head(
    request: RequestHead,
    head: ResponseHead,
    chunked: bool,
    has_length: bool,
    closes: bool,
    lines: bytes,
    mask: Mask | None,
) -> bytes:
    # x-llm-proxy-: ours alone tell that an answer is this proxy's own; another proxy like it may be the provider.
    fields, reason = encode.field_lines(head.fields, b"x-llm-proxy-"), head.reason
    if mask is not None and mask.is_in(fields + reason):  # of any answer: an id that quotes a key is on good ones, too
        fields, reason = mask.hide(fields), mask.hide(reason)
    parts = [encode.status_line(head.status, reason), fields]
    if b"date" not in head.values:  # RFC 9110 section 6.6.1: who forwards an answer without a date adds one
        parts.append(date_line())
    parts += (VIA, lines)
    if chunked:
        parts.append(encode.CHUNKED)
    elif has_length:
        parts.append(encode.content_length(head.length))
    elif head.framing is _NO_BODY and b"content-length" in head.values and head.status != 204:
        parts.append(encode.content_length(head.length))  # what a GET would have brought
    if closes:
        parts.append(encode.CLOSE)
    elif request.version == b"1.0":
        parts.append(encode.KEEP_ALIVE)
    parts.append(b"\r\n")
    return b"".join(parts)


def _retold(request: RequestHead, closes: bool, lines: bytes, mask: Mask, head: ResponseHead) -> bytes:
    """The head of a body that goes out under a length whatever it came under."""
    return _client_head(request, head, False, True, closes, lines, mask)


def date_line() -> bytes:
    return _date_line(int(time.time()))


@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:  # 3 us to make
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()


def timing_lines(receipt: Receipt, model: str | None, attempts: int) -> bytes:
    """Which exchange it is, who answers and after how many attempts, and who has taken how many milliseconds up to the
    first byte (W3C Server Timing): we, making the connection, and the provider. Waiting for the client's own body is
    nobody's. `model`: as it was asked for there."""
    first, sent = receipt.first_byte_ms or 0.0, receipt.sent_ms or 0.0
    connect = receipt.connect_ms or 0.0
    ours = max(0.0, sent - (receipt.body_ms or 0.0) - connect)
    metrics = f"llm-proxy;dur={ours:.3f}, connect;dur={connect:.3f}, provider;dur={max(0.0, first - sent):.3f}"
    lines = [
        f"server-timing: {metrics}",
        f"x-llm-proxy-request-id: {receipt.id}",
        f"x-llm-proxy-attempts: {attempts}",
        f"x-llm-proxy-provider: {receipt.provider}",
    ]
    if model is not None and model.isascii() and model.isprintable():
        lines.append(f"x-llm-proxy-model: {model}")
    return "".join(f"{line}\r\n" for line in lines).encode()


def provider_request_id(head: ResponseHead) -> str | None:
    """What the provider calls this request, for its support."""
    for name in _REQUEST_IDS:
        value = head.values.get(name)
        if value is not None:
            return value[:128].decode("latin-1")
    return None
