"""OpenAI's chat, completions and embeddings, as OpenAI and its many imitators speak them.

Lives here: three dialects, the watch of streams of `choices`, the error body and event.
May not live here: the Responses API (responses), what usage means (usage).
How it works: the watch looks for `"finish_reason":null` as bytes: a usual delta has it, and the same text inside a
string would have its quotes escaped. Anything else is parsed (WIRE 2, 3, 6, 7).
Doubted: with `n` > 1 the first finished choice completes the stream; indices are not followed, [DONE] follows anyway.
"""

from __future__ import annotations

import orjson

from proxy.dialects.body import read_members
from proxy.dialects.call import Call
from proxy.dialects.failures import sentence
from proxy.dialects.watch import EventWatch, is_filled, parse
from proxy.outcome import Failure
from proxy.wire.sse import EventFraming

_CAPS = ("max_completion_tokens", "max_tokens")
_GENERATION = frozenset({"model", "stream", *_CAPS})
_EMBEDDINGS = frozenset({"model"})
_QUOTE = 0x22


class ChoicesWatch(EventWatch):
    """Watches chat chunks (`choices[].delta`) and completions chunks (`choices[].text`)."""

    __slots__ = ()

    def feed(self, block: bytes) -> bool:
        # One event of one line, a delta with text: the usual read.
        if (
            block.find(b"\n") == len(block) - 2
            and block.startswith(b"data: {")
            and b'"finish_reason":null' in block
            and block.count(b'"finish_reason"') == 1
            and b'"error"' not in block
        ):
            at = block.find(b'"content":"')
            if at >= 0 and block[at + 11] != _QUOTE:
                self.events += 1
                return True
        return self.feed_slowly(block)

    def _see(self, name: bytes, data: bytes) -> bool:
        if data.startswith(b"[DONE]"):
            self.is_complete = self.is_terminal = True
            return True
        if name == b"error":
            return self._fail()
        chunk = parse(data)
        if not isinstance(chunk, dict):
            return is_filled(data)
        if _is_error(chunk):
            return self._fail()
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return True
        progress = is_filled(chunk.get("usage")) and not choices
        for choice in choices:
            if not isinstance(choice, dict) or self._see_choice(choice):
                progress = True
        return progress

    def _see_choice(self, choice: dict[str, object]) -> bool:
        if is_filled(choice.get("error")) or choice.get("finish_reason") == "error":
            return self._fail()
        if is_filled(choice.get("finish_reason")):
            self.is_complete = True
            return True
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            return any(is_filled(value) for key, value in delta.items() if key != "role")
        return is_filled(choice.get("text")) or is_filled(delta)


def _is_error(chunk: dict[str, object]) -> bool:
    if is_filled(chunk.get("error")) or chunk.get("object") == "error":
        return True
    groq = chunk.get("x_groq")
    return isinstance(groq, dict) and is_filled(groq.get("error"))


class OpenAIChat:
    """POST /v1/chat/completions."""

    name = "openai-chat"
    framing = EventFraming.SSE

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        members = read_members(body, _GENERATION)
        raw = members.raw
        model = members.text("model")
        stream = members.flag("stream") if "stream" in raw else False
        caps = [members.count(cap) for cap in _CAPS if cap in raw]
        # Servers differ in which of the two they obey where both are given: the larger is the upper bound.
        cap = max((cap for cap in caps if cap is not None), default=None)
        return Call(model, stream, cap, members.span("model"))

    def watch(self) -> EventWatch:
        return ChoicesWatch()

    def error_body(self, failure: Failure, status: int, request_id: str) -> bytes:
        return orjson.dumps({"error": error_object(failure, status)})

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        return b"data: " + self.error_body(failure, status, request_id) + b"\n\n"


class OpenAICompletions(OpenAIChat):
    """POST /v1/completions."""

    name = "openai-completions"


class OpenAIEmbeddings(OpenAIChat):
    """POST /v1/embeddings. Never streamed."""

    name = "openai-embeddings"

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        members = read_members(body, _EMBEDDINGS)
        return Call(members.text("model"), model_span=members.span("model"))


def error_object(failure: Failure, status: int) -> dict[str, object]:
    """The value of `error` in OpenAI's bodies and events."""
    return {
        "message": sentence(failure),
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": None,
        "code": failure.kind.value,
    }


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
