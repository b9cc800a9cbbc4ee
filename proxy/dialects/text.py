"""What a model said: the generated text in the bytes of an answer, for counting its tokens where nobody reported them.

Lives here: `answer_text`, reading JSON for its text.
May not live here: what a request says (prompt), how text becomes tokens (tokens), what a provider reports (its meter).
How it works: text is kept by channel (kind, choice or item, part), so that choices and tool calls that interleave are
not glued together: "text.0", "reasoning.0", "refusal.0", "call.0.1" (name and arguments). Only deltas of a stream are
read, never the events that repeat them. Everything is parsed: this runs in the process that counts, never in the loop.
Doubted: a tool call of the Responses API whose arguments come in its `.done` event alone (LM Studio) is not seen, since
that event cannot be told from a repetition by who sees one part of the stream. A name that is repeated with each piece
of its arguments is taken once for each call of `answer_text`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from proxy.wire.sse import split_events

# A request asks for a handful of choices and tool calls; a hostile answer may name any number of them.
MAX_CHANNELS: Final = 64
REST: Final = "rest"  # the channel of all that would be one too many

_decode = msgspec.json.Decoder().decode
_raw_decode = json.JSONDecoder().raw_decode


class Channels:
    """Text by channel, in the order in which it came."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: dict[str, list[str]] = {}

    def add(self, channel: str, text: object) -> None:
        """Add `text` if it is some."""
        if isinstance(text, str) and text:
            self._pieces(channel).append(text)

    def add_call(self, channel: str, name: object, arguments: object) -> None:
        """Add the name of a tool and its arguments: text, or an object."""
        self.add(channel, name)
        self.add(channel, arguments if isinstance(arguments, str) else json_text(arguments))

    def begins_with(self, channel: str, text: object) -> bool:
        """Whether `text` was the first that came there."""
        pieces = self.pieces.get(channel)
        return pieces is not None and pieces[0] == text

    def _pieces(self, channel: str) -> list[str]:
        pieces = self.pieces.get(channel)
        if pieces is None:
            if len(self.pieces) >= MAX_CHANNELS:
                channel = REST
            pieces = self.pieces.setdefault(channel, [])
        return pieces


def answer_text(dialect: str, data: bytes, is_stream: bool) -> dict[str, str]:
    """The generated text in `data`, by channel. `data`: whole events of a stream, any number of them, or the whole JSON
    of an answer. Nothing where there is none, the dialect is not read, or bytes are not what they should be."""
    channels = Channels()
    read = _ANSWERS.get(dialect)
    if read is not None:
        for value in _values(dialect, data, is_stream):
            if isinstance(value, dict):
                read(value, is_stream, channels)
    return {name: "".join(pieces) for name, pieces in channels.pieces.items()}


def read_json(data: bytes) -> Any:
    """The JSON value of `data`, or None. Halves of surrogate pairs in escapes are kept as they are: a model may cut an
    emoji in two, and the other half be in the next event."""
    try:
        return _decode(data)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        pass
    if b"\\ud" not in data and b"\\uD" not in data:
        return None
    try:
        return json.loads(data)  # takes half a pair, and 5 times as long
    except (ValueError, RecursionError):
        return None


def json_text(value: object) -> str:
    """An object as the JSON a model would write; "" for an empty one, and for what is no object."""
    if not isinstance(value, (dict, list)) or not value:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False)  # blanks behind colons: so it stands in streams of Anthropic
    except RecursionError:  # deeper than the decoder's own limit: nobody means it
        return ""


def _values(dialect: str, data: bytes, is_stream: bool) -> Iterator[object]:
    """The JSON values of `data`, each one an event or the whole answer."""
    if not is_stream:
        value = read_json(data)
        yield from value if isinstance(value, list) else [value]
    elif dialect == "ollama":
        yield from map(read_json, data.split(b"\n"))
    elif dialect == "gemini" and data.lstrip()[:1] in (b"[", b",", b"]"):
        elements = read_json(b"[" + data.strip(b"[], \t\r\n") + b"]")  # elements are objects: no bracket is theirs
        yield from elements if isinstance(elements, list) else _elements_until_broken(data)
    else:
        for name, event in split_events(data):
            # The last event of a Responses stream repeats the whole answer: its name spares us reading it.
            if event[:1] == b"{" and (not name.startswith(b"response.") or name.endswith(_WANTED)):
                yield read_json(event)


def _elements_until_broken(data: bytes) -> Iterator[object]:
    """The elements of a piece of an array that ends in the middle of one."""
    text = data.decode("utf-8", "replace")
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value
        at = text.find("{", end)


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _number(value: object, default: int) -> int:
    return value if type(value) is int and 0 <= value < 100_000 else default


# -- OpenAI's choices, and Ollama, whose messages are of the same kind -------------------------------------------------


def _read_choices(chunk: dict[str, Any], is_stream: bool, out: Channels) -> None:
    for position, choice in enumerate(_dicts(chunk.get("choices"))):
        place = str(_number(choice.get("index"), position))
        # Perplexity sends both: in a stream `message` repeats all there was so far, in a whole answer `delta` is empty.
        first, second = choice.get("delta"), choice.get("message")
        if not is_stream:
            first, second = second, first
        said = first if isinstance(first, dict) else second
        if isinstance(said, dict):
            _read_message(said, place, out)
        else:
            out.add("text." + place, choice.get("text"))  # completions; Together repeats it beside a delta
    out.add("text.0", chunk.get("value"))  # Writer


def _read_message(message: dict[str, Any], place: str, out: Channels) -> None:
    content = message.get("content")
    if isinstance(content, str):
        out.add("text." + place, content)
    else:
        _read_parts(content, place, out)
    _read_reasoning(message, place, out)
    out.add("refusal." + place, message.get("refusal"))
    audio = message.get("audio")
    if isinstance(audio, dict):
        out.add("text." + place, audio.get("transcript"))
    for position, call in enumerate(_dicts(message.get("tool_calls"))):
        channel = f"call.{place}.{_number(call.get('index'), position)}"
        for kind, what in (("function", "arguments"), ("custom", "input")):
            if isinstance(called := call.get(kind), dict):
                name = called.get("name")
                if out.begins_with(channel, name):  # some servers repeat it with each piece
                    name = None
                out.add_call(channel, name, called.get(what))
    legacy = message.get("function_call")
    if isinstance(legacy, dict):
        out.add_call(f"call.{place}.0", legacy.get("name"), legacy.get("arguments"))


def _read_reasoning(message: dict[str, Any], place: str, out: Channels) -> None:
    # Some servers send the same text under two of these names (WIRE 7): the first that holds any is taken.
    for name in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(text := message.get(name), str) and text:
            out.add("reasoning." + place, text)
            return
    for detail in _dicts(message.get("reasoning_details")):
        out.add("reasoning." + place, detail.get("text") or detail.get("summary"))


def _read_parts(parts: object, place: str, out: Channels) -> None:
    """Content in parts: OpenAI's and Mistral's, whose thinking is a list of parts itself."""
    for part in _dicts(parts):
        out.add("text." + place, part.get("text"))
        out.add("refusal." + place, part.get("refusal"))
        for thought in _dicts(part.get("thinking")):
            out.add("reasoning." + place, thought.get("text"))


def _read_ollama(line: dict[str, Any], is_stream: bool, out: Channels) -> None:
    message = line.get("message")
    if isinstance(message, dict):
        _read_message(message, "0", out)
    out.add("text.0", line.get("response"))
    out.add("reasoning.0", line.get("thinking"))


# -- the Responses API -------------------------------------------------------------------------------------------------

_WANTED: Final = (b".delta", b"output_item.added")  # how the names of events end that hold new text
_KINDS: Final = {
    "response.output_text.delta": "text",
    "response.audio.transcript.delta": "text",
    "response.output_audio_transcript.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
}
_SOUNDS: Final = frozenset({"response.audio.delta", "response.output_audio.delta"})  # base64


def _read_responses(value: dict[str, Any], is_stream: bool, out: Channels) -> None:
    if not is_stream:
        for position, item in enumerate(_dicts(value.get("output"))):
            _read_item(item, str(position), out)
        return
    kind = str(value.get("type"))
    place = str(_number(value.get("output_index"), 0))
    if kind == "response.output_item.added":
        added = value.get("item")
        if isinstance(added, dict) and str(added.get("type")).endswith("_call"):
            out.add_call(f"call.{place}", added.get("name"), None)
    elif kind.endswith(".delta") and kind not in _SOUNDS:
        if (said := _KINDS.get(kind)) is None:  # the arguments of a tool, or its code
            out.add("call." + place, value.get("delta"))
        else:
            part = _number(value.get("content_index", value.get("summary_index")), 0)
            out.add(f"{said}.{place}.{part}", value.get("delta"))


def _read_item(item: dict[str, Any], place: str, out: Channels) -> None:
    kind = str(item.get("type"))
    if kind.endswith("_call"):
        given = next((item[name] for name in ("arguments", "input", "code") if item.get(name)), None)
        out.add_call("call." + place, item.get("name"), given)
    elif kind in ("message", "reasoning"):
        said = "text" if kind == "message" else "reasoning"
        for name in ("summary", "content"):
            for position, part in enumerate(_dicts(item.get(name))):
                out.add(f"{said}.{place}.{position}", part.get("text"))
                out.add(f"refusal.{place}.{position}", part.get("refusal"))


# -- Anthropic ---------------------------------------------------------------------------------------------------------


def _read_anthropic(value: dict[str, Any], is_stream: bool, out: Channels) -> None:
    if not is_stream:
        for position, block in enumerate(_dicts(value.get("content"))):
            _read_block(block, str(position), out)
        return
    place = str(_number(value.get("index"), 0))
    begun, delta = value.get("content_block"), value.get("delta")
    if isinstance(begun, dict):
        _read_block(begun, place, out)
    elif isinstance(delta, dict):
        out.add("text." + place, delta.get("text"))
        out.add("reasoning." + place, delta.get("thinking"))
        out.add("call." + place, delta.get("partial_json"))
        if delta.get("type") == "compaction_delta":
            out.add("compaction." + place, delta.get("content"))


def _read_block(block: dict[str, Any], place: str, out: Channels) -> None:
    kind = str(block.get("type"))
    if kind.endswith("tool_use"):  # also server_tool_use, mcp_tool_use; results of tools are not the model's words
        out.add_call("call." + place, block.get("name"), block.get("input"))
    elif kind == "compaction":
        out.add("compaction." + place, block.get("content"))
    elif kind in ("text", "thinking"):
        out.add("text." + place, block.get("text"))
        out.add("reasoning." + place, block.get("thinking"))


# -- Gemini ------------------------------------------------------------------------------------------------------------


def _read_gemini(answer: dict[str, Any], is_stream: bool, out: Channels) -> None:
    for position, candidate in enumerate(_dicts(answer.get("candidates"))):
        place = str(_number(candidate.get("index"), position))
        content = candidate.get("content")
        for part in _dicts(content.get("parts")) if isinstance(content, dict) else []:
            out.add(("reasoning." if part.get("thought") else "text.") + place, part.get("text"))
            call, code = part.get("functionCall"), part.get("executableCode")
            if isinstance(call, dict):
                out.add_call("call." + place, call.get("name"), call.get("args"))
                for piece in _dicts(call.get("partialArgs")):
                    out.add("call." + place, piece.get("stringValue"))
            if isinstance(code, dict):
                out.add("call." + place, code.get("code"))


_ANSWERS: dict[str, Callable[[dict[str, Any], bool, Channels], None]] = {
    "openai-chat": _read_choices,
    "openai-completions": _read_choices,
    "openai-responses": _read_responses,
    "anthropic-messages": _read_anthropic,
    "gemini": _read_gemini,
    "ollama": _read_ollama,
}
