"""Clients and providers that a test plays itself, on real sockets, many at once in one loop.

Lives here: `Peer` (one end of a connection), `Heard` (one answer as a client saw it), `Upstream` (a provider: each
connection runs a coroutine of the test), `Gate`. May not live here: the sidecar (stage), opinions about answers.
How it works: nothing is sent, read or closed that the test does not ask for; a FIN of the other side leaves our own
direction open. Every wait has a time limit that only a hanging test reaches.

    async def script(link: Peer) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\\r\\n...")
        link.reset()
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from typing import Any, NamedTuple, cast

import h11

PATIENCE = 15.0  # seconds; only reached when something hangs


class End(Enum):
    """How the other side ended its direction."""

    FIN = "fin"
    RESET = "reset"


class Heard(NamedTuple):
    """One answer. `end` is None where it ended by its own framing and the connection is open. `is_whole` says that it
    ended as its framing promised."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    is_whole: bool
    end: End | None
    raw: bytes

    def get(self, name: bytes) -> bytes | None:
        return dict(self.fields).get(name)


class Peer(asyncio.Protocol):
    """One end of one connection. `ended` is how the other side ended it, `ended_at` when (the loop's clock)."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.received = 0  # bytes in all
        self.keeps = True  # False: bytes are counted only
        self.ended: End | None = None
        self.ended_at = 0.0
        self.lost = False
        self.transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._waiters: list[asyncio.Future[None]] = []
        self._writable = asyncio.Event()
        self._writable.set()

    # -- asyncio calls these ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.keeps:
            self.buffer += data
        self._changed()

    def eof_received(self) -> bool:
        self._end(End.FIN)
        return True  # our direction stays open until the test closes it

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._end(End.RESET if isinstance(error, ConnectionError) else End.FIN)
        self._writable.set()
        self._changed()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self, end: End) -> None:
        if self.ended is None:
            self.ended = end
            self.ended_at = self._loop.time()
        self._changed()

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # -- the test's side ----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    async def send_all(self, data: bytes) -> None:
        """Written as fast as it is read."""
        self.transport.write(data)
        await self._writable.wait()

    def half_close(self) -> None:
        self.transport.write_eof()

    def close(self) -> None:
        """By FIN, after everything written."""
        self.transport.close()

    def reset(self) -> None:
        """By RST; the other side's kernel may throw away what it has not read."""
        if self.transport.is_closing():
            return
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def stop_reading(self) -> None:
        self.transport.pause_reading()

    def read_on(self) -> None:
        self.transport.resume_reading()

    async def until(self, is_so: Callable[[], bool], what: object = "") -> None:
        """Until `is_so`, asked again whenever something comes."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not is_so():
                    waiter: asyncio.Future[None] = self._loop.create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            raise AssertionError(
                f"waited {PATIENCE:.0f} s for {what!r}; there is {bytes(self.buffer)!r:.500}"
            ) from None

    async def mark(self, mark: bytes) -> bytes:
        """Bytes up to and with `mark`, taken from the buffer."""
        await self.until(lambda: mark in self.buffer or self.ended is not None, mark)
        end = self.buffer.find(mark)
        assert end >= 0, f"it ended ({self.ended}) before {mark!r} came: {bytes(self.buffer)!r:.500}"
        taken = bytes(self.buffer[: end + len(mark)])
        del self.buffer[: end + len(mark)]
        return taken

    async def size(self, count: int) -> bytes:
        await self.until(lambda: len(self.buffer) >= count or self.ended is not None, count)
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def to_end(self) -> bytes:
        """All that still comes."""
        await self.until(lambda: self.ended is not None, "the end")
        taken = bytes(self.buffer)
        self.buffer.clear()
        return taken

    async def request(self) -> tuple[bytes, bytes]:
        """A provider's reading: head and body (framing taken off by hand: it must be ours, so it is simple)."""
        head = await self.mark(b"\r\n\r\n")
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return head, await self.mark(b"0\r\n\r\n")
        at = lower.find(b"content-length: ")
        size = int(lower[at + 16 : lower.find(b"\r\n", at)]) if at >= 0 else 0
        return head, await self.size(size)

    async def answer(self, method: str = "POST") -> Heard:
        """A client's reading: the next answer, or what there is of it when the connection ends."""
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        reader.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        reader.send(h11.EndOfMessage())
        head: h11.Response | None = None
        body: list[bytes] = []
        raw = b""
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError:
                assert self.ended is not None, f"what came is not HTTP: {raw!r:.500}"
                return _heard(head, body, False, self.ended, raw)
            if event is h11.NEED_DATA:
                await self.until(lambda: bool(self.buffer) or self.ended is not None, "an answer")
                data = bytes(self.buffer)
                self.buffer.clear()
                raw += data
                if not data and self.ended is End.RESET:
                    return _heard(head, body, False, End.RESET, raw)
                reader.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                rest = bytes(reader.trailing_data[0])
                self.buffer[:0] = rest
                return _heard(head, body, True, self.ended, raw[: len(raw) - len(rest)])
            elif not isinstance(event, h11.InformationalResponse):
                return _heard(head, body, False, self.ended, raw)


def _heard(head: h11.Response | None, body: list[bytes], is_whole: bool, end: End | None, raw: bytes) -> Heard:
    status, fields = (0, []) if head is None else (head.status_code, list(head.headers))
    return Heard(status, fields, b"".join(body), is_whole, end, raw)


class Gate:
    """Holds everybody back until `count` have come, and then until `ready` has: so many things happen at once."""

    def __init__(self, count: int, ready: Callable[[], Awaitable[None]] | None = None) -> None:
        self._missing = count
        self._ready = ready
        self._open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            try:
                if self._ready is not None:
                    await self._ready()
            finally:
                self._open.set_result(None)
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self._open)


Script = Callable[[Peer], Coroutine[Any, Any, None]]


class Upstream:
    """A provider. `script` runs once for each accepted connection; when it returns, the connection is closed by FIN."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.links: list[Peer] = []
        self.port = 0
        self._faults: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        self._server = await self._loop.create_server(lambda: _Accepted(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def accepted(self, link: Peer) -> None:
        self.links.append(link)
        task = self._loop.create_task(self._run(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, link: Peer) -> None:
        try:
            await self.script(link)
        except (ConnectionError, TimeoutError) as error:
            self._faults.append(error)
        except AssertionError as error:
            if link.ended is None:  # else the sidecar closed it, which tests look at in `links`
                self._faults.append(error)
        finally:
            link.close()

    @property
    def open(self) -> int:
        """Connections that the sidecar has not ended, and we neither."""
        return sum(link.ended is None and not link.lost for link in self.links)

    @property
    def held(self) -> int:
        """Descriptors that this side still holds."""
        return sum(not link.lost for link in self.links)

    @property
    def running(self) -> set[asyncio.Task[None]]:
        return self._tasks

    def stop_listening(self) -> None:
        self._server.close()

    async def close(self) -> None:
        self._server.close()
        for link in self.links:
            link.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self._faults, f"the script of an upstream failed: {self._faults[:3]}"


class _Accepted(Peer):
    def __init__(self, upstream: Upstream) -> None:
        super().__init__()
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._upstream.accepted(self)


async def connect(port: int, *, receive_buffer: int = 0) -> Peer:
    """A client's connection. `receive_buffer`: SO_RCVBUF in bytes, for one that reads slowly (0 = the system's)."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        _, peer = await loop.create_connection(Peer, sock=sock)
    except BaseException:
        sock.close()
        raise
    return peer


async def all_of(awaitables: list[Awaitable[Any]]) -> list[Any]:
    """As gather, but the first failure is raised only when all have ended: nothing runs on behind the test's back."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)
