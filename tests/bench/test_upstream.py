"""The bench upstream: requests however they arrive, paced events evenly spread, streams that end when told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

import pytest

from bench import orders
from bench.upstream import Pacer, Stats, UpstreamConnection
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)


class Wire:
    """Imitates a transport: keeps what was written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int) -> None:
        pass


class Desk:
    """An upstream whose connections are fed by the test."""

    def __init__(self) -> None:
        self.pacer = Pacer(asyncio.get_running_loop())
        self.stats = Stats()
        self._unary: dict[int, bytes] = {}

    def connect(self) -> tuple[UpstreamConnection, Wire]:
        connection, wire = UpstreamConnection(self.stats, self.pacer, self._unary), Wire()
        connection.connection_made(cast(asyncio.Transport, wire))
        return connection, wire

    def asked(self, what: str) -> dict[str, int]:
        connection, wire = self.connect()
        connection.data_received(f"GET /{what} HTTP/1.1\r\n\r\n".encode())
        numbers: dict[str, int] = json.loads(wire.written.partition(b"\r\n\r\n")[2])
        return numbers


def at_desk(scene: Callable[[Desk], None]) -> None:
    async def run() -> None:
        scene(Desk())

    asyncio.run(run())


def request(order: orders.Order, size: int = orders.BODY_BYTES) -> bytes:
    return orders.request(order, "127.0.0.1", "k" * 32, size=size)


@pytest.mark.parametrize("step", [1, 7, 1000, 10**9])
def test_requests_are_served_however_they_are_cut(step: int) -> None:
    def scene(desk: Desk) -> None:
        connection, wire = desk.connect()
        sent = request(orders.unary(1024), 20_000) + request(orders.burst(3)) + request(orders.unary(2000))
        for at in range(0, len(sent), step):
            connection.data_received(sent[at : at + step])
        assert wire.written.count(b"HTTP/1.1 200 OK") == 3
        assert wire.written.count(orders.EVENT) == 3
        assert wire.written.endswith(orders.unary_body(2000))
        assert desk.asked("stats") == {"connections": 1, "requests": 3}

    at_desk(scene)


def test_what_is_sent_ahead_waits_for_the_end_of_a_stream() -> None:
    def scene(desk: Desk) -> None:
        connection, wire = desk.connect()
        connection.data_received(request(orders.paced(1, 0)) + request(orders.unary(1024)))
        assert wire.written.count(b"HTTP/1.1 200 OK") == 1
        desk.asked("finish")
        assert wire.written.endswith(orders.unary_body(1024))

    at_desk(scene)


@pytest.mark.parametrize("count", [7, 50, 1000, 5000])
def test_events_of_any_number_of_streams_are_evenly_spread(count: int) -> None:
    def scene(desk: Desk) -> None:
        interval = 10**9 // 2
        for _ in range(count):
            desk.connect()[0].data_received(request(orders.paced(2, 0)))
        places = sorted(at % interval for at, _, _ in desk.pacer._due)
        gaps = [after - before for before, after in zip(places, [*places[1:], places[0] + interval], strict=True)]
        assert len(places) == count
        assert max(gaps) < 3 * interval / count
        assert min(gaps) > interval / count / 3

    at_desk(scene)


def test_a_paced_stream_begins_at_once_and_ends_when_told_with_as_many_events_as_it_says() -> None:
    def scene(desk: Desk) -> None:
        streams = [desk.connect() for _ in range(3)]
        for connection, wire in streams:
            connection.data_received(request(orders.paced(1, 0)))
            assert wire.written.count(orders.CONTENT_MARK) == 1
        streams[0][0].write_paced()
        assert desk.asked("finish") == {"streams": 3, "events": 4}
        assert [wire.written.count(orders.CONTENT_MARK) for _, wire in streams] == [2, 1, 1]
        assert all(orders.DONE in wire.written and wire.written.endswith(b"0\r\n\r\n") for _, wire in streams)
        assert desk.asked("finish") == {"streams": 0, "events": 0}

    at_desk(scene)


def test_a_stream_with_a_number_of_events_has_those_and_is_not_ended_by_others() -> None:
    def scene(desk: Desk) -> None:
        connection, wire = desk.connect()
        connection.data_received(request(orders.paced(1, 2)))
        assert desk.asked("finish")["streams"] == 0
        connection.write_paced()
        assert orders.DONE not in wire.written
        connection.write_paced()
        assert wire.written.count(orders.CONTENT_MARK) == 2 and orders.DONE in wire.written

    at_desk(scene)


def test_who_leaves_is_paced_no_more() -> None:
    def scene(desk: Desk) -> None:
        connection, _ = desk.connect()
        connection.data_received(request(orders.paced(1, 0)))
        assert len(desk.pacer.streams) == 1
        connection.connection_lost(None)
        assert desk.pacer.streams == {}

    at_desk(scene)
