"""Every receipt becomes a row, once; and where it cannot be one yet, it is not lost. Without a thread: turn by turn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger.audit import audit
from proxy.ledger.book import BATCH
from proxy.ledger.run import look
from proxy.ledger.schema import LedgerUnusable
from proxy.ledger.writer import Ledger, LedgerOptions
from tests.ledger.receipts import (
    RUN,
    FullDisk,
    Heard,
    a_ledger,
    a_receipt,
    full_receipt,
    ids,
    is_sound,
    locked,
    rows,
    the_run,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def spill_of(path: Path) -> Path:
    return Path(f"{path}-spill")


def observe(ledger: Ledger, *numbers: int, **more: Any) -> None:
    for number in numbers:
        ledger.observe(a_receipt(number, **more))


def names(*numbers: int) -> list[str]:
    return [f"{RUN}-{number}" for number in numbers]


@contextmanager
def full(ledger: Ledger) -> Iterator[None]:
    """The database cannot grow by a page."""
    assert ledger._book is not None
    connection = ledger._book._connection
    [pages] = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        connection.execute("PRAGMA max_page_count = 1000000")


# -- well --------------------------------------------------------------------------------------------------------------


def test_a_receipt_becomes_a_row(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    ledger.observe(full_receipt())
    assert (ledger.observed, ledger.waiting) == (1, 1)
    assert ledger.turn() is False
    [row] = rows(path)
    assert (row["id"], row["run"], row["key"], row["output_tokens"]) == (f"{RUN}-1", RUN, "billing", 300)
    assert [row["number"] for row in rows(path, "SELECT * FROM attempts")] == [1, 2]
    assert (ledger.waiting, ledger.lost, ledger.spilled_bytes, ledger.is_well) == (0, 0, 0, True)
    assert ledger.close(0)
    assert heard.notes == []


def test_all_that_waits_is_written_in_order_and_in_bounded_transactions(path: Path) -> None:
    ledger = a_ledger(path)
    assert ledger._book is not None
    sizes: list[int] = []

    def see(statement: str) -> None:
        if statement.startswith("BEGIN"):
            sizes.append(0)
        elif statement.startswith("INSERT INTO exchanges"):
            sizes[-1] += statement.count("),(") + 1

    ledger._book._connection.set_trace_callback(see)
    numbers = range(1, 3 * BATCH + 50)
    observe(ledger, *numbers)
    ledger.turn()
    assert ids(path) == names(*numbers)
    assert sizes == [BATCH, BATCH, BATCH, 49]
    assert ledger.close(0)


def test_a_turn_of_nothing_writes_nothing(path: Path) -> None:
    ledger = a_ledger(path)
    assert ledger._book is not None
    statements: list[str] = []
    ledger._book._connection.set_trace_callback(statements.append)
    assert ledger.turn() is False
    assert statements == []
    assert ledger.close(0)


def test_closing_writes_what_waits_and_ends_the_run(path: Path) -> None:
    ledger = a_ledger(path)
    observe(ledger, 1)
    ledger.turn()
    observe(ledger, 2, 3)
    assert ledger.close(0) is True
    assert ledger.close(0) is True  # again: it is closed
    assert ids(path) == names(1, 2, 3)
    run = the_run(path)
    assert (run["observed"], run["written"], run["lost"]) == (3, 3, 0)
    assert run["ended_at"] >= run["started_at"] > 1e9
    assert not spill_of(path).exists()


def test_what_was_observed_before_the_file_was_open_is_written_and_counted(path: Path) -> None:
    ledger = Ledger(LedgerOptions(str(path)), RUN, "1", Heard())
    observe(ledger, 1, 2)
    ledger.open()
    left = look(f"{path}-run")
    assert left is not None
    assert left.observed == 2
    observe(ledger, 3)
    assert ledger.close(0)
    assert ids(path) == names(1, 2, 3)
    assert the_run(path)["observed"] == 3


def test_what_comes_after_the_end_is_counted_and_told_once(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    assert ledger.close(0)
    observe(ledger, 1, 2)
    assert ledger.lost == 2
    [(level, message, _)] = heard.notes
    assert level == "error"
    assert "it is not open" in message


@pytest.mark.parametrize("value", [":memory:", "", "none/a.db"])
def test_a_ledger_that_cannot_be_opened_says_so_and_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(LedgerOptions(value), RUN, "1", Heard())
    with pytest.raises(LedgerUnusable):
        ledger.open()
    observe(ledger, 1)
    assert ledger.close(0) is False
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_is_in_use_is_refused_and_not_disturbed(path: Path) -> None:
    ledger = a_ledger(path)
    observe(ledger, 1)
    with pytest.raises(LedgerUnusable, match="in use by another llm-proxy"):
        a_ledger(path, run="run1")
    assert ledger.close(0)
    a_ledger(path, run="run1").close(0)
    assert ids(path) == names(1)


# -- the queue is full -------------------------------------------------------------------------------------------------


def test_a_full_queue_spills_and_every_receipt_has_its_row_once(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard, queue=10)
    observe(ledger, *range(1, 26))
    assert ledger.waiting == 10
    assert len(spill_of(path).read_bytes().splitlines()) == 15
    assert ledger.spilled_bytes == spill_of(path).stat().st_size
    assert not ledger.is_well
    assert heard.notes == [
        (
            "warn",
            f"the ledger cannot be written (more receipts wait than its queue holds): receipts go to {path}-spill",
            {"path": str(path), "waiting": 10, "lost": 0},
        )
    ]
    assert ledger.turn() is True  # a piece of the spill file was replayed: look again
    assert ledger.turn() is False
    assert sorted(ids(path)) == sorted(names(*range(1, 26)))
    assert heard.notes[1:] == [("info", "the ledger is written again", {"path": str(path), "waiting": 0, "lost": 0})]
    assert (ledger.is_well, ledger.spilled_bytes) == (True, 0)
    assert ledger.close(0)
    assert (the_run(path)["written"], the_run(path)["lost"]) == (25, 0)


def test_a_large_spill_file_is_replayed_between_the_rows_that_come_meanwhile(path: Path) -> None:
    ledger = a_ledger(path, queue=10)
    observe(ledger, *range(3 * BATCH))
    turns = 0
    while ledger.turn():
        turns += 1
        observe(ledger, 10_000 + turns)
    assert turns == 3
    assert len(ids(path)) == 3 * BATCH + 3
    assert ledger.close(0)


# -- the database refuses ----------------------------------------------------------------------------------------------


def test_a_locked_database_costs_nothing_but_time(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    observe(ledger, 1)
    ledger.turn()
    with locked(path):
        for number in (2, 3, 4):
            observe(ledger, number)
            assert ledger.turn() is False
            assert ledger.waiting == 0
        assert len(spill_of(path).read_bytes().splitlines()) == 3
    assert [message for _, message, _ in heard.notes] == [
        f"the ledger cannot be written (database is locked): receipts go to {path}-spill"
    ]
    observe(ledger, 5)
    while ledger.turn():
        pass
    assert sorted(ids(path)) == names(1, 2, 3, 4, 5)
    assert heard.levels == ["warn", "info"]
    assert ledger.close(0)
    assert (the_run(path)["written"], the_run(path)["lost"]) == (5, 0)


def test_after_a_lock_the_spill_file_is_replayed_without_a_new_receipt(path: Path) -> None:
    ledger = a_ledger(path)
    with locked(path):
        observe(ledger, 1)
        ledger.turn()
        assert ledger.turn() is False
    assert ledger.turn() is True
    assert ids(path) == names(1)
    assert ledger.close(0)


def test_the_lock_is_waited_for_once_in_a_turn(path: Path) -> None:
    """Each try may take `lock_seconds`, and fifty batches may wait."""
    ledger = a_ledger(path)
    assert ledger._book is not None
    tries: list[str] = []
    ledger._book._connection.set_trace_callback(tries.append)
    observe(ledger, *range(5 * BATCH))
    with locked(path):
        ledger.turn()
    assert tries == ["BEGIN IMMEDIATE"]
    assert len(spill_of(path).read_bytes().splitlines()) == 5 * BATCH
    assert ledger.close(0)
    assert len(ids(path)) == 5 * BATCH


def test_a_database_that_is_still_locked_at_the_end_is_filled_by_the_next_start(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    observe(ledger, 1)
    with locked(path):
        assert ledger.close(0) is True  # nothing is lost
    told = f"the ledger was not written to the end (database is locked): {path}-spill has the rest"
    assert heard.notes == [("warn", told, {})]
    assert the_run(path)["ended_at"] is None
    a_ledger(path, heard, "run1").close(0)
    assert ids(path) == names(1)
    assert the_run(path)["lost"] == 0
    assert the_run(path)["ended_at"] is not None  # nobody says that it was killed
    assert heard.notes[1][:2] == ("info", "the run before ended without its ledger: none of its receipts are missing")
    assert not spill_of(path).exists()


def test_a_full_disk_is_no_end(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    with full(ledger):
        observe(ledger, *range(500), tags="x" * 500)
        assert ledger.turn() is False
        assert (ledger.waiting, ledger.lost) == (0, 0)
        assert "database or disk is full" in heard.notes[0][1]
    assert sorted(ids(path)) == []
    while ledger.turn():
        pass
    assert len(ids(path)) == 500
    assert heard.levels == ["warn", "info"]
    assert ledger.close(0)
    assert is_sound(path)


def test_when_neither_file_takes_anything_memory_does_and_then_it_is_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard, queue=10)
    disk = FullDisk(monkeypatch, path)
    observe(ledger, *range(1, 6))
    assert ledger.turn() is False
    assert (ledger.waiting, ledger.lost) == (5, 0)
    observe(ledger, *range(6, 16))
    assert ledger.turn() is False
    assert (ledger.waiting, ledger.lost) == (15, 0)  # those held, and a queue full
    observe(ledger, *range(16, 20))
    assert (ledger.waiting, ledger.lost) == (15, 4)
    assert heard.levels == ["error", "error"]
    assert heard.notes[0][1] == (
        "neither the ledger nor its spill file can be written ([Errno 28] No space left on device): "
        "receipts wait in memory"
    )
    why = "[Errno 28] No space left on device"
    assert heard.notes[1] == ("error", f"the ledger loses receipts ({why}): 1 so far", {"lost": 1})
    left = look(f"{path}-run")
    assert left is not None
    assert (left.observed, left.lost, left.written) == (19, 4, 0)
    disk.free_the_spill()
    assert ledger.turn() is False
    assert (heard.levels, ledger.waiting) == (["error", "error", "warn"], 0)
    disk.free_the_database()
    while ledger.turn():
        pass
    assert sorted(ids(path)) == sorted(names(*range(1, 16)))
    told = "the ledger is written again; 4 receipts are lost"
    assert heard.notes[-1] == ("warn", told, {"path": str(path), "waiting": 0, "lost": 4})
    assert ledger.close(0) is False
    assert heard.notes[-1][:2] == ("error", f"4 receipts have no row in {path} and are lost ({why})")
    assert (the_run(path)["observed"], the_run(path)["written"], the_run(path)["lost"]) == (19, 15, 4)


def test_at_the_end_of_a_full_disk_the_next_start_says_what_is_missing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    disk = FullDisk(monkeypatch, path)
    observe(ledger, 1, 2)
    assert ledger.close(0) is False
    why = "[Errno 28] No space left on device"
    assert heard.notes == [("error", f"2 receipts have no row in {path} and are lost ({why})", {"lost": 2})]
    left = look(f"{path}-run")
    assert left is not None
    assert (left.observed, left.lost, left.ended_at is None) == (2, 2, False)
    disk.free_the_spill()
    disk.free_the_database()
    a_ledger(path, heard, "run1").close(0)
    assert the_run(path)["lost"] == 2
    assert heard.notes[-1][:2] == ("warn", "the run before ended without its ledger: 2 of its receipts are missing")


def test_a_removed_database_is_told_and_its_receipts_are_kept_for_the_next_start(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    observe(ledger, 1)
    ledger.turn()
    for each in path.parent.iterdir():
        each.unlink()
    observe(ledger, 2)
    ledger.turn()
    assert "its file was removed or replaced: restart llm-proxy" in heard.notes[0][1]
    assert ledger.close(0) is True
    heard = Heard()
    assert a_ledger(path, heard, "run1").close(0)
    assert ids(path) == names(2)
    run = the_run(path)  # the row that went with the file was written, and is not lost
    assert (run["observed"], run["written"], run["lost"]) == (2, 2, 0)
    assert run["ended_at"] >= run["started_at"] > 1e9
    assert heard.levels == ["info"]
    assert audit(str(path)).is_whole


# -- receipts that are not as they should be ---------------------------------------------------------------------------


def test_hostile_values_become_rows(path: Path) -> None:
    ledger = a_ledger(path, queue=3)
    for number, value in enumerate(["\ud800", "\0", "'); DROP TABLE exchanges; --", "x" * 100_000, "\U0010ffff"]):
        observe(ledger, number, tags=value, bytes_in=2**80)
    while ledger.turn():
        pass
    stored = {row["id"]: row["tags"] for row in rows(path)}
    assert list(stored.values()) == ["?", "\0", "'); DROP TABLE exchanges; --", "x" * 100_000, "\U0010ffff"]
    assert ledger.close(0)


@pytest.mark.sources
def test_a_receipt_that_is_broken_costs_itself(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    observe(ledger, 1)
    observe(ledger, 2, ended_by=None)
    observe(ledger, 3)
    ledger.turn()
    assert ids(path) == names(1, 3)
    assert ledger.lost == 1
    assert heard.notes[0][0] == "error"
    assert heard.notes[0][1].startswith("the ledger loses receipts (no row could be made of one: AttributeError: ")
    assert ledger.close(0) is False
    assert the_run(path)["lost"] == 1


@pytest.mark.sources
def test_a_broken_receipt_that_finds_the_queue_full_reaches_nobody(path: Path) -> None:
    ledger = a_ledger(path, queue=0)
    observe(ledger, 1, ended_by=None)
    assert ledger.lost == 1
    observe(ledger, 2)
    while ledger.turn():
        pass
    assert ids(path) == names(2)
    ledger.close(0)


# -- retention ---------------------------------------------------------------------------------------------------------


def test_old_rows_are_pruned_by_the_way_and_it_is_told_once_a_minute(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard, days=1.0)
    observe(ledger, *range(450))  # they began in 2001
    observe(ledger, 1000, started_at=4e9)
    turns = 1
    while ledger.turn():
        turns += 1
    assert turns > 3
    assert ids(path) == names(1000)
    assert heard.notes == [("info", "the ledger's 450 oldest exchanges were removed", {"exchanges": 450})]
    observe(ledger, 1)
    ledger.turn()
    assert ids(path) == names(1000, 1)  # not at every turn
    ledger._look_at = 0.0
    while ledger.turn():
        pass
    assert ids(path) == names(1000)
    assert len(heard.notes) == 1
    ledger._look_at = ledger._tell_at = 0.0  # a minute later
    ledger.turn()
    assert heard.notes[1:] == [("info", "the ledger's 1 oldest exchanges were removed", {"exchanges": 1})]
    assert ledger.close(0)
    assert (the_run(path)["written"], the_run(path)["lost"]) == (452, 0)


def test_a_file_that_is_too_large_gets_smaller(path: Path) -> None:
    ledger = a_ledger(path, max_bytes=500_000)
    observe(ledger, *range(1000), tags="x" * 1000)
    while ledger.turn():
        pass
    assert ledger.close(0)
    assert 300_000 < os.path.getsize(path) <= 500_000
    left = ids(path)
    assert left == names(*range(1000 - len(left), 1000))
    assert is_sound(path)


def test_without_a_limit_nothing_is_pruned(path: Path) -> None:
    ledger = a_ledger(path)
    observe(ledger, 1, started_at=0.0)
    ledger.turn()
    ledger.turn()
    assert ids(path) == names(1)
    assert ledger.close(0)


def test_pruning_that_fails_is_told_and_tried_again(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard, days=1.0)
    assert ledger._book is not None
    observe(ledger, 1)
    ledger._look_at = float("inf")
    ledger.turn()
    ledger._look_at = 0.0
    with locked(path):
        assert ledger.turn() is False
    assert heard.levels == ["warn"]
    while ledger.turn():
        pass
    assert (ids(path), heard.levels) == ([], ["warn", "info", "info"])
    assert ledger.close(0)
