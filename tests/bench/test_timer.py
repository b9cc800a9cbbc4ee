"""The fine timer: not before its time, once for each setting, and never after it was closed."""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.timer import FineTimer
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

MILLISECOND = 1_000_000


def test_it_wakes_when_the_time_has_come_and_not_before() -> None:
    async def scene() -> list[tuple[int, int]]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        seen: list[tuple[int, int]] = []
        due = time.monotonic_ns() + 2 * MILLISECOND

        def wake() -> None:
            nonlocal due
            seen.append((due, time.monotonic_ns()))
            if len(seen) == 5:
                done.set_result(None)
            else:
                due += MILLISECOND // 10
                timer.set(due)

        timer = FineTimer(loop, wake)
        timer.set(due)
        await done
        timer.close()
        return seen

    for run in (asyncio.run, uvloop.run):
        seen = run(scene())
        assert all(at >= due for due, at in seen)
        assert len(seen) == 5


def test_a_time_that_is_past_comes_at_once_and_one_that_was_replaced_never() -> None:
    async def scene() -> int:
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        count = 0

        def wake() -> None:
            nonlocal count
            count += 1
            woken.set()

        timer = FineTimer(loop, wake)
        timer.set(time.monotonic_ns() + 3600 * 1000 * MILLISECOND)
        timer.set(1)
        await woken.wait()
        for _ in range(10):  # turns in which a descriptor that is still readable would wake it again
            await asyncio.sleep(0)
        timer.close()
        return count

    assert uvloop.run(scene()) == 1


def test_closed_it_is_silent() -> None:
    async def scene() -> list[int]:
        woken: list[int] = []
        timer = FineTimer(asyncio.get_running_loop(), lambda: woken.append(1))
        timer.set(1)
        timer.close()
        timer.close()
        for _ in range(10):
            await asyncio.sleep(0)
        return woken

    assert uvloop.run(scene()) == []
