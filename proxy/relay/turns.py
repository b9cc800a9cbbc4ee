"""Requests that must not hold up others: whose turn it is.

Lives here: `Turns`. May not live here: who has to wait for one, what is done in it (client).
How it works: one read may bring 5,000 requests that are refused at once, half a second of work in which nobody else is
served. So a read, or the end of an exchange, begins one exchange at most. Whoever has sent another one ahead stands in
this one line, and so does the next request of a connection whose last one was not let in. Each turn of the loop begins
some of theirs; between two turns the loop looks at all sockets. So whatever any number of connections send, it costs
others MOST refusals for each turn of the loop, and a request takes two or three turns.
A connection is not closed and not delayed for its wrong keys: to connect anew costs us twice what a refusal does, an
SDK with a wrong key asks once, and to all that stand behind one address with an attacker a penalty would be an outage.
Doubted: the first request of each connection is begun at once, so who makes a new one for each wrong key is not bounded
by this. A client that pipelines in earnest shares its turns with those that disturb.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

# A wrong key costs 40 to 65 us, so a quarter of a millisecond. The fewer, the sooner others are served, and the more of
# the time goes into looking at all sockets.
MOST: Final = 4


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
