"""Counters of a process that was killed while it stored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.ledger.counters import Counters, holds, look
from proxy.ledger.records import LostHold
from tests.ledger.receipts import SECONDS

FAR = 2**62

# Stores without a pause: two counters in turn, a name that is new each time, a hold that is taken and given back. It
# says a number only when all stores of that turn are made.
STORES = f"""
import sys
from proxy.ledger.counters import Counters
file = Counters(sys.argv[1], print, 1)
view, at = file.hold("kept")
view[at + 1], view[at + 2], view[at] = 7, 8, 9
(a, a_at), (b, b_at) = file.counter("a"), file.counter("b")
number = 0
while True:
    number += 1
    a[a_at] = {FAR} + number
    b[b_at] = {FAR} + number
    view, at = file.counter(f"new {{number}}")
    view[at] = {FAR} + number
    place = view, at = file.hold(f"key {{number}}")
    view[at + 1], view[at + 2], view[at] = number, number, number
    view[at] = view[at + 1] = view[at + 2] = 0
    file.free(f"key {{number}}", place)
    print(number, flush=True)
"""


@pytest.mark.parametrize("turns", [1, 400, 5000])
def test_every_store_outlives_a_kill(tmp_path: Path, turns: int) -> None:
    path = str(tmp_path / "a.db-counters")
    child = subprocess.Popen([sys.executable, "-c", STORES, path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    last = 0
    while last < turns:
        last = int(child.stdout.readline())
    child.kill()
    last = int(([str(last), *child.stdout.read().split()])[-1])  # it went on until the kill came
    assert child.wait(SECONDS) == -signal.SIGKILL
    child.stdout.close()
    found = look(path)
    a, b = found.pop("a")[0] - FAR, found.pop("b")[0] - FAR
    assert last <= b <= a <= last + 1
    assert {name: values[0] - FAR for name, values in found.items() if values[0]} in (
        {f"new {number}": number for number in range(1, last + 1)},
        {f"new {number}": number for number in range(1, last + 2)},
    )
    held = holds(path)
    assert held[0] == LostHold("kept", 7, 8, 9)
    assert all(each.key == f"key {last + 1}" for each in held[1:]) and len(held) <= 2

    file = Counters(path, print, 1)
    assert file.lost == held
    file.close()
    file = Counters(path, print, 1)
    assert file.lost == held
    file.forget_lost()
    assert len(look(path)) in (last + 2, last + 3)
    file.close()
    file = Counters(path, print, 1)
    assert file.lost == []
    file.close()


# Is killed in the midst of an open: before the new file has its name, and after.
OPENS = """
import os, signal, sys
from proxy.ledger.counters import Counters
rename = os.rename
def killed(old, new):
    if sys.argv[2] == "after":
        rename(old, new)
    os.kill(os.getpid(), signal.SIGKILL)
os.rename = killed
Counters(sys.argv[1], print, 1)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_a_start_loses_nothing(tmp_path: Path, when: str) -> None:
    path = str(tmp_path / "a.db-counters")
    file = Counters(path, print, 1)
    view, at = file.counter("a")
    view[at] = FAR
    view, at = file.hold("ci")
    view[at + 1], view[at + 2], view[at] = 7, 8, 9
    del file
    child = subprocess.run([sys.executable, "-c", OPENS, path, when], check=False, timeout=SECONDS)
    assert child.returncode == -signal.SIGKILL
    file = Counters(path, print, 1)
    assert (look(path), file.lost) == ({"a": (FAR, 0, 0, 0)}, [LostHold("ci", 7, 8, 9)])
    assert os.listdir(tmp_path) == ["a.db-counters"]
    file.close()
