"""Ollama's own API: lines of JSON, and streams unless told otherwise.

Lives here: the dialect of /api/chat and /api/generate, its watch and meter.
May not live here: Ollama's /v1, which is openai-chat.
How it works: a line with `"done":false` and some text is recognised without parsing; all others are parsed (WIRE 2, 3).
Doubted: Ollama reads member names in any letter case, so other spellings of what we read are refused, not obeyed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from proxy.dialects.body import MemberReader
from proxy.dialects.call import Call, Meter, UnreadableBody
from proxy.dialects.failures import sentence
from proxy.dialects.meter import AnswerMeter, EventMeter, Reading, reader
from proxy.dialects.shapes import OllamaLine
from proxy.dialects.usage import as_model, ollama
from proxy.dialects.watch import EventWatch, is_filled, parse
from proxy.outcome import Failure
from proxy.wire.sse import EventFraming

_NOT_TEXT: Final = frozenset({"model", "created_at", "role", "done", "remote_model", "remote_host", "total_duration"})


class OllamaWatch(EventWatch):
    """Watches lines of chat (`message`) and generate (`response`)."""

    __slots__ = ()

    def feed(self, block: bytes) -> bool:
        if b'"error"' not in block and b'"done":true' not in block and b'content":""' not in block:
            lines = block.count(b"\n")
            if (
                block.count(b'"done":false') == lines
                and block.endswith(b"}\n")
                and (block.count(b'"content":"') == lines or block.count(b'"response":"') == lines)
                and b'"response":""' not in block
            ):
                self.events += lines
                return True
        return self.feed_slowly(block)

    def feed_slowly(self, block: bytes) -> bool:
        progress = False
        for line in block.split(b"\n"):
            if line.strip():
                self.events += 1
                if self._see(b"", line):
                    progress = True
        return progress

    def _see(self, name: bytes, data: bytes) -> bool:
        line = parse(data)
        if not isinstance(line, dict):
            return True
        if is_filled(line.get("error")):
            return self._fail()
        if line.get("done") is True:
            self.is_complete = self.is_terminal = True
            return True
        message = line.get("message")
        texts = {**line, **message} if isinstance(message, dict) else line
        return any(is_filled(value) for key, value in texts.items() if key not in _NOT_TEXT and key != "message")


_read_line = reader(OllamaLine)


def _read_answer(data: bytes) -> Reading:
    line = _read_line(data)
    return Reading(as_model(line.model), ollama(line.prompt_eval_count, line.eval_count))


class OllamaMeter(EventMeter):
    """Reads the line with `"done":true`, which alone has the figures."""

    __slots__ = ()
    needle = b'eval_count"'  # of both figures, since either may be left out

    def _split(self, block: bytes) -> Iterable[bytes]:
        return block.split(b"\n")

    def _see(self, data: bytes) -> None:
        line = _read_line(data)
        usage = ollama(line.prompt_eval_count, line.eval_count)
        if usage is not None and line.done is True:
            self._report(usage, as_model(line.model), usage.output is not None)

    def _model_in(self, data: bytes) -> str | None:
        return as_model(_read_line(data).model)


class Ollama:
    """POST /api/chat, /api/generate."""

    name = "ollama"
    framing = EventFraming.NDJSON
    _reader = MemberReader("model", "stream", "options")
    _options_reader = MemberReader("num_predict")

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        members = self._reader.read(body)
        stream = members.flag("stream", default=not path.endswith((b"/embed", b"/embeddings", b"/show")))
        cap = self._read_cap(members.raw.get("options"))
        return Call(members.text("model"), stream, cap)

    def _read_cap(self, options: bytes | None) -> int | None:
        if options is None or options == b"null":
            return None
        try:
            # 0 is no cap for Ollama, nor is what is negative
            return self._options_reader.read(options).cap(("num_predict",))
        except UnreadableBody as error:
            raise UnreadableBody(f'in "options": {error}') from None

    def watch(self) -> OllamaWatch:
        return OllamaWatch()

    def meter(self, is_stream: bool) -> Meter:
        return OllamaMeter() if is_stream else AnswerMeter(_read_answer, ("prompt_eval_count", "eval_count"))

    def error_body(self, failure: Failure, status: int, request_id: str) -> bytes:
        return orjson.dumps({"error": sentence(failure)})

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        return self.error_body(failure, status, request_id) + b"\n"
