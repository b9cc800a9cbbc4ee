"""Keys given to clients, groups of keys, and what killed processes had reserved: three tables of the ledger's file.

Lives here: `KeyStore`, its rows (`KeyRow`, `GroupRow`, `LostHold`), making a key's value and its digest. May not live
here: what limits, patterns and policies mean (policy, server), what people type (accounts), who may come in.
How it works: a connection of its own. A change is one short transaction that waits for the ledger's writer; who reads
waits for nobody (WAL). Every change has a number, one count over keys and groups. Whoever keeps a copy asks `revision`
first, then for the rows after the last number it knows: what changes in between comes once more the next time, and
nothing is missed. A removed key stays as a row without digest or uid, so that such a reader sees it go; its name may
be given again, and the row is the new key's then. Rows after a number are found by an index (the test of its plan holds
that): of 100,000 keys the 10 that changed take 0.04 ms, all of them 450; a change takes 0.07 (SQLite 3.40).
The value of a key is in no row: SHA-256 of it, and its beginning, for people.
Doubted: rows of removed keys are never deleted, some 150 bytes for each name that ever was. SHA-256 without salt or
rounds is right for values that nobody can guess; `prefix_of` therefore shows little of a short one.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from proxy.ledger import schema

PREFIX = 10  # characters of a key that are kept for people: 7 after `lp-`, of 43


class KeyRow(NamedTuple):
    """A row of `keys`; what its columns mean stands in the table (`.schema keys`)."""

    name: str
    digest: str | None = None
    prefix: str | None = None
    old_digest: str | None = None
    old_prefix: str | None = None
    old_until: float | None = None
    owner: str | None = None
    tags: str | None = None
    key_group: str | None = None
    models: str | None = None
    providers: str | None = None
    limits: str = ""
    disconnect: str | None = None
    raw: int | None = None
    uid: int | None = None
    expires_at: float | None = None
    disabled: int = 0
    created_at: float | None = None
    changed_at: float | None = None
    removed_at: float | None = None
    revision: int = 0


class GroupRow(NamedTuple):
    """A row of `key_groups`."""

    name: str
    limits: str
    changed_at: float | None = None
    removed_at: float | None = None
    revision: int = 0


class LostHold(NamedTuple):
    """A row of `lost_holds`."""

    id: int
    key: str | None
    micros: int
    tokens: int
    started_at: float | None
    found_at: float | None
    settled_at: float | None = None
    settled_micros: int | None = None
    settled_tokens: int | None = None
    applied_at: float | None = None


CHANGEABLE = frozenset(
    "owner tags key_group models providers limits disconnect raw uid expires_at disabled".split()
)  # columns that `change` takes


class KeysError(Exception):
    """What was asked for cannot be done with the keys that there are. The message is a sentence."""


class Taken(KeysError):
    """There is one of that name, value or user id already."""


class Missing(KeysError):
    """There is none of that name or number."""


class InUse(KeysError):
    """A group with keys in it, or the one thing by which a key is known, cannot go."""


# --- values -----------------------------------------------------------------------------------------------------------


def new_value() -> str:
    """A new key, as a client presents it. Show it once, and keep it nowhere."""
    return "lp-" + secrets.token_urlsafe(32)


def digest_of(value: str) -> str:
    """What is kept of a key's value, as policy.keys computes it of a presented one, in hexadecimal. ASCII only."""
    return hashlib.sha256(value.encode("ascii")).hexdigest()


def prefix_of(value: str) -> str:
    """The beginning of a value, by which people know it again. Never more than a quarter: it says nothing of the rest,
    and of a short value that somebody chose it must not leave a rest that can be guessed."""
    return value[: min(PREFIX, len(value) // 4)]


# --- the tables -------------------------------------------------------------------------------------------------------

_KEYS = ", ".join(KeyRow._fields)
_GROUPS = ", ".join(GroupRow._fields)
_HOLDS = ", ".join(LostHold._fields)
_REVISION = """
    SELECT max(coalesce((SELECT max(revision) FROM keys), 0), coalesce((SELECT max(revision) FROM key_groups), 0))"""


def has_keys(path: str) -> bool:
    """Whether the ledger at `path` has ever had keys, for who has not opened it; False also where nobody can say."""
    return bool(schema.glance(path, "SELECT 1 FROM keys LIMIT 1"))


class KeyStore:
    """The keys in the ledger at `path`, which is made if it is not there. Every method raises LedgerUnusable; those
    that change something raise KeysError, and then nothing is changed. One thread at a time.

    `wait`: seconds to wait for others' locks. `now`: epoch seconds.
    """

    __slots__ = ("_connection", "_now", "path")

    def __init__(self, path: str, wait: float, now: Callable[[], float] = time.time) -> None:
        self.path = schema.real_path(path)
        self._now = now
        self._connection = schema.connect(self.path, wait)

    def __enter__(self) -> KeyStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # --- questions ----------------------------------------------------------------------------------------------------

    def revision(self) -> int:
        """The number of the last change; 0: there was none."""
        [(revision,)] = self._ask(_REVISION)
        return int(revision)

    def keys(self, since_revision: int = 0, *, with_removed: bool = False) -> list[KeyRow]:
        """Keys changed after that revision, in the order of their changes; removed ones too unless it is 0."""
        rows = self._ask(_since("keys", _KEYS, with_removed or since_revision > 0), since_revision)
        return [KeyRow(*row) for row in rows]

    def page(self, after: str, most: int) -> list[KeyRow]:
        """Up to `most` keys by name, those behind `after`; removed ones are left out."""
        sql = f"SELECT {_KEYS} FROM keys WHERE name > ? AND removed_at IS NULL ORDER BY name LIMIT ?"  # noqa: S608
        return [KeyRow(*row) for row in self._ask(sql, after, most)]

    def members(self) -> Counter[str | None]:
        """How many keys each group has; None: those that are in none."""
        sql = "SELECT key_group, count(*) FROM keys WHERE removed_at IS NULL GROUP BY key_group"
        return Counter(dict(self._ask(sql)))

    def groups(self, since_revision: int = 0) -> list[GroupRow]:
        """Groups changed after that revision, as `keys` gives keys."""
        return [GroupRow(*row) for row in self._ask(_since("key_groups", _GROUPS, since_revision > 0), since_revision)]

    def key(self, name: str) -> KeyRow | None:
        """The key of that name, unless it was removed."""
        rows = self._ask(f"SELECT {_KEYS} FROM keys WHERE name = ? AND removed_at IS NULL", name)  # noqa: S608
        return KeyRow(*rows[0]) if rows else None

    def lost(self, unsettled_only: bool = True) -> list[LostHold]:
        """What killed processes had reserved, in the order in which it was found."""
        condition = "settled_at IS NULL" if unsettled_only else "1"
        return [LostHold(*row) for row in self._ask(f"SELECT {_HOLDS} FROM lost_holds WHERE {condition} ORDER BY id")]  # noqa: S608

    # --- changes ------------------------------------------------------------------------------------------------------

    def create(self, row: KeyRow) -> None:
        """Add a key. Times, revision and what only `rotate` and `remove` write are not taken from `row`."""
        with self._changing() as revision:
            if self.key(row.name) is not None:
                raise Taken(f"there is a key called {row.name} already")
            self._check(row)
            now = self._now()
            row = row._replace(old_digest=None, old_prefix=None, old_until=None)
            row = row._replace(created_at=now, changed_at=now, removed_at=None, revision=revision)
            marks = ", ".join("?" * len(row))
            # Not REPLACE, which would also remove another key that has this value.
            self._connection.execute("DELETE FROM keys WHERE name = ?", (row.name,))
            self._connection.execute(f"INSERT INTO keys ({_KEYS}) VALUES ({marks})", row)  # noqa: S608

    def change(self, name: str, **columns: Any) -> None:
        """Set `columns` (CHANGEABLE) of a key."""
        if not columns.keys() <= CHANGEABLE:
            raise TypeError(f"change does not set {', '.join(sorted(columns.keys() - CHANGEABLE))}")
        with self._changing() as revision:
            row = self._found(name)._replace(**columns)
            self._check(row)
            self._put(name, revision, self._now(), **columns)

    def rotate(self, name: str, digest: str, prefix: str, old_until: float | None) -> None:
        """Give a key another value; the one that it had is valid until `old_until`, None: no longer. One that was
        already old is not valid any more."""
        with self._changing() as revision:
            row = self._found(name)
            self._check_value(digest)
            old = (row.digest, row.prefix, old_until) if row.digest and old_until is not None else (None, None, None)
            kept = dict(zip(("old_digest", "old_prefix", "old_until"), old))
            self._put(name, revision, self._now(), digest=digest, prefix=prefix, **kept)

    def remove(self, name: str) -> None:
        """Take a key away; its name, its values and its user id are free again."""
        with self._changing() as revision:
            self._found(name)
            gone = dict.fromkeys(("digest", "old_digest", "old_prefix", "old_until", "uid"))
            now = self._now()
            self._put(name, revision, now, **gone, removed_at=now)

    def set_group(self, name: str, limits: str) -> None:
        """Make a group, or change its limits."""
        with self._changing() as revision:
            row = GroupRow(name, limits, self._now(), None, revision)
            self._connection.execute(f"INSERT OR REPLACE INTO key_groups ({_GROUPS}) VALUES (?, ?, ?, ?, ?)", row)  # noqa: S608

    def remove_group(self, name: str) -> None:
        """Take a group away that no key is in."""
        with self._changing() as revision:
            if not self._has_group(name):
                raise Missing(f"there is no group called {name}")
            [(number,)] = self._ask("SELECT count(*) FROM keys WHERE key_group = ? AND removed_at IS NULL", name)
            if number:
                raise InUse(f"{number:,} key{'s are' if number > 1 else ' is'} in the group {name}: change them first")
            now = self._now()
            sql = "UPDATE key_groups SET removed_at = ?, changed_at = ?, revision = ? WHERE name = ?"
            self._connection.execute(sql, (now, now, revision, name))

    def add_lost(self, key: str | None, micros: int, tokens: int, started_at: float | None) -> int:
        """Write down what a request had reserved when its process was killed; the number of that row."""
        sql = "INSERT INTO lost_holds (key, micros, tokens, started_at, found_at) VALUES (?, ?, ?, ?, ?)"
        with self._writing():
            return int(self._connection.execute(sql, (key, micros, tokens, started_at, self._now())).lastrowid or 0)

    def has_lost(self, key: str | None, started_at: float) -> bool:
        """Whether that is written down already: a kill between that and `forget_lost` brings it a second time."""
        return bool(self._ask("SELECT 1 FROM lost_holds WHERE key IS ? AND started_at = ?", key, started_at))

    def apply_settled(self) -> list[LostHold]:
        """What was settled, and not given back to budgets yet. Each comes once: it is marked before it is given back;
        a kill in between leaves it spent."""
        sql = f"SELECT {_HOLDS} FROM lost_holds WHERE settled_at IS NOT NULL AND applied_at IS NULL"  # noqa: S608
        found = [LostHold(*row) for row in self._ask(sql)]
        if found:
            with self._writing():
                marks = [(self._now(), hold.id) for hold in found]
                self._connection.executemany("UPDATE lost_holds SET applied_at = ? WHERE id = ?", marks)
        return found

    def settle_lost(self, which: Iterable[int] | str, micros: int = 0, tokens: int = 0) -> list[LostHold]:
        """Write down what each of the requests really cost: those of these numbers, or all of a key that are not
        settled. As they are then."""
        with self._writing():
            unsettled = {hold.id: hold for hold in self.lost()}
            if isinstance(which, str):
                numbers = [hold.id for hold in unsettled.values() if hold.key == which]
            else:
                numbers = list(dict.fromkeys(which))
            for number in numbers:
                if number not in unsettled:
                    raise Missing(f"there is nothing numbered {number} that is not settled")
            values = (self._now(), micros, tokens)
            sql = "UPDATE lost_holds SET settled_at = ?, settled_micros = ?, settled_tokens = ? WHERE id = ?"
            self._connection.executemany(sql, [(*values, number) for number in numbers])
        return [LostHold(*unsettled[number][:6], *values) for number in numbers]

    # --- the connection -----------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with schema.told(self.path), schema.writing(self._connection):
            yield

    @contextmanager
    def _changing(self) -> Iterator[int]:
        """A transaction, and the number of the change in it."""
        with self._writing():
            yield self.revision() + 1

    def _ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with schema.told(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _found(self, name: str) -> KeyRow:
        row = self.key(name)
        if row is None:
            raise Missing(f"there is no key called {name}")
        return row

    def _has_group(self, name: str) -> bool:
        return bool(self._ask("SELECT 1 FROM key_groups WHERE name = ? AND removed_at IS NULL", name))

    def _check(self, row: KeyRow) -> None:
        """Whether a key may be as `row` says."""
        if row.digest is None and row.uid is None:
            raise InUse(f"the key {row.name} has no value, and would be known by nothing: rotate it first")
        if row.digest is not None:
            self._check_value(row.digest, row.name)
        if row.uid is not None:
            others = self._ask("SELECT name FROM keys WHERE uid = ? AND name <> ?", row.uid, row.name)
            if others:
                raise Taken(f"the user id {row.uid} is that of the key {others[0][0]} already")
        if row.key_group is not None and not self._has_group(row.key_group):
            raise Missing(f"there is no group called {row.key_group}: make it first")

    def _check_value(self, digest: str, but_of: str = "") -> None:
        """That no key but the one of that name has the value, or had it until lately."""
        sql = "SELECT name FROM keys WHERE (digest = ? OR old_digest = ?) AND name <> ?"
        others = self._ask(sql, digest, digest, but_of)
        if others:
            raise Taken(f"that value is, or was, the one of the key {others[0][0]}: take another")

    def _put(self, name: str, revision: int, now: float, **columns: Any) -> None:
        columns |= {"changed_at": now, "revision": revision}
        changes = ", ".join(f"{column} = ?" for column in columns)
        self._connection.execute(f"UPDATE keys SET {changes} WHERE name = ?", (*columns.values(), name))  # noqa: S608


def _since(table: str, columns: str, with_removed: bool) -> str:
    """The rows after a revision, by its index."""
    condition = "" if with_removed else " AND removed_at IS NULL"
    return f"SELECT {columns} FROM {table} WHERE revision > ?{condition} ORDER BY revision"  # noqa: S608  # our own words
