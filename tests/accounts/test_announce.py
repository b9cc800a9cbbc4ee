"""Changes are told to a running server, if there is one."""

from __future__ import annotations

from pathlib import Path

from proxy.accounts.announce import announce
from proxy.ledger.counters import Counters, beside


def test_the_counters_of_the_ledger_are_told(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    counters = Counters(beside(path), lambda *_, **__: None, 1)
    before = counters.generation
    announce(path)
    assert counters.generation != before


def test_where_no_server_ever_ran_nobody_is_told(tmp_path: Path) -> None:
    announce(str(tmp_path / "a.db"))
    assert list(tmp_path.iterdir()) == []
