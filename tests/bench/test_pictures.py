"""Which charts there are for which figures, and that they show these."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from bench.pictures import FEATURES, MEMORY, OVERVIEW, STREAMS, STREAMS_NEAR, feature_prices, pictures, stream_scenarios
from bench.record import Record
from bench.results import Results
from bench.table import cell
from tests.bench.records import ABOUT, made_up, many, measured


def test_there_is_a_chart_for_everything_that_was_measured() -> None:
    assert set(pictures(made_up(features=True))) == {
        OVERVIEW,
        MEMORY,
        STREAMS,
        STREAMS_NEAR,
        FEATURES,
        *(f"cpu-{scenario}.svg" for scenario in ABOUT if scenario != "memory"),
        "latency-unary-1k-first-byte.svg",
        "latency-short-streams-first-event.svg",
    }


def test_there_is_none_for_what_was_not() -> None:
    assert pictures(made_up(scenarios=())) == {}
    assert set(pictures(made_up(scenarios=("paced",)))) == {OVERVIEW, "cpu-paced.svg"}
    assert set(pictures(made_up(scenarios=("memory",)))) == {MEMORY}


@pytest.mark.parametrize("rounds", [1, 2, 7])
@pytest.mark.parametrize("gateways", [0, 11])
def test_each_is_well_formed(rounds: int, gateways: int) -> None:
    for name, picture in pictures(made_up(rounds, many(gateways), features=True)).items():
        assert ElementTree.fromstring(picture).tag.endswith("svg"), name


def texts(picture: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(picture).iter() if each.tag.endswith("text")]


def test_the_overview_has_every_contestant_but_no_features_and_the_values_of_the_table() -> None:
    record = made_up(features=True)
    said = texts(pictures(record)[OVERVIEW])
    for name in ("splice", "nginx", "llm-proxy", "a-router-in-rust"):
        assert said.count(name) == 2, name
        for scenario in ("unary-1k", "paced"):
            assert cell(record.results.spread(scenario, name, "cpu_us")) in said
    assert not any("without" in text for text in said)
    assert any("2026-11-26, Abacus 3000, 2 cores." in text for text in said)
    assert said.index("splice") < said.index("llm-proxy") < said.index("a-router-in-rust"), "cheapest first"


def test_what_was_answered_wrong_is_not_drawn() -> None:
    record = made_up()
    for each in record.results.measurements:
        if each.contestant == "nginx":
            each.figures.errors.append("status 502")
    assert all("nginx" not in texts(picture) for picture in pictures(record).values())


def test_streams_are_counted_as_they_were() -> None:
    assert stream_scenarios(made_up(rounds=1)) == [(50, "paced-50"), (200, "paced"), (5000, "paced-5000")]
    quick = made_up(rounds=1, settings={"paced_streams": 50, "streams_share": 0.1, "rounds": 1})
    assert stream_scenarios(quick) == [(5, "paced-50"), (50, "paced"), (500, "paced-5000")]


def test_lines_have_a_point_for_each_number_of_streams() -> None:
    drawn = pictures(made_up())
    assert {"50", "200", "5,000"} <= set(texts(drawn[STREAMS]))
    assert len(re.findall("<circle", drawn[STREAMS_NEAR])) == 3 * 3  # splice, nginx, ours
    assert len(re.findall("<circle", drawn[STREAMS])) == 5 * 3


def test_latency_shows_all_quantiles_in_order_and_direct_too() -> None:
    picture = pictures(made_up())["latency-unary-1k-first-byte.svg"]
    said = texts(picture)
    assert "direct" in said and any("p50, p90, p99" in text for text in said)
    assert any(re.fullmatch(r"p50 \S+ · p99 \S+", text) for text in said)


def test_a_price_is_what_is_saved_within_each_round() -> None:
    results = Results(measured("llm-proxy", [20.0, 40.0]) + measured("without-ledger", [18.0, 38.0]))
    record = made_up(rounds=1, features=True)
    price = feature_prices(Record(record.runs, record.contestants, results))["unary-1k"]["without-ledger"]
    assert (price.median, price.least, price.most) == (2.0, 2.0, 2.0)


def test_features_are_drawn_dearest_first_and_those_that_save_nothing_the_other_way() -> None:
    said = texts(pictures(made_up(features=True))[FEATURES])
    places = [said.index(name) for name in ("without-limits", "without-ledger", "without-metering")]
    assert places == sorted(places)
    assert any(text.startswith("-") for text in said), "without-metering is dearer here"
