"""May this request come in?

Lives here: one synchronous step from a head to a `Grant` or a `Failure`; the guard against web pages; streams per key;
what a key may ask for (`permitted`).
May not live here: where the request goes (router), reading a body, a clock, how much may pass (limits).
How it works: guard first (it needs no secret), then the key. Refusals tell a client what to do and never what exists.
The guard is on where no keys are: an open loopback port is open to every page in every browser on the machine
(DESIGN 8). A page cannot hide its Origin or Sec-Fetch-Site, and one that rebinds its own name to 127.0.0.1 is given
away by the Host it must send.
Doubted: `Sec-Fetch-Site: same-site` is refused too: a page on another port of localhost is "same-site".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from proxy.outcome import Failure, Kind, Phase, Side
from proxy.policy.keys import KEY_CARRIERS, AuthMode, Door, Key, KeyRing, fingerprint, presented_values, strip_key
from proxy.policy.limits import FOREVER, Chain, Limiter
from proxy.policy.plan import Plan, Target
from proxy.policy.rules import pattern_of
from proxy.wire.head import Field, RequestHead


class Grant(NamedTuple):
    """A request that may go on."""

    key: str | None  # the key's name; in passthrough mode the credential's fingerprint; None without either
    carried: list[Field]  # in passthrough mode the client's own credential fields, to be sent on; else empty
    passthrough: bool = False  # True: send `carried` and never a credential of ours, even where `carried` is empty
    door: Door | None = None  # the key itself, and until when it is valid; None without keys

    @property
    def until(self) -> int:
        """Nanoseconds since the epoch; from then on it is worth nothing."""
        return FOREVER if self.door is None else self.door.until


def _refusal(kind: Kind, detail: str) -> Failure:
    return Failure(Side.CLIENT, Phase.ADMIT, kind, detail)


_HOW: Final = "send it as 'Authorization: Bearer <key>', 'x-api-key', 'api-key' or 'x-goog-api-key'"
_NO_KEY: Final = _refusal(Kind.UNAUTHORIZED, f"this proxy needs a key: {_HOW}")
_WRONG_KEY: Final = _refusal(
    Kind.UNAUTHORIZED, f"the key is not valid here: use one given out for this proxy and {_HOW}"
)
_TWO_KEYS: Final = _refusal(
    Kind.UNAUTHORIZED, f"the request carries several different keys: send exactly one, and {_HOW}"
)


_NO_MODEL: Final = _refusal(
    Kind.MODEL_FORBIDDEN, "this key may not be used for this model: ask for one that it was given out for"
)
_ONE_MODEL: Final = _refusal(
    Kind.MODEL_FORBIDDEN,
    "this request names further models (models, fallbacks, preset), and limits or this key are for single ones: name "
    "one model only",
)
_NO_RAW: Final = _refusal(
    Kind.FORBIDDEN,
    "this path may not be used where models, tokens or dollars are limited, since what it costs cannot be known here: "
    "use one for chat, responses, messages, completions or embeddings",
)
_NOBODY: Final = Key("")  # what anybody may where no keys are


class Admission:
    """Decides on heads. One for each worker; nothing here waits."""

    __slots__ = ("browser_guard", "hosts", "limiter", "ring", "streams_per_key", "_streams")

    def __init__(
        self, ring: KeyRing, limiter: Limiter, *, browser_guard: bool, hosts: frozenset[str], streams_per_key: int
    ) -> None:
        """`browser_guard`: keep web pages out; where no key does. `hosts`: further names this proxy is called
        by, lower case, without port. `streams_per_key`: 0 = no limit."""
        self.ring = ring
        self.limiter = limiter
        self.browser_guard = browser_guard
        self.hosts = hosts
        self.streams_per_key = streams_per_key
        self._streams: dict[str | None, int] = {}

    @property
    def version(self) -> int:
        """Changes whenever a grant or a chain that was given before may not hold any more."""
        return self.ring.version + self.limiter.version

    def admit(self, head: RequestHead, now: int, uid: int | None = None) -> Grant | Failure:
        """A grant, or why not (401, 403). `now`: nanoseconds since the epoch; `uid`: of the other end of a Unix socket,
        where the system tells."""
        mode = self.ring.mode
        if self.browser_guard:
            reason = is_browser_page(head, self.hosts)
            if reason is not None:
                return _refusal(Kind.FORBIDDEN, reason)
        if mode is AuthMode.OFF:
            return Grant(None, [])
        values = presented_values(head)
        if len(values) > 1:
            return _TWO_KEYS
        if mode is AuthMode.PASSTHROUGH:
            return _passed_through(head, values)
        door = self.ring.find(values[0]) if values else self.ring.find_user(uid)
        if door is not None and now < door.until:
            return Grant(door.key.name, [], False, door)
        return _WRONG_KEY if values else _NO_KEY

    def refuses_now(self, grant: Grant, now: int) -> Failure | None:
        """Whether the grant's key, or its value, has been taken away since (401): for what was admitted and has not
        begun."""
        return None if grant.door is None or self.ring.is_open(grant.door, now) else _WRONG_KEY

    def chain(self, grant: Grant, model: str | None, plan: Plan) -> Chain | None:
        """The limits that a request falls under, whose client calls its model so; None: there are none. With an alias
        those that hold whichever target is asked. In passthrough mode those of keys do not hold: anybody could invent
        another one."""
        if plan.alias is None:
            return self._chain(grant, model, plan.groups[0][0])
        return _filled(self.limiter.chain(*_of_key(grant), [plan.alias.name], None))

    def own_chain(self, target: Target, taken: Chain | None) -> Chain | None:
        """The limits that a target of an alias has beside those that are taken already; None: none."""
        name, provider = target.model or "", target.provider.name
        return _filled(self.limiter.chain(None, None, (name, f"{provider}/{name}"), provider, taken or Chain("")))

    def _chain(self, grant: Grant, model: str | None, target: Target) -> Chain | None:
        models = [name for name in (model, target.model) if name is not None]
        return _filled(self.limiter.chain(*_of_key(grant), models, target.provider.name))

    def permitted(
        self,
        grant: Grant,
        method: str,
        is_read: bool,
        model: str | None,
        target: Target,
        providers: Container[str],
        names_more: bool = False,
    ) -> Failure | None:
        """Why the grant's key may not ask for this (403), or None. `is_read`: its body, so that model and costs are
        known; `model`: as the client wrote it; `providers`: all that there are here; `names_more`: further models."""
        if names_more and self._needs_one_model(grant, model, target):
            return _ONE_MODEL
        key = _NOBODY if grant.door is None else grant.door.key
        if key.providers is not None and target.provider.name not in key.providers:
            return _NO_MODEL
        if is_read:
            return None if key.models is None or is_meant(key.models, model, target, providers) else _NO_MODEL
        if method in ("GET", "HEAD"):  # nothing is generated there
            return None
        is_raw = key.raw
        if is_raw is None:
            chain = self._chain(grant, None, target)
            is_counted = self.limiter.has_models or (chain is not None and chain.counts_tokens)
            is_raw = key.models is None and not is_counted
        return None if is_raw else _NO_RAW

    def _needs_one_model(self, grant: Grant, model: str | None, target: Target) -> bool:
        """Whether it matters to a limit, or to what the grant's key may ask for, which model answers."""
        if self.limiter.has_models or (grant.door is not None and grant.door.key.models is not None):
            return True
        chain = self._chain(grant, model, target)
        return chain is not None and chain.has_dollars

    def take_stream(self, grant: Grant) -> Failure | None:
        """Count one more streamed answer of the grant's key, or say why not (429). Without keys all share one count."""
        if not self.streams_per_key:
            return None
        held = self._streams.get(grant.key, 0)
        if held >= self.streams_per_key:
            detail = f"this key has {held} streams open, and no more are allowed: finish one first"
            return _refusal(Kind.TOO_MANY, detail)
        self._streams[grant.key] = held + 1
        return None

    @property
    def counts_streams(self) -> bool:
        return bool(self.streams_per_key)

    def give_stream(self, grant: Grant) -> None:
        """Undo one `take_stream` that returned None."""
        held = self._streams.get(grant.key, 0)
        if held > 1:
            self._streams[grant.key] = held - 1
        else:
            # Removed, not zeroed: in passthrough mode anybody can invent fingerprints, and they must not add up.
            self._streams.pop(grant.key, None)


def _of_key(grant: Grant) -> tuple[str | None, str | None]:
    """The key and its group, as limits know them."""
    return None if grant.passthrough else grant.key, None if grant.door is None else grant.door.key.group


def _filled(chain: Chain) -> Chain | None:
    return chain if chain.rates or chain.budgets or chain.slots else None


def is_meant(patterns: Iterable[str], model: str | None, target: Target, providers: Container[str]) -> bool:
    """Whether a model is among those of a key. A pattern with a slash means `provider/model`, as here; or what the
    client wrote, unless that begins with the name of a provider: "openai/*" is not what another one has so named."""
    asked = target.model or model
    if asked is None:
        return False
    written = (model or asked).lower()
    plain = (asked.lower(), written)
    full = [f"{target.provider.name}/{asked}".lower()]
    if written.partition("/")[0] not in providers:
        full.append(written)
    return any(_fits(each, name) for each in patterns for name in (full if "/" in each else plain))


@lru_cache(maxsize=10_000)
def _fits(pattern: str, name: str) -> bool:
    return pattern_of(pattern).fullmatch(name) is not None


def _passed_through(head: RequestHead, values: list[bytes]) -> Grant:
    carried = [field for field in head.fields if field[0] in KEY_CARRIERS and field[2]]
    if head.query:
        value = strip_key(head.query)[1]
        if value is not None and not carried:
            # Decoded query bytes could hold CR or LF; such a value is no credential and must not become a field.
            if all(0x21 <= byte <= 0x7E for byte in value):
                carried.append((b"x-goog-api-key", b"x-goog-api-key", value))
    name: str | None = None  # stays None where nothing at all was sent
    if values:
        name = fingerprint(values[0])
    elif carried:
        name = fingerprint(carried[0][2])  # a scheme other than Bearer
    return Grant(name, carried, True)


class Fields(Protocol):
    """Any request whose Host and fields can be asked for: a data path head, or one of the admin listener."""

    @property
    def host(self) -> bytes: ...

    def get(self, name: bytes) -> bytes | None: ...


def is_browser_page(head: Fields, hosts: frozenset[str], when: str = " while no keys are configured") -> str | None:
    """Why `head` looks like the work of a web page, as a sentence for the client; None if it does not. `when`: pages
    are refused."""
    if head.get(b"origin") is not None:
        return f"requests from web pages are refused{when} (the request has an Origin field)"
    site = head.get(b"sec-fetch-site")
    if site is not None and site not in (b"none", b"same-origin"):
        return f"requests from web pages are refused{when} (Sec-Fetch-Site says another site)"
    if not _is_local_name(head.host) and _name_of(head.host) not in hosts:
        return "the Host of this request is not known here: use localhost or an address, or name it in LLM_PROXY_HOSTS"
    return None


def _name_of(host: bytes) -> str:
    """A Host value without its port, lower case, without a final dot."""
    if host.startswith(b"["):
        name = host.partition(b"]")[0][1:]
    else:
        name = host.partition(b":")[0]
    return name.decode("latin-1").lower().removesuffix(".")


@lru_cache(maxsize=256)
def _is_local_name(host: bytes) -> bool:
    """Is this Host value `localhost` or an address? Neither can be rebound by a page."""
    if len(host) > 255:
        return False
    name = _name_of(host)
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
