"""Which rows of a document hold for a model, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.catalog.price_file import PricesError
from proxy.catalog.price_table import Price, PriceTable

DAY = 86_400
NEW_YEAR = 1_767_225_600  # 2026-01-01


def table(*prices: dict[str, Any], is_ours: bool = False, **more: Any) -> PriceTable:
    written = [{"provider": "x"} | price for price in prices]
    return PriceTable(json.dumps({"version": "a", "prices": written} | more).encode(), is_ours=is_ours)


def found(in_table: PriceTable, *names: str, provider: str = "x", vendor: str | None = None) -> list[Price]:
    """All prices, in the order in which they are asked."""
    return [price for history in in_table.find(provider, vendor, names) for price in history]


def patterns(in_table: PriceTable, *names: str) -> list[str]:
    return [price.model for price in found(in_table, *names)]


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("gpt-4o", ["gpt-4o"], ["gpt-4", "gpt-4o-mini", ""]),
        ("GPT-4o*", ["gpt-4o", "gpt-4o-mini"], ["gpt-4", "xgpt-4o"]),
        ("*-mini", ["-mini", "o3-mini"], ["o3-mini-high", "mini"]),
        ("*nova*", ["nova", "us.amazon.nova-lite"], ["nov", "n-ova"]),
        ("a*b*c", ["abc", "a1b2c", "aabbcc", "abcbc"], ["ac", "acb", "ab", "xabc", "abcx"]),
        ("a*bc*cd*e", ["abccde"], ["abcde"]),
        ("a*a", ["aa", "aba"], ["a"]),
        ("a*ab*b", ["aabb"], ["aab", "abb", "ab"]),
        ("*", ["", "anything"], []),
        ("**", ["", "anything"], []),
    ],
)
def test_a_star_stands_for_anything(pattern: str, fitting: list[str], others: list[str]) -> None:
    one = table({"model": pattern, "input": 1})
    assert [name for name in fitting if not found(one, name)] == []
    assert [name for name in others if found(one, name)] == []


def test_the_name_itself_goes_before_patterns_and_long_patterns_before_short_ones() -> None:
    many = table(
        {"model": "*"}, {"model": "gpt-4o*"}, {"model": "gpt-*"}, {"model": ["*-4o", "gpt-4o"]}, {"model": "gpt-4o-*"}
    )
    assert patterns(many, "gpt-4o") == ["gpt-4o", "gpt-4o*", "gpt-*", "*-4o", "*"]
    assert patterns(many, "gpt-4o-mini") == ["gpt-4o-*", "gpt-4o*", "gpt-*", "*"]
    assert patterns(many, "o1") == ["*"]


def test_a_star_in_a_name_is_only_a_letter() -> None:
    assert patterns(table({"model": "gpt-*"}), "gpt-*") == ["gpt-*"]
    assert patterns(table({"model": "a"}, {"model": "*b"}), "*", "*a") == []


def test_the_first_spelling_goes_before_the_others_whatever_they_find() -> None:
    many = table({"model": "m-2026*"}, {"model": "m"})
    assert patterns(many, "m-2026", "m") == ["m-2026*", "m"]
    two = table({"provider": "a", "model": "m"}, {"provider": "b", "model": "m-2026"})
    assert [price.provider for price in found(two, "m-2026", "m", provider="a", vendor="b")] == ["b", "a"]


def test_providers_are_asked_by_their_name_and_by_their_vendor() -> None:
    rows = ({"provider": "Work", "model": "m", "input": 1}, {"provider": "openai", "model": "m", "input": 2})
    names = [price.provider for price in found(table(*rows), "m", provider="work", vendor="openai")]
    assert names == ["work", "openai"]
    # Our own table knows vendors only: a name somebody gave proves nothing.
    ours = table(*rows, is_ours=True)
    assert [price.provider for price in found(ours, "m", provider="work", vendor="openai")] == ["openai"]
    assert found(ours, "m", provider="openai") == []


def test_a_vendor_sells_others_models_where_it_has_no_price_of_its_own() -> None:
    rows = ({"provider": "azure", "model": "a"}, {"provider": "openai", "model": ["a", "b"]})
    one = table(*rows, also={"azure": ["openai"]})
    assert [price.provider for price in found(one, "a", vendor="azure")] == ["azure", "openai"]
    assert [(price.provider, price.model) for price in found(one, "b", vendor="azure")] == [("openai", "b")]
    assert found(one, "a", vendor="openai")[0].provider == "openai"


def test_hosts_say_whose_prices_hold() -> None:
    one = table(
        hosts={"openai": ["api.openai.com"], "azure": ["*.openai.azure.com"], "aws": ["bedrock.*.amazonaws.com"]}
    )
    assert one.vendor_at("api.openai.com") == "openai"
    assert one.vendor_at("mine.openai.azure.com") == "azure"
    assert one.vendor_at("bedrock.us-east-1.amazonaws.com") == "aws"
    assert one.vendor_at("openai.com") is None
    assert one.vendor_at("api.openai.com.example.org") is None


def test_the_newest_price_is_asked_first_and_begins_at_midnight() -> None:
    history = found(
        table(
            {"model": "m", "input": 2, "from": "2026-01-01"},
            {"model": "m", "input": 3},
            {"model": "m", "input": 1, "from": "2026-02-01"},
        ),
        "m",
    )
    assert [price.since for price in history] == ["2026-02-01", "2026-01-01", ""]
    assert [price.is_valid(NEW_YEAR - 0.1) for price in history] == [False, False, True]
    assert [price.is_valid(NEW_YEAR) for price in history] == [False, True, True]


def test_hours_go_before_the_whole_day_but_not_before_a_newer_price() -> None:
    history = found(
        table(
            {"model": "m", "input": 2},
            {"model": "m", "input": 1, "hours": "16:30-00:30"},
            {"model": "m", "input": 3, "hours": "08:00-09:00"},
            {"model": "m", "input": 4, "from": "2026-01-01"},
        ),
        "m",
    )
    assert [price.since for price in history] == ["2026-01-01", "", "", ""]
    assert [price.hours for price in history] == ["", "16:30-00:30", "08:00-09:00", ""]
    over_night, morning = history[1], history[2]

    def during(price: Price) -> list[str]:
        """The minutes at which it begins or ends to hold."""
        valid = [price.is_valid(NEW_YEAR + minute * 60 + 59.9) for minute in range(1440)]
        return [f"{i // 60:02}:{i % 60:02}" for i in range(1440) if valid[i] != valid[i - 1]]

    assert during(over_night) == ["00:30", "16:30"]
    assert over_night.is_valid(NEW_YEAR)
    assert during(morning) == ["08:00", "09:00"]
    assert not morning.is_valid(NEW_YEAR)


def test_beyond_a_number_of_tokens_all_of_them_cost_more() -> None:
    [price] = found(
        table(
            {"model": "m", "over": 200, "input": 3},
            {"model": "m", "input": 1, "output": 5, "cached": 0.1},
            {"model": "m", "over": 100, "input": 2, "output": 7},
        ),
        "m",
    )
    thousands = [(r.input, r.output, r.cached) for r in map(price.rates_for, (0, 100, 101, 200, 201))]
    low, middle = (10**9, 5 * 10**9, 10**8), (2 * 10**9, 7 * 10**9, 10**8)
    assert thousands == [low, low, middle, middle, (3 * 10**9, 7 * 10**9, 10**8)]


def test_a_row_without_figures_says_that_no_price_is_known() -> None:
    assert [price.is_known for price in found(table({"model": "m"}, {"model": "*", "output": 0}), "m")] == [False, True]


def test_rows_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(PricesError) as caught:
        table(
            {"model": ["a", "b"], "input": 1},
            {"model": "B", "input": 2},
            {"model": "c", "over": 100, "input": 2},
            {"model": "a", "from": "2026-01-01", "over": 5, "input": 2},
            {"model": "c", "over": -1},
        )
    problems = caught.value.problems
    assert "price 2 says again what price 1 says of b" in problems
    assert any(problem.startswith("price 5: `over` needs a row of c without it") for problem in problems)
    assert any(problem.startswith("price 4: `over` needs a row of a without it") for problem in problems)
    assert len(problems) == 3


def test_a_users_document_is_looked_at_as_a_whole_and_ours_when_it_is_asked_for() -> None:
    with pytest.raises(PricesError, match="version"):
        table(version="")
    rows = {"x": [{"model": "m", "input": 1}], "y": [{"model": "m", "input": -1}]}
    data = json.dumps({"version": "a", "prices": rows}).encode()
    with pytest.raises(PricesError, match="y, price 1: `input`"):
        PriceTable(data, is_ours=False)
    ours = PriceTable(data, is_ours=True)
    assert len(found(ours, "m", vendor="x")) == 1


def test_all_histories_come_in_order() -> None:
    one = table(
        {"provider": "b", "model": ["z", "a"]}, {"provider": "a", "model": "m"}, {"provider": "b", "model": "b*"}
    )
    assert [(h[0].provider, h[0].model) for h in one.histories()] == [("b", "a"), ("b", "b*"), ("b", "z"), ("a", "m")]
