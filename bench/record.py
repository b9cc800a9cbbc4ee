"""What stays of a run: its JSON, read and written, and several of them as one.

Lives here: `Record` (the runs with machine, versions and settings; who took part; the results), its JSON, `merge`.
May not live here: measuring, verdicts, how anything is shown.
How it works: all reports are made of a Record that was read from JSON, never of the measurements in memory: a report
can be made again, and says nothing that the JSON does not hold. Rounds of runs are numbered through when runs are
merged: ratios stay between neighbours in time. Names of folders, users and addresses are taken out of what is kept.
Doubted: runs of one machine are not runs of one hour; what shifts between them widens the spread of those that take
part in both, and of nobody else.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.results import ADDED, BASELINES, About, Results, Spread
from bench.scenarios import Figures, Measurement

OURS = "llm-proxy"
FORMAT = 1
_CHECKOUT = Path(__file__).resolve().parent.parent


class Unreadable(Exception):
    """These are no records, or do not belong together; the message says why."""


class Who(NamedTuple):
    """A contestant. `role`: ours, feature (ours with one thing off), variant (ours in other ways), plain (only moves
    bytes), gateway (knows models, keys or usage, or some of it)."""

    about: str
    role: str
    unequal: str = ""  # what could not be made equal, in a sentence


@dataclass(frozen=True, slots=True)
class Record:
    """One or more runs on one machine."""

    runs: list[dict[str, Any]]
    contestants: dict[str, Who]
    results: Results

    def skipped(self) -> dict[str, str]:
        """Who did not take part in any run, and why."""
        found: dict[str, str] = {}
        for run in self.runs:
            found |= run["skipped"]
        return {name: why for name, why in found.items() if name not in self.results.contestants()}

    def named(self, *roles: str) -> list[str]:
        """Contestants that have figures, of these roles."""
        return [name for name in self.results.contestants() if self.role(name) in roles]

    def role(self, name: str) -> str:
        return self.contestants[name].role


def clean(text: str) -> str:
    """What a program said, without the folders of this machine and without addresses of others."""
    text = text.replace(str(_CHECKOUT), ".").replace(tempfile.gettempdir() + "/", "TMP/")
    text = re.sub(r"(?<![\w.~>}\])/-])/(work|root|home|Users|tmp|private|var)/[^\s'\":,]*", "(a path)", text)
    return re.sub(r"https?://(?!127\.0\.0\.1|localhost)[^\s'\"]+", "(an address)", text)


def command_of(arguments: list[str]) -> str:
    """The command that measures the same: without the files that were written or read."""
    kept: list[str] = []
    is_path = False
    for argument in arguments:
        if argument.startswith("-"):
            is_path = argument.partition("=")[0] in ("--json", "--report", "--from")
            if is_path:
                continue
        if not is_path:
            kept.append(argument)
    return " ".join(["scripts/bench", *kept])


def to_json(record: Record) -> dict[str, Any]:
    results = _rounded(record.results)  # first, so that whoever reads it comes to the same medians and ratios
    return {
        "format": FORMAT,
        "runs": record.runs,
        "contestants": {name: who._asdict() for name, who in record.contestants.items()},
        "scenarios": {name: results.about(name)._asdict() for name in results.scenarios()},
        "noise": results.noise(),
        "errors": results.errors(),
        "results": _rows(results),
    }


def _rounded(results: Results) -> Results:
    def kept(figures: Figures) -> Figures:
        numbers = {name: round(value, 4) for name, value in figures.numbers.items()}
        return Figures(numbers, [clean(error) for error in figures.errors], clean(figures.skipped))

    measurements = [each._replace(figures=kept(each.figures)) for each in results.measurements]
    return Results(measurements, {name: results.about(name) for name in results.scenarios()})


def _rows(results: Results) -> list[dict[str, object]]:
    """Per scenario and contestant: each figure's spread, ratios, what was added, all rounds."""
    rows: list[dict[str, object]] = []
    for scenario in results.scenarios():
        for contestant in results.contestants(scenario):
            mine = results.of(scenario, contestant)
            names = dict.fromkeys(name for each in mine for name in each.figures.numbers)
            rows.append(
                {
                    "scenario": scenario,
                    "contestant": contestant,
                    "figures": _dicts({name: results.spread(scenario, contestant, name) for name in names}),
                    "ratio": _dicts({base: results.ratio(scenario, contestant, base) for base in BASELINES}),
                    "added": _dicts({name: results.added(scenario, contestant, name) for name in ADDED}),
                    "rounds": [
                        {
                            "round": each.round + 1,
                            **each.figures._asdict(),
                        }
                        for each in mine
                    ],
                }
            )
    return rows


def _dicts(spreads: dict[str, Spread | None]) -> dict[str, dict[str, float]]:
    return {name: spread.as_dict() for name, spread in spreads.items() if spread is not None}


def from_json(document: Any) -> Record:
    """Raises Unreadable."""
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise Unreadable("this is no record of a run (or one of another version of the bench)")
    try:
        measurements = [
            Measurement(
                row["scenario"],
                row["contestant"],
                each["round"] - 1,
                Figures(
                    {name: float(value) for name, value in each["numbers"].items()},
                    list(each["errors"]),
                    each["skipped"],
                ),
            )
            for row in document["results"]
            for each in row["rounds"]
        ]
        about = {name: _about(each) for name, each in document["scenarios"].items()}
        contestants = {name: Who(**each) for name, each in document["contestants"].items()}
        runs = [dict(run) for run in document["runs"]]
        for run in runs:
            _ = run["machine"], run["versions"], run["settings"]["rounds"], run["skipped"], run["date"], run["command"]
        for each in measurements:
            _ = contestants[each.contestant]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Unreadable(f"this record of a run is broken: {error!r}") from None
    return Record(runs, contestants, Results(measurements, about))


def _about(kept: dict[str, Any]) -> About:
    return About(**{**kept, "columns": tuple((figure, heading) for figure, heading in kept["columns"])})


def read(path: Path) -> Record:
    """Raises Unreadable."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {error}") from None
    try:
        return from_json(document)
    except Unreadable as error:
        raise Unreadable(f"{path}: {error}") from None


def write(path: Path, record: Record) -> None:
    path.write_text(json.dumps(to_json(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def merge(records: list[Record]) -> Record:
    """All of them as one. Raises Unreadable if they come from different machines or were made with other loads."""
    first, *others = records
    for other in others:
        for name, mine, theirs in (
            ("machines", first.runs[0]["machine"], other.runs[0]["machine"]),
            ("loads", _load(first), _load(other)),
        ):
            if mine != theirs:
                raise Unreadable(f"these runs had different {name}: {mine} and {theirs}")
    runs: list[dict[str, Any]] = []
    contestants: dict[str, Who] = {}
    about: dict[str, About] = {}
    measurements: list[Measurement] = []
    for record in records:
        before = sum(run["settings"]["rounds"] for run in runs)
        measurements += [each._replace(round=each.round + before) for each in record.results.measurements]
        runs += record.runs
        contestants = {**record.contestants, **contestants}
        about |= {name: record.results.about(name) for name in record.results.scenarios()}
    return Record(runs, contestants, Results(measurements, about))


def _load(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.runs[0]["settings"].items() if name != "rounds"}


def differing_versions(record: Record) -> list[str]:
    """What was not the same program in all runs, though it has the same name."""
    found: dict[str, list[str]] = {}
    for run in record.runs:
        for name, version in run["versions"].items():
            found.setdefault(name, []).append(version)
    return [f"{name}: {', '.join(dict.fromkeys(each))}" for name, each in found.items() if len(set(each)) > 1]
