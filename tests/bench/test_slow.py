"""Clients that hardly read: they begin, they leave the rest where it is, and what goes wrong with them is said."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench import machine, orders
from bench.arena import Arena, Running
from bench.client import Ask
from bench.slow import SlowReaders, _Reader
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

ORDER = orders.burst(30_000)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    assert sys.platform.startswith("linux")
    folder: Path = tmp_path_factory.mktemp("arena")
    with Arena(folder) as arena:
        yield arena.start_upstream(machine.choose_cores().rest)


def ask() -> Ask:
    return Ask.of(orders.request(ORDER, "127.0.0.1", "k" * 32), ORDER)


def test_they_begin_and_hardly_read(upstream: Running) -> None:
    async def scene() -> tuple[int, str]:
        readers = SlowReaders(upstream.port, ask())
        await readers.start(5)
        return readers.read, readers.stop()

    read, error = asyncio.run(scene())
    assert error == ""
    assert 0 < read < 5 * ORDER.body_bytes / 10


def test_a_reader_stops_after_each_read_and_the_first_one_lets_the_start_go_on() -> None:
    begun, calls = asyncio.Semaphore(0), []
    wire = SimpleNamespace(pause_reading=lambda: calls.append("pause"))
    reader = _Reader(begun)
    reader.connection_made(cast(asyncio.Transport, wire))
    reader.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
    reader.data_received(b"data: ...")
    assert calls == ["pause", "pause"]
    assert (begun._value, reader.read, reader.error) == (1, 28, "")


@pytest.mark.parametrize(
    ("answer", "word"),
    [(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status 503"), (b"HTTP/1.1 200 OK\r\n\r\n", "were closed")],
)
def test_what_goes_wrong_is_said(answer: bytes, word: str) -> None:
    async def scene() -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            readers = SlowReaders(server.sockets[0].getsockname()[1], ask())
            await readers.start(1)
            while not readers._readers[0].is_lost:
                readers._readers[0].transport.resume_reading()
                await asyncio.sleep(0)
            return readers.stop()

    assert word in asyncio.run(scene())
