"""The clients: load of several shapes, and proof that every answer was complete.

Lives here: one connection that asks and checks (`LoadConnection`), and the shapes of load made of it.
May not live here: which contestant, which scenario, how figures are combined.
How it works: answers are unframed by httptools into a list of pieces (a C call each, no Python frame); a complete
answer has status 200, the exact number of body bytes, and `[DONE]` at the end of a stream. CPU is read at the opening
and the closing of a window in which units are counted, so start and end of a load are not part of the figure.
Latency is taken from the moment a request was due, whether or not a connection was free then: waiting counts.
Doubted: load and upstream share a core, so latency includes their own queueing; it is the same for every contestant,
and `added` figures are differences to direct.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import httptools

from bench.orders import CONTENT_MARK, DONE, STAMP_DIGITS, Order

_GRACE_SECONDS = 20.0  # beyond the planned time; then the load is given up and says so
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


def _ask_now(connection: LoadConnection, ask: Ask) -> None:
    connection.ask(ask, time.perf_counter())


def _ignore(_: LoadConnection) -> None:
    """For connections whose answers nobody waits for."""


@contextlib.contextmanager
def _steady() -> Iterator[None]:
    """No garbage collection while latency is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _connect(port: int, sample: Sample, count: int) -> list[LoadConnection]:
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(count):
        _, connection = await loop.create_connection(lambda: LoadConnection(sample, _ignore), "127.0.0.1", port)
        connections.append(connection)
    return connections


async def _ask_all(connections: list[LoadConnection], ask: Ask, gap: float = 0.0) -> None:
    """Every connection asks once, `gap` seconds apart; returns when all have their answers (or lost them)."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    left = len(connections)

    def on_answer(connection: LoadConnection) -> None:
        nonlocal left
        connection.on_answer = _ignore
        left -= 1
        if not left:
            ended.set()

    for number, connection in enumerate(connections):
        connection.on_answer = on_answer
        if gap:
            loop.call_later(number * gap, _ask_now, connection, ask)
        else:
            _ask_now(connection, ask)
    await ended.wait()


def _close(connections: list[LoadConnection]) -> None:
    for connection in connections:
        connection.on_answer = _ignore
        connection.close()


async def _guard(seconds: float, sample: Sample, work: asyncio.Future[None] | asyncio.Task[None]) -> None:
    try:
        async with asyncio.timeout(seconds + _GRACE_SECONDS):
            await work
    except TimeoutError:
        sample.fail("gave up: answers are missing")
    except OSError as error:
        sample.fail(f"cannot connect: {error}")


async def closed_loop(
    port: int, ask: Ask, read: Callable[[], Cost], *, connections: int, seconds: float, warm: float = 0.1
) -> Sample:
    """`connections` clients, each asking again as soon as it is answered. A unit is an answer."""
    sample = Sample()
    window = Window(sample, read)

    async def work() -> None:
        clients = await _connect(port, sample, connections)
        stopping = False
        asking = len(clients)
        stopped = asyncio.Event()

        def on_answer(connection: LoadConnection) -> None:
            nonlocal asking
            if stopping or connection.is_lost:
                asking -= 1
                if not asking:
                    stopped.set()
            else:
                connection.ask(ask, 0.0)

        for client in clients:
            client.on_answer = on_answer
            client.ask(ask, 0.0)
        await asyncio.sleep(warm)
        window.open(sample.answers)
        await asyncio.sleep(seconds)
        window.close(sample.answers)
        stopping = True
        await stopped.wait()
        _close(clients)

    with _steady():
        await _guard(seconds, sample, asyncio.ensure_future(work()))
    return sample


async def open_loop(
    port: int, ask: Ask, read: Callable[[], Cost], *, rate: float, seconds: float, connections: int = 32
) -> Sample:
    """`rate` requests a second, whatever the answers do. A unit is an answer. Takes first byte and first event.

    A request that finds no free connection waits, and its waiting counts.
    """
    sample = Sample()
    window = Window(sample, read)
    loop = asyncio.get_running_loop()

    async def work() -> None:
        clients = await _connect(port, sample, connections)
        await _ask_all(clients, ask)  # so that nobody measures the contestant's first connect
        for client in clients:
            client.latencies = True
        free = list(clients)
        waiting: list[float] = []
        due = int(rate * seconds)
        answered = 0
        ended = asyncio.Event()

        def on_answer(connection: LoadConnection) -> None:
            nonlocal answered
            answered += 1
            if answered == due or connection.is_lost:
                ended.set()
            elif waiting:
                connection.ask(ask, waiting.pop(0))
            else:
                free.append(connection)

        began = loop.time()
        sent = 0

        def tick() -> None:
            nonlocal sent
            now = loop.time()
            # The clock that the plan goes by ticks in milliseconds; the request counts from its real sending unless
            # the load is truly behind, which `late` tells.
            sample.late = max(sample.late, (now - began - sent / rate) * 1e6)
            sent += 1
            if free:
                free.pop().ask(ask, time.perf_counter())
            else:
                waiting.append(time.perf_counter())
            if sent < due:
                loop.call_at(began + sent / rate, tick)

        for client in clients:
            client.on_answer = on_answer
        window.open(sample.answers)
        tick()
        await ended.wait()
        window.close(sample.answers)
        if answered != due:
            sample.fail("a connection was lost")
        _close(clients)

    with _steady():
        await _guard(seconds, sample, asyncio.ensure_future(work()))
    return sample


async def paced_streams(
    port: int, ask: Ask, read: Callable[[], Cost], *, streams: int, rate: int, seconds: float
) -> Sample:
    """`streams` at once with `rate` events a second each. A unit is an event; takes how long each was under way.

    The order must hold events for more than `seconds`: the window opens when every stream has begun.
    """
    sample = Sample()
    window = Window(sample, read)

    async def work() -> None:
        clients = await _connect(port, sample, streams)
        for client in clients:
            client.count_events = True
        # Spread over one interval, so that the events of all streams are spread too.
        asking = asyncio.ensure_future(_ask_all(clients, ask, 1 / rate / streams))
        while not all(client.has_event or client.is_lost for client in clients):  # noqa: ASYNC110 (no callback per read)
            await asyncio.sleep(0.01)
        for client in clients:
            client.latencies = True
        window.open(sum(client.events for client in clients))
        await asyncio.sleep(seconds)
        window.close(sum(client.events for client in clients))
        for client in clients:
            client.latencies = False
        await asking
        _close(clients)

    with _steady():
        await _guard(seconds, sample, asyncio.ensure_future(work()))
    return sample


async def back_to_back(port: int, ask: Ask, read: Callable[[], Cost], *, events: int) -> Sample:
    """One stream of `events` events as fast as it goes. A unit is an event."""
    sample = Sample()
    window = Window(sample, read)

    async def work() -> None:
        clients = await _connect(port, sample, 1)
        window.open(0)
        await _ask_all(clients, ask)
        window.close(events if sample.answers else 0)
        _close(clients)

    with _steady():
        await _guard(10.0, sample, asyncio.ensure_future(work()))
    return sample


async def once(port: int, ask: Ask) -> Sample:
    """One request, one answer: is this contestant working?"""
    sample = Sample()

    async def work() -> None:
        clients = await _connect(port, sample, 1)
        await _ask_all(clients, ask)
        _close(clients)

    await _guard(0.0, sample, asyncio.ensure_future(work()))
    return sample


async def idle_streams(port: int, ask: Ask, *, streams: int, rss: Callable[[], int]) -> tuple[Sample, float]:
    """Opens `streams` that have begun and then stay silent; returns the bytes of memory that each one took."""
    sample = Sample()
    grown = 0.0

    async def work() -> None:
        nonlocal grown
        before = rss()
        clients = await _connect(port, sample, streams)
        for client in clients:
            client.count_events = True
            client.ask(ask, 0.0)
        while not all(client.events or client.is_lost for client in clients):  # noqa: ASYNC110 (no callback per read)
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        grown = (rss() - before) / streams
        if any(client.is_lost for client in clients):
            sample.fail("connections were lost")
        _close(clients)

    await _guard(5.0, sample, asyncio.ensure_future(work()))
    return sample, grown
