"""What a request asks for is read rightly, and text is cut into the deltas asked for."""

from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.simulator.faults import Faults, parse
from proxy.simulator.speech import LARGE, TEXT, Ask, Request, answer, pieces, read_ask, voice_of
from proxy.simulator.voices import Kind

TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


@pytest.mark.parametrize(
    ("method", "target", "body", "ask"),
    [
        ("POST", "/v1/chat/completions", {"model": "m"}, Ask("openai-chat", "generate", "m")),
        ("POST", "/openai/v1/chat/completions?x=1", {"stream": True}, Ask("openai-chat", "generate", "", stream=True)),
        ("POST", "/v1/chat/completions", {"stream": "true"}, Ask("openai-chat", "generate", "")),
        ("POST", "/v1/chat/completions", TOOLS, Ask("openai-chat", "generate", "", tool="f")),
        ("POST", "/v1/chat/completions", [1], Ask("openai-chat", "generate", "")),
        ("POST", "/v1/completions", {"model": "m"}, Ask("openai-completions", "generate", "m")),
        ("POST", "/v1/responses", {"tools": [{"name": "f"}]}, Ask("openai-responses", "generate", "", tool="f")),
        ("POST", "/v1/embeddings", {"input": ["a", "b"]}, Ask("openai-embeddings", "embed", "", inputs=2)),
        ("POST", "/v1/embeddings", {"input": [1, 2]}, Ask("openai-embeddings", "embed", "", inputs=1)),
        ("POST", "/v1/messages", {"model": "m"}, Ask("anthropic-messages", "generate", "m")),
        ("POST", "/v1/messages/count_tokens", {"model": "m"}, Ask("anthropic-messages", "count", "m")),
        ("POST", "/api/chat", {"model": "m"}, Ask("ollama", "generate", "m", stream=True)),
        ("POST", "/api/generate", {"stream": False}, Ask("ollama", "generate", "")),
        ("POST", "/v1beta/models/m%3Ax:countTokens", {}, Ask("gemini", "count", "m:x", as_array=True)),
        ("POST", "/v1/models/m:generateContent", {}, Ask("gemini", "generate", "m", as_array=True)),
        ("POST", "/v1/models/m:streamGenerateContent?alt=sse", {}, Ask("gemini", "generate", "m", stream=True)),
        ("GET", "/v1/models", {}, Ask("openai-chat", "models", "")),
        ("GET", "/api/tags", {}, Ask("ollama", "models", "")),
        ("GET", "/v1/chat/completions", {}, Ask("plain", "", "")),
        ("POST", "/v1/files", {}, Ask("plain", "", "")),
    ],
)
def test_what_is_asked(method: str, target: str, body: object, ask: Ask) -> None:
    assert read_ask(method, target, orjson.dumps(body)) == ask


def test_usage_and_base64_are_read() -> None:
    chat = read_ask("POST", "/chat/completions", b'{"stream":true,"stream_options":{"include_usage":true}}')
    assert chat.with_usage
    assert read_ask("POST", "/embeddings", b'{"encoding_format":"base64","dimensions":3}')[-2:] == (True, 3)
    assert read_ask("POST", "/embeddings", b'{"dimensions":9999999}').dimensions == 8


@settings(deadline=None)
@given(st.text(max_size=40), st.binary(max_size=60) | st.none())
def test_nothing_that_is_sent_raises(path: str, body: bytes | None) -> None:
    read_ask("POST", path, body)
    read_ask("POST", "/v1/chat/completions", body)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["tools", "function", "name", "input", "model", "stream_options"]), inner)
        ),
    )
)
def test_any_json_is_read(value: object) -> None:
    try:
        body = orjson.dumps({"tools": value, "input": value, "stream_options": value})
    except TypeError:  # an integer beyond 64 bits
        return
    for path in ("/v1/responses", "/v1/embeddings", "/v1/models/m:generateContent"):
        read_ask("POST", path, body)


def test_text_as_deltas() -> None:
    assert "".join(pieces(Faults())) == TEXT
    assert list(pieces(parse('text="one two three"'))) == ["one ", "two ", "three"]
    assert list(pieces(parse('text="one two three" events=2'))) == ["one ", "two three"]
    assert list(pieces(parse('text="one two" events=3'))) == ["one ", "two", "one "]
    assert list(pieces(parse("events=0"))) == []
    assert [len(piece) for piece in itertools.islice(pieces(parse("bytes=1 huge=5")), 3)] == [LARGE, 5, LARGE]


def test_the_same_request_gets_the_same_answer() -> None:
    assert _spoken("", 1) == _spoken("", 1)
    assert _spoken("", 1) != _spoken("", 2)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"])
def test_opening_deltas_closing_in_this_order(path: str) -> None:
    kinds = [kind for kind, _ in _spoken("events=3", 1, path)]
    assert kinds.count(Kind.DELTA) == 3
    assert kinds == sorted(kinds, key=list(Kind).index)
    assert kinds[-1] is Kind.DONE


def test_a_stream_is_made_lazily() -> None:
    ask = read_ask("POST", "/v1/chat/completions", b'{"stream":true}')
    request = Request("POST", "/v1/chat/completions", [], b"", "", 0)
    parts = answer(ask, request, parse("bytes=1000000000000"), voice_of(ask, 1, 0)).parts
    assert len(list(itertools.islice(parts, 5))) == 5


def _spoken(spec: str, serial: int, path: str = "/v1/chat/completions") -> list[tuple[Kind, bytes]]:
    ask = read_ask("POST", path, b'{"stream":true}')
    request = Request("POST", path, [], b"", "", 0)
    return [tuple(part) for part in answer(ask, request, parse(spec), voice_of(ask, serial, 0, path)).parts]  # type: ignore[misc]
