"""One client connection of the load, and what it sees.

Lives here: `LoadConnection` (asks, and checks that the answer is complete), `Sample`, `Window`, `Cost`, `Ask`.
May not live here: how many connections ask, and when (load).
How it works: answers are unframed by httptools into a list of pieces (a C call each, no Python frame); a complete
answer has status 200, the exact number of body bytes, and `[DONE]` at the end of a stream. Gateways write bodies anew;
where `exact` is off, what counts is the content: its length in a JSON document, the number of events that have any in
a stream. CPU is read at the opening and the closing of a window in which units are counted, so start and end of a load
are not part of the figure.
Doubted: httptools itself; what it accepts counts as HTTP here (the parsers of `wire` are tested elsewhere). Content is
found by a pattern that does not know JSON: right for the texts that orders have, and for no others.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import httptools

from bench.orders import CONTENT_MARK, DONE, EVENT_BYTES, STAMP_DIGITS, Order

_MOST_ERRORS = 20  # kept as text; all are counted
# An event's text, however its JSON is spaced and ordered. Empty ones (role, end) do not match.
_CONTENT = re.compile(rb'"content"\s*:\s*"([^"\\]+)"')


class Cost(NamedTuple):
    """Nanoseconds of CPU so far, by who used them."""

    contestant: int = 0
    upstream: int = 0
    load: int = 0
    machine: int = 0  # all cores, everybody
    wakes: int = 0  # not time: how often the contestant's threads had nothing to do, and were woken again


class Ask(NamedTuple):
    """What a connection sends, and what makes the answer complete."""

    request: bytes
    body_bytes: int
    is_stream: bool
    stamped: bool  # content chunks carry the clock of their writing
    exact: bool  # checked by bytes; else by content
    content: int  # what the answer must have of it: characters, or events of a stream
    is_open: bool  # a stream that ends when the upstream is told: with any number of events
    tls: ssl.SSLContext | None = None  # how to connect

    @classmethod
    def of(cls, request: bytes, order: Order, exact: bool = True, tls: ssl.SSLContext | None = None) -> Ask:
        is_stream = order.shape != "unary"
        is_paced = order.shape == "paced"
        return cls(
            request, order.body_bytes, is_stream, is_paced, exact, order.content, is_paced and not order.events, tls
        )


@dataclass(slots=True)
class Sample:
    """What one load saw. Latencies in microseconds."""

    units: int = 0
    seconds: float = 0.0
    cost: Cost = field(default_factory=Cost)
    answers: int = 0  # complete ones, over the whole load
    at_close: int = 0  # units until then, since the load began
    first_byte: list[float] = field(default_factory=list)
    first_event: list[float] = field(default_factory=list)
    transit: list[float] = field(default_factory=list)
    gap: list[float] = field(default_factory=list)  # by how much two events of a stream came nearer or further apart
    events: int = 0  # content chunks of complete streams
    unanswered: int = 0  # of a plan, when patience was at its end
    gave_up: bool = False
    late: float = 0.0  # the most that the load was behind its own plan
    failed: int = 0
    errors: list[str] = field(default_factory=list)

    def fail(self, error: str) -> None:
        self.failed += 1
        if len(self.errors) < _MOST_ERRORS and error not in self.errors:
            self.errors.append(error)


class Window:
    """The part of a load that is measured: units and costs between `open` and `close`."""

    __slots__ = ("_began", "_cost", "_read", "_sample", "_units", "is_open")

    def __init__(self, sample: Sample, read: Callable[[], Cost]) -> None:
        self._sample = sample
        self._read = read
        self._units = 0
        self._began = 0.0
        self._cost = Cost()
        self.is_open = False

    def open(self, units: int) -> None:
        self.is_open = True
        self._units = units
        self._cost = self._read()
        self._began = time.perf_counter()

    def close(self, units: int) -> None:
        self._sample.seconds = time.perf_counter() - self._began
        self._sample.cost = Cost(*(now - then for now, then in zip(self._read(), self._cost, strict=True)))
        self._sample.units = units - self._units
        self._sample.at_close = units
        self.is_open = False


def ignore(_: LoadConnection) -> None:
    """For connections of which nobody wants to hear."""


class LoadConnection(asyncio.Protocol):
    """One client connection. `ask` sends; `on_answer(connection)` is called when the answer is complete or was lost,
    `on_begin(connection)` at its first content chunk."""

    __slots__ = ("_ask", "_body", "_due", "_got", "_last", "_parser", "_pieces", "_sample", "_seen", "_tail",
                 "_transit", "_transport", "count_events", "events", "has_event", "is_asking", "is_lost", "latencies",
                 "on_answer", "on_begin", "on_body")  # fmt: skip

    def __init__(self, sample: Sample, on_answer: Callable[[LoadConnection], None] = ignore) -> None:
        self._sample = sample
        self.on_answer = on_answer
        self.on_begin: Callable[[LoadConnection], None] = ignore
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # found by the parser: a piece costs a C call
        self._parser = httptools.HttpResponseParser(self)
        self._ask: Ask | None = None
        self._due = 0.0
        self._got = -1  # body bytes of this answer; -1: nothing at all yet
        self._tail = b""  # by bytes: the end of the stream; by content: a line that is not whole
        self._last = b""  # by content: the end of the last line that had something
        self._body: list[bytes] = []  # by content: of a JSON document
        self._seen = 0  # by content: events of this answer
        self._transit = 0.0  # of the event before
        self.is_asking = False
        self.is_lost = False
        self.has_event = False
        self.events = 0  # seen while `count_events`, over all answers
        self.count_events = False
        self.latencies = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self.is_asking:
            self._end("connection closed within an answer")

    def ask(self, ask: Ask, due: float) -> None:
        """Sends `ask`, which was due at `due` (time.monotonic)."""
        self._ask = ask
        self._due = due
        self._got = -1
        self._tail = self._last = b""
        self._body.clear()
        self._seen = 0
        self._transit = 0.0
        self.has_event = False
        self.is_asking = True
        self._transport.write(ask.request)

    @property
    def waits_since(self) -> float:
        """When the request was due whose answer has not begun (time.monotonic); 0: there is none."""
        return self._due if self.is_asking and self._got < 0 else 0.0

    def close(self) -> None:
        """At once: with TLS, nobody is waited for who should say good-bye."""
        self.is_asking = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._got < 0:
            self._got = 0
            if self.latencies:
                self._sample.first_byte.append((time.monotonic() - self._due) * 1e6)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"not HTTP: {error}")
            self._transport.abort()
            return
        if self._pieces:
            self._look()

    def on_message_complete(self) -> None:
        if self._pieces:
            self._look()
        ask = self._ask
        if ask is None or not self.is_asking:
            self._sample.fail("an answer that nobody asked for")
            return
        status = self._parser.get_status_code()
        error = f"status {status}" if status != 200 else self._judge(ask) if ask.exact else self._judge_content(ask)
        if not error:
            self._sample.answers += 1
        self._end(error)

    def _judge(self, ask: Ask) -> str:
        """What is wrong with a complete answer, by its bytes."""
        more = self._got - ask.body_bytes
        if more if not ask.is_open else more < 0 or more % EVENT_BYTES:
            return f"{self._got} body bytes instead of {ask.body_bytes}"
        if ask.is_stream and not self._tail.endswith(DONE):
            return "no [DONE] at the end"
        self._sample.events += ask.content + more // EVENT_BYTES if ask.is_stream else 0
        return ""

    def _judge_content(self, ask: Ask) -> str:
        if not ask.is_stream:
            try:
                found = len(json.loads(b"".join(self._body))["choices"][0]["message"]["content"])
            except (ValueError, LookupError, TypeError):
                return "no JSON with content"
            return "" if found == ask.content else f"content of {found} characters instead of {ask.content}"
        if self._seen != ask.content if not ask.is_open else self._seen < ask.content:
            return f"{self._seen} events with content instead of {ask.content}"
        if not (self._tail.strip() or self._last).endswith(b"[DONE]"):
            return "no [DONE] at the end"
        self._sample.events += self._seen
        return ""

    def _end(self, error: str) -> None:
        if not self.is_asking:
            return
        self.is_asking = False
        if error:
            self._sample.fail(error)
        self.on_answer(self)

    def _look(self) -> None:
        """Counts the pieces of one read, and takes the times that this load wants."""
        pieces = self._pieces
        ask = self._ask
        assert ask is not None
        for piece in pieces:
            self._got += len(piece)
        if not ask.exact:
            self._look_at_content(ask)
        elif ask.is_stream:
            last = pieces[-1]
            self._tail = last if len(last) >= len(DONE) else (self._tail + b"".join(pieces))[-64:]
            if not self.has_event and any(CONTENT_MARK in piece for piece in pieces):
                self._begin()
            if self.count_events:
                for piece in pieces:
                    self.events += piece.count(b"\n\n")
                if ask.stamped and self.latencies:
                    for piece in pieces:
                        self._take_transit(piece.split(CONTENT_MARK)[1:])
        pieces.clear()

    def _look_at_content(self, ask: Ask) -> None:
        if not ask.is_stream:
            self._body += self._pieces
            return
        data = self._tail + b"".join(self._pieces)
        whole = data.rfind(b"\n") + 1
        self._tail = data[whole:]
        lines = data[:whole]
        self._last = lines[-64:].rstrip() or self._last
        texts: list[bytes] = _CONTENT.findall(lines)
        if not texts:
            return
        self._seen += len(texts)
        if not self.has_event:
            self._begin()
        if self.count_events:
            self.events += len(texts)
            if ask.stamped and self.latencies:
                self._take_transit(texts)

    def _begin(self) -> None:
        self.has_event = True
        if self.latencies:
            self._sample.first_event.append((time.monotonic() - self._due) * 1e6)
        self.on_begin(self)

    def _take_transit(self, texts: list[bytes]) -> None:
        """How long events were under way that begin with the time of their writing, and the jitter between them:
        the time between two events here beside that between their writings."""
        now = time.monotonic_ns()
        for text in texts:
            stamp = text[:STAMP_DIGITS]
            if len(stamp) == STAMP_DIGITS and stamp.isdigit():
                transit = (now - int(stamp)) / 1e3
                self._sample.transit.append(transit)
                if self._transit:
                    self._sample.gap.append(abs(transit - self._transit))
                self._transit = transit
