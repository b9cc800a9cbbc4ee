"""`python -m bench`: everything beside everything, in one run.

Lives here: the order of things, progress, what is printed and written.
May not live here: options (options), how anything is measured (scenarios), what follows from it (goals, markdown).
How it works: one upstream, all contestants side by side; what wants a fresh contestant gets one of its own; then rounds
as `scenarios.plan` orders them. What was measured becomes a record, and everything that is shown is made of that. The
table goes to standard output, progress and notes to standard error. Who stops a run (Ctrl-C) gets what it has so far.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench import compare, load, machine, options, orders, parts, peers, record, sidecar
from bench.contestants import FEATURES, Absent, Arena, Contestant, Running, make_key
from bench.markdown import write_report
from bench.record import OURS, Record, Unreadable, Who
from bench.results import Results
from bench.scenarios import FULL, QUICK, SCENARIOS, Bench, Figures, Measurement, Scenario, measure, plan
from bench.table import summary, table


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Progress:
    """Says where a run is whenever another scenario begins, and how long it will take at the pace so far."""

    def __init__(self, steps: list[tuple[int, str]], rounds: int) -> None:
        self._steps = steps
        self._rounds = rounds
        self._taken: dict[str, list[float]] = {}
        self._said: tuple[int, str] | None = None

    def at(self, index: int) -> str:
        """What to say before this step; empty if it was said."""
        if self._steps[index] == self._said:
            return ""
        self._said = number, scenario = self._steps[index]
        return f"round {number + 1} of {self._rounds}, {scenario}{self._left(index)}"

    def took(self, index: int, seconds: float) -> None:
        self._taken.setdefault(self._steps[index][1], []).append(seconds)

    def _left(self, index: int) -> str:
        if not self._taken:
            return ""
        means = {name: sum(each) / len(each) for name, each in self._taken.items()}
        usual = sum(means.values()) / len(means)
        left = sum(means.get(scenario, usual) for _, scenario in self._steps[index:])
        about = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f": {about} left{'' if self._steps[index][0] else ' at a guess'}"


class _Run:
    """One run: what is measured, with what, on which cores."""

    def __init__(self, chosen: argparse.Namespace, arena: Arena, cores: machine.Cores, absent: dict[str, str]) -> None:
        self.sizes = QUICK if chosen.quick else FULL
        self.rounds: int = chosen.rounds
        self.scenarios: list[Scenario] = (
            [SCENARIOS[name] for name in chosen.only]
            if chosen.only
            else [each for each in SCENARIOS.values() if each.by_default]
        )
        self._known: dict[str, Contestant] = options.everybody()
        self._wanted = options.chosen(chosen)
        self._needed = {OURS, *(chosen.contestants or [])} & set(self._wanted)
        self._arena = arena
        self._cores = cores
        self._key = make_key()
        self._loop = uvloop.new_event_loop()
        self._upstream = arena.start_upstream(cores.rest)
        self._running: dict[str, Running] = {}
        self.skipped = {name: why for name, why in absent.items() if name in self._wanted}

    def start(self) -> None:
        """Starts every contestant and asks each once; those that do not answer are skipped with the reason."""
        for name in self._wanted:
            if name in self.skipped:
                continue
            try:
                running = self._start(name)
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

    def _start(self, name: str) -> Running:
        return self._arena.start(self._known[name], self._upstream.port, self._key, self._cores.contestant)

    def is_wrong(self, results: Results) -> bool:
        """Whether the sidecar, or one that was asked for by name, was skipped or answered wrong. Others may."""
        wrong = {each.contestant for each in results.measurements if each.figures.errors}
        return bool(self._needed & (self.skipped.keys() | wrong))

    def measure_all(self) -> Results:
        steps = list(plan(self.scenarios, list(self._running), self.rounds))
        progress = Progress([(number, scenario.name) for number, scenario, _ in steps], self.rounds)
        done = []
        try:
            for index, (number, scenario, name) in enumerate(steps):
                if line := progress.at(index):
                    _say(line)
                began, before = time.monotonic(), machine.machine_busy().stolen
                figures = self._measure(scenario, name)
                seconds = time.monotonic() - began
                if figures.numbers:
                    stolen = machine.machine_busy().stolen - before
                    figures.numbers["steal_share"] = stolen / seconds / 1e9 / (os.cpu_count() or 1)
                progress.took(index, seconds)
                done.append(Measurement(scenario.name, name, number, figures))
        except KeyboardInterrupt:
            _say("stopped: what follows is of what was measured until now")
        return Results(done)

    def _measure(self, scenario: Scenario, name: str) -> Figures:
        if not scenario.fresh:
            return measure(self._loop, scenario, self._bench(self._running[name]))
        began, before = time.monotonic(), self._others(None)
        try:
            running = self._start(name)
        except Absent as absent:
            return Figures({}, [str(absent)])
        try:
            figures = measure(self._loop, scenario, self._bench(running))
            if figures.numbers:
                share = (self._others(running) - before) / (time.monotonic() - began) / 1e9 / (os.cpu_count() or 1)
                figures.numbers.setdefault("others_share", max(0.0, share))
            return figures
        finally:
            self._arena.stop(running)

    def _others(self, fresh: Running | None) -> int:
        """Nanoseconds of CPU so far, of everybody but the load, the upstream and a contestant that has just begun."""
        ours = [self._upstream, *([fresh, *fresh.twins.values()] if fresh else [])]
        known = sum(machine.tree_cpu_ns(each.pid) for each in ours if each.pid)
        return sum(machine.machine_busy()) - known - machine.own_cpu_ns()

    def _bench(self, running: Running) -> Bench:
        return Bench(running, self._upstream, self._key, self.sizes)

    def describe(self, began: datetime.datetime, seconds: float, arguments: list[str]) -> dict[str, Any]:
        return {
            "date": began.isoformat(timespec="seconds"),
            "command": record.command_of(arguments),
            "seconds": round(seconds),
            "versions": {**peers.versions(self._running), **machine.versions(sidecar.compiled() is not None)},
            "settings": {**dataclasses.asdict(self.sizes), "rounds": self.rounds},
            "skipped": {name: record.clean(why) for name, why in self.skipped.items()},
        }

    def who(self) -> dict[str, Who]:
        return {name: describe_contestant(name, self._known[name].about) for name in self._running}


def describe_contestant(name: str, about: str) -> Who:
    if name == OURS:
        return Who(about, "ours")
    if name in FEATURES:
        return Who(about, "feature")
    if name in (each.name for each in sidecar.OTHERS):
        return Who(about, "variant")
    peer = peers.read().get(name)
    if peer is None:
        return Who(about, "plain", "" if name == "direct" else "checks no keys, counts no usage, reads no bodies")
    return Who(about, "plain" if peer.kind == "proxy" else "gateway", peer.unequal)


def _install(chosen: argparse.Namespace) -> dict[str, str]:
    """Installs the peers that are to be measured; returns why some are absent."""
    return peers.install(options.chosen(chosen), _say) if chosen.peers else {}


def _measured(chosen: argparse.Namespace, arguments: list[str]) -> tuple[Record, int]:
    machine.raise_file_limit()
    absent = _install(chosen)
    here, cores = machine.describe_machine(), machine.choose_cores()  # before we leave all cores but one
    os.sched_setaffinity(0, {cores.rest})
    began, started = datetime.datetime.now(datetime.UTC), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Arena(Path(folder)) as arena:
        run = _Run(chosen, arena, cores, absent)
        run.start()
        results = run.measure_all()
        about = {**run.describe(began, time.monotonic() - started, arguments), "machine": here}
        made = Record([about], run.who(), results)
    if cores.is_shared:
        _say("Only one core: contestants share it with the load; latency means nothing.")
    return made, 1 if run.is_wrong(results) else 0


def _measured_in_parts(chosen: argparse.Namespace) -> tuple[Record, int]:
    sizes = [f"--rounds={chosen.rounds}", *(["--quick"] if chosen.quick else [])]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        files, code = parts.measure(sizes, Path(folder), _say)
        if not files:
            raise Unreadable("none of the parts was measured; what they said stands above")
        return record.merge([record.read(file) for file in files]), code


def _show(made: Record) -> None:
    """The table, what follows from it, and why not to trust it too far."""
    results = made.results
    rounds = " + ".join(str(run["settings"]["rounds"]) for run in made.runs)
    seconds = sum(run.get("seconds", 0) for run in made.runs)
    parts = [
        table(results),
        f"{rounds} round(s), interleaved; median (least..most); ratios and latency against the same round; "
        f"direct's latency is absolute (=); ? cannot be told from 1. {seconds:.0f} s.",
        summary(made),
        "\n".join(f"skipped: {name}, {why}" for name, why in made.skipped().items()),
        "\n".join(f"not the same in all runs: {line}" for line in record.differing_versions(made)),
        "\n".join(f"noisy: {line}" for line in results.noise()),
        "\n".join(f"WRONG: {line}" for line in results.errors()),
    ]
    sys.stdout.write("\n\n".join(part for part in parts if part) + "\n")


def main(arguments: list[str]) -> int:
    """0: done; 1: something was answered wrong, or who had to be measured was not there, or two runs differ; 2: wrong
    usage or system."""
    chosen = options.parse(arguments)
    try:
        if chosen.compare:
            one, other = (record.read(path) for path in chosen.compare)
            sys.stdout.write(compare.text(one, other) + "\n")
            return 0 if compare.agree(one, other) else 1
        if chosen.records:
            made, code = record.merge([record.read(path) for path in chosen.records]), 0
        elif not sys.platform.startswith("linux"):
            _say("bench reads CPU time and memory from Linux; it does not run here.")
            return 2
        elif chosen.all:
            made, code = _measured_in_parts(chosen)
        else:
            made, code = _measured(chosen, arguments)
    except Unreadable as unreadable:
        _say(str(unreadable))
        return 2
    _show(made)
    if chosen.json:
        record.write(chosen.json, made)
    if chosen.report:
        write_report(chosen.report, made)
        _say(f"written: {chosen.report}")
    return code


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    sys.exit(main(sys.argv[1:]))
