"""Ledgers with the rows that a test wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxy.ledger import schema

NOW = 1795608000.0  # 2026-11-25 12:00 UTC, a Wednesday
HOUR = 3600.0
DAY = 24 * HOUR

_USUAL = {
    "run": "r",
    "started_at": NOW - HOUR,
    "key": "billing",
    "provider": "openai",
    "model_requested": "gpt-4o",
    "model_served": "gpt-4o-2024-08-06",
    "dialect": "openai-chat",
    "method": "POST",
    "path": "/v1/chat/completions",
    "stream": 1,
    "status": 200,
    "ended_by": "upstream",
    "ended_phase": "done",
    "ended_kind": "complete",
    "detail": "",
    "complete": 1,
    "usage_source": "reported",
    "input_source": "reported",
    "output_source": "reported",
    "usage_complete": 1,
    "input_tokens": 1000,
    "output_tokens": 100,
    "cost_micros": 3500,
    "attempts": 0,
    "total_ms": 1234.5,
}
FAILED = {
    "status": 429,
    "ended_kind": "error_status",
    "complete": 0,
    "model_served": None,
    "usage_source": "none",
    "input_source": "none",
    "output_source": "none",
    "usage_complete": None,
    "input_tokens": None,
    "output_tokens": None,
    "cost_micros": None,
}
LEFT = {
    "ended_by": "client",
    "ended_phase": "stream",
    "ended_kind": "client_left",
    "complete": 0,
    "usage_source": "counted",
    "output_source": "counted",
    "usage_complete": 0,
    "output_tokens": 40,
}


# An exchange that failed over: azure took tokens and broke off, openai gave the answer.
_AZURE = {
    "why": "first",
    "provider": "azure",
    "model": "gpt-4o-eu",
    "model_served": None,
    "status": 200,
    "ended_by": "upstream",
    "ended_phase": "stream",
    "ended_kind": "reset",
    "usage_complete": 0,
    "usage_source": "estimated",
    "input_source": "counted",
    "output_source": "estimated",
    "input_tokens": 900,
    "output_tokens": 30,
    "cost_micros": 1100,
}
_OPENAI = {
    "why": "fallback",
    "provider": "openai",
    "model": "gpt-4o",
    "model_served": "gpt-4o-2024-08-06",
    "status": 200,
    "usage_source": "reported",
    "input_source": "reported",
    "output_source": "reported",
    "usage_complete": 1,
    "input_tokens": 1000,
    "output_tokens": 100,
    "cost_micros": 3500,
}
FAILED_OVER = {
    "alias": "fast",
    "model_requested": "fast",
    "input_tokens": 1900,
    "output_tokens": 130,
    "cost_micros": 4600,
    "usage_source": "estimated",
    "input_source": "counted",
    "output_source": "estimated",
    "usage_complete": 0,
    "tries": [_AZURE, _OPENAI],
}


def fill(path: Path, *rows: dict[str, Any]) -> str:
    """The ledger at `path`, made if need be, with an exchange for each of `rows`, which name what is unusual in them;
    and with as many attempts as each says, or those in `tries`. The path as text."""
    connection = schema.connect(str(path), 5.0)
    try:
        with schema.writing(connection):
            [(before,)] = connection.execute("SELECT count(*) FROM exchanges")
            for number, row in enumerate(rows, before + 1):
                row = {"id": f"r-{number}", **_USUAL, **row}
                tries = row.pop("tries", [{"provider": row["provider"]}] * row["attempts"])
                put(connection, "exchanges", row | {"attempts": len(tries)})
                for attempt, each in enumerate(tries, 1):
                    put(connection, "attempts", {"exchange_id": row["id"], "number": attempt, **each})
    finally:
        connection.close()
    return str(path)


def put(connection: Any, table: str, row: dict[str, Any]) -> None:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
