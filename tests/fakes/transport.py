"""A transport without a socket.

Lives here: `FakeTransport`, and `FakeSocket`, what its protocol sees as the socket.
May not live here: time and callbacks (loop), anything of the project.
How it works: it does what uvloop's TCP transport does, as far as protocols can tell (test_transport.py runs the same
steps on both). What the protocol writes goes to `sent` at once, or, after `block()` or `fill()`, into a buffer until
`drain()`. The other side is played by the test: `receive`, `receive_eof`, `lose`. While the protocol does not read,
bytes and EOF wait, as they wait in a kernel.
Doubted: a real reset is not seen either while reading is paused and nothing is written; `lose` always arrives.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from tests.fakes.loop import FakeLoop

_EOF = None


class FakeSocket:
    """Remembers options. `linger` is what SO_LINGER was set to, as (on, seconds)."""

    def __init__(self, family: int = socket.AF_INET) -> None:
        self.family = family
        self.type = socket.SOCK_STREAM
        self.options: dict[tuple[int, int], int | bytes] = {}

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self.options[(level, option)] = value

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        return self.options.get((level, option), b"\0" * size if size else 0)

    def fileno(self) -> int:
        return -1

    def getpeername(self) -> object:
        return ("127.0.0.1", 40000)

    @property
    def linger(self) -> tuple[int, int] | None:
        value = self.options.get((socket.SOL_SOCKET, socket.SO_LINGER))
        if not isinstance(value, bytes):
            return None
        return int.from_bytes(value[:4], "little"), int.from_bytes(value[4:], "little")


class FakeTransport(asyncio.Transport):
    """See the module. What the test reads:

    `sent`: bytes that left, in all; `writes`: what each write or writelines call brought, one item each; `lost`: bytes
    that were written after `close` or died in the buffer; `closed`: `close` was called; `aborted`: `abort` was called;
    `paused`: the protocol does not read; `eof_sent`: the FIN left; `is_lost`: `connection_lost` was delivered.
    """

    def __init__(
        self,
        loop: FakeLoop,
        *,
        peername: object = ("127.0.0.1", 40000),
        sockname: object = ("127.0.0.1", 8080),
        sslcontext: object = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.socket = FakeSocket(socket.AF_UNIX if isinstance(peername, str) else socket.AF_INET)
        self._loop = loop
        self._protocol: asyncio.BaseProtocol | None = None
        self._info: dict[str, Any] = {"peername": peername, "sockname": sockname, "socket": self.socket}
        if sslcontext is not None:
            self._info |= {"sslcontext": sslcontext, "ssl_object": object()}
        self._info |= extra or {}
        self._is_tls = sslcontext is not None
        # what the test reads
        self.sent = b""
        self.writes: list[bytes] = []
        self.lost = b""
        self.closed = False
        self.aborted = False
        self.paused = False
        self.eof_sent = False
        self.is_lost = False
        # towards the other side
        self._buffer = bytearray()
        self._stuffing = 0  # bytes that `fill` pretends to be in the buffer
        self._is_blocked = False
        self._has_paused_writer = False
        self._eof_written = False
        self._high, self._low = 64 * 1024, 16 * 1024
        # from the other side
        self._inbox: deque[bytes | None] = deque()
        self._is_delivering = False
        self._saw_eof = False
        self._is_ending = False  # connection_lost is on its way
        self._reason: Exception | None = None

    # -- for the test: the other side -------------------------------------------------------------------------------

    def attach(self, protocol: asyncio.BaseProtocol) -> FakeTransport:
        """Begin: `protocol.connection_made`."""
        self._protocol = protocol
        with self._loop.running():
            protocol.connection_made(self)
        return self

    def receive(self, data: bytes) -> None:
        """Bytes come in: one `data_received`, now, or when the protocol reads again; several where it reads into a
        smaller buffer of its own. After `close` nobody sees them."""
        assert data, "a read of no bytes does not happen"
        self._inbox.append(bytes(data))
        self._deliver()

    def receive_each(self, data: bytes, size: int = 1) -> None:
        """As `receive`, in reads of `size` bytes."""
        assert data, "a read of no bytes does not happen"
        self._inbox.extend(data[start : start + size] for start in range(0, len(data), size))
        self._deliver()

    def receive_eof(self) -> None:
        """The other side half-closes. A protocol that keeps nothing open is closed, as asyncio does."""
        self._inbox.append(_EOF)
        self._deliver()

    def lose(self, reason: Exception | None = None) -> None:
        """The connection breaks: `connection_lost(reason)` soon; by default a reset."""
        self._lose(ConnectionResetError(104, "Connection reset by peer") if reason is None else reason)

    def block(self) -> None:
        """The other side reads no more: what is written stays in the buffer."""
        self._is_blocked = True

    def fill(self) -> None:
        """`block`, with so much in the buffer already that the protocol is told to pause at once."""
        self.block()
        self._stuffing = self._high + 1
        with self._loop.running():
            self._check_high()

    def drain(self, size: int | None = None) -> None:
        """The other side reads `size` bytes of the buffer, or (None) all of it and goes on reading."""
        if size is None:
            self._is_blocked = False
            size = self.get_write_buffer_size()
        stuffing = min(size, self._stuffing)
        self._stuffing -= stuffing
        count = size - stuffing
        self.sent += bytes(self._buffer[:count])
        del self._buffer[:count]
        with self._loop.running():
            self._check_low()
        self._after_flush()

    # -- asyncio.Transport: writing ---------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}")
        self._write(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self._write(b"".join(list_of_data))

    def _write(self, data: bytes) -> None:
        self._fail_if_lost("write")
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        # uvloop and asyncio alike: after close() a write is silently thrown away, unless older bytes still wait; then
        # it goes out behind them.
        if self._is_ending:
            self.lost += data
            return
        self.writes.append(data)
        if self._is_blocked:
            self._buffer += data
            self._check_high()
        else:
            self.sent += data

    def can_write_eof(self) -> bool:
        return not self._is_tls

    def write_eof(self) -> None:
        self._fail_if_lost("write_eof")
        if self._is_tls:
            raise NotImplementedError  # as uvloop's TLS transport
        if self._eof_written or self._is_ending:
            return
        self._eof_written = True
        self._after_flush()

    def get_write_buffer_size(self) -> int:
        return len(self._buffer) + self._stuffing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._check_high()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    # -- asyncio.Transport: reading ---------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        return not (self.paused or self.is_closing() or self._saw_eof)

    def pause_reading(self) -> None:
        if not self.is_closing():
            self.paused = True

    def resume_reading(self) -> None:
        if self.paused and not self.is_closing():
            self.paused = False
            self._loop.call_soon(self._deliver)

    # -- asyncio.Transport: ending ----------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self.closed or self.aborted or self._is_ending

    def close(self) -> None:
        if self.is_closing():
            return
        self.closed = True
        self._after_flush()

    def abort(self) -> None:
        if self.is_lost:
            return
        self.aborted = True
        self._lose(None)

    # -- asyncio.Transport: the rest --------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket" and self.is_lost:
            return None  # uvloop
        return self._info.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def __repr__(self) -> str:
        state = "lost" if self.is_lost else "closing" if self.is_closing() else "paused" if self.paused else "open"
        return f"<FakeTransport {state} sent={len(self.sent)} buffered={self.get_write_buffer_size()}>"

    # -- inside -----------------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        if self._is_delivering:  # a protocol under test must not make the other side send from within a callback
            return
        self._is_delivering = True
        try:
            with self._loop.running():
                while self._inbox and self.is_reading():
                    self._deliver_one(self._inbox.popleft())
        finally:
            self._is_delivering = False

    def _deliver_one(self, data: bytes | None) -> None:
        protocol = self._protocol
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
        if data is not None and isinstance(protocol, asyncio.BufferedProtocol):
            self._fill_buffer(protocol, data)
            return
        if data is not None:
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(data)
            return
        self._saw_eof = True
        if not protocol.eof_received():
            self.close()

    def _fill_buffer(self, protocol: asyncio.BufferedProtocol, data: bytes) -> None:
        """As much of `data` as there is room for; the rest is the next read's."""
        buffer = memoryview(protocol.get_buffer(-1))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        if size < len(data):
            self._inbox.appendleft(data[size:])
        protocol.buffer_updated(size)

    def _check_high(self) -> None:
        if self._has_paused_writer or self.get_write_buffer_size() <= self._high:
            return
        self._has_paused_writer = True
        assert self._protocol is not None
        self._protocol.pause_writing()

    def _check_low(self) -> None:
        if not self._has_paused_writer or self.get_write_buffer_size() > self._low:
            return
        self._has_paused_writer = False
        assert self._protocol is not None
        self._protocol.resume_writing()

    def _after_flush(self) -> None:
        if self.get_write_buffer_size() or self._is_ending:
            return
        if self._eof_written:
            self.eof_sent = True
        if self.closed:
            self._lose(None)

    def _lose(self, reason: Exception | None) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        self.lost += bytes(self._buffer)
        self._buffer.clear()
        self._stuffing = 0
        self._reason = reason
        self._loop.call_soon(self._connection_lost)

    def _connection_lost(self) -> None:
        self.is_lost = True
        if self._protocol is not None:
            self._protocol.connection_lost(self._reason)

    def _fail_if_lost(self, what: str) -> None:
        if self.is_lost:
            raise RuntimeError(f"unable to perform {what} on {self!r}; the handler is closed")
