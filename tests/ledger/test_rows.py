"""A row says what its receipt says."""

from __future__ import annotations

import math
import random
import sqlite3
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger import rows, schema
from proxy.ledger.rows import Entry
from proxy.outcome import Attempt, Failure, Kind, Phase, Receipt, Side, Source, Usage, sum_known, sum_usage
from tests.ledger.receipts import RUN, a_receipt, full_receipt


@pytest.fixture
def connection(tmp_path: Path) -> Any:
    connection = schema.connect(str(tmp_path / "a.db"), 1.0)
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


def stored(connection: sqlite3.Connection, receipt: Receipt) -> dict[str, Any]:
    assert rows.insert(connection, [rows.entry_of(receipt, RUN)]) == 1
    [row] = connection.execute("SELECT * FROM exchanges")
    return dict(row)


# Where a column's name is not that of the receipt's field.
OF_USAGE = {
    "input_source": "reported",
    "output_source": "counted",
    "usage_source": "counted",
    "usage_complete": 1,
    "input_tokens": 1200,
    "output_tokens": 300,
    "cached_tokens": 1000,
    "cache_write_tokens": 100,
    "cache_write_1h_tokens": 50,
    "reasoning_tokens": 200,
    "searches": 2,
    "counted_input_tokens": 1190,
    "counted_output_tokens": 299,
    "reported_cost_micros": 1235,
}


def test_every_field_has_its_column(connection: sqlite3.Connection) -> None:
    receipt = full_receipt()
    row = stored(connection, receipt)
    assert tuple(row) == schema.EXCHANGES
    expected = {field.name: getattr(receipt, field.name) for field in fields(receipt) if field.name != "usage"}
    expected |= {"run": RUN, "ended_by": "client", "ended_phase": "stream", "attempts": 2, **OF_USAGE}
    assert row == expected
    assert None not in row.values()


def test_the_receipts_of_this_test_leave_nothing_at_its_default() -> None:
    """Else a column that is never written would pass as a field that has no value."""
    plain, full = a_receipt(), full_receipt()
    same = {field.name for field in fields(plain) if getattr(plain, field.name) == getattr(full, field.name)}
    assert same == {"id", "started_at", "client", "method"}
    assert full.usage is not None
    unset = {f.name for f in fields(Usage) if getattr(full.usage, f.name) == getattr(Usage(), f.name)}
    assert unset == {"billed"}


def test_every_attempt_has_its_row(connection: sqlite3.Connection) -> None:
    stored(connection, full_receipt())
    first, second = (dict(row) for row in connection.execute("SELECT * FROM attempts ORDER BY number"))
    assert tuple(first) == schema.ATTEMPTS
    assert tuple(first.values()) == (
        *(f"{RUN}-1", 1, "azure", "gpt-4o", 1.5, 2.5, 0, 0),
        *("upstream", "connect", "connect_failed", "refused"),
        *("first", None, "none", "none", "none", 0, 20, None, None, None, None, None, 34, None, None, 0),
    )
    assert tuple(second.values()) == (
        *(f"{RUN}-1", 2, "openai", "gpt-4o-mini", 2.75, 90.5, 1, 200),
        *(None, None, None, None),
        *("fallback", 21.5, "counted", "reported", "counted", 1, 1180, 300, 1000, 100, 200, 2),
        *(1200, 1235, "served", 44000),
    )


def attempts_of(connection: sqlite3.Connection, receipt: Receipt) -> list[dict[str, Any]]:
    stored(connection, receipt)
    return [dict(row) for row in connection.execute("SELECT * FROM attempts ORDER BY number")]


GOOD = Attempt("openai", "gpt-4o", 1.0, 9.0, True, 200, None)
DEAD = GOOD._replace(status=0, failure=Failure(Side.UPSTREAM, Phase.FIRST_BYTE, Kind.RESET))
WHOLE = {
    "status": 200,
    "usage": Usage(7, 5, 3, 2, None, 1, 4, 99, Source.REPORTED, Source.COUNTED, True),
    "cost_micros": 77,
    "model_served": "gpt-4o-2024",
    "first_event_ms": 2.5,
    "bytes_out": 1000,
}
OF_WHOLE = {
    "first_event_ms": 2.5,
    "usage_source": "counted",
    "input_source": "reported",
    "output_source": "counted",
    "usage_complete": 1,
    "input_tokens": 7,
    "output_tokens": 5,
    "cached_tokens": 3,
    "cache_write_tokens": 2,
    "reasoning_tokens": 1,
    "searches": 4,
    "cost_micros": 77,
    "reported_cost_micros": 99,
    "model_served": "gpt-4o-2024",
    "bytes_out": 1000,
}
OF_NOTHING = {
    **dict.fromkeys(OF_WHOLE),
    "usage_source": "none",
    "input_source": "none",
    "output_source": "none",
    "bytes_out": 0,
}


@pytest.mark.parametrize(
    ("attempts", "number"),
    [([GOOD], 1), ([DEAD], 1), ([DEAD, GOOD], 2), ([GOOD, DEAD], 1), ([DEAD, DEAD], 2)],
)
def test_what_no_attempt_says_is_that_of_the_last_that_was_answered(
    connection: sqlite3.Connection, attempts: list[Attempt], number: int
) -> None:
    of_client = {} if GOOD in attempts else {"first_event_ms": None, "model_served": None, "bytes_out": 0}
    for row in attempts_of(connection, a_receipt(attempts=attempts, **WHOLE)):
        expected = OF_WHOLE | of_client if row["number"] == number else OF_NOTHING
        assert {name: row[name] for name in OF_WHOLE} == expected


def test_what_attempts_say_of_themselves_is_all_there_is(connection: sqlite3.Connection) -> None:
    own = GOOD._replace(cost_micros=77)
    for row, cost in zip(attempts_of(connection, a_receipt(attempts=[own, GOOD], **WHOLE)), (77, None)):
        assert {name: row[name] for name in OF_WHOLE} == OF_NOTHING | {"cost_micros": cost}


def test_an_error_of_ours_is_nothing_that_the_attempt_sent(connection: sqlite3.Connection) -> None:
    """A credential was refused: the client got 502, and what it was told came from here."""
    refused = GOOD._replace(status=401)
    [row] = attempts_of(connection, a_receipt(attempts=[refused], status=502, bytes_out=210))
    assert row["bytes_out"] == 0


def test_usage_that_is_there_and_says_nothing_is_incomplete(connection: sqlite3.Connection) -> None:
    [row] = attempts_of(connection, a_receipt(attempts=[GOOD], usage=Usage()))
    assert row["usage_complete"] == 0


costs = st.none() | st.integers(0, 10**9)
usages = st.none() | st.builds(Usage, input=costs, output=costs, cached=costs, complete=st.booleans())
tries = st.lists(st.builds(GOOD._replace, status=st.sampled_from([0, 200, 503]), usage=usages, cost_micros=costs))


@given(tries, st.booleans(), usages, costs)
def test_attempts_add_up_to_their_exchange(
    given_: list[Attempt], is_told: bool, usage: Usage | None, cost: Any
) -> None:
    """Whether the attempts say what they used, or the exchange does for a single one."""
    if is_told:
        receipt = a_receipt(
            attempts=given_,
            usage=sum_usage(each.usage for each in given_ if each.usage is not None),
            cost_micros=sum_known(each.cost_micros for each in given_),
        )
    else:
        bare = [each._replace(usage=None, cost_micros=None) for each in given_[:1] or [GOOD]]
        receipt = a_receipt(attempts=bare, usage=usage, cost_micros=cost)
    exchange, attempts = rows.entry_of(receipt, RUN)
    of_exchange = dict(zip(schema.EXCHANGES, exchange))
    of_attempts = [dict(zip(schema.ATTEMPTS, row)) for row in attempts]
    for name in ("cost_micros", "input_tokens", "output_tokens", "cached_tokens"):
        assert sum_known(row[name] for row in of_attempts) == of_exchange[name]


def test_without_usage_there_are_no_figures_and_nothing_is_incomplete(connection: sqlite3.Connection) -> None:
    row = stored(connection, a_receipt())
    assert [row[name] for name in ("usage_source", "input_source", "output_source")] == ["none"] * 3
    rest = set(OF_USAGE) - {"usage_source", "input_source", "output_source"}
    assert {row[name] for name in rest} == {None}


def test_usage_that_nobody_knows_is_incomplete(connection: sqlite3.Connection) -> None:
    row = stored(connection, a_receipt(usage=Usage(input=7, input_source=Source.REPORTED)))
    assert (row["usage_complete"], row["usage_source"], row["input_tokens"]) == (0, "none", 7)


@pytest.mark.parametrize("one", Source)
@pytest.mark.parametrize("other", Source)
def test_the_source_of_both_is_that_of_the_usage(connection: sqlite3.Connection, one: Source, other: Source) -> None:
    usage = Usage(input_source=one, output_source=other)
    assert stored(connection, a_receipt(usage=usage))["usage_source"] == usage.source.value


@pytest.mark.parametrize("count", [0, 1, rows.GROUP - 1, rows.GROUP, rows.GROUP + 1, 3 * rows.GROUP + 7])
def test_any_number_of_rows_goes_in_once(connection: sqlite3.Connection, count: int) -> None:
    attempt = Attempt("openai", None, 0.0, 1.0, False, 200, None)
    entries = [rows.entry_of(a_receipt(number, attempts=[attempt] * (number % 3)), RUN) for number in range(count)]
    assert rows.insert(connection, entries) == count
    before = connection.execute("SELECT * FROM exchanges").fetchall()
    assert [row["id"] for row in before] == [f"{RUN}-{number}" for number in range(count)]
    assert connection.execute("SELECT count(*) FROM attempts").fetchone()[0] == sum(n % 3 for n in range(count))
    assert rows.insert(connection, entries) == 0
    assert connection.execute("SELECT * FROM exchanges").fetchall() == before


def test_what_rows_share_and_what_each_has_of_its_own_is_in_its_place(connection: sqlite3.Connection) -> None:
    dice = random.Random(5)
    count = rows.GROUP + 2
    for turn in range(30):
        entries = [rows.entry_of(full_receipt(turn * count + number), RUN) for number in range(count)]
        told = [list(entry.exchange) for entry in entries]
        for column in range(3, len(schema.EXCHANGES) - 1):  # id, run, started_at and stands_for are never NULL
            lacks = dice.choice([0.0, 0.0, 0.5, 1.0])
            for row in told:
                row[column] = None if dice.random() < lacks else row[column]
        mixed = [Entry(tuple(row), entry.attempts) for row, entry in zip(told, entries, strict=True)]
        assert rows.insert(connection, mixed) == count
        for entry in mixed:
            [found] = connection.execute("SELECT * FROM exchanges WHERE id = ?", entry.exchange[:1])
            attempts = connection.execute("SELECT * FROM attempts WHERE exchange_id = ?", entry.exchange[:1])
            assert tuple(found) == entry.exchange
            assert list(map(tuple, attempts)) == entry.attempts


def test_of_rows_that_are_there_in_part_the_new_ones_are_counted(connection: sqlite3.Connection) -> None:
    entries = [rows.entry_of(a_receipt(number), RUN) for number in range(3 * rows.GROUP)]
    assert rows.insert(connection, entries[::3]) == rows.GROUP
    assert rows.insert(connection, entries) == 2 * rows.GROUP


def test_a_group_has_no_more_values_than_any_sqlite_takes() -> None:
    assert rows.GROUP * max(len(schema.EXCHANGES), len(schema.ATTEMPTS)) <= 999


ODD = [
    ("tags", "\ud800x", "?x"),
    ("tags", b"\xff", "b'\\xff'"),
    ("path", object, "<class 'object'>"),
    ("bytes_in", 2**63, None),
    ("bytes_in", -(2**70), None),
    ("bytes_in", 2**63 - 1, 2**63 - 1),
    ("total_ms", math.inf, None),
    ("total_ms", math.nan, None),
    ("stream", True, 1),
    ("tags", "\0", "\0"),
]


@pytest.mark.parametrize(("field", "value", "expected"), ODD)
@pytest.mark.sources
def test_odd_values_are_made_to_fit(connection: sqlite3.Connection, field: str, value: Any, expected: Any) -> None:
    failed = Attempt("openai", "\udfff", 0.0, 2.0**70, False, 2**64, None)
    entry = rows.storable(rows.entry_of(a_receipt(attempts=[failed], **{field: value}), RUN))
    assert rows.insert(connection, [entry]) == 1
    assert connection.execute("SELECT * FROM exchanges").fetchone()[field] == expected
    attempt = connection.execute("SELECT * FROM attempts").fetchone()
    assert (attempt["model"], attempt["status"]) == ("?", None)


def test_what_fits_is_left_as_it_is() -> None:
    entry = rows.entry_of(full_receipt(), RUN)
    assert rows.storable(entry) == entry


@pytest.mark.parametrize(("field", "value"), [("tags", "\ud800"), ("bytes_in", 2**63), ("path", object)])
@pytest.mark.sources
def test_what_does_not_fit_is_refused_with_an_error_that_book_knows(
    connection: sqlite3.Connection, field: str, value: Any
) -> None:
    with pytest.raises((ValueError, OverflowError, sqlite3.ProgrammingError, sqlite3.InterfaceError)):
        rows.insert(connection, [rows.entry_of(a_receipt(**{field: value}), RUN)])
