"""Aliases that are stored in the ledger, put over those of LLM_PROXY_MODELS, and always as they are now.

Lives here: `merged`, `with_stored` (for `check`), `StoredModels`. May not live here: the table (ledger.models), the
grammar (catalog), when to look (keys, which compares one number before each request), what people ask (admin).
How it works: the snapshot is made anew as a whole and put in place in one step; exchanges keep theirs. What is stored
was right when it was stored, and providers may have gone since: such an alias is left out, as if it had been taken
away, and told, for nothing that is stored may keep the process from starting or from being reloaded.
Doubted: at start, and when providers have changed, the loop reads all of them: 50 ms for a thousand. One that was
changed among a thousand takes 2 ms, and whether any was 6 us (of 20; asked only when the number above has changed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from proxy.admin.models import Catalog
from proxy.catalog.alias_text import parse_aliases
from proxy.catalog.aliases import Alias
from proxy.catalog.snapshot import Provider, Snapshot
from proxy.ledger.models import ModelRow, ModelStore, stored_models
from proxy.relay.relay import Relay
from proxy.server.settings import Settings

_WAIT = 0.2  # seconds for others' locks: the loop stands still meanwhile


class Merged(NamedTuple):
    """`unused`: by name a sentence that says why a stored alias is left out."""

    aliases: dict[str, Alias]
    unused: dict[str, str]


def merged(environment: Mapping[str, Alias], stored: Mapping[ModelRow, Alias | str]) -> Merged:
    """The environment's aliases in their order, those that are `stored` in their places or behind."""
    aliases, unused = dict(environment), dict[str, str]()
    for row, found in stored.items():
        if isinstance(found, str):
            unused[row.name] = found
        else:
            aliases[row.name] = found
    return Merged(aliases, unused)


def read_row(row: ModelRow, providers: Mapping[str, Provider]) -> Alias | str:
    """The alias that stands in `row`, or why it cannot be used."""
    found, problems = parse_aliases(row.text, providers)
    if not problems and list(found) != [row.name]:
        problems = ["it is not one alias of that name"]
    if problems:
        return f"the stored alias {row.name} is not used: {'; '.join(problems)} (in: {row.text})"
    return found[row.name]


def with_stored(settings: Settings) -> tuple[Settings, list[str]]:
    """`settings` as a process has them in force that finds the ledger as it is now, and warnings about that."""
    rows = [] if settings.ledger is None else stored_models(settings.ledger.path)
    providers = settings.snapshot.providers
    found = merged(settings.snapshot.aliases, {row: read_row(row, providers) for row in rows})
    warnings = list(found.unused.values())
    snapshot = replace(settings.snapshot, aliases=found.aliases)
    return replace(settings, snapshot=snapshot, warnings=(*settings.warnings, *warnings)), warnings


class StoredModels:
    """`relay` has the snapshot, which is that of the environment as yet. `path`: of the ledger; None: there is none."""

    __slots__ = ("_environment", "_note", "_path", "_providers", "_relay", "_revision", "_store", "_stored", "_unused")

    def __init__(self, path: str | None, relay: Relay, note: Callable[..., None]) -> None:
        self._path = path
        self._relay = relay
        self._note = note
        self._environment = relay.snapshot.aliases
        self._store: ModelStore | None = None
        self._revision = 0
        self._providers: Mapping[str, Provider] = {}  # that `_stored` was read for
        self._stored: dict[ModelRow, Alias | str] = {}
        self._unused: dict[str, str] = {}

    def look(self) -> None:
        """Something in the ledger may have changed: what is stored now holds from here on. Raises LedgerUnusable."""
        if self._path is None:
            return
        if self._store is None:
            self._store = ModelStore(self._path, _WAIT)
        revision = self._store.revision()
        if revision != self._revision:
            self._relay.snapshot = self._over(self._relay.snapshot, self._store.models())
            self._revision = revision

    def over(self, snapshot: Snapshot) -> Snapshot:
        """`snapshot`, which is that of the environment from now on, with what is stored."""
        self._environment = snapshot.aliases
        return self._over(snapshot, self._stored)

    def catalog(self) -> Catalog:
        """What the admin pages show."""
        snapshot, rows = self._relay.snapshot, {row.name: row for row in self._stored}
        return Catalog(snapshot.providers, snapshot.aliases, self._environment, rows, self._unused)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _over(self, snapshot: Snapshot, rows: Iterable[ModelRow]) -> Snapshot:
        # Reading a text takes 0.1 ms, and there may be hundreds that have not changed.
        known = self._stored if snapshot.providers == self._providers else {}
        self._stored = {row: known.get(row) or read_row(row, snapshot.providers) for row in rows}
        self._providers = snapshot.providers
        aliases, unused = merged(self._environment, self._stored)
        for name, sentence in unused.items():
            if self._unused.get(name) != sentence:
                self._note("error", sentence)
        self._unused = unused
        return replace(snapshot, aliases=aliases)
