"""`llm-proxy usage`: requests, tokens and cost, by whatever they are asked for.

Lives here: the table, the document and the CSV of sums. May not live here: the sums themselves (ledger.reader).
How it works: a column that holds nothing but zeros is left out, and those that need an explanation have a sentence
below. `unreported` is the share of tokens that no provider reported. Where there is little room names are shortened,
then columns left out, and in the end tokens are shown with three digits; CSV and JSON are always exact.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

from proxy.accounts import columns, gaps, hints
from proxy.accounts.columns import Column
from proxy.accounts.desk import UNKNOWN_COST as _UNKNOWN
from proxy.accounts.desk import Desk, reader, wanted
from proxy.admin import documents
from proxy.ledger.period import shown, zone_name
from proxy.ledger.reader import MOST_GROUPS, LedgerReader, Sum, Totals, Wanted

_FIGURES = Sum._fields[1:]
_NAME_ROOM = 20  # columns that a name should have, before less of the figures is shown


def run(desk: Desk, arguments: argparse.Namespace) -> int:
    by = list(dict.fromkeys(arguments.by or ["model"]))
    asked = wanted(desk, arguments)
    with reader(desk, arguments) as ledger:
        totals = ledger.totals(by, asked, arguments.local)
        gap = gaps.look(ledger, asked)
        lines = [] if totals.total.requests else _nothing(ledger, asked, arguments.local, desk.now())
    missing = gaps.sentences(gap, ledger.path, asked.is_of_all)
    if arguments.json:
        said = {**documents.usage(by, asked, totals, arguments.local), "missing": gaps.document(gap)}
        desk.say(columns.json_text(said, indented=True))
    elif arguments.csv:
        desk.say("\n".join(map(columns.csv_line, ([*by, *_FIGURES], *([*g.names, *g[1:]] for g in totals.groups)))))
        for sentence in missing:
            desk.note(sentence)
    elif totals.total.requests:
        table = as_table(by, totals, desk.width)
        desk.say(f"{_heading(by, asked, arguments.local, desk.now())}\n\n{table.text}")
        if notes := _notes(by, totals, table) + missing:
            desk.say("\n" + "\n".join(notes))
    else:
        desk.say("\n".join([*lines, *missing]))
    return 0


# --- the table --------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    text: str
    left_out: list[str]  # columns for which there was no room
    is_brief: bool  # tokens have three digits


def as_table(by: Sequence[str], totals: Totals, most: int = columns.WIDTH) -> Table:
    """The groups in lines of at most `most` columns, unless the figures alone take more; the last line is the total."""
    lines = [*totals.groups, totals.total]
    names = [
        Column(what, [_name(what, g.names[at]) for g in totals.groups], is_name=True) for at, what in enumerate(by)
    ]
    for at, name in enumerate(names):
        name.cells.append("" if at else "total")
    room = most - sum(min(name.width, _NAME_ROOM) + len(columns.GAP) for name in names) + len(columns.GAP)
    for is_brief, dispensable in _WAYS:
        every = _figure_columns(lines, columns.brief if is_brief else columns.count)
        figures = [column for column in every if column.head not in dispensable]
        if sum(column.width + len(columns.GAP) for column in figures) <= room:
            break
    left_out = [column.head for column in every if column.head in dispensable]
    return Table(columns.table([*names, *figures], has_total=True, most=most), left_out, is_brief)


# What is tried, in order, to make room: fewer columns, then fewer digits of tokens, then both.
_WAYS: list[tuple[bool, list[str]]] = [
    (False, []),
    (False, ["reasoning"]),
    (True, []),
    (True, ["reasoning"]),
    (True, ["reasoning", "unreported"]),
    (True, ["reasoning", "unreported", "cached"]),
]


def _figure_columns(lines: Sequence[Sum], tokens: Callable[[int], str]) -> list[Column]:
    """Requests, input, output and cost; others only where there is something in them."""
    total = lines[-1]
    digits = columns.digits_for(total.cost_micros or 0)
    cells: dict[str, tuple[object, Callable[[Sum], str]]] = {
        "requests": (True, lambda line: columns.count(line.requests)),
        "input": (True, lambda line: tokens(line.input_tokens)),
        "cached": (total.cached_tokens, lambda line: tokens(line.cached_tokens)),
        "output": (True, lambda line: tokens(line.output_tokens)),
        "reasoning": (total.reasoning_tokens, lambda line: tokens(line.reasoning_tokens)),
        "cost": (True, lambda line: _cost(line, digits) + (" " if _costless(total) and not _costless(line) else "")),
        "unreported": (_own(total), lambda line: columns.share(_own(line), _tokens(line))),
        # A request that was answered in the end may have failed at one target before.
        "cut": (any(line.incomplete for line in lines), lambda line: columns.count(line.incomplete)),
        "errors": (any(line.errors for line in lines), lambda line: columns.count(line.errors)),
    }
    return [Column(head, list(map(cell, lines))) for head, (is_shown, cell) in cells.items() if is_shown]


def _name(what: str, value: object) -> str:
    if what == "ending" and isinstance(value, str) and len(parts := value.split(" ")) == 3:
        return f"{columns.letters(parts[0], parts[1])} {columns.name(parts[2])}"
    return columns.name(value)


def _cost(line: Sum, digits: int) -> str:
    if line.cost_micros is None:
        return _UNKNOWN if _costless(line) else "-"
    return columns.dollars(line.cost_micros, digits) + ("+" if _costless(line) else "")


def _costless(line: Sum) -> int:
    """Requests of which nobody knows what they cost."""
    return line.unpriced + line.unmeasured


def _tokens(line: Sum) -> int:
    return line.input_tokens + line.output_tokens


def _own(line: Sum) -> int:
    """Tokens that no provider reported."""
    return line.counted_tokens + line.estimated_tokens


def _notes(by: Sequence[str], totals: Totals, table: Table) -> list[str]:
    """What the columns mean that are not always there, and what is in no column."""
    total = totals.total
    notes = []
    if _own(total):
        counted, estimated = (columns.share(n, _tokens(total)) for n in (total.counted_tokens, total.estimated_tokens))
        parts = [f"{counted} counted here"] if total.counted_tokens else []
        parts += [f"{estimated} estimated from bytes"] if total.estimated_tokens else []
        notes.append(f"unreported: tokens that no provider reported; of all {' and '.join(parts)}.")
    if total.incomplete or any(group.incomplete for group in totals.groups):
        notes.append("cut: answers without their end, tokens so far; --by ending says who broke off, and when.")
    if _costless(total):
        unknown = [line.cost_micros is None for line in (*totals.groups, total) if _costless(line)]
        marks = " and ".join([_UNKNOWN] * any(unknown) + ["+"] * (not all(unknown)))
        notes.append(
            f"{marks}: {_requests(_costless(total))} whose cost is not known (no price, or tokens not known); "
            "it is not in the sum."
        )
    if total.unmeasured:
        notes.append(f"What {_requests(total.unmeasured)} used is not known at all.")
    if total.reported_cost_micros is not None:
        digits = columns.digits_for(total.reported_cost_micros)
        notes.append(f"By what providers say of their own cost: {columns.dollars(total.reported_cost_micros, digits)}.")
    if "tag" in by:
        notes.append("A request with several tags is in several lines, and once in the total.")
    elif sum(group.requests for group in totals.groups) > total.requests:
        notes.append("A request that went to several of them is in several lines, and once in the total.")
    if table.is_brief:
        notes.append("k, M, G: thousands, millions, billions of tokens; --csv and --json are exact.")
    if table.left_out:
        notes.append(f"There was no room for {' and '.join(table.left_out)}; --csv and --json have all columns.")
    if totals.has_more:
        notes.append(f"There are more than {MOST_GROUPS:,} lines; the total has the others, too.")
    return notes


# --- sentences --------------------------------------------------------------------------------------------------------


def _heading(by: Sequence[str], asked: Wanted, is_local: bool, now: float) -> str:
    return f"Requests {_span(asked, is_local, now)}, by {' and '.join(by)}{_filters(asked)}"


def _span(asked: Wanted, is_local: bool, now: float) -> str:
    end = now if asked.until is None else asked.until
    until = f"{shown(end, is_local)} {zone_name(end, is_local)}"
    return f"until {until}" if asked.since is None else f"from {shown(asked.since, is_local)} until {until}"


def _filters(asked: Wanted) -> str:
    named = {"key": asked.key, "provider": asked.provider, "model": asked.model, "tag": asked.tag}
    return "".join(f", only {what} {columns.name(value)}" for what, value in named.items() if value is not None)


def _nothing(ledger: LedgerReader, asked: Wanted, is_local: bool, now: float) -> list[str]:
    """Why there are no requests: sentences."""
    last = ledger.latest(1)
    if not last:
        return ["There are no requests in the ledger."]
    lines = [f"No requests {_span(asked, is_local, now)}{_filters(asked)}."]
    if unknown := hints.unknown(ledger, asked):
        return lines + unknown
    if asked.since is not None or asked.until is not None:
        at = last[0]["started_at"]
        begun = f"The last one of all began {shown(at, is_local)} {zone_name(at, is_local)}"
        lines.append(f"{begun}; `--since 7d` or `--since all` looks further back.")
    return lines


def _requests(number: int) -> str:
    return "1 request" if number == 1 else f"{number:,} requests"
