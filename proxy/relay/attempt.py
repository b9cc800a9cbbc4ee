"""One try of an exchange at one target.

Lives here: `Attempt`: getting a link, writing the request on it, and whether a link that died may be replaced.
May not live here: answers (exchange, answer), which target it is (policy).
How it works: the request goes out in the call stack in which the link is had; where the link takes no more, the
client is not read (and the phase is SEND). A pooled link that was dead already is replaced once, at no cost: its
answer to the request is its end, within one round trip. Every other failure is the exchange's to decide.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from proxy.outcome import Attempt as Tried
from proxy.outcome import Failure, Kind, Phase, Side, milliseconds
from proxy.policy.router import Target
from proxy.relay.upstream import UpstreamConnection
from proxy.wire.head import RequestHead

if TYPE_CHECKING:
    from proxy.relay.exchange import Exchange
    from proxy.relay.relay import Relay

# Later than this after the request was sent the upstream may have begun to work, and a second try could be billed twice
# (HTTP.md 4.10).
STALE_SECONDS = 1.0

# Looked up once: on Python 3.11 a member of an enum costs 0.12 us each time, and a request has thirty of them.
_BODY = Phase.BODY
_SEND = Phase.SEND
_FIRST_BYTE = Phase.FIRST_BYTE


class Attempt:
    """`upstream` is the link while there is one; `sent_at` when the request was written in full; 0.0: it is
    not yet, so that the upstream cannot have begun to work on it."""

    __slots__ = (
        "provider", "reused", "sent_at", "upstream", "_asked_at", "_began", "_exchange", "_has_retried", "_head",
        "_lines", "_model", "_queued_at", "_relay",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, relay: Relay, head: RequestHead, target: Target, lines: bytes) -> None:
        self.provider = target.provider
        self.upstream: UpstreamConnection | None = None
        self.reused = False
        self.sent_at = 0.0
        self._began = 0.0
        self._exchange = exchange
        self._has_retried = False
        self._head = head
        self._lines = lines  # the head as it goes upstream
        self._model = target.model or exchange.receipt.model_requested
        self._queued_at = 0.0
        self._asked_at = 0.0  # for a link, behind the queue
        self._relay = relay

    def begin(self) -> None:
        """Take an idle link, or have one opened."""
        self._began = self._asked_at = self._relay.clock()
        upstream = None if self._has_retried else self._relay.pool.take(self.provider.origin)
        if upstream is not None:
            self.connected(upstream, True)
            return
        failure = self._relay.pool.request(self.provider.origin, self)
        if failure is not None:
            self._exchange.fail(failure)

    # -- the pool's side ----------------------------------------------------------------------------------------------

    def connecting(self) -> None:
        """A link is being opened for it, which keeps its own time (connect)."""
        self._note_queued()
        self._exchange.enter(Phase.CONNECT, inf)

    def queued(self) -> None:
        self._exchange.enter(Phase.QUEUE, self._relay.seconds.queue)
        self._queued_at = self._exchange.since

    def _note_queued(self) -> None:
        if self._queued_at:
            self._asked_at = self._relay.clock()
            self._exchange.receipt.queue_ms = milliseconds(self._asked_at - self._queued_at)
            self._queued_at = 0.0

    def connect_failed(self, failure: Failure) -> None:
        self._exchange.fail(failure)

    def crashed(self, error: Exception) -> None:
        self._exchange.crashed(error)

    def connected(self, upstream: UpstreamConnection, reused: bool) -> None:
        """A link is ours: write the head and what is there of the body, in this same call stack."""
        exchange, head = self._exchange, self._head
        self._note_queued()
        self.upstream = upstream
        self.reused = reused
        upstream.exchange = exchange
        upstream.uses += 1
        upstream.unsent = -1
        upstream.parser.expect(head.method)
        now = self._relay.clock()  # before the write: a busy machine may give the core to the provider within it
        if not reused:
            exchange.receipt.connect_ms = milliseconds(now - self._asked_at)
        body = exchange.body
        if body.is_held:
            body.send_held(upstream, self._lines)
            self._sent(upstream, now)
            return
        body.send_kept(upstream, self._lines, head.framing)
        if exchange.has_body:
            self.body_ended()
        elif upstream.is_full:
            exchange.enter(_SEND, self._relay.seconds.send)
        else:
            exchange.enter(_BODY, self._relay.seconds.body)
            exchange.client.resume_reading()

    # -- the request, while it streams through ------------------------------------------------------------------------

    def forward(self, pieces: list[bytes]) -> None:
        if self.upstream is not None:
            self._exchange.body.forward(self.upstream, pieces, self._head.framing)

    def body_ended(self) -> None:
        if self.upstream is not None:
            now = self._relay.clock()
            self._exchange.body.end(self.upstream, self._head.framing)
            self._sent(self.upstream, now)

    def _sent(self, upstream: UpstreamConnection, now: float) -> None:
        """All of the request is written; it may still wait in our buffer."""
        if upstream.is_full and self._exchange.answer is None:
            self._exchange.enter(_SEND, self._relay.seconds.send)
        else:
            self._await_answer(now)

    def _await_answer(self, now: float) -> None:
        exchange, seconds = self._exchange, self._relay.seconds
        if exchange.answer is None:
            call = exchange.call
            is_stream = call is not None and call.stream
            exchange.enter_at(_FIRST_BYTE, seconds.first_byte if is_stream else seconds.first_byte_unary, now)
        self.sent_at = now
        exchange.receipt.sent_ms = milliseconds(now - exchange.began)

    def upstream_full(self) -> None:
        """The upstream takes no more for now."""
        exchange = self._exchange
        if not exchange.has_body:
            exchange.client.pause_reading()
            if exchange.phase is _BODY:
                exchange.enter(_SEND, self._relay.seconds.send)

    def upstream_drained(self) -> None:
        exchange = self._exchange
        if not exchange.has_body:
            if exchange.phase is _SEND:
                exchange.enter(_BODY, self._relay.seconds.body)
            exchange.client.resume_reading()
        elif exchange.phase is _SEND:
            self._await_answer(self._relay.clock())

    # -- the end ------------------------------------------------------------------------------------------------------

    def replace_stale(self, failure: Failure) -> bool:
        """The link ended without an answer. If it was dead already, go on with a fresh one; else False."""
        upstream, body = self.upstream, self._exchange.body
        if (
            upstream is None
            or failure.kind is not Kind.RESET
            or not self.reused
            or upstream.parser.has_begun
            or not (body.is_held or (self._exchange.has_body and not self._exchange.receipt.bytes_in))
            or (self.sent_at and self._relay.clock() - self.sent_at >= STALE_SECONDS)
        ):
            return False
        self.end(failure, 0)
        self._has_retried = True
        self.upstream = None
        self.sent_at = 0.0  # nobody has it yet
        self._exchange.receipt.sent_ms = None
        self._relay.pool.drop(upstream)
        self.begin()
        return True

    def credential_refused(self, status: int) -> Failure:
        """Our own: the client could do nothing about it, and is not shown what the provider says."""
        detail = f"the provider {self.provider.name} refused this proxy's credential with status {status}"
        return Failure(Side.UPSTREAM, self._exchange.phase, Kind.CREDENTIAL_REFUSED, detail)

    def end(self, failure: Failure | None, status: int) -> None:
        """Put it on the receipt."""
        receipt, began = self._exchange.receipt, self._exchange.began
        started, ended = milliseconds(self._began - began), milliseconds(self._relay.clock() - began)
        receipt.attempts.append(Tried(self.provider.name, self._model, started, ended, self.reused, status, failure))

    def succeed(self, failure: Failure | None, status: int, now: float) -> None:
        """The answer has ended as its message said, be it an error (`failure`): the link may serve another exchange."""
        self.end(failure, status)
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        parser, exchange = upstream.parser, self._exchange
        keeps = parser.is_clean and parser.head is not None and parser.head.keep_alive and exchange.has_body
        if not keeps or upstream.is_full or upstream.is_lost:
            self._relay.pool.drop(upstream)
            return
        if exchange.client.is_full:  # for whose sake it was paused; who takes it next must be able to read
            upstream.transport.resume_reading()
        self._relay.pool.give(upstream, now)

    def give_up(self, failure: Failure | None) -> None:
        """Let go of the link, or of the place in the queue."""
        upstream, self.upstream = self.upstream, None
        head = None if upstream is None else upstream.parser.head
        self.end(failure, 0 if head is None else head.status)
        if upstream is not None:
            self._relay.pool.drop(upstream)
        else:
            self._relay.pool.withdraw(self.provider.origin, self)
