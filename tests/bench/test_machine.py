"""Reading what process trees cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench import machine

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bench reads its figures from Linux")


def _work() -> None:
    deadline = time.process_time() + 0.02
    while time.process_time() < deadline:
        pass


def test_a_process_clock_counts_nanoseconds_of_work() -> None:
    before = machine.process_cpu_ns(os.getpid())
    _work()
    assert 15_000_000 < machine.process_cpu_ns(os.getpid()) - before < 2_000_000_000


def test_a_tree_includes_living_children_and_those_reaped() -> None:
    script = "import sys, time\nwhile time.process_time() < 0.1: pass\nprint(flush=True)\nsys.stdin.read()"
    before = machine.tree_cpu_ns(os.getpid())
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in machine.tree(os.getpid())
        assert machine.process_cpu_ns(child.pid) >= 100_000_000
        assert machine.tree_cpu_ns(os.getpid()) - before >= 100_000_000
        assert machine.tree_rss_bytes(os.getpid()) > machine.tree_rss_bytes(child.pid) > 1_000_000
    assert machine.process_cpu_ns(child.pid) == 0
    assert machine.tree_cpu_ns(os.getpid()) - before >= 80_000_000  # in ticks by now


def test_what_is_gone_costs_nothing() -> None:
    assert machine.process_cpu_ns(2**22 + 1) == machine.tree_rss_bytes(2**22 + 1) == 0
