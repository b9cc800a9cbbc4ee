"""Wrong keys are counted as they are refused, at the rate that was asked for, and anything else is found out."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import cast

import pytest

from bench import flood, machine
from bench.contestants import CONTESTANTS, Arena
from bench.results import Results
from bench.scenarios import SCENARIOS, SIEGES, Bench, Measurement, Sizes
from bench.table import table
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

KEY = "k" * 32
TINY = Sizes(good_rate=100, wrong_rate=1000, wrong_connections=5, wrong_seconds=0.3)
REFUSED = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    assert sys.platform.startswith("linux")
    core = machine.choose_cores().rest
    with Arena(tmp_path_factory.mktemp("arena")) as arena:
        upstream = arena.start_upstream(core)
        yield Bench(arena.start(CONTESTANTS["llm-proxy"], upstream.port, KEY, core), upstream, KEY, TINY)


def test_the_scenario_says_what_a_good_key_gets_and_what_a_wrong_one_costs(bench: Bench) -> None:
    figures = asyncio.run(SCENARIOS["wrong-keys"].measure(bench))
    numbers = figures.numbers
    assert figures.errors == []
    for siege in SIEGES:
        assert numbers[f"{siege}_answers"] >= 30, "all of the good ones"
        assert 0 < numbers[f"{siege}_first_byte_p50_us"] <= numbers[f"{siege}_first_byte_p99_us"]
    assert numbers["alone_refused"] == 0
    assert 0 < numbers["flood_refused_per_second"] < 1.2 * TINY.wrong_rate
    assert numbers["storm_refused"] > 0
    text = table(Results([Measurement("wrong-keys", "llm-proxy", 0, figures)]))
    assert [line.split(",")[1].split()[0] for line in text.splitlines()[2:]] == list(SIEGES)


def test_who_checks_no_keys_has_no_figures(bench: Bench) -> None:
    splice = Bench(bench.running, bench.upstream, KEY, TINY)
    splice.running.contestant, whole = CONTESTANTS["splice"], splice.running.contestant
    try:
        assert asyncio.run(SCENARIOS["wrong-keys"].measure(splice)) == ({}, [], "checks no keys")
    finally:
        splice.running.contestant = whole


class Wire:
    """Imitates a transport: keeps what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True


def flooded(answers: bytes, size: int = 0, is_lost: bool = False) -> tuple[flood.Flood, Wire, str]:
    """A flood of 50 requests that got `answers`, in reads of `size` bytes, and what it says in the end."""
    made, wire = flood.Flood(1, flood.wrong_key("x"), 1, 1.0), Wire()
    attacker = flood._Attacker(made)
    made._attackers.append(attacker)
    attacker.connection_made(cast(asyncio.Transport, wire))
    attacker.ask(50)
    for at in range(0, len(answers), size or 10_000):
        attacker.data_received(answers[at : at + (size or 10_000)])
    if is_lost:
        attacker.connection_lost(None)
    said = made.stop()
    assert wire.is_aborted
    return made, wire, said


@pytest.mark.parametrize("size", [0, 1, 7, 100])
def test_refusals_are_counted_however_they_are_cut(size: int) -> None:
    made, wire, said = flooded(REFUSED * 50, size)
    assert (made.refused, said) == (50, "")
    keys = [line for line in wire.written.split(b"\r\n") if line.startswith(b"authorization: Bearer ")]
    assert len(set(keys)) == len(keys) == 50, "no key comes twice"


def test_another_answer_a_lost_connection_or_none_at_all_is_found_out() -> None:
    assert flooded(REFUSED * 40 + REFUSED.replace(b"401", b"200") * 10)[2] == (
        "10 wrong keys were answered with another status than 401"
    )
    assert "were closed" in flooded(REFUSED * 50, is_lost=True)[2]
    assert flooded(b"")[2] == "no wrong key was refused"
