"""Seeing clients leave who are not read: on real sockets, since only a kernel tells."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop

from proxy.relay.hangup import HangupWatch
from tests.fakes import loops

FACTORIES = [pytest.param(None, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]
HAS_EPOLL = hasattr(select, "epoll")


class Watched:
    """A pair of connected sockets, one end of which is watched."""

    def __init__(self, watch: HangupWatch, tcp: bool = False) -> None:
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as server:
                self.far = socket.create_connection(server.getsockname())
                self.near = server.accept()[0]
        else:
            self.near, self.far = socket.socketpair()
        self.watch = watch
        self.seen = asyncio.Event()
        self.count = 0
        watch.watch(self.near.fileno(), self.hung_up)

    def hung_up(self) -> None:
        self.count += 1
        self.seen.set()

    def close(self) -> None:
        self.watch.unwatch(self.near.fileno())
        self.near.close()
        self.far.close()


def shut(far: socket.socket) -> None:
    far.shutdown(socket.SHUT_WR)


def close(far: socket.socket) -> None:
    far.close()


def reset(far: socket.socket) -> None:
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()


async def turns() -> None:
    """As long as an event needs that is there already."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("leave", [shut, close, reset])
@pytest.mark.parametrize("has_data", [False, True])
def test_an_end_is_seen_once_though_nothing_is_read(
    leave: Callable[[socket.socket], None], has_data: bool, factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    async def main() -> int:
        watch = HangupWatch(asyncio.get_running_loop())
        watch.start()
        pair = Watched(watch, tcp=leave is reset)
        if has_data:
            pair.far.send(b"pipelined")
        await turns()
        assert pair.count == 0, "bytes alone are no end"
        leave(pair.far)
        if HAS_EPOLL:
            await asyncio.wait_for(pair.seen.wait(), 10)
        await turns()
        pair.close()
        watch.stop()
        return pair.count

    assert loops.run(main(), loop_factory=factory) == HAS_EPOLL


def test_unwatched_ends_are_not_seen() -> None:
    async def main() -> None:
        watch = HangupWatch(asyncio.get_running_loop())
        watch.start()
        pairs = [Watched(watch) for _ in range(3)]
        watch.unwatch(pairs[0].near.fileno())
        watch.unwatch(pairs[0].near.fileno())
        for pair in pairs:
            pair.far.close()
        for pair in pairs[1:] if HAS_EPOLL else ():
            await asyncio.wait_for(pair.seen.wait(), 10)
        assert [pair.count for pair in pairs] == ([0, 1, 1] if HAS_EPOLL else [0, 0, 0])
        for pair in pairs:
            pair.close()
        watch.stop()

    loops.run(main())


def test_watching_twice_is_watching_once() -> None:
    async def main() -> None:
        watch = HangupWatch(asyncio.get_running_loop())
        watch.start()
        pair = Watched(watch)
        watch.watch(pair.near.fileno(), pair.hung_up)
        pair.far.close()
        if HAS_EPOLL:
            await asyncio.wait_for(pair.seen.wait(), 10)
        await turns()
        assert pair.count == HAS_EPOLL
        pair.close()
        watch.stop()

    loops.run(main())


def test_a_number_that_is_given_again() -> None:
    """The next socket with the same number is not taken for the one before."""

    async def main() -> None:
        watch = HangupWatch(asyncio.get_running_loop())
        watch.start()
        first = Watched(watch)
        number = first.near.fileno()
        first.close()
        second = Watched(watch)
        assert second.near.fileno() == number
        second.far.close()
        if HAS_EPOLL:
            await asyncio.wait_for(second.seen.wait(), 10)
        assert (first.count, second.count) == (0, int(HAS_EPOLL))
        second.close()
        watch.stop()

    loops.run(main())


def test_one_that_ends_in_the_callback_of_another() -> None:
    async def main() -> None:
        watch = HangupWatch(asyncio.get_running_loop())
        watch.start()
        pairs = [Watched(watch) for _ in range(2)]

        def take_along() -> None:
            for pair in pairs:
                watch.unwatch(pair.near.fileno())
            pairs[0].hung_up()

        for pair in pairs:
            watch.unwatch(pair.near.fileno())
            watch.watch(pair.near.fileno(), take_along)
            pair.far.close()
        if HAS_EPOLL:
            await asyncio.wait_for(pairs[0].seen.wait(), 10)
        await turns()
        assert pairs[0].count == HAS_EPOLL, "the other one is not called any more"
        for pair in pairs:
            pair.close()
        watch.stop()

    loops.run(main())


def test_stopping_twice() -> None:
    async def main() -> None:
        watch = HangupWatch(asyncio.get_running_loop())
        watch.start()
        watch.stop()
        watch.stop()

    loops.run(main())
