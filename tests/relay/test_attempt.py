"""One try at one target: links that were dead already, and what may be tried again."""

from __future__ import annotations

import pytest

from proxy.outcome import Kind, Phase
from proxy.relay.connect import ConnectFailed
from proxy.relay.options import PoolOptions
from tests.relay import stage as s
from tests.relay.stage import Stage


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_a_stale_link_is_replaced_once(leave: str) -> None:
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        client.says(s.ask())
        assert stale.heard() == s.sent_on()
        getattr(stale, leave)()
        assert len(stage.upstreams) == 2
        fresh = stage.upstream()
        assert fresh.heard() == s.sent_on(), "all of it again, the body too"
        fresh.says(s.unary())
        assert client.heard() == s.passed_on()
        receipt = stage.receipt()
        assert receipt.complete
        assert [(a.reused, a.status, s.kind_of(a.failure)) for a in receipt.attempts] == [
            (True, 0, "reset"),
            (False, 200, None),
        ]
        assert stale.is_gone
        assert stage.pooled == 1


def test_the_second_link_is_a_fresh_one_and_not_another_idle_one() -> None:
    with Stage() as stage:
        stage.warm(3)
        client = stage.client()
        client.says(s.ask())
        stage.upstreams[2].resets()
        assert len(stage.upstreams) == 4
        assert stage.pooled == 2
        stage.upstream().resets()
        assert s.status_of(client.heard()) == 502
        assert [a.reused for a in stage.receipt().attempts] == [True, False]
        assert len(stage.upstreams) == 4


def test_a_fresh_link_is_not_replaced() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().resets()
        assert s.status_of(client.heard()) == 502
        assert len(stage.upstreams) == 1


@pytest.mark.parametrize(("seconds", "is_retried"), [(0.9, True), (1.0, False)])
def test_not_after_a_second(seconds: float, is_retried: bool) -> None:
    """By then the provider may be at work, and would bill twice."""
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        client.says(s.ask())
        stage.advance(seconds)
        stale.resets()
        assert (len(stage.upstreams) == 2) is is_retried
        assert (client.heard() == b"") is is_retried
        client.resets()


LARGE = b'{"model":"gpt-5","x":"' + b"x" * 200_000 + b'"}'


@pytest.mark.parametrize("seconds", [0.5, 2.0, 70.0])
def test_while_the_body_is_being_sent_however_long(seconds: float) -> None:
    """A provider that has not read the whole of it cannot be at work on it."""
    with Stage() as stage:
        stale = stage.warm()
        stale.transport.block()
        client = stage.client()
        client.says(s.ask(body=LARGE))
        assert client.protocol.exchange.phase is Phase.SEND
        while seconds > 0:
            stage.advance(min(seconds, 20.0))
            seconds -= 20.0
            stale.reads_on(1000)  # it takes it slowly
        assert client.protocol.exchange.phase is Phase.SEND
        stale.resets()
        assert len(stage.upstreams) == 2
        assert stage.upstream().heard() == s.sent_on(LARGE)
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [(a.reused, s.kind_of(a.failure)) for a in stage.receipt().attempts] == [(True, "reset"), (False, None)]


@pytest.mark.parametrize(("seconds", "is_retried"), [(0.9, True), (1.0, False)])
def test_the_second_begins_when_all_is_sent(seconds: float, is_retried: bool) -> None:
    with Stage() as stage:
        stale = stage.warm()
        stale.transport.block()
        client = stage.client()
        client.says(s.ask(body=LARGE))
        stage.advance(5.0)
        stale.reads_on()
        assert client.protocol.exchange.phase is Phase.FIRST_BYTE
        stage.advance(seconds)
        stale.resets()
        assert (len(stage.upstreams) == 2) is is_retried
        client.resets()


@pytest.mark.parametrize("bit", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_not_after_a_byte_of_answer(bit: bytes) -> None:
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        client.says(s.ask())
        stale.says(bit)
        stale.resets()
        assert s.status_of(client.heard()) == 502
        assert len(stage.upstreams) == 1


def test_not_for_a_broken_answer() -> None:
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        client.says(s.ask())
        stale.says(b"nonsense\r\n\r\n")
        assert s.status_of(client.heard()) == 502
        assert len(stage.upstreams) == 1


def test_a_request_without_a_body_is_tried_again() -> None:
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        client.says(s.get())
        stale.half_closes()
        assert stage.upstream().heard().startswith(b"GET /v1/models ")
        stage.upstream().says(s.unary())
        assert stage.receipt().complete


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_body_that_streamed_through_is_gone(is_whole: bool) -> None:
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        whole = s.request(b"POST", b"/v1/files", b"x" * 100)
        client.says(whole if is_whole else whole[:-1])
        stale.resets()
        assert s.status_of(client.heard()) == 502
        assert len(stage.upstreams) == 1


def test_a_replacement_that_cannot_be_had() -> None:
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        stage.connects.append(ConnectFailed(Kind.CONNECT_FAILED, "the provider refused the connection"))
        client.says(s.ask())
        stale.resets()
        assert s.status_of(client.heard()) == 502
        receipt = stage.receipt()
        assert [s.kind_of(a.failure) for a in receipt.attempts] == ["reset", "connect_failed"]
        assert receipt.letters == "UC"


def test_a_replacement_that_has_to_wait() -> None:
    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        stale = stage.warm()
        client, waiting = stage.client(), stage.client()
        client.says(s.ask())
        waiting.says(s.ask())
        stale.resets()  # the place of the stale link goes to who has waited longest
        first, second = stage.upstream(), None
        first.says(s.unary(b"waited"))
        assert waiting.heard() == s.passed_on(b"waited")
        second = stage.upstream()
        assert second is first
        second.says(s.unary(b"again"))
        assert client.heard() == s.passed_on(b"again")


def test_a_client_that_leaves_while_its_link_is_replaced() -> None:
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        client.says(s.ask())
        stage.holds_connects = True
        stale.resets()
        client.resets()
        receipt = stage.receipt()
        assert (receipt.letters, len(receipt.attempts)) == ("CC", 2)
        stage.connect()
        assert stage.pooled == 1


def test_the_reused_link_is_on_the_receipt() -> None:
    with Stage() as stage:
        stage.warm()
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(s.unary())
        receipt = stage.receipt()
        assert receipt.attempts[0].reused
        assert receipt.connect_ms is None


def test_times_are_milliseconds_from_the_first_byte() -> None:
    with Stage(holds_connects=True) as stage:
        client = stage.client()
        stage.advance(5.0)
        client.says(s.ask_stream()[:20])
        stage.advance(1.0)
        client.says(s.ask_stream()[20:])
        stage.advance(2.0)
        stage.connect()
        stage.advance(3.0)
        stage.upstream().says(s.STREAM_HEAD)
        stage.advance(4.0)
        stage.upstream().says(s.chunk(s.text()))
        stage.advance(5.0)
        stage.upstream().says(s.chunk(s.DONE) + s.LAST)
        receipt = stage.receipt()
        assert receipt.attempts[0].started_ms == 1000.0
        assert receipt.connect_ms == 2000.0
        assert receipt.first_byte_ms == 6000.0
        assert receipt.first_event_ms == 10_000.0
        assert receipt.total_ms == 15_000.0


def test_a_request_that_a_stale_link_did_not_take_was_not_sent() -> None:
    """Nobody can bill what never reached a provider."""
    with Stage() as stage:
        stale = stage.warm()
        client = stage.client()
        client.says(s.ask())
        stage.connects.append(ConnectFailed(Kind.TIMEOUT, "too slow"))
        stale.resets()
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.sent_ms, receipt.usage) == ("timeout", None, None)
