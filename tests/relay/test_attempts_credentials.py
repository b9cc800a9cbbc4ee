"""What a review found where a provider has several credentials, or refuses one: who is asked with which, and when one
that was refused comes back."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from proxy.catalog.secret import Secret
from proxy.outcome import Kind
from proxy.relay.connect import ConnectFailed
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage
from tests.relay.targets import BUSY, ERROR, TWO, A, B, asks, provider, stage_of, tried


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


LIMITED = b"429 Too Many Requests"
REFUSED = b"401 Unauthorized"
SOON = b"retry-after: 30"


def keyed(count: int, models: str = "m = a/one", **options: Any) -> Stage:
    """A stage whose first provider has so many credentials: sk-number-0, sk-number-1, ..."""
    first, *further = [Secret(f"sk-number-{number}") for number in range(count)]
    providers = (provider("a", credential=first, further=tuple(further)), provider("b"))
    return Stage(models=models, providers=providers, **({"retries": 2} | options))


_SENT = re.compile(rb"Bearer sk-number-(\d)\r\n")


def used(stage: Stage) -> list[int]:
    """Numbers of the credentials with which the first provider was asked since this was asked last."""
    return [int(number) for peer in stage.upstreams for number in _SENT.findall(peer.heard())]


def asks_and(stage: Stage, answer: bytes, model: bytes = b"m", *, stream: bool = False) -> tuple[list[int], int]:
    """The credentials with which one request was sent, while it is answered so; and the status that its client got."""
    used(stage)
    client = asks(stage, model, stream=stream)
    found: list[int] = []
    while now := [(number, peer) for peer in stage.upstreams for number in _SENT.findall(peer.heard())]:
        for number, peer in now:
            found.append(int(number))
            peer.says(answer)
    return found, s.status_of(client.heard())


# -- one that was refused comes back ----------------------------------------------------------------------------------

STREAM = s.STREAM_HEAD + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [REFUSED, b"403 Forbidden"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_that_works_again_is_used_by_all_again(count: int, status: bytes, stream: bool) -> None:
    with keyed(count) as stage:
        assert asks_and(stage, s.unary(ERROR, status)) == (list(range(count)), 502)
        assert asks_and(stage, s.unary()) == ([], 502), "it is left out for a minute"
        stage.advance(61.0)
        for number in range(2 * count):
            found = asks_and(stage, STREAM if stream else s.unary(), stream=stream)
            assert found == ([number % count], 200), "and all take turns, as before"
        for _ in range(2):
            asks(stage)
        assert len(used(stage)) == 2, "at once, too: nobody tries it any more"


def test_it_comes_back_by_a_request_without_an_alias_too() -> None:
    with keyed(1) as stage:
        asks_and(stage, s.unary(ERROR, REFUSED))
        assert asks_and(stage, s.unary(), b"a/other") == ([0], 200)
        assert asks_and(stage, s.unary()) == ([0], 200)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_one_document_is_measured_as_well(stream: bool) -> None:
    with stage_of("m = a/one") as stage:
        client = asks(stage, stream=stream)
        stage.advance(2.0)
        stage.upstream().says(STREAM if stream else s.unary())
        assert s.status_of(client.heard()) == 200
        assert stage.relay.health.of(("a", "one")).latency == pytest.approx(2.0)


# -- several ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [b"m", b"a/one"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_is_limited_once_at_once_and_then_there_is_a_pause(count: int, model: bytes) -> None:
    with keyed(count, "m (retries=10) = a/one", retries=10) as stage:
        client = asks(stage, model)
        for number in range(count):
            assert used(stage) == [number]
            stage.upstream().says(s.unary(ERROR, LIMITED))
        stage.advance(0.19)
        assert (used(stage), client.heard()) == ([], b"")
        stage.advance(4.0)
        assert len(used(stage)) == 1
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each[2] for each in tried(stage)] == [429] * count + [200]


@pytest.mark.parametrize("status", [LIMITED, REFUSED])
def test_the_next_target_is_asked_when_each_was_tried(status: bytes) -> None:
    with keyed(2, TWO) as stage:
        client = asks(stage)
        for number in range(2):
            assert used(stage) == [number]
            stage.upstream().says(s.unary(ERROR, status))
        assert stage.dialed[-1] == B
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each[4] for each in tried(stage)] == ["first", "retry", "fallback"]


@pytest.mark.parametrize("line", [b"retry-after: 61", b"x-should-retry: false"])
@pytest.mark.parametrize("models", ["m = a/one", "m (retries=1) = a/one | b/two"])
def test_where_all_are_limited_the_provider_says_so_itself(models: str, line: bytes) -> None:
    with keyed(2, models) as stage:
        client = asks(stage)
        for number in range(2):
            assert used(stage) == [number]
            stage.upstream().says(s.unary(ERROR, LIMITED, line))
        assert client.heard() == s.passed_on(ERROR, LIMITED, line)
        assert [each[2] for each in tried(stage)] == [429, 429]


def test_while_all_are_limited_the_next_client_hears_it_from_the_provider_too() -> None:
    with keyed(2, "m (retries=1) = a/one") as stage:
        assert asks_and(stage, s.unary(ERROR, LIMITED, SOON)) == ([0, 1], 429)
        found, status = asks_and(stage, s.unary(ERROR, LIMITED, SOON))
        assert (len(found), status) == (2, 429)
        assert stage.receipts[-1].ended_kind == "error_status"


@pytest.mark.parametrize(("line", "seconds"), [(SOON, 30.0), (b"x-nothing: 1", 1.0)])
def test_while_one_is_limited_the_others_are_used(line: bytes, seconds: float) -> None:
    with keyed(2) as stage:
        for _ in range(6):
            client = asks(stage)
            assert used(stage) == [0]
            stage.upstream().says(s.unary(ERROR, LIMITED, line))
            assert used(stage) == [1], "at once"
            stage.upstream().says(s.unary())
            assert client.heard() == s.passed_on()
            stage.advance(seconds - 0.1)
            assert [asks_and(stage, s.unary()) for _ in range(3)] == [([1], 200)] * 3
            stage.advance(0.2)
        assert stage.relay.health.of(("a", "one")).breaker.is_closed, "it is no fault of the target"


def test_without_an_alias_each_is_refused_once() -> None:
    with keyed(2, "", retries=10) as stage:
        told: list[dict[str, object]] = []
        stage.relay.notice = lambda level, message, **more: told.append(more)
        assert asks_and(stage, s.unary(ERROR, REFUSED), b"a/one") == ([0, 1], 502)
        assert [each[3] for each in tried(stage)] == ["credential_refused"] * 2
        assert [each["status"] for each in told] == [401, 401]
        asks_and(stage, s.unary(ERROR, REFUSED), b"a/one")
        assert len(told) == 2, "what is known is not said again"


@pytest.mark.parametrize("status", [REFUSED, b"403 Forbidden"])
@pytest.mark.parametrize("model", [b"m", b"a/one"])
def test_what_a_provider_says_of_our_credential_is_not_shown_where_nobody_else_is_asked_either(
    model: bytes, status: bytes
) -> None:
    with keyed(1, retries=0) as stage:
        client = asks(stage, model)
        stage.upstream().says(s.unary(ERROR, status))
        heard = client.heard()
        assert s.status_of(heard) == 502
        assert b'"code":"credential_refused"' in heard
        assert stage.receipt().ended_kind == "credential_refused"
        assert asks_and(stage, s.unary()) == ([], 502), "and it is out"


# -- what a refusal is about ------------------------------------------------------------------------------------------

FLAGGED = b'{"error":{"message":"This needs moderation and your input was flagged. Key: sk-number-0","code":403}}'


@pytest.mark.parametrize("model", [b"m", b"a/one"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_refusal_of_content_is_the_clients_and_takes_no_credential_out(retries: int, model: bytes) -> None:
    with keyed(2, TWO, retries=retries) as stage:
        for number in range(4):
            client = asks(stage, model)
            assert used(stage) == [number % 2], "both are in use"
            stage.upstream().says(s.unary(FLAGGED, b"403 Forbidden"))
            assert client.heard() == s.passed_on(FLAGGED.replace(b"sk-number-0", b"*" * 11), b"403 Forbidden")
            receipt = stage.receipt()
            assert (receipt.status, receipt.ended_kind, len(receipt.attempts)) == (403, "error_status", 1)
        assert stage.dialed == [A]


def test_a_refusal_of_content_that_comes_in_pieces_is_one() -> None:
    with keyed(1) as stage:
        client = asks(stage)
        stage.upstream().says_each(s.unary(FLAGGED, b"403 Forbidden"), 50)
        assert s.status_of(client.heard()) == 403
        assert asks_and(stage, s.unary()) == ([0], 200)


def asks_for(stage: Stage, line: bytes) -> Peer:
    client = stage.client()
    client.says(s.ask(line, body=b'{"model":"m","messages":[]}'))
    return client


@pytest.mark.parametrize("line", [b"OpenAI-Organization: org-nobody", b"openai-project: proj-nobody"])
@pytest.mark.parametrize("status", [REFUSED, b"403 Forbidden"])
def test_what_a_client_adds_to_a_credential_takes_it_from_nobody_else(status: bytes, line: bytes) -> None:
    with keyed(1) as stage:
        client = asks_for(stage, line)
        stage.upstream().says(s.unary(ERROR, status))
        assert b'"code":"credential_refused"' in client.heard()
        assert asks_and(stage, s.unary()) == ([0], 200)


def test_without_such_a_field_it_does() -> None:
    with keyed(1) as stage:
        client = asks_for(stage, b"x-other: 1")
        stage.upstream().says(s.unary(ERROR, REFUSED))
        assert b'"code":"credential_refused"' in client.heard()
        assert asks_and(stage, s.unary()) == ([], 502)


# -- the one who tries it ---------------------------------------------------------------------------------------------


def test_a_try_that_a_limit_refuses_leaves_another_one_to_be_made() -> None:
    with keyed(1, rules={"provider a": "concurrent=2"}) as stage:
        one = asks(stage, b"a/other", stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        assert asks_and(stage, s.unary(ERROR, REFUSED)) == ([0], 502)
        two = asks(stage, b"a/other", stream=True)
        assert used(stage) == [0]
        stage.advance(61.0)
        refused = asks(stage)
        assert b'"code":"too_many_requests"' in refused.heard()
        stage.upstreams[0].says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        assert one.heard().endswith(s.LAST)
        assert asks_and(stage, s.unary()) == ([0], 200)
        two.resets()


@pytest.mark.parametrize("ending", ["resets", "leaves", "cannot connect"])
def test_a_try_without_an_answer_leaves_another_one_to_be_made(ending: str) -> None:
    with keyed(1, retries=0) as stage:
        assert asks_and(stage, s.unary(ERROR, REFUSED)) == ([0], 502)
        stage.upstream().resets()
        stage.advance(61.0)
        if ending == "cannot connect":
            stage.connects.append(ConnectFailed(Kind.CONNECT_FAILED, "refused"))
        client = asks(stage)
        if ending == "resets":
            stage.upstream().resets()
        elif ending == "leaves":
            client.resets()
        assert asks_and(stage, s.unary()) == ([0], 200)


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", LIMITED, b"500 No", BUSY])
@pytest.mark.parametrize("model", [b"m", b"a/one"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_try_that_is_answered_otherwise_leaves_another_one_to_be_made(
    count: int, model: bytes, status: bytes
) -> None:
    with keyed(count, retries=0) as stage:
        for number in range(count):
            assert asks_and(stage, s.unary(ERROR, REFUSED)) == ([number], 502)
        stage.advance(61.0)
        found, told = asks_and(stage, s.unary(ERROR, status), model)
        assert told == int(status[:3])
        stage.advance(5.1)  # its breaker may have been told to wait, or one of the credentials
        for _ in range(count):
            found += asks_and(stage, s.unary())[0]
        assert sorted(set(found)) == list(range(count))


@pytest.mark.parametrize("said", [b"", s.chunk(s.ROLE), s.chunk(b'data: {"error":{"message":"busy"}}\n\n') + s.LAST])
def test_a_try_whose_stream_has_not_begun_leaves_another_one_to_be_made(said: bytes) -> None:
    with keyed(1, retries=0) as stage:
        assert asks_and(stage, s.unary(ERROR, REFUSED)) == ([0], 502)
        stage.advance(61.0)
        asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + said)
        stage.upstream().resets()
        assert asks_and(stage, s.unary()) == ([0], 200)


def test_a_try_that_fails_may_be_made_again_by_the_same_request() -> None:
    with keyed(1) as stage:
        assert asks_and(stage, s.unary(ERROR, REFUSED)) == ([0], 502)
        stage.advance(61.0)
        client = asks(stage)
        assert used(stage) == [0]
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.advance(1.0)
        assert (used(stage), client.heard()) == ([0], b"")
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


def test_while_one_tries_it_nobody_else_does() -> None:
    with keyed(1) as stage:
        assert asks_and(stage, s.unary(ERROR, REFUSED)) == ([0], 502)
        stage.advance(61.0)
        client = asks(stage)
        assert used(stage) == [0]
        other = asks(stage)
        assert s.status_of(other.heard()) == 502
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert asks_and(stage, s.unary()) == ([0], 200)
