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
from tests.whole.links import PATIENCE, Link, Reply
from tests.whole.processes import Provider, Sidecar

CLIENTS = 200
ALLOWED = 37
RUNS = 50
ROUNDS = 10
PATH = "/v1/chat/completions"

# One cent for each request and nothing for tokens, so that a reservation is the cost.
PRICES: dict[str, Any] = {
    "version": "race",
    "prices": [{"provider": "openai", "model": "*", "request": 0.01, "input": 0, "output": 0}],
}


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
    how many answers of each status, and of each reason of a refusal; "error" is a stream that tells one."""
    found = []
    links = [Link(port) for _ in range(CLIENTS)]
    await asyncio.gather(*(link.open() for link in links))
    for name in runs:
        replies = await asyncio.gather(*(link.ask("POST", PATH, asked, *carrying(name)) for link in links))
        found.append(Counter((reply.status, _reason(reply)) for reply in replies))
    await asyncio.gather(*(link.close() for link in links))
    return found


def _reason(reply: Reply) -> str:
    is_bad = reply.status == 200 and (b'"error"' in reply.body or not reply.is_whole)
    return "error" if is_bad else "".join(reply.all("x-llm-proxy-error"))


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


# -- with more than one attempt ---------------------------------------------------------------------------------------

ALIKE = "m = a/one, b/two"


def two_targets(providers: list[Provider], tmp_path: Path, count: int, rules: str, models: str) -> dict[str, str]:
    """As `environ`, with providers a and b behind the alias m, and nothing to stop retries but their number."""
    env = environ(providers[0], tmp_path, count, rules)
    prices = [{**PRICES["prices"][0], "provider": name} for name in "ab"]
    (tmp_path / "prices.json").write_text(json.dumps({**PRICES, "prices": prices}))
    for name, provider in zip("AB", providers, strict=True):
        env[f"LLM_PROXY_PROVIDER_{name}"] = f"openai+http://127.0.0.1:{provider.port}/v1"
    more = {"MODELS": models, "RETRIES": "2", "RETRY_SHARE": "1", "COUNT": "off"}
    return env | {f"LLM_PROXY_{name}": value for name, value in more.items()}


def order(provider: Provider, seed: int, *specs: str, count: int = 5_000) -> None:
    """So many requests get one of `specs` each, by chance."""
    provider.simulator.order(*random.Random(seed).choices(specs, k=count))


def good(providers: list[Provider]) -> int:
    """Answers that went out whole, as the providers know it."""
    return sum(entry.is_reported for each in providers for entry in each.simulator.books.entries)


def attempt_rows(path: Path) -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute("select * from attempts")]
    connection.close()
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("stream", [True, False], ids=["streams", "documents"])
def test_attempts_that_fail_are_not_paid_for(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path, stream: bool
) -> None:
    """Half of all attempts fail, in any way. What they had is the next one's, or the next client's: so many answers as
    are paid for come in the end, and never one more."""
    providers = [provide(), provide()]
    faults = ("status=503", "reset", "error=0" if stream else "status=500")
    for seed, each in enumerate(providers):
        order(each, seed, "", "", "", *faults)
    sidecar = start(two_targets(providers, tmp_path, ROUNDS, "0.37usd/total", ALIKE))
    asked = body(model="m", stream=stream)
    passed = Counter[str]()
    for name in names(ROUNDS):
        for _ in range(20):  # whoever is refused while others fail does not wait for what they give back
            (found,) = asyncio.run(all_at_once(sidecar.port, [name], asked))
            assert set(found) <= {(200, ""), (200, "error"), (429, "budget_exhausted"), *((s, "") for s in (500, 503)),
                                  (502, "reset")}  # fmt: skip
            assert found[200, ""] <= ALLOWED - passed[name], "never one more"
            passed[name] += found[200, ""]
            if found == {(429, "budget_exhausted"): CLIENTS}:
                break
    assert passed == dict.fromkeys(names(ROUNDS), ALLOWED), "all of it could be used"
    assert good(providers) == ROUNDS * ALLOWED
    sidecar.stop()
    path = tmp_path / "ledger.db"
    complete, costs = Counter[str](), Counter[str]()
    for row in rows(path):
        complete[row["key"]] += row["complete"]
        costs[row["key"]] += row["cost_micros"] or 0
    assert complete == passed
    assert costs == dict.fromkeys(names(ROUNDS), 370_000), "what failed cost nothing"
    assert {name: spent(path, name, "usd/total") for name in names(ROUNDS)} == costs
    assert holds(beside(str(path))) == [], "nothing is reserved any more"
    made = attempt_rows(path)
    assert sum(row["ended_kind"] is None for row in made) == ROUNDS * ALLOWED
    assert sum(row["cost_micros"] or 0 for row in made) == ROUNDS * 370_000
    assert {row["why"] for row in made} >= {"first", "retry", "fallback"}


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("spec", ["status=409", "status=503", "reset", "error=0"])
def test_what_is_tried_again_is_one_request(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path, spec: str
) -> None:
    """A limit on requests lets as many through as if no attempt had failed."""
    providers = [provide(spec), provide()]
    env = two_targets(providers, tmp_path, 3, f"rpd=1/{ALLOWED} tpd=1M", "m = a/one | b/two")
    sidecar = start(env)
    asked = body(model="m", stream=True)

    async def one_by_one(count: int) -> None:
        async with Link(sidecar.port) as link:
            for name in names(3):
                replies = [await link.ask("POST", PATH, asked, *carrying(name)) for _ in range(count)]
                assert [reply.status for reply in replies] == [200] * count

    asyncio.run(one_by_one(10))
    found = asyncio.run(all_at_once(sidecar.port, names(3), asked))
    left = ALLOWED - 10
    assert found == [{(200, ""): left, (429, "too_many_requests"): CLIENTS - left}] * 3
    assert good(providers) == 3 * ALLOWED == len(providers[1].seen())
    if spec == "status=409":  # which says nothing of the target: it is asked each time
        assert len(providers[0].seen()) == 3 * ALLOWED
    assert providers[0].seen()
    sidecar.stop()
    assert holds(beside(str(tmp_path / "ledger.db"))) == []


async def _leaves(port: int, name: str, seed: int) -> None:
    """One client, which may leave at any time."""
    dice = random.Random(seed)
    asked = body(model="m", stream=True)
    link = Link(port)
    reader, writer = await link.open()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: localhost",
        "connection: close",
        f"content-length: {len(asked)}",
    ]
    lines += [f"{field}: {text}" for field, text in carrying(name)]
    writer.write("\r\n".join([*lines, "", ""]).encode() + asked)
    try:
        async with asyncio.timeout(PATIENCE if dice.random() < 0.7 else dice.random() / 3):
            while await reader.read(1 << 16):
                pass
    except (TimeoutError, ConnectionError):
        pass
    await link.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_at_once_and_streams_that_are_carried_on_never_cost_more(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    """Hedges, resumed streams, retries and clients that leave, all at once: the budget is the sum of the receipts."""
    providers = [provide("close"), provide("close")]
    models = "m (hedge resume) = a/one, b/one"
    env = two_targets(providers, tmp_path, 8, "0.37usd/total", models) | {"LLM_PROXY_TIMEOUT_STREAM": "0.4"}
    sidecar = start(env)
    (warm,) = asyncio.run(all_at_once(sidecar.port, names(1), body(model="m", stream=True)))
    assert warm[200, ""] == ALLOWED, "enough to know how long it takes"
    specs = (
        "",
        "",
        "cut=3",
        "cut-rst=3",
        "stall=3",
        "reset",
        "error=0",
        "error=2",
        "status=503",
        "pace=50",
        "delay=0.2",
    )
    for seed, each in enumerate(providers):
        order(each, seed, *specs)

    async def storm() -> None:
        for name in names(8)[1:]:
            await asyncio.gather(*(_leaves(sidecar.port, name, seed) for seed in range(CLIENTS)))

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
    made = attempt_rows(path)
    assert {"hedge", "resume"} <= {row["why"] for row in made}
    assert sum(row["cost_micros"] or 0 for row in made) == sum(costs.values())


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
