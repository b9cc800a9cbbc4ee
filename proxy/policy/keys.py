"""Keys that clients present, and where a request carries them.

Lives here: the ring of known keys, reading a key out of a head, taking `key=` out of a query.
May not live here: what a missing key means (admission), the credentials of providers (catalog).
How it works: a key is only ever compared as its SHA-256 digest, by dict lookup, so the time taken says nothing about
the keys that exist. Several carriers may name the same key; two different ones are ambiguous, and nobody should guess
which of them was meant: `presented_values` returns both and admission refuses.
Doubted: `key=` counts as a carrier on every path, not only on Gemini's: no other vendor of WIRE 1 has a parameter of
that name, and a key that slips through in a query ends in somebody's log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes

from proxy.catalog.families import KEY_FIELDS
from proxy.catalog.secret import Secret
from proxy.wire.head import RequestHead

KEY_CARRIERS = KEY_FIELDS  # none of these fields is ever forwarded as it came


class AuthMode(Enum):
    """What a client must present (`LLM_PROXY_AUTH`)."""

    KEYS = "keys"  # one of our keys
    PASSTHROUGH = "passthrough"  # its own credential for the provider, sent on as it is; ours are never used
    OFF = "off"  # nothing


@dataclass(frozen=True, slots=True)
class Key:
    """A key of ours: its name, and the SHA-256 digest of its value."""

    name: str
    digest: bytes


class KeyRing:
    """The keys that exist, by digest."""

    __slots__ = ("mode", "_by_digest")

    def __init__(self, keys: Mapping[str, Secret], mode: AuthMode) -> None:
        self.mode = mode
        self._by_digest: dict[bytes, Key] = {}
        for name, secret in keys.items():
            digest = hashlib.sha256(secret.reveal().encode()).digest()
            self._by_digest[digest] = Key(name, digest)

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, presented: bytes) -> Key | None:
        """The key whose value is `presented`, if there is one."""
        return self._by_digest.get(hashlib.sha256(presented).digest())


def fingerprint(presented: bytes) -> str:
    """What receipts show for a credential that is not ours: `#` and 8 hex digits of its SHA-256 (as Secret shows)."""
    return "#" + hashlib.sha256(presented).hexdigest()[:8]


def presented_values(head: RequestHead) -> list[bytes]:
    """Every different key value that `head` carries, in order; empty ones are none.

    Authorization counts with the scheme Bearer only, in any letter case (RFC 9110 section 11.1): other schemes are not
    ways to present a key.
    """
    values: list[bytes] = []
    for name, _, value in head.fields:
        if name in KEY_CARRIERS:
            if name == b"authorization":
                scheme, _, value = value.partition(b" ")
                if scheme.lower() != b"bearer":
                    continue
                value = value.strip(b" \t")
            if value and value not in values:
                values.append(value)
    if head.query:
        for value in _split_query(head.query)[1]:
            if value and value not in values:
                values.append(value)
    return values


def presented(head: RequestHead) -> bytes | None:
    """The one key that `head` carries. None where there is none, and where carriers disagree (see the module text)."""
    values = presented_values(head)
    return values[0] if len(values) == 1 else None


def strip_key(query: bytes) -> tuple[bytes, bytes | None]:
    """`query` without its `key` parameters, every other byte as it was; and the first non-empty value, decoded."""
    rest, values = _split_query(query)
    return rest, next((value for value in values if value), None)


def _split_query(query: bytes) -> tuple[bytes, list[bytes]]:
    if b"key" not in query and b"%" not in query:  # nearly every query
        return query, []
    kept: list[bytes] = []
    values: list[bytes] = []
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        # A name may be spelt with escapes (%6Bey), and the provider would read it as key all the same.
        if name == b"key" or (b"%" in name and unquote_to_bytes(name) == b"key"):
            values.append(unquote_to_bytes(value))
        else:
            kept.append(pair)
    return (b"&".join(kept), values) if values else (query, values)
