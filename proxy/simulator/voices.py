"""How each dialect sounds: its events, its whole answers, its errors.

Lives here: what all voices have in common (`Voice`), and Anthropic, Gemini and Ollama; every byte they make is new,
made from facts in WIRE 2, 3, 4, 6. May not live here: the OpenAI family (voices_openai), which answer a request gets
(speech), faults, input or output.
How it works: a voice is made per answer from a few facts (model, serial, input tokens); `opening`, `thought`, `delta`,
`tool` and `closing` make events one by one and count output tokens; `whole` makes the answer that is not streamed.
A closing is a list of (kind, bytes): FINISH holds finish reasons and usage, DONE the very last event of the dialect.
Before the last report `settle` puts what was ordered over what was counted. Whether bytes hold a report is seen in the
bytes themselves (`usage_mark`: in a text its quotes would be escaped), so the books cannot say what was not said.
Doubted: exact key order of the vendors; readers must not care.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, NamedTuple

import orjson

CREATED = 1_764_000_000  # one fixed second, so that answers are the same each time
MESSAGE = "This is an error that was asked of the simulated provider."


class Kind(Enum):
    OPEN = "open"
    DELTA = "delta"
    FINISH = "finish"
    DONE = "done"


Closing = list[tuple[Kind, bytes]]


class Report(NamedTuple):
    """One usage report, in tokens as `outcome.Usage` means them: cached and written ones inside `input`, reasoning
    inside `output`. None: no such figure."""

    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    is_final: bool = True  # no running report, and none at the begin


def data(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def named(value: dict[str, Any], pad: bytes = b"") -> bytes:
    """An SSE event that carries its type twice, as Anthropic and Responses do."""
    return b"event: " + str(value["type"]).encode() + b"\ndata: " + orjson.dumps(value) + pad + b"\n\n"


class Voice(ABC):
    """One answer of one dialect."""

    content_type = "text/event-stream; charset=utf-8"
    comment = b": simulated\n\n"  # what keeps a connection warm and is no progress
    id_header = "x-request-id"
    usage_mark = b'"usage":{'

    def __init__(self, model: str, serial: int, tokens_in: int, *, with_usage: bool = False) -> None:
        self.model = model
        self.serial = serial
        self.tokens_in = tokens_in
        self.cached = 0  # of tokens_in
        self.cache_write = 0  # of tokens_in
        self.tokens_out = 0
        self.reasoning = 0  # of tokens_out
        self.with_usage = with_usage
        self.reports = True
        self.quoted = ""  # what errors say instead of MESSAGE
        self.started = False
        self.is_settled = False

    def settle(self, output: int | None, reasoning: int | None) -> None:
        """The figures are final, with these in place of what was counted."""
        if reasoning is not None:
            self.tokens_out += reasoning - self.reasoning
            self.reasoning = reasoning
        if output is not None:
            self.tokens_out = output
            self.reasoning = min(self.reasoning, output)
        self.is_settled = True

    def report(self) -> Report:
        """What the present figures are in a report."""
        return Report(
            self.tokens_in,
            self.tokens_out,
            self.cached or None,
            self.cache_write or None,
            self.reasoning or None,
            self.is_settled,
        )

    def report_in(self, data: bytes) -> Report | None:
        """What `data`, just made here, reports."""
        return self.report() if self.usage_mark in data else None

    def opening(self) -> list[bytes]:
        return []

    def thought(self, text: str) -> list[bytes]:
        """Events of a piece of reasoning; none where the dialect shows none."""
        return []

    @abstractmethod
    def delta(self, text: str) -> bytes: ...

    @abstractmethod
    def tool(self, name: str, arguments: dict[str, Any]) -> list[bytes]: ...

    @abstractmethod
    def closing(self, tool: bool) -> Closing: ...

    @abstractmethod
    def whole(self, text: str, tool: tuple[str, dict[str, Any]] | None) -> dict[str, Any]: ...

    @staticmethod
    @abstractmethod
    def error(status: int, request_id: str) -> dict[str, Any]: ...

    @abstractmethod
    def error_events(self) -> list[bytes]: ...

    def said(self, event: bytes) -> bytes:
        """An error event as it goes out: quoting, if it is to."""
        return event.replace(orjson.dumps(MESSAGE), orjson.dumps(self.quoted)) if self.quoted else event


class Anthropic(Voice):
    comment = b'event: ping\ndata: {"type": "ping"}\n\n'
    id_header = "request-id"
    _PAD = b"     "  # Anthropic pads its JSON with trailing blanks (WIRE 2)

    def __init__(self, model: str, serial: int, tokens_in: int, *, with_usage: bool = False) -> None:
        super().__init__(model, serial, tokens_in)
        self._block = -1
        self._kind = ""

    def _usage(self) -> dict[str, Any]:
        """Its field, to be spread; none where nothing is reported."""
        if not self.reports:
            return {}
        usage: dict[str, Any] = {
            "input_tokens": self.tokens_in - self.cached - self.cache_write,
            "cache_creation_input_tokens": self.cache_write,
            "cache_read_input_tokens": self.cached,
            "output_tokens": self.report().output,
            "service_tier": "standard",
        }
        if self.reasoning:
            usage["output_tokens_details"] = {"thinking_tokens": self.reasoning}
        return {"usage": usage}

    def report(self) -> Report:
        # The first report is never of nothing.
        return super().report()._replace(output=self.tokens_out if self.is_settled else max(1, self.tokens_out))

    def _message(self, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        return {
            "id": f"msg_sim{self.serial:08d}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            **self._usage(),
        }

    def opening(self) -> list[bytes]:
        return [named({"type": "message_start", "message": self._message([], None)}, self._PAD), self.comment]

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        if self._kind == kind:
            return b""
        stop = self._stop()
        self._block += 1
        self._kind = kind
        return stop + named({"type": "content_block_start", "index": self._block, "content_block": block}, self._PAD)

    def _stop(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        return named({"type": "content_block_stop", "index": self._block}, self._PAD)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return named({"type": "content_block_delta", "index": self._block, "delta": delta})

    def thought(self, text: str) -> list[bytes]:
        self.tokens_out += 1
        self.reasoning += 1
        begin = self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        return [begin + self._delta({"type": "thinking_delta", "thinking": text})]

    def delta(self, text: str) -> bytes:
        self.tokens_out += 1
        begin = self._begin("text", {"type": "text", "text": ""})
        return begin + self._delta({"type": "text_delta", "text": text})

    def tool(self, name: str, arguments: dict[str, Any]) -> list[bytes]:
        text = orjson.dumps(arguments).decode()
        half = len(text) // 2
        self.tokens_out += 3
        block = {"type": "tool_use", "id": f"toolu_sim{self.serial:08d}", "name": name, "input": {}}
        begin = self._begin("tool_use", block)
        parts = ("", text[:half], text[half:])
        deltas = [self._delta({"type": "input_json_delta", "partial_json": part}) for part in parts]
        return [begin + deltas[0], *deltas[1:]]

    def closing(self, tool: bool) -> Closing:
        stop = self._stop()
        delta = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
        last = named({"type": "message_delta", "delta": delta, **self._usage()}, self._PAD)
        end: Closing = [(Kind.FINISH, stop)] if stop else []
        return [*end, (Kind.FINISH, last), (Kind.DONE, named({"type": "message_stop"}, self._PAD))]

    def whole(self, text: str, tool: tuple[str, dict[str, Any]] | None) -> dict[str, Any]:
        if tool is None:
            return self._message([{"type": "text", "text": text}], "end_turn")
        call = {"type": "tool_use", "id": f"toolu_sim{self.serial:08d}", "name": tool[0], "input": tool[1]}
        return self._message([call], "tool_use")

    @staticmethod
    def error(status: int, request_id: str) -> dict[str, Any]:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error"}
        kinds |= {403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error"}
        kinds |= {504: "timeout_error", 529: "overloaded_error"}
        error = {"type": kinds.get(status, "api_error"), "message": MESSAGE}
        return {"type": "error", "error": error, "request_id": request_id}

    def error_events(self) -> list[bytes]:
        return [named(self.error(529, f"req_sim{self.serial:08d}"), self._PAD)]


class Gemini(Voice):
    """With alt=sse: events with CRLF. Without: one JSON array, its elements joined by "\\n,\\r\\n" (WIRE 2)."""

    content_type = "text/event-stream"
    id_header = "x-gemini-simulated-id"
    usage_mark = b'"usageMetadata"'

    def __init__(self, model: str, serial: int, tokens_in: int, *, with_usage: bool = False) -> None:
        super().__init__(model, serial, tokens_in)
        self.as_array = False

    def _event(self, value: dict[str, Any]) -> bytes:
        if not self.as_array:
            return b"data: " + orjson.dumps(value) + b"\r\n\r\n"
        head = b"\n,\r\n" if self.started else b"["
        self.started = True
        return head + orjson.dumps(value, option=orjson.OPT_INDENT_2)

    def _value(self, parts: list[dict[str, Any]], reason: str | None = None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if reason is not None:
            candidate["finishReason"] = reason
        usage = {"usageMetadata": self._usage()} if self.reports else {}
        last = {"modelVersion": self.model, "responseId": f"sim{self.serial:08d}"}
        return {"candidates": [candidate], **usage, **last}

    def _usage(self) -> dict[str, Any]:
        spoken = self.tokens_out - self.reasoning
        usage: dict[str, Any] = {"promptTokenCount": self.tokens_in, "candidatesTokenCount": spoken}
        usage["totalTokenCount"] = self.tokens_in + self.tokens_out
        usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": self.tokens_in}]
        if self.cached:
            usage["cachedContentTokenCount"] = self.cached
        if self.reasoning:
            usage["thoughtsTokenCount"] = self.reasoning
        return usage

    def report(self) -> Report:
        cached, thoughts = self.cached or None, self.reasoning or None
        return Report(self.tokens_in, self.tokens_out, cached, None, thoughts, self.is_settled)

    def thought(self, text: str) -> list[bytes]:
        self.tokens_out += 1
        self.reasoning += 1
        return [self._event(self._value([{"text": text, "thought": True}]))]

    def delta(self, text: str) -> bytes:
        self.tokens_out += 1
        return self._event(self._value([{"text": text}]))

    def tool(self, name: str, arguments: dict[str, Any]) -> list[bytes]:
        self.tokens_out += 3
        return [self._event(self._value([{"functionCall": {"name": name, "args": arguments}}]))]

    def closing(self, tool: bool) -> Closing:
        end: Closing = [(Kind.FINISH, self._event(self._value([{"text": ""}], "STOP")))]
        return [*end, (Kind.DONE, b"\n]")] if self.as_array else end

    def whole(self, text: str, tool: tuple[str, dict[str, Any]] | None) -> dict[str, Any]:
        part: dict[str, Any] = {"text": text}
        if tool is not None:
            part = {"functionCall": {"name": tool[0], "args": tool[1]}}
        return self._value([part], "STOP")

    @staticmethod
    def error(status: int, request_id: str) -> dict[str, Any]:
        names = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
        names |= {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}
        return {"error": {"code": status, "message": MESSAGE, "status": names.get(status, "INTERNAL")}}

    def error_events(self) -> list[bytes]:
        return [self._event(self.error(503, ""))]


class Ollama(Voice):
    content_type = "application/x-ndjson"
    comment = b"\n"  # NDJSON knows no comment; an empty line carries nothing
    usage_mark = b'"eval_count":'

    def __init__(self, model: str, serial: int, tokens_in: int, *, with_usage: bool = False) -> None:
        super().__init__(model, serial, tokens_in)
        self.generates = False  # /api/generate instead of /api/chat

    def _value(self, text: str, tools: list[dict[str, Any]], done: bool, **more: Any) -> dict[str, Any]:
        value: dict[str, Any] = {"model": self.model, "created_at": "2025-11-24T16:00:00.000001Z"}
        if self.generates:
            value["response"] = text
        else:
            value["message"] = {"role": "assistant", "content": text, **more}
            if tools:
                value["message"]["tool_calls"] = tools
        value["done"] = done
        if done:
            value |= {"done_reason": "stop", "total_duration": 174_560_334, "load_duration": 10_173_375}
            counts = {"prompt_eval_count": self.tokens_in, "eval_count": self.tokens_out} if self.reports else {}
            value |= {**counts, "prompt_eval_duration": 20_460_000, "eval_duration": 143_926_000}
        return value

    def report(self) -> Report:
        return Report(self.tokens_in, self.tokens_out)

    def _line(self, text: str, tools: list[dict[str, Any]], done: bool, **more: Any) -> bytes:
        return orjson.dumps(self._value(text, tools, done, **more)) + b"\n"

    def thought(self, text: str) -> list[bytes]:
        if self.generates:
            return []
        self.tokens_out += 1
        return [self._line("", [], False, thinking=text)]

    def delta(self, text: str) -> bytes:
        self.tokens_out += 1
        return self._line(text, [], False)

    def tool(self, name: str, arguments: dict[str, Any]) -> list[bytes]:
        self.tokens_out += 3
        return [self._line("", [{"function": {"name": name, "arguments": arguments}}], False)]

    def closing(self, tool: bool) -> Closing:
        return [(Kind.DONE, self._line("", [], True))]

    def whole(self, text: str, tool: tuple[str, dict[str, Any]] | None) -> dict[str, Any]:
        if tool is None:
            return self._value(text, [], True)
        return self._value("", [{"function": {"name": tool[0], "arguments": tool[1]}}], True)

    @staticmethod
    def error(status: int, request_id: str) -> dict[str, Any]:
        return {"error": MESSAGE}

    def error_events(self) -> list[bytes]:
        return [orjson.dumps(self.error(500, "")) + b"\n"]
