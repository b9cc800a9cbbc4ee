"""A trivial question, asked again and again while something else goes on.

Lives here: `Prober`, one connection that asks for a contestant's health at a slow, fixed rate.
May not live here: the load meanwhile (load), figures (siege).
How it works: what takes no work to answer waits only for the event loop that answers it, so its latency is that loop's
lag, and the way there and back. It counts from when the question was due; one that waits for the answer to the one
before is not left out.
Doubted: the prober shares a process with the load, so the load's own queue is part of the figure; that of a contestant
at rest, and of nginx beside it, tells how much.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import cast

from bench.arena import Probe
from bench.timer import FineTimer

_END = b"\r\n\r\n"


class Prober(asyncio.Protocol):
    """`latencies`: microseconds of each answer so far."""

    def __init__(self, probe: Probe, rate: float) -> None:
        self.latencies: list[float] = []
        self._port = probe.port
        self._request = f"GET {probe.path} HTTP/1.1\r\nhost: 127.0.0.1:{probe.port}\r\n\r\n".encode()
        self._interval = int(1e9 / rate)
        self._due: deque[int] = deque()  # of questions without an answer; the first has been asked
        self._next = 0
        self._held = b""
        self._error = ""
        self._is_over = False
        self._timer: FineTimer | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        self._timer = FineTimer(loop, self._ask)
        self._next = time.monotonic_ns() + self._interval
        self._timer.set(self._next)

    def stop(self) -> str:
        """The end of it; what went wrong, if anything did."""
        self._is_over = True
        if self._timer is not None:
            self._timer.close()
            self._transport.abort()
        return self._error or ("" if self.latencies else "no answer")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_over:
            self._error = self._error or "the connection was closed"

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, body = self._held.partition(_END)
        if not end or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self._error = self._error or f"status {head[9:12].decode(errors='replace')}"
        self._held = b""
        self.latencies.append((time.monotonic_ns() - self._due.popleft()) / 1e3)
        if self._due:
            self._transport.write(self._request)

    def _ask(self) -> None:
        assert self._timer is not None
        while self._next <= time.monotonic_ns():
            self._due.append(self._next)
            self._next += self._interval
            if len(self._due) == 1:
                self._transport.write(self._request)
        self._timer.set(self._next)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0
