"""What is missing is said, with its number; what is only on its way is not called missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger import schema
from proxy.ledger.audit import Audit, Loss, Missing, audit, missing
from proxy.ledger.reader import LedgerReader
from proxy.ledger.rows import entry_of
from proxy.ledger.run import ENDED, LOST, OBSERVED, RunFile
from proxy.ledger.schema import LedgerUnusable
from proxy.ledger.spill import Spill
from proxy.outcome import Receipt
from tests.ledger.filled import NOW, fill, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def run(path: Path, name: str, **columns: Any) -> None:
    """A row of the table of runs. As at its start, unless told otherwise."""
    connection = schema.connect(str(path), 5.0)
    put(connection, "runs", {"id": name, "started_at": NOW, "pid": 7, "observed": 0, "written": 0, **columns})
    connection.close()


@pytest.fixture
def running(path: Path) -> Iterator[RunFile]:
    """The run file of a process that runs: locked."""
    file = RunFile(f"{path}-run", 0.0, str(path))
    yield file
    file.close()


def killed(path: Path, name: str, observed: int) -> None:
    """Leave the run file of a process that was killed."""
    file = RunFile(f"{path}-run", 0.0, str(path))
    file.begin(name)[0] = observed
    file.close()


def spill(path: Path, name: str, *numbers: int) -> None:
    file = Spill(f"{path}-spill")
    file.append(entry_of(Receipt(f"{name}-{number}", NOW, "unix", "GET", "/"), name) for number in numbers)
    file.close()


def losses(found: Audit) -> dict[str, int | None]:
    return {loss.run: loss.lost for loss in found.losses}


def test_a_whole_ledger_is_called_whole(path: Path) -> None:
    fill(path, {"started_at": NOW, "attempts": 2}, {"started_at": NOW + 5})
    run(path, "r", ended_at=NOW + 9, observed=2, written=2, lost=0)
    found = audit(str(path))
    assert found.is_whole
    assert (found.exchanges, found.attempts, found.runs, found.lost) == (2, 2, 1, 0)
    assert (found.first, found.last) == (NOW, NOW + 5)
    assert found.size >= path.stat().st_size > 0


def test_an_empty_ledger_is_whole(path: Path) -> None:
    fill(path)
    found = audit(str(path))
    assert found.is_whole
    assert (found.exchanges, found.first, found.writer) == (0, None, None)


def test_a_run_that_was_killed_is_settled_by_its_run_file_until_the_next_start(path: Path) -> None:
    fill(path, {}, {})
    run(path, "r", observed=2, written=2)
    killed(path, "r", 12)
    found = audit(str(path))
    assert found.losses == [Loss("r", NOW, was_killed=True, observed=12, lost=10)]
    assert (found.lost, found.is_whole, found.writer) == (10, False, None)


def test_a_run_that_was_killed_in_time_lost_nothing(path: Path) -> None:
    fill(path, {}, {})
    run(path, "r", written=2)
    killed(path, "r", 2)
    assert audit(str(path)).is_whole


def test_what_waits_in_the_spill_file_is_not_lost_but_the_ledger_is_not_whole(path: Path) -> None:
    fill(path, {}, {})
    run(path, "r", written=2)
    killed(path, "r", 7)
    spill(path, "r", 3, 4, 5)
    spill(path, "older", 1)
    found = audit(str(path))
    assert losses(found) == {"r": 2}
    assert (found.spilled, found.unreadable, found.is_whole) == (4, 0, False)


def test_lines_of_the_spill_file_that_a_kill_cut_off_are_counted(path: Path) -> None:
    fill(path)
    spill(path, "r", 1, 2)
    with Path(f"{path}-spill").open("r+b") as file:
        file.seek(-9, 2)
        file.truncate()
    found = audit(str(path))
    assert (found.spilled, found.unreadable, found.is_whole) == (1, 1, False)


def test_what_the_next_start_has_settled_stands_in_the_table(path: Path) -> None:
    fill(path)
    run(path, "killed", observed=9, written=9, lost=4)
    run(path, "full", ended_at=NOW, observed=9, written=8, lost=1)
    run(path, "well", ended_at=NOW, observed=9, written=9, lost=0)
    killed(path, "well", 9)
    found = audit(str(path))
    assert {loss.run: loss.was_killed for loss in found.losses} == {"killed": True, "full": False}
    assert (losses(found), found.lost) == ({"killed": 4, "full": 1}, 5)


def test_a_run_that_nobody_settled_may_have_lost_anything(path: Path) -> None:
    fill(path)
    run(path, "old", written=3)
    found = audit(str(path))
    assert losses(found) == {"old": None}
    assert (found.lost, found.is_whole) == (0, False)


def test_losses_of_runs_before_a_moment_can_be_left_out(path: Path) -> None:
    fill(path)
    run(path, "old", started_at=NOW - 1, lost=3)
    run(path, "new", started_at=NOW, lost=4)
    assert losses(audit(str(path), since=NOW)) == {"new": 4}


def test_receipts_of_a_running_process_are_on_their_way(path: Path, running: RunFile) -> None:
    fill(path, {}, {})
    run(path, "r", started_at=NOW - 99, written=2)
    running.begin("r")[0] = 9
    spill(path, "r", 3)
    found = audit(str(path), since=NOW)
    assert found.writer is not None
    assert (found.writer.run, found.writer.observed, found.underway) == ("r", 9, 6)
    assert losses(found) == {}
    assert (found.spilled, found.is_whole) == (1, False)


def test_the_half_line_that_a_running_process_writes_is_no_damage(path: Path, running: RunFile) -> None:
    fill(path)
    run(path, "r")
    running.begin("r")
    Path(f"{path}-spill").write_bytes(b"0123abcd {")
    assert audit(str(path)).is_whole


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("DELETE FROM attempts WHERE number = 2", "exchanges that have other attempts than they say: 1"),
        ("DELETE FROM exchanges WHERE id = 'r-1'", "attempts that belong to no exchange: 2"),
        ("UPDATE runs SET written = 1", "runs that have more rows than they wrote: 1"),
    ],
)
def test_rows_that_belong_together_are_missed(path: Path, script: str, sentence: str) -> None:
    fill(path, {"attempts": 2}, {})
    run(path, "r", ended_at=NOW, observed=2, written=2, lost=0)
    assert audit(str(path)).is_whole
    connection = schema.connect(str(path), 5.0)
    connection.execute(script)
    connection.close()
    found = audit(str(path))
    assert found.damages == [sentence]
    assert not found.is_whole


def test_what_was_pruned_is_not_missed(path: Path) -> None:
    fill(path, {}, {})
    run(path, "r", ended_at=NOW, observed=9, written=9, lost=0)
    assert audit(str(path)).is_whole


def test_a_damaged_file_is_found(path: Path) -> None:
    fill(path, *[{"detail": "x" * 500, "attempts": 1}] * 200)
    run(path, "r", ended_at=NOW, observed=200, written=200, lost=0)
    with path.open("r+b") as file:
        file.seek(12 * 4096)
        file.write(b"\xff" * 4096)
    try:
        damages = audit(str(path)).damages
    except LedgerUnusable as error:  # too bad for any answer
        damages = [str(error)]
    assert damages


def test_what_is_no_ledger_is_refused(path: Path) -> None:
    with pytest.raises(LedgerUnusable, match="there is no ledger"):
        audit(str(path))
    assert not path.exists()
    assert not Path(f"{path}-run").exists()


# --- what a running process, or one that never reached the database, has lost -----------------------------------------


def test_what_a_running_process_lost_is_lost_and_not_on_its_way(path: Path, running: RunFile) -> None:
    fill(path, {}, {})
    run(path, "r", started_at=NOW - 99, written=2)
    counter = running.begin("r")
    counter[OBSERVED], counter[LOST] = 9, 3
    spill(path, "r", 3)
    found = audit(str(path), since=NOW)
    assert (found.underway, found.lost, found.is_whole) == (3, 3, False)
    [loss] = found.losses
    assert (loss.run, loss.is_running, loss.was_killed, loss.observed) == ("r", True, False, 9)


def test_a_run_that_has_no_row_yet_is_known_by_its_file(path: Path) -> None:
    fill(path)
    for ended, was_killed in ((0, True), (int(NOW * 1e6), False)):
        file = RunFile(f"{path}-run", 0.0, str(path))
        counter = file.begin("r")
        counter[OBSERVED], counter[LOST] = 9, 3
        found = audit(str(path))
        assert (found.underway, losses(found)) == (6, {"r": 3})
        counter[ENDED] = ended
        del counter  # the map of the file has its lock, too
        file.close()
        [loss] = audit(str(path)).losses
        assert (loss.lost, loss.was_killed, loss.until) == (9, was_killed, None if was_killed else NOW)


def test_a_receipt_of_the_spill_file_that_has_its_row_does_not_wait(path: Path) -> None:
    fill(path, {"id": "r-3"})
    run(path, "r", written=1)
    killed(path, "r", 4)
    spill(path, "r", 3, 4, 5)
    found = audit(str(path))
    assert (found.spilled, losses(found)) == (2, {"r": 1})


# --- what sums leave out ----------------------------------------------------------------------------------------------


def gone(path: Path, since: float | None = None, until: float | None = None) -> Missing:
    with LedgerReader(str(path)) as reader:
        return missing(reader, since, until)


def test_nothing_is_missing_from_a_whole_ledger(path: Path) -> None:
    fill(path, {})
    assert gone(path) == Missing(0, 0, was_killed=True, is_exact=True, is_running=False)


def test_receipts_that_wait_are_those_begun_in_the_time_asked_for(path: Path) -> None:
    fill(path)
    file = Spill(f"{path}-spill")
    file.append(entry_of(Receipt(f"r-{at}", NOW + at, "unix", "GET", "/"), "r") for at in range(5))
    file.close()
    assert [gone(path, *span).spilled for span in ((None, None), (NOW + 1, None), (NOW + 1, NOW + 3))] == [5, 4, 2]


def test_losses_count_where_their_run_may_have_been_in_that_time(path: Path) -> None:
    fill(path)
    run(path, "killed", started_at=NOW, lost=1)  # and ended before the next began
    run(path, "full", started_at=NOW + 10, ended_at=NOW + 15, lost=2)
    run(path, "last", started_at=NOW + 20, lost=4)
    spans = {(None, None): 7, (NOW + 10, None): 6, (NOW + 9, NOW + 20): 3, (NOW + 15, NOW + 20): 0, (NOW + 99, None): 4}
    assert {span: gone(path, *span).lost for span in spans} == spans
    assert not gone(path).was_killed
    assert gone(path, NOW + 20).was_killed


def test_what_nobody_settled_is_no_number(path: Path) -> None:
    fill(path)
    run(path, "old", written=3)
    assert gone(path)[1:4] == (0, True, False)


def test_a_running_process_is_told(path: Path, running: RunFile) -> None:
    fill(path)
    running.begin("r")[LOST] = 5
    assert gone(path) == Missing(0, 5, was_killed=False, is_exact=True, is_running=True)
