"""Where the numbers of limits and budgets are.

Lives here: `CounterStore`, and one in memory. May not live here: what the numbers mean (limits), one that survives a
kill (the ledger has it).
How it works: a limiter asks once for the place of a counter, and then loads and stores there by itself: no call, no
lock, one process.
Doubted: nothing yet.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Final, Protocol

WIDTH: Final = 4  # numbers of 64 bits that a counter has: limits says which mean what


class CounterStore(Protocol):
    """Where counters are. A counter that nobody asked for before is zeros."""

    def counter(self, name: str) -> tuple[MutableSequence[int], int]:
        """The sequence that holds the counter `name`, and at which index its WIDTH numbers begin. Always the same."""
        ...

    def hold(self, name: str) -> tuple[MutableSequence[int], int]:
        """A free place for what a request of the key `name` has taken: its numbers are what a kill leaves behind. Give
        it back by storing zeros and calling `free`."""
        ...

    def free(self, name: str, place: tuple[MutableSequence[int], int]) -> None: ...

    def peek(self, name: str) -> tuple[MutableSequence[int], int] | None:
        """Where the counter `name` is, if anybody has asked for it before. From any thread."""
        ...


class MemoryStore:
    """Counters that end with the process."""

    __slots__ = ("_counters",)

    def __init__(self) -> None:
        self._counters: dict[str, tuple[MutableSequence[int], int]] = {}

    def counter(self, name: str) -> tuple[MutableSequence[int], int]:
        return self._counters.setdefault(name, ([0] * WIDTH, 0))

    def peek(self, name: str) -> tuple[MutableSequence[int], int] | None:
        return self._counters.get(name)

    def hold(self, name: str) -> tuple[MutableSequence[int], int]:
        return [0] * WIDTH, 0

    def free(self, name: str, place: tuple[MutableSequence[int], int]) -> None:
        pass
