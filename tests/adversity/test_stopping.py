"""Endings that are ours or the client's fault (DESIGN 6, last rows): shutdown tells the truth; broken requests are
refused in their dialect, the answer gets through, and nothing reaches the upstream."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.adversity.peers import End, Gate, Peer
from tests.adversity.speech import ASK, ASK_STREAM, CHAT, CHUNKED, DOCUMENT, LAST, SPEECHES, Speech, chunk, length, post
from tests.adversity.stage import ROUNDS, Stage, ending, nobody, run

CHAT_PATH = b"/v1/chat/completions"
STREAMED = post(CHAT_PATH, ASK_STREAM)

# -- we stopped it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speech", SPEECHES, ids=[f"{each.name}-{each.framing}" for each in SPEECHES])
def test_shutdown_in_the_stream(speech: Speech) -> None:
    async def script(link: Peer) -> None:
        await link.request()
        link.send(CHUNKED + b"".join(map(chunk, speech.events)))
        await link.to_end()

    async def main() -> None:
        async with Stage(script) as stage:
            whole = b"".join(speech.events)
            stopped: list[asyncio.Task[None]] = []
            together = Gate(ROUNDS)

            async def one(client: Peer) -> None:
                client.send(speech.request)
                await client.until(lambda: speech.events[-1] in client.buffer)
                await together.wait()
                if not stopped:
                    stopped.append(asyncio.ensure_future(stage.stop(0.05)))
                heard = await client.answer()
                assert (heard.status, heard.is_whole, heard.end) == (200, False, End.FIN)
                sentences = speech.errors_in(heard.body[len(whole) :])
                assert sentences == ([] if speech.framing == "array" else ["llm-proxy: this proxy is shutting down"])

            await stage.rounds(one)
            await stopped[0]
            assert {ending(r)[1:] for r in await stage.all_receipts()} == {("proxy", "shutdown", False, 200, 1)}
            assert {r.letters for r in stage.receipts} <= {"PE", "PD"}
            await stage.settle(lambda: stage.upstream.open == 0, "a link stays")

    run(main())


def test_shutdown_before_the_answer() -> None:
    async def script(link: Peer) -> None:
        await link.request()
        await link.to_end()

    async def main() -> None:
        async with Stage(script) as stage:
            clients = [await stage.client() for _ in range(ROUNDS)]
            for client in clients:
                client.send(STREAMED)
            await stage.settle(lambda: len(stage.upstream.links) == ROUNDS, "all attempts")
            await stage.stop(0.05)
            for client in clients:
                heard = await client.answer()
                assert (heard.status, heard.is_whole) == (503, True)
                assert heard.get(b"connection") == b"close"
                assert heard.get(b"retry-after") is not None
            assert {ending(r) for r in await stage.all_receipts()} == {("PF", "proxy", "shutdown", False, 503, 1)}

    run(main())


def test_shutdown_lets_streams_end() -> None:
    """Within the grace nothing is cut; idle connections go at once; nobody new comes in."""

    async def main() -> None:
        go = asyncio.Event()

        async def script(link: Peer) -> None:
            await link.request()
            link.send(CHUNKED + b"".join(map(chunk, CHAT.events)))
            await go.wait()
            link.send(b"".join(map(chunk, CHAT.end)) + LAST)
            await link.to_end()

        async with Stage(script) as stage:
            idle = await stage.client()
            clients = [await stage.client() for _ in range(ROUNDS)]
            for client in clients:
                client.send(STREAMED)
            for client in clients:
                await client.until(lambda client=client: CHAT.events[-1] in client.buffer)  # type: ignore[misc]
            stop = asyncio.ensure_future(stage.stop(10))
            assert await idle.to_end() == b""
            assert not stop.done()
            with pytest.raises(ConnectionRefusedError):
                await stage.client()
            go.set()
            for client in clients:
                heard = await client.answer()
                assert (heard.body, heard.is_whole) == (CHAT.whole, True)
            await stop
            assert {r.letters for r in await stage.all_receipts()} == {"--"}
            await stage.settle(lambda: stage.upstream.open == 0, "a link stays")

    run(main())


# -- the client broke HTTP, or a limit --------------------------------------------------------------------------------

HOST = b"Host: 127.0.0.1\r\n"
CHAT_LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
EVIL = b"GET /v1/evil HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), 400, "bad_request"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version_unsupported"),
    "no host": (CHAT_LINE + b"Content-Length: 0\r\n\r\n", 400, "bad_request"),
    "two hosts": (CHAT_LINE + HOST + HOST + b"\r\n", 400, "bad_request"),
    "two lengths": (CHAT_LINE + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, "bad_request"),
    "length list": (CHAT_LINE + HOST + b"Content-Length: 5, 5\r\n\r\nhello", 400, "bad_request"),
    "negative length": (CHAT_LINE + HOST + b"Content-Length: -5\r\n\r\nhello", 400, "bad_request"),
    "both framings": (
        CHAT_LINE + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
        400,
        "bad_request",
    ),
    "gzip coding": (
        CHAT_LINE + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + EVIL,
        501,
        "coding_unsupported",
    ),
    "bad chunk": (CHAT_LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello" + EVIL, 400, "bad_request"),
    "chunk overrun": (CHAT_LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello" + EVIL, 400, "bad_request"),
    "bare LF": (b"POST /v1/chat/completions HTTP/1.1\nHost: 127.0.0.1\n\n" + EVIL, 400, "bad_request"),
    "folded": (CHAT_LINE + HOST + b"X: a\r\n b\r\n\r\n" + EVIL, 400, "bad_request"),
    "space before colon": (CHAT_LINE + HOST + b"Content-Length : 5\r\n\r\nhello" + EVIL, 400, "bad_request"),
    "expectation": (CHAT_LINE + HOST + b"Expect: cake\r\nContent-Length: 1\r\n\r\nx", 417, "expectation_failed"),
    "long line": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "line_too_long"),
    "large head": (CHAT_LINE + HOST + b"X: " + b"x" * 33000 + b"\r\n\r\n", 431, "head_too_large"),
    "many fields": (CHAT_LINE + HOST + b"X: 1\r\n" * 101 + b"\r\n", 431, "head_too_large"),
    "unknown method": (b"BREW /v1/chat/completions HTTP/1.1\r\n" + HOST + b"\r\n", 501, "method_unknown"),
}
KEPT: dict[str, tuple[bytes, int, str]] = {
    "wrong method": (b"PUT /v1/chat/completions HTTP/1.1\r\n" + HOST + b"\r\n", 405, "method_not_allowed"),
    "not JSON": (post(CHAT_PATH, b"{nonsense"), 400, "unreadable_body"),
    "deep": (
        post(CHAT_PATH, b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        400,
        "unreadable_body",
    ),
    "twice": (post(CHAT_PATH, b'{"model":"a","model":"b"}'), 400, "unreadable_body"),
    "gzip body": (post(CHAT_PATH, b"{}", b"Content-Encoding: gzip"), 400, "unreadable_body"),
    "dot segments": (b"GET /v1/../x HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_request"),
    "nowhere": (b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n", 404, "not_found"),
    "web page": (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Origin: http://evil.test\r\n\r\n", 403, "forbidden"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_broken_request(name: str) -> None:
    """One answer, then the end: what stands behind it is neither answered nor sent on."""

    async def main() -> None:
        request, status, kind = REFUSED[name]
        async with Stage(nobody) as stage:

            async def one(client: Peer) -> None:
                client.send(request)
                heard = await client.answer()
                assert (heard.status, heard.is_whole) == (status, True)
                assert heard.get(b"x-llm-proxy-error") == kind.encode()
                assert heard.get(b"connection") == b"close"
                assert json.loads(heard.body)
                assert await client.to_end() == b""
                assert client.ended is End.FIN

            await stage.rounds(one)
            expected = ("client", kind, False, status, 0)
            assert {ending(r)[1:] for r in await stage.all_receipts()} == {expected}
            assert {r.letters for r in stage.receipts} <= {"CH", "CB"}
            assert stage.upstream.links == []

    run(main())


@pytest.mark.parametrize("name", KEPT)
def test_refused_request(name: str) -> None:
    """It was read to its end, so the connection goes on."""

    async def main() -> None:
        request, status, kind = KEPT[name]
        async with Stage(nobody) as stage:

            async def one(client: Peer) -> None:
                for _ in range(2):
                    client.send(request)
                    heard = await client.answer()
                    assert (heard.status, heard.is_whole, heard.end) == (status, True, None)
                    assert heard.get(b"x-llm-proxy-error") == kind.encode()

            await stage.rounds(one, ROUNDS // 2)
            expected = ("client", kind, False, status, 0)
            assert {ending(r)[1:] for r in await stage.all_receipts()} == {expected}
            assert stage.upstream.links == []

    run(main())


@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
def test_the_answer_reaches_a_client_that_still_sends(declared: bool) -> None:
    """413 with a lingering close: an immediate one would destroy the answer by a reset."""

    async def main() -> None:
        async with Stage(nobody, MAX_BODY="100k") as stage:

            async def one(client: Peer) -> None:
                framing = b"Content-Length: 4000000\r\n\r\n" if declared else b"Transfer-Encoding: chunked\r\n\r\n"
                client.send(CHAT_LINE + HOST + framing)
                for _ in range(40):
                    await client.send_all(b"x" * 100_000 if declared else chunk(b"x" * 100_000))
                heard = await client.answer()
                assert (heard.status, heard.is_whole) == (413, True)
                assert await client.to_end() == b""
                assert client.ended is End.FIN

            await stage.rounds(one, 40)
            assert {ending(r) for r in await stage.all_receipts(40)} == {
                ("CB", "client", "body_too_large", False, 413, 0)
            }

    run(main())


def test_an_upload_that_breaks_in_the_middle() -> None:
    """It streamed through already: the link is closed without the end of the message, so no provider takes it for
    whole."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.mark(b"\r\n\r\n")
            assert LAST not in await link.to_end()

        async with Stage(script) as stage:

            async def one(client: Peer) -> None:
                client.send(
                    b"POST /v1/files HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"x" * 99)
                )
                await stage.settle(lambda: stage.worker.relay.pool.open > 0, "a link")
                client.send(b"zz\r\n" + EVIL)
                heard = await client.answer()
                assert (heard.status, heard.is_whole) == (400, True)
                assert await client.to_end() == b""

            await stage.rounds(one)
            assert {ending(r)[1:5] for r in await stage.all_receipts()} == {("client", "bad_request", False, 400)}

    run(main())


@pytest.mark.parametrize("early", [True, False], ids=["at once", "after the first answer"])
def test_a_broken_request_behind_a_good_one(early: bool) -> None:
    """The good one is answered; pipelined bytes that are broken are refused in their turn."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            while link.ended is None:
                await link.request()
                link.send(length(len(DOCUMENT)) + DOCUMENT)
                await link.until(lambda: bool(link.buffer) or link.ended is not None)

        async with Stage(script) as stage:
            broken = CHAT_LINE + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL

            async def one(client: Peer) -> None:
                client.send(post(CHAT_PATH, ASK) + (broken if early else b""))
                first = await client.answer()
                assert (first.status, first.body) == (200, DOCUMENT)
                if not early:
                    client.send(broken)
                second = await client.answer()
                assert second.status == 400
                assert await client.to_end() == b""

            await stage.rounds(one)
            assert sorted({r.letters for r in await stage.all_receipts(2 * ROUNDS)}) == ["--", "CH"]

    run(main())


# -- HTTP/1.0 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True], ids=["complete", "cut"])
def test_an_old_client_can_tell_a_cut_stream(cut: bool) -> None:
    """Its answer ends by closing: FIN says complete, so a cut must be a reset."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(CHUNKED + b"".join(map(chunk, CHAT.events)))
            await together.wait()
            if cut:
                link.reset()
            else:
                link.send(b"".join(map(chunk, CHAT.end)) + LAST)
                await link.to_end()

        async with Stage(script) as stage:
            together = Gate(2 * ROUNDS)
            request = STREAMED.replace(b"HTTP/1.1", b"HTTP/1.0")

            async def one(client: Peer) -> None:
                client.send(request)
                await client.mark(CHAT.events[-1])
                await together.wait()
                rest = await client.to_end()
                assert client.ended is (End.RESET if cut else End.FIN)
                assert cut or rest == b"".join(CHAT.end)

            await stage.rounds(one)
            assert {r.letters for r in await stage.all_receipts()} == {"UD" if cut else "--"}

    run(main())
