"""Old rows out: by days, by bytes.

Lives here: `step` (a little of it, again and again, in the writer's thread), `prune` (all of it, for the command).
May not live here: when it is time (writer).
How it works: the oldest exchanges go with their attempts, some hundred to a transaction; the pages they leave are given
back to the file system a megabyte at a time (auto_vacuum is INCREMENTAL in files that we made). No VACUUM: it would
copy the whole file and lock it. Other tables are not touched, nor are runs: one short row for each start.
Doubted: a file that somebody else made or vacuumed without auto_vacuum keeps its size; its free pages are used again.
"""

from __future__ import annotations

import os
import sqlite3
from typing import NamedTuple

from proxy.ledger import schema

_ROWS = 200  # in one transaction: 0.5 ms, in which the interpreter is free
_PAGES = 256  # given back at a time: 1 MB

_IS_ANY = "SELECT 1 FROM exchanges WHERE started_at < ? LIMIT 1"
_DELETE_ATTEMPTS = """
    DELETE FROM attempts WHERE exchange_id IN (
      SELECT id FROM exchanges WHERE started_at < ? ORDER BY started_at, rowid LIMIT ?)"""
_DELETE_EXCHANGES = """
    DELETE FROM exchanges WHERE rowid IN (
      SELECT rowid FROM exchanges WHERE started_at < ? ORDER BY started_at, rowid LIMIT ?)"""


class Pruned(NamedTuple):
    exchanges: int  # rows removed
    bytes: int  # by which the file shrank


def step(connection: sqlite3.Connection, before: float | None, max_bytes: int) -> tuple[int, bool]:
    """Remove some rows that began before `before` (epoch seconds; None: none for its age), or the oldest ones while
    the file's content is larger than `max_bytes` (0: any size); or give some free pages back. How many
    rows (exchanges) went, and whether there may be more.

    Raises sqlite3.Error.
    """
    removed = _remove(connection, before, max_bytes)
    return removed, bool(removed) or _give_back(connection)


def prune(path: str, before: float | None, max_bytes: int, wait: float = 5.0) -> Pruned:
    """Do all of it at once; a sidecar may be writing at the same time. Blocks. Raises LedgerUnusable."""
    path = schema.real_path(path)
    if not os.path.exists(path):
        raise schema.LedgerUnusable(f"there is no {path}: give the path of a ledger")
    connection = schema.connect(path, wait)
    try:
        with schema.told(path):
            had = os.path.getsize(path)
            removed = 0
            while some := _remove(connection, before, max_bytes):
                removed += some
            while _give_back(connection):
                pass
            # The file gets shorter when its log is written back; what a reader still needs stays until it is done.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return Pruned(removed, had - os.path.getsize(path))
    finally:
        connection.close()


def _remove(connection: sqlite3.Connection, before: float | None, max_bytes: int) -> int:
    """Remove at most `_ROWS` exchanges; how many."""
    if max_bytes and _content(connection) > max_bytes:
        before = float("inf")
    if before is None or connection.execute(_IS_ANY, (before,)).fetchone() is None:
        return 0
    with schema.writing(connection):
        connection.execute(_DELETE_ATTEMPTS, (before, _ROWS))
        return connection.execute(_DELETE_EXCHANGES, (before, _ROWS)).rowcount


def _content(connection: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    [size] = connection.execute("PRAGMA page_size").fetchone()
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    return int(size * (pages - _free(connection)))


def _free(connection: sqlite3.Connection) -> int:
    [pages] = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)


def _give_back(connection: sqlite3.Connection) -> bool:
    free = _free(connection)
    if not free:
        return False
    connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()  # each fetched row is a page given back
    return _free(connection) < free
