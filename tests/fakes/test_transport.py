"""The fake transport does to a protocol what uvloop's does.

`steps` below run on both; where the real one needs the kernel to move, `settle` lets it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvloop

from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport


class Diary(asyncio.Protocol):
    """Writes down what the loop calls."""

    def __init__(self, keeps_open: bool = False) -> None:
        self.calls: list[object] = []
        self.keeps_open = keeps_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("lost", None if exc is None else type(exc).__name__))


class Fake:
    """The steps on the fake."""

    def __init__(self, protocol: Diary) -> None:
        self.loop = FakeLoop()
        self.transport = FakeTransport(self.loop).attach(protocol)

    async def receive(self, data: bytes) -> None:
        self.transport.receive(data)

    async def receive_eof(self) -> None:
        self.transport.receive_eof()

    async def fill(self) -> None:
        self.transport.fill()

    async def drain(self) -> None:
        self.transport.drain()

    async def settle(self) -> None:
        self.loop.run_ready()

    def saw(self) -> bytes:
        return self.transport.sent


class Real:
    """The same steps on uvloop and a socket pair."""

    def __init__(self, protocol: Diary) -> None:
        self.protocol = protocol

    async def begin(self) -> None:
        ours, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.seen = b""
        await asyncio.get_running_loop().create_connection(lambda: self.protocol, sock=ours)
        self.transport = self.protocol.transport

    async def receive(self, data: bytes) -> None:
        self.far.sendall(data)
        await self.settle()

    async def receive_eof(self) -> None:
        self.far.shutdown(socket.SHUT_WR)
        await self.settle()

    async def fill(self) -> None:
        while "pause" not in self.protocol.calls:
            self.transport.write(b"." * 65536)
            await self.settle()

    async def drain(self) -> None:
        for _ in range(1000):
            try:
                data = self.far.recv(1 << 20)
            except BlockingIOError:
                data = None
            if data == b"" or (data is None and not self.transport.get_write_buffer_size()):
                break
            self.seen += data or b""
            await self.settle()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def saw(self) -> bytes:
        try:
            self.seen += self.far.recv(1 << 20)
        except BlockingIOError:
            pass
        return self.seen.replace(b".", b"")


async def steps_close(side: Any, diary: Diary) -> list[object]:
    t = side.transport
    t.write(b"ab")
    t.writelines([b"c", b"d"])
    t.write(b"")
    t.close()
    out: list[object] = [t.is_closing(), list(diary.calls)]
    t.write(b"late")
    t.pause_reading()
    t.resume_reading()
    t.close()
    await side.settle()
    out.append(t.get_write_buffer_size())
    for act in (lambda: t.write(b"x"), t.write_eof):
        try:
            act()
        except RuntimeError:
            out.append("RuntimeError")
    t.close()
    t.abort()
    out.append(side.saw())
    return out


async def steps_reading(side: Any, diary: Diary) -> list[object]:
    t = side.transport
    await side.receive(b"1")
    t.pause_reading()
    t.pause_reading()
    out: list[object] = [t.is_reading()]
    await side.receive(b"2")
    await side.receive_eof()
    await side.settle()
    out.append(list(diary.calls))
    t.resume_reading()
    t.resume_reading()
    out.append(list(diary.calls))  # not within the call
    await side.settle()
    out.append(t.is_reading())
    return out


async def steps_half_close(side: Any, diary: Diary) -> list[object]:
    diary.keeps_open = True
    t = side.transport
    await side.receive_eof()
    await side.settle()
    t.write(b"answer")
    await side.settle()
    out: list[object] = [t.is_closing(), t.is_reading(), side.saw(), t.can_write_eof()]
    t.write_eof()
    try:
        t.write(b"x")
    except RuntimeError:
        out.append("RuntimeError")
    t.close()
    await side.settle()
    return out


async def steps_full(side: Any, diary: Diary) -> list[object]:
    t = side.transport
    await side.fill()
    t.write(b"behind")
    out: list[object] = [t.get_write_buffer_size() > 65536, list(diary.calls)]
    await side.drain()
    out += [t.get_write_buffer_size(), list(diary.calls), side.saw()]
    return out


async def steps_close_while_full(side: Any, diary: Diary) -> list[object]:
    t = side.transport
    await side.fill()
    t.write(b"behind")
    t.close()
    t.write(b" and late")  # goes out, since older bytes wait
    await side.settle()
    out: list[object] = [list(diary.calls)]
    await side.drain()
    out.append(side.saw())
    return out


async def steps_abort(side: Any, diary: Diary) -> list[object]:
    t = side.transport
    await side.fill()
    t.abort()
    out: list[object] = [t.is_closing(), list(diary.calls)]
    await side.settle()
    return out


async def steps_limits(side: Any, diary: Diary) -> list[object]:
    t = side.transport
    t.set_write_buffer_limits(high=100)
    out: list[object] = [t.get_write_buffer_limits()]
    t.set_write_buffer_limits(low=10)
    out.append(t.get_write_buffer_limits())
    for high, low in ((1, 2), (1, -1)):
        try:
            t.set_write_buffer_limits(high, low)
        except ValueError:
            out.append("ValueError")
    try:
        t.write("text")
    except TypeError:
        out.append("TypeError")
    return out


class Small(asyncio.BufferedProtocol):
    """Reads three bytes at once for a diary, which reads again itself from the read on that has a `z`."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary
        self._buffer = bytearray(3)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        self._diary.data_received(data)
        if b"z" in data:
            self._diary.transport.set_protocol(self._diary)

    def eof_received(self) -> None:
        self._diary.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._diary.connection_lost(exc)


async def steps_small_reads(side: Any, diary: Diary) -> list[object]:
    t = side.transport
    await side.receive(b"at once")
    t.pause_reading()
    t.set_protocol(Small(diary))
    t.resume_reading()
    await side.receive(b"abcdefg")
    await side.settle()
    out: list[object] = [list(diary.calls)]
    await side.receive(b"xyz and the rest")
    await side.settle()
    out.append(list(diary.calls))
    t.set_protocol(Small(diary))
    await side.receive_eof()
    await side.settle()
    return out


@pytest.mark.parametrize(
    "steps",
    [
        steps_small_reads,
        steps_close,
        steps_reading,
        steps_half_close,
        steps_full,
        steps_close_while_full,
        steps_abort,
        steps_limits,
    ],
    ids=lambda steps: steps.__name__,
)
def test_as_uvloop(steps: Callable[[Any, Diary], Any]) -> None:
    async def on_fake() -> tuple[object, object]:
        diary = Diary()
        fake = Fake(diary)
        out = await steps(fake, diary)
        fake.loop.run_ready()
        return out, diary.calls

    async def on_real() -> tuple[object, object]:
        diary = Diary()
        real = Real(diary)
        await real.begin()
        try:
            out = await steps(real, diary)
            await real.settle()
            return out, list(diary.calls)
        finally:
            real.transport.abort()
            await real.settle()
            real.far.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        real = runner.run(on_real())
    fake = asyncio.run(on_fake())
    assert fake == real


# -- what only the fake has ------------------------------------------------------------------------------------------


def test_each_write_is_remembered() -> None:
    with FakeLoop() as loop:
        transport = FakeTransport(loop).attach(Diary())
        transport.write(b"a")
        transport.writelines([b"b", bytearray(b"c"), memoryview(b"d")])
        assert transport.writes == [b"a", b"bcd"]
        assert transport.sent == b"abcd"


def test_a_blocked_socket_lets_the_buffer_grow_and_pauses_above_the_limit() -> None:
    with FakeLoop() as loop:
        diary = Diary()
        transport = FakeTransport(loop).attach(diary)
        transport.set_write_buffer_limits(high=10, low=4)
        transport.block()
        transport.write(b"x" * 10)
        assert diary.calls == ["made"]
        transport.write(b"y")
        assert diary.calls == ["made", "pause"]
        transport.drain(6)
        assert (transport.sent, transport.get_write_buffer_size()) == (b"x" * 6, 5)
        assert diary.calls == ["made", "pause"]
        transport.drain(1)
        assert diary.calls == ["made", "pause", "resume"]
        transport.write(b"z")
        assert transport.sent == b"x" * 7  # still blocked
        transport.drain()
        transport.write(b"!")
        assert transport.sent == b"x" * 10 + b"yz!"


def test_what_dies_in_the_buffer_or_comes_after_close_is_lost() -> None:
    with FakeLoop() as loop:
        transport = FakeTransport(loop).attach(Diary())
        transport.block()
        transport.write(b"buffered")
        transport.abort()
        transport.write(b" late")
        assert (transport.sent, transport.lost) == (b"", b"buffered late")
        assert (transport.aborted, transport.closed, transport.is_lost) == (True, False, False)
        loop.run_ready()
        assert transport.is_lost


def test_a_reset_arrives_soon_and_takes_the_socket_away() -> None:
    with FakeLoop() as loop:
        diary = Diary()
        transport = FakeTransport(loop).attach(diary)
        assert transport.get_extra_info("socket") is transport.socket
        transport.lose()
        assert diary.calls == ["made"]
        transport.write(b"into the void")  # silent until connection_lost
        loop.run_ready()
        assert diary.calls == ["made", ("lost", "ConnectionResetError")]
        assert transport.get_extra_info("socket") is None
        with pytest.raises(RuntimeError):
            transport.write(b"x")


def test_nobody_sees_what_comes_after_close() -> None:
    with FakeLoop() as loop:
        diary = Diary()
        transport = FakeTransport(loop).attach(diary)
        transport.block()
        transport.write(b"rest")
        transport.close()
        transport.receive(b"late")
        transport.receive_eof()
        transport.drain()
        loop.run_ready()
        assert diary.calls == ["made", ("lost", None)]


def test_pausing_within_data_received_holds_the_next_read_back() -> None:
    class Pauses(Diary):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    with FakeLoop() as loop:
        diary = Pauses()
        transport = FakeTransport(loop).attach(diary)
        transport.receive_each(b"abc")
        assert diary.calls == ["made", b"a"]
        transport.resume_reading()
        loop.run_ready()
        assert diary.calls == ["made", b"a", b"b"]


def test_eof_leaves_behind_what_was_written() -> None:
    with FakeLoop() as loop:
        transport = FakeTransport(loop).attach(Diary())
        transport.block()
        transport.write(b"last")
        transport.write_eof()
        assert not transport.eof_sent
        transport.drain()
        assert transport.eof_sent and transport.sent == b"last"


def test_a_tls_transport_has_no_half_close() -> None:
    with FakeLoop() as loop:
        transport = FakeTransport(loop, sslcontext="context").attach(Diary())
        assert transport.get_extra_info("sslcontext") == "context"
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()


def test_socket_options_are_remembered() -> None:
    with FakeLoop() as loop:
        transport = FakeTransport(loop)
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert transport.socket.linger == (1, 0)
        assert transport.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
