"""Who is asked again, and when: statuses with causes, failures, what a provider says of waiting, the budget."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.causes import Cause, cause_of
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.policy.retry import (
    FINAL,
    WAIT_CAP,
    RetryBudget,
    Verdict,
    backoff,
    judge_event,
    judge_failure,
    judge_status,
    patience,
)

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT
RETRY = Verdict(True, True, is_fault=True)
ELSEWHERE = Verdict(False, True)
EXHAUSTED = Verdict(False, True, is_fault=True)
TOO_LONG = Verdict(False, True, needs_window=True)


def fields(**given: str) -> Callable[[bytes], bytes | None]:
    found = {name.replace("_", "-").encode(): value.encode() for name, value in given.items()}
    return found.get


def judged(status: int, cause: Cause = Cause.OTHER, **given: str) -> Verdict:
    return judge_status(status, fields(**given), cause, NOW)


@pytest.mark.parametrize("status", [408, 429, 498, 500, 502, 503, 504, 520, 529])
@pytest.mark.parametrize("cause", [Cause.OTHER, Cause.RATE, Cause.OVERLOADED])
def test_what_may_pass_is_tried_again_and_elsewhere(status: int, cause: Cause) -> None:
    assert judged(status, cause) == RETRY


def test_a_conflict_is_tried_again_and_no_fault_of_the_target() -> None:
    assert judged(409) == Verdict(True, True)


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422, 451])
def test_what_the_caller_did_wrong_is_final(status: int) -> None:
    assert judged(status, Cause.INVALID) == FINAL == Verdict(False, False)


@pytest.mark.parametrize("status", [200, 204, 301, 304])
def test_what_is_no_error_is_final(status: int) -> None:
    assert judged(status, Cause.OTHER, retry_after="3") == FINAL


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503])
@pytest.mark.parametrize(
    ("cause", "verdict"),
    [
        (Cause.POLICY, FINAL),
        (Cause.CONTEXT, TOO_LONG),
        (Cause.QUOTA, EXHAUSTED),
        (Cause.MODEL, ELSEWHERE),
        (Cause.CREDENTIAL, ELSEWHERE),
    ],
)
@pytest.mark.parametrize("told", [None, "true", "false"])
def test_a_cause_goes_before_status_and_advice(status: int, cause: Cause, verdict: Verdict, told: str | None) -> None:
    given = {} if told is None else {"x_should_retry": told}
    assert judge_status(status, fields(**given), cause, NOW) == verdict


@pytest.mark.parametrize("status", [401, 403])
def test_a_credential_that_is_refused_is_no_fault_of_the_target(status: int) -> None:
    assert judged(status) == ELSEWHERE


def test_more_than_its_tokens_per_minute_at_once_may_be_taken_elsewhere() -> None:
    assert judged(413, Cause.RATE) == ELSEWHERE


def test_the_providers_advice_is_about_itself() -> None:
    assert judged(503, x_should_retry="false") == Verdict(False, True, is_fault=True)
    assert judged(429, Cause.RATE, x_should_retry=" False ") == Verdict(False, True, is_fault=True)
    assert judged(400, Cause.INVALID, x_should_retry="true") == Verdict(True, False)
    assert judged(400, Cause.INVALID, x_should_retry="false") == FINAL
    assert judged(503, x_should_retry="perhaps") == RETRY


@pytest.mark.parametrize(
    ("given", "wait"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": " 0.5 "}, 0.5),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after_ms": "1500", "retry_after": "7"}, 1.5),
        ({"retry_after_ms": "soon", "retry_after": "7"}, 7.0),
        ({"retry_after_ms": "-1", "retry_after": "7"}, 7.0),
        ({"retry_after": "86400"}, 86400.0),
        ({"retry_after": "86401"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "1e999"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "9" * 30_000}, None),
        ({"retry_after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry_after": "Friday, 15-Jan-27 08:00:30 GMT"}, 30.0),
        ({"retry_after": "Fri Jan 15 08:00:30 2027"}, 30.0),
        ({"retry_after": "Fri, 15 Jan 2027 07:59:30 GMT"}, None),
        ({"retry_after": "Fri, 15 Jan 2037 08:00:30 GMT"}, None),
        ({"retry_after": "Fri, 99 Jan 0000 99:99:99 GMT"}, None),
        ({}, None),
    ],
)
def test_what_the_provider_says_of_waiting_is_read(given: dict[str, str], wait: float | None) -> None:
    get = fields(**given)
    for status in (429, 503):
        assert judge_status(status, get, Cause.OTHER, NOW) == RETRY._replace(wait=wait)
    assert judge_status(400, get, Cause.INVALID, NOW).wait is None
    assert judge_status(429, get, Cause.QUOTA, NOW) == EXHAUSTED._replace(wait=wait)


@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(100, 999), st.sampled_from(Cause))
def test_no_field_makes_a_judge_raise(one: bytes, other: bytes, status: int, cause: Cause) -> None:
    head = {b"retry-after": one, b"retry-after-ms": other, b"x-should-retry": one}
    verdict = judge_status(status, head.get, cause, NOW)
    assert verdict.wait is None or 0 <= verdict.wait <= 86_400
    assert verdict.elsewhere or not verdict.needs_window


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [
        (Cause.OVERLOADED, RETRY),
        (Cause.RATE, RETRY),
        (Cause.OTHER, RETRY),
        (Cause.CONTEXT, TOO_LONG),
        (Cause.POLICY, FINAL),
        (Cause.QUOTA, EXHAUSTED),
        (Cause.MODEL, ELSEWHERE),
        (Cause.CREDENTIAL, ELSEWHERE),
        (Cause.INVALID, FINAL),
    ],
)
def test_an_event_is_judged_by_its_cause(cause: Cause, verdict: Verdict) -> None:
    assert judge_event(cause) == verdict


def test_every_cause_has_a_verdict() -> None:
    for cause in Cause:
        judge_event(cause)


def test_from_the_bytes_of_an_event_to_a_verdict() -> None:
    busy = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'
    assert judge_event(cause_of(200, busy)) == RETRY
    wrong = b'data: {"error":{"message":"x","type":"invalid_request_error","code":null}}\n\n'
    assert judge_event(cause_of(200, wrong)) == FINAL


BEFORE_ITS_ANSWER = (Phase.CONNECT, Phase.SEND, Phase.FIRST_BYTE, Phase.FIRST_EVENT)
BROKEN = (Kind.CONNECT_FAILED, Kind.RESET, Kind.PROTOCOL, Kind.MISSING_END)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("kind", Kind)
def test_a_failure_is_judged_by_whose_it_is(phase: Phase, kind: Kind) -> None:
    assert judge_failure(Failure(Side.CLIENT, phase, kind)) == FINAL
    is_full = phase is Phase.QUEUE and kind in (Kind.OVERLOADED, Kind.TIMEOUT)
    assert judge_failure(Failure(Side.PROXY, phase, kind)) == (ELSEWHERE if is_full else FINAL)
    verdict = judge_failure(Failure(Side.UPSTREAM, phase, kind))
    if kind in BROKEN or (kind is Kind.TIMEOUT and phase in BEFORE_ITS_ANSWER):
        assert verdict == RETRY
    elif kind is Kind.TIMEOUT and phase is Phase.STREAM:
        assert verdict == Verdict(False, False, is_fault=True)
    elif kind is not Kind.TIMEOUT:
        assert verdict == FINAL


def test_pauses_double_up_to_a_limit_with_full_jitter() -> None:
    assert [backoff(number, 1.0) for number in range(1, 8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert [backoff(number, 0.5) for number in (1, 2)] == [0.25, 0.5]
    assert backoff(1, 0.0) == backoff(9, 0.001) == 0.05
    assert backoff(10**6, 1.0) == 8.0


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_pause_is_never_longer_or_shorter_than_said(number: int, chance: float) -> None:
    assert 0.05 <= backoff(number, chance) <= 8.0


def test_patience_ends_at_a_cap_and_where_no_time_is_left() -> None:
    assert patience(None, 0.0)
    assert patience(WAIT_CAP, math.inf)
    assert not patience(WAIT_CAP + 0.1, math.inf)
    assert patience(2.0, 2.1)
    assert not patience(2.0, 2.0)


# -- the budget -------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.floats(0, 30).map(lambda pause: pause if pause < 15 else 0.0),  # half of them in the same moment
        st.integers(0, 200),
        st.integers(0, 130),
    ),
    max_size=20,
)


@given(STEPS, st.sampled_from([0.0, 0.1, 0.2, 1.0]), st.sampled_from([0.0, 0.5, 3.0, 10.0, 150.0]))
def test_over_any_span_of_time_retries_are_a_share_of_requests(
    steps: list[tuple[float, int, int]], share: float, least: float
) -> None:
    """Exactly what the docstring says, for every span that begins and ends at one of the steps."""
    budget = RetryBudget(share, least)
    now = 0.0
    spans = [[0.0, 0.0, 0.0, least]]  # began, requests, retries, kept at most then
    for pause, requests, asked in steps:
        now += pause
        for _ in range(requests):
            budget.note_request()
        passed = sum(budget.take(now) for _ in range(asked))
        for span in spans:
            span[1] += requests
            span[2] += passed
            assert span[2] <= share * span[1] + least * (now - span[0]) / 10 + span[3] + 1e-6
        spans.append([now, 0.0, 0.0, max(least, 100.0)])


def test_what_was_promised_is_given() -> None:
    budget = RetryBudget(0.2)
    assert sum(budget.take(0.0) for _ in range(50)) == 10  # at first
    for _ in range(101):
        budget.note_request()
    assert sum(budget.take(0.0) for _ in range(50)) == 20  # a fifth
    assert sum(budget.take(5.0) for _ in range(50)) == 5  # half of `least`
    assert sum(budget.take(3600.0) for _ in range(50)) == 10  # and never more by time alone


def test_what_is_kept_has_an_end() -> None:
    budget = RetryBudget(0.2)
    for _ in range(10_000):
        budget.note_request()
    assert sum(budget.take(0.0) for _ in range(500)) == 100


def test_what_requests_have_given_is_not_lost_by_time() -> None:
    budget = RetryBudget(0.2)
    budget.take(0.0)
    for _ in range(1000):
        budget.note_request()
    assert sum(budget.take(60.0) for _ in range(500)) == 100


def test_one_request_a_minute_may_still_be_retried() -> None:
    budget = RetryBudget(0.2)
    for minute in range(100):
        budget.note_request()
        assert budget.take(minute * 60.0)
        assert budget.take(minute * 60.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budget = RetryBudget(0.0, 1.0)
    assert budget.take(100.0)
    assert not budget.take(50.0)
    assert not budget.take(105.0)
    assert budget.take(110.0)
