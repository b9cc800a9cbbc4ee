"""`llm-proxy models`: store aliases, say which are stored.

Lives here: what these commands do and say. May not live here: what can be said to them (arguments), the grammar
(catalog, as the admin API reads it, too), the store (ledger.models).
How it works: as with keys, a change is stored and announced, so that a running server sees it at its next request. An
alias is checked against the providers of this environment; a server that has others leaves it out, and says so.
Aliases are shown as LLM_PROXY_MODELS has them, one on each line.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from proxy.accounts import columns
from proxy.accounts.announce import announce
from proxy.accounts.desk import Desk, Refusal, place
from proxy.accounts.hints import nearest
from proxy.admin.documents import moment
from proxy.admin.models import read_alias
from proxy.catalog.alias_text import written
from proxy.catalog.snapshot import Provider
from proxy.ledger.models import ModelRow, ModelStore
from proxy.server.settings import ConfigurationError, read_settings
from proxy.telemetry.lines import clean


def _store(desk: Desk, arguments: argparse.Namespace, *, makes: bool = False) -> ModelStore:
    """`makes`: also where there is no ledger yet."""
    return ModelStore(place(desk, arguments, is_needed=not makes), arguments.seconds, desk.now)


def list_all(desk: Desk, arguments: argparse.Namespace) -> int:
    with _store(desk, arguments) as store:
        rows = store.models()
    if arguments.json:
        desk.say(columns.json_text({"models": list(map(_document, rows))}, indented=True))
    elif rows:
        desk.say("\n".join(clean(row.text) for row in rows))
    else:
        desk.say("No aliases are stored; `llm-proxy models set NAME TARGETS` stores one.")
    return 0


def put(desk: Desk, arguments: argparse.Namespace) -> int:
    text, found = read_alias(arguments.name, arguments.targets, arguments.options, _providers(desk))
    if isinstance(found, list):
        raise Refusal(*found, f"places are counted in: {text}")
    with _store(desk, arguments, makes=True) as store:
        row = store.put(found.name, written(found))
    announce(store.path)
    desk.say(columns.json_text(_document(row), indented=True) if arguments.json else f"{row.text} is stored")
    return 0


def remove(desk: Desk, arguments: argparse.Namespace) -> int:
    name = arguments.name
    with _store(desk, arguments) as store:
        if not store.remove(name):
            near = nearest(name, [row.name for row in store.models()])
            raise Refusal(f"no alias {name} is stored" + (f"; did you mean {near[0]}?" if near else ""))
    announce(store.path)
    desk.say(columns.json_text({"removed": name}, indented=True) if arguments.json else f"{name} is removed")
    return 0


def _providers(desk: Desk) -> Mapping[str, Provider]:
    try:
        return read_settings(desk.environ).snapshot.providers
    except ConfigurationError as error:
        raise Refusal(*error.errors) from None


def _document(row: ModelRow) -> dict[str, Any]:
    return {"name": row.name, "text": row.text, "changed_at": moment(row.changed_at)}
