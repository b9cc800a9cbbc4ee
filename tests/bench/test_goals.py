"""Verdicts: what is met, missed, or cannot be told; who is ahead of whom."""

from __future__ import annotations

import pytest

from bench.goals import (
    ABOVE,
    BELOW,
    FIELDS,
    GOALS,
    MET,
    MISSED,
    UNMEASURED,
    UNTOLD,
    apart,
    beside,
    by_how_much,
    places,
    reached,
)
from bench.record import OURS, Record
from bench.results import Results, Spread
from bench.scenarios import SCENARIOS
from tests.bench.records import made_up, many


def spread(*values: float) -> Spread:
    found = Spread.of(list(values))
    assert found is not None
    return found


QUIET = spread(99.0, 100.0, 100.0, 101.0, 102.0)


@pytest.mark.parametrize(("bound", "word"), [(103.0, BELOW), (101.0, BELOW), (100.5, UNTOLD), (98.0, ABOVE)])
def test_a_figure_is_beside_a_bound_only_if_its_middle_half_is(bound: float, word: str) -> None:
    assert beside(QUIET, bound, {}).word == word


def test_a_disturbed_run_tells_nothing_and_says_which_rounds() -> None:
    disturbed = dict.fromkeys((0, 2, 3), "others used 30%")
    for bound in (10.0, 103.0, 200.0):
        found = beside(QUIET, bound, disturbed)
        assert found == (UNTOLD, "too noisy: others used 30% in rounds 1, 3, 4")
        assert apart(QUIET, bound, disturbed) == UNTOLD
    del disturbed[0]
    assert beside(QUIET, 103.0, disturbed).word == BELOW, "fewer than half"
    assert apart(QUIET, 103.0, disturbed) == BELOW


def test_rounds_that_differ_much_tell_little() -> None:
    found = beside(spread(60.0, 70.0, 100.0, 130.0, 140.0), 150.0, {})
    assert (found.word, found.why) == (UNTOLD, "too noisy: rounds differ by 60%, more than 25%")


def test_one_round_says_so() -> None:
    assert beside(spread(100.0), 200.0, {}) == (BELOW, "one round only")
    assert beside(spread(100.0), 105.0, {}) == (UNTOLD, "one round only")


def test_how_much_is_missed() -> None:
    assert by_how_much(1.75, 1.6) == "by 9%"
    assert by_how_much(12.0, 1.6) == "7.5 times the goal"


def verdicts(record: Record) -> dict[str, str]:
    return {each.goal.name: each.verdict.word for each in reached(record)}


def test_each_goal_gets_its_verdict() -> None:
    found = verdicts(made_up())
    assert found["request, 1 KB answer: CPU"] == MET  # 23.0 / 15.1 = 1.52
    assert found["back-to-back event: CPU"] == MISSED  # 1.19
    assert found["request: added first byte, p50"] == MET  # 88 us
    assert found["event in 5,000 streams beside 50: CPU"] == MET
    assert found["at rest: memory"] == MET
    assert found["open idle stream, TLS on both sides: memory"] == UNMEASURED


def test_a_goal_looks_at_what_it_names() -> None:
    """Each kind of figure by hand, from the made-up costs."""
    found = {each.goal.name: each.measured for each in reached(made_up(rounds=1))}
    for name, value in (
        ("request, 1 KB answer: CPU", 23.0 / 15.1),
        ("paced event: CPU", 11.9 / 9.7),
        ("stream: added first event, p50", 88.0),
        ("open idle stream, plain TCP: memory", 9.1),
        ("start to ready", 5 * 38.2),
        ("event in 5,000 streams beside 50: CPU", 1.0),
    ):
        measured = found[name]
        assert measured is not None and measured.median == pytest.approx(value, rel=0.05), name


def test_answers_that_were_wrong_reach_no_goal() -> None:
    record = made_up()
    for each in record.results.measurements:
        if each.contestant == OURS and each.scenario == "unary-1k":
            each.figures.errors.append("status 502")
    assert verdicts(record)["request, 1 KB answer: CPU"] == UNMEASURED


def test_who_is_exactly_alike_is_neither_ahead_nor_behind() -> None:
    assert apart(spread(1.0, 1.0, 1.0), 1.0, {}) == UNTOLD
    assert beside(spread(1.0, 1.0, 1.0), 1.0, {}).word == BELOW, "a bound may be reached"
    assert [apart(spread(*values), 1.0, {}) for values in ((0.9, 0.99, 0.95), (1.1, 1.01, 1.2))] == [BELOW, ABOVE]


def test_noise_takes_what_is_measured_in_time_and_leaves_memory() -> None:
    record = made_up()
    for each in record.results.measurements:
        if each.figures.numbers:
            each.figures.numbers["others_share"] = 0.4
    found = verdicts(record)
    told = {name for name, word in found.items() if word not in (UNTOLD, UNMEASURED)}
    assert told == {"at rest: memory"}
    fields = {place.field.name: place.verdict.word for place in places(record)}
    assert {name for name, word in fields.items() if word == "ahead of all"} == {
        "memory per open stream",
        "memory at rest",
    }


def test_goals_and_fields_name_scenarios_that_there_are() -> None:
    assert len({goal.name for goal in GOALS}) == len(GOALS)
    named = {goal.scenario for goal in GOALS} | {goal.base for goal in GOALS} | {field.scenario for field in FIELDS}
    assert named - {""} <= set(SCENARIOS)


def test_we_are_ahead_of_those_who_are_surely_slower() -> None:
    found = {place.field.name: place for place in places(made_up(more=many(3)))}
    place = found["CPU per request"]
    assert [name for name, _ in place.order][:2] == [OURS, "gateway-with-a-long-name-00"]
    assert place.verdict == ("ahead of all", "5")
    assert "nginx" not in dict(place.order), "who moves bytes is no gateway"


def test_we_are_behind_those_who_are_surely_faster_and_say_whom() -> None:
    faster, same = (20.0, 5.0, 10.0, 1.0, 10.0), (23.0, 11.9, 88.0, 9.1, 38.2)
    found = {place.field.name: place for place in places(made_up(more={"faster": faster, "same": same}))}
    for field in ("CPU per request", "CPU per event", "added first event, p50", "memory per open stream"):
        assert found[field].verdict == ("behind", "faster"), field
        assert found[field].untold == ["same"], field
    found = {place.field.name: place for place in places(made_up(more={"same": same}))}
    assert found["CPU per event"].verdict == (UNTOLD, "same")


def test_without_a_gateway_there_are_no_places() -> None:
    record = made_up()
    plain = [each for each in record.results.measurements if record.role(each.contestant) != "gateway"]
    assert places(Record(record.runs, record.contestants, Results(plain))) == []
