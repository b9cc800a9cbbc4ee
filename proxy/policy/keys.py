"""Keys that clients present, and where a request carries them.

Lives here: the ring of known keys and what each may, reading a key out of a head, taking `key=` out of a query.
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
from math import inf
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from proxy.catalog.families import KEY_FIELDS
from proxy.catalog.secret import Secret
from proxy.policy.limits import FOREVER
from proxy.wire.head import RequestHead

KEY_CARRIERS: Final = KEY_FIELDS  # none of these fields is ever forwarded as it came


class AuthMode(Enum):
    """What a client must present (`LLM_PROXY_AUTH`)."""

    KEYS = "keys"  # one of our keys
    PASSTHROUGH = "passthrough"  # its own credential for the provider, sent on as it is; ours are never used
    OFF = "off"  # nothing


class Disconnect(NamedTuple):
    """What becomes of a provider's answer when its client leaves: it is cancelled, or read on for so many seconds, so
    that the true usage is known."""

    drains: bool = False
    seconds: float = inf


CANCEL: Final = Disconnect()


@dataclass(frozen=True, slots=True)
class Key:
    """A key of ours, and what it may. Its value is known by digest only (`KeyRing`)."""

    name: str
    group: str | None = None  # whose limits hold for it beside its own
    models: tuple[str, ...] | None = None  # patterns of names as clients write them, `*` stands for anything; None: all
    providers: frozenset[str] | None = None  # names; None: all
    raw: bool | None = None  # may use paths that are not read; None: if neither models nor tokens are limited for it
    disconnect: Disconnect | None = None  # None: as for everybody
    uid: int | None = None  # of the process at the other end of a Unix socket, which needs no secret then
    until: int = FOREVER  # nanoseconds since the epoch; from then on it is not valid


class Door(NamedTuple):
    """One way in: a key, and until when (nanoseconds since the epoch) this way leads to it."""

    key: Key
    until: int
    way: bytes | int  # the digest of a value, or a user id


class KeyRing:
    """The keys that exist, by digest and by user id. `version` changes with every change.

    A value or a user id leads to the key for which it was put last. Whoever puts several keys that have changed at once
    removes all of them first: one may have what another one had.
    """

    __slots__ = ("mode", "version", "_by_name", "_doors")

    def __init__(self, keys: Mapping[str, Secret], mode: AuthMode) -> None:
        self.mode = mode
        self.version = 0
        self._doors: dict[bytes | int, Door] = {}  # by digest, and by user id
        self._by_name: dict[str, tuple[Key, tuple[Door, ...]]] = {}
        for name, secret in keys.items():
            self.put(Key(name), {digest_of(secret.reveal().encode()): FOREVER})

    def set_mode(self, mode: AuthMode) -> None:
        """What clients must present from now on."""
        if mode is not self.mode:
            self.mode = mode
            self.version += 1

    def __len__(self) -> int:
        return len(self._by_name)

    def put(self, key: Key, digests: Mapping[bytes, int]) -> None:
        """`key` is as said from now on, under the values with these digests, each until then (rotation has two)."""
        self.remove(key.name)
        doors = [Door(key, min(until, key.until), digest) for digest, until in digests.items()]
        if key.uid is not None:
            doors.append(Door(key, key.until, key.uid))
        self._by_name[key.name] = key, tuple(doors)
        self._doors.update((door.way, door) for door in doors)

    def remove(self, name: str) -> None:
        """There is no key of that name any more."""
        self.version += 1
        for door in self._by_name.pop(name, (None, ()))[1]:
            if self._doors.get(door.way) is door:  # else that way leads to another key since
                del self._doors[door.way]

    def is_open(self, door: Door, now: int) -> bool:
        """Whether the way by which somebody came in, maybe long ago, would still lead to the key of that name."""
        found = self._doors.get(door.way)
        return found is not None and found.key.name == door.key.name and now < found.until

    def named(self, name: str) -> Key | None:
        """The key of that name."""
        found = self._by_name.get(name)
        return None if found is None else found[0]

    def has(self, digest: bytes, but_of: str) -> bool:
        """Whether another key than the one of that name has this digest."""
        door = self._doors.get(digest)
        return door is not None and door.key.name != but_of

    def find(self, presented: bytes) -> Door | None:
        """Where the value `presented` leads, if anywhere: 0.9 us, with 10 keys or with 100,000."""
        return self._doors.get(digest_of(presented))

    def find_user(self, uid: int | None) -> Door | None:
        """Where the user `uid` of a Unix socket is let in without a secret."""
        return None if uid is None else self._doors.get(uid)


def digest_of(value: bytes) -> bytes:
    """As keys are stored and compared: SHA-256. They are random and long, so that nothing slower is needed."""
    return hashlib.sha256(value).digest()


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
