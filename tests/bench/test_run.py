"""A whole run, as somebody starts it: the smallest there is, without a proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.test_machine import pytestmark as linux
from tests.rules.sources import ROOT

pytestmark = [linux, pytest.mark.slow]


def test_a_run_writes_its_report_and_its_record(tmp_path: Path) -> None:
    # In a process of its own: a run moves itself to one core.
    options = ["--quick", "--rounds", "1", "--only", "unary-1k", "--contestants", "direct,splice"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options, "--json", "a.json", "--report", "report"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "round 1 of 1, unary-1k" in done.stderr
    document = json.loads((tmp_path / "a.json").read_text())
    assert document == json.loads((tmp_path / "report" / "report.json").read_text())
    assert document["runs"][0]["command"] == f"scripts/bench {' '.join(options)}"
    assert document["runs"][0]["machine"]["cores"] == len(os.sched_getaffinity(0)), "not those that it keeps to"
    costs = {each["contestant"]: each["figures"]["cpu_us"]["median"] for each in document["results"]}
    assert costs["splice"] > costs["direct"] == 0
    assert "cpu-unary-1k.svg" in (tmp_path / "report" / "report.md").read_text()
