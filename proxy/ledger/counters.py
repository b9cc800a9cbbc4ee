"""How much of each limit and budget is used, where a kill cannot reach it: in a file beside the ledger.

Lives here: `Counters` (policy's CounterStore), and for other processes `look`, `holds`, `bump`. May not live here: the
form of the file (records), what the numbers mean (policy), when to sync, which keys there are.
How it works: counters and holds are places in a file that is mapped into memory. A store there costs what a store
costs, and outlives a kill -9: what the kernel has of the page belongs to the file, not to the process.
A hold is what a request has taken and may give back: when it began, microdollars, tokens; zeros when it is over. Those
that are not zeros at the next open were cut off by a kill: they are `lost`, and stay in the file as such until the
caller has put them elsewhere and calls `forget_lost`, which is one store. A kill before it brings them back once more.
Open writes what still says something into a new file and renames it over the old one. Then the file grows by segments,
or, on a full disk, the memory does. It needs no lock, since whoever opens it has that of the run file; readers take
none, and `bump` stores one word.
Doubted: a power cut may undo what was stored since the last `sync`, as it may the rows, and a clock that was far ahead
at a start ends budgets early. A store into a page that the disk is just taking may wait for it: with a sync after the
other, one in 10,000 took 0.16 ms. On a file system that copies on write (btrfs), a full disk can turn it into SIGBUS;
whoever makes the file shorter while it is in use does that, too. If the file is removed while a server runs, `bump`
finds none, and the next start begins at zero. Each map keeps a file descriptor, so segments get larger as the file
does: 100,000 new names need about 30.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable

from proxy.ledger import records
from proxy.ledger.records import COUNTER, HOLD, NUMBERS, WORDS, Found, LostHold, Numbers, Place
from proxy.ledger.schema import is_temporary, place, real_path, told

# Bytes by which the file grows: the least is 512 records, written in 25 us; the most takes 0.4 ms, once in 8192 names.
_LEAST, _MOST = 64 << 10, 1 << 20

_sync = getattr(os, "fdatasync", os.fsync)  # Macs have only the other


def beside(path: str) -> str:
    """Where the counters of the ledger at `path` are. Raises LedgerUnusable."""
    return real_path(path) + "-counters"


class Counters:
    """The file at `path`, made if it is not there. Only for the process that has the run file's lock.

    `note(level, message, **more)` tells the operator. `now`: nanoseconds since the epoch. Read keys after it: a change
    that was bumped before is not told again.
    Raises LedgerUnusable: the file is damaged, or not ours. It is left as it is, since all budgets would begin at zero.
    """

    __slots__ = (
        "lost",
        "_note",
        "_is_told",
        # the file
        "_path",
        "_fd",
        "_size",
        "_head",
        # places in it
        "_counters",
        "_free",
        "_lost",
        "_spare",
        "_segment",
        "_next",
    )

    def __init__(self, path: str, note: Callable[..., None], now: int) -> None:
        self._path = path
        self._note = note
        self._is_told = False
        with told(path):
            found = records.read(path)
            if found is not None and found.is_torn:
                note("warn", f"{path} does not end with a whole record: what it held of one is dropped", path=path)
            found = found or Found(0, {}, [], False)
            kept = {name: numbers for name, numbers in found.counters.items() if _says_something(numbers, now)}
            data = records.packed(_another(found.generation, now), kept, found.holds)
            self._begin(data)
        self.lost = found.holds  # what requests had taken when their process was killed
        first = NUMBERS + WORDS
        self._counters = {name: (self._segment, first + at * WORDS) for at, name in enumerate(kept)}
        first += len(kept) * WORDS
        self._lost = [(self._segment, first + at * WORDS) for at in range(len(self.lost))]
        self._next = first + len(self.lost) * WORDS - NUMBERS
        self._spare: list[Place] = []  # records that are free and bear no name
        self._free: dict[str, list[Place]] = {}  # holds that are free, by the key whose name they bear

    def _begin(self, data: bytearray) -> None:
        """Have `data` in the file and in memory; in memory only, where the disk has no room."""
        try:
            self._fd, self._segment = records.rewritten(self._path, data)
            self._size = len(data)
            self._head = self._segment
        except OSError as error:
            if not is_temporary(error):
                raise
            self._fd, self._segment, self._size = -1, records.words_in(data), 0
            # Other processes bump the old file, if there is one.
            self._head = records.head_of(self._path) or self._segment
            self._tell(error)

    @property
    def generation(self) -> int:
        """Changes when keys have changed, and at each open. 0.08 us."""
        return self._head[records.GENERATION]

    def counter(self, name: str) -> Place:
        """Where the counter `name` is: always the same place."""
        found = self._counters.get(name)
        if found is None:
            data = records.fitted(name)
            short = data.decode("utf-8", "surrogatepass")
            found = self._counters.get(short)
            if found is None:
                found = self._counters[short] = self._fresh(COUNTER, data)
        return found

    def peek(self, name: str) -> Place | None:
        """Where the counter `name` is, if there is one. From any thread."""
        found = self._counters.get(name)
        return found or self._counters.get(records.fitted(name).decode("utf-8", "surrogatepass"))

    def hold(self, name: str) -> Place:
        """A free place for what a request of the key `name` has taken: when it began, microdollars, tokens. 0.2 us
        with `free`; 1.5 us where the name has to be written (python -m bench.admission)."""
        places = self._free.get(name)
        return places.pop() if places else self._another_hold(name)

    def free(self, name: str, place: Place) -> None:
        """Zeros are stored there, and another request of `name` may have the place."""
        places = self._free.get(name)
        if places is None:
            self._free[name] = [place]
        else:
            places.append(place)

    def _another_hold(self, name: str) -> Place:
        """One that bore the name of another key, or none."""
        while self._free:
            # Whose it was does not matter; the last is the only one that a dict gives up in constant time.
            other, places = self._free.popitem()
            if places:
                found = places.pop()
                if places:
                    self._free[other] = places
                records.write(found, HOLD, records.fitted(name))
                return found
        return self._fresh(HOLD, records.fitted(name))

    def _fresh(self, kind: bytes, name: bytes) -> Place:
        if self._spare:
            found = self._spare.pop()
        else:
            if self._next >= len(self._segment):
                self._grow()
            found = self._segment, self._next + NUMBERS
            self._next += WORDS
        records.write(found, kind, name)
        return found

    def _grow(self) -> None:
        """One segment more; in memory, where the disk has no room. The next time asks the disk again."""
        size = min(max(_LEAST, self._size // 4 // _LEAST * _LEAST), _MOST)
        self._next = 0
        try:
            self._segment = records.mapped(self._fd, self._size, bytes(size))
            self._size += size
        except (OSError, ValueError) as error:  # ValueError: the file is shorter than it was
            self._segment = records.words_in(bytearray(size))
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._is_told:
            self._is_told = True
            why = getattr(error, "strerror", None) or error
            self._note(
                "error",
                f"{self._path} cannot be written ({why}): what is counted from now on begins anew at the next start; "
                "make room on the disk and restart llm-proxy",
                path=self._path,
            )

    def forget_lost(self) -> None:
        """What is `lost` is in safety elsewhere. A kill just before it makes the next open return it again."""
        if self._size:  # else it is the old file's
            self._head[records.IS_FORGOTTEN] = 1
        self._spare += self._lost
        self._lost, self.lost = [], []

    def sync(self) -> None:
        """Have the disk take what was stored, so that no power cut undoes it. It blocks, so it is for a thread; others
        run meanwhile (mmap.flush would hold the interpreter for as long). Raises OSError."""
        fd = self._fd
        if fd >= 0:
            _sync(fd)

    def close(self) -> None:
        """Places that somebody has may be stored into as before: the maps live as long as they are looked at."""
        self._is_told = True  # that a name which comes now has no place in the file
        fd, self._fd = self._fd, -1  # never the number of a file that somebody opens next
        if fd >= 0:
            os.close(fd)


def _another(generation: int, now: int) -> int:
    return now + (now == generation)


def _says_something(numbers: Numbers, now: int) -> bool:
    """Whether a counter has to be kept: a rate that is ahead of the clock, a budget whose window has not ended. What
    the third number says of either is worth nothing without them."""
    first, end, _, fourth = numbers
    if end:
        return end > now
    return first > now or bool(fourth)


# -- other processes ---------------------------------------------------------------------------------------------------


def look(path: str) -> dict[str, Numbers]:
    """All counters by name, for whoever only wants to know, while a server runs or not. Raises LedgerUnusable."""
    with told(path):
        found = records.read(path)
    return found.counters if found else {}


def holds(path: str) -> list[LostHold]:
    """What requests have taken and not given back: those that run, and those that a kill cut off. Raises
    LedgerUnusable."""
    with told(path):
        found = records.read(path)
    return found.holds if found else []


def bump(path: str) -> bool:
    """Keys were changed: let the server that runs, if there is one, see it at its next request. False: no server has
    ever made such a file. Raises LedgerUnusable: the file cannot be written, or is not ours."""
    with told(path):
        while True:
            try:
                fd = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                return False
            try:
                data = os.pread(fd, records.SIZE, 0)
                # Not one more: two processes may do it at once, and both changes have to be seen.
                generation = _another(records.head_in(data, path)[0], time.time_ns())
                os.pwrite(fd, struct.pack("=q", generation), records.GENERATION * 8)
                status = os.fstat(fd)
            finally:
                os.close(fd)
            # A server that starts meanwhile may have put a new file there. If it does so from here on, it reads the
            # keys after this change.
            if place(path) == (status.st_dev, status.st_ino):
                return True
