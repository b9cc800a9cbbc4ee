"""A run: one process that writes this ledger, and how many receipts it took.

Lives here: `RunFile`, `look`, and the rows of the table `runs` (`begin`, `count`, `end`). May not live here: when they
are due (writer).
How it works: 64 bytes beside the database, mapped into memory. Each receipt stores its number there (70 ns), and that
outlives a kill -9: what the kernel has of the page belongs to the file, not to the process. The next run compares it
with the rows that were written and knows exactly how many are missing. The file also bears the lock that keeps a second
process out; it is never removed, since a lock on a removed file keeps nobody out.
Doubted: a power cut may lose the last seconds of the number, as it may of the rows. On a file system that copies on
write (btrfs), a full disk can turn the store into SIGBUS; SQLite maps its -shm file in the same way.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sqlite3
import struct
import time
from collections.abc import MutableSequence
from typing import NamedTuple

from proxy.ledger.schema import LedgerUnusable

_LAYOUT = struct.Struct("=8sQQ40s")  # this mark, receipts, process, run
_MARK = b"llm-run\0"
_RUN_BYTES = 40


class Run(NamedTuple):
    """What a run file says. `running`: a process holds it."""

    run: str
    observed: int
    pid: int
    running: bool


class RunFile:
    """The file at `path`, made if it is not there, and locked until `close`.

    `wait`: seconds to wait for the lock, so that a restart may overlap with the end of the process before.
    Raises OSError, LedgerUnusable.
    """

    __slots__ = ("_fd", "previous")

    def __init__(self, path: str, wait: float, ledger: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(wait, ledger)
            self.previous = _read(self._fd)  # what the last run left; None: there was none
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
            holder = _read(self._fd)
            who = f" (process {holder.pid})" if holder else ""
            raise LedgerUnusable(
                f"{ledger} is in use by another llm-proxy{who}: end that one, or give this one a file of its own"
            )

    def begin(self, run: str) -> MutableSequence[int]:
        """From now on the file speaks of `run` (at most 40 bytes). Store the number of receipts in element 0."""
        name = run.encode()
        if len(name) > _RUN_BYTES:
            raise ValueError(f"a run's name has at most {_RUN_BYTES} bytes")
        # Written, not only mapped: the disk must have the block before a store may rely on it.
        os.pwrite(self._fd, _LAYOUT.pack(_MARK, 0, os.getpid(), name), 0)
        os.ftruncate(self._fd, _LAYOUT.size)
        # Elements of eight bytes: the second is the number. The map lives as long as this view of it.
        return memoryview(mmap.mmap(self._fd, _LAYOUT.size)).cast("Q")[1:2]  # type: ignore[return-value]

    def close(self) -> None:
        os.close(self._fd)


def look(path: str) -> Run | None:
    """What the run file at `path` says, for whoever only wants to know; None: there is none."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        found = _read(fd)
        if found is None:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go by the close; a start meanwhile waits for it
        except BlockingIOError:
            return found._replace(running=True)
        return found
    finally:
        os.close(fd)


def _read(fd: int) -> Run | None:
    data = os.pread(fd, _LAYOUT.size, 0)
    if len(data) != _LAYOUT.size:
        return None
    mark, observed, pid, run = _LAYOUT.unpack(data)
    if mark != _MARK:
        return None
    return Run(run.rstrip(b"\0").decode("utf-8", "replace"), observed, pid, False)


# -- the table ---------------------------------------------------------------------------------------------------------


def begin(connection: sqlite3.Connection, run: str, version: str, now: float) -> None:
    """Raises sqlite3.Error, also where the name was used before."""
    connection.execute(
        "INSERT INTO runs (id, started_at, pid, version, observed, written) VALUES (?, ?, ?, ?, 0, 0)",
        (run, now, os.getpid(), version),
    )


def count(connection: sqlite3.Connection, run: str, new: int, observed: int) -> None:
    """`new` rows of `run` were written, in the same transaction. Counted here, not with count(*): rows are pruned."""
    connection.execute(
        "UPDATE runs SET written = written + ?, observed = max(observed, ?) WHERE id = ?", (new, observed, run)
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
