"""The shapes of load: closed loop, open loop, paced streams, back to back, silent streams.

Lives here: one function for each shape, made of client connections.
May not live here: what makes an answer complete (client), which contestant, which scenario, how figures are combined.
How it works: each function connects, asks, opens the window when everything runs, closes it before anything ends, and
returns one Sample. Latency is taken from the moment a request was due by the plan, to the nanosecond, whether or not a
connection was free then and however late the load itself was: waiting counts (no coordinated omission). The timer that
sends has no ticks (timer), so on an idle core a request leaves some microseconds after it was due; `late` tells the
most. Many streams are opened a few at a time, each when an earlier one has begun, so that no backlog overflows. A load
that gets no answers gives up and says so.
Doubted: load and upstream share a core, so latency includes their own queueing; it is the same for every contestant,
and `added` figures are differences to direct.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

from bench.client import Ask, Cost, LoadConnection, Sample, Window, ignore
from bench.timer import FineTimer

_GRACE_SECONDS = 20.0  # beyond the planned time; then the load is given up
_PATIENCE_SECONDS = 3.0  # after the end of a plan
_LEAST = 5  # requests of a plan
_BURST_SECONDS = 5.0  # of one stream back to back
_OPEN_SECONDS = 0.02  # the same, for each stream that is opened
_REST_SECONDS = 0.1  # after the opening of streams, and for each of them:
_REST_STREAM_SECONDS = 0.0002
_OPENING = 32  # streams asked for that have not begun

Asks = Ask | Sequence[Ask]  # the same again and again, or several in turn


def _in_turn(asks: Asks) -> Callable[[], Ask]:
    return itertools.cycle([asks] if isinstance(asks, Ask) else asks).__next__


def _any_of(asks: Asks) -> Ask:
    return asks if isinstance(asks, Ask) else asks[0]


@contextlib.contextmanager
def _steady() -> Iterator[None]:
    """No garbage collection while latency is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.asynccontextmanager
async def _clients(port: int, sample: Sample, count: int, asks: Asks) -> AsyncIterator[list[LoadConnection]]:
    """Connected; they are closed at the end, however it comes, so that nothing goes on beside the next load."""
    loop = asyncio.get_running_loop()
    tls = _any_of(asks).tls
    clients: list[LoadConnection] = []
    try:
        for _ in range(count):
            _, client = await loop.create_connection(lambda: LoadConnection(sample), "127.0.0.1", port, ssl=tls)
            clients.append(client)
        yield clients
    finally:
        for client in clients:
            client.on_begin = client.on_answer = ignore
            client.close()
        while not all(client.is_lost for client in clients):  # noqa: ASYNC110 (some turns; TLS takes more than one)
            await asyncio.sleep(0)


async def _ask_all(connections: list[LoadConnection], asks: Asks) -> None:
    """Every connection asks once; returns when all have their answers (or lost them)."""
    following = _in_turn(asks)
    ended = _all_answered(connections)
    for connection in connections:
        connection.ask(following(), time.monotonic())
    await ended.wait()


def _all_answered(connections: list[LoadConnection]) -> asyncio.Event:
    """Set once each connection has had, or lost, one more answer."""
    ended = asyncio.Event()
    left = len(connections)

    def on_answer(connection: LoadConnection) -> None:
        nonlocal left
        connection.on_answer = ignore
        left -= 1
        if not left:
            ended.set()

    for connection in connections:
        connection.on_answer = on_answer
    if not connections:
        ended.set()
    return ended


async def _begin_all(connections: list[LoadConnection], ask: Ask) -> None:
    """Every connection asks for a stream, some at a time; returns when all have begun (or are lost)."""
    begun = asyncio.Event()
    left = len(connections)
    waiting = iter(connections)

    def on_begin(connection: LoadConnection) -> None:
        nonlocal left
        connection.on_begin = connection.on_answer = ignore
        left -= 1
        if not left:
            begun.set()
        for following in itertools.islice(waiting, 1):
            following.ask(ask, time.monotonic())

    for connection in connections:
        connection.on_begin = connection.on_answer = on_begin
    for connection in itertools.islice(waiting, _OPENING):
        connection.ask(ask, time.monotonic())
    await begun.wait()


async def _guard(seconds: float, sample: Sample, work: Coroutine[None, None, None]) -> None:
    with _steady():
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                await work
        except TimeoutError:
            sample.gave_up = True
            sample.fail("gave up: answers are missing")
        except OSError as error:
            sample.fail(f"cannot connect: {error}")


async def closed_loop(
    port: int, asks: Asks, read: Callable[[], Cost], *, connections: int, seconds: float, warm: float = 0.1
) -> Sample:
    """`connections` clients, each asking again as soon as it is answered. A unit is an answer."""
    sample = Sample()
    window = Window(sample, read)

    async def work() -> None:
        async with _clients(port, sample, connections, asks) as clients:
            following = _in_turn(asks)
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
                    connection.ask(following(), 0.0)

            for client in clients:
                client.on_answer = on_answer
                client.ask(following(), 0.0)
            await asyncio.sleep(warm)
            window.open(sample.answers)
            await asyncio.sleep(seconds)
            window.close(sample.answers)
            stopping = True
            await stopped.wait()

    await _guard(seconds, sample, work())
    return sample


async def open_loop(
    port: int, asks: Asks, read: Callable[[], Cost], *, rate: float, seconds: float, connections: int = 32
) -> Sample:
    """`rate` requests a second, whatever the answers do. A unit is an answer. Takes first byte and first event.

    A request that finds no free connection waits, and its waiting counts. Who cannot do this many is left alone some
    seconds after the end of the plan; what was not answered by then counts with the time that it has waited.
    """
    sample = Sample()
    window = Window(sample, read)

    async def work() -> None:
        async with _clients(port, sample, connections, asks) as clients:
            await _ask_all(clients, asks)  # so that nobody measures the contestant's first connect
            plan = _Plan(sample, clients, _in_turn(asks), rate, max(_LEAST, int(rate * seconds)))
            window.open(sample.answers)
            await plan.carry_out()
            window.close(sample.answers)
            plan.end()

    await _guard(seconds, sample, work())
    return sample


class _Plan:
    """Requests that are due at a rate, and who is free to ask them."""

    __slots__ = ("_answered", "_began", "_clients", "_count", "_ended", "_following", "_free", "_interval", "_sample",
                 "_sent", "_timer", "_waiting")  # fmt: skip

    def __init__(
        self, sample: Sample, clients: list[LoadConnection], following: Callable[[], Ask], rate: float, count: int
    ) -> None:
        self._sample = sample
        self._following = following
        self._interval = 1e9 / rate
        self._count = count
        self._clients = clients
        self._free = list(clients)
        self._waiting: deque[float] = deque()
        self._sent = self._answered = self._began = 0
        self._ended = asyncio.Event()
        self._timer = FineTimer(asyncio.get_running_loop(), self._send)
        for client in clients:
            client.latencies = True
            client.on_answer = self._on_answer

    async def carry_out(self) -> None:
        """Returns when all are answered, patience is at its end, or a connection is lost."""
        self._began = time.monotonic_ns()
        try:
            self._send()
            async with asyncio.timeout(self._count * self._interval / 1e9 + _PATIENCE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass
        finally:
            self._timer.close()

    def end(self) -> None:
        """Judges, after the window was closed."""
        sample = self._sample
        if any(client.is_lost for client in self._clients):
            sample.fail("a connection was lost")
        elif not self._answered:
            sample.fail("no answer")
        now = time.monotonic()
        waits = [now - due for due in (*self._waiting, *(client.waits_since for client in self._clients)) if due]
        sample.first_byte += [wait * 1e6 for wait in waits]
        sample.unanswered = len(waits)

    def _due(self) -> int:
        return self._began + int(self._sent * self._interval)

    def _send(self) -> None:
        while self._sent < self._count:
            due = self._due()
            behind = time.monotonic_ns() - due
            if behind < 0:
                self._timer.set(due)
                return
            self._sent += 1
            self._sample.late = max(self._sample.late, behind / 1e3)
            if self._free:
                self._free.pop().ask(self._following(), due / 1e9)
            else:
                self._waiting.append(due / 1e9)

    def _on_answer(self, connection: LoadConnection) -> None:
        self._answered += 1
        if self._answered == self._count or connection.is_lost:
            self._ended.set()
        elif self._waiting:
            connection.ask(self._following(), self._waiting.popleft())
        else:
            self._free.append(connection)


async def paced_streams(
    port: int, ask: Ask, read: Callable[[], Cost], finish: Callable[[], int], *, streams: int, seconds: float
) -> Sample:
    """`streams` at once, whose pace is in their order. A unit is an event; takes how long each was under way.

    The order leaves the end open: the window opens when every stream has begun, and after it `finish` has the upstream
    end them; it tells how many events it wrote, and so many must have arrived. Who cannot do this many, and is still at
    it some seconds later, is left alone.
    """
    sample = Sample()
    window = Window(sample, read)

    async def work() -> None:
        async with _clients(port, sample, streams, ask) as clients:
            for client in clients:
                client.count_events = True
            written = -1
            try:
                await _begin_all(clients, ask)
                await asyncio.sleep(_REST_SECONDS + streams * _REST_STREAM_SECONDS)
                for client in clients:
                    client.latencies = True
                window.open(sum(client.events for client in clients))
                await asyncio.sleep(seconds)
                window.close(sum(client.events for client in clients))
                for client in clients:
                    client.latencies = False
                ended = _all_answered([client for client in clients if not client.is_lost])
                written = finish()
                if not await _ends(ended, clients, sample):
                    return
            finally:
                if written < 0:  # given up: nothing may go on beside the next load
                    finish()
            if not sample.failed and sample.events != written:
                sample.fail(f"{sample.events} events arrived of {written}")

    await _guard(seconds + streams * _OPEN_SECONDS, sample, work())
    return sample


async def _ends(ended: asyncio.Event, clients: list[LoadConnection], sample: Sample) -> bool:
    """Whether all streams come to their end in time; one that neither ends nor goes on is an error."""
    before = sum(client.events for client in clients)
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await ended.wait()
    except TimeoutError:
        sample.unanswered = sum(client.is_asking for client in clients)
        if sum(client.events for client in clients) == before:
            sample.fail(f"{sample.unanswered} streams neither end nor go on")
        return False
    return True


async def back_to_back(port: int, ask: Ask, read: Callable[[], Cost], *, events: int) -> Sample:
    """One stream of `events` events as fast as it goes. A unit is an event. The stream of who is slow is broken off."""
    sample = Sample()
    window = Window(sample, read)

    async def work() -> None:
        async with _clients(port, sample, 1, ask) as clients:
            (client,) = clients
            client.count_events = True
            window.open(0)
            try:
                async with asyncio.timeout(_BURST_SECONDS):
                    await _ask_all(clients, ask)
            except TimeoutError:
                window.close(client.events)
                if not client.events:
                    sample.fail("no events")
            else:
                window.close(events if sample.answers else 0)

    await _guard(_BURST_SECONDS, sample, work())
    return sample


async def once(port: int, ask: Ask) -> Sample:
    """One request, one answer: is this contestant working?"""
    sample = Sample()

    async def work() -> None:
        async with _clients(port, sample, 1, ask) as clients:
            await _ask_all(clients, ask)

    await _guard(0.0, sample, work())
    return sample


async def idle_streams(port: int, ask: Ask, *, streams: int, rss: Callable[[], int]) -> tuple[Sample, float]:
    """Opens `streams` that have begun and then stay silent; returns the bytes of memory that each one took."""
    sample = Sample()
    grown = 0.0

    async def work() -> None:
        nonlocal grown
        before = rss()
        async with _clients(port, sample, streams, ask) as clients:
            await _begin_all(clients, ask)
            await asyncio.sleep(_REST_SECONDS + streams * _REST_STREAM_SECONDS)
            grown = (rss() - before) / streams
            if any(client.is_lost for client in clients):
                sample.fail("connections were lost")

    await _guard(streams * _OPEN_SECONDS, sample, work())
    return sample, grown
