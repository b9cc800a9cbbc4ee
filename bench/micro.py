"""Pieces of the straight path on their own: `python -m bench.micro`.

Lives here: what one read of a stream passes through (response parser, event cutter, watch, meter), the request parser,
and reading a call, each fed as the relay feeds it.
May not live here: sockets; any verdict. Nothing here is asserted; figures are for before and after on one machine.
How it works: each piece is run until its time is measurable, several times; the least is shown, since a piece alone
can only be made slower by others.
Doubted: caches are warm here and cold in a process with many streams; the whole (`python -m bench`) is what counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from bench import orders

_REPEATS = 7
_LEAST_SECONDS = 0.02


class Piece(NamedTuple):
    """`work` does `units` units."""

    name: str
    unit: str
    units: int
    work: Callable[[], object]


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_BULK = 200


def best_us(piece: Piece) -> float:
    """Microseconds per unit: the least of several repeats."""
    times = 1
    while _timed(piece.work, times) < _LEAST_SECONDS:
        times *= 2
    return min(_timed(piece.work, times) for _ in range(_REPEATS)) / times / piece.units * 1e6


def _timed(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - began


def _drained(parser: Any, data: bytes) -> Callable[[], object]:
    """Feeds `data` and takes the pieces, as the relay does at every read."""

    def work() -> None:
        parser.feed(data)
        parser.pieces.clear()

    return work


def _request_pieces() -> Iterator[Piece]:
    from proxy.wire.head import HeadLimits
    from proxy.wire.requests import RequestParser

    request = orders.request(orders.unary(1024), "127.0.0.1:8080", "k" * 32)
    parser = RequestParser(HeadLimits())

    def work() -> None:
        parser.feed(request)
        parser.pieces.clear()
        parser.next()

    yield Piece("request parser, 1 KB", "request", 1, work)


def _response_pieces() -> Iterator[Piece]:
    from proxy.wire.responses import ResponseParser

    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1024\r\n\r\n" + b"x" * 1024
    unary = ResponseParser(64 * 1024)

    def work() -> None:
        unary.expect(b"POST")
        unary.feed(answer)
        unary.pieces.clear()

    yield Piece("response parser, 1 KB unary", "answer", 1, work)
    event = orders.chunked(orders.EVENT)
    for count in (1, _BULK):
        parser = ResponseParser(64 * 1024)
        parser.expect(b"POST")
        parser.feed(_STREAM_HEAD)
        yield Piece(f"response parser, {_events(count)}", "event", count, _drained(parser, event * count))


def _cutter_pieces() -> Iterator[Piece]:
    from proxy.wire.sse import EventCutter, EventFraming

    for count in (1, _BULK):
        cutter, data = EventCutter(EventFraming.SSE), orders.EVENT * count
        yield Piece(f"cutter, {_events(count)}", "event", count, partial(cutter.feed, data))


def _dialect_pieces() -> Iterator[Piece]:
    from proxy.dialects.openai import OpenAIChat

    dialect = OpenAIChat()
    body = orders.request(orders.unary(1024), "h", "k" * 32).partition(b"\r\n\r\n")[2]
    yield Piece("read call, 1 KB", "request", 1, partial(dialect.read_call, body, b"/v1/chat/completions", b""))
    for count in (1, _BULK):
        watch, data = dialect.watch(), orders.EVENT * count
        yield Piece(f"watch, {_events(count)}", "event", count, partial(watch.feed, data))
        meter = dialect.meter(is_stream=True)

        def work(meter: Any = meter, data: bytes = data) -> None:
            meter.feed(data)
            if meter.kept > 64 * 1024:
                meter.take()

        yield Piece(f"meter, {_events(count)}", "event", count, work)


def _encode_pieces() -> Iterator[Piece]:
    from proxy.wire.encode import chunk

    yield Piece("encode a chunk", "event", 1, partial(chunk, orders.EVENT))


def _events(count: int) -> str:
    return "one event a read" if count == 1 else f"{count} events a read"


def main() -> int:
    for room in (_request_pieces, _response_pieces, _cutter_pieces, _dialect_pieces, _encode_pieces):
        try:
            for piece in room():
                sys.stdout.write(f"{piece.name:40} {best_us(piece):8.3f} us per {piece.unit}\n")
        except (ImportError, TypeError, AttributeError) as error:
            # The bench outlives the names it measures: a piece that moved is a word here, not an end.
            sys.stdout.write(f"skipped: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
