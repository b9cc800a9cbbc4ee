"""What a request asks for is read rightly, and text is cut into the deltas asked for."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.simulator.faults import FaultError, Faults, parse
from proxy.simulator.speech import LARGE, TEXT, Ask, Part, Request, answer, pieces, read_ask, voice_of
from proxy.simulator.voices import Kind, Report

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
    kinds = [part.kind for part in _spoken("events=3", 1, path)]
    assert kinds.count(Kind.DELTA) == 3
    assert kinds == sorted(kinds, key=list(Kind).index)
    assert kinds[-1] is Kind.DONE


ORDER = "input=1000 output=50 cached=300 cache-write=200 reasoning=20"
ASKED = b'{"stream":true,"stream_options":{"include_usage":true}}'
FIGURES: dict[str, tuple[dict[str, Any], Report]] = {
    "/v1/chat/completions": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 200, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0},
        },
        Report(1000, 50, 300, 200, 20),
    ),
    "/v1/responses": (
        {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 200},
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 20},
            "total_tokens": 1050,
        },
        Report(1000, 50, 300, 200, 20),
    ),
    "/v1/messages": (
        {
            "input_tokens": 500,
            "cache_read_input_tokens": 300,
            "cache_creation_input_tokens": 200,
            "output_tokens": 50,
            "output_tokens_details": {"thinking_tokens": 20},
            "service_tier": "standard",
        },
        Report(1000, 50, 300, 200, 20),
    ),
    "/v1/models/m:{}generateContent?alt=sse": (
        {
            "promptTokenCount": 1000,
            "candidatesTokenCount": 30,
            "totalTokenCount": 1050,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}],
            "cachedContentTokenCount": 300,
            "thoughtsTokenCount": 20,
        },
        Report(1000, 50, 300, None, 20),
    ),
    "/api/chat": ({"prompt_eval_count": 1000, "eval_count": 50}, Report(1000, 50)),
}
FIGURES["/v1/completions"] = FIGURES["/v1/chat/completions"]


def _usage_in(value: dict[str, Any]) -> dict[str, Any]:
    """The usage of an answer, or of the event that holds it."""
    for inner in ("response", "message"):
        if "usage" in value.get(inner, {}):
            return value[inner]["usage"]
    if "eval_count" in value:
        return {name: value[name] for name in ("prompt_eval_count", "eval_count")}
    return value.get("usage") or value.get("usageMetadata") or {}


@pytest.mark.parametrize("path", FIGURES)
def test_ordered_figures_are_reported_as_the_dialect_does(path: str) -> None:
    usage, report = FIGURES[path]
    for stream in (True, False):
        body = ASKED if stream else b'{"stream":false}'
        verb = "streamG" if stream else "g"
        parts = _spoken(ORDER, 1, path.replace("{}g", verb), body)
        assert [part.report for part in parts if part.report][-1] == report
        if stream:
            [last] = [part.data for part in parts if part.report and part.report.is_final]
            value = orjson.loads(last[last.index(b"{") :])
        else:
            value = orjson.loads(b"".join(part.data for part in parts))
        assert _usage_in(value) == usage


@pytest.mark.parametrize("path", FIGURES)
def test_by_itself_a_report_tells_what_was_counted(path: str) -> None:
    path = path.replace("{}g", "streamG")
    parts = _spoken("events=5 think=2", 1, path, ASKED, size=400)
    report = [part.report for part in parts if part.report][-1]
    thoughts = 2 if path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat") else 0
    thoughts = 2 if "streamG" in path else thoughts
    assert (report.input, report.output, report.cached, report.cache_write) == (100, 5 + thoughts, None, None)
    assert report.reasoning == (None if path == "/api/chat" else thoughts or None)


def test_thoughts_are_never_more_than_the_output() -> None:
    for body in (ASKED, b'{"stream":false}'):
        parts = _spoken("think=5 output=3", 1, "/v1/chat/completions", body, size=400)
        assert [part.report for part in parts if part.report] == [Report(100, 3, None, None, 3)]


def test_parts_come_on_top_of_what_was_counted() -> None:
    parts = _spoken("cached=30 cache-write=20 reasoning=7 events=5", 1, "/v1/messages", size=400)
    assert parts[0].report == Report(150, 1, 30, 20, None, is_final=False)
    assert parts[-2].report == Report(150, 12, 30, 20, 7)


@pytest.mark.parametrize("spec", ["input=9 cached=5 cache-write=5", "output=1 reasoning=2"])
def test_a_part_that_is_more_than_its_whole_is_refused(spec: str) -> None:
    with pytest.raises(FaultError, match=r"a part|are parts"):
        _spoken(spec, 1)
    with pytest.raises(FaultError) as caught:
        _spoken("input=0 cached output=0 reasoning", 1)
    assert len(caught.value.problems) == 2


def test_running_reports_are_not_final() -> None:
    reports = [part.report for part in _spoken("events=3 output=99", 1, "/v1/models/m:streamGenerateContent?alt=sse")]
    assert [(r.output, r.is_final) for r in reports if r] == [(1, False), (2, False), (3, False), (99, True)]
    reports = [part.report for part in _spoken("events=3", 1, "/v1/models/m:streamGenerateContent")]
    assert [r and r.is_final for r in reports] == [False, False, False, True, None]  # then the bracket
    reports = [part.report for part in _spoken("events=3 output=99", 1, "/v1/messages")]
    assert [(r.output, r.is_final) for r in reports if r] == [(1, False), (99, True)]


@pytest.mark.parametrize("path", FIGURES)
def test_a_server_that_never_reports(path: str) -> None:
    for stream in ("streamG", "g"):
        body = ASKED if stream == "streamG" else b'{"stream":false}'
        parts = _spoken("usage=never", 1, path.replace("{}g", stream), body)
        said = b"".join(part.data for part in parts)
        assert [part.report for part in parts if part.report] == []
        assert b"_count" not in said
        assert b"usage" not in said.replace(b'"usage":null', b"").lower()


def test_usage_is_streamed_when_it_is_asked_for_or_ordered() -> None:
    def reports(spec: str, body: bytes) -> int:
        return sum(part.report is not None for part in _spoken(spec, 1, "/v1/chat/completions", body))

    assert reports("", b'{"stream":true}') == 0
    assert reports("", b'{"stream":true,"stream_options":{"include_usage":false}}') == 0
    assert reports("", ASKED) == 1
    assert reports("usage", b'{"stream":true}') == 1


def test_a_text_that_looks_like_a_report_is_none() -> None:
    text = '{"usage":{"x":1},"usageMetadata":{},"eval_count":1}'
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat", "/api/generate"):
        voice = voice_of(read_ask("POST", path, b'{"stream":true}'), 1, 1, path)
        assert voice.report_in(voice.delta(text)) is None


def test_embeddings_report_input_only_and_counts_nothing() -> None:
    parts = _spoken("input=40", 1, "/v1/embeddings", b'{"input":"x"}')
    assert [part.report for part in parts] == [None, Report(40, 0)]
    assert orjson.loads(parts[0].data + parts[1].data)["usage"] == {"prompt_tokens": 40, "total_tokens": 40}
    for path in ("/v1/messages/count_tokens", "/v1/models/m:countTokens", "/v1/models/m:embedContent", "/v1/files"):
        assert [part.report for part in _spoken("", 1, path, b"{}")] == [None, None]


def test_a_stream_is_made_lazily() -> None:
    ask = read_ask("POST", "/v1/chat/completions", b'{"stream":true}')
    request = Request("POST", "/v1/chat/completions", [], b"", "", 0)
    parts = answer(ask, request, parse("bytes=1000000000000"), voice_of(ask, 1, 0)).parts
    assert len(list(itertools.islice(parts, 5))) == 5


def _spoken(
    spec: str, serial: int, path: str = "/v1/chat/completions", body: bytes = b'{"stream":true}', size: int = 0
) -> list[Part]:
    ask = read_ask("POST", path, body)
    request = Request("POST", path, [], b"", "", 0)
    return list(answer(ask, request, parse(spec), voice_of(ask, serial, size, path)).parts)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"])
def test_what_was_sent_is_quoted(path: str) -> None:
    ask = read_ask("POST", path, b'{"stream":true}')
    request = Request("POST", path, [(b"X-Api-Key", b'sk-"1'), (b"Host", b"h")], b"", "", 0)
    for spec in ("quote status=400", "quote"):
        voice = voice_of(ask, 1, 4, path)
        given_answer = answer(ask, request, parse(spec), voice)
        assert given_answer.headers[0] == (voice.id_header, 'X-Api-Key: sk-"1; Host: h')
        if "status" in spec:
            body = b"".join(part.data for part in given_answer.parts)
            assert b'X-Api-Key: sk-\\"1; Host: h' in body
        else:
            assert any(b'X-Api-Key: sk-\\"1; Host: h' in voice.said(event) for event in voice.error_events())
    plain = voice_of(ask, 1, 4, path)
    assert all(plain.said(event) == event for event in plain.error_events())
