"""The parts of `--all`: each is a run that can be asked for, and what they leave is put together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import parts
from bench.__main__ import main
from bench.goals import GOALS
from bench.options import chosen, parse
from bench.record import write
from tests.bench.records import made_up


def test_every_part_can_be_asked_for() -> None:
    for part in parts.PARTS:
        assert "llm-proxy" in chosen(parse(list(part)))


def test_every_goal_is_measured_in_a_part() -> None:
    measured = {name for part in parts.PARTS for name in parse(list(part)).only}
    assert {goal.scenario for goal in GOALS} <= measured


def the_part_leaves(monkeypatch: pytest.MonkeyPatch, files: dict[int, Path], ends_with: int = 0) -> list[list[str]]:
    """Each part becomes a process that copies its file to where its record belongs."""
    asked: list[list[str]] = []
    start = subprocess.Popen

    def instead(command: list[str], **more: object) -> subprocess.Popen[bytes]:
        asked.append(command[3:])
        source = files.get(len(asked))
        copy = "" if source is None else f"import shutil; shutil.copy({str(source)!r}, {command[-1]!r})"
        return start([sys.executable, "-c", f"{copy}\nraise SystemExit({ends_with})"])

    monkeypatch.setattr(subprocess, "Popen", instead)
    return asked


def test_all_parts_become_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.json", made_up(2))
    write(tmp_path / "b.json", made_up(3, features=True))
    asked = the_part_leaves(monkeypatch, {1: tmp_path / "a.json", 3: tmp_path / "b.json"})
    assert main(["--all", "--rounds", "3", "--json", str(tmp_path / "c.json")]) == 0
    assert [command[: len(part)] for command, part in zip(asked, parts.PARTS, strict=True)] == list(
        map(list, parts.PARTS)
    )
    assert all("--rounds=3" in command and "--quick" not in command for command in asked)
    said = capsys.readouterr()
    assert "2 + 3 round(s)" in said.out and "part 1 of 4" in said.err
    assert (tmp_path / "c.json").is_file()


def test_a_part_that_went_wrong_is_told_by_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.json", made_up(2))
    the_part_leaves(monkeypatch, {1: tmp_path / "a.json"}, ends_with=1)
    assert main(["--all"]) == 1
    the_part_leaves(monkeypatch, {}, ends_with=2)
    assert main(["--all"]) == 2


@pytest.mark.parametrize("more", ["--only memory", "--contestants nginx", "--peers", "--features", "--from a.json"])
def test_all_chooses_by_itself(more: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--all", *more.split()])
    assert "--all" in capsys.readouterr().err
