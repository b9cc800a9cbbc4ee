"""Figures of all rounds, combined.

Lives here: medians, spreads, ratios, differences to direct, which rounds were disturbed and by what.
May not live here: measuring; what a figure should be (goals); how anything is shown (table, charts, markdown).
How it works: a ratio is taken round by round between neighbours in time, and then its median; so is what a contestant
adds to direct. What may be concluded from a spread is said by `Spread.sure`: the middle half of the rounds if there are
five or more of them, all rounds if there are fewer, and more than that if they are one or two, or differ much.
Doubted: with fewer than three rounds a spread says nothing, so an eighth to both sides is taken for it. That is half of
what counts as noisy, and no more than a guess.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bench.scenarios import SCENARIOS, Measurement

# Beyond this (width of the spread / median) rounds disagree too much to conclude anything below that size.
NOISY_SPREAD = 0.25
# Of all cores together. The kernel counts both in ticks of 10 ms, so little of them is not worth a word.
NOISY_OTHERS = 0.10
NOISY_STEAL = 0.05
QUARTILES_FROM = 5  # rounds; with fewer, quartiles are interpolated between too little
_UNSURE = NOISY_SPREAD / 2  # to both sides, where the rounds cannot tell how far they spread, or differ much
BASELINES = ("nginx", "splice")
LATENCIES = ("first_byte", "first_event", "transit", "gap")
ADDED = tuple(f"{name}_{quantile}_us" for name in LATENCIES for quantile in ("p50", "p90", "p99"))


class About(NamedTuple):
    """What a scenario means, in what its CPU figure is counted, its streams in a full run, its own figures."""

    unit: str
    about: str
    streams: int = 0
    columns: tuple[tuple[str, str], ...] = ()  # (figure, heading)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median over the rounds, the middle half of them, least and most."""

    median: float
    least: float
    most: float
    rounds: int
    lower: float
    upper: float

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        if not values:
            return None
        least, most = min(values), max(values)
        lower, upper = least, most
        if len(values) >= QUARTILES_FROM:
            lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), least, most, len(values), lower, upper)

    @property
    def relative(self) -> float:
        """Width of the middle half (of everything, with few rounds) beside the median."""
        return (self.upper - self.lower) / abs(self.median) if self.median else 0.0

    @property
    def is_wide(self) -> bool:
        return self.relative > NOISY_SPREAD

    def sure(self) -> tuple[float, float]:
        """Between what the figure lies, for all that these rounds can tell."""
        low, high = (self.least, self.most) if self.is_wide else (self.lower, self.upper)
        if self.is_wide or self.rounds < 3:
            beyond = _UNSURE * abs(self.median)
            return low - beyond, high + beyond
        return low, high

    def as_dict(self) -> dict[str, float]:
        found = {"median": self.median, "min": self.least, "max": self.most}
        if self.rounds >= QUARTILES_FROM:
            found |= {"q1": self.lower, "q3": self.upper}
        return {"rounds": self.rounds, **{name: round(value, 6) for name, value in found.items()}}


class Results:
    """All measurements of a run, or of several on one machine, asked by scenario and contestant."""

    def __init__(self, measurements: Iterable[Measurement], about: Mapping[str, About] | None = None) -> None:
        self.measurements = list(measurements)
        self._about = dict(about or {})
        self._by_pair: dict[tuple[str, str], list[Measurement]] = {}
        for each in self.measurements:
            self._by_pair.setdefault((each.scenario, each.contestant), []).append(each)

    def scenarios(self) -> list[str]:
        return list(dict.fromkeys(each.scenario for each in self.measurements))

    def contestants(self, scenario: str = "") -> list[str]:
        """In the order of the first round; those of one scenario, if one is named."""
        return list(dict.fromkeys(each.contestant for each in self.measurements if scenario in ("", each.scenario)))

    def about(self, scenario: str) -> About:
        if scenario in self._about:
            return self._about[scenario]
        known = SCENARIOS.get(scenario)
        if known is None:
            return About("unit", scenario)
        columns = tuple((column.figure, column.heading) for column in known.columns)
        return About(known.unit, known.about, known.streams, columns)

    def of(self, scenario: str, contestant: str) -> list[Measurement]:
        return self._by_pair.get((scenario, contestant), [])

    def values(self, scenario: str, contestant: str, name: str) -> dict[int, float]:
        """By round, without those that had errors: what is not right is not fast."""
        return {
            each.round: each.figures.numbers[name]
            for each in self.of(scenario, contestant)
            if not each.figures.errors and name in each.figures.numbers
        }

    def spread(self, scenario: str, contestant: str, name: str) -> Spread | None:
        return Spread.of(list(self.values(scenario, contestant, name).values()))

    def paired(
        self, scenario: str, one: str, other: str, name: str, combine: Callable[[float, float], float]
    ) -> Spread | None:
        return _pair(self.values(scenario, one, name), self.values(scenario, other, name), combine)

    def ratio(self, scenario: str, contestant: str, baseline: str, name: str = "cpu_us") -> Spread | None:
        """A figure (CPU per unit) as a multiple of a baseline's in the same round."""
        theirs = {round_: value for round_, value in self.values(scenario, baseline, name).items() if value > 0}
        return _pair(self.values(scenario, contestant, name), theirs, lambda a, b: a / b)

    def across(self, contestant: str, name: str, scenario: str, base: str) -> Spread | None:
        """A figure of one scenario as a multiple of the same in another, round by round."""
        theirs = {round_: value for round_, value in self.values(base, contestant, name).items() if value > 0}
        return _pair(self.values(scenario, contestant, name), theirs, lambda a, b: a / b)

    def added(self, scenario: str, contestant: str, name: str) -> Spread | None:
        """Microseconds beyond direct in the same round."""
        return self.paired(scenario, contestant, "direct", name, lambda a, b: a - b)

    def errors(self) -> list[str]:
        lines = [
            f"{each.scenario}, {each.contestant}: {error}"
            for each in self.measurements
            for error in each.figures.errors
        ]
        return list(dict.fromkeys(lines))

    def not_measured(self) -> list[str]:
        """What somebody has not got, so that it could not be measured."""
        lines = [
            f"{each.scenario}, {each.contestant}: {each.figures.skipped}"
            for each in self.measurements
            if each.figures.skipped
        ]
        return list(dict.fromkeys(lines))

    def disturbed(self, scenario: str, figure: str, *contestants: str) -> dict[int, str]:
        """The rounds in which others used the machine while these were measured, and who. Memory cares for nobody."""
        found: dict[int, str] = {}
        if figure.endswith(("_kib", "_mib")):
            return found
        for contestant in contestants:
            for each in self.of(scenario, contestant):
                numbers = each.figures.numbers
                if numbers.get("steal_share", 0.0) > NOISY_STEAL:
                    found[each.round] = f"the hypervisor took {numbers['steal_share']:.0%}"
                elif numbers.get("others_share", 0.0) > NOISY_OTHERS:
                    found.setdefault(each.round, f"others used {numbers['others_share']:.0%}")
        return found

    def noise(self) -> list[str]:
        """Why not to trust this run too far, in sentences; empty if there is no reason."""
        lines = [
            line
            for name, limit, text in (
                ("others_share", NOISY_OTHERS, "others used"),
                ("steal_share", NOISY_STEAL, "the hypervisor took"),
            )
            if (line := self._shares(name, limit, text))
        ]
        for scenario in self.scenarios():
            for contestant in self.contestants(scenario):
                spread = self.spread(scenario, contestant, "cpu_us")
                if spread is not None and spread.is_wide:
                    lines.append(
                        f"{scenario}, {contestant}: rounds differ by {spread.relative:.0%}; "
                        "smaller differences mean nothing here"
                    )
        return lines

    def _shares(self, name: str, limit: float, text: str) -> str:
        shares = [each.figures.numbers[name] for each in self.measurements if name in each.figures.numbers]
        over = [each for each in self.measurements if each.figures.numbers.get(name, 0.0) > limit]
        if not over:
            return ""
        rounds: dict[str, set[int]] = {}
        for each in over:
            rounds.setdefault(each.scenario, set()).add(each.round + 1)
        where = "; ".join(f"{scenario} in {rounds_(numbers)}" for scenario, numbers in rounds.items())
        return (
            f"{text} more than {limit:.0%} of this machine in {len(over)} of {len(shares)} measurements"
            f" (most: {max(shares):.0%}): {where}"
        )


def rounds_(numbers: Iterable[int]) -> str:
    """`round 1`, `rounds 1, 3`: as people count."""
    told = sorted(set(numbers))
    return f"round{'s' if len(told) > 1 else ''} {', '.join(map(str, told))}"


def _pair(mine: dict[int, float], theirs: dict[int, float], combine: Callable[[float, float], float]) -> Spread | None:
    return Spread.of([combine(mine[each], theirs[each]) for each in mine if each in theirs])
