"""What is known of targets, and who of several is asked: by weight, less where it is slow, never where it is open."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.breaker import BreakerOptions, State
from proxy.policy.health import Candidate, Health, TargetHealth, choose

NOW = 1000.0
NAMES = ("a", "b", "c", "d", "e")


def group(*weights: int) -> list[Candidate]:
    return [Candidate(weight, TargetHealth(), ("own", name)) for name, weight in zip(NAMES, weights)]


def open_up(candidate: Candidate, now: float = NOW) -> None:
    for _ in range(5):
        candidate.health.breaker.fail(now, False)


def drawn(candidates: list[Candidate], times: int = 10_000, now: float = NOW) -> list[float]:
    """The share of each, where nothing changes in between."""
    chance = random.Random(7).random
    counts = Counter(choose(candidates, now, chance) for _ in range(times))
    return [counts[at] / times for at in range(len(candidates))]


# -- one target -------------------------------------------------------------------------------------------------------


def test_what_begins_is_in_flight_until_it_ends() -> None:
    health = TargetHealth()
    assert [health.begin(NOW), health.begin(NOW)] == [False, False]
    assert health.in_flight == 2
    health.end(NOW, False, True)
    health.end(NOW, False, None)
    assert health.in_flight == 0


def test_faults_open_the_breaker_and_what_says_nothing_does_not() -> None:
    health = TargetHealth(BreakerOptions(consecutive=2))
    for is_good in (False, True, False, None):
        health.begin(NOW)
        health.end(NOW, False, is_good)
    assert health.breaker.is_closed
    health.begin(NOW)
    health.end(NOW, False, False, 30.0)
    assert health.breaker.retry_in(NOW) == 30.0


def test_the_first_event_of_a_probe_is_its_success() -> None:
    health = TargetHealth(BreakerOptions(consecutive=1))
    health.begin(NOW)
    health.end(NOW, False, False)
    is_probe = health.begin(NOW + 5)
    assert is_probe
    health.first_event(0.5, NOW + 6, is_probe)
    assert health.breaker.state(NOW + 6) is State.WARMING
    health.end(NOW + 600, is_probe, True)
    assert health.breaker.is_closed


def test_a_client_that_leaves_gives_the_place_of_a_probe_back() -> None:
    health = TargetHealth(BreakerOptions(consecutive=1))
    health.begin(NOW)
    health.end(NOW, False, False)
    health.end(NOW + 6, health.begin(NOW + 5), None)
    assert health.breaker.may(NOW + 6)


def test_a_slow_answer_counts_at_once_and_fades() -> None:
    health = TargetHealth()
    assert health.latency is None
    for at, (seconds, latency) in enumerate([(1.0, 1.0), (4.0, 4.0), (1.0, 3.715), (1.0, 3.456)]):
        health.first_event(seconds, NOW + at)
        assert health.latency == pytest.approx(latency, abs=0.001)
    health.first_event(1.0, NOW + 60)
    assert health.latency == pytest.approx(1.0, abs=0.02)


def test_many_samples_in_a_moment_weigh_no_more_than_the_moment() -> None:
    health = TargetHealth()
    health.first_event(4.0, NOW)
    for _ in range(1000):
        health.first_event(1.0, NOW)
    assert health.latency == 4.0


def test_what_was_measured_long_ago_fades_to_the_best_and_never_below() -> None:
    health = TargetHealth()
    assert health.expected(NOW, 0.5) == 0.5
    health.first_event(4.5, NOW)
    assert health.expected(NOW, 0.5) == 4.5
    assert health.expected(NOW + 10, 0.5) == pytest.approx(0.5 + 4 / 2.71828, abs=0.001)
    assert 0.5 <= health.expected(NOW + 1e6, 0.5) <= 0.501
    assert health.expected(NOW - 100, 0.5) == 4.5  # a clock that goes back


def test_a_percentile_is_known_from_twenty_on_and_of_the_last_sixty_four() -> None:
    health = TargetHealth()
    for number in range(1, 21):
        assert health.p95() is None
        health.first_event(float(number), NOW)
    assert health.p95() == 19.0
    for number in range(21, 101):
        health.first_event(float(number), NOW)
    assert health.p95() == 97.0  # of 37 to 100
    health.first_event(1000.0, NOW)
    assert health.p95() == 98.0


@given(st.lists(st.floats(0.001, 100), min_size=20, max_size=200))
def test_a_percentile_is_that_of_the_last_latencies(latencies: list[float]) -> None:
    health = TargetHealth()
    for seconds in latencies:
        health.first_event(seconds, NOW)
    last = latencies[-64:]
    found = health.p95()
    assert found in last
    assert sum(each <= found for each in last) >= 0.95 * len(last)
    assert sum(each < found for each in last) < 0.95 * len(last)
    assert len(health._streams) <= 64


# -- all targets ------------------------------------------------------------------------------------------------------


def test_a_target_is_the_same_each_time() -> None:
    health = Health(BreakerOptions(consecutive=1))
    one = health.of(("own", "a"))
    assert health.of(("own", "a")) is one
    assert health.of(("own", "b")) is not one
    assert [key for key, _ in health.items()] == [("own", "a"), ("own", "b")]
    one.breaker.fail(NOW, False)
    assert not one.breaker.is_closed  # the options are handed on


def test_targets_are_bounded_and_those_in_use_or_open_are_kept() -> None:
    health = Health()
    used = health.of(("own", "used"))
    used.begin(NOW)
    bad = health.of(("own", "bad"))
    bad.breaker.fail(NOW, False, 100.0)
    for number in range(25_000):
        health.of(("own", str(number)))
        assert len(list(health.items())) <= 10_000 if number % 1000 == 0 else True
    assert health.of(("own", "used")) is used
    assert health.of(("own", "bad")) is bad
    assert len(list(health.items())) <= 10_000


# -- who is asked -----------------------------------------------------------------------------------------------------


def test_one_of_one_is_asked_without_a_draw_and_nobody_if_it_is_open() -> None:
    (only,) = candidates = group(1)
    assert choose(candidates, NOW, lambda: 1 / 0) == 0
    open_up(only)
    assert choose(candidates, NOW, lambda: 1 / 0) is None
    assert choose([], NOW, lambda: 1 / 0) is None


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (99, 1), (1, 2, 3), (10, 1, 1, 10, 8)])
@pytest.mark.parametrize("load", ["idle", "measured", "even", "noisy"])
def test_the_shares_follow_the_weights_while_all_are_about_as_good(weights: tuple[int, ...], load: str) -> None:
    candidates = group(*weights)
    for at, each in enumerate(candidates):
        if load in ("measured", "noisy"):
            each.health.first_event(0.5 if load == "measured" else 0.5 + 0.1 * at, NOW)
        if load == "even":
            each.health.in_flight = 4 * each.weight
    for share, weight in zip(drawn(candidates), weights):
        expected = weight / sum(weights)
        deviation = (expected * (1 - expected) / 10_000) ** 0.5
        assert abs(share - expected) < 4 * deviation


def test_a_weight_of_zero_is_never_chosen() -> None:
    assert drawn(group(0, 1, 1), 100)[0] == 0.0
    assert choose(group(0), NOW, random.random) is None


def test_an_open_one_gets_nothing() -> None:
    candidates = group(5, 1, 1)
    open_up(candidates[0])
    assert drawn(candidates)[0] == 0.0
    open_up(candidates[1])
    assert drawn(candidates, 100) == [0.0, 0.0, 1.0]
    open_up(candidates[2])
    assert choose(candidates, NOW, random.random) is None


def test_a_slow_one_gets_less_and_is_tried_again_some_day() -> None:
    candidates = group(1, 1, 1)
    for each, seconds in zip(candidates, (5.0, 0.5, 0.5)):
        each.health.first_event(seconds, NOW)
    assert drawn(candidates) == pytest.approx([0.0, 0.5, 0.5], abs=0.03)
    assert drawn(candidates, now=NOW + 60)[0] == pytest.approx(1 / 3, abs=0.03)


def test_a_crowded_one_gets_less() -> None:
    candidates = group(1, 1)
    candidates[0].health.in_flight = 10
    assert drawn(candidates) == [0.0, 1.0]
    candidates = group(10, 1)  # as much as its weight allows
    candidates[0].health.in_flight, candidates[1].health.in_flight = 10, 1
    assert drawn(candidates)[0] > 0.8


def test_one_that_nobody_has_measured_counts_as_the_best() -> None:
    candidates = group(1, 1, 1)
    candidates[0].health.first_event(5.0, NOW)
    candidates[1].health.first_event(0.5, NOW)
    assert drawn(candidates)[2] > 0.4


def test_one_that_is_due_for_a_probe_is_not_starved() -> None:
    candidates = group(1, 1)
    candidates[0].health.first_event(60.0, NOW)
    candidates[1].health.first_event(0.1, NOW)
    open_up(candidates[0])
    assert drawn(candidates, 100, NOW + 5) == [1.0, 0.0]  # whoever is drawn first
    assert candidates[0].health.begin(NOW + 5)
    assert drawn(candidates, 100, NOW + 5) == [0.0, 1.0]  # while it runs


def test_one_that_has_recovered_begins_with_little() -> None:
    candidates = group(1, 1)
    open_up(candidates[0])
    health = candidates[0].health
    health.end(NOW + 5, health.begin(NOW + 5), True)
    shares = [drawn(candidates, now=NOW + seconds)[0] for seconds in (5.0, 10.0, 15.0)]
    assert shares == pytest.approx([0.09, 0.35, 0.5], abs=0.03)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.integers(0, 50), st.floats(0.01, 60)), max_size=5),
    st.floats(0, 1),
    st.sampled_from([None, b"", b"x"]),
)
def test_whoever_is_chosen_may_be_asked_whatever_chance_says(
    rows: list[tuple[int, bool, int, float]], chance: float, sticky: bytes | None
) -> None:
    """Also if chance says 1, which it should not."""
    candidates = group(*(weight for weight, *_ in rows))
    for each, (_, is_open, in_flight, seconds) in zip(candidates, rows):
        each.health.in_flight = in_flight
        each.health.first_event(seconds, NOW - 1)
        if is_open:
            open_up(each)
    able = {at for at, (weight, is_open, *_) in enumerate(rows) if weight and not is_open}
    found = choose(candidates, NOW, lambda: chance, sticky)
    assert found in able if able else found is None


def serve(weights: tuple[int, ...], seconds: tuple[float, ...], rate: float, times: int) -> list[float]:
    """Requests that come at random and take so long at each target: the share that each has got."""
    dice = random.Random(7)
    candidates = group(*weights)
    running: list[tuple[float, float, int]] = []
    counts = Counter[int]()
    now = NOW
    for _ in range(times):
        now += dice.expovariate(rate)
        while running and running[0][0] <= now:
            ended, began, at = heapq.heappop(running)
            candidates[at].health.first_event(ended - began, ended)
            candidates[at].health.end(ended, False, True)
        chosen = choose(candidates, now, dice.random)
        assert chosen is not None
        candidates[chosen].health.begin(now)
        counts[chosen] += 1
        heapq.heappush(running, (now + seconds[chosen] * dice.uniform(0.8, 1.25), now, chosen))
    return [counts[at] / times for at in range(len(weights))]


@pytest.mark.parametrize("rate", [0.01, 1.0, 50.0])
def test_served_over_time_the_shares_follow_the_weights(rate: float) -> None:
    assert serve((3, 1), (1.0, 1.0), rate, 8000) == pytest.approx([0.75, 0.25], abs=0.05)
    assert serve((1, 1, 2), (1.0, 1.0, 1.0), rate, 8000) == pytest.approx([0.25, 0.25, 0.5], abs=0.05)


@pytest.mark.parametrize("rate", [1.0, 50.0])
def test_served_over_time_a_slow_one_gets_less(rate: float) -> None:
    slow, fast = serve((1, 1), (10.0, 1.0), rate, 5000)
    assert 0.0 < slow < 0.15
    assert slow + fast == pytest.approx(1.0)


# -- sticky -----------------------------------------------------------------------------------------------------------

VALUES = [f"conversation {number}".encode() for number in range(4000)]


def homes(candidates: list[Candidate]) -> list[str | None]:
    found = [choose(candidates, NOW, lambda: 1 / 0, value) for value in VALUES]
    return [None if at is None else candidates[at].key[1] for at in found]


def test_the_same_value_goes_to_the_same_target_whatever_the_load() -> None:
    candidates = group(1, 1, 1)
    before = homes(candidates)
    candidates[0].health.in_flight = 100
    candidates[1].health.first_event(60.0, NOW)
    assert homes(candidates) == before
    assert homes(candidates[::-1]) == before  # nor does their order matter


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 2, 3)])
def test_values_are_spread_by_weight(weights: tuple[int, ...]) -> None:
    counts = Counter(homes(group(*weights)))
    for name, weight in zip(NAMES, weights):
        assert counts[name] / len(VALUES) == pytest.approx(weight / sum(weights), abs=0.03)


@pytest.mark.parametrize("how", ["removed", "open"])
def test_only_those_move_whose_target_is_gone(how: str) -> None:
    candidates = group(1, 2, 3, 4)
    before = homes(candidates)
    if how == "removed":
        del candidates[2]
    else:
        open_up(candidates[2])
    after = homes(candidates)
    assert all(was == now for was, now in zip(before, after) if was != "c")
    assert "c" not in after
    moved = Counter(now for was, now in zip(before, after) if was == "c")
    assert moved["a"] < moved["b"] < moved["d"]


def test_more_weight_only_draws_values_towards_it() -> None:
    for few, many in pairwise([1, 2, 5, 20]):
        for was, now in zip(homes(group(3, few)), homes(group(3, many))):
            assert was == now or now == "b"


def test_streams_and_documents_have_latencies_of_their_own() -> None:
    health = TargetHealth()
    for _ in range(20):
        health.first_event(0.1, NOW)
    assert (health.p95(), health.p95(is_stream=False)) == (0.1, None)
    for _ in range(20):
        health.first_event(5.0, NOW, is_stream=False)
    assert (health.p95(), health.p95(is_stream=False)) == (0.1, 5.0)
