"""OpenAI's Responses API.

Lives here: the dialect, its watch and meter, its error event.
May not live here: stored responses (GET, DELETE, cancel): they are plain.
How it works: the name of an event says all that must be known: it stands in the `event:` line, and in `type` for
servers that leave the line out (WIRE 3, 6).
Doubted: the sequence number of our error event. It would have to follow the last one, which is not kept; clients use it
to resume, and after an error there is nothing to resume.
"""

from __future__ import annotations

from typing import Final

import orjson

from proxy.dialects.body import CAPS, MORE_MODELS, MemberReader
from proxy.dialects.call import Call, Meter
from proxy.dialects.meter import AnswerMeter, EventMeter, Reading, reader
from proxy.dialects.openai import error_object
from proxy.dialects.shapes import OutputItem, ResponsesAnswer, ResponsesEvent
from proxy.dialects.usage import as_model, counted_tokens, responses
from proxy.dialects.watch import NamedWatch, is_filled, parse
from proxy.outcome import Failure, Usage
from proxy.wire.sse import EventFraming

_BEGINNINGS: Final = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDINGS: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


class ResponsesWatch(NamedWatch):
    """Watches `response.*` events."""

    __slots__ = ()
    usual = b"event: response.output_text.delta\ndata: {"

    def _see(self, name: bytes, data: bytes) -> bool:
        if data.startswith(b"[DONE]"):  # OpenRouter alone sends it
            self.is_complete = self.is_terminal = True
            return True
        kind = name.decode("ascii", "replace")
        if not kind:
            event = parse(data)
            if not isinstance(event, dict):
                return is_filled(data)
            if is_filled(event.get("error")):
                return self._fail()
            kind = str(event.get("type"))
        if kind in ("keepalive", "ping"):
            return self._pass_over()
        if kind in _BEGINNINGS:
            return False
        if kind == "error":
            return self._fail()
        if kind in _ENDINGS:
            self.is_complete = self.is_terminal = True
            self.has_error = self.has_error or kind == "response.failed"
        return True


_read_response, _read_event, _read_output = reader(ResponsesAnswer), reader(ResponsesEvent), reader(list[OutputItem])


def _usage_of(response: ResponsesAnswer) -> Usage | None:
    if response.object == "response.input_tokens":
        return counted_tokens({"input_tokens": response.input_tokens})
    usage = responses(response.usage)
    if usage is not None and not usage.searches:
        # OpenAI bills its web searches by the call, and reports them nowhere else (WIRE 4).
        usage.searches = sum(map(_is_search, _read_output(bytes(response.output))))
    return usage


def _is_search(item: OutputItem) -> bool:
    action = item.action
    kind = action.get("type") if isinstance(action, dict) else None
    return item.type == "web_search_call" and kind in (None, "search")  # opening a page found before costs nothing


def _read_answer(data: bytes) -> Reading:
    response = _read_response(data)
    return Reading(as_model(response.model), _usage_of(response))


class ResponsesMeter(EventMeter):
    """Reads the event that ends a stream, which alone has a usage."""

    __slots__ = ()
    needle = b'"output_tokens"'  # the events before it have `"usage":null` and `"max_output_tokens"`

    def _see(self, data: bytes) -> None:
        event = _read_event(data)
        usage = _usage_of(event.response) if event.type in _ENDINGS else None
        if usage is not None:
            self._report(usage, as_model(event.response.model), usage.output is not None)

    def _model_in(self, data: bytes) -> str | None:
        return as_model(_read_event(data).response.model)


class OpenAIResponses:
    """POST /v1/responses."""

    name = "openai-responses"
    framing = EventFraming.SSE
    _reader = MemberReader("model", "stream", *CAPS, *MORE_MODELS)

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        members = self._reader.read(body)
        cap, names_more = members.cap(CAPS), members.is_any(MORE_MODELS)
        is_free = path.endswith(b"/responses/input_tokens")
        return Call(members.text("model"), members.flag("stream"), cap, is_free=is_free, names_more=names_more)

    def watch(self) -> ResponsesWatch:
        return ResponsesWatch()

    def meter(self, is_stream: bool) -> Meter:
        return ResponsesMeter() if is_stream else AnswerMeter(_read_answer, ("usage",))

    def error_body(self, failure: Failure, status: int, request_id: str) -> bytes:
        return orjson.dumps({"error": error_object(failure, status)})

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        # Flat as documented, and nested: openai-python raises for `error` only, and yields the flat form as an event.
        error = error_object(failure, status)
        event = {
            "type": "error",
            "code": error["code"],
            "message": error["message"],
            "param": None,
            "sequence_number": 0,
            "error": error,
        }
        return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"
