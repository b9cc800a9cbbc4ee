"""A command as a user gives it, on a desk of the test's own: its time, its variables, its terminal."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from proxy.accounts.arguments import add_commands
from proxy.accounts.desk import Desk
from proxy.accounts.hints import Parser
from proxy.ledger import schema
from proxy.ledger.rows import entry_of
from proxy.ledger.spill import Spill
from proxy.outcome import Receipt
from tests.ledger.filled import NOW, put

# Names as a client might choose them: line ends, a terminal's orders, C1 and direction marks, half characters' signs.
HOSTILE = "a\nb\r\x1b[31m\x07\x7f\x9b2J\u202e\u200f\u2028"


class Said(NamedTuple):
    code: int
    out: str
    errors: str


class Terminal(io.StringIO):
    """Imitates a terminal as far as it is asked whether it is one."""

    def isatty(self) -> bool:
        return True


def no_rest(seconds: float) -> None:
    raise AssertionError("the command waits")


def give(
    *argv: str,
    environ: Mapping[str, str] | None = None,
    now: float = NOW,
    rest: Callable[[float], None] = no_rest,
    out: io.StringIO | None = None,
    given: io.StringIO | None = None,
) -> Said:
    """Give the command; what it said. SystemExit where argparse refuses it."""
    out, errors = out or io.StringIO(), io.StringIO()
    parser = Parser(prog="llm-proxy")
    commands = parser.add_subparsers(required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], what: str, about: str) -> Any:
        added = commands.add_parser(name, help=what, description=about)
        added.set_defaults(run=run)
        return added

    add_commands(add, Desk(environ or {}, lambda: now, rest, out, errors, given))
    arguments = parser.parse_args(argv)
    return Said(arguments.run(arguments), out.getvalue(), errors.getvalue())


def spill(path: Path, *started_at: float, run: str = "r") -> None:
    """Leave receipts in the spill file of the ledger at `path`."""
    file = Spill(f"{path}-spill")
    numbered = enumerate(started_at)
    file.append(entry_of(Receipt(f"s-{number}", at, "unix", "GET", "/"), run) for number, at in numbered)
    file.close()


def lose(path: Path, **columns: Any) -> None:
    """Write down a run that was killed and lost three of ten."""
    connection = schema.connect(str(path), 5.0)
    row = {"id": "lost", "started_at": NOW, "pid": 7, "observed": 10, "written": 7, "lost": 3}
    put(connection, "runs", {**row, **columns})
    connection.close()


def is_harmless(text: str) -> bool:
    """Nothing in `text` but line ends and what can be seen."""
    return all(line.isprintable() for line in text.split("\n"))
