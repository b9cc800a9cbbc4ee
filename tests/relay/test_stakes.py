"""How an attempt went, told once to whoever counts on it: the target's breaker, the credential, the operator."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.catalog.secret import Secret
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.policy.breaker import BreakerOptions, State
from proxy.policy.credentials import Credentials
from proxy.policy.health import TargetHealth
from proxy.policy.limits import Hold
from proxy.policy.plan import Target
from proxy.policy.retry import FINAL, Verdict
from proxy.relay.held import ERROR_EVENT
from proxy.relay.stakes import Stake, take_stake
from tests.relay import stage as s
from tests.relay.targets import BUSY, ERROR, asks, provider, stage_of
from tests.relay.test_attempts_hedging import ANSWER, PASSED, hedged

NOW = 1000.0
FAULT = Verdict(True, True, is_fault=True)
ELSEWHERE = Verdict(False, True)


def failed(kind: Kind, side: Side = Side.UPSTREAM, phase: Phase = Phase.FIRST_BYTE) -> Failure:
    return Failure(side, phase, kind)


ERROR_STATUS = failed(Kind.ERROR_STATUS, phase=Phase.DONE)


class Told(list[tuple[str, str, dict[str, object]]]):
    """What an operator was told."""

    def __call__(self, level: str, message: str, **more: object) -> None:
        self.append((level, message, more))


def stake(health: TargetHealth | None = None, credentials: int = 0, told: Told | None = None) -> Stake:
    made = Stake("a", "one", told if told is not None else Told())
    if credentials:
        made.credentials = Credentials(credentials)
        made.number = made.credentials.pick(NOW, "one") or 0
        made.secret = Secret(f"sk-number-{made.number}")
    if health is not None:
        made.join(health, NOW)
    return made


def probed() -> TargetHealth:
    """A target that was open, and whose next attempt is the probe: what that one says of it is seen at once."""
    health = TargetHealth(BreakerOptions(consecutive=1, open=5.0))
    health.begin(NOW - 5.0)
    health.end(NOW - 5.0, False, False)
    assert not health.breaker.is_closed
    return health


# -- what an ending says of the target --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "failure", "verdict"),
    [
        (200, None, None),
        (400, ERROR_STATUS, FINAL),
        (404, ERROR_STATUS, ELSEWHERE),
        (409, ERROR_STATUS, Verdict(True, True)),
    ],
)
def test_an_answer_closes_it_also_one_that_refuses(
    status: int, failure: Failure | None, verdict: Verdict | None
) -> None:
    health = probed()
    stake(health).ended(NOW, status, failure, verdict)
    assert health.breaker.state(NOW) is State.WARMING
    assert health.in_flight == 0


@pytest.mark.parametrize(
    ("status", "failure", "verdict"),
    [
        (0, failed(Kind.CONNECT_FAILED), FAULT),
        (0, failed(Kind.RESET), None),
        (0, failed(Kind.TIMEOUT), None),
        (200, failed(Kind.PROTOCOL), None),
        (200, failed(Kind.MISSING_END), None),
        (200, failed(Kind.RESET, phase=Phase.STREAM), Verdict(True, True)),
        (500, ERROR_STATUS, FAULT),
        (429, ERROR_STATUS, FAULT),
        (200, ERROR_EVENT, FAULT),
    ],
)
def test_a_fault_of_the_target_opens_it(status: int, failure: Failure, verdict: Verdict | None) -> None:
    health = probed()
    stake(health).ended(NOW, status, failure, verdict)
    assert health.breaker.state(NOW) is State.OPEN
    assert health.breaker.retry_in(NOW) == 10.0, "twice as long as the first time"


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (0, failed(Kind.CLIENT_LEFT, Side.CLIENT)),
        (200, failed(Kind.CLIENT_LEFT, Side.CLIENT, Phase.STREAM)),
        (200, failed(Kind.OUTRUN, Side.PROXY)),
        (0, failed(Kind.SHUTDOWN, Side.PROXY)),
        (0, failed(Kind.OVERLOADED, Side.PROXY, Phase.QUEUE)),
        (200, failed(Kind.BUDGET, Side.PROXY, Phase.STREAM)),
        (200, ERROR_EVENT),
        (0, failed(Kind.CREDENTIAL_REFUSED)),
    ],
)
def test_what_says_nothing_of_the_target_leaves_the_next_one_to_probe(status: int, failure: Failure) -> None:
    health = probed()
    stake(health).ended(NOW, status, failure, None)
    assert health.breaker.state(NOW) is State.OPEN
    assert health.breaker.may(NOW)
    assert health.in_flight == 0


@pytest.mark.parametrize(("status", "seconds"), [(429, 33.0), (503, 33.0), (500, 5.0), (408, 5.0)])
def test_a_wait_is_believed_where_the_status_is_one_of_waiting(status: int, seconds: float) -> None:
    health = TargetHealth(BreakerOptions(consecutive=1))
    stake(health).ended(NOW, status, ERROR_STATUS, FAULT._replace(wait=33.0))
    assert health.breaker.retry_in(NOW) == seconds


def test_it_is_told_once() -> None:
    health = TargetHealth(BreakerOptions(consecutive=2))
    made = stake(health, credentials=2)
    made.ended(NOW, 0, failed(Kind.RESET), None)
    made.ended(NOW, 401, failed(Kind.RESET), None)
    assert health.in_flight == 0
    assert health.breaker.is_closed, "one failure"
    assert made.credentials is not None
    assert made.credentials.out(NOW) == []


def test_without_an_alias_there_is_only_the_credential() -> None:
    made = stake(credentials=1)
    made.first_event(1.0, NOW)
    made.ended(NOW, 401, failed(Kind.CREDENTIAL_REFUSED), None)
    assert made.credentials is not None
    assert made.credentials.out(NOW) == [(0, "")]


# -- the first event --------------------------------------------------------------------------------------------------


def test_a_probe_is_over_with_its_first_event() -> None:
    health, told = probed(), Told()
    made = stake(health, told=told)
    assert not health.breaker.may(NOW)
    made.first_event(2.0, NOW + 2)
    assert health.breaker.state(NOW + 2) is State.WARMING
    assert health.latency == 2.0
    assert told == [("info", "the target a/one is back", {})]
    made.ended(NOW + 60, 200, failed(Kind.CLIENT_LEFT, Side.CLIENT), None)
    assert health.breaker.state(NOW + 60) is State.CLOSED
    assert len(told) == 1


def test_after_its_first_event_it_fails_like_any_other() -> None:
    health = probed()
    made = stake(health)
    made.first_event(2.0, NOW + 2)
    made.ended(NOW + 3, 200, failed(Kind.RESET, phase=Phase.STREAM), None)
    assert health.breaker.retry_in(NOW + 3) == 5.0, "as the first time: it had closed before"


def test_the_end_of_what_was_a_probe_is_not_that_of_the_next_one() -> None:
    health = probed()
    made = stake(health)
    made.first_event(2.0, NOW)
    stake(health).ended(NOW, 0, failed(Kind.RESET), None)
    later = Stake("a", "one", Told())
    later.join(health, NOW + 30)
    assert health.breaker.state(NOW + 30) is State.PROBING
    made.ended(NOW + 31, 200, None, None)
    assert health.breaker.state(NOW + 31) is State.PROBING
    later.ended(NOW + 32, 200, None, None)
    assert health.breaker.state(NOW + 32) is State.WARMING


def test_who_is_no_probe_tells_nobody_that_it_is_back() -> None:
    told = Told()
    made = stake(TargetHealth(), told=told)
    made.first_event(2.0, NOW)
    assert told == []


def test_a_first_event_brings_its_credential_back() -> None:
    made = stake(credentials=1)
    assert made.credentials is not None
    made.credentials.refused(0, 401, "one", NOW - 100)
    made.first_event(1.0, NOW)
    assert made.credentials.out(NOW) == []


# -- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "out"), [(401, [(0, "")]), (403, [(0, "one")])])
def test_a_credential_that_is_refused_is_said_and_is_no_fault_of_the_target(
    status: int, out: list[tuple[int, str]]
) -> None:
    health, told = TargetHealth(BreakerOptions(consecutive=1)), Told()
    made = stake(health, 2, told)
    made.ended(NOW, status, failed(Kind.CREDENTIAL_REFUSED), FAULT)
    assert made.credentials is not None
    assert made.credentials.out(NOW) == out
    assert health.breaker.is_closed
    assert made.secret is not None
    message = "the credential for a/one was refused, and is left out for a while"
    assert told == [("warn", message, {"status": status, "credential": f"#{made.secret.fingerprint}"})]
    assert "sk-number" not in repr(told)


def test_a_limit_of_one_of_several_credentials_is_that_ones() -> None:
    health = TargetHealth(BreakerOptions(consecutive=1))
    made = stake(health, 2)
    made.ended(NOW, 429, ERROR_STATUS, FAULT._replace(wait=20.0))
    assert made.credentials is not None
    assert [made.credentials.pick(NOW, "one") for _ in range(3)] == [1, 1, 1]
    assert made.credentials.pick(NOW + 20, "one") == 0
    assert health.breaker.is_closed


def test_a_limit_without_a_word_closes_a_credential_for_a_second() -> None:
    health = TargetHealth(BreakerOptions(consecutive=1))
    made = stake(health, 2)
    made.ended(NOW, 429, ERROR_STATUS, FAULT)
    assert made.credentials is not None
    assert made.credentials.pick(NOW + 0.9, "one") == 1
    assert made.credentials.pick(NOW + 1.0, "one") == 0
    assert health.breaker.is_closed


@pytest.mark.parametrize("wait", [None, 20.0])
def test_where_all_credentials_are_limited_the_target_is(wait: float | None) -> None:
    health = TargetHealth(BreakerOptions(consecutive=1))
    first = stake(health, 2)
    assert first.credentials is not None
    second = Stake("a", "one", Told())
    second.credentials, second.number = first.credentials, 1
    second.join(health, NOW)
    first.ended(NOW, 429, ERROR_STATUS, FAULT._replace(wait=wait))
    assert health.breaker.is_closed
    second.ended(NOW, 429, ERROR_STATUS, FAULT._replace(wait=wait))
    assert health.breaker.retry_in(NOW) == (wait or 5.0)


def test_of_a_single_credential_a_limit_is_the_targets() -> None:
    health = TargetHealth(BreakerOptions(consecutive=1))
    made = stake(health, 1)
    made.ended(NOW, 429, ERROR_STATUS, FAULT._replace(wait=20.0))
    assert health.breaker.retry_in(NOW) == 20.0
    assert made.credentials is not None
    assert made.credentials.pick(NOW, "one") == 0


def test_a_try_that_was_not_answered_leaves_another_one_to_be_made() -> None:
    known = Credentials(1)
    known.refused(0, 401, "one", NOW - 60)
    made = Stake("a", "one", Told())
    made.credentials = known
    assert known.pick(NOW, "one") == 0
    assert known.pick(NOW, "one") is None, "one at a time"
    made.ended(NOW, 0, failed(Kind.RESET), None)
    assert known.pick(NOW, "one") == 0


def test_what_opens_a_target_is_said() -> None:
    health, told = TargetHealth(BreakerOptions(consecutive=2)), Told()
    for _ in range(3):
        stake(health, told=told).ended(NOW, 0, failed(Kind.RESET), None)
    assert told == [("warn", "the target a/one keeps failing, and is left alone", {"seconds": 5.0})], "once"


def test_a_target_without_a_model_bears_its_providers_name() -> None:
    told = Told()
    made = Stake("a", "", told)
    made.join(TargetHealth(BreakerOptions(consecutive=1)), NOW)
    made.ended(NOW, 0, failed(Kind.RESET), None)
    assert told[0][1] == "the target a keeps failing, and is left alone"


# -- holds ------------------------------------------------------------------------------------------------------------


@pytest.mark.sources
def test_holds_are_handed_out_once() -> None:
    made = stake()
    assert made.holds() == []
    hold: Any = object.__new__(Hold)
    other: Any = object.__new__(Hold)
    made.common, made.own = hold, other
    assert made.holds() == [hold, other]
    assert made.holds() == []
    made.own = other
    assert made.holds() == [other]


# -- taking one -------------------------------------------------------------------------------------------------------

KEYS: dict[str, Any] = {"credential": Secret("sk-first-one"), "further": (Secret("sk-second-one"),)}


def test_what_is_taken_for_an_attempt() -> None:
    with stage_of() as stage:
        relay = stage.relay
        target = Target(provider("a", **KEYS), b"/", "one")
        now = relay.clock()
        found = [take_stake(None, relay, False, target, True, now) for _ in range(2)]
        stakes = [each for each in found if isinstance(each, Stake)]
        assert [(each.number, each.secret and each.secret.reveal()) for each in stakes] == [
            (0, "sk-first-one"),
            (1, "sk-second-one"),
        ]
        assert relay.health.of(("a", "one")).in_flight == 2
        passed = take_stake(None, relay, True, target, True, now)
        assert isinstance(passed, Stake)
        assert (passed.credentials, passed.secret) == (None, None)


def test_without_an_alias_a_refused_credential_is_asked_with_all_the_same() -> None:
    with stage_of() as stage:
        relay = stage.relay
        target = Target(provider("a"), b"/", None)
        now = relay.clock()
        relay.credentials_of(target.provider).refused(0, 401, "", now)
        found = take_stake(None, relay, False, target, False, now)
        assert isinstance(found, Stake)
        assert found.secret is not None
        assert relay.health.of(("a", "")).in_flight == 0, "nobody asks what is known of it"
        refused = take_stake(None, relay, False, target, True, now)
        assert isinstance(refused, Failure)
        assert (refused.kind, refused.side) == (Kind.CREDENTIAL_REFUSED, Side.UPSTREAM)
        assert "sk-" not in refused.detail


def test_where_the_only_credential_is_out_the_client_hears_that() -> None:
    with stage_of("m = a/one") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, b"401 Unauthorized"))
        assert s.status_of(client.heard()) == 502
        client = asks(stage)
        answer = client.heard()
        assert s.status_of(answer) == 502
        assert b"has refused this proxy's credential, and is asked again in a while" in answer
        assert stage.receipts[-1].attempts == []
        assert len(stage.dialed) == 1


def test_a_target_whose_limits_refuse_is_not_counted_as_asked() -> None:
    with stage_of(rules={"provider a": "rpm=1", "provider b": "rpm=1"}) as stage:
        for _ in range(2):
            client = asks(stage)
            stage.upstream().says(s.unary())
            assert client.heard() == s.passed_on()
        client = asks(stage)
        assert s.status_of(client.heard()) == 429
        assert [stage.relay.health.of(key).in_flight for key in (("a", "one"), ("b", "two"))] == [0, 0]
        assert stage.receipts[-1].attempts == []


# -- what an operator hears of a whole exchange -----------------------------------------------------------------------


def test_a_target_that_goes_and_comes_back() -> None:
    told = Told()
    with stage_of("m = a/one | b/two") as stage:
        stage.relay.notice = told
        for _ in range(5):
            asks(stage)
            stage.upstreams[0].says(s.unary(ERROR, BUSY))
            stage.upstreams[-1].says(s.unary())
        stage.advance(5.1)
        client = asks(stage, stream=True)
        stage.upstreams[0].says(s.STREAM_HEAD + s.chunk(s.text()))
        assert [(level, message) for level, message, _ in told] == [
            ("warn", "the target a/one keeps failing, and is left alone"),
            ("info", "the target a/one is back"),
        ]
        client.resets()


def test_an_error_in_place_of_a_first_event_brings_nothing_back() -> None:
    with stage_of("m = a/one | b/two") as stage:
        for _ in range(5):
            asks(stage)
            stage.upstreams[0].says(s.unary(ERROR, BUSY))
            stage.upstreams[-1].says(s.unary())
        stage.advance(5.1)
        health = stage.relay.health.of(("a", "one"))
        client = asks(stage, stream=True)
        told = b'data: {"error":{"message":"busy","type":"server_error"}}\n\n'
        stage.upstreams[0].says(s.STREAM_HEAD + s.chunk(told))
        assert not health.breaker.is_closed
        assert health.latency is None
        client.resets()


def test_who_was_outrun_has_done_nothing_wrong() -> None:
    with hedged(hedge_share=1.0) as stage:
        for _ in range(6):
            client = asks(stage, stream=True)
            stage.advance(1.01)
            rival = s.exchange_of(client).attempts.rival.upstream
            next(each for each in stage.upstreams if each.protocol is rival).says(ANSWER)
            assert client.heard() == PASSED
        health = stage.relay.health.of(("a", "one"))
        assert [each.attempts[0].provider for each in stage.receipts] == ["a"] * 6
        assert (health.breaker.is_closed, health.in_flight) == (True, 0)
