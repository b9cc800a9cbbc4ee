"""Made-up runs, for tests of everything that is made of a run's figures."""

from __future__ import annotations

import math
from typing import Any

from bench.record import Record, Who
from bench.results import About, Results
from bench.scenarios import Figures, Measurement

MACHINE = {"cpu": "Abacus 3000", "cores": 2, "kernel": "6.1.0"}
ABOUT = {
    "memory": About("stream", "resident at rest, and per open silent stream"),
    "unary-1k": About("request", "1 KB asked, 1 KB answered, keep-alive"),
    "short-streams": About("stream", "streams of a few events at a fixed rate"),
    "paced": About("event", "many streams, few events a second each", 200),
    "paced-50": About("event", "50 streams, 200 events a second each", 50),
    "paced-5000": About("event", "5,000 streams, 2 events a second each", 5000),
    "back-to-back": About("event", "one stream as fast as it goes"),
}
# CPU of a request, of an event; microseconds added to direct; KiB per stream; MiB at rest. As unlike as they may be.
COSTS = {
    "direct": (0.0, 0.0, 0.0, 0.0, 0.0),
    "splice": (13.7, 9.7, 31.0, 4.9, 14.0),
    "nginx": (15.1, 10.0, 45.0, 2.1, 6.4),
    "llm-proxy": (23.0, 11.9, 88.0, 9.1, 38.2),
    "a-router-in-rust": (98.0, 26.0, 190.0, 22.0, 61.0),
    "the-slowest-gateway-of-all": (12_200.0, 645.0, 9_400.0, 410.0, 812.0),
}
ROLES = {"direct": "plain", "splice": "plain", "nginx": "plain", "llm-proxy": "ours"}
FEATURES = {"without-ledger": 0.93, "without-limits": 0.85, "without-metering": 1.002}


def measured(
    contestant: str,
    values: list[float],
    name: str = "cpu_us",
    errors: list[str] | None = None,
    scenario: str = "unary-1k",
    **more: float,
) -> list[Measurement]:
    """One measurement for each value, in as many rounds."""
    return [
        Measurement(scenario, contestant, number, Figures({name: value, **more}, list(errors or [])))
        for number, value in enumerate(values)
    ]


def wobble(value: float, number: int, share: float = 0.02) -> float:
    """`value` as round `number` might have seen it: the same in every test run."""
    return value * (1 + share * math.sin(2.4 * number + value))


def numbers_of(scenario: str, costs: tuple[float, ...], number: int, scale: float) -> dict[str, float]:
    request, event, added, stream, rest = costs
    cpu = {"unary-1k": request, "short-streams": 2 * request, "back-to-back": event / 20}.get(scenario, event)
    if scenario == "memory":
        return {"rest_mib": rest, "stream_kib": stream, "ready_ms": 5 * rest} if rest else {}
    numbers = {"cpu_us": wobble(cpu * scale, number), "per_second": 5e5 / (20 + cpu), "others_share": 0.01}
    if scenario in ("unary-1k", "short-streams"):
        name = "first_byte" if scenario == "unary-1k" else "first_event"
        numbers[f"{name}_p50_us"] = wobble(55 + added, number)
        numbers[f"{name}_p90_us"] = wobble(80 + 2 * added, number)
        numbers[f"{name}_p99_us"] = wobble(140 + 3 * added, number, 0.1)
    return numbers


def run(**changes: Any) -> dict[str, Any]:
    return {
        "date": "2026-11-26T08:00:00+00:00",
        "command": "scripts/bench --rounds 7",
        "seconds": 600,
        "machine": MACHINE,
        "versions": {"python": "3.11.7", "nginx": "1.22.1", "llm-proxy": "abcdef0"},
        "settings": {"paced_streams": 200, "paced_rate": 50, "rounds": 7},
        "skipped": {},
        **changes,
    }


def made_up(
    rounds: int = 7,
    more: dict[str, tuple[float, ...]] | None = None,
    features: bool = False,
    scenarios: tuple[str, ...] = tuple(ABOUT),
    **changes: Any,
) -> Record:
    """A whole run of everybody in COSTS and `more`."""
    costs = {**COSTS, **(more or {})}
    scales = dict.fromkeys(costs, 1.0)
    if features:
        costs |= dict.fromkeys(FEATURES, COSTS["llm-proxy"])
        scales |= FEATURES
    measurements = [
        Measurement(scenario, name, number, Figures(numbers_of(scenario, costs[name], number, scales[name]), []))
        for scenario in scenarios
        for number in range(1 if scenario == "memory" else rounds)
        for name in (list(costs) if number % 2 == 0 else list(costs)[::-1])
    ]
    who = {
        name: Who(f"what {name} is", ROLES.get(name, "feature" if name in FEATURES else "gateway")) for name in costs
    }
    who["the-slowest-gateway-of-all"] = who["the-slowest-gateway-of-all"]._replace(unequal="It checks no keys.")
    settings = {"paced_streams": 200, "paced_rate": 50, "rounds": rounds}
    return Record([run(**{"settings": settings, **changes})], who, Results(measurements, ABOUT))


def many(count: int) -> dict[str, tuple[float, ...]]:
    """Further gateways, with long names and figures of every size."""
    return {
        f"gateway-with-a-long-name-{n:02}": (40.0 * 1.6**n, 20.0 * 1.4**n, 90.0 * 1.5**n, 30.0 + n, 70.0 + 20 * n)
        for n in range(count)
    }
