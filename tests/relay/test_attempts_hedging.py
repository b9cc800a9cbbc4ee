"""Two attempts at once: the first event wins."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.outcome import Limit
from tests.relay import stage as s
from tests.relay.stage import Stage
from tests.relay.targets import BUSY, ERROR, A, B, asks, stage_of

HEDGED = "m (hedge) = a/one | b/two"
ANSWER = s.STREAM_HEAD + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST
PASSED = s.STREAM_HEAD_ON + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST


def hedged(**options: Any) -> Stage:
    """A stage whose first target is known to take a second."""
    stage = stage_of(HEDGED, **options)
    health = stage.relay.health.of(("a", "one"))
    for _ in range(20):
        health.begin(stage.loop.time())
        health.first_event(1.0, stage.loop.time())
        health.first_event(1.0, stage.loop.time(), is_stream=False)
        health.end(stage.loop.time(), False, True)
    return stage


def test_a_slow_attempt_gets_a_rival_and_the_first_event_wins() -> None:
    with hedged() as stage:
        client = asks(stage, stream=True)
        stage.advance(0.99)
        assert stage.dialed == [A]
        stage.advance(0.02)
        assert stage.dialed == [A, B]
        stage.upstreams[0].says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.upstreams[1].says(ANSWER)
        assert client.heard() == PASSED
        assert stage.upstreams[0].is_gone
        receipt = stage.receipt()
        assert (receipt.complete, receipt.provider) == (True, "b")
        assert [(each.provider, s.kind_of(each.failure), each.why) for each in receipt.attempts] == [
            ("a", "outrun", "first"),
            ("b", None, "hedge"),
        ]


def test_the_first_attempt_may_win_as_well() -> None:
    with hedged() as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        stage.upstreams[0].says(ANSWER)
        assert client.heard() == PASSED
        assert stage.upstreams[1].is_gone
        receipt = stage.receipt()
        assert [(each.provider, s.kind_of(each.failure)) for each in receipt.attempts] == [("b", "outrun"), ("a", None)]
        assert receipt.provider == "a"


@pytest.mark.parametrize("loser", [0, 1])
def test_one_that_fails_leaves_the_race_to_the_other(loser: int) -> None:
    with hedged() as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        stage.upstreams[loser].says(s.unary(ERROR, BUSY))
        assert client.heard() == b""
        stage.upstreams[1 - loser].says(ANSWER)
        assert client.heard() == PASSED
        assert stage.receipt().complete


def test_both_may_fail() -> None:
    with hedged(retries=1) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        stage.upstreams[0].resets()
        stage.upstreams[1].resets()
        stage.advance(1.0)
        stage.upstream().says(ANSWER)
        assert client.heard() == PASSED
        assert [s.kind_of(each.failure) for each in stage.receipt().attempts] == ["reset", "reset", None]


def test_each_of_two_keeps_its_own_time() -> None:
    with hedged(seconds={Limit.FIRST_BYTE: 5.0}, retries=0) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.1)
        stage.advance(4.2)
        assert stage.upstreams[0].is_gone, "five seconds after it began"
        assert not stage.upstreams[1].is_gone
        stage.advance(1.2)
        assert s.status_of(client.heard()) == 504
        assert [s.kind_of(each.failure) for each in stage.receipt().attempts] == ["timeout", "timeout"]


def test_one_document_is_hedged_until_its_head() -> None:
    with hedged() as stage:
        client = asks(stage)
        stage.advance(1.01)
        stage.upstreams[1].says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.upstreams[0].is_gone
        assert stage.receipt().provider == "b"


def test_rivals_are_a_share_of_the_requests() -> None:
    with hedged() as stage:
        while stage.relay.hedges.take(stage.loop.time()):
            pass
        client = asks(stage, stream=True)
        stage.advance(1.01)
        assert stage.dialed == [A]
        stage.upstream().says(ANSWER)
        assert client.heard() == PASSED


def test_nobody_is_sent_after_an_answer_that_has_begun() -> None:
    with hedged() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        stage.advance(2.0)
        assert stage.dialed == [A]
        client.resets()


def test_a_client_that_leaves_ends_both() -> None:
    with hedged() as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        client.resets()
        assert stage.upstreams[0].is_gone
        assert stage.upstreams[1].is_gone
        assert [s.kind_of(each.failure) for each in stage.receipt().attempts] == ["client_left", "client_left"]


def test_a_budget_holds_both_and_gets_what_both_used() -> None:
    with hedged(rules={"all": "100Mtokens/total"}) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        stage.upstreams[1].says(ANSWER)
        client.heard()
        receipt = stage.receipt()
        assert receipt.usage is not None
        budget = stage.admission.limiter.rules("all").budgets[0]
        spent = stage.admission.limiter.spent("all", budget, s.EPOCH)[0]
        assert spent > (receipt.usage.input or 0) + (receipt.usage.output or 0), "nobody knows what the loser used"
        assert len(stage.admission.limiter.open) == 0
