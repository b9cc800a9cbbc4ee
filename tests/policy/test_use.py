"""What is shown of limits is what the next request would find, and looking changes nothing."""

from __future__ import annotations

import pytest

from proxy.policy.counters import MemoryStore
from proxy.policy.limits import Hold, Limiter
from proxy.policy.rules import MICROS, parse_rules
from proxy.policy.use import Use, reserved_by, use_of
from tests.policy.test_limits import NOW, ONE, SECOND, costing, limiter, passes, window_end

HOUR = 3600 * SECOND


def use(limiter: Limiter, scope: str = "key ci", now: int = NOW) -> Use:
    found = use_of(limiter, scope, now, reserved_by(limiter.open))
    assert found is not None
    return found


def taken(limiter: Limiter, micros: int = 0, input: int = 0, now: int = NOW) -> Hold:
    hold = limiter.take(limiter.chain("ci", None, (), None), costing(micros, input), now)
    assert isinstance(hold, Hold)
    return hold


def test_nothing_is_limited_where_there_are_no_rules() -> None:
    made = limiter(all="rpm=5")
    assert use_of(made, "key ci", NOW, {}) is None
    assert made.scopes() == ["all"]


def test_looking_makes_no_counter_and_changes_none() -> None:
    store = MemoryStore()
    made = Limiter(store, window_end)
    made.set_rules("key ci", parse_rules("rpm=5 1usd/day concurrent=2"))
    first = use(made)
    assert store.peek("key ci rpm") is store.peek("key ci usd/day") is None
    [rate], [budget] = first.rates, first.budgets
    assert (rate.left, rate.full_at) == (5, NOW)
    assert (budget.spent, budget.reserved, budget.left) == (0, 0, 10**6)
    assert budget.ends_at == window_end("day", NOW)
    assert (first.running, first.rules.concurrent) == (0, 2)


@pytest.mark.parametrize("text", ["rpm=60", "rpm=60/5", "rps=3", "rpd=7"])
def test_as_many_pass_as_a_rate_has_left(text: str) -> None:
    made = limiter(key_ci=text)
    chain = made.chain("ci", None, (), None)
    (rule,) = parse_rules(text).rates
    for used in range(rule.burst):
        [rate] = use(made).rates
        assert rate.left == rule.burst - used
        assert passes(made, chain)
    [rate] = use(made).rates
    assert rate.left == 0 and not passes(made, chain)
    assert use(made, now=rate.full_at).rates[0].left == rule.burst
    assert use(made, now=rate.full_at - SECOND // 1000).rates[0].left == rule.burst - 1


def test_what_runs_is_reserved_and_part_of_what_is_spent() -> None:
    made = limiter(key_ci="10usd/day 1ktokens/hour concurrent=3", all="20usd/day")
    first, second = taken(made, 2_000_000, 100), taken(made, 3_000_000, 50)
    dollars, tokens = use(made).budgets
    assert (dollars.spent, dollars.reserved, dollars.left) == (5_000_000, 5_000_000, 5_000_000)
    assert (tokens.spent, tokens.reserved, tokens.left) == (150, 150, 850)
    assert use(made).running == 2
    first.settle((1, 60, 50, 10, 1_000_000))
    dollars, tokens = use(made).budgets
    assert (dollars.spent, dollars.reserved, tokens.spent, tokens.reserved) == (4_000_000, 3_000_000, 110, 50)
    assert use(made, "all").budgets[0].reserved == 3_000_000
    first.release()
    second.settle(None)  # nobody knows: what was charged stands, and is reserved no longer
    dollars, _ = use(made).budgets
    assert (dollars.spent, dollars.reserved) == (4_000_000, 0)
    assert made.open == set() and use(made).running == 1


def test_a_window_that_has_ended_is_shown_as_the_next_request_would_find_it() -> None:
    made = limiter(key_ci="10usd/hour")
    taken(made, 2_000_000)
    later = use(made, now=NOW + HOUR).budgets[0]
    assert (later.spent, later.reserved, later.ends_at) == (0, 0, NOW + 2 * HOUR)
    made.carried = {("key ci", MICROS): 7}
    assert use(made, now=NOW + HOUR).budgets[0].spent == 7
    taken(made, 1_000_000, now=NOW + HOUR)
    now = use(made, now=NOW + HOUR).budgets[0]
    assert (now.spent, now.reserved) == (1_000_007, 1_000_000)  # the one of before is in its own window


def test_a_total_never_ends_and_nothing_is_less_than_nothing_left() -> None:
    made = limiter(key_ci="1usd/total:warn")
    taken(made, 3_000_000)
    [budget] = use(made).budgets
    assert (budget.spent, budget.left, budget.ends_at) == (3_000_000, 0, None)


def test_requests_without_budgets_reserve_nothing() -> None:
    made = limiter(key_ci="rpm=5")
    assert isinstance(made.take(made.chain("ci", None, (), None), ONE, NOW), Hold)
    assert made.open == set()
