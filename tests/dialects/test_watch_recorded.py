"""The recorded traffic through `read_call`, cutter and watch. Needs the folder beside the checkout; our own transcripts
cover the same without it."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dialects import DIALECTS
from proxy.dialects.body import model_span, splice
from proxy.wire.sse import EventCutter, EventFraming
from tests import recordings

DIALECT_OF = {
    "openai-chat": "openai-chat",
    "openai-completions": "openai-completions",
    "openai-responses": "openai-responses",
    "anthropic-messages": "anthropic-messages",
    "anthropic-vertex": "anthropic-messages",
    "gemini-generate": "gemini",
    "gemini-stream": "gemini",
    "ollama-chat": "ollama",
    "ollama-generate": "ollama",
    "embeddings": "openai-embeddings",
}
FRAMINGS = {"sse": EventFraming.SSE, "ndjson": EventFraming.NDJSON, "json-array": EventFraming.JSON_ARRAY}

# Streams that end without terminal event and finish reason, and why.
INCOMPLETE = {
    "openai-chat/openai--doc-stream-cut-without-done": "cut in mid-stream on purpose",
    "openai-completions/writer--ollmetry-writer-async-streaming-completions-legacy-0": "Writer sends only values: "
    "no finish reason, no [DONE]",
}
# Requests whose stream flag differs from what came, and why.
OTHER_STREAM_FLAG = {
    "openai-completions/openai--dd-completion-streamed-0": "the recording's body does not ask for the stream it got",
}


def dialect_of(entry: dict[str, Any]) -> str | None:
    if entry["api"] == "count-tokens":
        return "gemini" if "/models/" in entry["request"]["path"] else "anthropic-count-tokens"
    return DIALECT_OF.get(entry["api"])


READ = [entry for entry in recordings.recorded() if dialect_of(entry)]
STREAMS = [entry for entry in READ if entry["streaming"] and entry["stream_facts"]["framing"] in FRAMINGS]
REQUESTS = [entry for entry in READ if entry["request"]["file"]]


def name(entry: dict[str, Any]) -> str:
    return str(entry["id"])


@pytest.mark.parametrize("entry", STREAMS, ids=name)
@pytest.mark.parametrize("size", [97, 4096, 1 << 20])
def test_a_recorded_stream_is_complete(entry: dict[str, Any], size: int) -> None:
    data = (recordings.FIXTURES / entry["response"]["file"]).read_bytes()
    cutter = EventCutter(FRAMINGS[entry["stream_facts"]["framing"]])
    watch = DIALECTS[dialect_of(entry) or ""].watch()
    out = blocks = b""
    for at in range(0, len(data), size):
        out += cutter.feed(data[at : at + size])
        blocks += cutter.block
        if cutter.block:
            watch.feed(cutter.block)
    out += cutter.flush()
    blocks += cutter.block
    if cutter.block:
        watch.feed(cutter.block)
    assert out == data
    assert blocks == data
    assert watch.is_complete == (entry["id"] not in INCOMPLETE)
    assert watch.has_error == (entry["expect"]["error"] is not None)
    if entry["stream_facts"]["framing"] == "sse" and "raw-json" not in entry["id"]:
        facts = entry["stream_facts"]
        assert watch.events == facts["events"] - facts["pings"]


@pytest.mark.parametrize("entry", REQUESTS, ids=name)
def test_a_recorded_request_is_read(entry: dict[str, Any]) -> None:
    request = entry["request"]
    body = (recordings.FIXTURES / request["file"]).read_bytes()
    dialect = DIALECTS[dialect_of(entry) or ""]
    call = dialect.read_call(body, request["path"].encode(), request["query"].encode())
    assert call.model == request["model"]
    if entry["id"] not in OTHER_STREAM_FLAG:
        assert call.stream == entry["streaming"]
    if span := model_span(body):
        again = dialect.read_call(splice(body, span, b'"other"'), b"", b"")
        assert again.model == "other"
        start, end = span
        assert body[start:end].decode() == f'"{request["model"]}"'


def test_the_exceptions_are_needed() -> None:
    ids = {entry["id"] for entry in READ}
    assert not READ or ids >= INCOMPLETE.keys() | OTHER_STREAM_FLAG.keys()
