"""Where the sidecar's time goes: `python -m bench.profile SCENARIO`.

Lives here: the sidecar under cProfile, or under perf where that is installed (`--perf`), while one scenario loads it.
May not live here: figures to compare: a profiler costs too much for that (cProfile doubles the time of small calls).
How it works: a small load warms it up, a longer one is profiled, and the list goes to standard output. cProfile names
Python functions and hides the loop's own work in the one line `runners.py(run)`; perf shows C, the kernel and the
interpreter as a whole. They answer different questions: which of ours, and how much of all.
Doubted: perf needs permission to watch the kernel; without it only user time shows.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import pstats
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop

from bench import machine
from bench.contestants import CONTESTANTS, Absent, Arena, Contestant, Running, Start, make_key
from bench.scenarios import FULL, QUICK, SCENARIOS, Bench, measure

_LONG = dataclasses.replace(FULL, unary_seconds=3.0, unary_large_seconds=3.0, paced_seconds=4.0, burst_events=1_000_000)


def _under_cprofile(output: Path) -> Contestant:
    """The sidecar, with its profile written to `output` when it ends."""
    sidecar = CONTESTANTS["llm-proxy"]
    assert sidecar.start is not None
    begin = sidecar.start

    def start(upstream: int, folder: Path, key: str) -> Start:
        plain = begin(upstream, folder, key)
        python, *arguments = plain.command
        return plain._replace(command=[python, "-m", "cProfile", "-o", str(output), *arguments])

    return dataclasses.replace(sidecar, start=start)


def _listing(output: Path, lines: int) -> str:
    text = io.StringIO()
    pstats.Stats(str(output), stream=text).sort_stats("tottime").print_stats(lines)
    return text.getvalue().strip()


def _perf_listing(output: Path, lines: int) -> str:
    """Two lists: by library, then by function."""
    parts = []
    for columns in ("dso", "dso,symbol"):
        command = ["perf", "report", "-i", str(output), "--stdio", "--no-children", "-s", columns]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = [row.rstrip() for row in done.stdout.splitlines() if row.strip() and not row.startswith("#")]
        parts.append("\n".join(rows[:lines]))
    return "\n\n".join(parts)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.profile", description="Where the sidecar's time goes.")
    parser.add_argument("scenario", choices=[each.name for each in SCENARIOS.values() if not each.fresh])
    parser.add_argument("--perf", action="store_true", help="by perf: C, kernel, interpreter (default: cProfile)")
    parser.add_argument("--lines", type=int, default=40)
    options = parser.parse_args(arguments)
    if options.perf and shutil.which("perf") is None:
        sys.stderr.write("perf is not installed.\n")
        return 2
    machine.raise_file_limit()
    cores = machine.choose_cores()
    os.sched_setaffinity(0, {cores.rest})
    loop, scenario, key = uvloop.new_event_loop(), SCENARIOS[options.scenario], make_key()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        output = Path(folder) / "profile"
        with Arena(Path(folder)) as arena:
            upstream = arena.start_upstream(cores.rest)
            sidecar = CONTESTANTS["llm-proxy"] if options.perf else _under_cprofile(output)
            try:
                running = arena.start(sidecar, upstream.port, key, cores.contestant)
            except Absent as absent:
                sys.stderr.write(f"llm-proxy {absent}\n")
                return 1
            measure(loop, scenario, Bench(running, upstream, key, QUICK))
            watcher = _watch(running, output) if options.perf else None
            figures = measure(loop, scenario, Bench(running, upstream, key, _LONG))
            if watcher is not None:
                watcher.send_signal(signal.SIGINT)
                watcher.wait()
        sys.stdout.write((_perf_listing if options.perf else _listing)(output, options.lines) + "\n\n")
    sys.stdout.write(f"under the profiler: {figures.numbers.get('cpu_us', 0):.2f} us per {scenario.unit}\n")
    for error in figures.errors:
        sys.stdout.write(f"WRONG: {error}\n")
    return 1 if figures.errors else 0


def _watch(running: Running, output: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["perf", "record", "-q", "-F", "2999", "-o", str(output), "-p", str(running.pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
