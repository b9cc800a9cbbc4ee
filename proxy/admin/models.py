"""Aliases and their targets by the admin API: what is in force, how it stands, and how it is changed.

Lives here: `ModelPages`: the routes /models and /targets; `Catalog`, which the server hands in; `read_alias`, which the
commands use, too. May not live here: the grammar of aliases (catalog), the store (ledger.models), what goes before what
(server), traffic (relay).
How it works: what is in force and how targets stand is read in the loop, in one step, after the server has looked for
changes; a thread makes the pages of it, since the texts take 20 us for each target. A change is checked as
LLM_PROXY_MODELS is, stored by a thread, told by the counters' file and looked at at once, all as with keys: whoever has
the answer can use what was changed. An alias that is stored goes before the environment's of that name; taken away, it
lets that one come back. The environment's own are changed where they stand.
Doubted: how targets stand takes the loop 3 us for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from proxy.admin.documents import moment
from proxy.admin.keys import WAIT
from proxy.admin.members import About, Form, Member, Refused
from proxy.admin.routes import AdminAnswer, AdminRequest, Later, Route, json_answer
from proxy.catalog.alias_text import options_text, parse_aliases, targets_text, written
from proxy.catalog.aliases import Alias, Choice
from proxy.catalog.snapshot import Provider
from proxy.ledger.counters import beside, bump
from proxy.ledger.models import ModelRow, ModelStore
from proxy.ledger.schema import LedgerUnusable
from proxy.outcome import Kind
from proxy.policy.credentials import Credentials
from proxy.policy.health import TargetHealth, TargetKey


class Catalog(NamedTuple):
    """`aliases`: those in force. `environment`: those of LLM_PROXY_MODELS, also where a stored one goes before.
    `stored`: all rows by name. `unused`: why such a one cannot be used."""

    providers: Mapping[str, Provider]
    aliases: Mapping[str, Alias]
    environment: Mapping[str, Alias]
    stored: Mapping[str, ModelRow]
    unused: Mapping[str, str]


# What is known of targets, and of the credentials of providers; and the time by the clock of both.
Standing = tuple[Mapping[TargetKey, TargetHealth], Sequence[tuple[Provider, Credentials]], float]
States = Mapping[TargetKey, dict[str, Any]]

_MODEL = ("name", "targets", "options", "text", "source", "changed_at", "instead_of", "groups")
_BODY = (
    Member("targets", Form.TEXT, "As behind the = in LLM_PROXY_MODELS: 'openai/gpt-4o*3, x/m | y/m'.", is_needed=True),
    Member("options", Form.TEXT, "As in the parentheses there: 'retries=3 hedge'. null: none.", is_cleared=True),
)


class ModelPages:
    """`path`: of the ledger; None: there is none. `look` has the server see what has changed, in the loop; `changed`
    says that something has. `note` tells the operator."""

    def __init__(
        self,
        path: str | None,
        catalog: Callable[[], Catalog],
        standing: Callable[[], Standing],
        look: Callable[[], None],
        changed: Callable[[], None],
        note: Callable[..., None],
    ) -> None:
        self._path = path
        self._catalog = catalog
        self._standing = standing
        self._look = look
        self._changed = changed
        self._note = note

    def routes(self) -> list[Route]:
        every = About("Aliases in force, and stored ones that cannot be used.", ("models", "unused"))
        put = About("Store an alias, before the environment's of that name.", _MODEL, (), _BODY)
        gone = About("Take a stored alias away; the environment's comes back.", ("removed",))
        known = About("Targets that aliases have asked, and credentials that are out.", ("targets", "credentials"))
        return [
            Route("GET", "/models", partial(self._later, self._list, None), True, every),
            Route("PUT", "/models/{name}", partial(self._later, self._put, self._changed), True, put),
            Route("DELETE", "/models/{name}", partial(self._later, self._remove, self._changed), True, gone),
            Route("GET", "/targets", self._targets, True, known),
        ]

    def _later(
        self,
        make: Callable[[AdminRequest, Catalog, States], AdminAnswer],
        after: Callable[[], None] | None,
        request: AdminRequest,
    ) -> Later:
        self._look()
        return Later(partial(make, request, self._catalog(), self._states()), after)

    def _states(self) -> States:
        health, _, now = self._standing()
        return {key: _state(each, now) for key, each in health.items()}

    # --- what there is ------------------------------------------------------------------------------------------------

    def _list(self, request: AdminRequest, catalog: Catalog, states: States) -> AdminAnswer:
        models = [_model(alias, _row(alias.name, catalog), catalog, states) for alias in catalog.aliases.values()]
        unused = [
            {"name": name, "text": catalog.stored[name].text, "problem": problem}
            for name, problem in catalog.unused.items()
        ]
        return json_answer(200, {"models": models, "unused": unused})

    def _targets(self, request: AdminRequest) -> AdminAnswer:
        _, credentials, now = self._standing()
        targets = [{"provider": key[0], "model": key[1], **state} for key, state in sorted(self._states().items())]
        out = [
            {
                "provider": provider.name,
                "index": index,
                "fingerprint": f"#{provider.credentials[index].fingerprint}",
                "model": model or None,
            }
            for provider, known in credentials
            for index, model in known.out(now)
        ]
        return json_answer(200, {"targets": targets, "credentials": out})

    # --- changes, each in a thread ------------------------------------------------------------------------------------

    def _put(self, request: AdminRequest, catalog: Catalog, states: States) -> AdminAnswer:
        name, said = request.named["name"], request.said
        text, alias = read_alias(name, said["targets"], said.get("options") or "", catalog.providers)
        if isinstance(alias, list):
            return _wrong(text, alias)
        with self._changing() as store:
            row = store.put(name, written(alias))
        self._note("info", f"the alias {name} was stored by the admin API", text=row.text)
        return json_answer(200, _model(alias, row, catalog, states))

    def _remove(self, request: AdminRequest, catalog: Catalog, states: States) -> AdminAnswer:
        name = request.named["name"]
        with self._changing() as store:
            is_gone = store.remove(name)
        if is_gone:
            self._note("info", f"the alias {name} was taken away by the admin API")
            return json_answer(200, {"removed": name})
        if name in catalog.environment:
            how = "change it there, and reload llm-proxy, or PUT one here, which goes before it"
            raise Refused(Kind.CONFLICT, f"{name} is an alias of LLM_PROXY_MODELS: {how}.")
        raise Refused(Kind.NOT_FOUND, f"There is no alias called {name}.")

    @contextmanager
    def _changing(self) -> Iterator[ModelStore]:
        """The aliases that are stored; whatever reads the counters' file sees that something has changed."""
        if self._path is None:
            raise Refused(Kind.NOT_FOUND, "No ledger is kept here (LLM_PROXY_DB=off), and so there is nothing to keep.")
        try:
            with ModelStore(self._path, WAIT) as store:
                yield store
                bump(beside(store.path))
        except LedgerUnusable as error:
            raise Refused(Kind.OVERLOADED, f"{error}.") from None


def read_alias(
    name: str, targets: str, options: str, providers: Mapping[str, Provider]
) -> tuple[str, Alias | list[str]]:
    """What was said of an alias as one text; and the alias, or all that is wrong, with places in that text."""
    options = options.strip()
    text = f"{name} ({options}) = {targets.strip()}" if options else f"{name} = {targets.strip()}"
    found, problems = parse_aliases(text, providers)
    if not problems and list(found) != [name]:
        problems = ["this is not one alias, or its name holds more than a name"]
    return text, problems or found[name]


# --- as plain values --------------------------------------------------------------------------------------------------


def _row(name: str, catalog: Catalog) -> ModelRow | None:
    """What is stored of the alias in force; None: it is the environment's."""
    return None if name in catalog.unused else catalog.stored.get(name)


def _model(alias: Alias, row: ModelRow | None, catalog: Catalog, states: States) -> dict[str, Any]:
    other = None if row is None else catalog.environment.get(alias.name)
    return {
        "name": alias.name,
        "targets": targets_text(alias),
        "options": options_text(alias),
        "text": written(alias),
        "source": "environment" if row is None else "stored",
        "changed_at": None if row is None else moment(row.changed_at),
        "instead_of": None if other is None else written(other),
        "groups": [[_choice(choice, states) for choice in group] for group in alias.groups],
    }


def _choice(choice: Choice, states: States) -> dict[str, Any]:
    state = states.get((choice.provider, choice.model), _NEVER_ASKED)
    return {**choice._asdict(), "window": choice.window or None, **state}


def _state(health: TargetHealth, now: float) -> dict[str, Any]:
    breaker = health.breaker
    return {
        "state": breaker.state(now).value,
        "retry_in": round(breaker.retry_in(now), 3),
        "in_flight": health.in_flight,
        "latency_ms": _milliseconds(health.latency),
        "p95_ms": _milliseconds(health.p95()),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000.0, 1)


_NEVER_ASKED = _state(TargetHealth(), 0.0)


def _wrong(text: str, problems: list[str]) -> AdminAnswer:
    message = f"The alias cannot be used: {'; '.join(problems)}. The places are those in: {text}"
    # Of the shape of all errors here, and with what is wrong one by one.
    error = {"code": Kind.BAD_REQUEST.value, "message": message, "errors": problems}
    return json_answer(400, {"error": error})
