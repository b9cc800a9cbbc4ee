"""What the meters of all dialects share: reading what an answer reports about its usage, while it passes.

Lives here: `EventMeter` for streams, `AnswerMeter` for answers that are one JSON document, `Reading`, `reader`.
May not live here: names that only one vendor uses (the dialects), what a figure means (usage).
How it works: a stream's event is searched for a few bytes that every report has, and parsed only if they are there. The
bytes are part of a key, and a quote inside a JSON string is escaped, so that a model's text is at most parsed in vain;
what counts is where the report stands in the parsed event. Events are kept undecoded until the output has been
reported, for whoever has to count their text. Of a document that is too long to be kept, both ends are.
Doubted: a usage in the middle of a document of more than 80 KiB is not found. An event that was too large for the
cutter is not seen at all, so that a `response.completed` of more than 1 MiB (images) goes unreported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, TypeVar

import msgspec

from proxy.dialects.body import without_half_pairs
from proxy.outcome import Usage
from proxy.wire.sse import split_events

WHOLE: Final = 64 * 1024  # bytes of a document below which it is kept whole (DESIGN 7); beyond, its last so many
HEAD: Final = 16 * 1024  # bytes kept of its beginning then
_NEAR: Final = 1024  # bytes of both ends that are looked at first
# A hostile document may repeat a key all over; a real one has it once or twice.
_MOST_KEYS: Final = 8
_MOST_ENDS: Final = 12
_FIRST_EVENTS: Final = 4  # among which the model is looked for; Azure's first one has none

_BEGINNINGS: Final = frozenset((b"{", b"[", b" ", b"\t", b"\r", b"\n"))
T = TypeVar("T")


class Reading(NamedTuple):
    """What one event, or one document, says."""

    model: str | None = None
    usage: Usage | None = None


def reader(kind: type[T]) -> Callable[[bytes], T]:
    """A function that reads JSON as a `kind`, and gives an empty one where it is none, the same each time. What `kind`
    does not name is checked and passed over, never built."""
    decode = msgspec.json.Decoder(kind).decode
    empty = kind()

    def read(data: bytes) -> T:
        if data[:1] not in _BEGINNINGS:  # see watch.parse: exceptions are not cheap
            return empty
        try:
            return decode(data)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            pass
        changed = without_half_pairs(data)  # half of an emoji is no reason to lose a report
        if changed is None:
            return empty
        try:
            return decode(changed)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            return empty

    return read


class EventMeter:
    """Reads a stream. What `feed` keeps is not bounded here: whoever feeds takes it away in time (`take`).

    Dialects give `_see`, `_model_in` and

    needle   bytes that every event with a report has
    running  where servers report in every event: bytes of a report that replaces all before it. Of several such events
             only the last is read, and only when somebody asks or when one comes that has the needle and not this
    unless   bytes of an event in which a model may have made up keys of its own
    """

    __slots__ = ("_blocks", "_model", "_recent", "_usage", "is_reported", "kept")
    needle = b"\xff"  # in no JSON
    running = b"\xff"
    unless = b"\xff"

    def __init__(self) -> None:
        self.is_reported = False
        self.kept = 0
        self._blocks: list[bytes] = []
        self._model: str | None = None
        self._recent = b""  # a block that reports later than `_usage` does
        self._usage: Usage | None = None

    def feed(self, data: bytes, is_text: bool = False) -> None:
        # By the relay it gets 8 KiB at once: 0.10 us for each delta of openai-chat
        # (python -m timeit -s "from tests.dialects.cost import DELTA, meter" "m = meter('openai-chat')" "for _ in
        # range(4): m.feed(DELTA * 25)"). One by one: openai-chat 0.30 us, half of it in rfind, anthropic-messages 0.33,
        # openai-responses 0.40, ollama 0.22; a running report: gemini 0.8, openai-chat 0.55 (python -m timeit -s "from
        # tests.dialects.cost import DELTA, feed_hundred, meter; m = meter('openai-chat')" "feed_hundred(m, DELTA)")
        if not is_text and data.rfind(self.needle) >= 0:
            self._look(data)
        if not self.is_reported:
            self._blocks.append(data)
            self.kept += len(data)

    def usage(self) -> Usage:
        """What has been reported. It is the caller's to go on with: nothing is fed any more."""
        self._read_recent()
        return self._usage or Usage()

    def take(self) -> list[bytes]:
        self._model = self.model
        blocks, self._blocks = self._blocks, []
        self.kept = 0
        return blocks

    @property
    def model(self) -> str | None:
        if self._model is None:
            for data in islice(self._first_events(), _FIRST_EVENTS):
                self._model = self._model or self._model_in(data)
        return self._model

    def _first_events(self) -> Iterator[bytes]:
        for block in self._blocks[:_FIRST_EVENTS]:
            yield from self._split(block)

    def _look(self, block: bytes) -> None:
        if self.is_reported and len(block) <= WHOLE and self._replaces(block):
            self._recent = block
            return
        self._read_recent()
        self._read(block)

    def _replaces(self, data: bytes) -> bool:
        return data.rfind(self.running) >= 0 and data.rfind(self.unless) < 0

    def _read_recent(self) -> None:
        if self._recent:
            recent, self._recent = self._recent, b""
            self._read(recent)

    def _read(self, block: bytes) -> None:
        events = [event for event in self._split(block) if event.rfind(self.needle) >= 0]
        last = next((at for at in reversed(range(len(events))) if self._replaces(events[at])), 0)
        before = self._usage
        for event in events[last:]:
            self._see(event)
        if last and self._usage is before:  # it only looked like a report
            for event in events[:last]:
                self._see(event)

    def _report(self, usage: Usage, model: str | None, is_output: bool) -> None:
        """The provider has told `usage`; `is_output`: so that the text need not be counted."""
        if self.is_reported and usage.output is None:
            return  # it says less than the one before
        self._usage = usage
        self._model = self._model or model
        if is_output and not self.is_reported:
            self.take()
            self.is_reported = True

    def _split(self, block: bytes) -> Iterable[bytes]:
        """The JSON texts of whole events."""
        return [data for _, data in split_events(block)]

    def _see(self, data: bytes) -> None:
        """One event that has the needle."""
        raise NotImplementedError

    def _model_in(self, data: bytes) -> str | None:
        """The model that an event names."""
        raise NotImplementedError


class AnswerMeter:
    """Reads one JSON document, fed in pieces of any size. `kept` and `take` give it only if it was kept whole.

    read   what a document says
    keys   members of its top level that may hold the report, the likeliest first
    model  the member that names the model
    """

    __slots__ = ("_body", "_head", "_keys", "_model", "_read", "_reading")

    def __init__(self, read: Callable[[bytes], Reading], keys: tuple[str, ...], model: str = "model") -> None:
        self._read = read
        self._keys = keys
        self._model = model
        self._body = bytearray()  # the document, or its end
        self._head: bytes | None = None  # its beginning, once it is too long to be kept
        self._reading: Reading | None = None  # what has been read out of it so far

    def feed(self, data: bytes, is_text: bool = False) -> None:
        body = self._body  # a piece of 16 KiB: 1.1 us
        if self._head is None and len(body) + len(data) >= WHOLE:
            self._head = bytes(body[:HEAD] + data[:HEAD])[:HEAD]
        body += data if self._head is None else data[-WHOLE:]
        if len(body) > 2 * WHOLE:
            del body[:-WHOLE]
        self._reading = None

    def usage(self) -> Usage:
        return self._look().usage or Usage()

    def take(self) -> list[bytes]:
        self._look()
        whole = [bytes(self._body)] if self.kept else []
        self._body.clear()
        return whole

    @property
    def model(self) -> str | None:
        return self._look().model

    @property
    def is_reported(self) -> bool:
        """To be asked at the end: it reads the document."""
        usage = self._look().usage
        return usage is not None and usage.output is not None

    @property
    def kept(self) -> int:
        return len(self._body) if self._head is None else 0

    def _look(self) -> Reading:
        if self._reading is None:
            body, head = self._body, self._head
            # Most of a long document is text between the model and the usage: 64 KiB take 18 us instead of 35
            # (python -m timeit -s "from bench.orders import unary_body; from proxy.dialects import DIALECTS; b =
            # unary_body(65000)" "m = DIALECTS['openai-chat'].meter(False); m.feed(b); m.usage()"), a short one longer.
            if len(body) > 16 * _NEAR:
                self._reading = self._look_near(bytes(head or body[:_NEAR])[:_NEAR], bytes(body[-_NEAR:]))
            if self._reading is None:
                whole = bytes(body[-WHOLE:])
                self._reading = self._read(whole) if head is None else self._look_at_ends(head, whole)
        return self._reading

    def _look_near(self, head: bytes, tail: bytes) -> Reading | None:
        """What the very ends say; None if that is not all there is to know."""
        if b"market_cost" in tail:  # Vercel's figures mean what the model's name says (usage)
            return None
        found = self._look_at_ends(head, tail)
        return found if found.usage is not None and found.model is not None else None

    def _look_at_ends(self, head: bytes, tail: bytes) -> Reading:
        readings = (self._read(text) for key in self._keys for text in _around(key, head, tail))
        found = next((reading for reading in readings if reading.usage is not None), Reading())
        if found.model is None:
            models = (self._read(text).model for text in _around(self._model, head, tail))
            found = found._replace(model=next(filter(None, models), None))
        return found


_VALUE_ENDS: Final = re.compile(rb'["}](?=[ \t\r\n]*[,}])')


def _around(key: str, head: bytes, tail: bytes) -> Iterator[bytes]:
    """Texts that are a JSON object only if they hold the member `key` of the document's own top level.

    From a key in the tail on, all brackets close if it stands at depth one, and with a brace before it that is an
    object; deeper, there is a bracket too many. Up to the end of a value in the head the same holds the other way
    round. Inside a string no quote stands without a backslash, so that `"key"` cannot be part of one.
    """
    needle = b'"%b"' % key.encode()
    at = len(tail)
    for _ in range(_MOST_KEYS):
        at = tail.rfind(needle, 0, at)
        if at < 0:
            break
        yield b"{" + tail[at:]
    at = -1
    for _ in range(_MOST_KEYS // 4):
        at = head.find(needle, at + 1)
        if at < 0:
            break
        for end in islice(_VALUE_ENDS.finditer(head, at + len(needle)), _MOST_ENDS):
            yield head[: end.end()] + b"}"
