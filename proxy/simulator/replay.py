"""Recorded answers, and how their bytes are cut into pieces.

Lives here: `Replay` (a folder of recordings), `Recording`, the cuts. May not live here: sockets; how a cut is sent.
How it works: the folder holds `manifest.json` with `fixtures`, a list of {id, request{method, path, query, file},
response{status, headers, content_type, file}}; files are named relative to the folder and hold decoded bodies. A
request meets its recording by path and the SHA-256 of its body, or by id (the word `replay`). Bodies are read when
asked for. A folder of one's own needs no more than `id` and `response.file`.
Doubted: read boundaries were not recorded anywhere, so every cut is made up; that is what the cuts are for.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

_NEVER_REPLAYED = frozenset(  # framing and encoding are ours; the recorded date would lie
    (
        "content-length",
        "transfer-encoding",
        "content-encoding",
        "connection",
        "keep-alive",
        "date",
        "trailer",
        "upgrade",
    )
)
_BOUNDARY = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")  # atomic: CR LF is never two line ends
_LINE = re.compile(rb"\r\n|\r|\n")


class ReplayError(ValueError):
    """The folder cannot be used. The message says which file and why."""


@dataclass(frozen=True, slots=True)
class Recording:
    id: str
    api: str
    method: str
    target: str  # path and query; "" if none was recorded
    request_file: Path | None
    status: int
    headers: list[tuple[str, str]]
    file: Path
    streamed: bool

    def body(self) -> bytes:
        return self.file.read_bytes()

    def request_body(self) -> bytes | None:
        return self.request_file.read_bytes() if self.request_file is not None else None


class Replay:
    """All recordings of a folder. `cut` is how bodies go out when a request says nothing about it (`cut_body`)."""

    def __init__(self, folder: str | Path, cut: str = "whole") -> None:
        self.folder = Path(folder)
        self.cut = cut
        cut_body(b"", cut)
        self._by_id: dict[str, Recording] = {}
        self._by_request: dict[tuple[str, str], Recording] = {}
        for entry in _manifest(self.folder):
            self._add(_recording(self.folder, entry))

    def _add(self, recording: Recording) -> None:
        if recording.id in self._by_id:
            raise ReplayError(f"{self.folder / 'manifest.json'}: id {recording.id!r} occurs twice")
        self._by_id[recording.id] = recording
        body = recording.request_body()
        if body is not None and recording.target:
            path = recording.target.partition("?")[0]
            self._by_request.setdefault((path, hashlib.sha256(body).hexdigest()), recording)

    def __iter__(self) -> Iterator[Recording]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, id: str) -> Recording | None:
        return self._by_id.get(id)

    def find(self, path: str, digest: str) -> Recording | None:
        """The recording of a request to `path` (without query) whose body has this SHA-256; the first if several."""
        return self._by_request.get((path, digest))


def _manifest(folder: Path) -> list[dict[str, Any]]:
    file = folder / "manifest.json"
    try:
        value = orjson.loads(file.read_bytes())
    except OSError as problem:
        raise ReplayError(f"{file}: {problem.strerror}") from problem
    except orjson.JSONDecodeError as problem:
        raise ReplayError(f"{file}: not JSON: {problem}") from problem
    entries = value.get("fixtures") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ReplayError(f'{file}: needs a list of objects under "fixtures"')
    return entries


def _recording(folder: Path, entry: dict[str, Any]) -> Recording:
    request = entry.get("request") or {}
    response = entry.get("response") or {}
    id = entry.get("id")
    if not isinstance(id, str) or not isinstance(response.get("file"), str):
        raise ReplayError(f"{folder / 'manifest.json'}: an entry lacks id or response.file: {str(id)[:80]}")
    headers = [(name, value) for name, value in (response.get("headers") or {}).items()]
    headers = [(name, value) for name, value in headers if name.lower() not in _NEVER_REPLAYED]
    kind = response.get("content_type")
    if kind and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", kind))
    query = request.get("query") or ""
    target = (request.get("path") or "") + (f"?{query}" if query else "")
    file = response["file"]
    framing = (entry.get("stream_facts") or {}).get("framing")
    return Recording(
        id=id,
        api=str(entry.get("api") or ""),
        method=str(request.get("method") or "POST").upper(),
        target=target,
        request_file=_inside(folder, request["file"]) if request.get("file") else None,
        status=int(response.get("status") or 200),
        headers=headers,
        file=_inside(folder, file),
        streamed=framing not in (None, "json") or file.endswith((".sse", ".ndjson", ".bin")),
    )


def _inside(folder: Path, name: str) -> Path:
    """The file `name` of `folder`; a manifest from elsewhere must not reach out of its folder."""
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ReplayError(f"{folder / 'manifest.json'}: {name!r} lies outside of the folder")
    if not file.is_file():
        raise ReplayError(f"{file}: no such file")
    return file


def event_ends(body: bytes) -> list[int]:
    """Offsets after each event: behind the empty line of SSE, or behind each line where no line is empty (NDJSON)."""
    ends = [found.end() for found in _BOUNDARY.finditer(body)]
    return ends or [found.end() for found in _LINE.finditer(body)]


def split_events(body: bytes) -> list[bytes]:
    """`body` cut behind each event; joined they are `body` again."""
    return _at(body, event_ends(body))


def cut_body(body: bytes, cut: str) -> list[bytes]:
    """`body` in pieces: `whole`; `bytes` (one each); `random:<seed>` (1 to 60 bytes, now and then 2,000); `edges` (one
    byte before, at and after each event's end); `inside` (in the middle of each line end and each character of several
    bytes). None of the pieces is empty; joined they are `body`. Raises ValueError for another word."""
    name, _, seed = cut.partition(":")
    match name:
        case "whole":
            return [body] if body else []
        case "bytes":
            return [body[place : place + 1] for place in range(len(body))]
        case "events":
            return split_events(body)
        case "random":
            return _at(body, _random_places(len(body), int(seed or 0)))
        case "edges":
            return _at(body, sorted({end + d for end in event_ends(body) for d in (-1, 0, 1)}))
        case "inside":
            return _at(body, _inner_places(body))
    raise ValueError(f"unknown cut {cut!r}: whole, events, bytes, random:<seed>, edges, inside")


def _at(body: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *(place for place in places if 0 < place < len(body)), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(bounds) if a < b]


def _random_places(size: int, seed: int) -> list[int]:
    choice = random.Random(seed)
    places: list[int] = []
    place = 0
    while place < size:
        place += choice.randint(1, 60) if choice.random() < 0.9 else choice.randint(60, 2_000)
        places.append(place)
    return places


def _inner_places(body: bytes) -> list[int]:
    """Inside CR LF, before the second of two line ends, in each character after each of its bytes but the last."""
    places = {found.start() + 1 for found in re.finditer(rb"\r\n|\n\n|\r\r", body)}
    places |= {found.start() for found in re.finditer(rb"[\x80-\xbf]", body)}
    places |= {found.start() + 3 for found in re.finditer(rb"data:", body)}
    return sorted(places)
