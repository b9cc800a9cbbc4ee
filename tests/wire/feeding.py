"""How a parser is fed, and what h11 makes of the same bytes.

Lives here: `read_request` and `read_answer` (our parsers on bytes cut in any way), `h11_request` and `h11_answer` (the
second opinion). May not live here: vectors, assertions.
How it works: each gives one value that can be compared; what a parser says only while it is fed is asserted on the way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import h11

from proxy.outcome import Kind, Phase
from proxy.wire.head import HeadLimits, RequestHead, ResponseHead
from proxy.wire.requests import RequestParser
from proxy.wire.responses import ResponseParser

NEXT = b"GET /next HTTP/1.1\r\nHost: other\r\n\r\n"
MAX_HEAD = 64 * 1024


def whole(data: bytes) -> list[bytes]:
    return [data]


def each_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, *edges: int) -> list[bytes]:
    marks = [0, *sorted(min(edge, len(data)) for edge in edges), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(marks)]


class ReadRequest(NamedTuple):
    kind: Kind | None  # of the failure
    phase: Phase | None
    head: RequestHead | None
    body: bytes
    is_complete: bool
    rest: bytes


def read_request(pieces: Iterable[bytes], limits: HeadLimits | None = None) -> ReadRequest:
    return taken(RequestParser(limits or HeadLimits()), pieces)


def taken(parser: RequestParser, pieces: Iterable[bytes]) -> ReadRequest:
    """What `parser` makes of its next request."""
    body = b""
    for piece in pieces:
        parser.feed(piece)
        if parser.failure is None or parser.failure.phase is Phase.BODY:
            body += b"".join(parser.pieces)
        parser.pieces.clear()
        assert not (parser.is_complete and parser.failure)
    failure = parser.failure
    return ReadRequest(
        failure and failure.kind, failure and failure.phase, parser.head, body, parser.is_complete, parser.rest
    )


class ReadAnswer(NamedTuple):
    kind: Kind | None
    head: ResponseHead | None
    body: bytes
    is_complete: bool
    is_clean: bool


def read_answer(
    pieces: Iterable[bytes], method: bytes = b"GET", eof: bool = False, parser: ResponseParser | None = None
) -> ReadAnswer:
    """`parser`: one that has read a part of it."""
    if parser is None:
        parser = ResponseParser(MAX_HEAD)
        parser.expect(method)
    body = b""
    for piece in pieces:
        parser.feed(piece)
        body += b"".join(parser.pieces)
        parser.pieces.clear()
    if eof:
        parser.eof()
    failure = parser.failure
    return ReadAnswer(failure and failure.kind, parser.head, body, parser.is_complete, parser.is_clean)


class Opinion(NamedTuple):
    """h11's: `verdict` is whole, more (it waits for bytes) or refused; `body` what it took for that."""

    verdict: str
    body: bytes
    count: int  # messages read in full, where more than one can follow
    first: h11.Request | h11.Response | None


def _events(reader: h11.Connection) -> Iterator[object]:
    while True:
        event = reader.next_event()
        yield event
        if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            return


def h11_request(data: bytes) -> Opinion:
    """The first request in `data`."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    reader.receive_data(data)
    body = b""
    first: h11.Request | None = None
    try:
        for event in _events(reader):
            if isinstance(event, h11.Request):
                first = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Opinion("whole", body, 1, first)
    except h11.RemoteProtocolError:
        return Opinion("refused", body, 0, first)
    return Opinion("more", body, 0, first)


def h11_requests(data: bytes) -> list[Opinion]:
    """Every request in `data`, to its end or to the first that is not whole."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    reader.receive_data(data)
    reader.receive_data(b"")
    found: list[Opinion] = []
    while True:
        body, first = b"", None
        try:
            for event in _events(reader):
                if isinstance(event, h11.Request):
                    first = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.ConnectionClosed):
                    return found
                elif isinstance(event, h11.EndOfMessage):
                    found.append(Opinion("whole", body, 1, first))
        except h11.RemoteProtocolError as error:
            found.append(Opinion(f"refused: {error}", body, 0, first))
            return found
        if reader.our_state is h11.MIGHT_SWITCH_PROTOCOL or reader.our_state is h11.SEND_RESPONSE:
            reader.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            reader.send(h11.EndOfMessage())
        if reader.our_state is not h11.DONE or reader.their_state is not h11.DONE:
            found.append(Opinion("closed", b"", 0, None))
            return found
        reader.start_next_cycle()


def h11_answer(data: bytes, method: bytes = b"GET", eof: bool = False) -> Opinion:
    """The answer in `data` to a request with `method`."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    reader.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    if eof:
        reader.receive_data(b"")
    body = b""
    first: h11.Response | None = None
    try:
        for event in _events(reader):
            if isinstance(event, h11.Response):
                first = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return Opinion("whole", body, 1, first)
            elif isinstance(event, h11.ConnectionClosed):
                return Opinion("refused", body, 0, first)
    except h11.RemoteProtocolError:
        return Opinion("refused", body, 0, first)
    return Opinion("more", body, 0, first)
