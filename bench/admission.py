"""What admission costs a request: `python -m bench.admission`.

Lives here: taking and settling a chain of limits with counters in memory and in the file beside the ledger, what the
file's own steps cost, and finding a key among few and among many. May not live here: any verdict.
How it works: each piece is run until its time is measurable, several times, all in turns; the median is shown. A take
and its settle belong together, so each is timed over a batch of them.
Doubted: caches are warm here; with many keys in use a chain and its counters have to be fetched first.
"""

from __future__ import annotations

import argparse
import gc
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from proxy.catalog.secret import Secret
from proxy.ledger.counters import Counters
from proxy.policy.counters import CounterStore, MemoryStore
from proxy.policy.keys import AuthMode, KeyRing
from proxy.policy.limits import FOREVER, Demand, Hold, Limiter
from proxy.policy.rules import parse_rules

_BATCH = 1000
_NOW = 1_800_000_000 * 10**9
_RULES = "rps=1G rpm=1G rpd=1G tpm=1G itpm=1G otpm=1G 1000000usd/day 9000000usd/month 900Gtokens/total concurrent=1G"
_DEMAND = Demand((1, 1500, 1000, 500, 900), (1, 1000, 1000, 0, 0))
_USED = (1, 1200, 1000, 200, 500)

# Runs a batch; seconds for each piece that was timed.
Work = Callable[[], dict[str, float]]


def admission(name: str, store: CounterStore) -> Work:
    limiter = Limiter(store, lambda window, now: FOREVER if window == "total" else now + 10**15)
    limiter.set_rules("key bench", parse_rules(_RULES))
    chain = limiter.chain("bench", None, (), None)
    clock = count(_NOW, 50_000)

    def work() -> dict[str, float]:
        nows = [next(clock) for _ in range(_BATCH)]
        began = time.perf_counter()
        holds = [limiter.take(chain, _DEMAND, now) for now in nows]
        taken = time.perf_counter()
        for hold in holds:
            if not isinstance(hold, Hold):
                raise SystemExit(f"WRONG: {hold} stops the bench")
            hold.settle(_USED)
        settled = time.perf_counter()
        for hold in holds:
            hold.release()  # type: ignore[union-attr]
        return {f"take, counters in {name}": taken - began, f"settle, counters in {name}": settled - taken}

    return work


def timed(name: str, step: Callable[[int], object]) -> Work:
    numbers = count()

    def work() -> dict[str, float]:
        batch = [next(numbers) for _ in range(_BATCH)]
        began = time.perf_counter()
        for number in batch:
            step(number)
        return {name: time.perf_counter() - began}

    return work


def finding(keys: int) -> Work:
    values = [secrets.token_hex(16) for _ in range(keys)]
    ring = KeyRing({f"k{number}": Secret(value) for number, value in enumerate(values)}, AuthMode.KEYS)
    # The same ten among all, so that what differs is the ring and not how many of its entries are in a cache.
    asked = [value.encode() for value in values[:: keys // 10]]
    return timed(f"find a key among {keys:,}", lambda number: ring.find(asked[number % 10]))


def _pieces(folder: Path) -> list[Work]:
    def note(level: str, message: str, **_: object) -> None:
        raise SystemExit(f"WRONG: {message}")

    counters = Counters(str(folder / "bench-counters"), note, _NOW)
    return [
        admission("memory", MemoryStore()),
        admission("a file", counters),
        timed("hold and free", lambda _: counters.free("bench", counters.hold("bench"))),
        timed("hold and free, another key", lambda number: counters.free(f"{number}", counters.hold(f"{number}"))),
        timed("generation", lambda _: counters.generation),
        timed("a call of nothing", lambda _: None),
        finding(10),
        finding(100_000),
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.admission", description="What admission costs a request.")
    parser.add_argument("--repeats", type=int, default=200, help=f"of {_BATCH} each, in turns (200)")
    options = parser.parse_args(arguments)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        pieces = _pieces(Path(folder))
        gc.disable()
        for _ in range(options.repeats):
            for work in pieces:
                for name, seconds in work().items():
                    found.setdefault(name, []).append(seconds / _BATCH * 1e6)
    sys.stdout.write("microseconds: the median, and the least\n")
    for name, times in found.items():
        sys.stdout.write(f"{name:30} {statistics.median(times):6.3f} {min(times):6.3f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
