from __future__ import annotations

import json

import pytest

from proxy.dialects.resume_event import What
from proxy.dialects.resume_messages import MessagesReader
from tests.dialects.cost import BLOCK_DELTA


def event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}   \n\n".encode()


def start(**block: object) -> bytes:
    return event("content_block_start", index=3, content_block=block)


def delta(**delta: object) -> bytes:
    return event("content_block_delta", index=3, delta=delta)


@pytest.mark.parametrize(
    ("block", "what", "text"),
    [
        (event("ping"), What.IDLE, b""),
        (b"event: ping\ndata: {}\n\n", What.IDLE, b""),
        (b'data: {"type":"ping"}\n\n', What.IDLE, b""),
        (event("message_start", message={"content": [], "usage": {"output_tokens": 1}}), What.BEGIN, b""),
        (event("message_start", message={"content": [{"type": "text", "text": "a"}]}), What.OTHER, b""),
        (start(type="text", text=""), What.OPEN, b""),
        (start(type="text", text="a", citations=None), What.OPEN, b"a"),
        (start(type="text", text="", citations=[{"x": 1}]), What.OTHER, b""),
        (start(type="thinking", thinking="", signature=""), What.OTHER, b""),
        (start(type="tool_use", name="f", input={}), What.OTHER, b""),
        (delta(type="text_delta", text="a"), What.TEXT, b"a"),
        (delta(type="text_delta", text=""), What.IDLE, b""),
        (delta(type="text_delta", text="a", more="b"), What.OTHER, b""),
        (delta(type="text_delta", text=None), What.OTHER, b""),
        (delta(type="thinking_delta", thinking="a"), What.OTHER, b""),
        (delta(type="input_json_delta", partial_json="a"), What.OTHER, b""),
        (delta(type="citations_delta", citation={}), What.OTHER, b""),
        (event("content_block_delta", index=3), What.OTHER, b""),
        (event("content_block_stop", index=3), What.END, b""),
        (event("content_block_hint", index=3), What.OTHER, b""),
        (event("message_delta", delta={"stop_reason": "end_turn"}, usage={}), What.END, b""),
        (event("message_delta", delta={"stop_reason": None}, usage={}), What.IDLE, b""),
        (event("message_stop"), What.END, b""),
        (event("error", error={"type": "overloaded_error"}), What.ERROR, b""),
        (b'data: {"type":"error","error":{}}\n\n', What.ERROR, b""),
        (event("something_new"), What.OTHER, b""),
        (b'event: ping_\ndata: {"type":"ping"}\n\n', What.OTHER, b""),
        (b"data: [DONE]\n\n", What.OTHER, b""),
        (BLOCK_DELTA, What.TEXT, b" hello"),
        (BLOCK_DELTA.replace(b"event: content_block_delta\n", b""), What.TEXT, b" hello"),
    ],
)
def test_an_event_is_told_by_all_that_it_holds(block: bytes, what: What, text: bytes) -> None:
    seen = MessagesReader().read(block)
    assert seen.what is what
    assert b"".join(block[slice(*span)] for span in seen.texts) == text


@pytest.mark.parametrize(
    "block",
    [
        start(type="text", text=""),
        start(type="tool_use"),
        delta(type="text_delta", text="a"),
        delta(type="input_json_delta", partial_json="a"),
        event("content_block_stop", index=3),
        event("content_block_hint", index=3),
        event("content_block_delta", index=3, delta=[1]),
    ],
)
def test_all_events_of_a_block_show_its_index(block: bytes) -> None:
    seen = MessagesReader().read(block)
    assert seen.block and block[slice(*seen.block)] == b"3"


@pytest.mark.parametrize("index", [None, "0", -1, 1.0, 10**9])
def test_a_block_without_a_proper_index_is_not_read(index: object) -> None:
    assert MessagesReader().read(event("content_block_stop", index=index)).what is What.OTHER


def test_the_usual_event_is_learned_with_its_index() -> None:
    reader = MessagesReader()
    reader.read(BLOCK_DELTA)
    assert reader.usual_text(BLOCK_DELTA.replace(b"hello", b"you")) == b" you"
    assert reader.usual_text(BLOCK_DELTA.replace(b"}}", b"}}    ")) == b" hello"
    assert reader.usual_text(BLOCK_DELTA.replace(b'"index":0', b'"index":1')) is None
