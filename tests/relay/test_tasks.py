"""The one place where tasks are made."""

from __future__ import annotations

import asyncio
import gc
import weakref

from proxy.relay.tasks import Tasks
from tests.fakes.loop import FakeLoop


def test_a_task_is_kept_until_it_ends() -> None:
    with FakeLoop() as loop:
        tasks = Tasks(loop)
        waiting = loop.create_future()

        async def work() -> None:
            await waiting

        with loop.running():
            task = weakref.ref(tasks.start(work()))
        loop.run_ready()
        gc.collect()
        assert task() is not None
        assert len(tasks) == 1
        waiting.set_result(None)
        loop.run_ready()
        assert len(tasks) == 0


def test_a_failure_reaches_the_loop_at_once() -> None:
    with FakeLoop() as loop:
        tasks = Tasks(loop)

        async def fail() -> None:
            raise ZeroDivisionError("our fault")

        with loop.running():
            tasks.start(fail())
        loop.run_ready_quietly()
        errors = loop.expect_errors()
        assert len(errors) == 1
        assert isinstance(errors[0]["exception"], ZeroDivisionError)
        assert len(tasks) == 0


def test_close_cancels_and_waits() -> None:
    with FakeLoop() as loop:
        tasks = Tasks(loop)
        steps: list[str] = []

        async def work() -> None:
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                steps.append("tidied up")
                raise

        with loop.running():
            tasks.start(work())
        loop.run_ready()
        loop.run_until_complete(tasks.close())
        assert steps == ["tidied up"]
        assert len(tasks) == 0


def test_close_without_tasks() -> None:
    with FakeLoop() as loop:
        loop.run_until_complete(Tasks(loop).close())
