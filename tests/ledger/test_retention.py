"""Old rows go, their room is given back, and nothing else is touched."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.ledger import retention, rows, schema
from proxy.ledger.schema import LedgerUnusable
from proxy.outcome import Attempt
from tests.ledger.receipts import RUN, a_ledger, a_receipt, ids, is_sound

ATTEMPT = Attempt("openai", None, 0.0, 1.0, False, 200, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = schema.connect(str(path), 1.0)
    yield connection
    connection.close()


def fill(connection: sqlite3.Connection, count: int, size: int = 0) -> None:
    """Exchanges that began at 0, 1, 2 … seconds, each with one attempt; written in another order."""
    receipts = [a_receipt(n, started_at=float(n), tags="x" * size, attempts=[ATTEMPT]) for n in range(count)]
    with schema.writing(connection):
        rows.insert(connection, [rows.entry_of(receipt, RUN) for receipt in receipts[::2] + receipts[1::2]])


def starts(connection: sqlite3.Connection) -> list[float]:
    return [row[0] for row in connection.execute("SELECT started_at FROM exchanges ORDER BY started_at")]


def one(connection: sqlite3.Connection, sql: str) -> int:
    return int(connection.execute(sql).fetchone()[0])


def all_steps(connection: sqlite3.Connection, before: float | None, max_bytes: int) -> int:
    count = 0
    while retention.step(connection, before, max_bytes)[1]:
        count += 1
        assert count < 10_000
    return count


def test_what_is_old_goes_with_its_attempts(connection: sqlite3.Connection) -> None:
    fill(connection, 1000)
    all_steps(connection, 700.0, 0)
    assert starts(connection) == [float(n) for n in range(700, 1000)]
    assert one(connection, "SELECT count(*) FROM attempts") == 300
    assert one(connection, "SELECT count(*) FROM attempts JOIN exchanges ON exchange_id = id") == 300


def test_a_step_is_small(connection: sqlite3.Connection) -> None:
    fill(connection, 1000)
    assert retention.step(connection, 1e9, 0) == (200, True)
    assert len(starts(connection)) == 800
    assert starts(connection)[0] == 200.0


def test_what_is_young_or_has_no_age_stays(connection: sqlite3.Connection) -> None:
    fill(connection, 50)
    assert retention.step(connection, 0.0, 0) == (0, False)
    assert retention.step(connection, None, 0) == (0, False)
    assert retention.step(connection, None, 1 << 30) == (0, False)
    assert len(starts(connection)) == 50


def test_pages_are_given_back_in_steps(connection: sqlite3.Connection) -> None:
    fill(connection, 3000, size=1000)
    pages = one(connection, "PRAGMA page_count")
    all_steps(connection, 2000.0, 0)
    assert one(connection, "PRAGMA freelist_count") == 0
    assert one(connection, "PRAGMA page_count") < pages / 2
    fill_free = one(connection, "PRAGMA page_count")
    with schema.writing(connection):
        connection.execute("DELETE FROM exchanges WHERE started_at < 2900")
    assert retention.step(connection, None, 0) == (0, True)
    assert fill_free > one(connection, "PRAGMA page_count") >= fill_free - 256


def test_the_oldest_go_until_the_rest_fits(connection: sqlite3.Connection, path: Path) -> None:
    fill(connection, 3000, size=1000)
    limit = 2_000_000
    all_steps(connection, None, limit)
    left = starts(connection)
    assert left == [float(n) for n in range(3000 - len(left), 3000)]
    assert 1000 < len(left) < 2000
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert limit * 0.7 < os.path.getsize(path) <= limit
    assert is_sound(path)


def test_a_limit_that_nothing_fits_takes_every_row_and_ends(connection: sqlite3.Connection) -> None:
    fill(connection, 500)
    all_steps(connection, None, 1)
    assert starts(connection) == []


def test_other_tables_and_runs_stay(connection: sqlite3.Connection) -> None:
    fill(connection, 500)
    connection.execute("CREATE TABLE budgets (key TEXT, spent INTEGER)")
    connection.execute("INSERT INTO budgets VALUES ('billing', 7)")
    connection.execute("INSERT INTO runs (id, started_at, written) VALUES ('old', 0, 500)")
    all_steps(connection, 1e9, 0)
    assert connection.execute("SELECT * FROM budgets").fetchall() == [("billing", 7)]
    assert connection.execute("SELECT id, written FROM runs").fetchall() == [("old", 500)]


def test_a_file_without_auto_vacuum_keeps_its_size_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    made = sqlite3.connect(path)
    made.execute("CREATE TABLE x (y)")  # from here on auto_vacuum cannot be set
    made.execute("DROP TABLE x")
    made.close()
    connection = schema.connect(str(path), 1.0)
    fill(connection, 1000, size=1000)
    pages = one(connection, "PRAGMA page_count")
    all_steps(connection, 900.0, 0)
    assert one(connection, "PRAGMA page_count") == pages
    assert one(connection, "PRAGMA freelist_count") > pages / 2
    fill_again = pages * 4096 // 2
    all_steps(connection, None, fill_again)
    assert len(starts(connection)) == 100  # its content is small, whatever the file is
    connection.close()


def test_prune_does_all_of_it_and_the_file_shrinks(connection: sqlite3.Connection, path: Path) -> None:
    fill(connection, 2000, size=1000)
    connection.close()
    had = path.stat().st_size
    pruned = retention.prune(str(path), 1500.0, 0)
    assert pruned.exchanges == 1500
    assert pruned.bytes == had - path.stat().st_size > had / 2
    assert len(ids(path)) == 500
    assert is_sound(path)


def test_prune_beside_a_process_that_writes(path: Path) -> None:
    ledger = a_ledger(path)
    for number in range(1000):
        ledger.observe(a_receipt(number, started_at=float(number), tags="x" * 1000))
    ledger.turn()
    assert retention.prune(str(path), 900.0, 0).exchanges == 900
    ledger.observe(a_receipt(1000))
    assert ledger.close(0)
    assert len(ids(path)) == 101
    assert is_sound(path)


def test_prune_makes_no_file_and_says_what_is_locked(tmp_path: Path, path: Path) -> None:
    with pytest.raises(LedgerUnusable, match=r"there is no .*a\.db: give the path of a ledger"):
        retention.prune(str(path), 1.0, 0)
    assert list(tmp_path.iterdir()) == []
    connection = schema.connect(str(path), 0.0)
    fill(connection, 10)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnusable, match="is locked by another program"):
        retention.prune(str(path), 5.0, 0, wait=0.0)
    connection.close()
