"""Combination of rounds: medians, pairs, what is left out, and when a run is called noisy."""

from __future__ import annotations

import pytest

from bench.results import NOISY_OTHERS, NOISY_STEAL, Results, Spread
from bench.scenarios import SCENARIOS, plan
from tests.bench.records import measured


def spread(*values: float) -> Spread:
    found = Spread.of(list(values))
    assert found is not None
    return found


def test_ratios_are_taken_round_by_round() -> None:
    # The machine slowed down in round 1; within each round the ratio is exactly 2.
    results = Results(measured("nginx", [10.0, 30.0, 11.0]) + measured("llm-proxy", [20.0, 60.0, 22.0]))
    ratio = results.ratio("unary-1k", "llm-proxy", "nginx")
    assert ratio is not None
    assert (ratio.median, ratio.least, ratio.most) == (2.0, 2.0, 2.0)


def test_a_round_that_one_of_them_lacks_is_in_no_pair() -> None:
    mine = measured("llm-proxy", [20.0, 500.0, 22.0])
    theirs = measured("nginx", [10.0]) + measured("nginx", [10.0, 10.0, 11.0])[2:]
    ratio = Results(mine + theirs).ratio("unary-1k", "llm-proxy", "nginx")
    assert ratio is not None and (ratio.rounds, ratio.most) == (2, 2.0)


def test_nothing_is_a_multiple_of_nothing() -> None:
    results = Results(measured("nginx", [0.0]) + measured("llm-proxy", [20.0]))
    assert results.ratio("unary-1k", "llm-proxy", "nginx") is None


def test_scenarios_are_compared_within_a_round_too() -> None:
    few, many = measured("a", [10.0, 20.0], scenario="paced-50"), measured("a", [11.0, 22.0], scenario="paced-5000")
    across = Results(few + many).across("a", "cpu_us", "paced-5000", "paced-50")
    assert across is not None and across.rounds == 2
    assert across.least == pytest.approx(1.1)
    assert across.most == pytest.approx(1.1)


def test_added_latency_is_the_difference_to_direct() -> None:
    name = "first_byte_p50_us"
    results = Results(measured("direct", [50.0, 90.0], name) + measured("nginx", [80.0, 120.0], name))
    added = results.added("unary-1k", "nginx", name)
    assert added is not None and added.median == 30.0


def test_what_was_answered_wrong_has_no_figure() -> None:
    results = Results(measured("nginx", [10.0], errors=["status 502"]))
    assert results.spread("unary-1k", "nginx", "cpu_us") is None
    assert results.errors() == ["unary-1k, nginx: status 502"]


def test_the_middle_half_is_known_from_five_rounds_on() -> None:
    five, four = spread(1.0, 2.0, 3.0, 4.0, 100.0), spread(1.0, 2.0, 3.0, 100.0)
    assert (five.least, five.lower, five.median, five.upper, five.most) == (1.0, 2.0, 3.0, 4.0, 100.0)
    assert (four.lower, four.upper) == (1.0, 100.0)
    assert five.as_dict() == {"rounds": 5, "median": 3.0, "min": 1.0, "max": 100.0, "q1": 2.0, "q3": 4.0}
    assert "q1" not in four.as_dict()


def test_quiet_rounds_are_sure_of_their_middle_half() -> None:
    assert spread(90.0, 99.0, 100.0, 101.0, 150.0).sure() == (99.0, 101.0)


def test_rounds_that_differ_much_are_sure_of_less_than_all_of_them() -> None:
    wide = spread(60.0, 70.0, 100.0, 130.0, 140.0)
    assert wide.is_wide and wide.sure() == (47.5, 152.5)


def test_few_rounds_are_sure_of_little() -> None:
    assert spread(100.0).sure() == (87.5, 112.5)
    assert spread(100.0, 102.0).sure() == (100.0 - 101 / 8, 102.0 + 101 / 8)
    assert spread(100.0, 101.0, 102.0).sure() == (100.0, 102.0)


def test_noise_is_said() -> None:
    assert Results(measured("nginx", [10.0, 10.1])).noise() == []
    assert "rounds differ" in Results(measured("nginx", [10.0, 20.0])).noise()[0]
    others = measured("nginx", [1.0, 1.0, 1.0], others_share=NOISY_OTHERS / 2)
    for each in others[1:]:
        each.figures.numbers["others_share"] = NOISY_OTHERS * 2
    assert Results(others).noise() == [
        "others used more than 10% of this machine in 2 of 3 measurements (most: 20%): unary-1k in rounds 2, 3"
    ]
    assert "the hypervisor took" in Results(measured("nginx", [1.0], steal_share=NOISY_STEAL * 2)).noise()[0]


def test_a_single_outlier_among_many_rounds_is_no_noise() -> None:
    assert Results(measured("nginx", [10.0, 10.1, 10.2, 10.1, 10.0, 10.1, 30.0])).noise() == []


def test_disturbed_rounds_are_known_with_their_reason() -> None:
    stolen = measured("nginx", [1.0], steal_share=0.07, others_share=0.3)
    used = measured("llm-proxy", [1.0, 1.0], others_share=0.3)
    results = Results([*stolen, *used, *measured("splice", [1.0, 1.0], others_share=0.09)])
    assert results.disturbed("unary-1k", "cpu_us", "splice") == {}
    assert results.disturbed("unary-1k", "cpu_us", "nginx", "llm-proxy") == {
        0: "the hypervisor took 7%",
        1: "others used 30%",
    }
    assert results.disturbed("unary-1k", "rest_mib", "nginx", "llm-proxy") == {}


def test_contestants_keep_the_order_of_their_first_round() -> None:
    first, second = measured("b", [1.0, 1.0]), measured("a", [1.0, 1.0])
    results = Results([first[0], second[0], second[1], first[1], *measured("c", [1.0], scenario="paced")])
    assert results.contestants() == ["b", "a", "c"]
    assert results.contestants("paced") == ["c"]


def test_rounds_are_interleaved_and_turned_round() -> None:
    scenarios = [SCENARIOS["unary-1k"]]
    order = [(number, name) for number, _, name in plan(scenarios, ["a", "b"], 2)]
    assert order == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]
