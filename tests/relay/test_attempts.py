"""Which target is asked next, when, and how often: the whole relay on fake links and a fake clock."""

from __future__ import annotations

import random

import pytest

from proxy.catalog.prices import Prices
from proxy.outcome import Kind, Limit
from proxy.policy.keys import AuthMode
from proxy.relay.connect import ConnectFailed
from proxy.relay.options import ByteLimits
from tests.relay import stage as s
from tests.relay.stage import Stage
from tests.relay.targets import BUSY, ERROR, A, B, C, asks, provider, stage_of, tried


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


# -- aliases ----------------------------------------------------------------------------------------------------------


def test_an_alias_goes_to_its_first_group_under_the_name_that_the_model_has_there() -> None:
    with stage_of() as stage:
        client = asks(stage)
        assert stage.dialed == [A]
        assert b'{"model":"one","messages":[]}' in stage.upstream().heard()
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        receipt = stage.receipt()
        assert (receipt.alias, receipt.provider, receipt.model_requested) == ("m", "a", "m")
        assert [(each.provider, each.model, each.why) for each in receipt.attempts] == [("a", "one", "first")]


def test_an_alias_without_a_target_for_the_format_is_told_where_to_ask() -> None:
    with stage_of("m = a/one") as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/messages", b'{"model":"m","max_tokens":1,"messages":[]}'))
        answer = client.heard()
        assert s.status_of(answer) == 400
        assert b"/v1/chat/completions" in answer
        assert stage.dialed == []
        assert stage.receipt().ended_kind == "bad_request"


# -- what fails over, and what does not -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [b"500 No", b"502 No", BUSY, b"529 No", b"429 Too Many Requests", b"408 No"])
def test_an_error_of_the_first_target_is_never_seen(status: bytes) -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, status))
        assert client.heard() == b""
        assert stage.dialed == [A, B]
        assert b'"model":"two"' in stage.upstream().heard()
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        code = int(status[:3])
        assert tried(stage) == [("a", "one", code, "error_status", "first"), ("b", "two", 200, None, "fallback")]
        assert stage.pooled == 2, "the link of an error that ended well is used again"


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"422 No", b"413 Too Large"])
def test_what_is_the_fault_of_the_request_is_final(status: bytes) -> None:
    body = b'{"error":{"message":"bad","type":"invalid_request_error","code":"odd"}}'
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(body, status))
        assert client.heard() == s.passed_on(body, status)
        assert len(stage.receipt().attempts) == 1


def test_the_last_error_goes_out_as_it_came() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        other = b'{"error":  {"message":"mine" } }'
        stage.upstream().says(s.unary(other, b"500 Oops", b"x-request-id: r-2"))
        assert client.heard() == b"", "the first target is asked again, after a pause"
        stage.advance(1.0)
        a = stage.upstreams[0]
        a.says(s.unary(other, b"500 Oops", b"x-request-id: r-3"))
        assert client.heard() == s.passed_on(other, b"500 Oops", b"x-request-id: r-3")
        receipt = stage.receipt()
        assert [each.why for each in receipt.attempts] == ["first", "fallback", "retry"]
        assert (receipt.status, receipt.provider, receipt.provider_request_id) == (500, "a", "r-3")
        assert not receipt.complete


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_a_link_that_ends_before_an_answer_fails_over(leave: str) -> None:
    with stage_of() as stage:
        client = asks(stage)
        getattr(stage.upstream(), leave)()
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each[3] for each in tried(stage)] == ["reset", None]


def test_a_target_that_cannot_be_reached_fails_over() -> None:
    with stage_of() as stage:
        stage.connects.append(ConnectFailed(Kind.CONNECT_FAILED, "refused"))
        client = asks(stage)
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert tried(stage) == [("a", "one", 0, "connect_failed", "first"), ("b", "two", 200, None, "fallback")]


def test_a_silent_target_is_not_asked_twice_when_there_is_another() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.advance(501.0)
        assert stage.dialed == [A, B]
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.advance(5.0)
        assert stage.dialed == [A, B], "b again, on the link that it has"
        stage.upstreams[1].says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each[:1] + each[3:] for each in tried(stage)] == [
            ("a", "timeout", "first"),
            ("b", "error_status", "fallback"),
            ("b", None, "retry"),
        ]


def test_a_silent_target_that_is_the_only_one_is() -> None:
    with stage_of("m = a/one") as stage:
        client = asks(stage)
        stage.advance(501.0)
        stage.advance(1.0)
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each[3] for each in tried(stage)] == ["timeout", None]


def test_without_an_alias_the_same_target_is_asked_again() -> None:
    with stage_of() as stage:
        client = asks(stage, b"a/gpt-5")
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert client.heard() == b""
        stage.advance(1.0)
        stage.upstreams[0].says(s.unary())
        assert client.heard() == s.passed_on()
        assert tried(stage) == [("a", "gpt-5", 503, "error_status", "first"), ("a", "gpt-5", 200, None, "retry")]


def test_a_body_that_streams_through_is_sent_once() -> None:
    with stage_of() as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/files", b"data"))
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert s.status_of(client.heard()) == 503
        assert len(stage.receipt().attempts) == 1


def test_a_large_body_is_sent_once() -> None:
    with stage_of(limits=ByteLimits(replay=20)) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert s.status_of(client.heard()) == 503
        assert len(stage.receipt().attempts) == 1


def test_an_answer_that_has_begun_is_final() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary()[:-4])
        stage.upstream().resets()
        assert client.is_gone
        assert len(stage.receipt().attempts) == 1


# -- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "seconds"), [(b"retry-after: 3", 3.0), (b"retry-after-ms: 1500", 1.5)])
def test_what_the_provider_says_is_waited_for(line: bytes, seconds: float) -> None:
    with stage_of("m = a/one") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, b"429 Too Many Requests", line))
        upstream = stage.upstream()
        upstream.heard()
        stage.advance(seconds - 0.01)
        assert upstream.heard() == b""
        stage.advance(0.02)
        assert b'"model":"one"' in upstream.heard()
        upstream.says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.receipt().complete


def test_a_wait_that_is_too_long_is_the_clients() -> None:
    with stage_of("m = a/one") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, b"429 Too Many Requests", b"retry-after: 61"))
        assert client.heard() == s.passed_on(ERROR, b"429 Too Many Requests", b"retry-after: 61")
        assert stage.receipt().status == 429


def test_nobody_waits_beyond_the_limit_on_the_whole() -> None:
    with stage_of("m (total=10) = a/one") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, b"429 Too Many Requests", b"retry-after: 11"))
        assert s.status_of(client.heard()) == 429
        assert stage.receipt().status == 429


def test_a_client_that_leaves_while_it_waits_ends_it() -> None:
    with stage_of("m = a/one") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY, b"retry-after: 5"))
        client.resets()
        receipt = stage.receipt()
        assert (receipt.ended_kind, len(receipt.attempts)) == ("client_left", 1)


def test_retries_are_bounded_by_their_number() -> None:
    with stage_of("m (retries=1) = a/one, b/two, c/three") as stage:
        client = asks(stage)
        for _ in range(2):
            stage.upstream().says(s.unary(ERROR, BUSY))
        assert s.status_of(client.heard()) == 503
        assert len(stage.receipt().attempts) == 2


def test_retries_are_bounded_by_their_share_of_all_requests() -> None:
    with stage_of(retry_share=0.0) as stage:
        while stage.relay.retries.take(stage.loop.time()):
            pass
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert s.status_of(client.heard()) == 503
        assert len(stage.receipt().attempts) == 1


# -- streams that begin badly -----------------------------------------------------------------------------------------

OVERLOADED = b'data: {"error":{"message":"busy","type":"server_error","code":"overloaded"}}\n\n'


def test_a_stream_is_held_until_its_first_content() -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE + s.COMMENT))
        assert client.heard() == b""
        stage.upstream().says(s.chunk(s.text()))
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.ROLE + s.COMMENT) + s.chunk(s.text())
        stage.upstream().says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == s.chunk(s.FINISH + s.DONE) + s.LAST
        assert stage.receipt().complete


def test_an_error_in_place_of_the_first_content_fails_over() -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.upstream().says(s.chunk(OVERLOADED))
        assert client.heard() == b""
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST
        receipt = stage.receipt()
        assert (receipt.complete, receipt.provider) == (True, "b")
        assert [s.kind_of(each.failure) for each in receipt.attempts] == ["error_event", None]


def test_an_error_after_content_goes_out() -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        stage.upstream().says(s.chunk(OVERLOADED) + s.LAST)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text()) + s.chunk(OVERLOADED) + s.LAST
        assert stage.receipt().ended_kind == "error_event"


@pytest.mark.parametrize("how", ["cut", "end"])
def test_a_stream_that_ends_before_its_first_content_fails_over(how: str) -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        if how == "cut":
            stage.upstream().resets()
        else:
            stage.upstream().says(s.LAST)
        assert client.heard() == b""
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST)
        assert s.status_of(client.heard()) == 200
        assert stage.receipt().complete


def test_without_another_attempt_it_is_an_honest_status() -> None:
    with stage_of("m (retries=1) = a/one") as stage:
        client = asks(stage, stream=True)
        stage.upstream().resets()
        stage.advance(1.0)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        assert s.status_of(client.heard()) == 200, "nothing could follow it: it is not held"
        stage.upstream().resets()
        assert client.heard().endswith(b"}}\n\n\r\n"), "so the error is an event"
        assert stage.receipt().ended_kind == "reset"


def test_silence_after_the_head_fails_over() -> None:
    with stage_of("m (first_event=10) = a/one | b/two") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.advance(9.5)
        stage.upstream().says(s.chunk(s.COMMENT))
        assert stage.dialed == [A]
        stage.advance(1.0)
        assert stage.dialed == [A, B]
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST
        assert [each[3] for each in tried(stage)] == ["timeout", None]


def test_it_is_held_no_longer_than_hold() -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.advance(14.5)
        assert client.heard() == b""
        stage.advance(1.0)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.ROLE)
        stage.upstream().resets()
        assert b'"code":"reset"' in client.heard()
        assert stage.receipt().ended_kind == "reset"


def test_it_is_held_no_longer_than_64_kib() -> None:
    comment = b": " + b"x" * 1000 + b"\n\n"
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD)
        for _ in range(65):
            assert client.heard() == b""
            stage.upstream().says(s.chunk(comment))
        stage.upstream().says(s.chunk(comment))
        assert len(client.heard()) > 65_000
        client.resets()


def test_a_setting_turns_the_hold_off() -> None:
    with stage_of(seconds={Limit.HOLD: 0.0}) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.ROLE)
        client.resets()


def test_an_error_document_under_a_good_status_fails_over() -> None:
    """WIRE 0.12: a status of 200 says nothing."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    body = b'{"error":{"message":"busy","code":503}}'
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(head % len(body) + body[:20])
        assert client.heard() == b""
        stage.upstream().says(body[20:])
        assert client.heard() == b""
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST)
        assert s.status_of(client.heard()) == 200
        assert stage.receipt().provider == "b"


# -- causes -----------------------------------------------------------------------------------------------------------

CONTEXT = b'{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}'


def test_a_context_that_is_too_long_goes_to_a_larger_window() -> None:
    models = "m = a/one (window=8k), b/two (window=8k) | c/three (window=100k)"
    with stage_of(models) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(CONTEXT, b"400 Bad Request"))
        assert stage.dialed[1:] == [C]
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.receipt().provider == "c"


def test_and_is_final_where_there_is_none() -> None:
    with stage_of("m = a/one (window=8k) | b/two (window=8k)") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(CONTEXT, b"400 Bad Request"))
        assert client.heard() == s.passed_on(CONTEXT, b"400 Bad Request")
        assert len(stage.receipt().attempts) == 1


def test_a_quota_is_not_asked_for_again_but_elsewhere() -> None:
    body = b'{"error":{"message":"You exceeded your current quota","type":"insufficient_quota"}}'
    with stage_of("m = a/one") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(body, b"429 Too Many Requests"))
        assert s.status_of(client.heard()) == 429
        assert len(stage.receipt().attempts) == 1
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(body, b"429 Too Many Requests"))
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.receipt().provider == "b"


# -- credentials ------------------------------------------------------------------------------------------------------


def test_a_refused_credential_fails_over_and_stays_out() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, b"401 Unauthorized"))
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each[3] for each in tried(stage)] == ["credential_refused", None]
        again = asks(stage)
        stage.upstreams[1].says(s.unary())
        assert again.heard() == s.passed_on()
        assert [each[0] for each in tried(stage)] == ["b"]


def test_credentials_take_turns_and_a_refused_one_is_passed_over() -> None:
    from proxy.catalog.secret import Secret

    given = provider("a", credential=Secret("sk-first-one"), further=(Secret("sk-second-one"),))
    with Stage(models="m = a/one", retries=2, providers=(given,)) as stage:
        client = asks(stage)
        assert b"Bearer sk-first-one" in stage.upstream().heard()
        stage.upstream().says(s.unary(ERROR, b"401 Unauthorized"))
        assert b"Bearer sk-second-one" in stage.upstream().heard()
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        for _ in range(3):
            client = asks(stage)
            assert b"Bearer sk-second-one" in stage.upstream().heard()
            stage.upstream().says(s.unary())
        assert [len(receipt.attempts) for receipt in stage.receipts] == [2, 1, 1, 1]
        client.heard()


# -- the breaker ------------------------------------------------------------------------------------------------------


def test_a_target_that_keeps_failing_is_left_alone_and_probed_by_one() -> None:
    with stage_of() as stage:
        for _ in range(5):
            client = asks(stage)
            stage.upstreams[0].says(s.unary(ERROR, BUSY))
            stage.upstreams[-1].says(s.unary())
            assert client.heard() == s.passed_on()
        client = asks(stage)
        stage.upstreams[1].says(s.unary())
        assert [each.provider for each in stage.receipts[-1].attempts] == ["b"], "a is open"
        stage.advance(5.1)
        probe, other = asks(stage), asks(stage)
        a, b = stage.upstreams[0], stage.upstreams[1]
        assert b'"one"' in a.heard()
        b.says(s.unary())
        assert other.heard() == s.passed_on()
        a.says(s.unary())
        assert probe.heard() == s.passed_on()
        assert [each.attempts[0].provider for each in stage.receipts[-2:]] == ["b", "a"]
        stage.advance(10.1)
        client = asks(stage)
        a.says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.receipts[-1].attempts[0].provider == "a", "it is back, and has warmed up"
        assert len(stage.receipts) == 9


def test_where_all_are_open_the_first_to_be_back_is_asked_all_the_same() -> None:
    with stage_of("m (retries=0) = a/one") as stage:
        for _ in range(8):
            client = asks(stage)
            stage.upstream().says(s.unary(ERROR, BUSY))
            assert s.status_of(client.heard()) == 503
        assert len(stage.receipts) == 8


# -- limits -----------------------------------------------------------------------------------------------------------


def test_attempts_count_as_one_request_and_a_targets_own_limit_as_its_own() -> None:
    rules = {"all": "rpm=100", "model m": "rpm=2", "provider a": "rpm=1", "provider b": "rpm=100"}
    with stage_of(rules=rules) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        client = asks(stage)
        stage.upstreams[1].says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each.attempts[0].provider for each in stage.receipts] == ["a", "b"], "a has had its one request"
        client = asks(stage)
        answer = client.heard()
        assert s.status_of(answer) == 429, "the alias has had its two"
        assert len(stage.receipts[-1].attempts) == 0


USED = b'{"id":"x","model":"one","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'


def test_a_budget_gets_what_all_attempts_used_and_no_more() -> None:
    with stage_of(rules={"all": "1Mtokens/total"}) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.upstream().says(s.unary(USED))
        client.heard()
        assert stage.receipt().usage is not None
        budget = stage.admission.limiter.rules("all").budgets[0]
        assert stage.admission.limiter.spent("all", budget, s.EPOCH)[0] == 15


# -- what is left -----------------------------------------------------------------------------------------------------


def test_nothing_follows_a_shutdown() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY, b"retry-after: 5"))
        stage.relay.give_up()
        assert s.status_of(client.heard()) == 503
        assert stage.receipt().ended_kind == "shutdown"


# -- what an alias may cost, and whose credential it is ---------------------------------------------------------------

PRICES = b"""{"version": "1", "prices": [
    {"model": "one", "provider": "a", "input": "1000", "output": "1000"},
    {"model": "two", "provider": "b", "input": "1", "output": "1"}
]}"""


@pytest.mark.parametrize(("cost", "provider"), [("100usd", "a"), ("0.10usd", "b")])
def test_targets_that_are_too_dear_are_passed_over(cost: str, provider: str) -> None:
    with stage_of(f"m (cost={cost}) = a/one | b/two", prices=Prices.of(PRICES)) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.receipt().provider == provider


def test_where_all_are_too_dear_it_is_refused() -> None:
    with stage_of("m (cost=0.00001usd) = a/one | b/two", prices=Prices.of(PRICES)) as stage:
        client = asks(stage)
        answer = client.heard()
        assert s.status_of(answer) == 400
        assert b'"code":"exceeds_limit"' in answer
        assert stage.dialed == []
        assert stage.receipt().ended_kind == "exceeds_limit"


def test_a_clients_own_credential_goes_to_one_provider_only() -> None:
    with stage_of(mode=AuthMode.PASSTHROUGH, retries=1) as stage:
        client = stage.client()
        client.says(s.ask(b"Authorization: Bearer sk-mine", body=b'{"model":"m","messages":[]}'))
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert stage.dialed == [A]
        stage.advance(1.0)
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each.provider for each in stage.receipt().attempts] == ["a", "a"]


def test_a_fresh_link_in_place_of_a_stale_one_has_the_same_stake() -> None:
    with stage_of(rules={"all": "1Mtokens/total rpm=100"}) as stage:
        asks(stage)
        stage.upstream().says(s.unary(USED))
        client = asks(stage)
        stage.upstream().resets()
        assert len(stage.admission.limiter.open) == 1, "it still holds what it may cost"
        stage.upstream().says(s.unary(USED))
        assert client.heard() == s.passed_on(USED)
        assert [each.why for each in stage.receipts[-1].attempts] == ["first", "stale"]
        rules = stage.admission.limiter.rules("all")
        assert stage.admission.limiter.spent("all", rules.budgets[0], s.EPOCH)[0] == 30
        assert stage.relay.health.of(("a", "one")).in_flight == 0


def test_where_all_are_open_each_is_asked_before_any_is_asked_twice() -> None:
    with stage_of() as stage:
        now = stage.loop.time()
        for key, wait in ((("a", "one"), 5.0), (("b", "two"), 9.0)):
            stage.relay.health.of(key).breaker.fail(now, False, wait)
        client = asks(stage)
        assert stage.dialed == [A], "it will be back first"
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert stage.dialed == [A, B]
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.relay.health.of(("b", "two")).breaker.is_closed, "who answers all the same is well again"
        assert not stage.relay.health.of(("a", "one")).breaker.is_closed
