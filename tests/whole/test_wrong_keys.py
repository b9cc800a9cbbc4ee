"""Two thousand wrong keys at once: a good key's requests are all answered, log and ledger stay small and count each."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from proxy.telemetry.sampler import BURST, PER_SECOND
from tests.whole.conftest import KEY
from tests.whole.processes import PATIENCE, Provider, Sidecar

WRONG = 2_000
LINKS = 4
GOOD = 40

BODY = json.dumps({"model": "openai/sim", "messages": [{"role": "user", "content": "Hello"}]}).encode()


def request(key: str, body: bytes = b"{}") -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answers(port: int, requests: list[bytes], is_ahead: bool) -> list[int]:
    """The statuses of the answers to `requests` over one link; `is_ahead`: all of them are sent at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    statuses = []
    if is_ahead:
        writer.write(b"".join(requests))
    for each in requests:
        if not is_ahead:
            writer.write(each)
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append(int(head.split(b" ", 2)[1]))
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
    writer.close()
    await writer.wait_closed()
    return statuses


async def besiege(port: int) -> tuple[list[int], list[int]]:
    """Statuses of good requests, one after the other, and of wrong ones, all at once, on links of their own."""
    wrong = [[request(f"sk-wrong-{link}-{number:06}") for number in range(WRONG // LINKS)] for link in range(LINKS)]
    async with asyncio.timeout(PATIENCE):
        good, *refused = await asyncio.gather(
            answers(port, [request(KEY, BODY)] * GOOD, False), *(answers(port, each, True) for each in wrong)
        )
    return good, [status for each in refused for status in each]


def sums(path: Path, what: str) -> Any:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT {what}").fetchone()


def test_a_good_key_is_served_and_nothing_fills_up(
    start: Callable[..., Sidecar], provider: Provider, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.db"
    sidecar = start({**provider.environ(), "LLM_PROXY_KEYS": f"tests={KEY}", "LLM_PROXY_DB": str(path)})
    good, refused = asyncio.run(besiege(sidecar.port))
    assert good == [200] * GOOD
    assert refused == [401] * WRONG
    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.wait() == 0

    lines = [line for line in sidecar.receipts if line["ended_kind"] == "unauthorized"]
    assert sum(line["stands_for"] for line in lines) == WRONG
    # However slow this machine is: a burst, ten a second for as long as it went on, and the last of each second.
    seconds = lines[-1]["started_at"] - lines[0]["started_at"]
    most = BURST + PER_SECOND * (seconds + 1) + seconds + 1
    assert BURST < len(lines) <= most
    assert sum(line["complete"] for line in sidecar.receipts) == GOOD, "of the good ones each has its line"

    notes = [line for line in sidecar.lines if "left_out" in line]
    assert sum(note["left_out"] for note in notes) >= WRONG - len(lines)
    assert notes[0]["left_out"] == 1, "the operator hears of the first"
    assert {name for note in notes for name in note["reasons"]} == {"unauthorized"}
    assert {name for note in notes for name in note["clients"]} == {"127.0.0.1"}

    unauthorized = "FROM exchanges WHERE ended_kind = 'unauthorized'"
    assert sums(path, f"count(*), sum(stands_for) {unauthorized}") == (len(lines), WRONG)
    assert sums(path, "count(*), sum(stands_for) FROM exchanges") == (len(lines) + GOOD, WRONG + GOOD)
    assert sums(path, "observed, written, lost FROM runs") == (len(lines) + GOOD, len(lines) + GOOD, 0)
