"""A whole relay between a scripted client and a scripted provider.

Lives here: `Stage`, `Peer`, `FakeCounter`, the requests and answers that the tests of this room speak.
May not live here: assertions about one subject (the tests).
How it works: real protocol objects on fake transports and a fake clock. A test reads as a script:

    with Stage() as stage:
        client = stage.client()
        client.says(ask())
        upstream = stage.upstream()
        assert upstream.heard() == sent_on()
        upstream.says(unary())
        assert client.heard() == passed_on()
        assert stage.receipt().letters == "--"

The end of the block is a test of its own: every exchange left exactly one receipt, and no task, timer, body, stream,
client or link in use is left over.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from proxy.catalog.alias_text import parse_aliases
from proxy.catalog.prices import Prices
from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider, Snapshot
from proxy.outcome import Failure, Limit, Receipt
from proxy.policy.admission import Admission
from proxy.policy.counters import MemoryStore
from proxy.policy.keys import AuthMode, KeyRing
from proxy.policy.limits import FOREVER, Limiter
from proxy.policy.rules import parse_rules
from proxy.relay.client import ClientConnection
from proxy.relay.metering import Counted
from proxy.relay.options import ByteLimits, PoolOptions, RelayOptions
from proxy.relay.pool import Pool
from proxy.relay.relay import Relay
from proxy.relay.upstream import UpstreamConnection
from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport

EPOCH = 1_800_000_000 * 10**9  # the stage's clock begins then
NAME = b"llm-proxy-0123456789ab"
ID = b"0123456789ab-N"  # stands for the id of any exchange
DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
VIA = b"via: 1.1 llm-proxy\r\n"
OPENAI = Origin("http", "openai.test", 80)
ANTHROPIC = Origin("http", "anthropic.test", 80)

# Limits far apart and none at their defaults, so that each test knows which one it met.
SECONDS: dict[Limit, float] = {
    Limit.IDLE: 70.0,
    Limit.HEAD: 10.0,
    Limit.BODY: 20.0,
    Limit.QUEUE: 7.0,
    Limit.CONNECT: 5.0,
    Limit.SEND: 25.0,
    Limit.FIRST_BYTE: 100.0,
    Limit.FIRST_BYTE_UNARY: 500.0,
    Limit.FIRST_EVENT: 200.0,
    Limit.HOLD: 15.0,
    Limit.STREAM: 150.0,
    Limit.TOTAL: 0.0,
    Limit.CLIENT_STALL: 60.0,
    Limit.SHUTDOWN: 30.0,
}


class FakeHangups:
    """Remembers who is watched; `hang_up` plays the kernel."""

    def __init__(self) -> None:
        self.callbacks: dict[int, Any] = {}

    def watch(self, fd: int, callback: Any) -> None:
        self.callbacks.setdefault(fd, callback)

    def unwatch(self, fd: int) -> None:
        self.callbacks.pop(fd, None)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.callbacks.clear()

    def hang_up(self, fd: int) -> None:
        self.callbacks.pop(fd)()


class Told(NamedTuple):
    """What a FakeCounter was asked to finish."""

    stream: int
    dialect: str
    data: bytes
    is_stream: bool
    request: bytes | None
    done: Callable[[Counted | None], None]


class FoundTokens(NamedTuple):
    output: int | None
    input: int | None
    has_other: bool = False


class FakeCounter:
    """Remembers what it is to count; the test answers. `takes`: whether it takes more in mid-stream."""

    def __init__(self, *, takes: bool = True) -> None:
        self.takes = takes
        self.folded: list[bytes] = []
        self.told: list[Told] = []
        self.forgotten: list[int] = []

    def fold(self, stream: int, dialect: str, data: list[bytes]) -> bool:
        if self.takes:
            self.folded.append(b"".join(data))
        return self.takes

    def forget(self, stream: int) -> None:
        self.forgotten.append(stream)

    def finish(
        self,
        stream: int,
        dialect: str,
        data: list[bytes],
        is_stream: bool,
        request: bytes | None,
        done: Callable[[Counted | None], None],
    ) -> None:
        self.told.append(Told(stream, dialect, b"".join(data), is_stream, request, done))

    async def close(self, seconds: float) -> None:
        for told in self.told:
            told.done(None)


class Peer:
    """The other side of one link of the relay: a client, or a provider."""

    def __init__(self, stage: Stage, transport: FakeTransport, protocol: Any) -> None:
        self.transport = transport
        self.protocol = protocol
        self._stage = stage
        self._seen = 0
        self._writes = 0

    def says(self, data: bytes) -> None:
        """One read of the relay, and all that follows from it now."""
        self.transport.receive(data)
        self._stage.loop.run_ready()

    def says_each(self, data: bytes, size: int = 1) -> None:
        """The same bytes in reads of `size`."""
        for start in range(0, len(data), size):
            self.says(data[start : start + size])

    def heard(self) -> bytes:
        """What arrived since the last time this was asked, dates and ids made equal."""
        new = self.transport.sent[self._seen :]
        self._seen = len(self.transport.sent)
        return plain(new)

    def writes(self) -> list[bytes]:
        """What each write of the relay brought since the last time this was asked."""
        new = self.transport.writes[self._writes :]
        self._writes = len(self.transport.writes)
        return [plain(each) for each in new]

    def half_closes(self) -> None:
        self.transport.receive_eof()
        self._stage.loop.run_ready()

    def resets(self) -> None:
        self.transport.lose()
        self._stage.loop.run_ready()

    def stops_reading(self) -> None:
        self.transport.fill()

    def reads_on(self, size: int | None = None) -> None:
        self.transport.drain(size)
        self._stage.loop.run_ready()

    @property
    def is_gone(self) -> bool:
        """The relay has closed or aborted this link."""
        return self.transport.is_closing()

    @property
    def is_lingering(self) -> bool:
        """Its answer is behind a FIN, and it is still read, so that it gets there."""
        return self.transport.eof_sent and not self.transport.is_closing() and not self.transport.paused


class Stage:
    """See the module. `holds_connects`: links are made only when `connect()` says so. `connects`: outcomes of the next
    attempts to connect, in order: an exception or None; without any they succeed."""

    def __init__(
        self,
        *,
        seconds: dict[Limit, float] | None = None,
        limits: ByteLimits | None = None,
        pool: PoolOptions | None = None,
        identity: bool = True,
        mode: AuthMode = AuthMode.OFF,
        keys: dict[str, str] | None = None,
        browser_guard: bool = False,
        streams_per_key: int = 0,
        providers: tuple[Provider, ...] | None = None,
        holds_connects: bool = False,
        counter: FakeCounter | None = None,
        prices: Prices | None = None,
        rules: dict[str, str] | None = None,
        retries: int = 0,
        models: str = "",
        **options: Any,
    ) -> None:
        """`models` are aliases, as LLM_PROXY_MODELS has them; `options` are further ones of RelayOptions."""
        self.loop = FakeLoop()
        self.options = RelayOptions(
            seconds=SECONDS | (seconds or {}),
            bytes=limits or ByteLimits(),
            pool=pool or PoolOptions(),
            identity=identity,
            retries=retries,
            **options,
        )
        ring = KeyRing({name: Secret(value) for name, value in (keys or {}).items()}, mode)
        limiter = Limiter(MemoryStore(), lambda window, now: FOREVER)
        for scope, line in (rules or {}).items():
            limiter.set_rules(scope, parse_rules(line))
        self.admission = Admission(
            ring, limiter, browser_guard=browser_guard, hosts=frozenset(), streams_per_key=streams_per_key
        )
        given = providers if providers is not None else (openai_provider(), anthropic_provider())
        named = {each.name: each for each in given}
        aliases, problems = parse_aliases(models, named)
        assert not problems, problems
        owners = (("claude-", "anthropic"),) if "anthropic" in named else ()
        snapshot = Snapshot(named, given[0], owners, prices, aliases=aliases)
        self.receipts: list[Receipt] = []
        self.relay = Relay(
            self.loop,
            self.options,
            self.admission,
            snapshot,
            [self.receipts.append],
            connector=self._open,
            clock=self.loop.time,
            wall=lambda: EPOCH + round(self.loop.time() * 1e9),
        )
        self.relay.name = NAME
        self.relay.counter = counter
        self.hangups = FakeHangups()
        self.relay.hangups = self.hangups
        self.relay.start()
        self.holds_connects = holds_connects
        self.connects: deque[BaseException | None] = deque()
        self.dialed: list[Origin] = []
        self.upstreams: list[Peer] = []
        self._held: deque[asyncio.Future[None]] = deque()
        self.clients: list[Peer] = []
        self._told = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.assert_nothing_is_left()
        self.relay.deadlines.stop()
        self.loop.close()
        if error is None:
            self.loop.fail_on_errors()

    # -- who is on stage ----------------------------------------------------------------------------------------------

    def client(self, *, peername: object = ("192.0.2.7", 40000), sslcontext: object = None) -> Peer:
        """A client connects."""
        transport = FakeTransport(self.loop, peername=peername, sslcontext=sslcontext)
        number = 1000 + len(self.clients)
        transport.socket.fileno = lambda: number  # type: ignore[method-assign]
        protocol = self.relay.client()
        transport.attach(protocol)
        peer = Peer(self, transport, protocol)
        self.clients.append(peer)
        return peer

    def upstream(self, number: int = -1) -> Peer:
        """The link to a provider that was opened last, or the one with that number."""
        return self.upstreams[number]

    def connect(self, failure: BaseException | None = None) -> None:
        """The oldest held attempt to connect succeeds, or fails."""
        self.connects.append(failure)
        self._held.popleft().set_result(None)
        self.loop.run_ready()

    async def _open(self, pool: Pool, origin: Origin) -> UpstreamConnection:
        self.dialed.append(origin)
        if self.holds_connects:
            held = self.loop.create_future()
            self._held.append(held)
            await held
        outcome = self.connects.popleft() if self.connects else None
        if outcome is not None:
            raise outcome
        connection = UpstreamConnection(pool, origin, self.options.bytes.upstream_head, pool.clock())
        transport = FakeTransport(self.loop)
        transport.attach(connection)
        self.upstreams.append(Peer(self, transport, connection))
        return connection

    def warm(self, count: int = 1) -> Peer:
        """Puts `count` idle links into the pool, as finished exchanges leave them. Returns the last."""
        clients = [self.client() for _ in range(count)]
        for client in clients:
            client.says(ask())
        for upstream in self.upstreams[-count:]:
            upstream.says(unary())
            upstream.heard()
            upstream.writes()
        for client in clients:
            client.resets()
        self._told = len(self.receipts)
        return self.upstreams[-1]

    # -- what has happened --------------------------------------------------------------------------------------------

    def receipt(self) -> Receipt:
        """The one receipt that was written since the last time this was asked."""
        new = self.receipts[self._told :]
        self._told = len(self.receipts)
        assert len(new) == 1, f"expected one new receipt, got {[(r.path, r.ended_kind) for r in new]}"
        return new[0]

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    @property
    def pooled(self) -> int:
        return self.relay.pool.idle

    @property
    def streams(self) -> dict[str | None, int]:
        """Streamed answers that admission counts."""
        return self.admission._streams

    def assert_nothing_is_left(self) -> None:
        """Every exchange ended once; nothing is held for one that ended."""
        relay = self.relay
        for client in self.clients:
            if not client.transport.is_lost:
                client.resets()
        self.loop.run_ready()
        ids = [receipt.id for receipt in self.receipts]
        assert len(ids) == len(set(ids)), "an exchange ended twice"
        assert len(ids) == relay._count, f"{relay._count} exchanges began, {len(ids)} receipts were written"
        assert relay.clients == set()
        assert relay.drains == set()
        assert self.hangups.callbacks == {}
        assert relay.bodies == 0, "bytes of bodies are still counted"
        assert relay.kept == 0, "bytes that were kept for counting are still counted"
        assert self.streams == {}, "streams are still counted"
        for held in self._held:  # a link in the making outlives who asked for it
            held.set_result(None)
        self.loop.run_ready()
        assert self.loop.tasks == []
        pool = relay.pool
        assert pool.open == pool.idle, f"{pool.open} links are counted, {pool.idle} are idle"
        assert not any(links.opening for links in pool._links.values())
        assert not any(links.waiting for links in pool._links.values())
        alive = [peer for peer in self.upstreams if not peer.is_gone]
        assert len(alive) == pool.idle, "a link that is not in the pool is still open"
        assert len(relay.deadlines) == 1, "only the pool has a time limit"
        assert not any(peer.transport.paused for peer in alive), "a link in the pool does not read"
        pool.close()
        self.loop.run_ready()
        assert pool.open == 0
        assert len(self.loop.timers) == 1, "only the sweeper's timer may be armed"


def openai_provider(**changes: Any) -> Provider:
    fields: dict[str, Any] = {
        "name": "openai",
        "family": "openai",
        "origin": OPENAI,
        "base": b"/v1",
        "host_header": b"openai.test",
        "credential": Secret("sk-provider"),
    }
    return Provider(**(fields | changes))


def anthropic_provider(**changes: Any) -> Provider:
    fields: dict[str, Any] = {
        "name": "anthropic",
        "family": "anthropic",
        "origin": ANTHROPIC,
        "host_header": b"anthropic.test",
        "credential": Secret("sk-ant"),
        "auth": "x-api-key",
    }
    return Provider(**(fields | changes))


# -- what is said -----------------------------------------------------------------------------------------------------

BODY = b'{"model":"gpt-5","messages":[]}'
STREAM_BODY = b'{"model":"gpt-5","stream":true,"messages":[]}'
CHAT = b"/v1/chat/completions"


def request(
    method: bytes = b"POST", path: bytes = CHAT, body: bytes | None = None, *lines: bytes, version: bytes = b"1.1"
) -> bytes:
    """A request; `body` None: without a body and without a length."""
    head = [b"%b %b HTTP/%b" % (method, path, version), b"Host: localhost", *lines]
    if body is not None:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*head, b"", body or b""])


def ask(*lines: bytes, body: bytes = BODY, version: bytes = b"1.1") -> bytes:
    """A chat call that wants one document."""
    return request(b"POST", CHAT, body, *lines, version=version)


def ask_stream(*lines: bytes, version: bytes = b"1.1") -> bytes:
    """A chat call that wants a stream."""
    return ask(*lines, body=STREAM_BODY, version=version)


def get(path: bytes = b"/v1/models", *lines: bytes, version: bytes = b"1.1") -> bytes:
    return request(b"GET", path, None, *lines, version=version)


def sent_on(body: bytes = BODY, *lines: bytes, target: bytes = CHAT) -> bytes:
    """What the provider hears of `ask(*lines, body=body)`."""
    identity = b"accept-encoding: identity\r\n" if b'"stream":true' in body else b""
    return (
        b"POST %b HTTP/1.1\r\nhost: openai.test\r\nauthorization: Bearer sk-provider\r\n" % target
        + identity
        + b"".join(line + b"\r\n" for line in lines)
        + b"via: 1.1 %b\r\ncontent-length: %d\r\n\r\n" % (NAME, len(body))
        + body
    )


DOCUMENT = b'{"id":"x","choices":[]}'


def unary(body: bytes = DOCUMENT, status: bytes = b"200 OK", *lines: bytes) -> bytes:
    """A provider's answer with a length."""
    head = [b"HTTP/1.1 " + status, b"Date: Thu, 01 Jan 1970 00:00:00 GMT", *lines, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*head, b"", body])


def passed_on(body: bytes = DOCUMENT, status: bytes = b"200 OK", *lines: bytes, end: bytes = b"") -> bytes:
    """What the client hears of `unary(body, status, *lines)`."""
    head = [b"HTTP/1.1 " + status, b"Date: Thu, 01 Jan 1970 00:00:00 GMT", *lines]
    return b"\r\n".join(head) + b"\r\n" + VIA + b"content-length: %d\r\n" % len(body) + end + b"\r\n" + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
# The same until the upstream closes.
OPEN_STREAM_HEAD = STREAM_HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"")
STREAM_HEAD_PASSED = (
    b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/event-stream\r\n" + VIA
)
STREAM_HEAD_ON = STREAM_HEAD_PASSED + b"transfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
COMMENT = b": OPENROUTER PROCESSING\n\n"
ROLE = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
FINISH = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
LAST = b"0\r\n\r\n"


def text(words: bytes = b"hello") -> bytes:
    """A delta of a chat stream."""
    return b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n' % words


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def refused(
    status: bytes,
    kind: bytes,
    body: bytes,
    *lines: bytes,
    closes: bool,
    keeps_told: bool = False,
    is_head: bool = False,
) -> bytes:
    """An error answer of our own."""
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % (status, len(body))
    head += DATE + VIA + b"x-llm-proxy-error: %b\r\nx-llm-proxy-request-id: %b\r\n" % (kind, ID)
    head += b"".join(line + b"\r\n" for line in lines)
    if closes:
        head += b"connection: close\r\n"
    elif keeps_told:
        head += b"connection: keep-alive\r\n"
    return head + b"\r\n" + (b"" if is_head else body)


def openai_error(detail: str, kind: str, error_type: str = "server_error") -> bytes:
    """The body of an error in OpenAI's format."""
    return (
        f'{{"error":{{"message":"llm-proxy: {detail}","type":"{error_type}","param":null,"code":"{kind}"}}}}'.encode()
    )


def openai_event(detail: str, kind: str, error_type: str = "server_error") -> bytes:
    """The event that tells of a break in an OpenAI stream."""
    return b"data: " + openai_error(detail, kind, error_type) + b"\n\n"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


_DATE = re.compile(rb"(?i)(date: )[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT")
_ID = re.compile(rb"0123456789ab-[0-9a-f]")


def plain(data: bytes) -> bytes:
    """`data` with the dates of any day turned into one, ids of exchanges into another."""
    return _ID.sub(ID, _DATE.sub(rb"\1Thu, 01 Jan 1970 00:00:00 GMT", data))


def kind_of(failure: Failure | None) -> str | None:
    return None if failure is None else failure.kind.value


def exchange_of(peer: Peer) -> Any:
    assert isinstance(peer.protocol, ClientConnection)
    return peer.protocol.exchange
