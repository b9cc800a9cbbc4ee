"""A database that cannot be used for now when the process starts: traffic does not wait for it, and nothing is lost."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from proxy.ledger import run, schema
from proxy.ledger.audit import audit
from proxy.ledger.run import RunFile, look
from proxy.ledger.schema import LedgerUnusable
from proxy.ledger.writer import Ledger
from tests.ledger.receipts import (
    RUN,
    SECONDS,
    FullDisk,
    Heard,
    a_ledger,
    a_receipt,
    ids,
    is_sound,
    locked,
    the_run,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    assert a_ledger(path, run="before").close(0)
    return path


def observe(ledger: Ledger, *numbers: int, run: str = RUN) -> None:
    for number in numbers:
        ledger.observe(a_receipt(number, run))


def names(*numbers: int) -> list[str]:
    return [f"{RUN}-{number}" for number in numbers]


def the_look(path: Path) -> run.Run:
    found = look(f"{path}-run")
    assert found is not None
    return found


def killed(ledger: Ledger) -> None:
    """Leave its files as a kill would."""
    book = ledger._book
    assert book is not None
    ledger._counter = [0] * 4
    ledger._losses.count_in(ledger._counter)
    del book.counter
    book.close()


def account(path: Path, name: str = RUN) -> tuple[int, int, int]:
    row = the_run(path, name)
    return row["observed"], row["written"], row["lost"]


def test_a_locked_database_is_no_reason_not_to_start(path: Path) -> None:
    heard = Heard()
    with locked(path):
        ledger = a_ledger(path, heard)
        assert heard.notes == [
            (
                "warn",
                f"the ledger cannot be written ({path} is locked by another program: end its transaction): "
                f"receipts go to {path}-spill",
                {"path": str(path), "waiting": 0, "lost": 0},
            )
        ]
        assert ledger.turn() is False
        assert not ledger.is_well  # though nothing waits
        observe(ledger, 1, 2)
        assert ledger.turn() is False
        assert (ledger.waiting, ledger.lost) == (0, 0)
        assert the_look(path)[:4] == (RUN, 2, os.getpid(), True)
        assert len(Path(f"{path}-spill").read_bytes().splitlines()) == 2
    observe(ledger, 3)
    while ledger.turn():
        pass
    assert sorted(ids(path)) == names(1, 2, 3)
    assert heard.levels == ["warn", "info"]
    assert ledger.close(0) is True
    assert account(path) == (3, 3, 0)
    assert the_run(path)["started_at"] > 1e9
    assert audit(str(path)).is_whole


def test_the_thread_reaches_it_without_anybody_calling(path: Path) -> None:
    heard = Heard()
    with locked(path):
        ledger = a_ledger(path, heard, flush_seconds=0.0)
        ledger.start()
        observe(ledger, 1)
        heard.wait()
    heard.wait()
    assert heard.levels == ["warn", "info"]
    assert ledger.close(SECONDS) is True
    assert (ids(path), account(path)) == (names(1), (1, 1, 0))


def test_what_the_runs_before_left_is_settled_when_it_is_reached(path: Path) -> None:
    ledger = a_ledger(path, run="killed")
    observe(ledger, 1, run="killed")
    ledger.turn()
    observe(ledger, 2, 3, run="killed")
    killed(ledger)
    heard = Heard()
    with locked(path):
        ledger = a_ledger(path, heard, run="killed too")  # and never reaches it
        observe(ledger, 1, 2, run="killed too")
        ledger.turn()
        observe(ledger, 3, run="killed too")
        killed(ledger)
        ledger = a_ledger(path, heard)
        observe(ledger, 1)
        ledger.turn()
    heard.notes.clear()
    while ledger.turn():
        pass
    assert account(path, "killed") == (3, 1, 2)
    assert account(path, "killed too") == (3, 2, 1)
    assert the_run(path, "killed too")["started_at"] > 1e9
    assert the_run(path, "killed too")["ended_at"] is None
    assert [(message, more["run"]) for _, message, more in heard.notes[:2]] == [
        ("the run before did not end its ledger (killed?): 1 of its receipts are missing", "killed too"),
        ("the run before did not end its ledger (killed?): 2 of its receipts are missing", "killed"),
    ]
    assert heard.notes[2][1] == "the ledger is written again"
    assert ledger.close(0)
    assert account(path) == (1, 1, 0)
    assert RunFile(f"{path}-run", 0.0, str(path)).unsettled[0].run == RUN
    assert os.path.getsize(f"{path}-run") == 96


def test_one_that_ends_before_it_reached_the_database_is_not_called_killed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    disk = FullDisk(monkeypatch, path)
    ledger = a_ledger(path, heard)
    observe(ledger, 1, 2)
    assert ledger.close(0) is False
    assert heard.levels == ["warn", "error"]
    assert heard.notes[1][1].startswith(f"2 receipts have no row in {path} and are lost ([Errno 28]")
    disk.free_the_spill()
    disk.free_the_database()
    a_ledger(path, heard, "after").close(0)
    assert account(path) == (2, 0, 2)
    assert the_run(path)["ended_at"] > 1e9
    assert heard.notes[-1][1] == "the run before ended without its ledger: 2 of its receipts are missing"


def test_ending_before_it_was_reached_and_without_a_receipt_says_nothing(path: Path) -> None:
    heard = Heard()
    with locked(path):
        assert a_ledger(path, heard).close(0) is True
    assert heard.levels == ["warn"]
    heard = Heard()
    assert a_ledger(path, heard, "after").close(0)
    assert heard.notes == []
    assert audit(str(path)).is_whole


def test_the_end_reaches_what_the_start_did_not(path: Path) -> None:
    with locked(path):
        ledger = a_ledger(path)
        observe(ledger, 1)
    assert ledger.close(0) is True
    assert (ids(path), account(path)) == (names(1), (1, 1, 0))


@pytest.mark.parametrize("has_run_file", [True, False])
def test_a_new_ledger_on_a_full_disk_begins_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_run_file: bool
) -> None:
    path = tmp_path / "new.db"
    connect = schema.connect

    def refuse(*_: object) -> sqlite3.Connection:
        with schema.told(str(path)):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(schema, "connect", refuse)
    if not has_run_file:
        monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    heard = Heard()
    ledger = a_ledger(path, heard)
    assert "No space left on device" in heard.notes[0][1]
    observe(ledger, 1, 2)
    ledger.turn()
    found = look(f"{path}-run")
    assert (found.observed if found else None) == (2 if has_run_file else None)
    monkeypatch.undo()
    monkeypatch.setattr(schema, "connect", connect)
    while ledger.turn():
        pass
    assert the_look(path)[:2] == (RUN, 2)
    observe(ledger, 3)
    assert the_look(path).observed == 3
    assert ledger.close(0) is True
    assert (sorted(ids(path)), account(path)) == (names(1, 2, 3), (3, 3, 0))
    assert is_sound(path)


def test_no_row_is_written_before_that_of_its_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run, "begin", refuse)
    ledger = a_ledger(path)
    observe(ledger, 1)
    ledger.turn()
    assert (ids(path), ledger.waiting, ledger.is_well) == ([], 0, False)
    monkeypatch.undo()
    while ledger.turn():
        pass
    assert ledger.close(0) is True
    assert (ids(path), account(path)) == (names(1), (1, 1, 0))


def test_a_replay_that_fails_for_now_goes_on_later(path: Path) -> None:
    ledger = a_ledger(path, queue=0)
    observe(ledger, 1, 2)
    killed(ledger)
    connection = sqlite3.connect(path, isolation_level=None)
    heard = Heard()
    connection.execute("BEGIN IMMEDIATE")  # it can be read, not written
    ledger = a_ledger(path, heard, "after")
    assert heard.levels == ["warn"]
    connection.close()
    while ledger.turn():
        pass
    assert sorted(ids(path)) == names(1, 2)
    assert ledger.close(0) is True
    assert account(path) == (2, 2, 0)


def test_what_does_not_go_away_is_refused(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerUnusable, match="is no SQLite database"):
        a_ledger(path)
    assert the_look(path).run == "before"


def test_what_does_not_go_away_is_told_when_it_is_seen_later(path: Path) -> None:
    heard = Heard()
    with locked(path):
        ledger = a_ledger(path, heard)
    for each in path.parent.glob("a.db*"):
        if not each.name.endswith(("-run", "-spill")):
            each.unlink()
    path.write_bytes(b"no database" * 1000)
    observe(ledger, 1)
    ledger._book._disconnect()  # type: ignore[union-attr]
    ledger._book._connection = None  # type: ignore[union-attr]
    ledger.turn()
    ledger.turn()
    assert [message for level, message, _ in heard.notes if level == "error"] == [
        f"{path} is no SQLite database: choose another path, or move that file away"
    ]
    assert ledger.close(0) is True  # it is spilled


def test_while_it_runs_a_lock_is_waited_for_half_a_flush(path: Path) -> None:
    ledger = a_ledger(path, lock_seconds=1.0, flush_seconds=0.2)
    assert ledger._book is not None and ledger._book._connection is not None
    assert ledger._book._connection.execute("PRAGMA busy_timeout").fetchone() == (100,)
    assert ledger.close(0)
