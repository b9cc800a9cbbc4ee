"""Which files are ledgers, and what is said of the others."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger import schema
from proxy.ledger.schema import LedgerUnusable


def one_pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def test_a_new_file_is_private_and_set_up(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    old_mask = os.umask(0)  # nothing is left to it
    try:
        connection = schema.connect(str(path), 1.0)
        with schema.writing(connection):
            connection.execute("CREATE TABLE x (y)")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    finally:
        os.umask(old_mask)
    assert modes == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    assert one_pragma(connection, "journal_mode") == "wal"
    assert one_pragma(connection, "auto_vacuum") == 2  # incremental
    assert one_pragma(connection, "synchronous") == 1  # normal
    assert one_pragma(connection, "application_id") == schema.APPLICATION
    assert one_pragma(connection, "user_version") == schema.VERSION
    connection.close()


@pytest.mark.parametrize("table", ["exchanges", "attempts", "runs"])
def test_tables_have_the_columns_that_rows_are_written_to(tmp_path: Path, table: str) -> None:
    connection = schema.connect(str(tmp_path / "a.db"), 1.0)
    columns = tuple(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
    assert columns == getattr(schema, table.upper())
    connection.close()


def test_what_a_column_means_stands_in_the_file(tmp_path: Path) -> None:
    connection = schema.connect(str(tmp_path / "a.db"), 1.0)
    [made] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'exchanges'").fetchone()
    assert "-- all input, cached tokens and cache writes included" in made
    connection.close()


def test_rows_have_a_number_that_grows(tmp_path: Path) -> None:
    """What `tail` follows."""
    connection = schema.connect(str(tmp_path / "a.db"), 1.0)
    for name in ("b", "a"):
        connection.execute("INSERT INTO exchanges (id, run, started_at) VALUES (?, 'r', 0)", (name,))
    assert connection.execute("SELECT rowid, id FROM exchanges ORDER BY rowid").fetchall() == [(1, "b"), (2, "a")]
    connection.close()


def test_a_file_that_is_current_costs_no_import(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    code = (
        "import sys; from proxy.ledger import schema, writer\n"
        f"schema.connect({path!r}, 1.0).close(); print('sqlite_utils' in sys.modules)"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert (first, second) == ("True\n", "False\n")


def made(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    schema.connect(str(path), 1.0).close()
    made(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(LedgerUnusable) as refused:
        schema.connect(str(path), 1.0)
    assert str(refused.value) == (
        f"{path} was written by a newer llm-proxy (its schema is {schema.VERSION + 1}, this one knows "
        f"{schema.VERSION}): use that version, or give the ledger another file"
    )


@pytest.mark.parametrize("statement", ["CREATE TABLE x (y)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"])
def test_a_database_of_something_else_is_refused_and_untouched(tmp_path: Path, statement: str) -> None:
    path = made(tmp_path / "a.db", statement)
    before = path.read_bytes()
    with pytest.raises(LedgerUnusable, match=r"is a SQLite database of something else: give the ledger a file"):
        schema.connect(str(path), 1.0)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.db"]


def test_a_file_that_is_no_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"my notes\n" * 200)
    with pytest.raises(LedgerUnusable, match=r"a\.db is no SQLite database: choose another path, or move"):
        schema.connect(str(path), 1.0)
    assert path.read_bytes() == b"my notes\n" * 200


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    schema.connect(str(path), 1.0).close()
    schema.connect(str(path), 1.0).close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.db"
    with pytest.raises(LedgerUnusable) as refused:
        schema.connect(str(path), 1.0)
    assert str(refused.value) == f"there is no folder {path.parent}: make it, or choose another path"


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerUnusable, match=r"cannot be used \(Not a directory\): let this user write there"):
        schema.connect(str(tmp_path / "file" / "a.db"), 1.0)


def test_a_lock_of_another_program_is_told(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerUnusable, match=r"a\.db is locked by another program: end its transaction"):
        schema.connect(str(path), 0.0)
    other.close()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (sqlite3.SQLITE_CORRUPT, "is damaged: move it away"),
        (sqlite3.SQLITE_READONLY, "cannot be written (why): let this user write"),
        (sqlite3.SQLITE_CANTOPEN | 2 << 8, "cannot be written (why): let this user write"),
        (sqlite3.SQLITE_FULL, "cannot grow: the disk is full"),
        (sqlite3.SQLITE_IOERR, "cannot be used: why"),
        (None, "cannot be used: why"),
    ],
)
def test_what_sqlite_says_becomes_one_sentence(code: int | None, said: str) -> None:
    error = sqlite3.OperationalError("why")
    if code is not None:
        error.sqlite_errorcode = code
    with pytest.raises(LedgerUnusable) as refused, schema.told("a.db"):
        raise error
    assert str(refused.value).startswith(f"a.db {said}")


@pytest.mark.parametrize("path", ["", ":memory:", "file:a.db?mode=rw", "a\0b"])
def test_what_is_no_path_of_a_file_is_refused(path: str) -> None:
    with pytest.raises(LedgerUnusable, match="give a path, such as"):
        schema.real_path(path)


@pytest.mark.parametrize("path", [".", "/dev/null"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(LedgerUnusable, match="is no file: give the path of one"):
        schema.real_path(path)


def test_two_names_of_a_file_are_one_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    monkeypatch.chdir(tmp_path)
    assert schema.real_path("link.db") == schema.real_path("a.db") == str(tmp_path / "a.db")


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    connection = schema.connect(str(tmp_path / "a.db"), 1.0)
    with pytest.raises(ZeroDivisionError), schema.writing(connection):
        connection.execute("INSERT INTO runs (id) VALUES ('a')")
        raise ZeroDivisionError
    assert not connection.in_transaction
    with schema.writing(connection):
        connection.execute("INSERT INTO runs (id) VALUES ('b')")
    assert connection.execute("SELECT id FROM runs").fetchall() == [("b",)]
    connection.close()


def test_a_transaction_left_open_does_not_stop_the_next(tmp_path: Path) -> None:
    connection = schema.connect(str(tmp_path / "a.db"), 1.0)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO runs (id) VALUES ('a')")
    with schema.writing(connection):
        connection.execute("INSERT INTO runs (id) VALUES ('b')")
    assert connection.execute("SELECT id FROM runs").fetchall() == [("b",)]
    connection.close()


def test_a_connection_takes_no_lock_of_this_process_away(tmp_path: Path) -> None:
    """POSIX: closing any descriptor of a file lets go of all locks that the process has on it. So making a second
    connection must open and close nothing; another process would then write over our transaction."""
    path = str(tmp_path / "a.db")
    first = schema.connect(path, 0.0)
    first.execute("PRAGMA locking_mode = EXCLUSIVE")
    first.execute("PRAGMA journal_mode = DELETE")  # locks on the file itself, as at every change of mode
    first.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerUnusable):
        schema.connect(path, 0.0)
    code = f"import sqlite3; sqlite3.connect({path!r}, timeout=0).execute('BEGIN EXCLUSIVE')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "database is locked" in done.stderr
    first.close()


def test_a_current_ledger_is_opened_while_another_program_writes(tmp_path: Path) -> None:
    """Who only reads keys must wait for nobody, and opens the file as everybody does."""
    path = str(tmp_path / "a.db")
    first = schema.connect(path, 0.0)
    first.execute("BEGIN EXCLUSIVE")
    schema.connect(path, 0.0).close()
    first.close()


def test_place_knows_a_file_that_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert schema.place(str(path)) == (0, 0)
    path.touch()
    before = schema.place(str(path))
    assert before == schema.place(str(path)) != (0, 0)
    other = tmp_path / "b"
    other.touch()
    other.rename(path)
    assert schema.place(str(path)) != before


def test_what_may_go_away_by_itself_is_temporary(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        assert schema.is_temporary(OSError(number, "x"))
    for number in (errno.EACCES, errno.ENOENT, errno.EROFS):
        assert not schema.is_temporary(OSError(number, "x"))
    assert not schema.is_temporary(LedgerUnusable("of its own"))
    assert not schema.is_temporary(ValueError())
    with pytest.raises(LedgerUnusable) as refused, schema.told(path):
        raise OSError(errno.ENOSPC, "x")
    assert schema.is_temporary(refused.value)
    connection = schema.connect(path, 0.0)
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError, match="full") as full:
        connection.execute("CREATE TABLE more AS SELECT zeroblob(100000)")
    assert schema.is_temporary(full.value)
    other = schema.connect(path, 0.0)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked") as locked:
        other.execute("BEGIN IMMEDIATE")
    assert schema.is_temporary(locked.value)
    with pytest.raises(sqlite3.OperationalError) as wrong:
        other.execute("SELECT")
    assert not schema.is_temporary(wrong.value)
    other.close()
    connection.close()
