"""Which commands there are about what was spent, who may spend and where, and what can be said to them.

Lives here: `add_commands`. May not live here: what the commands do; each is imported when it runs. What can be said to
`keys` is in key_arguments.
How it works: argparse refuses what is wrong by itself, with exit code 2; what takes the time of day to judge is refused
by the command.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from proxy.accounts.desk import Command, Desk, answered
from proxy.accounts.key_arguments import say_keys

# Seconds that a person waits for an answer. A million rows take 2 s, by tag 6: `time llm-proxy usage --since all`.
_PATIENCE = 30.0
_RAW = argparse.RawDescriptionHelpFormatter


def add_commands(add: Callable[..., Any], desk: Desk) -> None:
    """Add the commands by `add(name, run, what, about)`, which makes one and gives its parser."""

    def command(name: str, run: Command, what: str, about: str) -> Any:
        return add(name, lambda arguments: answered(run, desk, arguments), what, about)

    _say_usage(
        command(
            "usage",
            _usage,
            "say what was used and what it cost",
            "Requests, tokens and cost, out of the ledger: today's by model, unless told otherwise.\n"
            "  llm-proxy usage --since 7d --by day,model\n"
            "  llm-proxy usage --since all --by key --csv > keys.csv",
        )
    )
    _say_tail(
        command(
            "tail",
            _tail,
            "show the last requests, and new ones as they end",
            "One line for each request.\n"
            "  tokens   as the provider reported them; ~ counted here, ≈ estimated from bytes; - not known\n"
            "  cost     by the price table; ? not known: no price, or tokens not known; - nothing to pay for\n"
            "  ending   -- complete; else who ended it (C client, U upstream, P proxy), and its phase:\n"
            "           H head, B body, A admit, Q queue, C connect, S send, F first byte, E first event, D stream,\n"
            "           - done, T total, I idle; the word at the end of the line says why\n"
            "  llm-proxy tail --key billing\n"
            "  llm-proxy tail -f --json | jq 'select(.complete == 0)'",
        )
    )
    _say_prices(
        command(
            "prices",
            _prices,
            "say what models cost, as far as it is known",
            "The price table, in dollars for a million tokens, with the rows of LLM_PROXY_PRICES before the built-in\n"
            "ones.\n"
            "  llm-proxy prices 'claude-*'",
        )
    )
    ledger = command(
        "ledger",
        lambda desk, arguments: int(arguments.part(desk, arguments)),
        "check, export or prune the ledger",
        "The ledger is a SQLite file, for any tool that reads such files. These look after it.",
    )
    _say_ledger(ledger.add_subparsers(metavar="what", required=True))
    keys = command(
        "keys",
        lambda desk, arguments: int(arguments.part(desk, arguments)),
        "make, change and list keys for clients",
        "Keys are in the ledger's file, each as its SHA-256 and its beginning: nobody can be shown one again.\n"
        "  llm-proxy keys create ci --limits 'rpm=60 20usd/month' --models 'gpt-4o* fast'\n"
        "  llm-proxy keys rotate ci --keep 7d",
    )
    say_keys(keys.add_subparsers(metavar="what", required=True), _add_place)
    models = command(
        "models",
        lambda desk, arguments: int(arguments.part(desk, arguments)),
        "store aliases, which go before those of LLM_PROXY_MODELS",
        "An alias is a name for clients and the targets that may answer to it. A running server sees a change at its\n"
        "next request. `set` needs the environment of `serve`, whose providers it names.\n"
        "  llm-proxy models set fast 'openai/gpt-4o-mini*3, groq/llama-3.3-70b | anthropic/claude-haiku-4-5'",
    )
    _say_models(models.add_subparsers(metavar="what", required=True))


def _say_usage(usage: Any) -> None:
    usage.add_argument(
        "--by",
        action="extend",
        type=_groupings,
        metavar="WHAT",
        help="day, key, model, provider, ending, tag, alias, served, dialect or status; several, by commas (model)",
    )
    usage.add_argument(
        "--since", default="today", metavar="WHEN", help="e.g. yesterday, 24h, 7d, 2026-11-01, all (today)"
    )
    usage.add_argument("--until", metavar="WHEN", help="up to then, not included; a date means its first moment (now)")
    _add_choice(usage)
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--csv", action="store_true", help="print CSV, one line for each group and none for the total")


def _say_tail(tail: Any) -> None:
    tail.add_argument("-n", type=_number, default=10, metavar="N", dest="most", help="how many of the last ones (10)")
    tail.add_argument(
        "-f",
        "--follow",
        action=argparse.BooleanOptionalAction,
        help="go on with new ones until Ctrl-C; on a terminal that is the default",
    )
    tail.add_argument("--json", action="store_true", help="print one JSON document a line, with all columns")
    tail.add_argument("--since", metavar="WHEN", help="only those begun then or later, e.g. today, 2h (any)")
    _add_choice(tail)


def _say_prices(prices: Any) -> None:
    prices.add_argument("model", nargs="?", metavar="MODEL", help="only this model; * stands for anything")
    prices.add_argument("--all", action="store_true", help="also names that contain it, and prices that are not known")
    prices.add_argument("--provider", metavar="NAME", help="only of this provider")
    prices.add_argument("--json", action="store_true", help="print one JSON document")


def _say_ledger(parts: Any) -> None:
    def part(name: str, run: Command, what: str, about: str) -> Any:
        added = parts.add_parser(name, help=what, description=about, formatter_class=_RAW)
        added.set_defaults(part=run)
        return added

    check = part(
        "check",
        _check,
        "is the file sound, and is every receipt in it?",
        "Exit code 1 if the file is damaged, or if receipts are lost or not yet in its tables.",
    )
    check.add_argument("--since", metavar="WHEN", help="leave out what runs lost that started before, e.g. 2026-11-01")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    _add_place(check, seconds=600.0)
    export = part(
        "export", _export, "write exchanges as JSON lines or CSV", "Exchanges with all their columns, the oldest first."
    )
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="jsonl has the attempts as well")
    export.add_argument("-o", metavar="FILE", dest="file", help="write a new file (standard output)")
    export.add_argument("--since", default="all", metavar="WHEN", help="e.g. yesterday, 7d, 2026-11-01 (all)")
    export.add_argument("--until", metavar="WHEN", help="up to then, not included (now)")
    _add_choice(export)
    prune = part(
        "prune",
        _prune,
        "remove old exchanges",
        "Remove what is older than --days, then the oldest ones until --size is enough. Without either, what\n"
        "LLM_PROXY_DB_DAYS and LLM_PROXY_DB_SIZE say, by which `serve` prunes by itself.",
    )
    prune.add_argument("--days", metavar="N", help="keep exchanges of the last N days")
    prune.add_argument("--size", metavar="BYTES", help="keep so much, e.g. 500M; 1M at least")
    prune.add_argument("--dry-run", action="store_true", help="only say how many exchanges would go")
    prune.add_argument("--json", action="store_true", help="print one JSON document")
    _add_place(prune)


def _say_models(parts: Any) -> None:
    def part(name: str, run: Command, what: str) -> Any:
        added = parts.add_parser(name, help=what, description=what, formatter_class=_RAW)
        added.set_defaults(part=run)
        added.add_argument("--json", action="store_true", help="print one JSON document")
        _add_place(added)
        return added

    part("list", _list_models, "list the aliases that are stored; `llm-proxy check` shows all that hold")
    put = part("set", _set_model, "store an alias, or another one of that name")
    put.add_argument("name", metavar="NAME", help="as clients write it: letters, digits and . _ - / : @")
    put.add_argument("targets", metavar="TARGETS", help="e.g. 'openai/gpt-4o*3, azure/gpt-4o | vllm/m (window=32k)'")
    put.add_argument("--options", metavar="WORDS", default="", help="e.g. 'retries=3 first_event=30 hedge'")
    gone = part("remove", _remove_model, "take a stored alias away; one of LLM_PROXY_MODELS comes back")
    gone.add_argument("name", metavar="NAME")


def _add_choice(parser: Any) -> None:
    parser.add_argument("--key", metavar="NAME", help="only requests with this key")
    parser.add_argument("--model", metavar="NAME", help="only this model, as it was asked for, served, or an alias")
    parser.add_argument("--provider", metavar="NAME", help="only of this provider")
    parser.add_argument("--tag", metavar="TAG", help="only requests with this tag")
    parser.add_argument("--local", action="store_true", help="days and times of this machine's zone (UTC)")
    _add_place(parser)


def _add_place(parser: Any, seconds: float = _PATIENCE) -> None:
    parser.add_argument("--db", metavar="PATH", help="the ledger (LLM_PROXY_DB, or llm-proxy.db)")
    parser.add_argument(
        "--seconds", type=_seconds, default=seconds, metavar="N", help=f"give up after so many seconds ({seconds:g})"
    )


def _groupings(text: str) -> list[str]:
    from proxy.ledger.reader import GROUPINGS

    found = [word.strip().lower() for word in text.split(",") if word.strip()]
    if not found or not set(found) <= set(GROUPINGS):
        raise argparse.ArgumentTypeError(f"must be one or more of {', '.join(GROUPINGS)}")
    return found


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise argparse.ArgumentTypeError("must be a number up to 999999")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError("must be a number of seconds, up to a day")
    return seconds


def _usage(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import usage

    return usage.run(desk, arguments)


def _tail(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import tail

    return tail.run(desk, arguments)


def _prices(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import prices

    return prices.run(desk, arguments)


def _check(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import upkeep

    return upkeep.check(desk, arguments)


def _export(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import upkeep

    return upkeep.export(desk, arguments)


def _prune(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import upkeep

    return upkeep.prune(desk, arguments)


def _list_models(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import models

    return models.list_all(desk, arguments)


def _set_model(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import models

    return models.put(desk, arguments)


def _remove_model(desk: Desk, arguments: argparse.Namespace) -> int:
    from proxy.accounts import models

    return models.remove(desk, arguments)
