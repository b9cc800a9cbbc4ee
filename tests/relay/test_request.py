"""The head that goes upstream: what travels, what stays, what is ours."""

from __future__ import annotations

import random
from typing import Any

import pytest

from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider
from proxy.dialects.call import Call
from proxy.outcome import Failure
from proxy.policy.keys import AuthMode, Key, digest_of
from proxy.policy.limits import FOREVER
from proxy.policy.plan import Plan
from proxy.policy.rules import parse_rules
from proxy.relay import request as request_module
from proxy.relay.request import Passage
from tests.relay import stage as s
from tests.relay.stage import Stage
from tests.relay.targets import BUSY, ERROR, asks, provider, stage_of


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


# -- several targets --------------------------------------------------------------------------------------------------


@pytest.fixture
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)


KEY = b"Authorization: Bearer " + b"k" * 16
THREE = "m = a/one, b/two | c/three"


def passage_of(stage: Stage, **fields: object) -> Passage:
    """That of a client whose key, where there is one, is given out for `fields`."""
    client = stage.client()
    lines = []
    if fields:
        stage.admission.ring.put(Key("ci", **fields), {digest_of(b"k" * 16): FOREVER})  # type: ignore[arg-type]
        lines = [KEY]
    client.says(s.ask(*lines, body=b'{"model":"m","messages":[]}'))
    passage = client.protocol.passage
    assert isinstance(passage, Passage)
    return passage


def plan(passage: Passage, model: str, *, names_more: bool = False) -> Plan | Failure:
    nobody: Any = None  # reads the body, unless the alias bounds the cost
    return passage.plan(Call(model, names_more=names_more), nobody, s.EPOCH)


def left(passage: Passage, model: str = "m") -> list[list[str]] | str:
    """Of the plan for `model` the providers in each group; a kind where there is none."""
    found = plan(passage, model)
    if isinstance(found, Failure):
        return found.kind.value
    return [[target.provider.name for target in group] for group in found.groups]


@pytest.mark.parametrize(
    ("fields", "groups"),
    [
        ({"models": ("m",)}, [["a", "b"], ["c"]]),
        ({"models": ("*",)}, [["a", "b"], ["c"]]),
        ({"models": ("one", "three")}, [["a"], ["c"]]),
        ({"models": ("b/*",)}, [["b"]]),
        ({"models": ("c/three",)}, [["c"]]),
        ({"providers": frozenset({"b", "c"})}, [["b"], ["c"]]),
        ({"models": ("m",), "providers": frozenset({"c"})}, [["c"]]),
    ],
)
@pytest.mark.sources
def test_of_an_alias_those_targets_stay_that_the_key_may_use(
    fields: dict[str, object], groups: list[list[str]]
) -> None:
    with stage_of(THREE, mode=AuthMode.KEYS) as stage:
        passage = passage_of(stage, **fields)
        assert left(passage) == groups
        stage.clients[0].resets()


def test_where_a_key_may_use_none_of_them_it_is_refused() -> None:
    with stage_of(THREE, mode=AuthMode.KEYS) as stage:
        stage.admission.ring.put(Key("ci", models=("other",)), {digest_of(b"k" * 16): FOREVER})
        client = stage.client()
        client.says(s.ask(KEY, body=b'{"model":"m","messages":[]}'))
        answer = client.heard()
        assert (s.status_of(answer), stage.dialed) == (403, [])
        assert b'"code":"model_forbidden"' in answer
        assert stage.receipt().ended_kind == "model_forbidden"


def test_a_target_that_a_key_may_not_use_is_not_fallen_back_to() -> None:
    with stage_of("m = a/one | b/two", retries=1, mode=AuthMode.KEYS) as stage:
        passage_of(stage, providers=frozenset({"a"}))
        client = stage.clients[0]
        stage.upstream().says(s.unary(ERROR, BUSY))
        stage.advance(1.0)
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert s.status_of(client.heard()) == 503
        assert [each.provider for each in stage.receipt().attempts] == ["a", "a"]


@pytest.mark.sources
def test_in_passthrough_mode_an_alias_is_its_first_provider_in_any_group() -> None:
    with stage_of("m = a/one, b/two | a/three", mode=AuthMode.PASSTHROUGH) as stage:
        assert left(passage_of(stage)) == [["a"], ["a"]]
        stage.clients[0].resets()


@pytest.mark.sources
def test_a_plan_stands_until_the_model_or_what_is_allowed_changes() -> None:
    with stage_of(THREE, mode=AuthMode.KEYS, keys={"ci": "k" * 16}) as stage:
        passage = passage_of(stage, models=("m", "gpt-5", "one"))
        first = plan(passage, "m")
        assert plan(passage, "m") is first
        assert plan(passage, "m", names_more=True) is not first
        assert left(passage, "gpt-5") == [["a"]]
        assert left(passage) == [["a", "b"], ["c"]]
        second = plan(passage, "m")
        stage.admission.limiter.set_rules("model m", parse_rules("rpm=5"))
        third = plan(passage, "m")
        assert third is not second
        assert passage.chain is not None
        assert passage.chain.scopes == {"model m"}
        stage.admission.ring.remove("ci")
        assert left(passage) == "unauthorized"
        stage.clients[0].resets()


@pytest.mark.sources
def test_an_alias_bears_the_limits_of_its_own_name() -> None:
    rules = {"model m": "rpm=5", "model one": "rpm=5", "provider a": "rpm=5", "all": "rpm=5"}
    with stage_of(THREE, rules=rules) as stage:
        passage = passage_of(stage)
        assert passage.chain is not None
        assert passage.chain.scopes == {"model m", "all"}
        assert left(passage, "a/one") == [["a"]]
        assert passage.chain.scopes == {"model one", "provider a", "all"}
        stage.clients[0].resets()


def test_each_target_has_lines_of_its_own_and_the_body_with_its_name() -> None:
    more = provider("b", auth="x-api-key", credential=Secret("sk-of-b"), headers=((b"x-team", Secret("t")),))
    with Stage(models="m = a/one | b/two", retries=1, providers=(provider("a"), more)) as stage:
        client = stage.client()
        client.says(s.ask(b"X-Kept: 1", b"X-Team: theirs", body=b'{"messages":[],"model" : "m"}'))
        lines = b"X-Kept: 1\r\nX-Team: theirs\r\nvia: 1.1 %b\r\n" % s.NAME
        body = b'{"messages":[],"model" : "one"}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a.test\r\nauthorization: Bearer sk-provider\r\n"
        assert stage.upstream().heard() == head + lines + b"content-length: %d\r\n\r\n" % len(body) + body
        stage.upstream().says(s.unary(ERROR, BUSY))
        lines = lines.replace(b"X-Team: theirs\r\n", b"")
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: b.test\r\nx-team: t\r\nx-api-key: sk-of-b\r\n"
        assert stage.upstream().heard() == head + lines + b"content-length: %d\r\n\r\n" % len(body) + body.replace(
            b"one", b"two"
        )
        client.resets()
        stage.receipt()


def test_targets_without_a_credential_have_lines_of_their_own_too() -> None:
    providers = tuple(provider(name, credential=None) for name in "ab")
    with Stage(models="m = a/one | b/two", retries=1, providers=providers) as stage:
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert [upstream.heard().split(b"\r\n")[1] for upstream in stage.upstreams] == [
            b"host: a.test",
            b"host: b.test",
        ]
        client.resets()
        stage.receipt()


def test_two_models_of_one_provider_have_lines_of_their_own_where_the_path_names_them() -> None:
    google = provider("a", family="gemini", base=b"", auth="x-goog-api-key")
    with Stage(models="m = a/one | a/two", retries=1, providers=(google,)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1beta/models/m:generateContent", b'{"contents":[]}'))
        upstream = stage.upstream()
        assert upstream.heard().startswith(b"POST /v1beta/models/one:generateContent HTTP/1.1\r\n")
        upstream.says(s.unary(ERROR, BUSY))
        assert upstream.heard().startswith(b"POST /v1beta/models/two:generateContent HTTP/1.1\r\n")
        client.resets()
        assert [each.model for each in stage.receipt().attempts] == ["one", "two"]


@pytest.mark.sources
def test_lines_are_made_once_for_a_target_and_a_credential(monkeypatch: pytest.MonkeyPatch, no_chance: None) -> None:
    made: list[str] = []
    plain = request_module.upstream_lines

    def counted(*arguments: object) -> bytes:
        target, credential = arguments[1], arguments[5]
        assert isinstance(credential, Secret)
        made.append(f"{target.provider.name} {credential.reveal()}")  # type: ignore[attr-defined]
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(request_module, "upstream_lines", counted)
    two = provider("a", credential=Secret("sk-1"), further=(Secret("sk-2"),))
    with Stage(models="m = a/one", retries=1, providers=(two, provider("b"))) as stage:
        client = stage.client()
        for model in (b"m", b"m", b"b/x", b"b/x", b"b/x"):
            client.says(s.ask(body=b'{"model":"%b","messages":[]}' % model))
            stage.upstream().says(s.unary())
            assert client.heard() == s.passed_on()
        assert made == ["a sk-1", "a sk-2", "b sk-provider"]
        heard = [upstream.heard() for upstream in stage.upstreams]
        assert [each.count(b"Bearer sk-1\r\n") for each in heard] == [1, 0]
        assert [each.count(b"Bearer sk-2\r\n") for each in heard] == [1, 0]
        assert len(stage.receipts) == 5


def test_a_stream_and_a_document_have_lines_of_their_own_for_the_same_target() -> None:
    with stage_of("m = a/one") as stage:
        client = stage.client()
        client.says(s.ask(body=b'{"model":"m","messages":[]}'))
        assert b"accept-encoding" not in stage.upstream().heard()
        stage.upstream().says(s.unary())
        client.says(s.ask(body=b'{"model":"m","stream":true,"messages":[]}'))
        assert b"accept-encoding: identity\r\n" in stage.upstream().heard()
        client.resets()
        assert len(stage.receipts) == 2


def test_what_a_client_is_sticky_by_goes_to_one_target_and_no_further() -> None:
    with stage_of("m = a/one, b/two, c/three") as stage:
        hosts = set()
        for _ in range(5):
            client = stage.client()
            client.says(s.ask(b"X-LLM-Proxy-Sticky: ann", body=b'{"model":"m","messages":[]}'))
            upstream = stage.upstream()
            heard = upstream.heard()
            assert b"ticky" not in heard
            hosts.add(upstream.protocol.origin.host)
            upstream.says(s.unary())
            assert client.heard() == s.passed_on()
        assert len(hosts) == 1
        assert len(stage.receipts) == 5


@pytest.mark.sources
def test_a_credential_that_is_given_is_the_one_that_is_sent() -> None:
    two = provider("a", credential=Secret("sk-first"), further=(Secret("sk-second"),))
    with Stage(providers=(two,)) as stage:
        client = asks(stage, b"gpt-5")
        passage = client.protocol.passage
        head = s.exchange_of(client).head
        found = plan(passage, "gpt-5")
        assert isinstance(found, Plan)
        (target,) = found.targets
        for secret in two.credentials:
            lines = passage.upstream_head(head, target, s.NAME, 0, False, secret)
            assert b"authorization: Bearer " + secret.reveal().encode() + b"\r\n" in lines
        assert b"uthorization" not in passage.upstream_head(head, target, s.NAME, 0, False, None)
        client.resets()
