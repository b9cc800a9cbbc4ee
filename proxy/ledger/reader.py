"""What was spent: questions to the ledger.

Lives here: `LedgerReader`, with a connection of its own that cannot write; `Wanted` (which exchanges), `Sum` and
`Totals` (what they used). May not live here: writing, moments in words (period), what people see (accounts, admin).
How it works: every question is a statement or two, bounded in rows and in time, so that no reader holds back the
writer's checkpoints and no page of an operator hangs. The long answer (`exchanges`) comes in pages that each begin
where the last one ended, with nothing open in between. Sums are made by SQLite's `total`, which never fails: a provider
that reports 2^62 tokens twice makes `sum` overflow. They are exact up to 2^53.
Doubted: a reader leaves an empty `-wal` and a `-shm` file beside a stopped ledger, as every connection does that may
not write; the next start removes them.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

from proxy.ledger import spent
from proxy.ledger.schema import VERSION, LedgerUnusable, real_path, version_of

MOST_GROUPS = 1_000  # in one answer: keys and models are few, but clients make up tags and names of models
PAGE = 500  # exchanges in one step of a long answer
_STEPS = 10_000  # of SQLite's machine between two looks at the clock, under 1 ms
_ALL = "rowid, *"

Row = dict[str, Any]

_TAGS = "tags_of(CAST(exchanges.tags AS BLOB))"
_HAS_TAG = f"? IN (SELECT value FROM json_each({_TAGS}))"  # noqa: S608  # our own words


class TooSlow(LedgerUnusable):
    """The answer would have taken longer than the reader's limit; the file is well."""


class Wanted(NamedTuple):
    """Which exchanges: begun in [since, until), in seconds since the epoch; None = any. `model` is what was asked for,
    what was served, or an alias; `tag` one of its tags."""

    since: float | None = None
    until: float | None = None
    key: str | None = None
    provider: str | None = None
    model: str | None = None
    tag: str | None = None

    @property
    def is_of_all(self) -> bool:
        """Whether nothing but a time is asked for."""
        return self[2:] == (None,) * len(self[2:])

    def clause(self, is_spent: bool = False) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values. `is_spent`: for rows of `spent.source`, else for exchanges, of which
        those are wanted, too, that were there and went on elsewhere."""
        asked: dict[str, Any] = {
            "started_at >= ?": self.since,
            "started_at < ?": self.until,
            "exchanges.key = ?": self.key,
            "provider = ?" if is_spent else spent.is_at("provider"): self.provider,
            "? IN (model_requested, model_served, alias)" if is_spent else spent.is_at("model"): self.model,
            _HAS_TAG: self.tag,
        }
        asked = {condition: value for condition, value in asked.items() if value is not None}
        values = [value for condition, value in asked.items() for _ in range(condition.count("?"))]
        return " AND ".join(["1", *asked]), values


EVERYTHING = Wanted()

# What exchanges can be grouped by, and how SQL says it.
_GROUPS = {
    "day": "date(started_at, 'unixepoch')",
    "key": "exchanges.key",  # json_each, for tags, has a key as well
    "alias": "alias",
    "model": "coalesce(model_requested, model_served)",
    "served": "model_served",
    "provider": "provider",
    "dialect": "dialect",
    "status": "status",
    "ending": "CASE WHEN complete THEN 'complete' ELSE ended_by || ' ' || ended_phase || ' ' || ended_kind END",
    "tag": "tag.value",
}
_LOCAL_DAY = "date(started_at, 'unixepoch', 'localtime')"
GROUPINGS = tuple(_GROUPS)


class Sum(NamedTuple):
    """What a group of exchanges used. Each of them is one of three: it ended well, with an error status (`errors`), or
    without its end (`incomplete`: cut, or the client left). An answer that was read to its end though its client had
    left is as well as any: all that it used is known."""

    names: tuple[str | int | None, ...]  # the group's values of what was grouped by; None: they have none
    requests: int
    errors: int
    incomplete: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    counted_tokens: int  # of input and output: by our tokenizer
    estimated_tokens: int  # of input and output: from bytes
    searches: int
    cost_micros: int | None  # of those with a price; None: none has one
    reported_cost_micros: int | None  # of those whose provider says what it took
    unpriced: int  # exchanges, or attempts where these are told apart, that used tokens and have no price
    unmeasured: int  # exchanges of which nobody knows what they used


_FAILED = "(status >= 400 AND status <> 499)"  # 499 is nobody's answer: the client left before there was one
_REQUESTS = "coalesce(stands_for, 1)"  # rows out of an older spill file do not say
_DRAINED = "(ended_by = 'client' AND coalesce(usage_complete, 0) = 1)"


def _total(column: str, condition: str = "1") -> str:
    return f"CAST(total({column}) FILTER (WHERE {condition}) AS INTEGER)"


def _by_source(source: str) -> str:
    return " + ".join(_total(f"{side}_tokens", f"{side}_source = '{source}'") for side in ("input", "output"))


_FIGURES = {
    "requests": _total(_REQUESTS),
    "errors": _total(_REQUESTS, _FAILED),
    "incomplete": _total(_REQUESTS, f"NOT complete AND NOT {_FAILED} AND NOT {_DRAINED}"),
    "input_tokens": _total("input_tokens"),
    "cached_tokens": _total("cached_tokens"),
    "cache_write_tokens": _total("cache_write_tokens"),
    "output_tokens": _total("output_tokens"),
    "reasoning_tokens": _total("reasoning_tokens"),
    "counted_tokens": _by_source("counted"),
    "estimated_tokens": _by_source("estimated"),
    "searches": _total("searches"),
    "cost_micros": f"CASE WHEN count(cost_micros) THEN {_total('cost_micros')} END",
    "reported_cost_micros": f"CASE WHEN count(reported_cost_micros) THEN {_total('reported_cost_micros')} END",
    "unpriced": "count(*) FILTER (WHERE cost_micros IS NULL AND (input_tokens > 0 OR output_tokens > 0))",
    "unmeasured": "count(*) FILTER (WHERE usage_complete >= 0 AND coalesce(input_tokens, output_tokens) IS NULL)",
}
assert Sum._fields == ("names", *_FIGURES)


class Totals(NamedTuple):
    """`total` of all, and `groups`: the dearest first, or in the order of days. An exchange with two tags stands in two
    groups and once in the total; so does one whose attempts were at two providers or models, with what each used and
    how it ended there. `has_more`: there are more groups than MOST_GROUPS."""

    groups: list[Sum]
    total: Sum
    has_more: bool


class LedgerReader:
    """Reads the ledger at `path`, whether or not a process is writing it. No statement takes longer than `seconds`.

    Every method raises LedgerUnusable with a sentence that names the file. One thread at a time; it need not be the one
    that made the reader.
    """

    __slots__ = ("_connection", "_deadline", "_seconds", "path")

    def __init__(self, path: str, seconds: float = 5.0) -> None:
        self.path = path = real_path(path)  # where the file really is, and those beside it
        self._seconds = seconds
        self._deadline = 0.0
        if not os.path.exists(path):
            raise LedgerUnusable(f"there is no ledger at {path}")
        try:
            version = self._connect("mode=ro")
        except sqlite3.Error as error:
            if not self._is_at_rest(error):
                raise self._explained(error) from error
            version = self._connect_at_rest()
        if version < VERSION:
            self.close()
            raise LedgerUnusable(f"{path} holds no ledger of this version yet: `llm-proxy serve` makes it one")

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # --- questions ----------------------------------------------------------------------------------------------------

    def totals(self, by: Sequence[str], wanted: Wanted = EVERYTHING, is_local: bool = False) -> Totals:
        """Sums for each value, or combination of values, of `by` (one or more of GROUPINGS). Days are UTC's, or with
        `is_local` those of this process's zone."""
        names = [_LOCAL_DAY if name == "day" and is_local else _GROUPS[name] for name in by]
        figures = ", ".join(f"{figure} AS sum_{name}" for name, figure in _FIGURES.items())
        group = ", ".join(str(number) for number in range(1, len(names) + 1))
        order = ["1"] if by[0] == "day" else []
        order += ["sum_cost_micros DESC NULLS LAST", "sum_input_tokens + sum_output_tokens DESC", "sum_requests DESC"]
        grouped = f"GROUP BY {group} ORDER BY {', '.join(order)}, {group} LIMIT {MOST_GROUPS + 1}"
        self._connection.execute("BEGIN")  # both statements see one state
        try:
            [total] = self._sums((), figures, wanted)
            groups = self._sums(by, ", ".join([*names, figures]), wanted, grouped)
        finally:
            self._connection.rollback()
        width = len(names)
        sums = [Sum(row[:width], *row[width:]) for row in groups[:MOST_GROUPS]]
        all_of_it = Sum((), *total)
        if "tag" not in by:  # an exchange has a cost where one of its attempts has, another may have none
            unpriced = sum(group.unpriced for group in sums)
            all_of_it = all_of_it._replace(unpriced=max(unpriced, all_of_it.unpriced))
        return Totals(sums, all_of_it, len(groups) > MOST_GROUPS)

    def _sums(self, by: Sequence[str], what: str, wanted: Wanted, rest: str = "") -> list[tuple[Any, ...]]:
        is_spent = not spent.PLACES.isdisjoint(by) or (wanted.provider, wanted.model) != (None, None)
        source, given = spent.source(by, wanted.provider, wanted.model) if is_spent else ("exchanges", [])
        tags = f", json_each({_TAGS}) AS tag" if "tag" in by else ""
        condition, values = wanted.clause(is_spent)
        return self.rows(_select(what, condition, rest, source + tags), [*given, *values])

    def latest(self, most: int, wanted: Wanted = EVERYTHING) -> list[Row]:
        """The last `most` exchanges, in the order in which they were written: each a row by the names of its columns,
        `rowid` among them."""
        condition, values = wanted.clause()
        return self._dicts(_select(_ALL, condition, "ORDER BY rowid DESC LIMIT ?"), [*values, most])[::-1]

    def after(self, rowid: int, most: int, wanted: Wanted = EVERYTHING) -> list[Row]:
        """Up to `most` exchanges that were written after the one in `rowid`, as `latest` gives them."""
        condition, values = wanted.clause()
        return self._dicts(
            _select(_ALL, f"rowid > ? AND {condition}", "ORDER BY rowid LIMIT ?"), [rowid, *values, most]
        )

    def newest(self) -> int:
        """The rowid of the exchange that was written last; 0: there is none."""
        [(rowid,)] = self.rows("SELECT max(rowid) FROM exchanges")
        return rowid or 0

    def exchanges(self, wanted: Wanted = EVERYTHING) -> Iterator[Row]:
        """All exchanges that are there now, in the order in which they began, as rows by column; `attempts` is a list
        of their tries instead of the number. Holds PAGE of them in memory."""
        newest = self.newest()
        condition, values = wanted.clause()
        rest = f"started_at >= ? AND (started_at > ? OR rowid > ?) AND rowid <= ? AND {condition}"
        sql = _select(_ALL, rest, f"ORDER BY started_at, rowid LIMIT {PAGE}")
        at, rowid = float("-inf"), 0
        while page := self._dicts(sql, [at, at, rowid, newest, *values]):
            at, rowid = page[-1]["started_at"], page[-1]["rowid"]
            self._put_in_attempts(page)
            yield from page

    def _put_in_attempts(self, page: list[Row]) -> None:
        attempts: dict[Any, list[Row]] = {row["id"]: [] for row in page}
        marks = ", ".join("?" * len(page))
        sql = _select("*", f"exchange_id IN ({marks})", "ORDER BY exchange_id, number", "attempts")
        for attempt in self._dicts(sql, list(attempts)):
            attempts[attempt.pop("exchange_id")].append(attempt)
        for row in page:
            del row["rowid"]
            row["attempts"] = attempts[row["id"]]

    def names(self, what: str) -> list[str]:
        """The keys, providers, models or tags (`what`: a field of Wanted) that there are, those of most exchanges
        first; MOST_GROUPS at most. A model stands once under each of its names."""
        columns = ("model_requested", "model_served", "alias") if what == "model" else (f"exchanges.{what}",)
        source = f"exchanges, json_each({_TAGS}) AS tag" if what == "tag" else "exchanges"
        found = self._counted(source, ("tag.value",) if what == "tag" else columns)
        if what in ("model", "provider"):
            found |= self._counted("attempts", (what,))  # of each name the larger number: they are the same requests
        return [name for name, _ in found.most_common(MOST_GROUPS)]

    def _counted(self, source: str, columns: Sequence[str]) -> Counter[str]:
        found: Counter[str] = Counter()
        for column in columns:
            grouped = f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {MOST_GROUPS}"
            rows = self.rows(_select(f"{column}, count(*)", f"{column} IS NOT NULL", grouped, source))
            found.update({str(name): number for name, number in rows})
        return found

    def ids_among(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids`, PAGE at most, that have a row."""
        marks = ", ".join("?" * len(ids))
        return [found for (found,) in self.rows(_select("id", f"id IN ({marks})"), ids)]

    def expendable(self, before: float | None, max_bytes: int) -> int:
        """About how many exchanges a prune with these bounds (retention) would remove: exactly those begun before
        `before`, and then as many as `max_bytes` needs if all are of one size."""
        [(exchanges,)] = self.rows("SELECT count(*) FROM exchanges")
        [(old,)] = self.rows("SELECT count(*) FROM exchanges WHERE started_at < ?", [before])
        pragmas = ("page_size", "page_count", "freelist_count")
        size, pages, free = (int(self.rows(f"PRAGMA {name}")[0][0]) for name in pragmas)
        content = size * (pages - free)
        if not max_bytes or content <= max_bytes:
            return int(old)
        return max(int(old), math.ceil(int(exchanges) * (content - max_bytes) / content))

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The answer to any statement that reads. What it names comes from this room, never from a user."""
        return self._ask(sql, values)[1]

    # --- the connection -----------------------------------------------------------------------------------------------

    def _dicts(self, sql: str, values: Sequence[Any]) -> list[Row]:
        columns, rows = self._ask(sql, values)
        return [dict(zip(columns, row)) for row in rows]

    def _ask(self, sql: str, values: Sequence[Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
        self._deadline = time.monotonic() + self._seconds
        try:
            cursor = self._connection.execute(sql, values)
            rows = cursor.fetchall()
        except sqlite3.Error as error:
            raise self._explained(error) from error
        except (ValueError, OverflowError) as error:  # a lone surrogate, 2**63: no row holds such a value
            raise LedgerUnusable(f"{self.path} cannot hold what was asked for ({type(error).__name__})") from error
        return [column[0] for column in cursor.description or ()], rows

    def _connect(self, how: str) -> int:
        """Open the file; its version. Raises sqlite3.Error, LedgerUnusable."""
        address = f"file://{quote(os.fsencode(self.path))}?{how}"  # as bytes: a path need not be UTF-8
        connection = sqlite3.connect(
            address, uri=True, timeout=self._seconds, isolation_level=None, check_same_thread=False
        )
        # Somebody else may have written here, too, and no byte of theirs may raise.
        connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
        connection.set_progress_handler(self._is_late, _STEPS)
        connection.create_function("tags_of", 1, _tags_of, deterministic=True)
        self._connection = connection
        self._deadline = time.monotonic() + self._seconds
        try:
            connection.execute("PRAGMA query_only = 1")
            return version_of(connection, self.path)
        except BaseException:
            connection.close()
            raise

    def _connect_at_rest(self) -> int:
        try:
            return self._connect("mode=ro&immutable=1")
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _is_at_rest(self, error: sqlite3.Error) -> bool:
        """Is it a stopped ledger in a folder where this user can make nothing? SQLite wants to make a `-shm` there; but
        where there is no `-wal`, or nothing in it, there is nothing to share, and the file can be read as it is."""
        try:
            waiting = os.path.getsize(self.path + "-wal")
        except OSError:
            waiting = 0
        return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) and not waiting

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline

    def _explained(self, error: sqlite3.Error) -> LedgerUnusable:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of the bits say more than a user can use
        if code == sqlite3.SQLITE_INTERRUPT:
            return TooSlow(f"{self.path} has no answer within {self._seconds:g} s")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LedgerUnusable(f"{self.path} is locked by another process")
        if code == sqlite3.SQLITE_NOTADB:
            return LedgerUnusable(f"{self.path} is no ledger, nor any SQLite file")
        if code == sqlite3.SQLITE_CORRUPT:
            return LedgerUnusable(f"{self.path} {damaged(self.path, str(error))}")
        return LedgerUnusable(f"{self.path} cannot be read: {error}")


def damaged(path: str, found: str = "") -> str:
    """What to do about a damaged file, for a sentence that begins with its name."""
    because = f" ({found})" if found else ""
    return (
        f"is damaged{because}: end what writes it, move it away with its -wal file, and get out what can still be "
        f"read: `sqlite3 {os.path.basename(path)} .recover | sqlite3 new.db`"
    )


def _select(what: str, condition: str, rest: str = "", source: str = "exchanges") -> str:
    # Names and conditions are this module's own words; whatever a user says is bound as a value.
    return f"SELECT {what} FROM {source} WHERE {condition} {rest}"  # noqa: S608


def _tags_of(written: bytes | None) -> str:
    """What a client wrote as its tags, as a JSON list of the different ones; [null] if there are none."""
    parts = [part.strip() for part in (written or b"").decode("utf-8", "replace").split(",")]
    return json.dumps(list(dict.fromkeys(part for part in parts if part)) or [None])
