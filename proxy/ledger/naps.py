"""When the ledger's thread lets the event loop go first.

Lives here: `Naps`. May not live here: what is done between two of them (writer, book).
How it works: that SQLite works without the interpreter is not enough: on a machine with other work it is taken back
before the loop has woken up, until the loop's 5 ms of waiting are over (sys.getswitchinterval). A thread that sleeps
leaves the loop the interpreter and the core. Who sleeps comes back to a cold cache, though, so there are at most
about twenty naps to a turn: where more groups of rows wait, one for several of them.
Doubted: nothing yet.
"""

from __future__ import annotations

import time

# Seconds of one. Longest stall of a loop that is always busy, at 2,000 rows/s, two quiet cores, median of 7 runs of
# 2 s: without naps 1.3 ms, with them 0.5 ms (python -m bench.ledger).
_SECONDS = 0.0005

# At 9,000 rows/s a row costs 20 us this way, and 30 where there is a nap after every group.
_MOST = 20


class Naps:
    """Those of one thread. None is taken before `is_on` is set, or after it is taken back."""

    __slots__ = ("_due", "_stride", "is_on")

    def __init__(self) -> None:
        self.is_on = False
        self._due = 0  # places where one could be taken, since the last one
        self._stride = 1

    def begin(self, groups: int) -> None:
        """A turn with so many groups of rows."""
        self._stride = max(1, groups // _MOST)

    def take(self) -> None:
        """Between two groups: sleep, if it is time."""
        self._due += 1
        if self.is_on and self._due >= self._stride:
            self._due = 0
            time.sleep(_SECONDS)
