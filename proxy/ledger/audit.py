"""Is the ledger whole? What SQLite says of its file, and whether every receipt that was taken has its row.

Lives here: `audit`. May not live here: repairs, what people see (accounts).
How it works: every run counts its receipts where a kill cannot reach (run), and its rows in the table `runs`, pruned
ones included. What lies between is in the spill file, or lost; while a process runs it may also be on its way. A run
that was killed is settled by the next start; until then its run file is asked here.
Doubted: SQLite before 3.42 cannot be stopped within its own check, so the time limit holds for the rest only.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from proxy.ledger import run, spill
from proxy.ledger.reader import LedgerReader
from proxy.ledger.schema import VERSION, real_path

_MOST = 100  # of a kind: damages, runs that lost something
_LINE = 1 << 20  # bytes of the longest line of a spill file
_UNSETTLED = """
    SELECT id, coalesce(started_at, 0), ended_at, coalesce(observed, 0), coalesce(written, 0), lost
    FROM runs WHERE ended_at IS NULL OR lost > 0 ORDER BY started_at DESC LIMIT 10000"""


class Loss(NamedTuple):
    """A run that has fewer rows than it took receipts. `lost` None: nobody knows how many."""

    run: str
    started_at: float
    was_killed: bool  # it did not end by itself; otherwise the disk was full
    observed: int
    lost: int | None


class Audit(NamedTuple):
    """What was found. The ledger is whole if `damages` and `losses` are empty and nothing is spilled."""

    path: str
    size: int  # bytes, with its write-ahead log
    version: int
    exchanges: int
    attempts: int
    first: float | None  # seconds since the epoch: when the oldest exchange began
    last: float | None
    runs: int
    writer: run.Run | None  # the process that writes it now
    underway: int  # receipts of that process which have no row yet
    spilled: int  # receipts in the spill file; the writer, or the next start, makes rows of them
    unreadable: int  # lines there which a kill cut off
    losses: list[Loss]
    damages: list[str]  # sentences

    @property
    def lost(self) -> int:
        return sum(loss.lost or 0 for loss in self.losses)

    @property
    def is_whole(self) -> bool:
        return not (self.losses or self.damages or self.spilled or self.unreadable)


def audit(path: str, since: float = float("-inf"), seconds: float = 600.0) -> Audit:
    """Look at all of the ledger at `path`; at losses of runs only that started at `since` (epoch seconds) or later.

    Reads all of the file. Raises LedgerUnusable, with damage too bad for any answer in its sentence.
    """
    path = real_path(path)
    with LedgerReader(path, seconds) as reader:
        # The rows before the counter, so that a busy writer seems to be behind and never ahead.
        runs = reader.rows(_UNSETTLED)
        last_run = run.look(path + "-run")
        writer = last_run if last_run is not None and last_run.running else None
        spilled, unreadable = _spilled(path + "-spill")
        [(exchanges, first, last)] = reader.rows("SELECT count(*), min(started_at), max(started_at) FROM exchanges")
        [(attempts,)] = reader.rows("SELECT count(*) FROM attempts")
        [(count,)] = reader.rows("SELECT count(*) FROM runs")
        underway = 0
        losses = []
        for row in runs:
            waiting = spilled[row[0]]
            if writer is not None and writer.run == row[0]:
                underway = max(0, writer.observed - row[4] - waiting)
            elif row[1] >= since and (loss := _loss(row, last_run, waiting)):
                losses.append(loss)
        return Audit(
            path,
            _size(path) + _size(path + "-wal"),
            VERSION,
            exchanges,
            attempts,
            first,
            last,
            count,
            writer,
            underway,
            spilled.total(),
            0 if writer is not None else unreadable,  # its last line may be half written at this moment
            losses[:_MOST],
            list(_damages(reader)),
        )


def _loss(row: tuple[Any, ...], last_run: run.Run | None, waiting: int) -> Loss | None:
    name, started_at, ended_at, observed, written, lost = row
    if lost is None and last_run is not None and last_run.run == name:
        # Killed, and nothing was started since.
        observed = max(observed, last_run.observed)
        lost = max(0, observed - written - waiting)
    return None if lost == 0 else Loss(name, started_at, ended_at is None, observed, lost)


def _damages(reader: LedgerReader) -> Iterator[str]:
    for (said,) in reader.rows(f"PRAGMA quick_check({_MOST})"):
        if said != "ok":
            yield f"SQLite's check of the file: {said}"
    for sentence, question in _QUESTIONS.items():
        [(found,)] = reader.rows(question)
        if found:
            yield f"{found:,} {sentence}"


# What a transaction writes together, and what should therefore never be seen apart.
_QUESTIONS = {
    "exchanges have other attempts than they say": """
        SELECT count(*) FROM exchanges
        LEFT JOIN (SELECT exchange_id, count(*) AS made FROM attempts GROUP BY exchange_id) ON exchange_id = id
        WHERE coalesce(made, 0) <> attempts""",
    "attempts belong to no exchange": """
        SELECT count(*) FROM attempts WHERE NOT EXISTS (SELECT 1 FROM exchanges WHERE id = exchange_id)""",
    "runs have more rows than they wrote": """
        SELECT count(*) FROM (SELECT run, count(*) AS made FROM exchanges GROUP BY run)
        LEFT JOIN runs ON runs.id = run WHERE made > coalesce(written, 0)""",
}


def _spilled(path: str) -> tuple[Counter[str], int]:
    """How many receipts of each run wait in the spill file, and how many lines of it are none."""
    waiting: Counter[str] = Counter()
    unreadable = 0
    try:
        with open(path, "rb") as file:
            while line := file.readline(_LINE):
                entry = spill.entry_in(line.rstrip(b"\n"))
                if entry is None:
                    unreadable += 1
                else:
                    waiting[str(entry.run)] += 1
    except OSError:
        pass  # nothing was spilled
    return waiting, unreadable


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
