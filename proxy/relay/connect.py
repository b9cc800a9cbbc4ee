"""Opening a link to a provider: names, addresses, HTTP proxies, TLS.

Lives here: `Connector`. May not live here: keeping links (pool), using them (upstream).
How it works: the name is resolved, its addresses are tried in turn, each with its share of the time that CONNECT has
left. Through an HTTP proxy, https origins are reached by CONNECT (RFC 9110 section 9.3.6) and TLS begins inside; plain
http origins are asked for with an absolute target instead (exchange does that), as squid and others expect.
Doubted: no happy eyeballs; a dead first address costs its share of the limit once per new link.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from proxy.catalog.snapshot import Origin
from proxy.outcome import Failure, Kind, Limit, Phase, Side
from proxy.relay.options import RelayOptions, UpstreamTls
from proxy.relay.upstream import UpstreamConnection

if TYPE_CHECKING:
    from proxy.relay.pool import Pool

MAX_TUNNEL_HEAD: Final = 8 * 1024


class ConnectFailed(Exception):
    """No link came to be. `failure` says why, in words without addresses of other people's networks."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.failure = Failure(Side.UPSTREAM, Phase.CONNECT, kind, detail)


class Connector:
    """Opens links with one set of options."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: RelayOptions) -> None:
        self._loop = loop
        self._seconds = options.seconds[Limit.CONNECT] or 3600.0
        self._max_head = options.bytes.upstream_head
        self._tls = options.tls

    @cached_property
    def _context(self) -> ssl.SSLContext:
        """Made on first need: reading the system's certificates takes 20 ms and 1 MiB."""
        return upstream_context(self._tls)

    async def __call__(self, pool: Pool, origin: Origin) -> UpstreamConnection:
        """A connected link to `origin`. Raises ConnectFailed."""

        def factory() -> UpstreamConnection:
            return UpstreamConnection(pool, origin, self._max_head, pool.clock())

        until = self._loop.time() + self._seconds
        host, port = origin.proxy or (origin.host, origin.port)
        via = "the proxy" if origin.proxy else "the provider"
        try:
            async with asyncio.timeout_at(until):
                addresses = await self._resolve(host, port, via)
                return await self._try_each(addresses, origin, factory, until, via)
        except TimeoutError:
            raise ConnectFailed(Kind.TIMEOUT, f"connecting to {via} took longer than {self._seconds:g} s") from None

    async def _resolve(self, host: str, port: int, via: str) -> list[Any]:
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(Kind.CONNECT_FAILED, f"the name of {via} cannot be resolved") from error
        # Some resolvers repeat an address for each protocol.
        return list(dict.fromkeys((family, address) for family, _, _, _, address in found))

    async def _try_each(
        self,
        addresses: list[Any],
        origin: Origin,
        factory: Callable[[], UpstreamConnection],
        until: float,
        via: str,
    ) -> UpstreamConnection:
        failed = ConnectFailed(Kind.CONNECT_FAILED, f"the name of {via} has no address")
        for tried, (family, address) in enumerate(addresses):
            now = self._loop.time()
            share = (until - now) / (len(addresses) - tried)
            try:
                async with asyncio.timeout(share):
                    return await self._open(address[0], address[1], family, origin, factory)
            except ConnectFailed as error:
                failed = error
            except TimeoutError:
                failed = ConnectFailed(Kind.TIMEOUT, f"connecting to {via} took too long")
            except ssl.SSLCertVerificationError as error:
                failed = ConnectFailed(
                    Kind.CONNECT_FAILED, f"the provider's certificate is not trusted: {error.verify_message}"
                )
            except ssl.SSLError:
                failed = ConnectFailed(Kind.CONNECT_FAILED, "the TLS handshake with the provider failed")
            except ConnectionRefusedError:
                failed = ConnectFailed(Kind.CONNECT_FAILED, f"{via} refused the connection")
            except OSError:
                failed = ConnectFailed(Kind.CONNECT_FAILED, f"{via} cannot be reached")
        raise failed

    async def _open(
        self, host: str, port: int, family: int, origin: Origin, factory: Callable[[], UpstreamConnection]
    ) -> UpstreamConnection:
        loop = self._loop
        is_tls = origin.scheme == "https"
        if origin.proxy is None or not is_tls:
            _, connection = await loop.create_connection(
                factory,
                host,
                port,
                family=family,
                ssl=self._context if is_tls else None,
                server_hostname=origin.host if is_tls else None,
            )
            return connection
        transport, tunnel = await loop.create_connection(lambda: _Tunnel(loop), host, port, family=family)
        try:
            transport.write(_connect_request(origin))
            await tunnel.opened
            connection = factory()
            inner = await loop.start_tls(transport, connection, self._context, server_hostname=origin.host)
            assert inner is not None
            connection.connection_made(inner)
        except BaseException:
            transport.abort()
            raise
        return connection


def upstream_context(tls: UpstreamTls) -> ssl.SSLContext:
    """Verification is on, always. A CA file given replaces the system's bundle."""
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


def _connect_request(origin: Origin) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    lines = [f"CONNECT {host}:{origin.port} HTTP/1.1", f"Host: {host}:{origin.port}"]
    if origin.proxy_authorization is not None:
        lines.append(f"Proxy-Authorization: {origin.proxy_authorization.reveal()}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _Tunnel(asyncio.Protocol):
    """Reads a proxy's answer to CONNECT. `opened` ends when the tunnel stands, or fails."""

    __slots__ = ("opened", "_buffer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.opened: asyncio.Future[None] = loop.create_future()
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            return
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_TUNNEL_HEAD:
                self._fail("the proxy's answer is too long")
            return
        words = self._buffer[: self._buffer.find(b"\r\n")].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            self._fail("the proxy does not speak HTTP/1.1")
        elif not words[1].startswith(b"2"):
            self._fail(f"the proxy refused the tunnel with status {int(words[1])}")
        elif len(self._buffer) > end + 4:
            # A TLS server does not speak first: these bytes are the proxy's, and would be read as the provider's.
            self._fail("the proxy sent bytes behind its answer")
        else:
            self.opened.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the proxy closed the connection")

    def _fail(self, detail: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectFailed(Kind.CONNECT_FAILED, detail))
            self.opened.exception()  # seen: whoever waited may be gone already
