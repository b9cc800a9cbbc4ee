"""The top level of a JSON object in a request body: its members with exact spans, and splices.

Lives here: `read_members`, `Members`, `splice`, and typed reads of a member (text, flag, number).
May not live here: which members a dialect reads.
How it works: msgspec walks the body once and yields the top level as (key, raw value) pairs; nothing below it is
materialised. Keys are of a type without equality, so that duplicates stay. Spans follow from walking the pairs by
length. 1.5 KB in about 3 us, see `read_call` of openai.
Doubted: servers that read a body otherwise than RFC 8259 says. So whatever two readers could understand differently is
refused: a member that is read and occurs twice or again in other letter case, a BOM, bytes after the object.
"""

from __future__ import annotations

import codecs
import re

import msgspec
import orjson

from proxy.dialects.call import UnreadableBody

Span = tuple[int, int]


class _Key:
    """A key without equality: two keys of one name are two entries of a dict."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def _make_key(_: type, name: str) -> _Key:
    return _Key(name)


_top_level = msgspec.json.Decoder(dict[_Key, msgspec.Raw], dec_hook=_make_key)
_text = msgspec.json.Decoder(str)
_BLANKS = re.compile(rb"[ \t\r\n]*+")
_KEY = re.compile(rb'[ \t\r\n]*+"(?:[^"\\]++|\\.)*+"[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_NEXT = re.compile(rb"[ \t\r\n]*+,?+")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_SLICE = 64 * 1024


class Members:
    """The members that a dialect reads, as raw JSON values, and where one of them stands."""

    __slots__ = ("_body", "_pairs", "raw")

    def __init__(self, body: bytes, pairs: dict[_Key, msgspec.Raw], raw: dict[str, bytes]) -> None:
        self.raw = raw  # name -> raw JSON value
        self._body = body
        self._pairs = pairs

    def span(self, name: str) -> Span | None:
        """Where the raw value of member `name` stands in the body; None if there is no such member."""
        if name not in self.raw:
            return None
        body = self._body
        at = _BLANKS.match(body).end() + 1  # type: ignore[union-attr]  # may be empty, always matches
        for key, raw in self._pairs.items():
            found = _KEY.match(body, at)
            if found is None:  # cannot be: msgspec has read the same bytes
                return None
            at = found.end()
            end = at + len(memoryview(raw))
            if key.name == name:
                return at, end
            at = _NEXT.match(body, end).end()  # type: ignore[union-attr]  # may be empty, always matches
        return None

    def text(self, name: str) -> str | None:
        """The string that member `name` is; None if it is absent or null."""
        raw = self.raw.get(name)
        if raw is None or raw == b"null":
            return None
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


def read_members(body: bytes, names: frozenset[str]) -> Members:
    """The members of the JSON object `body` that are called as in `names` (lower case names are compared without case).

    Raises UnreadableBody where the body is not one JSON object in UTF-8, or where it could be read in two ways.
    """
    pairs = _read_pairs(body)
    raw: dict[str, bytes] = {}
    folded = _FOLDED.get(names) or _fold(names)
    for key, value in pairs.items():
        name = key.name
        if name in names:
            if name in raw:
                raise UnreadableBody(f'"{name}" occurs twice in the body')
            raw[name] = bytes(value)
        elif name.lower() in folded:
            raise UnreadableBody(f'"{folded[name.lower()]}" must be written exactly so, in this letter case')
    return Members(body, pairs, raw)


_FOLDED: dict[frozenset[str], dict[str, str]] = {}  # one entry a dialect: the sets are constants of this room


def _fold(names: frozenset[str]) -> dict[str, str]:
    folded = _FOLDED[names] = {name.lower(): name for name in names}
    return folded


def _read_pairs(body: bytes) -> dict[_Key, msgspec.Raw]:
    if not body.isascii():
        _check_utf8(body)
    try:
        return _top_level.decode(body)
    except RecursionError:
        raise UnreadableBody("the body is nested too deeply") from None
    except msgspec.ValidationError:
        raise UnreadableBody("the body must be a JSON object") from None
    except (ValueError, msgspec.MsgspecError):
        pass
    if not _HALF_PAIR.search(body):
        raise UnreadableBody(_why_not_json(body))
    try:
        # JavaScript writes half of a cut emoji as an escape of its own. Providers differ in what they make of it; that
        # is theirs to say. An escape of the same length in its place shows the same structure at the same offsets.
        return _top_level.decode(_HALF_PAIR.sub(rb"\\u0020", body))
    except RecursionError:
        raise UnreadableBody("the body is nested too deeply") from None
    except (ValueError, msgspec.MsgspecError):
        raise UnreadableBody(_why_not_json(body)) from None


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
