"""What the figures should be, and whether they are: the goals, and the places among the gateways.

Lives here: the table of goals, what may be concluded from a spread beside a bound, who is ahead of whom.
May not live here: measuring, how a verdict is printed, any consequence of one: the bench reports, and never fails.
How it works: a goal names where its figure comes from and its bound. A figure is below or above a bound only if all
that its rounds allow (`Spread.sure`) is, and others left the machine alone in more than half of them; everything else
"cannot be told", with the reason. Noise makes everything dearer, and not everybody alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bench.record import OURS, Record
from bench.results import NOISY_SPREAD, Spread, rounds_

MET, MISSED, UNTOLD, UNMEASURED = "met", "missed", "cannot be told", "not measured"
BELOW, ABOVE = "below", "above"


class Verdict(NamedTuple):
    """A word, and what it rests on."""

    word: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """`figure` of `scenario`, at most `bound`. As it is; or as a multiple of what `beside` (a contestant) has in the
    same round; or beyond what direct has (`is_added`); or as a multiple of our own in another scenario (`base`)."""

    name: str
    scenario: str
    figure: str
    bound: float
    unit: str
    beside: str = ""
    base: str = ""
    is_added: bool = False


# DESIGN 12. What a scenario is called is bench.scenarios' own business; a test holds both together.
GOALS = (
    Goal("request, 1 KB answer: CPU", "unary-1k", "cpu_us", 1.6, "x nginx", beside="nginx"),
    Goal("paced event: CPU", "paced", "cpu_us", 1.25, "x splice", beside="splice"),
    Goal("back-to-back event: CPU", "back-to-back", "cpu_us", 1.0, "x nginx", beside="nginx"),
    Goal("request: added first byte, p50", "unary-1k", "first_byte_p50_us", 100.0, "us", is_added=True),
    Goal("request: added first byte, p99", "unary-1k", "first_byte_p99_us", 1000.0, "us", is_added=True),
    Goal("stream: added first event, p50", "short-streams", "first_event_p50_us", 100.0, "us", is_added=True),
    Goal("stream: added first event, p99", "short-streams", "first_event_p99_us", 1000.0, "us", is_added=True),
    Goal("open idle stream, plain TCP: memory", "memory", "stream_kib", 10.0, "KiB"),
    Goal("open idle stream, TLS upstream: memory", "memory-tls-upstream", "stream_kib", 48.0, "KiB"),
    Goal("open idle stream, TLS on both sides: memory", "memory-tls-both", "stream_kib", 80.0, "KiB"),
    Goal("at rest: memory", "memory", "rest_mib", 45.0, "MiB"),
    Goal("start to ready", "memory", "ready_ms", 300.0, "ms"),
    Goal("event in 5,000 streams beside 50: CPU", "paced-5000", "cpu_us", 1.10, "x 50 streams", base="paced-50"),
)


class Reached(NamedTuple):
    """A goal, what was measured, and the verdict."""

    goal: Goal
    measured: Spread | None
    verdict: Verdict


def measured(record: Record, goal: Goal) -> Spread | None:
    results = record.results
    if goal.beside:
        return results.ratio(goal.scenario, OURS, goal.beside, goal.figure)
    if goal.base:
        return results.across(OURS, goal.figure, goal.scenario, goal.base)
    if goal.is_added:
        return results.added(goal.scenario, OURS, goal.figure)
    return results.spread(goal.scenario, OURS, goal.figure)


def reached(record: Record) -> list[Reached]:
    return [_reach(record, goal) for goal in GOALS]


def _reach(record: Record, goal: Goal) -> Reached:
    spread = measured(record, goal)
    if spread is None:
        return Reached(goal, None, Verdict(UNMEASURED))
    parties = [OURS, *([goal.beside] if goal.beside else []), *(["direct"] if goal.is_added else [])]
    disturbed = record.results.disturbed(goal.scenario, goal.figure, *parties)
    if goal.base:
        disturbed |= record.results.disturbed(goal.base, goal.figure, OURS)
    found = beside(spread, goal.bound, disturbed)
    if found.word == BELOW:
        return Reached(goal, spread, Verdict(MET, found.why))
    if found.word == ABOVE:
        return Reached(goal, spread, Verdict(MISSED, by_how_much(spread.median, goal.bound)))
    return Reached(goal, spread, found)


def by_how_much(median: float, bound: float) -> str:
    return f"{median / bound:.1f} times the goal" if median >= 2 * bound else f"by {median / bound - 1:.0%}"


def is_disturbed(spread: Spread, disturbed: dict[int, str]) -> bool:
    """In half of the rounds or more: then their median is a disturbed one too."""
    return len(disturbed) * 2 >= spread.rounds


def beside(spread: Spread, bound: float, disturbed: dict[int, str]) -> Verdict:
    """Whether a figure is below or above a bound. `disturbed`: the rounds that were, and by what."""
    if is_disturbed(spread, disturbed):
        why = f"{next(iter(disturbed.values()))} in {rounds_(number + 1 for number in disturbed)}"
        return Verdict(UNTOLD, f"too noisy: {why}")
    low, high = spread.sure()
    why = "one round only" if spread.rounds == 1 else ""
    if high <= bound:
        return Verdict(BELOW, why)
    if low > bound:
        return Verdict(ABOVE, why)
    if spread.is_wide:
        return Verdict(UNTOLD, f"too noisy: rounds differ by {spread.relative:.0%}, more than {NOISY_SPREAD:.0%}")
    return Verdict(UNTOLD, why or "too near: what the rounds allow lies on both sides")


def apart(spread: Spread, equal: float, disturbed: dict[int, str]) -> str:
    """Whether a comparison tells of any difference: `equal` is what it gives for two that are alike."""
    if is_disturbed(spread, disturbed):
        return UNTOLD
    low, high = spread.sure()
    return BELOW if high < equal else ABOVE if low > equal else UNTOLD


class Field(NamedTuple):
    """A figure by which contestants are ranked. `is_added`: what matters is what is added to direct."""

    name: str
    scenario: str
    figure: str
    unit: str
    is_added: bool = False


FIELDS = (
    Field("CPU per request", "unary-1k", "cpu_us", "us"),
    Field("CPU per event", "paced", "cpu_us", "us"),
    Field("CPU per event, at a rate for all", "paced-gently", "cpu_us", "us"),  # LiteLLM gives up at 10,000 a second
    Field("CPU per event, back to back", "back-to-back", "cpu_us", "us"),
    Field("added first event, p50", "short-streams", "first_event_p50_us", "us", is_added=True),
    Field("memory per open stream", "memory", "stream_kib", "KiB"),
    Field("memory at rest", "memory", "rest_mib", "MiB"),
)


class Place(NamedTuple):
    """Where we are among the gateways in one field. `order`: all that have a figure, best first, ours among them."""

    field: Field
    order: list[tuple[str, Spread]]
    ahead_of: list[str]
    behind: list[str]
    untold: list[str]

    @property
    def verdict(self) -> Verdict:
        if self.behind:
            return Verdict("behind", ", ".join(self.behind))
        if self.untold:
            return Verdict(UNTOLD, ", ".join(self.untold))
        return Verdict("ahead of all", str(len(self.ahead_of)))


def places(record: Record) -> list[Place]:
    """Of the fields in which we and at least one gateway have a figure."""
    return [place for field in FIELDS if (place := _place(record, field)) is not None]


def _place(record: Record, field: Field) -> Place | None:
    order = []
    for name in record.named("ours", "gateway"):
        take = record.results.added if field.is_added else record.results.spread
        spread = take(field.scenario, name, field.figure)
        if spread is not None:
            order.append((name, spread))
    names = [name for name, _ in order]
    if OURS not in names or len(names) < 2:
        return None
    order.sort(key=lambda pair: pair[1].median)
    by_word: dict[str, list[str]] = {BELOW: [], ABOVE: [], UNTOLD: []}
    for name, _ in order:
        if name != OURS:
            by_word[_against(record, field, name)].append(name)
    return Place(field, order, by_word[BELOW], by_word[ABOVE], by_word[UNTOLD])


def _against(record: Record, field: Field, name: str) -> str:
    """Where we are beside one gateway. By the quotient; by the difference where a figure may be about zero.

    Both may be missing in one round each, or were never in the same run: then the spreads themselves must be apart.
    """
    results = record.results
    disturbed = results.disturbed(field.scenario, field.figure, OURS, name)
    if field.is_added:
        difference = results.paired(field.scenario, OURS, name, field.figure, lambda a, b: a - b)
        if difference is not None:
            return apart(difference, 0.0, disturbed)
    elif (ratio := results.ratio(field.scenario, OURS, name, field.figure)) is not None:
        return apart(ratio, 1.0, disturbed)
    take = results.added if field.is_added else results.spread
    ours, theirs = take(field.scenario, OURS, field.figure), take(field.scenario, name, field.figure)
    if ours is None or theirs is None or is_disturbed(ours, disturbed) or is_disturbed(theirs, disturbed):
        return UNTOLD
    (low, high), (least, most) = ours.sure(), theirs.sure()
    return BELOW if high < least else ABOVE if low > most else UNTOLD
