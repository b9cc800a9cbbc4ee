"""Which names come most often, of any number of them, in little memory.

Lives here: `Frequent`. May not live here: what the names mean.
How it works: the counting of Misra and Gries (1982). A name has a count while there is room; a new one that finds no
room takes one off every count instead, and names without a count are forgotten. Each such step is paid for by as many
earlier ones, so a name costs O(1). A name with more than its share of one in `room` + 1 is always among those kept.
Doubted: once there was no room, counts are too low, by one in `room` + 1 of all names at most.
"""

from __future__ import annotations


class Frequent:
    """Counts of the most frequent names: at most `room` are kept."""

    __slots__ = ("_counts", "_room")

    def __init__(self, room: int) -> None:
        self._room = room
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, name: str) -> None:
        counts = self._counts
        if name in counts:
            counts[name] += 1
        elif len(counts) < self._room:
            counts[name] = 1
        else:
            self._counts = {other: count - 1 for other, count in counts.items() if count > 1}

    def take(self, most: int) -> dict[str, int]:
        """The most frequent names, at most `most`, with how often they came at least; then begin anew."""
        ordered = sorted(self._counts.items(), key=lambda item: -item[1])
        self._counts = {}
        return dict(ordered[:most])
