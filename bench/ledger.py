"""What the ledger does to the event loop: `python -m bench.ledger`.

Lives here: a loop that is always busy while receipts are observed at a fixed rate: without a ledger, with one, and with
one whose thread does not nap, in turns. May not live here: any verdict.
How it works: callback follows on callback, and the time between two of them is nobody's but the writer thread's (it
holds the interpreter) or another process's. What stalls the loop without a ledger is the machine's alone.
Doubted: a shared machine stalls loops by itself, for some milliseconds now and then; look at medians of many rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import uvloop

from proxy.ledger.writer import Ledger, LedgerOptions
from proxy.outcome import Attempt, Receipt, Source, Usage


class Figures(NamedTuple):
    """Milliseconds between two callbacks: the longest, and what 99.9 % are below."""

    longest: float
    usual: float


def a_receipt(run: str, number: int) -> Receipt:
    receipt = Receipt(f"{run}-{number:x}", time.time(), "127.0.0.1", "POST", "/v1/chat/completions", key="bench")
    receipt.provider, receipt.model_requested, receipt.model_served = "openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"
    receipt.dialect, receipt.stream, receipt.status = "openai-chat", True, 200
    receipt.attempts.append(Attempt("openai", "gpt-4o-mini", 0.3, 812.5, True, 200, None))
    receipt.usage = Usage(1200, 340, 1024, input_source=Source.REPORTED, output_source=Source.REPORTED, complete=True)
    receipt.cost_micros, receipt.price_version = 384, "bench"
    return receipt


async def measure(observe: Callable[[Receipt], None], run: str, rate: int, seconds: float) -> Figures:
    """Observe `rate` receipts a second for so many seconds, on a loop that never rests."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    gaps: list[float] = []
    began = left = time.perf_counter()
    given = 0

    def turn() -> None:
        nonlocal given, left
        now = time.perf_counter()
        gaps.append(now - left)
        while given < (now - began) * rate:
            given += 1
            observe(a_receipt(run, given))
        if now - began < seconds:
            loop.call_soon(turn)
        else:
            done.set_result(None)
        left = time.perf_counter()

    turn()
    await done
    gaps.sort()
    return Figures(gaps[-1] * 1e3, gaps[int(len(gaps) * 0.999)] * 1e3)


class _Napless(Ledger):
    __slots__ = ()

    def start(self) -> None:
        super().start()
        self._naps.is_on = False


def _with(kind: type[Ledger] | None, folder: Path, number: int, rate: int, seconds: float) -> Figures:
    run = f"{number:012x}"
    if kind is None:
        return uvloop.run(measure(lambda _: None, run, rate, seconds))
    ledger = kind(LedgerOptions(str(folder / f"{number}.db")), run, "bench", lambda *_, **__: None)
    ledger.open()
    ledger.start()
    figures = uvloop.run(measure(ledger.observe, run, rate, seconds))
    if not ledger.close(10.0):
        raise SystemExit("WRONG: not every receipt has its row")
    return figures


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.ledger", description="How much a ledger holds up the event loop.")
    parser.add_argument("--rate", type=int, default=2000, help="receipts a second (2000)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (2)")
    parser.add_argument("--rounds", type=int, default=5, help="of all, in turns (5)")
    options = parser.parse_args(arguments)
    kinds = {"no ledger": None, "a ledger": Ledger, "without naps": _Napless}
    found: dict[str, list[Figures]] = {name: [] for name in kinds}
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for number in range(options.rounds):
            for at, (name, kind) in enumerate(kinds.items()):
                each = _with(kind, Path(folder), 3 * number + at, options.rate, options.seconds)
                found[name].append(each)
    sys.stdout.write(f"{options.rate} receipts a second, {options.rounds} rounds of {options.seconds:g} s: medians\n")
    for name, rounds in found.items():
        longest, usual = (statistics.median(values) for values in zip(*rounds, strict=True))
        each_round = ", ".join(f"{figures.longest:.1f}" for figures in rounds)
        sys.stdout.write(f"{name:14} longest stall {longest:5.2f} ms ({each_round}), 99.9 % below {usual:.3f} ms\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
