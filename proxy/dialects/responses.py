"""OpenAI's Responses API.

Lives here: the dialect, its watch, its error event.
May not live here: stored responses (GET, DELETE, cancel): they are plain.
How it works: the name of an event says all that must be known: it stands in the `event:` line, and in `type` for
servers that leave the line out (WIRE 3, 6).
Doubted: the sequence number of our error event. It would have to follow the last one, which is not kept; clients use it
to resume, and after an error there is nothing to resume.
"""

from __future__ import annotations

import orjson

from proxy.dialects.body import MemberReader
from proxy.dialects.call import Call
from proxy.dialects.openai import error_object
from proxy.dialects.watch import NamedWatch, is_filled, parse
from proxy.outcome import Failure
from proxy.wire.sse import EventFraming

_BEGINNINGS = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDINGS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


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


class OpenAIResponses:
    """POST /v1/responses."""

    name = "openai-responses"
    framing = EventFraming.SSE
    _reader = MemberReader("model", "stream", "max_output_tokens")

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        members = self._reader.read(body)
        cap = members.count("max_output_tokens")
        return Call(members.text("model"), members.flag("stream"), cap)

    def watch(self) -> ResponsesWatch:
        return ResponsesWatch()

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
