"""Answers are made off the loop, few at once, and what follows a change happens in the loop before its answer."""

from __future__ import annotations

import asyncio
import threading

from proxy.admin.routes import AdminAnswer, Later, json_answer
from proxy.admin.threads import Threads
from tests.fakes.loops import run

FINE = json_answer(200, {})
Done = AdminAnswer | BaseException


def test_an_answer_is_made_elsewhere_and_comes_back_to_the_loop() -> None:
    async def main() -> None:
        threads = Threads(asyncio.get_running_loop())
        told: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        seen: list[tuple[str, int]] = []

        def make() -> AdminAnswer:
            seen.append(("make", threading.get_ident()))
            return FINE

        assert threads.start(Later(make, lambda: seen.append(("after", threading.get_ident()))), told.set_result)
        assert await told is FINE
        assert [name for name, _ in seen] == ["make", "after"]
        assert seen[0][1] != threading.get_ident() == seen[1][1]
        threads.close()

    run(main())


def test_what_goes_wrong_is_handed_over_and_what_follows_a_change_still_happens() -> None:
    async def main() -> None:
        threads = Threads(asyncio.get_running_loop())
        loop = asyncio.get_running_loop()

        def fail() -> AdminAnswer:
            raise RuntimeError("broken")

        for later in (Later(fail), Later(lambda: FINE, fail)):
            told: asyncio.Future[Done] = loop.create_future()
            assert threads.start(later, told.set_result)
            assert isinstance(await told, RuntimeError)
        after = asyncio.Event()
        told = loop.create_future()
        threads.start(Later(fail, after.set), told.set_result)
        await told
        assert after.is_set()
        threads.close()

    run(main())


def test_no_more_are_begun_than_may_be_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        threads = Threads(loop, most=3)
        go = threading.Event()

        def make() -> AdminAnswer:
            go.wait(20)
            return FINE

        told: list[asyncio.Future[Done]] = [loop.create_future() for _ in range(3)]
        assert [threads.start(Later(make), each.set_result) for each in told] == [True] * 3
        assert not threads.start(Later(make), lambda made: None)
        go.set()
        await asyncio.gather(*told)
        last: asyncio.Future[Done] = loop.create_future()
        assert threads.start(Later(make), last.set_result)
        await last
        threads.close()

    run(main())


def test_what_waits_when_we_stop_is_not_begun() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        threads = Threads(loop)
        go, begun = threading.Event(), threading.Semaphore(0)
        made: list[int] = []

        def make(number: int) -> AdminAnswer:
            begun.release()
            go.wait(20)
            made.append(number)
            return FINE

        told: list[asyncio.Future[Done]] = [loop.create_future() for _ in range(3)]
        for number in range(3):
            threads.start(Later(lambda number=number: make(number)), told[number].set_result)  # type: ignore[misc]
        await asyncio.to_thread(lambda: (begun.acquire(timeout=20), begun.acquire(timeout=20)))
        threads.close()
        go.set()
        await asyncio.gather(*told[:2])
        assert sorted(made) == [0, 1] and not told[2].done()

    run(main())
