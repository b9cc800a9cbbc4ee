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

from proxy.accounts import columns
from proxy.accounts.desk import Desk, reader, wanted
from proxy.ledger.period import shown

_LOOK = 0.3  # seconds between two looks; the writer itself makes rows five times a second
_STEP = 1_000  # exchanges read at a time
_MARKS = {"counted": "~", "estimated": "≈"}
_TARGET = 32  # columns for provider and model


def run(desk: Desk, arguments: argparse.Namespace) -> int:
    asked = wanted(desk, arguments)
    follows = desk.out.isatty() if arguments.follow is None else arguments.follow
    with reader(desk, arguments) as ledger:
        seen = ledger.newest()  # first: what is written from now on is new
        rows = ledger.latest(arguments.most, asked)
    if rows:
        seen = max(seen, rows[-1]["rowid"])
    _show(desk, arguments, rows)
    if not rows and not arguments.json:
        desk.errors.write(
            "no such request yet; new ones are shown, Ctrl-C ends\n" if follows else "no such request yet\n"
        )
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


def _show(desk: Desk, arguments: argparse.Namespace, rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        del row["rowid"]
        desk.say(columns.json_text(row) if arguments.json else line(row, arguments.local))
    desk.out.flush()


def line(row: dict[str, Any], is_local: bool = False) -> str:
    """One exchange in about 120 columns: when, status, ending, how long, what, tokens, cost, key, and why it failed."""
    target = columns.shortened(_target(row), _TARGET)
    parts = [
        shown(row["started_at"], is_local, "%Y-%m-%d %H:%M:%S"),
        f"{columns.name(row['status'] or None):>3}",
        "--" if row["complete"] else columns.letters(row["ended_by"], row["ended_phase"]),
        f"{duration(row['total_ms']):>6}",
        target + " " * (_TARGET - columns.width(target)),
        f"{_tokens(row, 'input'):>9} in",
        f"{_tokens(row, 'output'):>8} out",
        f"{_cost(row['cost_micros']):>9}",
        columns.name(row["key"]),
    ]
    if not row["complete"]:
        parts.append(columns.name(row["ended_kind"]))
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
    model = row["model_requested"] if row["model_requested"] is not None else row["model_served"]
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


def _cost(micros: object) -> str:
    return columns.dollars(micros, 4 if micros >= 100 else 6) if isinstance(micros, int) else "-"
