"""Which load makes which figure.

Lives here: the scenarios by name, their order, one measurement of one contestant.
May not live here: what a scenario does (unary, streams, siege), how load is made (load), how figures of rounds are
combined (report), starting anything.
How it works: a scenario is a name, what it means, and a function from a `Bench` (contestant, upstream, settings) to a
flat dict of figures. `plan` goes round by round through the scenarios and, within each, contestant by contestant, so
that whatever changes on the machine changes for all of them (A B A B). With TLS the scenario is the same and the
contestant another process (arena); direct then speaks TLS with the upstream in all three cases, as an application would
that had no proxy.
Doubted: nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench import siege, streams, unary
from bench.arena import Absent, Tls
from bench.machine import tree_cpu_ns
from bench.setting import FULL, QUICK, Bench, Figures, Sizes
from bench.siege import LOADS, SIEGES

__all__ = ["FULL", "LOADS", "QUICK", "SCENARIOS", "SIEGES", "Bench", "Figures", "Measurement", "Scenario", "Sizes"]

_SETTLE_SECONDS = 0.1  # between two looks whether a contestant rests
_SETTLE_LOOKS = 100  # who was asked for more than they can do may have much to clear away
_IDLE_SHARE = 0.05  # of a core

Measure = Callable[[Bench], Coroutine[Any, Any, Figures]]


class Column(NamedTuple):
    """A figure of its own that a scenario has beside the usual ones, for tables."""

    figure: str
    heading: str
    digits: int = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """`unit` is what its CPU figure is counted in."""

    name: str
    unit: str
    about: str
    measure: Measure
    by_default: bool = True
    fresh: bool = False  # wants a contestant that has done nothing yet
    streams: int = 0  # at once, paced, in a full run
    columns: tuple[Column, ...] = ()


TLS = {"upstream": Tls(upstream=True), "client": Tls(client=True), "both": Tls(client=True, upstream=True)}
_TLS_WORDS = {"upstream": "TLS upstream", "client": "TLS with clients", "both": "TLS on both sides"}


def _over(tls: Tls, measure: Measure) -> Measure:
    """The same with TLS; nothing, with a word, for who has none."""

    async def over(bench: Bench) -> Figures:
        try:
            twin = bench.over(tls)
        except Absent as absent:
            return Figures({}, [], str(absent))
        return await measure(twin)

    return over


def _with_tls() -> Iterator[Scenario]:
    for side, tls in TLS.items():
        words = _TLS_WORDS[side]
        yield Scenario(
            f"memory-tls-{side}", "stream", f"memory, {words}", _over(tls, streams.memory), False, fresh=True
        )
        yield Scenario(
            f"unary-tls-{side}", "request", f"1,000 requests of 1 KB a second, {words}", _over(tls, unary.slowly), False
        )
        yield Scenario(
            f"paced-tls-{side}",
            "event",
            f"200 streams with 10 events a second each, {words}",
            _over(tls, streams.paced_slowly),
            False,
        )


def _paced(count: int, rate: int) -> Scenario:
    about = f"{count:,} streams with {rate} events a second each"
    return Scenario(f"paced-{count}", "event", about, streams.paced_in(count, rate), False, streams=count)


_LEDGER = (
    Column("rows_per_second", "rows a second", 0),
    Column("behind_rows", "rows behind", 0),
    Column("behind_ms", "ms behind", 0),
)
_SLOW = (
    Column("slow_kib", "KiB per slow reader"),
    Column("alone_first_byte_p50_us", "p50 us alone", 0),
    Column("alone_first_byte_p99_us", "p99 us alone", 0),
)
_LAG = tuple(
    Column(f"{name}_lag_{word}_us", f"{name}: {word} us", 0) for name in LOADS for word in ("p50", "p99", "max")
)

SCENARIOS = {
    each.name: each
    for each in (
        Scenario("memory", "stream", "resident at rest, and per open silent stream", streams.memory, fresh=True),
        Scenario("unary-1k", "request", "1 KB asked, 1 KB answered, keep-alive", unary.small),
        Scenario("unary-paced", "request", "the same, at 6,000 a second for everybody", unary.paced),
        Scenario("unary-64k", "request", "1 KB asked, 64 KB answered", unary.medium),
        Scenario("unary-1m", "request", "1 KB asked, 1 MB answered", unary.large, by_default=False),
        Scenario("asks-64k", "request", "64 KB asked, 1 KB answered", unary.asks_medium, by_default=False),
        Scenario("asks-1m", "request", "1 MB asked, 1 KB answered", unary.asks_large, by_default=False),
        Scenario("short-streams", "stream", "streams of a few events at a fixed rate", streams.short),
        Scenario("paced", "event", "many streams, few events a second each", streams.paced, streams=200),
        _paced(50, 200),
        _paced(1000, 10),
        _paced(5000, 2),
        Scenario(
            "paced-gently", "event", "100 streams with 5 events a second each: any gateway can", streams.gently, False
        ),
        Scenario("back-to-back", "event", "one stream as fast as it goes", streams.back_to_back),
        Scenario("many-keys", "request", "1,000 a second, each with another key", unary.many_keys, by_default=False),
        Scenario("ledger-rate", "request", "as fast as it goes, and rows", unary.ledger_rate, False, columns=_LEDGER),
        Scenario(
            "slow-readers",
            "request",
            "good requests beside clients that hardly read",
            siege.slow_readers,
            by_default=False,
            fresh=True,
            columns=_SLOW,
        ),
        Scenario("lag", "probe", "what the event loop takes to come round", siege.lag, False, columns=_LAG),
        Scenario("wrong-keys", "request", "a good key beside thousands of wrong ones", siege.wrong_keys, False),
        *_with_tls(),
    )
}


class Measurement(NamedTuple):
    """One scenario, one contestant, one round."""

    scenario: str
    contestant: str
    round: int
    figures: Figures


def plan(scenarios: list[Scenario], contestants: list[str], rounds: int) -> Iterator[tuple[int, Scenario, str]]:
    """The order of measurements: rounds, interleaved, every other one backwards, so that nobody always comes after the
    same neighbour; what wants fresh contestants comes first."""
    for number in range(rounds):
        names = contestants if number % 2 == 0 else contestants[::-1]
        for scenario in sorted(scenarios, key=lambda each: not each.fresh):
            yield from ((number, scenario, name) for name in names)


def measure(loop: asyncio.AbstractEventLoop, scenario: Scenario, bench: Bench) -> Figures:
    """One measurement; never raises for what a contestant does."""
    figures = loop.run_until_complete(scenario.measure(bench))
    loop.run_until_complete(_settled(bench))
    return figures


async def _settled(bench: Bench) -> None:
    """Streams that the load has left may be work for their contestant (the sidecar counts what passed of them), which
    is nobody's next measurement."""
    pids = [each.pid for each in (bench.running, *bench.running.twins.values()) if each.pid]
    for _ in range(_SETTLE_LOOKS):
        before = sum(map(tree_cpu_ns, pids))
        await asyncio.sleep(_SETTLE_SECONDS)
        if sum(map(tree_cpu_ns, pids)) - before < _IDLE_SHARE * _SETTLE_SECONDS * 1e9:
            return
