"""A provider that repeats our credential: no client and no receipt gets it, and nothing else is touched."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace

import brotli
import pytest

from proxy.catalog.mask import Mask
from proxy.catalog.secret import Secret
from proxy.outcome import Attempt, Billed, Receipt, Usage
from proxy.policy.keys import AuthMode
from proxy.relay.masking import MOST, scrub
from tests.relay import stage as s
from tests.relay.stage import Stage
from tests.relay.targets import BUSY, provider
from tests.relay.test_upstream import FRAMES, frames_of, streaming

KEY = "sk-proj-0123456789abcdef"
STARS = b"*" * len(KEY)
ERROR = b'{"error":{"message":"Incorrect API key provided: %b.","type":"invalid_request_error"}}'
ECHO = ERROR % KEY.encode()
MASKED = ERROR % STARS
ANTHROPIC_ERROR = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"%b"}}\n\n'
ANTHROPIC_START = b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"c"}}\n\n'


def stage(**more: object) -> Stage:
    openai = replace(s.openai_provider(), credential=Secret(KEY))
    anthropic = replace(s.anthropic_provider(), credential=Secret(KEY))
    return Stage(providers=(openai, anthropic), **more)  # type: ignore[arg-type]


def hears(asked: bytes, *reads: bytes, ends: bool = False) -> bytes:
    """What a client hears of an answer in these reads."""
    with stage() as on:
        client = on.client()
        client.says(asked)
        for read in reads:
            on.upstream().says(read)
        if ends:
            on.upstream().half_closes()
        return client.heard()


def body_of(answer: bytes) -> bytes:
    """The body of one answer in chunks, or under a length."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        assert b"content-length: %d" % len(body) in head
        return body
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        out += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return out


# -- errors under an error status -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"429 Too Many", b"500 No", b"529 No"])
@pytest.mark.parametrize("asked", [s.ask(), s.ask_stream(), s.get()])
def test_a_credential_in_an_error_becomes_stars(status: bytes, asked: bytes) -> None:
    assert hears(asked, s.unary(ECHO, status)) == s.passed_on(MASKED, status)


@pytest.mark.parametrize("size", [1, 2, 7, 30, 100])
def test_wherever_it_is_cut(size: int) -> None:
    reads = [ECHO[at : at + size] for at in range(0, len(ECHO), size)]
    head = s.unary(b"", b"400 Bad").replace(b"Content-Length: 0", b"Content-Length: %d" % len(ECHO))
    assert hears(s.ask(), head, *reads) == s.passed_on(MASKED, b"400 Bad")
    chunked = head.replace(b"Content-Length: %d" % len(ECHO), b"Transfer-Encoding: chunked")
    assert body_of(hears(s.ask(), chunked, *map(s.chunk, reads), s.LAST)) == MASKED
    open_end = head.replace(b"Content-Length: %d\r\n" % len(ECHO), b"")
    assert body_of(hears(s.ask(), open_end, *reads, ends=True)) == MASKED


def test_only_a_beginning_of_it_is_held_back() -> None:
    with stage() as on:
        client = on.client()
        client.says(s.ask())
        on.upstream().says(b"HTTP/1.1 400 Bad\r\nContent-Length: 17\r\n\r\nthe key sk-pr")
        assert client.heard().endswith(b"\r\n\r\nthe key ")
        on.upstream().says(b"oxy.")
        assert client.heard() == b"sk-proxy."


def test_an_error_that_is_cut_within_it_does_not_show_a_part_of_it() -> None:
    with stage() as on:
        client = on.client()
        client.says(s.ask())
        on.upstream().says(s.unary(ECHO, b"400 Bad")[: -len(b'.","type":"invalid_request_error"}}') - 3])
        on.upstream().resets()
        assert client.heard().endswith(b"provided: ")


def test_fields_and_reason_are_masked_too() -> None:
    key = KEY.encode()
    lines = (b"X-Echo: Bearer " + key, b"WWW-Authenticate: Bearer realm=" + key)
    heard = hears(s.ask(), s.unary(b"{}", b"400 No " + key, *lines))
    assert heard == s.passed_on(b"{}", b"400 No " + STARS, *(line.replace(key, STARS) for line in lines))
    moved = hears(s.get(), s.unary(b"", b"302 Found", b"Location: /v1/models?key=" + key))
    assert b"Location: /v1/models?key=" + STARS in moved


def test_the_fields_of_an_answer_that_is_no_error_are_masked_too() -> None:
    line = b"X-Request-Id: for-" + KEY.encode()
    assert hears(s.ask(), s.unary(s.DOCUMENT, b"200 OK", line)) == s.passed_on(
        s.DOCUMENT, b"200 OK", b"X-Request-Id: for-" + STARS
    )


def test_the_same_bytes_in_an_answer_that_is_none_pass() -> None:
    document = b'{"choices":[{"message":{"content":"%b"}}]}' % KEY.encode()
    assert hears(s.ask(), s.unary(document)) == s.passed_on(document)


def test_in_passthrough_mode_it_is_the_clients_own() -> None:
    with stage(mode=AuthMode.PASSTHROUGH) as on:
        client = on.client()
        client.says(s.ask(b"Authorization: Bearer " + KEY.encode()))
        on.upstream().says(s.unary(ECHO, b"400 Bad", b"X-Request-Id: " + KEY.encode()))
        assert client.heard() == s.passed_on(ECHO, b"400 Bad", b"X-Request-Id: " + KEY.encode())
        assert on.receipt().provider_request_id == "*" * len(KEY), "the ledger is not the client's"


def test_in_passthrough_mode_other_secrets_are_still_ours() -> None:
    token = (b"x-edge-token", Secret("edge-token-0123"))
    with Stage(providers=(replace(s.openai_provider(), headers=(token,)),), mode=AuthMode.PASSTHROUGH) as on:
        client = on.client()
        client.says(s.ask(b"Authorization: Bearer " + KEY.encode()))
        on.upstream().says(s.unary(b"edge-token-0123 " + KEY.encode(), b"400 Bad", b"X-Request-Id: edge-token-0123"))
        assert client.heard().endswith(b"\r\n\r\n" + b"*" * 15 + b" " + KEY.encode())
        assert on.receipt().provider_request_id == "*" * 15


# -- errors under status 200 ------------------------------------------------------------------------------------------


def test_an_error_event_in_a_stream() -> None:
    event = b"data: " + ECHO + b"\n\n"
    reads = [s.STREAM_HEAD + s.chunk(s.ROLE), s.chunk(s.text()), s.chunk(event[:40]), s.chunk(event[40:]), s.LAST]
    heard = hears(s.ask_stream(), *reads)
    assert body_of(heard) == s.ROLE + s.text() + event.replace(ECHO, MASKED)


def test_an_error_event_without_its_end() -> None:
    event = b"data: " + ECHO
    assert body_of(hears(s.ask_stream(), s.STREAM_HEAD + s.chunk(s.ROLE + event) + s.LAST)).endswith(MASKED)


def test_an_error_event_of_another_dialect() -> None:
    asked = s.request(b"POST", b"/v1/messages", b'{"model":"claude-x","stream":true,"max_tokens":1,"messages":[]}')
    event = ANTHROPIC_ERROR % KEY.encode()
    heard = hears(asked, s.STREAM_HEAD + s.chunk(ANTHROPIC_START) + s.chunk(event) + s.LAST)
    assert body_of(heard) == ANTHROPIC_START + ANTHROPIC_ERROR % STARS


@pytest.mark.parametrize("asked", [s.ask(), s.ask_stream()])
def test_an_error_as_a_document_under_status_200(asked: bytes) -> None:
    assert body_of(hears(asked, s.unary(ECHO))) == MASKED


def test_a_good_stream_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> bytes:
        raise AssertionError("searched")

    with stage() as on:
        client, upstream = streaming(on)  # its head has been searched, as every head is
        for name in ("hide", "hide_in", "is_in", "begun"):
            monkeypatch.setattr(Mask, name, never)
        delta = s.text(b"usual")
        assert len(frames_of(upstream, s.chunk(delta))) <= FRAMES
        upstream.says(s.chunk(s.FINISH) + s.chunk(s.DONE) + s.LAST)
        assert client.heard().endswith(s.LAST)
        assert on.receipt().complete


# -- errors that come compressed --------------------------------------------------------------------------------------


def compressed(coding: bytes, body: bytes) -> bytes:
    return {b"gzip": gzip.compress, b"deflate": zlib.compress, b"br": brotli.compress}[coding](body)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("is_cut", [False, True])
def test_it_goes_out_decompressed_if_it_repeats_the_credential(coding: bytes, version: bytes, is_cut: bool) -> None:
    answer = s.unary(compressed(coding, ECHO), b"400 Bad", b"Content-Encoding: " + coding, b"ETag: x", b"X-Kept: 1")
    reads = [answer[at : at + 1] for at in range(len(answer))] if is_cut else [answer]
    end = b"" if version == b"1.1" else b"connection: close\r\n"
    assert hears(s.ask(version=version), *reads) == s.passed_on(MASKED, b"400 Bad", b"X-Kept: 1", end=end)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br"])
def test_it_goes_out_as_it_came_if_it_does_not(coding: bytes) -> None:
    body = compressed(coding, ERROR % b"sk-***")
    line = b"Content-Encoding: " + coding
    assert hears(s.ask(), s.unary(body, b"400 Bad", line)) == s.passed_on(body, b"400 Bad", line)
    chunked = b"HTTP/1.1 400 Bad\r\n" + line + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert body_of(hears(s.ask(), chunked + s.chunk(body[:9]), s.chunk(body[9:]) + s.LAST)) == body


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"compress", b"whatever"),
        (b"gzip", b"not gzip at all"),
        (b"gzip", gzip.compress(ECHO)[:-8] + b"\0" * 8),
        (b"gzip", gzip.compress(b"{}") + ECHO),
        (b"gzip, x-unknown", gzip.compress(b"{}")),
        (b"gzip", gzip.compress(ECHO) + b"\0" * MOST),
    ],
)
def test_what_cannot_be_read_is_not_sent_on(coding: bytes, body: bytes) -> None:
    answer = s.unary(body, b"429 Slow", b"Content-Encoding: " + coding, b"Content-Type: a/b", b"Retry-After: 7")
    heard = hears(s.ask(), answer)
    assert heard.startswith(b"HTTP/1.1 429 Slow\r\n")
    assert b"Retry-After: 7\r\n" in heard and b"content-type: application/json\r\n" in heard
    assert b"ncoding" not in heard.partition(b"\r\n\r\n")[0] and b"a/b" not in heard
    assert b"in a coding that this proxy cannot read" in body_of(heard)


def test_a_provider_without_a_credential_has_nothing_to_repeat() -> None:
    with Stage(providers=(replace(s.openai_provider(), credential=None),)) as on:
        client = on.client()
        client.says(s.ask())
        on.upstream().says(s.unary(b"zzz", b"400 Bad", b"Content-Encoding: odd"))
        assert client.heard() == s.passed_on(b"zzz", b"400 Bad", b"Content-Encoding: odd")


# -- receipts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "req-", "x" * 110, "x" * 119])
def test_a_receipt_hides_what_a_provider_calls_a_request(before: str) -> None:
    with stage() as on:
        client = on.client()
        client.says(s.ask())
        on.upstream().says(s.unary(s.DOCUMENT, b"200 OK", f"X-Request-Id: {before}{KEY}".encode()))
        client.heard()
        found = on.receipt().provider_request_id
        assert found == (before + "*" * len(KEY))[:128]


def test_a_receipt_hides_what_a_provider_calls_its_model() -> None:
    document = b'{"id":"x","model":"%b","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}' % KEY.encode()
    with stage() as on:
        client = on.client()
        client.says(s.ask())
        on.upstream().says(s.unary(document))
        client.heard()
        assert on.receipt().model_served == "*" * len(KEY)


def test_all_of_a_providers_words_on_a_receipt_are_scrubbed() -> None:
    receipt = Receipt("id", 0.0, "c", "POST", "/p", detail=f"a {KEY} b", provider_request_id=KEY, model_served=KEY)
    receipt.usage = Usage(billed=(Billed(KEY, 1, 2), Billed(None, 3, 4)))
    scrub(receipt, Mask([Secret(KEY)]))
    assert KEY not in repr(receipt)
    assert receipt.usage.billed == (Billed("*" * len(KEY), 1, 2), Billed(None, 3, 4))
    part = Receipt("id", 0.0, "c", "POST", "/p", usage=Usage(billed=(Billed(KEY, 1, 2),)))
    scrub(part, Mask([Secret(KEY)]))
    assert KEY not in repr(part)
    plain = Receipt("id", 0.0, "c", "POST", "/p", detail="sk-proj-else", provider_request_id=None, model_served="m")
    before = repr(plain)
    scrub(plain, Mask([Secret(KEY)]))
    assert repr(plain) == before


# -- several attempts -------------------------------------------------------------------------------------------------

OTHER = "sk-other-fedcba9876543210"
# An error that no other target is asked for.
BAD = b'{"error":{"message":"bad: %b","type":"invalid_request_error"}}'


def served(model: str) -> bytes:
    text = '{"id":"x","model":"%s","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
    return (text % model).encode()


def two(first: str = KEY, second: str = OTHER, **more: object) -> Stage:
    """One alias for two providers, each with a credential of its own."""
    providers = (provider("a", credential=Secret(first)), provider("b", credential=Secret(second)))
    return Stage(models="m = a/one | b/two", retries=2, providers=providers, **more)  # type: ignore[arg-type]


def asked(on: Stage, *lines: bytes, stream: bool = False) -> s.Peer:
    client = on.client()
    more = b',"stream":true' if stream else b""
    client.says(s.ask(*lines, body=b'{"model":"m"%b,"messages":[]}' % more))
    return client


def test_the_words_of_each_attempt_are_hidden_too() -> None:
    attempt = Attempt("a", "one", 0.0, 1.0, False, 200, None)
    receipt = Receipt("id", 0.0, "c", "POST", "/p", provider="b", model_served=f"m {OTHER}")
    receipt.attempts = [
        attempt._replace(model_served=f"m {KEY}", usage=Usage(billed=(Billed(KEY, 1, 2),))),
        attempt._replace(model_served="plain", usage=Usage(input=3)),
        attempt,
    ]
    scrub(receipt, Mask([Secret(KEY), Secret(OTHER)]))
    assert KEY not in repr(receipt) and OTHER not in repr(receipt)
    assert [each.model_served for each in receipt.attempts] == ["m " + "*" * len(KEY), "plain", None]
    assert receipt.attempts[0].usage is not None
    assert receipt.attempts[0].usage.billed == (Billed("*" * len(KEY), 1, 2),)
    assert receipt.attempts[2] is attempt


def test_each_providers_credential_is_hidden_wherever_a_receipt_shows_it() -> None:
    """Also that of a provider whose answer nobody got, in the words of another one."""
    begun = b'data: {"id":"c","model":"%b","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n' % KEY.encode()
    with two() as on:
        client = asked(on, stream=True)
        on.upstream().says(s.STREAM_HEAD + s.chunk(begun))
        on.upstream().resets()
        on.upstream().says(s.unary(served(f"{KEY} {OTHER}"), b"200 OK", f"X-Request-Id: {KEY} {OTHER}".encode()))
        client.heard()
        receipt = on.receipt()
        assert [each.provider for each in receipt.attempts] == ["a", "b"]
        stars = "*" * len(KEY) + " " + "*" * len(OTHER)
        assert (receipt.provider_request_id, receipt.model_served) == (stars, stars)
        assert [each.model_served for each in receipt.attempts] == ["*" * len(KEY), stars]


def test_an_error_that_goes_out_last_hides_the_credential_of_its_own_provider() -> None:
    with two() as on:
        client = asked(on)
        on.upstream().says(s.unary(ECHO, BUSY))
        assert client.heard() == b""
        on.upstream().says(s.unary(BAD % OTHER.encode(), b"400 Bad Request"))
        assert client.heard() == s.passed_on(BAD % (b"*" * len(OTHER)), b"400 Bad Request")
        on.receipt()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_held_error_is_masked_before_it_waits(size: int) -> None:
    """What it says for the sake of a decision is looked at as it came, and never sent."""
    with two() as on:
        client = asked(on)
        upstream = on.upstream()
        upstream.says_each(s.unary(BAD % KEY.encode(), b"400 Bad Request"), size)
        assert client.heard() == s.passed_on(BAD % STARS, b"400 Bad Request")
        on.receipt()


def test_a_held_event_that_tells_an_error_is_masked_when_it_goes_through() -> None:
    event = b'data: {"error":{"message":"%b","code":"content_filter"}}\n\n'
    with two() as on:
        client = asked(on, stream=True)
        on.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE))
        on.upstream().says(s.chunk(event % KEY.encode()) + s.LAST)
        assert body_of(client.heard()) == s.ROLE + event % STARS
        assert len(on.dialed) == 1
        on.receipt()


def test_a_held_error_that_comes_compressed_is_looked_into_and_masked() -> None:
    with two() as on:
        client = asked(on)
        packed = gzip.compress(BAD % KEY.encode())
        on.upstream().says(s.unary(packed, b"400 Bad Request", b"Content-Encoding: gzip"))
        assert client.heard() == s.passed_on(BAD % STARS, b"400 Bad Request")
        on.receipt()


@pytest.mark.parametrize("number", [0, 1])
def test_all_credentials_of_a_provider_are_hidden_whichever_was_sent(number: int) -> None:
    given = provider("a", credential=Secret(KEY), further=(Secret(OTHER),))
    body = b"%b and %b" % (KEY.encode(), OTHER.encode())
    with Stage(models="m = a/one", providers=(given,)) as on:
        for _ in range(number + 1):
            client = asked(on)
            on.upstream().says(s.unary(body, b"400 Bad Request"))
            heard = client.heard()
        assert heard.endswith(b"\r\n\r\n" + STARS + b" and " + b"*" * len(OTHER))
        assert len(on.receipts) == number + 1


def test_in_passthrough_mode_the_clients_credential_is_hidden_in_every_attempt() -> None:
    with two(mode=AuthMode.PASSTHROUGH) as on:
        client = asked(on, b"Authorization: Bearer sk-theirs-0123456789")
        on.upstream().says(s.unary(b"{}", BUSY, b"retry-after: 2"))
        on.advance(2.1)
        on.upstream().says(s.unary(served("sk-theirs-0123456789")))
        assert b"sk-theirs" in client.heard()
        receipt = on.receipt()
        assert [each.model_served for each in receipt.attempts] == [None, "*" * 20]
        assert "theirs" not in repr(receipt)
