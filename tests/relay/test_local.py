"""Answers of our own: their bytes in every dialect, for every kind of failure."""

from __future__ import annotations

import orjson
import pytest

from proxy.dialects import DIALECTS
from proxy.outcome import Failure, Kind, Phase, Side, status_of
from proxy.policy.keys import AuthMode, Key, digest_of
from proxy.policy.limits import FOREVER
from proxy.relay.local import error_answer
from tests.policy.heads import head
from tests.relay import stage as s
from tests.relay.stage import Stage


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_failure_has_an_answer_in_every_dialect(kind: Kind, dialect: str) -> None:
    failure = Failure(Side.PROXY, Phase.CONNECT, kind)
    status = status_of(failure)
    answer, size = error_answer(head(), DIALECTS[dialect], failure, status, "id-1", True)
    first, _, body = answer.partition(b"\r\n\r\n")
    lines = first.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    assert b"content-length: %d" % len(body) in lines
    assert b"x-llm-proxy-error: " + kind.value.encode() in lines
    assert b"x-llm-proxy-request-id: id-1" in lines
    assert (b"retry-after: 1" in lines) is (status in (429, 503))
    assert (b"www-authenticate: Bearer" in lines) is (status == 401)
    assert size == len(body)
    assert isinstance(orjson.loads(body), dict)


def test_an_answer_to_head_has_no_body_but_its_length() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"HEAD", b"/nowhere"))
        answer = client.heard()
        assert answer.endswith(b"\r\n\r\n")
        assert answer.count(b"\r\n\r\n") == 1
        assert b"content-length: 0" not in answer
        assert s.status_of(answer) == 404
        assert stage.receipt().bytes_out == 0
        client.says(s.get())
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


def test_405_says_what_is_allowed() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"PUT", s.CHAT, b"{}"))
        answer = client.heard()
        assert s.status_of(answer) == 405
        assert b"\r\nallow: POST, GET\r\n" in answer


@pytest.mark.parametrize(
    ("version", "lines", "end"),
    [
        (b"1.1", [], b""),
        (b"1.1", [b"Connection: close"], b"connection: close\r\n"),
        (b"1.0", [b"Connection: keep-alive"], b"connection: keep-alive\r\n"),
        (b"1.0", [], b"connection: close\r\n"),
    ],
)
@pytest.mark.parametrize("target", [b"*", b"/v1/models"])
def test_options_that_end_here(target: bytes, version: bytes, lines: list[bytes], end: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"OPTIONS", target, None, b"Max-Forwards: 0", *lines, version=version))
        allowed = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
        assert client.heard() == b"HTTP/1.1 204 No Content\r\n" + allowed + s.DATE + s.VIA + end + b"\r\n"
        assert client.is_gone is (end == b"connection: close\r\n")
        receipt = stage.receipt()
        assert (receipt.status, receipt.complete, receipt.attempts) == (204, True, [])


def test_options_with_hops_left_travels() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"OPTIONS", b"/v1/files"))
        assert stage.upstream().heard().startswith(b"OPTIONS /v1/files HTTP/1.1\r\n")


def test_options_is_not_answered_to_strangers() -> None:
    with Stage(mode=AuthMode.KEYS, keys={"ann": "k"}) as stage:
        client = stage.client()
        client.says(s.request(b"OPTIONS", b"*"))
        assert s.status_of(client.heard()) == 401


# -- lists of models --------------------------------------------------------------------------------------------------

ALIASES = "fast = openai/gpt-4o | anthropic/claude-x; team/big = openai/gpt-5"
BEARER = b"Authorization: Bearer " + b"k" * 16
VERSION = b"anthropic-version: 2023-06-01"


def listing(*, models: tuple[str, ...] | None = None, aliases: str = ALIASES) -> Stage:
    """A stage with a key that was given out for `models`."""
    stage = Stage(models=aliases, mode=AuthMode.KEYS, keys={"ci": "k" * 16})
    stage.admission.ring.put(Key("ci", models=models), {digest_of(b"k" * 16): FOREVER})
    return stage


def body_of(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
    assert b"content-length: %d\r\n" % len(body) in head
    found = orjson.loads(body)
    assert isinstance(found, dict)
    return found


def test_the_list_in_openais_form() -> None:
    with listing() as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models", BEARER))
        created = stage.relay.started
        assert body_of(client.heard()) == {
            "object": "list",
            "data": [
                {"id": "fast", "object": "model", "created": created, "owned_by": "llm-proxy"},
                {"id": "team/big", "object": "model", "created": created, "owned_by": "openai"},
            ],
        }
        receipt = stage.receipt()
        assert (receipt.status, receipt.letters, receipt.dialect) == (200, "--", "openai-chat")
        assert (receipt.key, receipt.provider, receipt.attempts) == ("ci", None, [])
        assert receipt.bytes_out > 0
        assert stage.dialed == []


def test_the_list_in_anthropics_form_has_pages() -> None:
    with listing() as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models?limit=1", BEARER, VERSION))
        page = body_of(client.heard())
        assert (page["first_id"], page["last_id"], page["has_more"]) == ("fast", "fast", True)
        client.says(s.get(b"/v1/models?limit=1&after_id=fast", BEARER, VERSION))
        page = body_of(client.heard())
        assert (page["first_id"], page["has_more"]) == ("team/big", False)
        assert [receipt.dialect for receipt in stage.receipts] == ["anthropic-messages"] * 2


@pytest.mark.parametrize("path", [b"/v1/models/fast", b"/v1/models/team/big", b"/v1/models/team%2Fbig"])
def test_one_model_in_both_forms(path: bytes) -> None:
    name = "fast" if path.endswith(b"fast") else "team/big"
    with listing() as stage:
        client = stage.client()
        client.says(s.get(path, BEARER))
        found = body_of(client.heard())
        assert (found["id"], found["object"]) == (name, "model")
        client.says(s.get(path, BEARER, VERSION))
        found = body_of(client.heard())
        assert (found["id"], found["type"], found["created_at"]) == (name, "model", stage.relay.started_at)
        assert len(stage.receipts) == 2


def test_head_of_a_list_has_its_length_and_no_body() -> None:
    with listing() as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models", BEARER))
        whole = client.heard()
        client.says(s.request(b"HEAD", b"/v1/models", None, BEARER))
        assert client.heard() == whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        assert [receipt.bytes_out > 0 for receipt in stage.receipts] == [True, False]
        client.says(s.get(b"/v1/models", BEARER))
        assert client.heard() == whole, "the connection goes on"


@pytest.mark.parametrize(
    ("version", "lines", "end"),
    [
        (b"1.1", [b"Connection: close"], b"connection: close\r\n\r\n"),
        (b"1.0", [], b"connection: close\r\n\r\n"),
        (b"1.0", [b"Connection: keep-alive"], b"connection: keep-alive\r\n\r\n"),
    ],
)
def test_a_list_ends_the_connection_as_it_was_asked_to(version: bytes, lines: list[bytes], end: bytes) -> None:
    with listing() as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models", BEARER, *lines, version=version))
        assert client.heard().partition(b"{")[0].endswith(end)
        assert client.is_gone is (b"close" in end)
        stage.receipt()


def test_a_key_sees_what_it_was_given_out_for() -> None:
    with listing(models=("fast", "gpt-5", "o3*")) as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models", BEARER))
        data = body_of(client.heard())["data"]
        assert isinstance(data, list)
        # The pattern for gpt-5 means the alias whose only target it is, too.
        assert [each["id"] for each in data] == ["fast", "team/big", "gpt-5"]


@pytest.mark.parametrize("name", [b"gpt-4o-mini", b"nothing", b"fast/x", b"FAST"])
def test_what_a_key_may_not_use_is_not_there(name: bytes) -> None:
    with listing(models=("fast",)) as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models/" + name, BEARER))
        answer = client.heard()
        assert s.status_of(answer) == 404
        assert b"x-llm-proxy-error: model_not_found\r\n" in answer
        assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "model_not_found"
        assert stage.dialed == []
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.letters, receipt.key) == ("model_not_found", "CA", "ci")


def test_what_is_no_alias_is_for_the_provider_to_know() -> None:
    with listing() as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models/gpt-4o-mini", BEARER))
        assert stage.upstream().heard().startswith(b"GET /v1/models/gpt-4o-mini HTTP/1.1\r\nhost: openai.test\r\n")
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        client.says(s.get(b"/v1/models/claude-x", BEARER, VERSION))
        assert stage.upstream().heard().startswith(b"GET /v1/models/claude-x HTTP/1.1\r\nhost: anthropic.test\r\n")
        client.resets()
        assert len(stage.receipts) == 2


@pytest.mark.parametrize("lines", [(), (VERSION,)])
def test_without_aliases_all_of_it_is_the_providers(lines: tuple[bytes, ...]) -> None:
    with listing(aliases="") as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models", BEARER, *lines))
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        stage.receipt()


@pytest.mark.parametrize(
    "asked",
    [
        s.request(b"POST", b"/v1/models", b"{}", BEARER),
        s.request(b"DELETE", b"/v1/models/fast", None, BEARER),
        s.get(b"/openai/v1/models", BEARER),
    ],
)
def test_what_is_no_question_for_models_goes_on(asked: bytes) -> None:
    with listing() as stage:
        client = stage.client()
        client.says(asked)
        assert len(stage.dialed) == 1
        client.resets()
        stage.receipt()


def test_a_list_needs_a_key_like_anything_else() -> None:
    with listing() as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models"))
        assert s.status_of(client.heard()) == 401
        stage.receipt()


def test_a_list_that_was_asked_for_on_a_kept_connection_is_made_anew() -> None:
    """What it says may have changed."""
    with listing() as stage:
        client = stage.client()
        client.says(s.get(b"/v1/models", BEARER))
        before = client.heard()
        stage.admission.ring.put(Key("ci", models=("team/big",)), {digest_of(b"k" * 16): FOREVER})
        client.says(s.get(b"/v1/models", BEARER))
        after = client.heard()
        assert b"fast" in before
        assert b"fast" not in after and b"team/big" in after
