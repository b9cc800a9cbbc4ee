"""Small things that were wrong once: what a refusal takes, whose answer it is, what is kept meanwhile."""

from __future__ import annotations

import random

import orjson
import pytest

from proxy.outcome import Kind, Limit
from proxy.relay.connect import ConnectFailed
from tests.relay import stage as s
from tests.relay.targets import ERROR, B, asks, stage_of
from tests.relay.test_held import ARRAY
from tests.relay.test_local import BEARER, VERSION, listing
from tests.relay.test_resuming import SAME, cut, delta


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


def test_an_error_in_an_array_has_used_nothing() -> None:
    with ARRAY.stage() as stage:
        client = stage.client()
        client.says(ARRAY.asked)
        stage.upstream().says(
            ARRAY.head + s.chunk(b'[{"error":{"code":503,"status":"UNAVAILABLE","message":"busy"}}\n]')
        )
        client.resets()
        used = stage.receipt().attempts[0].usage
        assert used is None or (used.input, used.output) == (None, None)


def test_an_unknown_model_is_told_to_anthropics_clients_in_their_form() -> None:
    with listing(models=("fast",)) as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models/x", BEARER, VERSION))
        body = orjson.loads(client.heard().partition(b"\r\n\r\n")[2])
        assert body["type"] == "error"


def test_an_unknown_model_is_told_to_openais_clients_in_theirs() -> None:
    with listing(models=("fast",)) as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models/x", BEARER))
        body = orjson.loads(client.heard().partition(b"\r\n\r\n")[2])
        assert "param" in body["error"]
        assert stage.receipt().dialect == "openai-chat"


def test_a_client_that_does_not_read_does_not_pause_a_link_before_its_head() -> None:
    with stage_of(SAME, seconds={Limit.CLIENT_STALL: 500.0}) as stage:
        client = cut(stage, "Hello")
        client.stops_reading()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel")))
        stage.advance(300.0)
        client.reads_on()
        stage.upstream().says(s.chunk(delta("lo you") + s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == s.chunk(delta(" you") + s.FINISH + s.DONE) + s.LAST


def test_what_a_targets_own_limits_refuse_is_no_request_of_others() -> None:
    rules = {"all": "rpm=100", "provider a": "rpm=1"}
    with stage_of("m = a/one", rules=rules) as stage:
        asks(stage)
        stage.upstream().says(s.unary())
        client = asks(stage)
        assert s.status_of(client.heard()) == 429
        (rate,) = stage.admission.limiter.rules("all").rates
        n = stage.admission.limiter.ahead("all", rate, stage.relay.wall()) // rate.step
        assert n == 1


def test_of_several_refusals_the_client_hears_of_the_one_that_passes_soonest() -> None:
    rules = {"provider a": "rpm=1", "provider b": "1token/total"}
    with stage_of(rules=rules) as stage:
        asks(stage)
        stage.upstream().says(s.unary())
        client = asks(stage)
        answer = client.heard()
        assert b"x-should-retry: false" not in answer
        assert b"retry-after: 60" in answer


def test_a_stream_whose_provider_has_died_is_carried_on_elsewhere() -> None:
    with stage_of("m (resume retries=3) = a/one | b/two") as stage:
        asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello ")))
        stage.connects.extend([ConnectFailed(Kind.CONNECT_FAILED, "refused")] * 3)
        stage.upstream().resets()
        stage.advance(20)
        assert B in stage.dialed


def test_what_repeats_silently_is_not_kept() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "x" * 200_000)
        stage.upstream().says(s.STREAM_HEAD)
        for _ in range(1990):
            stage.upstream().says(s.chunk(delta("x" * 100)))
        at = s.exchange_of(client).attempts.current
        n = sum(map(len, at.metering.unread))
        assert n < 20_000
        client.resets()


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"500 No"])
def test_a_try_of_a_credential_that_is_answered_otherwise_leaves_the_next_one(status: bytes) -> None:
    body = b'{"error":{"message":"bad","type":"invalid_request_error"}}'
    with stage_of("m (retries=0) = a/one") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, b"401 Unauthorized"))
        assert s.status_of(client.heard()) == 502
        stage.advance(61)
        for _ in range(2):
            client = asks(stage)
            stage.upstream().says(s.unary(body, status))
            assert s.status_of(client.heard()) == int(status[:3]), "the credential was taken"


def test_events_that_end_where_the_client_is_are_not_counted_again() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello ")
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello ")))
        stage.upstream().says(s.chunk(delta("you") + s.FINISH + s.DONE) + s.LAST)
        client.heard()
        assert stage.receipt().events == 5
