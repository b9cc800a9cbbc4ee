"""The transcripts of our own making, for tests that are parametrised with them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "transcripts"


@cache
def entries() -> list[dict[str, Any]]:
    """The manifest's entries."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))["fixtures"]
    return found


def streams() -> list[dict[str, Any]]:
    return [entry for entry in entries() if entry["response"]["framing"]]


def request_body(entry: dict[str, Any]) -> bytes:
    return (FOLDER / entry["request"]["file"]).read_bytes() if entry["request"]["file"] else b""


def answer_body(entry: dict[str, Any]) -> bytes:
    return (FOLDER / entry["response"]["file"]).read_bytes()
