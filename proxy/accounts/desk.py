"""What a command has of the world, and what was said to it.

Lives here: `Desk`; the ledger and the exchanges that arguments mean (`place`, `reader`, `wanted`); `answered`, which
turns every way to fail into sentences and an exit code. May not live here: what a command does.
How it works: cli makes the one real Desk, with the clock and the environment; tests make others. Whatever is printed
passes `Desk.say`.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from proxy.ledger.reader import LedgerReader, Wanted

UNKNOWN_COST = "?"
_WIDEST = 160  # columns of a table: the eye loses a longer line


class Refusal(Exception):
    """A command was asked for what does not exist or makes no sense; the arguments are sentences, one for each thing
    that is wrong."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The environment, the time (epoch seconds), a way to wait (seconds), where to write, and what can be read."""

    environ: Mapping[str, str]
    now: Callable[[], float]
    rest: Callable[[float], None]
    out: TextIO
    errors: TextIO
    given: TextIO | None = None

    def say(self, text: str) -> None:
        """One or more lines. Letters that the terminal lacks become escapes."""
        encoding = self.out.encoding or "utf-8"
        self.out.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")

    @property
    def width(self) -> int:
        """Columns that a line may have: what COLUMNS says, or the terminal has, or 160 where there is none."""
        said = self.environ.get("COLUMNS", "")
        if said.isdecimal() and int(said[:6]) > 0:
            return int(said[:6])
        try:
            return min(max(os.get_terminal_size(self.out.fileno()).columns, 80), _WIDEST)
        except (OSError, ValueError):  # no terminal, or no file at all
            return _WIDEST

    def note(self, sentence: str) -> None:
        """What an answer does not say, and whoever reads it should know. It is not part of the answer."""
        from proxy.telemetry.lines import clean

        self.errors.write(f"llm-proxy: note: {clean(sentence)}\n")

    def complain(self, sentence: str) -> None:
        from proxy.telemetry.lines import clean

        self.errors.write(f"llm-proxy: error: {clean(sentence)}\n")

    def line(self) -> str:
        """The first line of standard input, for what must not stand in a command: others on the machine see those."""
        if self.given is None or self.given.isatty():
            raise Refusal("there is nothing to read: give it by a pipe or from a file, as in `< FILE`")
        try:
            return self.given.readline().strip()
        except (OSError, ValueError):
            raise Refusal("what is given by standard input is no text") from None

    def variable(self, name: str) -> str:
        """A variable of ours, from the environment or from the file named there; empty if it is not set."""
        path = self.environ.get("LLM_PROXY_ENV_FILE", "").strip()
        value = self.environ.get(name, "").strip()
        if value or not path:
            return value
        from proxy.server.files import read_text_file
        from proxy.server.values import parse_env_file

        try:
            return parse_env_file(read_text_file(path))[0].get(name, "").strip()
        except (OSError, ValueError):
            raise Refusal("LLM_PROXY_ENV_FILE: the file cannot be read") from None


Command = Callable[[Desk, argparse.Namespace], int]


def answered(command: Command, desk: Desk, arguments: argparse.Namespace) -> int:
    """Run `command`; its exit code, 2 for a Refusal, 1 for a ledger that cannot be used."""
    from proxy.ledger.reader import TooSlow
    from proxy.ledger.schema import LedgerUnusable

    try:
        return command(desk, arguments)
    except Refusal as refusal:
        for sentence in refusal.args:
            desk.complain(sentence)
        return 2
    except TooSlow as error:
        desk.complain(f"{error}: ask for less of it (--since), or wait longer (--seconds)")
        return 1
    except LedgerUnusable as error:
        desk.complain(str(error))
        return 1


def place(desk: Desk, arguments: argparse.Namespace, *, is_needed: bool = True) -> str:
    """The path of the ledger that is meant. `is_needed`: it must be there."""
    from proxy.ledger.schema import LedgerUnusable
    from proxy.server.table import DEFAULT_DB

    path = str(arguments.db or desk.variable("LLM_PROXY_DB") or DEFAULT_DB)
    if path.lower() == "off" and not arguments.db:
        raise Refusal("LLM_PROXY_DB=off: no ledger is kept; name the file of another one with --db")
    if is_needed and not os.path.exists(path):
        raise LedgerUnusable(
            f"there is no ledger at {path}: `llm-proxy serve` makes it there; if it is elsewhere, say so with --db or "
            "LLM_PROXY_DB"
        )
    return path


def reader(desk: Desk, arguments: argparse.Namespace) -> LedgerReader:
    from proxy.ledger.reader import LedgerReader

    return LedgerReader(place(desk, arguments), arguments.seconds)


def wanted(desk: Desk, arguments: argparse.Namespace) -> Wanted:
    """Which exchanges are meant. Arguments that a command does not have leave nothing out."""
    from proxy.ledger.reader import Wanted

    since = when(desk, arguments, "since")
    until = when(desk, arguments, "until")
    if since is not None and until is not None and since >= until:
        raise Refusal("--since is not before --until")
    return Wanted(since, until, arguments.key, arguments.provider, arguments.model, arguments.tag)


def when(desk: Desk, arguments: argparse.Namespace, name: str) -> float | None:
    """The moment (epoch seconds) that the argument `name` means; None: it was not given, or `all`."""
    from proxy.ledger.period import moment

    text = getattr(arguments, name, None)
    try:
        return None if text is None else moment(text, desk.now(), getattr(arguments, "local", False))
    except ValueError as error:
        raise Refusal(f"--{name}: {error}") from None
