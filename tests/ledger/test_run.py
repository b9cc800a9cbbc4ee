"""Who writes a ledger, and how many receipts it took: after its death too."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from proxy.ledger import run, schema
from proxy.ledger.run import ENDED, LOST, OBSERVED, WRITTEN, Run, RunFile, look
from proxy.ledger.schema import LedgerUnusable
from tests.ledger.receipts import SECONDS


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.db-run")


def a_file(path: str) -> RunFile:
    return RunFile(path, 0.0, "a.db")


def seen(path: str) -> Run:
    found = look(path)
    assert found is not None
    return found


def test_a_first_run_has_none_before_it(path: str) -> None:
    file = a_file(path)
    assert file.unsettled == []
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    file.close()


def test_what_was_counted_is_read_by_others_and_by_the_next(path: str) -> None:
    file = a_file(path)
    counter = file.begin("first")
    found = seen(path)
    assert found == Run("first", 0, os.getpid(), True, started_at=found.started_at)
    assert 0 <= time.time() - found.started_at < SECONDS
    counter[OBSERVED], counter[LOST], counter[WRITTEN] = 2**40 + 1, 7, 2**40 - 9
    first = found._replace(observed=2**40 + 1, lost=7, written=2**40 - 9)
    assert seen(path) == first
    counter[ENDED] = 1_795_608_000_500_000
    del counter
    file.close()
    first = first._replace(running=False, ended_at=1795608000.5)
    assert seen(path) == first
    file = a_file(path)
    assert file.unsettled == [first]
    longest = "a name of forty bytes, which is the most"
    file.begin(longest)
    assert (seen(path).run, seen(path).observed, seen(path).ended_at) == (longest, 0, None)
    file.close()


def test_a_name_that_does_not_fit_is_refused(path: str) -> None:
    file = a_file(path)
    with pytest.raises(ValueError, match="at most 40 bytes"):
        file.begin("é" * 21)
    file.close()


def test_the_count_outlives_a_kill(path: str) -> None:
    code = (
        "import os, signal; from proxy.ledger.run import RunFile\n"
        f"counter = RunFile({path!r}, 0.0, 'a.db').begin('killed')\n"
        "for number in range(12346): counter[0] = number\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    assert child.wait(SECONDS) == -signal.SIGKILL
    assert seen(path)[:4] == ("killed", 12345, child.pid, False)


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 64, b"x" * 64, b"\xff" * 4096])
def test_anything_else_in_the_file_is_no_run(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)
    assert look(path) is None
    file = a_file(path)
    assert file.unsettled == []
    file.begin("next")
    assert seen(path)[:4] == ("next", 0, os.getpid(), True)
    assert os.path.getsize(path) == 96
    file.close()


def test_a_name_of_other_bytes_is_shown_as_far_as_it_goes(path: str) -> None:
    Path(path).write_bytes(b"llm-run\0" + b"\xff" * 88)
    found = seen(path)
    assert found.run == "\ufffd" * 40
    file = a_file(path)
    file.begin("next")  # it goes on to speak of that one, as far as it can
    file.close()
    assert [each.run for each in a_file(path).unsettled] == ["next", "\ufffd" * 13 + "\ufffd"]


def test_no_file_is_no_run(path: str) -> None:
    assert look(path) is None
    assert not os.path.exists(path)


def test_a_second_process_is_refused(path: str) -> None:
    file = a_file(path)
    file.begin("first")
    with pytest.raises(LedgerUnusable) as refused:
        a_file(path)
    assert str(refused.value) == (
        f"a.db is in use by another llm-proxy (process {os.getpid()}): end that one, or give this one a file of its own"
    )
    file.close()


def test_one_that_has_not_begun_yet_holds_it_too(path: str) -> None:
    file = a_file(path)
    with pytest.raises(LedgerUnusable, match=r"in use by another llm-proxy: end that one"):
        a_file(path)
    file.close()


def test_a_restart_waits_for_the_end_of_the_one_before(path: str) -> None:
    first = a_file(path)
    waits = threading.Event()
    taken: list[RunFile] = []

    def restart() -> None:
        waits.set()
        taken.append(RunFile(path, SECONDS, "a.db"))

    thread = threading.Thread(target=restart)
    thread.start()
    assert waits.wait(SECONDS)
    first.close()
    thread.join(SECONDS)
    [second] = taken
    second.close()


def test_looking_does_not_keep_a_start_out(path: str) -> None:
    a_file(path).close()
    look(path)
    a_file(path).close()


def test_runs_that_are_not_settled_stay_until_they_are(path: str) -> None:
    for name in "abc":
        file = a_file(path)
        file.begin(name)[OBSERVED] = ord(name)
        file.close()
    file = a_file(path)
    assert [(each.run, each.observed) for each in file.unsettled] == [("c", 99), ("b", 98), ("a", 97)]
    file.settle()  # before it has begun, the file still speaks of the last
    assert seen(path).run == "c"
    counter = file.begin("d")
    counter[OBSERVED] = 1
    del counter
    file.close()
    file = a_file(path)
    assert [each.run for each in file.unsettled] == ["d"]
    counter = file.begin("e")
    file.settle()
    counter[OBSERVED] = 5
    assert (seen(path).run, seen(path).observed, os.path.getsize(path)) == ("e", 5, 96)
    file.close()


def test_starts_that_never_settle_anything_do_not_fill_the_disk(path: str) -> None:
    for number in range(120):
        file = a_file(path)
        file.begin(f"r{number}")
        file.close()
    assert os.path.getsize(path) == 100 * 96
    assert a_file(path).unsettled[0].run == "r119"


def test_a_disk_without_room_is_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_file(path)
    monkeypatch.setattr(os, "pwrite", lambda *_: 5)
    with pytest.raises(OSError, match="No space left"):
        file.begin("first")
    file.close()


def test_a_file_that_was_removed_is_left_again_for_the_next_run(path: str) -> None:
    file = a_file(path)
    counter = file.begin("first")
    file.keep()  # it is there
    os.unlink(path)
    counter[OBSERVED] = 3
    file.keep()
    assert seen(path)[:4] == ("first", 3, os.getpid(), False)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    counter[OBSERVED] = 4
    file.keep()  # another one is there, perhaps of a process that was started since
    assert seen(path).observed == 3
    file.close()


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    return schema.connect(str(tmp_path / "a.db"), 1.0)


def row(connection: sqlite3.Connection) -> tuple[object, ...]:
    [found] = connection.execute("SELECT started_at, ended_at, observed, written, lost FROM runs")
    return tuple(found)


def test_a_run_that_ended_well_lost_nothing(connection: sqlite3.Connection) -> None:
    run.begin(connection, "a", "1.2.3", 5.0)
    assert row(connection) == (5.0, None, 0, 0, None)
    assert connection.execute("SELECT id, pid, version FROM runs").fetchone() == ("a", os.getpid(), "1.2.3")
    run.count(connection, "a", 3, 7)
    run.count(connection, "a", 5, 0)  # from the spill file
    assert row(connection) == (5.0, None, 8, 8, None)  # what has a row was taken
    assert run.end(connection, "a", 8, 9.0) == 0
    assert row(connection) == (5.0, 9.0, 8, 8, 0)
    connection.close()


def test_a_run_ends_once(connection: sqlite3.Connection) -> None:
    run.begin(connection, "a", "1", 5.0)
    assert run.end(connection, "a", 3, 9.0) == 3
    assert run.end(connection, "a", 4, None) is None
    assert row(connection) == (5.0, 9.0, 3, 0, 3)
    assert run.end(connection, "b", 4, None) is None  # one that never began
    connection.close()


def test_after_a_power_cut_the_larger_number_counts(connection: sqlite3.Connection) -> None:
    run.begin(connection, "a", "1", 5.0)
    run.count(connection, "a", 6, 10)
    assert run.end(connection, "a", 2, None) == 4
    assert row(connection) == (5.0, None, 10, 6, 4)
    connection.close()


def test_more_rows_than_receipts_is_not_less_than_none_lost(connection: sqlite3.Connection) -> None:
    run.begin(connection, "a", "1", 5.0)
    run.count(connection, "a", 6, 0)
    assert run.end(connection, "a", 2, None) == 0
    connection.close()


def test_a_run_without_a_row_gets_one_that_counts_what_went_with_its_file(connection: sqlite3.Connection) -> None:
    run.adopt(connection, Run("a", 10, 7, False, lost=1, written=6, started_at=5.0, ended_at=9.0))
    run.count(connection, "a", 3, 0)
    assert run.end(connection, "a", 10, 9.0) == 1
    assert row(connection) == (5.0, 9.0, 10, 9, 1)
    run.adopt(connection, Run("a", 99, 7, False))  # it has one
    assert row(connection) == (5.0, 9.0, 10, 9, 1)
    run.adopt(connection, Run("b", 0, 7, False))  # it took nothing
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    connection.close()


def test_a_run_of_which_only_rows_are_known_has_at_least_those(connection: sqlite3.Connection) -> None:
    run.count(connection, "a", 3, 0)
    run.count(connection, "a", 4, 0)
    assert row(connection) == (None, None, 7, 7, None)
    connection.close()
