"""Every scenario once, small, with splice as the contestant; and connections that are not reused are found out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bench import load, machine, orders
from bench.client import Sample
from bench.contestants import CONTESTANTS, Arena, Running
from bench.scenarios import SCENARIOS, Bench, Sizes, _Reuse
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

TINY = Sizes(
    unary_connections=2,
    unary_seconds=0.1,
    unary_large_seconds=0.1,
    latency_rate=200,
    latency_seconds=0.1,
    stream_rate=100,
    paced_streams=5,
    paced_rate=50,
    paced_seconds=0.2,
    burst_events=500,
    idle_streams=10,
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    core = machine.choose_cores().rest
    with Arena(tmp_path_factory.mktemp("arena")) as arena:
        upstream = arena.start_upstream(core)
        yield Bench(arena.start(CONTESTANTS["splice"], upstream.port, "k" * 32, core), upstream, "k" * 32, TINY)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in ("memory", "paced-1000", "wrong-keys")])
def test_a_scenario_gives_what_a_unit_costs(bench: Bench, name: str) -> None:
    numbers, errors = asyncio.run(SCENARIOS[name].measure(bench))
    assert errors == []
    assert 0 < numbers["cpu_us"] < 100_000
    assert numbers["per_second"] > 0


def test_latency_is_taken_where_it_is_promised(bench: Bench) -> None:
    for name, timed in (("unary-1k", "first_byte"), ("short-streams", "first_event"), ("paced", "transit")):
        numbers = asyncio.run(SCENARIOS[name].measure(bench)).numbers
        assert 0 < numbers[f"{timed}_p50_us"] <= numbers[f"{timed}_p99_us"]


def test_memory_is_read_from_the_contestant(bench: Bench) -> None:
    numbers, errors = asyncio.run(SCENARIOS["memory"].measure(bench))
    assert errors == []
    assert 5 < numbers["rest_mib"] < 500
    assert numbers["ready_ms"] > 0


def test_connections_that_are_not_reused_are_found_out(bench: Bench) -> None:
    direct = Running(CONTESTANTS["direct"], bench.upstream.port)
    ask = Bench(direct, bench.upstream, "", TINY).ask(orders.unary(1024))
    thrifty, wasteful = Sample(), Sample()

    reuse = _Reuse(bench, clients=1)
    for _ in range(3):
        assert asyncio.run(load.once(direct.port, ask)).errors == []
    reuse.judge(thrifty, {})
    assert thrifty.errors == []

    asyncio.run(load.once(direct.port, ask))  # the fourth where three would do
    reuse.judge(wasteful, {})
    assert "no reuse" in wasteful.errors[0]
