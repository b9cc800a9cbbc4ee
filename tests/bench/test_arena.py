"""Starting contestants: absent ones are skipped with a word, twins speak TLS, and nothing is left running."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from bench import load, machine, orders
from bench.arena import CERTIFICATE, PLAIN, Absent, Arena, Contestant, Running, Start, Tls, program
from bench.client import Ask
from bench.contestants import CONTESTANTS
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

CORE = machine.choose_cores().rest if sys.platform.startswith("linux") else 0
KEY = "k" * 32


def contestant(script: str, port: int = 0) -> Contestant:
    return Contestant("fake", lambda upstream, folder, key: Start([sys.executable, "-c", script], port, {}), "")


def answers(running: Running) -> list[str]:
    order = orders.unary(1024)
    ask = Ask.of(orders.request(order, f"127.0.0.1:{running.port}", KEY), order, tls=running.client_tls)
    return asyncio.run(load.once(running.port, ask)).errors


def test_a_program_may_be_absent() -> None:
    with pytest.raises(Absent, match="not installed"):
        program("no-such-program-anywhere")


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        with pytest.raises(Absent, match="no luck"):
            arena.start(contestant("raise SystemExit('no luck')"), 1, "key", CORE)
        with pytest.raises(Absent, match="no luck"):
            arena.start(contestant("raise SystemExit('no luck')", port=1), 1, "key", CORE)


def test_one_that_takes_too_long_is_absent(tmp_path: Path) -> None:
    slow = Contestant(
        "slow",
        lambda upstream, folder, key: Start([sys.executable, "-c", "import sys; sys.stdin.read()"], 1, {}),
        "",
        ready_seconds=0.05,
    )
    with Arena(tmp_path) as arena, pytest.raises(Absent, match="not ready within"):
        arena.start(slow, 1, "key", CORE)


def test_processes_end_with_the_arena_and_are_pinned(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        upstream = arena.start_upstream(CORE)
        assert Path(f"/proc/{upstream.pid}/status").read_text().split("Cpus_allowed_list:")[1].split()[0] == str(CORE)
        assert machine.process_cpu_ns(upstream.pid) > 0
    assert machine.process_cpu_ns(upstream.pid) == 0


def test_direct_with_tls_is_the_upstream_and_its_certificate_holds(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        upstream = arena.start_upstream(CORE)
        direct = arena.start(CONTESTANTS["direct"], upstream.port, KEY, CORE)
        twin = direct.twin(Tls(upstream=True))
        assert (direct.port, twin.port) == (upstream.port, upstream.tls_port)
        assert answers(direct) == answers(twin) == []
        twin.client_tls = None
        assert answers(twin) != [], "this port takes nothing but TLS"


@pytest.mark.parametrize("tls", [Tls(upstream=True), Tls(client=True), Tls(client=True, upstream=True)])
def test_a_twin_is_another_process_with_tls_on_its_sides_and_ends_with_the_first(tmp_path: Path, tls: Tls) -> None:
    seen: list[tuple[Tls, int, Path]] = []

    def start_tls(tls: Tls, upstream: int, folder: Path, key: str) -> Start:
        seen.append((tls, upstream, folder))
        assert splice.start is not None
        return splice.start(upstream, folder, key)

    splice = CONTESTANTS["splice"]
    named = Contestant("named", splice.start, "", start_tls=start_tls)
    with Arena(tmp_path) as arena:
        upstream = arena.start_upstream(CORE)
        running = arena.start(named, upstream.port, KEY, CORE)
        twin = running.twin(tls)
        assert running.twin(tls) is twin
        assert seen == [(tls, upstream.tls_port if tls.upstream else upstream.port, twin.folder)]
        assert twin.folder is not None and (twin.folder / CERTIFICATE).exists()
        assert (twin.client_tls is not None) == tls.client
        assert twin.pid != running.pid
        arena.stop(running)
        assert machine.process_cpu_ns(twin.pid) == machine.process_cpu_ns(running.pid) == 0


def test_who_has_no_tls_says_so(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        upstream = arena.start_upstream(CORE)
        splice = arena.start(CONTESTANTS["splice"], upstream.port, KEY, CORE)
        with pytest.raises(Absent, match="no TLS"):
            splice.twin(Tls(client=True))
        with pytest.raises(Absent, match="no TLS"):
            Running(CONTESTANTS["splice"], 1).twin(PLAIN)
