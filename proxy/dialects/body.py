"""The top level of a JSON object in a request body: its members with exact spans, and splices.

Lives here: `MemberReader`, `Members`, `as_count`, `every_member`, `members_in_list`, `splice`, `raw_text`, names that
dialects share, and the one member that is put in (`include_usage`). May not live here: which members a dialect reads.
How it works: msgspec walks the body once and yields the top level as (key, raw value) pairs; nothing below it is
materialised. Keys are of a type without equality, so that duplicates stay pairs of their own. A span follows from
walking the pairs by length.
Doubted: servers that read a body otherwise than RFC 8259 says. So whatever two readers could understand differently is
refused: a member that is read and occurs twice or again in other letter case, a BOM, bytes after the object.
"""

from __future__ import annotations

import codecs
import re
from itertools import count
from typing import Final

import msgspec
import orjson

from proxy.dialects.call import UnreadableBody
from proxy.dialects.shapes import Key, read_members

Span = tuple[int, int]


# Real bodies have some 30 members. Each one costs 0.3 us and 250 bytes, so 8 MiB of `"":1` would hold the loop for two
# seconds; in a body up to _SMALL there is no room for enough of them to matter (3,000: 2 ms), and counting costs.
MAX_MEMBERS: Final = 1000
_SMALL: Final = 16 * 1024
MAX_LISTED: Final = 5000
MAX_TEXT: Final = 1024  # bytes of a raw string that is read: what is read stays in receipts and with the connection
_text = msgspec.json.Decoder(str)
_KEY: Final = re.compile(rb'[ \t\r\n]*+,?+[ \t\r\n]*+"(?:[^"\\]++|\\.)*+"[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_CLOSES: Final = re.compile(rb"[ \t\r\n]*+}")
_SLICE: Final = 64 * 1024


# Members that cap the output. llama.cpp obeys `n_predict` before all others, in all its dialects; some servers turn one
# dialect into another, with the members of both.
CAPS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
# Members that name further models: of OpenRouter (in all its dialects), of LiteLLM and Anthropic.
MORE_MODELS: Final = ("models", "fallbacks", "preset")


class Members:
    """The members that a dialect reads, as raw JSON values, and where they stand."""

    __slots__ = ("_body", "_pairs", "raw")

    def __init__(self, body: bytes, raw: dict[str, bytes], pairs: dict[Key, msgspec.Raw]) -> None:
        self.raw = raw  # name -> raw JSON value
        self._body = body
        self._pairs = pairs

    def span(self, name: str) -> Span | None:
        """Where the raw value of member `name` stands in the body; None if there is no such member."""
        if name not in self.raw:
            return None
        body = self._body
        at = body.index(b"{") + 1
        for key, raw in self._pairs.items():
            found = _KEY.match(body, at)
            if found is None:  # cannot be: msgspec has read the same bytes
                return None
            start = found.end()
            at = start + len(memoryview(raw))
            if str(key) == name:
                return start, at
        return None

    def text(self, name: str) -> str | None:
        """The string that member `name` is; None if it is absent or null."""
        raw = self.raw.get(name)
        if raw is None or raw == b"null":
            return None
        if len(raw) > MAX_TEXT:
            raise UnreadableBody(f'"{name}" must be a string of at most {MAX_TEXT:,} bytes')
        try:
            return _text.decode(raw)
        except (ValueError, msgspec.MsgspecError):
            raise UnreadableBody(f'"{name}" must be a string') from None

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false; `default` if member `name` is absent or null."""
        raw = self.raw.get(name)
        if raw is None or raw == b"null":
            return default
        if raw == b"true":
            return True
        if raw == b"false":
            return False
        raise UnreadableBody(f'"{name}" must be true or false')

    def count(self, name: str) -> int | None:
        """A number of tokens; None if member `name` is absent, null or negative (some servers: no limit)."""
        return as_count(name, self.raw.get(name))

    def cap(self, names: tuple[str, ...]) -> int | None:
        """Most output tokens by members of these names: the largest, since servers differ in which they obey. None:
        there is none, or one of them is 0 or negative, which many servers take for no limit."""
        most, raw = 0, self.raw
        for name in names:
            if name in raw and raw[name] != b"null":
                found = as_count(name, raw[name])
                if not found:
                    return None
                most = max(most, found)
        return most or None

    def is_any(self, names: tuple[str, ...]) -> bool:
        """Whether a member of these names is there, and is not empty."""
        raw = self.raw
        if raw.keys().isdisjoint(names):  # nearly always: 0.15 us
            return False
        return any(name in raw and raw[name] not in (b"null", b"[]", b'""') for name in names)


def as_count(name: str, raw: bytes | None) -> int | None:
    """The whole number that `raw` is. `4096.0` and `1e3` are whole numbers too; None if absent, null or negative."""
    if raw is None or raw == b"null":
        return None
    if raw.isdigit() and len(raw) <= 18:
        return int(raw)
    if raw[:1] in b"-0123456789" and len(raw) <= 32:
        number = float(raw)
        if number.is_integer() and abs(number) < 1e18:
            return int(number) if number >= 0 else None
    raise UnreadableBody(f'"{name}" must be a whole number')


class MemberReader:
    """Reads the members of some names out of JSON objects. Made once for each dialect; stateless afterwards."""

    __slots__ = ("_folded", "_longest", "_names")

    def __init__(self, *names: str) -> None:
        self._names = frozenset(names)
        # Folded, not lower: Go takes a long s for an s and the Kelvin sign for a k where it ignores case.
        self._folded = {name.casefold(): name for name in names}
        self._longest = max(map(len, names))  # folding never shortens, and takes 12 times the size of a long key

    def read(self, body: bytes) -> Members:
        """The members of the JSON object `body`. Raises UnreadableBody where it is not one JSON object in UTF-8, or
        where it could be read in two ways."""
        if not body.isascii():
            _check_utf8(body)
        pairs, is_exact = _read_pairs(body)
        names, folded, longest = self._names, self._folded, self._longest
        raw: dict[str, bytes] = {}
        for key, value in pairs.items():
            name = str(key)
            if name in names:
                if name in raw:
                    raise UnreadableBody(f'"{name}" occurs twice in the body')
                raw[name] = bytes(value)
            elif len(name) <= longest and name.casefold() in folded:
                raise UnreadableBody(f'"{folded[name.casefold()]}" must be written in exactly this letter case')
        members = Members(body, raw, pairs)
        if not is_exact:
            for name in raw:
                span = members.span(name)
                raw[name] = body[span[0] : span[1]] if span else b""
        return members


def every_member(text: bytes) -> list[tuple[str, bytes]]:
    """All members of a JSON object, each as often as it occurs, with raw values. Raises UnreadableBody."""
    return [(str(key), bytes(raw)) for key, raw in _read_pairs(text)[0].items()]


def members_in_list(text: bytes) -> list[list[tuple[str, bytes]]] | None:
    """As `every_member`, of each object in a JSON list; None where it is no list of objects, or has too many members
    to be worth it (MAX_LISTED take 2 ms)."""
    members = count(1)

    def make_key(kind: type, name: str) -> object:
        if next(members) > MAX_LISTED:
            raise ValueError
        return kind(name)

    try:
        objects = msgspec.json.Decoder(list[dict[Key, msgspec.Raw]], dec_hook=make_key).decode(
            without_half_pairs(text) or text
        )
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return [[(str(key), bytes(raw)) for key, raw in each.items()] for each in objects]


_model = MemberReader("model")


def model_span(body: bytes) -> Span | None:
    """Where the raw value of the model stands in a body that its dialect has read; None if it is not there (Gemini).
    Found only when it is to be replaced: walking the members costs 1.3 us of the 5 that reading a call takes."""
    return _model.read(body).span("model")


def _read_pairs(body: bytes) -> tuple[dict[Key, msgspec.Raw], bool]:
    """The top level, and whether the raw values are the body's own bytes (else: as long as these)."""
    try:
        return _decode(body), True
    except RecursionError:
        raise UnreadableBody("the body is nested too deeply") from None
    except msgspec.ValidationError:
        raise UnreadableBody("the body must be a JSON object") from None
    except (ValueError, msgspec.MsgspecError):
        pass
    changed = without_half_pairs(body)
    if changed is None:
        raise UnreadableBody(_why_not_json(body))
    try:
        return _decode(changed), False
    except RecursionError:
        raise UnreadableBody("the body is nested too deeply") from None
    except (ValueError, msgspec.MsgspecError):
        raise UnreadableBody(_why_not_json(body)) from None


def _decode(body: bytes) -> dict[Key, msgspec.Raw]:
    if len(body) <= _SMALL:
        return read_members(body)
    members = count(1)

    def make_key(kind: type, name: str) -> object:
        if next(members) > MAX_MEMBERS:
            raise UnreadableBody(f"the body must not have more than {MAX_MEMBERS:,} members at one level")
        return kind(name)

    return msgspec.json.Decoder(dict[Key, msgspec.Raw], dec_hook=make_key).decode(body)


def without_half_pairs(text: bytes) -> bytes | None:
    """JSON `text` with escapes of another character, of the same length, in place of those of surrogates (and of some
    Hangul); None if it has none. JavaScript, and models, write half of a cut emoji as an escape of its own, which
    msgspec and orjson refuse. Providers differ in what they make of it; that is theirs to say. The structure, the
    offsets, and all names that we know stay: U+3xxx is neither part of one nor folded to one."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return None
    return text.replace(b"\\ud", b"\\u3").replace(b"\\uD", b"\\u3")


def _why_not_json(body: bytes) -> str:
    if not body.strip():
        return "the body is empty: it must be a JSON object"
    if body.startswith(codecs.BOM_UTF8):
        return "the body starts with a byte order mark: it must be plain UTF-8"
    return "the body is not valid JSON"


def _check_utf8(body: bytes) -> None:
    # In slices: one str of the whole body could take four times its size.
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(body), _SLICE):
            decoder.decode(body[at : at + _SLICE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise UnreadableBody("the body is not valid UTF-8") from None


def splice(body: bytes, span: Span, raw_value: bytes) -> bytes:
    """`body` with `raw_value` in place of the bytes of `span`; all others stay."""
    return body[: span[0]] + raw_value + body[span[1] :]


def raw_text(text: str) -> bytes:
    """`text` as a raw JSON string, for a splice."""
    return orjson.dumps(text)


_stream_options = MemberReader("stream_options")
_include_usage = MemberReader("include_usage")


def asks_for_usage(stream_options: bytes | None) -> bool:
    """Whether a raw `stream_options` asks for a report of usage. What is no object or no flag is for the provider to
    judge, and counts as if it did. Raises UnreadableBody where it could be read in two ways."""
    if stream_options is None or stream_options == b"null":
        return False
    if not stream_options.startswith(b"{"):
        return True
    try:
        return _include_usage.read(stream_options).raw.get("include_usage") not in (None, b"null", b"false")
    except UnreadableBody as error:
        raise UnreadableBody(f'in "stream_options": {error}') from None


def with_usage_asked(body: bytes) -> bytes:
    """A body that its dialect has read and that does not ask for usage, with `include_usage` put in; every other byte
    stays (DESIGN 4)."""
    members = _stream_options.read(body)
    span = members.span("stream_options")
    if span is None:
        return _insert(body, body.index(b"{") + 1, b'"stream_options":{"include_usage":true}')
    options = body[span[0] : span[1]]
    if options == b"null":
        return splice(body, span, b'{"include_usage":true}')
    inner = _include_usage.read(options).span("include_usage")
    if inner is not None:
        return splice(body, span, splice(options, inner, b"true"))
    return splice(body, span, _insert(options, 1, b'"include_usage":true'))


def _insert(text: bytes, at: int, member: bytes) -> bytes:
    """`text` with a member put in at `at`, which is just behind an opening brace."""
    comma = b"" if _CLOSES.match(text, at) else b","
    return b"".join((text[:at], member, comma, memoryview(text)[at:]))
