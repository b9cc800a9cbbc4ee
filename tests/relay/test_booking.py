"""What the attempts of one exchange used, on one receipt: the sum of all, each with its own, whenever it is known."""

from __future__ import annotations

import random
from itertools import permutations
from typing import Any

import pytest

from proxy.catalog.prices import Prices
from proxy.outcome import Receipt, Source
from proxy.relay.metering import Metering
from tests.relay import stage as s
from tests.relay.stage import FakeCounter, FoundTokens, Peer, Stage
from tests.relay.targets import BUSY, ERROR, asks, stage_of
from tests.relay.test_attempts_hedging import hedged

PRICES = Prices.of(b"""{"version": "v7", "prices": [
    {"model": "one", "provider": "a", "input": "1", "output": "10"},
    {"model": "two-2026", "provider": "b", "input": "2", "output": "20"}
]}""")
OVERLOADED = b'data: {"error":{"message":"busy","type":"server_error","code":"overloaded"}}\n\n'
RESUMED = "m (resume) = a/one | b/two"


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


def used(model: str, input: int, output: int) -> bytes:
    text = '{"id":"x","model":"%s","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'
    return (text % (model, input, output, input + output)).encode()


def usage_event(input: int, output: int) -> bytes:
    return b"data: " + used("one", input, output) + b"\n\n"


# Some servers report as they go (vLLM's continuous usage): here before there is any content.
BEGUN = s.ROLE.replace(b"}\n\n", b',"model":"one","usage":{"prompt_tokens":100,"completion_tokens":3}}\n\n')


def figures(receipt: Receipt) -> list[tuple[int | None, int | None, int | None] | None]:
    """(input, output, cost) of each attempt; None: nothing is said of it."""
    return [
        None if each.usage is None else (each.usage.input, each.usage.output, each.cost_micros)
        for each in receipt.attempts
    ]


def totals(receipt: Receipt) -> tuple[int | None, int | None, int | None]:
    assert receipt.usage is not None
    return receipt.usage.input, receipt.usage.output, receipt.cost_micros


# -- one answer -------------------------------------------------------------------------------------------------------


def test_of_a_single_attempt_the_figures_are_said_once() -> None:
    with stage_of(prices=PRICES) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(used("one", 10, 5)))
        client.heard()
        receipt = stage.receipt()
        assert totals(receipt) == (10, 5, 60)
        assert (receipt.model_served, receipt.price_version) == ("one", "v7")
        (attempt,) = receipt.attempts
        assert (attempt.usage, attempt.cost_micros, attempt.model_served) == (None, None, None)
        assert attempt.bytes_out == receipt.bytes_out > 0


def test_failed_attempts_that_cost_nothing_leave_the_answers_figures_as_the_sum() -> None:
    with stage_of(prices=PRICES) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.upstream().says(s.unary(used("two-2026", 10, 5)))
        client.heard()
        receipt = stage.receipt()
        assert totals(receipt) == (10, 5, 120)
        assert figures(receipt) == [None, (10, 5, 120)]
        assert [each.model_served for each in receipt.attempts] == [None, "two-2026"]
        assert (receipt.provider, receipt.model_served, receipt.price_version) == ("b", "two-2026", "v7")
        assert [each.bytes_out for each in receipt.attempts] == [0, receipt.bytes_out]


def test_where_nothing_was_answered_nothing_was_used() -> None:
    with stage_of("m (retries=1) = a/one | b/two", prices=PRICES) as stage:
        client = asks(stage)
        stage.upstream().resets()
        stage.upstream().says(s.unary(ERROR, BUSY))
        client.heard()
        receipt = stage.receipt()
        assert (receipt.usage, receipt.cost_micros, receipt.price_version) == (None, None, None)
        assert figures(receipt) == [None, None]


def test_a_call_that_is_free_is_not_metered() -> None:
    with Stage(models="m = anthropic/one", retries=1, prices=PRICES) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/messages/count_tokens", b'{"model":"m","messages":[]}'))
        stage.upstream().says(s.unary(b'{"input_tokens":9}'))
        client.heard()
        receipt = stage.receipt()
        assert (receipt.usage, figures(receipt)) == (None, [None])


# -- several that used something --------------------------------------------------------------------------------------


def failing_over(stage: Stage) -> Peer:
    """The first target begins, breaks off before its first content, and has used something."""
    client = asks(stage, stream=True)
    stage.upstream().says(s.STREAM_HEAD + s.chunk(BEGUN))
    stage.upstream().resets()
    return client


def test_what_a_failed_attempt_used_is_part_of_the_sum() -> None:
    with stage_of(prices=PRICES) as stage:
        failing_over(stage)
        answer = s.text() + s.FINISH + usage_event(10, 5).replace(b'"one"', b'"two-2026"') + s.DONE
        stage.upstream().says(s.STREAM_HEAD + s.chunk(answer) + s.LAST)
        receipt = stage.receipt()
        assert figures(receipt) == [(100, 3, 130), (10, 5, 120)]
        assert totals(receipt) == (110, 8, 250)
        assert receipt.usage is not None
        assert receipt.usage.source is Source.REPORTED
        assert (receipt.model_served, receipt.provider) == ("two-2026", "b"), "of the answer that the client got"
        assert [each.model_served for each in receipt.attempts] == ["one", "two-2026"]


def test_a_figure_of_one_that_is_a_guess_makes_the_sum_one() -> None:
    with stage_of(prices=PRICES) as stage:
        client = asks(stage, stream=True)
        stage.advance(101.0)
        stage.upstream().says(s.unary(used("two-2026", 10, 5)))
        client.heard()
        receipt = stage.receipt()
        (silent, answered) = receipt.attempts
        assert silent.usage is not None and answered.usage is not None and receipt.usage is not None
        assert (silent.usage.output, silent.usage.input_source) == (None, Source.ESTIMATED), "it may have begun"
        assert receipt.usage.input == (silent.usage.input or 0) + 10
        assert (receipt.usage.output, receipt.usage.complete) == (5, False)
        assert receipt.usage.input_source is Source.ESTIMATED
        assert receipt.cost_micros == (silent.cost_micros or 0) + 120


def test_a_part_without_a_price_adds_nothing_to_the_cost() -> None:
    with stage_of("m = c/three | b/two", prices=PRICES) as stage:
        failing_over(stage)
        stage.upstream().says(s.unary(used("two-2026", 10, 5)))
        receipt = stage.receipt()
        assert [None if each is None else each[2] for each in figures(receipt)] == [None, 120]
        assert receipt.cost_micros == 120
        assert receipt.price_version == "v7"


def test_where_nothing_has_a_price_there_is_no_cost() -> None:
    with stage_of("m = c/three", prices=PRICES) as stage:
        asks(stage)
        stage.upstream().says(s.unary(used("three", 10, 5)))
        receipt = stage.receipt()
        assert (receipt.cost_micros, receipt.price_version) == (None, None)


def test_an_error_in_place_of_an_answer_used_nothing() -> None:
    with stage_of(prices=PRICES) as stage:
        asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(OVERLOADED))
        stage.upstream().says(s.unary(used("two-2026", 10, 5)))
        receipt = stage.receipt()
        assert figures(receipt)[0] == (None, None, None)
        assert totals(receipt) == (10, 5, 120)


# -- what is counted later --------------------------------------------------------------------------------------------


def cut_twice(stage: Stage) -> None:
    """Three attempts whose figures nobody reports."""
    asks(stage, stream=True)
    for words in (b"One ", b"One two ", b"One two three"):
        text = s.text(words) + (s.FINISH + s.DONE if words.endswith(b"three") else b"")
        stage.upstream().says(s.STREAM_HEAD + s.chunk(text))
        if not words.endswith(b"three"):
            stage.upstream().resets()
    stage.upstream().says(s.LAST)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_receipt_waits_for_all_counts_in_any_order(order: tuple[int, ...]) -> None:
    counter = FakeCounter()
    rules = {"all": "1Mtokens/total concurrent=5"}
    with stage_of(RESUMED, counter=counter, prices=PRICES, rules=rules) as stage:
        cut_twice(stage)
        assert len(counter.told) == 3
        limiter = stage.admission.limiter
        assert limiter.running("all") == 0, "the exchange is over"
        for at, number in enumerate(order):
            assert stage.receipts == []
            assert len(limiter.open) == 3 - at
            counter.told[number].done(FoundTokens(number + 1, 10))
        receipt = stage.receipt()
        assert [None if each is None else each[:2] for each in figures(receipt)] == [(10, 1), (10, 2), (10, 3)]
        assert totals(receipt)[:2] == (30, 6)
        assert len(limiter.open) == 0
        budget = limiter.rules("all").budgets[0]
        assert limiter.spent("all", budget, s.EPOCH)[0] == 36


def test_a_count_that_is_there_before_the_end_is_kept_for_it() -> None:
    counter = FakeCounter()
    with stage_of(RESUMED, counter=counter) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(b"One ")))
        stage.upstream().resets()
        counter.told[0].done(FoundTokens(1, 10))
        assert stage.receipts == []
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(b"One two") + s.FINISH + usage_event(10, 2) + s.DONE))
        stage.upstream().says(s.LAST)
        assert client.heard().endswith(s.LAST)
        assert totals(stage.receipt())[:2] == (20, 3)


def test_attempts_are_counted_apart() -> None:
    """Under a number of their own, with what each of them said."""
    counter = FakeCounter()
    with stage_of(RESUMED, counter=counter) as stage:
        cut_twice(stage)
        assert len({told.stream for told in counter.told}) == 3
        assert [b"three" in told.data for told in counter.told] == [False, False, True]
        for told in counter.told:
            told.done(None)
        stage.receipt()


def test_exchanges_are_counted_apart() -> None:
    counter = FakeCounter()
    with stage_of(RESUMED, counter=counter) as stage:
        for _ in range(3):
            cut_twice(stage)
        assert len({told.stream for told in counter.told}) == 9
        for told in counter.told:
            told.done(None)
        assert len(stage.receipts) == 3


# -- faults of ours ---------------------------------------------------------------------------------------------------


def broken(*_: Any) -> Any:
    raise ValueError("ours")


@pytest.mark.sources
def test_a_fault_in_one_figure_costs_neither_the_receipt_nor_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"all": "1Mtokens/total concurrent=5"}
    with stage_of(prices=PRICES, rules=rules) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(BEGUN))
        limiter = stage.admission.limiter
        budget = limiter.rules("all").budgets[0]
        reserved = limiter.spent("all", budget, s.EPOCH)[0]
        with monkeypatch.context() as patch:
            patch.setattr(Metering, "finish", broken)
            with pytest.raises(AssertionError, match="ours"):
                stage.upstream().resets()
        stage.upstream().says(s.unary(used("two-2026", 10, 5)))
        assert s.status_of(client.heard()) == 200
        receipt = stage.receipt()
        assert figures(receipt) == [None, (10, 5, 120)]
        assert totals(receipt) == (10, 5, 120)
        assert limiter.spent("all", budget, s.EPOCH)[0] == reserved + 15, "of the first nobody knows: it stands"
        assert len(limiter.open) == 0


@pytest.mark.sources
def test_a_fault_in_a_price_leaves_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    with stage_of(prices=PRICES) as stage:
        asks(stage)
        monkeypatch.setattr("proxy.relay.booking.cost_of", broken)
        stage.upstream().transport.receive(s.unary(used("one", 10, 5)))
        assert len(stage.loop.expect_errors()) == 1
        receipt = stage.receipt()
        assert totals(receipt) == (10, 5, None)
        assert receipt.model_served == "one"


# -- two at once ------------------------------------------------------------------------------------------------------


def test_the_loser_of_two_is_part_of_the_sum_and_not_of_what_was_served() -> None:
    with hedged(prices=PRICES) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        stage.upstreams[0].says(s.STREAM_HEAD + s.chunk(BEGUN))
        answer = s.text() + s.FINISH + usage_event(10, 5).replace(b'"one"', b'"two-2026"') + s.DONE
        stage.upstreams[1].says(s.STREAM_HEAD + s.chunk(answer) + s.LAST)
        assert client.heard().endswith(s.LAST)
        receipt = stage.receipt()
        assert figures(receipt) == [(100, 3, 130), (10, 5, 120)]
        assert totals(receipt) == (110, 8, 250)
        assert (receipt.provider, receipt.model_served) == ("b", "two-2026")


# -- without meters ---------------------------------------------------------------------------------------------------


def test_without_meters_only_what_surely_cost_nothing_comes_back() -> None:
    with stage_of(meters=False, rules={"all": "1Mtokens/total"}) as stage:
        client = asks(stage)
        limiter = stage.admission.limiter
        budget = limiter.rules("all").budgets[0]
        reserved = limiter.spent("all", budget, s.EPOCH)[0]
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert limiter.spent("all", budget, s.EPOCH)[0] == reserved, "handed on to the next attempt"
        stage.upstream().says(s.unary(used("two-2026", 10, 5)))
        assert s.status_of(client.heard()) == 200
        assert limiter.spent("all", budget, s.EPOCH)[0] == reserved
        receipt = stage.receipt()
        assert (receipt.usage, figures(receipt)) == (None, [None, None])
