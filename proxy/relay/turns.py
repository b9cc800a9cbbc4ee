"""Requests that a client sent without waiting for answers: whose turn it is.

Lives here: `Turns`. May not live here: what is done in a turn (client).
How it works: one read may bring 5,000 requests that are refused at once, half a second of work in which nobody else is
served. So a read, or the end of an exchange, begins one exchange at most; whoever has another request there already
stands in this one line, and each turn of the loop begins some of theirs. Between two turns the loop looks at all
sockets. So whatever any number of connections sent ahead, it costs others MOST exchanges for each turn of the loop.
Doubted: a client that pipelines in earnest shares its turns with those that only want to disturb.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

# A wrong key costs 40 us, so 0.3 ms; with 1 a turn of the loop (12 us, most of it asking the kernel) would be a fourth
# of the work, with 8 it is 4 %.
MOST = 8


class Waits(Protocol):
    """Who stands in the line."""

    def go_on(self) -> None:
        """Its turn has come. It may stand in line again."""
        ...


class Turns:
    __slots__ = ("_is_due", "_line", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._line: deque[Waits] = deque()
        self._is_due = False

    def __len__(self) -> int:
        return len(self._line)

    def enter(self, one: Waits) -> None:
        """`one` goes on in a later turn of the loop, after those that came before."""
        self._line.append(one)
        self._call()

    def _call(self) -> None:
        if self._line and not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        self._is_due = False
        try:
            for _ in range(min(MOST, len(self._line))):
                self._line.popleft().go_on()
        finally:
            self._call()  # whatever happens to one, the others are not forgotten
