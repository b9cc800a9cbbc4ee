"""Anthropic's Messages API, and its token counting.

Lives here: two dialects, the watch, the meter, the error body and event.
May not live here: what usage means (usage).
How it works: events have names; only `message_delta` has to be parsed, for its stop reason, and `content_block_start`,
which may be empty (WIRE 3, 6).
Doubted: `content_block_delta` counts as progress without a look at its text: an empty one was seen only as the first
piece of a tool's input.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

import orjson

from proxy.dialects.body import CAPS, MORE_MODELS, MemberReader, Members
from proxy.dialects.call import Call, Meter
from proxy.dialects.failures import sentence
from proxy.dialects.meter import AnswerMeter, EventMeter, Reading, reader
from proxy.dialects.shapes import AnthropicEvent, AnthropicMessage
from proxy.dialects.usage import MessagesReport, as_model, counted_tokens
from proxy.dialects.watch import NamedWatch, is_filled, parse
from proxy.outcome import Failure
from proxy.wire.sse import EventFraming


class MessagesWatch(NamedWatch):
    """Watches `message_*` and `content_block_*` events."""

    __slots__ = ()
    usual = b"event: content_block_delta\ndata: {"

    def _see(self, name: bytes, data: bytes) -> bool:
        event = None
        kind = name.decode("ascii", "replace")
        if not kind or kind in ("message_delta", "content_block_start"):
            event = parse(data)
            if not isinstance(event, dict):
                return is_filled(data)
            kind = kind or str(event.get("type"))
        if kind == "ping":
            return self._pass_over()
        if kind == "message_start":
            return False
        if kind == "error":
            return self._fail()
        if kind == "message_stop":
            self.is_complete = self.is_terminal = True
        elif kind == "message_delta" and event is not None:
            delta = event.get("delta")
            if isinstance(delta, dict) and is_filled(delta.get("stop_reason")):
                self.is_complete = True
        elif kind == "content_block_start" and event is not None:
            return _is_filled_block(event.get("content_block"))
        return True


def _is_filled_block(block: object) -> bool:
    if isinstance(block, dict) and block.get("type") in ("text", "thinking"):
        return any(is_filled(value) for key, value in block.items() if key != "type")
    return True  # a tool call has a name, and anything else is unknown


_read_message, _read_event = reader(AnthropicMessage), reader(AnthropicEvent)


def _read_answer(data: bytes) -> Reading:
    message = _read_message(data)
    report = MessagesReport()
    report.add(message.usage)
    return Reading(as_model(message.model), report.usage())


def _read_count(data: bytes) -> Reading:
    return Reading(None, counted_tokens({"input_tokens": _read_message(data).input_tokens}))


class MessagesMeter(EventMeter):
    """Reads `message_start`, which knows the input and next to nothing of the output (WIRE 3), and `message_delta`,
    which overrides it."""

    __slots__ = ("_told",)
    needle = b'_tokens"'

    def __init__(self) -> None:
        super().__init__()
        self._told = MessagesReport()

    def _see(self, data: bytes) -> None:
        event = _read_event(data)
        is_output = False
        if event.type == "message_start":
            self._told.add(event.message.usage)
        elif event.type == "message_delta":
            is_output = self._told.add(event.usage)
        usage = self._told.usage()
        if usage is not None:
            usage.complete = usage.complete and (is_output or self.is_reported)
            self._report(usage, as_model(event.message.model), is_output)

    def _model_in(self, data: bytes) -> str | None:
        return as_model(_read_event(data).message.model)


_VERTEX_PATH: Final = re.compile(rb"/models/([^/:]+):")


def _model_of(members: Members, path: bytes) -> str | None:
    model = members.text("model")
    if model is None and (found := _VERTEX_PATH.search(path)):
        return unquote(found[1].decode("utf-8", "replace"))  # on Vertex the model is in the path alone (WIRE 1)
    return model


class AnthropicMessages:
    """POST /v1/messages."""

    name = "anthropic-messages"
    framing = EventFraming.SSE
    _reader = MemberReader("model", "stream", *CAPS, *MORE_MODELS)

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        members = self._reader.read(body)
        names_more = members.is_any(MORE_MODELS)
        return Call(_model_of(members, path), members.flag("stream"), members.cap(CAPS), names_more=names_more)

    def watch(self) -> MessagesWatch:
        return MessagesWatch()

    def meter(self, is_stream: bool) -> Meter:
        return MessagesMeter() if is_stream else AnswerMeter(_read_answer, ("usage",))

    def error_body(self, failure: Failure, status: int, request_id: str) -> bytes:
        error = {"type": _error_type(status), "message": sentence(failure), "code": failure.kind.value}
        return orjson.dumps({"type": "error", "error": error, "request_id": request_id})

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        return b"event: error\ndata: " + self.error_body(failure, status, request_id) + b"\n\n"


class AnthropicCountTokens(AnthropicMessages):
    """POST /v1/messages/count_tokens. Never streamed."""

    name = "anthropic-count-tokens"
    _reader = MemberReader("model")

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        members = self._reader.read(body)
        return Call(_model_of(members, path), is_free=True)

    def meter(self, is_stream: bool) -> Meter:
        return AnswerMeter(_read_count, ())

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        return b""


_ERROR_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def _error_type(status: int) -> str:
    return _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
