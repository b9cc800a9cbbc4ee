"""Message heads as values, and the rules about their fields.

Lives here: what a head is once it has been understood, which fields end at a hop, and the memory of `Heads`.
May not live here: parsing (requests, responses), writing (encode), what a field means to a provider.
How it works: a head keeps its fields in order as (lower-case name, name as sent, value); `get` answers from a dict.
Doubted: `Heads` holds clients' keys, of up to 16 heads after their connections have gone. Whoever sends ever new heads,
with wrong keys too, drops those of others out of it, which costs each new connection 11 us and 3.4 KiB, as without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

Field = tuple[bytes, bytes, bytes]  # lower-case name, name as sent, value

# Around a value, and no part of it (RFC 9110 section 5.5). httptools leaves those behind it.
BLANKS: Final = b" \t"


class Framing(Enum):
    """How the end of a body is known (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"  # answers only


# Fields that end at each hop (RFC 9110 section 7.6.1), beside those that Connection names. Keep-Alive and
# Proxy-Connection are named by the same section although clients forget to list them in Connection.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)


# What is written anew on each side: never part of the fields of a head.
_ENDS_HERE: Final = HOP_BY_HOP | {b"content-length", b"host"}


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Bytes and fields a head may have. Neighbours: nginx 8 KiB a line and 32 KiB in all, HAProxy 16 KiB and
    101 fields, Envoy 60 KiB and 100 fields (HTTP.md 2)."""

    line: int = 8 * 1024
    head: int = 32 * 1024
    fields: int = 100


class RequestHead(NamedTuple):
    """A request head that is unambiguous: one valid Host, one framing, a target in origin form, method and version
    that we serve. `fields` are the end-to-end fields: hop-by-hop and Connection-nominated ones are gone, so are
    Content-Length and Host (see `length`, `host`). `values` has the nominated ones still: they were meant for us."""

    method: bytes
    path: bytes  # raw, as sent, without the query
    query: bytes  # raw, without "?", b"" if none
    version: bytes  # b"1.0" or b"1.1"
    host: bytes
    fields: list[Field]
    values: dict[bytes, bytes]  # lower-case name -> value of the first such field; without Content-Length
    framing: Framing
    length: int  # of the body where framing is LENGTH, else 0
    keep_alive: bool
    expects_continue: bool

    def get(self, name: bytes) -> bytes | None:
        """The value of the first field called `name` (lower case)."""
        return self.values.get(name)


def with_length(head: RequestHead, length: int) -> RequestHead:
    """`head` with another length. By hand: `_replace` takes six times as long, and the type's own call twice (0.33 us:
    that of a NamedTuple is a function in Python)."""
    method, path, query, version, host, fields, values, framing, _, keep_alive, expects_continue = head
    return _new(
        RequestHead,
        (method, path, query, version, host, fields, values, framing, length, keep_alive, expects_continue),
    )


_new: Final = tuple.__new__

# An application has one for each key and path. Each connection that holds one with others takes 2 KiB less: an open
# stream 12.6 KiB, and 14.6 before (scripts/bench --only memory).
MAX_SHARED: Final = 16

# Of a head: what is before the digits of its length, and what is behind them. Without such digits: all of it, nothing.
Parts = tuple[bytes, bytes]


class Heads:
    """The last heads that were read: one memory for parsers that have the same limits."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[Parts, tuple[Parts, RequestHead]] = {}

    def get(self, parts: Parts) -> tuple[Parts, RequestHead] | None:
        """A head with the same bytes but for the digits of its length, and its own parts: to hold them only once."""
        return self._heads.get(parts)

    def put(self, parts: Parts, head: RequestHead) -> None:
        if len(self._heads) >= MAX_SHARED:
            del self._heads[next(iter(self._heads))]
        self._heads[parts] = parts, head


class ResponseHead(NamedTuple):
    """A response head that is unambiguous. `fields` are the end-to-end fields without Content-Length."""

    status: int
    reason: bytes
    version: bytes
    fields: list[Field]
    values: dict[bytes, bytes]
    framing: Framing
    length: int
    keep_alive: bool

    def get(self, name: bytes) -> bytes | None:
        return self.values.get(name)


def connection_tokens(value: bytes) -> frozenset[bytes]:
    """The lower-case options of one or more joined Connection fields."""
    if not value:
        return frozenset()
    return frozenset(token.strip(BLANKS) for token in value.lower().split(b",")) - {b""}


def joined(fields: list[Field], name: bytes) -> bytes:
    """All values of the field called `name` (lower case) as one list (RFC 9110 section 5.3)."""
    return b",".join([value for lower, _, value in fields if lower == name])


def end_to_end(fields: list[Field], values: dict[bytes, bytes]) -> tuple[list[Field], frozenset[bytes]]:
    """The fields that travel, and the connection's options. `values` are those of `fields` by name."""
    if b"connection" not in values:
        return [field for field in fields if field[0] not in _ENDS_HERE], frozenset()
    tokens = connection_tokens(joined(fields, b"connection"))
    # Via is for everybody on the way: whoever names it in Connection would hide a loop.
    ends_here = _ENDS_HERE | (tokens - {b"via"})
    return [field for field in fields if field[0] not in ends_here], tokens
