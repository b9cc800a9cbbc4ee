"""Whatever clients and upstreams send to a worker, no exception reaches its loop, and it serves the next request.
What reaches an upstream is one well-formed request per attempt, and nothing at all of what was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import h11
import pytest
import uvloop

from proxy.outcome import Receipt
from proxy.server.settings import read_settings
from proxy.server.worker import Worker
from proxy.wire.head import HeadLimits
from proxy.wire.requests import RequestParser
from tests.fakes.loops import run
from tests.fuzz.mutations import ANSWERS, REQUESTS, Mutator
from tests.wire.feeding import read_answer

KEY = b"sk-llm-proxy-0123456789abcdef"
THEIRS = b"sk-theirs-0123456789"
CHAT = b'{"model": "m", "messages": []}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
NORMAL = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + KEY + b"\r\n\r\n"
PATIENCE = 20.0  # seconds; only reached when something hangs


class Upstream(asyncio.Protocol):
    """Records every request as h11 reads it, and answers with `answers.next`."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.reader = h11.Connection(h11.SERVER)
        self.transport: asyncio.Transport
        self.target = b""
        self.method = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.log.links.add(self)

    def data_received(self, data: bytes) -> None:
        self.log.received += len(data)
        try:
            self.reader.receive_data(data)
            while (event := self.reader.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if isinstance(event, h11.Request):
                    self.log.begun += 1
                    self.log.heads.append(event)
                elif isinstance(event, h11.EndOfMessage):
                    self._answer()
        except h11.RemoteProtocolError as error:
            self.log.violations.append(f"{error}: {data!r}")
            self.transport.close()

    def _answer(self) -> None:
        answer, closes = self.log.answer
        self.transport.write(answer)
        if closes:
            self.transport.close()
        else:
            self.reader = h11.Connection(h11.SERVER)  # the next message is another one: what we said does not count

    def connection_lost(self, error: Exception | None) -> None:
        self.log.links.discard(self)

    @property
    def is_busy(self) -> bool:
        return self.reader.their_state is not h11.IDLE and not self.transport.is_closing()


class Log:
    def __init__(self) -> None:
        self.links: set[Upstream] = set()
        self.received = 0  # bytes
        self.begun = 0  # requests
        self.heads: list[h11.Request] = []
        self.violations: list[str] = []
        self.answer = (OK, False)  # and whether to close behind it


class Bench:
    """A worker, its upstream, and how many exchanges have ended."""

    def __init__(self) -> None:
        self.log = Log()
        self.receipts: list[Receipt] = []
        self.ended = asyncio.Event()
        self.worker: Worker
        self.port = 0

    def _sink(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        self.ended.set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Upstream(self.log), "127.0.0.1", 0)
        self.server = server
        port = server.sockets[0].getsockname()[1]
        environ = {
            "LLM_PROXY_LISTEN": "127.0.0.1:0",
            "LLM_PROXY_ADMIN_LISTEN": "off",
            "LLM_PROXY_KEYS": f"a={KEY.decode()}",
            "LLM_PROXY_PROVIDER_U": f"openai+http://127.0.0.1:{port}/v1",
            "LLM_PROXY_PROVIDER_U_API_KEY": THEIRS.decode(),
            "LLM_PROXY_DEFAULT_PROVIDER": "u",
            "LLM_PROXY_INCLUDE_USAGE": "off",  # what is forwarded is compared
            "LLM_PROXY_COUNT": "off",  # a receipt is waited for after each turn
        }
        self.worker = Worker(read_settings(environ), (self._sink,))
        await self.worker.start()
        self.port = int(self.worker.listening[0].rpartition(":")[2])

    async def stop(self) -> None:
        await self.worker.stop(0.0)
        self.server.close()
        await self.until(lambda: not self.log.links, "upstream links to close")

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Turns of the loop: both sides live in it, and loopback needs no time."""
        loop = asyncio.get_running_loop()
        due = loop.time() + PATIENCE
        while not is_so():
            assert loop.time() < due, f"waited {PATIENCE:.0f} s for {what}"
            await asyncio.sleep(0)

    async def speak(self, data: bytes, count: int) -> bytes:
        """Send `data`, read until `count` exchanges have ended or the connection did, then leave."""
        before = len(self.receipts)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        heard: list[bytes] = []

        async def listen() -> None:
            try:
                while piece := await reader.read(65536):
                    heard.append(piece)
            except ConnectionError:
                pass

        async def wait() -> None:
            while len(self.receipts) < before + count:
                self.ended.clear()
                await self.ended.wait()

        waiting: list[Coroutine[Any, Any, None]] = [listen(), wait()]
        tasks = [asyncio.get_running_loop().create_task(each) for each in waiting]
        done, _ = await asyncio.wait(tasks, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert done, f"neither an answer nor an end: {data!r}"
        for _ in range(2):
            await asyncio.sleep(0)  # what was answered is on its way
        writer.close()
        await asyncio.wait(tasks[:1], timeout=PATIENCE)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        await self.until(lambda: not self.worker.relay.clients, "clients to close")
        await self.until(lambda: not any(link.is_busy for link in self.log.links), "the upstream to be let go")
        return b"".join(heard)

    async def still_serves(self) -> None:
        self.log.answer = (OK, False)
        answer = await self.speak(NORMAL, 1)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"ok")


def exchanges_in(data: bytes) -> int:
    """How many exchanges `data` must lead to on one connection before there is nothing to wait for."""
    parser = RequestParser(HeadLimits())
    parser.feed(data)
    count = 0
    while parser.is_complete and parser.head is not None:
        count += 1
        if not parser.head.keep_alive:
            return count
        parser.next()
    return count + (parser.failure is not None)


def at_home(data: bytes) -> bytes:
    """A vector as a client of this worker would send it: with a key, to paths that lead somewhere."""
    data = data.replace(b"Host: x\r\n", b"Host: x\r\nAuthorization: Bearer " + KEY + b"\r\n")
    return data.replace(b"/p HTTP", b"/v1/files HTTP").replace(b"GET / HTTP", b"GET /v1/models HTTP")


CORPUS = [
    *map(at_home, REQUESTS),
    *[
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        + KEY
        + b"\r\nContent-Length: %d\r\n\r\n" % len(CHAT)
        + CHAT
    ]
    * 100,
]


async def bent_requests(seed: int, count: int) -> int:
    bench = Bench()
    await bench.start()
    await bench.still_serves()
    mutator = Mutator(seed, CORPUS)
    forwarded = 0
    for _ in range(count):
        data = mutator.next()
        log = bench.log
        received, begun, known = log.received, log.begun, len(bench.receipts)
        try:
            await bench.speak(data, exchanges_in(data))
            attempts = sum(len(receipt.attempts) for receipt in bench.receipts[known:])
            assert log.violations == []
            assert log.begun - begun <= attempts
            for receipt in bench.receipts[known:]:
                assert receipt.ended_kind != "internal", receipt
                assert not (400 <= receipt.status < 500 and receipt.complete)
            answered = [receipt for receipt in bench.receipts[known:] if receipt.complete]
            assert log.begun - begun >= sum(bool(receipt.attempts) for receipt in answered)
            if not attempts:
                assert log.received == received, "bytes of a refused request reached the upstream"
            for head in log.heads:
                hosts = [name for name, _ in head.headers if name == b"host"]
                assert len(hosts) == 1 and (b"authorization", b"Bearer " + THEIRS) in head.headers
                carriers = {b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"cookie"}
                kept = [name for name, value in head.headers if KEY in value and name in carriers]
                assert not kept, "a key of ours reached the upstream"
            forwarded += len(log.heads)
            log.heads.clear()
        except BaseException as error:
            error.add_note(f"seed {seed}: {data!r}")
            raise
    await bench.still_serves()
    await bench.stop()
    return forwarded


async def bent_answers(seed: int, count: int) -> int:
    bench = Bench()
    await bench.start()
    await bench.still_serves()
    mutator = Mutator(seed, ANSWERS)
    passed = 0
    for turn in range(count):
        data = mutator.next()
        expected = read_answer([data])
        closes = not (expected.is_complete or expected.kind) or mutator.random.random() < 0.5
        expected = read_answer([data], eof=closes)
        bench.log.answer = (data, closes)
        try:
            heard = await bench.speak(NORMAL, 1)
            receipt = bench.receipts[-1]
            assert receipt.ended_kind != "internal", receipt
            assert bench.log.violations == []
            seen = read_answer([heard], eof=True)
            assert seen.head is not None, heard
            if receipt.status != 502:
                assert seen.head.status == receipt.status
            if expected.is_complete and expected.head is not None and receipt.complete:
                passed += 1
                assert (seen.is_complete, seen.body, seen.head.status) == (True, expected.body, expected.head.status)
                assert [field for field in expected.head.fields if field not in seen.head.fields] == []
            elif receipt.complete is False and receipt.ended_kind in ("protocol", "reset") and receipt.status != 502:
                assert not seen.is_complete or seen.kind is not None, "a broken answer looks whole"
            if turn % 50 == 0:
                await bench.still_serves()
        except BaseException as error:
            error.add_note(f"seed {seed}: {data!r}")
            raise
    await bench.still_serves()
    await bench.stop()
    return passed


def test_bent_requests_through_a_worker() -> None:
    assert run(bent_requests(1, 400), loop_factory=uvloop.new_event_loop) > 40


def test_bent_answers_through_a_worker() -> None:
    assert run(bent_answers(1, 400), loop_factory=uvloop.new_event_loop) > 40


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_many_bent_requests_through_a_worker() -> None:
    run(bent_requests(2, 10_000), loop_factory=uvloop.new_event_loop)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_many_bent_answers_through_a_worker() -> None:
    run(bent_answers(3, 10_000), loop_factory=uvloop.new_event_loop)
