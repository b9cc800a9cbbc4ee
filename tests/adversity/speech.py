"""What providers say in these tests: one short stream and one document in each dialect, and the requests for them.

Lives here: `Speech`, `SPEECHES`, heads and chunks. May not live here: sockets, faults.
"""

from __future__ import annotations

import json
from typing import NamedTuple


class Speech(NamedTuple):
    """One dialect's stream. `events` carry text, `end` completes it. `framing`: sse, ndjson or array."""

    name: str
    path: bytes
    body: bytes
    events: tuple[bytes, ...]
    end: tuple[bytes, ...]
    framing: str

    @property
    def request(self) -> bytes:
        return post(self.path, self.body)

    @property
    def whole(self) -> bytes:
        return b"".join(self.events) + b"".join(self.end)

    def errors_in(self, tail: bytes) -> list[str]:
        """The messages of the error events that `tail` is made of; fails where it is made of anything else."""
        if self.framing == "ndjson":
            texts = [line for line in tail.split(b"\n") if line]
            assert tail.endswith(b"\n")
        elif self.framing == "array":
            assert tail == b"", "an array has no place for an event"
            texts = []
        else:
            assert tail.endswith((b"\n\n", b"\n\r\n")), tail
            texts = [line[6:] for line in tail.splitlines() if line.startswith(b"data: ")]
        found = []
        for text in texts:
            value = json.loads(text)
            error = value.get("error", value)
            found.append(error if isinstance(error, str) else error["message"])
        return found


def post(path: bytes, body: bytes, *fields: bytes) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, b"Host: 127.0.0.1", b"Content-Type: application/json", *fields]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def head(*fields: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", b""])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"
CHUNKED = head(b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked")
UNTIL_CLOSE = head(b"Content-Type: text/event-stream")


def length(size: int, status: bytes = b"200 OK") -> bytes:
    return head(b"Content-Type: application/json", b"Content-Length: %d" % size, status=status)


def _data(*values: object) -> tuple[bytes, ...]:
    return tuple(b"data: " + _json(value) + b"\n\n" for value in values)


def _named(*values: dict[str, object]) -> tuple[bytes, ...]:
    return tuple(b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), _json(value)) for value in values)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _chat(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def _text(text: str, reason: str | None = None) -> dict[str, object]:
    return {"id": "c1", "object": "text_completion", "choices": [{"index": 0, "text": text, "finish_reason": reason}]}


def _gemini(text: str, reason: str | None = None) -> dict[str, object]:
    candidate: dict[str, object] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "modelVersion": "m"}


def _ollama(text: str, done: bool = False) -> bytes:
    value: dict[str, object] = {"model": "m", "message": {"role": "assistant", "content": text}, "done": done}
    if done:
        value["done_reason"] = "stop"
    return _json(value) + b"\n"


MESSAGES = [{"role": "user", "content": "hi"}]
ASK = _json({"model": "m", "messages": MESSAGES})
ASK_STREAM = _json({"model": "m", "messages": MESSAGES, "stream": True})
DOCUMENT = _json({"id": "c1", "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]})

CHAT = Speech(
    "openai-chat",
    b"/v1/chat/completions",
    ASK_STREAM,
    _data(_chat({"role": "assistant", "content": ""}), _chat({"content": "Hel"}), _chat({"content": "lo"})),
    (*_data(_chat({}, "stop")), b"data: [DONE]\n\n"),
    "sse",
)
SPEECHES = (
    CHAT,
    Speech(
        "openai-completions",
        b"/v1/completions",
        _json({"model": "m", "prompt": "hi", "stream": True}),
        _data(_text("Hel"), _text("lo")),
        (*_data(_text("", "stop")), b"data: [DONE]\n\n"),
        "sse",
    ),
    Speech(
        "openai-responses",
        b"/v1/responses",
        _json({"model": "m", "input": "hi", "stream": True}),
        _named(
            {"type": "response.created", "response": {"id": "r1", "status": "in_progress"}},
            {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "delta": "Hello"},
        ),
        _named({"type": "response.completed", "response": {"id": "r1", "status": "completed"}}),
        "sse",
    ),
    Speech(
        "anthropic-messages",
        b"/v1/messages",
        _json({"model": "m", "max_tokens": 9, "messages": MESSAGES, "stream": True}),
        _named(
            {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 1, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        ),
        _named(
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ),
        "sse",
    ),
    Speech(
        "gemini",
        b"/v1beta/models/m:streamGenerateContent?alt=sse",
        _json({"contents": [{"parts": [{"text": "hi"}]}]}),
        _data(_gemini("Hel"), _gemini("lo")),
        _data(_gemini("", "STOP")),
        "sse",
    ),
    Speech(
        "gemini",
        b"/v1beta/models/m:streamGenerateContent",
        _json({"contents": [{"parts": [{"text": "hi"}]}]}),
        (b"[" + _json(_gemini("Hel")), b",\r\n" + _json(_gemini("lo"))),
        (b",\r\n" + _json(_gemini("", "STOP")), b"]"),
        "array",
    ),
    Speech(
        "ollama",
        b"/api/chat",
        _json({"model": "m", "messages": MESSAGES}),
        (_ollama("Hel"), _ollama("lo")),
        (_ollama("", True),),
        "ndjson",
    ),
)
