"""The options of `scripts/bench`.

Lives here: their names, defaults and help, which of them exclude each other, who is a contestant by name.
May not live here: what is done with them.
How it works: contestants are looked up in one dict: the usual ones, ours with one feature off, and the peers, whose
names are known whether they are installed or not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import peers
from bench.contestants import CONTESTANTS, FEATURES, Contestant
from bench.record import OURS
from bench.scenarios import SCENARIOS

REPORT_FOLDER = Path(__file__).resolve().parent / "report"
ROUNDS, QUICK_ROUNDS = 7, 2


def everybody() -> dict[str, Contestant]:
    return {**peers.contestants(), **CONTESTANTS}


def chosen(options: argparse.Namespace) -> list[str]:
    """Who is measured, in order. Where features or peers are named, only these of them are taken."""
    named: list[str] = options.contestants or [each.name for each in CONTESTANTS.values() if each.by_default]
    features = [name for name in FEATURES if name != OURS]
    others = [name for name in peers.contestants() if name not in CONTESTANTS]
    more = []
    if options.features and not set(features) & set(named):
        more += [OURS, *features]
    if options.peers and not set(others) & set(named):
        more += [name for name in others if everybody()[name].by_default]
    return list(dict.fromkeys([*named, *more]))


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        if not names:
            raise argparse.ArgumentTypeError("name at least one")
        return names

    return read


def _epilog() -> str:
    def about(each: Any, name: str, by: str) -> str:
        return f"  {name:20} {each.about}{'' if by == '' else f' (with {by})'}"

    lines = ["scenarios:"]
    lines += [about(each, name, "" if each.by_default else "--only") for name, each in SCENARIOS.items()]
    lines += ["", "contestants:"]
    for name, each in everybody().items():
        by = "--features" if name in FEATURES else "--contestants" if name in CONTESTANTS else "--peers"
        lines.append(about(each, name, "" if name in CONTESTANTS and each.by_default else by))
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="What the sidecar costs beside the others: CPU per unit of work, added latency, memory.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="20 seconds: small loads, few rounds; figures differ from a full run's")
    add("--rounds", type=int, help=f"how often everything is measured (default {ROUNDS}; quick {QUICK_ROUNDS})")
    add("--only", type=_names(list(SCENARIOS)), metavar="SCENARIO,...", help="these scenarios")
    add("--contestants", type=_names(list(everybody())), metavar="NAME,...", help="these contestants")
    add("--peers", action="store_true", help="other gateways too: installs them into a folder of their own first")
    add("--features", action="store_true", help="llm-proxy with one feature off each, beside the full one")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    add("--report", type=Path, nargs="?", const=REPORT_FOLDER, metavar="DIR",
        help="write report.md, its charts and report.json there (default bench/report)")  # fmt: skip
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--from", dest="records", type=Path, nargs="+", metavar="FILE",
                         help="measure nothing: show what these runs on one machine gave, as one")  # fmt: skip
    agree = "measure nothing: do two runs agree within the spread that they print? 0: yes"
    instead.add_argument("--all", action="store_true", help="all that the report shows, in parts (half an hour)")
    instead.add_argument("--compare", type=Path, nargs=2, metavar=("A.json", "B.json"), help=agree)
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    measuring = ("quick", "rounds", "only", "contestants", "peers", "features")
    useless = [f"--{name}" for name in measuring if getattr(options, name)]
    if (options.records or options.compare) and useless:
        parser.error(f"{', '.join(useless)}: nothing is measured with --from and --compare")
    choices = [f"--{name}" for name in measuring[2:] if getattr(options, name)]
    if options.all and choices:
        parser.error(f"--all chooses by itself: leave out {', '.join(choices)}")
    if options.compare and (options.report or options.json):
        parser.error("--compare writes nothing")
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    return options
