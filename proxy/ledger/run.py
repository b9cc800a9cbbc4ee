"""A run: one process that writes this ledger, how many receipts it took, and what became of them.

Lives here: `RunFile`, `look`, and the rows of the table `runs` (`begin`, `adopt`, `count`, `end`). May not live here:
when they are due (writer).
How it works: 96 bytes beside the database, mapped into memory. Each receipt stores its number there (70 ns), and that
outlives a kill -9: what the kernel has of the page belongs to the file, not to the process. The next run compares it
with the rows that were written and knows exactly how many are missing. Behind it stand, in the same form, the runs
before that no database could be told of yet. The file also bears the lock that keeps a second process out; it is never
removed, since a lock on a removed file keeps nobody out.
Doubted: a power cut may lose the last seconds of the number, as it may of the rows. On a file system that copies on
write (btrfs), a full disk can turn the store into SIGBUS; SQLite maps its -shm file in the same way.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sqlite3
import struct
import time
from collections.abc import MutableSequence
from contextlib import suppress
from typing import NamedTuple

from proxy.ledger.schema import LedgerUnusable

_LAYOUT = struct.Struct("=8sQQQQQQ40s")  # this mark, the four counters, when it began (microseconds), process, run
_MARK = b"llm-run\0"
_RUN_BYTES = 40
_MOST = 100  # runs that one file speaks of

# Elements of what `RunFile.begin` returns: receipts taken; of those, how many no disk took and are gone; rows made;
# microseconds since the epoch when the process ended by itself, 0 before.
OBSERVED, LOST, WRITTEN, ENDED = range(4)


class Run(NamedTuple):
    """What a run file says. `running`: a process holds it. `ended_at` (epoch seconds) None: it runs, or was killed."""

    run: str
    observed: int
    pid: int
    running: bool
    lost: int = 0
    written: int = 0
    started_at: float = 0.0
    ended_at: float | None = None


class RunFile:
    """The file at `path`, made if it is not there, and locked until `close`.

    `wait`: seconds to wait for the lock, so that a restart may overlap with the end of the process before.
    Raises OSError, LedgerUnusable.
    """

    __slots__ = ("_fd", "_is_begun", "_path", "unsettled")

    def __init__(self, path: str, wait: float, ledger: str) -> None:
        self._path = path
        self._is_begun = False
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(wait, ledger)
            self.unsettled = _read(self._fd)  # what the last run left, and those before that nobody has settled yet
        except BaseException:
            os.close(self._fd)
            raise

    def _take(self, wait: float, ledger: str) -> None:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.02)  # at start, before there is a loop
                    continue
            who = "".join(f" (process {holder.pid})" for holder in _read(self._fd)[:1])
            raise LedgerUnusable(
                f"{ledger} is in use by another llm-proxy{who}: end that one, or give this one a file of its own"
            )

    def begin(self, run: str) -> MutableSequence[int]:
        """From now on the file speaks of `run` (at most 40 bytes), and behind it of those that are not settled. Store
        in the elements OBSERVED, LOST, WRITTEN and ENDED. Raises OSError."""
        name = run.encode()
        if len(name) > _RUN_BYTES:
            raise ValueError(f"a run's name has at most {_RUN_BYTES} bytes")
        runs = [Run(run, 0, os.getpid(), True, started_at=time.time()), *self.unsettled[: _MOST - 1]]
        data = b"".join(map(_packed, runs))
        # Written, not only mapped: the disk must have the block before a store may rely on it.
        if os.pwrite(self._fd, data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        os.ftruncate(self._fd, len(data))
        self._is_begun = True
        # Elements of eight bytes; the first is the mark. The map lives as long as this view of it.
        return memoryview(mmap.mmap(self._fd, _LAYOUT.size)).cast("Q")[1:5]  # type: ignore[return-value]

    def settle(self) -> None:
        """The runs before are in the tables: forget them. Raises OSError."""
        self.unsettled = []
        if self._is_begun:
            os.ftruncate(self._fd, _LAYOUT.size)

    def keep(self) -> None:
        """If somebody removed the file, leave another that says the same: the next run asks it. Raises OSError."""
        if os.fstat(self._fd).st_nlink:
            return
        with suppress(FileExistsError):  # of a process that was started meanwhile
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(fd, os.pread(self._fd, _LAYOUT.size * _MOST, 0))
            finally:
                os.close(fd)

    def close(self) -> None:
        os.close(self._fd)


def look(path: str) -> Run | None:
    """What the run file at `path` says, for whoever only wants to know; None: there is none."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        runs = _read(fd)
        if not runs:
            return None
        found = runs[0]
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go by the close; a start meanwhile waits for it
        except BlockingIOError:
            return found._replace(running=True)
        return found
    finally:
        os.close(fd)


def _read(fd: int) -> list[Run]:
    data = os.pread(fd, _LAYOUT.size * _MOST, 0)
    runs = []
    for at in range(0, len(data) - _LAYOUT.size + 1, _LAYOUT.size):
        mark, observed, lost, written, ended, started, pid, run = _LAYOUT.unpack_from(data, at)
        if mark != _MARK:
            break
        name = run.rstrip(b"\0").decode("utf-8", "replace")
        runs.append(Run(name, observed, pid, False, lost, written, started / 1e6, ended / 1e6 if ended else None))
    return runs


def _packed(run: Run) -> bytes:
    ended, started = microseconds(run.ended_at or 0.0), microseconds(run.started_at)
    # A name of other bytes may have grown when it was read.
    name = run.run.encode()[:_RUN_BYTES]
    return _LAYOUT.pack(_MARK, run.observed, run.lost, run.written, ended, started, run.pid, name)


def microseconds(seconds: float) -> int:
    return min(round(seconds * 1e6), 2**63)  # files may say anything


# -- the table ---------------------------------------------------------------------------------------------------------


def begin(connection: sqlite3.Connection, run: str, version: str, now: float) -> None:
    """Raises sqlite3.Error, also where the name was used before."""
    connection.execute(
        "INSERT INTO runs (id, started_at, pid, version, observed, written) VALUES (?, ?, ?, ?, 0, 0)",
        (run, now, os.getpid(), version),
    )


def adopt(connection: sqlite3.Connection, run: Run) -> None:
    """Give a run that took receipts a row, unless it has one. It has none where the database was out of reach all its
    life, or was removed later; the rows that went with the file count as written, as pruned ones do."""
    if run.observed:
        connection.execute(
            "INSERT INTO runs (id, started_at, pid, observed, written) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (run.run, run.started_at, run.pid, run.observed, run.written),
        )


def count(connection: sqlite3.Connection, run: str, new: int, observed: int) -> None:
    """`new` rows of `run` were written, in the same transaction. Counted here, not with count(*): rows are pruned. A
    run of which nothing is known but the lines in a spill file gets a row as well."""
    connection.execute(
        "INSERT INTO runs (id, observed, written) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "written = written + excluded.written, "
        "observed = max(observed, excluded.observed, written + excluded.written)",
        (run, max(observed, new), new),
    )


def end(connection: sqlite3.Connection, run: str, observed: int, now: float | None) -> int | None:
    """How many receipts of `run`, which took `observed`, have no row; this is written down. None: it was before, or
    there is no such run. `now`: when it ended; None: nobody knows, it was killed."""
    row = connection.execute("SELECT observed, written FROM runs WHERE id = ? AND lost IS NULL", (run,)).fetchone()
    if row is None:
        return None
    observed = max(observed, row[0])  # after a power cut the run file may be the older of the two
    lost = max(0, observed - row[1])
    connection.execute("UPDATE runs SET ended_at = ?, observed = ?, lost = ? WHERE id = ?", (now, observed, lost, run))
    return int(lost)
