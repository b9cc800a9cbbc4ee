"""What a simulated provider is told to do: one small grammar, read into one value.

Lives here: the words (`WORDS`), `read` and `combine` (spec -> Faults), `FaultError`, how a model name carries a spec.
May not live here: doing any of it (script, provider).
Doubted: whether `cut` should mean FIN or RST; both exist, FIN has the shorter name because it is the nastier one.

The grammar. A spec is a list of words, parted by blanks, commas or semicolons; a word is `name` or `name=value`; a
value with blanks stands in double quotes. Later words win; `plain` forgets everything said before it.

    pace=50 events=20 cut=5          status=429 retry-after=2          text="Hello there" gzip

It can be said, each one over the one before: as default of the process, as the request's model name
(`sim:cut=3,pace=10`, or short for one word: `sim-cut:3`), as request header `x-simulate: cut=3`. Words that act before
the body of the request has been read (marked *) are heard in the header and the default only (and in Gemini's path,
which names the model).

Events are counted as deltas, the events that carry text: `cut=3` acts when three of them are out, `cut=0` right after
the head, before any opening event; a number beyond the last delta acts before the closing events. An answer that is
not streamed counts as two halves. `WORDS` below says what each word does, in the order of an answer's life.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, NamedTuple


class FaultError(ValueError):
    """The spec cannot be understood. `problems` are sentences for the person who wrote it, all of them at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Word(NamedTuple):
    kind: str  # flag, count, seconds, offset, text, or the choices parted by "|"
    bare: Any  # the value without "=", None: a value must be given
    most: float  # the largest value that is taken
    meaning: str


_MANY = 10_000_000
_DAY = 86_400.0
_MIB = 1024 * 1024

WORDS: dict[str, Word] = {
    # what is said
    "plain": Word("flag", True, 1, "forget everything said before"),
    "text": Word("text", None, 65_536, "the text of the answer"),
    "events": Word("count", None, _MANY, "number of deltas the text is cut into or repeated to"),
    "bytes": Word("count", None, 10**12, "go on with large deltas until the body has this many bytes"),
    "huge": Word("count", 2 * _MIB, 64 * _MIB, "the second delta carries a text of this many bytes"),
    "tool": Word("text", "", 64, "answer with a tool call (of the first tool asked for, or of this name)"),
    "think": Word("count", 3, _MANY, "reasoning deltas before the text, where the dialect has them"),
    "echo": Word("head|body", "head", 0, "answer with the request: as JSON, or its body as it came"),
    "replay": Word("text", None, 400, "the recorded answer with this id (the simulator must have a folder of them)"),
    # what it is said to have used, in tokens; by itself a quarter of the request's bytes, and the deltas
    "input": Word("count", None, _MANY, "input tokens to report, cached and newly cached ones included"),
    "output": Word("count", None, _MANY, "output tokens to report in the end, reasoning included"),
    "cached": Word("count", 100, _MANY, "of the input, tokens read from a cache; without input= they come on top"),
    "cache-write": Word(
        "count", 100, _MANY, "of the input, tokens written to a cache; without input= they come on top"
    ),
    "reasoning": Word("count", 100, _MANY, "of the output, reasoning tokens; without output= they come on top"),
    "usage": Word(
        "always|never", "always", 0, "always: report it in streams that were not asked to as well; never: nowhere"
    ),
    # when
    "delay": Word("seconds", None, _DAY, "seconds of silence before the answer"),
    "pace": Word("seconds", None, 1e6, "deltas a second; 0 = as fast as they go"),
    "trickle": Word("seconds", 1.0, 1e9, "body bytes a second, in pieces as small as one byte"),
    "hold": Word("seconds", None, _DAY, "how long any silence lasts before the connection is closed (600)"),
    "ping": Word("seconds", 1.0, _DAY, "during a silence after the head: a comment or ping each so many seconds"),
    "comments": Word("flag", True, 1, "a comment before each delta (SSE)"),
    # before the answer
    "refuse": Word("flag", True, 1, "* RST at accept (as default) or when the request's head is in"),
    "deaf": Word("flag", True, 1, "* stop reading the request after its head, never answer"),
    "early": Word("count", 0, 10**12, "* answer when this many bytes of the request's body are in"),
    "reset": Word("flag", True, 1, "RST when the request is in, before the answer's head"),
    "drop-request": Word("flag", True, 1, "close properly when the request is in, without an answer"),
    "silent": Word("flag", True, 1, "read the request, answer nothing (as default: not even read it)"),
    "interim": Word("100|103|endless", "103", 0, "an interim answer before the final one, or interim ones without end"),
    "garbage": Word("flag", True, 1, "bytes that are not HTTP instead of the head"),
    # the head
    "status": Word("count", None, 999, "this status; from 400 on with an error body as the vendor writes it"),
    "quote": Word("flag", True, 1, "errors and error events quote the request's fields, keys included; so does the id"),
    "retry-after": Word("text", None, 64, "the header with this value"),
    "retry-after-ms": Word("count", None, 10**9, "the header with this value"),
    "framing": Word("chunked|length|close", None, 0, "how the end of the body is told"),
    "both-framings": Word("flag", True, 1, "content-length and chunked at once (the body is chunked)"),
    "length": Word("offset", None, 10**9, "content-length wrong by so many bytes, e.g. +5 or -5; then close"),
    "gzip": Word("flag", True, 1, "content-encoding gzip, flushed after each event"),
    "deflate": Word(
        "zlib|bare", "zlib", 0, "the same with deflate; zlib: wrapped, as it should be; bare: as some servers do"
    ),
    "br": Word("flag", True, 1, "the same with br; several codings are applied in the order of this list"),
    "zstd": Word("flag", True, 1, "the same with zstd"),
    # the body
    "cuts": Word("text", None, 40, "cut of the body into writes: whole, bytes, random:<seed>, edges, inside"),
    "eol": Word("lf|cr|crlf", None, 0, "line ends of the events"),
    "stall": Word("count", 0, _MANY, "silence after N deltas"),
    "cut": Word("count", 0, _MANY, "close (FIN) after N deltas, without the end of the message"),
    "cut-rst": Word("count", 0, _MANY, "RST after N deltas"),
    "malformed": Word("count", 1, _MANY, "after N deltas one event whose JSON breaks off"),
    "error": Word("count", 1, _MANY, "after N deltas the vendor's error event, then the end of the message"),
    "bad-chunk": Word("count", 1, _MANY, "after N deltas a chunk whose size is not a number"),
    "no-end": Word("flag", True, 1, "neither finish reason nor terminal event; the message itself ends properly"),
    "no-done": Word("flag", True, 1, "finish reason, but not the very last event"),
    # afterwards
    "extra": Word("count", 20, _MIB, "this many bytes after the end of the message"),
    "late-extra": Word("count", 20, _MIB, "the same, but 50 ms later"),
    "close": Word("flag", True, 1, "say connection: close, and do it"),
    "drop": Word("flag", True, 1, "close after the answer without having said so"),
    "idle-close": Word("seconds", 1.0, _DAY, "close after so many seconds without a further request"),
    "drop-next": Word("flag", True, 1, "close when the first bytes of the next request come in"),
    "reset-next": Word("flag", True, 1, "RST when the first bytes of the next request come in"),
}


@dataclass(frozen=True, slots=True)
class Faults:
    """A spec, understood. Names as in WORDS with "_" for "-"; None and False: not said."""

    text: str | None = None
    events: int | None = None
    bytes: int | None = None
    huge: int | None = None
    tool: str | None = None
    think: int = 0
    echo: str | None = None
    replay: str | None = None
    input: int | None = None
    output: int | None = None
    cached: int = 0
    cache_write: int = 0
    reasoning: int | None = None
    usage: str | None = None
    delay: float = 0.0
    pace: float = 0.0
    trickle: float = 0.0
    hold: float = 600.0
    ping: float = 0.0
    comments: bool = False
    refuse: bool = False
    deaf: bool = False
    early: int | None = None
    reset: bool = False
    drop_request: bool = False
    silent: bool = False
    interim: str | None = None
    garbage: bool = False
    status: int = 200
    quote: bool = False
    retry_after: str | None = None
    retry_after_ms: int | None = None
    framing: str | None = None
    both_framings: bool = False
    length: int | None = None
    gzip: bool = False
    deflate: str | None = None
    br: bool = False
    zstd: bool = False
    cuts: str | None = None
    eol: str | None = None
    stall: int | None = None
    cut: int | None = None
    cut_rst: int | None = None
    malformed: int | None = None
    error: int | None = None
    bad_chunk: int | None = None
    no_end: bool = False
    no_done: bool = False
    extra: int = 0
    late_extra: int = 0
    close: bool = False
    drop: bool = False
    idle_close: float | None = None
    drop_next: bool = False
    reset_next: bool = False


_NUMBERS = {
    "count": (r"[0-9]{1,15}", "a whole number"),
    "seconds": (r"[0-9]{1,9}(\.[0-9]{1,6})?", "a number"),
    "offset": (r"[+-][0-9]{1,9}", "a number with sign, as +5 or -5"),
}
_SPLIT = re.compile(r'[\s,;]*((?:[^\s,;"=]+)(?:=(?:"[^"]*"|[^\s,;"]*))?|[^\s,;]+)')
CUTS = re.compile(r"whole|bytes|edges|inside|random(:[0-9]{1,9})?")

Said = dict[str, Any]


def read(spec: str) -> Said:
    """The words of one spec as field -> value, `plain` included. Raises FaultError with every problem in it."""
    said: Said = {}
    problems: list[str] = []
    for word in _SPLIT.findall(spec):
        name, equals, value = word.partition("=")
        try:
            parsed = _value(name, value.strip('"') if equals else None)
        except ValueError as problem:
            problems.append(str(problem))
            continue
        if name == "plain":
            said = {"plain": True}
        else:
            said[name.replace("-", "_")] = parsed
    if problems:
        raise FaultError(problems)
    return said


def combine(*layers: Said) -> Faults:
    """One value out of several specs, weakest first."""
    merged: Said = {}
    for layer in layers:
        if "plain" in layer:
            merged = {}
        merged.update(layer)
    merged.pop("plain", None)
    return Faults(**merged)


def parse(spec: str) -> Faults:
    """`read` and `combine` for a single spec."""
    return combine(read(spec))


def spec_of_model(model: str) -> str:
    """The spec inside a model name: `sim:<spec>`, `sim-<word>:<value>`, `sim-<word>`; empty for ordinary names."""
    if model.startswith("sim:"):
        return model[4:]
    if not model.startswith("sim-"):
        return ""
    name, colon, value = model[4:].partition(":")
    if colon:
        return f"{name}={value}"
    return name if name in WORDS else ""


def name_of_model(model: str) -> str:
    """The model name without the spec in it: `sim` for `sim:cut=3` and `sim-cut:3`, ordinary names as they are."""
    return "sim" if model.startswith("sim:") or spec_of_model(model) else model


def _value(name: str, value: str | None) -> Any:
    word = WORDS.get(name)
    if word is None:
        near = difflib.get_close_matches(name, WORDS, 1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown word {name[:40]!r}{hint}")
    if value is None:
        if word.bare is None:
            raise ValueError(f"{name} needs a value: {name}=... ({word.meaning})")
        return word.bare
    if word.kind == "flag":
        raise ValueError(f"{name} takes no value")
    if word.kind in ("count", "seconds", "offset"):
        return _number(name, word, value)
    if word.kind == "text":
        return _text(name, word, value)
    if value not in word.kind.split("|"):
        raise ValueError(f"{name} is one of {word.kind.replace('|', ', ')}")
    return value


def _number(name: str, word: Word, value: str) -> int | float:
    shape, form = _NUMBERS[word.kind]
    if not re.fullmatch(shape, value):
        raise ValueError(f"{name} needs {form}")
    number = float(value) if word.kind == "seconds" else int(value)
    if abs(number) > word.most:
        raise ValueError(f"{name} may be at most {word.most:.0f}")
    if name == "status" and number < 200:
        raise ValueError("status must be from 200 to 999 (interim answers: the word interim)")
    return number


def _text(name: str, word: Word, value: str) -> str:
    if len(value) > word.most:
        raise ValueError(f"{name} may have at most {word.most:.0f} characters")
    if name == "cuts" and not CUTS.fullmatch(value):
        raise ValueError("cuts is one of whole, bytes, edges, inside, random:<seed>")
    if name == "retry-after" and not (value.isascii() and value.isprintable()):
        raise ValueError("retry-after may hold printable ASCII only")
    return value
