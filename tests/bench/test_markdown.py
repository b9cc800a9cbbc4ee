"""The report: its numbers are those of the JSON beside it, and it says what was wrong, absent, noisy and unequal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench.goals import FIELDS, GOALS
from bench.markdown import REASONS, RECORD, REPORT, write_report
from bench.record import Record, merge, read
from bench.table import number
from tests.bench.records import made_up, many


def written(folder: Path, record: Record) -> tuple[str, dict[str, Any]]:
    write_report(folder, record)
    return (folder / REPORT).read_text(), json.loads((folder / RECORD).read_text())


def section(text: str, title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    assert found, f"no section {title}"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """Of the first table: first cell, without its emphasis -> the others."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line[2:].removesuffix(" |").split(" | ")]
            found[cells[0].strip("*")] = cells[1:]
    return found


def shown(spread: dict[str, float]) -> str:
    if spread["rounds"] == 1:
        return number(spread["median"])
    return f"{number(spread['median'])} ({number(spread['min'])}..{number(spread['max'])})"


@pytest.mark.parametrize("rounds", [1, 3, 7])
def test_the_numbers_are_those_of_the_json(tmp_path: Path, rounds: int) -> None:
    text, document = written(tmp_path, made_up(rounds, many(2)))
    checked = 0
    for result in document["results"]:
        if "cpu_us" in result["figures"] and result["contestant"] != "direct":
            cells = rows(section(text, result["scenario"]))[result["contestant"]]
            assert cells[0] == shown(result["figures"]["cpu_us"])
            if result["contestant"] not in ("nginx", "splice"):
                assert cells[1].removesuffix(" ?") == shown(result["ratio"]["nginx"])
                assert cells[2].removesuffix(" ?") == shown(result["ratio"]["splice"])
                checked += 1
    assert checked == 6 * 5


def test_the_goals_are_measured_by_the_json(tmp_path: Path) -> None:
    text, document = written(tmp_path, made_up())
    found = rows(section(text, "Goals"))
    by_pair = {(each["scenario"], each["contestant"]): each for each in document["results"]}
    ratio = by_pair["unary-1k", "llm-proxy"]["ratio"]["nginx"]
    bound, measured, rounds, verdict = found["request, 1 KB answer: CPU"]
    assert measured == (
        f"{number(ratio['median'])} [{number(ratio['q1'])}..{number(ratio['q3'])}] "
        f"({number(ratio['min'])}..{number(ratio['max'])})"
    )
    assert (bound, rounds, verdict) == ("1.6 x nginx", "7", "met")
    assert found["at rest: memory"][1] == number(by_pair["memory", "llm-proxy"]["figures"]["rest_mib"]["median"])
    assert "Not measured: open idle stream, TLS upstream: memory; " in text


def test_what_is_missed_is_explained_and_nothing_else(tmp_path: Path) -> None:
    slow = {"llm-proxy": (131.0, 11.9, 188.0, 9.1, 62.0)}
    text, _ = written(tmp_path, made_up(more=slow))
    verdicts = [rows(section(text, "Goals")).get(goal.name, ["met"])[-1] for goal in GOALS]
    assert 4 <= sum(verdict.startswith("missed") for verdict in verdicts) < len(GOALS)
    for goal, verdict in zip(GOALS, verdicts, strict=True):
        is_met = verdict.startswith("met")
        assert (f"- **{goal.name}**: " in section(text, "Goals")) is not is_met
    ranked = section(text, "Ahead of every gateway?")
    for field in FIELDS:
        cells = rows(ranked).get(f"{field.name}, {field.unit}", ["ahead of all"])
        assert (f"- **{field.name}**: " in ranked) is not cells[-1].startswith("ahead of all")
    assert "behind" in ranked and "ahead of all" in ranked


def test_there_is_a_reason_for_every_goal_and_every_field() -> None:
    assert list(REASONS["goals"]) == [goal.name for goal in GOALS]
    assert all(reason["where"] and reason["needed"] for reason in REASONS["goals"].values())
    assert list(REASONS["fields"]) == [field.name for field in FIELDS]
    assert all(REASONS["fields"].values())


def test_every_chart_that_is_shown_lies_beside_it_and_every_chart_is_shown(tmp_path: Path) -> None:
    text, _ = written(tmp_path, made_up(features=True))
    assert sorted(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)) == sorted(path.name for path in tmp_path.glob("*.svg"))


def test_charts_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    written(tmp_path, made_up())
    text, _ = written(tmp_path, made_up(scenarios=("paced",)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu-paced.svg", "overview.svg", RECORD, REPORT]
    assert "memory.svg" not in text


def test_it_is_the_same_when_it_is_made_again(tmp_path: Path) -> None:
    write_report(tmp_path / "a", made_up(features=True))
    write_report(tmp_path / "b", read(tmp_path / "a" / RECORD))
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text(), name


def test_a_quiet_and_whole_run_has_nothing_to_remark(tmp_path: Path) -> None:
    text, _ = written(tmp_path, made_up())
    assert section(text, "Noise").strip() == "Nothing to remark."
    for title in ("Absent", "Not measured", "Answered wrong"):
        assert f"## {title}" not in text


def test_noise_is_said_with_its_rounds_and_takes_the_verdict(tmp_path: Path) -> None:
    record = made_up()
    for each in record.results.measurements:
        if each.scenario == "paced" and each.round in (1, 2, 3, 4):
            each.figures.numbers["others_share"] = 0.3
    text, document = written(tmp_path, record)
    assert "(most: 30%): paced in rounds 2, 3, 4, 5" in section(text, "Noise")
    assert document["noise"] and all(line in text for line in document["noise"])
    assert rows(section(text, "Goals"))["paced event: CPU"][-1] == (
        "cannot be told, too noisy: others used 30% in rounds 2, 3, 4, 5"
    )


def test_who_is_absent_unequal_or_wrong_is_named(tmp_path: Path) -> None:
    record = made_up(skipped={"portkey": "needs node"})
    for each in record.results.measurements:
        if (each.contestant, each.scenario, each.round) == ("a-router-in-rust", "paced", 3):
            each.figures.errors.append("status 502")
    text, _ = written(tmp_path, record)
    assert section(text, "Absent").strip() == "- portkey: needs node"
    assert "- paced, a-router-in-rust: status 502" in section(text, "Answered wrong")
    unequal = rows(section(text, "Who was measured, and what could not be made equal"))
    assert unequal["the-slowest-gateway-of-all"] == ["what the-slowest-gateway-of-all is", "It checks no keys."]


def test_it_says_when_where_and_how_to_do_it_again(tmp_path: Path) -> None:
    text, _ = written(tmp_path, made_up())
    for part in ("Abacus 3000", "Linux 6.1.0", "2026-11-26 08:00 UTC", "`scripts/bench --rounds 7`, 7 round(s)"):
        assert part in text.split("## Goals")[0]
    assert "nginx 1.22.1" in section(text, "Versions and settings")
    assert "scripts/bench --rounds 7 --report\n" in section(text, "Again")
    assert "quick" not in text.split("## Goals")[0]
    quick, _ = written(tmp_path, made_up(command="scripts/bench --quick"))
    assert "A quick run" in quick.split("## Goals")[0]


def test_merged_runs_are_all_named_and_what_differs_between_them(tmp_path: Path) -> None:
    other = made_up(3, features=True, command="scripts/bench --features", versions={"llm-proxy": "1234567"})
    text, _ = written(tmp_path, merge([made_up(2), other]))
    assert "2 round(s)" in text and "`scripts/bench --features`, 3 round(s)" in text
    assert "**Not the same in all runs:** llm-proxy: abcdef0, 1234567." in text
    assert "scripts/bench --from 1.json 2.json --report" in text
    assert rows(section(text, "Goals"))["paced event: CPU"][2] == "5"


def test_prices_of_features_are_there_and_doubtful_ones_marked(tmp_path: Path) -> None:
    record = made_up(features=True)
    for each in record.results.measurements:
        if each.contestant == "without-metering" and each.scenario == "paced":
            each.figures.numbers["cpu_us"] = 11.9 + (0.5 if each.round % 2 else -0.5)
    text, _ = written(tmp_path, record)
    found = rows(section(text, "What each feature costs"))
    assert found["without-metering"][found[""].index("paced")].endswith(" ?")
    assert not found["without-limits"][found[""].index("paced")].endswith("?")
    assert "- without-ledger: what without-ledger is" in text
