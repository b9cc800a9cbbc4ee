"""Keys, groups, what kills left reserved and sums of usage as plain values.

Lives here: what a row looks like as JSON, in the admin API and behind `--json` of the commands. May not live here: the
store, questions, tables for people (accounts).
How it works: digests are shown nowhere; they are of no use to anybody. Times are RFC 3339 in UTC, money microdollars.
Doubted: nothing yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from proxy.ledger.keys import GroupRow, KeyRow, LostHold
from proxy.ledger.reader import Sum, Totals, Wanted
from proxy.telemetry.lines import stamp


def moment(at: float | None) -> str | None:
    return None if at is None else stamp(at)


def state(row: KeyRow, now: float) -> str:
    if row.removed_at is not None:
        return "removed"
    if row.disabled:
        return "disabled"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "valid"


def is_rotating(row: KeyRow, now: float) -> bool:
    """Whether the value of before the last rotation is valid, too."""
    return row.old_digest is not None and row.old_until is not None and row.old_until > now


def key(row: KeyRow, now: float) -> dict[str, Any]:
    """A key as plain values."""
    old = is_rotating(row, now)
    return {
        "name": row.name,
        "state": state(row, now),
        "prefix": row.prefix,
        "old_prefix": row.old_prefix if old else None,
        "old_until": moment(row.old_until) if old else None,
        "owner": row.owner,
        "tags": row.tags.split(",") if row.tags else [],
        "group": row.key_group,
        "models": row.models.split() if row.models is not None else None,
        "providers": row.providers.split() if row.providers is not None else None,
        "limits": row.limits,
        "disconnect": row.disconnect,
        "raw": None if row.raw is None else bool(row.raw),
        "uid": row.uid,
        "expires_at": moment(row.expires_at),
        "created_at": moment(row.created_at),
        "changed_at": moment(row.changed_at),
        "removed_at": moment(row.removed_at),
    }


def groups(rows: Iterable[GroupRow], members: Counter[str | None]) -> list[dict[str, Any]]:
    """Groups by name, with the number of their keys."""
    return [
        {"name": row.name, "limits": row.limits, "keys": members[row.name], "changed_at": moment(row.changed_at)}
        for row in sorted(rows)
    ]


def hold(row: LostHold) -> dict[str, Any]:
    times = {name: moment(getattr(row, name)) for name in ("started_at", "found_at", "settled_at")}
    return row._asdict() | times


def usage(by: Sequence[str], wanted: Wanted, totals: Totals, is_local: bool) -> dict[str, Any]:
    """Sums, and what they are sums of."""
    return {
        "since": moment(wanted.since),
        "until": moment(wanted.until),
        "days": "local" if is_local else "UTC",
        "by": list(by),
        "groups": [{**dict(zip(by, group.names)), **_figures(group)} for group in totals.groups],
        "total": _figures(totals.total),
        "has_more": totals.has_more,
    }


def _figures(sums: Sum) -> dict[str, Any]:
    return dict(zip(Sum._fields[1:], sums[1:]))
