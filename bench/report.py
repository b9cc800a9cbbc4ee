"""Figures of all rounds, combined: the table for people, the JSON for everything else.

Lives here: medians, spreads, ratios, differences to direct, when a run was too noisy, how it is printed.
May not live here: measuring; any verdict on whether a figure is good.
How it works: a ratio is taken round by round between neighbours in time, and then its median; so is what a contestant
adds to direct. A cell shows median (least..most).
Doubted: with fewer than five rounds the spread says little.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.scenarios import SCENARIOS, SIEGES, Measurement

# Beyond this (most - least) / median of CPU per unit, rounds disagree too much to conclude anything below that size.
NOISY_SPREAD = 0.25
# Of both cores together. The kernel counts it in ticks of 10 ms, so little of it is not worth a word.
NOISY_OTHERS = 0.10
BASELINES = ("nginx", "splice")
ADDED = ("first_byte_p50_us", "first_byte_p99_us", "first_event_p50_us", "first_event_p99_us",
         "transit_p50_us", "transit_p99_us")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most over the rounds."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values), len(values)) if values else None

    @property
    def relative(self) -> float:
        return (self.most - self.least) / self.median if self.median else 0.0

    def as_dict(self) -> dict[str, float]:
        return {"median": round(self.median, 4), "min": round(self.least, 4), "max": round(self.most, 4)}


class Results:
    """All measurements of a run, asked by scenario and contestant."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self.measurements = list(measurements)
        self._numbers = {(each.scenario, each.contestant, each.round): each for each in self.measurements}

    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(each.scenario for each in self.measurements))

    def contestants(self) -> list[str]:
        return list(dict.fromkeys(each.contestant for each in self.measurements if each.round == 0))

    def values(self, scenario: str, contestant: str, name: str) -> dict[int, float]:
        """By round, without those that had errors: what is not right is not fast."""
        return {
            round_: each.figures.numbers[name]
            for (of, who, round_), each in self._numbers.items()
            if of == scenario and who == contestant and not each.figures.errors and name in each.figures.numbers
        }

    def spread(self, scenario: str, contestant: str, name: str) -> Spread | None:
        return Spread.of(list(self.values(scenario, contestant, name).values()))

    def _paired(
        self, scenario: str, one: str, other: str, name: str, combine: Callable[[float, float], float]
    ) -> Spread | None:
        mine, theirs = self.values(scenario, one, name), self.values(scenario, other, name)
        return Spread.of([combine(mine[each], theirs[each]) for each in mine if each in theirs])

    def ratio(self, scenario: str, contestant: str, baseline: str) -> Spread | None:
        """CPU per unit, as a multiple of a baseline's in the same round."""
        return self._paired(scenario, contestant, baseline, "cpu_us", lambda a, b: a / b if b else 0.0)

    def added(self, scenario: str, contestant: str, name: str) -> Spread | None:
        """Microseconds beyond direct in the same round."""
        return self._paired(scenario, contestant, "direct", name, lambda a, b: a - b)

    def errors(self) -> list[str]:
        lines = [
            f"{each.scenario}, {each.contestant}: {error}"
            for each in self.measurements
            for error in each.figures.errors
        ]
        return list(dict.fromkeys(lines))

    def noise(self) -> list[str]:
        """Why not to trust this run too far, in sentences; empty if there is no reason."""
        lines = []
        busy = [each.figures.numbers.get("others_share", 0.0) for each in self.measurements]
        disturbed = sum(share > NOISY_OTHERS for share in busy)
        if disturbed:
            lines.append(
                f"others used more than {NOISY_OTHERS:.0%} of this machine in {disturbed} of {len(busy)} measurements"
                f" (most: {max(busy):.0%})"
            )
        for scenario in self.scenarios():
            for contestant in self.contestants():
                spread = self.spread(scenario, contestant, "cpu_us")
                if spread is not None and spread.relative > NOISY_SPREAD:
                    lines.append(
                        f"{scenario}, {contestant}: rounds differ by {spread.relative:.0%}; "
                        "smaller differences mean nothing here"
                    )
        return lines

    def as_list(self) -> list[dict[str, object]]:
        """Per scenario and contestant: each figure's spread, ratios, what was added, all rounds, errors."""
        rows: list[dict[str, object]] = []
        for scenario in self.scenarios():
            for contestant in self.contestants():
                mine = [m for m in self.measurements if (m.scenario, m.contestant) == (scenario, contestant)]
                names = dict.fromkeys(name for each in mine for name in each.figures.numbers)
                rows.append(
                    {
                        "scenario": scenario,
                        "contestant": contestant,
                        "unit": SCENARIOS[scenario].unit,
                        "figures": _dicts({name: self.spread(scenario, contestant, name) for name in names}),
                        "ratio": _dicts({base: self.ratio(scenario, contestant, base) for base in BASELINES}),
                        "added": _dicts({name: self.added(scenario, contestant, name) for name in ADDED}),
                        "rounds": [{k: round(v, 4) for k, v in each.figures.numbers.items()} for each in mine],
                        "errors": sorted({error for each in mine for error in each.figures.errors}),
                    }
                )
        return rows


def _dicts(spreads: dict[str, Spread | None]) -> dict[str, dict[str, float]]:
    return {name: spread.as_dict() for name, spread in spreads.items() if spread is not None}


def _cell(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "-"
    text = f"{spread.median:.{digits}f}"
    return text if spread.rounds == 1 else f"{text} ({spread.least:.{digits}f}..{spread.most:.{digits}f})"


def _short(spread: Spread | None, pattern: str) -> str:
    return "-" if spread is None else pattern.format(spread.median)


def _latency(results: Results, scenario: str, contestant: str, name: str) -> str:
    """p50 / p99 added to direct; of direct itself, and where it was not measured, absolute and marked by "="."""
    if contestant == "direct" or "direct" not in results.contestants():
        p50, p99 = (results.spread(scenario, contestant, f"{name}_{p}_us") for p in ("p50", "p99"))
        return "-" if p50 is None else f"={p50.median:.0f} / ={p99.median if p99 else 0:.0f}"
    p50, p99 = (results.added(scenario, contestant, f"{name}_{p}_us") for p in ("p50", "p99"))
    return "-" if p50 is None else f"{p50.median:+.0f} / {p99.median if p99 else 0:+.0f}"


def _siege_rows(results: Results) -> list[list[str]]:
    """One row for each siege: what became of the good requests, and what the wrong ones took."""
    rows = [["", "good a second", "p50 us", "p99 us", "refused a second", "CPU us per refusal", "of a core"]]
    figures = ("first_byte_p50_us", "first_byte_p99_us", "refused_per_second", "wrong_us", "share")
    for name in results.contestants():
        for siege in SIEGES:
            good = results.spread("wrong-keys", name, f"{siege}_per_second")
            if good is None:
                continue
            p50, p99, refused, cost, share = (
                results.spread("wrong-keys", name, f"{siege}_{figure}") for figure in figures
            )
            row = [f"{name}, {siege}", f"{good.median:,.0f}", _cell(p50, 0), _cell(p99, 0)]
            row += [_short(refused, "{:,.0f}"), _cell(cost, 1), _short(share, "{:.0%}")]
            rows.append(row)
    return rows


def _rows(results: Results, scenario: str) -> list[list[str]]:
    about = SCENARIOS[scenario]
    if scenario == "memory":
        rows = [["", "resident MiB", f"KiB per {about.unit}", "ready in ms"]]
        for name in results.contestants():
            spreads = [results.spread(scenario, name, figure) for figure in ("rest_mib", "stream_kib", "ready_ms")]
            if any(spreads):
                rows.append([name, *(_cell(each, 1) for each in spreads)])
        return rows
    if scenario == "wrong-keys":
        return _siege_rows(results)
    timed = [
        figure
        for figure in ("first_byte", "first_event", "transit")
        if any(results.spread(scenario, name, f"{figure}_p50_us") for name in results.contestants())
    ]
    rows = [["", f"CPU us per {about.unit}", "x nginx", "x splice", "per second"]]
    rows[0] += [f"{figure.replace('_', ' ')} p50 / p99 us" for figure in timed]
    for name in results.contestants():
        cpu = results.spread(scenario, name, "cpu_us")
        digits = 3 if cpu is not None and cpu.median < 5 else 1
        row = [name, _cell(cpu, digits) if name != "direct" else "-"]
        row += [
            _short(results.ratio(scenario, name, each), "{:.2f}") if name != "direct" else "-" for each in BASELINES
        ]
        row.append(_short(results.spread(scenario, name, "per_second"), "{:,.0f}"))
        row += [_latency(results, scenario, name, figure) for figure in timed]
        rows.append(row)
    return rows


def table(results: Results) -> str:
    """All scenarios as text."""
    parts = []
    for scenario in results.scenarios():
        rows = _rows(results, scenario)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [f"{scenario}: {SCENARIOS[scenario].about}"]
        for row in rows:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  " + "  ".join(cells).rstrip())
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
