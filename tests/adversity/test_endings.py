"""The table of endings (DESIGN 6) on real sockets, 200 rounds at once: what the client sees, what the receipt says,
what the upstream notices, and (Stage, at its end) that nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.adversity.peers import End, Gate, Heard, Peer, Script
from tests.adversity.speech import (
    ASK,
    ASK_STREAM,
    CHAT,
    CHUNKED,
    DOCUMENT,
    LAST,
    SPEECHES,
    UNTIL_CLOSE,
    Speech,
    chunk,
    head,
    length,
    post,
)
from tests.adversity.stage import ROUNDS, Stage, ending, run

CHAT_PATH = b"/v1/chat/completions"
UNARY = post(CHAT_PATH, ASK)
STREAMED = post(CHAT_PATH, ASK_STREAM)
CUT = "the upstream closed the connection in the middle of its answer"
NEVER_ANSWERED = "the upstream closed the connection without an answer"

Break = Callable[[Peer], None]
BREAKS = {"fin": Peer.close, "rst": Peer.reset}
by_break = pytest.mark.parametrize("breaks", BREAKS.values(), ids=BREAKS.keys())
speech_id = [f"{speech.name}-{speech.framing}" for speech in SPEECHES]
by_speech = pytest.mark.parametrize("speech", SPEECHES, ids=speech_id)


def says(*answers: bytes, then: Break | None = None, gate: Gate | None = None) -> Script:
    """A provider that says `answers` in single writes to each request, and then, all rounds at once, does `then`.
    Without it, it waits for the sidecar to close."""

    async def script(link: Peer) -> None:
        while then is not None or link.ended is None:
            await link.request()
            for answer in answers:
                link.send(answer)
                await asyncio.sleep(0)
            if gate is not None:
                await gate.wait()
            if then is not None:
                then(link)
                return
            await link.until(lambda: bool(link.buffer) or link.ended is not None, "what the sidecar does")
            if link.ended is not None:
                return

    return script


def asks(request: bytes) -> Callable[[Peer], object]:
    async def one(client: Peer) -> Heard:
        client.send(request)
        return await client.answer()

    return one


def message(heard: Heard, speech: Speech = CHAT) -> str:
    """The sentence of the one error event behind the whole events."""
    (sentence,) = speech.errors_in(heard.body)
    return sentence.removeprefix("llm-proxy: ")


# -- upstream, complete -----------------------------------------------------------------------------------------------


@by_speech
def test_complete(speech: Speech) -> None:
    async def main() -> None:
        pieces = [CHUNKED, *(chunk(event) for event in (*speech.events, *speech.end)), LAST]
        async with Stage(says(*pieces)) as stage:

            async def one(client: Peer) -> None:
                for _ in range(2):  # the second one on the same connections
                    client.send(speech.request)
                    heard = await client.answer()
                    assert (heard.status, heard.body, heard.is_whole, heard.end) == (200, speech.whole, True, None)

            await stage.rounds(one)
            for receipt in await stage.all_receipts(2 * ROUNDS):
                assert ending(receipt) == ("--", "upstream", "complete", True, 200, 1)
                assert receipt.bytes_out == len(speech.whole)
                assert receipt.dialect == speech.name
            pool = stage.worker.relay.pool
            assert 0 < pool.idle <= 100
            assert pool.opened == len(stage.upstream.links)

    run(main())


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (length(len(DOCUMENT)) + DOCUMENT, DOCUMENT),
        (head(b"Transfer-Encoding: chunked") + chunk(DOCUMENT) + LAST, DOCUMENT),
        (head(status=b"204 No Content"), b""),
        (length(0), b""),
    ],
    ids=["length", "chunked", "204", "empty"],
)
def test_complete_without_events(answer: bytes, body: bytes) -> None:
    async def main() -> None:
        async with Stage(says(answer)) as stage:
            for heard in await stage.rounds(asks(UNARY)):
                assert (heard.body, heard.is_whole, heard.end) == (body, True, None)
            assert {ending(r)[:4] for r in await stage.all_receipts()} == {("--", "upstream", "complete", True)}

    run(main())


def test_complete_until_close() -> None:
    """Goes out chunked, and the client's connection stays."""

    async def main() -> None:
        async with Stage(says(UNTIL_CLOSE + DOCUMENT, then=Peer.close)) as stage:
            for heard in await stage.rounds(asks(UNARY)):
                assert (heard.body, heard.is_whole, heard.end) == (DOCUMENT, True, None)
                assert heard.get(b"transfer-encoding") == b"chunked"
            assert {ending(r)[0] for r in await stage.all_receipts()} == {"--"}
            assert stage.worker.relay.pool.idle == 0

    run(main())


# -- upstream, error status -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_bytes", [UNARY, STREAMED], ids=["unary", "stream"])
@pytest.mark.parametrize("status", [b"400 Bad Request", b"429 Too Many Requests", b"503 Service Unavailable"])
def test_error_status(status: bytes, request_bytes: bytes) -> None:
    async def main() -> None:
        body = b'{"error":{"message":"theirs"}}'
        async with Stage(says(length(len(body), status) + body)) as stage:
            for heard in await stage.rounds(asks(request_bytes)):
                assert (heard.status, heard.body, heard.is_whole) == (int(status[:3]), body, True)
                assert heard.get(b"x-llm-proxy-error") is None
            expected = ("U-", "upstream", "error_status", False, int(status[:3]), 1)
            assert {ending(r) for r in await stage.all_receipts()} == {expected}

    run(main())


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_our_credential_is_refused(status: bytes) -> None:
    """502, and not a byte of the provider's body, which may quote the credential."""

    async def main() -> None:
        secret = b"sk-0123456789abcdef"
        answer = length(len(secret), status) + secret
        async with Stage(says(answer), PROVIDER_OAI_API_KEY=secret.decode()) as stage:
            for heard in await stage.rounds(asks(UNARY)):
                assert (heard.status, heard.is_whole) == (502, True)
                assert secret not in heard.raw
                assert b"credential_refused" in heard.body
            expected = ("UF", "upstream", "credential_refused", False, 502, 1)
            assert {ending(r) for r in await stage.all_receipts()} == {expected}

    run(main())


# -- upstream cut or stalled before the first byte --------------------------------------------------------------------


UNARY_SLOW = [pytest.param(UNARY, marks=pytest.mark.slow), STREAMED]  # the way is the same up to the head


@by_break
@pytest.mark.parametrize("request_bytes", UNARY_SLOW, ids=["unary", "stream"])
@pytest.mark.parametrize(
    ("said", "sentence"),
    [(b"", NEVER_ANSWERED), (b"HTTP/1.1 200", CUT), (b"HTTP/1.1 103 Early\r\n\r\n", CUT), (CHUNKED[:-2], CUT)],
    ids=["nothing", "half a line", "interim", "half a head"],
)
def test_cut_before_the_head(breaks: Break, request_bytes: bytes, said: bytes, sentence: str) -> None:
    async def main() -> None:
        async with Stage(says(said, then=breaks, gate=Gate(ROUNDS))) as stage:
            for heard in await stage.rounds(asks(request_bytes)):
                assert (heard.status, heard.is_whole, heard.end) == (502, True, None)
                assert heard.get(b"x-llm-proxy-error") == b"reset"
                assert b'"code":"reset"' in heard.body
            receipts = await stage.all_receipts()
            assert {ending(r) for r in receipts} == {("UF", "upstream", "reset", False, 502, 1)}
            assert {r.detail for r in receipts} <= {sentence, CUT}
            assert {r.attempts[0].failure.kind.value for r in receipts if r.attempts[0].failure} == {"reset"}
            assert len(stage.upstream.links) == ROUNDS  # a fresh link is never tried twice

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_bytes", "limit"), [(UNARY, "TIMEOUT_FIRST_BYTE_UNARY"), (STREAMED, "TIMEOUT_FIRST_BYTE")]
)
def test_silent_before_the_head(request_bytes: bytes, limit: str) -> None:
    async def main() -> None:
        async with Stage(says(b""), **{limit: "0.3"}) as stage:
            for heard in await stage.rounds(asks(request_bytes)):
                assert (heard.status, heard.is_whole, heard.end) == (504, True, None)
                assert heard.get(b"x-llm-proxy-error") == b"timeout"
            expected = ("UF", "upstream", "timeout", False, 504, 1)
            assert {ending(r) for r in await stage.all_receipts()} == {expected}
            assert stage.worker.relay.pool.open == 0

    run(main())


def test_refused() -> None:
    async def main() -> None:
        async with Stage() as stage:
            stage.refuse()
            for heard in await stage.rounds(asks(UNARY)):
                assert (heard.status, heard.is_whole, heard.end) == (502, True, None)
            expected = ("UC", "upstream", "connect_failed", False, 502, 1)
            assert {ending(r) for r in await stage.all_receipts()} == {expected}

    run(main())


# -- upstream cut or stalled mid-stream -------------------------------------------------------------------------------

FRAMINGS = {
    "chunked": (CHUNKED, chunk),
    "length": (head(b"Content-Type: text/event-stream", b"Content-Length: 99999"), bytes),
}


def way(index: int, how: str, framing: str) -> object:
    """Quick are all ways into the usual dialect, and the usual way into the others."""
    is_quick = SPEECHES[index] is CHAT or (how, framing) == ("fin", "chunked")
    marks = () if is_quick else (pytest.mark.slow,)
    return pytest.param(SPEECHES[index], BREAKS[how], framing, id=f"{speech_id[index]}-{how}-{framing}", marks=marks)


WAYS = [way(index, how, framing) for index in range(len(SPEECHES)) for how in BREAKS for framing in FRAMINGS]


@pytest.mark.parametrize(("speech", "breaks", "framing"), WAYS)
def test_cut_within_an_event(speech: Speech, breaks: Break, framing: str) -> None:
    """Whole events, the error event at their boundary, no last chunk."""

    async def main() -> None:
        first, frame = FRAMINGS[framing]
        whole = b"".join(speech.events[:-1])
        said = first + frame(whole + speech.events[-1][:-5])
        async with Stage(says(said, then=breaks, gate=Gate(ROUNDS))) as stage:
            for heard in await stage.rounds(asks(speech.request)):
                assert (heard.status, heard.is_whole, heard.end) == (200, False, End.FIN)
                assert heard.body.startswith(whole)
                sentences = speech.errors_in(heard.body[len(whole) :])
                assert sentences == ([] if speech.framing == "array" else ["llm-proxy: " + CUT])
                assert not heard.raw.endswith(LAST)
            receipts = await stage.all_receipts()
            assert {ending(r)[1:] for r in receipts} == {("upstream", "reset", False, 200, 1)}
            assert {r.ended_phase.value for r in receipts} <= {"first_event", "stream"}
            assert {r.attempts[0].status for r in receipts} == {200}

    run(main())


PLACES = {
    "after the head": (),
    "after an event": CHAT.events,
    "after the finish": (*CHAT.events, CHAT.end[0]),
    "after the last event": (*CHAT.events, *CHAT.end),
}


@by_break
@pytest.mark.parametrize("place", PLACES)
def test_cut_at_each_place(breaks: Break, place: str) -> None:
    async def main() -> None:
        events = PLACES[place]
        said = [CHUNKED, *map(chunk, events)]
        async with Stage(says(*said, then=breaks, gate=Gate(ROUNDS))) as stage:
            for heard in await stage.rounds(asks(STREAMED)):
                whole = b"".join(events)
                assert heard.body.startswith(whole)
                tail = heard.body[len(whole) :]
                # behind [DONE] nothing may follow, and no client would read it
                assert CHAT.errors_in(tail) == ["llm-proxy: " + CUT] if tail else place == "after the last event"
                assert (heard.is_whole, heard.end) == (False, End.FIN)
            letters = "UE" if place == "after the head" else "UD"
            assert {ending(r) for r in await stage.all_receipts()} == {(letters, "upstream", "reset", False, 200, 1)}

    run(main())


@by_break
@pytest.mark.parametrize("framing", FRAMINGS)
def test_cut_of_a_document(breaks: Break, framing: str) -> None:
    """No event can be put there: what came, and a connection that ends too early."""

    async def main() -> None:
        first, frame = FRAMINGS[framing]
        async with Stage(says(first, frame(DOCUMENT[:40]), then=breaks, gate=Gate(ROUNDS))) as stage:
            for heard in await stage.rounds(asks(UNARY)):
                assert DOCUMENT[:40].startswith(heard.body)
                assert (heard.status, heard.is_whole, heard.end) == (200, False, End.FIN)
            assert {ending(r) for r in await stage.all_receipts()} == {("UD", "upstream", "reset", False, 200, 1)}

    run(main())


@pytest.mark.parametrize(
    ("events", "limit", "letters"),
    [((), "TIMEOUT_FIRST_EVENT", "UE"), (CHAT.events, "TIMEOUT_STREAM", "UD")],
    ids=["before an event", "after events"],
)
def test_stalled(events: tuple[bytes, ...], limit: str, letters: str) -> None:
    async def main() -> None:
        async with Stage(says(CHUNKED, *map(chunk, events)), **{limit: "0.8"}) as stage:
            for heard in await stage.rounds(asks(STREAMED)):
                whole = b"".join(events)
                assert heard.body.startswith(whole)
                assert "0.8 s" in CHAT.errors_in(heard.body[len(whole) :])[0]
                assert (heard.is_whole, heard.end) == (False, End.FIN)
            assert {ending(r) for r in await stage.all_receipts()} == {(letters, "upstream", "timeout", False, 200, 1)}

    run(main())


# -- ended properly, but without its end ------------------------------------------------------------------------------


@by_speech
@pytest.mark.parametrize("framing", ["chunked", pytest.param("until close", marks=pytest.mark.slow)])
def test_missing_end(speech: Speech, framing: str) -> None:
    async def main() -> None:
        whole = b"".join(speech.events)
        if framing == "chunked":
            script = says(CHUNKED + chunk(whole), LAST)
        else:
            script = says(UNTIL_CLOSE + whole, then=Peer.close)
        async with Stage(script) as stage:
            for heard in await stage.rounds(asks(speech.request)):
                assert heard.body.startswith(whole)
                sentences = speech.errors_in(heard.body[len(whole) :])
                expected = ["llm-proxy: the provider's stream ended without a finish"]
                assert sentences == ([] if speech.framing == "array" else expected)
                assert (heard.is_whole, heard.end) == (False, End.FIN)
            assert {ending(r) for r in await stage.all_receipts()} == {("UD", "upstream", "missing_end", False, 200, 1)}
            assert stage.worker.relay.pool.idle == 0

    run(main())


# -- upstream broke HTTP ----------------------------------------------------------------------------------------------

FINISHED = b"".join(CHAT.events)
BROKEN_STREAMS = {
    "bad chunk size": [CHUNKED + chunk(FINISHED), b"xyz\r\nhello\r\n"],
    "bad chunk end": [CHUNKED + chunk(FINISHED), b"5\r\nhelloXX"],
    "length overrun": [head(b"Content-Length: %d" % len(FINISHED)) + FINISHED[:-9], FINISHED[-9:] + b"extra"],
    "bytes behind the last chunk": [CHUNKED + chunk(FINISHED), LAST + b"HTTP/1.1 200 OK\r\n\r\nevil"],
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
def test_broken_stream(name: str) -> None:
    async def main() -> None:
        async with Stage(says(*BROKEN_STREAMS[name])) as stage:
            for heard in await stage.rounds(asks(STREAMED)):
                assert (heard.status, heard.is_whole, heard.end) == (200, False, End.FIN)
                at = heard.body.rfind(b'data: {"error"')
                assert FINISHED.startswith(heard.body[:at])
                assert len(CHAT.errors_in(heard.body[at:])) == 1
                assert b"evil" not in heard.raw and b"extra" not in heard.raw and b"hello" not in heard.raw
            receipts = await stage.all_receipts()
            assert {ending(r) for r in receipts} == {("UD", "upstream", "protocol", False, 200, 1)}
            assert stage.worker.relay.pool.open == 0

    run(main())


BROKEN_HEADS = {
    "not HTTP": b"\x16\x03\x01\x00 no\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "two lengths": head(b"Content-Length: 5", b"Content-Length: 6") + b"hello!",
    "length and chunked": head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + chunk(b"hello") + LAST,
    "gzip coding": head(b"Transfer-Encoding: gzip, chunked") + chunk(b"hello") + LAST,
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
    "101": head(b"Upgrade: x", b"Connection: upgrade", status=b"101 Switching Protocols"),
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    "space before colon": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
}


@pytest.mark.parametrize("name", BROKEN_HEADS)
@pytest.mark.parametrize("request_bytes", UNARY_SLOW, ids=["unary", "stream"])
def test_broken_head(name: str, request_bytes: bytes) -> None:
    async def main() -> None:
        async with Stage(says(BROKEN_HEADS[name])) as stage:
            for heard in await stage.rounds(asks(request_bytes)):
                assert (heard.status, heard.is_whole, heard.end) == (502, True, None)
                assert heard.get(b"x-llm-proxy-error") == b"protocol"
                assert b"hello" not in heard.raw
            expected = ("UF", "upstream", "protocol", False, 502, 1)
            assert {ending(r) for r in await stage.all_receipts()} == {expected}
            assert stage.worker.relay.pool.open == 0
            assert len(stage.upstream.links) == ROUNDS

    run(main())


@pytest.mark.parametrize("wait", [False, True], ids=["in one write", "later"])
def test_bytes_behind_a_whole_answer(wait: bool) -> None:
    """In the same read nobody can tell what is the answer; on an idle link they end it. Nobody ever sees them."""

    async def main() -> None:
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        whole = length(len(DOCUMENT)) + DOCUMENT
        asked, gate = Gate(ROUNDS), Gate(2 * ROUNDS)

        async def script(link: Peer) -> None:
            await link.request()
            await asked.wait()  # else a link serves two rounds
            link.send(whole if wait else whole + evil)
            if wait:
                await gate.wait()  # every client has its answer
                link.send(evil)
            await link.to_end()

        async with Stage(script, POOL_IDLE=str(ROUNDS)) as stage:

            async def one(client: Peer) -> Heard:
                client.send(UNARY)
                heard = await client.answer()
                if wait:
                    await gate.wait()
                return heard

            for heard in await stage.rounds(one):
                assert b"evil" not in heard.raw
                assert (heard.status, heard.is_whole) == (200, wait)
            expected = ("--", "upstream", "complete") if wait else ("UD", "upstream", "protocol")
            assert {ending(r)[:3] for r in await stage.all_receipts()} == {expected}
            await stage.settle(lambda: stage.worker.relay.pool.open == 0, "a link with foreign bytes was kept")

    run(main())
