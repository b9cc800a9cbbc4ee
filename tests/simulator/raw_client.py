"""A client that sends bytes and notes what came back and how it ended: `eof`, `reset` or `open` (nothing more came)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson

from proxy.simulator.provider import Simulator

CHAT = "/v1/chat/completions"


class Seen(NamedTuple):
    data: bytes
    end: str

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        """After the first head, framing and all."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.data.split(b" ", 2)[1])


def request(spec: str = "", path: str = CHAT, *, method: str = "POST", version: str = "1.1", **fields: Any) -> bytes:
    """A whole request with a JSON body of `fields` (streamed unless they say otherwise)."""
    body = orjson.dumps({"model": "m", "stream": True, "messages": [], **fields}) if method == "POST" else b""
    lines = [f"{method} {path} HTTP/{version}", "Host: sim.test"]
    if spec:
        lines.append(f"x-simulate: {spec}")
    if method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def listen(reader: asyncio.StreamReader, until: bytes | None = None, quiet: float = 0.3) -> Seen:
    """Read to the end, or until `until` has come, or until nothing comes for `quiet` seconds."""
    data = b""
    while until is None or until not in data:
        try:
            async with asyncio.timeout(5 if until is not None else quiet):
                more = await reader.read(65536)
        except TimeoutError:
            return Seen(data, "open")
        except ConnectionResetError:
            return Seen(data + bytes(reader._buffer), "reset")  # type: ignore[attr-defined]  # it would forget those
        if not more:
            return Seen(data, "eof")
        data += more
    return Seen(data, "open")


async def ask(port: int, data: bytes, until: bytes | None = None) -> Seen:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await listen(reader, until)
    finally:
        writer.transport.abort()


def with_simulator(test: Callable[[Simulator], Awaitable[None]], *, loop: Any = None, **options: Any) -> None:
    """Run `test` against a started simulator, on asyncio's own loop or one made by `loop`. Anything that reaches the
    loop's handler, and any connection left over, is a failure."""

    async def run() -> None:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
        simulator = Simulator(**options)
        await simulator.start()
        try:
            await test(simulator)
        finally:
            await simulator.close()
        assert simulator.open_connections == 0
        assert problems == []

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


def dechunk(body: bytes) -> list[bytes]:
    """The chunks of a chunked body, as far as they are whole; the last is b"" if the body ended properly."""
    chunks: list[bytes] = []
    while b"\r\n" in body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(body[:length])
        if body[length : length + 2] != b"\r\n":
            break
        body = body[length + 2 :]
    return chunks


def texts(body: bytes) -> str:
    """The text of openai-chat events."""
    found = ""
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            for choice in orjson.loads(line[6:])["choices"]:
                found += choice["delta"].get("content") or ""
    return found
