"""Scenarios of single answers.

Lives here: answers of 1 KB to 1 MB, long requests, many keys, the ledger at full rate.
May not live here: streams (streams), what disturbs others (siege).
How it works: CPU from a closed loop, or from an open one at the same rate for everybody; latency always from an open
one well below what the contestant can do: 1,000 a second for all who can do twice as many.
Doubted: in a closed loop the fastest contestant is held up by the load.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

from bench import load, orders
from bench.client import Cost
from bench.setting import Bench, Figures, Reuse, below, cpu_figures, latency_figures

_NEARLY = 0.95  # of the rate that was asked for
_ROWS_SECONDS = 10.0  # to wait at most for the ledger's last rows
_ROWS_LOOK_SECONDS = 0.01


async def _unary(
    bench: Bench,
    size: int,
    seconds: float,
    *,
    latency: bool = False,
    asked: int = orders.BODY_BYTES,
    connections: int = 0,
) -> Figures:
    sizes = bench.sizes
    connections = connections or sizes.unary_connections
    ask = bench.ask(orders.unary(size), size=asked)
    reuse = Reuse(bench, connections)
    sample = await load.closed_loop(bench.running.port, ask, bench.read_cost, connections=connections, seconds=seconds)
    numbers = cpu_figures(sample)
    reuse.judge(sample, numbers)
    errors = sample.errors
    if latency and not errors:
        rate = below(sizes.latency_rate, numbers.get("per_second", 0.0))
        timed = await load.open_loop(bench.running.port, ask, bench.read_cost, rate=rate, seconds=sizes.latency_seconds)
        numbers.update(latency_figures(timed), late_us=timed.late, latency_rate=rate)
        errors = errors + timed.errors
    return Figures(numbers, errors)


async def small(bench: Bench) -> Figures:
    return await _unary(bench, 1024, bench.sizes.unary_seconds, latency=True)


async def medium(bench: Bench) -> Figures:
    return await _unary(bench, 64 * 1024, bench.sizes.unary_large_seconds)


async def large(bench: Bench) -> Figures:
    return await _unary(bench, 1024 * 1024, bench.sizes.unary_large_seconds)


async def asks_medium(bench: Bench) -> Figures:
    return await _unary(bench, 1024, bench.sizes.unary_large_seconds, asked=64 * 1024)


async def asks_large(bench: Bench) -> Figures:
    """Few at once and longer: of those within the window few are cut off by its ends."""
    return await _unary(bench, 1024, 2 * bench.sizes.unary_large_seconds, asked=1024 * 1024, connections=4)


async def _at_rate(bench: Bench, asks: load.Asks, rate: float) -> Figures:
    sizes = bench.sizes
    reuse = Reuse(bench, sizes.unary_connections)
    sample = await load.open_loop(
        bench.running.port,
        asks,
        bench.read_cost,
        rate=rate,
        seconds=sizes.unary_seconds,
        connections=sizes.unary_connections,
    )
    numbers = cpu_figures(sample)
    if numbers.get("per_second", 0.0) > _NEARLY * rate:  # else it is beyond its limits: what waits grows and grows
        numbers |= {**latency_figures(sample), "late_us": sample.late}
    reuse.judge(sample, numbers)
    return Figures(numbers, sample.errors)


async def paced(bench: Bench) -> Figures:
    """In a closed loop the fastest contestant is held up by the load, whose core then never rests; the others leave it
    idle between requests, and pay in each write for waking it. At one rate all pay the same."""
    return await _at_rate(bench, bench.ask(orders.unary(1024)), bench.sizes.unary_rate)


async def slowly(bench: Bench) -> Figures:
    """At a rate that load and upstream can do with TLS too, where they pay more than most contestants."""
    return await _at_rate(bench, bench.ask(orders.unary(1024)), bench.sizes.latency_rate)


async def many_keys(bench: Bench) -> Figures:
    """Each request with another of the keys that this contestant knows; with one alone if it knows no more."""
    keys = orders.keys(bench.key, bench.running.contestant.keys)
    return await _at_rate(bench, [bench.ask(orders.unary(1024), key) for key in keys], bench.sizes.latency_rate)


async def ledger_rate(bench: Bench) -> Figures:
    """As many requests as it can do: how many rows come of them, and how far behind is who writes them?"""
    sizes = bench.sizes
    before = _rows(bench)
    at_reading: list[int] = []

    def read() -> Cost:
        at_reading.append(_rows(bench))
        return bench.read_cost()

    sample = await load.closed_loop(
        bench.running.port,
        bench.ask(orders.unary(1024)),
        read,
        connections=sizes.unary_connections,
        seconds=sizes.unary_seconds,
    )
    ended = time.monotonic()
    numbers = cpu_figures(sample)
    if bench.running.contestant.ledger and not sample.errors:
        missing = await _missing(bench, before + sample.answers)
        numbers["rows_per_second"] = (at_reading[1] - at_reading[0]) / sample.seconds
        numbers["behind_rows"] = sample.at_close - (at_reading[1] - before)
        numbers["behind_ms"] = (time.monotonic() - ended) * 1e3
        if missing:
            sample.fail(f"{missing} of {sample.answers} answers have no row in the ledger")
    return Figures(numbers, sample.errors)


async def _missing(bench: Bench, expected: int) -> int:
    """Waits until there are as many rows, but not for ever; how many are missing."""
    deadline = time.monotonic() + _ROWS_SECONDS
    while (missing := expected - _rows(bench)) > 0 and time.monotonic() < deadline:  # noqa: ASYNC110 (a file tells nobody)
        await asyncio.sleep(_ROWS_LOOK_SECONDS)
    return max(0, missing)


def _rows(bench: Bench) -> int:
    """Rows in the contestant's ledger; 0 where there is none."""
    folder, name = bench.running.folder, bench.running.contestant.ledger
    if folder is None or not name or not (folder / name).exists():
        return 0
    with contextlib.closing(_open(folder / name)) as ledger:
        count: int | None = ledger.execute("select max(rowid) from exchanges").fetchone()[0]
        return count or 0


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
