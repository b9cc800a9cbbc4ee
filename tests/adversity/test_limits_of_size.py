"""Every limit of size and number (DESIGN 5), reached for real through its variable, and just not reached: what the
client sees, what the receipt says, and that nothing reaches the provider that must not."""

from __future__ import annotations

import asyncio

import pytest

from tests.adversity.limits import COUNT, SWEEP, answering, asked, kept, silent
from tests.adversity.peers import Gate, Heard, Peer
from tests.adversity.speech import ASK, ASK_STREAM, CHAT, CHUNKED, DOCUMENT, LAST, chunk, head, length, post
from tests.adversity.stage import Stage, ending, nobody, run

CHAT_PATH = b"/v1/chat/completions"
UNARY = post(CHAT_PATH, ASK)
STREAMED = post(CHAT_PATH, ASK_STREAM)

# -- sizes ------------------------------------------------------------------------------------------------------------

HOST = b"Host: 127.0.0.1\r\n"


def refused_by(request: bytes, status: int, kind: str, letters: str, **settings: str) -> None:
    """The request is refused, the provider never sees it."""

    async def main() -> None:
        async with Stage(nobody, **settings) as stage:
            for heard in await stage.rounds(lambda client: asked(client, request), COUNT):
                assert (heard.status, heard.is_whole) == (status, True)
                assert heard.get(b"x-llm-proxy-error") == kind.encode()
            side = "client" if letters[0] == "C" else "proxy"
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {(letters, side, kind, False, status, 0)}

    run(main())


def allowed_by(request: bytes, **settings: str) -> None:
    async def main() -> None:
        async with Stage(answering, **settings) as stage:
            for heard in await stage.rounds(lambda client: asked(client, request), 3):
                assert heard.status == 200

    run(main())


def get(line: int, fields: bytes = b"") -> bytes:
    """With a request line of `line` bytes."""
    return b"GET /v1/models/" + b"x" * (line - 24) + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n"


def test_request_line() -> None:
    refused_by(get(101), 414, "line_too_long", "CH", MAX_REQUEST_LINE="100")
    allowed_by(get(100), MAX_REQUEST_LINE="100")


def test_head_size() -> None:
    room = 1024 - len(get(50, b"X: \r\n"))
    refused_by(
        get(50, b"X: " + b"x" * (room + 1) + b"\r\n"),
        431,
        "head_too_large",
        "CH",
        MAX_HEAD="1k",
        MAX_REQUEST_LINE="512",
    )
    allowed_by(get(50, b"X: " + b"x" * room + b"\r\n"), MAX_HEAD="1k", MAX_REQUEST_LINE="512")


def test_fields() -> None:
    refused_by(get(50, b"X: 1\r\n" * 5), 431, "head_too_large", "CH", MAX_FIELDS="5")
    allowed_by(get(50, b"X: 1\r\n" * 4), MAX_FIELDS="5")


def test_body_size() -> None:
    body = ASK + b" " * 1000
    size = str(len(body))
    chunked = (
        b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + LAST
    )
    refused_by(post(CHAT_PATH, body + b" "), 413, "body_too_large", "CB", MAX_BODY=size)
    refused_by(chunked, 413, "body_too_large", "CB", MAX_BODY=size)  # framing counts
    allowed_by(post(CHAT_PATH, body), MAX_BODY=size)


def test_upload_size() -> None:
    refused_by(post(b"/v1/files", b"x" * 1001), 413, "body_too_large", "CB", MAX_UPLOAD="1000")
    allowed_by(post(b"/v1/files", b"x" * 1000), MAX_UPLOAD="1000", MAX_BODY="10")
    allowed_by(post(b"/v1/files", b"x" * 1000), MAX_UPLOAD="0", MAX_BODY="10")


def test_upload_size_without_length() -> None:
    """It is on its way when it becomes too large: the provider must not take it for whole."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.mark(b"\r\n\r\n")
            assert b"0\r\n\r\n" not in await link.to_end()

        async with Stage(script, MAX_UPLOAD="1000") as stage:

            async def one(client: Peer) -> Heard:
                client.send(
                    b"POST /v1/files HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"x" * 900)
                )
                await asyncio.sleep(0.05)
                client.send(chunk(b"x" * 200) + LAST)
                return await client.answer()

            for heard in await stage.rounds(one, COUNT):
                assert heard.status == 413
            assert {ending(r)[:5] for r in await stage.all_receipts(COUNT)} == {
                ("CB", "client", "body_too_large", False, 413)
            }

    run(main())


def test_bodies_together() -> None:
    """Held ones count until they are given back."""

    async def main() -> None:
        async with Stage(silent, MAX_BODIES="100k", MAX_BODY="50k") as stage:
            body = ASK[:-1] + b',"x":"' + b"x" * 40_000 + b'"}'
            held = [await stage.client() for _ in range(2)]
            for client in held:
                client.send(post(CHAT_PATH, body))
            await stage.settle(lambda: stage.worker.relay.bodies == 2 * len(body), "two bodies")
            for heard in await stage.rounds(lambda client: asked(client, post(CHAT_PATH, body)), COUNT):
                assert (heard.status, heard.is_whole) == (503, True)
            expected = ("PB", "proxy", "overloaded", False, 503, 0)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}
            for client in held:
                client.reset()
            await stage.settle(lambda: stage.worker.relay.bodies == 0, "bodies stay on the account")
            client = await stage.client()
            client.send(post(CHAT_PATH, body))
            await stage.settle(lambda: stage.worker.relay.bodies == len(body), "a body that fits again")

    run(main())


async def pausing(link: Peer) -> None:
    """A stream that stops in the middle."""
    await link.request()
    link.send(CHUNKED + b"".join(map(chunk, CHAT.events)))
    await link.to_end()


def test_drains() -> None:
    """So many answers are read on when their clients have left; of the rest the link is closed at once."""

    async def main() -> None:
        async with Stage(pausing, DISCONNECT="drain:0.5", MAX_DRAINS="3") as stage:
            clients = [await stage.client() for _ in range(COUNT)]
            for client in clients:
                client.send(post(b"/v1/chat/completions", ASK_STREAM))
                await client.mark(CHAT.events[-1])
            for client in clients:
                client.close()
            await stage.settle(lambda: stage.upstream.open == 3, lambda: f"{stage.upstream.open} links are open")
            assert len(stage.worker.relay.drains) == 3
            receipts = await stage.all_receipts(COUNT)
            assert {r.ended_kind for r in receipts} == {"client_left"}
            failures = [r.attempts[0].failure for r in receipts]
            assert sorted(f.kind.value for f in failures if f) == ["client_left"] * (COUNT - 3) + ["timeout"] * 3

    run(main())


def test_bytes_of_a_drain() -> None:
    async def main() -> None:
        async def endless(link: Peer) -> None:
            await link.request()
            await link.send_all(CHUNKED)
            while link.ended is None and not link.lost:
                await link.send_all(chunk(CHAT.events[-1]))
                await asyncio.sleep(0)

        async with Stage(endless, DISCONNECT="drain", MAX_DRAIN="100k") as stage:
            client = await stage.client()
            client.send(post(b"/v1/chat/completions", ASK_STREAM))
            await client.mark(CHAT.events[-1])
            client.close()
            (receipt,) = await stage.all_receipts(1)
            assert receipt.ended_kind == "client_left"
            assert receipt.usage is not None and receipt.usage.output is not None
            assert receipt.usage.output * 270 > 90_000, "what was read on was looked at"

    run(main())


def test_kept_for_counting() -> None:
    """What may be kept of all exchanges is bounded; whoever finds no room is estimated, and goes on."""

    async def main() -> None:
        async with Stage(pausing, MAX_KEPT="20k") as stage:
            clients = [await stage.client() for _ in range(COUNT)]
            for client in clients:
                client.send(post(b"/v1/chat/completions", ASK_STREAM))
                await client.mark(CHAT.events[-1])
            assert 8 * 1024 < stage.worker.relay.kept <= 20 * 1024
            for client in clients:
                client.close()
            assert {r.ended_kind for r in await stage.all_receipts(COUNT)} == {"client_left"}
            assert stage.worker.relay.kept == 0

    run(main())


def test_event_size() -> None:
    """A larger one passes, unread; the stream is complete all the same."""

    async def main() -> None:
        large = CHAT.events[-1].replace(b"lo", b"x" * 200_000)
        pieces = [CHUNKED, chunk(large[:90_000]), chunk(large[90_000:]), *map(chunk, CHAT.end), LAST]

        async def script(link: Peer) -> None:
            await link.request()
            for piece in pieces:
                await link.send_all(piece)
                await asyncio.sleep(0.01)
            await link.to_end()

        async with Stage(script, MAX_EVENT="64k", MAX_BUFFER="1k") as stage:
            for heard in await stage.rounds(lambda client: asked(client, STREAMED), COUNT):
                assert (heard.body, heard.is_whole) == (large + b"".join(CHAT.end), True)
            assert {r.letters for r in await stage.all_receipts(COUNT)} == {"--"}

    run(main())


@pytest.mark.parametrize("size", [900, 5000], ids=["held back", "beyond the buffer"])
def test_buffer_of_an_unfinished_event(size: int) -> None:
    """What waits for the end of its event. Beyond MAX_BUFFER= it flows, and then no error event can follow."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(CHUNKED + chunk(CHAT.events[0]))
            link.send(chunk(b"data: " + b"x" * size))
            await together.wait()
            link.reset()

        async with Stage(script, MAX_BUFFER="1k") as stage:
            together = Gate(COUNT)
            for heard in await stage.rounds(lambda client: asked(client, STREAMED), COUNT):
                tail = heard.body[len(CHAT.events[0]) :]
                if size > 1024:
                    assert tail in (b"data: " + b"x" * size, b"")
                else:
                    assert len(CHAT.errors_in(tail)) == 1
                assert not heard.is_whole

    run(main())


def test_upstream_head_size() -> None:
    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(head(b"X: " + b"x" * 2000, b"Content-Length: 0"))
            await link.to_end()

        async with Stage(script, MAX_UPSTREAM_HEAD="1k") as stage:
            for heard in await stage.rounds(lambda client: asked(client, UNARY), COUNT):
                assert (heard.status, heard.is_whole, heard.end) == (502, True, None)
            expected = ("UF", "upstream", "protocol", False, 502, 1)
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {expected}

    run(main())


def test_connections() -> None:
    """Beyond the limit each is told; beyond twice the limit none is, since saying no takes a descriptor too."""

    async def main() -> None:
        async with Stage(nobody, MAX_CONNECTIONS="5") as stage:
            held = [await stage.client() for _ in range(5)]
            await stage.settle(lambda: len(stage.worker.relay.clients) == 5, "five clients")
            for _ in range(COUNT):
                client = await stage.client()
                heard = await client.answer()
                assert (heard.status, heard.is_whole) == (503, True)
                client.close()
                await stage.settle(lambda: len(stage.worker.relay.clients) == 5, "the client stays")
            assert {ending(r) for r in await stage.all_receipts(COUNT)} == {
                ("PI", "proxy", "overloaded", False, 503, 0)
            }
            lingering = [await stage.client() for _ in range(5)]
            last = await stage.client()
            assert await last.to_end() == b""
            for client in lingering:
                assert (await client.answer()).status == 503
            held[0].close()
            for client in lingering:
                client.close()
            await stage.settle(lambda: len(stage.worker.relay.clients) == 4, "room again")
            client = await stage.client()
            client.send(b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n")
            assert (await client.answer()).status == 404

    run(main())


def test_streams_per_key() -> None:
    async def main() -> None:
        async def script(link: Peer) -> None:
            while link.ended is None:
                _, body = await link.request()
                if b"stream" not in body:
                    link.send(length(len(DOCUMENT)) + DOCUMENT)
                await link.until(lambda: bool(link.buffer) or link.ended is not None)

        keys = "one=key-of-the-first-1,two=key-of-the-second"
        async with Stage(script, MAX_STREAMS_PER_KEY="2", KEYS=keys) as stage:
            one = b"Authorization: Bearer key-of-the-first-1"
            two = b"Authorization: Bearer key-of-the-second"
            streams = [await stage.client() for _ in range(2)]
            for client in streams:
                client.send(post(CHAT_PATH, ASK_STREAM, one))
            await stage.settle(lambda: len(stage.upstream.links) == 2, "two streams")
            for heard in await stage.rounds(lambda client: asked(client, post(CHAT_PATH, ASK_STREAM, one)), COUNT):
                assert (heard.status, heard.is_whole, heard.end) == (429, True, None)
                assert heard.get(b"retry-after") is not None
            assert {r.ended_kind for r in await stage.all_receipts(COUNT)} == {"too_many_requests"}
            for heard in await stage.rounds(lambda client: asked(client, post(CHAT_PATH, ASK, one)), COUNT):
                assert heard.status == 200  # what is not streamed does not count
            other = await stage.client()
            other.send(post(CHAT_PATH, ASK_STREAM, two))
            await stage.settle(lambda: stage.worker.relay.admission._streams == {"one": 2, "two": 1}, "another key")
            streams[0].reset()
            await stage.settle(
                lambda: stage.worker.relay.admission._streams == {"one": 1, "two": 1}, "it is given back"
            )

    run(main())


# -- the pool's numbers -----------------------------------------------------------------------------------------------


def test_pool_connections() -> None:
    """Never more links than that; who waits gets its turn, in order."""

    async def main() -> None:
        async with Stage(answering, POOL_CONNECTIONS="3", TIMEOUT_QUEUE="9") as stage:
            for heard in await stage.rounds(lambda client: asked(client, UNARY), 200):
                assert (heard.status, heard.body) == (200, DOCUMENT)
            assert len(stage.upstream.links) == 3
            assert stage.worker.relay.pool.open == 3

    run(main())


def test_pool_queue() -> None:
    """POOL_QUEUE=4: four wait, the fifth is refused at once."""

    async def main() -> None:
        async with Stage(silent, POOL_CONNECTIONS="1", POOL_QUEUE="4", TIMEOUT_QUEUE="0.5") as stage:
            clients = [await stage.client() for _ in range(10)]
            for client in clients:
                client.send(STREAMED)
                await stage.settle(lambda: bool(stage.upstream.links), "a link")
            kinds = []
            for client in clients[1:]:
                heard = await client.answer()
                assert heard.status == 503
                kinds.append(heard.get(b"x-llm-proxy-error"))
            assert sorted(kinds) == [b"overloaded"] * 5 + [b"timeout"] * 4

    run(main())


def test_pool_idle() -> None:
    """POOL_IDLE=3 are kept, the others closed."""

    async def main() -> None:
        together: Gate

        async def script(link: Peer) -> None:
            await link.request()
            await together.wait()
            link.send(length(len(DOCUMENT)) + DOCUMENT)
            await link.to_end()

        async with Stage(script, POOL_IDLE="3") as stage:
            together = Gate(COUNT)
            await stage.rounds(lambda client: asked(client, UNARY), COUNT)
            await stage.settle(lambda: stage.upstream.open == 3, lambda: f"{stage.upstream.open} are open")
            assert stage.worker.relay.pool.idle == 3

    run(main())


@pytest.mark.parametrize("settings", [{"POOL_IDLE_SECONDS": "0.4"}, {"POOL_AGE_SECONDS": "0.4"}])
def test_pool_seconds(settings: dict[str, str]) -> None:
    """POOL_IDLE_SECONDS= since the last use, POOL_AGE_SECONDS= since it was made; both for a link at rest."""

    async def main() -> None:
        async with Stage(answering, **settings) as stage:
            loop = asyncio.get_running_loop()
            client = await stage.client()
            assert (await asked(client, UNARY)).status == 200
            began = loop.time()
            (link,) = stage.upstream.links
            await link.until(lambda: link.ended is not None, "its end")
            assert kept(loop.time() - began, 0.4)
            assert (await asked(client, UNARY)).status == 200
            assert len(stage.upstream.links) == 2

    run(main())


def test_pool_age_of_a_busy_link() -> None:
    """Uses do not make it younger."""

    async def main() -> None:
        async with Stage(answering, POOL_AGE_SECONDS="0.4") as stage:
            loop = asyncio.get_running_loop()
            client = await stage.client()
            began = loop.time()
            while len(stage.upstream.links) < 2:
                assert (await asked(client, UNARY)).status == 200
                await asyncio.sleep(0.02)
                assert loop.time() - began < 0.4 + SWEEP
            assert loop.time() - began >= 0.39

    run(main())
