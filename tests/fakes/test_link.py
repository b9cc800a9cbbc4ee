"""The bad network does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests.fakes import loops
from tests.fakes.link import DOWN, UP, FaultyLink

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


def play(test: Callable[[FaultyLink, Reader, Writer], Awaitable[None]]) -> None:
    """`test` with a client's connection through a link to a server that echoes."""

    async def echo(reader: Reader, writer: Writer) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with FaultyLink(server.sockets[0].getsockname()[1]) as link:
            reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
            await asyncio.wait_for(test(link, reader, writer), 10)
            writer.close()
        server.close()
        await asyncio.sleep(0.02)  # for the server's side to end

    loops.run(main(), loop_factory=uvloop.new_event_loop)


def test_it_passes_bytes_and_ends() -> None:
    async def test(link: FaultyLink, reader: Reader, writer: Writer) -> None:
        writer.write(b"x" * 300_000)
        assert await reader.readexactly(300_000) == b"x" * 300_000
        writer.write_eof()
        assert await reader.read() == b""
        assert link.moved == {UP: 300_000, DOWN: 300_000}

    play(test)


def test_it_stalls_and_goes_on() -> None:
    async def test(link: FaultyLink, reader: Reader, writer: Writer) -> None:
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        link.stall(DOWN)
        writer.write(b"b")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        link.go_on(DOWN)
        assert await reader.readexactly(1) == b"b"

    play(test)


def test_it_trickles() -> None:
    async def test(link: FaultyLink, reader: Reader, writer: Writer) -> None:
        link.trickle(DOWN, 1, 0.01)
        writer.write(b"x" * 20)
        began = asyncio.get_running_loop().time()
        assert await reader.readexactly(20) == b"x" * 20
        assert asyncio.get_running_loop().time() - began >= 0.19

    play(test)


@pytest.mark.parametrize("hard", [False, True])
def test_it_cuts_behind_a_number_of_bytes(hard: bool) -> None:
    async def test(link: FaultyLink, reader: Reader, writer: Writer) -> None:
        link.cut_after(DOWN, 7, hard=hard)
        writer.write(b"0123456789")
        assert await reader.readexactly(7) == b"0123456"
        if hard:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        else:
            assert await reader.read() == b""

    play(test)


@pytest.mark.parametrize("hard", [False, True])
def test_it_cuts_now(hard: bool) -> None:
    async def test(link: FaultyLink, reader: Reader, writer: Writer) -> None:
        writer.write(b"a")
        await reader.readexactly(1)
        link.cut(hard=hard)
        if hard:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        else:
            assert await reader.read() == b""

    play(test)


def test_it_half_closes() -> None:
    async def test(link: FaultyLink, reader: Reader, writer: Writer) -> None:
        link.cut_after(UP, 3, half=True)
        writer.write(b"0123456789")
        assert await reader.read() == b"012"  # the server saw FIN, answered, and closed

    play(test)
