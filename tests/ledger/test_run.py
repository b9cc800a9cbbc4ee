"""Who writes a ledger, and how many receipts it took: after its death too."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from proxy.ledger import run, schema
from proxy.ledger.run import Run, RunFile, look
from proxy.ledger.schema import LedgerUnusable
from tests.ledger.receipts import SECONDS


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.db-run")


def a_file(path: str) -> RunFile:
    return RunFile(path, 0.0, "a.db")


def test_a_first_run_has_none_before_it(path: str) -> None:
    file = a_file(path)
    assert file.previous is None
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    file.close()


def test_what_was_counted_is_read_by_others_and_by_the_next(path: str) -> None:
    file = a_file(path)
    counter = file.begin("first")
    assert look(path) == Run("first", 0, os.getpid(), True)
    counter[0] = 2**40 + 1
    assert look(path) == Run("first", 2**40 + 1, os.getpid(), True)
    del counter
    file.close()
    assert look(path) == Run("first", 2**40 + 1, os.getpid(), False)
    file = a_file(path)
    assert file.previous == Run("first", 2**40 + 1, os.getpid(), False)
    longest = "a name of forty bytes, which is the most"
    file.begin(longest)
    assert look(path) == Run(longest, 0, os.getpid(), True)
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
    assert look(path) == Run("killed", 12345, child.pid, False)


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 64, b"x" * 64, b"\xff" * 4096])
def test_anything_else_in_the_file_is_no_run(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)
    assert look(path) is None
    file = a_file(path)
    assert file.previous is None
    file.begin("next")
    assert look(path) == Run("next", 0, os.getpid(), True)
    assert os.path.getsize(path) == 64
    file.close()


def test_a_name_of_other_bytes_is_shown_as_far_as_it_goes(path: str) -> None:
    Path(path).write_bytes(b"llm-run\0" + bytes(16) + b"\xff".ljust(40, b"\0"))
    found = look(path)
    assert found is not None
    assert found.run == "\ufffd"


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
    assert row(connection) == (5.0, None, 7, 8, None)
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
