"""A bad network: a relay between two sockets that can do what networks do.

Lives here: `FaultyLink`. May not live here: anything about HTTP.
How it works: listens on a port of its own, connects each client to `target`, and moves bytes both ways. What it is told
holds for every connection from then on, one direction at a time (`UP`: towards the target, `DOWN`: towards the client).
It reads only what it may pass on, so a link that is stalled or slow pushes back like a real one.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Way(Enum):
    UP = "up"
    DOWN = "down"


UP, DOWN = Way.UP, Way.DOWN
_READ = 64 * 1024


@dataclass
class _Rule:
    """How one direction moves. `open` cleared: stalled. `size` 0: whole reads. `cut_after` counts per connection."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    size: int = 0
    every: float = 0.0
    delay: float = 0.0
    cut_after: int | None = None
    cut_hard: bool = False
    half_closes: bool = False


class FaultyLink:
    """`port` is where it listens; `moved` counts the bytes that went each way; `open` the connections there are."""

    def __init__(self, target: int, *, buffer: int = 0) -> None:
        """`buffer`: SO_RCVBUF and SO_SNDBUF of its sockets, so that a stall is felt soon (0 = the system's)."""
        self.port = 0
        self.moved = {UP: 0, DOWN: 0}
        self._target = target
        self._buffer = buffer
        self._rules = {UP: _Rule(), DOWN: _Rule()}
        for rule in self._rules.values():
            rule.open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    @property
    def open(self) -> int:
        return len(self._pairs)

    # -- what the network does ----------------------------------------------------------------------------------------

    def stall(self, way: Way) -> None:
        """Nothing moves; the kernel's buffers fill."""
        self._rules[way].open.clear()

    def go_on(self, way: Way) -> None:
        self._rules[way].open.set()

    def trickle(self, way: Way, size: int, every: float = 0.0) -> None:
        """`size` bytes at a time, each after `every` seconds."""
        self._rules[way].size, self._rules[way].every = size, every

    def delay(self, way: Way, seconds: float) -> None:
        self._rules[way].delay = seconds

    def cut_after(self, way: Way, size: int, *, hard: bool = False, half: bool = False) -> None:
        """Behind the first `size` bytes of a connection both sides end, by FIN or (`hard`) by RST; `half`: only this
        direction, by FIN."""
        rule = self._rules[way]
        rule.cut_after, rule.cut_hard, rule.half_closes = size, hard, half

    def cut(self, *, hard: bool = False) -> None:
        """All connections end now."""
        for pair in list(self._pairs):
            pair.cut(hard)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> FaultyLink:
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            self._start(self._join(client))

    async def _join(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        pair = _Pair(client, socket.socket())
        self._pairs.add(pair)
        try:
            pair.set_up(self._buffer)
            await loop.sock_connect(pair.server, ("127.0.0.1", self._target))
            pair.moves = [
                loop.create_task(self._move(UP, client, pair.server)),
                loop.create_task(self._move(DOWN, pair.server, client)),
            ]
            await asyncio.wait(pair.moves, return_when=asyncio.FIRST_EXCEPTION)
            for move in pair.moves:
                if move.done() and not move.cancelled() and (error := move.exception()) is not None:
                    # One side was reset: so is the other.
                    pair.is_hard = error.is_hard if isinstance(error, _Cut) else True
        except OSError:
            pair.is_hard = True
        finally:
            self._pairs.discard(pair)
            try:
                for move in pair.moves:
                    move.cancel()
                await asyncio.gather(*pair.moves, return_exceptions=True)
            finally:
                pair.close()

    async def _move(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        rule = self._rules[way]
        passed = 0
        while True:
            await rule.open.wait()
            most = rule.size or _READ
            if rule.cut_after is not None:
                most = min(most, rule.cut_after - passed)
                if most <= 0:
                    break
            data = await loop.sock_recv(source, most)
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            if rule.every or rule.delay:
                await asyncio.sleep(rule.every or rule.delay)
            await rule.open.wait()
            await loop.sock_sendall(sink, data)
            passed += len(data)
            self.moved[way] += len(data)
        if not rule.half_closes:
            raise _Cut(rule.cut_hard)
        sink.shutdown(socket.SHUT_WR)


class _Cut(Exception):
    def __init__(self, is_hard: bool) -> None:
        super().__init__()
        self.is_hard = is_hard


class _Pair:
    """The two sockets of one connection. `is_hard`: they are to be closed by RST."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.is_hard = False
        self.moves: list[asyncio.Task[None]] = []

    def set_up(self, buffer: int) -> None:
        for sock in (self.client, self.server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)

    def cut(self, hard: bool) -> None:
        self.is_hard = hard
        for move in self.moves:
            move.cancel()

    def close(self) -> None:
        for sock in (self.client, self.server):
            if self.is_hard:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
