"""A slow side slows the other one down, and nothing else: bytes stay right, memory stays small, and whoever leaves
in the middle of it leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.adversity.peers import Peer, Upstream, connect
from tests.adversity.speech import ASK, ASK_STREAM, CHAT, CHUNKED, LAST, chunk, head, length, post
from tests.adversity.stage import Stage, run
from tests.fakes.link import DOWN, UP, FaultyLink

CHAT_PATH = b"/v1/chat/completions"
STREAMED = post(CHAT_PATH, ASK_STREAM)
EVENT = CHAT.events[-1].replace(b"lo", b"x" * 16_000)
MIB = 1024 * 1024


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Slow(Peer):
    """Stops reading for a while behind each megabyte; counts bytes and forgets them."""

    def data_received(self, data: bytes) -> None:
        before = self.received // MIB
        self.received += len(data)
        if self.received // MIB > before:
            self.transport.pause_reading()
            self._loop.call_later(0.01, self._go_on)
        self._changed()

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["stream", "length", "until close"])
def test_a_slow_reader_gets_every_byte(framing: str) -> None:
    """4 MB through a link with small buffers that stalls again and again, many readers at once."""

    async def main() -> None:
        body = b"".join(EVENT.replace(b"x" * 9, b"%09d" % n, 1) for n in range(256)) + b"".join(CHAT.end)

        async def script(link: Peer) -> None:
            await link.request()
            if framing == "stream":
                link.send(CHUNKED)
                for place in range(0, len(body), 100_000):
                    await link.send_all(chunk(body[place : place + 100_000]))
                link.send(LAST)
                await link.to_end()
            else:
                await link.send_all((head() if framing != "length" else length(len(body))) + body)
                if framing == "length":
                    await link.to_end()

        async with Stage(script) as stage, FaultyLink(stage.port, buffer=32 * 1024) as link:

            async def one() -> str:
                client = await connect(link.port, receive_buffer=32 * 1024)
                stage.clients.append(client)
                client.send(STREAMED if framing == "stream" else post(CHAT_PATH, ASK))
                heard = await client.answer()
                assert heard.is_whole
                client.close()
                return digest(heard.body)

            async def be_bad() -> None:
                while True:
                    link.stall(DOWN)
                    await asyncio.sleep(0.01)
                    link.go_on(DOWN)
                    await asyncio.sleep(0.02)

            bad = asyncio.ensure_future(be_bad())
            digests = await asyncio.gather(*(one() for _ in range(10)))
            bad.cancel()
            await asyncio.gather(bad, return_exceptions=True)
            assert set(digests) == {digest(body)}
            assert {receipt.letters for receipt in await stage.all_receipts(10)} == {"--"}
            await stage.settle(lambda: link.open == 0, "the link is open")

    run(main())


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("path", [b"/v1/files", CHAT_PATH], ids=["streamed through", "held"])
def test_a_slow_upstream_gets_every_byte(path: bytes, chunked: bool) -> None:
    async def main() -> None:
        body = ASK[:-1] + b',"x":"' + os.urandom(2_000_000).hex().encode() + b'"}'
        seen: list[str] = []

        async def script(link: Peer) -> None:
            start = await link.mark(b"\r\n\r\n")
            if b"chunked" in start:
                data = b""
                while size := int(await link.mark(b"\r\n"), 16):
                    data += (await link.size(size + 2))[:-2]
                await link.size(2)
            else:
                data = await link.size(len(body))
            seen.append(digest(data))
            link.send(length(2) + b"{}")
            await link.to_end()

        async with Stage(script) as target, FaultyLink(target.upstream.port, buffer=32 * 1024) as link:
            async with Stage(upstream_port=link.port, POOL_IDLE="0") as stage:

                async def one(client: Peer) -> None:
                    start = post(path, b"").removesuffix(b"Content-Length: 0\r\n\r\n")
                    if chunked:
                        client.send(start + b"Transfer-Encoding: chunked\r\n\r\n")
                        for place in range(0, len(body), 70_000):
                            await client.send_all(chunk(body[place : place + 70_000]))
                        client.send(LAST)
                    else:
                        await client.send_all(start + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                    assert (await client.answer()).status == 200

                link.trickle(UP, 48_000, 0.001)
                await stage.rounds(one, 5)
                assert seen == [digest(body)] * 5
                await stage.settle(lambda: link.open == 0, "the link is open")

    run(main())


def test_many_slow_readers_and_a_quick_one() -> None:
    """100 that do not read at all hold up nobody, and cost a buffer each."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            while link.ended is None:
                _, body = await link.request()
                if b"stream" not in body:
                    link.send(length(2) + b"{}")
                    await link.until(lambda: bool(link.buffer) or link.ended is not None)
                    continue
                link.send(CHUNKED)
                for _ in range(2000):
                    if link.ended is not None or link.lost:
                        return
                    await link.send_all(chunk(EVENT))

        async with Stage(script, MAX_BUFFER="16k") as stage:
            slow = [await stage.client(receive_buffer=16 * 1024) for _ in range(100)]
            for client in slow:
                client.stop_reading()
                client.send(STREAMED)
            clients = stage.worker.relay.clients
            await stage.settle(lambda: sum(client.is_full for client in clients) == 100, "all are full")
            loop = asyncio.get_running_loop()
            quick = await stage.client()
            began = loop.time()
            for _ in range(20):
                quick.send(post(CHAT_PATH, ASK))
                assert (await quick.answer()).status == 200
            assert loop.time() - began < 5.0  # milliseconds; whoever waits for one that does not read waits on
            held = sum(client.transport.get_write_buffer_size() for client in clients)
            assert held <= 100 * (16 * 1024 + 256_000)
            assert all(client.received == 0 for client in slow)
            for client in slow:
                client.reset()
            await stage.all_receipts(120)

    run(main())


def test_it_goes_on_where_it_stopped() -> None:
    """A paused stream is complete when its client reads again, and its link serves the next request."""

    async def main() -> None:
        events = [EVENT] * 400  # 6 MB: more than the kernel's buffers take

        async def script(link: Peer) -> None:
            while link.ended is None:
                await link.request()
                link.send(CHUNKED)
                for event in events:
                    await link.send_all(chunk(event))
                link.send(b"".join(map(chunk, CHAT.end)) + LAST)
                await link.until(lambda: bool(link.buffer) or link.ended is not None)

        async with Stage(script) as stage:

            async def one(client: Peer) -> None:
                for _ in range(2):
                    client.stop_reading()
                    client.send(STREAMED)
                    await stage.settle(lambda: all(c.is_full for c in stage.worker.relay.clients), "all are full")
                    client.read_on()
                    heard = await client.answer()
                    assert heard.is_whole
                    assert digest(heard.body) == digest(b"".join(events) + b"".join(CHAT.end))

            await one(await stage.client(receive_buffer=64 * 1024))
            assert len(stage.upstream.links) == 1
            assert {receipt.letters for receipt in await stage.all_receipts(2)} == {"--"}

    run(main())


# -- memory -----------------------------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sidecar(upstream_port: int, pipe: Connection) -> None:
    """A process of its own: tells its port, then for each word its resident size, until "stop"."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Stage(upstream_port=upstream_port, POOL_IDLE="0") as stage:
            pipe.send(stage.port)
            most = 0
            is_over = loop.create_future()
            loop.add_reader(pipe.fileno(), lambda: is_over.done() or is_over.set_result(None))
            while not is_over.done():
                most = max(most, resident())
                await asyncio.wait([is_over], timeout=0.01)
                if is_over.done() and pipe.recv() == "mark":
                    pipe.send(most)
                    most = 0
                    is_over = loop.create_future()
            loop.remove_reader(pipe.fileno())
            pipe.send(most)

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["stream", "upload"])
def test_memory_stays_small(way: str) -> None:
    """200 MB past a slow side: the sidecar grows by less than 8 MB."""

    async def main() -> None:
        total = 200 * MIB if way == "upload" else 200 * MIB // len(EVENT) * len(EVENT)
        seen: list[str] = []

        async def script(link: Peer) -> None:
            start = await link.mark(b"\r\n\r\n")
            if b"/v1/files" in start:
                at = hashlib.sha256(link.buffer)
                count = len(link.buffer)
                size = int(start.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while count < size:
                    link.buffer.clear()
                    await link.until(lambda: bool(link.buffer))
                    at.update(link.buffer)
                    count += len(link.buffer)
                    if count // MIB > (count - len(link.buffer)) // MIB:
                        link.stop_reading()
                        await asyncio.sleep(0.01)
                        link.read_on()
                seen.append(at.hexdigest())
                link.buffer.clear()
                link.send(length(2) + b"{}")
            else:
                link.send(CHUNKED)
                for _ in range(total // len(EVENT) if b"large" in start else 20):
                    await link.send_all(chunk(EVENT))
                link.send(b"".join(map(chunk, CHAT.end)) + LAST)
            await link.to_end()

        upstream = Upstream(script)
        await upstream.start()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=sidecar, args=(upstream.port, theirs))
        process.start()
        loop = asyncio.get_running_loop()
        port = await loop.run_in_executor(None, ours.recv)

        async def once(is_large: bool) -> None:
            _, client = await loop.create_connection(Slow, "127.0.0.1", port)
            if way == "stream":
                field = b"x-size: large" if is_large else b"x-size: small"
                client.send(post(CHAT_PATH, ASK_STREAM, field))
                size = total if is_large else 20 * len(EVENT)
                async with asyncio.timeout(50):
                    while client.received < size and client.ended is None:
                        await asyncio.sleep(0.01)
                assert client.received >= size
            else:
                size = total if is_large else MIB
                client.send(b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % size)
                block, at = os.urandom(MIB), hashlib.sha256()
                for _ in range(size // MIB):
                    await client.send_all(block)
                    at.update(block)
                await client.until(lambda: client.received > 0, "an answer")
                assert seen[-1] == at.hexdigest()
            client.close()

        await once(False)
        ours.send("mark")
        before = await loop.run_in_executor(None, ours.recv)
        await once(True)
        ours.send("stop")
        after = await loop.run_in_executor(None, ours.recv)
        await loop.run_in_executor(None, process.join)
        assert process.exitcode == 0
        await upstream.close()
        assert after - before < 8 * MIB, f"{(after - before) / MIB:.1f} MiB more"

    run(main())
