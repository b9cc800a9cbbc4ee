"""kill -9, a full disk, a second process: with real processes. What is missing is known exactly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.ledger.run import look
from tests.ledger.receipts import SECONDS, Heard, a_ledger, ids, is_sound, rows, the_run

OPEN = """
import json, os, resource, sys
from proxy.ledger.writer import Ledger, LedgerOptions
from tests.ledger.receipts import a_receipt
path, queue, flush = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
notes = []
def note(level, message, **more): notes.append([level, message])
ledger = Ledger(LedgerOptions(path, queue=queue, flush_seconds=flush, lock_seconds=0.0), "run0", "1", note)
ledger.open()
"""

# Observes until it is killed, and says each time how many it has observed.
ENDLESS = (
    OPEN
    + """
ledger.start()
number = 0
while True:
    number += 1
    ledger.observe(a_receipt(number, tags="x" * 200))
    os.write(1, b"%d\\n" % number)
"""
)


def child(code: str, path: Path, queue: int, flush: float) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", code, str(path), str(queue), str(flush)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("queue", "flush"), [(10_000, 0.01), (100_000, 3600.0), (20, 3600.0)], ids=["busy", "all waits", "all is spilled"]
)
def test_after_a_kill_it_is_known_how_many_are_missing(tmp_path: Path, queue: int, flush: float) -> None:
    path = tmp_path / "a.db"
    process = child(ENDLESS, path, queue, flush)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, b"")
    for line in lines:
        if int(line) == 3000:
            process.send_signal(signal.SIGKILL)
            break
    last = max([3000, *map(int, process.stdout.read().split(b"\n")[:-1])])
    assert process.wait(SECONDS) == -signal.SIGKILL
    process.stdout.close()
    left = look(f"{path}-run")
    assert left is not None
    assert (left.run, left.running) == ("run0", False)
    assert left.observed in (last, last + 1)  # killed before it could say so

    heard = Heard()
    a_ledger(path, heard, "run1").close(0)
    run = the_run(path)
    found = ids(path)
    assert run["observed"] == left.observed
    assert run["written"] == len(found) == len(set(found))
    assert run["lost"] == left.observed - len(found)
    assert run["ended_at"] is None
    assert heard.notes[-1][2] == {"run": "run0", "observed": left.observed, "lost": run["lost"]}
    assert is_sound(path)
    if queue == 20:
        assert run["lost"] <= 20 + 20 + 1  # held, in the queue, and the one at whose write it was killed
    if flush > 1 and queue > 20:
        assert len(found) <= 1  # which woke the thread


def test_a_killed_writer_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    process = child(ENDLESS, path, 100, 0.01)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    held = look(f"{path}-run")
    assert held is not None
    assert (held.pid, held.running) == (process.pid, True)
    process.kill()
    process.wait(SECONDS)
    process.stdout.close()
    assert a_ledger(path, run="run1").close(0)


def test_a_second_process_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    ledger = a_ledger(path, run="run1")
    process = subprocess.run(
        [sys.executable, "-c", OPEN, str(path), "10", "1"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    said = process.stderr.splitlines()[-1]
    assert said.startswith(f"proxy.ledger.schema.LedgerUnusable: {path} is in use by another llm-proxy (process ")
    assert ledger.close(0)


# The disk gets full for every file of this process, and later is not.
FULL = (
    OPEN
    + """
size = 400_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
for number in range(3000):
    ledger.observe(a_receipt(number, tags="x" * 500))
    if number % 50 == 49:
        ledger.turn()
before = [ledger.waiting, ledger.spilled_bytes, ledger.lost]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
while ledger.turn():
    pass
print(json.dumps([before, ledger.waiting, ledger.lost, ledger.close(0), notes]))
"""
)


def test_on_a_full_disk_traffic_goes_on_and_losses_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    process = child(FULL, path, 100, 1.0)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    (waiting, spilled, lost), waits_after, lost_after, is_complete, notes = json.loads(output)
    assert 100 <= waiting <= 300
    assert 300_000 < spilled <= 400_000
    assert lost > 1000
    assert (waits_after, lost_after, is_complete) == (0, lost, False)
    levels = [level for level, _ in notes]
    assert levels == ["warn", "error", "error", "warn", "error"], notes
    assert notes[-2][1] == f"the ledger is written again; {lost} receipts are lost"
    assert notes[-1][1].startswith(f"{lost} receipts have no row in {path} and are lost ([Errno 28]")
    run = the_run(path)
    assert (run["observed"], run["written"], run["lost"]) == (3000, 3000 - lost, lost)
    assert len(rows(path, "SELECT DISTINCT id FROM exchanges")) == 3000 - lost
    assert is_sound(path)
