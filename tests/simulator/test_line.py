"""What goes out under h11, and that the next request on the same connection is read again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import h11
import pytest

from proxy.simulator.line import Left, Line
from proxy.simulator.script import Head, Interim
from proxy.wire.head import Framing

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def with_line(test: Callable[[Line, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    async def run() -> None:
        arrived: asyncio.Queue[Line] = asyncio.Queue()
        server = await asyncio.start_server(lambda r, w: arrived.put(Line(r, w)), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        line = await arrived.get()
        try:
            await test(line, reader, writer)
        finally:
            line.abort()
            writer.transport.abort()
            server.close()

    asyncio.run(run())


async def take(line: Line, writer: asyncio.StreamWriter) -> None:
    writer.write(GET)
    while True:
        event = line.h11.next_event()
        if isinstance(event, h11.EndOfMessage):
            return
        if event is h11.NEED_DATA:
            assert await line.fill()


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED])
def test_honest_and_not_the_next_request_is_read(honest: bool, framing: Framing) -> None:
    async def test(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        field = ("content-length", "2") if framing is Framing.LENGTH else ("transfer-encoding", "chunked")
        for _ in range(3):
            await take(line, writer)
            await line.interim(Interim(103, []))
            await line.head(Head(200, [field], framing, honest))
            await line.send(b"ok")
            await line.end(b"<extra>")
            data = await reader.readuntil(b"<extra>")
            body = b"ok" if framing is Framing.LENGTH else b"2\r\nok\r\n0\r\n\r\n"
            assert data.startswith(b"HTTP/1.1 103 ")
            assert data.endswith(b"\r\n\r\n" + body + b"<extra>")
            assert line.next_cycle()

    with_line(test)


def test_until_close_has_no_next_request() -> None:
    async def test(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(line, writer)
        await line.head(Head(299, [], Framing.UNTIL_CLOSE, False))
        await line.send(b"body")
        await line.end(b"")
        assert not line.next_cycle()
        await line.fin()
        assert await reader.read() == b"HTTP/1.1 299 Simulated\r\n\r\nbody"

    with_line(test)


def test_what_comes_during_a_silence_is_not_lost() -> None:
    async def test(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(line, writer)
        await line.head(Head(200, [("content-length", "0")], Framing.LENGTH, False))
        writer.write(GET)
        await line.watch(0.05)
        await line.end(b"")
        assert line.next_cycle()
        assert isinstance(line.h11.next_event(), h11.Request)

    with_line(test)


def test_a_silence_ends_when_the_client_leaves() -> None:
    async def test(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with pytest.raises(Left):
            await line.watch(30)

    with_line(test)


def test_a_reset_comes_after_everything_that_was_written() -> None:
    async def test(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line.writer.write(bytes(500_000))
        await asyncio.gather(line.rst(), _expect_reset(reader, 500_000))

    with_line(test)


async def _expect_reset(reader: asyncio.StreamReader, size: int) -> None:
    got = 0
    try:
        while True:
            got += len(await reader.read(65536))
    except ConnectionResetError:
        got += len(reader._buffer)  # type: ignore[attr-defined]  # it would forget those
    assert got == size
