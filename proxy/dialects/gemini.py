"""Google's generateContent family: model and stream flag stand in the path.

Lives here: the dialect, its watch and meter, `find_model` for whoever must write the path anew.
May not live here: carriers of keys (`?key=`): they are cut off before anything is read.
How it works: with `alt=sse` an answer is a stream of events with CRLF, without it one JSON array whose elements are the
same objects. The watch tells them apart by the first byte of a block (WIRE 2, 3, 6).
Doubted: a stream has no terminal event, and chunks may follow the one with `finishReason`; only the array's closing
bracket is terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from proxy.dialects.body import MemberReader, as_count
from proxy.dialects.call import Call, Meter, UnreadableBody
from proxy.dialects.failures import sentence
from proxy.dialects.meter import AnswerMeter, EventMeter, Reading, reader
from proxy.dialects.shapes import GeminiAnswer, GeminiCandidate
from proxy.dialects.usage import as_model, counted_tokens, generate_content
from proxy.dialects.watch import EventWatch, is_filled, parse
from proxy.outcome import Failure
from proxy.wire.sse import EventFraming

# The model may hold slashes (`provider/model`); its last colon, raw or escaped, begins the action.
_MODEL_PATH: Final = re.compile(rb"/(?:models|tunedModels|endpoints)/(.+)(?::|%3[Aa])([A-Za-z]+)\Z")
_STREAMS: Final = re.compile(rb"(?::|%3[Aa])streamGenerateContent\Z")
_SSE_QUERY: Final = re.compile(rb"(?:^|&)(?:\$|%24)?alt=sse(?:&|\Z)", re.IGNORECASE)
_UNSPECIFIED: Final = ("FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", 0)


class ModelInPath(NamedTuple):
    """Where a path names its model."""

    model: str
    start: int  # of the raw model in the path
    end: int
    action: str  # generateContent, streamGenerateContent, countTokens, embedContent ...


def find_model(path: bytes) -> ModelInPath | None:
    """The model and the action of a path like `/v1beta/models/{m}:generateContent`, or None."""
    found = _MODEL_PATH.search(path)
    if found is None:
        return None
    model = unquote_to_bytes(found[1]).decode("utf-8", "replace")
    return ModelInPath(model, found.start(1), found.end(1), found[2].decode())


class GenerateContentWatch(EventWatch):
    """Watches GenerateContentResponse objects, as events or as elements of an array."""

    __slots__ = ()

    def feed(self, block: bytes) -> bool:
        if block.lstrip()[:1] in (b"[", b",", b"]"):
            return self._feed_elements(block)
        if (
            block.startswith(b"data: {")
            and b'"text": "' in block
            and b'"text": ""' not in block
            and b'"finishReason"' not in block
            and b'"blockReason"' not in block
            and b'"error"' not in block
        ):
            self.events += 1 + block.count(b"\ndata:")
            return True
        return self.feed_slowly(block)

    def _feed_elements(self, block: bytes) -> bool:
        inner = block.strip(b"[], \t\r\n")  # elements are objects, so no bracket of theirs is lost
        elements = parse(b"[" + inner + b"]") if inner else []
        elements = elements if isinstance(elements, list) else [elements]
        self.events += len(elements)
        progress = self._see_all(elements)
        if block.rstrip().endswith(b"]"):
            self.is_terminal = True
        return progress

    def _see(self, name: bytes, data: bytes) -> bool:
        if name == b"error":
            return self._fail()
        value = parse(data)
        if isinstance(value, list):
            return self._see_all(value)
        return self._see_object(value)

    def _see_all(self, answers: list[object]) -> bool:
        progress = False
        for answer in answers:
            if self._see_object(answer):
                progress = True
        return progress

    def _see_object(self, answer: object) -> bool:
        if not isinstance(answer, dict):
            return True
        if is_filled(answer.get("error")):
            return self._fail()
        feedback = answer.get("promptFeedback")
        if isinstance(feedback, dict) and _is_given(feedback.get("blockReason")):
            self.is_complete = True
            return True
        candidates = answer.get("candidates")
        if not isinstance(candidates, list):
            return not answer.keys() & {"usageMetadata", "responseId", "modelVersion"}
        progress = False
        for candidate in candidates:  # all of them: each may hold an ending
            if self._see_candidate(candidate):
                progress = True
        return progress

    def _see_candidate(self, candidate: object) -> bool:
        if not isinstance(candidate, dict):
            return True
        if _is_given(candidate.get("finishReason")):
            self.is_complete = True
            return True
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        if isinstance(parts, list) and any(_is_filled_part(part) for part in parts):
            return True
        return any(is_filled(value) for key, value in candidate.items() if key not in ("content", "index"))


_read_one, _read_all, _read_candidates = reader(GeminiAnswer), reader(list[GeminiAnswer]), reader(list[GeminiCandidate])


def _read_answer(data: bytes) -> Reading:
    answer = _read_one(data)
    usage = generate_content(answer.usage_metadata) or counted_tokens({"totalTokens": answer.total_tokens})
    return Reading(as_model(answer.model_version), usage)


class GenerateContentMeter(EventMeter):
    """Reads the usage of every chunk: the last one stands (WIRE 0.8)."""

    __slots__ = ()
    needle = b'"usageMetadata"'
    running = b'"candidatesTokenCount"'
    unless = b'"args"'

    def _split(self, block: bytes) -> Iterable[bytes]:
        if block.lstrip()[:1] in (b"[", b",", b"]"):
            return (b"[" + block.strip(b"[], \t\r\n") + b"]",)
        return super()._split(block)

    def _see(self, data: bytes) -> None:
        for answer in _answers(data):
            usage = generate_content(answer.usage_metadata, self._usage)
            if usage is not None:
                candidates = bytes(answer.candidates)
                is_last = b'"finishReason"' in candidates and any(
                    _is_given(each.finish_reason) for each in _read_candidates(candidates)
                )
                usage.complete = usage.complete and is_last
                self._report(usage, as_model(answer.model_version), usage.output is not None)

    def _model_in(self, data: bytes) -> str | None:
        return next((as_model(answer.model_version) for answer in _answers(data)), None)


def _answers(data: bytes) -> Sequence[GeminiAnswer]:
    if data.lstrip()[:1] == b"[":
        return _read_all(data)
    return (_read_one(data),)


def _is_given(reason: object) -> bool:
    return is_filled(reason) and reason not in _UNSPECIFIED  # some Vertex clients get enums as integers (WIRE 3)


def _is_filled_part(part: object) -> bool:
    if not isinstance(part, dict):
        return True
    return any(is_filled(value) for key, value in part.items() if key != "thought")


class Gemini:
    """POST /v1beta/models/{m}:generateContent, :streamGenerateContent and the other actions; Vertex the same."""

    name = "gemini"
    framing = EventFraming.SSE
    _reader = MemberReader("generationConfig", "generation_config")
    _config_reader = MemberReader("maxOutputTokens", "max_output_tokens")

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        found = find_model(path)
        cap = self._read_cap(body)
        model = None if found is None else found.model
        if _STREAMS.search(path) is None:
            action = "" if found is None else found.action
            if action in ("embedContent", "batchEmbedContents"):
                cap = 0  # nothing is generated
            return Call(model, cap=cap, is_free=action == "countTokens")
        framing = EventFraming.SSE if _SSE_QUERY.search(query) else EventFraming.JSON_ARRAY
        return Call(model, stream=True, cap=cap, framing=framing)

    def _read_cap(self, body: bytes) -> int | None:
        config = _only("generationConfig", self._reader.read(body).raw)
        if config is None or config == b"null":
            return None
        try:
            # 0 is as good as absent in protobuf
            return as_count("maxOutputTokens", _only("maxOutputTokens", self._config_reader.read(config).raw)) or None
        except UnreadableBody as error:
            raise UnreadableBody(f'in "generationConfig": {error}') from None

    def watch(self) -> GenerateContentWatch:
        return GenerateContentWatch()

    def meter(self, is_stream: bool) -> Meter:
        if is_stream:
            return GenerateContentMeter()
        return AnswerMeter(_read_answer, ("usageMetadata", "totalTokens"), "modelVersion")

    def error_body(self, failure: Failure, status: int, request_id: str) -> bytes:
        reason = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": failure.kind.value.upper(),
            "domain": "llm-proxy",
            "metadata": {"request_id": request_id},
        }
        # `error` must come first and alone: google-genai compares the beginning of the text.
        error = {"code": status, "message": sentence(failure), "status": _rpc_status(status), "details": [reason]}
        return orjson.dumps({"error": error})

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        """For `alt=sse` only: a JSON array has no place for it."""
        return b"data: " + self.error_body(failure, status, request_id) + b"\r\n\r\n"


def _only(name: str, raw: dict[str, bytes]) -> bytes | None:
    # Protobuf's JSON takes lowerCamelCase and the snake_case of the definition for the same field.
    if len(raw) > 1:
        raise UnreadableBody(f'"{name}" occurs twice, in both spellings')
    return next(iter(raw.values()), None)


_RPC_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}


def _rpc_status(status: int) -> str:
    return _RPC_STATUS.get(status, "UNAVAILABLE" if status >= 500 else "INVALID_ARGUMENT")
