"""Load, upstream and splice together, for a moment: are the counts right?"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from bench import load, machine, orders
from bench.client import Ask, Cost, Sample
from bench.contestants import CONTESTANTS, Arena, Running
from bench.orders import Order
from bench.setting import ask_upstream

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bench reads its figures from Linux")


class Pair:
    """The upstream and a splice in front of it."""

    def __init__(self, upstream: Running, splice: Running) -> None:
        self.upstream = upstream
        self.splice = splice

    def cost(self) -> Cost:
        return Cost(machine.tree_cpu_ns(self.splice.pid), machine.process_cpu_ns(self.upstream.pid), 0, 0)

    def stats(self) -> dict[str, int]:
        return ask_upstream(self.upstream.port, "stats")

    def finish(self) -> int:
        return ask_upstream(self.upstream.port, "finish")["events"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    core = machine.choose_cores().rest
    with Arena(tmp_path_factory.mktemp("arena")) as arena:
        upstream = arena.start_upstream(core)
        yield Pair(upstream, arena.start(CONTESTANTS["splice"], upstream.port, "k" * 32, core))


def ask(order: Order, exact: bool = True) -> Ask:
    return Ask.of(orders.request(order, "127.0.0.1", "k" * 32), order, exact)


def test_closed_loop_counts_what_the_upstream_served(pair: Pair) -> None:
    before = pair.stats()
    sample = asyncio.run(
        load.closed_loop(pair.splice.port, ask(orders.unary(1024)), pair.cost, connections=4, seconds=0.2)
    )
    after = pair.stats()
    assert sample.errors == []
    assert after["requests"] - before["requests"] == sample.answers
    assert after["connections"] - before["connections"] == 4
    assert 0 < sample.units <= sample.answers
    assert sample.cost.contestant > 0 and sample.cost.upstream > 0


def test_open_loop_sends_as_many_as_planned(pair: Pair) -> None:
    order = orders.burst(8)
    sample = asyncio.run(load.open_loop(pair.splice.port, ask(order), pair.cost, rate=200, seconds=0.2, connections=4))
    assert sample.errors == []
    assert sample.units == 40
    assert len(sample.first_byte) == len(sample.first_event) == 40
    assert all(event >= byte for byte, event in zip(sorted(sample.first_byte), sorted(sample.first_event), strict=True))


def test_paced_streams_bring_every_event_at_its_rate(pair: Pair) -> None:
    sample = asyncio.run(
        load.paced_streams(pair.splice.port, ask(orders.paced(50, 0)), pair.cost, pair.finish, streams=40, seconds=0.3)
    )
    assert sample.errors == []
    assert sample.answers == 40
    assert sample.units == pytest.approx(40 * 50 * sample.seconds, rel=0.2)
    assert len(sample.transit) == sample.units
    assert 0 < len(sample.gap) <= sample.units - 40
    assert min(sample.transit) > 0 and min(sample.gap) >= 0


def test_events_that_do_not_arrive_are_missed(pair: Pair) -> None:
    sample = asyncio.run(
        load.paced_streams(
            pair.splice.port,
            ask(orders.paced(50, 0)),
            pair.cost,
            lambda: pair.finish() + 1,
            streams=2,
            seconds=0.1,
        )
    )
    assert len(sample.errors) == 1 and "events arrived of" in sample.errors[0]


def test_back_to_back_is_complete(pair: Pair) -> None:
    order = orders.burst(2_345)  # no multiple of the upstream's block
    sample = asyncio.run(load.back_to_back(pair.splice.port, ask(order), pair.cost, events=order.events))
    assert (sample.errors, sample.units) == ([], 2_345)


def test_idle_streams_begin_and_are_counted(pair: Pair) -> None:
    sample, _ = asyncio.run(
        load.idle_streams(
            pair.splice.port,
            ask(orders.IDLE),
            streams=20,
            rss=lambda: machine.tree_rss_bytes(pair.splice.pid),
        )
    )
    assert sample.errors == []


class Desk:
    """A server that the test has in hand: `answer` is called with each request's head, and may take its time. It ends
    when all of its clients have left, so a load that leaves one connection open makes its test time out."""

    def __init__(self, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._answer = answer
        self.asked: list[bytes] = []
        self._serving: list[asyncio.Task[None] | None] = []

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._serving:
            assert task is not None
            await task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
                self.asked.append(head)
                writer.write(await self._answer(head))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def _unary() -> bytes:
    body = orders.unary_body(1024)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("connections", [1, 10])
def test_a_request_counts_from_when_it_was_due_however_late_it_is_sent(connections: int) -> None:
    async def answer(head: bytes) -> bytes:
        if len(desk.asked) == connections + 1:  # the first of the plan, after those that warm up
            until = time.monotonic() + 0.010
            while time.monotonic() < until:
                pass  # the load, on the same loop, is held up too
        return _unary()

    async def scene() -> Sample:
        order = ask(orders.unary(1024))
        async with desk as port:
            return await load.open_loop(port, order, Cost, rate=1000, seconds=0.01, connections=connections)

    desk = Desk(answer)
    sample = asyncio.run(scene())
    assert sample.errors == []
    assert len(sample.first_byte) == 10
    for number, latency in enumerate(sorted(sample.first_byte, reverse=True)):
        assert latency > 1000 * (10 - number) - 1
    assert sample.late > 8000


def test_requests_are_asked_in_turn() -> None:
    async def answer(head: bytes) -> bytes:
        return _unary()

    async def scene() -> Sample:
        order = orders.unary(1024)
        asks = [Ask.of(orders.request(order, "127.0.0.1", key), order) for key in ("one", "two", "three")]
        async with desk as port:
            return await load.open_loop(port, asks, Cost, rate=1000, seconds=0.03, connections=1)

    desk = Desk(answer)
    assert asyncio.run(scene()).errors == []
    keys = [head.partition(b"Bearer ")[2].split(b"\r\n")[0] for head in desk.asked[1:]]
    assert keys == [b"one", b"two", b"three"] * 10


@pytest.mark.parametrize("connections", [1, 3])
def test_who_cannot_do_what_is_planned_is_left_alone_and_what_waits_counts(
    connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_PATIENCE_SECONDS", 0.05)

    async def answer(head: bytes) -> bytes:
        if len(desk.asked) > connections + 1:  # one of the plan is answered, after those that warm up
            return b""  # nothing is written
        return _unary()

    async def scene() -> Sample:
        order = ask(orders.unary(1024))
        async with desk as port:
            return await load.open_loop(port, order, Cost, rate=1000, seconds=0.01, connections=connections)

    desk = Desk(answer)
    sample = asyncio.run(scene())
    assert (sample.errors, sample.units, sample.unanswered) == ([], 1, 9)
    assert len(sample.first_byte) == 10
    assert sum(latency > 50_000 for latency in sample.first_byte) == 9


def test_a_stream_that_takes_too_long_is_broken_off_and_one_without_events_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "_BURST_SECONDS", 0.3)
    body = orders.ROLE

    async def answer(head: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + orders.chunked(body)

    async def scene() -> Sample:
        async with Desk(answer) as port:
            return await load.back_to_back(port, ask(orders.burst(100), exact=False), Cost, events=100)

    assert asyncio.run(scene()).errors == ["no events"]
    body += orders.EVENT * 7
    sample = asyncio.run(scene())
    assert (sample.errors, sample.units) == ([], 7)


def test_streams_that_neither_end_nor_go_on_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_PATIENCE_SECONDS", 0.05)

    async def answer(head: bytes) -> bytes:
        begun = orders.chunked(orders.ROLE + orders.EVENT)
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + begun

    async def scene() -> Sample:
        async with Desk(answer) as port:
            return await load.paced_streams(port, ask(orders.paced(50, 0)), Cost, lambda: 2, streams=2, seconds=0.0)

    assert asyncio.run(scene()).errors == ["2 streams neither end nor go on"]


@pytest.mark.parametrize("shape", ["closed", "open", "paced", "idle"])
def test_a_load_without_answers_gives_up_and_leaves_nothing_behind(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_GRACE_SECONDS", 0.3)  # enough to be asked
    finished: list[int] = []

    async def answer(head: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"  # and then nothing

    def finish() -> int:
        finished.append(1)
        return 0

    async def scene() -> Sample:
        async with Desk(answer) as port:
            match shape:
                case "closed":
                    return await load.closed_loop(
                        port, ask(orders.unary(1024)), Cost, connections=1, seconds=0.0, warm=0.0
                    )
                case "open":
                    return await load.open_loop(port, ask(orders.unary(1024)), Cost, rate=100, seconds=0.1)
                case "paced":
                    return await load.paced_streams(
                        port, ask(orders.paced(50, 0)), Cost, finish, streams=1, seconds=0.0
                    )
                case _:
                    return (await load.idle_streams(port, ask(orders.IDLE), streams=1, rss=lambda: 0))[0]

    assert "gave up: answers are missing" in asyncio.run(scene()).errors
    assert finished == ([1] if shape == "paced" else [])
