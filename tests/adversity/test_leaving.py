"""Clients that leave, in every phase and in every way, 200 at once: the upstream is closed at once, be it silent, be
the client's side paused; the receipt says when; nothing is left (Stage, at its end)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import NamedTuple

import pytest

from tests.adversity.peers import Gate, Peer, Script
from tests.adversity.speech import ASK, ASK_STREAM, CHAT, CHUNKED, chunk, post
from tests.adversity.stage import ROUNDS, Stage, ending, nobody, run

CHAT_PATH = b"/v1/chat/completions"
STREAMED = post(CHAT_PATH, ASK_STREAM)
PROMPT = 0.05  # seconds from a client's leaving to the end that the upstream sees (about 0.001 on a quiet machine)

Leave = Callable[[Peer], None]
LEAVES: dict[str, Leave] = {"fin": Peer.close, "rst": Peer.reset, "half-close": Peer.half_close}
by_leave = pytest.mark.parametrize("leave", LEAVES.values(), ids=LEAVES.keys())


class Case(NamedTuple):
    """`arrive` brings a client into the phase and returns when it is there; `letters` is what the receipt then says."""

    letters: str
    status: int
    script: Script
    arrive: Callable[[Peer, Stage], Awaitable[None]]
    is_paused: bool = False  # the sidecar does not read this client
    is_full: bool = False  # this client does not read

    def is_there(self, stage: Stage, count: int) -> bool:
        """Whether `count` clients are in the phase."""
        clients = stage.worker.relay.clients
        letters = [each.exchange.phase.letter if each.exchange else "H" for each in clients if each.parser.has_begun]
        return (
            letters.count(self.letters[1]) == count
            and sum(not each.is_reading for each in clients) == self.is_paused * count
            and sum(each.is_full for each in clients) == self.is_full * count
        )


async def silent(link: Peer) -> None:
    """Reads the request, says nothing."""
    await link.request()
    await link.to_end()


async def stuck(link: Peer) -> None:
    """Reads a little and no more; sees the end all the same, when the link is looked at."""
    await link.mark(b"\r\n\r\n")
    link.stop_reading()
    await asyncio.sleep(0.3)  # longer than everybody needs to get stuck; the end is in the kernel meanwhile
    link.read_on()
    link.keeps = False
    await link.to_end()


async def head_only(link: Peer) -> None:
    await link.request()
    link.send(CHUNKED)
    await link.to_end()


async def some_events(link: Peer) -> None:
    await link.request()
    link.send(CHUNKED + b"".join(map(chunk, CHAT.events)))
    await link.to_end()


async def flood(link: Peer) -> None:
    """Says more than anybody reads."""
    await link.request()
    await link.send_all(CHUNKED)
    while link.ended is None and not link.lost:
        await link.send_all(chunk(CHAT.events[-1] * 500))
        await asyncio.sleep(0)


async def in_the_head(client: Peer, stage: Stage) -> None:
    client.send(STREAMED[:60])


async def in_a_held_body(client: Peer, stage: Stage) -> None:
    client.send(STREAMED[:-10])


async def in_an_upload(client: Peer, stage: Stage) -> None:
    client.send(b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000)


async def in_a_stuck_upload(client: Peer, stage: Stage) -> None:
    """The sidecar has stopped reading this client."""
    client.send(b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000000\r\n\r\n" + b"x" * 9_000_000)
    relay = stage.worker.relay  # a pause alone may be one of a moment: until there is a link to the upstream
    await stage.settle(
        lambda: (
            len(relay.hangups._callbacks) >= len(stage.clients)
            and all(c.exchange is not None and c.exchange.phase.value == "send" for c in relay.clients)
        ),
        "a pause in phase SEND",
    )


async def in_the_queue(client: Peer, stage: Stage) -> None:
    client.send(STREAMED)


async def in_a_stuck_request(client: Peer, stage: Stage) -> None:
    body = ASK[:-1] + b',"x":"' + b"x" * 9_000_000 + b'"}'
    client.send(post(CHAT_PATH, body))
    await stage.settle(lambda: any(link.received for link in stage.upstream.links), "a request on its way")


async def before_the_answer(client: Peer, stage: Stage) -> None:
    client.send(STREAMED)


async def paused_before_the_answer(client: Peer, stage: Stage) -> None:
    """So many pipelined bytes that the sidecar reads this client no more."""
    client.send(STREAMED + b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 5000)


async def before_an_event(client: Peer, stage: Stage) -> None:
    client.send(STREAMED)
    await client.mark(b"\r\n\r\n")


async def in_the_stream(client: Peer, stage: Stage) -> None:
    client.send(STREAMED)
    await client.mark(CHAT.events[-1])


async def paused_in_the_stream(client: Peer, stage: Stage) -> None:
    await in_the_stream(client, stage)
    client.send(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 5000)


async def without_reading(client: Peer, stage: Stage) -> None:
    client.stop_reading()
    client.send(STREAMED)


CASES = {
    "head": Case("CH", 0, nobody, in_the_head),
    "held body": Case("CB", 0, nobody, in_a_held_body),
    "upload": Case("CB", 0, silent, in_an_upload),
    "first byte": Case("CF", 0, silent, before_the_answer),
    "first byte, paused": Case("CF", 0, silent, paused_before_the_answer, is_paused=True),
    "first event": Case("CE", 200, head_only, before_an_event),
    "stream": Case("CD", 200, some_events, in_the_stream),
    "stream, paused": Case("CD", 200, some_events, paused_in_the_stream, is_paused=True),
    "stream, not read": Case("CD", 200, flood, without_reading, is_full=True),
}
by_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@by_leave
@by_case
def test_everybody_leaves(case: Case, leave: Leave) -> None:
    async def main() -> None:
        count = ROUNDS if case.script is not flood else 50  # 200 of them hold half a gigabyte in the kernel
        async with Stage(case.script) as stage:
            together = Gate(count, lambda: stage.settle(lambda: case.is_there(stage, count), "all in the phase"))

            async def one(client: Peer) -> None:
                await case.arrive(client, stage)
                await together.wait()
                leave(client)
                if leave is Peer.half_close:
                    client.read_on() if case.script is flood else None
                    client.keeps = False
                    await client.to_end()

            await stage.rounds(one, count)
            expected = (case.letters, "client", "client_left", False, case.status, 0 if case.script is nobody else 1)
            assert {ending(r) for r in await stage.all_receipts(count)} == {expected}
            await stage.settle(lambda: stage.upstream.open == 0, lambda: f"{stage.upstream.open} links are open")
            assert stage.worker.relay.pool.open == 0

    run(main())


@by_leave
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.script is not nobody])
def test_the_upstream_is_closed_at_once(name: str, leave: Leave) -> None:
    """Even while it is silent, and even while the client is not read."""

    async def main() -> None:
        case = CASES[name]
        async with Stage(case.script) as stage:
            took = []
            for _ in range(5):
                client = await stage.client()
                await case.arrive(client, stage)
                await stage.settle(lambda: case.is_there(stage, 1), "the phase")
                (link,) = [each for each in stage.upstream.links if each.ended is None]
                at = asyncio.get_running_loop().time()
                leave(client)
                await link.until(lambda link=link: link.ended is not None, "the upstream's end")  # type: ignore[misc]
                took.append(link.ended_at - at)
                client.reset()
                await stage.settle(lambda: not stage.worker.relay.clients, "a client is left")
            assert sorted(took)[2] < PROMPT, took

    run(main())


@pytest.mark.slow
@by_leave
def test_leaving_a_stuck_request(leave: Leave) -> None:
    """The upstream takes no more bytes of a held body: phase SEND."""

    async def main() -> None:
        async with Stage(stuck) as stage:

            async def one(client: Peer) -> None:
                await in_a_stuck_request(client, stage)
                await stage.settle(
                    lambda: all(c.exchange and c.exchange.phase.value == "send" for c in stage.worker.relay.clients),
                    "phase SEND",
                )
                leave(client)

            await stage.rounds(one, 5)
            assert {ending(r)[:3] for r in await stage.all_receipts(5)} == {("CS", "client", "client_left")}

    run(main())


@by_leave
def test_leaving_a_stuck_upload(leave: Leave) -> None:
    """The sidecar has stopped reading this client, for the upstream takes no more."""

    async def main() -> None:
        async with Stage(stuck) as stage:
            for number in range(1, 4):
                client = await stage.client()
                await in_a_stuck_upload(client, stage)
                client.reset() if leave is Peer.close else leave(client)  # what is unsent would be flushed first
                if leave is not Peer.half_close:
                    await stage.all_receipts(number)
                    assert ending(stage.receipts[-1])[:3] == ("CS", "client", "client_left")
                else:
                    client.reset()
                    await stage.all_receipts(number)
                stage.clients.clear()

    run(main())


@by_leave
def test_leaving_the_queue(leave: Leave) -> None:
    async def main() -> None:
        async with Stage(silent, POOL_CONNECTIONS="1", TIMEOUT_QUEUE="9") as stage:
            first = await stage.client()
            await before_the_answer(first, stage)
            waiting = CASES["first byte"]._replace(letters="CQ")
            together = Gate(ROUNDS, lambda: stage.settle(lambda: waiting.is_there(stage, ROUNDS), "the queue"))

            async def one(client: Peer) -> None:
                await in_the_queue(client, stage)
                await together.wait()
                leave(client)

            await stage.rounds(one)
            expected = ("CQ", "client", "client_left", False, 0, 1)
            assert {ending(r) for r in await stage.all_receipts()} == {expected}
            assert len(stage.upstream.links) == 1
            assert stage.upstream.open == 1

    run(main())


@pytest.mark.slow
@by_leave
def test_leaving_while_connecting(leave: Leave) -> None:
    """A port whose queue of accepted connections is full: the kernel drops what comes. The attempt to connect is not
    called off (it would serve the next one), but it ends with its limit."""

    async def main() -> None:
        with closing(socket.socket()) as deaf, closing(socket.socket()) as a, closing(socket.socket()) as b:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for filler in (a, b):
                filler.setblocking(False)
                filler.connect_ex(deaf.getsockname())
            async with Stage(upstream_port=deaf.getsockname()[1], TIMEOUT_CONNECT="0.5") as stage:
                making = stage.worker.relay.pool
                together = Gate(ROUNDS, lambda: stage.settle(lambda: making.open == ROUNDS, "all are connecting"))

                async def one(client: Peer) -> None:
                    client.send(STREAMED)
                    await together.wait()
                    leave(client)

                await stage.rounds(one)
                expected = ("CC", "client", "client_left", False, 0, 1)
                assert {ending(r) for r in await stage.all_receipts()} == {expected}
                await stage.settle(lambda: stage.worker.relay.pool.open == 0, "a link in the making stays")

    run(main())


@by_leave
def test_leaving_between_requests(leave: Leave) -> None:
    """No exchange, no receipt."""

    async def main() -> None:
        async with Stage() as stage:
            clients = stage.worker.relay.clients
            together = Gate(ROUNDS, lambda: stage.settle(lambda: len(clients) == ROUNDS, "all clients"))

            async def one(client: Peer) -> None:
                await together.wait()
                leave(client)

            await stage.rounds(one)
            await stage.nothing_is_left()
            assert stage.receipts == []

    run(main())
