"""What the straight path takes, without sockets: `python -m bench.straight`.

Lives here: CPU time, Python frames, calls into C and memory that is kept, each for a unit of work on the stage.
May not live here: the work (stage), instructions, any verdict (tests/bench/test_straight.py is the gate).
How it works: a count is the difference between N and 3 N units, so that what is done once (the head of a stream) falls
out. CPU time is the least of some batches: others can only make it more. It holds the ledger's rows, which belong to a
thread of their own; the counts do not. `--units N` only does the work, for bench.instructions.
Doubted: memory that is taken and given back within one read is not seen from Python; bench.instructions counts it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import proxy
from bench.stage import BULK, Stage, staged

_BATCHES = 15
_PROXY = str(Path(proxy.__file__).parent)


class Kind(NamedTuple):
    """`work(stage, units)`. `batch`: units that take long enough to be timed; `few`: enough to be counted."""

    unit: str
    batch: int
    few: int
    work: Callable[[Stage, int], None]


KINDS = {
    "unary": Kind("request", 200, 10, Stage.unary),
    "stream": Kind("event", 2000, 500, Stage.stream),
    "burst": Kind(f"read of {BULK} events", 20, 10, Stage.burst),
    "short": Kind("stream of 20 events", 50, 5, Stage.short_streams),
}


class Calls(NamedTuple):
    """Of Python functions of the project, and from there of functions in C; which of the former how often."""

    frames: float
    c: float
    functions: Tally[str]


def count_calls(work: Callable[[], object]) -> Calls:
    frames = c = 0
    functions: Tally[str] = Tally()

    def look(frame: Any, event: str, _: object) -> None:
        nonlocal frames, c
        code = frame.f_code
        if not code.co_filename.startswith(_PROXY):
            return
        if event == "call":
            frames += 1
            functions[f"{code.co_filename.removeprefix(_PROXY)[1:]}:{code.co_firstlineno} {code.co_name}"] += 1
        elif event == "c_call":
            c += 1

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(before)
    return Calls(frames, c, functions)


def calls_per_unit(stage: Stage, kind: Kind) -> Calls:
    kind.work(stage, kind.few)  # the first of its kind is another one: what repeats is known only from then on
    shorter = count_calls(lambda: kind.work(stage, kind.few))
    longer = count_calls(lambda: kind.work(stage, 3 * kind.few))
    longer.functions.subtract(shorter.functions)
    units = 2 * kind.few
    return Calls((longer.frames - shorter.frames) / units, (longer.c - shorter.c) / units, longer.functions)


class Kept(NamedTuple):
    """By how much it grows: blocks of memory, objects that the garbage collector looks at. `cycles`: objects besides
    that only the collector could free. `young`: objects made and not freed by themselves, which bring the next
    collection nearer; those that the interpreter keeps in stock are in it."""

    blocks: int
    objects: int
    cycles: int
    young: int


def kept_by(work: Callable[[], object]) -> Kept:
    """What is still there after `work`, within which nothing is collected."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        objects = len(gc.get_objects())
        gc.collect()  # the list of objects was one, too
        blocks = sys.getallocatedblocks()
        work()
        young = gc.get_count()[0]
        cycles = gc.collect()
        # After a collection, which empties the interpreter's stock of tuples and lists as well.
        blocks = sys.getallocatedblocks() - blocks
        return Kept(blocks, len(gc.get_objects()) - objects, cycles, young)
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Collections go on, but look only at what is made from here on: one that happens to go through all that Python
    has loaded would be a fifth of a thousand events."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def do(stage: Stage, kind: Kind, units: int) -> None:
    """The work, and the rows that it leaves to the ledger."""
    kind.work(stage, units)
    stage.settle()


def cpu_us(stage: Stage, kind: Kind, batches: int = _BATCHES) -> float:
    """CPU microseconds per unit, rows included."""
    return min(_timed_us(stage, kind) for _ in range(batches)) / kind.batch


def _timed_us(stage: Stage, kind: Kind) -> float:
    began = time.process_time_ns()
    do(stage, kind, kind.batch)
    return (time.process_time_ns() - began) / 1000


def describe(stage: Stage, name: str, lines: int) -> str:
    kind = KINDS[name]
    calls = calls_per_unit(stage, kind)
    stage.settle()
    kept = kept_by(lambda: do(stage, kind, kind.batch))
    text = [
        f"{name:7}{cpu_us(stage, kind):9.2f} us, {calls.frames:6.1f} frames, {calls.c:6.1f} calls into C, "
        f"{kept.blocks / kind.batch:7.3f} blocks kept, {kept.young / kind.batch:6.2f} objects towards the next "
        f"collection, per {kind.unit}"
    ]
    for function, count in calls.functions.most_common(lines):
        text.append(f"  {count / 2 / kind.few:8.2f}  {function}")
    return "\n".join(text) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.straight", description="What the straight path takes, no sockets.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--lines", type=int, default=0, help="list so many functions, by their number of frames")
    parser.add_argument("--units", type=int, help="only do so many, once, and measure nothing (bench.instructions)")
    options = parser.parse_args(arguments)
    names = options.kinds or list(KINDS)
    if unknown := sorted(set(names) - set(KINDS)):
        parser.error(f"there is no {', '.join(unknown)}")
    with staged() as stage, quiet():
        for name in names:
            if options.units is not None:
                do(stage, KINDS[name], options.units)
            else:
                sys.stdout.write(describe(stage, name, options.lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
