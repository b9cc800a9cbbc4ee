"""A document of prices: its form, and one sentence for each thing that is wrong in it."""

from __future__ import annotations

import contextlib
import json
import textwrap
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.catalog import price_file
from proxy.catalog.price_file import Placed, PriceFile, PricesError, Rates, Row, begins, rates, span


def document(*prices: Any, **more: Any) -> bytes:
    return json.dumps({"version": "a", "prices": list(prices)} | more).encode()


def problems_of(data: bytes) -> list[str]:
    """What reading, checking and looking at each row finds."""
    file = PriceFile(data)
    file.check()
    for provider in file.providers:
        for placed in file.rows(provider):
            rates(placed, file.problems)
            begins(placed, file.problems)
            span(placed, file.problems)
    return PricesError(file.problems).problems


def placed(**fields: Any) -> Placed:
    return Placed(msgspec.convert({"model": "m"} | fields, Row), 1, "")


def test_the_example_in_the_docstring_is_right() -> None:
    assert price_file.__doc__ is not None
    text = price_file.__doc__.split("a user writes\n")[1].split("in dollars")[0]
    data = textwrap.dedent(text).encode()
    assert problems_of(data) == []
    file = PriceFile(data)
    assert (file.version, file.providers) == ("acme-2026-11", ["vllm", "openai"])
    assert file.hosts == {"openai": ["llm.example.com", "*.llm.example.com"]}
    assert [rates(each, []).output for each in file.rows("vllm")] == [
        600_000_000,
        540_000_000,
        400_000_000,
        200_000_000,
    ]


def test_an_object_of_prices_is_read_provider_by_provider() -> None:
    file = PriceFile(b'{"version":"a", "prices": {"x": [{"model": "M"}], "y": [{"modell": "m"}]}}')
    assert file.providers == ["x", "y"]
    assert file.problems == []
    assert [each.row.patterns for each in file.rows("x")] == [["m"]]
    assert file.rows("nobody") == []
    assert file.rows("y") == []
    [problem] = file.problems
    assert problem.startswith("y, price 1: ")
    assert "modell" in problem


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0", 0),
        ("0.075", 75_000_000),
        ("0.20", 200_000_000),
        ("1e-9", 1),
        ("0.000000001000", 1),
        ("15", 15_000_000_000),
        ("1000000", 10**15),
        ("0.1", 100_000_000),
        ("-0.0", 0),
        # Digits that a float does not have.
        ("123456.123456789", 123_456_123_456_789),
        ("0.123456789000000000000000000000000000000", 123_456_789),
    ],
)
@pytest.mark.parametrize("written", ["{}", '"{}"'])
def test_dollars_become_integers_exactly(amount: str, expected: int, written: str) -> None:
    data = b'{"version":"a","prices":[{"provider":"x","model":"m","input":%s}]}' % written.format(amount).encode()
    [row] = PriceFile(data).rows("x")
    problems: list[str] = []
    assert rates(row, problems) == Rates(input=expected)
    assert problems == []


def test_what_is_paid_for_one_is_a_million_times_as_much_for_a_million() -> None:
    found = rates(placed(search=Decimal("0.01"), request=Decimal("1e-15")), [])
    assert (found.search, found.request) == (10_000 * 10**9, 1)


@pytest.mark.parametrize(
    "amount",
    [
        *("-1", "1000000.01", "1e-10", "0.1234567891", "NaN", "-Infinity", "sNaN", "1e999999999", "1e-999999999"),
        *("0." + "3" * 5000, "9" * 5000, "0.1" + "0" * 40 + "1"),
    ],
)
def test_what_is_no_amount_of_money_is_refused(amount: str) -> None:
    problems: list[str] = []
    assert rates(placed(input=Decimal(amount)), problems) == Rates()
    assert problems == ["price 1: `input` must be 0 to 1000000 dollars with at most 9 places"]


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("", 0),
        ("1970-01-01", 0),
        ("1970-01-02", 86_400),
        ("2000-03-01", 951_868_800),
        ("2024-02-29", 1_709_164_800),
        ("2026-01-01", 1_767_225_600),
        ("2026-12-31", 1_798_675_200),
        ("2100-03-01", 4_107_542_400),
    ],
)
def test_days_begin_at_midnight_utc(day: str, expected: int) -> None:
    problems: list[str] = []
    assert begins(placed(**{"from": day}), problems) == expected
    assert problems == []


@given(st.dates(min_value=date(1970, 1, 1), max_value=date(2999, 12, 31)))
def test_days_are_those_of_the_calendar(day: date) -> None:
    expected = (day - date(1970, 1, 1)).days * 86_400
    assert begins(placed(**{"from": day.isoformat()}), []) == expected


@pytest.mark.parametrize(
    "day",
    [
        "2100-02-29",
        "2026-02-29",
        "2026-13-01",
        "2026-00-10",
        "2026-01-00",
        "2026-1-1",
        "1969-12-31",
        "soon",
        "٢٠٢٦-٠١-٠١",
    ],
)
def test_what_is_no_day_is_refused(day: str) -> None:
    problems: list[str] = []
    begins(placed(**{"from": day}), problems)
    assert problems == ["price 1: `from` must be a day such as 2026-11-30"]


def test_hours_are_minutes_of_the_day() -> None:
    assert span(placed(), []) is None
    assert span(placed(hours="16:30-00:30"), []) == (990, 30)
    for wrong in ("24:00-01:00", "1:00-2:00", "01:00", "01:60-02:00"):
        problems: list[str] = []
        assert span(placed(hours=wrong), problems) is None
        assert problems == ["price 1: `hours` must be of the form 16:30-00:30"]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = problems_of(
        document(
            {"provider": "x", "model": "m", "inptu": 1},
            {"model": "m", "input": -1, "from": "2026-02-30"},
            {"provider": "x"},
            7,
            {"provider": "a b", "model": []},
            {"provider": "x", "model": "with blank"},
            version=3,
            hosts={"openai": ["https://x"]},
            price=[],
        )
    )
    expected = ["`version`: ", "inptu", "price 2: `provider`", "price 2: `input`", "price 2: `from`", "price 3: "]
    expected += ["price 4: ", "'a b'", "price 5: `model`", "price 6: `model`", "'https://x' is not a host", "'price'"]
    assert [word for word in expected if not any(word in problem for problem in found)] == []
    assert len(found) == 14, found


def test_many_problems_are_counted_and_not_all_said() -> None:
    found = problems_of(document(*[{"provider": "x", "model": "m", "input": -1}] * 100))
    assert len(found) == 31
    assert found[-1] == "and 70 more"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"version":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"{" + b" " * price_file.DOCUMENT_BYTES + b"}",
    ],
)
def test_what_is_no_document_is_one_problem(data: bytes) -> None:
    with pytest.raises(PricesError) as caught:
        PriceFile(data)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b'{"version":"\xff"}', "`version`: "),
        (b'{"version":"a","prices":[{"provider":"x","model":"\xff"}]}', "price 1: "),
        (b'{"version":"a","prices":{"x":[{"model":"\xff"}]}}', "x, price 1: "),
        (b'{"version":"a","hosts":{"x":["\xff"]}}', "`hosts`: "),
        (b'{"version":"a","prices":{"x":[{"model":"m","provider":"y"}]}}', "x, price 1 names its provider twice"),
        (b'{"version":"a","prices":{"":[{"model":"m"}]}}', "no provider can be called ''"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: bytes, where: str) -> None:
    assert problems_of(data)[0].startswith(where)


@given(st.binary(max_size=200))
@example(b'{"prices":{"x":7,"":[[]]},"also":[],"licence":{}}')
@example(b'{"prices":[{"provider":"x","model":"m","over":-99999999999999999999}]}')
def test_hostile_bytes_are_refused_and_never_more(data: bytes) -> None:
    with contextlib.suppress(PricesError):
        problems_of(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.dictionaries(st.sampled_from(["provider", "model", "from", "hours", "over", *Rates._fields]), JSON)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("version", "hosts", "also", "source"), JSON)), st.lists(ROWS))
def test_wrong_values_anywhere_are_refused_and_never_more(more: dict[str, Any], prices: list[Any]) -> None:
    problems_of(document(*prices, **more))
