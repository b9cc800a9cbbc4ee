"""The ledger's files, open for writing: the database, the spill file, the run file.

Lives here: `Book`. May not live here: the queue, the thread, and which of the files is written when (writer).
How it works: whatever is in doubt is written again, since a row that is there stays as it is: a batch whose commit
failed, a spill file that was replayed in part. Rows and how many they are (table `runs`) go into one transaction, so
what is missing of a run is one subtraction: receipts taken, less rows made. A database that is locked, or on a full
disk, when the process starts is reached later; until then what the runs before left stays in the run file.
Doubted: on a disk too full for the 96 bytes of a new run file the counters are in this process's memory until it has
them, and a kill takes them along.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby
from operator import attrgetter

from proxy.ledger import retention, rows, run, schema
from proxy.ledger.rows import Entry
from proxy.ledger.schema import LedgerUnusable
from proxy.ledger.spill import Spill

# Rows in a transaction. The commit costs as much as ten of them.
BATCH = 200


class Book:
    """Everything that is written of the ledger at `path`, which is a real path. One thread at a time may use it;
    `spill.append` and `counter` are for any.

    To make one blocks: it takes the lock, creates or migrates the database, replays what was spilled, ends the runs
    before, and begins that of `run_name`. Where only the database cannot be used, and only for now, `refusal` says why,
    and `reach` is to be called until it does not raise. LedgerUnusable: nothing is left open.
    """

    __slots__ = (
        "_connection",
        "_is_begun",
        "_note",
        "_opened",
        "_path",
        "_place",
        "_run",
        "_run_file",
        "_version",
        "_wait",
        "breathe",
        "counter",
        "refusal",
        "spill",
    )

    def __init__(self, path: str, lock_seconds: float, run_name: str, version: str, note: Callable[..., None]) -> None:
        self._path = path
        self._run = run_name
        self._version = version
        self._note = note
        self._wait = lock_seconds
        self._connection: sqlite3.Connection | None = None
        self._place = (0, 0)
        self._is_begun = False  # this run has its row
        self.breathe: Callable[[], None] | None = None  # called between rows.GROUP of rows and the next
        self.refusal = ""
        self.counter: MutableSequence[int] = [0] * 4  # elements: run.OBSERVED and so on; a plain store each
        with schema.told(path), ExitStack() as opened:
            self._run_file = run.RunFile(path + "-run", lock_seconds, path)
            opened.callback(self._run_file.close)  # the last to be closed: it is the lock
            opened.callback(self._disconnect)
            self.spill = Spill(path + "-spill")
            opened.callback(self.spill.close)
            try:
                self.reach()
                while self.spill.waiting:
                    self.replay(0)
                self.settle()
            except (LedgerUnusable, sqlite3.Error, OSError) as error:
                if not schema.is_temporary(error):
                    raise
                self.refusal = str(error)
                with suppress(OSError):
                    self._begin_file()
            self._opened = opened.pop_all()

    def reach(self) -> None:
        """What is left to do before rows can be written. Raises LedgerUnusable, sqlite3.Error, OSError."""
        if self._is_begun:
            return
        if self._connection is None:
            self._connection = schema.connect(self._path, self._wait)
            self._place = schema.place(self._path)
        with schema.told(self._path):
            for last in self._run_file.unsettled:
                run.adopt(self._connection, last)
        # The file first. After a kill between the two there is a run without a row, of which nobody asks anything; the
        # other way round there would be a row whose receipts nobody can count.
        self._begin_file()
        with schema.told(self._path):
            run.begin(self._connection, self._run, self._version, time.time())
        self._is_begun = True

    def _begin_file(self) -> None:
        if isinstance(self.counter, list):
            self.counter = self._run_file.begin(self._run)

    def _reached(self) -> sqlite3.Connection:
        if self._connection is None or not self._is_begun:
            raise OSError(self.refusal)
        return self._connection

    def wait_for_locks(self, seconds: float) -> None:
        """For so long from now on."""
        self._wait = seconds
        if self._connection is not None:
            self._connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def settle(self) -> None:
        """End the runs before, when nothing of them waits in the spill file any more. Raises as `write` does."""
        connection = self._reached()
        if self._run_file.unsettled:
            for last in self._run_file.unsettled:
                self._end_before(connection, last)
            self._run_file.settle()

    def _end_before(self, connection: sqlite3.Connection, last: run.Run) -> None:
        lost = run.end(connection, last.run, last.observed, last.ended_at)
        if lost is not None:
            how = "did not end its ledger (killed?)" if last.ended_at is None else "ended without its ledger"
            message = f"the run before {how}: {lost or 'none'} of its receipts are missing"
            self._note("warn" if lost else "info", message, run=last.run, observed=last.observed, lost=lost)

    def write(self, entries: Sequence[Entry], observed: int) -> None:
        """Write `entries` in one transaction, and that this run took `observed` receipts so far. Raises sqlite3.Error,
        OSError; then nothing is written."""
        try:
            self._write(entries, observed)
        except (ValueError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            # One of them holds what SQLite has no form for.
            self._write([rows.storable(entry) for entry in entries], observed)

    def _write(self, entries: Sequence[Entry], observed: int) -> None:
        connection = self._reached()
        if schema.place(self._path) != self._place:  # SQLite would go on writing into a file that has no name
            raise OSError("its file was removed or replaced: restart llm-proxy")
        ours = 0
        with schema.writing(connection):
            for name, part in groupby(entries, key=attrgetter("run")):  # a spill file may hold several runs
                new = self._insert(connection, list(part))
                ours += new if name == self._run else 0
                run.count(connection, name, new, observed if name == self._run else 0)
        self.counter[run.WRITTEN] += ours

    def _insert(self, connection: sqlite3.Connection, entries: list[Entry]) -> int:
        new = 0
        for at in range(0, len(entries), rows.GROUP):
            if at and self.breathe is not None:
                self.breathe()
            new += rows.insert(connection, entries[at : at + rows.GROUP])
        return new

    def replay(self, observed: int) -> None:
        """Write the next piece of the spill file. Raises as `write` does."""
        entries, end, skipped = self.spill.read(BATCH)
        self.write(entries, observed)
        self.spill.advance(end)
        if skipped:
            self._note("warn", f"{skipped} lines of {self._path}-spill are not whole: skipped", skipped=skipped)

    def prune(self, before: float | None, max_bytes: int) -> tuple[int, bool]:
        """A step of retention: how many rows it removed, and whether there may be more."""
        return retention.step(self._reached(), before, max_bytes)

    def end(self, observed: int) -> int:
        """End the run; how many of its `observed` receipts have no row. Raises sqlite3.Error, OSError."""
        return run.end(self._reached(), self._run, observed, time.time()) or 0

    def leave(self) -> None:
        """The process ends by itself, whatever became of its receipts: the next one need not call it killed. Raises
        OSError."""
        self.counter[run.ENDED] = run.microseconds(time.time())
        self._run_file.keep()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def close(self) -> None:
        self._opened.close()
