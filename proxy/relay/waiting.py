"""Exchanges that wait until a limit lets them pass, where LLM_PROXY_TIMEOUT_QUEUE allows it.

Lives here: `Waiting`: who waits, whose turn it is, when to look again. May not live here: what they take (taking), how
long one may wait (phases).
How it works: each key has a line of its own, and the lines take turns, one request of each: a key with a thousand
requests delays another's by one. Only the first of a line is looked at. Who comes later, of the same key or for a limit
that the first of any line waits for, does not overtake. The lines are walked along when something came back, and when
the first of them could pass by what the limiter said; one timer serves all.
Doubted: a key's requests for two models stand in one line, so that the slower model holds up the other.
"""

from __future__ import annotations

from asyncio import TimerHandle
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.policy.limits import Chain

if TYPE_CHECKING:
    from proxy.relay.relay import Relay
    from proxy.relay.taking import Taking

_SECOND: Final = 10**9
_LONGEST_LOOK: Final = 1.0  # seconds; where nobody can say when, something that comes back wakes the lines


class Waiting:
    """All that wait, of one worker."""

    __slots__ = ("count", "size", "_due", "_lines", "_relay", "_timer")

    def __init__(self, relay: Relay) -> None:
        self.count = 0
        self.size = 0  # bytes of their bodies
        self._relay = relay
        self._lines: dict[str, deque[Taking]] = {}  # by key; in the order of their turns
        self._timer: TimerHandle | None = None
        self._due = inf  # of the timer

    def has_room_for(self, taking: Taking) -> bool:
        """Half of what bodies may hold in all is for those who wait: they must not shut out who need not wait."""
        options = self._relay.options
        return self.count < options.pool.queue and self.size + taking.size <= options.bytes.bodies // 2

    def is_before(self, chain: Chain) -> bool:
        """Whether a new request with this chain has to stand behind somebody."""
        if not self.count:
            return False
        return chain.key in self._lines or any(line[0].scope in chain.scopes for line in self._lines.values())

    def enter(self, taking: Taking) -> None:
        """Stand at the end of the key's line."""
        self.count += 1
        self.size += taking.size
        line = self._lines.setdefault(taking.key, deque())
        line.append(taking)
        if len(line) == 1:
            self._look_in(taking.wait)

    def leave(self, taking: Taking) -> None:
        """It does not want to any more: its client left, or its time is up."""
        line = self._lines.get(taking.key)
        if line is not None and taking in line:
            was_first = line[0] is taking
            line.remove(taking)
            self._gone(taking, line)
            if was_first:
                self.wake()

    def wake(self) -> None:
        """Something came back: walk in the next turn of the loop. Not now: whoever gives back is not done yet."""
        if self.count:
            self._look_in(0)

    def walk(self) -> None:
        """Let pass who can, one of each key in turn. What one lacks is left for it: those behind it who would take of
        the same limit stay behind it."""
        self._timer, self._due = None, inf
        has_passed = True
        while has_passed:
            has_passed = False
            lacking: set[str] = set()
            for key in list(self._lines):
                line = self._lines.get(key)
                if line is None or not lacking.isdisjoint(line[0].chain.scopes):
                    continue
                first = line[0]
                if self._try(key, line):
                    has_passed = True
                else:
                    lacking.add(first.scope)
        waits = [line[0].wait for line in self._lines.values()]
        if waits:
            self._look_in(min(waits, key=lambda wait: inf if wait is None else wait))

    def _try(self, key: str, line: deque[Taking]) -> bool:
        first = line[0]
        if not first.try_again():
            return False
        line.popleft()
        del self._lines[key]  # its next turn comes behind the others'
        self._lines[key] = line
        self._gone(first, line)
        first.pass_on()
        return True

    def _gone(self, taking: Taking, line: deque[Taking]) -> None:
        self.count -= 1
        self.size -= taking.size
        if not line:
            del self._lines[taking.key]
        if not self.count and self._timer is not None:
            self._timer.cancel()
            self._timer, self._due = None, inf

    def _look_in(self, wait: int | None) -> None:
        """Walk after `wait` nanoseconds (None: nobody can say), if nothing does before."""
        seconds = _LONGEST_LOOK if wait is None else min(wait / _SECOND, _LONGEST_LOOK)
        due = self._relay.clock() + seconds
        if due >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._relay.loop.call_later(seconds, self.walk)
