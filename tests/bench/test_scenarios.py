"""Every scenario once, small, with splice as the contestant; and what is not as it should be is found out."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator

import pytest

from bench import load, machine, orders
from bench.arena import Arena, Contestant, Running
from bench.client import Sample
from bench.contestants import CONTESTANTS
from bench.scenarios import SCENARIOS, Bench, Scenario, Sizes, plan
from bench.setting import Reuse, below
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

TINY = Sizes(
    unary_connections=2,
    unary_seconds=0.1,
    unary_large_seconds=0.1,
    unary_rate=500,
    latency_rate=200,
    latency_seconds=0.1,
    stream_rate=100,
    paced_streams=5,
    paced_rate=50,
    paced_seconds=0.2,
    burst_events=500,
    idle_streams=10,
    good_rate=100,
    streams_share=0.02,
    slow_readers=3,
)
# What gives other figures than the cost of a unit, or none for splice.
OTHERS = {"memory", "wrong-keys", "lag"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    core = machine.choose_cores().rest
    with Arena(tmp_path_factory.mktemp("arena")) as arena:
        upstream = arena.start_upstream(core)
        yield Bench(arena.start(CONTESTANTS["splice"], upstream.port, "k" * 32, core), upstream, "k" * 32, TINY)


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    core = machine.choose_cores().rest
    with Arena(tmp_path_factory.mktemp("arena")) as arena:
        upstream = arena.start_upstream(core)
        yield Bench(arena.start(CONTESTANTS["direct"], upstream.port, "k" * 32, core), upstream, "k" * 32, TINY)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in OTHERS and "-tls-" not in name])
def test_a_scenario_gives_what_a_unit_costs(bench: Bench, name: str) -> None:
    numbers, errors, _ = asyncio.run(SCENARIOS[name].measure(bench))
    assert errors == []
    assert 0 < numbers["cpu_us"] < 100_000
    assert numbers["wakes"] > 0
    assert numbers["per_second"] > 0


@pytest.mark.parametrize("name", [name for name in SCENARIOS if "-tls-" in name])
def test_over_tls_direct_speaks_it_and_splice_is_skipped_with_a_word(bench: Bench, direct: Bench, name: str) -> None:
    assert asyncio.run(SCENARIOS[name].measure(bench)) == ({}, [], "has no TLS")
    numbers, errors, skipped = asyncio.run(SCENARIOS[name].measure(direct))
    assert (errors, skipped) == ([], "")
    assert name.startswith("memory") or numbers["per_second"] > 0


def test_latency_is_taken_where_it_is_promised(bench: Bench) -> None:
    for name, timed in (
        ("unary-1k", "first_byte"),
        ("short-streams", "first_event"),
        ("paced", "transit"),
        ("paced", "gap"),
        ("slow-readers", "alone_first_byte"),
    ):
        numbers = asyncio.run(SCENARIOS[name].measure(bench)).numbers
        assert 0 <= numbers[f"{timed}_p50_us"] <= numbers[f"{timed}_p90_us"] <= numbers[f"{timed}_p99_us"]


def test_beyond_its_limits_a_contestant_has_no_latency(bench: Bench) -> None:
    hurried = dataclasses.replace(bench, sizes=dataclasses.replace(TINY, unary_rate=1e6, unary_seconds=0.002))
    numbers, errors, _ = asyncio.run(SCENARIOS["unary-paced"].measure(hurried))
    assert errors == []
    assert numbers["cpu_us"] > 0 and "first_byte_p50_us" not in numbers


def test_memory_is_read_from_the_contestant(bench: Bench) -> None:
    numbers, errors, _ = asyncio.run(SCENARIOS["memory"].measure(bench))
    assert errors == []
    assert 5 < numbers["rest_mib"] < 500
    assert numbers["ready_ms"] > 0


def test_who_cannot_be_probed_is_skipped_with_a_word(bench: Bench) -> None:
    assert asyncio.run(SCENARIOS["lag"].measure(bench)).skipped == "has nothing to be probed by"


def test_more_streams_than_the_system_allows_files_for_are_not_tried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.machine.file_limit", lambda: 250)
    assert "more open files" in asyncio.run(SCENARIOS["paced-5000"].measure(bench)).skipped
    assert asyncio.run(SCENARIOS["paced-50"].measure(bench)).skipped == ""


def test_paced_scenarios_have_the_same_number_of_events_in_fewer_or_more_streams(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def paced_streams(port: int, ask: object, read: object, finish: object, **how: float) -> Sample:
        asked.append(int(how["streams"]))
        return Sample()

    monkeypatch.setattr("bench.streams.load.paced_streams", paced_streams)
    rates: list[int] = []

    def paced(rate: int, events: int) -> orders.Order:
        rates.append(rate)
        return orders.IDLE

    monkeypatch.setattr("bench.streams.orders.paced", paced)
    whole = dataclasses.replace(bench, sizes=Sizes())
    names = [name for name, each in SCENARIOS.items() if each.streams]
    for name in names:
        asyncio.run(SCENARIOS[name].measure(whole))
    assert names == ["paced", "paced-50", "paced-1000", "paced-5000"]
    assert asked == [SCENARIOS[name].streams for name in names]
    assert {count * rate for count, rate in zip(asked, rates, strict=True)} == {10_000}


def test_only_a_gateway_may_be_too_slow_for_many_streams(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def paced_streams(*args: object, **how: float) -> Sample:
        sample = Sample(gave_up=True)
        sample.fail("gave up")
        return sample

    monkeypatch.setattr("bench.streams.load.paced_streams", paced_streams)
    assert asyncio.run(SCENARIOS["paced"].measure(bench)).errors == ["gave up"]
    gateway = dataclasses.replace(bench, running=Running(Contestant("gateway", None, "", exact=False), 1))
    assert asyncio.run(SCENARIOS["paced"].measure(gateway)) == ({}, [], "could not do it in time")


def test_latency_is_taken_well_below_what_a_contestant_can_do() -> None:
    assert below(1000, 50_000) == 1000
    assert below(1000, 70) == 35
    assert below(1000, 0) == 1


def test_a_contestant_is_asked_as_it_wants_to_be(bench: Bench) -> None:
    gateway = Contestant("gateway", None, "", exact=False, path="/openai/chat", headers={"x-provider": "bench"})
    ask = dataclasses.replace(bench, running=Running(gateway, 4711)).ask(orders.unary(1024), "another-key", 5000)
    head, _, body = ask.request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /openai/chat HTTP/1.1\r\nhost: 127.0.0.1:4711\r\n")
    assert b"\r\nx-provider: bench\r\n" in head and b"Bearer another-key\r\n" in head
    assert not ask.exact
    assert len(body) == pytest.approx(5000, abs=100)


def test_connections_that_are_not_reused_are_found_out(bench: Bench) -> None:
    direct = Running(CONTESTANTS["direct"], bench.upstream.port)
    ask = Bench(direct, bench.upstream, "", TINY).ask(orders.unary(1024))
    thrifty, wasteful = Sample(), Sample()

    reuse = Reuse(bench, clients=1)
    for _ in range(3):
        assert asyncio.run(load.once(direct.port, ask)).errors == []
    reuse.judge(thrifty, {})
    assert thrifty.errors == []

    asyncio.run(load.once(direct.port, ask))  # the fourth where three would do
    reuse.judge(wasteful, {})
    assert "no reuse" in wasteful.errors[0]


def test_rounds_are_interleaved_and_fresh_contestants_come_first() -> None:
    async def nothing(bench: Bench) -> tuple[dict[str, float], list[str]]:
        return {}, []

    usual = Scenario("usual", "unit", "", nothing)  # type: ignore[arg-type]
    fresh = Scenario("fresh", "unit", "", nothing, fresh=True)  # type: ignore[arg-type]
    steps = [(number, each.name, who) for number, each, who in plan([usual, fresh], ["a", "b"], 5)]
    assert steps[:4] == [(0, "fresh", "a"), (0, "fresh", "b"), (0, "usual", "a"), (0, "usual", "b")]
    assert steps[4:8] == [(1, "fresh", "b"), (1, "fresh", "a"), (1, "usual", "b"), (1, "usual", "a")]
    assert [number for number, name, who in steps if (name, who) == ("fresh", "a")] == [0, 1, 2, 3, 4]
    assert [number for number, name, who in steps if (name, who) == ("usual", "a")] == [0, 1, 2, 3, 4]
