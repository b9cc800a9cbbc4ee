"""The shapes of load: closed loop, open loop, paced streams, back to back, silent streams.

Lives here: one function for each shape, made of client connections.
May not live here: what makes an answer complete (client), which contestant, which scenario, how figures are combined.
How it works: each function connects, asks, opens the window when everything runs, closes it before anything ends, and
returns one Sample. Latency is taken from the moment a request was due, whether or not a connection was free then:
waiting counts. A load that gets no answers gives up and says so.
Doubted: load and upstream share a core, so latency includes their own queueing; it is the same for every contestant,
and `added` figures are differences to direct.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Iterator

from bench.client import Ask, Cost, LoadConnection, Sample, Window

_GRACE_SECONDS = 20.0  # beyond the planned time; then the load is given up


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
