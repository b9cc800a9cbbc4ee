"""Bytes pass as they are: every recorded answer and every recorded request, through real sockets.

How it works: the simulated provider replays the recorded answer in the cut that the request names; status, body and
end-to-end fields must arrive as recorded, and the request upstream as it was sent. A stream that by its nature ends
with neither a terminal event nor a finish reason is the one exception, and each of them is named in ALTERED. Sockets
coalesce, so a true byte by byte is fed on the fake transport: test_identity_bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator

import pytest

from proxy.simulator.replay import Replay, cut_body, event_ends
from tests import recordings
from tests.whole import recorded
from tests.whole.links import Link, Reply, each
from tests.whole.processes import Provider, Sidecar
from tests.whole.recorded import Recorded

CUTS = ("whole", "random:1", "random:2", "edges", "inside", "bytes")
MOST_IN_BYTES = 4_000  # larger bodies are not sent byte by byte here

# Recorded streams that lack both, by id -> why. Their client gets every byte up to the last event boundary, then an
# error event of its dialect instead of a clean end, and the connection closes without the last chunk.
ALTERED = {
    "openai-chat/openai--doc-stream-cut-without-done": "written to show a stream that breaks off",
    "openai-completions/writer--ollmetry-writer-async-streaming-completions-legacy-0": (
        'a grammar of its own on a path of OpenAI\'s: {"value":" text"} and then the end of the message, which is also '
        "what a cut looks like; who uses such a server configures it with the family plain"
    ),
}

# What is ours to write, or about one connection only.
OURS = {"content-length", "transfer-encoding", "connection", "keep-alive", "date", "via", "content-encoding", "trailer"}

FOLDERS = recorded.folders()
LOADED = {folder: recorded.load(folder) for folder in FOLDERS}


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def replaying(request: pytest.FixtureRequest) -> Iterator[tuple[Provider, Sidecar, list[Recorded]]]:
    loaded = LOADED[request.param]
    provider = Provider(replay=Replay(request.param))
    sidecar = Sidecar(recorded.environ(loaded, provider.port))
    yield provider, sidecar, loaded
    sidecar.stop()
    provider.close()
    assert not sidecar.errors, sidecar.tail()


def problems_of(entry: Recorded, reply: Reply) -> list[str]:
    found = []
    if reply.status != entry.status:
        found.append(f"status {reply.status}, not {entry.status}: {reply.body[:200]!r}")
    if is_altered(entry):
        if reply.is_whole:
            found.append("a stream without an end ended cleanly")
        if not is_broken_off(entry, reply.body):
            found.append(f"an error event was due at the last boundary: {reply.body[-300:]!r}")
    else:
        if not reply.is_whole:
            found.append(f"cut off: {reply.body[-300:]!r}")
        if hashlib.sha256(reply.body).digest() != hashlib.sha256(entry.body).digest():
            found.append(f"{len(reply.body)} bytes, not {len(entry.body)}: {reply.body[-300:]!r}")
    for name, value in entry.fields.items():
        if name.lower() not in OURS and value.strip() not in reply.all(name.lower()):
            found.append(f"field {name}: {reply.all(name.lower())}, not {value!r}")
    if "via" in entry.fields and entry.fields["via"] not in reply.all("via"):
        found.append("the provider's via is lost")
    return found


def is_altered(entry: Recorded) -> bool:
    """Transcripts say themselves that they are no whole streams; recorded ones are listed."""
    return bool(entry.broken) or entry.id in ALTERED


def is_broken_off(entry: Recorded, got: bytes) -> bool:
    """Whether `got` is the whole events of what was sent, then one event with an error of ours, and nothing else. A
    JSON array has no place for one: there its missing bracket tells."""
    if entry.broken == "json_array":
        return b"llm-proxy" not in got and entry.body.startswith(got) and _elements(got) == _elements(entry.body) != []
    if b"llm-proxy: " not in got:
        return False
    try:
        boundary = event_ends(entry.body)[-1]
        if got[:boundary] != entry.body[:boundary]:
            return False
        if entry.broken == "ndjson":
            return "error" in json.loads(got[boundary:])
        event = re.fullmatch(rb"(?:event: \w+\r?\n)?data: (\{.*\})(?:\n\n|\r\n\r\n)", got[boundary:])
        return event is not None and b"error" in event[1] and isinstance(json.loads(event[1]), dict)
    except ValueError:
        return False


def _elements(body: bytes) -> list[object]:
    """The whole elements of an array that breaks off."""
    for end in range(len(body), 0, -1):
        try:
            found: list[object] = json.loads(body[:end] + b"]")
        except ValueError:
            continue
        return found
    return []


def cases(loaded: list[Recorded], cut: str) -> list[Recorded]:
    return [entry for entry in loaded if cut != "bytes" or len(entry.body) <= MOST_IN_BYTES]


@pytest.mark.parametrize("cut", CUTS)
def test_every_answer_and_every_request_passes_unchanged(
    replaying: tuple[Provider, Sidecar, list[Recorded]], cut: str
) -> None:
    provider, sidecar, loaded = replaying
    found: dict[str, list[str]] = {}
    checked = 0

    async def one(link: Link, entry: Recorded) -> None:
        nonlocal checked
        number = f"{cut} {entry.id}"
        reply = await link.ask(
            entry.method,
            entry.path,
            entry.request,
            ("Content-Type", entry.content_type),
            ("X-Simulate", f"replay={entry.id} cuts={cut}"),
            ("X-Test", number),
        )
        problems = problems_of(entry, reply)
        seen = next((s for s in reversed(provider.simulator.requests) if s.get("x-test") == number), None)
        if seen is None:
            problems.append("the provider was not asked")
        else:
            if (seen.method, seen.target) != (entry.method, entry.target):
                problems.append(f"asked for {seen.target}, not {entry.target}")
            if seen.body != entry.request or seen.sha256 != hashlib.sha256(entry.request).hexdigest():
                problems.append("the request body was changed")
            if seen.get("content-type") != entry.content_type:
                problems.append("the content-type was changed")
        checked += 1
        if problems:
            found[entry.id] = problems

    asyncio.run(each(cases(loaded, cut), sidecar.port, one))
    assert checked == len(cases(loaded, cut))
    assert not found, "\n".join(f"{id}: {problems}" for id, problems in found.items())


def test_the_recordings_are_many_and_of_every_dialect() -> None:
    """So that the test above cannot pass by having nothing to do."""
    for loaded in LOADED.values():
        families = {entry.base.partition("+")[0] for entry in loaded}
        assert families == {"openai", "anthropic", "gemini", "ollama", "plain"}
        assert sum(entry.streaming for entry in loaded) >= 50
    assert not recordings.is_at_hand() or set(ALTERED) <= {entry.id for entry in LOADED[recordings.FIXTURES]}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_only_cuts(cut: str) -> None:
    for entry in (entry for loaded in LOADED.values() for entry in loaded):
        assert b"".join(cut_body(entry.body, cut)) == entry.body
