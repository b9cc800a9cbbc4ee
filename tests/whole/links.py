"""A client for many requests at once, at the level of HTTP/1.1 messages.

Lives here: `Link` (one connection: requests in turn) and `each` (many requests over a few links). May not live here:
anything a test should judge. For single odd requests take tests.fakes.raw: it sends whatever it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import NamedTuple, TypeVar

PATIENCE = 20.0

T = TypeVar("T")


class Reply(NamedTuple):
    """`is_whole`: it ended as its framing says. `fields` have lower-case names, in order."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    is_whole: bool

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name]


class Link:
    """A connection to `port`, opened when needed and again after it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        return self._streams

    async def ask(self, method: str, target: str, body: bytes = b"", *fields: tuple[str, str]) -> Reply:
        """Send it, read the whole answer."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await self.open()
            lines = [f"{method} {target} HTTP/1.1", "host: localhost", *(f"{name}: {value}" for name, value in fields)]
            if body or method == "POST":
                lines.append(f"content-length: {len(body)}")
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            try:
                reply = await _read_reply(reader)
            except (OSError, asyncio.IncompleteReadError):
                await self.close()  # what is lost is not written to again
                raise
            if not reply.is_whole or "close" in reply.all("connection"):
                await self.close()
            return reply


async def _read_reply(reader: asyncio.StreamReader) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head[:-4].split("\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    status = int(status_line.split(" ")[1])
    pieces: list[bytes] = []
    named = dict(fields)
    is_whole = True
    try:
        if named.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                pieces.append((await reader.readexactly(size + 2))[:-2])
            await reader.readuntil(b"\r\n")
        elif status not in (204, 304):
            pieces.append(await reader.readexactly(int(named["content-length"])))
    except (asyncio.IncompleteReadError, ConnectionError):
        is_whole = False
    return Reply(status, fields, b"".join(pieces), is_whole)


async def each(items: Iterable[T], port: int, do: Callable[[Link, T], Awaitable[None]], *, links: int = 16) -> None:
    """`do` for each item, over `links` connections that are kept open. The first failure ends it."""
    rest = iter(items)

    async def work() -> None:
        async with Link(port) as link:
            for item in rest:
                await do(link, item)

    async with asyncio.TaskGroup() as group:
        for _ in range(links):
            group.create_task(work())
