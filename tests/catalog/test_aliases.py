"""What an alias is where nothing is said of it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from proxy.catalog.aliases import Alias, Choice
from proxy.catalog.snapshot import Snapshot


def test_what_nobody_says_is_as_for_everything() -> None:
    alias = Alias("fast", ((Choice("openai", "gpt-4o"),),))
    assert (alias.retries, alias.seconds, alias.hedges, alias.resumes, alias.cost) == (None, {}, False, False, None)
    assert alias.groups[0][0] == Choice("openai", "gpt-4o", weight=1, window=0)


def test_it_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Alias("fast", ()).retries = 3  # type: ignore[misc]


def test_a_snapshot_has_them_by_name() -> None:
    alias = Alias("fast", ())
    assert Snapshot({}, aliases={"fast": alias}).aliases["fast"] is alias
    assert Snapshot({}).aliases == {}
