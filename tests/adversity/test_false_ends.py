"""Ends that would look good over TLS, and are not; answers that are whole, and must get there."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import trustme

from proxy.relay import client as client_module
from tests.adversity.peers import Peer
from tests.adversity.stage import Stage, run
from tests.fakes.raw import Ending, RawClient

T = TypeVar("T")

BODY = b'{"model":"gpt-5","stream":true,"messages":[]}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (
    len(EVENT),
    EVENT,
)


def ask(version: bytes) -> bytes:
    head = b"POST /v1/chat/completions HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    return head % (version, len(BODY)) + BODY


class Files(NamedTuple):
    cert: str
    key: str
    context: ssl.SSLContext  # of a client that trusts it


async def apart(do: Callable[[], T]) -> T:
    """In a thread: the raw client blocks."""
    return await asyncio.to_thread(do)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    certificate.private_key_pem.write_to_path(str(key))
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return Files(str(chain), str(key), context)


def to_end(client: RawClient) -> tuple[bytes, bool]:
    """What still comes, and whether a goodbye of TLS came behind it."""
    pieces = []
    client.socket.suppress_ragged_eofs = False  # type: ignore[attr-defined]
    try:
        while data := client.recv():
            pieces.append(data)
    except (ConnectionError, ssl.SSLEOFError):
        return b"".join(pieces), False
    return b"".join(pieces), True


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_cut_stream_over_tls(version: bytes, files: Files) -> None:
    """HTTP/1.0 knows no other end than that of the connection, so a goodbye would tell it that all is well. HTTP/1.1
    has its missing last chunk."""

    async def main() -> None:
        heard = asyncio.Event()

        async def script(link: Peer) -> None:
            await link.request()
            link.send(STREAM)
            await heard.wait()
            link.reset()

        async with Stage(script, TLS_CERT=files.cert, TLS_KEY=files.key) as stage:
            client = await apart(lambda: RawClient("127.0.0.1", stage.port, tls=files.context))
            await apart(lambda: client.send(ask(version)))
            await apart(lambda: client.recv_until(EVENT))
            heard.set()
            rest, is_polite = await apart(lambda: to_end(client))
            assert is_polite is (version == b"1.1")
            assert not rest.endswith(b"0\r\n\r\n")
            client.close()
            assert [(receipt.letters, receipt.ended_kind) for receipt in stage.receipts] == [("UD", "reset")]

    run(main())


@pytest.mark.sources
def test_a_slow_tls_client_gets_the_whole_of_an_answer_that_closes(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits beneath uvloop's TLS is not counted by its transport: some 20 KB here, behind what the kernel took."""
    monkeypatch.setattr(client_module, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(client_module, "STALL_STEP", 0.01)
    checked = threading.Semaphore(0)
    check = client_module.ClientConnection._check_ending

    def count(connection: client_module.ClientConnection, now: float) -> None:
        check(connection, now)
        checked.release()

    monkeypatch.setattr(client_module.ClientConnection, "_check_ending", count)
    size = 110_000

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // 1000):  # in pieces: many at once would stay above, where they are counted
                link.send(b"x" * 1000)
                await asyncio.sleep(0.001)
            await link.to_end()

        async with Stage(script, TLS_CERT=files.cert, TLS_KEY=files.key) as stage:
            client = await apart(lambda: RawClient("127.0.0.1", stage.port, tls=files.context, receive_buffer=4096))
            await apart(lambda: client.send(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            for _ in range(3):  # the closing connection is looked at three times, and the client has read nothing
                assert await apart(lambda: checked.acquire(timeout=10.0))
            data, ended = await apart(client.recv_to_end)
            assert ended is Ending.CLEAN
            assert data.partition(b"\r\n\r\n")[2] == b"x" * size
            client.close()
            assert [receipt.complete for receipt in stage.receipts] == [True]

    run(main())


@pytest.mark.sources
def test_an_idle_tls_client_does_not_hold_up_the_end(files: Files) -> None:
    """It waits for its next request and answers no goodbye."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            await link.to_end()

        loop = asyncio.get_running_loop()
        async with Stage(script, TLS_CERT=files.cert, TLS_KEY=files.key) as stage:
            client = await apart(lambda: RawClient("127.0.0.1", stage.port, tls=files.context))
            await apart(lambda: client.send(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            assert (await apart(client.recv_response)).body == b"hi"
            began = loop.time()
            await stage.stop(grace=10.0)
            assert loop.time() - began < 5.0
            client.close()

    run(main())


@pytest.mark.parametrize("ends", ["half_close", "reset", "close"])
def test_who_leaves_before_the_last_event_has_left_us(ends: str) -> None:
    """It stands in our buffer: whoever goes now has not read it."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 5_000)

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not _unsent(stage):
                link.send(b"%x\r\n%b\r\n" % (len(event), event))
                await asyncio.sleep(0.01)  # for the kernel to take what it takes
            link.send(b"e\r\ndata: [DONE]\n\n\r\n")
            await link.to_end()

        async with Stage(script) as stage:
            client = await stage.client(receive_buffer=4096)
            client.stop_reading()
            client.send(ask(b"1.1"))
            await stage.settle(lambda: _has_told(stage), lambda: "the last event has not come")
            assert _unsent(stage) > 0
            getattr(client, ends)()
            await stage.settle(lambda: len(stage.receipts) == 1, lambda: "no receipt")
            assert stage.receipts[0].ended_kind == "client_left"

    run(main())


def _has_told(stage: Stage) -> bool:
    for client in stage.worker.relay.clients:
        answer = client.exchange.answer if client.exchange is not None else None
        if answer is not None and answer.watch is not None and answer.watch.is_terminal:
            return True
    return False


def _unsent(stage: Stage) -> int:
    return max(client.transport.get_write_buffer_size() for client in stage.worker.relay.clients)
