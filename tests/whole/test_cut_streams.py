"""Every recorded stream, cut at a quarter, half and three quarters: the exchange has its row, is incomplete, and what
passed is counted as one count of all of it would be. And whole: then nobody counts.

How it works: the sidecar runs in this process before an upstream that plays the beginning of a recording and closes;
the process that counts is the real one, and the rows are in a real ledger.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.dialects import DIALECTS
from proxy.dialects.factors import factor
from proxy.dialects.text import answer_text
from proxy.ledger.writer import Ledger, LedgerOptions
from proxy.outcome import Receipt, Source
from proxy.relay.metering import FOLD_BYTES
from proxy.tokens.teller import load
from proxy.wire.sse import EventCutter, EventFraming
from tests import recordings
from tests.adversity.peers import Peer
from tests.adversity.speech import CHUNKED, LAST, chunk, post
from tests.adversity.stage import Stage, run
from tests.dialects import transcripts
from tests.dialects.test_watch_recorded import FRAMINGS, dialect_of

SHARES = (25, 50, 75)
AT_ONCE = 20
WAYS = {
    "openai-chat": b"/oai/v1/chat/completions",
    "openai-completions": b"/oai/v1/completions",
    "openai-responses": b"/oai/v1/responses",
    "anthropic-messages": b"/claude/v1/messages",
    "gemini": b"/gem/v1beta/models/%b:streamGenerateContent",
    "ollama": b"/oll/api/chat",
}


TEXTS = {"openai-completions": "prompt", "openai-responses": "input"}


class Cut(NamedTuple):
    """The first bytes of a stream. `all`: none of it is missing."""

    name: str
    dialect: str
    framing: EventFraming
    data: bytes
    all: bool

    @property
    def shown(self) -> bytes:
        """The whole events in it."""
        cutter = EventCutter(self.framing)
        cutter.feed(self.data)
        return cutter.block


def streams(folder: str) -> list[tuple[str, str, EventFraming, bytes]]:
    """Every stream that is read, by name, from one of the two folders."""
    found = []
    for entry in transcripts.entries() if folder == "transcripts" else recordings.recorded():
        framing = _framing(entry)
        dialect = dialect_of(entry) if folder == "recordings" else entry["api"]
        if framing is not None and dialect in WAYS and entry["response"]["status"] == 200:
            root = transcripts.FOLDER if folder == "transcripts" else recordings.FIXTURES
            found.append((entry["id"], dialect, framing, (root / entry["response"]["file"]).read_bytes()))
    return found


def _framing(entry: dict[str, Any]) -> EventFraming | None:
    if "stream_facts" in entry:
        return FRAMINGS.get(entry["stream_facts"]["framing"]) if entry["streaming"] else None
    return FRAMINGS.get((entry["response"]["framing"] or "").replace("_", "-"))


def cuts(folder: str) -> list[Cut]:
    return [
        Cut(f"{name}@{share}", dialect, framing, data[: len(data) * share // 100], False)
        for name, dialect, framing, data in streams(folder)
        for share in SHARES
    ]


FOLDERS = ["transcripts", *(["recordings"] if recordings.is_at_hand() else [])]


def asked(number: int, cut: Cut) -> bytes:
    if cut.dialect == "gemini":
        query = b"?alt=sse" if cut.framing is EventFraming.SSE else b""
        return post(WAYS["gemini"] % b"cut-%d" % number + query, b'{"contents":[{"parts":[{"text":"Hello you"}]}]}')
    body: dict[str, Any] = {"model": f"cut-{number}", "stream": True}
    if cut.dialect in TEXTS:
        body[TEXTS[cut.dialect]] = "Hello you"
    else:
        body["messages"] = [{"role": "user", "content": "Hello you"}]
    return post(WAYS[cut.dialect], json.dumps(body).encode())


def play(made: list[Cut], sinks: Callable[[Receipt], None]) -> tuple[dict[str, Receipt], int]:
    """Every cut through a sidecar: its receipt by its name, and how many processes were started to count."""

    async def script(link: Peer) -> None:
        head, body = await link.request()
        number = int((head + body).partition(b"cut-")[2].split(b'"')[0].split(b":")[0])
        cut = made[number]
        await link.send_all(CHUNKED)
        for at in range(0, len(cut.data), 50_000):
            await link.send_all(chunk(cut.data[at : at + 50_000]))
        if cut.all:
            link.send(LAST)

    found: dict[str, Receipt] = {}
    starts = 0

    async def main() -> None:
        nonlocal starts
        async with Stage(script, COUNT="on", INCLUDE_USAGE="off") as stage:
            stage.worker.relay._sinks = (*stage.worker.relay._sinks, sinks)
            for at in range(0, len(made), AT_ONCE):
                batch = made[at : at + AT_ONCE]
                for number, cut in enumerate(batch, at):
                    client = await stage.client()
                    client.send(asked(number, cut))
                await stage.all_receipts(len(batch))
                for receipt in stage.receipts:
                    name = (receipt.model_requested or "").removeprefix("cut-")
                    found[made[int(name)].name] = receipt
                stage.receipts.clear()
                for client in stage.clients:
                    client.close()
                stage.clients.clear()
            counter: Any = stage.worker.relay.counter
            starts = counter.starts
            await counter.close(5.0)  # its descriptors are not left over, they are kept for the next need

    run(main())
    return found, starts


@cache
def counting() -> Callable[[str], int]:
    return load()


def one_count(cut: Cut) -> int:
    """Tokens of all text that passed, each channel counted at once."""
    return sum(map(counting(), answer_text(cut.dialect, cut.shown, True).values()))


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("folder", FOLDERS)
def test_what_passed_of_a_cut_stream_is_counted(folder: str, tmp_path: Path) -> None:
    made = cuts(folder)
    path = tmp_path / "ledger.db"
    ledger = Ledger(LedgerOptions(str(path)), "0123456789ab", "test", lambda *_, **__: None)
    ledger.open()
    ledger.start()
    found, _ = play(made, ledger.observe)
    assert ledger.close(10.0)
    with sqlite3.connect(path) as connection:
        rows = connection.execute("select complete, output_tokens is null from exchanges").fetchall()
    connection.close()
    assert rows == [(0, 0)] * len(made), "every cut has its row with a figure, and none is complete"

    wrong, counted = [], 0
    for cut in made:
        usage = found[cut.name].usage
        assert usage is not None, cut.name
        meter = DIALECTS[cut.dialect].meter(True)
        meter.feed(cut.shown)
        told = meter.usage()
        if told.input_source is Source.REPORTED:
            assert (usage.input, usage.input_source) == (told.input, Source.REPORTED), cut.name
        else:
            assert usage.input_source is Source.COUNTED and usage.counted_input, cut.name
        if meter.is_reported:
            assert (usage.output, usage.output_source) == (told.output, Source.REPORTED), cut.name
            continue
        assert not usage.complete
        expected = one_count(cut)
        if abs((usage.counted_output or 0) - expected) > 0.03 * expected:
            wrong.append(f"{cut.name}: {usage.counted_output} tokens, {expected} in one count")
        elif expected:
            counted += 1
            assert usage.output_source is Source.COUNTED
            assert usage.counted_output is not None
            assert usage.output == round(usage.counted_output * factor(meter.model))
    assert not wrong
    assert counted > len(made) // 4, "most streams report nothing before their end"


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("folder", FOLDERS)
def test_nobody_counts_what_was_reported(folder: str) -> None:
    """Streams that ended with a report and stayed below the bound start no process."""
    made = []
    for name, dialect, framing, data in streams(folder):
        cut = Cut(name, dialect, framing, data, True)
        meter = DIALECTS[dialect].meter(True)
        meter.feed(cut.shown)
        if len(data) < FOLD_BYTES and meter.is_reported and meter.usage().input is not None:
            made.append(cut)
    found, starts = play(made, lambda receipt: None)
    assert len(found) == len(made) > 5
    assert starts == 0
    assert all(r.usage is not None and r.usage.source is Source.REPORTED for r in found.values())
