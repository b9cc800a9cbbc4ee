"""What can be said to `llm-proxy keys`.

Lives here: `say_keys`. May not live here: what the commands do (keys), what the words mean (key_fields); neither is
imported before a command runs.
How it works: whatever a key may have is an option with a text, also a number: an empty text clears it, which no number
could say.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from proxy.accounts.desk import Command, Desk

_RAW = argparse.RawDescriptionHelpFormatter
_SECONDS = 10.0  # to wait for a lock; the ledger's writer holds one for some milliseconds
# What a key may have, beside --tag and --raw, which are no plain texts: option, what stands for its value, help.
_TEXTS = (
    ("limits", "LINE", "limits and budgets, e.g. 'rpm=60 tpm=100k concurrent=4 20usd/month 2Mtokens/day:warn'"),
    ("group", "NAME", "the group whose limits it shares (llm-proxy keys group)"),
    ("owner", "TEXT", "whose it is"),
    ("models", "LIST", "models and aliases that it may ask for, e.g. 'gpt-4o* fast'; * is anything (all)"),
    ("providers", "LIST", "providers that it may reach, e.g. 'openai vllm' (all)"),
    ("disconnect", "WHAT", "when its client leaves: cancel, drain or drain:<seconds> (LLM_PROXY_DISCONNECT)"),
    ("expires", "WHEN", "until then it is valid: 90d, 2027-01-31 (its first moment, UTC), 2027-01-31T12:30 (for ever)"),
    ("uid", "N", "it is whoever has this user id at a Unix socket; that one needs no value"),
)


def say_keys(parts: Any, add_place: Callable[[Any, float], None]) -> None:
    """Add the parts of the command. `add_place` adds what says where the ledger is, and how long to wait for it."""

    def part(run: str, what: str, about: str = "", name: str | None = None) -> Any:
        """`run`: the function in keys; its name is that of the part if no other is given."""
        added = parts.add_parser(name or run, help=what, description=about or what, formatter_class=_RAW)
        added.set_defaults(part=_command(run))
        add_place(added, _SECONDS)
        added.add_argument("--json", action="store_true", help="print one JSON document")
        return added

    create = part(
        "create",
        "make a key, and show it once",
        "The key is printed once, alone on standard output: KEY=$(llm-proxy keys create ci). Nobody can show it again.",
    )
    _say_name(create)
    _say_columns(create)
    _say_value(create)
    every = part("list_all", "list the keys", name="list")
    every.add_argument("--all", action="store_true", help="also those that were removed")
    _say_name(part("show", "say all about a key, but not its value"))
    change = part("change", "change what a key may do", "What is not said stays as it is; an empty text clears.")
    _say_name(change)
    _say_columns(change)
    _say_name(part("disable", "refuse a key until it is enabled again"))
    _say_name(part("enable", "take a disabled key again"))
    _say_rotation(
        part(
            "rotate",
            "give a key a new value, and show that once",
            "The value that it had stays valid for 7 days, if nothing else is said, so that clients can be moved.",
        )
    )
    _say_name(part("remove", "take a key away for good"))
    group = part("group", "make, change or remove a group of keys, which share its limits")
    group.add_argument("name", metavar="NAME")
    how = group.add_mutually_exclusive_group(required=True)
    how.add_argument("--limits", metavar="LINE", help="of all its keys together, e.g. '100usd/month'; '' for none")
    how.add_argument("--remove", action="store_true", help="take it away; no key may be in it")
    part("groups", "list the groups of keys")
    lost = part(
        "lost",
        "list what requests had reserved when a process was killed",
        "Nobody knows what these requests really used, so what they reserved counts until it is settled.",
    )
    lost.add_argument("--all", action="store_true", help="also those that are settled")
    settle = part(
        "settle",
        "say what such requests really used; what they reserved counts no longer",
        "The budgets of the key and of everything get back what was not spent, those of its group only if the key was\n"
        "not changed since. Those of models and providers do not: there it counts until their window ends.",
    )
    settle.add_argument("ids", nargs="+", type=_number, metavar="ID", help="the number in `llm-proxy keys lost`")
    settle.add_argument("--spent", metavar="AMOUNTS", help="of one request: 0.05usd, or '0.05usd 1200tokens' (nothing)")


def _say_name(parser: Any) -> None:
    parser.add_argument("name", metavar="NAME", help="of the key: letters, digits and . _ @ -")


def _say_columns(parser: Any) -> None:
    for option, value, what in _TEXTS:
        parser.add_argument(f"--{option}", metavar=value, help=what)
    parser.add_argument("--tag", action="append", metavar="TAG", help="for people; several, by commas or repeated")
    raw = parser.add_mutually_exclusive_group()
    raw.add_argument("--raw", dest="raw", action="store_const", const="1", help="it may use paths that are not read")
    raw.add_argument("--no-raw", dest="raw", action="store_const", const="0", help="it may not")
    raw.add_argument(
        "--raw-by-limits", dest="raw", action="store_const", const="", help="it may unless it has limits (the default)"
    )


def _say_value(parser: Any) -> None:
    parser.add_argument(
        "--value-from-stdin",
        action="store_true",
        help="take the value from standard input instead of making one: a key that clients have already",
    )


def _say_rotation(parser: Any) -> None:
    _say_name(parser)
    _say_value(parser)
    old = parser.add_mutually_exclusive_group()
    old.add_argument("--keep", metavar="SPAN", help="so long the old value stays valid, e.g. 24h (7d)")
    old.add_argument("--until", metavar="WHEN", help="until then it does, e.g. 2027-01-31")
    old.add_argument("--now", action="store_true", help="it is not valid any more: somebody else may have it")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise argparse.ArgumentTypeError("must be a number that `llm-proxy keys lost` shows")
    return int(text)


def _command(name: str) -> Command:
    def run(desk: Desk, arguments: argparse.Namespace) -> int:
        from proxy.accounts import keys

        return int(getattr(keys, name)(desk, arguments))

    return run
