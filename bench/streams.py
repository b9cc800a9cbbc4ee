"""Scenarios of streams.

Lives here: short ones, paced ones, one back to back, silent ones (memory).
May not live here: single answers (unary), what disturbs others (siege).
How it works: paced scenarios have the same number of events a second in all, in few streams or in many, evenly spread
(upstream), so that what an event costs can be compared between them; `wakes` tells how often the contestant was woken
for one, which must be alike too.
Doubted: paced streams open new upstream connections where a contestant keeps fewer than there are streams; opening is
outside the window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from bench import load, machine, orders
from bench.setting import Bench, Figures, Reuse, below, cpu_figures, latency_figures

_GENTLE_STREAMS, _GENTLE_RATE = 100, 5
_OTHER_FILES = 200  # of a proxy, and idle connections


async def short(bench: Bench) -> Figures:
    sizes = bench.sizes
    clients = 32
    ask = bench.ask(orders.burst(sizes.stream_events))
    began = time.monotonic()
    most = await load.closed_loop(
        bench.running.port, ask, bench.read_cost, connections=clients, seconds=sizes.latency_seconds / 4
    )
    # Over all of its time: a window may be too short for a single answer of the slowest.
    rate = below(sizes.stream_rate, most.answers / (time.monotonic() - began))
    reuse = Reuse(bench, clients)
    sample = await load.open_loop(
        bench.running.port, ask, bench.read_cost, rate=rate, seconds=sizes.latency_seconds, connections=clients
    )
    numbers = {**cpu_figures(sample), **latency_figures(sample), "late_us": sample.late, "latency_rate": rate}
    reuse.judge(sample, numbers)
    return Figures(numbers, most.errors + sample.errors)


async def _paced(bench: Bench, streams: int, rate: int) -> Figures:
    sample = await load.paced_streams(
        bench.running.port,
        bench.ask(orders.paced(rate, 0)),
        bench.read_cost,
        bench.finish_streams,
        streams=streams,
        seconds=bench.sizes.paced_seconds,
    )
    if sample.gave_up and not bench.running.contestant.exact:  # a gateway may be too slow; of all others it is wrong
        return Figures({}, [], "could not do it in time")
    numbers = cpu_figures(sample)
    if not sample.unanswered:  # else it is beyond its limits: what waits grows and grows
        numbers |= latency_figures(sample)
    return Figures(numbers, sample.errors)


async def paced(bench: Bench) -> Figures:
    return await _paced(bench, bench.sizes.paced_streams, bench.sizes.paced_rate)


async def gently(bench: Bench) -> Figures:
    return await _paced(bench, _GENTLE_STREAMS, _GENTLE_RATE)


async def paced_slowly(bench: Bench) -> Figures:
    """At a rate that load and upstream can do with TLS too."""
    return await _paced(bench, bench.sizes.paced_streams, bench.sizes.tls_paced_rate)


def paced_in(streams: int, rate: int) -> Callable[[Bench], Coroutine[Any, Any, Figures]]:
    """So many streams with so many events a second each; in quick runs fewer streams."""

    async def measure(bench: Bench) -> Figures:
        count = max(1, int(streams * bench.sizes.streams_share))
        if machine.file_limit() < 2 * count + _OTHER_FILES:
            return Figures({}, [], f"{count} streams need more open files than this system allows")
        return await _paced(bench, count, rate)

    return measure


async def back_to_back(bench: Bench) -> Figures:
    events = bench.sizes.burst_events
    sample = await load.back_to_back(
        bench.running.port, bench.ask(orders.burst(events)), bench.read_cost, events=events
    )
    return Figures(cpu_figures(sample), sample.errors)


async def memory(bench: Bench) -> Figures:
    rest = bench.rss()
    warm = await load.once(bench.running.port, bench.ask(orders.burst(8)))
    sample, per_stream = await load.idle_streams(
        bench.running.port, bench.ask(orders.IDLE), streams=bench.sizes.idle_streams, rss=bench.rss
    )
    numbers = {"rest_mib": rest / 2**20, "stream_kib": per_stream / 2**10, "ready_ms": bench.running.ready_ms}
    return Figures(numbers if bench.running.pid else {}, warm.errors + sample.errors)
