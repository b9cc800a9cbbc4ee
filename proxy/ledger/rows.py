"""Receipts as rows.

Lives here: `entry_of` (what one receipt leaves in the tables), `insert`, `storable`.
May not live here: transactions (writer), what is in the spill file (spill).
How it works: rows go in twenty to a statement. Those that are there already are left alone, so they may come twice.
Doubted: nothing yet.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from proxy.ledger.schema import ATTEMPTS, EXCHANGES
from proxy.outcome import Attempt, Receipt, Source, Usage, weaker

Value = str | int | float | None
Row = tuple[Value, ...]

# Rows in one statement. sqlite3 gives the interpreter back while SQLite works. Row by row (executemany) these are 8 us,
# too short for another thread to notice, so a busy loop waits for the whole batch; twenty rows are 170 us. CPU per row
# is the same. And 20 times 49 columns stay below the 999 values that SQLite allowed before 3.32.
GROUP = 20

# For a value that is not exactly int, float or str sqlite3 looks for a way to adapt it, 0.35 us for each None, and if
# there is none binds it as it is. If there is one it does not look any further: a row takes 5.9 us instead of 10.6.
# This holds for the whole process, as adapters do, and changes nothing else.
sqlite3.register_adapter(type(None), {None: None}.get)
sqlite3.register_adapter(bool, int)

_NOTHING = Usage()
_WEAKER = {(one.value, other.value): weaker(one, other).value for one in Source for other in Source}
_LARGEST = 2**63 - 1


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
        receipt.stream,
        receipt.status,
        receipt.ended_by._value_,
        receipt.ended_phase._value_,
        receipt.ended_kind,
        receipt.detail,
        receipt.complete,
        _WEAKER[input_source, output_source],
        input_source,
        output_source,
        None if receipt.usage is None else usage.complete,
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
        row = (receipt.id, number, provider, model, started_ms, ended_ms, reused, status)
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
        usage.complete,
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
    new = _insert(connection, _EXCHANGES, [entry.exchange for entry in entries])
    _insert(connection, _ATTEMPTS, [row for entry in entries for row in entry.attempts])
    return new


def _insert(connection: sqlite3.Connection, statements: tuple[str, str], rows: list[Row]) -> int:
    one, group = statements
    new = 0
    full = len(rows) - len(rows) % GROUP
    for at in range(0, full, GROUP):
        new += connection.execute(group, list(chain.from_iterable(rows[at : at + GROUP]))).rowcount
    if full < len(rows):
        new += connection.executemany(one, rows[full:]).rowcount
    return new


def _statements(table: str, columns: tuple[str, ...]) -> tuple[str, str]:
    """One row into `table`, and GROUP of them."""
    row = f"({','.join('?' * len(columns))})"
    start = f"INSERT INTO {table} ({','.join(columns)}) VALUES "  # noqa: S608  # our own names; values are bound
    return start + row + _AS_IT_IS, start + ",".join([row] * GROUP) + _AS_IT_IS


_AS_IT_IS = " ON CONFLICT DO NOTHING"  # a row that is there stays as it is
_EXCHANGES = _statements("exchanges", EXCHANGES)
_ATTEMPTS = _statements("attempts", ATTEMPTS)


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
