"""Receipts that are gone: how many, why, and that the operator hears of it.

Lives here: `Losses`. May not live here: what a loss is (writer).
How it works: the number is in the run file with every loss, where `ledger check` and the next run see it. The operator
is told of the first, then once a minute while it goes on.
Doubted: nothing yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, MutableSequence

from proxy.ledger.run import LOST

_TELL = 60.0  # seconds


class Losses:
    """The receipts that this run has lost. Any thread may `add`.

    `count`: so far; `why`: the last reason, empty before there was one.
    """

    __slots__ = ("_counter", "_is_going_on", "_lock", "_note", "_tell_at", "count", "why")

    def __init__(self, note: Callable[..., None]) -> None:
        self._note = note
        self._lock = threading.Lock()  # += is no single step
        self._counter: MutableSequence[int] = [0] * 4
        self._tell_at = 0.0  # time.monotonic()
        self.count = 0
        self.why = ""
        self._is_going_on = False

    def count_in(self, counter: MutableSequence[int]) -> None:
        """From now on in element LOST of that one, too."""
        with self._lock:
            self._counter = counter
            counter[LOST] = self.count

    def add(self, count: int, why: str, is_told: bool = False) -> None:
        """`count` more are gone. `is_told`: somebody else tells it."""
        now = time.monotonic()
        with self._lock:
            self.count = total = self.count + count
            self.why = why
            self._counter[LOST] = total
            if is_told or (self._is_going_on and now < self._tell_at):
                return
            self._is_going_on, self._tell_at = True, now + _TELL
        self._note("error", f"the ledger loses receipts ({why}): {total} so far", lost=total)

    def end(self) -> bool:
        """It is over: what is lost after this is told at once. True: the operator was told of some."""
        was_going_on, self._is_going_on = self._is_going_on, False
        return was_going_on
