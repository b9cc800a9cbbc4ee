"""The report as Markdown, with its charts beside it.

Lives here: the sections and sentences of the report, and the folder that it is written to.
May not live here: any figure that is not in the record; why a figure is as it is (reasons.toml, which says so itself).
How it works: the folder gets report.json first; the report and the charts are made of what is then read from it. So the
text says what the JSON says, and both can be made again from it.
Doubted: the sentences about the method are written here, not derived; who changes the method changes them.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from bench.goals import MET, MISSED, UNMEASURED, UNTOLD, apart, places, reached
from bench.pictures import (
    FEATURES,
    MEMORY,
    OVERVIEW,
    STREAMS,
    STREAMS_NEAR,
    cost_name,
    feature_prices,
    latency_name,
    pictures,
)
from bench.record import OURS, Record, differing_versions, read, write
from bench.results import LATENCIES, NOISY_OTHERS, NOISY_SPREAD, NOISY_STEAL, QUARTILES_FROM, Spread
from bench.table import Rows, cell, goal_rows, long_cell, place_rows, scenario_rows

REPORT, RECORD = "report.md", "report.json"
REASONS = tomllib.loads(Path(__file__).with_name("reasons.toml").read_text(encoding="utf-8"))

_METHOD = f"""\
One upstream with precomputed answers, one load, and all contestants side by side; contestants on one core, upstream and
load on another. A round measures every scenario with every contestant in turn (A B C, then C B A), so that whatever
changes on the machine changes for all of them. CPU is what the operating system accounts to the contestant's processes,
user and system, children included, divided by the units that were answered completely; an answer that is not what the
upstream sent is an error, and its round has no figure.

A figure is the median over the rounds, with (least..most) behind it and, from {QUARTILES_FROM} rounds on, [the middle
half] in front of that. Ratios and added latency are taken within a round, against the neighbour in time, and then their
median; added latency is the contestant's quantile minus that of going direct. "=" marks absolute latency, "?" a ratio
that these rounds cannot tell from 1. A figure counts as below or above a bound only if its middle half is (with fewer
rounds all of it, with one or two an eighth more to both sides); where the rounds differ by more than
{NOISY_SPREAD:.0%}, only if all of them are, and an eighth beyond. Everything else cannot be told, and nothing can where
in half of the rounds others used more than {NOISY_OTHERS:.0%} of the machine or the hypervisor took more than
{NOISY_STEAL:.0%}. CPU per unit is the figure to trust; throughput and the far quantiles depend on who else uses the
machine."""


def write_report(folder: Path, record: Record) -> Record:
    """Writes the report, its charts and the record into `folder`; returns the record as it was written."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / RECORD, record)
    kept = read(folder / RECORD)
    drawn = pictures(kept)
    for old in folder.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    for name, picture in drawn.items():
        (folder / name).write_text(picture, encoding="utf-8")
    (folder / REPORT).write_text(report(kept, set(drawn)), encoding="utf-8")
    return kept


def report(record: Record, drawn: set[str]) -> str:
    """`drawn`: the charts that lie beside it."""
    sections = [
        _opening(record, drawn),
        _goals(record),
        _places(record),
        _scenarios(record, drawn),
        _streams(drawn),
        _memory(drawn),
        _features(record, drawn),
        _unequal(record),
        _left_out(record),
        "## Method\n\n" + _METHOD,
        _noise(record),
        _conditions(record),
        _again(record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(rows: Rows) -> str:
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def _picture(name: str, about: str, drawn: set[str]) -> str:
    return f"![{about}]({name})" if name in drawn else ""


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _bold(rows: Rows) -> Rows:
    """Our own line stands out."""
    return [[f"**{row[0]}**", *row[1:]] if row[0] == OURS else row for row in rows]


def _opening(record: Record, drawn: set[str]) -> str:
    machine = record.runs[0]["machine"]
    lines = [
        f"- {run['date'][:16].replace('T', ' ')} UTC: `{run['command']}`, {run['settings']['rounds']} round(s)"
        for run in record.runs
    ]
    where = f"On {machine['cores']} core(s) of {machine['cpu']}, Linux {machine['kernel']}:"
    return _joined("# What llm-proxy costs, beside the others", where, "\n".join(lines), _in_short(record),
                   _picture(OVERVIEW, "CPU per request and per event", drawn))  # fmt: skip


def _in_short(record: Record) -> str:
    words = [each.verdict.word for each in reached(record)]
    said = [f"{words.count(word)} {word}" for word in (MET, MISSED, UNTOLD, UNMEASURED) if word in words]
    parts = []
    if any("--quick" in run["command"].split() for run in record.runs):
        parts.append("**A quick run: small loads, few rounds; the goals are for full ones.**")
    parts += [f"Of {len(words)} goals: {', '.join(said)}."]
    fields = places(record)
    if fields:
        ahead = sum(each.verdict.word == "ahead of all" for each in fields)
        parts.append(f"Ahead of every gateway in {ahead} of {len(fields)} fields.")
    noise = record.results.noise()
    parts.append("The machine was quiet." if not noise else f"Noise: {len(noise)} remark(s), see below.")
    return " ".join(parts)


def _goals(record: Record) -> str:
    rows = goal_rows(record)
    missing = [each.goal.name for each in reached(record) if each.verdict.word == UNMEASURED]
    absent = f"Not measured: {'; '.join(missing)}." if missing else ""
    reasons = [
        f"- **{each.goal.name}**: {why['where']} *Needed:* {why['needed']}"
        for each in reached(record)
        if each.verdict.word in (MISSED, UNTOLD) and (why := REASONS["goals"][each.goal.name])
    ]
    explained = _joined("Where it goes, and what would be needed, of those that are not met:", "\n".join(reasons))
    return _joined("## Goals", _table(rows) if len(rows) > 1 else "", absent, explained if reasons else "")


def _places(record: Record) -> str:
    rows = place_rows(record)
    if len(rows) == 1:
        return ""
    about = "A gateway is who knows models, keys or usage; what only moves bytes (nginx and its like) is in the goals."
    reasons = [
        f"- **{each.field.name}**: {REASONS['fields'][each.field.name]}"
        for each in places(record)
        if each.behind or each.untold
    ]
    return _joined("## Ahead of every gateway?", about, _table(rows), "\n".join(reasons))


def _scenarios(record: Record, drawn: set[str]) -> str:
    parts = ["## Scenarios"]
    for scenario in record.results.scenarios():
        charts = [_picture(cost_name(scenario), f"{scenario}: CPU", drawn)]
        charts += [_picture(latency_name(scenario, name), f"{scenario}: {name}", drawn) for name in LATENCIES]
        rows = _bold(scenario_rows(record.results, scenario, cell))
        about = record.results.about(scenario).about
        parts.append(_joined(f"### {scenario}", f"{about[:1].upper()}{about[1:]}.", _table(rows), *charts))
    return "\n\n".join(parts)


def _streams(drawn: set[str]) -> str:
    charts = [_picture(name, "CPU per event by number of streams", drawn) for name in (STREAMS_NEAR, STREAMS)]
    return _joined("## Cost against the number of streams", *charts) if any(charts) else ""


def _memory(drawn: set[str]) -> str:
    picture = _picture(MEMORY, "memory", drawn)
    return _joined("## Memory", picture) if picture else ""


def _price_cell(record: Record, scenario: str, name: str, prices: dict[str, dict[str, Spread]]) -> str:
    price = prices[scenario].get(name)
    if price is None:
        return "-"
    is_told = apart(price, 0.0, record.results.disturbed(scenario, "cpu_us", OURS, name)) != UNTOLD
    return long_cell(price) + ("" if is_told else " ?")


def _features(record: Record, drawn: set[str]) -> str:
    prices = feature_prices(record)
    if not prices:
        return ""
    names = list(dict.fromkeys(name for row in prices.values() for name in row))
    rows = [["", *prices]]
    rows += [[name, *(_price_cell(record, scenario, name, prices) for scenario in prices)] for name in names]
    about = "CPU microseconds per unit that are saved without it, within each round; ?: not to be told from nothing."
    meanings = [f"- {name}: {record.contestants[name].about}" for name in names if name in record.contestants]
    return _joined("## What each feature costs", about, _table(rows), "\n".join(meanings),
                   _picture(FEATURES, "price of each feature", drawn))  # fmt: skip


def _unequal(record: Record) -> str:
    names = record.results.contestants()
    rows = [["contestant", "is", "what could not be made equal"]]
    rows += [
        [name, who.about, who.unequal or "-"] for name in names if (who := record.contestants.get(name)) is not None
    ]
    return _joined("## Who was measured, and what could not be made equal", _table(rows))


def _left_out(record: Record) -> str:
    skipped = [f"- {name}: {why}" for name, why in record.skipped().items()]
    lacking = [f"- {line}" for line in record.results.not_measured()]
    errors = [f"- {error}" for error in record.results.errors()]
    return _joined(
        _joined("## Absent", "\n".join(skipped)) if skipped else "",
        _joined("## Not measured", "\n".join(lacking)) if lacking else "",
        _joined("## Answered wrong", "Rounds with these errors have no figures.", "\n".join(errors)) if errors else "",
    )


def _noise(record: Record) -> str:
    noise = record.results.noise()
    return _joined("## Noise", "\n".join(f"- {line}" for line in noise) if noise else "Nothing to remark.")


def _conditions(record: Record) -> str:
    parts = ["## Versions and settings"]
    differing = differing_versions(record)
    if differing:
        parts.append("**Not the same in all runs:** " + "; ".join(differing) + ".")
    versions: dict[str, str] = {}
    for run in record.runs:
        versions |= run["versions"]
    parts.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    settings = {name: value for name, value in record.runs[0]["settings"].items() if name != "rounds"}
    parts.append(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items()) + ".")
    return "\n\n".join(parts)


def _again(record: Record) -> str:
    commands = []
    for number, run in enumerate(record.runs, 1):
        target = "--report" if len(record.runs) == 1 else f"--json {number}.json"
        commands.append(f"{run['command']} {target}")
    if len(record.runs) > 1:
        files = " ".join(f"{number}.json" for number in range(1, len(record.runs) + 1))
        commands.append(f"scripts/bench --from {files} --report")
    again = "scripts/bench --from bench/report/report.json --report    # this text and the charts, from the figures"
    compare = "scripts/bench --compare bench/report/report.json OTHER.json    # do two runs agree?"
    return "\n".join(["## Again", "", "```sh", *commands, again, compare, "```"])
