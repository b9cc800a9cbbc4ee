"""Providers as frozen values.

Lives here: what a provider is, and the snapshot that finds one, or an alias, by name.
May not live here: reading configuration (load), choosing a provider for a call (policy/router).
How it works: built whole by `load`, never changed; an exchange keeps the snapshot that it began with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from proxy.catalog.aliases import Alias
from proxy.catalog.families import KEY_FIELDS, is_secret_field
from proxy.catalog.mask import Mask
from proxy.catalog.secret import Secret

if TYPE_CHECKING:
    from proxy.catalog.prices import Prices  # which needs the vendors, and they a snapshot


class Origin(NamedTuple):
    """Where connections go: the key of the pool. `proxy` is the HTTP proxy to tunnel through, (host, port), if any;
    `proxy_authorization` the value of its Proxy-Authorization field."""

    scheme: str  # "http" | "https"
    host: str  # name or address, IPv6 without brackets
    port: int
    proxy: tuple[str, int] | None = None
    proxy_authorization: Secret | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured provider. `base` is the path part of its base URL, no trailing slash (b"" or b"/v1").

    `family` says how base and path are joined and which dialects it speaks (policy/router): "openai" joins base + the
    path after /v1; "anthropic", "gemini", "ollama" join base + the whole path (DESIGN 9).
    `auth` says how the credential is carried: "bearer", "x-api-key", "api-key", "x-goog-api-key" or "none". A request
    bears one of `credentials`: the first, or where there are `further` ones, another.
    """

    name: str
    family: str
    origin: Origin
    base: bytes = b""
    host_header: bytes = b""  # what goes into Host: name, and port unless it is the scheme's own
    credential: Secret | None = field(default=None, repr=False)
    auth: str = "bearer"
    # Further fields for each request, lower-case names.
    headers: tuple[tuple[bytes, Secret], ...] = field(default=(), repr=False)
    takes_include_usage: bool = False  # its streams may be asked for usage where the client did not (WIRE 0.1)
    further: tuple[Secret, ...] = field(default=(), repr=False)  # credentials beside the first, carried as it is
    credentials: tuple[Secret, ...] = field(init=False, repr=False, compare=False)  # all of them
    # Hide what of ours it could send back: all of it, and all but the credentials (it is not told them where clients
    # bring their own). None: there is nothing.
    mask: Mask | None = field(init=False, repr=False, compare=False)
    field_mask: Mask | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        secrets = [value for name, value in self.headers if is_secret_field(name)]
        if self.origin.proxy_authorization is not None:
            secrets.append(self.origin.proxy_authorization)
        object.__setattr__(self, "field_mask", Mask(secrets) or None)
        first = () if self.credential is None else (self.credential,)
        object.__setattr__(self, "credentials", first + self.further)
        object.__setattr__(self, "mask", Mask([*secrets, *self.credentials]) or None)

    @property
    def has_credential(self) -> bool:
        """Whether requests to it bear a credential of ours: its key, or a field that carries one."""
        has_key = self.credential is not None and self.auth != "none"
        return has_key or any(name in KEY_FIELDS for name, _ in self.headers)


class Reserves(NamedTuple):
    """Tokens that a request reserves of a limit or a budget where nothing else bounds them."""

    input: int = 200_000  # the context window of most models
    output: int = 32_000  # more than answers have that nobody caps


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is configured at one moment."""

    providers: dict[str, Provider]
    default: Provider | None = None
    owners: tuple[tuple[str, str], ...] = ()  # (prefix of a model name, provider name), longest first
    prices: Prices | None = None
    reserves: Reserves = field(default_factory=Reserves)
    aliases: dict[str, Alias] = field(default_factory=dict)
    _owner_by_prefix: dict[str, str] = field(init=False, repr=False, compare=False)
    _prefix_lengths: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_owner_by_prefix", dict(self.owners))
        lengths = sorted({len(prefix) for prefix, _ in self.owners}, reverse=True)
        object.__setattr__(self, "_prefix_lengths", tuple(lengths))

    def owner_of(self, model: str) -> str | None:
        """The provider that the longest known beginning of `model` belongs to.

        One lookup for each length instead of one comparison for each prefix: with all vendors configured 0.7 us
        instead of 2.2 (50 prefixes of 13 lengths).
        """
        for length in self._prefix_lengths:
            owner = self._owner_by_prefix.get(model[:length])
            if owner is not None:
                return owner
        return None
