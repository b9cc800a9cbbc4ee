"""Every recorded answer byte by byte: on the fake transport each byte is a read of its own, as no socket promises.

How it works: as test_identity, with the whole relay between a scripted client and a scripted provider (tests/relay).
The provider's framing is cut as well: lengths of chunks, line ends, and the end of the message.
"""

from __future__ import annotations

from pathlib import Path

import h11
import pytest

from proxy.catalog.snapshot import Provider
from proxy.server.settings import read_settings
from proxy.simulator.replay import split_events
from tests.relay.stage import Peer, Stage, chunk
from tests.whole import recorded
from tests.whole.recorded import Recorded
from tests.whole.test_identity import is_altered, is_broken_off

FOLDERS = recorded.folders()
LOADED = {folder: recorded.load(folder) for folder in FOLDERS}
ANSWERS = {folder: [entry for entry in loaded if entry.status != 204] for folder, loaded in LOADED.items()}


def providers_of(folder: Path) -> dict[str, Provider]:
    """As configured, by name."""
    configured = read_settings(recorded.environ(LOADED[folder], 80)).snapshot.providers
    return {entry.provider: configured[entry.provider] for entry in ANSWERS[folder]}


def asked(entry: Recorded) -> bytes:
    lines = [f"{entry.method} {entry.path} HTTP/1.1", "host: localhost", f"content-type: {entry.content_type}"]
    lines += [f"content-length: {len(entry.request)}", "", ""]
    return "\r\n".join(lines).encode() + entry.request


def answer_of(entry: Recorded, framing: str) -> bytes:
    kind = entry.fields.get("content-type", "text/event-stream")
    head = f"HTTP/1.1 {entry.status} As Recorded\r\ncontent-type: {kind}\r\n"
    if framing == "length":
        return f"{head}content-length: {len(entry.body)}\r\n\r\n".encode() + entry.body
    return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + b"".join(map(chunk, split_events(entry.body))) + LAST


LAST = b"0\r\n\r\n"


def says_in_bytes(peer: Peer, data: bytes) -> None:
    """One read for each byte."""
    peer.transport.receive_each(data)


def read_answer(sent: bytes) -> tuple[bytes, bool]:
    """The body, and whether it ended properly."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    reader.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(sent)
    body = []
    while True:
        event = reader.next_event()
        if isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif event is h11.NEED_DATA:
            return b"".join(body), False
        elif isinstance(event, h11.EndOfMessage):
            return b"".join(body), True


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_answer_passes_byte_by_byte(folder: Path, framing: str) -> None:
    wrong: dict[str, str] = {}
    for name, provider in providers_of(folder).items():
        with Stage(providers=(provider,)) as stage:
            client = stage.client()
            for entry in (entry for entry in ANSWERS[folder] if entry.provider == name):
                if client.is_gone:
                    client = stage.client()
                client.transport.sent = b""  # what the others got: each byte that is sent copies it
                client.says(asked(entry))
                upstream = stage.upstream()
                says_in_bytes(upstream, answer_of(entry, framing))
                stage.loop.run_ready()
                body, is_whole = read_answer(client.transport.sent)
                receipt = stage.receipt()
                if is_altered(entry):
                    if is_whole or not is_broken_off(entry, body) or receipt.complete:
                        wrong[entry.id] = f"not broken off: {body[-300:]!r}"
                elif body != entry.body or not is_whole:
                    wrong[entry.id] = f"{len(body)} bytes, not {len(entry.body)}, whole: {is_whole}; {receipt}"
                if not upstream.transport.sent.endswith(entry.request):
                    wrong[entry.id] = "the request was changed"
    assert not wrong, "\n".join(f"{id}: {what}" for id, what in wrong.items())


def test_there_are_streams() -> None:
    for answers in ANSWERS.values():
        streams = [entry for entry in answers if entry.streaming]
        assert {entry.base.partition("+")[0] for entry in streams} >= {"openai", "anthropic", "gemini", "ollama"}
