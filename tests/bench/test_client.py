"""One connection of the load: are whole answers complete however they are cut, and are wrong ones found out?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from bench import load, orders
from bench.client import Ask, Sample
from bench.orders import Order
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE = orders.ROLE + orders.EVENT * 3 + orders.FINISH + orders.DONE


def _whole(answer: bytes) -> list[bytes]:
    return [answer]


def _in_sevens(answer: bytes) -> list[bytes]:
    return [answer[at : at + 7] for at in range(0, len(answer), 7)]


def _answered(
    answer: bytes, order: Order, chop: Callable[[bytes], list[bytes]] = _whole, *, exact: bool = True
) -> Sample:
    """What the load thinks of `answer` to `order`; the other side closes after it."""

    async def scene() -> Sample:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for piece in chop(answer):
                writer.write(piece)
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            ask = Ask.of(orders.request(order, "127.0.0.1", "k" * 32), order, exact)
            return await load.once(server.sockets[0].getsockname()[1], ask)

    return asyncio.run(scene())


def _stream(body: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return _STREAM_HEAD + orders.chunked(body) + end


def _document(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _anew(stream: bytes) -> bytes:
    """As a gateway writes a stream that it has read: other spacing, other order, other line ends, fields left out."""
    events = [event[6:] for event in stream.decode().split("\n\n") if event]
    lines = [
        event
        if event == "[DONE]"
        else json.dumps({"choices": json.loads(event)["choices"], "model": "m"}, sort_keys=True)
        for event in events
    ]
    return "".join(f"data: {line}\r\n\r\n" for line in lines).encode()


@pytest.mark.parametrize("chop", [_whole, _in_sevens])
def test_a_whole_answer_is_complete_however_it_is_cut(chop: Callable[[bytes], list[bytes]]) -> None:
    sample = _answered(_stream(_WHOLE), orders.burst(3), chop)
    assert (sample.errors, sample.answers, sample.events) == ([], 1, 3)


@pytest.mark.parametrize("chop", [_whole, _in_sevens])
def test_a_stream_written_anew_is_complete_by_its_content(chop: Callable[[bytes], list[bytes]]) -> None:
    answer = _stream(b": ping\n\n" + _anew(_WHOLE))
    assert "body bytes instead of" in _answered(answer, orders.burst(3), chop).errors[0]
    sample = _answered(answer, orders.burst(3), chop, exact=False)
    assert (sample.errors, sample.answers, sample.events) == ([], 1, 3)


@pytest.mark.parametrize("chop", [_whole, _in_sevens])
def test_a_document_written_anew_is_complete_by_its_content(chop: Callable[[bytes], list[bytes]]) -> None:
    document = json.loads(orders.unary_body(1024))
    answer = _document(json.dumps({"more": 1, **document}, indent=2).encode())
    sample = _answered(answer, orders.unary(1024), chop, exact=False)
    assert (sample.errors, sample.answers) == ([], 1)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "status 502"),
        (_stream(_WHOLE[:-1]), "body bytes instead of"),
        (_stream(_WHOLE.replace(orders.DONE, b"x" * len(orders.DONE))), "no [DONE]"),
        (_stream(_WHOLE, end=b""), "closed within"),
        (b"nonsense\r\n\r\n", "not HTTP"),
    ],
)
def test_a_wrong_answer_is_found_out(answer: bytes, word: str) -> None:
    sample = _answered(answer, orders.burst(3))
    assert sample.answers == 0
    assert sample.failed == 1
    assert word in sample.errors[0]


@pytest.mark.parametrize(
    ("answer", "order", "word"),
    [
        (_stream(_anew(orders.ROLE + orders.EVENT * 2 + orders.DONE)), orders.burst(3), "2 events with content"),
        (_stream(_anew(orders.EVENT * 4 + orders.DONE)), orders.burst(3), "4 events with content"),
        (_stream(_anew(orders.EVENT * 3 + orders.FINISH)), orders.burst(3), "no [DONE]"),
        (_stream(_anew(orders.DONE + orders.EVENT * 3)), orders.burst(3), "no [DONE]"),
        (_stream(_anew(orders.FINISH + orders.DONE)), orders.paced(50, 0), "0 events with content"),
        (_document(orders.unary_body(1000)), orders.unary(1024), "characters instead of"),
        (_document(b'{"choices":[]}'), orders.unary(1024), "no JSON with content"),
        (_document(b"<html>"), orders.unary(1024), "no JSON with content"),
    ],
)
def test_wrong_content_is_found_out(answer: bytes, order: Order, word: str) -> None:
    sample = _answered(answer, order, exact=False)
    assert (sample.answers, sample.failed) == (0, 1)
    assert word in sample.errors[0]


@pytest.mark.parametrize("exact", [True, False])
def test_a_stream_whose_end_is_open_may_have_any_number_of_events(exact: bool) -> None:
    for events in (1, 5):
        body = orders.ROLE + orders.EVENT * events + orders.FINISH + orders.DONE
        sample = _answered(_stream(body), orders.paced(50, 0), exact=exact)
        assert (sample.errors, sample.events) == ([], events)
    cut = _stream(orders.ROLE + orders.EVENT + orders.EVENT[9:] + orders.FINISH + orders.DONE)
    assert "body bytes" in _answered(cut, orders.paced(50, 0)).errors[0]
