"""Every limit in seconds, reached by moving the clock: what it says to whom, and what does not count against it."""

from __future__ import annotations

import pytest

from proxy.outcome import Kind, Limit, Phase
from proxy.relay.options import ByteLimits, PoolOptions
from tests.relay import stage as s
from tests.relay.stage import Stage

SLACK = 0.3  # the sweeper looks four times a second


def letters_and_kind(stage: Stage) -> tuple[str, str, int]:
    receipt = stage.receipt()
    return receipt.letters, receipt.ended_kind, receipt.status


# -- IDLE, HEAD -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_asked", [False, True])
def test_idle_closes_without_a_word(has_asked: bool) -> None:
    with Stage() as stage:
        client = stage.client()
        if has_asked:
            stage.advance(50.0)
            client.says(s.ask())
            stage.upstream().says(s.unary())
            client.heard()
            stage.receipt()
        stage.advance(69.9)
        assert not client.is_gone
        stage.advance(0.1 + SLACK)
        assert client.transport.closed
        assert client.heard() == b""
        assert len(stage.receipts) == has_asked


def test_head_is_a_total_and_answers_408() -> None:
    with Stage() as stage:
        client = stage.client()
        stage.advance(30.0)
        head = s.ask()[:40]
        for start in range(0, 36, 4):  # a drip does not help
            client.says(head[start : start + 4])
            stage.advance(1.1)
        body = s.openai_error("the request head did not arrive within 10 s", "timeout", "invalid_request_error")
        client.says(b"x")
        stage.advance(SLACK)
        assert client.heard() == s.refused(b"408 Request Timeout", b"timeout", body, closes=True)
        assert client.is_lingering
        assert letters_and_kind(stage) == ("CH", "timeout", 408)
        stage.advance(5.0 + SLACK)
        assert client.transport.aborted, "a lingering close has a limit, too"


def test_head_of_a_second_request() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask() + s.ask()[:20])
        stage.advance(60.0)
        assert client.heard() == b"", "the time of the first answer is not the second head's"
        stage.upstream().says(s.unary())
        stage.receipt()
        client.heard()
        stage.advance(9.9)
        assert client.heard() == b""
        stage.advance(0.1 + SLACK)
        assert s.status_of(client.heard()) == 408
        assert letters_and_kind(stage) == ("CH", "timeout", 408)


# -- BODY -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [s.CHAT, b"/v1/files"])
def test_a_silent_body(path: bytes) -> None:
    with Stage(limits=ByteLimits(min_body_rate=0)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", path, b"x" * 100)[:-50])
        stage.advance(19.0)
        client.says(b"x")
        stage.advance(19.9)
        assert client.heard() == b""
        stage.advance(0.1 + SLACK)
        answer = client.heard()
        assert s.status_of(answer) == 408
        assert b"the request body did not arrive: no bytes within 20 s" in answer
        assert client.is_lingering
        assert letters_and_kind(stage) == ("CB", "timeout", 408)
        stage.advance(5.0 + SLACK)
        assert client.transport.aborted


def test_a_dripping_body() -> None:
    """256 bytes a second after the first 30 s: each byte is progress, the whole is none."""
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"POST", s.CHAT, b"x" * 1_000_000)[:200])
        for _ in range(30):
            client.says(b"x" * 50)
            stage.advance(1.0)
        assert client.heard() == b""
        client.says(b"x" * 50)
        stage.advance(1.0 + SLACK)
        answer = client.heard()
        assert s.status_of(answer) == 408
        assert b"less than 256 bytes a second" in answer
        assert letters_and_kind(stage) == ("CB", "timeout", 408)


def test_a_slow_but_honest_body() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"POST", s.CHAT, b"x" * 1_000_000)[:200])
        for _ in range(120):
            client.says(b"x" * 300)
            stage.advance(1.0)
        assert client.heard() == b""
        client.resets()
        assert letters_and_kind(stage) == ("CB", "client_left", 0)


def test_no_rate_where_none_is_set() -> None:
    with Stage(limits=ByteLimits(min_body_rate=0)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", s.CHAT, b"x" * 1_000_000)[:200])
        for _ in range(120):
            client.says(b"x")
            stage.advance(1.0)
        assert client.heard() == b""


# -- QUEUE, CONNECT ---------------------------------------------------------------------------------------------------


def test_queue_full_of_time() -> None:
    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask())
        second.says(s.ask())
        stage.advance(6.9)
        assert second.heard() == b""
        stage.advance(0.1 + SLACK)
        body = s.openai_error("no connection to the provider came free within 7 s", "timeout")
        assert second.heard() == s.refused(
            b"503 Service Unavailable", b"timeout", body, b"retry-after: 1", closes=False
        )
        assert letters_and_kind(stage) == ("PQ", "timeout", 503)
        stage.upstream().says(s.unary())
        assert first.heard() == s.passed_on()
        assert len(stage.upstreams) == 1


def test_without_a_queue_who_finds_no_link_is_refused() -> None:
    with Stage(pool=PoolOptions(max_connections=1), seconds={Limit.QUEUE: 0.0}) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask())
        second.says(s.ask())
        detail = "all 1 connections to the provider are in use; try again soon"
        body = s.openai_error(detail, "overloaded")
        assert second.heard() == s.refused(
            b"503 Service Unavailable", b"overloaded", body, b"retry-after: 1", closes=False
        )
        assert letters_and_kind(stage) == ("PQ", "overloaded", 503)


def test_connect_that_took_too_long() -> None:
    """The connector keeps the time (test_connect); what it reports becomes a 504."""
    from proxy.relay.connect import ConnectFailed

    with Stage() as stage:
        client = stage.client()
        stage.connects.append(ConnectFailed(Kind.TIMEOUT, "the provider did not accept a connection within 5 s"))
        client.says(s.ask())
        body = s.openai_error("the provider did not accept a connection within 5 s", "timeout")
        assert client.heard() == s.refused(b"504 Gateway Timeout", b"timeout", body, closes=False)
        receipt = stage.receipt()
        assert (receipt.letters, receipt.status, len(receipt.attempts)) == ("UC", 504, 1)
        assert receipt.connect_ms is None
        assert stage.relay.pool.open == 0


def test_connect_that_was_refused() -> None:
    from proxy.relay.connect import ConnectFailed

    with Stage() as stage:
        client = stage.client()
        stage.connects.append(ConnectFailed(Kind.CONNECT_FAILED, "the provider refused the connection"))
        client.says(s.ask())
        body = s.openai_error("the provider refused the connection", "connect_failed")
        assert client.heard() == s.refused(b"502 Bad Gateway", b"connect_failed", body, closes=False)
        assert letters_and_kind(stage) == ("UC", "connect_failed", 502)
        client.says(s.ask())
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


# -- SEND -------------------------------------------------------------------------------------------------------------

BIG = b'{"model":"gpt-5","x":"' + b"x" * 200_000 + b'"}'


def test_an_upstream_that_takes_nothing() -> None:
    with Stage() as stage:
        upstream = stage.warm()
        client = stage.client()
        upstream.transport.block()
        client.says(s.ask(body=BIG))
        stage.advance(24.9)
        assert client.heard() == b""
        stage.advance(0.1 + 1.0 + SLACK)  # looked at once a second: a shrinking buffer leaves no stamp
        body = s.openai_error("the provider took no bytes of the request for 25 s", "timeout")
        assert client.heard() == s.refused(b"504 Gateway Timeout", b"timeout", body, closes=False)
        assert letters_and_kind(stage) == ("US", "timeout", 504)
        assert upstream.transport.aborted


def test_a_slow_upstream_is_no_silent_one() -> None:
    with Stage() as stage:
        upstream = stage.warm()
        client = stage.client()
        upstream.transport.block()
        client.says(s.ask(body=BIG))
        for _ in range(10):
            stage.advance(20.0)
            upstream.reads_on(1000)
        assert client.heard() == b""
        upstream.reads_on()
        assert s.exchange_of(client).phase is Phase.FIRST_BYTE
        stage.advance(499.0)
        assert client.heard() == b"", "FIRST_BYTE counts from the end of SEND"
        upstream.says(s.unary())
        assert client.heard() == s.passed_on()


def test_an_upload_into_a_link_that_is_full_from_the_start() -> None:
    with Stage() as stage:
        upstream = stage.warm()
        client = stage.client()
        upstream.transport.block()
        client.says(s.request(b"POST", b"/v1/files", b"z" * 200_000)[:-1])
        assert client.transport.paused
        stage.advance(25.0 + 1.0 + SLACK)
        assert s.status_of(client.heard()) == 504
        assert letters_and_kind(stage) == ("US", "timeout", 504)
        assert client.is_lingering


# -- FIRST_BYTE, FIRST_EVENT, STREAM ----------------------------------------------------------------------------------


def test_first_byte_of_a_document_has_its_own_limit() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.advance(499.9)
        assert client.heard() == b""
        stage.advance(0.1 + SLACK)
        assert b"the provider did not answer within 500 s" in client.heard()
        assert letters_and_kind(stage) == ("UF", "timeout", 504)


def test_first_byte_is_not_moved_by_interim_answers() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        for _ in range(10):
            stage.advance(9.9)
            stage.upstream().says(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        stage.upstream().says(b"HTTP/1.1 200 OK\r\nX-")
        stage.advance(1.0 + SLACK)
        assert s.status_of(client.heard()) == 504
        assert letters_and_kind(stage) == ("UF", "timeout", 504)


@pytest.mark.parametrize("noise", [s.COMMENT, s.ROLE, b": ping\n\n" + s.ROLE])
def test_first_event_waits_for_content(noise: bytes) -> None:
    """Comments, pings and an empty first delta show that the provider lives, not that it works."""
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.advance(50.0)
        stage.upstream().says(s.STREAM_HEAD)
        for _ in range(14):
            stage.advance(10.0)
            stage.upstream().says(s.chunk(noise))
        client.heard()
        stage.advance(9.9)
        assert client.heard() == b""
        stage.advance(0.1 + SLACK)
        event = s.openai_event("the provider's stream had no content within 200 s", "timeout")
        assert client.heard() == s.chunk(event)
        assert letters_and_kind(stage) == ("UE", "timeout", 200)
        assert client.transport.closed


@pytest.mark.parametrize("noise", [s.COMMENT, s.ROLE])
def test_a_gap_in_the_stream_is_not_filled_by_comments(noise: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        for _ in range(14):
            stage.advance(10.0)
            upstream.says(s.chunk(noise))
        client.heard()
        stage.advance(9.9)
        assert client.heard() == b""
        stage.advance(0.1 + SLACK)
        assert client.heard() == s.chunk(s.openai_event("the provider's answer paused for more than 150 s", "timeout"))
        assert letters_and_kind(stage) == ("UD", "timeout", 200)


def test_pings_of_anthropic_fill_no_gap() -> None:
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    delta = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"x"}}\n\n'
    body = b'{"model":"claude-x","stream":true,"max_tokens":9,"messages":[]}'
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/messages", body))
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(delta))
        for _ in range(10):
            stage.advance(15.1)
            upstream.says(s.chunk(ping))
        stage.advance(SLACK)
        assert b"event: error\ndata: " in client.heard()
        assert letters_and_kind(stage) == ("UD", "timeout", 200)


def test_events_move_the_gap_and_the_first_event_limit_ends() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD)
        for _ in range(10):
            stage.advance(149.0)
            upstream.says(s.chunk(s.text()))
        upstream.says(s.chunk(s.DONE) + s.LAST)
        assert client.heard().endswith(s.LAST)
        assert stage.receipt().complete


def test_a_document_may_trickle_but_not_pause() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        upstream = stage.upstream()
        upstream.says(s.unary(b"x" * 10)[:-9])
        for _ in range(5):
            stage.advance(149.0)
            upstream.says(b"x")
        client.heard()
        stage.advance(150.0 + SLACK)
        assert client.heard() == b""
        assert client.transport.closed
        assert letters_and_kind(stage) == ("UD", "timeout", 200)


def test_the_gap_does_not_count_while_the_client_is_the_one_not_reading() -> None:
    with Stage(seconds={Limit.CLIENT_STALL: 1000.0}) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.stops_reading()
        assert upstream.transport.paused
        stage.advance(400.0)
        assert not client.is_gone
        client.reads_on()
        assert not upstream.transport.paused
        stage.advance(149.0)
        upstream.says(s.chunk(s.text()))
        upstream.says(s.chunk(s.DONE) + s.LAST)
        assert stage.receipt().complete


# -- CLIENT_STALL -----------------------------------------------------------------------------------------------------


def test_a_client_that_does_not_read() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.stops_reading()
        stage.advance(59.0)
        assert not client.is_gone
        stage.advance(1.0 + 1.0 + SLACK)
        assert client.transport.aborted
        assert upstream.transport.aborted
        assert letters_and_kind(stage) == ("CD", "client_stalled", 200)


def test_a_client_that_stops_reading_with_the_first_event() -> None:
    with Stage(seconds={Limit.STREAM: 0.0}) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        client.transport.block()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(b"x" * 70_000)))
        stage.advance(60.0 + 1.0 + SLACK)
        assert client.transport.aborted
        assert letters_and_kind(stage) == ("CD", "client_stalled", 200)


@pytest.mark.parametrize("idle", [0.0, 70.0])
def test_a_client_that_stops_reading_after_the_end(idle: float) -> None:
    with Stage(seconds={Limit.IDLE: idle}) as stage:
        client = stage.client()
        client.says(s.ask())
        client.transport.block()
        stage.upstream().says(s.unary(b"x" * 70_000))
        assert stage.receipt().complete, "what the provider did was complete"
        stage.advance(60.0 + 1.0 + SLACK)
        assert client.transport.aborted


def test_a_client_that_reads_slowly_does_not_stall() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        client.stops_reading()
        for _ in range(10):
            stage.advance(50.0)
            client.transport.drain(100)
        assert not client.is_gone
        client.resets()
        assert letters_and_kind(stage) == ("CD", "client_left", 200)


# -- TOTAL ------------------------------------------------------------------------------------------------------------


def test_total_spans_every_phase() -> None:
    def in_body(stage: Stage) -> None:
        stage.client().says(s.ask()[:-5])

    def in_connect(stage: Stage) -> None:
        stage.holds_connects = True
        stage.client().says(s.ask())

    def in_queue(stage: Stage) -> None:
        stage.client().says(s.ask())
        stage.client().says(s.ask())

    def in_first_byte(stage: Stage) -> None:
        stage.client().says(s.ask())

    for begin, begun in ((in_body, 1), (in_connect, 1), (in_queue, 2), (in_first_byte, 1)):
        with Stage(seconds={Limit.TOTAL: 3.0}, pool=PoolOptions(max_connections=1)) as stage:
            begin(stage)
            stage.advance(2.9)
            assert stage.receipts == []
            stage.advance(0.1 + SLACK)
            assert [(r.letters, r.ended_kind, r.status) for r in stage.receipts] == [("PT", "timeout", 504)] * begun
            assert b"the exchange took longer than 3 s" in stage.clients[0].heard()


# -- what follows a limit ---------------------------------------------------------------------------------------------


def test_a_connection_that_survives_a_limit_is_idle_again() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.advance(100.0 + SLACK)
        assert s.status_of(client.heard()) == 504
        client.says(s.ask())
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        client.says(s.ask_stream())
        stage.advance(100.0 + SLACK)
        assert s.status_of(client.heard()) == 504
        stage.advance(70.0 + SLACK)
        assert client.transport.closed
