"""Older ledgers become current ones, whole or not at all."""

from __future__ import annotations

import copy
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from sqlite_utils import Database

from proxy.ledger import migrations, run, schema
from proxy.ledger.keys import KeyRow, KeyStore, digest_of
from proxy.ledger.models import ModelStore, stored_models
from proxy.ledger.reader import LedgerReader
from proxy.ledger.rows import entry_of
from proxy.ledger.schema import LedgerUnusable
from tests.ledger.receipts import RUN, a_ledger, a_receipt, full_receipt, rows

NEXT = schema.VERSION + 1


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if this were the next version, whose last migration runs the statements in the list."""
    statements = ["ALTER TABLE exchanges ADD COLUMN colour TEXT", f"PRAGMA user_version = {NEXT}"]
    every = copy.deepcopy(migrations.migrations)

    @every()
    def last(db: Database) -> None:
        for statement in statements:
            db.execute(statement)

    monkeypatch.setattr(migrations, "migrations", every)
    monkeypatch.setattr(schema, "VERSION", NEXT)
    return statements


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A ledger of this version, with a row in it."""
    path = tmp_path / "a.db"
    ledger = a_ledger(path)
    ledger.observe(a_receipt())
    assert ledger.close(0)
    return path


def test_an_older_file_is_migrated_and_keeps_its_rows(older: Path, newer: list[str]) -> None:
    [before] = rows(older)
    connection = schema.connect(str(older), 1.0)
    assert connection.execute("PRAGMA user_version").fetchone() == (NEXT,)
    connection.close()
    assert rows(older) == [before | {"colour": None}]
    names = [row["name"] for row in rows(older, "SELECT name FROM _sqlite_migrations ORDER BY id")]
    assert names == ["first_tables", "keys", "attempts_visible", "models", "last"]


def test_a_migrated_file_is_written_and_then_left_alone(older: Path, newer: list[str]) -> None:
    for number in (2, 3):
        ledger = a_ledger(older, run=f"r{number}")
        ledger.observe(a_receipt(number))
        assert ledger.close(0)
    assert len(rows(older)) == 3
    assert len(rows(older, "SELECT * FROM _sqlite_migrations")) == NEXT


def test_a_migration_that_fails_leaves_no_trace(older: Path, newer: list[str]) -> None:
    newer.append("CREATE TABLE exchanges (no)")
    before = rows(older, "SELECT sql FROM sqlite_master")
    with pytest.raises(LedgerUnusable, match="table exchanges already exists"):
        schema.connect(str(older), 1.0)
    assert rows(older, "SELECT sql FROM sqlite_master") == before
    assert rows(older, "PRAGMA user_version") == [{"user_version": NEXT - 1}]
    assert len(rows(older, "SELECT * FROM _sqlite_migrations")) == NEXT - 1
    newer.pop()
    schema.connect(str(older), 1.0).close()
    assert "colour" in rows(older)[0]


def test_the_file_of_a_first_start_that_was_killed_is_taken(tmp_path: Path) -> None:
    """What is there after the mark and the table of migrations, and before the first of them."""
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    migrations.migrations.ensure_migrations_table(Database(connection))
    connection.close()
    schema.connect(str(path), 1.0).close()
    assert rows(path) == []


def left_by(version: int, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger as that version left it, with a row, two tries and a run in it."""
    every = copy.deepcopy(migrations.migrations)
    del every._migrations[version:]
    with monkeypatch.context() as past:
        past.setattr(migrations, "migrations", every)
        past.setattr(schema, "VERSION", version)
        connection = schema.connect(str(path), 1.0)
    entry = entry_of(full_receipt(), RUN)
    run.begin(connection, RUN, "1", 0.0)
    run.count(connection, RUN, 1, 1)
    for table, found in (("exchanges", [entry.exchange]), ("attempts", entry.attempts)):
        width = len(connection.execute(f"PRAGMA table_info({table})").fetchall())
        connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * width)})", [row[:width] for row in found])
    connection.close()
    assert rows(path, "PRAGMA user_version") == [{"user_version": version}]
    return path


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return left_by(1, tmp_path / "first.db", monkeypatch)


_OF_3 = dict.fromkeys(schema.ATTEMPTS[12:])  # columns of attempts, which are NULL in older rows


def test_a_ledger_of_the_first_version_keeps_its_rows_and_gets_keys(first: Path) -> None:
    tables = ("exchanges", "attempts", "runs")
    before = [rows(first, f"SELECT * FROM {table}") for table in tables]
    assert [len(found) for found in before] == [1, 2, 1]
    with KeyStore(str(first), 1.0) as store:
        store.create(KeyRow("a", digest_of("x" * 16)))
    before[0][0]["stands_for"] = 1
    before[1] = [row | _OF_3 for row in before[1]]
    assert [rows(first, f"SELECT * FROM {table}") for table in tables] == before
    assert rows(first, "PRAGMA user_version") == [{"user_version": schema.VERSION}]
    assert [row["name"] for row in rows(first, "SELECT name FROM keys")] == ["a"]


def test_a_ledger_of_the_second_version_gets_columns_for_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left_by(2, tmp_path / "second.db", monkeypatch)
    before = rows(path), rows(path, "SELECT * FROM attempts")
    assert not set(_OF_3) & set(before[1][0])
    ledger = a_ledger(path, run="r2")
    ledger.observe(full_receipt(2))
    assert ledger.close(0)
    old, new = rows(path)
    assert [old] == before[0] and new["id"] == f"{RUN}-2"
    attempts = rows(path, "SELECT * FROM attempts ORDER BY exchange_id, number")
    assert attempts[:2] == [row | _OF_3 for row in before[1]]
    assert [(row["why"], row["cost_micros"]) for row in attempts] == [
        *[(None, None)] * 2,
        ("first", 34),
        ("fallback", 1200),
    ]
    with LedgerReader(str(path)) as ledger_reader:  # what older rows do not say stands with their exchange
        totals = ledger_reader.totals(["provider"])
    assert {group.names[0]: group.cost_micros for group in totals.groups} == {"openai": 1234 + 1200, "azure": 34}


def test_a_ledger_of_the_third_version_gets_a_table_of_aliases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left_by(3, tmp_path / "third.db", monkeypatch)
    before = [rows(path, f"SELECT * FROM {table}") for table in ("exchanges", "attempts", "runs")]
    assert stored_models(str(path)) == [], "whoever only reads leaves it as it is"
    assert rows(path, "PRAGMA user_version") == [{"user_version": 3}]
    with ModelStore(str(path), 1.0) as store:
        assert store.models() == []
        row = store.put("fast", "fast = x/m")
    assert stored_models(str(path)) == [row]
    assert [rows(path, f"SELECT * FROM {table}") for table in ("exchanges", "attempts", "runs")] == before


def test_a_ledger_of_the_first_version_is_written_on(first: Path) -> None:
    ledger = a_ledger(first, run="r2")
    ledger.observe(a_receipt(2))
    assert ledger.close(0)
    assert len(rows(first)) == 2
    assert rows(first, "SELECT * FROM keys") == []


def test_two_processes_may_make_one_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one does everything at the worst moment: when this one knows what is pending, and has done nothing."""
    path = tmp_path / "a.db"
    pending = migrations.migrations.pending
    others: list[str] = []

    def overtaken(db: Database) -> object:
        found = pending(db)
        if not others:
            others.append("came")
            schema.connect(str(path), 1.0).close()
        return found

    monkeypatch.setattr(migrations.migrations, "pending", overtaken)
    schema.connect(str(path), 1.0).close()
    assert others
    assert len(rows(path, "SELECT * FROM _sqlite_migrations")) == schema.VERSION


def test_the_mode_of_a_new_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says at once that it is locked, however long it may wait, if two change the mode of a journal."""
    set_up, tries = schema._set_up, []

    def locked_once(connection: sqlite3.Connection, path: str, version: int) -> None:
        tries.append(path)
        if len(tries) == 1:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        set_up(connection, path, version)

    monkeypatch.setattr(schema, "_set_up", locked_once)
    monkeypatch.setattr(schema.time, "sleep", lambda seconds: None)
    schema.connect(str(tmp_path / "a.db"), 60.0).close()
    assert len(tries) == 2
    tries.clear()
    with pytest.raises(LedgerUnusable, match="is locked"):  # a current one is left alone: nothing is to be made
        schema.connect(str(tmp_path / "a.db"), 60.0)
    tries.clear()
    with pytest.raises(LedgerUnusable, match="is locked"):
        schema.connect(str(tmp_path / "b.db"), 0.0)


def test_a_file_that_another_process_is_making_is_not_that_of_something_else(tmp_path: Path) -> None:
    """The other one makes it between two looks at it."""
    path = str(tmp_path / "a.db")
    connection = sqlite3.connect(path, isolation_level=None)
    looks: list[str] = []

    def overtaken(statement: str) -> None:
        looks.append(statement)
        if statement == "PRAGMA user_version":
            with suppress(LedgerUnusable):
                schema.connect(path, 0.0).close()

    connection.set_trace_callback(overtaken)
    assert schema.version_of(connection, path) == 0
    assert "PRAGMA user_version" in looks
    connection.close()


def test_there_are_as_many_migrations_as_the_version_says() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations.apply(connection)
    assert len(migrations.migrations.applied(Database(connection))) == schema.VERSION
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    connection.close()
