"""`python -m bench`: everything beside everything, in one run.

Lives here: the options, the order of things, what is printed.
May not live here: how anything is measured.
How it works: one upstream, all contestants side by side; what wants a fresh contestant gets one of its own; then rounds
as `scenarios.plan` orders them. The table goes to standard output, progress and notes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench import load, machine, orders
from bench.contestants import CONTESTANTS, Absent, Arena, Running, make_key
from bench.report import Results, table
from bench.scenarios import FULL, QUICK, SCENARIOS, Bench, Measurement, Scenario, measure, plan


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _names(known: list[str]) -> object:
    def read(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def _options(arguments: list[str]) -> argparse.Namespace:
    lines = [
        f"  {each.name:14} {each.about}{'' if each.by_default else ' (with --only)'}" for each in SCENARIOS.values()
    ]
    lines += ["", "contestants:"]
    lines += [
        f"  {each.name:14} {each.about}{'' if each.by_default else ' (with --contestants)'}"
        for each in CONTESTANTS.values()
    ]
    parser = argparse.ArgumentParser(
        prog="bench",
        description="What the sidecar costs beside the others: CPU per unit of work, added latency, memory.",
        epilog="scenarios:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="20 seconds: small loads, 2 rounds; figures differ from a full run's"
    )
    parser.add_argument("--rounds", type=int, help="how often everything is measured (default 5; quick 2)")
    parser.add_argument("--only", type=_names(list(SCENARIOS)), metavar="SCENARIO,...", help="these scenarios")  # type: ignore[arg-type]
    parser.add_argument(
        "--contestants",
        type=_names(list(CONTESTANTS)),  # type: ignore[arg-type]
        metavar="NAME,...",
        help="these contestants",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


class _Run:
    """One run: what is measured, with what, on which cores."""

    def __init__(self, options: argparse.Namespace, arena: Arena, cores: machine.Cores) -> None:
        self.sizes = QUICK if options.quick else FULL
        self.rounds: int = options.rounds or (2 if options.quick else 5)
        self.scenarios: list[Scenario] = (
            [SCENARIOS[name] for name in options.only]
            if options.only
            else [each for each in SCENARIOS.values() if each.by_default]
        )
        self._wanted: list[str] = options.contestants or [each.name for each in CONTESTANTS.values() if each.by_default]
        self._needed = set(options.contestants or ["llm-proxy"])
        self._arena = arena
        self._cores = cores
        self._key = make_key()
        self._loop = uvloop.new_event_loop()
        self._upstream = arena.start_upstream(cores.rest)
        self._running: dict[str, Running] = {}
        self.skipped: dict[str, str] = {}

    def start(self) -> None:
        """Starts every contestant and asks each once; those that do not answer are skipped with the reason."""
        for name in self._wanted:
            try:
                running = self._arena.start(CONTESTANTS[name], self._upstream.port, self._key, self._cores.contestant)
            except Absent as absent:
                self.skipped[name] = str(absent)
                continue
            bench = self._bench(running)
            for order in (orders.unary(1024), orders.burst(8)):
                errors = self._loop.run_until_complete(load.once(running.port, bench.ask(order))).errors
                if errors:
                    self.skipped[name] = f"does not answer {order.name}: {errors[0]}"
            if name in self.skipped:
                self._arena.stop(running)
            else:
                self._running[name] = running
        for name, reason in self.skipped.items():
            _say(f"{name}: skipped, {reason}")

    @property
    def is_missing_somebody(self) -> bool:
        """Whether the sidecar, or a contestant that was asked for by name, was skipped. Others may be absent."""
        return bool(self._needed & self.skipped.keys())

    def measure_all(self) -> Results:
        done = []
        for number, scenario, name in plan(self.scenarios, list(self._running), self.rounds):
            if scenario.fresh:
                running = self._arena.start(CONTESTANTS[name], self._upstream.port, self._key, self._cores.contestant)
                figures = measure(self._loop, scenario, self._bench(running))
                self._arena.stop(running)
            else:
                figures = measure(self._loop, scenario, self._bench(self._running[name]))
            done.append(Measurement(scenario.name, name, number, figures))
        return Results(done)

    def _bench(self, running: Running) -> Bench:
        return Bench(running, self._upstream, self._key, self.sizes)


def _write_json(path: Path, run: _Run, results: Results, began: datetime.datetime, arguments: list[str]) -> None:
    document = {
        "date": began.isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench", *arguments]),
        "machine": machine.describe_machine(),
        "versions": machine.versions(),
        "settings": {**dataclasses.asdict(run.sizes), "rounds": run.rounds},
        "skipped": run.skipped,
        "noise": results.noise(),
        "errors": results.errors(),
        "results": results.as_list(),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def main(arguments: list[str]) -> int:
    """0: done; 1: something was answered wrong, or who had to be measured was not there; 2: wrong usage or system."""
    options = _options(arguments)
    if not sys.platform.startswith("linux"):
        _say("bench reads CPU time and memory from Linux; it does not run here.")
        return 2
    machine.raise_file_limit()
    cores = machine.choose_cores()
    os.sched_setaffinity(0, {cores.rest})
    began, started = datetime.datetime.now(datetime.UTC), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Arena(Path(folder)) as arena:
        run = _Run(options, arena, cores)
        run.start()
        results = run.measure_all()
    sys.stdout.write(table(results) + "\n")
    sys.stdout.write(
        f"\n{run.rounds} round(s), interleaved; median (least..most); ratios and latency against the same "
    )
    sys.stdout.write(f"round; direct's latency is absolute (=). {time.monotonic() - started:.0f} s.\n")
    if cores.is_shared:
        sys.stdout.write("Only one core: contestants share it with the load; latency means nothing.\n")
    for line in results.noise():
        sys.stdout.write(f"noisy: {line}\n")
    for line in results.errors():
        sys.stdout.write(f"WRONG: {line}\n")
    if options.json:
        _write_json(options.json, run, results, began, arguments)
    return 1 if results.errors() or run.is_missing_somebody else 0


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    sys.exit(main(sys.argv[1:]))
