"""The command: a run made again from its JSON, several as one, two compared, progress, roles. Nothing is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench.__main__ as command
from bench.__main__ import Progress, describe_contestant, main
from bench.markdown import RECORD, REPORT
from bench.record import read, write
from bench.scenarios import SCENARIOS, Figures, Scenario
from tests.bench.records import MACHINE, made_up


def test_a_report_is_made_again_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.json", made_up(2))
    assert main(["--from", str(tmp_path / "a.json"), "--report", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / REPORT).is_file() and (tmp_path / "report" / RECORD).is_file()
    said = capsys.readouterr()
    assert "unary-1k: 1 KB asked" in said.out and "goals:" in said.out and "2 round(s)" in said.out
    assert "written" in said.err


def test_several_runs_are_shown_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    write(Path(files[0]), made_up(2))
    write(Path(files[1]), made_up(3, features=True))
    assert main(["--from", *files, "--json", str(tmp_path / "c.json")]) == 0
    assert "2 + 3 round(s)" in capsys.readouterr().out
    assert len(read(tmp_path / "c.json").runs) == 2


def test_runs_of_different_machines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    write(Path(files[0]), made_up(1))
    write(Path(files[1]), made_up(1, machine={**MACHINE, "cpu": "Abacus 4000"}))
    assert main(["--from", *files, "--report", str(tmp_path / "report")]) == 2
    assert "different machines" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    assert main(["--from", str(tmp_path / "none.json")]) == 2


def test_two_runs_are_compared_with_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    write(Path(files[0]), made_up(3))
    write(Path(files[1]), made_up(3, more={"nginx": (99.0, 99.0, 99.0, 99.0, 99.0)}))
    assert main(["--compare", files[0], files[0]]) == 0
    assert "0 differ" in capsys.readouterr().out
    assert main(["--compare", *files]) == 1
    assert "unary-1k, nginx: cpu_us" in capsys.readouterr().out


def test_absent_noisy_and_wrong_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = made_up(2, skipped={"portkey": "needs node"})
    record.results.measurements[-1].figures.errors.append("status 502")
    record.results.measurements[-2].figures.numbers["others_share"] = 0.5
    write(tmp_path / "a.json", record)
    assert main(["--from", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    assert "skipped: portkey, needs node" in said
    assert "noisy: others used" in said
    assert "WRONG: back-to-back, direct: status 502" in said


def test_progress_says_round_scenario_and_time_left() -> None:
    steps = [(number, scenario) for number in range(3) for scenario in ("memory", "paced") for _ in "ab"]
    progress = Progress(steps, 3)
    said = []
    for index in range(len(steps)):
        said.append(progress.at(index))
        progress.took(index, 10.0 if steps[index][1] == "paced" else 30.0)
    assert [line for line in said if line] == [
        "round 1 of 3, memory",
        "round 1 of 3, paced: 5 min left at a guess",
        "round 2 of 3, memory: 3 min left",
        "round 2 of 3, paced: 2 min left",
        "round 3 of 3, memory: 80 s left",
        "round 3 of 3, paced: 20 s left",
    ]
    assert [bool(line) for line in said[:4]] == [True, False, True, False], "once for each scenario of a round"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("llm-proxy", "ours"),
        ("without-ledger", "feature"),
        ("many-keys", "variant"),
        ("before", "variant"),
        ("direct", "plain"),
        ("nginx", "plain"),
        ("haproxy", "plain"),
        ("envoy", "plain"),
        ("litellm", "gateway"),
        ("vllm-router", "gateway"),
    ],
)
def test_everybody_has_a_role_and_others_a_word_on_what_is_unequal(name: str, role: str) -> None:
    who = describe_contestant(name, "about it")
    assert who.role == role
    assert bool(who.unequal) is (role in ("plain", "gateway") and name != "direct")


def unmeasured(rounds: int) -> command._Run:
    """A run with contestants that nobody has started."""
    run = object.__new__(command._Run)
    run.rounds, run.scenarios, run.skipped = rounds, [SCENARIOS["unary-1k"]], {}
    run._running, run._needed = dict.fromkeys(("direct", "llm-proxy")), {"llm-proxy"}  # type: ignore[assignment]
    return run


def test_a_stopped_run_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def measure(_: command._Run, scenario: Scenario, name: str) -> Figures:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(name)
        return Figures({"cpu_us": 1.0}, [])

    monkeypatch.setattr(command._Run, "_measure", measure)
    results = unmeasured(7).measure_all()
    assert [(each.round, each.contestant) for each in results.measurements] == [
        (0, "direct"),
        (0, "llm-proxy"),
        (1, "llm-proxy"),
    ]
    assert all("steal_share" in each.figures.numbers for each in results.measurements)
    assert "stopped" in capsys.readouterr().err


def test_what_had_to_be_there_and_right_decides_the_exit_code() -> None:
    run = unmeasured(1)
    record = made_up(1)
    assert not run.is_wrong(record.results)
    for each in record.results.measurements:
        if each.contestant == "nginx":
            each.figures.errors.append("status 502")
    assert not run.is_wrong(record.results), "others may be wrong: the report says so"
    run.skipped["llm-proxy"] = "did not start"
    assert run.is_wrong(record.results)
    run.skipped.clear()
    record.results.measurements[3].figures.errors.append("status 502")
    assert record.results.measurements[3].contestant == "llm-proxy" and run.is_wrong(record.results)
