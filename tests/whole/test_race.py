"""A budget cannot be raced: many clients at once, over real sockets, with every way to end, and kills in the middle."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger.counters import beside, holds, look
from proxy.policy.demand import PREAMBLE
from tests.whole.links import PATIENCE, Link
from tests.whole.processes import Provider, Sidecar

CLIENTS = 200
ALLOWED = 37
RUNS = 50
PATH = "/v1/chat/completions"

# One cent for each request and nothing for tokens, so that a reservation is the cost.
PRICES = {"version": "race", "prices": [{"provider": "openai", "model": "*", "request": 0.01, "input": 0, "output": 0}]}


def names(count: int) -> list[str]:
    return [f"r{number:02}" for number in range(count)]


def value(name: str) -> str:
    return f"{name}-0123456789abcdef"


def environ(provider: Provider, tmp_path: Path, count: int, rules: str) -> dict[str, str]:
    """`count` keys, each with these limits."""
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICES))
    return {
        **provider.environ(),
        "LLM_PROXY_PRICES": str(prices),
        "LLM_PROXY_DB": str(tmp_path / "ledger.db"),
        "LLM_PROXY_LOG": "off",
        "LLM_PROXY_KEYS": ",".join(f"{name}={value(name)}" for name in names(count)),
        "LLM_PROXY_LIMITS": ";".join(f"key {name}: {rules}" for name in names(count)),
    }


def body(order: str = "", **more: object) -> bytes:
    message = [{"role": "user", "content": "Go!"}]
    return json.dumps({"model": f"openai/sim:{order}", "messages": message, "max_tokens": 50, **more}).encode()


def carrying(name: str) -> tuple[tuple[str, str], ...]:
    return ("authorization", f"Bearer {value(name)}"), ("content-type", "application/json")


async def all_at_once(port: int, runs: list[str], asked: bytes) -> list[Counter[tuple[int, str]]]:
    """`CLIENTS` open connections; in each run all of them ask in the same moment, with that run's key. For each run:
    how many answers of each status, and of each reason of a refusal."""
    found = []
    links = [Link(port) for _ in range(CLIENTS)]
    await asyncio.gather(*(link.open() for link in links))
    for name in runs:
        replies = await asyncio.gather(*(link.ask("POST", PATH, asked, *carrying(name)) for link in links))
        found.append(Counter((reply.status, "".join(reply.all("x-llm-proxy-error"))) for reply in replies))
    await asyncio.gather(*(link.close() for link in links))
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("select * from exchanges order by rowid")]
    connection.close()
    return found


def spent(path: Path, name: str, rule: str) -> int:
    """What the counters' file says of a key's budget."""
    return look(beside(str(path)))[f"key {name} {rule}"][0]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_exactly_as_many_pass_as_are_paid_for_fifty_times_in_a_row(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    provider = provide()
    sidecar = start(environ(provider, tmp_path, RUNS, "0.37usd/total"))
    found = asyncio.run(all_at_once(sidecar.port, names(RUNS), body()))
    assert found == [{(200, ""): ALLOWED, (429, "budget_exhausted"): CLIENTS - ALLOWED}] * RUNS
    assert provider.simulator.requests[-1].number == RUNS * ALLOWED, "not one more has left"
    sidecar.stop()
    path = tmp_path / "ledger.db"
    costs = Counter[str]()
    for row in rows(path):
        costs[row["key"]] += row["cost_micros"] or 0
    assert costs == dict.fromkeys(names(RUNS), 370_000)
    assert {name: spent(path, name, "usd/total") for name in names(RUNS)} == costs


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_with_larger_reservations_never_more(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    """A reservation is five times what it costs in the end: fewer pass at once, and all of the budget can be used."""
    provider = provide()
    sidecar = start(environ(provider, tmp_path, 5, "1000tokens/total"))
    order = body("input=20,output=10")
    found = asyncio.run(all_at_once(sidecar.port, names(5) * 12, order))
    passed = Counter[str]()
    for name, run in zip(names(5) * 12, found, strict=True):
        passed[name] += run[200, ""]
        assert set(run) <= {(200, ""), (429, "budget_exhausted")}
    most = PREAMBLE + len(order) + 50
    for name, number in passed.items():
        assert 1000 - most < number * 30 <= 1000, name
    sidecar.stop()
    assert {name: spent(tmp_path / "ledger.db", name, "tokens/total") for name in passed} == {
        name: number * 30 for name, number in passed.items()
    }


async def _any_way(port: int, name: str, seed: int) -> None:
    """One client, which may leave in the middle; the provider may, too."""
    dice = random.Random(seed)
    order = dice.choice(
        ("", "", "cut=1", "cut-rst=1", "reset", "drop", "drop-next", "error=1", "status=500", "pace=50")
    )
    asked = body(order, stream=dice.random() < 0.5)
    link = Link(port)
    reader, writer = await link.open()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"content-length: {len(asked)}"]
    lines += [f"{field}: {text}" for field, text in carrying(name)]
    writer.write("\r\n".join([*lines, "", ""]).encode() + asked)
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            if dice.random() < 0.7:
                await reader.read(1 << 16)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    await link.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("disconnect", ["cancel", "drain:2"])
def test_with_cuts_and_clients_that_leave_never_more(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path, disconnect: str
) -> None:
    provider = provide()
    env = environ(provider, tmp_path, 8, "0.37usd/total concurrent=50") | {"LLM_PROXY_DISCONNECT": disconnect}
    sidecar = start(env)

    async def storm() -> None:
        for name in names(8):
            await asyncio.gather(*(_any_way(sidecar.port, name, seed) for seed in range(CLIENTS)))

    asyncio.run(storm())
    sidecar.stop()
    path = tmp_path / "ledger.db"
    costs = Counter[str]()
    for row in rows(path):
        costs[row["key"]] += row["cost_micros"] or 0
    for name in names(8):
        assert 0 < costs[name] <= 370_000
        assert spent(path, name, "usd/total") == costs[name], "the budget is the sum of the receipts"
    assert holds(beside(str(path))) == [], "nothing is reserved any more"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_kill_in_the_middle_gives_nobody_a_second_budget(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    """Some answers are out, some run, some are refused: kill -9. What was admitted before and after is the budget; what
    ran counts as spent, and the operator is told."""
    provider = provide()
    env = environ(provider, tmp_path, 3, "0.37usd/total") | {"LLM_PROXY_LOG": "json"}
    path = tmp_path / "ledger.db"
    for name, ended in zip(names(3), (0, 5, 30), strict=True):
        provider.mark()
        sidecar = start(env)

        async def until(sidecar: Sidecar = sidecar, name: str = name, ended: int = ended) -> None:
            slow = body("hold=60,stall=1", stream=True)
            links = [Link(sidecar.port) for _ in range(CLIENTS)]
            for link in links[:ended]:
                reply = await link.ask("POST", PATH, body(), *carrying(name))
                assert reply.status == 200
            asking = [asyncio.ensure_future(link.ask("POST", PATH, slow, *carrying(name))) for link in links]
            refused = 0
            for done in asyncio.as_completed(asking):
                refused += (await done).status == 429
                if refused == CLIENTS - (ALLOWED - ended):
                    break
            sidecar.kill()
            await asyncio.gather(*asking, return_exceptions=True)
            await asyncio.gather(*(link.close() for link in links))

        asyncio.run(until())
        seen = len(provider.seen())  # some were about to connect
        assert ended <= seen <= ALLOWED
        sidecar = start(env)
        (found,) = asyncio.run(all_at_once(sidecar.port, [name], body()))
        assert found == {(429, "budget_exhausted"): CLIENTS}
        assert len(provider.seen()) <= ALLOWED
        told = [line["message"] for line in sidecar.lines if line.get("level") == "warn"]
        assert any(
            f"{ALLOWED - ended} requests were running when the process before was killed" in text for text in told
        )
        assert spent(path, name, "usd/total") == 370_000
        sidecar.stop()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_kill_with_budget_left_leaves_exactly_the_rest(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    provider = provide()
    env = environ(provider, tmp_path, 1, "0.37usd/total")
    sidecar = start(env)

    async def some(count: int) -> None:
        slow = body("hold=60,stall=1", stream=True)
        links = [Link(sidecar.port) for _ in range(count)]
        asking = [asyncio.ensure_future(link.ask("POST", PATH, slow, *carrying("r00"))) for link in links]
        await asyncio.to_thread(provider.wait_until, lambda simulator: len(simulator.requests) == count)
        sidecar.kill()
        await asyncio.gather(*asking, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in links))

    asyncio.run(some(20))
    sidecar = start(env)
    (found,) = asyncio.run(all_at_once(sidecar.port, ["r00"], body()))
    assert found == {(200, ""): ALLOWED - 20, (429, "budget_exhausted"): CLIENTS - (ALLOWED - 20)}
