"""Stored aliases: what was put is there, what was taken away is not, and each change has a number."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from proxy.ledger.models import ModelRow, ModelStore, stored_models
from proxy.ledger.schema import LedgerUnusable
from tests.ledger.receipts import locked

FAST = "fast (hedge) = openai/gpt-4o*3"


class Clock:
    now = 1e9

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


def test_what_was_stored_is_there_by_name_in_any_connection(path: str) -> None:
    with ModelStore(path, 1.0, Clock()) as store:
        assert (store.revision(), store.models()) == (0, [])
        fast = store.put("fast", FAST)
        assert fast == ModelRow("fast", FAST, 1e9 + 1, None, 1)
        big = store.put("big", "big = x/m")
        assert (big.revision, store.revision()) == (2, 2)
    with ModelStore(path, 1.0) as store:
        assert store.models() == [big, fast]
    assert stored_models(path) == [big, fast]


def test_another_text_for_one_takes_the_place_of_the_first(path: str) -> None:
    with ModelStore(path, 1.0, Clock()) as store:
        store.put("fast", FAST)
        again = store.put("fast", "fast = x/m")
        assert store.models() == [again] and again.changed_at == 1e9 + 2


def test_what_was_taken_away_is_gone_and_is_a_change_all_the_same(path: str) -> None:
    with ModelStore(path, 1.0, Clock()) as store:
        store.put("fast", FAST)
        assert store.remove("fast")
        assert (store.models(), store.revision()) == ([], 2)
        assert not store.remove("fast") and not store.remove("other")
        assert store.revision() == 2, "nothing has changed"
        back = store.put("fast", FAST)
        assert (back.revision, store.models()) == (3, [back])


def test_who_only_reads_makes_nothing_and_takes_what_there_is(path: str, tmp_path: Path) -> None:
    assert stored_models(path) == stored_models("") == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text").write_text("no database")
    older = sqlite3.connect(tmp_path / "older")
    older.execute("CREATE TABLE keys (name)")
    older.close()
    assert [stored_models(str(tmp_path / name)) for name in ("text", "older")] == [[], []]


def test_a_lock_is_waited_for_and_told(path: str) -> None:
    with ModelStore(path, 0.0) as store:
        store.put("fast", FAST)
        with locked(Path(path)):
            for change in (lambda: store.put("fast", "fast = x/m"), lambda: store.remove("fast")):
                with pytest.raises(LedgerUnusable, match="is locked"):
                    change()
            assert [row.text for row in store.models()] == [FAST], "whoever reads waits for nobody"
