"""The ledger of a real process whose disk is full, or whose database is locked: traffic goes on, and what is lost is
told by the log, the exit code, `ledger check` and the next start."""

from __future__ import annotations

import http.client
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.whole.processes import Sidecar
from tests.whole.test_ledger import check

# `serve`, on a disk on which no file gets larger than that.
FULL = """
import resource, sys
from proxy.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
sys.exit(main(["serve"]))
"""


def ask(sidecar: Sidecar, count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", sidecar.port, timeout=20)
    for _ in range(count):
        connection.request("POST", "/v1/" + "x" * 2000, b"{}")
        connection.getresponse().read()
    connection.close()


def account(path: Path) -> list[tuple[int, int, int, bool]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(
            "SELECT observed, written, lost, ended_at IS NOT NULL FROM runs ORDER BY started_at"
        ).fetchall()
    finally:
        connection.close()


def test_receipts_that_a_full_disk_cost_are_told_at_the_end(start: Callable[..., Sidecar], tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    sidecar = start({"LLM_PROXY_DB": str(path)}, command=("-c", FULL))
    sidecar.may_log_errors = True
    ask(sidecar, 300)
    sidecar.wait_for_line(lambda line: "receipts wait in memory" in line.get("message", ""))
    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.wait() == 1
    last = sidecar.lines[-1]
    lost = last["lost"]
    assert 0 < lost <= 300
    assert last["message"].startswith(f"{lost} receipts have no row in {path} and are lost ([Errno ")
    answer = check(path)
    assert answer.returncode == 1 and f"{lost} of 300" in answer.stdout

    again = start({"LLM_PROXY_DB": str(path)})
    said = again.wait_for_line(lambda line: "the run before" in line.get("message", ""))
    assert said["message"] == f"the run before ended without its ledger: {lost} of its receipts are missing"
    again.stop()
    assert account(path) == [(300, 300 - lost, lost, 1), (0, 0, 0, 1)]


def test_a_locked_database_keeps_nobody_from_starting(start: Callable[..., Sidecar], tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    start({"LLM_PROXY_DB": str(path)}).stop()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    sidecar = start({"LLM_PROXY_DB": str(path)})
    ask(sidecar, 5)
    other.close()
    sidecar.wait_for_line(lambda line: line.get("message") == "the ledger is written again")
    sidecar.stop()
    assert sidecar.process.returncode == 0
    assert account(path) == [(0, 0, 0, 1), (5, 5, 0, 1)]
    assert check(path).returncode == 0
