"""Bytes to and from one client of the simulator, right and wrong.

Lives here: `Line`, the one place that writes wrong HTTP. May not live here: what is written and why (script, provider).
How it works: h11 reads everything and writes what is right. A head that is not honest and raw bytes go to the transport
under it; from then on h11 no longer knows what was written, and the next request gets a fresh one (`next_cycle`). Every
write waits for the client to read.
Doubted: a reset over TLS may lose what the transport under TLS still holds (only with a client that reads slowly);
pieces are separate writes with a turn of the loop between them; the kernel may still join them.
"""

from __future__ import annotations

import asyncio
import fcntl
import http
import socket
import struct
import termios

import h11

from proxy.simulator.script import Head, Interim
from proxy.wire.head import Framing

READ = 64 * 1024
MOST_EARLY = 256 * 1024  # bytes of further requests that are read while a silence lasts
MOST_ACK_WAITS = 2_000  # milliseconds a reset waits for a client that does not read


class Left(Exception):
    """The client has closed its side while nothing was due from it."""


class Line:
    """Bytes to and from one client: h11 for what is right, the transport for what is wrong."""

    __slots__ = ("_early", "_raw", "began", "framing", "h11", "reader", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=READ)
        self.framing = Framing.CHUNKED
        self.began = 0.0  # when the head went out, on the loop's clock
        self._raw = False  # h11 no longer knows what was written
        self._early = 0

    # -- reading

    async def fill(self) -> bool:
        """One read into h11; False at the end."""
        data = await self.reader.read(READ)
        self.h11.receive_data(data)
        return bool(data)

    async def watch(self, seconds: float) -> None:
        """Let time pass; raises Left when the client closes meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            async with asyncio.timeout_at(until):
                while self._early < MOST_EARLY:
                    data = await self.reader.read(READ)
                    if not data:
                        raise Left
                    self._early += len(data)
                    self.h11.receive_data(data)
                await asyncio.sleep(until - loop.time())
        except TimeoutError:
            pass

    # -- writing

    async def write(self, data: bytes | None) -> None:
        if data:
            self.writer.write(data)
            await self.writer.drain()
            await asyncio.sleep(0)  # drain returns at once for a client that keeps up; others must have their turn

    async def interim(self, step: Interim) -> None:
        await self.write(self.h11.send(h11.InformationalResponse(status_code=step.status, headers=step.headers)))

    async def head(self, step: Head) -> None:
        self.began = asyncio.get_running_loop().time()
        self.framing = step.framing
        if step.honest:
            await self.write(
                self.h11.send(h11.Response(status_code=step.status, headers=step.headers, reason=_reason(step.status)))
            )
            return
        self._raw = True
        lines = [
            f"HTTP/1.1 {step.status} {_reason(step.status)}",
            *(f"{name}: {value}" for name, value in step.headers),
        ]
        await self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def send(self, data: bytes) -> None:
        if not self._raw:
            await self.write(self.h11.send(h11.Data(data=data)))
        elif self.framing is Framing.CHUNKED:
            await self.write(b"%x\r\n%s\r\n" % (len(data), data))
        else:
            await self.write(data)

    async def raw(self, data: bytes) -> None:
        self._raw = True
        await self.write(data)

    async def end(self, extra: bytes) -> None:
        """The end of the message and what wrongly follows it, in one write."""
        tail = b""
        if not self._raw:
            tail = self.h11.send(h11.EndOfMessage()) or b""
        elif self.framing is Framing.CHUNKED:
            tail = b"0\r\n\r\n"
        await self.write(tail + extra)

    def next_cycle(self) -> bool:
        """Make ready for the next request; False where this connection has to close."""
        if self._raw and self.framing is not Framing.UNTIL_CLOSE:
            left, _ = self.h11.trailing_data
            self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=READ)
            if left:
                self.h11.receive_data(left)
            self._raw = False
        elif self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE:
            self.h11.start_next_cycle()
        else:
            return False
        self._early = 0
        return True

    # -- closing

    async def fin(self) -> None:
        await self._flush()
        self.writer.close()

    async def rst(self) -> None:
        """Reset once the client's kernel has everything: a reset throws away what is still on its way."""
        await self._flush()
        sock = self.writer.get_extra_info("socket")
        for _ in range(MOST_ACK_WAITS):
            if sock is None or not _unacknowledged(sock.fileno()):
                break
            await asyncio.sleep(0.001)
        self._linger_off()
        self.abort()

    def rst_now(self) -> None:
        self._linger_off()
        self.abort()

    def abort(self) -> None:
        if not self.writer.is_closing() or self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()

    async def _flush(self) -> None:
        """Wait until the kernel has everything."""
        # asyncio's TLS transport pauses at its high water, not above it: 0 would never be resumed from.
        high = 0 if self.writer.get_extra_info("ssl_object") is None else 1
        self.writer.transport.set_write_buffer_limits(high, 0)
        await self.writer.drain()

    def _linger_off(self) -> None:
        """So that closing sends RST instead of FIN (uvloop's abort alone ends in FIN)."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _unacknowledged(descriptor: int) -> int:
    """Bytes the kernel has not seen acknowledged; 0 where the system cannot tell."""
    try:
        (waiting,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # ValueError: the client has left, and the socket is closed
        return 0
    return int(waiting)


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Simulated"
