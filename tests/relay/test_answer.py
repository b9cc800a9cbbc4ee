"""An answer on its way: the head, the framing, events, and what is sniffed out of the first bytes."""

from __future__ import annotations

import gzip

import pytest

from proxy.outcome import Limit
from tests.relay import stage as s
from tests.relay.stage import Stage

HEAD = b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
CLOSE = b"connection: close\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"


def passes(ask: bytes, answer: bytes, ends: bool = False) -> tuple[bytes, Stage]:
    """What the client hears of `answer` to `ask`, and the stage after it."""
    with Stage() as stage:
        client = stage.client()
        client.says(ask)
        stage.upstream().says(answer)
        if ends:
            stage.upstream().half_closes()
        return client.heard(), stage


# -- refused before there is a head ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "start"),
    [
        (b"/v1/chat/completions", b'{"error":{"message":"llm-proxy: '),
        (b"/v1/messages", b'{"type":"error","error":{"type":'),
        (b"/v1beta/models/g:generateContent", b'{"error":{"code":4'),
        (b"/api/chat", b'{"error":"llm-proxy: '),
    ],
)
@pytest.mark.parametrize(
    ("rest", "status"),
    [(b"Host: a\r\nA: " + b"x" * 40_000, b"431 "), (b"Host: a\r\nA b: c\r\n\r\n", b"400 "), (b"A: ", b"")],
)
def test_what_the_request_line_asks_for_words_the_refusal(
    path: bytes, start: bytes, rest: bytes, status: bytes
) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(b"POST " + path + b"?key=secret HTTP/1.1\r\n" + rest)
        if not status:
            status = b"408 "
            stage.advance(s.SECONDS[Limit.HEAD] + 1.0)
        heard = client.heard()
        assert heard.startswith(b"HTTP/1.1 " + status)
        assert heard.partition(b"\r\n\r\n")[2].startswith(start)
        assert stage.receipt().path == path.decode()


# -- heads ------------------------------------------------------------------------------------------------------------


def test_end_to_end_fields_travel_and_others_do_not() -> None:
    heard, _ = passes(
        s.get(),
        b"HTTP/1.1 200 Very OK\r\nServer: x\r\nX-Two: 1\r\nx-two: 2\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: h2c\r\nDate: long ago\r\n"
        b"Set-Cookie: a=b\r\nx-ratelimit-remaining-requests: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-T: trailed\r\n\r\n",
    )
    assert heard == (
        b"HTTP/1.1 200 Very OK\r\nServer: x\r\nX-Two: 1\r\nx-two: 2\r\nDate: long ago\r\nSet-Cookie: a=b\r\n"
        b"x-ratelimit-remaining-requests: 7\r\n" + s.VIA + CHUNKED + b"\r\n" + s.chunk(b"hi") + s.LAST
    )


@pytest.mark.parametrize("name", [b"x-llm-proxy-error", b"X-LLM-Proxy-Anything"])
def test_only_this_proxy_says_that_an_answer_is_its_own(name: bytes) -> None:
    heard, _ = passes(s.get(), s.unary(b"{}", b"503 No", name + b": overloaded", b"x-llm-proxies: 1"))
    assert name.lower() not in heard.lower()
    assert b"x-llm-proxies: 1\r\n" in heard


def test_an_answer_without_a_date_gets_one() -> None:
    heard, _ = passes(s.get(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert heard == b"HTTP/1.1 200 OK\r\n" + s.DATE + s.VIA + b"content-length: 0\r\n\r\n"


def test_a_missing_reason_gets_ours_and_an_unknown_status_none() -> None:
    heard, _ = passes(s.get(), b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
    heard, _ = passes(s.get(), b"HTTP/1.1 529\r\nContent-Length: 0\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 529 \r\n")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_interim_answers_stay_here(version: bytes) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    heard, _ = passes(s.get(version=version), interim + s.unary())
    assert heard == s.passed_on(end=CLOSE if version == b"1.0" else b"")


def test_the_request_id_of_a_provider() -> None:
    for name in (b"x-request-id", b"request-id", b"apim-request-id"):
        _, stage = passes(s.get(), s.unary(b"", b"200 OK", name + b": r-" + b"1" * 200))
        assert stage.receipts[0].provider_request_id == "r-" + "1" * 126


# -- framing: theirs against ours -------------------------------------------------------------------------------------

BODY = b"some bytes"
LENGTH = b"content-length: 10\r\n"


@pytest.mark.parametrize(
    ("version", "framing", "body", "ends", "expected"),
    [
        (b"1.1", b"Content-Length: 10\r\n", BODY, False, LENGTH + b"\r\n" + BODY),
        (b"1.0", b"Content-Length: 10\r\n", BODY, False, LENGTH + CLOSE + b"\r\n" + BODY),
        (b"1.1", b"Transfer-Encoding: chunked\r\n", s.chunk(BODY) + s.LAST, False, None),
        (b"1.0", b"Transfer-Encoding: chunked\r\n", s.chunk(BODY) + s.LAST, False, CLOSE + b"\r\n" + BODY),
        (b"1.1", b"", BODY, True, None),
        (b"1.0", b"", BODY, True, CLOSE + b"\r\n" + BODY),
    ],
)
def test_framing(version: bytes, framing: bytes, body: bytes, ends: bool, expected: bytes | None) -> None:
    expected = expected or CHUNKED + b"\r\n" + s.chunk(BODY) + s.LAST
    heard, stage = passes(s.get(version=version), HEAD + framing + b"\r\n" + body, ends)
    assert heard == HEAD + s.VIA + expected
    assert stage.receipts[0].complete
    assert stage.receipts[0].bytes_out == len(BODY)


def test_an_empty_answer_until_close() -> None:
    heard, stage = passes(s.get(), HEAD + b"\r\n", ends=True)
    assert heard == HEAD + s.VIA + CHUNKED + b"\r\n" + s.LAST
    assert stage.receipts[0].complete


@pytest.mark.parametrize(
    ("fields", "shown"),
    [(b"Content-Length: 99\r\n", b"content-length: 99\r\n"), (b"Transfer-Encoding: chunked\r\n", b""), (b"", b"")],
)
def test_head_tells_what_get_would_bring(fields: bytes, shown: bytes) -> None:
    heard, stage = passes(s.request(b"HEAD", b"/v1/models"), HEAD + fields + b"\r\n")
    assert heard == HEAD + s.VIA + shown + b"\r\n"
    assert stage.receipts[0].complete


def test_no_content_has_no_length() -> None:
    heard, _ = passes(s.get(), b"HTTP/1.1 204 No Content\r\nDate: x\r\nContent-Length: 0\r\n\r\n")
    assert heard == b"HTTP/1.1 204 No Content\r\nDate: x\r\n" + s.VIA + b"\r\n"
    heard, _ = passes(s.get(), b"HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 7\r\n\r\n")
    assert heard == b"HTTP/1.1 304 Not Modified\r\nDate: x\r\n" + s.VIA + b"content-length: 7\r\n\r\n"


def test_each_read_is_one_write_and_one_chunk() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD)
        assert client.writes() == [s.STREAM_HEAD_ON]
        upstream.says(b"".join(s.chunk(s.text(b"%d" % n)) for n in range(5)))
        assert client.writes() == [s.chunk(b"".join(s.text(b"%d" % n) for n in range(5)))]
        upstream.says(s.chunk(s.FINISH) + s.chunk(s.DONE) + s.LAST)
        assert client.writes() == [s.chunk(s.FINISH + s.DONE) + s.LAST]


def test_head_and_body_in_one_write() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(s.unary())
        assert client.writes() == [s.passed_on()]


@pytest.mark.parametrize("size", [1, 7, 50])
def test_any_cut_of_a_stream_gives_the_same_events(size: int) -> None:
    events = s.ROLE + s.COMMENT + s.text() + s.text("grün".encode()) + s.FINISH + s.DONE
    whole = s.STREAM_HEAD + s.chunk(events[:100]) + s.chunk(events[100:]) + s.LAST
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says_each(whole, size)
        heard = client.heard()
        assert heard.startswith(s.STREAM_HEAD_ON)
        assert unchunked(heard.removeprefix(s.STREAM_HEAD_ON)) == events
        receipt = stage.receipt()
        assert receipt.complete
        assert receipt.events == 5
        assert stage.pooled == 1


def unchunked(data: bytes) -> bytes:
    """The body of a whole chunked message."""
    out = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            assert data == b"\r\n"
            return out
        out += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]


# -- what a streaming call is answered with ---------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [b"application/json", b"text/event-stream"])
@pytest.mark.parametrize("blank", [b"", b"\n", b"  "])
def test_a_document_for_a_streaming_call(content_type: bytes, blank: bytes) -> None:
    """Some providers answer so, under any content type. It ends where its framing ends."""
    document = blank + b'{"error":{"message":"no"}}'
    head = HEAD + b"Content-Type: " + content_type + b"\r\n"
    heard, stage = passes(s.ask_stream(), head + b"Content-Length: %d\r\n\r\n" % len(document) + document)
    assert heard == head + s.VIA + CHUNKED + b"\r\n" + s.chunk(document) + s.LAST
    receipt = stage.receipts[0]
    assert receipt.complete
    assert receipt.stream


def test_a_cut_document_for_a_streaming_call_gets_no_event() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(HEAD + b"Content-Length: 100\r\n\r\n" + b'{"error":')
        client.heard()
        stage.upstream().resets()
        assert client.heard() == b""
        assert client.transport.closed
        assert stage.receipt().letters == "UD"


def test_an_error_status_for_a_streaming_call_keeps_its_length() -> None:
    body = b"data: not an event\n"
    heard, _ = passes(s.ask_stream(), s.unary(body, b"500 Oops"))
    assert heard == s.passed_on(body, b"500 Oops")


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_compressed_stream_passes_unread(is_cut: bool) -> None:
    squeezed = gzip.compress(s.text() + s.DONE)
    with Stage(identity=False) as stage:
        client = stage.client()
        client.says(s.ask_stream(b"Accept-Encoding: gzip"))
        head = HEAD + b"Content-Encoding: GZip\r\nContent-Type: text/event-stream\r\n"
        stage.upstream().says(head + b"Transfer-Encoding: chunked\r\n\r\n" + s.chunk(squeezed))
        assert client.heard() == head + s.VIA + CHUNKED + b"\r\n" + s.chunk(squeezed)
        if is_cut:
            stage.upstream().resets()
            assert client.heard() == b"", "an event of ours would not be gzip"
            assert client.transport.closed
            assert stage.receipt().letters == "UD"
        else:
            stage.upstream().says(s.LAST)
            assert client.heard() == s.LAST
            assert stage.receipt().complete
            assert stage.receipts[0].detail == "the stream came compressed, its end could not be read"
        assert stage.receipts[0].events == 0


@pytest.mark.parametrize("coding", [b"identity", b"Identity", b""])
def test_identity_is_no_coding(coding: bytes) -> None:
    head = s.STREAM_HEAD.replace(b"Content-Type", b"Content-Encoding: " + coding + b"\r\nContent-Type")
    _, stage = passes(s.ask_stream(), head + s.chunk(s.text()) + s.LAST)
    assert stage.receipts[0].ended_kind == "missing_end"


# -- other dialects ---------------------------------------------------------------------------------------------------

GEMINI = s.openai_provider(
    name="gemini", family="gemini", base=b"", host_header=b"gemini.test", credential=None, auth="x-goog-api-key"
)
OLLAMA = s.openai_provider(name="ollama", family="ollama", base=b"", host_header=b"ollama.test", credential=None)


def test_lines_of_json_are_cut_at_lines() -> None:
    line = b'{"message":{"role":"assistant","content":"hi"},"done":false}\n'
    with Stage(providers=(OLLAMA,)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/api/chat", b'{"model":"llama"}'))
        stage.upstream().says(
            HEAD
            + b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
            + s.chunk(line + b'{"mess')
        )
        assert client.heard().endswith(b"\r\n\r\n" + s.chunk(line))
        stage.upstream().resets()
        event = b'{"error":"llm-proxy: the upstream closed the connection in the middle of its answer"}\n'
        assert client.heard() == s.chunk(event)
        assert stage.receipt().letters == "UD"


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_json_array_of_gemini(is_cut: bool) -> None:
    one = b'[{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}\n'
    two = b',\n{"candidates":[{"finishReason":"STOP"}]}\n]'
    with Stage(providers=(GEMINI,)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1beta/models/gemini-x:streamGenerateContent", b'{"contents":[]}'))
        stage.upstream().says(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + s.chunk(one))
        heard = client.heard()
        if is_cut:
            stage.upstream().resets()
            heard += client.heard()
            assert not heard.endswith(s.LAST)
            assert b"error" not in heard
            assert client.transport.closed
            assert stage.receipt().letters == "UD"
        else:
            stage.upstream().says(s.chunk(two) + s.LAST)
            heard += client.heard()
            assert unchunked(heard.partition(b"\r\n\r\n")[2]) == one + two
            assert stage.receipt().complete


def test_an_event_of_anthropic() -> None:
    body = b'{"model":"claude-x","stream":true,"max_tokens":9,"messages":[]}'
    delta = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"x"}}\n\n'
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/messages", body))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta))
        client.heard()
        stage.upstream().resets()
        heard = client.heard()
        assert b'\r\nevent: error\ndata: {"type":"error","error":{"type":"api_error"' in heard
        assert s.ID in heard
