"""The pauses of the ledger's thread.

Lives here: tests of Naps. May not live here: what a busy loop sees of them (bench.ledger measures that).
"""

from __future__ import annotations

import pytest

from proxy.ledger import naps
from proxy.ledger.naps import Naps


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(naps.time, "sleep", taken.append)
    return taken


@pytest.mark.parametrize(("groups", "expected"), [(0, 12), (20, 12), (39, 12), (40, 6), (85, 3)])
def test_where_many_groups_wait_there_is_one_nap_for_several(slept: list[float], groups: int, expected: int) -> None:
    rest = Naps()
    rest.is_on = True
    rest.begin(groups)
    for _ in range(12):
        rest.take()
    assert len(slept) == expected
    assert set(slept) == {0.0005}


def test_nobody_sleeps_while_they_are_off(slept: list[float]) -> None:
    rest = Naps()
    rest.take()
    rest.is_on = True
    rest.take()
    rest.is_on = False
    rest.take()
    assert len(slept) == 1
