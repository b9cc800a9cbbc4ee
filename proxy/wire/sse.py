"""Where events end in a stream of bytes, and what an event's lines say.

Lives here: `EventFraming`, `EventCutter` (bytes that may be written now, whole events to look at), `split_events`.
May not live here: what an event means (dialects), who waits for it (relay).
How it works: bytes flow up to the last event boundary of a read; the unfinished tail waits, so that an error event
can always be put at a boundary (DESIGN 6). A boundary is searched in new bytes only, with two bytes carried over, so
the cost stays linear however the bytes are cut. Beyond `hold_limit` the tail flows too, and `is_open` says that nothing
may be put there; beyond `event_limit` an event is not shown to anybody.
Doubted: a blank line that ends in a lone CR may be half of a CRLF, so it waits for the next byte, except after another
CR: streams of bare CR would otherwise always lag by one event (WHATWG HTML 9.2.6 allows CR, LF and CRLF, mixed).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final


class EventFraming(Enum):
    """How a streamed answer is cut into events."""

    SSE = "sse"
    NDJSON = "ndjson"
    JSON_ARRAY = "json_array"  # Gemini without alt=sse: one array, its elements are the events
    NONE = "none"  # not cut at all: every byte flows, nothing can be put between


# Line ends are atomic, else "\r\n" would be read as two of them. The run of all blank lines after a line is one match.
_BLANK_LINES: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)+")
# In a JSON array: a whole string, or a run of brackets, so that a read of brackets alone costs few matches. Possessive,
# so that a long string without a closing quote costs a single pass; one set first, so that all else is skipped quickly.
_STRUCTURE: Final = re.compile(
    rb'["\[\]{}](?:(?<=")(?:[^"\\]++|\\.)*+("?)|(?<=[\[{])[\[{]*+|(?<=[\]}])[\]}]*+)', re.DOTALL
)  # fmt: skip
_STRING_REST: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)

_CLEAN_ENDS: dict[EventFraming, tuple[bytes, ...]] = {
    EventFraming.SSE: (b"\n\n", b"\r\n\r\n"),
    EventFraming.NDJSON: (b"\n",),
    EventFraming.JSON_ARRAY: (),
    EventFraming.NONE: (b"",),
}
BETWEEN: Final = b" \t\r\n,]"  # what stands between events, and behind the last one
_LONGEST_NAME_LINE: Final = (
    256  # bytes of an oversized event's `event:` line that are worth showing; real ones have 30 to 60
)


class EventCutter:
    """Cuts one streamed answer at event boundaries. Nothing is changed: what `feed` and `flush` return is the input.

    hold_limit   bytes of an unfinished event that may be withheld; beyond them it flows
    event_limit  bytes of one event that are kept for `block`; a larger event is skipped there and counted in `skipped`
    """

    __slots__ = (
        "_carry", "_depth", "_event_limit", "_event_size", "_framing", "_hold_limit", "_in_array", "_in_string",
        "_is_escaped", "_is_skipping", "_name_line", "_tail", "block", "clean_ends", "ends_skipped", "is_open",
        "skipped",
    )  # fmt: skip

    def __init__(self, framing: EventFraming, hold_limit: int = 64 * 1024, event_limit: int = 1024 * 1024) -> None:
        self.clean_ends = _CLEAN_ENDS[framing]  # how data ends that is whole events, if it begins at a boundary
        self.block = b""  # the whole events that the last feed completed, b"" if none
        self.is_open = False  # part of an unfinished event has been written: no event of ours can be put there
        self.skipped = 0  # events over event_limit so far; only their `event:` line, if any, was in a block
        self.ends_skipped = False  # whenever `skipped` has grown: whether it was the last event of the read
        self._framing = framing
        self._hold_limit = min(hold_limit, event_limit)
        self._event_limit = event_limit
        self._tail = bytearray()  # the unfinished event up to event_limit; withheld as a whole, or flowing (is_open)
        self._event_size = 0  # bytes of the unfinished event; 0: a boundary stands here
        self._is_skipping = False
        self._name_line = b""
        self._carry = b"\n"  # SSE: a boundary stands at the start of a line, as if a line had just ended
        self._depth = 0  # JSON_ARRAY: the scanner's state
        self._in_array = self._in_string = self._is_escaped = False

    def feed(self, data: bytes) -> bytes:
        """The bytes that may be written now, b"" if all of `data` has to wait. Sets `block`."""
        # The usual read is whole events: 0.15 us for 300 bytes (python -m timeit -s "from proxy.wire.sse import
        # EventCutter as C, EventFraming as F; c = C(F.SSE); d = b'data: ' + b'x' * 292 + b'\n\n'" "c.feed(d)")
        if not self._event_size and data.endswith(self.clean_ends) and len(data) <= self._event_limit:
            self.block = data
            return data
        return self._feed_unfinished(data)

    @property
    def is_between(self) -> bool:
        """Whether a boundary stands here."""
        return not self._event_size

    def flush(self) -> bytes:
        """The withheld tail, when the message has ended properly. `block` then holds the unfinished event, also what
        was written of it before. The cutter is at a boundary afterwards."""
        rest = b"" if self.is_open else bytes(self._tail)
        self.block = self._note_skipped() if self._is_skipping else bytes(self._tail)
        self._reset()
        return rest

    def _feed_unfinished(self, data: bytes) -> bytes:
        self.block = b""
        if self._framing is EventFraming.NONE or not data:
            return data
        first, last = self._find_boundaries(data)
        if last < 0:
            return self._hold(data)
        done = data[:last]
        out = done if self.is_open or not self._tail else bytes(self._tail) + done
        if self._is_skipping:
            self.block = self._note_skipped() + self._without_oversized(data[first:last])
        else:
            self.block = self._without_oversized(bytes(self._tail) + done if self.is_open else out)
        self._reset()
        if last < len(data):
            out += self._hold(data[last:])
        return out

    def _without_oversized(self, block: bytes) -> bytes:
        if len(block) <= self._event_limit:
            if self.ends_skipped and block.strip(BETWEEN):
                self.ends_skipped = False
            return block
        kept = []
        for event in _whole_events(block, self._framing):
            if len(event) > self._event_limit:
                self._keep_name_line(event)
                event = self._note_skipped()
            elif event.strip(BETWEEN):
                self.ends_skipped = False
            kept.append(event)
        return b"".join(kept)

    def _keep_name_line(self, event: bytes) -> None:
        # The name of an oversized event still tells how a stream ended: `response.completed` repeats the whole answer,
        # images included, and is the one event of its stream that must not be missed.
        head = event[:_LONGEST_NAME_LINE]
        end = head.find(b"\n")
        self._name_line = head[: end + 1] + b"\n" if end > 0 and head.startswith(b"event:") else b""

    def _note_skipped(self) -> bytes:
        self.skipped += 1
        self.ends_skipped = True
        name_line, self._name_line = self._name_line, b""
        return name_line

    def _hold(self, data: bytes) -> bytes:
        """Takes bytes of an unfinished event; returns those that flow all the same."""
        self._carry = (self._carry + data[-2:])[-2:]
        self._event_size += len(data)
        if self._is_skipping:
            return data
        self._tail += data
        out = b""
        if self.is_open:
            out = data
        elif self._event_size > self._hold_limit:
            self.is_open = True
            out = bytes(self._tail)
        if self._event_size > self._event_limit:
            self._is_skipping = True
            self._keep_name_line(bytes(self._tail[:_LONGEST_NAME_LINE]))
            self._tail = bytearray()
        return out

    def _reset(self) -> None:
        if self._event_size:
            self._tail.clear()
            self._event_size = 0
        self.is_open = self._is_skipping = False
        self._carry = b"\n"

    def _find_boundaries(self, data: bytes) -> tuple[int, int]:
        """Offsets of the first and the last boundary in `data` (0: before its first byte), (-1, -1) if none."""
        if self._framing is EventFraming.SSE:
            return _sse_boundaries(self._carry, data)
        if self._framing is EventFraming.NDJSON:
            return data.find(b"\n") + 1 or -1, data.rfind(b"\n") + 1 or -1
        return self._scan_array(data)

    def _scan_array(self, data: bytes) -> tuple[int, int]:
        at = 0
        if self._in_string:
            at = self._skip_string(data, 1 if self._is_escaped else 0)
        first = last = -1
        depth, in_array = self._depth, self._in_array
        for found in _STRUCTURE.finditer(data, at):
            at, end = found.span()
            byte = data[at]
            if byte == 0x22:
                if found[1] != b'"':  # the closing quote is not there yet
                    self._skip_string(data, end)
                    break
            elif byte in b"[{":
                if depth == 0:
                    in_array = byte == 0x5B
                depth += end - at
            else:
                # Behind the bracket that leaves 1 within an array or 0, and behind each further one of its run.
                before = max(depth - in_array, 1)
                depth = max(depth - (end - at), 0)
                if before <= end - at:
                    last = end
                    first = at + before if first < 0 else first
        self._depth, self._in_array = depth, in_array
        return first, last

    def _skip_string(self, data: bytes, at: int) -> int:
        """From within a string: the offset behind its closing quote, or the end."""
        rest = _STRING_REST.match(data, at)
        end = rest.end() if rest else at
        self._in_string = end == len(data) or data[end] == 0x5C
        self._is_escaped = end < len(data) and self._in_string  # a backslash is the last byte here
        return end + 1


def _sse_boundaries(carry: bytes, data: bytes) -> tuple[int, int]:
    shift = len(carry)
    joined = carry + data
    if b"\r" not in joined:  # rfind is five times faster than the search for every mixture of line ends
        last = joined.rfind(b"\n\n")
        if last < 0:
            return -1, -1
        first = _run_end(joined, joined.find(b"\n\n") + 2)
        return max(first - shift, 0), last + 2 - shift
    first = last = -1
    for found in _BLANK_LINES.finditer(joined):
        end = found.end()
        if end == len(joined) and joined.endswith(b"\r") and not joined.endswith(b"\r\r"):
            end -= 1  # perhaps half of a CRLF: the boundary before it holds all the same, if there is one
            if not _BLANK_LINES.fullmatch(joined, found.start(), end):
                continue
        last = end
        first = end if first < 0 else first
    if last < 0:
        return -1, -1
    return max(first - shift, 0), max(last - shift, 0)


def _run_end(joined: bytes, at: int) -> int:
    while joined[at : at + 1] == b"\n":
        at += 1
    return at


def _whole_events(block: bytes, framing: EventFraming) -> Iterator[bytes]:
    """The events of a block that ends at a boundary, one by one."""
    if framing is EventFraming.NDJSON:
        yield from block.splitlines(keepends=True)
        return
    if framing is EventFraming.JSON_ARRAY:
        yield block  # elements of more than a read are alone in their block
        return
    start = 0
    for found in _BLANK_LINES.finditer(block):
        yield block[start : found.end()]
        start = found.end()
    if start < len(block):
        yield block[start:]


_BOM: Final = b"\xef\xbb\xbf"


def split_events(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (event name, data) pairs of whole SSE events (WHATWG HTML 9.2.6): several data lines joined by LF, comments,
    `id:` and `retry:` left out, an event without data too unless it has a name.

    Two things that no parser of the standard reads, but that providers send (WIRE 6), are shown as well: a bare JSON
    text between events as ("", text), and a field `error: {...}` as ("error", {...}).
    """
    if block.startswith(_BOM):
        block = block[3:]
    name = b""
    data: list[bytes] = []
    bare: list[bytes] = []
    for line in block.splitlines():
        if not line:
            if data or name or bare:
                yield name, b"\n".join(data or bare)
                name = b""
                data = []
                bare = []
        elif bare or line[0] == 0x7B:
            bare.append(line)
        elif line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip()
        elif line.startswith(b"error:"):
            name = b"error"
            bare.append(line[6:].strip())
        elif line == b"data":
            data.append(b"")
    if data or name or bare:
        yield name, b"\n".join(data or bare)
