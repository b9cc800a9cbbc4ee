"""One event of a stream that may be resumed: what it is to the client, and where in its bytes the text stands.

Lives here: `What`, `Seen`, `EventReader` (dialects give `_see`), whole events of a block, exact spans of JSON values,
text as units that can be compared.
May not live here: what the client has and what a second stream may add to it (resume), names of one vendor.
How it works: an event is walked level by level as raw members with spans, so that any value can be replaced and all
other bytes stay. Text events of one stream are alike but for their text: the bytes before and behind it are learned
from one that was walked, and the next that has exactly these is recognised without a walk.
Doubted: nothing is guessed. What could be read in two ways (a member twice, JSON over several lines, bytes that are not
UTF-8) is OTHER, and a stream that has it is not resumed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

import msgspec
import orjson

from proxy.dialects.body import Span, every_member, without_half_pairs
from proxy.dialects.call import UnreadableBody
from proxy.wire.sse import split_events

Edit = tuple[Span, bytes]


class What(Enum):
    """What an event is to a client that collects the text."""

    IDLE = "idle"  # a comment, a ping, an empty chunk, a report of usage: it can be left out, and can be repeated
    BEGIN = "begin"  # of the message, once in a stream
    OPEN = "open"  # of a block of text, perhaps with its first text
    TEXT = "text"
    END = "end"  # of a block or of the stream, perhaps with the last text
    ERROR = "error"
    OTHER = "other"  # anything that cannot be joined: tools, reasoning, several choices, the unreadable


class Seen(NamedTuple):
    """One event. Spans are offsets in its bytes."""

    what: What
    texts: tuple[Span, ...] = ()  # the same text once or more often, within the quotes
    marks: tuple[tuple[str, Span], ...] = ()  # raw values that are the same in all events of a stream
    block: Span | None = None  # its index, where a dialect has blocks


UNREADABLE = (UnreadableBody, ValueError, msgspec.MsgspecError, RecursionError)
_IDLE, _OTHER, _ERROR = Seen(What.IDLE), Seen(What.OTHER), Seen(What.ERROR)
_EMPTY = frozenset((b"null", b"false", b'""', b"[]", b"{}"))
_LONGEST_LEARNED = 16 * 1024  # bytes of an event; Perplexity's have 5 KB and are not resumed, all others below 1
_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+')  # within the quotes
# Padding against guessing text by the length of events: behind all else, of another length each time (WIRE 2).
_PADDING = re.compile(rb'"(?:obfuscation|p)":"(?=[A-Za-z0-9]*+"\}\Z)')
_rest_of_padding = re.compile(rb'[A-Za-z0-9]*+"\}[ \r\n]*+').fullmatch
_nothing_more = re.compile(rb"[ \r\n]*+").fullmatch


class EventReader:
    """Reads the events of one stream, and learns what its usual text event looks like."""

    __slots__ = ("head", "_ends_as_learned", "_tail")

    def __init__(self) -> None:
        self.head = b""  # how the usual event begins, up to the quote before its text; b"": nothing was learned yet
        self._tail = b'"'  # how it goes on behind its text
        self._ends_as_learned = _nothing_more

    def usual_text(self, event: bytes) -> bytes | None:
        """The raw text of an event that is exactly as the usual one but for its text; else None."""
        head = self.head
        if head and event.startswith(head):
            found = _STRING.match(event, len(head))
            if found is not None:
                end, tail = found.end(), self._tail
                if event.startswith(tail, end) and self._ends_as_learned(event, end + len(tail)):
                    raw = found[0]
                    if raw.isascii() or _is_utf8(raw):
                        return raw
        return None

    def read(self, event: bytes) -> Seen:
        """Any event. Never raises, whatever the bytes are."""
        pieces = list(split_events(event))
        if not pieces:
            return _IDLE
        name, data = pieces[0]
        if name == b"error":
            return _ERROR
        start = event.find(data)
        is_one_line = start > 0 and event[:start].endswith((b"data:", b"data: ")) and event.find(data, start + 1) < 0
        if not is_one_line or not data or len(pieces) > 1:
            return _ERROR if b'"error"' in data else _OTHER
        if not _is_utf8(event):
            return _OTHER
        # The same structure and the same offsets, without what msgspec refuses.
        walkable = without_half_pairs(event) or event
        try:
            seen = self._see(name, walkable, (start, start + len(data)))
        except UNREADABLE:
            return _OTHER
        if seen.what is What.TEXT and len(seen.texts) == 1 and len(event) <= _LONGEST_LEARNED:
            self._learn(event, seen.texts[0])
        return seen

    def _see(self, name: bytes, event: bytes, data: Span) -> Seen:
        """One event whose JSON, or whatever it is, stands at `data`. Raises what is UNREADABLE."""
        raise NotImplementedError

    def _learn(self, event: bytes, text: Span) -> None:
        start, end = text
        self.head, self._tail = event[:start], event[end:].rstrip(b" \r\n")
        self._ends_as_learned = _nothing_more
        padding = _PADDING.search(self._tail)
        if padding is not None:
            self._tail = self._tail[: padding.end()]
            self._ends_as_learned = _rest_of_padding


# -- events of a block -------------------------------------------------------------------------------------------------

_BLANK_LINES = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)+")


def whole_events(block: bytes) -> Iterator[bytes]:
    """The events of a block that ends at a boundary, one by one, with the blank lines behind them. What stands behind
    the last blank line counts as an event, too."""
    start = 0
    if b"\r" not in block:  # then it is done in a tenth of the time
        while (end := block.find(b"\n\n", start) + 2) > 1:
            while block.startswith(b"\n", end):
                end += 1
            yield block[start:end]
            start = end
    else:
        for found in _BLANK_LINES.finditer(block):
            yield block[start : found.end()]
            start = found.end()
    if start < len(block):
        yield block[start:]


def rewritten(event: bytes, edits: list[Edit]) -> bytes:
    """`event` with other bytes at some spans, which do not overlap."""
    for (start, end), value in sorted(edits, reverse=True):
        event = event[:start] + value + event[end:]
    return event


# -- values in JSON ----------------------------------------------------------------------------------------------------

_KEY = re.compile(rb'[ \t\r\n]*+,?+[ \t\r\n]*+"(?:[^"\\]++|\\.)*+"[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_one_element = msgspec.json.Decoder(tuple[msgspec.Raw]).decode  # stops at a second one


def members(event: bytes, span: Span) -> dict[str, Span]:
    """Where the values of the JSON object at `span` stand. UNREADABLE where it is none, or has a name twice."""
    found: dict[str, Span] = {}
    pairs = every_member(event[slice(*span)])
    at = event.index(b"{", span[0]) + 1
    for name, raw in pairs:
        key = _KEY.match(event, at)
        if key is None or name in found:
            raise UnreadableBody(f'"{name}" occurs twice')
        at = key.end() + len(raw)
        found[name] = (key.end(), at)
    return found


def only_element(event: bytes, span: Span) -> Span | None:
    """Where the one element of the JSON list at `span` stands; None if it has none. UNREADABLE where it is no list,
    or has several."""
    text = event[slice(*span)]
    if text.startswith(b"[") and not text[1:-1].strip():
        return None
    (raw,) = _one_element(text)
    start = span[0] + len(text) - len(text[1:].lstrip())
    return start, start + len(memoryview(raw))


def is_filled(event: bytes, span: Span | None) -> bool:
    """False where nothing stands, or what providers put where nothing is."""
    return span is not None and event[slice(*span)] not in _EMPTY


def are_empty(event: bytes, names: dict[str, Span], but: frozenset[str]) -> bool:
    """Whether all of the members are empty, apart from some."""
    return all(name in but or event[slice(*span)] in _EMPTY for name, span in names.items())


def within_quotes(event: bytes, span: Span) -> Span:
    """Where the text of the JSON string at `span` stands. UNREADABLE where it is none."""
    start, end = span
    if event[start : start + 1] != b'"' or _STRING.fullmatch(event, start + 1, end - 1) is None:
        raise UnreadableBody("a string is meant to stand here")
    return start + 1, end - 1


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


# -- text that can be compared -----------------------------------------------------------------------------------------


def as_units(raw: bytes) -> bytes:
    """Raw text of JSON strings as UTF-16 units, two bytes each. In these an emoji is equal to its halves in two events,
    and a letter to its escape."""
    quoted = b'"%b"' % raw
    try:
        return str(orjson.loads(quoted)).encode("utf-16-le")
    except ValueError:
        return str(json.loads(quoted)).encode("utf-16-le", "surrogatepass")  # halves without their other halves


def as_raw(units: bytes) -> bytes:
    """UTF-16 units as the text of a JSON string. Halves become escapes."""
    text = units.decode("utf-16-le", "surrogatepass")
    try:
        return orjson.dumps(text)[1:-1]
    except TypeError:
        return json.dumps(text)[1:-1].encode()
