"""Which load makes which figure.

Lives here: the scenarios, their sizes in full and in quick runs, and one measurement of one contestant.
May not live here: how load is made (load), how figures of rounds are combined (report), starting anything.
How it works: a scenario is a name, what it means, and a function from a `Bench` (contestant, upstream, settings) to a
flat dict of figures. `run` goes round by round through the scenarios and, within each, contestant by contestant, so
that whatever changes on the machine changes for all of them (A B A B).
Doubted: paced streams open new upstream connections where a contestant keeps fewer than there are streams; opening is
outside the window.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench import flood, load, orders
from bench.client import Ask, Cost, Sample
from bench.contestants import Running
from bench.machine import machine_busy, own_cpu_ns, process_cpu_ns, tree_cpu_ns, tree_rss_bytes
from bench.orders import Order


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. Seconds are those of the measured window."""

    unary_connections: int = 16
    unary_seconds: float = 1.0
    unary_large_seconds: float = 0.6
    unary_rate: float = 6000.0  # requests a second, of everybody alike
    latency_rate: float = 1000.0  # requests a second: well below what any contestant here can do
    latency_seconds: float = 0.8
    stream_rate: float = 500.0  # short streams a second
    stream_events: int = 8
    paced_streams: int = 200
    paced_rate: int = 50
    paced_seconds: float = 1.5
    burst_events: int = 100_000
    idle_streams: int = 800
    good_rate: float = 500.0  # requests a second with a good key, beside
    wrong_rate: float = 10_000.0  # with wrong keys, over
    wrong_connections: int = 50
    wrong_seconds: float = 2.0


FULL = Sizes()
QUICK = Sizes(
    unary_seconds=0.25,
    unary_large_seconds=0.2,
    latency_seconds=0.25,
    paced_streams=50,
    paced_rate=20,
    paced_seconds=0.5,
    burst_events=30_000,
    idle_streams=200,
    wrong_seconds=0.5,
)


_SETTLE_SECONDS = 0.1  # between two looks whether a contestant rests
_SETTLE_LOOKS = 20
_IDLE_SHARE = 0.05  # of a core


class Figures(NamedTuple):
    """What one measurement gave: numbers by name, and what went wrong."""

    numbers: dict[str, float]
    errors: list[str]


@dataclass(frozen=True, slots=True)
class Bench:
    """One contestant in front of the upstream, ready to be measured."""

    running: Running
    upstream: Running
    key: str
    sizes: Sizes

    def ask(self, order: Order) -> Ask:
        return Ask.of(orders.request(order, f"127.0.0.1:{self.running.port}", self.key), order)

    def read_cost(self) -> Cost:
        pid = self.running.pid
        contestant = tree_cpu_ns(pid) if pid else 0
        return Cost(contestant, process_cpu_ns(self.upstream.pid), own_cpu_ns(), sum(machine_busy()))

    def rss(self) -> int:
        return tree_rss_bytes(self.running.pid) if self.running.pid else 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`unit` is what its CPU figure is counted in."""

    name: str
    unit: str
    about: str
    measure: Callable[[Bench], Coroutine[Any, Any, Figures]]
    by_default: bool = True
    fresh: bool = False  # wants a contestant that has done nothing yet, and is measured once


def _percentile(values: list[float], share: float) -> float:
    values.sort()
    return values[min(len(values) - 1, int(len(values) * share))]


def _cpu_figures(sample: Sample, cores: int = 2) -> dict[str, float]:
    """CPU microseconds per unit of each party, and how much of the window others on this machine worked."""
    if not sample.units or not sample.seconds:
        return {}
    cost = sample.cost
    ours = cost.contestant + cost.upstream + cost.load
    return {
        "cpu_us": cost.contestant / sample.units / 1e3,
        "upstream_us": cost.upstream / sample.units / 1e3,
        "load_us": cost.load / sample.units / 1e3,
        "per_second": sample.units / sample.seconds,
        "contestant_share": cost.contestant / sample.seconds / 1e9,
        "rest_share": (cost.upstream + cost.load) / sample.seconds / 1e9,
        "others_share": max(0.0, (cost.machine - ours) / sample.seconds / 1e9 / cores),
    }


def _latency_figures(sample: Sample) -> dict[str, float]:
    """p50 and p99 of whatever was timed, microseconds."""
    figures = {}
    for name in ("first_byte", "first_event", "transit"):
        values: list[float] = getattr(sample, name)
        if values:
            figures[f"{name}_p50_us"] = _percentile(values, 0.50)
            figures[f"{name}_p99_us"] = _percentile(values, 0.99)
    return figures


def _upstream_connections(port: int) -> int:
    """How many connections have carried orders so far, as the upstream says."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        link.sendall(b"GET /stats HTTP/1.1\r\nhost: upstream\r\n\r\n")
        answer = link.recv(4096)
    count: int = json.loads(answer.partition(b"\r\n\r\n")[2])["connections"]
    return count


class _Reuse:
    """Watches whether upstream connections are reused: at most one new one per client connection, and a few."""

    def __init__(self, bench: Bench, clients: int) -> None:
        self._port = bench.upstream.port
        self._allowed = clients + clients // 10 + 2
        self._before = _upstream_connections(self._port)

    def judge(self, sample: Sample, numbers: dict[str, float]) -> None:
        opened = _upstream_connections(self._port) - self._before
        numbers["upstream_connections"] = opened
        if opened > self._allowed:
            sample.fail(f"{opened} new upstream connections where {self._allowed} would do: no reuse")


async def _unary(bench: Bench, size: int, seconds: float, latency: bool) -> Figures:
    sizes = bench.sizes
    ask = bench.ask(orders.unary(size))
    reuse = _Reuse(bench, sizes.unary_connections)
    sample = await load.closed_loop(
        bench.running.port, ask, bench.read_cost, connections=sizes.unary_connections, seconds=seconds
    )
    numbers = _cpu_figures(sample)
    reuse.judge(sample, numbers)
    errors = sample.errors
    if latency and not errors:
        timed = await load.open_loop(
            bench.running.port, ask, bench.read_cost, rate=sizes.latency_rate, seconds=sizes.latency_seconds
        )
        numbers.update(_latency_figures(timed), late_us=timed.late)
        errors = errors + timed.errors
    return Figures(numbers, errors)


async def _unary_1k(bench: Bench) -> Figures:
    return await _unary(bench, 1024, bench.sizes.unary_seconds, latency=True)


async def _unary_paced(bench: Bench) -> Figures:
    """In a closed loop the fastest contestant is held up by the load, whose core then never rests; the others leave it
    idle between requests, and pay in each write for waking it. At one rate all pay the same."""
    sizes = bench.sizes
    reuse = _Reuse(bench, sizes.unary_connections)
    sample = await load.open_loop(
        bench.running.port,
        bench.ask(orders.unary(1024)),
        bench.read_cost,
        rate=sizes.unary_rate,
        seconds=sizes.unary_seconds,
        connections=sizes.unary_connections,
    )
    numbers = {**_cpu_figures(sample), **_latency_figures(sample), "late_us": sample.late}
    reuse.judge(sample, numbers)
    return Figures(numbers, sample.errors)


async def _unary_64k(bench: Bench) -> Figures:
    return await _unary(bench, 64 * 1024, bench.sizes.unary_large_seconds, latency=False)


async def _unary_1m(bench: Bench) -> Figures:
    return await _unary(bench, 1024 * 1024, bench.sizes.unary_large_seconds, latency=False)


async def _short_streams(bench: Bench) -> Figures:
    sizes = bench.sizes
    clients = 32
    reuse = _Reuse(bench, clients)
    sample = await load.open_loop(
        bench.running.port,
        bench.ask(orders.burst(sizes.stream_events)),
        bench.read_cost,
        rate=sizes.stream_rate,
        seconds=sizes.latency_seconds,
        connections=clients,
    )
    numbers = {**_cpu_figures(sample), **_latency_figures(sample), "late_us": sample.late}
    reuse.judge(sample, numbers)
    return Figures(numbers, sample.errors)


async def _paced_streams(bench: Bench, streams: int, rate: int) -> Figures:
    seconds = bench.sizes.paced_seconds
    events = int(rate * (seconds + 0.3 + streams / 4000))  # opening a stream takes well under 0.25 ms of the load
    sample = await load.paced_streams(
        bench.running.port,
        bench.ask(orders.paced(rate, events)),
        bench.read_cost,
        streams=streams,
        rate=rate,
        seconds=seconds,
    )
    return Figures({**_cpu_figures(sample), **_latency_figures(sample)}, sample.errors)


async def _paced(bench: Bench) -> Figures:
    return await _paced_streams(bench, bench.sizes.paced_streams, bench.sizes.paced_rate)


async def _paced_1000(bench: Bench) -> Figures:
    return await _paced_streams(bench, 1000, 10)


async def _back_to_back(bench: Bench) -> Figures:
    events = bench.sizes.burst_events
    sample = await load.back_to_back(
        bench.running.port, bench.ask(orders.burst(events)), bench.read_cost, events=events
    )
    return Figures(_cpu_figures(sample), sample.errors)


async def _memory(bench: Bench) -> Figures:
    rest = bench.rss()
    warm = await load.once(bench.running.port, bench.ask(orders.burst(8)))
    sample, per_stream = await load.idle_streams(
        bench.running.port, bench.ask(orders.IDLE), streams=bench.sizes.idle_streams, rss=bench.rss
    )
    numbers = {"rest_mib": rest / 2**20, "stream_kib": per_stream / 2**10, "ready_ms": bench.running.ready_ms}
    return Figures(numbers if bench.running.pid else {}, warm.errors + sample.errors)


# Beside what a good key's traffic is measured: nothing; wrong keys at a rate; wrong keys as fast as they are refused.
SIEGES = ("alone", "flood", "storm")


async def _wrong_keys(bench: Bench) -> Figures:
    """The same good traffic three times. What a wrong key costs is all CPU beyond what the good ones cost alone."""
    if not bench.running.contestant.checks_keys:
        return Figures({}, [])
    numbers: dict[str, float] = {}
    errors: list[str] = []
    for siege in SIEGES:
        numbers |= {f"{siege}_{name}": value for name, value in (await _besieged(bench, siege, errors)).items()}
    good_us = numbers["alone_cpu_us"]
    for siege in SIEGES[1:]:
        beyond = (numbers[f"{siege}_cpu_us"] - good_us) * numbers[f"{siege}_answers"]
        numbers[f"{siege}_wrong_us"] = beyond / max(1.0, numbers[f"{siege}_refused"])
    return Figures({"cpu_us": good_us, "per_second": numbers["alone_per_second"], **numbers}, errors)


async def _besieged(bench: Bench, siege: str, errors: list[str]) -> dict[str, float]:
    """Good traffic and its figures; `cpu_us`: of all the contestant did, for each good answer."""
    sizes = bench.sizes
    port, host = bench.running.port, f"127.0.0.1:{bench.running.port}"
    attack = None
    if siege != "alone":
        rate = sizes.wrong_rate if siege == "flood" else 0.0
        attack = flood.Flood(port, flood.wrong_key(host), sizes.wrong_connections, rate)
        await attack.start()
    before, refused, began = bench.read_cost(), attack.refused if attack else 0, time.perf_counter()
    sample = await load.open_loop(
        port, bench.ask(orders.unary(1024)), bench.read_cost, rate=sizes.good_rate, seconds=sizes.wrong_seconds
    )
    spent, seconds = bench.read_cost().contestant - before.contestant, time.perf_counter() - began
    refused = attack.refused - refused if attack else 0
    errors += sample.errors
    if attack is not None and (error := attack.stop()):
        errors.append(error)
    return {
        **_latency_figures(sample),
        "answers": sample.answers,
        "per_second": sample.units / sample.seconds if sample.seconds else 0.0,
        "refused": refused,
        "refused_per_second": refused / seconds,
        "share": spent / seconds / 1e9,
        "cpu_us": spent / max(1, sample.answers) / 1e3,
        "late_us": sample.late,
    }


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("memory", "stream", "resident at rest, and per open silent stream", _memory, fresh=True),
        Scenario("unary-1k", "request", "1 KB asked, 1 KB answered, keep-alive", _unary_1k),
        Scenario("unary-paced", "request", "the same, at 6,000 a second for everybody", _unary_paced),
        Scenario("unary-64k", "request", "1 KB asked, 64 KB answered", _unary_64k),
        Scenario("unary-1m", "request", "1 KB asked, 1 MB answered", _unary_1m, by_default=False),
        Scenario("short-streams", "stream", "streams of a few events at a fixed rate", _short_streams),
        Scenario("paced", "event", "many streams, few events a second each", _paced),
        Scenario("paced-1000", "event", "1,000 streams with 10 events a second each", _paced_1000, by_default=False),
        Scenario("back-to-back", "event", "one stream as fast as it goes", _back_to_back),
        Scenario("wrong-keys", "request", "a good key beside thousands of wrong ones", _wrong_keys, by_default=False),
    )
}


class Measurement(NamedTuple):
    """One scenario, one contestant, one round."""

    scenario: str
    contestant: str
    round: int
    figures: Figures


def plan(scenarios: list[Scenario], contestants: list[str], rounds: int) -> Iterator[tuple[int, Scenario, str]]:
    """The order of measurements: what wants fresh contestants first and once; then rounds, interleaved, every other
    one backwards, so that nobody always comes after the same neighbour."""
    for scenario in scenarios:
        if scenario.fresh:
            yield from ((0, scenario, name) for name in contestants)
    for number in range(rounds):
        names = contestants if number % 2 == 0 else contestants[::-1]
        for scenario in scenarios:
            if not scenario.fresh:
                yield from ((number, scenario, name) for name in names)


def measure(loop: asyncio.AbstractEventLoop, scenario: Scenario, bench: Bench) -> Figures:
    """One measurement; never raises for what a contestant does."""
    figures = loop.run_until_complete(scenario.measure(bench))
    loop.run_until_complete(_settled(bench))
    return figures


async def _settled(bench: Bench) -> None:
    """Streams that the load has left may be work for their contestant (the sidecar counts what passed of them), which
    is nobody's next measurement."""
    for _ in range(_SETTLE_LOOKS):
        before = bench.read_cost().contestant
        await asyncio.sleep(_SETTLE_SECONDS)
        if bench.read_cost().contestant - before < _IDLE_SHARE * _SETTLE_SECONDS * 1e9:
            return


def median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0
