"""What was probably meant: near words for commands, options, and names that the ledger does not have.

Lives here: `nearest`, `unknown`, `Parser` and its `LongHelp`. May not live here: what commands
there are (arguments, cli).
How it works: argparse leaves what it does not know to the outermost parser, whose usage text says nothing of the
command's own options; here each parser refuses for itself.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.ledger.reader import LedgerReader, Wanted

_FEW = 5  # names that a sentence lists


def nearest(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Those of `known` that somebody may have meant who wrote `word`, the nearest first."""
    from difflib import get_close_matches

    by_lower = {each.lower(): each for each in known}
    return [by_lower[found] for found in get_close_matches(word.lower(), by_lower, most, 0.6)]


class Parser(argparse.ArgumentParser):
    """One that says which word was probably meant, and its own usage with it."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _meant(str(value), map(str, action.choices or ()))
            raise

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            option = rest[0].partition("=")[0]
            self.error(f"unrecognized arguments: {' '.join(rest)}{_meant(option, self._option_string_actions)}")
        return found, rest


class LongHelp(argparse.Action):
    """--help with a part that is made only when somebody asks for it."""

    def __init__(self, option_strings: Sequence[str], dest: str, more: Callable[[], str]) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show this text and end")
        self._more = more

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write(parser.format_help() + "\n" + self._more())
        parser.exit()


def _meant(word: str, known: Iterable[str]) -> str:
    found = nearest(word, known)
    return f"; did you mean {found[0]}?" if found else ""


def unknown(ledger: LedgerReader, wanted: Wanted) -> list[str]:
    """A sentence for each name in `wanted` that is in no row of the ledger, and what there is."""
    asked = {"key": wanted.key, "provider": wanted.provider, "model": wanted.model, "tag": wanted.tag}
    sentences = []
    for what, value in asked.items():
        if value is not None and value not in (known := ledger.names(what)):
            sentences.append(_sentence(what, value, known))
    return sentences


def _sentence(what: str, value: str, known: Sequence[str]) -> str:
    from proxy.accounts import columns

    shown = nearest(value, known, _FEW) or known[:_FEW]
    names = ", ".join(map(columns.name, shown))
    more = f", and {len(known) - len(shown):,} more" if len(known) > len(shown) else ""
    there = f"there are: {names}{more}" if known else f"none has a {what}"
    return f"No request in the ledger has the {what} {columns.name(value)}; {there}."
