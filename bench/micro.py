"""Pieces of the straight path on their own: `python -m bench.micro`.

Lives here: what one read of a stream passes through (response parser, event cutter, watch), the request parser, and
reading a call, each fed as the relay feeds it.
May not live here: sockets; any verdict. Nothing here is asserted; figures are for before and after on one machine.
How it works: each piece is run until its time is measurable, several times; the least is shown, since a piece alone
can only be made slower by others.
Doubted: caches are warm here and cold in a process with many streams; the whole (`python -m bench`) is what counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


def _wire_pieces() -> Iterator[Piece]:
    from proxy.wire.head import HeadLimits
    from proxy.wire.requests import RequestParser
    from proxy.wire.responses import ResponseParser

    request = orders.request(orders.unary(1024), "127.0.0.1:8080", "k" * 32)
    event = orders.chunked(orders.EVENT)
    requests = RequestParser(HeadLimits())
    yield Piece("request parser, 1 KB", "request", 1, lambda: requests.feed(request))
    responses = ResponseParser(b"POST")
    responses.feed(_STREAM_HEAD)
    yield Piece("response parser, one event a read", "event", 1, lambda: responses.feed(event))
    bulk = event * _BULK
    many = ResponseParser(b"POST")
    many.feed(_STREAM_HEAD)
    yield Piece(f"response parser, {_BULK} events a read", "event", _BULK, lambda: many.feed(bulk))


def _cutter_pieces() -> Iterator[Piece]:
    from proxy.wire.sse import EventCutter

    one, many = EventCutter(), EventCutter()
    bulk = orders.EVENT * _BULK
    yield Piece("cutter, one event a read", "event", 1, lambda: one.feed(orders.EVENT))
    yield Piece(f"cutter, {_BULK} events a read", "event", _BULK, lambda: many.feed(bulk))


def _dialect_pieces() -> Iterator[Piece]:
    from proxy.dialects.openai_chat import OpenAIChat

    dialect = OpenAIChat()
    body = orders.request(orders.unary(1024), "h", "k" * 32).partition(b"\r\n\r\n")[2]
    yield Piece("read call, 1 KB", "request", 1, lambda: dialect.read_call(body, b"/v1/chat/completions", b""))
    one, many = dialect.watch(), dialect.watch()
    bulk = orders.EVENT * _BULK
    yield Piece("watch, one event a read", "event", 1, lambda: one.feed(orders.EVENT))
    yield Piece(f"watch, {_BULK} events a read", "event", _BULK, lambda: many.feed(bulk))


def main() -> int:
    for room in (_wire_pieces, _cutter_pieces, _dialect_pieces):
        try:
            for piece in room():
                sys.stdout.write(f"{piece.name:40} {best_us(piece):8.3f} us per {piece.unit}\n")
        except (ImportError, TypeError, AttributeError) as error:
            # The bench outlives the names it measures: a piece that moved is a word here, not an end.
            sys.stdout.write(f"skipped: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
