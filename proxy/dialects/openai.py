"""OpenAI's chat, completions and embeddings, as OpenAI and its many imitators speak them.

Lives here: three dialects, watch and meter of streams of `choices`, the error body and event.
May not live here: the Responses API (responses), what usage means (usage).
How it works: all text deltas of a stream begin with the same bytes (id, model, ... up to the text), so the watch learns
them from the first one and recognises the rest without parsing. What begins otherwise, or could hold an ending or an
error, is parsed (WIRE 2, 3, 6, 7).
Doubted: with `n` > 1 the first finished choice completes the stream; indices are not followed, [DONE] follows anyway.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

import orjson

from proxy.dialects.body import CAPS, MORE_MODELS, MemberReader, Members, asks_for_usage
from proxy.dialects.call import Call, Meter
from proxy.dialects.failures import sentence
from proxy.dialects.meter import AnswerMeter, EventMeter, Reading, reader
from proxy.dialects.shapes import ChatChoice, ChatChunk
from proxy.dialects.usage import as_model, chat, embeddings, timings
from proxy.dialects.watch import EventWatch, is_filled, parse
from proxy.outcome import Failure, Kind, Usage
from proxy.wire.sse import EventFraming, split_events

_QUOTE: Final = 0x22
# A member that holds generated text which is not empty. The bytes `"content":"` are a key: inside a string the quotes
# would be escaped.
_TEXT: Final = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|arguments)":"(?!")(?=((?:[^"\\]++|\\.)*+)")', re.DOTALL
)
_NEVER: Final = b"\xff"  # in no JSON
_LONGEST_HEAD: Final = 1024  # bytes learned of a stream; Perplexity alone has more before the text, and is parsed


class ChoicesWatch(EventWatch):
    """Watches chat chunks (`choices[].delta`) and completions chunks (`choices[].text`).

    In most streams all text deltas begin and end alike, and both are learned of the first one. What stands between the
    two is looked at alone: without a quote it is text, and nothing else.
    """

    __slots__ = ("_head", "_head_size", "_mark", "_tail", "_tail_size")

    def __init__(self) -> None:
        super().__init__()
        self._learn(_NEVER, _NEVER)  # nothing yet

    def _learn(self, head: bytes, tail: bytes) -> None:
        self._head = head  # how this stream's text deltas begin, up to and including the quote before the text
        self._head_size = len(head)
        self._tail = tail  # how they end, from the quote behind the text on
        self._tail_size = len(tail)
        self._mark = head[max(head.rfind(b'"choices"'), 0) :]  # the part that no event has twice

    def feed(self, block: bytes) -> bool:
        # A delta of 320 bytes: 0.42 us, parsed 3.4 us; 200 of them in one block ("w.feed(DELTA * 200)"): 0.36 us each
        # python -m timeit -s "from tests.dialects.cost import DELTA, chat_watch; w = chat_watch()" "w.feed(DELTA)"
        at = count = 0
        while True:
            text = at + self._head_size
            quote = block.find(b'"', text)
            if quote <= text or block[at:text] != self._head:
                break
            at = quote + self._tail_size
            if block[quote:at] != self._tail:
                break
            count += 1
            if at == len(block):
                self.events += count
                self.texts += 1
                return True
        return (block.startswith(self._head) and self._is_usual(block)) or self._feed_events(block)

    def _is_usual(self, block: bytes) -> bool:
        """Deltas that begin alike and end each in its own way (OpenAI's `obfuscation`), or whose text has quotes."""
        size = self._head_size
        if not block.endswith(b"\n\n") or block[size] == _QUOTE:
            return False
        count = 1
        if block.find(b"\n", size) != len(block) - 2:
            count = block.count(self._mark)
            if block.count(b"\n") != 2 * count:
                return False  # else there is nothing but events of one line that have what was learned
        # rfind takes half of what find does.
        if block.rfind(b'"finish_reason":"', size) >= 0 or block.rfind(b'"error"', size) >= 0:
            return False
        self.events += count
        return True

    def _feed_events(self, block: bytes) -> bool:
        progress = self.feed_slowly(block)
        if progress and not self.is_complete and block.startswith(b"data: {") and b'"finish_reason":null' in block:
            found = _TEXT.search(block)
            if found and found.end() <= _LONGEST_HEAD and block.find(b"\n", 0, found.end(1)) < 0:
                rest = block[found.end(1) :]
                end = rest.find(b"\n\n") + 2
                tail = rest[:end]
                tells_more = b'"finish_reason":"' in tail or b'"error"' in tail
                is_usual = end >= 2 and rest.find(b"\n") == end - 2 and not tells_more
                self._learn(block[: found.end()], tail if is_usual else _NEVER)
        return progress

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
        # A list without choices is OpenAI's usage chunk, which is the end of work, or Azure's filter results for the
        # prompt, which are the beginning.
        progress = not choices and is_filled(chunk.get("usage"))
        if not choices and isinstance(chunk.get("usage"), dict):
            self.has_report = True
        for choice in choices:
            if not isinstance(choice, dict) or self._see_choice(choice):
                progress = True
        return progress

    def _see_choice(self, choice: dict[str, object]) -> bool:
        reason = choice.get("finish_reason")
        if is_filled(choice.get("error")) or reason == "error":
            return self._fail()
        if is_filled(reason):
            self.is_complete = True
            return True
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            return any(is_filled(value) for key, value in delta.items() if key != "role")
        return is_filled(choice.get("text")) or is_filled(delta)


_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_TWO_ENDS: Final = (
    b"\n\n",
    b"\n\r",
    b"\r\r",
)  # of lines: every blank line, whatever ends it, has one of these before it
_BLANK_LINES: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)+")


def without_usage_event(data: bytes) -> bytes:
    """A piece of a stream without the events in it that only report usage: `"choices":[]` beside a usage (WIRE 1). All
    other bytes stay: comments, the usage in events with choices, errors, and events that begin or end elsewhere."""
    # Only what stands around an empty list of choices is looked at: in 256 KB of deltas 0.5 ms, event by event 4
    # (python -m timeit -s "from tests.dialects.cost import DELTA; from proxy.dialects.openai import without_usage_event
    # as w; b = DELTA * 800 + b'data: {\"choices\":[],\"usage\":{}}\n\n'" "w(b)")
    kept = []
    done = seen = 0  # what is in `kept`, or is left out; what has been looked at
    for found in _NO_CHOICES.finditer(data):
        at = found.start()
        if at < seen:
            continue
        start = max(seen, *[data.rfind(ends, seen, at) for ends in _TWO_ENDS])
        start = at - len(data[start:at].lstrip(b"\r\n"))
        ending = _BLANK_LINES.search(data, at)
        seen = len(data) if ending is None else ending.end()
        if _only_reports_usage(data[start:seen]):
            kept.append(data[done:start])
            done = seen
    return b"".join([*kept, data[done:]]) if kept else data


def _only_reports_usage(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    pieces = list(split_events(event))
    chunk = parse(pieces[0][1]) if len(pieces) == 1 else None
    if not isinstance(chunk, dict) or _is_error(chunk):
        return False
    return chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)


def _is_error(chunk: dict[str, object]) -> bool:
    if is_filled(chunk.get("error")) or chunk.get("object") == "error":
        return True
    groq = chunk.get("x_groq")
    return isinstance(groq, dict) and is_filled(groq.get("error"))


_read_chunk, _read_choices = reader(ChatChunk), reader(list[ChatChoice])


def _usage_of(chunk: ChatChunk, model: str | None) -> Usage | None:
    usage = chat(chunk.usage, model)
    if usage is None and isinstance(chunk.x_groq, dict):
        usage = chat(chunk.x_groq.get("usage"))  # Groq until 2024; now it is a copy (WIRE 7)
    return usage or timings(chunk.timings)


def _read_answer(data: bytes) -> Reading:
    chunk = _read_chunk(data)
    model = as_model(chunk.model)
    return Reading(model, _usage_of(chunk, model))


def _read_embeddings(data: bytes) -> Reading:
    chunk = _read_chunk(data)
    return Reading(as_model(chunk.model), embeddings(chunk.usage))


class ChoicesMeter(EventMeter):
    """Reads chunks that report usage: the last report stands, wherever it comes, and nothing is added up (WIRE 0.2,
    0.3). A server that tells an output of 0 while choices go on has told nothing yet."""

    __slots__ = ()
    # In the names of all figures of `usage` and of llama.cpp's `timings`, and not in `"usage":null`, which every other
    # chunk has where usage was asked for.
    needle = b"_token"
    running = b'"completion_tokens"'
    unless = b'"tool_calls"'  # vLLM, Perplexity; some send arguments unquoted

    def _see(self, data: bytes) -> None:
        chunk = _read_chunk(data)
        model = as_model(chunk.model)
        usage = _usage_of(chunk, model)
        if usage is not None:
            choices = _read_choices(bytes(chunk.choices))
            is_last = not choices or any(is_filled(choice.finish_reason) for choice in choices)
            usage.complete = usage.complete and is_last
            self._report(usage, model, bool(usage.output) or (is_last and usage.output is not None))

    def _model_in(self, data: bytes) -> str | None:
        return as_model(_read_chunk(data).model)


_new: Final = tuple.__new__
_AZURE_PATH: Final = re.compile(rb"/deployments/([^/]+)/")


def _model_of(members: Members, path: bytes) -> str | None:
    model = members.text("model")
    if model is None and (found := _AZURE_PATH.search(path)):
        return unquote(found[1].decode("utf-8", "replace"))  # Azure: the deployment stands in for the model (WIRE 1)
    return model


class OpenAIChat:
    """POST /v1/chat/completions."""

    name = "openai-chat"
    framing = EventFraming.SSE
    _reader = MemberReader("model", "stream", "stream_options", *CAPS, *MORE_MODELS)

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        # A body of 1.5 KB: 5.7 us, of it 1.4 in msgspec and 1.3 for the span
        # python -m timeit -s "from tests.dialects.cost import CHAT_BODY as b; from proxy.dialects import DIALECTS;
        # d = DIALECTS['openai-chat']" "d.read_call(b, b'/v1/chat/completions', b'')"
        members = self._reader.read(body)
        model, cap, names_more = _model_of(members, path), members.cap(CAPS), members.is_any(MORE_MODELS)
        if not members.flag("stream"):
            return _new(Call, (model, False, cap, None, False, False, names_more))  # 0.5 us less than Call(...)
        lacks_usage = not asks_for_usage(members.raw.get("stream_options"))
        return Call(model, stream=True, cap=cap, lacks_usage=lacks_usage, names_more=names_more)

    def watch(self) -> EventWatch:
        return ChoicesWatch()

    def meter(self, is_stream: bool) -> Meter:
        return ChoicesMeter() if is_stream else AnswerMeter(_read_answer, ("usage", "x_groq", "timings"))

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
    _reader = MemberReader("model", *MORE_MODELS)

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        members = self._reader.read(body)
        names_more = members.is_any(MORE_MODELS)
        return Call(_model_of(members, path), cap=0, names_more=names_more)  # nothing is generated

    def meter(self, is_stream: bool) -> Meter:
        return AnswerMeter(_read_embeddings, ("usage",))

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        return b""


_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_object(failure: Failure, status: int) -> dict[str, object]:
    """The value of `error` in OpenAI's bodies and events."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    if failure.kind is Kind.BUDGET:
        kind = "insufficient_quota"  # as OpenAI calls it; agents look for that
    return {
        "message": sentence(failure),
        "type": kind,
        "param": None,
        "code": failure.kind.value,
    }
