"""Do two runs agree? `scripts/bench --compare A.json B.json`.

Lives here: which figures are compared, when two of them agree, the text about it.
May not live here: measuring; whether a figure is good (goals).
How it works: every figure that the report shows is taken from both records with its median and spread, as they print
it. Two agree if what they print overlaps: least to most, and no less than an eighth to both sides where there were
fewer than three rounds. Throughput is left out: it says more about the machine's hour than about a contestant.
Doubted: over a hundred figures, one that does not agree is not yet a sign of anything; the text names all of them.
"""

from __future__ import annotations

from typing import NamedTuple

from bench.record import Record
from bench.results import BASELINES, LATENCIES, Spread
from bench.table import number

_FIGURES = ("cpu_us", "rest_mib", "stream_kib", "ready_ms")


class Compared(NamedTuple):
    """One figure in both runs. None: not measured there."""

    scenario: str
    contestant: str
    figure: str
    one: Spread | None
    other: Spread | None

    @property
    def word(self) -> str:
        if self.one is None or self.other is None:
            return "only in one"
        (low, high), (least, most) = _printed(self.one), _printed(self.other)
        return "agree" if low <= most and least <= high else "differ"


def _printed(spread: Spread) -> tuple[float, float]:
    return spread.sure() if spread.rounds < 3 else (spread.least, spread.most)


def _figures(record: Record, scenario: str, contestant: str) -> dict[str, Spread]:
    results = record.results
    found = {name: results.spread(scenario, contestant, name) for name in _FIGURES}
    for base in BASELINES:
        if base != contestant:
            found[f"x {base}"] = results.ratio(scenario, contestant, base)
    for name in LATENCIES:
        for quantile in ("p50", "p99"):
            figure = f"{name}_{quantile}_us"
            found[f"{name} {quantile}"] = results.spread(scenario, contestant, figure)
            if contestant != "direct":
                found[f"{name} {quantile} added"] = results.added(scenario, contestant, figure)
    return {name: spread for name, spread in found.items() if spread is not None}


def compare(one: Record, other: Record) -> list[Compared]:
    """Of everything that is in either of them."""
    pairs = dict.fromkeys(
        (each.scenario, each.contestant) for record in (one, other) for each in record.results.measurements
    )
    found = []
    for scenario, contestant in pairs:
        mine, theirs = _figures(one, scenario, contestant), _figures(other, scenario, contestant)
        found += [
            Compared(scenario, contestant, figure, mine.get(figure), theirs.get(figure))
            for figure in dict.fromkeys([*mine, *theirs])
        ]
    return found


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{number(spread.median)} ({number(spread.least)}..{number(spread.most)}, {spread.rounds})"


def text(one: Record, other: Record) -> str:
    """A line for each figure, and what came out of it."""
    compared = compare(one, other)
    rows = [("", "one: median (least..most, rounds)", "other", "")]
    rows += [
        (f"{each.scenario}, {each.contestant}: {each.figure}", _cell(each.one), _cell(each.other), each.word)
        for each in compared
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows]
    words = [each.word for each in compared]
    lines += [
        "",
        f"{words.count('agree')} agree, {words.count('differ')} differ, {words.count('only in one')} only in one",
    ]
    if one.runs[0]["machine"] != other.runs[0]["machine"]:
        lines.append("these runs come from different machines: only ratios say something")
    for name, record in (("one", one), ("other", other)):
        lines += [f"noisy, {name}: {line}" for line in record.results.noise()]
    return "\n".join(lines)


def agree(one: Record, other: Record) -> bool:
    """Whether no figure differs, and there was one to compare."""
    words = [each.word for each in compare(one, other)]
    return "agree" in words and "differ" not in words
