"""Which models may this key use? What `/v1/models` answers where the proxy itself must say it.

Lives here: whether a request asks for that (`asked_model`), and the names (`models_for`). May not live here: the bodies
(dialects/models), what may be asked for (admission: the same judgement is used here).
How it works: a provider's own list knows no alias, and shows a key more than it may use. So where there are aliases, or
the key is for some models only, the answer is ours: the aliases with a target that the key may use, in the order in
which they are configured, then the names that the key was given out for.
Doubted: patterns such as `gpt-4*` name no model, so a key that has nothing else sees aliases only.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote

from proxy.catalog.snapshot import Snapshot
from proxy.policy.admission import is_meant
from proxy.policy.keys import Key
from proxy.policy.plan import Target
from proxy.policy.router import HeadGet

OURS: Final = "llm-proxy"  # who owns an alias that several providers answer to
_PATH: Final = b"/v1/models"
_NOBODY: Final = Key("")


class Listed(NamedTuple):
    """A model as a client may call it, and whose it is."""

    name: str
    owner: str


def asked_model(method: bytes, path: bytes, head_get: HeadGet) -> str | None:
    """The model that somebody wants to know of, "" where it is all of them. None: this is no such request.

    `path` is raw, as sent. Names may hold slashes, encoded or not. What is below a model belongs to other methods:
    DELETE of a model made by training, POST of Gemini's `{model}:generateContent`.
    """
    rest = path[len(_PATH) :]
    if method not in (b"GET", b"HEAD") or not path.startswith(_PATH) or rest[:1] not in (b"", b"/"):
        return None
    # Google's client lists models here as well, and expects another format (as in router).
    if head_get(b"x-goog-api-key") is not None and head_get(b"anthropic-version") is None:
        return None
    return unquote(rest[1:])


def models_for(snapshot: Snapshot, key: Key | None) -> list[Listed] | None:
    """What `key` may use (None: there are no keys), aliases first. None: that is for the provider to say."""
    key = key or _NOBODY
    if not snapshot.aliases and key.models is None:
        return None
    listed = _aliases(snapshot, key)
    # Patterns have no letter case: `Fast` is given out with `fast`, and is no second model.
    taken = {name.lower() for name in snapshot.aliases}
    for name in key.models or ():
        if "*" in name or name.lower() in taken:
            continue
        taken.add(name.lower())
        target = _target_of(name, snapshot)
        if target is not None and _may_use(key, name, target, snapshot):
            listed.append(Listed(name, target.provider.name))
    return listed


def _aliases(snapshot: Snapshot, key: Key) -> list[Listed]:
    listed: list[Listed] = []
    for alias in snapshot.aliases.values():
        owners: set[str] = set()
        for choice in (choice for group in alias.groups for choice in group):
            provider = snapshot.providers.get(choice.provider)
            if provider is not None and _may_use(key, alias.name, Target(provider, b"", choice.model), snapshot):
                owners.add(provider.name)
        if owners:
            listed.append(Listed(alias.name, owners.pop() if len(owners) == 1 else OURS))
    return listed


def _may_use(key: Key, name: str, target: Target, snapshot: Snapshot) -> bool:
    """Whether `key` may ask for `name` where `target` answers: what Admission.permitted says of it."""
    if key.providers is not None and target.provider.name not in key.providers:
        return False
    return key.models is None or is_meant(key.models, name, target, snapshot.providers)


def _target_of(name: str, snapshot: Snapshot) -> Target | None:
    """Where a name that is no alias leads, on the paths that most providers speak (as router resolves it)."""
    prefix, slash, rest = name.partition("/")
    provider = snapshot.providers.get(prefix) if slash and rest else None
    if provider is not None:
        return Target(provider, b"", rest)
    owner = snapshot.owner_of(name)
    provider = snapshot.default if owner is None else snapshot.providers[owner]
    return None if provider is None else Target(provider, b"", None)
