"""An event loop without sockets whose clock moves only when told.

Lives here: `FakeLoop`. May not live here: transports (transport), anything of the project.
How it works: `call_soon` and `call_later` fill a queue and a heap; `run_ready` empties the queue, `advance` moves the
clock from timer to timer. Connections, names and TLS upgrades are scripted; one that nobody scripted fails the test.
While callbacks run it is the running loop of the thread, so futures, tasks and `asyncio.timeout` work as they are. What
reaches the exception handler fails the test at the next `run_ready`, `advance` or the end of the `with` block.

    with FakeLoop() as loop:
        loop.connections.append(FakeTransport(loop))
        ...
        loop.advance(10.0)
        assert loop.timers == []
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import socket
from asyncio import events
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.fakes.transport import FakeTransport

    # For the type checker: a loop in every respect, without the forty methods that nobody may call on it.
    _Loop = Any
else:
    _Loop = asyncio.AbstractEventLoop

# A callback that schedules itself for ever would otherwise hang the test.
TURNS = 100_000


class Dialed(NamedTuple):
    """One call of `create_connection`."""

    host: str | None
    port: int | None
    ssl: object
    server_hostname: str | None
    options: dict[str, Any]


class FakeLoop(_Loop):  # type: ignore[misc]
    """See the module. `connections`: outcomes of the next `create_connection` calls, in order: a FakeTransport, an
    exception, or a future of a transport (still connecting until the test sets it). `addresses`: host -> list of
    addresses, exception, or future of a list. IP addresses resolve to themselves. `upgrades`: as `connections`, for
    `start_tls`."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._ready: deque[asyncio.Handle] = deque()
        self._heap: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._tasks: list[asyncio.Task[Any]] = []
        self._closed = False
        self.errors: list[dict[str, Any]] = []
        self.connections: deque[FakeTransport | BaseException | asyncio.Future[FakeTransport]] = deque()
        self.upgrades: deque[FakeTransport | BaseException | asyncio.Future[FakeTransport]] = deque()
        self.addresses: dict[str, list[str] | BaseException | asyncio.Future[list[str]]] = {}
        self.dialed: list[Dialed] = []
        self.resolved: list[str] = []

    # -- for the test -----------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            self.fail_on_errors()

    def run_ready(self) -> None:
        """Run what is due now, and what that makes due, until nothing is."""
        with self.running():
            for _ in range(TURNS):
                self._take_due()
                if not self._ready:
                    break
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
            else:
                raise AssertionError(f"callbacks still make callbacks after {TURNS} turns")
        self.fail_on_errors()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass: timers run in order, each at its own time."""
        end = self._now + seconds
        self.run_ready()
        while (due := self._next_due()) is not None and due <= end:
            self._now = max(self._now, due)
            self.run_ready()
        self._now = end
        self.run_ready()

    def run_until_complete(self, future: Awaitable[Any]) -> Any:
        """The result of `future`, which must not need any time or outside event."""
        with self.running():
            waiting = asyncio.ensure_future(future, loop=self)
        self.run_ready()
        if not waiting.done():
            waiting.cancel()
            self.run_ready()
            raise AssertionError("it still waits for something the test did not supply")
        return waiting.result()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the running loop of this thread, as while a callback runs."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            yield
        finally:
            events._set_running_loop(before)

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """Timers that are still armed, next one first. A test for leaks wants this empty."""
        return [handle for _, _, handle in sorted(self._heap, key=lambda item: item[:2]) if not handle.cancelled()]

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended."""
        self._tasks = [task for task in self._tasks if not task.done()]
        return list(self._tasks)

    def expect_errors(self) -> list[dict[str, Any]]:
        """What reached the exception handler so far; the test says by asking that it meant this to happen."""
        seen, self.errors = self.errors, []
        return seen

    def fail_on_errors(self) -> None:
        if self.errors:
            first, self.errors = self.errors[0], []
            cause = first.get("exception")
            raise AssertionError(f"reached the loop: {first['message']}: {cause!r}") from cause

    # -- asyncio.AbstractEventLoop ----------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        self._fail_if_closed()
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        self._fail_if_closed()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._heap, (when, next(self._order), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    async def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: object = None,
        server_hostname: str | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """The next scripted outcome. What was asked for stands in `dialed`."""
        self.dialed.append(Dialed(host, port, ssl, server_hostname, options))
        transport = await self._next_outcome(self.connections, f"create_connection({host!r}, {port!r})")
        protocol = protocol_factory()
        transport.attach(protocol)
        return transport, protocol

    async def start_tls(
        self,
        transport: FakeTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: object,
        *,
        server_hostname: str | None = None,
        **options: Any,
    ) -> asyncio.Transport:
        """The next scripted upgrade. As in asyncio, `connection_made` is not called again."""
        self.dialed.append(Dialed(None, None, sslcontext, server_hostname, options))
        upgraded = await self._next_outcome(self.upgrades, "start_tls")
        upgraded.set_protocol(protocol)
        return upgraded

    async def getaddrinfo(
        self,
        host: str,
        port: int,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[int, int, int, str, tuple[Any, ...]]]:
        self.resolved.append(host)
        found = self.addresses.get(host)
        if found is None:
            if not _is_address(host):
                raise AssertionError(f"nobody scripted the name {host!r}")
            found = [host]
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, asyncio.Future):
            found = await found
        return [_address_info(address, port) for address in found]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.run_ready_quietly()
        self._closed = True

    def run_ready_quietly(self) -> None:
        """Let cancelled tasks end; errors wait for `fail_on_errors`, so that they do not hide a failed assertion."""
        try:
            self.run_ready()
        except AssertionError as error:
            self.errors.append({"message": str(error), "exception": error.__cause__})

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # asyncio.TimerHandle.cancel asks its loop for this

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _next_outcome(
        self, script: deque[FakeTransport | BaseException | asyncio.Future[FakeTransport]], what: str
    ) -> FakeTransport:
        if not script:
            raise AssertionError(f"nobody scripted {what}")
        outcome = script.popleft()
        await _turn(self)  # no real connection is made within the call that asks for it
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, asyncio.Future):
            return await outcome
        return outcome

    def _take_due(self) -> None:
        while self._heap and (self._heap[0][2].cancelled() or self._heap[0][0] <= self._now):
            handle = heapq.heappop(self._heap)[2]
            if not handle.cancelled():
                self._ready.append(handle)

    def _next_due(self) -> float | None:
        while self._heap and self._heap[0][2].cancelled():
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _fail_if_closed(self) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")


def _turn(loop: FakeLoop) -> Coroutine[Any, Any, None]:
    async def wait() -> None:
        future = loop.create_future()
        loop.call_soon(_resolve, future)
        await future

    return wait()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _address_info(address: str, port: int) -> tuple[int, int, int, str, tuple[Any, ...]]:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
