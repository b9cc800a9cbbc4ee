"""The floor: what any proxy on this loop must pay, because it reads and writes.

Lives here: the process `python -m bench.splice <upstream port>`, which prints its port and serves until its standard
input closes.
May not live here: a parser, a pool, any look at the bytes.
How it works: two protocols, each writing to the other what it reads; one upstream connection per client connection;
backpressure by pausing the other side's reading.
Doubted: nothing. A proxy can be below this floor only by fewer reads and writes, which a paced stream does not allow.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import cast

import uvloop


class Half(asyncio.Protocol):
    """One side of a pair. Bytes that arrive before the other side is there wait in `_early`."""

    __slots__ = ("_early", "_other", "_transport", "_write")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._other: Half | None = None
        self._early: list[bytes] = []
        self._write = self._early.append

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def join(self, other: Half) -> None:
        self._other = other
        transport = other._transport
        if transport is None or transport.is_closing():
            self.close()
            return
        self._write = transport.write
        if self._early:
            transport.write(b"".join(self._early))
            self._early.clear()

    def data_received(self, data: bytes) -> None:
        self._write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._other is not None:
            self._other.close()

    def pause_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()


class ClientHalf(Half):
    """The side that was accepted: connects its other half."""

    __slots__ = ("_port", "_tasks")

    def __init__(self, port: int, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__()
        self._port = port
        self._tasks = tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        try:
            _, other = await asyncio.get_running_loop().create_connection(Half, "127.0.0.1", self._port)
        except OSError:
            self.close()
            return
        self.join(other)
        other.join(self)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    server = await loop.create_server(lambda: ClientHalf(port, tasks), "127.0.0.1", 0, backlog=4096)
    gc.freeze()
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
