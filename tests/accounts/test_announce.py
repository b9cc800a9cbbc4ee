"""Changes are told to a running server, if there is a way to."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from proxy.accounts.announce import announce


def test_the_ledgers_counters_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    counters = ModuleType("proxy.ledger.counters")
    counters.__spec__ = ModuleSpec(counters.__name__, None)
    counters.bump = told.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, counters.__name__, counters)
    announce("a.db")
    assert told == ["a.db"]


def test_without_them_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    announce("a.db")
