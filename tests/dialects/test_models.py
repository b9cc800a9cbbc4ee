"""Lists of models, as the vendors' own clients read them."""

from __future__ import annotations

from itertools import chain
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.models import Model, anthropic_list, anthropic_one, openai_list, openai_one

CREATED = 1_769_860_800
CREATED_AT = "2026-01-31T12:00:00Z"
MODELS: list[Model] = [("fast", "llm-proxy"), ("openai/gpt-4o", "openai"), ('größe: "x"', "vllm")]


def many(size: int) -> list[Model]:
    return [(f"m{number}", "p") for number in range(size)]


def client_of(sdk: Any, kind: str, answer: Any) -> Any:
    """The vendor's client, whose requests `answer` gets as raw path and query."""
    base = next(each for each in sdk.DefaultHttpxClient.__mro__ if each.__name__ == "Client")
    library = __import__(base.__module__.partition(".")[0])

    def respond(request: Any) -> Any:
        path, _, query = request.url.raw_path.partition(b"?")
        return library.Response(200, headers={"content-type": "application/json"}, content=answer(path, query))

    web = sdk.DefaultHttpxClient(transport=library.MockTransport(respond))
    return getattr(sdk, kind)(api_key="k", base_url="http://unused", max_retries=0, http_client=web)


def ids(page: bytes) -> list[str]:
    return [each["id"] for each in orjson.loads(page)["data"]]


def test_openai_bodies_are_exactly_these() -> None:
    assert openai_list(MODELS[:1], CREATED) == (
        b'{"object":"list","data":[{"id":"fast","object":"model","created":1769860800,"owned_by":"llm-proxy"}]}'
    )
    assert openai_one(MODELS[1], CREATED) == (
        b'{"id":"openai/gpt-4o","object":"model","created":1769860800,"owned_by":"openai"}'
    )
    assert openai_list([], CREATED) == b'{"object":"list","data":[]}'


def test_anthropic_bodies_are_exactly_these() -> None:
    one = b'{"type":"model","id":"fast","display_name":"fast","created_at":"2026-01-31T12:00:00Z","lifecycle":"active"}'
    assert anthropic_one(MODELS[0], CREATED_AT) == one
    assert anthropic_list(MODELS[:1], CREATED_AT, b"") == (
        b'{"data":[' + one + b'],"has_more":false,"first_id":"fast","last_id":"fast"}'
    )
    empty = b'{"data":[],"has_more":false,"first_id":null,"last_id":null}'
    assert anthropic_list([], CREATED_AT, b"") == empty


def test_the_openai_client_lists_and_retrieves() -> None:
    openai = pytest.importorskip("openai", reason="the openai SDK is not installed")
    paths: list[bytes] = []

    def answer(path: bytes, query: bytes) -> bytes:
        paths.append(path)
        return openai_list(MODELS, CREATED) if path == b"/models" else openai_one(MODELS[1], CREATED)

    client = client_of(openai, "OpenAI", answer)
    assert [(each.id, each.owned_by) for each in client.models.list()] == MODELS
    found = client.models.retrieve("openai/gpt-4o")
    assert (found.id, found.owned_by, found.created, found.object) == ("openai/gpt-4o", "openai", CREATED, "model")
    assert paths == [b"/models", b"/models/openai%2Fgpt-4o"]


def test_openai_s_own_class_finds_nothing_wrong() -> None:
    openai = pytest.importorskip("openai", reason="the openai SDK is not installed")
    for model in MODELS:  # strictly: the client itself takes whatever comes
        found = openai.types.Model.model_validate_json(openai_one(model, CREATED), strict=True)
        assert found.model_extra == {}


def test_the_anthropic_client_reads_all_pages() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    queries: list[bytes] = []

    def answer(path: bytes, query: bytes) -> bytes:
        assert path == b"/v1/models"
        queries.append(query)
        return anthropic_list(many(45), CREATED_AT, query)

    client = client_of(anthropic, "Anthropic", answer)
    assert [each.id for each in client.models.list()] == [name for name, _ in many(45)]
    assert queries == [b"", b"after_id=m19", b"after_id=m39"]
    assert [each.id for each in client.models.list(limit=1000)] == [name for name, _ in many(45)]
    assert len(queries) == 4


def test_the_anthropic_client_asks_for_one_stage_of_a_life() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    client = client_of(anthropic, "Anthropic", lambda path, query: anthropic_list(MODELS, CREATED_AT, query))
    assert len(client.models.list(lifecycle=["active", "retired"]).data) == 3
    assert client.models.list(lifecycle=["deprecated", "retired"]).data == []


def test_the_anthropic_client_retrieves() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    client = client_of(anthropic, "Anthropic", lambda path, query: anthropic_one(MODELS[2], CREATED_AT))
    found = client.models.retrieve("x")
    assert (found.id, found.display_name, found.type) == (MODELS[2][0], MODELS[2][0], "model")
    assert found.created_at.timestamp() == CREATED


def test_anthropic_s_own_class_finds_nothing_wrong() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    for model in MODELS:
        anthropic.types.ModelInfo.model_validate_json(anthropic_one(model, CREATED_AT), strict=True)


@pytest.mark.parametrize(
    ("query", "expected", "has_more"),
    [
        (b"limit=2", ["m0", "m1"], True),
        (b"limit=5", ["m0", "m1", "m2", "m3", "m4"], False),
        (b"after_id=m1&limit=2", ["m2", "m3"], True),
        (b"after_id=m2&limit=2", ["m3", "m4"], False),
        (b"after_id=m4", [], False),
        (b"before_id=m4&limit=2", ["m2", "m3"], True),
        (b"before_id=m2&limit=2", ["m0", "m1"], False),
        (b"before_id=m0", [], False),
        (b"after_id=m0&before_id=m4&limit=2", ["m1", "m2"], True),
        (b"after_id=m0&before_id=m3&limit=2", ["m1", "m2"], False),
        (b"after_id=%6d3", ["m4"], False),
        (b"after_id=gone", [], False),
        (b"before_id=gone", [], False),
        (b"limit=0", ["m0"], True),
        (b"lifecycle=retired", [], False),
        (b"lifecycle%5B%5D=active", ["m0", "m1", "m2", "m3", "m4"], False),
    ],
)
def test_a_page(query: bytes, expected: list[str], has_more: bool) -> None:
    page = anthropic_list(many(5), CREATED_AT, query)
    document = orjson.loads(page)
    assert (ids(page), document["has_more"]) == (expected, has_more)
    ends = (expected[0], expected[-1]) if expected else (None, None)
    assert (document["first_id"], document["last_id"]) == ends


@pytest.mark.parametrize(
    ("limit", "size"),
    [(b"", 20), (b"x", 20), (b"-1", 20), (b"%D9%A5", 20), (b"1000", 1000), (b"1001", 1000), (b"9" * 5000, 1000)],
)
def test_a_page_has_at_most_a_thousand(limit: bytes, size: int) -> None:
    assert len(ids(anthropic_list(many(1100), CREATED_AT, b"limit=" + limit))) == size


def walk(models: list[Model], query: bytes, cursor: str, end: str) -> list[list[str]]:
    """All pages from `query` on, as clients follow them."""
    document = orjson.loads(anthropic_list(models, CREATED_AT, query))
    pages = [[each["id"] for each in document["data"]]]
    while document["has_more"]:
        further = f"&{cursor}={document[end]}".encode()
        document = orjson.loads(anthropic_list(models, CREATED_AT, query.partition(b"&")[0] + further))
        pages.append([each["id"] for each in document["data"]])
    return pages


@given(size=st.integers(1, 30), limit=st.integers(1, 12))
def test_pages_add_up_to_the_whole_list(size: int, limit: int) -> None:
    whole = [name for name, _ in many(size)]
    forth = walk(many(size), b"limit=%d" % limit, "after_id", "last_id")
    assert list(chain.from_iterable(forth)) == whole
    back = walk(many(size), b"limit=%d&before_id=%b" % (limit, whole[-1].encode()), "before_id", "first_id")
    assert list(chain.from_iterable(reversed(back))) == whole[:-1]
    assert max(map(len, forth + back)) <= limit


@given(query=st.binary(max_size=60) | st.text("&=%;limitafterbefore_id[]0123456789", max_size=60).map(str.encode))
def test_any_query_has_an_answer(query: bytes) -> None:
    assert isinstance(orjson.loads(anthropic_list(MODELS, CREATED_AT, query))["data"], list)
