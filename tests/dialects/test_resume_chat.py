from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.dialects.resume_chat import ChatReader
from proxy.dialects.resume_event import What
from tests.dialects.cost import DELTA


def chunk(delta: object, choice: dict[str, Any] | None = None, **top: object) -> bytes:
    """A chunk with one choice."""
    one = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **(choice or {})}
    return b"data: " + json.dumps({"id": "c1", "created": 7, "model": "m", "choices": [one], **top}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("event", "what", "texts"),
    [
        (chunk({"role": "assistant", "content": ""}), What.BEGIN, []),
        (chunk({"role": "assistant", "content": None, "refusal": None, "tool_calls": []}), What.BEGIN, []),
        (chunk({"content": ""}), What.IDLE, []),
        (chunk({}), What.IDLE, []),
        (chunk(None), What.IDLE, []),
        (chunk({"content": "a"}), What.TEXT, [b"a"]),
        (chunk({"role": "assistant", "content": "a"}), What.TEXT, [b"a"]),
        (chunk({"content": "a"}, {"index": None}), What.TEXT, [b"a"]),
        (chunk({"content": "a", "token_id": 5}, {"text": "a"}), What.TEXT, [b"a", b"a"]),
        (chunk({"content": "a"}, {"content_filter_results": {"hate": {"filtered": False}}}), What.TEXT, [b"a"]),
        (chunk({"content": "a"}, {"finish_reason": ""}), What.TEXT, [b"a"]),
        (chunk({"content": "a"}, usage={"completion_tokens": 1}), What.TEXT, [b"a"]),
        (chunk({"content": "a"}, x_groq={"id": "x"}, provider="p"), What.TEXT, [b"a"]),
        (chunk({"content": "a"}, {"finish_reason": "stop"}), What.END, [b"a"]),
        (chunk({}, {"finish_reason": "stop", "native_finish_reason": "STOP"}), What.END, []),
        (b"data: [DONE]\n\n", What.END, []),
        (b'data: {"choices":[],"usage":{"completion_tokens":1}}\n\n', What.IDLE, []),
        (b'data: {"id":"","choices":[ ],"prompt_filter_results":[{}]}\n\n', What.IDLE, []),
        (chunk({"content": "a"}, {"index": 1}), What.OTHER, None),
        (chunk({"content": "a"}, choices=[]).replace(b"[]", b'[{"delta":{}},{"delta":{}}]'), What.OTHER, None),
        (chunk({"content": "a"}, {"logprobs": {"content": [{"token": "a"}]}}), What.OTHER, None),
        (chunk({"content": "a"}, {"text": "b"}), What.OTHER, None),
        (chunk({}, {"text": "b"}), What.OTHER, None),
        (chunk({"content": "a"}, {"message": {"content": "a"}}), What.OTHER, None),
        (chunk({"content": "a"}, citations=["x"]), What.OTHER, None),
        (chunk({"content": "a"}, search_results=[{"url": "x"}]), What.OTHER, None),
        (chunk({"content": [{"type": "text", "text": "a"}]}), What.OTHER, None),
        (chunk("a"), What.OTHER, None),
        (chunk({"tool_calls": [{"index": 0}]}), What.OTHER, None),
        (chunk({"function_call": {"name": "f"}}), What.OTHER, None),
        (chunk({"refusal": "no"}), What.OTHER, None),
        (chunk({"reasoning_content": "hm"}), What.OTHER, None),
        (chunk({"content": "", "reasoning": "hm"}), What.OTHER, None),
        (chunk({"content": "a", "audio": {"data": "x"}}), What.OTHER, None),
        (chunk({"content": "a", "annotations": [{"type": "url_citation"}]}), What.OTHER, None),
        (chunk({"content": "a", "something": 1}), What.OTHER, None),
        (chunk({"Content": "a"}), What.OTHER, None),
        (DELTA.replace(b'"content":', b'"content":"x","content":'), What.OTHER, None),
        (b'data: {"value":"a"}\n\n', What.OTHER, None),
        (b'data: {"value":"a","choices":[]}\n\n', What.OTHER, None),
        (b"data: [1]\n\n", What.OTHER, None),
        (chunk({}, {"finish_reason": "error"}), What.ERROR, None),
        (chunk({}, {"error": {"code": 502}}), What.ERROR, None),
        (chunk({}, error={"code": 502}), What.ERROR, None),
        (chunk({}, x_groq={"error": "x"}), What.ERROR, None),
        (b'data: {"object":"error","message":"x"}\n\n', What.ERROR, None),
    ],
)
def test_a_chunk_is_told_by_all_that_it_holds(event: bytes, what: What, texts: list[bytes] | None) -> None:
    seen = ChatReader().read(event)
    assert seen.what is what
    if texts is not None:
        assert [event[slice(*span)] for span in seen.texts] == texts


def test_marks_are_found_wherever_they_stand() -> None:
    for event in (
        chunk({"content": "a"}),
        chunk({"tool_calls": [{"index": 0}]}),
        b'data: {"choices":[1,2],"created":7,"id":"c1"}\n\n',
        b'data: {"choices" : [], "created" : 7, "usage":{"a":1}, "id" : "c1"}\r\n\r\n',
    ):
        seen = ChatReader().read(event)
        assert {name: event[slice(*span)] for name, span in seen.marks} == {"id": b'"c1"', "created": b"7"}
    assert ChatReader().read(b'data: {"id":"","created":null,"choices":[]}\n\n').marks == ()


def test_what_has_two_texts_is_not_learned() -> None:
    reader = ChatReader()
    assert reader.read(chunk({"content": "a"}, {"text": "a"})).what is What.TEXT
    assert reader.usual_text(chunk({"content": "b"}, {"text": "a"})) is None
