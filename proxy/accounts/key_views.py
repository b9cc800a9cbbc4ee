"""Keys, groups and what kills left reserved, in words: tables and lines.

Lives here: what a row looks like for people. May not live here: as JSON (admin.documents), the store, printing, what
commands say besides.
How it works: digests are shown nowhere. Columns of a table that hold nothing are left out. Times are in UTC.
Doubted: nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from proxy.accounts import columns
from proxy.accounts.columns import Column
from proxy.admin.documents import is_rotating, state
from proxy.ledger.keys import GroupRow, KeyRow, LostHold
from proxy.ledger.period import shown
from proxy.telemetry.lines import clean


def time_of(at: float | None) -> str:
    return "" if at is None else f"{shown(at)} UTC"


# --- keys -------------------------------------------------------------------------------------------------------------


def as_lines(row: KeyRow, group: GroupRow | None, now: float) -> str:
    """All about a key."""
    value = _begins(row.prefix) if row.digest is not None else "no value"
    if is_rotating(row, now):
        value += f"; until {time_of(row.old_until)} also {_begins(row.old_prefix)}"
    in_group = f"{row.key_group} ({(group.limits if group else '') or 'no limits'})" if row.key_group else ""
    raw = {None: "unless it has limits", 0: "no", 1: "yes"}.get(row.raw, "")
    facts = {
        "name": row.name,
        "state": state(row, now),
        "key": value,
        "user id": "" if row.uid is None else str(row.uid),
        "owner": row.owner or "",
        "tags": (row.tags or "").replace(",", ", "),
        "group": in_group,
        "limits": row.limits or "none",
        "models": row.models or "all",
        "providers": row.providers or "all",
        "disconnect": row.disconnect or "",
        "unread paths": raw,
        "expires": time_of(row.expires_at),
        "created": time_of(row.created_at),
        "changed": time_of(row.changed_at),
    }
    wide = max(map(len, facts))
    # A list may be longer than a name ever is: whole, since this is the one place that shows it.
    return "\n".join(f"{head:<{wide}}  {clean(text)}" for head, text in facts.items() if text)


def table(rows: Sequence[KeyRow], now: float, most: int) -> str:
    """One line for each key, by name."""
    rows = sorted(rows, key=lambda row: row.name)
    found = [
        Column("key", [columns.name(row.name) for row in rows], is_name=True),
        _words("begins", [_begins(row.prefix) if row.digest else "" for row in rows]),
        _words("uid", ["" if row.uid is None else str(row.uid) for row in rows]),
        _words("state", [state(row, now) for row in rows]),
        _words("old key until", [time_of(row.old_until) if is_rotating(row, now) else "" for row in rows]),
        _words("expires", [time_of(row.expires_at) for row in rows]),
        _names("owner", [row.owner for row in rows]),
        _names("tags", [row.tags for row in rows]),
        _names("group", [row.key_group for row in rows]),
        _names("models", [row.models for row in rows]),
        _names("providers", [row.providers for row in rows]),
        _names("limits", [row.limits for row in rows]),
    ]
    return columns.table([column for column in found if any(map(str.strip, column.cells))], most=most)


# --- groups -----------------------------------------------------------------------------------------------------------


def group_table(documents: Sequence[dict[str, Any]], most: int) -> str:
    found = [
        Column("group", [columns.name(each["name"]) for each in documents], is_name=True),
        Column("keys", [columns.count(each["keys"]) for each in documents]),
        _names("limits", [each["limits"] or "none" for each in documents]),
    ]
    return columns.table(found, most=most)


# --- what kills left reserved -----------------------------------------------------------------------------------------


def hold_table(holds: Sequence[LostHold], most: int) -> str:
    """Money and tokens as they were reserved, and as they were settled."""
    found = [
        Column("id", [str(hold.id) for hold in holds]),
        Column("key", [columns.name(hold.key) for hold in holds], is_name=True),
        _words("started", [time_of(hold.started_at) or "-" for hold in holds]),
        Column("reserved", [columns.dollars(hold.micros) for hold in holds]),
        Column("tokens", [columns.count(hold.tokens) for hold in holds]),
    ]
    if any(hold.settled_at is not None for hold in holds):
        found += [
            _words("settled", [time_of(hold.settled_at) for hold in holds]),
            Column("spent", [columns.dollars(hold.settled_micros) for hold in holds]),
            Column(
                "tokens", ["-" if hold.settled_tokens is None else columns.count(hold.settled_tokens) for hold in holds]
            ),
        ]
    return columns.table(found, most=most)


def _begins(prefix: str | None) -> str:
    return f"{clean(prefix or '')}…"


def _names(head: str, cells: Iterable[str | None]) -> Column:
    return Column(head, [columns.name(cell) if cell else "" for cell in cells], is_name=True)


def _words(head: str, cells: list[str]) -> Column:
    """Words, which stand at the left, but are not to be shortened."""
    wide = max(map(columns.width, (head, *cells)))
    return Column(head.ljust(wide), [cell + " " * (wide - columns.width(cell)) for cell in cells])
