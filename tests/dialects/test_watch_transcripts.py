"""Our own transcripts through cutter and watch: what was seen in the end must not depend on how the bytes came."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from proxy.dialects import DIALECTS
from proxy.dialects.call import Watch
from proxy.wire.sse import EventCutter, EventFraming
from tests.dialects import transcripts

STREAMS = transcripts.streams()


def name(entry: dict[str, Any]) -> str:
    return str(entry["id"])


def pour(watch: Watch, framing: EventFraming, pieces: list[bytes]) -> int:
    """Feeds a whole message; how many feeds of the watch were progress."""
    cutter = EventCutter(framing)
    progress = 0
    for piece in pieces:
        cutter.feed(piece)
        progress += bool(cutter.block) and watch.feed(cutter.block)
    cutter.flush()
    return progress + (bool(cutter.block) and watch.feed(cutter.block))


def sizes(data: bytes) -> list[list[bytes]]:
    dice = random.Random(7)
    cuts = [[data[i : i + size] for i in range(0, len(data), size)] for size in (len(data), 1, 2, 61, 350)]
    for _ in range(10):
        edges = sorted([0, len(data), *(dice.randrange(len(data)) for _ in range(6))])
        cuts.append([data[a:b] for a, b in itertools.pairwise(edges)])
    return cuts


@pytest.mark.parametrize("entry", STREAMS, ids=name)
def test_a_stream_is_seen_as_it_ended_under_any_cut(entry: dict[str, Any]) -> None:
    expect = entry["expect"]
    for pieces in sizes(transcripts.answer_body(entry)):
        watch = DIALECTS[entry["api"]].watch()
        pour(watch, EventFraming(entry["response"]["framing"]), pieces)
        seen = (watch.is_complete, watch.is_terminal, watch.has_error, watch.events)
        assert seen == (expect["complete"], expect["terminal"], expect["error"], expect["events"])


@pytest.mark.parametrize("entry", STREAMS, ids=name)
def test_progress_is_what_the_model_says_and_nothing_else(entry: dict[str, Any]) -> None:
    # Byte by byte the cutter completes one event a time, so each event is judged alone.
    data = transcripts.answer_body(entry)
    watch = DIALECTS[entry["api"]].watch()
    pieces = [data[i : i + 1] for i in range(len(data))]
    assert pour(watch, EventFraming(entry["response"]["framing"]), pieces) == entry["expect"]["progress"]


@pytest.mark.parametrize("entry", STREAMS, ids=name)
def test_a_cut_stream_is_not_complete_before_its_ending_passed(entry: dict[str, Any]) -> None:
    """Nothing that a model writes may look like an ending: the flag turns only at the event that ends the stream."""
    data = transcripts.answer_body(entry)
    cutter = EventCutter(EventFraming(entry["response"]["framing"]))
    watch = DIALECTS[entry["api"]].watch()
    for i in range(len(data)):
        cutter.feed(data[i : i + 1])
        if cutter.block:
            was_complete = watch.is_complete
            watch.feed(cutter.block)
            if watch.is_complete and not was_complete:
                assert any(mark in cutter.block for mark in ENDINGS[entry["api"]])
                assert b"He wrote" not in cutter.block


ENDINGS = {
    "openai-chat": (b'"finish_reason":"', b'"finish_reason": "', b"[DONE]", b"error"),
    "openai-completions": (b'"finish_reason":"', b"[DONE]"),
    "openai-responses": (b'"type":"response.completed"', b'"type":"response.incomplete"', b"error", b"failed"),
    "anthropic-messages": (b'"stop_reason":"', b'"type":"message_stop"', b"error"),
    "gemini": (b'"finishReason"', b'"blockReason"', b'"error"'),
    "ollama": (b'"done":true', b'"done": true', b'"error"'),
}


@pytest.mark.parametrize("entry", transcripts.entries(), ids=name)
def test_a_request_is_read(entry: dict[str, Any]) -> None:
    request = entry["request"]
    body = transcripts.request_body(entry)
    call = DIALECTS[entry["api"]].read_call(body, request["path"].encode(), request["query"].encode())
    assert (call.model, call.stream) == (request["model"], entry["streaming"])


def test_every_dialect_has_a_transcript() -> None:
    assert {entry["api"] for entry in transcripts.entries()} == set(DIALECTS)
