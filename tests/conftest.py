"""What every test may need.

Lives here: the recorded traffic beside the checkout, where it is at hand, and the line that says so where it is not.
May not live here: fakes (tests/fakes), anything that one room alone needs (its own conftest).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT.parent / "shared" / "fixtures"


def recorded() -> list[dict[str, Any]]:
    """The entries of the recordings' manifest, for parametrisation; none where the folder is not at hand."""
    manifest = FIXTURES / "manifest.json"
    if not manifest.is_file():
        return []
    entries: list[dict[str, Any]] = json.loads(manifest.read_text())["fixtures"]
    return entries


@pytest.fixture(scope="session")
def fixtures_dir() -> Path | None:
    """The folder of recorded provider traffic, or None. Never the only cover of anything (DESIGN 13)."""
    return FIXTURES if (FIXTURES / "manifest.json").is_file() else None


@pytest.fixture(scope="session")
def manifest() -> list[dict[str, Any]]:
    """As `recorded`."""
    return recorded()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not (FIXTURES / "manifest.json").is_file():
        terminalreporter.write_line("Recorded traffic (../shared/fixtures) is not at hand: own transcripts only.")
