"""The text: digits, cells, which columns a scenario has, what is left out."""

from __future__ import annotations

import pytest

from bench.results import About, Results, Spread
from bench.scenarios import Figures, Measurement
from bench.table import aligned, cell, goal_rows, long_cell, number, place_rows, scenario_rows, summary, table
from tests.bench.records import made_up, measured


def spread(*values: float) -> Spread:
    found = Spread.of(list(values))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12_345.6, "12,346"),
        (123.4, "123"),
        (15.04, "15.0"),
        (1.234, "1.23"),
        (0.1416, "0.142"),
        (-2.5, "-2.50"),
        (0, "0"),
    ],
)
def test_a_number_has_the_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_cells_show_median_and_spread() -> None:
    assert cell(None) == "-"
    assert cell(spread(11.0)) == "11.0"
    assert cell(spread(10.0, 12.0, 11.0)) == "11.0 (10.0..12.0)"
    assert long_cell(spread(10.0, 12.0, 11.0)) == "11.0 (10.0..12.0)"
    assert long_cell(spread(1.0, 2.0, 3.0, 4.0, 9.0)) == "3.00 [2.00..4.00] (1.00..9.00)"


def test_the_table_shows_median_spread_and_ratio() -> None:
    text = table(Results(measured("nginx", [10.0, 12.0, 11.0]) + measured("splice", [22.0, 22.0, 22.0])))
    lines = [line.split("  ") for line in text.splitlines()]
    assert text.startswith("unary-1k: 1 KB asked")
    assert any("11.0 (10.0..12.0)" in line for line in lines)
    assert "2.00" in text


def test_a_ratio_that_cannot_be_told_from_one_has_a_question_mark() -> None:
    alike = Results(measured("nginx", [10.0, 10.0, 10.0]) + measured("llm-proxy", [10.1, 9.9, 10.0]))
    assert scenario_rows(alike, "unary-1k")[2][2] == "1.00 ?"
    more = Results(measured("nginx", [10.0, 10.0, 10.0]) + measured("llm-proxy", [10.5, 10.4, 10.6]))
    assert scenario_rows(more, "unary-1k")[2][2] == "1.05"


def test_latency_is_beyond_direct_where_there_is_direct() -> None:
    figures = {"cpu_us": 5.0, "first_byte_p50_us": 150.0, "first_byte_p99_us": 1900.0}
    direct = measured("direct", [50.0], "first_byte_p50_us", first_byte_p99_us=200.0)
    nginx = [Measurement("unary-1k", "nginx", 0, Figures(figures, []))]
    assert [row[-1] for row in scenario_rows(Results(direct + nginx), "unary-1k")[1:]] == [
        "=50 / =200",
        "+100 / +1,700",
    ]
    assert scenario_rows(Results(nginx), "unary-1k")[1][-1] == "=150 / =1,900"


def test_columns_and_rows_without_anything_are_left_out() -> None:
    lacking = [Measurement("unary-1k", "haproxy", 0, Figures({}, [], "has no TLS"))]
    rows = scenario_rows(Results(measured("nginx", [10.0]) + lacking), "unary-1k")
    assert rows == [["", "CPU us per request", "x nginx"], ["nginx", "10.0", "1"]]


def test_a_scenario_has_its_own_columns() -> None:
    about = {"lag": About("probe", "how long a loop takes", 0, (("rest_lag_p50_us", "rest: p50 us"),))}
    rows = scenario_rows(Results(measured("nginx", [80.0], "rest_lag_p50_us", scenario="lag"), about), "lag")
    assert rows == [["", "rest: p50 us"], ["nginx", "80.0"]]


def test_memory_has_its_own_rows() -> None:
    rows = scenario_rows(made_up(rounds=1).results, "memory")
    assert rows[0] == ["", "resident MiB", "KiB per stream", "ready in ms"]
    assert rows[3] == ["llm-proxy", "38.2", "9.10", "191"]
    assert "direct" not in [row[0] for row in rows]


def test_goals_and_places_are_rows_of_the_same_length() -> None:
    for rows in (goal_rows(made_up()), place_rows(made_up())):
        assert len(rows) > 5
        assert {len(row) for row in rows} == {len(rows[0])}
    text = summary(made_up())
    assert "ahead of all: 2" in text and "missed, by 19%" in text
    assert summary(made_up(scenarios=())) == ""


def test_columns_stand_under_each_other() -> None:
    assert aligned([["", "x"], ["long name", "1"]]) == ["             x", "  long name  1"]
