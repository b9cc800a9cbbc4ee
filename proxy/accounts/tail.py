"""`llm-proxy tail`: the last requests, and new ones as they end.

Lives here: the line of one exchange. May not live here: questions to the ledger (ledger.reader).
How it works: the ledger is asked again a few times a second, each time by a new reader (0.5 ms), so nothing is held
open that the writer would have to wait for, and a ledger that was replaced is seen.
Doubted: if all rows are pruned and new ones come within the same look, some of these are not shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from proxy.accounts import columns, gaps, hints
from proxy.accounts.desk import UNKNOWN_COST, Desk, reader, wanted
from proxy.ledger.period import shown, zone_name
from proxy.ledger.reader import LedgerReader, Wanted

_LOOK = 0.3  # seconds between two looks; the writer itself makes rows five times a second
_STEP = 1_000  # exchanges read at a time
_MARKS = {"counted": "~", "estimated": "≈"}
_WIDE = 140  # columns of a line
_TARGET = 32  # columns for provider and model, and half as many again where a line has much room


def run(desk: Desk, arguments: argparse.Namespace) -> int:
    asked = wanted(desk, arguments)
    follows = desk.out.isatty() if arguments.follow is None else arguments.follow
    with reader(desk, arguments) as ledger:
        seen = ledger.newest()  # first: what is written from now on is new
        rows = ledger.latest(arguments.most, asked)
        if rows:
            seen = max(seen, rows[-1]["rowid"])
        notes = _missing(ledger, asked, rows, desk.now())
        absent = hints.unknown(ledger, asked) or ["no such request yet"] if not rows and arguments.most else []
    for note in notes:
        desk.note(note)
    if desk.out.isatty() and not arguments.json and (rows or follows):
        desk.say(heading(zone_name(desk.now(), arguments.local), _room(desk)))
    _show(desk, arguments, rows)
    if absent and not arguments.json:
        desk.errors.write("\n".join(absent) + ("; new ones are shown, Ctrl-C ends\n" if follows else "\n"))
    while follows:
        desk.rest(_LOOK)
        is_more = True
        while is_more:
            with reader(desk, arguments) as ledger:
                newest = ledger.newest()
                rows = ledger.after(seen, _STEP, asked)
            is_more = len(rows) == _STEP
            # Less than before is right, too: all were pruned, and their numbers begin anew.
            seen = rows[-1]["rowid"] if is_more else max([newest, *(row["rowid"] for row in rows)])
            _show(desk, arguments, rows)
    return 0


def _missing(ledger: LedgerReader, asked: Wanted, rows: list[dict[str, Any]], now: float) -> list[str]:
    """What may be missing among `rows`, or before them: what went before the first of them is not asked for."""
    moments = [row["started_at"] for row in rows if isinstance(row["started_at"], (int, float))]
    since = asked.since if not rows else min(moments, default=now)
    return gaps.sentences(gaps.look(ledger, asked._replace(since=since)), ledger.path, asked.is_of_all, "shown")


def _show(desk: Desk, arguments: argparse.Namespace, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        del row["rowid"]
        desk.say(columns.json_text(row) if arguments.json else line(row, arguments.local, _room(desk)))
    desk.out.flush()


def _room(desk: Desk) -> int:
    return _TARGET if desk.width < _WIDE else _TARGET * 3 // 2


def heading(zone: str, room: int = _TARGET) -> str:
    """What stands where in a line."""
    return (
        f"{f'begun ({zone})':<19}  {'status':<7}  {'took':>6}  {'provider/model':<{room}}  {'input':>9}"
        f"     {'output':>8}      {'cost':>9}  key, and why it ended"
    )


def line(row: dict[str, Any], is_local: bool = False, room: int = _TARGET) -> str:
    """One exchange in about 90 columns and `room` for what was asked: when, status, ending, how long, what, tokens,
    cost, key, and, where there is one, the alias, why it ended and how many attempts it took."""
    target = columns.shortened(_target(row), room)
    parts = [
        shown(row["started_at"], is_local, "%Y-%m-%d %H:%M:%S"),
        f"{columns.name(row['status'] or None):>3}",
        "--" if row["complete"] else columns.letters(row["ended_by"], row["ended_phase"]),
        f"{duration(row['total_ms']):>6}",
        target + " " * (room - columns.width(target)),
        f"{_tokens(row, 'input'):>9} in",
        f"{_tokens(row, 'output'):>8} out",
        f"{_cost(row):>9}",
        columns.name(row["key"]),
    ]
    if row["alias"] is not None:
        parts.append(f"alias {columns.name(row['alias'])}")
    if not row["complete"]:
        parts.append(columns.name(row["ended_kind"]))
    if isinstance(row["attempts"], int) and row["attempts"] > 1:
        parts.append(f"{columns.count(row['attempts'])} attempts")
    if isinstance(row["stands_for"], int) and row["stands_for"] > 1:  # refusals that came in masses
        parts.append(f"x {columns.count(row['stands_for'])}")
    return "  ".join(parts)


def duration(ms: object) -> str:
    """Milliseconds in at most six columns, up to a day."""
    if not isinstance(ms, (int, float)):
        return "-"
    if ms < 1_000:
        return f"{ms:.0f}ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f}s"
    minutes, seconds = divmod(int(ms) // 1000, 60)
    return f"{minutes}m{seconds:02}s" if minutes < 100 else f"{minutes // 60}h{minutes % 60:02}m"


def _target(row: dict[str, Any]) -> str:
    names = (row["model_requested"], row["model_served"])
    # For an alias the client's word is none of the provider's models, and stands behind the key.
    model = next((name for name in names if name is not None and name != row["alias"]), None)
    if model is None or row["provider"] is None:
        return columns.name(row["provider"] if model is None else model)
    # A model may be asked for as provider/model.
    name = str(model).removeprefix(f"{row['provider']}/")
    return columns.name(f"{row['provider']}/{name}")


def _tokens(row: dict[str, Any], side: str) -> str:
    number = row[f"{side}_tokens"]
    if not isinstance(number, int):
        return "-"
    return _MARKS.get(row[f"{side}_source"], "") + columns.count(number)


def _cost(row: dict[str, Any]) -> str:
    micros = row["cost_micros"]
    if isinstance(micros, int):
        return columns.dollars(micros, 4 if micros >= 100 else 6)
    used = [row["input_tokens"], row["output_tokens"]]  # as `usage` counts what has no cost (ledger.reader)
    is_unmeasured = used == [None, None] and row["usage_complete"] is not None
    return UNKNOWN_COST if is_unmeasured or any(used) else "-"
