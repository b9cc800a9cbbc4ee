"""Combination of rounds: medians, pairs, what is left out, and when a run is called noisy."""

from __future__ import annotations

from bench.report import NOISY_OTHERS, Results, table
from bench.scenarios import SCENARIOS, Figures, Measurement, plan


def measured(
    contestant: str, values: list[float], name: str = "cpu_us", errors: list[str] | None = None
) -> list[Measurement]:
    return [
        Measurement("unary-1k", contestant, number, Figures({name: value}, errors or []))
        for number, value in enumerate(values)
    ]


def test_ratios_are_taken_round_by_round() -> None:
    # The machine slowed down in round 1; within each round the ratio is exactly 2.
    results = Results(measured("nginx", [10.0, 30.0, 11.0]) + measured("llm-proxy", [20.0, 60.0, 22.0]))
    ratio = results.ratio("unary-1k", "llm-proxy", "nginx")
    assert ratio is not None
    assert (ratio.median, ratio.least, ratio.most) == (2.0, 2.0, 2.0)


def test_added_latency_is_the_difference_to_direct() -> None:
    name = "first_byte_p50_us"
    results = Results(measured("direct", [50.0, 90.0], name) + measured("nginx", [80.0, 120.0], name))
    added = results.added("unary-1k", "nginx", name)
    assert added is not None and added.median == 30.0


def test_what_was_answered_wrong_has_no_figure() -> None:
    results = Results(measured("nginx", [10.0], errors=["status 502"]))
    assert results.spread("unary-1k", "nginx", "cpu_us") is None
    assert results.errors() == ["unary-1k, nginx: status 502"]


def test_noise_is_said() -> None:
    assert Results(measured("nginx", [10.0, 10.1])).noise() == []
    assert "rounds differ" in Results(measured("nginx", [10.0, 20.0])).noise()[0]
    assert "others used" in Results(measured("nginx", [NOISY_OTHERS * 2], "others_share")).noise()[0]


def test_the_table_shows_median_and_spread() -> None:
    text = table(Results(measured("nginx", [10.0, 12.0, 11.0]) + measured("splice", [22.0, 22.0, 22.0])))
    assert "11.0 (10.0..12.0)" in text
    assert "2.00" in text


def test_rounds_are_interleaved_and_turned_round() -> None:
    scenarios = [SCENARIOS["memory"], SCENARIOS["unary-1k"]]
    order = [(number, scenario.name, name) for number, scenario, name in plan(scenarios, ["a", "b"], 2)]
    assert order == [
        (0, "memory", "a"),
        (0, "memory", "b"),
        (0, "unary-1k", "a"),
        (0, "unary-1k", "b"),
        (1, "unary-1k", "b"),
        (1, "unary-1k", "a"),
    ]
