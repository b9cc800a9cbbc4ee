"""A worker binds what its settings say, tells the truth about it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.ledger.counters import Counters, beside
from proxy.ledger.keys import KeyStore
from proxy.outcome import Receipt
from proxy.server.settings import read_settings
from proxy.server.worker import CannotListen, Worker, raise_descriptor_limit
from tests.fakes.loops import run

NOW = 1_800_000_000 * 10**9
GET = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: the path of a Unix socket has 108 bytes at most, and pytest's own folders may have more."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("mode", ["off", "passthrough", "keys", None])
def test_what_a_kill_left_reserved_is_told_and_kept_whether_keys_are_used_or_not(
    tmp_path: Path, mode: str | None
) -> None:
    path, notes = str(tmp_path / "a.db"), list[str]()
    for reserved in (500, 0):  # the process that is killed, and the one after it
        counters = Counters(beside(path), lambda *_, **more: None, NOW)
        if reserved:
            view, at = counters.hold("")
            view[at + 1], view[at + 2], view[at] = 5, reserved, NOW
            counters.close()
    environ = {"LLM_PROXY_LISTEN": "127.0.0.1:0", "LLM_PROXY_ADMIN_LISTEN": "off", "LLM_PROXY_DB": path}
    environ |= {"LLM_PROXY_AUTH": mode} if mode else {}
    environ |= {"LLM_PROXY_KEYS": "ci=lp-0123456789abcdef"} if mode == "keys" else {}

    async def main() -> None:
        it = Worker(read_settings(environ), (), lambda level, text, **more: notes.append(text), counters=counters)
        await it.start()
        await it.stop(0)

    run(main())
    counters.close()
    with KeyStore(path, 1.0) as store:
        (lost,) = store.lost()
    assert (lost.key, lost.micros, lost.tokens) == (None, 5, 500)
    assert [note for note in notes if "were running when the process before was killed" in note]


def worker(sinks: tuple[list[Receipt], ...] = (), **environ: str) -> Worker:
    environ = {"LLM_PROXY_LISTEN": "127.0.0.1:0", "LLM_PROXY_ADMIN_LISTEN": "127.0.0.1:0", **environ}
    return Worker(read_settings(environ), tuple(sink.append for sink in sinks))


async def ask(address: str, data: bytes) -> bytes:
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


def test_what_it_says_is_where_it_listens() -> None:
    receipts: list[Receipt] = []

    async def main() -> None:
        it = worker((receipts,), LLM_PROXY_LISTEN="127.0.0.1:0,[::1]:0", LLM_PROXY_HEALTH_LISTEN="127.0.0.1:0")
        await it.start()
        assert len(it.listening) == 2
        assert len(it.admin) == 2
        for address in it.listening:
            assert (await ask(address, GET)).startswith(b"HTTP/1.1 404 ")
        for address in it.admin:
            assert (await ask(address, GET.replace(b"/nowhere", b"/healthz"))).startswith(b"HTTP/1.1 200 ")
        await it.stop(0.0)
        for address in (*it.listening, *it.admin):
            with pytest.raises(ConnectionError):
                await ask(address, GET)

    run(main())
    assert [receipt.status for receipt in receipts] == [404, 404]


def test_it_is_ready_with_a_provider_and_not_while_it_stops() -> None:
    async def main() -> None:
        it = worker()
        await it.start()
        assert it.readiness() == ["no provider is configured"]
        await it.stop(0.0)
        it = worker(LLM_PROXY_PROVIDER_X="openai+http://127.0.0.1:9/v1")
        await it.start()
        assert it.readiness() == []
        await it.stop(0.0)
        assert it.readiness() == ["shutting down"]

    run(main())


def test_a_unix_socket_is_its_owners_and_goes_with_the_worker(folder: Path) -> None:
    path = folder / "s"

    async def main() -> None:
        it = worker(LLM_PROXY_LISTEN=f"unix:{path}")
        await it.start()
        assert it.listening == [f"unix:{path}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await ask(it.listening[0], GET)).startswith(b"HTTP/1.1 404 ")
        await it.stop(0.0)
        assert not path.exists()

    run(main())


def test_a_socket_that_nobody_listens_on_is_replaced(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))

    async def main() -> None:
        it = worker(LLM_PROXY_LISTEN=f"unix:{path}")
        await it.start()
        assert (await ask(it.listening[0], GET)).startswith(b"HTTP/1.1 404 ")
        await it.stop(0.0)

    run(main())


def test_what_is_in_the_way_is_named_and_left_alone(folder: Path) -> None:
    path = folder / "s"
    path.write_text("a file")

    async def main() -> None:
        with pytest.raises(CannotListen, match="not a socket"):
            await worker(LLM_PROXY_LISTEN=f"unix:{path}").start()
        assert path.read_text() == "a file"
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            with pytest.raises(CannotListen, match="another process"):
                await worker(LLM_PROXY_LISTEN=f"unix:{path}").start()
            assert path.exists()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(CannotListen, match=f"cannot listen on {address}: address already in use"):
                await worker(LLM_PROXY_LISTEN=address).start()

    run(main())


def test_a_socket_that_cannot_be_asked_is_left_alone(folder: Path) -> None:
    path = folder / "s"

    async def main() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(path))
            with pytest.raises(CannotListen, match="wrong type"):
                await worker(LLM_PROXY_LISTEN=f"unix:{path}").start()
            assert path.exists()

    run(main())


def test_a_socket_whose_owner_is_too_busy_to_accept_is_left_alone(folder: Path) -> None:
    path = folder / "s"

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as waiting:
            other.bind(str(path))
            other.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect(str(path))
            with pytest.raises(CannotListen, match="there is a socket already"):
                await worker(LLM_PROXY_LISTEN=f"unix:{path}").start()
            assert path.exists()

    run(main())


def test_a_worker_that_cannot_start_closes_what_it_had_opened(folder: Path) -> None:
    path = folder / "s"

    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            both = f"unix:{path},127.0.0.1:{taken.getsockname()[1]}"
            before = len(os.listdir("/dev/fd"))
            with pytest.raises(CannotListen):
                await worker(LLM_PROXY_LISTEN=both).start()
            await asyncio.sleep(0)
            assert len(os.listdir("/dev/fd")) == before
        assert not path.exists()

    run(main())


def test_the_limit_of_open_files_is_what_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
