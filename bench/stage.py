"""A whole sidecar between transports that only collect, for whoever counts what its straight path takes.

Lives here: `staged` and `Stage`, with their loop and links.
May not live here: counting (straight, instructions).
How it works: the worker is composed by `proxy.server.worker` itself from the settings that the bench gives the real one
(a key, ten limits, metering, prices, the ledger in a folder of its own), on a loop that only queues. One client sends
requests over one connection, one pooled upstream connection answers; both sides are called as uvloop would call them,
and their transports append to a list, in C, so that no frame and hardly any time is the stage's. The relay's clocks
count looks instead of time, so that every run decides the same. After each piece of work all bytes on both sides are
compared with what they must be, so a path that breaks cannot look fast. The ledger writes its rows when told.
Doubted: no kernel, no real loop: what they take is a large part of the whole, and only `python -m bench` shows it. What
`proxy.server.worker.run` does around a worker (its garbage collector, its log) is not here. Text is never counted:
every answer reports its usage, and what a long stream hands over for counting is dropped. Bytes come as the bench's
upstream sends them: a provider may split its events between reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import tempfile
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import proxy
from bench import orders
from bench.contestants import CONTESTANTS
from proxy.ledger.counters import Counters, beside
from proxy.ledger.writer import Ledger
from proxy.server.settings import read_settings
from proxy.server.worker import Worker
from proxy.telemetry.sampler import Sampler

if TYPE_CHECKING:
    _Loop = Any  # for the type checker: a loop in every respect
else:
    _Loop = asyncio.AbstractEventLoop

KEY = "k" * 32
BULK = 200  # events in one read of a back-to-back stream: 60 KB
_EPOCH_NS = 1_800_000_000 * 10**9

_UNARY_SIZE = 1024
_UNARY_BODY = orders.unary_body(_UNARY_SIZE)
_COMMON = b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nx-request-id: req_bench\r\n"
_UNARY_ANSWER = b"%bcontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    _COMMON,
    _UNARY_SIZE,
    _UNARY_BODY,
)
_STREAM_HEAD = _COMMON + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = orders.chunked(orders.EVENT)
_FIRST = _STREAM_HEAD + orders.chunked(orders.ROLE)
_LAST = b"".join(map(orders.chunked, (orders.FINISH, orders.USAGE, orders.DONE))) + b"0\r\n\r\n"


class WrongBytes(Exception):
    """What came out is not what must."""


class Loop(_Loop):  # type: ignore[misc]
    """Queues, and runs what is queued when told; timers never come up. `asked`: how often each thing was."""

    def __init__(self) -> None:
        self.ready: deque[asyncio.Handle] = deque()
        self.asked: Tally[str] = Tally()
        self.upstreams: list[Link] = []  # links to the provider, as they were opened
        self.errors: list[dict[str, Any]] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`, which must not need time."""
        task = self.create_task(work)
        self.run_ready()
        return task.result()

    def run_ready(self) -> None:
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while self.ready:
                self.ready.popleft()._run()
        finally:
            asyncio._set_running_loop(before)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        self.asked["call_soon"] += 1
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        self.asked["timer"] += 1
        return asyncio.TimerHandle(when, callback, args, self, context)

    def create_task(self, work: Any, **options: Any) -> asyncio.Task[Any]:
        self.asked["task"] += 1
        return asyncio.Task(work, loop=self, **options)

    def create_future(self) -> asyncio.Future[Any]:
        self.asked["future"] += 1
        return asyncio.Future(loop=self)

    def run_in_executor(self, executor: Any, work: Any, *args: Any) -> Any:
        raise AssertionError("the straight path has no threads")

    async def getaddrinfo(self, host: str, port: int, **options: Any) -> list[Any]:
        return [(2, 1, 6, "", (host, port))]

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int, **options: Any) -> Any:
        link = Link(factory(), (host, port))
        self.upstreams.append(link)
        return link, link.protocol

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def time(self) -> float:
        return 0.0

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def add_reader(self, *_: Any) -> None:
        pass

    def remove_reader(self, *_: Any) -> None:
        pass

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass


class Link:
    """A transport that appends what is written to `written`. What the sidecar asks of one for each request is
    implemented in C here as it is in uvloop: a frame of the stage's must not be counted as the sidecar's."""

    is_closing = bool  # called without arguments: False
    get_write_buffer_size = int  # the same: 0

    def __init__(self, protocol: Any, peer: tuple[str, int]) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append
        self.writelines = self.written.extend
        self.get_extra_info = {"peername": peer}.get
        self.protocol = protocol
        protocol.connection_made(self)
        self.says: Callable[[bytes], None] = protocol.data_received

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        raise AssertionError("nobody is slow on the straight path")

    resume_reading = pause_reading

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.protocol.connection_lost(None)

    write_eof = abort = close


class _Uncounted:
    """In place of the process that counts text: takes events in mid-stream, as that does; is never asked for sums."""

    def fold(self, stream: int, dialect: str, data: list[bytes]) -> bool:
        return True

    def forget(self, stream: int) -> None:
        pass

    def finish(self, *_: Any) -> None:
        raise WrongBytes("an answer that reports its usage was to be counted")

    async def close(self, seconds: float) -> None:
        pass


class Expected(NamedTuple):
    """What both sides get for one exchange: `event(n)` is one read of `n` events, on its way to the client."""

    request: bytes
    first: bytes
    last: bytes


class Stage:
    """A worker on its stage. Each method does work, and raises WrongBytes if anything else came out than must. Use
    `staged`."""

    def __init__(self, folder: Path) -> None:
        start = CONTESTANTS["llm-proxy"].start
        assert start is not None
        given = start(80, folder, KEY).environment
        environment = {name: value for name, value in given.items() if name.startswith("LLM_PROXY_")}
        environment["LLM_PROXY_DB"] = str(folder / "ledger.db")
        settings = read_settings(environment)
        assert settings.ledger is not None
        self.loop = Loop()
        self.notes: list[str] = []
        self.ledger = Ledger(settings.ledger, "bench", proxy.__version__, self._note)
        self.ledger.open()
        self._counters = Counters(beside(environment["LLM_PROXY_DB"]), self._note, _EPOCH_NS)
        sampler = Sampler((self.ledger.observe,), self._note)
        settings = dataclasses.replace(settings, listen=(), admin_listen=(), health_listen=())
        self.worker = Worker(settings, (sampler.observe,), self._note, "bench", self._counters)
        self.loop.run(self.worker.start())
        self.relay = relay = self.worker.relay
        relay.counter = _Uncounted()
        # A microsecond for each look.
        relay.clock = relay.pool.clock = itertools.count(1000.0, 1e-6).__next__
        relay.wall = itertools.count(_EPOCH_NS, 1000).__next__
        self.client = Link(relay.client(), ("192.0.2.7", 40000))
        self._unary = orders.request(orders.unary(_UNARY_SIZE), "127.0.0.1:8080", KEY)
        self._stream = orders.request(orders.paced(50, 100), "127.0.0.1:8080", KEY)
        self._expected_unary = self._learn_unary()
        self._expected_stream = self._learn_stream()

    def _note(self, level: str, message: str, /, **more: object) -> None:
        self.notes.append(f"{level}: {message}")

    # -- work ---------------------------------------------------------------------------------------------------------

    def unary(self, count: int) -> None:
        """So many requests of 1 KB, each answered with 1 KB."""
        ask, request, answer = self.client.says, self._unary, self.upstream.says
        for _ in range(count):
            ask(request)
            answer(_UNARY_ANSWER)
        expected = self._expected_unary
        self._check(expected.request * count, expected.first * count)

    def stream(self, events: int, per_read: int = 1) -> None:
        """One stream of so many events, so many in each read."""
        reads, rest = divmod(events, per_read)
        assert not rest
        self.begin_stream()
        self.read_events(reads, per_read)
        self.end_stream()

    def burst(self, reads: int) -> None:
        """One stream of so many reads of BULK events."""
        self.stream(reads * BULK, BULK)

    def short_streams(self, count: int, events: int = 20) -> None:
        """So many streams, one after the other, of so many events each."""
        for _ in range(count):
            self.stream(events)

    def begin_stream(self) -> None:
        self.client.says(self._stream)
        self.upstream.says(_FIRST)
        self.upstream.says(_EVENT)
        self._check(self._expected_stream.request, self._expected_stream.first)

    def read_events(self, reads: int, per_read: int = 1) -> None:
        """So many reads within the stream that has begun."""
        data, answer = _EVENT * per_read, self.upstream.says
        for _ in range(reads):
            answer(data)
        self._check(b"", orders.chunked(orders.EVENT * per_read) * reads)

    def end_stream(self) -> None:
        self.upstream.says(_LAST)
        self._check(b"", self._expected_stream.last)

    # -- what came of it ----------------------------------------------------------------------------------------------

    @property
    def upstream(self) -> Link:
        return self.loop.upstreams[-1]

    def settle(self) -> None:
        """Let the ledger write its rows."""
        while self.ledger.turn():
            pass

    def close(self) -> None:
        """The worker ends; every exchange must have its row."""
        self.loop.run(self.worker.stop(0))
        if not self.ledger.close(10.0):
            raise WrongBytes(f"rows are missing: {self.notes}")
        self._counters.close()

    def _check(self, sent: bytes, answered: bytes) -> None:
        """Since the last time, exactly this went upstream and to the client, over one link each."""
        upstream, client = b"".join(self.upstream.written), b"".join(self.client.written)
        self.upstream.written.clear()
        self.client.written.clear()
        if upstream != sent or client != answered:
            raise WrongBytes(f"sent {upstream[:1000]!r}, answered {client[:1000]!r}")
        if self.relay.pool.opened != 1 or self.loop.errors or self.loop.ready:
            opened, waiting = self.relay.pool.opened, len(self.loop.ready)
            raise WrongBytes(f"{opened} upstream links, {waiting} calls are due, errors: {self.loop.errors}")

    def _learn_unary(self) -> Expected:
        """The first exchange, which opens the link, looked at closely: all others must be the same."""
        self.client.says(self._unary)
        self.loop.run_ready()
        self.upstream.says(_UNARY_ANSWER)
        request, answer = self._taken()
        _must(_body(request) == _body(self._unary), request)
        _must(answer.startswith(b"HTTP/1.1 200 OK\r\n") and _body(answer) == _UNARY_BODY, answer)
        return Expected(request, answer, b"")

    def _learn_stream(self) -> Expected:
        self.client.says(self._stream)
        self.upstream.says(_FIRST)
        self.upstream.says(_EVENT)
        request, first = self._taken()
        asked = b'{"stream_options":{"include_usage":true},' + _body(self._stream)[1:]
        _must(_body(request) in (_body(self._stream), asked), request)
        begun = orders.ROLE + orders.EVENT
        _must(first.startswith(b"HTTP/1.1 200 OK\r\n") and _dechunked(_body(first)) == begun, first)
        self.upstream.says(_LAST)
        _, last = self._taken()
        hidden = orders.FINISH + orders.DONE
        seen = orders.FINISH + orders.USAGE + orders.DONE
        _must(last.endswith(b"\r\n0\r\n\r\n") and _dechunked(last) in (hidden, seen), last)
        return Expected(request, first, last)

    def _taken(self) -> tuple[bytes, bytes]:
        taken = b"".join(self.upstream.written), b"".join(self.client.written)
        self.upstream.written.clear()
        self.client.written.clear()
        return taken


def _must(holds: bool, found: bytes) -> None:
    if not holds:
        raise WrongBytes(repr(found[:2000]))


def _body(message: bytes) -> bytes:
    return message.partition(b"\r\n\r\n")[2]


def _dechunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
    return body


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """A worker that has begun, and is warm."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stage = Stage(Path(folder))
        try:
            stage.unary(20)
            stage.stream(20)
            stage.burst(2)
            stage.settle()
            yield stage
        finally:
            stage.close()
