"""`llm-proxy keys`: make keys for clients, change them, say what there is.

Lives here: what these commands do and say. May not live here: what can be said to them (key_arguments), what the words
mean (key_fields), tables (key_views), the store (ledger.keys).
How it works: a key's value is made here, printed once on standard output, alone or in the JSON document, and is
forgotten; all other words of `create` and `rotate` are notes on the other stream, so that a script gets the value and
nothing else. Only what makes a key or a group makes the ledger's file. A running server is told of every change.
Doubted: a value is printed after it is stored: if nobody can read it, the key is there and has to be rotated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxy.accounts import columns, key_views
from proxy.accounts.announce import announce
from proxy.accounts.desk import Desk, Refusal, place
from proxy.accounts.hints import nearest
from proxy.accounts.key_fields import amounts, columns_of, given_value, key_name
from proxy.admin import documents
from proxy.ledger.keys import KeyRow, KeysError, KeyStore, digest_of, new_value, prefix_of
from proxy.ledger.period import ahead
from proxy.policy.key_fields import limits_line

_KEPT = "7d"  # an old value after a rotation: a week has a day on which somebody deploys
_ANY_WIDTH = 1_000_000


@contextmanager
def _store(desk: Desk, arguments: argparse.Namespace, *, makes: bool = False) -> Iterator[KeyStore]:
    """The keys that are meant. `makes`: also where there is no ledger yet. What cannot be done is a Refusal."""
    try:
        with KeyStore(place(desk, arguments, is_needed=not makes), arguments.seconds, desk.now) as store:
            yield store
    except KeysError as error:
        raise Refusal(str(error)) from None


@contextmanager
def _changing(desk: Desk, arguments: argparse.Namespace, *, makes: bool = False) -> Iterator[KeyStore]:
    """The keys, to change them; what was changed is announced."""
    with _store(desk, arguments, makes=makes) as store:
        yield store
    announce(store.path)


def _found(store: KeyStore, name: str) -> KeyRow:
    row = store.key(name)
    if row is None:
        rows = store.keys()
        near = nearest(name, [each.name for each in rows])
        raise Refusal(f"there is no key called {name}" + (f"; did you mean {near[0]}?" if near else ""))
    return row


# --- values -----------------------------------------------------------------------------------------------------------


def create(desk: Desk, arguments: argparse.Namespace) -> int:
    name = key_name(arguments.name)
    found = columns_of(desk, arguments)
    value = None
    if arguments.value_from_stdin:
        value = given_value(desk)
    elif found.get("uid") is None:
        value = new_value()
    digest, prefix = (None, None) if value is None else (digest_of(value), prefix_of(value))
    with _changing(desk, arguments, makes=True) as store:
        store.create(KeyRow(name, digest, prefix, **found))
        row = _found(store, name)
    _hand_out(desk, arguments, row, value)
    return 0


def rotate(desk: Desk, arguments: argparse.Namespace) -> int:
    name = key_name(arguments.name)
    until = _old_until(desk, arguments)
    value = given_value(desk) if arguments.value_from_stdin else new_value()
    with _changing(desk, arguments) as store:
        before = _found(store, name)
        store.rotate(name, digest_of(value), prefix_of(value), until)
        row = _found(store, name)
    _hand_out(desk, arguments, row, value)
    if before.digest is not None:
        end = "no longer" if until is None else f"until {key_views.time_of(until)}"
        desk.note(f"the old key of {name} ({before.prefix}…) is valid {end}")
    if documents.is_rotating(before, desk.now()):
        desk.note(f"the one before that ({before.old_prefix}…) is valid no longer")
    return 0


def _old_until(desk: Desk, arguments: argparse.Namespace) -> float | None:
    if arguments.now:
        return None
    option = "until" if arguments.until is not None else "keep"
    try:
        return ahead(arguments.until if arguments.until is not None else arguments.keep or _KEPT, desk.now())
    except ValueError as error:
        raise Refusal(f"--{option}: {error}") from None


def _hand_out(desk: Desk, arguments: argparse.Namespace, row: KeyRow, value: str | None) -> None:
    """Print a value, if there is one and its user does not have it already. This is the only time."""
    is_new = value is not None and not arguments.value_from_stdin
    if arguments.json:
        shown = {"value": value if is_new else None, **documents.key(row, desk.now())}
        desk.say(columns.json_text(shown, indented=True))
    elif is_new:
        desk.say(str(value))
        desk.note(f"this is the key of {row.name}; it is not kept and cannot be shown again")
    elif value is None:
        desk.say(f"{row.name} is user id {row.uid} at a Unix socket, without a value")
    else:
        desk.say(f"{row.name} has the value that was given ({row.prefix}…)")
    state = documents.state(row, desk.now())
    if state != "valid":
        desk.note(f"{row.name} is {state}")


# --- what a key may do ------------------------------------------------------------------------------------------------


def change(desk: Desk, arguments: argparse.Namespace) -> int:
    found = columns_of(desk, arguments)
    if not found:
        raise Refusal("nothing is to be changed: say what, e.g. --limits 'rpm=60' (see llm-proxy keys change --help)")
    return _change(desk, arguments, "is changed", **found)


def disable(desk: Desk, arguments: argparse.Namespace) -> int:
    return _change(desk, arguments, "is disabled", disabled=1)


def enable(desk: Desk, arguments: argparse.Namespace) -> int:
    return _change(desk, arguments, "is enabled", disabled=0)


def _change(desk: Desk, arguments: argparse.Namespace, done: str, **found: Any) -> int:
    name = key_name(arguments.name)
    with _changing(desk, arguments) as store:
        _found(store, name)  # for its hint
        store.change(name, **found)
        row = _found(store, name)
    if arguments.json:
        desk.say(columns.json_text(documents.key(row, desk.now()), indented=True))
        return 0
    desk.say(f"{name} {done}")
    if "disabled" not in found or not row.disabled:
        state = documents.state(row, desk.now())
        if state != "valid":
            desk.note(f"{name} is {state}")
    return 0


def remove(desk: Desk, arguments: argparse.Namespace) -> int:
    name = key_name(arguments.name)
    with _changing(desk, arguments) as store:
        _found(store, name)
        store.remove(name)
    _done(desk, arguments, {"removed": name}, f"{name} is removed")
    return 0


def _done(desk: Desk, arguments: argparse.Namespace, document: dict[str, Any], sentence: str) -> None:
    desk.say(columns.json_text(document, indented=True) if arguments.json else sentence)


# --- what there is ----------------------------------------------------------------------------------------------------


def list_all(desk: Desk, arguments: argparse.Namespace) -> int:
    with _store(desk, arguments) as store:
        rows = store.keys(with_removed=arguments.all)
    if arguments.json:
        every = [documents.key(row, desk.now()) for row in sorted(rows)]
        desk.say(columns.json_text({"keys": every}, indented=True))
    elif rows:
        desk.say(key_views.table(rows, desk.now(), _room(desk)))
    else:
        desk.say("There are no keys; `llm-proxy keys create NAME` makes one.")
    return 0


def show(desk: Desk, arguments: argparse.Namespace) -> int:
    name = key_name(arguments.name)
    with _store(desk, arguments) as store:
        row = _found(store, name)
        group = next((each for each in store.groups() if each.name == row.key_group), None)
    _done(desk, arguments, documents.key(row, desk.now()), key_views.as_lines(row, group, desk.now()))
    return 0


def _room(desk: Desk) -> int:
    """Whatever reads a pipe has room for names, and needs them whole."""
    return desk.width if desk.out.isatty() else _ANY_WIDTH


# --- groups -----------------------------------------------------------------------------------------------------------


def group(desk: Desk, arguments: argparse.Namespace) -> int:
    name = key_name(arguments.name, "group")
    if arguments.remove:
        with _changing(desk, arguments) as store:
            store.remove_group(name)
        _done(desk, arguments, {"removed": name}, f"the group {name} is removed")
        return 0
    try:
        limits = limits_line(arguments.limits)
    except ValueError as error:
        raise Refusal(*(f"--limits: {sentence}" for sentence in error.args)) from None
    with _changing(desk, arguments, makes=True) as store:
        store.set_group(name, limits)
    _done(desk, arguments, {"name": name, "limits": limits}, f"the group {name} has {limits or 'no limits'}")
    return 0


def groups(desk: Desk, arguments: argparse.Namespace) -> int:
    with _store(desk, arguments) as store:
        found = documents.groups(store.groups(), store.members())
    if arguments.json:
        desk.say(columns.json_text({"groups": found}, indented=True))
    elif found:
        desk.say(key_views.group_table(found, _room(desk)))
    else:
        desk.say("There are no groups; `llm-proxy keys group NAME --limits LINE` makes one.")
    return 0


# --- what kills left reserved -----------------------------------------------------------------------------------------


def lost(desk: Desk, arguments: argparse.Namespace) -> int:
    with _store(desk, arguments) as store:
        holds = store.lost(unsettled_only=not arguments.all)
    if arguments.json:
        desk.say(columns.json_text({"lost": list(map(documents.hold, holds))}, indented=True))
    elif holds:
        desk.say(key_views.hold_table(holds, _room(desk)))
    else:
        desk.say("Nothing that a killed process had reserved counts." if not arguments.all else "There was nothing.")
    return 0


def settle(desk: Desk, arguments: argparse.Namespace) -> int:
    micros, tokens = amounts(arguments.spent or "")
    if arguments.spent and len(set(arguments.ids)) > 1:
        raise Refusal("--spent is what one request used: settle them one by one")
    with _changing(desk, arguments) as store:
        holds = store.settle_lost(arguments.ids, micros, tokens)
    if arguments.json:
        desk.say(columns.json_text({"settled": list(map(documents.hold, holds))}, indented=True))
    else:
        number = "1 request is" if len(holds) == 1 else f"{len(holds):,} requests are"
        desk.say(f"{number} settled, at {columns.dollars(micros)} and {columns.count(tokens)} tokens")
    return 0
