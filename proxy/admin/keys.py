"""Keys and groups by the admin API, as `llm-proxy keys` has them.

Lives here: `KeyPages`: the routes below /keys and /groups, and what they do. May not live here: what may be said of a
key (policy.key_fields), the store (ledger.keys), who may come in (policy), the token (server).
How it works: every answer that needs the ledger is made by a thread, with a connection of its own. A change is stored,
then the counters' file is bumped as the commands do it; then, in the loop, the server looks at once, so that whoever
has the answer can use what was changed. Members of a body are those of the document that GET shows.
Keys of LLM_PROXY_KEYS are listed with `static`, and belong to the environment: changing one is refused.
Doubted: a key whose answer is lost on its way is there, and nobody has its value: it has to be rotated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from proxy.admin import documents
from proxy.admin.members import About, Form, Member, Refused
from proxy.admin.routes import AdminAnswer, AdminRequest, Later, Route, json_answer
from proxy.ledger.counters import beside, bump
from proxy.ledger.keys import KeyRow, KeysError, KeyStore, Missing, digest_of, new_value, prefix_of
from proxy.ledger.period import ahead
from proxy.ledger.schema import LedgerUnusable
from proxy.outcome import Kind
from proxy.policy.key_fields import LEAST_KEY, FieldsError, is_key_value, limits_line, name_problem, read_fields

WAIT = 5.0  # seconds for others' locks; the ledger's writer holds one for some milliseconds
PAGE = 1000  # keys in one answer: a tenth of a second
_KEPT = "7d"  # an old value after a rotation, as `llm-proxy keys rotate` has it

_FIELDS = (
    Member("limits", Form.TEXT, "Limits and budgets, such as 'rpm=60 20usd/month'.", is_cleared=True),
    Member("group", Form.TEXT, "The group whose limits it shares.", is_cleared=True),
    Member("owner", Form.TEXT, "Whose it is.", is_cleared=True),
    Member("tags", Form.TEXTS, "For people.", is_cleared=True),
    Member("models", Form.TEXTS, "What it may ask for; * stands for anything. null: all.", is_cleared=True),
    Member("providers", Form.TEXTS, "What it may reach. null: all.", is_cleared=True),
    Member("disconnect", Form.TEXT, "When its client leaves: cancel, drain or drain:<seconds>.", is_cleared=True),
    Member("expires_at", Form.TEXT, "When it ends: RFC 3339, a date, or a span such as 90d.", is_cleared=True),
    Member("uid", Form.NUMBER, "The user id at a Unix socket that needs no value.", is_cleared=True),
    Member(
        "raw", Form.FLAG, "Whether it may use paths that are not read. null: unless it has limits.", is_cleared=True
    ),
)
_VALUE = Member("value", Form.TEXT, "A value that clients have already; else one is made, and shown this once.")
_KEY = (
    "name", "state", "prefix", "old_prefix", "old_until", "owner", "tags", "group", "models", "providers", "limits",
    "disconnect", "raw", "uid", "expires_at", "created_at", "changed_at", "removed_at", "static",
)  # fmt: skip
_GROUP = ("name", "limits", "keys", "changed_at")
_AFTER = Member("after", Form.TEXT, "Only names behind this one: `next` of the answer before.")
_LIMIT = Member("limit", Form.NUMBER, f"How many at most; {PAGE} if not said, and never more.")


class KeyPages:
    """`path`: of the ledger; None: there is none. `static`: the keys of the environment. `mode` says whether keys are
    asked for (`LLM_PROXY_AUTH`). `changed` has the server look, in the loop. `note` tells the operator."""

    def __init__(
        self,
        path: str | None,
        static: Mapping[str, KeyRow],
        mode: Callable[[], str],
        changed: Callable[[], None],
        note: Callable[..., None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._static = static
        self._mode = mode
        self._changed = changed
        self._note = note
        self._now = now

    def routes(self) -> list[Route]:
        name = Member("name", Form.TEXT, "How it is called: up to 64 letters, digits and . _ @ -", is_needed=True)
        old = Member(
            "old_until", Form.TEXT, f"How long the old value stays valid ({_KEPT}). null: no longer.", False, True
        )
        limits = Member("limits", Form.TEXT, "Of all its keys together, such as '100usd/month'.", is_needed=True)
        hands_out = ("value", *_KEY)

        def route(method: str, path: str, do: Any, about: About) -> Route:
            changes = method != "GET"
            return Route(method, path, lambda request: Later(partial(do, request), self._after(changes)), True, about)

        return [
            route("GET", "/keys", self._list, About("List keys.", ("auth", "keys", "next"), (_AFTER, _LIMIT))),
            route("POST", "/keys", self._create, About("Make a key.", hands_out, (), (name, _VALUE, *_FIELDS), 201)),
            route("GET", "/keys/{name}", self._show, About("Show a key.", _KEY)),
            route("PATCH", "/keys/{name}", self._change, About("Change what a key may do.", _KEY, (), _FIELDS)),
            route("DELETE", "/keys/{name}", self._remove, About("Take a key away for good.", ("removed",))),
            route("POST", "/keys/{name}/rotate", self._rotate, About("New value.", hands_out, (), (_VALUE, old))),
            route("POST", "/keys/{name}/disable", partial(self._switch, 1), About("Refuse a key.", _KEY)),
            route("POST", "/keys/{name}/enable", partial(self._switch, 0), About("Take it again.", _KEY)),
            route("GET", "/groups", self._list_groups, About("List groups of keys.", ("groups",))),
            route("PUT", "/groups/{name}", self._put_group, About("Make or change a group.", _GROUP, (), (limits,))),
            route("DELETE", "/groups/{name}", self._remove_group, About("Take a group away.", ("removed",))),
        ]

    def _after(self, changes: bool) -> Callable[[], None] | None:
        return self._changed if changes else None

    # --- keys, each in a thread ---------------------------------------------------------------------------------------

    def _list(self, request: AdminRequest) -> AdminAnswer:
        after, most = request.asked.get("after", ""), page_size(request, PAGE)
        rows = dict(self._static)
        if self._path is not None:
            with opened(self._path) as store:
                rows = {row.name: row for row in store.page(after, most + 1)} | rows
        names = sorted(name for name in rows if name > after)
        following = names[most - 1] if len(names) > most else None
        keys = [self._document(rows[name]) for name in names[:most]]
        return json_answer(200, {"auth": self._mode(), "keys": keys, "next": following})

    def _show(self, request: AdminRequest) -> AdminAnswer:
        name = request.named["name"]
        if name in self._static:
            return json_answer(200, self._document(self._static[name]))
        with opened(self._path) as store:
            return json_answer(200, self._document(found(store, name)))

    def _create(self, request: AdminRequest) -> AdminAnswer:
        said = dict(request.said)
        name = checked_name(said.pop("name"))
        self._refuse_static(name, "LLM_PROXY_KEYS has a key of that name: take another.")
        given = said.pop("value", None)
        columns = self._columns(said)
        value = checked_value(given) if given is not None or columns.get("uid") is not None else new_value()
        digest, prefix = (None, None) if value is None else (digest_of(value), prefix_of(value))
        with changing(self._path) as store:
            store.create(KeyRow(name, digest, prefix, **columns))
            row = found(store, name)
        self._tell(f"the key {name} was made", row)
        return json_answer(201, {"value": value if given is None else None, **self._document(row)})

    def _change(self, request: AdminRequest) -> AdminAnswer:
        columns = self._columns(request.said)
        if not columns:
            raise Refused(Kind.BAD_REQUEST, 'Nothing is to be changed: say what, such as {"limits": "rpm=60"}.')
        return self._store(request.named["name"], "changed", **columns)

    def _switch(self, disabled: int, request: AdminRequest) -> AdminAnswer:
        return self._store(request.named["name"], "disabled" if disabled else "enabled", disabled=disabled)

    def _store(self, name: str, done: str, **columns: Any) -> AdminAnswer:
        self._refuse_static(name)
        with changing(self._path) as store:
            found(store, name)
            store.change(name, **columns)
            row = found(store, name)
        self._tell(f"the key {name} was {done}", row)
        return json_answer(200, self._document(row))

    def _rotate(self, request: AdminRequest) -> AdminAnswer:
        name = request.named["name"]
        self._refuse_static(name)
        given, kept = request.said.get("value"), request.said.get("old_until", _KEPT)
        value = new_value() if given is None else checked_value(given)
        assert value is not None
        try:
            until = None if kept is None else ahead(kept, self._now())
        except ValueError as error:
            raise Refused(Kind.BAD_REQUEST, f"old_until: {error}.") from None
        with changing(self._path) as store:
            found(store, name)
            store.rotate(name, digest_of(value), prefix_of(value), until)
            row = found(store, name)
        self._tell(f"the key {name} was rotated", row)
        return json_answer(200, {"value": value if given is None else None, **self._document(row)})

    def _remove(self, request: AdminRequest) -> AdminAnswer:
        name = request.named["name"]
        self._refuse_static(name)
        with changing(self._path) as store:
            found(store, name)
            store.remove(name)
        self._tell(f"the key {name} was removed")
        return json_answer(200, {"removed": name})

    # --- groups -------------------------------------------------------------------------------------------------------

    def _list_groups(self, request: AdminRequest) -> AdminAnswer:
        with opened(self._path) as store:
            return json_answer(200, {"groups": documents.groups(store.groups(), store.members())})

    def _put_group(self, request: AdminRequest) -> AdminAnswer:
        name = checked_name(request.named["name"], "group")
        try:
            limits = limits_line(request.said["limits"])
        except ValueError as error:
            raise Refused(Kind.BAD_REQUEST, f"limits: {'; '.join(error.args)}.") from None
        with changing(self._path) as store:
            store.set_group(name, limits)
            groups, members = store.groups(), store.members()
        [document] = documents.groups((row for row in groups if row.name == name), members)
        self._tell(f"the group {name} was set")
        return json_answer(200, document)

    def _remove_group(self, request: AdminRequest) -> AdminAnswer:
        name = request.named["name"]
        with changing(self._path, missing=Kind.NOT_FOUND) as store:
            store.remove_group(name)
        self._tell(f"the group {name} was removed")
        return json_answer(200, {"removed": name})

    # --- what they share ----------------------------------------------------------------------------------------------

    def _document(self, row: KeyRow) -> dict[str, Any]:
        return {**documents.key(row, self._now()), "static": row.name in self._static}

    def _columns(self, said: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return read_fields(
                {name: _text_of(name, value) for name, value in said.items()}, lambda text: ahead(text, self._now())
            )
        except FieldsError as error:
            sentences = "; ".join(f"{field}: {sentence}" for field, sentence in error.problems)
            raise Refused(Kind.BAD_REQUEST, f"{sentences}.") from None

    def _refuse_static(self, name: str, why: str = "") -> None:
        if name in self._static:
            why = why or f"{name} is a key of LLM_PROXY_KEYS: change it there, and reload llm-proxy."
            raise Refused(Kind.CONFLICT, why)

    def _tell(self, what: str, row: KeyRow | None = None) -> None:
        more = {} if row is None else {"state": documents.state(row, self._now())}
        self._note("info", f"{what} by the admin API", **more)


def _text_of(name: str, value: Any) -> str:
    """A member's value as the text that policy.key_fields reads."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if not isinstance(value, list):
        return str(value)
    if not value and name != "tags":  # it would be read as no limit at all
        raise Refused(Kind.BAD_REQUEST, f"{name}: may not be an empty list; null means all.")
    separator = "," if name == "tags" else " "
    for each in value:
        if not each.strip() or (separator in each if name == "tags" else each != "".join(each.split())):
            raise Refused(Kind.BAD_REQUEST, f"{name}: each of them must be one name.")
    return separator.join(value)


def checked_name(name: str, what: str = "key") -> str:
    problem = name_problem(name, what)
    if problem is not None:
        raise Refused(Kind.BAD_REQUEST, f"{problem[:1].upper()}{problem[1:]}.")
    return name


def checked_value(value: str | None) -> str | None:
    """A value that somebody chose; None: none was given."""
    if value is not None and not is_key_value(value):
        raise Refused(Kind.BAD_REQUEST, f"value: a key has {LEAST_KEY} or more visible ASCII characters.")
    return value


def page_size(request: AdminRequest, most: int) -> int:
    size = int(request.asked.get("limit", most))
    if not size:
        raise Refused(Kind.BAD_REQUEST, "limit must be 1 or more.")
    return min(size, most)


# --- the store --------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: str | None, missing: Kind = Kind.CONFLICT) -> Iterator[KeyStore]:
    """The keys in the ledger at `path`. `missing`: what it is if something is not there that a change needs."""
    if path is None:
        raise Refused(
            Kind.NOT_FOUND, "No ledger is kept here (LLM_PROXY_DB=off), and so there is nothing to see in it."
        )
    try:
        with KeyStore(path, WAIT) as store:
            yield store
    except KeysError as error:
        kind = missing if isinstance(error, Missing) else Kind.CONFLICT
        raise Refused(kind, f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    except LedgerUnusable as error:
        raise Refused(Kind.OVERLOADED, f"{error}.") from None


@contextmanager
def changing(path: str | None, missing: Kind = Kind.CONFLICT) -> Iterator[KeyStore]:
    """The same, to change them: whatever reads the counters' file sees that something has changed."""
    with opened(path, missing) as store:
        yield store
        bump(beside(store.path))


def found(store: KeyStore, name: str) -> KeyRow:
    row = store.key(checked_name(name))
    if row is None:
        raise Refused(Kind.NOT_FOUND, f"There is no key called {name}.")
    return row
