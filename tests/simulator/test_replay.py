"""Recordings are found, cut anywhere, and stay the bytes they were."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.simulator.provider import Simulator
from proxy.simulator.replay import Replay, ReplayError, cut_body, event_ends, split_events
from tests import recordings
from tests.simulator.raw_client import ask, dechunk, with_simulator

CUTS = ["whole", "events", "bytes", "edges", "inside", "random:1", "random:2", "random:99"]
SENT_CUTS = ["whole", "edges", "inside", "random:7", "bytes"]
SSE = 'event: a\r\ndata: {"t":"grüße 你好 ✓"}\r\n\r\ndata: [DONE]\n\n'.encode()
NDJSON = '{"a":"ü"}\n{"done":true}\n'.encode()


@pytest.mark.parametrize("cut", CUTS)
@settings(deadline=None)
@given(body=st.lists(st.sampled_from([b"data: x", b"\r\n", b"\n", b"\r", "ü✓".encode(), b"\xff", b""])).map(b"".join))
def test_a_cut_body_is_the_body(cut: str, body: bytes) -> None:
    pieces = cut_body(body, cut)
    assert b"".join(pieces) == body
    assert all(pieces)


def test_cuts_are_where_they_should_be() -> None:
    assert split_events(SSE) == [SSE[: SSE.index(b"data: [")], b"data: [DONE]\n\n"]
    assert split_events(NDJSON) == NDJSON.splitlines(keepends=True)
    end = event_ends(SSE)[0]
    places = _places(cut_body(SSE, "edges"))
    assert {end - 1, end, end + 1} <= places
    inside = _places(cut_body(SSE, "inside"))
    assert SSE.index(b"\r\n") + 1 in inside
    assert SSE.index("ü".encode()) + 1 in inside
    assert {SSE.index("你".encode()) + 1, SSE.index("你".encode()) + 2} <= inside
    assert all(len(piece) == 1 for piece in cut_body(SSE, "bytes"))


def test_random_is_the_same_for_a_seed_and_another_for_another() -> None:
    body = bytes(5000)
    assert cut_body(body, "random:3") == cut_body(body, "random:3") != cut_body(body, "random:4")


def test_an_unknown_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown cut"):
        cut_body(b"", "sideways")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of our own, as small as it may be."""
    (tmp_path / "a.req.json").write_bytes(b'{"model":"m","stream":true}')
    (tmp_path / "a.resp.sse").write_bytes(SSE)
    (tmp_path / "b.resp.json").write_bytes(b'{"error":"no"}')
    (tmp_path / "c.resp.ndjson").write_bytes(NDJSON)
    fixtures = [
        {
            "id": "a",
            "request": {"method": "POST", "path": "/v1/chat/completions", "file": "a.req.json"},
            "response": {
                "status": 200,
                "headers": {"content-type": "text/event-stream", "content-length": "9", "x-request-id": "r1"},
                "file": "a.resp.sse",
            },
        },
        {"id": "b", "response": {"status": 404, "content_type": "application/json", "file": "b.resp.json"}},
        {"id": "c", "response": {"file": "c.resp.ndjson"}},
    ]
    (tmp_path / "manifest.json").write_bytes(orjson.dumps({"fixtures": fixtures}))
    return tmp_path


def test_recordings_are_found_by_request_and_by_id(folder: Path) -> None:
    replay = Replay(folder)
    digest = hashlib.sha256(b'{"model":"m","stream":true}').hexdigest()
    found = replay.find("/v1/chat/completions", digest)
    assert found is not None
    assert found.id == "a"
    assert found.headers == [("content-type", "text/event-stream"), ("x-request-id", "r1")]
    assert found.streamed
    assert replay.find("/v1/other", digest) is None
    missing = replay.get("b")
    assert missing is not None
    assert (missing.status, missing.streamed, missing.headers) == (404, False, [("content-type", "application/json")])
    assert len(replay) == 3


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        (None, "No such file"),
        (b"{", "not JSON"),
        (b"[]", 'needs a list of objects under "fixtures"'),
        (b'{"fixtures":[{"id":"x"}]}', "lacks id or response.file: x"),
        (b'{"fixtures":[{"id":"x","response":{"file":"gone"}}]}', "no such file"),
        (b'{"fixtures":[{"id":"x","response":{"file":"../up"}}]}', "outside of the folder"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, manifest: bytes | None, sentence: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_bytes(manifest)
    with pytest.raises(ReplayError, match=sentence):
        Replay(tmp_path)


def test_an_id_that_occurs_twice_is_refused(folder: Path) -> None:
    value = orjson.loads((folder / "manifest.json").read_bytes())
    value["fixtures"].append(value["fixtures"][1])
    (folder / "manifest.json").write_bytes(orjson.dumps(value))
    with pytest.raises(ReplayError, match="occurs twice"):
        Replay(folder)


@pytest.mark.parametrize("cut", SENT_CUTS)
def test_what_is_sent_is_what_was_recorded(folder: Path, cut: str) -> None:
    async def test(simulator: Simulator) -> None:
        sent = b'POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 27\r\n\r\n{"model":"m","stream":true}'
        seen = await ask(simulator.port, sent, until=b"0\r\n\r\n")
        chunks = dechunk(seen.body)
        assert b"".join(chunks) == SSE
        assert chunks[:-1] == cut_body(SSE, cut)
        assert b"x-request-id: r1" in seen.head
        assert b"Content-Length" not in seen.head

    with_simulator(test, replay=Replay(folder, cut))


def test_a_request_chooses_recording_cut_and_fault(folder: Path) -> None:
    async def test(simulator: Simulator) -> None:
        head = "POST /any HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nx-simulate: %s\r\n\r\n"
        whole = await ask(simulator.port, (head % "replay=b").encode(), until=b'"no"}')
        assert whole.status == 404
        assert whole.body == b'{"error":"no"}'
        lines = await ask(simulator.port, (head % "replay=c cuts=bytes").encode(), until=b"0\r\n\r\n")
        assert b"".join(dechunk(lines.body)) == NDJSON
        assert len(dechunk(lines.body)) == len(NDJSON) + 1
        cut = await ask(simulator.port, (head % "replay=c cut=1").encode())
        assert (dechunk(cut.body), cut.end) == ([NDJSON.splitlines(keepends=True)[0]], "eof")
        missing = await ask(simulator.port, (head % "replay=z").encode(), until=b"}\n}\n")
        assert missing.status == 400
        assert b"no recording 'z'" in missing.body

    with_simulator(test, replay=Replay(folder))


@pytest.mark.parametrize("api", sorted({entry["api"] for entry in recordings.recorded()}))
def test_all_recorded_traffic_is_replayed_byte_for_byte(api: str) -> None:
    replay = Replay(recordings.FIXTURES)

    async def test(simulator: Simulator) -> None:
        for number, recording in enumerate(each for each in replay if each.api == api):
            cut = ["whole", "edges", "inside", f"random:{number}"][number % 4]
            spec = f"replay={recording.id} cuts={cut} close"
            sent = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nx-simulate: {spec}\r\n\r\n".encode()
            seen = await ask(simulator.port, sent)
            assert seen.status == recording.status
            is_chunked = b"\r\nTransfer-Encoding: chunked" in seen.head
            body = b"".join(dechunk(seen.body)) if is_chunked else seen.body
            assert hashlib.sha256(body).digest() == hashlib.sha256(recording.body()).digest(), recording.id

    with_simulator(test, replay=replay)


def _places(pieces: list[bytes]) -> set[int]:
    place = 0
    places = set()
    for piece in pieces:
        place += len(piece)
        places.add(place)
    return places
