"""Older ledgers become current ones, whole or not at all."""

from __future__ import annotations

import copy
import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from proxy.ledger import migrations, schema
from proxy.ledger.schema import LedgerUnusable
from tests.ledger.receipts import a_ledger, a_receipt, rows


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As if this were the next version, whose second migration runs the statements in the list."""
    statements = ["ALTER TABLE exchanges ADD COLUMN colour TEXT", "PRAGMA user_version = 2"]
    every = copy.deepcopy(migrations.migrations)

    @every()
    def second(db: Database) -> None:
        for statement in statements:
            db.execute(statement)

    monkeypatch.setattr(migrations, "migrations", every)
    monkeypatch.setattr(schema, "VERSION", 2)
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
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()
    assert rows(older) == [before | {"colour": None}]
    names = [row["name"] for row in rows(older, "SELECT name FROM _sqlite_migrations ORDER BY id")]
    assert names == ["first_tables", "second"]


def test_a_migrated_file_is_written_and_then_left_alone(older: Path, newer: list[str]) -> None:
    for number in (2, 3):
        ledger = a_ledger(older, run=f"r{number}")
        ledger.observe(a_receipt(number))
        assert ledger.close(0)
    assert len(rows(older)) == 3
    assert len(rows(older, "SELECT * FROM _sqlite_migrations")) == 2


def test_a_migration_that_fails_leaves_no_trace(older: Path, newer: list[str]) -> None:
    newer.append("CREATE TABLE exchanges (no)")
    before = rows(older, "SELECT sql FROM sqlite_master")
    with pytest.raises(LedgerUnusable, match="table exchanges already exists"):
        schema.connect(str(older), 1.0)
    assert rows(older, "SELECT sql FROM sqlite_master") == before
    assert rows(older, "PRAGMA user_version") == [{"user_version": 1}]
    assert len(rows(older, "SELECT * FROM _sqlite_migrations")) == 1
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


def test_there_are_as_many_migrations_as_the_version_says() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrations.apply(connection)
    assert len(migrations.migrations.applied(Database(connection))) == schema.VERSION
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    connection.close()
