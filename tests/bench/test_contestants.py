"""Starting contestants: absent ones are skipped with a word, and nothing is left running."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import machine
from bench.contestants import CONTESTANTS, Absent, Arena, Contestant, Start, make_key
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

CORE = machine.choose_cores().rest if sys.platform.startswith("linux") else 0


def contestant(script: str, port: int = 0) -> Contestant:
    return Contestant("fake", lambda upstream, folder, key: Start([sys.executable, "-c", script], port, {}), "")


def test_nginx_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.contestants.shutil.which", lambda name, path=None: None)
    with Arena(tmp_path) as arena, pytest.raises(Absent, match="not installed"):
        arena.start(CONTESTANTS["nginx"], 1, "key", CORE)


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        with pytest.raises(Absent, match="no luck"):
            arena.start(contestant("raise SystemExit('no luck')"), 1, "key", CORE)
        with pytest.raises(Absent, match="no luck"):
            arena.start(contestant("raise SystemExit('no luck')", port=1), 1, "key", CORE)


def test_processes_end_with_the_arena_and_are_pinned(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        upstream = arena.start_upstream(CORE)
        assert Path(f"/proc/{upstream.pid}/status").read_text().split("Cpus_allowed_list:")[1].split()[0] == str(CORE)
        assert machine.process_cpu_ns(upstream.pid) > 0
    assert machine.process_cpu_ns(upstream.pid) == 0


def test_the_sidecar_gets_its_settings_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not for the bench")
    sidecar = CONTESTANTS["llm-proxy"]
    assert sidecar.start is not None
    start = sidecar.start(4711, tmp_path, "the-key")
    assert start.environment["LLM_PROXY_PROVIDER_BENCH"] == "openai+http://127.0.0.1:4711/v1"
    assert start.environment["LLM_PROXY_KEYS"] == "bench=the-key"
    assert start.environment["LLM_PROXY_LISTEN"].endswith(f":{start.port}")
    assert "OPENAI_API_KEY" not in start.environment


def test_a_change_is_measured_beside_what_was_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = CONTESTANTS["before"]
    assert before.start is not None
    monkeypatch.setenv("BENCH_BEFORE", str(tmp_path))
    with pytest.raises(Absent, match="BENCH_BEFORE"):
        before.start(4711, tmp_path, "the-key")
    (tmp_path / "proxy").mkdir()
    (tmp_path / "proxy" / "__main__.py").touch()
    start = before.start(4711, tmp_path, "the-key")
    assert start.environment["PYTHONPATH"] == str(tmp_path)
    assert start.environment["LLM_PROXY_KEYS"] == "bench=the-key"


def test_keys_are_long_and_new() -> None:
    assert len(make_key()) == 32
    assert make_key() != make_key()
