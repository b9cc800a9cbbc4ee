"""Is the ledger whole? What SQLite says of its file, and whether every receipt that was taken has its row.

Lives here: `audit`, and `missing`, the part of it that whoever makes sums must say. May not live here: repairs, what
people see (accounts).
How it works: every run counts its receipts where a kill cannot reach (run), and its rows in the table `runs`, pruned
ones included. What lies between is in the spill file, or lost; while a process runs it may also be on its way. A run
that was killed is settled by the next start; until then its run file is asked here. The spill file grows until all of
it is in the tables, so each of its receipts is looked for there.
Doubted: a spill file is read whole each time, one of a gigabyte takes 15 s. SQLite before 3.42 cannot be stopped within
its own check. The time limit holds for the rest only.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from proxy.ledger import run, spill
from proxy.ledger.reader import PAGE, LedgerReader
from proxy.ledger.rows import Entry
from proxy.ledger.schema import EXCHANGES, VERSION

FILE_CHECK = "SQLite's check of the file"  # begins what SQLite itself says
_MOST = 100  # of a kind: damages, runs that lost something
_ID, _STARTED_AT = EXCHANGES.index("id"), EXCHANGES.index("started_at")
_LINE = 1 << 20  # bytes of the longest line of a spill file
_UNSETTLED = """
    SELECT id, coalesce(started_at, 0), ended_at, coalesce(observed, 0), coalesce(written, 0), lost,
      coalesce(ended_at, next_start)
    FROM (SELECT *, lead(started_at) OVER (ORDER BY started_at) AS next_start FROM runs)
    WHERE ended_at IS NULL OR lost > 0 ORDER BY started_at DESC LIMIT 10000"""


class Loss(NamedTuple):
    """A run that has fewer rows than it took receipts. `lost` None: nobody knows how many."""

    run: str
    started_at: float
    was_killed: bool  # it did not end by itself; otherwise the disk was full
    observed: int
    lost: int | None
    until: float | None = None  # when it had ended at the latest; None: not yet, or nobody knows
    is_running: bool = False


class Missing(NamedTuple):
    """Receipts that have no row: what every sum leaves out."""

    spilled: int  # they wait in the spill file
    lost: int  # for good, as far as anybody knows how many
    was_killed: bool  # all that was lost went with processes that were killed
    is_exact: bool  # nothing was lost of which nobody knows how much
    is_running: bool  # a process writes this ledger


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
    with LedgerReader(path, seconds) as reader:
        path = reader.path
        found = _accounted(reader, float("-inf"), float("inf"))
        writer = found.writer
        [(exchanges, first, last)] = reader.rows("SELECT count(*), min(started_at), max(started_at) FROM exchanges")
        [(attempts,)] = reader.rows("SELECT count(*) FROM attempts")
        [(count,)] = reader.rows("SELECT count(*) FROM runs")
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
            found.underway,
            found.spilled,
            0 if writer is not None else found.unreadable,  # its last line may be half written at this moment
            [loss for loss in found.losses if loss.is_running or loss.started_at >= since][:_MOST],
            list(_damages(reader)),
        )


def missing(reader: LedgerReader, since: float | None = None, until: float | None = None) -> Missing:
    """What has no row of the exchanges begun in [since, until), in seconds since the epoch; of those that are lost it
    is only known in whose run's time they were. Raises LedgerUnusable."""
    start = float("-inf") if since is None else since
    end = float("inf") if until is None else until
    found = _accounted(reader, start, end)
    losses = [loss for loss in found.losses if loss.started_at < end and (loss.until is None or loss.until > start)]
    return Missing(
        found.spilled_between,
        sum(loss.lost or 0 for loss in losses),
        all(loss.was_killed for loss in losses),
        all(loss.lost is not None for loss in losses),
        found.writer is not None,
    )


class _Accounted(NamedTuple):
    """Where the receipts are that have no row. What is lost, the newest run first."""

    writer: run.Run | None
    underway: int
    spilled: int
    spilled_between: int  # of exchanges begun in a span of time
    unreadable: int
    losses: list[Loss]


def _accounted(reader: LedgerReader, since: float, until: float) -> _Accounted:
    # The rows before the counter, so that a busy writer seems to be behind and never ahead.
    rows = reader.rows(_UNSETTLED)
    last_run = run.look(reader.path + "-run")
    if last_run is not None and not reader.rows("SELECT 1 FROM runs WHERE id = ?", [last_run.run]):
        # It never reached the database.
        last = (last_run.run, last_run.started_at, last_run.ended_at, 0, last_run.written, None, last_run.ended_at)
        rows.insert(0, last)
    writer = last_run if last_run is not None and last_run.running else None
    spilled, between, unreadable = _spilled(reader, since, until)
    underway = 0
    losses = []
    for row in rows:
        name, started_at, _, _, written, _, _ = row
        if writer is not None and writer.run == name:
            underway = max(0, writer.observed - written - spilled[name] - writer.lost)
            loss = Loss(name, started_at, False, writer.observed, writer.lost, is_running=True)
        else:
            loss = _loss(row, last_run, spilled[name])
        if loss.lost != 0:
            losses.append(loss)
    return _Accounted(writer, underway, spilled.total(), between, unreadable, losses)


def _loss(row: tuple[Any, ...], last_run: run.Run | None, waiting: int) -> Loss:
    name, started_at, ended_at, observed, written, lost, until = row
    if lost is None and last_run is not None and last_run.run == name:
        # Nothing was started since.
        observed = max(observed, last_run.observed)
        lost = max(0, observed - written - waiting)
        ended_at = ended_at or last_run.ended_at
    return Loss(name, started_at, ended_at is None, observed, lost, until)


def _damages(reader: LedgerReader) -> Iterator[str]:
    for (said,) in reader.rows(f"PRAGMA quick_check({_MOST})"):
        if said != "ok":
            yield f"{FILE_CHECK}: {said}"
    for sentence, question in _QUESTIONS.items():
        [(found,)] = reader.rows(question)
        if found:
            yield f"{sentence}: {found:,}"


# What a transaction writes together, and what should therefore never be seen apart.
_QUESTIONS = {
    "exchanges that have other attempts than they say": """
        SELECT count(*) FROM exchanges
        LEFT JOIN (SELECT exchange_id, count(*) AS made FROM attempts GROUP BY exchange_id) ON exchange_id = id
        WHERE coalesce(made, 0) <> attempts""",
    "attempts that belong to no exchange": """
        SELECT count(*) FROM attempts WHERE NOT EXISTS (SELECT 1 FROM exchanges WHERE id = exchange_id)""",
    "runs that have more rows than they wrote": """
        SELECT count(*) FROM (SELECT run, count(*) AS made FROM exchanges GROUP BY run)
        LEFT JOIN runs ON runs.id = run WHERE made > coalesce(written, 0)""",
}


def _spilled(reader: LedgerReader, since: float, until: float) -> tuple[Counter[str], int, int]:
    """How many receipts of each run wait in the spill file, how many of all began in [since, until), and how many lines
    of it are none."""
    waiting: Counter[str] = Counter()
    between = unreadable = 0
    entries = _entries(reader.path + "-spill")
    while page := list(itertools.islice(entries, PAGE)):
        named = {str(entry.exchange[_ID]): entry for entry in page if entry is not None}
        unreadable += page.count(None)
        for exchange_id in reader.ids_among(list(named)):
            del named[exchange_id]  # it has its row by now
        waiting.update(str(entry.run) for entry in named.values())
        moments = (entry.exchange[_STARTED_AT] for entry in named.values())
        between += sum(isinstance(at, (int, float)) and since <= at < until for at in moments)
    return waiting, between, unreadable


def _entries(path: str) -> Iterator[Entry | None]:
    """What each line of a spill file holds; None: nothing that can be read."""
    try:
        with open(path, "rb") as file:
            while line := file.readline(_LINE):
                yield spill.entry_in(line.rstrip(b"\n"))
    except OSError:
        pass  # nothing was spilled


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
