"""Clients that hardly read.

Lives here: `SlowReaders`: each asks for a long stream and takes a little of it now and then.
May not live here: what others get meanwhile (load), figures (siege).
How it works: a small receive buffer in the kernel, and reading that is paused but for a moment ten times a second; so
whatever is on its way stays with the contestant, or with the upstream if the contestant stops reading there.
Doubted: what the kernel holds for the contestant is in no figure; it is bounded by the kernel's own settings.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from bench.client import Ask

_RECEIVE_BYTES = 4096  # asked for; the kernel doubles it
_TURN_SECONDS = 0.1
_BEGIN_SECONDS = 10.0


class _Reader(asyncio.Protocol):
    __slots__ = ("begun", "error", "is_lost", "read", "transport")

    def __init__(self, begun: asyncio.Semaphore) -> None:
        self.begun = begun  # released at the first bytes
        self.read = 0
        self.error = ""
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def data_received(self, data: bytes) -> None:
        if not self.read:
            self.begun.release()
            if not data.startswith(b"HTTP/1.1 200"):
                self.error = f"status {data[9:12].decode(errors='replace')}"
        self.read += len(data)
        self.transport.pause_reading()


class SlowReaders:
    """Plain ones only. `read`: the bytes that all of them took."""

    def __init__(self, port: int, ask: Ask) -> None:
        self._port = port
        self._ask = ask
        self._readers: list[_Reader] = []
        self._turn: asyncio.TimerHandle | None = None

    @property
    def read(self) -> int:
        return sum(reader.read for reader in self._readers)

    async def start(self, count: int) -> None:
        """Returns when all have begun, or ten seconds later."""
        loop = asyncio.get_running_loop()
        begun = asyncio.Semaphore(0)
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", self._port))
            _, reader = await loop.create_connection(lambda: _Reader(begun), sock=sock)
            self._readers.append(reader)
            reader.transport.write(self._ask.request)
        self._take_turn()
        try:
            async with asyncio.timeout(_BEGIN_SECONDS):
                for _ in range(count):
                    await begun.acquire()
        except TimeoutError:
            return

    def stop(self) -> str:
        """The end of it; what went wrong, if anything did."""
        if self._turn is not None:
            self._turn.cancel()
        lost = sum(reader.is_lost for reader in self._readers)
        silent = sum(not reader.read for reader in self._readers)
        errors = [reader.error for reader in self._readers if reader.error]
        for reader in self._readers:
            reader.transport.abort()
        if errors:
            return f"slow readers: {errors[0]}"
        if lost or silent:
            return f"slow readers: {lost} were closed, {silent} got nothing"
        return ""

    def _take_turn(self) -> None:
        self._turn = asyncio.get_running_loop().call_later(_TURN_SECONDS, self._take_turn)
        for reader in self._readers:
            if not reader.is_lost:
                reader.transport.resume_reading()
