from __future__ import annotations

import json

import pytest

from proxy.dialects.call import Call, UnreadableBody
from proxy.dialects.gemini import Gemini, GenerateContentWatch, find_model
from proxy.wire.sse import EventFraming
from tests.dialects.contract import STALLED, STATUSES

GEMINI = Gemini()
STREAM = b"/v1beta/models/gemini-x:streamGenerateContent"


def chunk(parts: list[object], **candidate: object) -> bytes:
    return b"data: " + json.dumps({"candidates": [{"content": {"parts": parts}, **candidate}]}).encode() + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "model", "action"),
    [
        (STREAM, "gemini-x", "streamGenerateContent"),
        (b"/v1/models/gemini-x:generateContent", "gemini-x", "generateContent"),
        (b"/v1beta/models/google/gemini-x:countTokens", "google/gemini-x", "countTokens"),
        (b"/v1beta/models/google%2Fgemini-x:embedContent", "google/gemini-x", "embedContent"),
        (b"/v1/projects/p/locations/l/publishers/google/models/g:generateContent", "g", "generateContent"),
        (b"/v1beta/models/gemma:1b:generateContent", "gemma:1b", "generateContent"),
    ],
)
def test_the_path_names_model_and_action(path: bytes, model: str, action: str) -> None:
    found = find_model(path)
    assert found
    assert (found.model, found.action) == (model, action)
    assert path[found.start : found.end].replace(b"%2F", b"/").decode() == model
    assert path[found.end :] == b":" + action.encode()


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/v1beta/models/g%3AstreamGenerateContent", "g"),
        (b"/v1beta/models/g%3astreamGenerateContent", "g"),
        (b"/v1beta/tunedModels/mine:streamGenerateContent", "mine"),
        (b"/v1/projects/p/locations/l/endpoints/7:streamGenerateContent", "7"),
        (b"/v1beta/dynamic/d:streamGenerateContent", None),
    ],
)
def test_a_stream_is_one_wherever_the_model_stands(path: bytes, model: str | None) -> None:
    call = GEMINI.read_call(b"{}", path, b"alt=sse")
    assert call == Call(model, True, None, EventFraming.SSE)


@pytest.mark.parametrize("path", [b"/v1beta/models", b"/v1beta/models/", b"/v1beta/models/x", b"/v1beta/files/a:b"])
def test_other_paths_name_none(path: bytes) -> None:
    assert find_model(path) is None
    assert GEMINI.read_call(b"{}", path, b"").model is None


@pytest.mark.parametrize(
    ("query", "framing"),
    [
        (b"alt=sse", EventFraming.SSE),
        (b"key=1&alt=sse", EventFraming.SSE),
        (b"%24alt=sse&x=1", EventFraming.SSE),
        (b"", EventFraming.JSON_ARRAY),
        (b"alt=json", EventFraming.JSON_ARRAY),
        (b"salt=sse", EventFraming.JSON_ARRAY),
        (b"%24alt=json%3Benum-encoding%3Dint", EventFraming.JSON_ARRAY),
    ],
)
def test_the_query_chooses_the_framing(query: bytes, framing: EventFraming) -> None:
    call = GEMINI.read_call(b'{"stream":false}', STREAM, query)
    assert (call.stream, call.framing) == (True, framing)
    call = GEMINI.read_call(b'{"stream":true}', b"/v1beta/models/m:generateContent", query)
    assert (call.stream, call.framing) == (False, None)


@pytest.mark.parametrize(
    ("body", "cap"),
    [
        (b"{}", None),
        (b'{"generationConfig":null}', None),
        (b'{"generationConfig":{"maxOutputTokens":9}}', 9),
        (b'{"generation_config":{"max_output_tokens":9}}', 9),
        (b'{"generationConfig":{"maxOutputTokens":0}}', None),
    ],
)
def test_the_cap_is_read_in_both_spellings(body: bytes, cap: int | None) -> None:
    assert GEMINI.read_call(body, STREAM, b"").cap == cap


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"generationConfig":{},"generation_config":{}}',
        b'{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":2}}',
        b'{"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":2}}',
        b'{"generationConfig":{"maxOutputTokens":"1"}}',
        b'{"generationConfig":[]}',
        b'{"GenerationConfig":{}}',
    ],
)
def test_what_could_be_misread_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        GEMINI.read_call(body, STREAM, b"")


def test_every_candidate_is_looked_at() -> None:
    watch = GenerateContentWatch()
    answer = {"candidates": [{"content": {"parts": [{"text": "a"}]}}, {"index": 1, "finishReason": "STOP"}]}
    assert watch.feed(b"data: " + json.dumps(answer).encode() + b"\r\n\r\n")
    assert watch.is_complete


@pytest.mark.parametrize("reason", [None, "", 0, "FINISH_REASON_UNSPECIFIED"])
def test_no_reason_is_no_ending(reason: object) -> None:
    watch = GenerateContentWatch()
    assert watch.feed(chunk([{"text": "a"}], finishReason=reason))
    assert not watch.is_complete


def test_text_that_looks_like_an_ending_is_text() -> None:
    watch = GenerateContentWatch()
    assert watch.feed(chunk([{"text": '"finishReason": "STOP", "error": {}\r\n\r\ndata: {"error": 1}'}]))
    assert (watch.is_complete, watch.events) == (False, 1)


def test_a_chunk_in_several_data_lines() -> None:
    watch = GenerateContentWatch()
    assert watch.feed(b'data: {"candidates": [{\r\ndata: "finishReason": "STOP"}]}\r\n\r\n')
    assert watch.is_complete


@pytest.mark.parametrize("block", [b"[3", b"[{]", b",{", b"[", b"data: 3\r\n\r\n", b"[" * 100_000, b"{\r\n"])
def test_odd_blocks_do_not_raise(block: bytes) -> None:
    watch = GenerateContentWatch()
    watch.feed(block)
    assert not watch.is_complete


@pytest.mark.parametrize("status", STATUSES)
def test_an_error_body_has_googles_shape(status: int) -> None:
    error = json.loads(GEMINI.error_body(STALLED, status, "r"))["error"]
    assert error["code"] == status
    assert error["message"] == "llm-proxy: " + STALLED.detail
    assert error["status"].isupper()
    assert error["details"][0]["reason"] == "TIMEOUT"


def test_our_event_begins_as_the_sdk_compares_it() -> None:
    event = GEMINI.error_event(STALLED, 504, "r")
    assert event.endswith(b"}\r\n\r\n") and event.count(b"\n") == 2
    said = json.loads(event.removeprefix(b"data: "))
    assert json.dumps(said).startswith('{"error":')  # google-genai raises for this beginning alone
    assert said["error"]["status"] == "DEADLINE_EXCEEDED"
    watch = GenerateContentWatch()
    watch.feed(event)
    assert watch.has_error


@pytest.mark.parametrize(("action", "is_free"), [("countTokens", True), ("generateContent", False)])
def test_a_question_about_tokens_uses_none(action: str, is_free: bool) -> None:
    assert GEMINI.read_call(b"{}", f"/v1beta/models/g:{action}".encode(), b"").is_free is is_free


@pytest.mark.parametrize("action", ["embedContent", "batchEmbedContents"])
def test_embeddings_generate_nothing(action: str) -> None:
    assert GEMINI.read_call(b"{}", f"/v1beta/models/g:{action}".encode(), b"").cap == 0
