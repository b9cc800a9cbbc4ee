"""The ledger of a real process against the books of the provider: one row for each exchange whatever happens to it, no
figure that nobody said, and nothing missing that is not told."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.simulator.books import Ending, Entry
from tests.whole.links import Link, each
from tests.whole.processes import ROOT, Provider, Sidecar

EXCHANGES = 10_000
LINKS = 24
FLUSH = 0.2  # seconds; LedgerOptions.flush_seconds, and what the README promises

# Every format, streamed and not; figures of all kinds are ordered in the model's name.
_FIGURES = "input=%d output=%d cached=7 reasoning=2"


class Plan(NamedTuple):
    """One exchange to make. `leaves`: the client goes away in the middle."""

    path: str
    body: bytes
    leaves: bool


def plans(count: int, seed: int, disturbed: float = 0.05) -> list[Plan]:
    """`count` exchanges; a share of them is `disturbed`, half by the client and half by the provider."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        dice = rng.random()
        order = _FIGURES % (rng.randrange(50, 5000), rng.randrange(5, 900))
        leaves = dice < disturbed / 2
        if leaves:
            order += " pace=2000 events=100000"
        elif dice < disturbed:
            order += f" cut={rng.randrange(1, 4)}"
        made.append(_plan(rng.randrange(7), f"sim:{order}", leaves))
    return made


def _plan(number: int, model: str, leaves: bool) -> Plan:
    message = [{"role": "user", "content": "Tell me something."}]
    chat: dict[str, Any] = {"model": f"openai/{model}", "messages": message}
    stream = chat | {"stream": True}
    path, body = {
        0: ("/v1/chat/completions", stream),
        1: ("/v1/chat/completions", stream | {"stream_options": {"include_usage": True}}),
        2: ("/v1/responses", {"model": f"openai/{model}", "input": "Hello", "stream": True}),
        3: ("/v1/messages", stream | {"model": f"anthropic/{model}", "max_tokens": 100}),
        4: ("/api/chat", {"model": f"ollama/{model}", "messages": message}),
        5: ("/v1/messages", stream | {"model": f"anthropic/{model}", "max_tokens": 100, "stream": leaves}),
        6: ("/v1/chat/completions", stream if leaves else chat),
    }[number]
    return Plan(path, json.dumps(body).encode(), leaves)


JSON = ("content-type", "application/json")


async def _make(link: Link, plan: Plan) -> None:
    if not plan.leaves:
        await link.ask("POST", plan.path, plan.body, JSON)
        return
    reader, writer = await link.open()
    head = f"POST {plan.path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(plan.body)}\r\n\r\n"
    writer.write(head.encode() + plan.body)
    await reader.readuntil(b"\r\n\r\n")
    await reader.readline()
    await link.close()


def make(plans: list[Plan], port: int) -> None:
    asyncio.run(each(plans, port, _make, links=LINKS))


def rows(path: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute("select * from exchanges order by rowid")]
    connection.close()
    return found


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", "ledger", "check", "--db", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


FIGURES = ("input", "output", "cached", "cache_write", "reasoning")


def told(entry: Entry) -> tuple[int, ...]:
    return tuple(getattr(entry.report, name) or 0 for name in FIGURES)


def noted(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[f"{name}_tokens"] or 0 for name in FIGURES)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_exchanges_add_up(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    provider = provide()
    sidecar = start({**provider.environ(), "LLM_PROXY_DB": str(path), "LLM_PROXY_LOG": "off"})
    make(plans(EXCHANGES, seed=1), sidecar.port)
    sidecar.stop()
    found = rows(path)

    assert len(found) == EXCHANGES
    with sqlite3.connect(path) as connection:  # receipts that were handed over, and rows that were made of them
        assert connection.execute("select observed, written, lost from runs").fetchall() == [(EXCHANGES, EXCHANGES, 0)]
    connection.close()
    assert check(path).returncode == 0

    entries = {entry.request_id: entry for entry in provider.simulator.books.entries}
    assert len(entries) == EXCHANGES
    sums: Counter[str] = Counter()
    for row in found:
        entry = entries.pop(row["provider_request_id"])
        assert entry.dialect == row["dialect"]
        assert bool(row["complete"]) is (entry.ending is Ending.ENDED), row
        if entry.is_reported and row["complete"]:
            assert (noted(row), row["usage_source"], row["usage_complete"]) == (told(entry), "reported", 1)
            sums.update(dict(zip(FIGURES, told(entry), strict=True)))
        elif not entry.is_reported:
            assert row["usage_complete"] == 0
            assert row["output_source"] in ("counted", "estimated"), row
            assert row["input_tokens"] > 0 and row["output_tokens"] is not None
    assert entries == {}

    # The same as sums, as a user would ask for them.
    with sqlite3.connect(path) as connection:
        columns = ", ".join(f"sum({name}_tokens)" for name in FIGURES)
        summed = connection.execute(f"select {columns} from exchanges where complete").fetchone()
    connection.close()
    totals = [total for line, total in provider.simulator.books.totals.items() if line.ending is Ending.ENDED]
    assert list(summed) == [sum(getattr(total, name) for total in totals) for name in FIGURES]
    assert list(summed) == [sums[name] for name in FIGURES]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_drained_answer_is_in_the_ledger_as_the_provider_has_it(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    provider = provide("pace=300 events=60")
    sidecar = start({**provider.environ(), "LLM_PROXY_DB": str(path), "LLM_PROXY_DISCONNECT": "drain"})
    # Only streams: who waits for the second line of a document waits until its link is too long idle.
    asked = [plan._replace(leaves=True) for plan in plans(40, 2, disturbed=0) if b'"stream": true' in plan.body]
    make(asked, sidecar.port)
    count = len(asked)
    provider.wait_until(lambda simulator: len(simulator.books.entries) == count)
    sidecar.wait_for_receipts(count)
    sidecar.stop()
    entries = {entry.request_id: entry for entry in provider.simulator.books.entries}
    found = rows(path)
    assert len(found) == count
    for row in found:
        entry = entries[row["provider_request_id"]]
        assert entry.ending is Ending.ENDED
        assert (noted(row), row["usage_source"]) == (told(entry), "reported")
    left = [row for row in found if row["ended_kind"] == "client_left"]
    assert left and all(row["usage_complete"] and not row["complete"] for row in left)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_kill_costs_at_most_one_flush_and_the_ledger_says_what(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    provider = provide()
    env = {**provider.environ(), "LLM_PROXY_DB": str(path)}
    sidecar = start(env)
    ended: list[float] = []  # when each exchange was over, for its client

    async def one(link: Link, plan: Plan) -> None:
        try:
            if (await link.ask("POST", plan.path, plan.body, JSON)).is_whole:
                ended.append(time.monotonic())
        except (OSError, asyncio.IncompleteReadError):
            pass
        if len(ended) == 1500:
            sidecar.may_end = True
            sidecar.process.kill()

    asyncio.run(each(plans(3000, 3, disturbed=0), sidecar.port, one, links=8))
    killed = ended[1499]
    sidecar.wait()
    answer = check(path)
    assert answer.returncode == 1
    again = start(env)
    make(plans(10, 4, disturbed=0), again.port)
    again.stop()

    with sqlite3.connect(path) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        run, observed, lost = connection.execute(
            "select id, observed, lost from runs where ended_at is null or lost > 0 or observed > 1000"
        ).fetchone()
        kept = connection.execute("select count(*) from exchanges where run = ?", (run,)).fetchone()[0]
        others = connection.execute("select count(*) from exchanges where run != ?", (run,)).fetchone()[0]
    connection.close()
    assert others == 10
    assert kept + lost == observed, "every receipt is a row, or is told as lost"
    # An answer too large to wait for the end of the loop's turn is sent within its exchange, before its receipt.
    assert len(ended) - 1 <= observed <= 3000
    late = sum(moment > killed - FLUSH - 0.1 for moment in ended)  # a tenth more for a machine under load
    assert lost <= late + 8, f"{lost} lost, {late} in the last flush"
    if lost:
        assert str(lost) in answer.stdout, answer.stdout


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_termination_costs_nothing(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    provider = provide()
    sidecar = start({**provider.environ(), "LLM_PROXY_DB": str(path), "LLM_PROXY_TIMEOUT_SHUTDOWN": "1"})
    done = 0

    async def one(link: Link, plan: Plan) -> None:
        nonlocal done
        try:
            await _make(link, plan)
        except (OSError, asyncio.IncompleteReadError):
            return
        done += 1
        if done == 400:
            sidecar.may_end = True
            sidecar.send_signal(signal.SIGTERM)

    asyncio.run(each(plans(2000, 5), sidecar.port, one, links=LINKS))
    assert sidecar.wait() == 0
    found = rows(path)
    assert {row["id"] for row in found} == {receipt["id"] for receipt in sidecar.receipts}
    assert len(found) >= done
    assert check(path).returncode == 0


def test_a_second_process_on_the_same_ledger_is_refused(
    start: Callable[..., Sidecar], provider: Provider, tmp_path: Path
) -> None:
    path = str(tmp_path / "ledger.db")
    start({**provider.environ(), "LLM_PROXY_DB": path})
    second = subprocess.run(
        [sys.executable, "-m", "proxy", "serve"],
        cwd=ROOT,
        env={**provider.environ(), "LLM_PROXY_DB": path, "LLM_PROXY_LISTEN": "127.0.0.1:0", "LLM_PROXY_LOG": "text"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert "LLM_PROXY_DB" in second.stdout and "ledger.db" in second.stdout


def test_no_content_and_no_secret_is_in_the_ledger(
    start: Callable[..., Sidecar], provider: Provider, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    sidecar = start({**provider.environ("sk-canary-upstream-0001"), "LLM_PROXY_DB": str(path)})
    body = json.dumps({"model": "sim", "stream": True, "messages": [{"role": "user", "content": "CANARY"}]})
    order = ("x-simulate", 'cut=3 text="CANARY out loud"')

    async def ask(link: Link, _: int) -> None:
        reply = await link.ask(
            "POST", "/v1/chat/completions?key=CANARY", body.encode(), ("authorization", "Bearer CANARY"), order
        )
        assert b"CANARY" in reply.body

    asyncio.run(each(range(3), sidecar.port, ask, links=1))
    sidecar.wait_for_receipts(3)
    sidecar.stop()
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert b"canary-upstream" not in content, file
        assert b"CANARY" not in content, file
        assert file.stat().st_mode & 0o077 == 0, f"{file} can be read by others"
