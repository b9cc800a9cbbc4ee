"""The figures as text: numbers, cells, rows, and the table that a run prints.

Lives here: how a number and a spread are written, which columns a scenario has, the goals and places as rows.
May not live here: what follows from a figure (goals), Markdown, charts.
How it works: a scenario becomes rows of cells, the first row its heads; the text table aligns them, and the Markdown
report takes the same rows. A cell shows median (least..most). A ratio that cannot be told from 1 has a "?" behind it.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.goals import UNTOLD, apart, places, reached
from bench.record import Record
from bench.results import BASELINES, LATENCIES, Results, Spread
from bench.scenarios import SIEGES

Rows = list[list[str]]
_MEMORY = {"rest_mib": "resident MiB", "stream_kib": "KiB per stream", "ready_ms": "ready in ms"}


def number(value: float) -> str:
    """With as many digits as mean something: three or four."""
    size = abs(value)
    digits = 0 if size >= 100 or not size else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def cell(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    text = number(spread.median)
    return text if spread.rounds == 1 else f"{text} ({number(spread.least)}..{number(spread.most)})"


def long_cell(spread: Spread | None) -> str:
    """As `cell`, with the middle half where there are rounds enough."""
    if spread is None or (spread.lower, spread.upper) == (spread.least, spread.most):
        return cell(spread)
    return f"{number(spread.median)} [{number(spread.lower)}..{number(spread.upper)}] " + (
        f"({number(spread.least)}..{number(spread.most)})"
    )


def _short(spread: Spread | None, pattern: str) -> str:
    return "-" if spread is None else pattern.format(spread.median)


def short_ratio(ratio: Spread) -> str:
    return number(ratio.median)


RatioCell = Callable[[Spread], str]


def _ratio_cell(results: Results, scenario: str, contestant: str, baseline: str, write: RatioCell) -> str:
    ratio = results.ratio(scenario, contestant, baseline)
    if ratio is None or contestant == "direct":
        return "-"
    if contestant == baseline:
        return "1"
    is_told = apart(ratio, 1.0, results.disturbed(scenario, "cpu_us", contestant, baseline)) != UNTOLD
    return f"{write(ratio)}{'' if is_told else ' ?'}"


def latency_cell(results: Results, scenario: str, contestant: str, name: str) -> str:
    """p50 / p99 added to direct; of direct itself, and where it was not measured, absolute and marked by "="."""
    if contestant == "direct" or "direct" not in results.contestants(scenario):
        p50, p99 = (results.spread(scenario, contestant, f"{name}_{p}_us") for p in ("p50", "p99"))
        return "-" if p50 is None else f"={p50.median:,.0f} / ={p99.median if p99 else 0:,.0f}"
    p50, p99 = (results.added(scenario, contestant, f"{name}_{p}_us") for p in ("p50", "p99"))
    return "-" if p50 is None else f"{p50.median:+,.0f} / {p99.median if p99 else 0:+,.0f}"


def _siege_rows(results: Results) -> Rows:
    """One row for each siege: what became of the good requests, and what the wrong ones took."""
    rows = [["", "good a second", "p50 us", "p99 us", "refused a second", "CPU us per refusal", "of a core"]]
    figures = ("first_byte_p50_us", "first_byte_p99_us", "refused_per_second", "wrong_us", "share")
    for name in results.contestants("wrong-keys"):
        for siege in SIEGES:
            good = results.spread("wrong-keys", name, f"{siege}_per_second")
            if good is None:
                continue
            p50, p99, refused, cost, share = (
                results.spread("wrong-keys", name, f"{siege}_{figure}") for figure in figures
            )
            row = [f"{name}, {siege}", f"{good.median:,.0f}", cell(p50), cell(p99)]
            row += [_short(refused, "{:,.0f}"), cell(cost), _short(share, "{:.0%}")]
            rows.append(row)
    return rows


def _memory_rows(results: Results, scenario: str, names: list[str]) -> Rows:
    rows = [["", *(_MEMORY[name] for name in names)]]
    for contestant in results.contestants(scenario):
        spreads = [results.spread(scenario, contestant, name) for name in names]
        if any(spreads):
            rows.append([contestant, *map(cell, spreads)])
    return rows


def scenario_rows(results: Results, scenario: str, write_ratio: RatioCell = short_ratio) -> Rows:
    """Heads first."""
    if scenario == "wrong-keys":
        return _siege_rows(results)
    names = results.contestants(scenario)
    known = {figure for name in names for each in results.of(scenario, name) for figure in each.figures.numbers}
    if "cpu_us" not in known and (memory := [name for name in _MEMORY if name in known]):
        return _memory_rows(results, scenario, memory)
    timed = [name for name in LATENCIES if f"{name}_p50_us" in known]
    unit, _, _, columns = results.about(scenario)
    rows = [["", f"CPU us per {unit}", *(f"x {base}" for base in BASELINES), "per second"]]
    rows[0] += [heading for _, heading in columns]
    rows[0] += [f"{name.replace('_', ' ')} p50 / p99 us" for name in timed]
    for name in names:
        row = [name, cell(results.spread(scenario, name, "cpu_us")) if name != "direct" else "-"]
        row += [_ratio_cell(results, scenario, name, base, write_ratio) for base in BASELINES]
        row.append(_short(results.spread(scenario, name, "per_second"), "{:,.0f}"))
        row += [cell(results.spread(scenario, name, figure)) for figure, _ in columns]
        row += [latency_cell(results, scenario, name, figure) for figure in timed]
        rows.append(row)
    return _without_empty(rows)


def _without_empty(rows: Rows) -> Rows:
    """Without columns and, but for the heads, rows in which nothing stands. The first column stays."""
    head, *others = rows
    kept = [at for at in range(len(head)) if at == 0 or any(row[at] != "-" for row in others)]
    return [[row[at] for at in kept] for row in rows if row is head or any(each != "-" for each in row[1:])]


def goal_rows(record: Record) -> Rows:
    """Without goals of which nothing was measured; those are named elsewhere."""
    rows = [["goal", "at most", "measured", "rounds", "verdict"]]
    for goal, spread, verdict in reached(record):
        if spread is not None:
            said = f"{verdict.word}, {verdict.why}" if verdict.why else verdict.word
            bound = f"{goal.bound:g} {goal.unit}"
            rows.append([goal.name, bound, long_cell(spread), str(spread.rounds), said])
    return rows


def place_rows(record: Record) -> Rows:
    """Ours beside the best gateway of each field."""
    rows = [["", "llm-proxy", "best gateway", "", "place", "verdict"]]
    for place in places(record):
        names = [name for name, _ in place.order]
        ours = dict(place.order)["llm-proxy"]
        best, theirs = next((name, spread) for name, spread in place.order if name != "llm-proxy")
        verdict = place.verdict
        rows.append(
            [
                f"{place.field.name}, {place.field.unit}",
                cell(ours),
                cell(theirs),
                best,
                f"{names.index('llm-proxy') + 1} of {len(names)}",
                f"{verdict.word}: {verdict.why}" if verdict.why else verdict.word,
            ]
        )
    return rows


def aligned(rows: Rows) -> list[str]:
    """First column to the left, others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(each.rjust(width) for each, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def table(results: Results) -> str:
    """All scenarios as text."""
    parts = []
    for scenario in results.scenarios():
        lines = [f"{scenario}: {results.about(scenario).about}", *aligned(scenario_rows(results, scenario))]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def summary(record: Record) -> str:
    """Goals and places as text; empty if nothing of either was measured."""
    parts = []
    for title, rows in (("goals", goal_rows(record)), ("beside the gateways", place_rows(record))):
        if len(rows) > 1:
            parts.append("\n".join([f"{title}:", *aligned(rows)]))
    return "\n\n".join(parts)
