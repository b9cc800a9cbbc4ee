"""A timer that is fine enough to plan single events by.

Lives here: `FineTimer`, one alarm at a time of the monotonic clock, for an event loop. May not live here: any plan.
How it works: the loop's own timers tick in milliseconds, so what is due within one of them would happen at once, in
groups. The kernel's timer descriptor (timerfd_create(2)) has no such ticks: the loop waits for it as for a socket, and
wakes some microseconds after the time; while the process or its core is busy, as late as that takes.
Doubted: on a shared core the other process's turn comes first; that is why whoever plans by this also tells how late
it was.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1  # the numbers are the kernel's: linux/time.h, linux/timerfd.h
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_ABSOLUTE = 1
_SECOND = 1_000_000_000


class FineTimer:
    """Calls `wake` once for each `set`, in the loop's turn after the time has come."""

    __slots__ = ("_fd", "_is_set", "_loop", "_settime", "_spec", "_wake")

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._settime = libc.timerfd_settime
        self._spec = (ctypes.c_long * 4)()  # struct itimerspec: interval and value, seconds and nanoseconds of each
        self._is_set = False
        self._wake = wake
        self._loop = loop
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._ready)

    def set(self, at: int) -> None:
        """Wakes at `at` (time.monotonic_ns), at once if that is past; instead of what was set before."""
        self._is_set = True
        self._spec[2], self._spec[3] = divmod(max(at, 1), _SECOND)  # all zeros would mean: never
        self._settime(self._fd, _ABSOLUTE, self._spec, None)

    def _ready(self) -> None:
        self._is_set = False
        self._wake()
        if not self._is_set and self._fd >= 0:  # set or unset, it is not readable any more: a read is not needed
            self._spec[2] = self._spec[3] = 0
            self._settime(self._fd, 0, self._spec, None)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
