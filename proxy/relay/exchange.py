"""One request with its answer, from the head to the receipt.

Lives here: `Exchange`: the phases, the attempt, and `_finish`, through which every exchange passes exactly once.
May not live here: sockets (client, upstream), the bytes of answers (answer), decisions (policy, dialects).
How it works: a state machine of plain calls. client: begin -> body_received -> body_ended; pool: connected; upstream:
upstream_read until the answer ends. Whatever goes wrong becomes a Failure and goes to `fail`, which answers if no
answer has begun, or breaks it off honestly. A body that its dialect must read is held; all else streams through.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

import orjson

from proxy.catalog.snapshot import Origin, Provider
from proxy.dialects.call import Call, Dialect, UnreadableBody
from proxy.outcome import Attempt, Failure, Kind, Phase, Receipt, Side, status_of
from proxy.policy.router import PLAIN, dialect_of, plan
from proxy.relay import phases
from proxy.relay.answer import Answer, provider_request_id
from proxy.relay.body import RequestBody
from proxy.relay.local import error_answer, options_answer
from proxy.relay.request import Passage, pass_in
from proxy.relay.upstream import UpstreamConnection
from proxy.wire import encode
from proxy.wire.head import RequestHead, ResponseHead
from proxy.wire.responses import ResponseParser

if TYPE_CHECKING:
    from proxy.relay.client import ClientConnection
    from proxy.relay.relay import Relay

# A pooled link that died while idle answers a request with its end within one round trip. Later than this the upstream
# may have begun to work, and a second try could be billed twice (HTTP.md 4.10).
STALE_SECONDS = 1.0


class Exchange:
    __slots__ = (
        "answer", "began", "call", "client", "dialect", "has_body", "head", "id", "limit", "phase", "receipt", "since",
        "total_due", "_attempt_began", "_body", "_has_retried", "_has_stream", "_origin", "_passage", "_provider",
        "_relay", "_reused", "_sent_at", "_upstream", "_upstream_head",
    )  # fmt: skip

    def __init__(self, client: ClientConnection, relay: Relay, head: RequestHead | None, began: float) -> None:
        self.client = client
        self.head = head
        self.began = began
        self.phase = Phase.HEAD
        self.since = began
        self.limit = inf  # seconds that the phase may last without progress
        self.id = relay.next_id()
        self.has_body = False  # the request body has arrived in full
        self.dialect: Dialect = PLAIN if head is None else dialect_of(head.path)
        self.call: Call | None = None
        self.answer: Answer | None = None
        self._relay = relay
        self._passage: Passage | None = None
        self._has_stream = False
        self._body = RequestBody(relay)
        self._has_retried = False
        self._origin: Origin | None = None
        self._provider: Provider | None = None
        self._upstream: UpstreamConnection | None = None
        self._upstream_head = b""
        self._reused = False
        self._attempt_began = self._sent_at = began
        self.total_due = began + relay.seconds.total
        self.receipt = Receipt(
            id=self.id,
            started_at=time.time(),
            client=client.address,
            method="" if head is None else head.method.decode("ascii"),
            path="" if head is None else head.path.decode("ascii"),
        )

    # -- the request --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The head is there: may it come in, where does it go, is its body held or streamed?"""
        relay, head = self._relay, self.head
        assert head is not None
        self.phase = Phase.ADMIT
        client = self.client
        passage = client.passage
        if passage is None or not client.parser.is_familiar or not passage.is_valid(relay.admission, relay.snapshot):
            passage = client.passage = self._pass_in(head)
            if passage is None:
                return
        self._passage = passage
        self.receipt.key = passage.grant.key
        chosen = passage.route
        self.dialect = chosen.dialect
        self.receipt.dialect = chosen.dialect.name
        body = self._body
        body.hold(chosen.reads_body)
        if body.limit and head.length > body.limit:
            return self.fail(_too_large(body.limit))
        if head.expects_continue and not self.client.parser.received:
            self.client.write(encode.CONTINUE)
        if chosen.reads_body:
            self._enter(Phase.BODY, self._relay.seconds.body)
        else:
            self._dispatch()

    def _pass_in(self, head: RequestHead) -> Passage | None:
        """Ask policy about a head that is new on this connection. None: it has been answered."""
        self.client.passage = None
        grant = self._relay.admission.admit(head)
        if isinstance(grant, Failure):
            self.fail(grant)
            return None
        self.receipt.key = grant.key
        passed = pass_in(self._relay, head, grant)
        if isinstance(passed, Passage):
            return passed
        if isinstance(passed, Failure):
            self.fail(passed)
        else:
            self._answer_options()
        return None

    def body_received(self, pieces: list[bytes]) -> None:
        """`pieces` of the request body. Held, or sent on at once."""
        body, received = self._body, self.client.parser.received
        self.receipt.bytes_in = received
        if body.limit and received > body.limit:
            return self.fail(_too_large(body.limit))
        if self.phase is Phase.BODY:
            self.since = self._relay.clock()
        upstream = self._upstream
        if upstream is not None and not body.is_held:
            assert self.head is not None
            body.forward(upstream, pieces, self.head.framing)
            return
        body.keep(pieces)
        if not body.has_room:
            detail = "too many request bodies are in flight; try again soon"
            self.fail(Failure(Side.PROXY, Phase.BODY, Kind.OVERLOADED, detail))
        elif not body.is_held and body.size > self._relay.options.bytes.buffer:
            self.client.pause_reading()

    def body_ended(self) -> None:
        """The request body is complete."""
        self.has_body = True
        if self._body.is_held:
            self._read_body()
        elif self._upstream is not None:
            assert self.head is not None
            self._body.end(self._upstream, self.head.framing)
            self._sent()

    def _read_body(self) -> None:
        head, passage = self.head, self._passage
        assert head is not None and passage is not None
        chosen = passage.route
        self.phase = Phase.ADMIT
        coding = head.get(b"content-encoding")
        try:
            if coding is not None and coding.lower() != b"identity":
                raise UnreadableBody("send the request body without a content-encoding: it must be read to be routed")
            self.call = chosen.dialect.read_call(self._body.whole(), chosen.path, head.query)
        except UnreadableBody as error:
            return self.fail(Failure(Side.CLIENT, Phase.ADMIT, Kind.UNREADABLE_BODY, str(error)))
        self.receipt.model_requested = self.call.model
        self.receipt.stream = self.call.stream
        self._dispatch()

    def _dispatch(self) -> None:
        """Everything that can be decided is decided: choose the target, build the head, get a link."""
        relay, head, passage = self._relay, self.head, self._passage
        assert head is not None and passage is not None
        target = plan(passage.route, self.call, head.query, passage.snapshot)
        if isinstance(target, Failure):
            return self.fail(target)
        call = self.call
        if call is not None and call.stream:
            refused = relay.admission.take_stream(passage.grant)
            if refused is not None:
                return self.fail(refused)
            self._has_stream = True
        if target.model is not None and call is not None and call.model_span is not None:
            self._body.replace(call.model_span, orjson.dumps(target.model))
        provider = target.provider
        self._provider = provider
        self.receipt.provider = provider.name
        self._origin = provider.origin
        identity = call is not None and call.stream and relay.options.identity
        size = self._body.size if self._body.is_held else None
        lines = relay.provider_lines(provider)
        self._upstream_head = passage.upstream_head(head, target, lines, relay.name, size, identity)
        self._connect(is_fresh=False)

    # -- the attempt --------------------------------------------------------------------------------------------------

    def _connect(self, is_fresh: bool) -> None:
        """Take an idle link, or have one opened. `is_fresh`: a pooled one has just failed, take no other."""
        relay, origin = self._relay, self._origin
        assert origin is not None
        self._attempt_began = relay.clock()
        upstream = None if is_fresh else relay.pool.take(origin)
        if upstream is not None:
            self.connected(upstream, True)
            return
        self._enter(Phase.CONNECT, inf)  # which keeps its own time (connect)
        failure = relay.pool.request(origin, self)
        if failure is not None:
            self.fail(failure)

    def queued(self) -> None:
        self._enter(Phase.QUEUE, self._relay.seconds.queue)

    def connected(self, upstream: UpstreamConnection, reused: bool) -> None:
        """A link is ours: write the head and what is there of the body, in this same call stack."""
        head = self.head
        assert head is not None
        self._upstream = upstream
        self._reused = reused
        upstream.exchange = self
        upstream.uses += 1
        upstream.parser.expect(head.method)
        now = self._relay.clock()
        if not reused:
            self.receipt.connect_ms = (now - self._attempt_began) * 1000
        if self._body.is_held:
            self._body.send_held(upstream, self._upstream_head)
            self._sent()
            return
        self._body.send_kept(upstream, self._upstream_head, head.framing)
        if self.has_body:
            self._body.end(upstream, head.framing)
            self._sent()
        elif upstream.is_full:
            self._enter(Phase.SEND, self._relay.seconds.send)
        else:
            self._enter(Phase.BODY, self._relay.seconds.body)
            self.client.resume_reading()

    def _sent(self) -> None:
        """All of the request is written; it may still wait in our buffer."""
        upstream = self._upstream
        assert upstream is not None
        if upstream.is_full and self.answer is None:
            self._enter(Phase.SEND, self._relay.seconds.send)
        else:
            self._await_answer()

    def _await_answer(self) -> None:
        call, seconds = self.call, self._relay.seconds
        if self.answer is None:
            is_stream = call is not None and call.stream
            self._enter(Phase.FIRST_BYTE, seconds.first_byte if is_stream else seconds.first_byte_unary)
        self._sent_at = self.since

    def upstream_full(self) -> None:
        """The upstream takes no more for now."""
        if not self.has_body:
            self.client.pause_reading()
            if self.phase is Phase.BODY:
                self._enter(Phase.SEND, self._relay.seconds.send)

    def upstream_drained(self) -> None:
        if not self.has_body:
            if self.phase is Phase.SEND:
                self._enter(Phase.BODY, self._relay.seconds.body)
            self.client.resume_reading()
        elif self.phase is Phase.SEND:
            self._await_answer()

    def connect_failed(self, failure: Failure) -> None:
        if self.phase is not Phase.DONE:
            self.fail(failure)

    # -- the answer ---------------------------------------------------------------------------------------------------

    def upstream_read(self, parser: ResponseParser) -> None:
        """Something came from the upstream, or its end. The straight path of a streamed answer: six Python frames from
        data_received (upstream) over feed (parser), here, Answer.feed, EventCutter.feed and Watch.feed to the write."""
        answer = self.answer
        failure = parser.failure
        if answer is None:
            head = parser.head
            if head is None:
                if failure is not None:
                    self._lost(failure)
                return
            if not self._begin_answer(head):
                return
            answer = self.answer
            assert answer is not None
        is_last = parser.is_complete and failure is None
        pieces = parser.pieces
        if pieces or is_last or answer.bytes_out == 0:
            if failure is not None and not answer.is_stream:
                # Framing broke in this read: what it brought cannot be told from what must not be passed on.
                pieces.clear()
            now = self._relay.clock()
            if answer.feed(pieces, is_last) and (pieces or is_last):
                self.since = now
                if self.phase is not Phase.STREAM:
                    self._first_event(now)
            pieces.clear()
        if failure is not None:
            self.fail(failure._replace(phase=self.phase))
        elif is_last:
            self._answer_ended(answer, parser)

    def _lost(self, failure: Failure) -> None:
        """The link died, or broke HTTP, before an answer. A pooled one that was dead already is tried again, once."""
        upstream, relay = self._upstream, self._relay
        assert upstream is not None
        is_stale = (
            failure.kind is Kind.RESET
            and self._reused
            and not self._has_retried
            and not upstream.parser.has_begun
            and (self._body.is_held or (self.has_body and not self.receipt.bytes_in))
            and relay.clock() - self._sent_at < STALE_SECONDS
        )
        failure = failure._replace(phase=self.phase)
        if not is_stale:
            return self.fail(failure)
        self._end_attempt(failure, 0)
        self._has_retried = True
        self._upstream = None
        relay.pool.drop(upstream)
        self._connect(is_fresh=True)

    def _begin_answer(self, head: ResponseHead) -> bool:
        relay, request, provider, passage = self._relay, self.head, self._provider, self._passage
        assert request is not None and provider is not None and passage is not None
        now = relay.clock()
        if self.has_body:
            self._body.release()  # no other attempt can follow: do not hold 32 MiB through a long stream
        receipt = self.receipt
        receipt.first_byte_ms = (now - self.began) * 1000
        receipt.provider_request_id = provider_request_id(head)
        if head.status in (401, 403) and provider.credential is not None and not passage.grant.passthrough:
            detail = f"the provider {provider.name} refused this proxy's credential with status {head.status}"
            self.fail(Failure(Side.UPSTREAM, self.phase, Kind.CREDENTIAL_REFUSED, detail))
            return False
        closes = not (request.keep_alive and self.has_body and self.client.can_go_on)
        answer = Answer(self.client, request, head, self.call, self.dialect, relay.options.bytes, closes)
        self.answer = answer
        receipt.status = head.status
        if answer.is_stream:
            self._enter_at(Phase.FIRST_EVENT, relay.seconds.first_event, self._sent_at)
        else:
            self._enter_at(Phase.STREAM, relay.seconds.stream, now)
        if self.client.is_full:
            self.client_full()
        return True

    def _first_event(self, now: float) -> None:
        self.receipt.first_event_ms = (now - self.began) * 1000
        self._enter(Phase.STREAM, self._relay.seconds.stream)

    def _answer_ended(self, answer: Answer, parser: ResponseParser) -> None:
        if answer.lacks_end:
            detail = "the provider's stream ended without a finish"
            self.fail(Failure(Side.UPSTREAM, Phase.STREAM, Kind.MISSING_END, detail))
            return
        failure: Failure | None = None
        if answer.status >= 400:
            failure = Failure(Side.UPSTREAM, Phase.DONE, Kind.ERROR_STATUS, f"the provider answered {answer.status}")
        elif answer.watch is not None and answer.watch.has_error:
            failure = Failure(Side.UPSTREAM, Phase.STREAM, Kind.ERROR_EVENT, "the provider's stream told an error")
        self._end_attempt(failure, answer.status)
        upstream, head = self._upstream, parser.head
        assert upstream is not None and head is not None
        self._upstream = None
        if parser.is_clean and head.keep_alive and self.has_body and not upstream.is_full and not upstream.is_lost:
            if self.client.is_full:  # for whose sake it was paused; who takes it next must be able to read
                upstream.transport.resume_reading()
            self._relay.pool.give(upstream, self._relay.clock())
        else:
            self._relay.pool.drop(upstream)
        self._finish(failure)
        self.client.exchange_ended(not answer.closes)

    def client_full(self) -> None:
        """The client does not keep up: stop reading from the upstream."""
        if self._upstream is not None and self.answer is not None and not self._upstream.is_lost:
            self._upstream.transport.pause_reading()

    def client_drained(self) -> None:
        if self._upstream is not None and not self._upstream.is_lost:
            self.since = self._relay.clock()  # the pause was the client's, not the upstream's
            self._upstream.transport.resume_reading()

    # -- endings ------------------------------------------------------------------------------------------------------

    def fail(self, failure: Failure) -> None:
        """End it, whatever the phase: with an answer if none has begun, else by breaking it off."""
        if self.phase is Phase.DONE:
            return
        answer = self.answer
        status = status_of(failure)
        self._release_upstream(failure)
        if answer is not None:
            answer.break_off(failure, status, self.id)
            self._finish(failure)
            self.client.exchange_cut(hard=self.head is not None and self.head.version == b"1.0")
            return
        keeps = self._answer_failure(failure, status)
        self._finish(failure)
        self.client.exchange_ended(keeps)

    def crashed(self, error: Exception) -> None:
        """A fault of ours: the loop's handler is told, the client gets an honest end."""
        self._relay.loop.call_exception_handler({"message": "an exchange failed", "exception": error})
        self.fail(Failure(Side.PROXY, self.phase, Kind.INTERNAL, "this proxy has a fault; its log says where"))

    def client_left(self) -> None:
        """The client has gone: whatever runs for it is stopped at once."""
        if self.phase is Phase.DONE:
            return
        failure = Failure(Side.CLIENT, self.phase, Kind.CLIENT_LEFT, "the client closed the connection")
        self._release_upstream(failure)
        self.client.exchange = None
        self._finish(failure)

    def _answer_failure(self, failure: Failure, status: int) -> bool:
        """Write an error answer. True if the connection may carry another request."""
        head, client = self.head, self.client
        keeps = head is not None and head.keep_alive and client.can_go_on
        answer, size = error_answer(head, self.dialect, failure, status, self.id, keeps)
        self.receipt.status = status
        self.receipt.bytes_out = size
        client.write(answer)
        return keeps

    def _answer_options(self) -> None:
        head = self.head
        assert head is not None
        self.receipt.status = 204
        keeps = head.keep_alive and self.client.can_go_on
        self.client.write(options_answer(head, keeps))
        self._finish(None)
        self.client.exchange_ended(keeps)

    def _release_upstream(self, failure: Failure) -> None:
        upstream = self._upstream
        if upstream is not None:
            head = upstream.parser.head
            self._end_attempt(failure, 0 if head is None else head.status)
            self._upstream = None
            self._relay.pool.drop(upstream)
        elif self.phase in (Phase.CONNECT, Phase.QUEUE) and self._origin is not None:
            self._end_attempt(failure, 0)
            self._relay.pool.withdraw(self._origin, self)

    def _end_attempt(self, failure: Failure | None, status: int) -> None:
        assert self._provider is not None
        started = (self._attempt_began - self.began) * 1000
        self.receipt.attempts.append(Attempt(self._provider.name, started, self._reused, status, failure))

    def _finish(self, failure: Failure | None) -> None:
        """The one end of every exchange: give back what was taken, write the receipt."""
        relay, receipt, answer = self._relay, self.receipt, self.answer
        self.phase = Phase.DONE
        self._body.release()
        if self._has_stream and self._passage is not None:
            relay.admission.give_stream(self._passage.grant)
        receipt.total_ms = (relay.clock() - self.began) * 1000
        if answer is not None:
            receipt.bytes_out = answer.bytes_out
            if answer.watch is not None:
                receipt.events = answer.watch.events
        if failure is not None:
            receipt.complete = False
            receipt.ended_by = failure.side
            receipt.ended_phase = failure.phase
            receipt.ended_kind = failure.kind.value
            receipt.detail = failure.detail
        relay.record(receipt)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase, limit: float) -> None:
        self._enter_at(phase, limit, self._relay.clock())

    def _enter_at(self, phase: Phase, limit: float, since: float) -> None:
        self.phase = phase
        self.limit = limit
        self.since = since
        due = since + (phases.STEP if phase is Phase.SEND else limit)
        self.client.deadline = due if due < self.total_due else self.total_due
        if self.client.is_full:
            self.client.watch_stall()

    def check(self, now: float) -> float:
        """Called by the sweeper: the next moment to look, or the exchange has failed."""
        failure = phases.check(self, self._relay, self._upstream, now)
        if failure is not None:
            self.fail(failure)
            return inf
        due = min(self.since + self.limit, self.total_due)
        return min(due, now + phases.STEP) if self.phase in (Phase.SEND, Phase.BODY) else due


def _too_large(limit: int) -> Failure:
    return Failure(Side.CLIENT, Phase.BODY, Kind.BODY_TOO_LARGE, f"the request body is larger than {limit} bytes")
