"""Threads for answers that must not stop the loop: questions to the ledger, changes of keys.

Lives here: `Threads`. May not live here: what the answers are (keys, spending), connections (session).
How it works: few threads of their own, since the loop's own also look up names; a bounded number of answers waits for
them, and no more are taken. What was begun is done, whoever still waits for it.
Doubted: the end of the process waits for a thread at work; SQLite's time limits bound that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from proxy.admin.routes import AdminAnswer, Later

# Two, so that one slow question to the ledger does not hold back a change. More would only share the interpreter.
THREADS = 2
MOST = 16  # answers at once, in work or waiting for a thread


class Threads:
    """For all admin listeners of one worker."""

    __slots__ = ("_executor", "_loop", "_most", "_running")

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int = MOST) -> None:
        self._loop = loop
        self._most = most
        self._running = 0
        self._executor = ThreadPoolExecutor(THREADS, "admin")  # starts none before the first answer

    def start(self, later: Later, done: Callable[[AdminAnswer | BaseException], None]) -> bool:
        """Have the answer made; `done` gets it, or what went wrong, in the loop. False: too many are being made."""
        if self._running >= self._most:
            return False
        self._running += 1
        future = self._loop.run_in_executor(self._executor, later.make)
        future.add_done_callback(lambda made: self._take(later, made, done))
        return True

    def _take(
        self, later: Later, made: asyncio.Future[AdminAnswer], done: Callable[[AdminAnswer | BaseException], None]
    ) -> None:
        self._running -= 1
        if made.cancelled():
            return  # we stop
        error = made.exception()
        try:
            if later.after is not None:
                later.after()
        except Exception as fault:
            error = error or fault
        done(error if error is not None else made.result())

    def close(self) -> None:
        """No more are begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)
