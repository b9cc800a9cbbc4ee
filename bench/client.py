"""One client connection of the load, and what it sees.

Lives here: `LoadConnection` (asks, and checks that the answer is complete), `Sample`, `Window`, `Cost`, `Ask`.
May not live here: how many connections ask, and when (load).
How it works: answers are unframed by httptools into a list of pieces (a C call each, no Python frame); a complete
answer has status 200, the exact number of body bytes, and `[DONE]` at the end of a stream. CPU is read at the opening
and the closing of a window in which units are counted, so start and end of a load are not part of the figure.
Doubted: httptools itself; what it accepts counts as HTTP here (the parsers of `wire` are tested elsewhere).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import httptools

from bench.orders import CONTENT_MARK, DONE, STAMP_DIGITS, Order

_MOST_ERRORS = 20  # kept as text; all are counted


class Cost(NamedTuple):
    """Nanoseconds of CPU so far, by who used them."""

    contestant: int = 0
    upstream: int = 0
    load: int = 0
    machine: int = 0  # all cores, everybody


class Ask(NamedTuple):
    """What a connection sends, and what makes the answer complete."""

    request: bytes
    body_bytes: int
    is_stream: bool
    stamped: bool  # content chunks carry the clock of their writing

    @classmethod
    def of(cls, request: bytes, order: Order) -> Ask:
        return cls(request, order.body_bytes, order.shape != "unary", order.shape == "paced")


@dataclass(slots=True)
class Sample:
    """What one load saw. Latencies in microseconds."""

    units: int = 0
    seconds: float = 0.0
    cost: Cost = field(default_factory=Cost)
    answers: int = 0  # complete ones, over the whole load
    first_byte: list[float] = field(default_factory=list)
    first_event: list[float] = field(default_factory=list)
    transit: list[float] = field(default_factory=list)
    late: float = 0.0  # the most that the load was behind its own plan
    failed: int = 0
    errors: list[str] = field(default_factory=list)

    def fail(self, error: str) -> None:
        self.failed += 1
        if len(self.errors) < _MOST_ERRORS and error not in self.errors:
            self.errors.append(error)


class Window:
    """The part of a load that is measured: units and costs between `open` and `close`."""

    __slots__ = ("_began", "_cost", "_read", "_sample", "_units", "is_open")

    def __init__(self, sample: Sample, read: Callable[[], Cost]) -> None:
        self._sample = sample
        self._read = read
        self._units = 0
        self._began = 0.0
        self._cost = Cost()
        self.is_open = False

    def open(self, units: int) -> None:
        self.is_open = True
        self._units = units
        self._cost = self._read()
        self._began = time.perf_counter()

    def close(self, units: int) -> None:
        self._sample.seconds = time.perf_counter() - self._began
        self._sample.cost = Cost(*(now - then for now, then in zip(self._read(), self._cost, strict=True)))
        self._sample.units = units - self._units
        self.is_open = False


class LoadConnection(asyncio.Protocol):
    """One client connection. `ask` sends; `on_answer(connection)` is called when the answer is complete or was lost."""

    __slots__ = ("_ask", "_due", "_got", "_is_asking", "_parser", "_pieces", "_sample", "_tail", "_transport",
                 "count_events", "events", "has_event", "is_lost", "latencies", "on_answer", "on_body")  # fmt: skip

    def __init__(self, sample: Sample, on_answer: Callable[[LoadConnection], None]) -> None:
        self._sample = sample
        self.on_answer = on_answer
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # found by the parser: a piece costs a C call
        self._parser = httptools.HttpResponseParser(self)
        self._ask: Ask | None = None
        self._due = 0.0
        self._got = -1  # body bytes of this answer; -1: nothing at all yet
        self._tail = b""
        self._is_asking = False
        self.is_lost = False
        self.has_event = False
        self.events = 0  # content chunks seen while `count_events`
        self.count_events = False
        self.latencies = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._is_asking:
            self._end("connection closed within an answer")

    def ask(self, ask: Ask, due: float) -> None:
        """Sends `ask`, which was due at `due` (perf_counter)."""
        self._ask = ask
        self._due = due
        self._got = -1
        self.has_event = False
        self._is_asking = True
        self._transport.write(ask.request)

    def close(self) -> None:
        self._is_asking = False
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._got < 0:
            self._got = 0
            if self.latencies:
                self._sample.first_byte.append((time.perf_counter() - self._due) * 1e6)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"not HTTP: {error}")
            self._transport.abort()
            return
        if self._pieces:
            self._look()

    def on_message_complete(self) -> None:
        if self._pieces:
            self._look()
        ask = self._ask
        if ask is None or not self._is_asking:
            self._sample.fail("an answer that nobody asked for")
            return
        status = self._parser.get_status_code()
        if status != 200:
            self._end(f"status {status}")
        elif self._got != ask.body_bytes:
            self._end(f"{self._got} body bytes instead of {ask.body_bytes}")
        elif ask.is_stream and not self._tail.endswith(DONE):
            self._end("no [DONE] at the end")
        else:
            self._sample.answers += 1
            self._end("")

    def _end(self, error: str) -> None:
        if not self._is_asking:
            return
        self._is_asking = False
        if error:
            self._sample.fail(error)
        self.on_answer(self)

    def _look(self) -> None:
        """Counts the pieces of one read, and takes the times that this load wants."""
        pieces = self._pieces
        ask = self._ask
        assert ask is not None
        for piece in pieces:
            self._got += len(piece)
        if ask.is_stream:
            last = pieces[-1]
            self._tail = last if len(last) >= len(DONE) else (self._tail + b"".join(pieces))[-64:]
            if not self.has_event:
                self._look_for_event()
            if self.count_events:
                for piece in pieces:
                    self.events += piece.count(b"\n\n")
                if ask.stamped and self.latencies:
                    self._take_transit()
        pieces.clear()

    def _look_for_event(self) -> None:
        for piece in self._pieces:
            if CONTENT_MARK in piece:
                self.has_event = True
                if self.latencies:
                    self._sample.first_event.append((time.perf_counter() - self._due) * 1e6)
                return

    def _take_transit(self) -> None:
        now = time.monotonic_ns()
        for piece in self._pieces:
            at = piece.find(CONTENT_MARK)
            if at >= 0:
                stamp = piece[at + len(CONTENT_MARK) : at + len(CONTENT_MARK) + STAMP_DIGITS]
                if len(stamp) == STAMP_DIGITS and stamp.isdigit():
                    self._sample.transit.append((now - int(stamp)) / 1e3)
