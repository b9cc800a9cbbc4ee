"""Receipts as rows.

Lives here: `entry_of` (what one receipt leaves in the tables), `insert`, `storable`.
May not live here: transactions (writer), what is in the spill file (spill).
How it works: rows go in twenty to a statement. Those that are there already are left alone, so they may come twice. A
statement names only the columns that have a value, and what all its rows have in common is bound once.
Doubted: nothing yet.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from proxy.ledger.schema import ATTEMPTS, EXCHANGES
from proxy.outcome import Attempt, Receipt, Source, Usage, weaker

Value = str | int | float | None
Row = tuple[Value, ...]

# Rows in one statement. sqlite3 gives the interpreter back while SQLite works. Row by row (executemany) these are 8 us,
# too short for another thread to notice, so a busy loop waits for the whole batch; twenty rows are 170 us. CPU per row
# is the same. And 20 times 49 columns stay below the 999 values that SQLite allowed before 3.32.
GROUP: Final = 20

_NOTHING: Final = Usage()
_WEAKER: Final = {(one.value, other.value): weaker(one, other).value for one in Source for other in Source}
_LARGEST: Final = 2**63 - 1


class Entry(NamedTuple):
    """What one receipt leaves: the row of an exchange and the rows of its attempts, values in the order of columns."""

    exchange: Row
    attempts: list[Row]

    @property
    def run(self) -> str:
        return str(self.exchange[1])


def entry_of(receipt: Receipt, run: str) -> Entry:
    """The rows of `receipt`. 3 us."""
    usage = receipt.usage or _NOTHING
    attempts = receipt.attempts
    # `_value_`: until Python 3.12 `value` is a call, 0.15 us.
    input_source = usage.input_source._value_
    output_source = usage.output_source._value_
    exchange = (
        receipt.id,
        run,
        receipt.started_at,
        receipt.key,
        receipt.alias,
        receipt.provider,
        receipt.model_requested,
        receipt.model_served,
        receipt.dialect,
        receipt.method,
        receipt.path,
        1 if receipt.stream else 0,  # for whatever is not exactly int, float or str sqlite3 looks for an adapter
        receipt.status,
        receipt.ended_by._value_,
        receipt.ended_phase._value_,
        receipt.ended_kind,
        receipt.detail,
        1 if receipt.complete else 0,
        _WEAKER[input_source, output_source],
        input_source,
        output_source,
        None if receipt.usage is None else 1 if usage.complete else 0,
        usage.input,
        usage.output,
        usage.cached,
        usage.cache_write,
        usage.cache_write_1h,
        usage.reasoning,
        usage.searches,
        usage.counted_input,
        usage.counted_output,
        receipt.cost_micros,
        usage.cost_micros,
        receipt.price_version,
        len(attempts),
        receipt.events,
        receipt.bytes_in,
        receipt.bytes_out,
        receipt.body_ms,
        receipt.queue_ms,
        receipt.connect_ms,
        receipt.sent_ms,
        receipt.first_byte_ms,
        receipt.first_event_ms,
        receipt.total_ms,
        receipt.provider_request_id,
        receipt.client,
        receipt.tags,
        receipt.stands_for,
    )
    return Entry(exchange, _attempt_rows(receipt) if attempts else [])


def _attempt_rows(receipt: Receipt) -> list[Row]:
    heir = _heir(receipt.attempts)
    rows: list[Row] = []
    for number, attempt in enumerate(receipt.attempts, 1):
        provider, model, started_ms, ended_ms, reused, status, failure, why = attempt[:8]
        first_event_ms, usage, cost_micros, model_served, bytes_out = attempt[8:]
        if number == heir:
            usage, cost_micros = receipt.usage, receipt.cost_micros
            if status == receipt.status:  # else the client was not sent its answer but an error of ours
                first_event_ms = receipt.first_event_ms if first_event_ms is None else first_event_ms
                model_served = model_served or receipt.model_served
                bytes_out = bytes_out or receipt.bytes_out
        row = (receipt.id, number, provider, model, started_ms, ended_ms, 1 if reused else 0, status)
        ending = _WELL
        if failure is not None:
            ending = (failure.side._value_, failure.phase._value_, failure.kind._value_, failure.detail)
        figures = _UNUSED if usage is None else _figures(usage)
        reported = None if usage is None else usage.cost_micros
        rows.append((*row, *ending, why, first_event_ms, *figures, cost_micros, reported, model_served, bytes_out))
    return rows


def _heir(attempts: Sequence[Attempt]) -> int:
    """The number of the attempt that used all of what the exchange did: the last that was answered; 0: they say
    themselves who used what."""
    heir = len(attempts)
    for number, attempt in enumerate(attempts, 1):
        if attempt.usage is not None or attempt.cost_micros is not None:
            return 0
        if attempt.status:
            heir = number
    return heir


def _figures(usage: Usage) -> Row:
    """The columns from `usage_source` to `searches` of an attempt."""
    input_source = usage.input_source._value_
    output_source = usage.output_source._value_
    return (
        _WEAKER[input_source, output_source],
        input_source,
        output_source,
        1 if usage.complete else 0,
        usage.input,
        usage.output,
        usage.cached,
        usage.cache_write,
        usage.reasoning,
        usage.searches,
    )


_WELL: Row = (None,) * 4
_UNUSED: Row = (*_figures(_NOTHING)[:3], None, *_figures(_NOTHING)[4:])  # unlike a usage of which nothing is known


def insert(connection: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    """Put `entries` into the tables, inside a transaction of the caller's; how many exchanges were not there yet.

    Raises sqlite3.Error; and, for values that SQLite has no form for, UnicodeEncodeError, OverflowError or
    sqlite3.ProgrammingError: `storable` makes such entries fit.
    """
    new = _insert(connection, "exchanges", [entry.exchange for entry in entries])
    _insert(connection, "attempts", [row for entry in entries for row in entry.attempts])
    return new


def _insert(connection: sqlite3.Connection, table: str, rows: list[Row]) -> int:
    full = len(rows) - len(rows) % GROUP
    new = 0
    for at in range(0, full, GROUP):
        new += _put(connection, table, rows[at : at + GROUP])
    for at in range(full, len(rows)):
        new += _put(connection, table, rows[at : at + 1])
    return new


def _put(connection: sqlite3.Connection, table: str, rows: list[Row]) -> int:
    """All of `rows` by one statement. To bind a text takes 0.2 us, and 27 of them are half of what the rows of an
    exchange take. In a busy process most are the same: so what all of `rows` have is bound once, and a column that none
    has is not named."""
    count = len(rows)
    forms: list[int] = []
    same: list[Value] = []
    own: list[Value] = []
    for column in zip(*rows, strict=True):
        first = column[0]
        if column.count(first) < count:
            forms.append(_OWN)
            own.extend(column)
        elif first is None:
            forms.append(_NONE)
        else:
            forms.append(_SAME)
            same.append(first)
    return connection.execute(_statement(table, count, bytes(forms)), same + own).rowcount


_NONE: Final = 0  # no row has a value in this column
_SAME: Final = 1  # all have the same
_OWN: Final = 2


@lru_cache(256)  # as many as there are mixtures of columns that are alike: a few
def _statement(table: str, count: int, forms: bytes) -> str:
    """Values: those that are the same, then column by column what each row has of its own."""
    names = EXCHANGES if table == "exchanges" else ATTEMPTS
    present = [at for at, form in enumerate(forms) if form != _NONE]
    rows: list[list[str]] = [[] for _ in range(count)]
    same, own = 1, 1 + forms.count(_SAME)
    for at in present:
        if forms[at] == _SAME:
            places = [same] * count
            same += 1
        else:
            places = list(range(own, own + count))
            own += count
        for row, place in zip(rows, places, strict=True):
            row.append(f"?{place}")
    columns = ",".join(names[at] for at in present)
    values = ",".join(f"({','.join(row)})" for row in rows)
    return f"INSERT INTO {table} ({columns}) VALUES {values}{_AS_IT_IS}"  # noqa: S608  # our own names; values are bound


_AS_IT_IS: Final = " ON CONFLICT DO NOTHING"  # a row that is there stays as it is


def storable(entry: Entry) -> Entry:
    """`entry` with every value in a form that SQLite and JSON have: half characters replaced, unknown instead of a
    number that is no 64-bit one. Providers send what they like, and one odd row must not hold up the others."""
    return Entry(tuple(map(_storable, entry.exchange)), [tuple(map(_storable, row)) for row in entry.attempts])


def _storable(value: object) -> Value:
    match value:
        case None | bool():
            return value
        case int():
            return value if -_LARGEST <= value <= _LARGEST else None
        case float():
            return value if math.isfinite(value) else None
        case _:
            return str(value).encode("utf-8", "replace").decode("utf-8")
