"""A provider that costs little: raw asyncio protocols on uvloop, answers precomputed.

Lives here: the process `python -m bench.upstream [certificate.pem]`, which prints its port, with a certificate that of
its TLS too, and serves until its standard input closes.
May not live here: anything a contestant is measured by; faults (the project's simulator has those).
How it works: the model name in the body is the order (see orders). Content chunks of paced streams carry the clock at
their writing, so that the load can tell how long each was under way. They leave one by one, evenly spread over time,
however many streams there are: a contestant must not find two at once at 50 streams and one at 5,000. So a stream keeps
a place of its own within its interval, by the golden ratio, which spreads any number of them; its first event comes at
once, since a gateway may hold a stream back until then. `GET /stats` tells how many connections carried requests, by
which a contestant that does not reuse its connections is found out. `GET /finish` ends all paced streams whose end was
left open, and tells how many events they had.
Doubted: real events do not come evenly spread; a contestant then finds several at once now and then, which is cheaper.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import json
import re
import ssl
import sys
import time
from typing import cast

import uvloop

from bench import orders
from bench.orders import Order, chunked
from bench.timer import FineTimer

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
_SECOND = 1_000_000_000
_GOLDEN = (5**0.5 - 1) / 2
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


class Pacer:
    """When which paced stream writes its next event."""

    __slots__ = ("_begun", "_due", "_timer", "streams")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.streams: dict[int, UpstreamConnection] = {}  # by number: those that go on
        self._begun = 0
        self._due: list[tuple[int, int, int]] = []  # a heap: when, interval, number; nanoseconds
        self._timer = FineTimer(loop, self._wake)

    def begin(self, connection: UpstreamConnection, rate: int) -> int:
        """The stream's number from now on."""
        self._begun += 1
        number, interval = self._begun, _SECOND // rate
        self.streams[number] = connection
        place = int(number * _GOLDEN % 1.0 * interval)
        now = time.monotonic_ns()
        self._put(now - now % interval + place + (interval if now % interval >= place else 0), interval, number)
        return number

    def _put(self, at: int, interval: int, number: int) -> None:
        heapq.heappush(self._due, (at, interval, number))
        if self._due[0][2] == number:
            self._timer.set(at)

    def _wake(self) -> None:
        """Writes what is due. What fell behind catches up: load stays as ordered."""
        due = self._due
        while due and due[0][0] <= time.monotonic_ns():
            at, interval, number = due[0]
            connection = self.streams.get(number)
            if connection is None:
                heapq.heappop(due)
            else:
                heapq.heapreplace(due, (at + interval, interval, number))
                connection.write_paced()
        if due:
            self._timer.set(due[0][0])


class UpstreamConnection(asyncio.Protocol):
    """Answers orders one after the other; requests that arrive during a stream wait in `held`."""

    __slots__ = ("_held", "_is_new", "_left", "_more", "_number", "_order", "_pacer", "_paused", "_pieces", "_stats",
                 "_transport", "_unary", "_usage", "written")  # fmt: skip

    def __init__(self, stats: Stats, pacer: Pacer, unary: dict[int, bytes]) -> None:
        self._stats = stats
        self._pacer = pacer
        self._unary = unary
        self._held = b""
        self._pieces: list[bytes] = []  # of a request that is not whole
        self._more = 0  # bytes that it lacks
        self._is_new = True
        self._order: Order | None = None
        self._left = 0
        self._number = 0  # of a paced stream
        self._paused = False
        self._usage = False
        self.written = 0  # events of a paced stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._transport.set_write_buffer_limits(_HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._paused = True
        self._pacer.streams.pop(self._number, None)

    def data_received(self, data: bytes) -> None:
        if self._more:  # the rest of a long request: joined once, not at each read
            self._pieces.append(data)
            self._more -= len(data)
            if self._more > 0:
                return
            self._more = 0
            self._held = b"".join(self._pieces)
            self._pieces.clear()
        else:
            self._held = self._held + data if self._held else data
        self._take_requests()

    def _take_requests(self) -> None:
        while self._order is None and self._held:
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._held, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._held) < whole:
                self._more = whole - len(self._held)
                self._pieces.append(self._held)
                self._held = b""
                return
            request, self._held = self._held[:whole], self._held[whole:]
            self._serve(request, end)

    def _serve(self, request: bytes, end: int) -> None:
        if request.startswith(b"GET /stats"):
            self._tell({"connections": self._stats.connections, "requests": self._stats.requests})
            return
        if request.startswith(b"GET /health"):  # routers send nothing to servers that are not well
            self._tell({})
            return
        if request.startswith(b"GET /finish"):
            streams = [each for each in self._pacer.streams.values() if each.is_open]
            self._tell({"streams": len(streams), "events": sum(each.written for each in streams)})
            for each in streams:
                each.finish()
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

    def _tell(self, what: dict[str, int]) -> None:
        text = json.dumps(what).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))

    def _begin_stream(self, order: Order) -> None:
        self._order = order
        self._left = order.events
        if order.shape == "burst" and order.events <= _BLOCK_EVENTS:
            self._transport.write(_STREAM_HEAD + _ROLE + _EVENT * order.events + self._ending())
            self._order = None
            return
        self._transport.write(_STREAM_HEAD + _ROLE + (_EVENT if order.shape == "idle" else b""))
        if order.shape == "burst":
            self._pour()
        elif order.shape == "paced":
            self.written = 0
            self._number = self._pacer.begin(self, order.rate)
            self.write_paced()

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

    @property
    def is_open(self) -> bool:
        """Whether this is a paced stream that goes on until it is told to finish."""
        return self._order is not None and self._order.shape == "paced" and not self._order.events

    def write_paced(self) -> None:
        """One event; the end of the stream in place of one that is too many. Not while the other side does not read."""
        if self._paused:
            return
        if self.written and self.written == self._left:
            self.finish()
            return
        self.written += 1
        self._transport.write(b"%b%019d%b" % (_BEFORE, time.monotonic_ns(), _AFTER))

    def finish(self) -> None:
        self._pacer.streams.pop(self._number, None)
        self._end_stream()

    def _ending(self) -> bytes:
        return _FINISH + (_USAGE_CHUNK if self._usage else b"") + _DONE + b"0\r\n\r\n"

    def _end_stream(self) -> None:
        self._order = None
        self._transport.write(self._ending())
        self._take_requests()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._order is not None and self._order.shape == "burst":
            self._pour()


async def _serve(certificate: str) -> None:
    stats = Stats()
    unary: dict[int, bytes] = {}
    loop = asyncio.get_running_loop()
    pacer = Pacer(loop)

    async def listen(tls: ssl.SSLContext | None) -> asyncio.Server:
        return await loop.create_server(
            lambda: UpstreamConnection(stats, pacer, unary), "127.0.0.1", 0, backlog=4096, ssl=tls
        )

    servers = [await listen(None)]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        servers.append(await listen(context))
    gc.freeze()
    gc.disable()  # nothing here makes cycles; a collection would show up as latency of every contestant
    sys.stdout.write(" ".join(str(server.sockets[0].getsockname()[1]) for server in servers) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)  # ends when whoever started us is gone
    for server in servers:
        server.close()


if __name__ == "__main__":
    uvloop.run(_serve("".join(sys.argv[1:2])))
