"""A provider that costs little: raw asyncio protocols on uvloop, answers precomputed.

Lives here: the process `python -m bench.upstream`, which prints its port and serves until its standard input closes.
May not live here: anything a contestant is measured by; faults (the project's simulator has those).
How it works: the model name in the body is the order (see orders). Content chunks of paced streams carry the clock at
their writing, so that the load can tell how long each was under way. `GET /stats` tells how many connections carried
requests, by which a contestant that does not reuse its connections is found out.
Doubted: timers of the loop have a resolution of 1 ms, so paced events of many streams leave in small groups.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from typing import cast

import uvloop

from bench import orders
from bench.orders import Order, chunked

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\nx-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
_ROLE = chunked(orders.ROLE)
_FINISH = chunked(orders.FINISH)
_DONE = chunked(orders.DONE)
_USAGE_CHUNK = chunked(orders.USAGE)
_EVENT = chunked(orders.EVENT)
_BEFORE, _AFTER = chunked(orders.EVENT_BEFORE + b"@" * orders.STAMP_DIGITS + orders.EVENT_AFTER).split(
    b"@" * orders.STAMP_DIGITS
)
_BLOCK_EVENTS = 200  # one write of a back-to-back stream: 60 KB
_BLOCK = _EVENT * _BLOCK_EVENTS
_HIGH_WATER = 512 * 1024  # enough for the loop to write large pieces, bounded all the same


def _unary_answer(size: int) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\ncontent-type: application/json\r\n"
        b"x-request-id: req_bench\r\ncontent-length: %d\r\n\r\n%b" % (size, orders.unary_body(size))
    )


class Stats:
    """Counters since the start. Connections count once they carry an order."""

    __slots__ = ("connections", "requests")

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0


class UpstreamConnection(asyncio.Protocol):
    """Answers orders one after the other; requests that arrive during a stream wait in `held`."""

    __slots__ = ("_closing", "_held", "_is_new", "_left", "_loop", "_next_at", "_order", "_paused", "_stats", "_timer",
                 "_transport", "_unary", "_usage")  # fmt: skip

    def __init__(self, stats: Stats, unary: dict[int, bytes]) -> None:
        self._stats = stats
        self._unary = unary
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self._is_new = True
        self._order: Order | None = None
        self._left = 0
        self._next_at = 0.0
        self._paused = False
        self._usage = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport.set_write_buffer_limits(_HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._paused = True
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        while self._order is None and self._held:
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._held, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._held) < whole:
                return
            request, self._held = self._held[:whole], self._held[whole:]
            self._serve(request, end)

    def _serve(self, request: bytes, end: int) -> None:
        if request.startswith(b"GET /stats"):
            text = json.dumps({"connections": self._stats.connections, "requests": self._stats.requests}).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
            return
        if self._is_new:
            self._is_new = False
            self._stats.connections += 1
        self._stats.requests += 1
        model = _MODEL.search(request, end)
        order = orders.read_order(model[1].decode("ascii", "replace")) if model else None
        if order is None:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        elif order.shape == "unary":
            answer = self._unary.get(order.size)
            if answer is None:
                answer = self._unary[order.size] = _unary_answer(order.size)
            self._transport.write(answer)
        else:
            self._usage = _USAGE.search(request, end) is not None
            self._begin_stream(order)

    def _begin_stream(self, order: Order) -> None:
        self._order = order
        self._left = order.events
        if order.shape == "burst" and order.events <= _BLOCK_EVENTS:
            self._transport.write(_STREAM_HEAD + _ROLE + _EVENT * order.events + self._ending())
            self._order = None
            return
        self._transport.write(_STREAM_HEAD + _ROLE)
        if order.shape == "burst":
            self._pour()
        elif order.shape == "paced":
            self._next_at = self._loop.time()
            self._tick()

    def _pour(self) -> None:
        """Writes blocks until the transport says stop; `resume_writing` goes on."""
        while not self._paused and self._left:
            if self._left >= _BLOCK_EVENTS:
                self._left -= _BLOCK_EVENTS
                self._transport.write(_BLOCK)
            else:
                self._transport.write(_EVENT * self._left)
                self._left = 0
        if not self._left:
            self._end_stream()

    def _tick(self) -> None:
        """One paced event, and the timer for the next. A stream that fell behind catches up: load stays as ordered."""
        order = self._order
        if order is None or self._paused:
            return
        if not self._left:
            self._end_stream()
            return
        self._left -= 1
        self._transport.write(b"%b%019d%b" % (_BEFORE, time.monotonic_ns(), _AFTER))
        self._next_at += 1 / order.rate
        self._timer = self._loop.call_at(self._next_at, self._tick)

    def _ending(self) -> bytes:
        return _FINISH + (_USAGE_CHUNK if self._usage else b"") + _DONE + b"0\r\n\r\n"

    def _end_stream(self) -> None:
        self._order = None
        self._transport.write(self._ending())
        if self._held:
            self.data_received(b"")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._order is not None:
            if self._order.shape == "burst":
                self._pour()
            elif self._order.shape == "paced":
                self._tick()


async def _serve() -> None:
    stats = Stats()
    unary: dict[int, bytes] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: UpstreamConnection(stats, unary), "127.0.0.1", 0, backlog=4096)
    gc.freeze()
    gc.disable()  # nothing here makes cycles; a collection would show up as latency of every contestant
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)  # ends when whoever started us is gone
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve())
