"""`llm-proxy ledger`: check, export, prune.

Lives here: what these say. May not live here: what is looked at (ledger.audit), read (ledger.reader) or removed
(ledger.retention).
How it works: check says first what there is, then each thing that is wrong in a sentence, with its number. An export is
written while it is read, page by page, into a file that must be new: the ledger itself is easily named by mistake.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

from proxy.accounts import columns
from proxy.accounts.desk import Desk, Refusal, place, reader, wanted, when
from proxy.ledger.audit import FILE_CHECK
from proxy.ledger.period import shown
from proxy.ledger.reader import damaged
from proxy.ledger.schema import EXCHANGES
from proxy.telemetry.lines import clean, stamp

_DAY = 86_400


# --- check ------------------------------------------------------------------------------------------------------------


def check(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.ledger.audit import audit

    since = when(desk, arguments, "since")
    found = audit(place(desk, arguments), float("-inf") if since is None else since, arguments.seconds)
    problems = problems_of(found)
    if arguments.json:
        desk.say(columns.json_text(document(found, problems), indented=True))
        return 1 if problems else 0
    if not problems:
        span = "" if since is None else f" of runs that started {shown(since)} UTC or later"
        problems_or_not = [f"Nothing is missing{span}, and the file is sound."]
    else:
        problems_or_not = problems if since is not None else [*problems, *_way_out(found)]
    desk.say("\n".join([*as_lines(found), *problems_or_not]))
    return 1 if problems else 0


def document(found: Any, problems: list[str]) -> dict[str, Any]:
    """An Audit as plain values, and the sentences about what is wrong."""
    return {
        **found._asdict(),
        "first": None if found.first is None else stamp(found.first),
        "last": None if found.last is None else stamp(found.last),
        "writer": None if found.writer is None else found.writer._asdict(),
        "losses": [loss._asdict() for loss in found.losses],
        "lost": found.lost,
        "problems": problems,
    }


def as_lines(found: Any) -> list[str]:
    """What there is, wrong or not."""
    span = f", begun {shown(found.first)} to {shown(found.last)} UTC" if found.exchanges else ""
    attempts = "1 attempt" if found.attempts == 1 else f"{found.attempts:,} attempts"
    lines = [
        f"ledger    {clean(found.path)}  ({_size(found.size)}, schema {found.version})",
        f"rows      {_exchanges(found.exchanges)}{span}; {attempts}",
        f"runs      {found.runs:,}",
    ]
    if found.writer is not None:
        underway = f", {found.underway:,} on their way" if found.underway else ""
        lines.append(f"writer    process {found.writer.pid}: {_receipts(found.writer.observed)} so far{underway}")
    return lines


def problems_of(found: Any) -> list[str]:
    """A sentence for each thing that is wrong."""
    problems = [f"damage    {clean(sentence)}" for sentence in found.damages]
    if any(sentence.startswith(FILE_CHECK) for sentence in found.damages):
        problems.append(f"damage    {clean(found.path)} {clean(damaged(found.path))}")
    if found.spilled:
        then = "the running process adds them" if found.writer is not None else "the next `llm-proxy serve` adds them"
        problems.append(
            f"spilled   {_receipts(found.spilled)} in {clean(found.path)}-spill, not yet in the tables: {then}"
        )
    if found.unreadable:
        lines = "1 line" if found.unreadable == 1 else f"{found.unreadable:,} lines"
        problems.append(f"spilled   {lines} of {clean(found.path)}-spill cannot be read")
    for loss in found.losses:
        cause = "was killed" if loss.was_killed else "had nowhere left to write (disk full?)"
        number = "an unknown number" if loss.lost is None else f"{loss.lost:,}"
        who = "the running process" if loss.is_running else f"run {clean(loss.run)}"
        problems.append(
            f"lost      {number} of {_receipts(loss.observed)} of {who}, "
            f"begun {shown(loss.started_at)} UTC, which {cause}"
        )
    if len(found.losses) > 1:
        problems.append(f"lost      {_receipts(found.lost)} in all")
    return problems


def _way_out(found: Any) -> list[str]:
    """How a check passes again where nothing is wrong but what runs lost that have ended."""
    is_past = not (found.damages or found.spilled or found.unreadable or any(loss.is_running for loss in found.losses))
    if not is_past:
        return []
    after = shown(max(loss.started_at for loss in found.losses) + 60, form="%Y-%m-%dT%H:%M")
    return [f"Nothing else is wrong. These runs have ended; `--since {after}` leaves out what they lost."]


def _receipts(number: int) -> str:
    return "1 receipt" if number == 1 else f"{number:,} receipts"


def _exchanges(number: int) -> str:
    return "1 exchange" if number == 1 else f"{number:,} exchanges"


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


# --- export -----------------------------------------------------------------------------------------------------------


def export(desk: Desk, arguments: argparse.Namespace) -> int:
    asked = wanted(desk, arguments)
    with reader(desk, arguments) as ledger:
        rows = ledger.exchanges(asked)
        if arguments.file is None:
            _write(rows, arguments.format, desk.say)
            return 0
        try:
            fd = os.open(arguments.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # as readable as the ledger is
            with open(fd, "w", encoding="ascii" if arguments.format == "jsonl" else "utf-8", newline="") as file:
                number = _write(rows, arguments.format, lambda line: file.write(line + "\n"))
        except OSError as error:
            raise Refusal(f"{arguments.file} cannot be written: {error.strerror}") from None
    desk.say(f"{_exchanges(number)} written to {clean(arguments.file)}")
    return 0


def _write(rows: Iterable[dict[str, Any]], form: str, write: Callable[[str], object]) -> int:
    """Every row as a line; how many."""
    number = 0
    if form == "csv":
        write(columns.csv_line(EXCHANGES))
    for row in rows:
        number += 1
        if form == "csv":
            row["attempts"] = len(row["attempts"])
            write(columns.csv_line(row.get(column) for column in EXCHANGES))
        else:
            write(columns.json_text(row))
    return number


# --- prune ------------------------------------------------------------------------------------------------------------


def prune(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.ledger.retention import prune

    days = _days(desk, arguments)
    max_bytes = _bytes(desk, arguments)
    if not days and not max_bytes:
        raise Refusal("nothing says what may go: --days N or --size BYTES, LLM_PROXY_DB_DAYS or LLM_PROXY_DB_SIZE")
    path = place(desk, arguments)
    before = desk.now() - days * _DAY if days else None
    if arguments.dry_run:
        with reader(desk, arguments) as ledger:
            exchanges = ledger.expendable(before, max_bytes)
        if arguments.json:
            desk.say(columns.json_text({"exchanges": exchanges, "dry_run": True}))
        else:
            desk.say(f"{'about ' if max_bytes else ''}{_exchanges(exchanges)} would be removed; none was")
        return 0
    pruned = prune(path, before, max_bytes, arguments.seconds)
    if arguments.json:
        desk.say(columns.json_text(pruned._asdict()))
    else:
        desk.say(f"{_exchanges(pruned.exchanges)} removed; the file is {_size(max(0, pruned.bytes))} smaller")
    return 0


def _days(desk: Desk, arguments: argparse.Namespace) -> float:
    name, text = _said(desk, arguments.days, "--days", arguments.size, "LLM_PROXY_DB_DAYS")
    try:
        days = float(text or 0)
    except ValueError:
        days = -1.0
    if not 0 <= days < math.inf or (days == 0 and name == "--days"):
        raise Refusal(f"{name}: must be a number of days more than 0")
    return days


def _bytes(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.server.table import LEAST_DB, size_text
    from proxy.server.values import parse_size

    name, text = _said(desk, arguments.size, "--size", arguments.days, "LLM_PROXY_DB_SIZE")
    size = parse_size(text or "0")
    if size is None or (size == 0 and name == "--size"):
        raise Refusal(f"{name}: must be a number of bytes, or have k, M or G behind it")
    if 0 < size < LEAST_DB:  # a unit was forgotten: this would remove all there is
        raise Refusal(f"{name}: must be {size_text(LEAST_DB)} or more; 500M is 500 MiB, 500 are bytes")
    return size


def _said(desk: Desk, given: str | None, argument: str, other: str | None, variable: str) -> tuple[str, str]:
    """A bound and what gave it. The variables count only where no argument is given: `--days 30` means just that."""
    if given is not None:
        return argument, given
    return variable, "" if other is not None else desk.variable(variable)
