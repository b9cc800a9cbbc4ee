"""Receipts for the ledger's tests, and a look at what became of them."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger.spill import Spill
from proxy.ledger.writer import Ledger, LedgerOptions
from proxy.outcome import Attempt, Failure, Kind, Phase, Receipt, Side, Source, Usage

RUN = "run0"
SECONDS = 20.0  # far more than anything here takes; only reached when something hangs


def a_receipt(number: int = 1, run: str = RUN, **more: Any) -> Receipt:
    given = {
        "id": f"{run}-{number}",
        "started_at": 1e9 + number,
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1",
    }
    return Receipt(**(given | more))


def full_receipt(number: int = 1) -> Receipt:
    """Every field has a value of its own."""
    failure = Failure(Side.UPSTREAM, Phase.CONNECT, Kind.CONNECT_FAILED, "refused")
    used = Usage(
        input=1180,
        output=300,
        cached=1000,
        cache_write=100,
        reasoning=200,
        searches=2,
        cost_micros=1235,
        input_source=Source.REPORTED,
        output_source=Source.COUNTED,
        complete=True,
    )
    return a_receipt(
        number,
        path="/v1/chat/completions",
        key="billing",
        provider="openai",
        alias="fast",
        model_requested="gpt-4o-mini",
        model_served="gpt-4o-mini-2024-07-18",
        dialect="openai-chat",
        stream=True,
        status=200,
        ended_by=Side.CLIENT,
        ended_phase=Phase.STREAM,
        ended_kind="client_left",
        detail="the client left",
        complete=False,
        attempts=[
            Attempt("azure", "gpt-4o", 1.5, 2.5, False, 0, failure, usage=Usage(input=20), cost_micros=34),
            Attempt(
                "openai", "gpt-4o-mini", 2.75, 90.5, True, 200, None, "fallback", 21.5, used, 1200, "served", 44000
            ),
        ],
        events=31,
        stands_for=3,
        bytes_in=2000,
        bytes_out=44000,
        body_ms=0.125,
        queue_ms=0.25,
        connect_ms=0.5,
        sent_ms=3.5,
        first_byte_ms=20.5,
        first_event_ms=21.5,
        total_ms=91.5,
        provider_request_id="req_1",
        tags="team=a, é",
        usage=Usage(
            input=1200,
            output=300,
            cached=1000,
            cache_write=100,
            cache_write_1h=50,
            reasoning=200,
            searches=2,
            cost_micros=1235,
            input_source=Source.REPORTED,
            output_source=Source.COUNTED,
            complete=True,
            counted_input=1190,
            counted_output=299,
        ),
        cost_micros=1234,
        price_version="2026-11",
    )


class Heard:
    """Imitates the access log's `note`: keeps what the operator is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str, dict[str, object]]] = []
        self.something = threading.Event()

    def __call__(self, level: str, message: str, /, **more: object) -> None:
        self.notes.append((level, message, more))
        self.something.set()

    @property
    def levels(self) -> list[str]:
        return [level for level, _, _ in self.notes]

    def wait(self) -> None:
        """Until something is said after the last wait."""
        assert self.something.wait(SECONDS)
        self.something.clear()


def a_ledger(path: Path, heard: Heard | None = None, run: str = RUN, **options: Any) -> Ledger:
    """Open, and without a thread: it writes when its `turn` is called. It does not wait for locks."""
    given = {"path": str(path), "lock_seconds": 0.0} | options
    ledger = Ledger(LedgerOptions(**given), run, "1.2.3", heard or Heard())
    ledger.open()
    return ledger


def rows(path: Path, sql: str = "SELECT * FROM exchanges") -> list[dict[str, Any]]:
    """What a user sees who asks the file, at this moment."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def ids(path: Path) -> list[str]:
    return [row["id"] for row in rows(path, "SELECT id FROM exchanges ORDER BY rowid")]


def the_run(path: Path, run: str = RUN) -> dict[str, Any]:
    [row] = [row for row in rows(path, "SELECT * FROM runs") if row["id"] == run]
    return row


def is_sound(path: Path) -> bool:
    return rows(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody's tool holds the database."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()


class FullDisk:
    """Imitates a disk on which neither file can grow, until it is `freed`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self._monkeypatch = monkeypatch
        self._lock = locked(path)
        self._lock.__enter__()
        monkeypatch.setattr(Spill, "append", self._refuse)

    def _refuse(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def free_the_spill(self) -> None:
        self._monkeypatch.undo()

    def free_the_database(self) -> None:
        self._lock.__exit__(None, None, None)
