"""The head that goes upstream: what travels, what stays, what is ours."""

from __future__ import annotations

import pytest

from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider
from proxy.policy.keys import AuthMode
from tests.relay import stage as s
from tests.relay.stage import Stage


def heard_upstream(whole: bytes, **options: object) -> bytes:
    """What a provider hears of `whole`."""
    with Stage(**options) as stage:  # type: ignore[arg-type]
        client = stage.client()
        client.says(whole)
        assert client.heard() == b""
        return stage.upstream().heard()


def test_what_travels_keeps_order_and_letter_case() -> None:
    lines = [
        b"User-Agent: OpenAI/Python 1.2",
        b"X-Stainless-Retry-Count: 0",
        b"content-TYPE: application/json",
        b"OpenAI-Organization: org",
        b"X-Twice: 1",
        b"x-twice: 2",
        b"Accept: */*",
        b"Idempotency-Key: abc",
        b"Max-Tokens: 1",
        b"X-Empty:",
    ]
    expected = [line if line != b"X-Empty:" else b"X-Empty: " for line in lines]
    assert heard_upstream(s.ask(*lines)) == s.sent_on(s.BODY, *expected)


@pytest.mark.parametrize(
    "line",
    [
        b"Cookie: session=1",
        b"Cookie2: x",
        b"Api-Key: k",
        b"X-Api-Key: k",
        b"x-goog-api-key: k",
        b"Authorization: Bearer k",
        b"Authorization: Basic dTpw",
        b"X-LLM-Proxy-Tags: a",
        b"x-llm-proxy-anything: a",
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic dTpw",
        b"TE: trailers",
        b"Trailer: X-T",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQ",
        b"Max-Forwards: 9",
        b"Expect: 100-continue",
    ],
)
def test_what_stays_here(line: bytes) -> None:
    assert heard_upstream(s.ask(line)) == s.sent_on()


def test_fields_that_connection_names_stay_here() -> None:
    lines = [b"X-Hop: 1", b"Connection: close, X-Hop", b"X-Stays: 2", b"connection: x-other", b"X-Other: 3"]
    assert heard_upstream(s.ask(*lines)) == s.sent_on(s.BODY, b"X-Stays: 2")


def test_an_upgrade_offer_is_taken_out_and_the_body_is_a_body() -> None:
    lines = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"]
    assert heard_upstream(s.ask(*lines)) == s.sent_on()


def test_via_is_a_list_that_grows() -> None:
    heard = heard_upstream(s.ask(b"Via: 1.1 elsewhere"))
    assert heard == s.sent_on(s.BODY, b"Via: 1.1 elsewhere")
    heard = heard_upstream(s.ask(version=b"1.0"))
    assert b"\r\nvia: 1.0 " + s.NAME + b"\r\n" in heard


@pytest.mark.parametrize("value", [b"1.1 " + s.NAME, b"1.1 a, 1.1 " + s.NAME + b", 1.0 b"])
def test_a_request_that_was_here_before(value: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(b"Via: 1.1 other", b"Via: " + value))
        answer = client.heard()
        assert s.status_of(answer) == 508
        assert b"x-llm-proxy-error: loop\r\n" in answer
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind, receipt.status) == ("CA", "loop", 508)
        assert stage.upstreams == []


@pytest.mark.parametrize("vias", [[b"1.1 " + s.NAME], [b"1.1 other", b"1.1 " + s.NAME], [b"1.1 a, 1.1 " + s.NAME]])
@pytest.mark.parametrize("connection", [b"via", b"Via, close", b"close, VIA"])
def test_connection_hides_no_loop(vias: list[bytes], connection: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(b"Connection: " + connection, *(b"Via: " + via for via in vias)))
        assert s.status_of(client.heard()) == 508
        assert stage.receipt().ended_kind == "loop"
        assert stage.upstreams == []


def test_connection_cannot_take_out_where_a_request_has_been() -> None:
    lines = [b"Via: 1.1 elsewhere", b"X-Hop: 1", b"Connection: via, x-hop"]
    assert heard_upstream(s.ask(*lines)) == s.sent_on(s.BODY, b"Via: 1.1 elsewhere")


def test_host_and_target_are_the_providers() -> None:
    whole = s.get(b"http://evil.test/v1/files/x?limit=1&key=secret&after=b")
    heard = heard_upstream(whole)
    assert heard.startswith(b"GET /v1/files/x?limit=1&after=b HTTP/1.1\r\nhost: openai.test\r\n")
    assert b"evil" not in heard
    assert b"secret" not in heard


def test_under_a_providers_own_name() -> None:
    heard = heard_upstream(s.request(b"DELETE", b"/openai/v1/files/abc"))
    assert heard.startswith(b"DELETE /v1/files/abc HTTP/1.1\r\n")
    assert b"content-length" not in heard


@pytest.mark.parametrize(
    ("whole", "framing"),
    [
        (s.get(), b""),
        (s.request(b"POST", b"/v1/files"), b"content-length: 0\r\n"),
        (s.request(b"POST", b"/v1/files", b""), b"content-length: 0\r\n"),
        (s.request(b"DELETE", b"/v1/files/x", b""), b"content-length: 0\r\n"),
        (s.request(b"POST", b"/v1/files", b"abc"), b"content-length: 3\r\n"),
        (s.request(b"POST", b"/v1/files", None, b"Transfer-Encoding: chunked"), b"transfer-encoding: chunked\r\n"),
    ],
)
def test_framing_is_ours(whole: bytes, framing: bytes) -> None:
    head = heard_upstream(whole).partition(b"\r\n\r\n")[0] + b"\r\n"
    assert head.endswith(s.NAME + b"\r\n" + framing)


def test_a_chunked_call_goes_on_under_a_length() -> None:
    whole = s.request(b"POST", s.CHAT, None, b"Transfer-Encoding: chunked") + s.chunk(s.BODY[:9]) + s.chunk(s.BODY[9:])
    assert heard_upstream(whole + s.LAST) == s.sent_on()


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        ("bearer", b"authorization: Bearer sk"),
        ("x-api-key", b"x-api-key: sk"),
        ("api-key", b"api-key: sk"),
        ("x-goog-api-key", b"x-goog-api-key: sk"),
        ("none", None),
    ],
)
def test_how_a_credential_is_carried(auth: str, line: bytes | None) -> None:
    provider = s.openai_provider(auth=auth, credential=Secret("sk"))
    heard = heard_upstream(s.ask(), providers=(provider,))
    assert [each for each in heard.split(b"\r\n") if each.endswith(b"sk")] == ([line] if line else [])


def test_configured_fields_replace_the_clients() -> None:
    provider = s.openai_provider(headers=((b"openai-organization", Secret("ours")), (b"x-more", Secret("1"))))
    heard = heard_upstream(s.ask(b"OpenAI-Organization: theirs", b"X-Kept: 1"), providers=(provider,))
    assert b"openai-organization: ours\r\nx-more: 1\r\n" in heard
    assert b"theirs" not in heard
    assert b"X-Kept: 1\r\n" in heard


# -- passthrough ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"Authorization: Bearer theirs", b"X-Api-Key: theirs", b"api-key: theirs"])
def test_in_passthrough_mode_the_clients_credential_travels(line: bytes) -> None:
    heard = heard_upstream(s.ask(line), mode=AuthMode.PASSTHROUGH)
    assert line + b"\r\n" in heard
    assert b"sk-provider" not in heard


def test_in_passthrough_mode_without_a_credential_none_is_sent() -> None:
    heard = heard_upstream(s.ask(), mode=AuthMode.PASSTHROUGH)
    assert b"sk-provider" not in heard
    assert b"uthorization" not in heard


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_in_passthrough_mode_a_refusal_is_the_clients(status: bytes) -> None:
    with Stage(mode=AuthMode.PASSTHROUGH) as stage:
        client = stage.client()
        client.says(s.ask(b"Authorization: Bearer theirs"))
        stage.upstream().says(s.unary(b"your key is wrong", status))
        assert client.heard() == s.passed_on(b"your key is wrong", status)
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == ("U-", "error_status")
        assert receipt.key is not None
        assert "theirs" not in receipt.key


def test_without_a_credential_of_ours_a_refusal_passes() -> None:
    with Stage(providers=(s.openai_provider(credential=None),)) as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(s.unary(b"who are you", b"401 Unauthorized"))
        assert client.heard() == s.passed_on(b"who are you", b"401 Unauthorized")


# -- through an HTTP proxy --------------------------------------------------------------------------------------------


def proxied(scheme: str) -> Provider:
    origin = Origin(scheme, "openai.test", 80, ("proxy.test", 3128), Secret("Basic dTpw"))
    return s.openai_provider(origin=origin)


def test_plain_http_through_a_proxy_has_an_absolute_target() -> None:
    heard = heard_upstream(s.ask(), providers=(proxied("http"),))
    assert heard.startswith(b"POST http://openai.test/v1/chat/completions HTTP/1.1\r\nhost: openai.test\r\n")
    assert b"\r\nproxy-authorization: Basic dTpw\r\n" in heard


def test_https_through_a_proxy_does_not_tell_the_provider() -> None:
    heard = heard_upstream(s.ask(), providers=(proxied("https"),))
    assert heard.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"proxy-authorization" not in heard
