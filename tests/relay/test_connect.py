"""Opening links: scripted names and addresses on the fake loop, TLS and proxies on real loopback sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin
from proxy.outcome import Failure, Kind, Limit, Phase, Side
from proxy.relay.connect import MAX_TUNNEL_HEAD, ConnectFailed, Connector
from proxy.relay.options import RelayOptions, UpstreamTls
from proxy.relay.pool import Pool
from proxy.relay.upstream import UpstreamConnection
from tests.fakes import loops
from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport


class FakePool:
    """As much of a pool as a link in the making needs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.dropped: list[UpstreamConnection] = []

    def drop(self, connection: UpstreamConnection) -> None:
        self.dropped.append(connection)
        connection.close()


def opening(loop: asyncio.AbstractEventLoop, origin: Origin, **options: Any) -> Awaitable[UpstreamConnection]:
    seconds = RelayOptions().seconds | {Limit.CONNECT: 5.0}
    connector = Connector(loop, RelayOptions(seconds=seconds, **options))
    return connector(cast(Pool, FakePool(loop.time)), origin)


def failure_of(loop: FakeLoop, origin: Origin, advance: float = 0.0, **options: Any) -> Failure:
    """Why no link to `origin` came to be."""
    with loop.running():
        task = loop.create_task(opening(loop, origin, **options))
    loop.advance(advance)
    assert task.done()
    error = task.exception()
    assert isinstance(error, ConnectFailed), error
    assert (error.failure.side, error.failure.phase) == (Side.UPSTREAM, Phase.CONNECT)
    assert loop.timers == []
    return error.failure


HTTP = Origin("http", "api.test", 8000)
HTTPS = Origin("https", "api.test", 443)
PROXIED = Origin("https", "api.test", 443, ("proxy.test", 3128), Secret("Basic dTpw"))

# -- names and addresses ----------------------------------------------------------------------------------------------


@pytest.mark.sources
def test_a_link_to_the_first_address() -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = ["10.0.0.1", "10.0.0.2"]
        transport = FakeTransport(loop)
        loop.connections.append(transport)
        link = loop.run_until_complete(opening(loop, HTTP))
        assert link.transport is transport
        assert (loop.dialed[0].host, loop.dialed[0].port, loop.dialed[0].ssl) == ("10.0.0.1", 8000, None)
        assert link.origin is HTTP
        assert link.born == loop.time()
        assert transport.get_write_buffer_limits()[0] == 0, "the end of SEND is an empty buffer"
        assert loop.timers == []


@pytest.mark.sources
def test_addresses_are_tried_in_turn() -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = ["10.0.0.1", "fd00::2", "10.0.0.1", "10.0.0.3"]
        transport = FakeTransport(loop)
        loop.connections.extend([ConnectionRefusedError(), OSError(113, "no route"), transport])
        link = loop.run_until_complete(opening(loop, HTTP))
        assert link.transport is transport
        assert [dialed.host for dialed in loop.dialed] == ["10.0.0.1", "fd00::2", "10.0.0.3"], "each but once"
        assert [dialed.options["family"] for dialed in loop.dialed] == [2, 10, 2]


@pytest.mark.sources
def test_a_silent_address_costs_its_share() -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = ["10.0.0.1", "10.0.0.2"]
        transport = FakeTransport(loop)
        loop.connections.extend([loop.create_future(), transport])
        with loop.running():
            task = loop.create_task(opening(loop, HTTP))
        loop.advance(2.4)
        assert len(loop.dialed) == 1
        loop.advance(0.2)
        assert task.result().transport is transport


@pytest.mark.parametrize(
    ("outcomes", "kind", "detail"),
    [
        ([ConnectionRefusedError()], Kind.CONNECT_FAILED, "the provider refused the connection"),
        ([OSError(113, "no route to 10.0.0.1")], Kind.CONNECT_FAILED, "the provider cannot be reached"),
        ([ssl.SSLError("bad")], Kind.CONNECT_FAILED, "the TLS handshake with the provider failed"),
        ([OSError(), ConnectionRefusedError()], Kind.CONNECT_FAILED, "the provider refused the connection"),
    ],
)
def test_what_a_failure_is_called(outcomes: list[Exception], kind: Kind, detail: str) -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = [f"10.0.0.{n}" for n in range(len(outcomes))]
        loop.connections.extend(outcomes)
        failure = failure_of(loop, HTTP)
        assert (failure.kind, failure.detail) == (kind, detail)


def test_silence_everywhere() -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = ["10.0.0.1", "10.0.0.2"]
        loop.connections.extend([loop.create_future(), loop.create_future()])
        failure = failure_of(loop, HTTP, advance=5.0)
        assert failure.kind is Kind.TIMEOUT
        assert "took longer than" in failure.detail


@pytest.mark.parametrize("outcome", [socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
def test_a_name_that_nobody_knows(outcome: Exception) -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = outcome
        failure = failure_of(loop, HTTP)
        assert (failure.kind, failure.detail) == (
            Kind.CONNECT_FAILED,
            "the name of the provider cannot be resolved",
        )


def test_a_name_server_that_is_silent() -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = loop.create_future()
        failure = failure_of(loop, HTTP, advance=5.0)
        assert (failure.kind, failure.detail) == (
            Kind.TIMEOUT,
            "connecting to the provider took longer than 5 s",
        )


@pytest.mark.sources
def test_https_asks_for_the_name_it_dials() -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = ["10.0.0.1"]
        loop.connections.append(FakeTransport(loop, sslcontext=object()))
        loop.run_until_complete(opening(loop, HTTPS))
        assert loop.dialed[0].server_hostname == "api.test"
        context = loop.dialed[0].ssl
        assert isinstance(context, ssl.SSLContext)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname


# -- through an HTTP proxy --------------------------------------------------------------------------------------------


def tunnel(loop: FakeLoop, answer: bytes, origin: Origin = PROXIED) -> tuple[asyncio.Task[Any], FakeTransport]:
    loop.addresses["proxy.test"] = ["10.0.0.9"]
    transport = FakeTransport(loop)
    loop.connections.append(transport)
    with loop.running():
        task = loop.create_task(cast(Any, opening(loop, origin)))
    loop.run_ready()
    if answer:
        transport.receive(answer)
    loop.run_ready()
    return task, transport


@pytest.mark.sources
def test_https_goes_through_a_tunnel() -> None:
    with FakeLoop() as loop:
        inner = FakeTransport(loop, sslcontext=object())
        loop.upgrades.append(inner)
        task, outer = tunnel(loop, b"")
        assert outer.sent == (
            b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
        )
        for byte in b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n":
            outer.receive(bytes([byte]))
        loop.run_ready()
        assert task.result().transport is inner
        assert loop.dialed[1].server_hostname == "api.test"
        assert loop.timers == []


def test_a_tunnel_to_an_ipv6_address() -> None:
    with FakeLoop() as loop:
        origin = Origin("https", "fd00::1", 443, ("proxy.test", 3128))
        task, outer = tunnel(loop, b"", origin)
        assert outer.sent == b"CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\n\r\n"
        outer.lose()
        loop.run_ready()
        assert task.exception()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy refused the tunnel with status 407"),
        (b"HTTP/1.1 503 x\r\n\r\n", "the proxy refused the tunnel with status 503"),
        (b"SSH-2.0-x\r\n\r\n", "the proxy does not speak HTTP/1.1"),
        (b"HTTP/1.1 abc\r\n\r\n", "the proxy does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "the proxy sent bytes behind its answer"),
        (b"x" * (MAX_TUNNEL_HEAD + 1), "the proxy's answer is too long"),
    ],
)
def test_a_tunnel_that_is_refused(answer: bytes, detail: str) -> None:
    with FakeLoop() as loop:
        task, outer = tunnel(loop, answer)
        error = task.exception()
        assert isinstance(error, ConnectFailed)
        assert (error.failure.kind, error.failure.detail) == (Kind.CONNECT_FAILED, detail)
        assert outer.aborted
        outer.receive(b"more") if not outer.is_closing() else None


def test_a_proxy_that_closes() -> None:
    with FakeLoop() as loop:
        task, outer = tunnel(loop, b"")
        outer.receive_eof()
        loop.run_ready()
        error = task.exception()
        assert isinstance(error, ConnectFailed)
        assert error.failure.detail == "the proxy closed the connection"


def test_a_proxy_that_is_silent() -> None:
    with FakeLoop() as loop:
        task, outer = tunnel(loop, b"")
        loop.advance(5.0)
        error = task.exception()
        assert isinstance(error, ConnectFailed)
        assert error.failure.kind is Kind.TIMEOUT
        assert "connecting to the proxy" in error.failure.detail
        assert outer.aborted


@pytest.mark.sources
def test_a_handshake_in_the_tunnel_that_fails() -> None:
    with FakeLoop() as loop:
        loop.upgrades.append(ssl.SSLError("bad"))
        task, outer = tunnel(loop, b"HTTP/1.1 200 OK\r\n\r\n")
        error = task.exception()
        assert isinstance(error, ConnectFailed)
        assert error.failure.detail == "the TLS handshake with the provider failed"
        assert outer.aborted


@pytest.mark.sources
def test_plain_http_needs_no_tunnel() -> None:
    with FakeLoop() as loop:
        loop.addresses["proxy.test"] = ["10.0.0.9"]
        loop.connections.append(FakeTransport(loop))
        link = loop.run_until_complete(opening(loop, Origin("http", "api.test", 80, ("proxy.test", 3128))))
        assert (loop.dialed[0].host, loop.dialed[0].port) == ("10.0.0.9", 3128)
        assert loop.resolved == ["proxy.test"], "the provider's name is the proxy's to resolve"
        assert link.transport.sent == b""


def test_a_proxy_that_nobody_can_reach() -> None:
    with FakeLoop() as loop:
        loop.addresses["proxy.test"] = ["10.0.0.9"]
        loop.connections.append(ConnectionRefusedError())
        assert failure_of(loop, PROXIED).detail == "the proxy refused the connection"


# -- real sockets -----------------------------------------------------------------------------------------------------

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def served(talk: Talk, context: ssl.SSLContext | None, scheme: str, tls: UpstreamTls, proxy: bool = False) -> Any:
    """What a link to a real server hears, or the Failure."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    origin = Origin(scheme, "localhost", port)
    if proxy:
        origin = Origin(scheme, "localhost", 443, ("127.0.0.1", port))
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bytes] = loop.create_future()

    class Listening:
        def upstream_read(self, parser: Any) -> None:
            if not heard.done():
                heard.set_result(b"".join(parser.pieces))

    try:
        link = await opening(loop, origin, tls=tls)
        link.attempt = cast(Any, Listening())
        link.transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        result: Any = await heard
        link.attempt = None
        link.transport.abort()
        link.is_lost = True
    except ConnectFailed as error:
        result = error.failure
    server.close()
    await server.wait_closed()
    return result


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await reader.read()
    finally:
        writer.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA, folder: Path) -> UpstreamTls:
    file = folder / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return UpstreamTls(ca_file=str(file))


@pytest.mark.sources
def test_real_http() -> None:
    assert loops.run(served(answer, None, "http", UpstreamTls())) == b"hi"


@pytest.mark.sources
def test_real_tls(authority: trustme.CA, tmp_path: Path) -> None:
    tls = trusting(authority, tmp_path)
    assert loops.run(served(answer, server_context(authority), "https", tls)) == b"hi"


@pytest.mark.sources
def test_real_tls_by_an_unknown_authority(authority: trustme.CA, tmp_path: Path) -> None:
    tls = trusting(trustme.CA(), tmp_path)
    failure = loops.run(served(answer, server_context(authority), "https", tls))
    assert failure.kind is Kind.CONNECT_FAILED
    assert failure.detail.startswith("the provider's certificate is not trusted: ")


@pytest.mark.sources
def test_real_tls_for_another_name(authority: trustme.CA, tmp_path: Path) -> None:
    tls = trusting(authority, tmp_path)
    failure = loops.run(served(answer, server_context(authority, "other.test"), "https", tls))
    assert failure.detail.startswith("the provider's certificate is not trusted: Hostname mismatch")


@pytest.mark.sources
def test_tls_to_a_plain_port(authority: trustme.CA, tmp_path: Path) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    failure = loops.run(served(plain, None, "https", trusting(authority, tmp_path)))
    assert failure.kind is Kind.CONNECT_FAILED


def test_a_real_port_where_nobody_listens() -> None:
    async def refused() -> Failure:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            origin = Origin("http", "127.0.0.1", unused.getsockname()[1])
            with pytest.raises(ConnectFailed) as caught:
                await opening(asyncio.get_running_loop(), origin)
            return caught.value.failure

    assert loops.run(refused()).detail == "the provider refused the connection"


@pytest.mark.sources
def test_real_tls_in_a_tunnel(authority: trustme.CA, tmp_path: Path) -> None:
    context = server_context(authority)

    async def proxied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"CONNECT localhost:443 HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.start_tls(context)
        await answer(reader, writer)

    tls = trusting(authority, tmp_path)
    assert loops.run(served(proxied, None, "https", tls, proxy=True)) == b"hi"
