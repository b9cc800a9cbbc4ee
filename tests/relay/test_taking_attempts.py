"""What several attempts of one exchange take of its limits, and of those of single targets, and what comes back."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.prices import Prices
from proxy.outcome import Failure, Usage
from proxy.policy.limits import Hold, Refusal
from proxy.relay.taking import Taking
from tests.relay import stage as s
from tests.relay.stage import FakeCounter, FoundTokens, Peer, Stage
from tests.relay.targets import BUSY, ERROR, asks, stage_of
from tests.relay.test_attempts_hedging import ANSWER, PASSED, hedged
from tests.relay.test_taking import PRICES, fields_of


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


OWN = {"provider a": "rpd=1000 1Gtokens/total concurrent=50", "model b/two": "rpd=1000 1Gtokens/total"}
ALL = {"all": "rpd=1000 1Gtokens/total concurrent=50", "model m": "rpd=1000"}
SCOPES = {"a": "provider a", "b": "model b/two"}


def requests(stage: Stage, scope: str) -> int:
    """What a scope's rate says, at the moment in which all of it happened."""
    (rate,) = stage.admission.limiter.rules(scope).rates
    return stage.admission.limiter.ahead(scope, rate, stage.relay.wall()) // rate.step


def tokens(stage: Stage, scope: str) -> int:
    (budget,) = stage.admission.limiter.rules(scope).budgets
    return stage.admission.limiter.spent(scope, budget, s.EPOCH)[0]


class Try(NamedTuple):
    """An attempt at target number `at`."""

    at: int
    common: Hold
    own: Hold | None


def taking_of(stage: Stage) -> tuple[Taking, Try]:
    """What an exchange takes, and what its first attempt has, which waits for its link. From then on the test makes the
    attempts."""
    asks(stage)
    exchange = s.exchange_of(stage.clients[0])
    stake = exchange.attempts.current.stake
    common, own = stake.common, stake.own
    stake.holds()
    return exchange.taking, Try(0, common, own)


def again(stage: Stage, taking: Taking, at: int) -> Try:
    targets = s.exchange_of(stage.clients[0]).taking._plan.targets
    found = taking.attempt(targets[at])
    assert not isinstance(found, Refusal | Failure), found
    return Try(at, *found)


def settle(taking: Taking, tried: Try, outcome: tuple[int, int] | bool) -> None:
    """(input, output): so much was used; True: surely nothing was; False: nobody knows."""
    usage = None if isinstance(outcome, bool) else Usage(input=outcome[0], output=outcome[1])
    for hold in (tried.common, tried.own)[:: -1 if tried.at else 1]:  # in whichever order
        if hold is not None:
            taking.settle(hold, usage, None, outcome is not False)


def test_an_attempt_that_cost_nothing_hands_its_hold_on() -> None:
    with stage_of(rules=ALL, holds_connects=True) as stage:
        taking, first = taking_of(stage)
        reserved = tokens(stage, "all")
        settle(taking, first, True)
        assert tokens(stage, "all") == reserved, "for the next one"
        second = again(stage, taking, 1)
        assert second.common is first.common
        settle(taking, second, (10, 5))
        assert (tokens(stage, "all"), requests(stage, "all")) == (15, 1)
        stage.clients[0].resets()


def test_one_that_may_have_cost_something_keeps_it_and_the_next_takes_its_own() -> None:
    with stage_of(rules=ALL, holds_connects=True) as stage:
        taking, first = taking_of(stage)
        reserved = tokens(stage, "all")
        second = again(stage, taking, 1)
        assert second.common is not first.common
        assert tokens(stage, "all") == 2 * reserved
        assert (requests(stage, "all"), requests(stage, "model m")) == (1, 1), "and is no other request"
        assert stage.admission.limiter.running("all") == 1
        settle(taking, first, (100, 3))
        settle(taking, second, False)
        assert tokens(stage, "all") == 103 + reserved
        stage.clients[0].resets()
        assert (tokens(stage, "all"), requests(stage, "all")) == (103 + reserved, 1)


def test_what_no_attempt_had_comes_back_when_all_is_known() -> None:
    with stage_of(rules=ALL, holds_connects=True) as stage:
        taking, first = taking_of(stage)
        settle(taking, first, True)
        assert tokens(stage, "all") > 0
        stage.clients[0].resets()
        assert (tokens(stage, "all"), requests(stage, "all")) == (0, 1)
        assert stage.admission.limiter.open == set()


def test_a_targets_own_limits_are_taken_by_each_attempt_there_and_given_back_with_it() -> None:
    with stage_of(rules=ALL | OWN, holds_connects=True) as stage:
        taking, first = taking_of(stage)
        limiter = stage.admission.limiter
        assert first.own is not None
        assert (limiter.running("provider a"), requests(stage, "provider a")) == (1, 1)
        assert tokens(stage, "provider a") == tokens(stage, "all")
        second = again(stage, taking, 0)
        assert (limiter.running("provider a"), requests(stage, "provider a")) == (2, 2)
        settle(taking, first, True)
        assert limiter.running("provider a") == 1
        settle(taking, second, (10, 5))
        assert (limiter.running("provider a"), requests(stage, "provider a")) == (0, 2)
        assert tokens(stage, "provider a") == 15
        assert limiter.running("all") == 1
        stage.clients[0].resets()


def test_what_an_alias_has_taken_already_its_targets_do_not_take_again() -> None:
    """A pattern that means both names."""
    rules = {"model *": "rpd=1000", "provider a": "rpd=1000"}
    with stage_of(rules=rules, holds_connects=True) as stage:
        _, first = taking_of(stage)
        assert first.own is not None
        assert first.own.chain.scopes == {"provider a"}
        assert requests(stage, "model *") == 1
        stage.clients[0].resets()


def test_an_alias_may_have_no_limits_but_those_of_its_targets() -> None:
    with stage_of(rules=OWN, holds_connects=True) as stage:
        taking, first = taking_of(stage)
        assert taking.chain.scopes == frozenset()
        settle(taking, first, (10, 5))
        second = again(stage, taking, 1)
        settle(taking, second, (1, 2))
        assert (tokens(stage, "provider a"), tokens(stage, "model b/two")) == (15, 3)
        stage.clients[0].resets()


def test_who_is_refused_by_the_limits_of_all_gives_back_those_of_the_target() -> None:
    rules = {"all": "40ktokens/total", "provider b": "rpd=1000 concurrent=5 1Gtokens/total"}
    with stage_of(rules=rules, holds_connects=True) as stage:
        taking, first = taking_of(stage)
        found = taking.attempt(taking._plan.targets[1])
        assert isinstance(found, Refusal)
        assert found.scope == "all"
        assert (stage.admission.limiter.running("provider b"), requests(stage, "provider b")) == (0, 0)
        assert tokens(stage, "provider b") == 0
        settle(taking, first, True)
        assert not isinstance(taking.attempt(taking._plan.targets[1]), Refusal | Failure)
        stage.clients[0].resets()


def test_what_one_attempt_handed_on_belongs_to_the_next_alone() -> None:
    """The first costs nothing, the second may have cost something, and the third answers."""
    counter = FakeCounter()
    with stage_of("m = a/one | b/two | c/three", rules={"all": "1Gtokens/total"}, counter=counter) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.unary(ERROR, BUSY))
        reserved = tokens(stage, "all")
        stage.advance(101.0)
        assert tokens(stage, "all") == 2 * reserved
        used = b'{"id":"x","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'
        stage.upstream().says(s.unary(used))
        assert s.status_of(client.heard()) == 200
        assert tokens(stage, "all") == reserved + 15
        counter.told[0].done(FoundTokens(None, 7))
        assert tokens(stage, "all") == 7 + 32_000 + 15, "its output may be as long as that"
        assert [s.kind_of(each.failure) for each in stage.receipt().attempts] == ["error_status", "timeout", None]


def test_a_target_whose_price_nobody_knows_is_passed_over_where_its_own_dollars_count() -> None:
    with stage_of(rules={"provider a": "1usd/total"}, prices=PRICES) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each.provider for each in stage.receipt().attempts] == ["b"]


def test_an_alias_reserves_what_its_dearest_target_may_cost() -> None:
    prices = Prices.of(b"""{"version": "1", "prices": [
        {"model": "one", "provider": "a", "input": "1", "output": "1"},
        {"model": "two", "provider": "b", "input": "1", "output": "1000"},
        {"model": "three", "provider": "c", "input": "1", "output": "10"}
    ]}""")
    models = "m = a/one | b/two | c/three"
    with stage_of(models, rules={"all": "100usd/total"}, prices=prices, holds_connects=True) as stage:
        taking_of(stage)
        assert tokens(stage, "all") > 32_000 * 1000, "microdollars"
        stage.clients[0].resets()


def test_where_the_limits_of_all_targets_refuse_the_client_hears_of_one() -> None:
    with stage_of(rules={"provider a": "rpm=1", "provider b": "rpm=1"}) as stage:
        for _ in range(2):
            asks(stage)
            stage.upstream().says(s.unary())
        client = asks(stage)
        answer = client.heard()
        assert (s.status_of(answer), fields_of(answer)["retry-after"]) == (429, "60")
        assert b"this model's provider has used up its limit" in answer
        receipt = stage.receipts[-1]
        assert (receipt.ended_kind, receipt.attempts) == ("too_many_requests", [])


def test_a_retry_that_the_limits_refuse_ends_it() -> None:
    with stage_of("m = a/one", rules={"provider a": "rpm=1"}) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.advance(1.0)
        assert s.status_of(client.heard()) == 429
        assert len(stage.receipt().attempts) == 1


OUTCOMES = st.one_of(st.booleans(), st.tuples(st.integers(0, 50_000), st.integers(0, 50_000)))
STEPS = st.lists(st.tuples(st.integers(0, 5), OUTCOMES), max_size=12)


@given(STEPS, st.booleans())
def test_in_any_order_each_counter_ends_with_what_was_used(
    steps: list[tuple[int, tuple[int, int] | bool]], is_released_first: bool
) -> None:
    """Attempts at two targets begin and end in any order, several at once. A step of 0 or 1: another attempt there;
    else one of those that run ends so."""
    with stage_of(rules=ALL | OWN, holds_connects=True) as stage:
        taking, first = taking_of(stage)
        limiter = stage.admission.limiter
        reserved = tokens(stage, "all")
        running, made, used = [first], [1, 0], {"all": 0, "a": 0, "b": 0}

        def ends(tried: Try, outcome: tuple[int, int] | bool) -> None:
            settle(taking, tried, outcome)
            spent = outcome[0] + outcome[1] if isinstance(outcome, tuple) else 0 if outcome else reserved
            for name in ("all", "ab"[tried.at]):
                used[name] += spent

        for number, outcome in steps:
            if number < 2:
                running.append(again(stage, taking, number))
                made[number] += 1
            elif running:
                ends(running.pop(number % len(running)), outcome)
            charged = used["all"] + reserved * (len(running) + (taking._free is not None))
            assert (tokens(stage, "all"), requests(stage, "all")) == (charged, 1)
            assert limiter.running("all") == 1
            assert limiter.running("provider a") == sum(tried.at == 0 for tried in running)
            assert [requests(stage, SCOPES[name]) for name in "ab"] == made
        if is_released_first:
            taking.release()
        for tried in running:
            ends(tried, (7, 3))
        stage.clients[0].resets()
        assert {name: tokens(stage, SCOPES.get(name, name)) for name in used} == used
        assert (requests(stage, "all"), requests(stage, "model m")) == (1, 1)
        assert [requests(stage, SCOPES[name]) for name in "ab"] == made
        assert (limiter.running("all"), limiter.running("provider a"), limiter.open) == (0, 0, set())


# -- two at once, and faults of ours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [{"all": "40ktokens/total"}, {"provider b": "itpm=1"}, {"model two": "itpm=1"}])
def test_a_rival_for_which_there_is_no_room_is_not_sent_and_the_first_goes_on(rules: dict[str, str]) -> None:
    with hedged(rules=rules) as stage:
        client = asks(stage, stream=True)
        stage.advance(5.0)
        assert len(stage.dialed) == 1
        assert stage.relay.health.of(("b", "two")).in_flight == 0
        stage.upstream().says(ANSWER)
        assert client.heard() == PASSED
        assert [each.why for each in stage.receipt().attempts] == ["first"]
        assert stage.admission.limiter.open == set()


def test_without_anything_known_of_a_target_nobody_is_sent_after_it() -> None:
    with stage_of("m (hedge) = a/one | b/two") as stage:
        client = asks(stage, stream=True)
        stage.advance(90.0)
        assert len(stage.dialed) == 1
        stage.upstream().says(ANSWER)
        assert client.heard() == PASSED


FAULTS = {"all": "1Gtokens/total concurrent=5", "provider a": "concurrent=5", "provider b": "concurrent=5 rpd=9"}


WHERE = ["proxy.relay.request.Passage.upstream_head", "proxy.relay.attempt.Attempt.begin"]


def gives_all_back(stage: Stage, client: Peer) -> None:
    """The client has heard of a fault of ours, and nothing is held for it."""
    assert s.status_of(client.heard()) == 500
    limiter = stage.admission.limiter
    assert limiter.open == set()
    assert [limiter.running(scope) for scope in FAULTS] == [0, 0, 0]
    assert [stage.relay.health.of(key).in_flight for key in (("a", "one"), ("b", "two"))] == [0, 0]
    assert stage.receipt().ended_kind == "internal"


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.sources
def test_a_fault_when_a_retry_is_due_gives_all_back(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    with stage_of("m = a/one", rules=FAULTS) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        monkeypatch.setattr(where, broken)
        with pytest.raises(AssertionError, match="ours"):
            stage.advance(1.0)
        gives_all_back(stage, client)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.sources
def test_a_fault_when_a_rival_is_due_ends_both(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    with hedged(rules=FAULTS) as stage:
        client = asks(stage, stream=True)
        monkeypatch.setattr(where, broken)
        with pytest.raises(AssertionError, match="ours"):
            stage.advance(1.1)
        stage.advance(0.1)
        assert stage.upstream().is_gone
        gives_all_back(stage, client)


def broken(*_: object) -> None:
    raise ValueError("ours")
