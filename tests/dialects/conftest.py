"""The table of recorded answers whose usage was metered, at the end of pytest's output.

Lives here: the table. May not live here: what it counts (test_meter_recorded)."""

from __future__ import annotations

from collections import Counter

import pytest

Metered = Counter[tuple[str, str, bool]]  # provider, API, whether a usage was reported -> answers

_METERED = pytest.StashKey[Metered]()


@pytest.fixture
def metered(pytestconfig: pytest.Config) -> Metered:
    """Counts a recorded answer whose figures were right."""
    return pytestconfig.stash.setdefault(_METERED, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(_METERED, Counter())
    if counts:
        terminalreporter.section("recorded answers metered: with a reported usage + without one")
        for line in table(counts):
            terminalreporter.write_line(line)


def table(counts: Metered) -> list[str]:
    """A row for each provider, a column for each API, and the sums."""
    providers, apis = sorted({key[0] for key in counts}), sorted({key[1] for key in counts})
    rows = [["", *apis, "all"]]
    for provider in [*providers, "all"]:
        rows.append([provider, *(_cell(counts, provider, api) for api in [*apis, "all"])])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]


def _cell(counts: Metered, provider: str, api: str) -> str:
    with_usage = without = 0
    for (each_provider, each_api, has_usage), number in counts.items():
        if provider in (each_provider, "all") and api in (each_api, "all"):
            with_usage += number * has_usage
            without += number * (not has_usage)
    return f"{with_usage}+{without}" if with_usage or without else "."
