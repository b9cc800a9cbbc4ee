"""Aliases that were stored: one table of the ledger's file.

Lives here: `ModelStore`, its row (`ModelRow`), `stored_models`. May not live here: what the text of an alias means
(catalog), which of them can be used (server), what people type (accounts).
How it works: as keys have it (ledger.keys): a connection of its own, and each change is one short transaction with a
number. There are few aliases, so whoever keeps a copy asks for `revision`, and for all rows if that is another one. A
removed alias stays as a row, so that the number grows whatever happens; its name may be given again.
Doubted: rows of removed aliases are never deleted, some 100 bytes for each name that ever was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from proxy.ledger import schema


class ModelRow(NamedTuple):
    """A row of `models`; what its columns mean stands in the table (`.schema models`)."""

    name: str
    text: str
    changed_at: float | None = None
    removed_at: float | None = None
    revision: int = 0


_COLUMNS = ", ".join(ModelRow._fields)
_THERE = f"SELECT {_COLUMNS} FROM models WHERE removed_at IS NULL"  # noqa: S608  # our own words


def stored_models(path: str) -> list[ModelRow]:
    """The aliases in the ledger at `path` by name, for who has not opened it; none also where nobody can say."""
    return [ModelRow(*row) for row in schema.glance(path, f"{_THERE} ORDER BY name")]


class ModelStore:
    """The aliases in the ledger at `path`, which is made if it is not there. Every method raises LedgerUnusable. One
    thread at a time.

    `wait`: seconds to wait for others' locks. `now`: epoch seconds.
    """

    __slots__ = ("_connection", "_now", "path")

    def __init__(self, path: str, wait: float, now: Callable[[], float] = time.time) -> None:
        self.path = schema.real_path(path)
        self._now = now
        self._connection = schema.connect(self.path, wait)

    def __enter__(self) -> ModelStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def revision(self) -> int:
        """The number of the last change; 0: there was none."""
        [(revision,)] = self._ask("SELECT coalesce(max(revision), 0) FROM models")
        return int(revision)

    def models(self) -> list[ModelRow]:
        """All that there are, by name."""
        return [ModelRow(*row) for row in self._ask(f"{_THERE} ORDER BY name")]

    def put(self, name: str, text: str) -> ModelRow:
        """Store an alias, or another text for one; as it is then."""
        with schema.told(self.path), schema.writing(self._connection):
            row = ModelRow(name, text, self._now(), None, self.revision() + 1)
            self._connection.execute(f"INSERT OR REPLACE INTO models ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", row)  # noqa: S608
        return row

    def remove(self, name: str) -> bool:
        """Take an alias away. False: there is none of that name."""
        with schema.told(self.path), schema.writing(self._connection):
            now = self._now()
            sql = "UPDATE models SET removed_at = ?, changed_at = ?, revision = ? WHERE name = ? AND removed_at IS NULL"
            return bool(self._connection.execute(sql, (now, now, self.revision() + 1, name)).rowcount)

    def _ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with schema.told(self.path):
            return self._connection.execute(sql, values).fetchall()
