"""llm-proxy as a contestant: everything on, and exactly one thing less in each variant."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import load, machine, orders
from bench.arena import Absent, Arena, Contestant, Running, Tls
from bench.contestants import CONTESTANTS, FEATURES
from bench.scenarios import SCENARIOS, TLS, Bench
from bench.sidecar import LEDGER
from proxy.server.settings import read_settings
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)
from tests.bench.test_scenarios import TINY

KEY = "k" * 32


def environment(who: Contestant, folder: Path) -> dict[str, str]:
    assert who.start is not None
    return who.start(4711, folder, KEY).environment


def changes(name: str, folder: Path) -> dict[str, str | None]:
    """What is set otherwise than with everything on."""
    mine, whole = environment(CONTESTANTS[name], folder), environment(CONTESTANTS["llm-proxy"], folder)
    ports = {"LLM_PROXY_LISTEN", "LLM_PROXY_ADMIN_LISTEN"}
    return {key: mine.get(key) for key in (mine | whole).keys() - ports if mine.get(key) != whole.get(key)}


def test_it_gets_its_settings_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not for the bench")
    sidecar = CONTESTANTS["llm-proxy"]
    assert sidecar.start is not None
    start = sidecar.start(4711, tmp_path, "the-key")
    assert start.environment["LLM_PROXY_PROVIDER_BENCH"] == "openai+http://127.0.0.1:4711/v1"
    assert start.environment["LLM_PROXY_KEYS"] == "bench=the-key"
    assert start.environment["LLM_PROXY_LISTEN"].endswith(f":{start.port}")
    assert start.probe is not None
    assert start.environment["LLM_PROXY_ADMIN_LISTEN"].endswith(f":{start.probe.port}")
    assert "OPENAI_API_KEY" not in start.environment


def test_a_variant_lacks_one_thing(tmp_path: Path) -> None:
    assert changes("without-ledger", tmp_path) == {"LLM_PROXY_DB": "off"}
    assert changes("without-log", tmp_path) == {"LLM_PROXY_LOG": "off"}
    assert changes("without-limits", tmp_path) == {"LLM_PROXY_LIMITS": ""}
    without_keys = changes("without-keys", tmp_path)
    assert without_keys.pop("LLM_PROXY_LIMITS") and without_keys == {"LLM_PROXY_AUTH": "off", "LLM_PROXY_KEYS": ""}
    every = [changes(name, tmp_path) for name in FEATURES if name not in ("llm-proxy", "bare")]
    assert all(every)
    assert changes("bare", tmp_path).keys() == set().union(*every)


@pytest.mark.parametrize("name", [*FEATURES, "many-keys", "unmetered"])
def test_the_sidecar_takes_the_settings_of_each_variant(name: str, tmp_path: Path) -> None:
    who = CONTESTANTS[name]
    read_settings(environment(who, tmp_path))
    named = environment(who, tmp_path)["LLM_PROXY_KEYS"]
    assert (named.count("=") == who.keys) if named else not who.checks_keys
    assert bool(who.ledger) == (environment(who, tmp_path).get("LLM_PROXY_DB") != "off")


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


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    assert sys.platform.startswith("linux")
    core = machine.choose_cores().rest
    with Arena(tmp_path_factory.mktemp("arena")) as arena:
        upstream = arena.start_upstream(core)
        yield Bench(arena.start(CONTESTANTS["llm-proxy"], upstream.port, KEY, core), upstream, KEY, TINY)


def test_every_answer_has_its_row_in_the_ledger(bench: Bench) -> None:
    numbers, errors, _ = asyncio.run(SCENARIOS["ledger-rate"].measure(bench))
    assert errors == []
    assert numbers["rows_per_second"] >= 0 and numbers["behind_ms"] > 0


def test_answers_without_rows_are_found_out(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / LEDGER)) as ledger:  # one that gets no rows
        ledger.execute("create table exchanges (id)")
    monkeypatch.setattr("bench.unary._ROWS_SECONDS", 0.0)
    deaf = dataclasses.replace(bench, running=dataclasses.replace(bench.running, folder=tmp_path))
    assert "have no row in the ledger" in asyncio.run(SCENARIOS["ledger-rate"].measure(deaf)).errors[0]


def test_its_event_loop_is_probed(bench: Bench) -> None:
    numbers, errors, _ = asyncio.run(SCENARIOS["lag"].measure(bench))
    assert errors == []
    for name in ("rest", "unary", "streams"):
        assert 0 < numbers[f"{name}_lag_p50_us"] <= numbers[f"{name}_lag_max_us"]


def test_it_knows_the_keys_that_the_bench_shows_to_it(bench: Bench, tmp_path: Path) -> None:
    core = machine.choose_cores().rest
    with Arena(tmp_path) as arena:
        many = arena.start(CONTESTANTS["many-keys"], bench.upstream.port, KEY, core)
        crowd = Bench(many, bench.upstream, KEY, TINY)
        assert asyncio.run(SCENARIOS["many-keys"].measure(crowd)).errors == []
        last = crowd.ask(orders.unary(1024), orders.keys(KEY, many.contestant.keys)[-1])
        unknown = crowd.ask(orders.unary(1024), orders.keys(KEY, many.contestant.keys + 1)[-1])
        assert asyncio.run(load.once(many.port, last)).errors == []
        assert asyncio.run(load.once(many.port, unknown)).errors == ["status 401"]


@pytest.mark.parametrize("side", TLS)
def test_it_speaks_tls_on_either_side(bench: Bench, side: str) -> None:
    numbers, errors, skipped = asyncio.run(SCENARIOS[f"memory-tls-{side}"].measure(bench))
    assert (errors, skipped) == ([], "")
    assert numbers["rest_mib"] > 5
    twin: Running = bench.running.twin(TLS[side])
    assert (twin.client_tls is not None) == TLS[side].client
    if TLS[side] == Tls(client=True):
        for name in ("unary-tls-client", "paced-tls-client"):
            assert asyncio.run(SCENARIOS[name].measure(bench)).errors == []
