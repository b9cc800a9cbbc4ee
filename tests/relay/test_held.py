"""What waits in the place of the client: until it is good, until it is known to be bad, and no longer than it may."""

from __future__ import annotations

import gzip
import random
from typing import Any

import pytest

from proxy.outcome import Limit
from proxy.policy.keys import Disconnect
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage
from tests.relay.targets import BUSY, ERROR, A, B, asks, provider, stage_of

BODY = b'{"model":"m","stream":true,"messages":[]}'
MOST = 64 * 1024
ANSWER = s.STREAM_HEAD + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST
PASSED = s.STREAM_HEAD_ON + s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST
OVERLOADED = b'data: {"error":{"message":"busy","type":"server_error","code":"overloaded"}}\n\n'


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


def begun(status: bytes, size: int, *lines: bytes) -> bytes:
    """The head of a document of that size."""
    return s.unary(b"", status, *lines).replace(b"Content-Length: 0", b"Content-Length: %d" % size)


# -- in every dialect -------------------------------------------------------------------------------------------------

GOOGLE: dict[str, Any] = {"family": "gemini", "base": b"", "auth": "x-goog-api-key"}
OLLAMA: dict[str, Any] = {"family": "ollama", "base": b"", "auth": "none"}
ANTHROPIC: dict[str, Any] = {"family": "anthropic", "base": b"", "auth": "x-api-key"}


def event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)


class Spoken:
    """A dialect as it streams: who speaks it, how it is asked for, what says nothing, an error, content, the end."""

    def __init__(
        self, family: dict[str, Any], path: bytes, body: bytes, kind: bytes, noise: bytes, error: bytes, said: bytes
    ) -> None:
        self.family = family
        self.asked = s.request(b"POST", path, body)
        self.head = s.STREAM_HEAD.replace(b"text/event-stream", kind)
        self.noise, self.error, self.said = noise, error, said

    def stage(self) -> Stage:
        return Stage(models="m = a/one | b/two", retries=2, providers=(self._provider("a"), self._provider("b")))

    def _provider(self, name: str) -> Any:
        return provider(name, **self.family)


CHAT = Spoken({}, s.CHAT, BODY, b"text/event-stream", s.ROLE + s.COMMENT, OVERLOADED, s.text() + s.FINISH + s.DONE)
MESSAGES = Spoken(
    ANTHROPIC,
    b"/v1/messages",
    b'{"model":"m","max_tokens":9,"stream":true,"messages":[]}',
    b"text/event-stream",
    event(b"message_start", b'{"type":"message_start","message":{"id":"i","usage":{"input_tokens":1}}}')
    + event(b"ping", b'{"type":"ping"}'),
    event(b"error", b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'),
    event(b"content_block_start", b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}')
    + event(
        b"content_block_delta", b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}'
    )
    + event(
        b"message_delta", b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}'
    )
    + event(b"message_stop", b'{"type":"message_stop"}'),
)
RESPONSES = Spoken(
    {},
    b"/v1/responses",
    b'{"model":"m","stream":true,"input":"a"}',
    b"text/event-stream",
    event(b"response.created", b'{"type":"response.created","response":{"id":"r","status":"in_progress"}}'),
    event(b"error", b'{"type":"error","code":"server_is_overloaded","message":"busy"}'),
    event(b"response.output_text.delta", b'{"type":"response.output_text.delta","delta":"a"}')
    + event(b"response.completed", b'{"type":"response.completed","response":{"id":"r","status":"completed"}}'),
)
GEMINI = Spoken(
    GOOGLE,
    b"/v1beta/models/m:streamGenerateContent?alt=sse",
    b'{"contents":[]}',
    b"text/event-stream",
    b'data: {"candidates":[{"content":{"parts":[{"text":""}]}}]}\r\n\r\n',
    b'data: {"error":{"code":503,"status":"UNAVAILABLE","message":"busy"}}\r\n\r\n',
    b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}\r\n\r\n',
)
ARRAY = Spoken(
    GOOGLE,
    b"/v1beta/models/m:streamGenerateContent",
    b'{"contents":[]}',
    b"application/json",
    b'[{"candidates":[{"content":{"parts":[{"text":""}]}}]}\n',
    b',{"error":{"code":503,"status":"UNAVAILABLE","message":"busy"}}\n]',
    b',{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}\n]',
)
NDJSON = Spoken(
    OLLAMA,
    b"/api/chat",
    b'{"model":"m","messages":[]}',
    b"application/x-ndjson",
    b'{"model":"one","message":{"role":"assistant","content":""},"done":false}\n',
    b'{"error":"the server is overloaded"}\n',
    b'{"model":"one","message":{"role":"assistant","content":"a"},"done":false}\n'
    b'{"model":"one","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}\n',
)
DIALECTS = {
    "chat": CHAT, "messages": MESSAGES, "responses": RESPONSES, "gemini": GEMINI, "array": ARRAY, "ndjson": NDJSON,
}  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_what_says_nothing_waits_and_an_error_behind_it_is_never_seen(name: str) -> None:
    spoken = DIALECTS[name]
    with spoken.stage() as stage:
        client = stage.client()
        client.says(spoken.asked)
        stage.upstream().says(spoken.head + s.chunk(spoken.noise))
        assert client.heard() == b""
        stage.upstream().says(s.chunk(spoken.error))
        assert client.heard() == b""
        assert stage.dialed == [A, B]
        stage.upstream().says(spoken.head + s.chunk(spoken.noise))
        assert client.heard() == b""
        stage.upstream().says(s.chunk(spoken.said) + s.LAST)
        heard = client.heard()
        assert heard.endswith(s.LAST)
        assert joined(heard) == spoken.noise + spoken.said
        receipt = stage.receipt()
        assert (receipt.complete, receipt.provider) == (True, "b")
        assert [s.kind_of(each.failure) for each in receipt.attempts] == ["error_event", None]


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("size", [1, 7, 100])
def test_content_lets_all_of_it_through_wherever_it_is_cut(name: str, size: int) -> None:
    spoken = DIALECTS[name]
    with spoken.stage() as stage:
        client = stage.client()
        client.says(spoken.asked)
        stage.upstream().says(spoken.head)
        for at in range(0, len(spoken.noise + spoken.said), size):
            stage.upstream().says(s.chunk((spoken.noise + spoken.said)[at : at + size]))
        stage.upstream().says(s.LAST)
        assert joined(client.heard()) == spoken.noise + spoken.said
        assert stage.dialed == [A]
        assert stage.receipt().complete


def joined(answer: bytes) -> bytes:
    """The body of an answer in chunks."""
    body, out = answer.partition(b"\r\n\r\n")[2], b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        out, body = out + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return out


def test_a_gemini_target_is_asked_under_its_own_name_in_the_path() -> None:
    providers = (provider("a", **GOOGLE), provider("b", **GOOGLE))
    with Stage(models="m = a/one | b/pub/two", retries=1, providers=providers) as stage:
        client = stage.client()
        client.says(GEMINI.asked)
        heard = stage.upstream().heard()
        assert heard.startswith(b"POST /v1beta/models/one:streamGenerateContent?alt=sse HTTP/1.1\r\nhost: a.test\r\n")
        assert heard.endswith(b'\r\n\r\n{"contents":[]}')
        stage.upstream().says(s.unary(ERROR, BUSY))
        heard = stage.upstream().heard()
        assert heard.startswith(b"POST /v1beta/models/pub%2Ftwo:streamGenerateContent?alt=sse HTTP/1.1\r\nhost: b.test")
        client.resets()
        assert [each.model for each in stage.receipt().attempts] == ["one", "pub/two"]


# -- errors under a status of 200 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "follows"),
    [
        (b'data: {"error":{"code":"content_filter","message":"no"}}\n\n', False),
        (b'data: {"error":{"type":"invalid_request_error","message":"bad"}}\n\n', False),
        (b'data: {"error":{"type":"insufficient_quota","message":"paid?"}}\n\n', True),
        (b'data: {"error":{"code":"rate_limit_exceeded","message":"slow"}}\n\n', True),
        (b'data: {"error":{"message":"?"}}\n\n', True),
    ],
)
def test_an_error_event_is_judged_by_its_cause(said: bytes, follows: bool) -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.upstream().says(s.chunk(said))
        assert (stage.dialed == [A, B]) is follows
        if follows:
            client.resets()
            return
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.ROLE) + s.chunk(said), "as it came"
        stage.upstream().says(s.LAST)
        assert client.heard() == s.LAST
        assert stage.receipt().ended_kind == "error_event"


@pytest.mark.parametrize(
    "document",
    [
        b'{"error":{"message":"busy","code":503}}',
        b' \n{ "error": {"message":"busy"}}',
        b'{"type":"error","error":{"type":"overloaded_error"}}',
        b'{"error":"busy"}',
        b'[{"error":{"code":503,"message":"busy"}}]',
    ],
)
def test_a_document_that_is_an_error_fails_over_when_it_is_whole(document: bytes) -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(begun(b"200 OK", len(document)) + document[:-1])
        assert (client.heard(), stage.dialed) == (b"", [A])
        stage.upstream().says(document[-1:])
        assert (client.heard(), stage.dialed) == (b"", [A, B])
        stage.upstream().says(ANSWER)
        assert client.heard() == PASSED
        assert [s.kind_of(each.failure) for each in stage.receipt().attempts] == ["error_event", None]


def test_a_document_that_is_an_error_and_final_goes_out_as_it_came() -> None:
    document = b'{"error":{"message":"no","code":"content_filter"}}'
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(begun(b"200 OK", len(document)) + document[:20])
        stage.upstream().says(document[20:])
        heard = client.heard()
        assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
        assert joined(heard) == document
        assert stage.dialed == [A]
        assert len(stage.receipt().attempts) == 1


def test_a_document_that_is_none_is_let_through_at_its_first_byte() -> None:
    document = b'{"id":"x","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(begun(b"200 OK", len(document)) + document[:20])
        assert client.heard().endswith(s.chunk(document[:20]))
        stage.upstream().says(document[20:])
        assert client.heard() == s.chunk(document[20:]) + s.LAST
        assert stage.receipt().complete


def test_a_document_that_is_an_error_and_too_long_is_judged_by_its_beginning() -> None:
    document = b'{"error":{"message":"' + b"x" * (MOST + 100)
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(begun(b"200 OK", 2 * MOST) + document[:1000])
        assert client.heard() == b""
        stage.upstream().says(document[1000:])
        assert stage.dialed == [A, B]
        client.resets()


# -- errors under a status of their own -------------------------------------------------------------------------------

CONTEXT = b'{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}'


@pytest.mark.parametrize("coding", [b"gzip", b"identity", b"x-unknown"])
def test_an_error_body_is_read_through_its_coding(coding: bytes) -> None:
    """By its status alone a 400 would be final. Of a coding that we do not know the bytes are read as they are."""
    body = gzip.compress(CONTEXT) if coding == b"gzip" else CONTEXT
    with stage_of("m = a/one (window=8k) | b/two (window=100k)") as stage:
        client = asks(stage)
        upstream = stage.upstream()
        upstream.says_each(s.unary(body, b"400 Bad Request", b"Content-Encoding: " + coding), 40)
        assert (client.heard(), stage.dialed) == (b"", [A, B])
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


def test_what_is_too_long_for_one_is_not_sent_back_to_one_that_was_busy() -> None:
    """Nobody knows that its window is larger."""
    with stage_of("m = a/one (window=8k) | b/two (window=8k)") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.upstream().says(s.unary(CONTEXT, b"400 Bad Request"))
        assert client.heard() == s.passed_on(CONTEXT, b"400 Bad Request")
        assert [each.provider for each in stage.receipt().attempts] == ["a", "b"]


def test_an_error_body_that_is_broken_off_is_judged_by_what_came() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(begun(BUSY, len(ERROR)) + ERROR[:10])
        assert stage.dialed == [A]
        stage.upstream().resets()
        assert stage.dialed == [A, B]
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [(each.status, s.kind_of(each.failure)) for each in stage.receipt().attempts] == [
            (503, "error_status"),
            (200, None),
        ]
        assert stage.pooled == 1


def test_an_error_body_that_is_broken_off_with_nobody_left_is_cut_for_the_client_too() -> None:
    with stage_of("m (retries=1) = a/one | b/two") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.upstream().says(begun(BUSY, len(ERROR)) + ERROR[:10])
        stage.upstream().resets()
        assert client.heard() == begun_passed(BUSY, len(ERROR)) + ERROR[:10]
        assert client.is_gone
        receipt = stage.receipt()
        assert (receipt.status, receipt.complete, receipt.ended_kind) == (503, False, "reset")


def begun_passed(status: bytes, size: int) -> bytes:
    return s.passed_on(b"", status).replace(b"content-length: 0", b"content-length: %d" % size)


def test_an_error_body_that_does_not_end_is_not_waited_for() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(begun(BUSY, 100) + b'{"error":')
        stage.advance(4.7)
        assert stage.dialed == [A]
        stage.advance(0.6)
        assert stage.dialed == [A, B]
        assert stage.upstreams[0].is_gone, "it is in the middle of its answer"
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.receipt().complete


def test_an_error_body_that_does_not_end_and_is_final_goes_on_when_its_wait_is_over() -> None:
    body = b'{"error":{"message":"bad","type":"invalid_request_error"}}'
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(begun(b"400 Bad Request", len(body)) + body[:50])
        stage.advance(5.3)
        assert client.heard() == begun_passed(b"400 Bad Request", len(body)) + body[:50]
        stage.upstream().says(body[50:])
        assert client.heard() == body[50:]
        receipt = stage.receipt()
        assert (receipt.status, receipt.ended_kind, len(receipt.attempts)) == (400, "error_status", 1)


def test_an_error_body_of_more_than_64_kib_is_not_waited_for() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(begun(BUSY, 2 * MOST) + b"x" * MOST)
        assert stage.dialed == [A]
        stage.upstream().says(b"x")
        assert stage.dialed == [A, B]
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


def test_a_refusal_without_a_body_is_whole_with_its_head() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(b"", BUSY))
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


def test_googles_word_on_how_long_to_wait_stands_in_its_body() -> None:
    body = b'{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"3s"}]}}'
    with Stage(models="m = a/one", retries=1, providers=(provider("a", **GOOGLE),)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1beta/models/m:generateContent", b'{"contents":[]}'))
        upstream = stage.upstream()
        upstream.says(s.unary(body, b"429 Too Many Requests"))
        upstream.heard()
        stage.advance(2.9)
        assert upstream.heard() == b""
        stage.advance(0.2)
        assert upstream.heard().startswith(b"POST /v1beta/models/one:generateContent ")
        upstream.says(s.unary())
        assert client.heard() == s.passed_on()


# -- ways to go through -----------------------------------------------------------------------------------------------


def test_head_content_and_end_in_one_read() -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(ANSWER)
        assert client.heard() == PASSED
        assert stage.pooled == 1


def test_a_client_of_http_1_0_gets_it_without_chunks() -> None:
    with stage_of() as stage:
        client = stage.client()
        client.says(s.ask(body=BODY, version=b"1.0"))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        assert client.heard() == b""
        stage.upstream().resets()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.upstream().says(s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST)
        head = s.STREAM_HEAD_PASSED + b"connection: close\r\n\r\n"
        assert client.heard() == head + s.ROLE + s.text() + s.FINISH + s.DONE
        assert client.is_gone
        assert stage.receipt().complete


def test_a_stream_that_comes_compressed_is_not_held() -> None:
    """Nothing in it can be looked at."""
    packed = gzip.compress(s.text() + s.FINISH + s.DONE)
    with stage_of(identity=False) as stage:
        client = stage.client()
        client.says(s.ask(b"Accept-Encoding: gzip", body=BODY))
        stage.upstream().says(s.STREAM_HEAD.replace(b"Date:", b"Content-Encoding: gzip\r\nDate:") + s.chunk(packed[:9]))
        assert client.heard().endswith(s.chunk(packed[:9]))
        stage.upstream().says(s.chunk(packed[9:]) + s.LAST)
        assert client.heard() == s.chunk(packed[9:]) + s.LAST
        assert stage.receipt().complete


def test_behind_the_wait_the_limit_on_the_first_event_is_still_there() -> None:
    with stage_of("m (first_event=30) = a/one | b/two") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.advance(15.3)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.ROLE)
        stage.advance(15.0)
        assert b'"code":"timeout"' in client.heard()
        assert stage.dialed == [A], "the client has the beginning of this one"
        assert stage.receipt().ended_kind == "timeout"


def test_a_hold_without_an_end_is_one_until_the_first_event() -> None:
    with stage_of("m (first_event=30 hold=1000) = a/one | b/two") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.advance(29.0)
        assert client.heard() == b""
        stage.advance(1.3)
        assert stage.dialed == [A, B]
        client.resets()


def test_a_document_that_was_not_asked_to_stream_is_not_held() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(begun(b"200 OK", len(s.DOCUMENT)))
        assert client.heard() == begun_passed(b"200 OK", len(s.DOCUMENT))
        stage.upstream().says(s.DOCUMENT)
        assert client.heard() == s.DOCUMENT


# -- clients that do not read, wait, or leave -------------------------------------------------------------------------


def test_who_does_not_read_when_it_goes_through_pauses_its_provider() -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.ROLE))
        client.stops_reading()
        assert not upstream.transport.paused, "what is held does not go to the client"
        upstream.says(s.chunk(s.text()))
        assert upstream.transport.paused
        client.reads_on()
        assert not upstream.transport.paused
        upstream.says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        assert client.heard().endswith(s.LAST)
        assert stage.receipt().complete


def test_who_does_not_read_before_an_answer_begins_pauses_its_provider_with_the_head() -> None:
    with stage_of(seconds={Limit.HOLD: 0.0}) as stage:
        client = asks(stage, stream=True)
        client.stops_reading()
        upstream = stage.upstream()
        assert not upstream.transport.paused, "there is nothing to be read yet"
        upstream.says(s.STREAM_HEAD + s.chunk(s.ROLE))
        assert upstream.transport.paused
        client.reads_on()
        assert not upstream.transport.paused
        client.resets()


def test_a_client_that_stops_for_a_while_waits_no_longer_than_others() -> None:
    with stage_of(seconds={Limit.CLIENT_STALL: 500.0}) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        client.stops_reading()
        stage.advance(5.0)
        client.reads_on()
        assert client.heard() == b""
        stage.advance(10.3)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.ROLE)
        client.resets()


def test_who_does_not_read_is_not_asked_to_wait_for_the_provider() -> None:
    """The gap in the stream is the client's own."""
    with stage_of(seconds={Limit.CLIENT_STALL: 500.0}) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        client.stops_reading()
        stage.upstream().says(s.chunk(s.text()))
        stage.advance(200.0)
        client.reads_on()
        stage.upstream().says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        assert stage.receipt().complete


def test_what_is_pipelined_behind_a_retry_waits_its_turn() -> None:
    document = b'{"model":"m","messages":[]}'
    with stage_of("m = a/one") as stage:
        client = stage.client()
        client.says(s.ask(body=document) + s.ask(body=document))
        upstream = stage.upstream()
        upstream.says(s.unary(ERROR, BUSY))
        upstream.heard()
        stage.advance(0.2)
        assert (client.heard(), upstream.heard()) == (b"", b"")
        stage.advance(0.1)
        assert upstream.heard().count(b"POST ") == 1
        upstream.says(s.unary())
        assert client.heard() == s.passed_on()
        assert upstream.heard().count(b"POST ") == 1
        upstream.says(s.unary())
        assert client.heard() == s.passed_on()
        assert [len(receipt.attempts) for receipt in stage.receipts] == [2, 1]


def test_too_much_behind_a_retry_pauses_the_client_and_it_is_seen_to_leave() -> None:
    with stage_of("m = a/one") as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY, b"retry-after: 20"))
        client.says(b"x" * 70_000)
        assert client.transport.paused
        stage.hangups.hang_up(1000)
        assert stage.receipt().ended_kind == "client_left"
        assert client.is_gone


@pytest.mark.parametrize("drains", [False, True])
def test_who_leaves_while_it_waits(drains: bool) -> None:
    with stage_of(disconnect=Disconnect(drains, 60.0)) as stage:
        client = asks(stage, stream=True)
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.ROLE))
        client.resets()
        assert upstream.is_gone is not drains
        if drains:
            upstream.says(s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST)
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.status, receipt.bytes_out) == ("client_left", 0, 0)
        assert receipt.usage is not None
        assert stage.dialed == [A]


@pytest.mark.parametrize("ending", ["error", "cut", "status"])
def test_for_whom_has_left_nobody_else_is_asked(ending: str) -> None:
    with stage_of(disconnect=Disconnect(True, 60.0)) as stage:
        client = asks(stage, stream=True)
        upstream = stage.upstream()
        upstream.says(begun(BUSY, len(ERROR)) if ending == "status" else s.STREAM_HEAD + s.chunk(s.ROLE))
        client.resets()
        if ending == "cut":
            upstream.resets()
        else:
            upstream.says(ERROR if ending == "status" else s.chunk(OVERLOADED) + s.LAST)
        receipt = stage.receipt()
        assert (receipt.ended_kind, len(receipt.attempts)) == ("client_left", 1)
        assert stage.dialed == [A]


def test_a_shutdown_while_it_is_held_is_an_honest_status() -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.relay.give_up()
        assert s.status_of(client.heard()) == 503
        assert stage.upstream().is_gone
        receipt = stage.receipt()
        assert (receipt.status, receipt.ended_kind) == (503, "shutdown")


def test_its_time_is_up_while_it_is_held() -> None:
    with stage_of("m (total=10) = a/one | b/two") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        stage.advance(10.3)
        assert s.status_of(client.heard()) == 504
        assert stage.receipt().ended_phase.value == "total"


# -- what a provider breaks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [b"zz\r\n", s.chunk(s.ROLE) + b"zz\r\n", s.chunk(s.text()) + b"zz\r\n"])
def test_broken_framing_in_a_held_stream_fails_over(broken: bytes) -> None:
    """Also behind content that came in the same read: the client has nothing of it."""
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + broken)
        assert client.heard() == b""
        assert stage.dialed == [A, B]
        stage.upstream().says(ANSWER)
        assert client.heard() == PASSED
        assert [s.kind_of(each.failure) for each in stage.receipt().attempts] == ["protocol", None]


def test_without_anybody_left_a_held_stream_that_breaks_is_a_502() -> None:
    """Held while others had not used up all retries of this worker yet."""
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        assert client.heard() == b""
        while stage.relay.retries.take(stage.loop.time()):
            pass
        stage.upstream().resets()
        assert s.status_of(client.heard()) == 502
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.status) == ("reset", 502)


def lines_of(client: Peer) -> list[bytes]:
    return client.heard().partition(b"\r\n\r\n")[0].split(b"\r\n")


def test_the_fields_of_an_answer_that_was_dropped_are_not_seen() -> None:
    with stage_of() as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY, b"x-request-id: first", b"x-lost: 1"))
        stage.upstream().says(s.unary(s.DOCUMENT, b"200 OK", b"x-request-id: second"))
        lines = lines_of(client)
        assert b"x-request-id: second" in lines
        assert b"x-lost: 1" not in lines
        assert stage.receipt().provider_request_id == "second"
