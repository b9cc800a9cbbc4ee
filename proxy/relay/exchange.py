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

from proxy.dialects.call import Call, Dialect, UnreadableBody
from proxy.outcome import Failure, Kind, Phase, Receipt, Side, Usage, milliseconds, status_of
from proxy.policy.router import PLAIN, Target, dialect_of
from proxy.relay import phases
from proxy.relay.absent import AbsentClient
from proxy.relay.answer import Answer, provider_request_id, timing_lines
from proxy.relay.attempt import Attempt
from proxy.relay.body import RequestBody
from proxy.relay.local import error_answer, options_answer
from proxy.relay.metering import Metering, charge
from proxy.relay.request import Passage, pass_in
from proxy.relay.taking import Taking
from proxy.relay.upstream import UpstreamConnection
from proxy.wire import encode
from proxy.wire.head import RequestHead, ResponseHead
from proxy.wire.responses import ResponseParser

if TYPE_CHECKING:
    from proxy.relay.client import ClientConnection
    from proxy.relay.relay import Relay

_ERROR_EVENT = Failure(Side.UPSTREAM, Phase.STREAM, Kind.ERROR_EVENT, "the provider's stream told an error")

# Looked up once: on Python 3.11 a member of an enum costs 0.12 us each time, and a request has thirty of them.
_HEAD, _ADMIT, _BODY, _SEND = Phase.HEAD, Phase.ADMIT, Phase.BODY, Phase.SEND
_FIRST_EVENT, _STREAM, _DONE = Phase.FIRST_EVENT, Phase.STREAM, Phase.DONE

# Without an answer a provider may bill what it was asked all the same, if it was us or the client who broke it off.
_MAY_COST = frozenset({Kind.CLIENT_LEFT, Kind.TIMEOUT, Kind.SHUTDOWN, Kind.INTERNAL})


class Exchange:
    __slots__ = (
        "answer", "began", "body", "call", "client", "dialect", "has_body", "head", "hides_usage", "id", "limit",
        "number", "phase", "receipt", "since", "stop_at", "total_due", "_attempt", "_has_stream", "_left",
        "_metering", "_passage", "_relay", "_taking",
    )  # fmt: skip

    def __init__(self, client: ClientConnection, relay: Relay, head: RequestHead | None, began: float) -> None:
        self.client: ClientConnection | AbsentClient = client
        self.head = head
        self.began = began
        self.phase = _HEAD
        self.since = began
        self.limit = inf  # seconds that the phase may last without progress
        self.number = relay.next_number()
        self.id = relay.id_of(self.number)
        self.has_body = False  # the request body has arrived in full
        # A head that was refused or never finished may have a request line all the same.
        self.dialect: Dialect = PLAIN if head is not None else dialect_of(client.parser.path)
        self.call: Call | None = None
        self.answer: Answer | None = None
        self._relay = relay
        self._passage: Passage | None = None
        self._has_stream = False  # one of its key's
        self._taking: Taking | None = None  # of the limits that it falls under, if there are any
        self.hides_usage: bool = False  # the stream was asked to report usage, by us and not by the client
        self._left: tuple[Failure, int, int] | None = None  # the client has, behind this status and so many bytes
        self._metering: Metering | None = None
        self.body = RequestBody(relay)
        self._attempt: Attempt | None = None
        self.total_due = began + relay.seconds.total
        self.stop_at = inf  # bytes of the answer beyond which its budget is looked at again
        path = "" if head is not None else client.parser.path.decode("ascii")
        self.receipt: Receipt = Receipt(self.id, time.time(), client.address, "", path)

    # -- the request --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The head is there: may it come in, where does it go, is its body held or streamed?"""
        relay, head = self._relay, self.head
        assert head is not None
        self.phase = _ADMIT
        client = self.client
        assert not isinstance(client, AbsentClient)
        relay.look_for_changes()
        passage, now = client.passage if client.parser.is_familiar else None, relay.wall()
        if passage is None or not passage.is_valid(relay.admission, relay.snapshot, now):
            client.passage = None
            passage = client.passage = self._pass_in(head, now, client.uid)
            if passage is None:
                return
        self._passage = passage
        chosen, receipt = passage.route, self.receipt
        self.dialect = chosen.dialect
        receipt.method, receipt.path = passage.method, passage.path
        receipt.key, receipt.tags = passage.grant.key, passage.tags
        receipt.dialect = chosen.dialect.name
        body = self.body
        body.hold(chosen.reads_body)
        if (failure := body.too_large(head.length)) is not None:
            return self.fail(failure)
        if head.expects_continue and not client.parser.received:
            client.write(encode.CONTINUE)
        if not chosen.reads_body:
            self._dispatch()
        elif not client.parser.is_complete:
            self.enter(_BODY, relay.seconds.body)

    def _pass_in(self, head: RequestHead, now: int, uid: int | None) -> Passage | None:
        """Ask policy about a head that is new on this connection. None: it has been answered."""
        self.dialect = dialect_of(head.path)
        self.receipt.method, self.receipt.path = head.method.decode("ascii"), head.path.decode("ascii")
        grant = self._relay.admission.admit(head, now, uid)
        if isinstance(grant, Failure):
            self.fail(grant)
            return None
        self.receipt.key = grant.key
        passed = pass_in(self._relay, head, grant)
        if isinstance(passed, Failure):
            self.fail(passed)
            return None
        if passed is None:
            self._answer_options()
        return passed

    def body_received(self, pieces: list[bytes], received: int) -> None:
        """`pieces` of the request body, of which `received` bytes are here now. Held, or sent on at once."""
        body = self.body
        self.receipt.bytes_in = received
        if (failure := body.too_large(received)) is not None:
            return self.fail(failure)
        if self.phase is _BODY:
            self.since = self._relay.clock()
        attempt = self._attempt
        if attempt is not None and attempt.upstream is not None:
            attempt.forward(pieces)
            return
        body.keep(pieces)
        if not body.has_room:
            detail = "too many request bodies are in flight; try again soon"
            self.fail(Failure(Side.PROXY, _BODY, Kind.OVERLOADED, detail))
        elif not body.is_held and body.size > self._relay.options.bytes.buffer:
            self.client.pause_reading()

    def body_ended(self) -> None:
        """The request body is complete."""
        self.has_body = True
        self.receipt.body_ms = milliseconds(self._relay.clock() - self.began)
        if self.body.is_held:
            self._read_body()
        elif self._attempt is not None:
            self._attempt.body_ended()

    def _read_body(self) -> None:
        head, passage = self.head, self._passage
        assert head is not None and passage is not None
        chosen = passage.route
        self.phase = _ADMIT
        coding = head.get(b"content-encoding")
        try:
            if coding is not None and coding.lower() != b"identity":
                raise UnreadableBody("send the request body without a content-encoding: it must be read to be routed")
            self.call = chosen.dialect.read_call(self.body.whole(), chosen.path, head.query)
        except UnreadableBody as error:
            return self.fail(Failure(Side.CLIENT, _ADMIT, Kind.UNREADABLE_BODY, str(error)))
        self.receipt.model_requested = self.call.model
        self.receipt.stream = self.call.stream
        self._dispatch()

    def _dispatch(self) -> None:
        """Everything that can be decided is decided: choose the target, take from limits."""
        relay, head, passage = self._relay, self.head, self._passage
        assert head is not None and passage is not None
        target = passage.target(self.call, relay.wall())
        if isinstance(target, Failure):
            return self.fail(target)
        chain = passage.chain
        if chain is not None:
            self._taking = Taking(self, relay, passage, target, chain)
            if not self._taking.begin():
                return
        self.proceed(target)

    def proceed(self, target: Target) -> None:
        """It has what it needs of its limits: build the head, get a link."""
        relay, head, passage, call = self._relay, self.head, self._passage, self.call
        assert head is not None and passage is not None
        if call is not None and call.stream:
            refused = relay.admission.take_stream(passage.grant)
            if refused is not None:
                return self.fail(refused)
            self._has_stream = True
        if target.model is not None:
            self.body.rename_model(target.model)
        provider = target.provider
        # In a compressed stream the report could not be taken out again.
        is_readable = relay.options.identity or head.get(b"accept-encoding") is None
        is_metered = relay.options.meters and is_readable
        if call is not None and call.lacks_usage and is_metered and passage.may_ask_for_usage(provider):
            self.body.ask_for_usage()
            self.hides_usage = True
        self.receipt.provider = provider.name
        identity = call is not None and call.stream and relay.options.identity
        size = self.body.size if self.body.is_held else None
        lines = passage.upstream_head(head, target, relay.name, size, identity)
        self._attempt = Attempt(self, relay, head, target, lines)
        self._attempt.begin()

    # -- the answer ---------------------------------------------------------------------------------------------------

    def upstream_read(self, parser: ResponseParser) -> None:
        """Something came from the upstream, or its end. The straight path of a streamed answer: seven Python frames
        from data_received (upstream) over feed (parser), here, Answer.feed, EventCutter.feed and Watch.feed to the
        write."""
        answer = self.answer
        failure = parser.failure
        if answer is None:
            head = parser.head
            if head is None:
                if failure is not None:
                    failure = failure._replace(phase=self.phase)
                    # For a client that has left nobody is asked again.
                    if self._left or self._attempt is None or not self._attempt.replace_stale(failure):
                        self.fail(failure)
                return
            if not self._begin_answer(head, self._relay.clock()):
                return
            answer = self.answer
            assert answer is not None
        is_last = parser.is_complete and failure is None
        pieces = parser.pieces
        now = self._relay.clock()
        if pieces or is_last or answer.bytes_out == 0:
            if failure is not None and not answer.is_stream:
                # Framing broke in this read: what it brought cannot be told from what must not be passed on.
                pieces.clear()
            if answer.feed(pieces, is_last) and (pieces or is_last):
                self.since = now
                if self.phase is not _STREAM:
                    self._first_event(now)
            pieces.clear()
        if failure is not None:
            self.fail(failure._replace(phase=self.phase))
        elif is_last:
            self._answer_ended(answer, now)
        elif answer.bytes_out > self.stop_at and self._taking is not None:
            self._taking.look_again(answer.bytes_out)

    def _begin_answer(self, head: ResponseHead, now: float) -> bool:
        relay, request, attempt, passage = self._relay, self.head, self._attempt, self._passage
        assert request is not None and attempt is not None and passage is not None
        provider = attempt.provider
        if head.status < 300:
            self._begin_metering()
        if self.has_body:
            self.body.release()  # no other attempt can follow: do not hold 32 MiB through a long stream
        receipt = self.receipt
        receipt.first_byte_ms, receipt.provider_request_id = milliseconds(now - self.began), provider_request_id(head)
        if head.status in (401, 403) and not passage.grant.passthrough and provider.has_credential:
            self.fail(attempt.credential_refused(head.status))
            return False
        lines = timing_lines(receipt) if relay.options.shows_timing else b""
        mask = passage.mask_of(provider)
        self.answer = answer = Answer(self, request, head, relay.options.bytes, self._metering, mask, lines)
        receipt.status = head.status
        receipt.detail = answer.remark
        if answer.is_stream:
            self.enter_at(_FIRST_EVENT, relay.seconds.first_event, attempt.sent_at or now)
        else:
            self.enter_at(_STREAM, relay.seconds.stream, now)
        if self.client.is_full:
            self.client_full()
        return True

    def _first_event(self, now: float) -> None:
        self.receipt.first_event_ms = milliseconds(now - self.began)
        self.enter(_STREAM, self._relay.seconds.stream)

    def _answer_ended(self, answer: Answer, now: float) -> None:
        if answer.lacks_end:
            detail = "the provider's stream ended without a finish"
            self.fail(Failure(Side.UPSTREAM, _STREAM, Kind.MISSING_END, detail))
            return
        failure: Failure | None = None
        if answer.status >= 400:
            failure = Failure(Side.UPSTREAM, _DONE, Kind.ERROR_STATUS, f"the provider answered {answer.status}")
        elif answer.watch is not None and answer.watch.has_error:
            failure = _ERROR_EVENT
        assert self._attempt is not None
        self._attempt.succeed(failure, answer.status, now)
        self._finish(failure)
        self.client.exchange_ended(not answer.closes)

    def client_full(self) -> None:
        """The client does not keep up: stop reading from the upstream."""
        upstream = self._upstream
        if upstream is not None and self.answer is not None and not upstream.is_lost:
            upstream.transport.pause_reading()

    def client_drained(self) -> None:
        upstream = self._upstream
        if upstream is not None and not upstream.is_lost:
            self.since = self._relay.clock()  # the pause was the client's, not the upstream's
            upstream.transport.resume_reading()

    def upstream_full(self) -> None:
        if self._attempt is not None:
            self._attempt.upstream_full()

    def upstream_drained(self) -> None:
        if self._attempt is not None:
            self._attempt.upstream_drained()

    @property
    def _upstream(self) -> UpstreamConnection | None:
        return None if self._attempt is None else self._attempt.upstream

    # -- endings ------------------------------------------------------------------------------------------------------

    def fail(self, failure: Failure, lines: bytes = b"") -> None:
        """End it, whatever the phase: with an answer if none has begun, which gets these fields, else by breaking it
        off."""
        if self.phase is _DONE:
            return
        answer = self.answer
        status = status_of(failure)
        self._give_up(failure)
        if answer is not None:
            answer.break_off(failure, status)
            self._finish(failure)
            self.client.exchange_cut(hard=self.head is not None and self.head.version == b"1.0")
            return
        keeps = self._answer_failure(failure, status, lines)
        self._finish(failure)
        self.client.exchange_ended(keeps)

    def crashed(self, error: Exception) -> None:
        """A fault of ours: the loop's handler is told, the client gets an honest end."""
        self._report(error)
        self.fail(Failure(Side.PROXY, self.phase, Kind.INTERNAL, "this proxy has a fault; its log says where"))

    def _report(self, error: Exception) -> None:
        self._relay.loop.call_exception_handler({"message": "an exchange failed", "exception": error})

    def client_left(self) -> None:
        """The client has gone: whatever runs for it is stopped at once. SDKs close as soon as they have read a stream's
        last event or its error, often before the message ends: that is not leaving."""
        if self.phase is _DONE:
            return
        failure: Failure | None
        watch = None if self.answer is None else self.answer.watch
        if watch is not None and watch.has_error:
            failure = _ERROR_EVENT
        elif watch is not None and watch.is_terminal and self.client.has_received_all:
            failure = None
        else:
            failure = Failure(Side.CLIENT, self.phase, Kind.CLIENT_LEFT, "the client closed the connection")
            if self._reads_on(failure):
                return
        self._give_up(failure)
        self.client.exchange = None
        self._finish(failure)

    def _reads_on(self, failure: Failure) -> bool:
        """The client has gone: put somebody in its place who reads the answer to its end, so that its usage is known.
        Only once the provider has got all of the request: until then nothing is spent."""
        relay, attempt, client = self._relay, self._attempt, self.client
        if attempt is None or not attempt.sent_at or self.call is None or self._passage is None or self._left:
            return False
        policy = relay.disconnect_of(self._passage.grant, self.answer is not None and self.answer.is_said)
        if not policy.drains:
            return False
        client.exchange = None
        was_full = client.is_full
        answer = self.answer
        self._left = failure, self.receipt.status, 0 if answer is None else answer.bytes_out
        self.client = AbsentClient(relay, self)
        self.total_due = min(self.total_due, relay.clock() + policy.seconds)
        if answer is not None:
            answer.replace_client(self.client)
        if was_full:
            self.client_drained()
        self.enter_at(self.phase, self.limit, self.since)
        return True

    def _answer_failure(self, failure: Failure, status: int, lines: bytes) -> bool:
        """Write an error answer. True if the connection may carry another request."""
        head, client = self.head, self.client
        keeps = head is not None and head.keep_alive and client.can_go_on
        answer, self.receipt.bytes_out = error_answer(head, self.dialect, failure, status, self.id, keeps, lines)
        self.receipt.status = status
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

    def _give_up(self, failure: Failure | None) -> None:
        if self._attempt is not None:
            self._attempt.give_up(failure)
            self._attempt = None

    def _finish(self, failure: Failure | None) -> None:
        """The one end of every exchange: give back what was taken, write the receipt."""
        relay, receipt, answer = self._relay, self.receipt, self.answer
        self.phase = _DONE
        if answer is None and failure is not None and failure.kind in _MAY_COST and receipt.sent_ms is not None:
            self._begin_metering()
        self._attempt = None  # it refers back: as a cycle both would live until the collector runs
        self.body.release()
        if self._has_stream and self._passage is not None:
            relay.admission.give_stream(self._passage.grant)
        if self._taking is not None:
            self._taking.release()
        receipt.total_ms = milliseconds(relay.clock() - self.began)
        has_ended_well = failure is None
        if answer is not None:
            receipt.bytes_out = answer.bytes_out
            if answer.watch is not None:
                receipt.events = answer.watch.events
                has_ended_well = has_ended_well or (answer.watch.is_complete and not answer.watch.has_error)
        if self._left is not None:
            failure, receipt.status, receipt.bytes_out = self._left
        if failure is not None:
            receipt.note(failure)
        metering = self._metering
        if metering is None:
            # Not metered by our own wish: nobody will know what it used.
            self._record(None, is_known=relay.options.meters or answer is None or answer.status >= 300)
            return
        try:
            metering.finish(answer is not None, has_ended_well, self._charge)
        except Exception as error:  # a fault in a figure must cost neither the receipt nor the client's connection
            self._report(error)
            metering.release()
            self._record(None, is_known=False)

    def _begin_metering(self) -> None:
        """A provider has got the whole request, and may want money for it."""
        if self.call is not None and self._relay.options.meters and not self.call.is_free and self._metering is None:
            generates = self.call.cap != 0
            self._metering = Metering(self._relay, self.number, self.dialect, self.body.whole(), generates)

    def _charge(self, usage: Usage, model: str | None) -> None:
        """What was used is known: the last that a receipt waits for."""
        receipt, passage = self.receipt, self._passage
        assert passage is not None
        receipt.usage = usage
        receipt.model_served = model or receipt.model_served
        try:
            charge(receipt, usage, passage.snapshot)
        except Exception as error:  # as in `_finish`
            self._report(error)
        self._record(usage)

    def _record(self, usage: Usage | None, is_known: bool = True) -> None:
        """The very last: give back what was reserved and not used, hand over the receipt."""
        if self._taking is not None:
            self._taking.settle(usage, self.receipt.cost_micros, is_known)
        self._relay.record(self.receipt, self._passage)

    # -- time ---------------------------------------------------------------------------------------------------------

    def enter(self, phase: Phase, limit: float) -> None:
        self.enter_at(phase, limit, self._relay.clock())

    def enter_at(self, phase: Phase, limit: float, since: float) -> None:
        self.phase = phase
        self.limit = limit
        self.since = since
        # In these two, progress and an average rate are looked for before the limit is up, be it infinite.
        is_watched = (phase is _BODY or phase is _SEND) and limit > phases.STEP
        due = since + (phases.STEP if is_watched else limit)
        self.client.deadline = due if due < self.total_due else self.total_due
        if self.client.is_full:
            self.client.watch_stall()

    def check(self, now: float) -> float:
        """Called by the sweeper: the next moment to look, or the exchange has failed."""
        failure = phases.check(self, self._relay, self._upstream, now)
        if failure is not None:
            if self._taking is not None and self._taking.is_waiting and failure.phase is Phase.QUEUE:
                self._taking.refuse()
            else:
                self.fail(failure)
            return inf
        due = min(self.since + self.limit, self.total_due)
        return min(due, now + phases.STEP) if self.phase in (_SEND, _BODY) else due
