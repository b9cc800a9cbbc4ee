"""The ledger's tables, and which files are ledgers.

Lives here: the columns (`EXCHANGES`, `ATTEMPTS`, `RUNS`), `connect`, `writing`, `version_of`, `ensure`, and what to say
of a file that cannot be used (`LedgerUnusable`, `told`, `is_temporary`).
May not live here: the statements that make the tables (migrations), anything that imports sqlite-utils at start.
How it works: a file says what it is in its header: `application_id` = it is a ledger, `user_version` = how many of our
migrations it has seen. So a current file is known by two PRAGMAs, 5 us; sqlite-utils (60 ms of start) is imported for
an older one only, and keeps its own record of migrations in `_sqlite_migrations`, in the same transaction.
Doubted: nothing yet.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

# "LLMP". `file` and SQLite's own registry of such numbers know nobody else by it.
APPLICATION = 0x4C4C4D50

# As many migrations as there are in proxy.ledger.migrations.
VERSION = 4

# Columns in the order in which rows are written. What they mean stands in the tables themselves: `.schema exchanges`.
EXCHANGES = tuple(
    """
    id run started_at key alias provider model_requested model_served dialect method path stream
    status ended_by ended_phase ended_kind detail complete
    usage_source input_source output_source usage_complete
    input_tokens output_tokens cached_tokens cache_write_tokens cache_write_1h_tokens reasoning_tokens searches
    counted_input_tokens counted_output_tokens cost_micros reported_cost_micros price_version
    attempts events bytes_in bytes_out
    body_ms queue_ms connect_ms sent_ms first_byte_ms first_event_ms total_ms
    provider_request_id client tags stands_for
    """.split()
)
ATTEMPTS = tuple(
    """
    exchange_id number provider model started_ms ended_ms reused status ended_by ended_phase ended_kind detail
    why first_event_ms usage_source input_source output_source usage_complete
    input_tokens output_tokens cached_tokens cache_write_tokens reasoning_tokens searches
    cost_micros reported_cost_micros model_served bytes_out
    """.split()
)
RUNS = ("id", "started_at", "ended_at", "pid", "version", "observed", "written", "lost")


class LedgerUnusable(Exception):
    """The ledger's file cannot be used. The message is one sentence: what is wrong, and what to do."""


@contextmanager
def told(path: str) -> Iterator[None]:
    """What goes wrong in here with the ledger at `path` is raised as LedgerUnusable."""
    try:
        yield
    except FileNotFoundError as error:
        folder = os.path.dirname(error.filename or path)
        raise LedgerUnusable(f"there is no folder {folder}: make it, or choose another path") from error
    except OSError as error:
        where = error.filename or path
        raise LedgerUnusable(
            f"{where} cannot be used ({error.strerror or error}): let this user write there, or choose another path"
        ) from error
    except sqlite3.Error as error:
        raise LedgerUnusable(f"{path} {_sentence(error)}") from error


def is_temporary(error: Exception) -> bool:
    """It may go away without anybody touching the ledger: a lock, a full disk, a disk that cannot be read now."""
    cause = error.__cause__ if isinstance(error, LedgerUnusable) else error
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
    )


def _sentence(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the higher bits say in which step
        case sqlite3.SQLITE_NOTADB:
            return "is no SQLite database: choose another path, or move that file away"
        case sqlite3.SQLITE_CORRUPT:
            return "is damaged: move it away, and get out of it what `sqlite3 FILE .recover` still finds"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "is locked by another program: end its transaction"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"cannot be written ({error}): let this user write to it and to its folder"
        case sqlite3.SQLITE_FULL:
            return "cannot grow: the disk is full"
        case _:
            return f"cannot be used: {error}"


def real_path(path: str) -> str:
    """Where the ledger at `path` really is; the files beside it are there. LedgerUnusable: it cannot be a file."""
    if path in ("", ":memory:") or path.startswith("file:") or "\0" in path:
        raise LedgerUnusable(f"the ledger is a file, and {path!r} is no path of one: give a path, such as llm-proxy.db")
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise LedgerUnusable(f"{path} is no file: give the path of one")
    return path


def place(path: str) -> tuple[int, int]:
    """Which file is at `path`: device and number; (0, 0): none."""
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


def connect(path: str, wait: float) -> sqlite3.Connection:
    """A connection that writes to the ledger at `path`, in autocommit mode; any thread may use it, one at a time.

    Makes the file (mode 0600) and brings it to `VERSION`. `wait`: seconds to wait for others' locks.
    Raises LedgerUnusable.
    """
    with told(path):
        try:
            # Never opened where it exists: closing it would let go of every lock that this process has on it (POSIX).
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            pass
        connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
        try:
            version = version_of(connection, path)  # before anything is written into somebody else's file
            _arrange(connection, path, version, time.monotonic() + wait)
        except BaseException:
            connection.close()
            raise
    return connection


def glance(path: str, sql: str) -> list[tuple[Any, ...]]:
    """What `sql` finds in the ledger at `path`, for who has not opened it; nothing also where nobody can say."""
    try:
        connection = sqlite3.connect(f"file:{quote(real_path(path))}?mode=ro", uri=True, timeout=0.2)
    except (sqlite3.Error, LedgerUnusable):
        return []
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.Error:
        return []
    finally:
        connection.close()


def _arrange(connection: sqlite3.Connection, path: str, version: int, until: float) -> None:
    """`until` (monotonic seconds): so long two processes that make one file try again. SQLite itself does not wait
    where the journal's mode is to change, or where what a transaction has read is old."""
    while True:
        try:
            _set_up(connection, path, version)
            ensure(connection, path)
            return
        except sqlite3.OperationalError as error:
            is_lock = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not is_lock or version == VERSION or time.monotonic() >= until:
                raise
        time.sleep(0.01)  # at start, before there is a loop


def _set_up(connection: sqlite3.Connection, path: str, version: int) -> None:
    if not version:  # it counts for no other, and would wait for whoever is writing to that
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LedgerUnusable(f"{path} cannot have a write-ahead log, as on network file systems: choose a local path")
    connection.execute("PRAGMA synchronous = NORMAL")  # fsync at checkpoints: a power cut may cost rows, nothing else
    connection.execute(f"PRAGMA journal_size_limit = {4 << 20}")  # the log after a checkpoint; those are every 4 MB


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that writes: all of it or nothing. Raises sqlite3.Error."""
    if connection.in_transaction:  # the last rollback failed, too
        connection.rollback()
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def version_of(connection: sqlite3.Connection, path: str) -> int:
    """How many migrations the file has seen; 0: an empty one.

    LedgerUnusable: it belongs to something else, or to a newer version. `path` is for that sentence.
    """
    connection.execute("BEGIN")  # what is read is of one moment: somebody may be making it
    try:
        [application] = connection.execute("PRAGMA application_id").fetchone()
        [version] = connection.execute("PRAGMA user_version").fetchone()
        tables = 0
        if application != APPLICATION:
            [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.rollback()
    if application != APPLICATION:
        if application or version or tables:
            raise LedgerUnusable(f"{path} is a SQLite database of something else: give the ledger a file of its own")
        return 0
    if version > VERSION:
        raise LedgerUnusable(
            f"{path} was written by a newer llm-proxy (its schema is {version}, this one knows {VERSION}): "
            "use that version, or give the ledger another file"
        )
    return int(version)


def ensure(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to `VERSION`: nothing to do, a migration, or a first creation.

    The connection is in autocommit mode (isolation_level None). Raises LedgerUnusable, sqlite3.Error.
    """
    while version_of(connection, path) < VERSION:
        from proxy.ledger import migrations  # imports sqlite-utils

        before = _changes(connection)
        try:
            migrations.apply(connection)
        except sqlite3.Error:
            # A first `keys create` beside a first `serve`: what one of them was about to make, the other has made.
            if _changes(connection) == before:
                raise


def _changes(connection: sqlite3.Connection) -> int:
    """How often anybody changed the file's tables."""
    [number] = connection.execute("PRAGMA schema_version").fetchone()
    return int(number)
