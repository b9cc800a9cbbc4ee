"""Which targets may answer a call?

Lives here: `Route` and `Call` -> `Plan`: providers, paths joined to their base URLs and, where the client wrote an
alias or `provider/model`, the model to put in. May not live here: which paths there are (router), which target is asked
first (health), what a key may ask for (admission).
How it works: a model name is resolved as an alias, then as `provider/model`, then by the owner of the name, then to the
default provider (DESIGN 9). On paths that only one family has (Gemini's, Ollama's) the owner of a name is not asked:
the path says it already. Of an alias those targets stay whose provider speaks the dialect.
Doubted: nothing yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from proxy.catalog.aliases import Alias, Choice
from proxy.catalog.families import FAMILIES
from proxy.catalog.snapshot import Provider, Snapshot
from proxy.dialects.call import Call
from proxy.dialects.gemini import find_model
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.policy.keys import strip_key

if TYPE_CHECKING:
    from proxy.policy.router import Route

# The family that a dialect is at home in: its provider answers where the default cannot.
_HOME: Final = {
    "anthropic-messages": "anthropic",
    "anthropic-count-tokens": "anthropic",
    "gemini": "gemini",
    "ollama": "ollama",
}
_OWNERLESS: Final = frozenset({"gemini", "ollama"})


class Target(NamedTuple):
    """Where to send it. `target` is path and query in origin form; `model` replaces the one in the body unless None."""

    provider: Provider
    target: bytes
    model: str | None
    weight: int = 1
    window: int = 0  # tokens; 0: not known


class Plan(NamedTuple):
    """All targets that may answer, in order of their groups; those of a group are equals. One, without an alias."""

    groups: tuple[tuple[Target, ...], ...]
    alias: Alias | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(target for group in self.groups for target in group)


def refusal(kind: Kind, detail: str) -> Failure:
    return Failure(Side.CLIENT, Phase.HEAD, kind, detail)


def plan(route: Route, call: Call | None, query: bytes, snapshot: Snapshot) -> Plan | Failure:
    """Providers, targets and new model names. `call` is None where the body is not read. Failure: UNROUTED, and
    BAD_REQUEST for an alias that has no target for the dialect."""
    query = strip_key(query)[0] if query else query
    provider, model = route.provider, None
    if provider is None:
        name = call.model if call is not None else None
        alias = snapshot.aliases.get(name) if name is not None else None
        if alias is not None:
            return _plan_alias(alias, route, query, snapshot)
        found = _resolve(name, route.dialect.name, snapshot)
        if isinstance(found, Failure):
            return found
        provider, model = found
    return Plan(((Target(provider, _target(provider, route.path, query), model),),))


def _target(provider: Provider, path: bytes, query: bytes) -> bytes:
    joined = join(provider, path)
    return joined + b"?" + query if query else joined


def _plan_alias(alias: Alias, route: Route, query: bytes, snapshot: Snapshot) -> Plan | Failure:
    groups = []
    for group in alias.groups:
        targets = [_alias_target(choice, route, query, snapshot.providers) for choice in group]
        groups.append(tuple(target for target in targets if _speaks(target.provider, route.dialect.name)))
    if not any(groups):
        return _no_target(alias, route.dialect.name, snapshot)
    return Plan(tuple(filter(None, groups)), alias)


def _alias_target(choice: Choice, route: Route, query: bytes, providers: dict[str, Provider]) -> Target:
    provider, path, model = providers[choice.provider], route.path, choice.model
    named = find_model(path) if route.dialect.name == "gemini" else None  # there it stands in the path
    if named is not None:
        path = path[: named.start] + quote(model, safe="").encode() + path[named.end :]
    return Target(provider, _target(provider, path, query), model, choice.weight, choice.window)


# For each dialect the path that its clients use, as far as one may stand for another.
_PATHS: Final = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:generateContent",
    "ollama": "/api/chat",
}


def _no_target(alias: Alias, dialect: str, snapshot: Snapshot) -> Failure:
    families = {snapshot.providers[choice.provider].family for group in alias.groups for choice in group}
    paths = [path for spoken, path in _PATHS.items() if any(spoken in FAMILIES[family].dialects for family in families)]
    detail = f"no target of {alias.name} speaks {dialect}: ask for it under {' or '.join(paths)}"
    return refusal(Kind.BAD_REQUEST, detail)


def _resolve(name: str | None, dialect: str, snapshot: Snapshot) -> tuple[Provider, str | None] | Failure:
    """The provider of model `name`, and the name it has there if that is another one."""
    if name is not None:
        prefix, slash, rest = name.partition("/")
        if slash and rest:
            provider = snapshot.providers.get(prefix)
            if provider is not None:
                return (provider, rest) if _speaks(provider, dialect) else not_spoken(provider, dialect)
        if dialect not in _OWNERLESS:
            owner = snapshot.owner_of(name)
            if owner is not None:
                provider = snapshot.providers[owner]
                return (provider, None) if _speaks(provider, dialect) else not_spoken(provider, dialect)
    return _fall_back(dialect, snapshot)


def _fall_back(dialect: str, snapshot: Snapshot) -> tuple[Provider, str | None] | Failure:
    default = snapshot.default
    if default is not None and _speaks(default, dialect):
        return default, None
    home = _HOME.get(dialect)
    provider = of_family(home, snapshot) if home is not None else None
    if provider is not None:
        return provider, None
    return no_default(snapshot) if default is None else not_spoken(default, dialect)


def _speaks(provider: Provider, dialect: str) -> bool:
    return dialect in FAMILIES[provider.family].dialects


def of_family(family: str, snapshot: Snapshot) -> Provider | None:
    """The vendor's own provider where there is one (it bears the family's name), else the first of the family."""
    provider = snapshot.providers.get(family)
    if provider is not None and provider.family == family:
        return provider
    return next((provider for provider in snapshot.providers.values() if provider.family == family), None)


def no_default(snapshot: Snapshot) -> Failure:
    if not snapshot.providers:
        return refusal(Kind.UNROUTED, "no provider is configured here: set e.g. OPENAI_API_KEY where the proxy runs")
    detail = "no provider for this request: write the model as provider/model, or set LLM_PROXY_DEFAULT_PROVIDER"
    return refusal(Kind.UNROUTED, detail)


def not_spoken(provider: Provider, dialect: str) -> Failure:
    detail = (
        f"provider {provider.name} (family {provider.family}) does not speak {dialect}: use a path of its own format, "
        "or name another provider as provider/model"
    )
    return refusal(Kind.UNROUTED, detail)


def join(provider: Provider, path: bytes) -> bytes:
    """`path` under the provider's base URL, as its vendor's SDK joins them (DESIGN 9).

    In the OpenAI family /v1 stands for the base; a path that begins with the base already is the vendor's own.
    """
    base = provider.base
    if FAMILIES[provider.family].whole_path:
        return base + path
    if base and path.startswith(base) and path[len(base) : len(base) + 1] in (b"/", b""):
        return path
    if path.startswith(b"/v1/"):
        return base + path[3:]
    if provider.family == "azure" and path.startswith(b"/openai/"):
        return path  # deployments lie beside the base /openai/v1, not below it
    return base + path
