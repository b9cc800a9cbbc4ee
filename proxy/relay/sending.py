"""The request of an attempt on its way: a link, and what is written on it.

Lives here: `Sending`, the first half of an attempt. May not live here: what comes back (attempt), which link it is
(pool), which target (attempts).
How it works: the request goes out in the call stack in which the link is had; where the link takes no more, the client
is not read (and the phase is SEND). Each attempt keeps its own time.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from proxy.outcome import Failure, Phase, milliseconds
from proxy.policy.plan import Target
from proxy.relay.upstream import UpstreamConnection

if TYPE_CHECKING:
    from proxy.relay.answer import Answer
    from proxy.relay.exchange import Exchange
    from proxy.relay.held import Held
    from proxy.relay.relay import Relay
    from proxy.relay.resuming import Silence
    from proxy.wire.responses import ResponseParser

# Looked up once: on Python 3.11 a member of an enum costs 0.12 us each time, and a request has thirty of them.
_BODY: Final = Phase.BODY
_SEND: Final = Phase.SEND
_QUEUE: Final = Phase.QUEUE
_CONNECT: Final = Phase.CONNECT
_FIRST_BYTE: Final = Phase.FIRST_BYTE


class Sending:
    """`upstream` is the link while there is one; `sent_at` when the request was written in full; 0.0: it is not yet, so
    that the upstream cannot have begun to work on it. `lines` are the head as it goes upstream, `pieces` a body that is
    held, of `size` bytes."""

    __slots__ = (
        "answer", "exchange", "held", "limit", "lines", "phase", "pieces", "provider", "reused", "sent_at", "since",
        "size", "target", "upstream", "_asked_at", "_began", "_connect_ms", "_has_retried", "_queued_at", "_relay",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, relay: Relay, target: Target) -> None:
        self.exchange = exchange
        self.target = target
        self.provider = target.provider
        self.lines = b""
        self.pieces: list[bytes] = []
        self.size = 0
        self.upstream: UpstreamConnection | None = None
        self.answer: Answer | None = None
        self.held: Held | Silence | None = None
        self.reused = False
        self.sent_at = 0.0
        self.phase = _CONNECT
        self.limit = inf  # seconds that the phase may last without progress
        self.since = 0.0
        self._relay = relay
        self._began = 0.0
        self._asked_at = 0.0  # for a link, behind the queue
        self._queued_at = 0.0
        self._connect_ms: float | None = None
        self._has_retried = False

    def failed(self, failure: Failure) -> None:
        raise NotImplementedError

    def upstream_read(self, parser: ResponseParser) -> None:
        raise NotImplementedError

    def begin(self, now: float) -> None:
        """Take an idle link, or have one opened."""
        self._began = self._asked_at = now
        upstream = None if self._has_retried else self._relay.pool.take(self.provider.origin)
        if upstream is not None:
            self.connected(upstream, True)
            return
        failure = self._relay.pool.request(self.provider.origin, self)
        if failure is not None:
            self.failed(failure)

    def enter(self, phase: Phase, limit: float) -> None:
        self.enter_at(phase, limit, self._relay.clock())

    def enter_at(self, phase: Phase, limit: float, since: float) -> None:
        self.phase = phase
        self.limit = limit
        self.since = since
        exchange = self.exchange
        attempts = exchange.attempts
        is_alone = attempts is not None and attempts.rival is None
        if self.held is not None or phase is _BODY or phase is _SEND or not is_alone:
            exchange.entered(self)
            return
        # The same, for what nearly every attempt comes to: two calls less, twice for each request (0.6 us).
        exchange.phase = phase
        client, due = exchange.client, since + limit
        client.deadline = due if due < exchange.total_due else exchange.total_due
        if client.is_full:
            client.watch_stall()

    # -- the pool's side ----------------------------------------------------------------------------------------------

    def connecting(self) -> None:
        """A link is being opened for it, which keeps its own time (connect)."""
        self._note_queued()
        self.enter(_CONNECT, inf)

    def queued(self) -> None:
        self.enter(_QUEUE, self._relay.seconds.queue)
        self._queued_at = self.since

    def _note_queued(self) -> None:
        if self._queued_at:
            self._asked_at = self._relay.clock()
            self.exchange.receipt.queue_ms = milliseconds(self._asked_at - self._queued_at)
            self._queued_at = 0.0

    def connect_failed(self, failure: Failure) -> None:
        self.failed(failure)

    def crashed(self, error: Exception) -> None:
        self.exchange.crashed(error)

    def connected(self, upstream: UpstreamConnection, reused: bool) -> None:
        """A link is ours: write the head and what is there of the body, in this same call stack."""
        exchange = self.exchange
        head, body = exchange.head, exchange.body
        assert head is not None
        self._note_queued()
        self.upstream = upstream
        self.reused = reused
        upstream.attempt = self
        upstream.uses += 1
        upstream.unsent = -1
        upstream.parser.expect(head.method)
        now = self._relay.clock()  # before the write: a busy machine may give the core to the provider within it
        if not reused:
            self._connect_ms = milliseconds(now - self._asked_at)
        if body.is_held:
            upstream.send(self.lines, self.pieces, self.size)
            self._sent(upstream, now)
            return
        body.send_kept(upstream, self.lines, head.framing)
        if exchange.has_body:
            self.body_ended()
        elif upstream.is_full:
            self.enter(_SEND, exchange.seconds.send)
        else:
            self.enter(_BODY, exchange.seconds.body)
            exchange.client.resume_reading()

    # -- the request, while it streams through ------------------------------------------------------------------------

    def forward(self, pieces: list[bytes]) -> None:
        exchange = self.exchange
        if self.phase is _BODY:
            self.since = self._relay.clock()
        if self.upstream is not None and exchange.head is not None:
            exchange.body.forward(self.upstream, pieces, exchange.head.framing)

    def body_ended(self) -> None:
        exchange, upstream = self.exchange, self.upstream
        if upstream is not None and exchange.head is not None:
            now = self._relay.clock()
            exchange.body.end(upstream, exchange.head.framing)
            self._sent(upstream, now)

    def _sent(self, upstream: UpstreamConnection, now: float) -> None:
        """All of the request is written; it may still wait in our buffer."""
        if upstream.is_full and self.answer is None:
            self.enter(_SEND, self.exchange.seconds.send)
        else:
            self._await_answer(now)

    def _await_answer(self, now: float) -> None:
        exchange = self.exchange
        seconds = exchange.seconds
        if self.answer is None:
            call = exchange.call
            is_stream = call is not None and call.stream
            self.enter_at(_FIRST_BYTE, seconds.first_byte if is_stream else seconds.first_byte_unary, now)
        self.sent_at = now

    def upstream_full(self) -> None:
        """The upstream takes no more for now."""
        exchange = self.exchange
        if not exchange.has_body:
            exchange.client.pause_reading()
            if self.phase is _BODY:
                self.enter(_SEND, exchange.seconds.send)

    def upstream_drained(self) -> None:
        exchange = self.exchange
        if not exchange.has_body:
            if self.phase is _SEND:
                self.enter(_BODY, exchange.seconds.body)
            exchange.client.resume_reading()
        elif self.phase is _SEND:
            self._await_answer(self._relay.clock())
