"""Sees clients leave whose reading is paused.

Lives here: `HangupWatch`. A paused transport does not read, so it does not see the end either: a client that left in
the middle of a long answer would keep its upstream busy until somebody writes.
How it works: an epoll of our own, asked only for the peer's FIN (EPOLLRDHUP) and for errors, which the loop watches
as one more descriptor. Linux only; elsewhere a client that left while paused is seen when its reading goes on, or by
its limits.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable


class HangupWatch:
    __slots__ = ("_callbacks", "_epoll", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None

    def start(self) -> None:
        if self._epoll is not None:
            self._loop.add_reader(self._epoll.fileno(), self._on_ready)

    def stop(self) -> None:
        if self._epoll is not None and not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` once when the other side of `fd` has ended. Watching twice is the same as once."""
        if self._epoll is None or fd in self._callbacks:
            return
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLRDHUP)

    def unwatch(self, fd: int) -> None:
        """Must come before `fd` is closed, since its number may be given to another socket at once."""
        if self._epoll is not None and self._callbacks.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # closed already: the kernel has taken it out

    def _on_ready(self) -> None:
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            self.unwatch(fd)
            if callback is not None:
                callback()
