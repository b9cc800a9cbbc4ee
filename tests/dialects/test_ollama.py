from __future__ import annotations

import json

import pytest

from proxy.dialects.body import model_span
from proxy.dialects.call import UnreadableBody
from proxy.dialects.ollama import Ollama, OllamaWatch
from tests.dialects.contract import STALLED

OLLAMA = Ollama()


def line(content: str = "", done: bool = False, **more: object) -> bytes:
    text = json.dumps({"model": "m", "message": {"content": content}, "done": done, **more}, separators=(",", ":"))
    return text.encode() + b"\n"


@pytest.mark.parametrize(
    ("body", "path", "stream", "cap"),
    [
        (b'{"model":"m"}', b"/api/chat", True, None),
        (b'{"model":"m","stream":null}', b"/api/generate", True, None),
        (b'{"model":"m","stream":false,"options":{"num_predict":5}}', b"/api/chat", False, 5),
        (b'{"model":"m","stream":true,"options":{"num_predict":-1}}', b"/api/chat", True, None),
        (b'{"model":"m","stream":true,"options":{"num_predict":0}}', b"/api/chat", True, None),
        (b'{"model":"m"}', b"/api/embed", False, None),
    ],
)
def test_a_call_streams_unless_told_otherwise(body: bytes, path: bytes, stream: bool, cap: int | None) -> None:
    call = OLLAMA.read_call(body, path, b"")
    assert (call.model, call.stream, call.cap) == ("m", stream, cap)
    assert model_span(body) == (9, 12)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":1}',
        b'{"Stream":false}',
        '{"\u017ftream":false}'.encode(),
        b'{"options":{"num_predict":1,"NUM_PREDICT":2}}',
        b'{"options":[]}',
    ],
)
def test_what_ollama_could_read_otherwise_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        OLLAMA.read_call(body, b"/api/chat", b"")


@pytest.mark.parametrize(
    "block",
    [
        line("x", True),
        line("x") * 3 + line("", True) + b"",
        line("x", tool={"done": False}).replace(b'"done":false,', b'"done":true,'),
        json.dumps({"done": True}).encode(),
    ],
)
def test_the_last_line_is_seen(block: bytes) -> None:
    watch = OllamaWatch()
    assert watch.feed(block)
    assert watch.is_complete and watch.is_terminal


@pytest.mark.parametrize(
    ("block", "progress", "events"),
    [
        (line("x") * 3, True, 3),
        (line(""), False, 1),
        (line("x") + line(""), True, 2),
        (line('"done":true "error"'), True, 1),
        (line("", message={"content": "", "tool_calls": [{"function": {"arguments": {"done": True}}}]}), True, 1),
        (line("", message={"content": "", "thinking": "hm"}), True, 1),
        (b'{"response":"","done":false}\n', False, 1),
        (b'{"response":"x","done":false}\n', True, 1),
        (b"\n\r\n", False, 0),
        (b"not json\n", True, 1),
        (b"[" * 100_000 + b"\n", True, 1),
    ],
)
def test_progress_is_not_an_ending(block: bytes, progress: bool, events: int) -> None:
    watch = OllamaWatch()
    assert watch.feed(block) == progress
    assert (watch.is_complete, watch.events) == (False, events)


def test_an_error_line_is_an_ending() -> None:
    watch = OllamaWatch()
    assert watch.feed(line("x") + b'{"error":"stopped"}\n')
    assert (watch.is_complete, watch.is_terminal, watch.has_error) == (True, False, True)


def test_our_errors_are_one_line_with_one_member() -> None:
    body = OLLAMA.error_body(STALLED, 504, "r")
    assert json.loads(body) == {"error": "llm-proxy: " + STALLED.detail}
    assert OLLAMA.error_event(STALLED, 504, "r") == body + b"\n"
    assert body.count(b"\n") == 0
