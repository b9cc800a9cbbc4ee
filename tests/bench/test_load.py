"""Load, upstream and splice together, for a moment: are the counts right, and are wrong answers found out?"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from bench import load, machine, orders
from bench.client import Ask, Cost, Sample
from bench.contestants import CONTESTANTS, Arena, Running
from bench.orders import Order

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bench reads its figures from Linux")


class Pair:
    """The upstream and a splice in front of it."""

    def __init__(self, upstream: Running, splice: Running) -> None:
        self.upstream = upstream
        self.splice = splice

    def cost(self) -> Cost:
        return Cost(machine.tree_cpu_ns(self.splice.pid), machine.process_cpu_ns(self.upstream.pid), 0, 0)

    def stats(self) -> dict[str, int]:
        with socket.create_connection(("127.0.0.1", self.upstream.port), timeout=5) as link:
            link.sendall(b"GET /stats HTTP/1.1\r\n\r\n")
            counts: dict[str, int] = json.loads(link.recv(4096).partition(b"\r\n\r\n")[2])
        return counts


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    core = machine.choose_cores().rest
    with Arena(tmp_path_factory.mktemp("arena")) as arena:
        upstream = arena.start_upstream(core)
        yield Pair(upstream, arena.start(CONTESTANTS["splice"], upstream.port, "k" * 32, core))


def ask(order: Order) -> Ask:
    return Ask.of(orders.request(order, "127.0.0.1", "k" * 32), order)


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
    order = orders.paced(50, 30)
    sample = asyncio.run(load.paced_streams(pair.splice.port, ask(order), pair.cost, streams=10, rate=50, seconds=0.3))
    assert sample.errors == []
    assert sample.answers == 10
    assert 0 < sample.units <= 10 * 30
    assert len(sample.transit) == pytest.approx(sample.units, abs=20)
    assert min(sample.transit) > 0


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


def _answered(answer: bytes, order: Order, chop: Callable[[bytes], list[bytes]] = lambda whole: [whole]) -> Sample:
    """What the load thinks of `answer` to `order`; the other side closes after it."""

    async def scene() -> Sample:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for piece in chop(answer):
                writer.write(piece)
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            return await load.once(server.sockets[0].getsockname()[1], ask(order))

    return asyncio.run(scene())


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE = orders.ROLE + orders.EVENT * 3 + orders.FINISH + orders.DONE


def _stream(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return _STREAM_HEAD + orders.chunked(body) + end


def test_a_whole_answer_is_complete_however_it_is_cut() -> None:
    for chop in (lambda whole: [whole], lambda whole: [whole[at : at + 7] for at in range(0, len(whole), 7)]):
        sample = _answered(_stream(_WHOLE), orders.burst(3), chop)
        assert (sample.errors, sample.answers) == ([], 1)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "status 502"),
        (_stream(_WHOLE[:-1]), "body bytes instead of"),
        (_stream(_WHOLE.replace(orders.DONE, b"x" * len(orders.DONE))), "no [DONE]"),
        (_stream(_WHOLE, end=b""), "closed within"),
        (b"nonsense\r\n\r\n", "not HTTP"),
    ],
)
def test_a_wrong_answer_is_found_out(answer: bytes, word: str) -> None:
    sample = _answered(answer, orders.burst(3))
    assert sample.answers == 0
    assert sample.failed == 1
    assert word in sample.errors[0]
