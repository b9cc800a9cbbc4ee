"""One exchange: what its phases do when somebody leaves, stops or is early; bodies and their limits."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from proxy.outcome import Failure, Kind, Limit, Phase, Side
from proxy.policy.keys import AuthMode
from proxy.relay.answer import Answer
from proxy.relay.attempt import Attempt
from proxy.relay.body import RequestBody
from proxy.relay.exchange import Exchange
from proxy.relay.options import ByteLimits, PoolOptions
from proxy.wire.sse import EventCutter
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# -- in each phase ----------------------------------------------------------------------------------------------------


def in_body(stage: Stage) -> Peer:
    client = stage.client()
    client.says(s.ask()[:-5])
    return client


def in_connect(stage: Stage) -> Peer:
    stage.holds_connects = True
    client = stage.client()
    client.says(s.ask())
    return client


def in_queue(stage: Stage) -> Peer:
    stage.client().says(s.ask_stream())
    client = stage.client()
    client.says(s.ask())
    return client


def in_send(stage: Stage) -> Peer:
    upstream = stage.warm()
    upstream.transport.block()
    client = stage.client()
    client.says(s.ask(body=b'{"model":"gpt-5","x":"' + b"x" * 100_000 + b'"}'))
    return client


def in_first_byte(stage: Stage) -> Peer:
    client = stage.client()
    client.says(s.ask())
    return client


def in_first_event(stage: Stage) -> Peer:
    client = stage.client()
    client.says(s.ask_stream())
    stage.upstream().says(s.STREAM_HEAD)
    return client


def in_stream(stage: Stage) -> Peer:
    client = stage.client()
    client.says(s.ask_stream())
    stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
    return client


PHASES: list[tuple[Phase, Callable[[Stage], Peer]]] = [
    (Phase.BODY, in_body),
    (Phase.CONNECT, in_connect),
    (Phase.QUEUE, in_queue),
    (Phase.SEND, in_send),
    (Phase.FIRST_BYTE, in_first_byte),
    (Phase.FIRST_EVENT, in_first_event),
    (Phase.STREAM, in_stream),
]
IDS = [phase.value for phase, _ in PHASES]


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
@pytest.mark.parametrize(("phase", "begin"), PHASES, ids=IDS)
def test_the_client_leaves(phase: Phase, begin: Callable[[Stage], Peer], leave: str) -> None:
    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        client = begin(stage)
        assert s.exchange_of(client).phase is phase
        before = len(stage.receipts)
        client.heard()
        getattr(client, leave)()
        receipt = stage.receipts[-1]
        assert len(stage.receipts) == before + 1
        assert (receipt.ended_by, receipt.ended_phase, receipt.ended_kind) == (Side.CLIENT, phase, "client_left")
        assert len(receipt.attempts) == (phase is not Phase.BODY)
        assert client.heard() == b""
        assert client.is_gone


@pytest.mark.parametrize(("phase", "begin"), PHASES, ids=IDS)
def test_the_relay_shuts_down(phase: Phase, begin: Callable[[Stage], Peer]) -> None:
    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        client = begin(stage)
        client.heard()
        s.exchange_of(client).fail(Failure(Side.PROXY, phase, Kind.SHUTDOWN, "this proxy is shutting down"))
        stage.loop.run_ready()
        receipt = stage.receipts[-1]
        assert (receipt.ended_by, receipt.ended_phase, receipt.ended_kind) == (Side.PROXY, phase, "shutdown")
        told = s.openai_error("this proxy is shutting down", "shutdown")
        heard = client.heard()
        if phase in (Phase.FIRST_EVENT, Phase.STREAM):
            assert heard == s.chunk(b"data: " + told + b"\n\n")
            assert client.transport.closed
        else:
            assert heard == s.refused(
                b"503 Service Unavailable", b"shutdown", told, b"retry-after: 1", closes=phase is Phase.BODY
            )


@pytest.mark.parametrize(("phase", "begin"), PHASES, ids=IDS)
def test_an_end_is_an_end(phase: Phase, begin: Callable[[Stage], Peer]) -> None:
    """Whatever else reports a failure afterwards is not heard."""
    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        client = begin(stage)
        exchange = s.exchange_of(client)
        exchange.fail(Failure(Side.PROXY, phase, Kind.SHUTDOWN, "first"))
        count = len(stage.receipts)
        sent = client.transport.sent
        exchange.fail(Failure(Side.PROXY, phase, Kind.INTERNAL, "second"))
        exchange.client_left()
        exchange.client_full()
        exchange.client_drained()
        assert len(stage.receipts) == count
        assert client.transport.sent == sent


def test_a_link_that_comes_too_late_serves_the_next() -> None:
    with Stage(holds_connects=True) as stage:
        client = stage.client()
        client.says(s.ask())
        client.resets()
        stage.connect()
        assert stage.pooled == 1
        stage.holds_connects = False
        other = stage.client()
        other.says(s.ask())
        assert stage.upstream().heard() == s.sent_on()
        stage.upstream().says(s.unary())
        assert other.heard() == s.passed_on()
        assert len(stage.upstreams) == 1


def test_a_failed_connect_that_comes_too_late_is_nobodys() -> None:
    from proxy.relay.connect import ConnectFailed

    with Stage(holds_connects=True) as stage:
        client = stage.client()
        client.says(s.ask())
        client.resets()
        stage.receipt()
        stage.connect(ConnectFailed(Kind.CONNECT_FAILED, "late"))
        assert len(stage.receipts) == 1
        assert stage.relay.pool.open == 0


# -- faults on the upstream's side ------------------------------------------------------------------------------------


def break_down(*_: object) -> None:
    raise ZeroDivisionError("our fault")


@pytest.mark.sources
def test_a_fault_in_an_answer_is_a_500(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        with monkeypatch.context() as patch:
            patch.setattr(Answer, "__init__", break_down)
            stage.upstream().transport.receive(s.unary())
        assert len(stage.loop.expect_errors()) == 1
        stage.loop.run_ready()
        assert s.status_of(client.heard()) == 500
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == ("PF", "internal")
        assert stage.upstream().is_gone


@pytest.mark.parametrize("leave", ["says", "half_closes"])
@pytest.mark.sources
def test_a_fault_in_the_middle_of_a_stream_is_a_break(leave: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.OPEN_STREAM_HEAD + s.text())
        client.heard()
        with monkeypatch.context() as patch:
            patch.setattr(Answer, "feed", break_down)
            if leave == "says":
                stage.upstream().transport.receive(s.text())
            else:
                stage.upstream().transport.receive_eof()
        assert len(stage.loop.expect_errors()) == 1
        stage.loop.run_ready()
        heard = client.heard()
        assert b'"code":"internal"' in heard
        assert not heard.endswith(s.LAST)
        assert client.transport.closed
        assert stage.receipt().letters == "PD"


# -- limits in bytes --------------------------------------------------------------------------------------------------


def test_a_body_too_large_by_its_length() -> None:
    with Stage(limits=ByteLimits(body=100)) as stage:
        client = stage.client()
        client.says(s.ask(body=b"x" * 101)[:-101])
        body = s.openai_error("the request body is larger than 100 bytes", "body_too_large", "invalid_request_error")
        assert client.heard() == s.refused(b"413 Request Entity Too Large", b"body_too_large", body, closes=True)
        assert client.is_lingering
        receipt = stage.receipt()
        assert (receipt.letters, receipt.status, receipt.attempts) == ("CB", 413, [])
        assert stage.upstreams == []


def test_a_body_of_just_the_limit() -> None:
    with Stage(limits=ByteLimits(body=len(s.BODY))) as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(s.unary())
        assert stage.receipt().complete


def test_a_body_that_grows_too_large() -> None:
    """Framing counts: chunks of one byte would otherwise cost six times the limit."""
    with Stage(limits=ByteLimits(body=100)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", s.CHAT, None, b"Transfer-Encoding: chunked"))
        for _ in range(16):
            client.says(s.chunk(b"x"))
        assert client.heard() == b""
        client.says(s.chunk(b"x"))
        assert s.status_of(client.heard()) == 413
        assert client.is_lingering
        client.says(s.chunk(b"x") * 10)
        assert client.heard() == b""
        assert stage.relay.bodies == 0


def test_all_bodies_together() -> None:
    with Stage(limits=ByteLimits(bodies=1000)) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask(body=b"x" * 2000)[:-1400])
        assert stage.relay.bodies == 600
        second.says(s.ask(body=b"x" * 2000)[:-1500])
        detail = "too many request bodies are in flight; try again soon"
        body = s.openai_error(detail, "overloaded")
        assert second.heard() == s.refused(
            b"503 Service Unavailable", b"overloaded", body, b"retry-after: 1", closes=True
        )
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind, receipt.status) == ("PB", "overloaded", 503)
        assert stage.relay.bodies == 600
        assert first.heard() == b""


def test_a_body_is_let_go_when_its_answer_begins() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        assert stage.relay.bodies == len(s.STREAM_BODY)
        stage.upstream().says(s.STREAM_HEAD)
        assert stage.relay.bodies == 0


def test_an_upload_too_large() -> None:
    with Stage(limits=ByteLimits(upload=1000, body=10)) as stage:
        declared, grown = stage.client(), stage.client()
        declared.says(s.request(b"POST", b"/v1/files", b"x" * 1001)[:-1001])
        assert s.status_of(declared.heard()) == 413
        assert stage.upstreams == []
        grown.says(s.request(b"POST", b"/v1/files", None, b"Transfer-Encoding: chunked") + s.chunk(b"x" * 900))
        upstream = stage.upstream()
        assert upstream.heard().endswith(s.chunk(b"x" * 900))
        grown.says(s.chunk(b"x" * 100))
        assert s.status_of(grown.heard()) == 413
        assert upstream.transport.aborted, "what the provider has is cut, not complete"
        assert s.LAST not in upstream.heard()


def test_no_limit_for_uploads() -> None:
    with Stage(limits=ByteLimits(upload=0, body=10)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/files", b"x" * 5000))
        stage.upstream().says(s.unary())
        assert stage.receipt().complete


def test_an_upstream_head_too_large() -> None:
    with Stage(limits=ByteLimits(upstream_head=500)) as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 500)
        assert b"the upstream's head is larger than 500 bytes" in client.heard()
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind, receipt.status) == ("UF", "protocol", 502)


def test_streams_of_one_key() -> None:
    with Stage(streams_per_key=1, mode=AuthMode.KEYS, keys={"ann": "key-a", "bob": "key-b"}) as stage:
        ann, again, bob = stage.client(), stage.client(), stage.client()
        ann.says(s.ask_stream(b"x-api-key: key-a"))
        again.says(s.ask_stream(b"x-api-key: key-a"))
        answer = again.heard()
        assert s.status_of(answer) == 429
        assert b"retry-after: 1\r\n" in answer
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind, receipt.key) == ("CA", "too_many_requests", "ann")
        again.says(s.ask(b"x-api-key: key-a"))
        stage.upstream().says(s.unary())
        assert s.status_of(again.heard()) == 200, "what is no stream does not count"
        bob.says(s.ask_stream(b"x-api-key: key-b"))
        assert stage.streams == {"ann": 1, "bob": 1}
        ann.resets()
        assert stage.streams == {"bob": 1}
        again.says(s.ask_stream(b"x-api-key: key-a"))
        assert stage.streams == {"ann": 1, "bob": 1}


# -- bodies that stream through ---------------------------------------------------------------------------------------


def upload(*lines: bytes) -> bytes:
    return s.request(b"POST", b"/v1/files", None, b"Content-Type: multipart/form-data", *lines)


def test_an_upload_under_a_length() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(upload(b"Content-Length: 10") + b"abc")
        upstream = stage.upstream()
        assert upstream.heard() == (
            b"POST /v1/files HTTP/1.1\r\nhost: openai.test\r\nauthorization: Bearer sk-provider\r\n"
            b"Content-Type: multipart/form-data\r\nvia: 1.1 " + s.NAME + b"\r\ncontent-length: 10\r\n\r\nabc"
        )
        assert stage.relay.bodies == 0
        client.says(b"defg")
        assert upstream.heard() == b"defg"
        client.says(b"hij")
        assert upstream.heard() == b"hij"
        assert s.exchange_of(client).phase is Phase.FIRST_BYTE
        upstream.says(s.unary())
        assert client.heard() == s.passed_on()
        receipt = stage.receipt()
        assert (receipt.dialect, receipt.bytes_in, receipt.complete) == ("plain", 10, True)
        assert stage.pooled == 1


def test_a_chunked_upload() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(upload(b"Transfer-Encoding: chunked", b"Trailer: X-Sum") + b"3\r\nabc\r\n4;ext=1\r\nde")
        upstream = stage.upstream()
        heard = upstream.heard()
        assert heard.endswith(b"transfer-encoding: chunked\r\n\r\n" + s.chunk(b"abcde"))
        assert b"railer" not in heard
        client.says(b"fg\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert upstream.heard() == s.chunk(b"fg") + s.LAST
        upstream.says(s.unary())
        assert stage.receipt().complete


def test_an_upload_that_waits_for_its_link_is_held_and_then_paused() -> None:
    with Stage(holds_connects=True) as stage:
        client = stage.client()
        client.says(upload(b"Content-Length: 200000") + b"x" * 60_000)
        assert not client.transport.paused
        client.says(b"x" * 10_000)
        assert client.transport.paused
        assert stage.relay.bodies == 70_000
        client.transport.receive(b"x" * 130_000)
        assert stage.relay.bodies == 70_000
        stage.connect()
        assert stage.relay.bodies == 0
        assert not client.transport.paused
        assert stage.upstream().heard().endswith(b"\r\n\r\n" + b"x" * 200_000)
        stage.upstream().says(s.unary())
        assert stage.receipt().complete


def test_a_slow_upstream_pauses_its_client() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(upload(b"Content-Length: 300000"))
        upstream = stage.upstream()
        upstream.transport.block()
        client.says(b"x" * 100_000)
        assert client.transport.paused
        client.transport.receive(b"x" * 100_000)
        assert upstream.transport.get_write_buffer_size() == 100_000
        assert s.exchange_of(client).phase is Phase.SEND
        upstream.reads_on()
        assert not client.transport.paused
        assert s.exchange_of(client).phase is Phase.BODY
        client.says(b"x" * 100_000)
        upstream.says(s.unary())
        assert stage.receipt().complete
        assert upstream.transport.sent.endswith(b"\r\n\r\n" + b"x" * 300_000)


def test_a_client_that_leaves_in_the_middle_of_an_upload() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(upload(b"Transfer-Encoding: chunked") + s.chunk(b"abc"))
        upstream = stage.upstream()
        client.half_closes()
        assert upstream.transport.aborted
        assert s.LAST not in upstream.transport.sent
        assert stage.receipt().letters == "CB"


def test_a_client_that_hangs_up_while_its_upload_is_paused() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(upload(b"Content-Length: 300000"))
        stage.upstream().transport.block()
        client.says(b"x" * 100_000)
        stage.hangups.hang_up(client.transport.socket.fileno())
        stage.loop.run_ready()
        assert stage.upstream().transport.aborted
        assert stage.receipt().letters == "CS"


def test_a_broken_upload_is_cut_for_the_provider() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(upload(b"Transfer-Encoding: chunked") + s.chunk(b"abc"))
        upstream = stage.upstream()
        client.says(b"zz\r\n")
        assert s.status_of(client.heard()) == 400
        assert upstream.transport.aborted
        assert s.LAST not in upstream.transport.sent


# -- an answer that is early ------------------------------------------------------------------------------------------


def test_an_early_answer_passes_and_ends_the_connection() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(upload(b"Content-Length: 1000") + b"x" * 100)
        upstream = stage.upstream()
        upstream.says(s.unary(b"too much", b"413 Nope"))
        assert client.heard() == s.passed_on(b"too much", b"413 Nope", end=b"connection: close\r\n")
        assert client.is_lingering
        assert upstream.is_gone, "half a request is on it"
        assert stage.pooled == 0
        receipt = stage.receipt()
        assert (receipt.letters, receipt.status) == ("U-", 413)
        client.says(b"x" * 900 + s.ask())
        assert client.heard() == b""
        assert len(stage.receipts) == 1


def test_an_early_answer_that_takes_its_time() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(upload(b"Content-Length: 10") + b"abc")
        upstream = stage.upstream()
        upstream.heard()
        upstream.says(s.unary(b"0123456789")[:-5])
        client.says(b"defghij")
        assert upstream.heard() == b"defghij"
        upstream.says(b"56789")
        assert client.heard() == s.passed_on(b"0123456789", end=b"connection: close\r\n")
        assert stage.receipt().complete
        assert client.is_gone


def test_an_early_stream_while_the_request_is_still_leaving() -> None:
    with Stage() as stage:
        client = in_send(stage)
        exchange = s.exchange_of(client)
        body = b'{"model":"gpt-5","stream":true,"x":"' + b"x" * 100_000 + b'"}'
        client.resets()
        other = stage.client()
        other.says(s.ask())
        upstream = stage.upstream()
        upstream.says(s.unary())
        other.heard()
        upstream.transport.block()
        other.says(s.ask(body=body))
        assert s.exchange_of(other).phase is Phase.SEND
        assert exchange.phase is Phase.DONE
        upstream.says(s.STREAM_HEAD)
        stage.advance(1.0)
        assert other.heard() == s.STREAM_HEAD_ON, "and no limit has been reached"
        upstream.says(s.chunk(s.text() + s.DONE) + s.LAST)
        assert other.heard() == s.chunk(s.text() + s.DONE) + s.LAST
        assert upstream.is_gone, "the rest of a request is still in its buffer"


# -- Expect -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [s.CHAT, b"/v1/files"])
def test_expect_is_answered_once(path: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        whole = s.request(b"POST", path, s.BODY, b"Expect: 100-continue")
        client.says(whole[: -len(s.BODY)])
        assert client.heard() == CONTINUE
        client.says_each(s.BODY, 10)
        assert client.heard() == b""
        assert b"xpect" not in stage.upstream().heard()
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


@pytest.mark.parametrize(
    "whole",
    [
        s.request(b"POST", b"/nowhere", s.BODY, b"Expect: 100-continue")[: -len(s.BODY)],
        s.ask(b"Expect: 100-continue", body=b"x" * 1001)[:-1001],
        s.ask(b"Expect: 100-continue", version=b"1.0")[: -len(s.BODY)],
        s.ask(b"Expect: 100-continue")[:-5],
        s.ask(b"Expect: 100-continue"),
        s.request(b"POST", b"/v1/files", b"", b"Expect: 100-continue"),
    ],
    ids=["refused", "too large", "1.0", "body on its way", "body there", "no body"],
)
def test_expect_is_not_answered(whole: bytes) -> None:
    with Stage(limits=ByteLimits(body=1000)) as stage:
        client = stage.client()
        client.says(whole)
        assert b"100 Continue" not in client.heard()


# -- what is read out of a call ---------------------------------------------------------------------------------------


def test_provider_and_model_are_spliced() -> None:
    body = b'{"temperature":1.0,  "model" : "openai/gpt\\u002d5" ,"messages":[ ]}'
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(body=body))
        expected = b'{"temperature":1.0,  "model" : "gpt-5" ,"messages":[ ]}'
        assert stage.upstream().heard() == s.sent_on(expected)
        assert stage.relay.bodies == len(expected)
        stage.upstream().says(s.unary())
        receipt = stage.receipt()
        assert receipt.model_requested == "openai/gpt-5"


@pytest.mark.parametrize(
    ("body", "lines"),
    [(b"not json", []), (b"", []), (b'{"model":"a","model":"b"}', []), (s.BODY, [b"Content-Encoding: gzip"])],
)
def test_a_body_that_cannot_be_read(body: bytes, lines: list[bytes]) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(*lines, body=body))
        answer = client.heard()
        assert s.status_of(answer) == 400
        assert b"x-llm-proxy-error: unreadable_body\r\n" in answer
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == ("CA", "unreadable_body")
        assert not client.is_gone
        assert stage.upstreams == []


def test_identity_is_asked_of_streams_alone_and_can_be_off() -> None:
    lines = [b"Accept-Encoding: gzip, br"]
    for identity, asks in ((True, True), (False, False)):
        with Stage(identity=identity) as stage:
            client = stage.client()
            client.says(s.ask_stream(*lines))
            heard = stage.upstream().heard()
            assert (b"accept-encoding: identity\r\n" in heard) is asks
            assert (b"Accept-Encoding: gzip, br\r\n" in heard) is not asks
            client.resets()
            client = stage.client()
            client.says(s.ask(*lines))
            assert b"Accept-Encoding: gzip, br\r\n" in stage.upstream().heard()


def test_no_provider() -> None:
    with Stage(providers=(s.openai_provider(),)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/messages", b'{"model":"claude-x","max_tokens":1}'))
        answer = client.heard()
        assert s.status_of(answer) == 404
        assert b'{"type":"error","error":{"type":"not_found_error"' in answer
        assert stage.receipt().ended_kind == "unrouted"


@pytest.mark.parametrize("limit", list(Limit))
def test_every_limit_has_a_number_here(limit: Limit) -> None:
    assert limit in s.SECONDS


def test_a_body_too_large_that_is_whole_is_answered_once() -> None:
    with Stage(limits=ByteLimits(body=100)) as stage:
        client = stage.client()
        long = b'{"model":"gpt-5","x":"' + b"x" * 100 + b'"}'
        client.says(s.request(b"POST", s.CHAT, None, b"Transfer-Encoding: chunked") + s.chunk(long) + s.LAST + s.ask())
        answer = client.heard()
        assert s.status_of(answer) == 413
        assert len(stage.receipts) == 1
        assert stage.upstream().heard() == s.sent_on(), "the next request, and it alone"
        assert len(stage.upstreams) == 1


def test_what_an_exchange_was_made_of_goes_with_it() -> None:
    """Not when the collector runs: a cycle costs time, and memory that is cold when it is used again."""

    def alive() -> int:
        kinds = {Exchange, Attempt, Answer, RequestBody, EventCutter}
        return sum(type(each) in kinds for each in gc.get_objects())

    with Stage() as stage:
        upstream = stage.warm()
        client = stage.client()
        gc.collect()
        gc.disable()
        try:
            before = alive()
            client.says(s.ask())
            upstream.says(s.unary())
            client.says(s.ask_stream())
            upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
            upstream.says(s.chunk(b"data: [DONE]\n\n") + s.LAST)
            client.says(s.ask_stream())
            upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
            upstream.resets()
            assert len(stage.receipts) == 4
            assert alive() == before
        finally:
            gc.enable()
