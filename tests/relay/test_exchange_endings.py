"""The table of endings (DESIGN 6), row by row: what the client sees to the byte, what the receipt says, what becomes of
the link."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.catalog.secret import Secret
from proxy.outcome import Kind, Limit, Phase, Receipt, Side
from tests.relay import stage as s
from tests.relay.stage import Stage

CUT = "the upstream closed the connection in the middle of its answer"
NEVER_ANSWERED = "the upstream closed the connection without an answer"
MISSING = "the provider's stream ended without a finish"


def ending(receipt: Receipt) -> tuple[str, str, str, bool, int, int]:
    """What a receipt says of an ending: letters, side, kind, complete, status, number of attempts."""
    return (
        receipt.letters,
        receipt.ended_by.value,
        receipt.ended_kind,
        receipt.complete,
        receipt.status,
        len(receipt.attempts),
    )


# -- upstream, complete -----------------------------------------------------------------------------------------------


def test_a_complete_answer() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        upstream = stage.upstream()
        assert upstream.heard() == s.sent_on()
        upstream.says(s.unary(s.DOCUMENT, b"200 Fine", b"X-Request-Id: req_1", b"X-Odd:  v"))
        assert client.heard() == s.passed_on(s.DOCUMENT, b"200 Fine", b"X-Request-Id: req_1", b"X-Odd: v")
        receipt = stage.receipt()
        assert ending(receipt) == ("--", "upstream", "complete", True, 200, 1)
        assert receipt.ended_phase is Phase.DONE
        assert receipt.provider_request_id == "req_1"
        assert (receipt.provider, receipt.model_requested, receipt.dialect) == ("openai", "gpt-5", "openai-chat")
        assert (receipt.bytes_in, receipt.bytes_out) == (len(s.BODY), len(s.DOCUMENT))
        assert (receipt.method, receipt.path, receipt.client) == ("POST", "/v1/chat/completions", "192.0.2.7")
        attempt = receipt.attempts[0]
        assert (attempt.provider, attempt.reused, attempt.status, attempt.failure) == ("openai", False, 200, None)
        assert stage.pooled == 1
        assert not client.is_gone


def test_a_complete_stream() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.ROLE))
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.ROLE)
        upstream.says(s.chunk(s.text()) + s.chunk(s.FINISH))
        assert client.heard() == s.chunk(s.text() + s.FINISH)
        upstream.says(s.chunk(s.DONE) + s.LAST)
        assert client.heard() == s.chunk(s.DONE) + s.LAST
        receipt = stage.receipt()
        assert ending(receipt) == ("--", "upstream", "complete", True, 200, 1)
        assert receipt.stream
        assert receipt.events == 4
        assert receipt.bytes_out == len(s.ROLE + s.text() + s.FINISH + s.DONE)
        assert stage.pooled == 1


def test_the_last_event_may_lack_its_empty_line() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text() + b"data: [DONE]\n"))
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text())
        upstream.says(s.LAST)
        assert client.heard() == s.chunk(b"data: [DONE]\n") + s.LAST
        assert stage.receipt().complete


def test_a_stream_until_close_goes_out_chunked() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.OPEN_STREAM_HEAD + s.text() + s.FINISH)
        upstream.half_closes()
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text() + s.FINISH) + s.LAST
        assert stage.receipt().complete
        assert stage.pooled == 0
        assert upstream.is_gone
        assert not client.is_gone


# -- upstream error status --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", [b"400 Bad Request", b"404 Not Found", b"429 Too Many Requests", b"500 Oops", b"529 "]
)
@pytest.mark.parametrize("ask", [s.ask, s.ask_stream])
def test_an_error_status_passes_unchanged(status: bytes, ask) -> None:  # type: ignore[no-untyped-def]
    body = b'{"error":{"message":"theirs"}}'
    with Stage() as stage:
        client = stage.client()
        client.says(ask())
        stage.upstream().says(s.unary(body, status, b"Retry-After: 7"))
        assert client.heard() == s.passed_on(body, status, b"Retry-After: 7")
        receipt = stage.receipt()
        assert ending(receipt) == ("U-", "upstream", "error_status", False, int(status[:3]), 1)
        assert receipt.attempts[0].status == int(status[:3])
        assert s.kind_of(receipt.attempts[0].failure) == "error_status"
        assert stage.pooled == 1
        assert not client.is_gone


def test_a_credential_in_a_configured_field_is_ours_too() -> None:
    field = (b"authorization", Secret("Bearer sk-provider"))
    provider = replace(s.openai_provider(), credential=None, headers=(field,))
    with Stage(providers=(provider,)) as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(s.unary(b'{"error":"Incorrect API key sk-pro***der"}', b"401 Unauthorized"))
        assert client.heard().startswith(b"HTTP/1.1 502 ")
        assert ending(stage.receipt())[:3] == ("UF", "upstream", "credential_refused")


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_a_refusal_of_our_credential_does_not_travel(status: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        upstream = stage.upstream()
        upstream.says(s.unary(b'{"error":"Incorrect API key sk-pro***der"}', status))
        number = int(status[:3])
        detail = f"the provider openai refused this proxy's credential with status {number}"
        body = s.openai_error(detail, "credential_refused")
        assert client.heard() == s.refused(b"502 Bad Gateway", b"credential_refused", body, closes=False)
        receipt = stage.receipt()
        assert ending(receipt) == ("UF", "upstream", "credential_refused", False, 502, 1)
        assert receipt.attempts[0].status == number
        assert stage.pooled == 1, "the link is none the worse for it"


# -- cut or stalled before the first byte -----------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_a_cut_before_the_first_byte(leave: str) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        upstream = stage.upstream()
        getattr(upstream, leave)()
        body = s.openai_error(NEVER_ANSWERED, "reset")
        assert client.heard() == s.refused(b"502 Bad Gateway", b"reset", body, closes=False)
        receipt = stage.receipt()
        assert ending(receipt) == ("UF", "upstream", "reset", False, 502, 1)
        assert receipt.attempts[0].failure == (Side.UPSTREAM, Phase.FIRST_BYTE, Kind.RESET, NEVER_ANSWERED)
        assert len(stage.upstreams) == 1
        assert not client.is_gone


def test_a_cut_within_the_head() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(b"HTTP/1.1 200 OK\r\nDate:")
        stage.upstream().resets()
        assert s.status_of(client.heard()) == 502
        assert ending(stage.receipt()) == ("UF", "upstream", "reset", False, 502, 1)


def test_a_stall_before_the_first_byte() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.advance(100.3)
        body = s.openai_error("the provider did not answer within 100 s", "timeout")
        assert client.heard() == s.refused(b"504 Gateway Timeout", b"timeout", body, closes=False)
        assert ending(stage.receipt()) == ("UF", "upstream", "timeout", False, 504, 1)
        assert stage.upstream().is_gone


def test_an_answer_that_is_no_http() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(b"SSH-2.0-OpenSSH_9.2\r\n")
        body = s.openai_error("the upstream does not speak HTTP/1.1", "protocol")
        assert client.heard() == s.refused(b"502 Bad Gateway", b"protocol", body, closes=False)
        assert ending(stage.receipt()) == ("UF", "upstream", "protocol", False, 502, 1)
        assert stage.upstream().is_gone


# -- cut or stalled in the middle of a stream -------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_a_cut_stream_ends_in_an_error_event_and_no_last_chunk(leave: str) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text() + b'data: {"half'))
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text())
        getattr(upstream, leave)()
        assert client.heard() == s.chunk(s.openai_event(CUT, "reset"))
        assert client.transport.closed
        assert not client.transport.aborted
        receipt = stage.receipt()
        assert ending(receipt) == ("UD", "upstream", "reset", False, 200, 1)
        assert receipt.events == 1
        assert receipt.attempts[0].status == 200
        assert stage.pooled == 0


def test_a_cut_between_two_events_drops_nothing() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        stage.upstream().resets()
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text()) + s.chunk(s.openai_event(CUT, "reset"))
        assert stage.receipt().letters == "UD"


def test_a_cut_before_the_first_event() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD)
        stage.upstream().resets()
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.openai_event(CUT, "reset"))
        assert ending(stage.receipt()) == ("UE", "upstream", "reset", False, 200, 1)


def test_a_stalled_stream() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.heard()
        stage.advance(150.3)
        event = s.openai_event("the provider's answer paused for more than 150 s", "timeout")
        assert client.heard() == s.chunk(event)
        assert ending(stage.receipt()) == ("UD", "upstream", "timeout", False, 200, 1)
        assert upstream.is_gone


def test_no_error_event_behind_the_terminal_event() -> None:
    """What is complete stays complete for the client; that the framing broke stands in the receipt."""
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text() + s.DONE))
        client.heard()
        stage.upstream().resets()
        assert client.heard() == b""
        assert client.transport.closed
        assert ending(stage.receipt()) == ("UD", "upstream", "reset", False, 200, 1)


def test_an_event_over_the_hold_limit_flows_and_no_event_can_follow() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.heard()
        half = b'data: {"choices":[{"delta":{"content":"' + b"x" * 70_000
        upstream.says(s.chunk(half))
        assert client.heard() == s.chunk(half)
        upstream.resets()
        assert client.heard() == b""
        assert client.transport.closed
        assert ending(stage.receipt()) == ("UD", "upstream", "reset", False, 200, 1)


def test_a_large_event_that_is_whole_again_may_be_followed_by_an_event() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(b'data: {"x":"' + b"x" * 70_000))
        upstream.says(s.chunk(b'"}\n\n'))
        client.heard()
        upstream.resets()
        assert client.heard() == s.chunk(s.openai_event(CUT, "reset"))
        stage.receipt()


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_a_cut_document_is_cut_for_the_client(leave: str) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        upstream = stage.upstream()
        upstream.says(s.unary(b"x" * 100)[:-60])
        assert client.heard() == s.passed_on(b"x" * 100)[:-60]
        getattr(upstream, leave)()
        assert client.heard() == b""
        assert client.transport.closed
        assert ending(stage.receipt()) == ("UD", "upstream", "reset", False, 200, 1)


def test_a_cut_chunked_document_gets_no_last_chunk() -> None:
    head = b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(head + b"Transfer-Encoding: chunked\r\n\r\n" + s.chunk(b'{"a":'))
        stage.upstream().resets()
        assert client.heard() == head + s.VIA + b"transfer-encoding: chunked\r\n\r\n" + s.chunk(b'{"a":')
        assert client.transport.closed
        assert stage.receipt().letters == "UD"


# -- a proper end without a finish ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b'data: {"half'])
def test_a_stream_without_its_end(tail: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text() + tail) + s.LAST)
        event = s.openai_event(MISSING, "missing_end")
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text()) + s.chunk(event)
        assert client.transport.closed
        assert ending(stage.receipt()) == ("UD", "upstream", "missing_end", False, 200, 1)
        assert stage.pooled == 0
        assert upstream.is_gone


@pytest.mark.parametrize("blank", [b"", b"\n", b"  \r\n\r\n"])
def test_an_empty_stream_has_no_end_either(blank: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + (s.chunk(blank) if blank else b"") + s.LAST)
        event = s.chunk(s.openai_event(MISSING, "missing_end"))
        assert client.heard() == s.STREAM_HEAD_ON + (s.chunk(blank) if blank else b"") + event
        assert ending(stage.receipt()) == ("UD", "upstream", "missing_end", False, 200, 1)


def test_an_empty_stream_under_a_length_has_no_end_either() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.unary(b""))
        assert s.LAST not in client.heard()
        assert ending(stage.receipt()) == ("UD", "upstream", "missing_end", False, 200, 1)


def test_a_stream_of_comments_alone_has_no_end() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.COMMENT) + s.LAST)
        assert client.heard().endswith(s.chunk(s.openai_event(MISSING, "missing_end")))
        assert stage.receipt().ended_kind == "missing_end"


def test_until_close_without_a_finish() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.OPEN_STREAM_HEAD + s.text())
        stage.upstream().half_closes()
        event = s.openai_event(MISSING, "missing_end")
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text()) + s.chunk(event)
        assert stage.receipt().ended_kind == "missing_end"


def test_the_providers_own_error_event() -> None:
    theirs = b'data: {"error":{"message":"overloaded"}}\n\n'
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()) + s.chunk(theirs) + s.LAST)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text() + theirs) + s.LAST
        assert ending(stage.receipt()) == ("UD", "upstream", "error_event", False, 200, 1)
        assert stage.pooled == 1


# -- upstream broke HTTP ----------------------------------------------------------------------------------------------


def test_a_broken_chunk_in_a_stream() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.heard()
        upstream.says(b"zz\r\nwhat\r\n")
        assert client.heard() == s.chunk(s.openai_event("the upstream sent a broken chunk", "protocol"))
        assert ending(stage.receipt()) == ("UD", "upstream", "protocol", False, 200, 1)
        assert upstream.is_gone
        assert stage.pooled == 0


@pytest.mark.parametrize(
    "extra", [b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"\r\n"]
)
def test_bytes_behind_a_chunked_end(extra: bytes) -> None:
    detail = "the upstream sent bytes behind the end of its answer"
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.heard()
        upstream.says(s.chunk(s.FINISH) + s.LAST + extra)
        assert client.heard() == s.chunk(s.FINISH) + s.chunk(s.openai_event(detail, "protocol"))
        assert ending(stage.receipt()) == ("UD", "upstream", "protocol", False, 200, 1)
        assert upstream.is_gone
        assert stage.pooled == 0


def test_bytes_behind_a_counted_end() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        upstream = stage.upstream()
        upstream.says(s.unary() + b"x")
        assert client.heard() == s.passed_on()[: -len(s.DOCUMENT)]
        assert client.transport.closed
        assert ending(stage.receipt()) == ("UD", "upstream", "protocol", False, 200, 1)
        assert upstream.is_gone


def test_bytes_behind_the_end_in_a_later_read_kill_the_pooled_link() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        upstream = stage.upstream()
        upstream.says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.receipt().complete
        upstream.says(s.unary(b"poison"))
        assert upstream.is_gone
        assert stage.pooled == 0
        client.says(s.ask())
        assert len(stage.upstreams) == 2
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


def test_bytes_behind_an_answer_without_a_body() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.get())
        upstream = stage.upstream()
        upstream.says(b"HTTP/1.1 204 No Content\r\n\r\nbody?")
        assert client.heard() == b"HTTP/1.1 204 No Content\r\n" + s.DATE + s.VIA + b"\r\n"
        assert stage.receipt().complete
        assert upstream.is_gone


def test_both_framings() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        assert s.status_of(client.heard()) == 502
        assert ending(stage.receipt()) == ("UF", "upstream", "protocol", False, 502, 1)
        assert stage.upstream().is_gone


# -- the client left --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_the_client_leaves_before_the_answer(leave: str) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        getattr(client, leave)()
        assert client.heard() == b""
        assert client.is_gone
        assert stage.upstream().transport.aborted
        receipt = stage.receipt()
        assert ending(receipt) == ("CF", "client", "client_left", False, 0, 1)
        assert stage.pooled == 0


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_the_client_leaves_in_the_middle_of_a_stream(leave: str) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.heard()
        getattr(client, leave)()
        assert client.heard() == b""
        assert upstream.transport.aborted
        receipt = stage.receipt()
        assert ending(receipt) == ("CD", "client", "client_left", False, 200, 1)
        assert receipt.events == 1
        upstream.says(s.chunk(s.text()))
        assert client.heard() == b""


# -- we stopped it ----------------------------------------------------------------------------------------------------


def test_our_limit_ends_a_stream_with_its_reason() -> None:
    with Stage(seconds={Limit.TOTAL: 30.0}) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.heard()
        stage.advance(30.3)
        assert client.heard() == s.chunk(s.openai_event("the exchange took longer than 30 s", "timeout"))
        assert client.transport.closed
        assert ending(stage.receipt()) == ("PT", "proxy", "timeout", False, 200, 1)
        assert upstream.transport.aborted


# -- the client broke HTTP or a limit ---------------------------------------------------------------------------------


def test_the_client_breaks_http() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(b"POST /v1/messages HTTP/1.1\r\n\r\n")
        answer = client.heard()
        assert s.status_of(answer) == 400
        assert b"connection: close\r\n" in answer
        assert client.is_lingering
        receipt = stage.receipt()
        assert ending(receipt) == ("CH", "client", "bad_request", False, 400, 0)
        assert stage.upstreams == []


def test_a_broken_request_is_answered_in_its_dialect_once_its_path_is_known() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"POST", s.CHAT, None, b"Transfer-Encoding: chunked") + b"5\r\nhel")
        client.says(b"lo!!\r\n")
        body = s.openai_error("a chunk is longer than its size says", "bad_request", "invalid_request_error")
        assert client.heard() == s.refused(b"400 Bad Request", b"bad_request", body, closes=True)
        assert client.is_lingering
        assert ending(stage.receipt()) == ("CB", "client", "bad_request", False, 400, 0)
        assert stage.upstreams == []


def test_a_lingering_close_reads_on_and_ends_by_itself() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(b"nonsense\r\n\r\n")
        client.heard()
        assert client.is_lingering
        client.says(b"x" * 100_000)
        assert client.heard() == b""
        assert client.is_lingering
        stage.advance(5.3)
        assert client.transport.aborted


def test_a_lingering_close_ends_with_the_clients_fin() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(b"nonsense\r\n\r\n")
        client.half_closes()
        assert client.is_gone
        assert stage.receipt().ended_kind == "bad_request"


def test_a_large_event_that_flows_and_a_proper_end_leave_no_place_for_an_event() -> None:
    half = b'data: {"choices":[{"delta":{"content":"' + b"x" * 70_000
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(half))
        client.heard()
        stage.upstream().says(s.LAST)
        assert client.heard() == b""
        assert client.transport.closed
        assert stage.receipt().ended_kind == "missing_end"


def test_what_came_with_a_broken_chunk_of_a_document_is_not_passed_on() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + s.chunk(b"good"))
        client.heard()
        stage.upstream().says(s.chunk(b"doubtful") + b"zz\r\n")
        assert client.heard() == b""
        assert client.transport.closed
        assert ending(stage.receipt()) == ("UD", "upstream", "protocol", False, 200, 1)


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_a_client_that_leaves_behind_the_last_event_has_it_all(leave: str) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()) + s.chunk(b"data: [DONE]\n\n"))
        getattr(client, leave)()
        assert upstream.is_gone
        assert ending(stage.receipt()) == ("--", "upstream", "complete", True, 200, 1)


def test_a_client_that_leaves_at_the_providers_error_event_did_not_end_the_stream() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(b'data: {"error":{"message":"no"}}\n\n'))
        client.resets()
        assert upstream.is_gone
        assert ending(stage.receipt()) == ("UD", "upstream", "error_event", False, 200, 1)
