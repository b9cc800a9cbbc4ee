"""Scenarios in which something else goes on beside what is measured.

Lives here: wrong keys in masses, clients that hardly read, probes of the event loop under load.
May not live here: how those are made (flood, slow, probe).
How it works: the same good traffic alone and beside the disturbance, in one measurement.
Doubted: whoever disturbs shares a core with the load, and takes some of its time too.
"""

from __future__ import annotations

import asyncio
import time

from bench import flood, load, orders
from bench.client import Sample
from bench.probe import Prober
from bench.setting import Bench, Figures, cpu_figures, latency_figures, quantiles
from bench.slow import SlowReaders

# Beside what a good key's traffic is measured: nothing; wrong keys at a rate; wrong keys as fast as they are refused.
SIEGES = ("alone", "flood", "storm")


async def wrong_keys(bench: Bench) -> Figures:
    """The same good traffic three times. What a wrong key costs is all CPU beyond what the good ones cost alone."""
    if not bench.running.contestant.checks_keys:
        return Figures({}, [], "checks no keys")
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
        **latency_figures(sample),
        "answers": sample.answers,
        "per_second": sample.units / sample.seconds if sample.seconds else 0.0,
        "refused": refused,
        "refused_per_second": refused / seconds,
        "share": spent / seconds / 1e9,
        "cpu_us": spent / max(1, sample.answers) / 1e3,
        "late_us": sample.late,
    }


async def slow_readers(bench: Bench) -> Figures:
    """Good requests alone, and beside clients that ask for long streams and hardly read them: what these hold of
    memory, and what the good ones wait for them. The figures without a word before them are those beside."""
    # What the first long stream wakes up in the contestant (the sidecar's counting process) no slow reader holds.
    warm = await load.once(bench.running.port, bench.ask(orders.burst(bench.sizes.slow_events)))
    alone = await _good(bench)
    before = bench.rss()
    readers = SlowReaders(bench.running.port, bench.ask(orders.burst(bench.sizes.slow_events)))
    try:
        await readers.start(bench.sizes.slow_readers)
        beside = await _good(bench)
        grown = bench.rss() - before
    finally:
        error = readers.stop()
    numbers = {**cpu_figures(beside), **latency_figures(beside), "late_us": beside.late}
    numbers |= {f"alone_{name}": value for name, value in latency_figures(alone).items()}
    numbers["slow_read_kib"] = readers.read / bench.sizes.slow_readers / 2**10
    if bench.running.pid:
        numbers["slow_kib"] = grown / bench.sizes.slow_readers / 2**10
    return Figures(numbers, warm.errors + alone.errors + beside.errors + ([error] if error else []))


async def _good(bench: Bench) -> Sample:
    sizes = bench.sizes
    return await load.open_loop(
        bench.running.port,
        bench.ask(orders.unary(1024)),
        bench.read_cost,
        rate=sizes.good_rate,
        seconds=sizes.latency_seconds,
    )


# What goes on while a contestant's event loop is probed.
LOADS = ("rest", "unary", "streams")


async def lag(bench: Bench) -> Figures:
    """How long an event loop takes to come round, at rest and under load: what a trivial question waits for it."""
    if bench.running.probe is None:
        return Figures({}, [], "has nothing to be probed by")
    sizes = bench.sizes
    numbers: dict[str, float] = {}
    errors: list[str] = []
    for name in LOADS:
        prober = Prober(bench.running.probe, sizes.probe_rate)
        await prober.start()
        try:
            errors += await _load_of(name, bench)
        finally:
            error = prober.stop()
        errors += [f"probes, {name}: {error}"] if error else []
        numbers |= quantiles(f"{name}_lag", prober.latencies)
        numbers[f"{name}_lag_max_us"] = max(prober.latencies, default=0.0)
    return Figures(numbers, errors)


async def _load_of(name: str, bench: Bench) -> list[str]:
    sizes = bench.sizes
    at = bench.running.port
    if name == "rest":
        await asyncio.sleep(sizes.paced_seconds)
        return []
    if name == "unary":
        ask = bench.ask(orders.unary(1024))
        sample = await load.open_loop(at, ask, bench.read_cost, rate=sizes.latency_rate, seconds=sizes.paced_seconds)
        return sample.errors
    sample = await load.paced_streams(
        at,
        bench.ask(orders.paced(sizes.paced_rate, 0)),
        bench.read_cost,
        bench.finish_streams,
        streams=sizes.paced_streams,
        seconds=sizes.paced_seconds,
    )
    return sample.errors
