"""What one exchange uses: from the bytes of its answer to the figures on its receipt.

Lives here: `Metering`, one for each exchange whose request a provider has got; who can count text (`TextCounter`);
`cost_of`. May not live here: what a provider's report means (dialects), how tokens are counted (tokens), prices
(catalog).
How it works: events wait until there are 8 KiB of them, or the answer has ended, so that most of them cost a place in a
list. Then the dialect's meter reads what the provider reports, and keeps the events as they are in case it never does.
Beyond 64 KiB they are handed to the counter. At the end the provider's report wins; what it did not report is counted,
or where nobody can count, estimated from the number of bytes; each figure says which. The receipt waits for the count,
the client does not. What is kept of all streams together is bounded (`kept`): beyond it a stream is not kept any
further, and is estimated.
Doubted: an answer that is one document and larger than 64 KiB is estimated if its usage is not found in it. In the
estimate of a long request images and files count for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from proxy.catalog.snapshot import Provider, Snapshot
from proxy.dialects.call import Dialect, Watch
from proxy.dialects.factors import estimate, estimate_events, factor
from proxy.outcome import Source, Usage
from proxy.wire.inflate import Inflater, inflater
from proxy.wire.sse import EventCutter, EventFraming

if TYPE_CHECKING:
    from proxy.relay.relay import Relay

FOLD_BYTES: Final = 64 * 1024  # of events, or of a request, that are kept as they are (DESIGN 7)
_SAMPLES: Final = 128  # of a request that is too long to be counted
_SAMPLE: Final = 64  # bytes; longer than any word
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="
FIRST_BYTES: Final = (
    8 * 1024
)  # of events that wait for the meter: nearly every stream ends below it; 10,000 hold 80 MiB

Done = Callable[[Usage, str | None], None]
_REPORTED: Final = Source.REPORTED  # see exchange: a member of an enum costs 0.12 us each time

# A status of 200 says nothing (WIRE 0.12): an answer, or a stream, that begins with an error has used nothing.
REFUSED: Final = re.compile(rb'\s*(?:event: *error\b|(?:data: *)?\[?\s*\{\s*"(?:error"|type"\s*:\s*"error"))')


class Counted(Protocol):
    """Tokens of text before any factor; None: not asked for. `has_other`: the request holds more than text."""

    @property
    def output(self) -> int | None: ...
    @property
    def input(self) -> int | None: ...
    @property
    def has_other(self) -> bool: ...


class TextCounter(Protocol):
    """Counts tokens somewhere else. `server` plugs one in; no call waits."""

    def fold(self, stream: int, dialect: str, data: list[bytes]) -> bool:
        """Count events in the middle of a stream. False: they were not taken, and the stream cannot be counted."""
        ...

    def forget(self, stream: int) -> None:
        """Nobody wants to know about a stream of which something was folded."""
        ...

    def finish(
        self,
        stream: int,
        dialect: str,
        data: list[bytes],
        is_stream: bool,
        request: bytes | None,
        done: Callable[[Counted | None], None],
    ) -> None:
        """Count the last events and the request, then call `done` exactly once; None: it could not be counted."""
        ...

    async def close(self, seconds: float) -> None:
        """Wait for what is being counted, at most so many seconds, and call every `done` that is left with None."""
        ...


class Metering:
    """`unread` is filled by Answer on its straight path, which calls `read_events` after about FIRST_BYTES each."""

    __slots__ = (
        "unread",
        "_cutter",
        "_dialect",
        "_generates",
        "_has_folded",
        "_inflater",
        "_is_lost",
        "_is_opaque",
        "_is_stream",
        "_meter",
        "_number",
        "_passed",
        "_relay",
        "_request",
        "_request_size",
        "_reserved",
        "_room",
        "_taken",
        "_watch",
    )

    def __init__(self, relay: Relay, number: int, dialect: Dialect, request: bytes, generates: bool = True) -> None:
        """`number`: of the exchange; `generates`: whether its call lets the model say anything."""
        self.unread: list[bytes] = []  # whole events that the meter has not seen
        self._meter = dialect.meter(is_stream=False)
        self._room: float = inf  # bytes that the meter may keep
        self._relay = relay
        self._dialect = dialect
        self._cutter: EventCutter | None = None
        self._inflater: Inflater | None = None
        self._is_stream = False
        self._watch: Watch | None = None  # has seen what is unread
        self._number = number
        self._generates = generates
        self._has_folded = False  # the counter knows a part of the stream
        self._is_lost = False  # a part of the text is known to nobody
        self._is_opaque = False  # it comes in a coding that we do not know
        self._taken = 0  # bytes of events that are no longer kept
        self._passed = 0  # bytes of an answer that nobody else reads, decompressed as far as they could be
        self._reserved = 0
        is_long = len(request) > FOLD_BYTES
        self._request_size = _text_size(request) if is_long else len(request)
        self._request = request if not is_long and self._reserve(len(request)) else None

    def begin_stream(self, watch: Watch | None = None) -> None:
        """The answer is a stream of events, which `watch` looks at."""
        self._is_stream = True
        self._watch = watch
        self._meter = self._dialect.meter(is_stream=True)
        self._room = 0.0
        self._reserve(FIRST_BYTES)

    def decode(self, coding: bytes, framing: EventFraming | None) -> None:
        """The answer comes in a content coding: it is read on the side, bounded, while its bytes pass as they are.
        `framing`: that of its events, if it is a stream."""
        self._inflater = inflater(coding)
        if self._inflater is None:
            self._is_lost = self._is_opaque = True
        elif framing is not None:
            self.begin_stream()
            self._cutter = EventCutter(framing)

    def feed(self, data: bytes) -> None:
        """A piece of an answer that is not cut into events by anybody else."""
        size = len(data)
        if self._inflater is not None:
            data = self._inflater.feed(data)
            if self._inflater.is_broken:
                self._is_lost = True
            else:
                size = len(data)
        self._passed += size
        if self._cutter is not None and data:
            self._cutter.feed(data)
            self.unread.append(self._cutter.block)
            if sum(map(len, self.unread)) > FIRST_BYTES:
                self.read_events()
        elif data and not self._is_opaque:
            self._read(data)

    def read_events(self) -> None:
        """The meter sees what is unread."""
        watch, is_text = self._watch, False
        if watch is not None:  # counted there, which is at hand for each event: to look here as well took 0.4 us
            is_text = watch.texts == len(self.unread)
            watch.texts = 0
        events = b"".join(self.unread)
        self.unread.clear()
        if events:
            self._read(events, is_text)

    def read_unfinished(self, event: bytes) -> None:
        """The last event, whose end is missing: apart, since it would make those before it unreadable too (Gemini's
        array)."""
        self.read_events()
        self.unread.append(event)

    def _read(self, data: bytes, is_text: bool = False) -> None:
        self._meter.feed(data, is_text)
        if self._meter.kept > self._room:
            self._make_room()

    def _make_room(self) -> None:
        """More is kept than there is room for: get more room, or hand it to the counter, or forget it."""
        if self._room < FOLD_BYTES and self._reserve(FOLD_BYTES):
            self._room = float(FOLD_BYTES)
            if self._meter.kept <= FOLD_BYTES:
                return
        data = self._meter.take()
        self._taken += sum(map(len, data))
        counter = self._relay.counter
        if self._room < FOLD_BYTES or self._is_lost or counter is None:
            self._is_lost = True
        elif counter.fold(self._number, self._dialect.name, data):
            self._has_folded = True
        else:
            self._is_lost = True

    def _reserve(self, size: int) -> bool:
        """Account for `size` bytes that may be kept. False: all exchanges together keep too much already."""
        relay = self._relay
        if relay.kept + size > relay.options.bytes.kept:
            return False
        relay.kept += size
        self._reserved += size
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish(self, has_answer: bool, ended_well: bool, done: Done) -> None:
        """Work out what was used, and call `done` with it and the model that was served, now or once it is counted.
        `has_answer`: any of it arrived; `ended_well`: all of it did."""
        if self._cutter is not None:
            self._cutter.flush()
            self.read_unfinished(self._cutter.block)
        self.read_events()
        meter = self._meter
        usage, model = meter.usage(), meter.model
        needs_output = has_answer and not meter.is_reported
        needs_input = usage.input_source is not _REPORTED
        usage.complete = not needs_input and (usage.complete or (meter.is_reported and ended_well))
        if needs_output and not self._generates:
            needs_output = False
            usage.output, usage.output_source = 0, Source.COUNTED
        data = meter.take() if needs_output else []
        if not (needs_output or needs_input) or (data and not self._taken and REFUSED.match(data[0])):
            self._forget()
            self.release()
            done(usage, model)
        else:
            self._count(usage, model, needs_input, needs_output, data, done)

    def _count(
        self, usage: Usage, model: str | None, needs_input: bool, needs_output: bool, data: list[bytes], done: Done
    ) -> None:
        """Fill in what was not reported."""
        size = self._passed or self._taken + sum(map(len, data))
        # A long document is not kept: that none of its text has no tokens says nothing.
        has_text = needs_output and not self._is_lost and (bool(data) or self._has_folded or not size)
        if not has_text:
            self._forget()
            data = []

        def counted(found: Counted | None) -> None:
            self.release()
            if found is not None:
                usage.counted_input = found.input if needs_input else None
                usage.counted_output = found.output if has_text else None
            if needs_output:
                self._fill_output(usage, model, size)
            if needs_input:
                self._fill_input(usage, model, found is not None and found.has_other)
            done(usage, model)

        counter = self._relay.counter
        request = self._request if needs_input else None
        if counter is None or not (data or self._has_folded or request is not None):
            counted(None)
        else:
            counter.finish(self._number, self._dialect.name, data, self._is_stream, request, counted)

    def _forget(self) -> None:
        """Nobody needs to count what was folded."""
        if self._has_folded and self._relay.counter is not None:
            self._relay.counter.forget(self._number)
        self._has_folded = False

    def _fill_output(self, usage: Usage, model: str | None, size: int) -> None:
        # What Anthropic tells at the beginning of a stream (1 to 88 tokens, WIRE 3) is no part of it.
        if usage.counted_output is not None:
            usage.output = round(usage.counted_output * factor(model))
            usage.output_source = Source.COUNTED
        else:
            usage.output = estimate_events(self._dialect.name, size, self._is_stream)
            usage.output_source = Source.ESTIMATED

    def _fill_input(self, usage: Usage, model: str | None, has_other: bool) -> None:
        if usage.counted_input is not None:
            usage.input = round(usage.counted_input * factor(model))
            usage.input_source = Source.ESTIMATED if has_other else Source.COUNTED
        else:
            usage.input = estimate(self._request_size)
            usage.input_source = Source.ESTIMATED

    def release(self) -> None:
        """What was kept is not any more."""
        self._relay.kept -= self._reserved
        self._reserved = 0
        self._request = None


def _text_size(request: bytes) -> int:
    """About how many bytes of a long request are not base64: a photo of 5 MB is some thousand tokens and not a million.
    By samples, which take 40 us for any size (python -m timeit -s "from proxy.relay.metering import _text_size as t;
    b = b'some words in a row, and more. ' * 40000" "t(b)")."""
    step = len(request) // _SAMPLES
    places = range(0, step * _SAMPLES, step)
    encoded = sum(not request[at : at + _SAMPLE].translate(None, _BASE64) for at in places)
    return len(request) * (_SAMPLES - encoded) // _SAMPLES


def cost_of(
    provider: Provider, models: Iterable[str | None], usage: Usage, snapshot: Snapshot, at: float
) -> int | None:
    """What `usage` costs by our prices, in microdollars, for the first of `models` that has one; None: none has. `at`:
    epoch seconds."""
    if snapshot.prices is None:
        return None
    for model in models:
        if model is not None:
            cost = snapshot.prices.cost(provider.name, provider.origin.host, model, usage, at)
            if cost is not None:
                return cost
    return None
