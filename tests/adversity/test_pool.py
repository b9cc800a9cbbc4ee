"""Links to providers: how many there are, and what happens when the provider closes one at the worst moment. Never a
second POST behind bytes of an answer, never a lost answer: one silent retry on a link that was dead already, or an
honest 502."""

from __future__ import annotations

import asyncio

import pytest

from tests.adversity.peers import Gate, Heard, Peer
from tests.adversity.speech import ASK, ASK_STREAM, CHAT, CHUNKED, DOCUMENT, LAST, chunk, head, length, post
from tests.adversity.stage import Stage, ending, run

CHAT_PATH = b"/v1/chat/completions"
UNARY = post(CHAT_PATH, ASK)
STREAMED = post(CHAT_PATH, ASK_STREAM)
WHOLE = length(len(DOCUMENT)) + DOCUMENT
COUNT = 50


async def asked(client: Peer, request: bytes) -> Heard:
    client.send(request)
    return await client.answer()


async def answering(link: Peer) -> None:
    while link.ended is None:
        await link.request()
        link.send(WHOLE)
        await link.until(lambda: bool(link.buffer) or link.ended is not None)


# -- how many ---------------------------------------------------------------------------------------------------------


def test_one_client_needs_one_link() -> None:
    async def main() -> None:
        async with Stage(answering) as stage:
            client = await stage.client()
            for _ in range(1000):
                assert (await asked(client, UNARY)).body == DOCUMENT
            assert len(stage.upstream.links) == 1
            assert stage.worker.relay.pool.opened == 1
            receipts = await stage.all_receipts(1000)
            assert [r.attempts[0].reused for r in receipts] == [False] + [True] * 999

    run(main())


def test_as_many_links_as_exchanges_at_once() -> None:
    """1,000 requests by 20 clients: 20 links at most, the last one used first."""

    async def main() -> None:
        async with Stage(answering) as stage:

            async def one(client: Peer) -> None:
                for _ in range(50):
                    assert (await asked(client, UNARY)).body == DOCUMENT

            await stage.rounds(one, 20)
            assert len(await stage.all_receipts(1000)) == 1000
            assert len(stage.upstream.links) <= 20
            assert stage.worker.relay.pool.opened == len(stage.upstream.links)
            await stage.nothing_is_left()
            before = [link.received for link in stage.upstream.links]
            client = await stage.client()
            for _ in range(10):
                await asked(client, UNARY)
            grown = [link.received > was for link, was in zip(stage.upstream.links, before, strict=True)]
            assert sum(grown) == 1

    run(main())


def test_streams_and_pipelined_requests_share_links() -> None:
    async def main() -> None:
        async def script(link: Peer) -> None:
            while link.ended is None:
                _, body = await link.request()
                if b"stream" in body:
                    link.send(CHUNKED + b"".join(map(chunk, (*CHAT.events, *CHAT.end))) + LAST)
                else:
                    link.send(WHOLE)
                await link.until(lambda: bool(link.buffer) or link.ended is not None)

        async with Stage(script) as stage:
            client = await stage.client()
            client.send((UNARY + STREAMED) * 100)
            for _ in range(100):
                assert (await client.answer()).body == DOCUMENT
                assert (await client.answer()).body == CHAT.whole
            assert len(stage.upstream.links) == 1

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        head(b"Connection: close", b"Content-Length: %d" % len(DOCUMENT)) + DOCUMENT,
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        head() + DOCUMENT,
    ],
    ids=["close", "HTTP/1.0", "until close"],
)
def test_a_link_that_ends_is_not_kept(answer: bytes) -> None:
    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(answer)
            if b"ength" in answer:
                await link.to_end()

        async with Stage(script) as stage:
            client = await stage.client()
            for _ in range(COUNT):
                assert (await asked(client, UNARY)).body == DOCUMENT
            assert len(stage.upstream.links) == COUNT
            assert stage.worker.relay.pool.open == 0
            assert {r.letters for r in await stage.all_receipts(COUNT)} == {"--"}

    run(main())


# -- closed by the provider -------------------------------------------------------------------------------------------

ENDS = {"fin": Peer.close, "rst": Peer.reset}
by_end = pytest.mark.parametrize("ends", ENDS)


@by_end
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "in the same turn"])
def test_closed_while_idle(ends: str, seen: bool) -> None:
    """Right behind an answer. Where the end is seen in time the link is not used; else the request is retried."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(WHOLE)
            await link.until(lambda: link.received > 0)
            if not seen:
                ENDS[ends](link)
                return
            await asyncio.sleep(0.02)  # else a reset overtakes the answer
            ENDS[ends](link)

        async with Stage(script) as stage:

            async def one(client: Peer) -> None:
                for _ in range(4):
                    heard = await asked(client, UNARY)
                    assert heard.status in (200, 502)
                    if ends == "fin" or seen:
                        assert (heard.status, heard.body) == (200, DOCUMENT)
                    if seen:
                        await asyncio.sleep(0.06)

            await stage.rounds(one, COUNT)
            receipts = await stage.all_receipts(4 * COUNT)
            assert all(len(receipt.attempts) <= 2 for receipt in receipts)
            await stage.settle(lambda: stage.worker.relay.pool.open == 0, "a dead link is kept")

    run(main())


@by_end
def test_closed_on_the_next_request(ends: str) -> None:
    """The race that cannot be seen: the provider closed as the request was on its way. One retry, on a fresh link."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(WHOLE)
            await link.until(lambda: bool(link.buffer))
            ENDS[ends](link)

        async with Stage(script) as stage:

            async def one(client: Peer) -> None:
                await asked(client, UNARY)
                await together.wait()
                heard = await asked(client, UNARY)
                assert (heard.status, heard.body) == (200, DOCUMENT)

            together = Gate(COUNT)
            await stage.rounds(one, COUNT)
            receipts = await stage.all_receipts(2 * COUNT)
            assert all(receipt.complete for receipt in receipts)
            retried = [receipt for receipt in receipts if len(receipt.attempts) == 2]
            assert retried
            for receipt in retried:
                stale, fresh = receipt.attempts
                assert (stale.reused, stale.status, stale.failure is None) == (True, 0, False)
                assert (fresh.reused, fresh.status, fresh.failure) == (False, 200, None)
            assert all(len(receipt.attempts) <= 2 for receipt in receipts)

    run(main())


@by_end
@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 200 OK\r\n", CHUNKED, CHUNKED + chunk(CHAT.events[0])])
def test_closed_behind_bytes_of_an_answer(ends: str, said: bytes) -> None:
    """The provider has begun to work: a second POST could be paid twice."""

    async def main() -> None:
        requests = 0

        async def script(link: Peer) -> None:
            nonlocal requests
            await link.request()
            requests += 1
            link.send(CHUNKED + b"".join(map(chunk, (*CHAT.events, *CHAT.end))) + LAST)
            await link.request()
            requests += 1
            link.send(said)
            await asyncio.sleep(0.02)  # else a reset overtakes it
            ENDS[ends](link)

        async with Stage(script) as stage:
            for _ in range(5):
                client = await stage.client()
                assert (await asked(client, STREAMED)).is_whole
                heard = await asked(client, STREAMED)
                if said.startswith(CHUNKED):
                    assert (heard.status, heard.is_whole) == (200, False)
                else:
                    assert (heard.status, heard.is_whole) == (502, True)
            assert requests == 10
            assert {len(receipt.attempts) for receipt in await stage.all_receipts(10)} == {1}

    run(main())


@by_end
def test_a_fresh_link_is_never_tried_twice(ends: str) -> None:
    async def main() -> None:
        requests = 0

        async def script(link: Peer) -> None:
            nonlocal requests
            await link.request()
            requests += 1
            ENDS[ends](link)

        async with Stage(script) as stage:
            for heard in await stage.rounds(lambda client: asked(client, UNARY), COUNT):
                assert (heard.status, heard.is_whole) == (502, True)
            assert requests == COUNT
            assert {ending(r)[0] for r in await stage.all_receipts(COUNT)} == {"UF"}

    run(main())


@by_end
def test_the_retry_fails_too(ends: str) -> None:
    """Then it is told: no third try."""

    async def main() -> None:
        requests = 0

        async def script(link: Peer) -> None:
            nonlocal requests
            await link.request()
            requests += 1
            if requests > 1:
                ENDS[ends](link)
                return
            link.send(WHOLE)
            await link.until(lambda: bool(link.buffer))
            requests += 1
            ENDS[ends](link)

        async with Stage(script) as stage:
            client = await stage.client()
            assert (await asked(client, UNARY)).status == 200
            heard = await asked(client, UNARY)
            assert (heard.status, heard.is_whole) == (502, True)
            assert requests == 3
            receipts = await stage.all_receipts(2)
            assert [len(receipt.attempts) for receipt in receipts] == [1, 2]
            assert ending(receipts[1])[:5] == ("UF", "upstream", "reset", False, 502)

    run(main())


@by_end
def test_an_upload_is_not_sent_twice(ends: str) -> None:
    """Its bytes are not kept, so there is nothing to send again: an honest 502."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            link.send(WHOLE)
            await link.mark(b"\r\n\r\n")
            await link.until(lambda: len(link.buffer) >= 500)
            ENDS[ends](link)

        async with Stage(script) as stage:
            client = await stage.client()
            assert (await asked(client, UNARY)).status == 200
            client.send(post(b"/v1/files", b"x" * 1000)[:-500])
            heard = await client.answer()
            assert (heard.status, heard.is_whole) == (502, True)
            assert len(stage.upstream.links) == 1
            assert [len(receipt.attempts) for receipt in await stage.all_receipts(2)] == [1, 1]

    run(main())


def test_an_early_answer_to_an_upload_is_not_lost() -> None:
    """413 while the client still sends, then the provider's end: the client reads it to its end, though it never had
    the chance to finish."""

    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.mark(b"\r\n\r\n")
            link.stop_reading()
            link.send(length(len(DOCUMENT), b"413 Content Too Large") + DOCUMENT)
            await asyncio.sleep(0.2)  # so that no upload can be complete by then
            link.keeps = False
            link.read_on()
            await link.to_end()

        async with Stage(script) as stage:

            async def one(client: Peer) -> None:
                client.send(b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 12000000\r\n\r\n")
                for _ in range(120):
                    await client.send_all(b"x" * 100_000)
                heard = await client.answer()
                assert (heard.status, heard.body, heard.is_whole) == (413, DOCUMENT, True)

            await stage.rounds(one, 5)
            assert {ending(r)[:3] for r in await stage.all_receipts(5)} == {("U-", "upstream", "error_status")}

    run(main())


def test_an_early_answer_to_a_held_body_is_relayed() -> None:
    """The provider streams while it still takes the request: its limits count from here, not from the beginning of
    time."""

    async def main() -> None:
        go = asyncio.Event()

        async def script(link: Peer) -> None:
            await link.mark(b"\r\n\r\n")
            link.stop_reading()
            link.send(CHUNKED + chunk(b": early\n\n"))
            await go.wait()
            link.keeps = False
            link.read_on()
            link.send(b"".join(map(chunk, (*CHAT.events, *CHAT.end))) + LAST)
            await link.to_end()

        async with Stage(script, TIMEOUT_FIRST_EVENT="5") as stage:
            client = await stage.client()
            client.send(post(CHAT_PATH, ASK_STREAM[:-1] + b',"x":"' + b"x" * 12_000_000 + b'"}'))
            await client.mark(b": early\n\n")
            await asyncio.sleep(0.6)  # two looks of the sweeper
            go.set()
            await client.mark(CHAT.end[-1])
            assert ending((await stage.all_receipts(1))[0])[0] == "--"

    run(main())


def test_a_link_is_handed_on_to_who_waits() -> None:
    """With one link allowed, a cut one makes room for a new one: nobody waits for ever."""

    async def main() -> None:
        served = 0

        async def script(link: Peer) -> None:
            nonlocal served
            while link.ended is None:
                await link.request()
                served += 1
                if served % 3 == 0:
                    link.reset()
                    return
                link.send(WHOLE)
                await link.until(lambda: bool(link.buffer) or link.ended is not None)

        async with Stage(script, POOL_CONNECTIONS="1", TIMEOUT_QUEUE="10") as stage:
            heard = await stage.rounds(lambda client: asked(client, UNARY), 100)
            assert {each.status for each in heard} <= {200, 502}
            assert sum(each.status == 200 for each in heard) >= 50
            assert len(await stage.all_receipts(100)) == 100

    run(main())


def test_who_waits_survives_a_provider_that_goes_away() -> None:
    async def main() -> None:
        async def script(link: Peer) -> None:
            await link.request()
            await together.wait()
            link.reset()

        async with Stage(script, POOL_CONNECTIONS="2", TIMEOUT_QUEUE="10") as stage:
            waiting = stage.worker.relay.pool._links

            async def ready() -> None:
                def queued() -> bool:
                    return sum(len(links.waiting) for links in waiting.values()) == 18

                await stage.settle(queued, "a queue")
                stage.refuse()

            together = Gate(2, ready)
            for heard in await stage.rounds(lambda client: asked(client, UNARY), 20):
                assert (heard.status, heard.is_whole) == (502, True)
            kinds = sorted(r.ended_kind for r in await stage.all_receipts(20))
            assert kinds == ["connect_failed"] * 18 + ["reset"] * 2

    run(main())
