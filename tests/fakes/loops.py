"""An event loop that keeps nothing to itself.

Lives here: `run`, asyncio.run for tests. May not live here: a fake clock or transport (their own modules).
How it works: as asyncio.run, but what reaches the loop's handler and what is still running when the coroutine is done
fails the test, after a few turns of grace for callbacks that are due already.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

GRACE = 5  # turns of the loop: connection_lost and done callbacks come one or two turns after a close


def run(main: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Runs `main` to its end. Pass `uvloop.new_event_loop` to do it there. AssertionError on anything left behind."""
    heard: list[str] = []

    def hear(loop: asyncio.AbstractEventLoop, about: dict[str, Any]) -> None:
        exception = about.get("exception")
        heard.append(f"{about.get('message')}: {exception!r}" if exception else str(about.get("message")))

    async def watched() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(hear)
        result = await main
        ours = asyncio.current_task()
        for _ in range(GRACE):
            await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks(loop) if task is not ours]
        gc.collect(1)  # a task that failed unseen says so when it is collected
        assert not left, f"tasks left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=loop_factory, debug=False) as runner:
        result = runner.run(watched())
    assert not heard, "an exception reached the event loop: " + "; ".join(heard)
    return result
