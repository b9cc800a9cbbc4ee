"""Every limit of time (DESIGN 5), reached for real through its variable: what the client sees, what the receipt
says, and that it was kept: never early, and late by no more than the sweeper's steps."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from proxy.outcome import Limit
from proxy.relay import phases
from proxy.server.table import NUMBERS, TIMEOUTS
from tests.adversity.limits import COUNT, STEP, SWEEP, answering, asked, drip, kept, silent, timed
from tests.adversity.peers import End, Gate, Heard, Peer, all_of
from tests.adversity.speech import (
    ASK,
    ASK_STREAM,
    CHAT,
    CHUNKED,
    LAST,
    SPEECHES,
    chunk,
    head,
    post,
)
from tests.adversity.stage import Stage, ending, nobody, run

CHAT_PATH = b"/v1/chat/completions"
UNARY = post(CHAT_PATH, ASK)
STREAMED = post(CHAT_PATH, ASK_STREAM)
ANTHROPIC = next(speech for speech in SPEECHES if speech.name == "anthropic-messages")

SOURCE = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("test_limits*.py")))


@pytest.mark.parametrize("variable", [*NUMBERS, *TIMEOUTS])
def test_every_limit_is_reached(variable: str) -> None:
    assert f"{variable.removeprefix('LLM_PROXY_')}=" in SOURCE


# -- times of the client ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_idle() -> None:
    """Before the first request and after the last; no receipt for either, no answer nobody asked for."""

    async def main() -> None:
        async with Stage(answering, TIMEOUT_IDLE="0.4") as stage:

            async def one(client: Peer) -> Heard:
                assert await client.to_end() == b""
                return Heard(0, [], b"", False, client.ended, b"")

            async def after_an_answer(client: Peer) -> Heard:
                client.send(UNARY)
                await client.answer()
                _, took = await timed(one(client))
                assert kept(took + 0.2, 0.4, 0.2 + SWEEP), took  # the answer was there before it was looked at
                return Heard(0, [], b"", False, client.ended, b"")

            for heard, took in await stage.rounds(lambda client: timed(one(client)), COUNT):
                assert heard.end is End.FIN
                assert kept(took, 0.4), took
            await stage.rounds(after_an_answer, COUNT)
            assert len(await stage.all_receipts(COUNT)) == COUNT

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("dripped", [False, True])
def test_head(dripped: bool) -> None:
    """All of it: bytes that drip buy no time."""

    async def main() -> None:
        async with Stage(nobody, TIMEOUT_HEAD="0.4") as stage:

            async def one(client: Peer) -> Heard:
                if dripped:
                    heard, _ = await asyncio.gather(client.answer(), drip(client, STREAMED))
                    return heard
                client.send(STREAMED[:50])
                return await client.answer()

            for heard, took in await stage.rounds(lambda client: timed(one(client)), COUNT):
                assert (heard.status, heard.is_whole) == (408, True)
                assert kept(took, 0.4), took
            expected = ("CH", "client", "timeout", False, 408, 0)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


@pytest.mark.slow
def test_body() -> None:
    """Each byte of it is progress; the silence behind them is not. Told in the dialect that was asked."""

    async def main() -> None:
        async with Stage(nobody, TIMEOUT_BODY="0.4") as stage:

            async def one(client: Peer) -> Heard:
                client.send(ANTHROPIC.request[:-9])
                for byte in ANTHROPIC.request[-9:-6]:
                    await asyncio.sleep(0.25)
                    client.send(bytes([byte]))
                return await client.answer()

            for heard, took in await stage.rounds(lambda client: timed(one(client)), COUNT):
                assert (heard.status, heard.is_whole) == (408, True)
                assert json.loads(heard.body)["type"] == "error"
                assert kept(took, 0.75 + 0.4), took
            expected = ("CB", "client", "timeout", False, 408, 0)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("path", [CHAT_PATH, b"/v1/files"], ids=["held", "streamed through"])
def test_body_below_the_floor_rate(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that drips: each byte is progress, the whole would never end."""
    monkeypatch.setattr(phases, "RATE_GRACE_SECONDS", 0.5)

    async def main() -> None:
        async with Stage(silent, MIN_BODY_RATE="1000") as stage:

            async def whole(client: Peer) -> Heard:
                request = post(path, b"x" * 1000)
                client.send(request[:-1000])
                heard, _ = await asyncio.gather(client.answer(), drip(client, b"x" * 1000))
                return heard

            for heard, took in await stage.rounds(lambda client: timed(whole(client)), COUNT):
                assert (heard.status, heard.is_whole) == (408, True)
                assert kept(took, 0.5, STEP), took
            assert {ending(r)[:5] for r in await stage.all_receipts(COUNT)} == {("CB", "client", "timeout", False, 408)}

    run(main())


@pytest.mark.slow
def test_a_client_that_reads_nothing() -> None:
    """The buffer stays within its bound; what the upstream says waits at the upstream."""

    async def main() -> None:
        async def flood(link: Peer) -> None:
            await link.request()
            await link.send_all(CHUNKED)
            while link.ended is None and not link.lost:
                await link.send_all(chunk(CHAT.events[-1] * 200))
                await asyncio.sleep(0)

        async with Stage(flood, TIMEOUT_CLIENT_STALL="0.5", MAX_BUFFER="16k") as stage:
            loop = asyncio.get_running_loop()

            async def one(client: Peer) -> float:
                client.stop_reading()
                client.send(STREAMED)
                await full.wait()
                began = loop.time()
                await stage.settle(lambda: bool(stage.receipts), "an end")
                return loop.time() - began

            clients = stage.worker.relay.clients
            full = Gate(
                COUNT, lambda: stage.settle(lambda: all(c.is_full for c in clients) and largest() > 0, "all full")
            )

            def largest() -> int:
                return max((client.transport.get_write_buffer_size() for client in clients), default=0)

            async def watch() -> int:
                most = 0
                while len(stage.receipts) < COUNT:
                    most = max(most, largest())
                    await asyncio.sleep(0.02)
                return most

            (took, most) = await all_of([stage.rounds(one, COUNT), watch()])
            assert all(0.3 <= each <= 0.5 + STEP for each in took), took
            assert most <= 16 * 1024 + 256_000  # one read beyond the high water
            expected = ("CD", "client", "client_stalled", False, 200, 1)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize(("size", "attempts"), [(1000, 2), (1001, 1)])
def test_body_for_another_attempt(size: int, attempts: int) -> None:
    """A larger one than MAX_REPLAY is not kept, and gets one attempt."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.reset()

        async with Stage(script, RETRIES="1", RETRY_SHARE="1", MAX_REPLAY="1000") as stage:
            body = ASK[:-1] + b',"x":"' + b"x" * (size - len(ASK) - 7) + b'"}'
            assert len(body) == size
            for heard in await stage.rounds(lambda client: asked(client, post(CHAT_PATH, body)), COUNT):
                assert (heard.status, heard.is_whole) == (502, True)
            expected = ("UF", "upstream", "reset", False, 502, attempts)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}
            assert len(stage.upstream.links) == COUNT * attempts

    run(main())


# -- times of the way to the upstream ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_queue() -> None:
    async def main() -> None:
        async with Stage(silent, POOL_CONNECTIONS="1", TIMEOUT_QUEUE="0.4") as stage:
            first = await stage.client()
            first.send(STREAMED)
            await stage.settle(lambda: len(stage.upstream.links) == 1, "a link")
            for heard, took in await stage.rounds(lambda client: timed(asked(client, STREAMED)), COUNT):
                assert (heard.status, heard.is_whole, heard.end) == (503, True, None)
                assert heard.get(b"retry-after") is not None
                assert kept(took, 0.4), took
            expected = ("PQ", "proxy", "timeout", False, 503, 1)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}
            assert len(stage.upstream.links) == 1

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"TIMEOUT_QUEUE": "0"}, {"TIMEOUT_QUEUE": "9", "POOL_QUEUE": "0"}])
def test_no_queue(settings: dict[str, str]) -> None:
    """POOL_QUEUE=0, or no time to wait: refused at once."""

    async def main() -> None:
        async with Stage(silent, POOL_CONNECTIONS="2", **settings) as stage:  # type: ignore[arg-type]
            for _ in range(2):
                (await stage.client()).send(STREAMED)
            await stage.settle(lambda: len(stage.upstream.links) == 2, "links")
            for heard, took in await stage.rounds(lambda client: timed(asked(client, STREAMED)), COUNT):
                assert (heard.status, heard.is_whole, heard.end) == (503, True, None)
                assert took < SWEEP
            expected = ("PQ", "proxy", "overloaded", False, 503, 1)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


@pytest.mark.slow
def test_connect() -> None:
    """A port whose backlog is full: the kernel drops what comes."""

    async def main() -> None:
        with closing(socket.socket()) as deaf, closing(socket.socket()) as a, closing(socket.socket()) as b:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for filler in (a, b):
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            async with Stage(upstream_port=deaf.getsockname()[1], TIMEOUT_CONNECT="0.4") as stage:
                for heard, took in await stage.rounds(lambda client: timed(asked(client, UNARY)), COUNT):
                    assert (heard.status, heard.is_whole, heard.end) == (504, True, None)
                    assert kept(took, 0.4), took
                expected = ("UC", "upstream", "timeout", False, 504, 1)
                assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("path", [CHAT_PATH, b"/v1/files"], ids=["held", "streamed through"])
def test_send(path: bytes) -> None:
    """An upstream that takes no bytes."""

    async def main() -> None:
        gone = asyncio.Event()

        async def stuck(link: Peer) -> None:
            await link.mark(b"\r\n\r\n")
            link.stop_reading()
            await gone.wait()
            link.keeps = False
            link.read_on()
            await link.to_end()

        async with Stage(stuck, TIMEOUT_SEND="0.5") as stage:
            body = ASK[:-1] + b',"x":"' + b"x" * 12_000_000 + b'"}'

            async def one(client: Peer) -> Heard:
                client.send(post(path, body))
                return await client.answer()

            for heard, took in await stage.rounds(lambda client: timed(one(client)), 3):
                assert (heard.status, heard.is_whole) == (504, True)
                assert kept(took, 0.5, 1.0 + STEP), took
            assert {ending(r) for r in await stage.all_receipts(3)} == {("US", "upstream", "timeout", False, 504, 1)}
            gone.set()

    run(main())


# -- times of the upstream --------------------------------------------------------------------------------------------


async def dripped_head(link: Peer) -> None:
    await link.request()
    await drip(link, head(b"X: " + b"x" * 1000))


async def interim_without_end(link: Peer) -> None:
    await link.request()
    while link.ended is None and not link.lost:
        link.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("script", [silent, dripped_head, interim_without_end])
@pytest.mark.parametrize(
    ("request_bytes", "settings"),
    [(STREAMED, {"TIMEOUT_FIRST_BYTE": "0.4"}), (UNARY, {"TIMEOUT_FIRST_BYTE_UNARY": "0.4"})],
    ids=["TIMEOUT_FIRST_BYTE=", "TIMEOUT_FIRST_BYTE_UNARY="],
)
def test_first_byte(script: Callable[[Peer], object], request_bytes: bytes, settings: dict[str, str]) -> None:
    """Neither half a head nor 1xx answers move it."""

    async def main() -> None:
        async with Stage(script, **settings) as stage:  # type: ignore[arg-type]
            for heard, took in await stage.rounds(lambda client: timed(asked(client, request_bytes)), COUNT):
                assert (heard.status, heard.is_whole, heard.end) == (504, True, None)
                assert kept(took, 0.4), took
            expected = ("UF", "upstream", "timeout", False, 504, 1)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


NO_PROGRESS = {
    "comments": b": ping\n\n",
    "empty data": b'data: {"choices":[{"index":0,"delta":{},"finish_reason":null}]}\n\n',
    "role": CHAT.events[0],
    "half an event": b"x",
    "line ends": b"\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NO_PROGRESS)
@pytest.mark.parametrize(
    ("events", "settings", "letters"),
    [((), {"TIMEOUT_FIRST_EVENT": "0.4"}, "UE"), (CHAT.events, {"TIMEOUT_STREAM": "0.4"}, "UD")],
    ids=["TIMEOUT_FIRST_EVENT=", "TIMEOUT_STREAM="],
)
def test_gap_between_events(name: str, events: tuple[bytes, ...], settings: dict[str, str], letters: str) -> None:
    """What has no content proves a connection, not an answer."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(CHUNKED + b"".join(map(chunk, events)))
            while link.ended is None and not link.lost:
                await asyncio.sleep(0.05)
                link.send(chunk(NO_PROGRESS[name]))

        async with Stage(script, **settings) as stage:  # type: ignore[arg-type]
            for heard, took in await stage.rounds(lambda client: timed(asked(client, STREAMED)), COUNT):
                at = heard.body.rfind(b'data: {"error"')
                assert "0.4 s" in CHAT.errors_in(heard.body[at:])[0]
                assert (heard.is_whole, heard.end) == (False, End.FIN)
                assert kept(took, 0.4), took
            expected = (letters, "upstream", "timeout", False, 200, 1)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("seconds", ["0.4", "0"])
def test_hold(seconds: str) -> None:
    """For so long a stream's head waits for content, while another attempt is possible. 0: not at all."""

    async def main() -> None:
        out = asyncio.Event()

        async def all_out() -> None:
            out.set()

        async def script(link: Peer) -> None:
            await link.request()
            link.send(CHUNKED + chunk(CHAT.events[0]))
            while not out.is_set():
                await asyncio.sleep(0.05)
                link.send(chunk(NO_PROGRESS["comments"]) + chunk(NO_PROGRESS["empty data"]))
            link.send(b"".join(map(chunk, CHAT.events[1:] + CHAT.end)) + LAST)
            await link.to_end()

        async with Stage(script, RETRIES="2", TIMEOUT_HOLD=seconds) as stage:
            loop = asyncio.get_running_loop()
            together = Gate(COUNT, all_out)

            async def one(client: Peer) -> float:
                client.send(STREAMED)
                began = loop.time()
                await client.until(lambda: b"\r\n\r\n" in client.buffer, "a head")
                took = loop.time() - began
                await together.wait()
                heard = await client.answer()
                assert (heard.status, heard.is_whole) == (200, True)
                assert heard.body.startswith(CHAT.events[0])
                return took

            for took in await stage.rounds(one, COUNT):
                assert kept(took, float(seconds)), took
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {
                ("--", "upstream", "complete", True, 200, 1)
            }

    run(main())


@pytest.mark.slow
def test_pings_are_no_progress() -> None:
    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(CHUNKED + b"".join(map(chunk, ANTHROPIC.events)))
            while link.ended is None and not link.lost:
                await asyncio.sleep(0.05)
                link.send(chunk(b'event: ping\ndata: {"type": "ping"}\n\n'))

        async with Stage(script, TIMEOUT_STREAM="0.4") as stage:
            for heard, took in await stage.rounds(lambda client: timed(asked(client, ANTHROPIC.request)), COUNT):
                assert b"event: error\n" in heard.body
                assert kept(took, 0.4), took
            expected = ("UD", "upstream", "timeout", False, 200, 1)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


@pytest.mark.slow
def test_content_moves_the_gap() -> None:
    """A slow stream is a good stream."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(CHUNKED)
            for _ in range(5):
                link.send(chunk(CHAT.events[-1]))
                await asyncio.sleep(0.25)
            link.send(b"".join(map(chunk, CHAT.end)) + LAST)
            await link.to_end()

        async with Stage(script, TIMEOUT_STREAM="0.4", TIMEOUT_FIRST_EVENT="0.4", TIMEOUT_FIRST_BYTE="0.4") as stage:
            for heard in await stage.rounds(lambda client: asked(client, STREAMED), COUNT):
                assert heard.is_whole
            assert {r.letters for r in await stage.all_receipts(COUNT)} == {"--"}

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "in the stream"])
def test_total(begun: bool) -> None:
    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            if begun:
                link.send(CHUNKED)
            while begun and link.ended is None and not link.lost:
                link.send(chunk(CHAT.events[-1]))
                await asyncio.sleep(0.05)
            await link.to_end()

        async with Stage(script, TIMEOUT_TOTAL="0.5") as stage:
            for heard, took in await stage.rounds(lambda client: timed(asked(client, STREAMED)), COUNT):
                assert (heard.status, heard.is_whole) == ((200, False) if begun else (504, True))
                assert b"took longer than 0.5 s" in heard.body
                assert kept(took, 0.5), took
            expected = ("PT", "proxy", "timeout", False, 200 if begun else 504, 1)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


@pytest.mark.slow
def test_shutdown() -> None:
    async def main() -> None:
        async with Stage(silent, TIMEOUT_SHUTDOWN="0.4") as stage:
            loop = asyncio.get_running_loop()
            client = await stage.client()
            client.send(STREAMED)
            await stage.settle(lambda: bool(stage.upstream.links), "a link")
            began = loop.time()
            await stage.stop(stage.worker.settings.relay.seconds[Limit.SHUTDOWN])
            assert kept(loop.time() - began, 0.4)
            assert (await client.answer()).status == 503
            assert ending((await stage.all_receipts(1))[0]) == ("PF", "proxy", "shutdown", False, 503, 1)

    run(main())
