"""A worker binds what its settings say, tells the truth about it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from proxy.admin.reload import Reloaded
from proxy.ledger.counters import Counters, beside, bump
from proxy.ledger.keys import KeyRow, KeyStore, digest_of
from proxy.outcome import Receipt
from proxy.policy.keys import AuthMode
from proxy.policy.rules import Rules, parse_rules
from proxy.server.addresses import Address
from proxy.server.settings import read_settings
from proxy.server.sockets import CannotListen
from proxy.server.worker import Worker, raise_descriptor_limit
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


# --- the configuration read again -------------------------------------------------------------------------------------

KEY, OTHER = "lp-0123456789abcdef", "lp-fedcba9876543210"
ASKED = b"GET /nowhere HTTP/1.1\r\nHost: llm\r\nAuthorization: Bearer %b\r\n\r\n"


class Running:
    """A worker whose variables are those of a file that a test writes anew."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self._file = folder / "env"
        self.environ = {"LLM_PROXY_LISTEN": "127.0.0.1:0", "LLM_PROXY_ADMIN_LISTEN": "127.0.0.1:0", **environ}
        self.environ.setdefault("LLM_PROXY_DB", "off")
        self.environ["LLM_PROXY_ENV_FILE"] = str(self._file)
        self.notes: list[tuple[str, str]] = []
        self.worker: Worker

    def write(self, **variables: str) -> None:
        self._file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))

    async def start(self, counters: Counters | None = None, **variables: str) -> None:
        self.write(**variables)
        given = read_settings(self.environ)
        self.worker = Worker(given, (), self.note, counters=counters, environ=self.environ)
        await self.worker.start()

    def note(self, level: str, text: str, /, **more: object) -> None:
        self.notes.append((level, text))

    async def reload(self, **variables: str) -> Reloaded:
        self.write(**variables)
        return await asyncio.wrap_future(self.worker.reload())


class Client:
    """A connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, address: str, **more: Any) -> Client:
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), **more))

    async def status(self, value: str) -> int:
        self._writer.write(ASKED % value.encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        await self._reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        return int(head.split()[1])

    async def certificate(self) -> bytes:
        found: bytes = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def test_a_key_that_has_gone_opens_nothing_on_an_open_connection_either(tmp_path: Path) -> None:
    it = Running(tmp_path)

    async def main() -> None:
        await it.start(LLM_PROXY_KEYS=f"ci={KEY},old={OTHER}")
        first, second = [await Client.to(it.worker.listening[0]) for _ in range(2)]
        assert (await first.status(KEY), await second.status(OTHER)) == (404, 404), "let in, to nothing"
        found = await it.reload(LLM_PROXY_KEYS=f"ci={KEY}")
        assert [line[:13] for line in found.changes] == ["- keys.old: #"]
        assert (await first.status(KEY), await second.status(OTHER)) == (404, 401)
        found = await it.reload(LLM_PROXY_KEYS=f"ci={OTHER}")
        assert (await first.status(KEY), await second.status(OTHER)) == (401, 404)
        await first.close()
        await second.close()
        await it.worker.stop(0.0)

    run(main())


def test_a_host_that_has_gone_is_known_no_longer(tmp_path: Path) -> None:
    it = Running(tmp_path)

    async def main() -> None:
        await it.start(LLM_PROXY_HOSTS="llm")
        client, admin = await Client.to(it.worker.listening[0]), await Client.to(it.worker.admin[0])
        assert (await client.status(""), await admin.status("")) == (404, 404)
        assert (await it.reload()).changes == ["- hosts: llm"]
        assert (await client.status(""), await admin.status("")) == (403, 403)
        await client.close()
        await admin.close()
        await it.worker.stop(0.0)

    run(main())


def test_what_is_wrong_leaves_all_as_it_was_and_so_does_what_does_not_fit_to_what_stays(tmp_path: Path) -> None:
    it = Running(tmp_path)
    good = {"LLM_PROXY_KEYS": f"ci={KEY}", "LLM_PROXY_LIMITS": "all: rpm=60"}

    async def main() -> None:
        await it.start(None, **good)
        before, rules = it.worker.settings, it.worker.relay.admission.limiter.rules("all")
        found = await it.reload(LLM_PROXY_KEYS=f"x={OTHER}", LLM_PROXY_LIMITS="all: rpm=x", LLM_PROXY_MAX_BODY="x")
        assert [error.partition(":")[0] for error in found.errors] == ["LLM_PROXY_MAX_BODY", "LLM_PROXY_LIMITS"]
        assert it.worker.settings is before and it.worker.relay.admission.limiter.rules("all") == rules
        client = await Client.to(it.worker.listening[0])
        assert (await client.status(KEY), await client.status(OTHER)) == (404, 401)
        await client.close()
        it.worker.settings = replace(before, listen=(Address("127.0.0.1", 18080),))
        # Where it would listen this provider would not be itself, and there it does listen.
        away = {"LLM_PROXY_PROVIDER_X": "openai+http://127.0.0.1:18080/v1"}
        it.environ["LLM_PROXY_LISTEN"] = "127.0.0.1:18081"
        found = await it.reload(**good, **away)
        assert "this proxy itself" in found.errors[0] and it.worker.relay.snapshot.providers == {}
        await it.worker.stop(0.0)

    run(main())
    assert ("error", "the configuration was not reloaded: the one before stays in force") in it.notes


def test_keys_of_the_ledger_and_of_the_environment_come_and_go(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    it = Running(tmp_path, LLM_PROXY_DB=path)
    counters = Counters(beside(path), lambda *_, **more: None, NOW)

    async def main() -> None:
        await it.start(counters)
        assert it.worker.relay.admission.ring.mode is AuthMode.OFF
        await it.reload(LLM_PROXY_KEYS=f"static={KEY}")
        client = await Client.to(it.worker.listening[0])
        assert [await client.status(value) for value in (KEY, OTHER, "")] == [404, 401, 401]
        with KeyStore(path, 1.0) as store:
            store.create(KeyRow("ci", digest_of(OTHER), "lp-fe", limits="rpm=600"))
            bump(beside(path))
        assert [await client.status(value) for value in (KEY, OTHER)] == [404, 404]
        rules = it.worker.relay.admission.limiter.rules
        assert rules("key ci") == parse_rules("rpm=600")
        await it.reload(LLM_PROXY_KEYS=f"ci={KEY}")
        assert [await client.status(value) for value in (KEY, OTHER)] == [404, 401], "it gave way to a static one"
        assert rules("key ci") == Rules()
        found = await it.reload()
        assert [await client.status(value) for value in (KEY, OTHER, "")] == [401, 404, 401], "and came back"
        assert rules("key ci") == parse_rules("rpm=600")
        assert found.takes_restart == []
        await client.close()
        await it.worker.stop(0.0)

    run(main())
    counters.close()


def test_the_ledgers_first_key_is_no_change_of_mode_to_anybody(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    it = Running(tmp_path, LLM_PROXY_DB=path)
    counters = Counters(beside(path), lambda *_, **more: None, NOW)

    async def main() -> None:
        await it.start(counters)
        with KeyStore(path, 1.0) as store:
            store.create(KeyRow("ci", digest_of(OTHER), "lp-fe"))
            bump(beside(path))
        client = await Client.to(it.worker.listening[0])
        assert [await client.status(value) for value in (OTHER, "")] == [404, 401]
        found = await it.reload()
        assert (found.changes, found.takes_restart) == ([], [])
        assert [await client.status(value) for value in (OTHER, "")] == [404, 401]
        await client.close()
        await it.worker.stop(0.0)

    run(main())
    counters.close()


def test_a_renewed_certificate_is_met_by_the_next_client(tmp_path: Path) -> None:
    authority, files = trustme.CA(), {}
    for name in ("one", "two"):
        mine = authority.issue_cert("localhost")
        files[name] = tmp_path / name, tmp_path / f"{name}.key"
        mine.cert_chain_pems[0].write_to_path(str(files[name][0]))
        mine.private_key_pem.write_to_path(str(files[name][1]))
    chain, key = tmp_path / "chain", tmp_path / "key"
    it = Running(tmp_path, LLM_PROXY_TLS_CERT=str(chain), LLM_PROXY_TLS_KEY=str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def install(name: str) -> bytes:
        chain.write_bytes(files[name][0].read_bytes())
        key.write_bytes(files[name][1].read_bytes())
        return ssl.PEM_cert_to_DER_cert(chain.read_text())

    clients: list[Client] = []

    async def certificate() -> bytes:
        """What one more client is met with."""
        clients.append(await Client.to(it.worker.listening[0], ssl=context, server_hostname="localhost"))
        return await clients[-1].certificate()

    async def main() -> None:
        one = install("one")
        await it.start()
        try:
            assert await certificate() == one
            two = install("two")
            assert (await it.reload()).errors == []
            assert await certificate() == two
            key.write_bytes(files["one"][1].read_bytes())
            assert "LLM_PROXY_TLS_KEY" in (await it.reload()).errors[0], "half of a renewal"
            assert await certificate() == two
            assert [await client.status("") for client in clients] == [403] * 3
        finally:
            for client in clients:
                await client.close()
            await it.worker.stop(0.0)

    run(main(), loop_factory=uvloop.new_event_loop)


def test_text_is_counted_from_when_the_settings_say_so(tmp_path: Path) -> None:
    it = Running(tmp_path)

    async def main() -> None:
        await it.start(LLM_PROXY_METER="off")
        assert it.worker.relay.counter is None
        await it.reload(LLM_PROXY_METER="on")
        assert it.worker.relay.counter is it.worker.counter is not None
        await it.worker.stop(0.0)

    run(main())


def test_who_asks_while_it_stops_is_told(tmp_path: Path) -> None:
    it = Running(tmp_path)

    async def main() -> None:
        await it.start()
        await it.worker.stop(0.0)
        assert (await it.reload()).errors == ["this process is shutting down"]

    run(main())


def test_the_limit_of_open_files_is_what_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
