"""The ledger's files, open for writing: the database, the spill file, the run file.

Lives here: `Book`. May not live here: the queue, the thread, and which of the files is written when (writer).
How it works: whatever is in doubt is written again, since a row that is there stays as it is: a batch whose commit
failed, a spill file that was replayed in part. Rows and how many they are (table `runs`) go into one transaction, so
what is missing of a run is one subtraction: receipts taken, less rows made.
Doubted: nothing yet.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import attrgetter

from proxy.ledger import retention, rows, run, schema
from proxy.ledger.rows import Entry
from proxy.ledger.spill import Spill

# Rows in a transaction. The commit costs as much as ten of them.
BATCH = 200


class Book:
    """Everything that is written of the ledger at `path`, which is a real path. One thread at a time may use it;
    `spill.append` and `counter` are for any.

    To make one blocks: it takes the lock, creates or migrates the database, replays what was spilled, ends the run
    before, and begins that of `run_name`. LedgerUnusable: nothing is left open.
    """

    __slots__ = ("_connection", "_note", "_opened", "_path", "_place", "_run", "breathe", "counter", "spill")

    def __init__(self, path: str, lock_seconds: float, run_name: str, version: str, note: Callable[..., None]) -> None:
        self._path = path
        self._run = run_name
        self._note = note
        self.breathe: Callable[[], None] | None = None  # called between rows.GROUP of rows and the next
        with schema.told(path), ExitStack() as opened:
            run_file = run.RunFile(path + "-run", lock_seconds, path)
            opened.callback(run_file.close)  # the last to be closed: it is the lock
            self._connection = schema.connect(path, lock_seconds)
            opened.callback(self._connection.close)
            self._place = schema.place(path)
            self.spill = Spill(path + "-spill")
            opened.callback(self.spill.close)
            while self.spill.waiting:
                self.replay(0)
            if run_file.previous is not None:
                self._end_before(run_file.previous)
            # The file first. After a kill between the two there is a run without a row, of which nobody asks anything;
            # the other way round there would be a row whose receipts nobody can count.
            self.counter: MutableSequence[int] = run_file.begin(run_name)  # element 0: receipts taken; a plain store
            run.begin(self._connection, run_name, version, time.time())
            self._opened = opened.pop_all()

    def _end_before(self, last: run.Run) -> None:
        lost = run.end(self._connection, last.run, last.observed, None)
        if lost is not None:
            message = f"the run before did not end its ledger (killed?): {lost or 'none'} of its receipts are missing"
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
        if schema.place(self._path) != self._place:  # SQLite would go on writing into a file that has no name
            raise OSError("its file was removed or replaced: restart llm-proxy")
        with schema.writing(self._connection):
            for name, part in groupby(entries, key=attrgetter("run")):  # a spill file may hold several runs
                new = self._insert(list(part))
                run.count(self._connection, name, new, observed if name == self._run else 0)

    def _insert(self, entries: list[Entry]) -> int:
        new = 0
        for at in range(0, len(entries), rows.GROUP):
            if at and self.breathe is not None:
                self.breathe()
            new += rows.insert(self._connection, entries[at : at + rows.GROUP])
        return new

    def replay(self, observed: int) -> None:
        """Write the next piece of the spill file. Raises as `write` does."""
        entries, end, skipped = self.spill.read(BATCH)
        self.write(entries, observed)
        self.spill.advance(end)
        if skipped:
            self._note("warn", f"{skipped} lines of {self._path}-spill are not whole: skipped", skipped=skipped)

    def prune(self, before: float | None, max_bytes: int) -> bool:
        """A step of retention: True if there may be more."""
        return retention.step(self._connection, before, max_bytes)

    def end(self, observed: int) -> int:
        """End the run; how many of its `observed` receipts have no row. Raises sqlite3.Error."""
        return run.end(self._connection, self._run, observed, time.time()) or 0

    def close(self) -> None:
        self._opened.close()
