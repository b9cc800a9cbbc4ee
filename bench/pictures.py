"""Which charts a record gives.

Lives here: from figures to bars, ranges and lines; the names of the files; what is written under a title.
May not live here: how anything is drawn (charts).
How it works: each function makes one chart, or none if its figures were not measured. Bars are sorted, cheapest first.
Doubted: the latency of a distribution is drawn by the quantiles that a run keeps, the median of each over the rounds.
"""

from __future__ import annotations

import re

from bench.charts import Bar, Line, Range, bars, lines, ranges
from bench.record import OURS, Record
from bench.results import LATENCIES, Results, Spread
from bench.table import cell, number

OVERVIEW = "overview.svg"
STREAMS = "streams.svg"
STREAMS_NEAR = "streams-near.svg"
MEMORY = "memory.svg"
FEATURES = "features.svg"
_PRICED = ("unary-1k", "short-streams", "paced", "back-to-back")  # of all others, the table has the prices
_ROLES = "Blue: this project; grey: proxies that only move bytes; ochre: LLM gateways."
_MEANINGS = {
    "first_byte": "From the request to the first byte of its answer.",
    "first_event": "From the request to its stream's first event.",
    "transit": "How long an event is under way, from the upstream to the client.",
    "gap": "By how much two events come nearer to each other or further apart on their way.",
}
_QUANTILE = re.compile(r"p(\d\d)(\d*)$")


def pictures(record: Record) -> dict[str, str]:
    """File name -> SVG, of all charts for which there are figures."""
    found = {OVERVIEW: _overview(record), MEMORY: _memory(record), FEATURES: _features(record)}
    found[STREAMS_NEAR] = _streams(record, "ours", "plain")
    if record.named("gateway"):
        found[STREAMS] = _streams(record, "ours", "plain", "gateway")
    for scenario in record.results.scenarios():
        found[cost_name(scenario)] = _cost(record, scenario)
        for figure in LATENCIES:
            found[latency_name(scenario, figure)] = _latency(record, scenario, figure)
    return {name: picture for name, picture in found.items() if picture}


def cost_name(scenario: str) -> str:
    return f"cpu-{scenario}.svg"


def latency_name(scenario: str, figure: str) -> str:
    return f"latency-{scenario}-{figure.replace('_', '-')}.svg"


def _sentence(about: str) -> str:
    return f"{about[:1].upper()}{about[1:]}."


def _note(record: Record) -> str:
    machine = record.runs[0]["machine"]
    days = " and ".join(dict.fromkeys(run["date"][:10] for run in record.runs))
    return f"{days}, {machine['cpu']}, {machine['cores']} cores."


def _bar(record: Record, name: str, spread: Spread) -> Bar:
    inner = (spread.lower, spread.upper) if (spread.lower, spread.upper) != (spread.least, spread.most) else None
    return Bar(name, spread.median, spread.least, spread.most, cell(spread), record.role(name), inner)


def _bars(record: Record, scenario: str, figure: str, roles: tuple[str, ...] = ()) -> list[Bar]:
    names = [name for name in record.results.contestants(scenario) if not roles or record.role(name) in roles]
    spreads = [(name, record.results.spread(scenario, name, figure)) for name in names if name != "direct"]
    found = [_bar(record, name, spread) for name, spread in spreads if spread is not None]
    return sorted(found, key=lambda bar: bar.value)


def _whiskers(rows: list[Bar]) -> str:
    if any(bar.inner for bar in rows):
        return "Median; whisker: least to most of the rounds, thick: the middle half."
    return "Median; whisker: least to most of the rounds." if any(bar.low < bar.high for bar in rows) else "One round."


def _overview(record: Record) -> str:
    panels = []
    for scenario, title in (("unary-1k", "CPU per request"), ("paced", "CPU per streamed event")):
        rows = _bars(record, scenario, "cpu_us", ("ours", "plain", "gateway"))
        if rows:
            about = record.results.about(scenario).about
            note = f"{_sentence(about)} {_note(record)} {_whiskers(rows)} {_ROLES}"
            panels.append((title, note, f"CPU microseconds per {record.results.about(scenario).unit}", rows))
    return bars(panels) if panels else ""


def _cost(record: Record, scenario: str) -> str:
    rows = _bars(record, scenario, "cpu_us")
    if not rows:
        return ""
    unit, about, *_ = record.results.about(scenario)
    title = f"{scenario}: CPU per {unit}"
    return bars([(title, f"{_sentence(about)} {_whiskers(rows)}", f"CPU microseconds per {unit}", rows)])


def _quantiles(results: Results, scenario: str, contestant: str, figure: str) -> list[tuple[str, float]]:
    """All that were kept of a latency, least first."""
    names = {name for each in results.of(scenario, contestant) for name in each.figures.numbers}
    found = []
    for name in names:
        before, _, quantile = name.removesuffix("_us").rpartition("_")
        spread = results.spread(scenario, contestant, name)
        if before == figure and spread is not None and (match := _QUANTILE.match(quantile)):
            found.append((float(f"{match[1]}.{match[2] or 0}"), quantile, spread.median))
    return [(quantile, value) for _, quantile, value in sorted(found)]


def _latency(record: Record, scenario: str, figure: str) -> str:
    """Absolute, direct among the others: what is added may be nothing, which no log scale can show."""
    rows = []
    for name in record.results.contestants(scenario):
        points = _quantiles(record.results, scenario, name, figure)
        if points:
            said = [points[0], points[-1]] if len(points) > 1 else points
            text = " · ".join(f"{quantile} {number(value)}" for quantile, value in said)
            rows.append(Range(name, points, text, record.role(name)))
    if not rows:
        return ""
    rows.sort(key=lambda row: row.points[0][1])
    told = ", ".join(quantile for quantile, _ in rows[0].points)
    about = _sentence(record.results.about(scenario).about)
    words = figure.replace("_", " ")
    note = f"{about} Dot and ticks: {told}, each the median over the rounds. {_MEANINGS[figure]}"
    return ranges(f"{scenario}: {words}", note, "microseconds", rows)


def _memory(record: Record) -> str:
    panels = []
    for scenario in record.results.scenarios():
        for figure, title, unit in (
            ("stream_kib", "memory per open idle stream", "KiB per stream"),
            ("rest_mib", "memory at rest", "MiB resident"),
        ):
            rows = _bars(record, scenario, figure)
            if rows:
                about = record.results.about(scenario).about
                panels.append((f"{scenario}: {title}", f"{_sentence(about)} {_whiskers(rows)}", unit, rows))
    return bars(panels) if panels else ""


def stream_scenarios(record: Record) -> list[tuple[int, str]]:
    """Scenarios with a number of paced streams each, fewest first."""
    settings = record.runs[0]["settings"]
    found = []
    for scenario in record.results.scenarios():
        count = record.results.about(scenario).streams
        if count:
            # In quick runs there are fewer: a share of those that give the name, a number of its own for "paced".
            is_named = scenario != "paced"
            share = settings.get("streams_share", 1.0)
            found.append((int(count * share) if is_named else settings.get("paced_streams", count), scenario))
    return sorted(found)


def _streams(record: Record, *roles: str) -> str:
    scenarios = stream_scenarios(record)
    if len(scenarios) < 2:
        return ""
    series = []
    for name in record.named(*roles):
        points = [
            (float(count), spread.median, spread.least, spread.most)
            for count, scenario in scenarios
            if (spread := record.results.spread(scenario, name, "cpu_us")) is not None
        ]
        if points and name != "direct":
            series.append(Line(name, points, number(points[-1][1]), record.role(name)))
    if not series:
        return ""
    note = (
        "Points: median; upright lines: least to most of the rounds. How many events a second a stream has is said "
        "with its scenario. The number behind a name belongs to its last point."
    )
    return lines("CPU per event, by the number of streams", note, "open streams", "CPU microseconds per event", series)


def feature_prices(record: Record) -> dict[str, dict[str, Spread]]:
    """Scenario -> contestant with a feature off -> what that saves of a unit's CPU, in the same round."""
    found: dict[str, dict[str, Spread]] = {}
    for scenario in record.results.scenarios():
        for name in record.named("feature"):
            saved = record.results.paired(scenario, OURS, name, "cpu_us", lambda a, b: a - b)
            if saved is not None:
                found.setdefault(scenario, {})[name] = saved
    return found


def _features(record: Record) -> str:
    panels = []
    for scenario, prices in feature_prices(record).items():
        if scenario not in _PRICED:
            continue
        rows = [_bar(record, name, spread) for name, spread in prices.items()]
        rows.sort(key=lambda bar: -bar.value)
        if any(bar.value > 0 for bar in rows):
            unit = record.results.about(scenario).unit
            note = f"What is saved without it, of the CPU per {unit} with everything on. {_whiskers(rows)}"
            panels.append((f"{scenario}: price of each feature", note, f"CPU microseconds per {unit}", rows))
    return bars(panels) if panels else ""
