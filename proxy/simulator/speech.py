"""What a real provider would answer.

Lives here: `Ask` (what a request wants, read by code of our own) and `answer` (an Answer whose parts come lazily).
May not live here: how an answer is broken (script) or sent (provider).
How it works: `read_ask` looks at method, path, query and body; `answer` picks the dialect's voice and lets it speak
the text the faults ask for; anything unknown is answered with the request itself as JSON. Same in, same out. Each part
says which usage it reports, for the books.
Doubted: input tokens are a quarter of the request's bytes, output tokens the deltas, unless other figures are ordered:
plausible, checkable, not true.
"""

from __future__ import annotations

import base64
import itertools
import re
import struct
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from proxy.simulator.faults import FaultError, Faults
from proxy.simulator.voices import Anthropic, Gemini, Kind, Ollama, Report, Voice
from proxy.simulator.voices_openai import OpenAIChat, OpenAICompletions, OpenAIEmbeddings, OpenAIResponses

TEXT = "The simulated provider says hello: grüße, 你好, ✓ all is well, and nothing of this was thought up by a model. "
MODELS = ("sim", "sim-tool", "sim-cut:3", "sim-stall:3", "sim-error:3", "sim-status:429", "sim:pace=20,events=100")
LARGE = 8 * 1024  # characters of a delta where only the amount counts
MOST_WHOLE = 64 * 1024 * 1024  # bytes of an answer that has to be built whole

Headers = list[tuple[str, str]]


class Part(NamedTuple):
    kind: Kind
    data: bytes
    report: Report | None = None  # the usage that stands in it


class Answer(NamedTuple):
    status: int
    headers: Headers  # without framing
    parts: Iterator[Part]
    streamed: bool  # chunked by default, one chunk per event; else a content-length


class Ask(NamedTuple):
    """What a request wants. `dialect` "plain": nothing that is known here."""

    dialect: str
    operation: str  # generate, count, embed, models
    model: str
    stream: bool = False
    with_usage: bool = False
    as_array: bool = False
    tool: str = ""  # the first tool that is offered
    inputs: int = 1
    base64: bool = False
    dimensions: int = 8


class Request(NamedTuple):
    """A request as far as it matters here; `body` is None where it was too large to keep."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes | None
    digest: str
    size: int


_GEMINI = re.compile(r"/models/(.+):(generateContent|streamGenerateContent|countTokens|embedContent)$")
_PATHS = {  # the end of a path -> dialect, operation; the first that fits
    "/chat/completions": ("openai-chat", "generate"),
    "/completions": ("openai-completions", "generate"),
    "/responses": ("openai-responses", "generate"),
    "/embeddings": ("openai-embeddings", "embed"),
    "/messages/count_tokens": ("anthropic-messages", "count"),
    "/messages": ("anthropic-messages", "generate"),
    "/api/chat": ("ollama", "generate"),
    "/api/generate": ("ollama", "generate"),
}
_VOICES: dict[str, type[Voice]] = {
    "openai-chat": OpenAIChat,
    "openai-completions": OpenAICompletions,
    "openai-responses": OpenAIResponses,
    "openai-embeddings": OpenAIEmbeddings,
    "anthropic-messages": Anthropic,
    "gemini": Gemini,
    "ollama": Ollama,
    "plain": OpenAIChat,
}

_PRETTY = (OpenAIChat, OpenAIEmbeddings, Gemini)  # their errors have line ends and indents


def read_ask(method: str, target: str, body: bytes | None) -> Ask:
    """What is asked; an unreadable body is read as an empty one (a provider would refuse it, we want to answer)."""
    path, _, query = target.partition("?")
    path = urllib.parse.unquote(path)
    if method == "GET" and path.endswith(("/models", "/api/tags")):
        return Ask("ollama" if path.endswith("/api/tags") else "openai-chat", "models", "")
    if method != "POST":
        return Ask("plain", "", "")
    fields = _fields(body)
    found = _GEMINI.search(path)
    if found:
        return _gemini_ask(found[1], found[2], query, fields)
    for end, (dialect, operation) in _PATHS.items():
        if path.endswith(end):
            return _body_ask(dialect, operation, fields)
    return Ask("plain", "", "")


def _fields(body: bytes | None) -> dict[str, Any]:
    try:
        value = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _gemini_ask(model: str, verb: str, query: str, fields: dict[str, Any]) -> Ask:
    as_array = urllib.parse.parse_qs(query).get("alt") != ["sse"]
    operation = {"countTokens": "count", "embedContent": "embed"}.get(verb, "generate")
    tool = ""
    for entry in _list(fields.get("tools")):
        for declared in _list(entry.get("functionDeclarations")):
            tool = tool or str(declared.get("name", ""))
    return Ask("gemini", operation, model, verb == "streamGenerateContent", as_array=as_array, tool=tool)


def _body_ask(dialect: str, operation: str, fields: dict[str, Any]) -> Ask:
    options = fields.get("stream_options")
    tool = ""
    for entry in _list(fields.get("tools")):
        function = entry.get("function")
        named = function if isinstance(function, dict) else entry
        tool = tool or str(named.get("name", ""))
    given = fields.get("input")
    dimensions = fields.get("dimensions")
    return Ask(
        dialect,
        operation,
        str(fields.get("model", "")),
        stream=fields.get("stream", dialect == "ollama") is True and operation == "generate",
        with_usage=isinstance(options, dict) and options.get("include_usage") is True,
        tool=tool,
        inputs=len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1,
        base64=fields.get("encoding_format") == "base64",
        dimensions=dimensions if isinstance(dimensions, int) and 0 < dimensions <= 4096 else 8,
    )


def _list(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def voice_of(ask: Ask, serial: int, size: int, target: str = "") -> Voice:
    """The voice for one answer; `size`: bytes of the request's body."""
    voice = _VOICES[ask.dialect](ask.model, serial, max(1, (size + 3) // 4), with_usage=ask.with_usage)
    if isinstance(voice, Gemini):
        voice.as_array = ask.stream and ask.as_array
    if isinstance(voice, Ollama):
        voice.generates = target.partition("?")[0].endswith("/api/generate")
    return voice


def answer(ask: Ask, request: Request, faults: Faults, voice: Voice) -> Answer:
    """The answer, still without anything wrong in it but its status. Raises FaultError for figures that cannot be."""
    if faults.quote:
        voice.quoted = b"; ".join(b"%b: %b" % field for field in request.headers).decode("latin-1")
    if faults.status >= 400:
        return error(ask, voice, faults.status, voice.quoted)
    headers = [(voice.id_header, voice.quoted or request_id(voice.serial))]
    _order_usage(faults, voice)
    if faults.echo is not None or (ask.dialect == "plain"):
        return echo(request, headers, faults)
    if ask.operation == "generate" and ask.stream:
        kind = "application/json" if isinstance(voice, Gemini) and voice.as_array else voice.content_type
        headers.append(("content-type", kind))
        if "event-stream" in kind:
            headers.append(("cache-control", "no-cache"))
        return Answer(faults.status, headers, _spoken(ask, faults, voice), True)
    value = _whole(ask, faults, voice) if ask.operation == "generate" else _other(ask, voice)
    body = orjson.dumps(value)
    return _json(faults.status, headers, body, voice.report_in(body))


def request_id(serial: int) -> str:
    """What the header of an answer names it by."""
    return f"req_sim{serial:08d}"


def _order_usage(faults: Faults, voice: Voice) -> None:
    parts = faults.cached + faults.cache_write
    problems = []
    if faults.input is not None and faults.input < parts:
        problems.append("cached and cache-write are parts of input: together they may not be more")
    if faults.output is not None and faults.output < (faults.reasoning or 0):
        problems.append("reasoning is a part of output: it may not be more")
    if problems:
        raise FaultError(problems)
    voice.tokens_in = voice.tokens_in + parts if faults.input is None else faults.input
    voice.cached = faults.cached
    voice.cache_write = faults.cache_write
    voice.reports = faults.usage != "never"
    voice.with_usage = voice.reports and (voice.with_usage or faults.usage == "always")


def error(ask: Ask, voice: Voice, status: int, message: str = "") -> Answer:
    """An error as the vendor writes it; `message` instead of the usual one."""
    name = request_id(voice.serial)
    value = voice.error(status, name)
    if message:
        inner = value["error"]
        if isinstance(inner, dict):
            inner["message"] = message
        else:
            value["error"] = message
    pretty = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE if type(voice) in _PRETTY else None
    body = orjson.dumps([value] if isinstance(voice, Gemini) and voice.as_array else value, option=pretty)
    kind = "text/event-stream" if ask.dialect == "gemini" and ask.stream and not ask.as_array else "application/json"
    headers = [(voice.id_header, voice.quoted or name), ("content-type", kind)]
    return Answer(status, headers, _halves(body), False)


def echo(request: Request, headers: Headers, faults: Faults) -> Answer:
    """The request: its body as it came, or all that is known of it as JSON, in order and letter case as sent."""
    if faults.echo == "body" and request.body is not None:
        kinds = [value.decode("latin-1") for name, value in request.headers if name.lower() == b"content-type"]
        kind = kinds[0] if kinds else "application/octet-stream"
        halves = _halves(request.body)
        return Answer(faults.status, [*headers, ("content-type", kind)], halves, False)
    sent = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers]
    value = {"method": request.method, "path": request.target, "sha256": request.digest, "bytes": request.size}
    return _json(faults.status, headers, orjson.dumps({**value, "headers": sent}))


def _json(status: int, headers: Headers, body: bytes, report: Report | None = None) -> Answer:
    return Answer(status, [*headers, ("content-type", "application/json")], _halves(body, report), False)


def _halves(body: bytes, report: Report | None = None) -> Iterator[Part]:
    middle = len(body) // 2
    return iter((Part(Kind.DELTA, body[:middle]), Part(Kind.DELTA, body[middle:], report)))


def pieces(faults: Faults) -> Iterator[str]:
    """The text of the answer, delta by delta. Without end where `bytes` is said: whoever sends them counts."""
    words = re.findall(r"\S+\s*|\s+", faults.text or TEXT)
    count = faults.events if faults.events is not None else (len(words) if faults.text else 8)
    for number in itertools.count():
        if number == 1 and faults.huge is not None:
            yield "h" * faults.huge
        elif faults.bytes is not None:
            yield "0123456789abcdef" * (LARGE // 16)
        elif number < count:
            yield _word(words, number, count)
        else:
            return


def _word(words: list[str], number: int, count: int) -> str:
    """Piece `number` of `count`: the words in turn; where there are more words than pieces, the last takes the rest."""
    if number == count - 1 and count < len(words):
        return "".join(words[number:])
    return words[number % len(words)]


def _spoken(ask: Ask, faults: Faults, voice: Voice) -> Iterator[Part]:
    sent = 0
    tool = _tool(ask, faults)
    for data in voice.opening():
        yield Part(Kind.OPEN, data, voice.report_in(data))
    for number in range(faults.think):
        for data in voice.thought(f"Step {number}. "):
            yield Part(Kind.DELTA, data, voice.report_in(data))
    if tool is not None:
        for data in voice.tool(*tool):
            yield Part(Kind.DELTA, data, voice.report_in(data))
    else:
        for text in pieces(faults):
            if faults.bytes is not None and sent >= faults.bytes:
                break
            data = voice.delta(text)
            sent += len(data)
            yield Part(Kind.DELTA, data, voice.report_in(data))
    voice.settle(faults.output, faults.reasoning)
    for kind, data in voice.closing(tool is not None):
        yield Part(kind, data, voice.report_in(data))


def _tool(ask: Ask, faults: Faults) -> tuple[str, dict[str, Any]] | None:
    if faults.tool is None:
        return None
    return faults.tool or ask.tool or "look_up", {"city": "Köln", "days": 3}


def _whole(ask: Ask, faults: Faults, voice: Voice) -> dict[str, Any]:
    texts: list[str] = []
    size = 0
    for text in pieces(faults):
        if size >= min(faults.bytes or MOST_WHOLE, MOST_WHOLE):
            break
        texts.append(text)
        size += len(text)
    voice.reasoning = faults.think
    voice.tokens_out = len(texts) + faults.think
    voice.settle(faults.output, faults.reasoning)
    return voice.whole("".join(texts), _tool(ask, faults))


def _other(ask: Ask, voice: Voice) -> dict[str, Any]:
    match ask.dialect, ask.operation:
        case "ollama", "models":
            return {"models": [{"name": name, "model": name} for name in MODELS]}
        case _, "models":
            shell = {"object": "model", "created": 1_764_000_000, "owned_by": "simulator"}
            return {"object": "list", "data": [{"id": name, **shell} for name in MODELS]}
        case "gemini", "count":
            return {"totalTokens": voice.tokens_in}
        case "gemini", _:
            return {"embedding": {"values": _vector(0, ask.dimensions)}}
        case _, "count":
            return {"input_tokens": voice.tokens_in}
    assert isinstance(voice, OpenAIEmbeddings)
    return voice.rows([{"object": "embedding", "index": n, "embedding": _embedding(ask, n)} for n in range(ask.inputs)])


def _vector(number: int, dimensions: int) -> list[float]:
    """Numbers that single precision holds exactly, so that both encodings say the same."""
    return [((number * 31 + place * 7) % 64 - 32) / 64 for place in range(dimensions)]


def _embedding(ask: Ask, number: int) -> list[float] | str:
    vector = _vector(number, ask.dimensions)
    if not ask.base64:
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
