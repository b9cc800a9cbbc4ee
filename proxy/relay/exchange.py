"""One request with its answer, from the head to the receipt.

Lives here: `Exchange`: the request, the client's side, and `_finish`, through which every exchange passes exactly once.
May not live here: sockets (client, upstream), the bytes of answers (answer), decisions (policy, dialects), one try at a
target and its answer (attempt), which target is tried when (attempts).
How it works: a state machine of plain calls. client: begin -> body_received -> body_ended; then attempts, one of which
in the end is `answer_with`. Whatever goes wrong becomes a Failure: an attempt's first goes to `try_again`, and what
nothing mends to `fail`, which answers if no answer has begun, or breaks it off honestly. A body that its dialect must
read is held; all else streams through.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.dialects.call import Call, Dialect, UnreadableBody
from proxy.outcome import Failure, Kind, Phase, Receipt, Side, milliseconds, status_of
from proxy.policy.limits import Chain, Refusal
from proxy.policy.plan import Plan
from proxy.policy.retry import Verdict
from proxy.policy.router import PLAIN, dialect_of
from proxy.relay import phases
from proxy.relay.absent import AbsentClient
from proxy.relay.answer import Answer
from proxy.relay.attempt import Attempt
from proxy.relay.attempts import Attempts
from proxy.relay.body import RequestBody
from proxy.relay.booking import Booking
from proxy.relay.held import ERROR_EVENT
from proxy.relay.local import Ours, error_answer, list_dialect, our_answer
from proxy.relay.request import Passage, pass_in
from proxy.relay.taking import Taking
from proxy.relay.upstream import UpstreamConnection
from proxy.wire import encode
from proxy.wire.head import RequestHead

if TYPE_CHECKING:
    from proxy.relay.client import ClientConnection
    from proxy.relay.relay import Relay
    from proxy.relay.sending import Sending

# Looked up once: on Python 3.11 a member of an enum costs 0.12 us each time, and a request has thirty of them.
_HEAD: Final = Phase.HEAD
_ADMIT: Final = Phase.ADMIT
_BODY: Final = Phase.BODY
_SEND: Final = Phase.SEND
_DONE: Final = Phase.DONE
_NO_LIMITS: Final = Chain("")


class Exchange:
    __slots__ = (
        "answer", "attempts", "began", "body", "booking", "call", "client", "dialect", "has_body", "head", "id",
        "limit", "passage", "phase", "receipt", "seconds", "since", "taking", "total_due", "_has_stream", "_left",
        "_relay",
    )  # fmt: skip

    def __init__(self, client: ClientConnection, relay: Relay, head: RequestHead | None, began: float) -> None:
        self.client: ClientConnection | AbsentClient = client
        self.head = head
        self.began = began
        self.phase = _HEAD
        self.since = began
        self.limit = inf  # seconds that the phase may last without progress
        number = relay.next_number()
        self.id = relay.id_of(number)
        self.has_body = False  # the request body has arrived in full
        # A head that was refused or never finished may have a request line all the same.
        self.dialect: Dialect = PLAIN if head is not None else dialect_of(client.parser.path)
        self.call: Call | None = None
        self.answer: Answer | None = None  # the one that the client gets, once that is certain
        self.passage: Passage | None = None
        self.attempts: Attempts | None = None
        self.booking = Booking(relay, number)
        self.seconds = relay.seconds  # limits; an alias may have others
        self.taking: Taking | None = None  # of the limits that it falls under, if there are any
        self._relay = relay
        self._has_stream = False  # one of its key's
        self._left: tuple[Failure, int, int] | None = None  # the client has, behind this status and so many bytes
        self.body = RequestBody(relay)
        self.total_due = began + relay.seconds.total
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
        self.passage = passage
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
        if isinstance(passed, Passage):
            return passed
        if isinstance(passed, Failure):
            if passed.kind is Kind.MODEL_UNKNOWN:
                self.dialect = list_dialect(head)
                self.receipt.dialect = self.dialect.name
            self.fail(passed)
        else:
            self._answer_here(head, passed)
        return None

    def body_received(self, pieces: list[bytes], received: int) -> None:
        """`pieces` of the request body, of which `received` bytes are here now. Held, or sent on at once."""
        body = self.body
        self.receipt.bytes_in = received
        if (failure := body.too_large(received)) is not None:
            return self.fail(failure)
        if self.phase is _BODY:
            self.since = self._relay.clock()
        attempt = self._current
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
        elif self._current is not None:
            self._current.body_ended()

    def _read_body(self) -> None:
        head, passage = self.head, self.passage
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
        """Everything that can be decided is decided: which targets may answer; take from limits."""
        relay, passage = self._relay, self.passage
        assert passage is not None
        plan = passage.plan(self.call, self.body, relay.wall())
        if isinstance(plan, Failure):
            return self.fail(plan)
        chain = passage.chain
        if chain is None and plan.alias is not None and relay.admission.limiter.has_rules:
            chain = _NO_LIMITS  # but each target's own
        if chain is not None:
            self.taking = Taking(self, relay, passage, plan, chain)
            if not self.taking.begin():
                return
        self.proceed(plan)

    def proceed(self, plan: Plan) -> None:
        """It has what it needs of its limits: make the first attempt."""
        relay, passage, call = self._relay, self.passage, self.call
        assert passage is not None
        if call is not None and call.stream:
            refused = relay.admission.take_stream(passage.grant)
            if refused is not None:
                return self.fail(refused)
            self._has_stream = relay.admission.counts_streams
        alias = plan.alias
        if alias is not None:
            self.receipt.alias = alias.name
            if alias.seconds:
                self.seconds = relay.seconds.with_own(alias.seconds)
                self.total_due = self.began + self.seconds.total
        self.attempts = Attempts(self, relay, plan)
        self.attempts.begin()

    # -- attempts -----------------------------------------------------------------------------------------------------

    @property
    def can_be_replaced(self) -> bool:
        """Whether the attempt that runs may not be the one that answers."""
        return self.attempts is not None and self.attempts.can_be_replaced

    @property
    def has_left(self) -> bool:
        """The client has, and its answer is read on."""
        return self._left is not None

    def try_again(self, attempt: Attempt, failure: Failure, verdict: Verdict) -> bool:
        """`attempt` has failed. True: another one takes its place. False: it is what there is."""
        attempts = self.attempts
        assert attempts is not None
        if attempts.lost_one(attempt, failure):
            return True
        following = attempts.after(attempt, failure, verdict)
        if following is None:
            return False
        attempts.give_up(failure)
        attempts.follow(following)
        return True

    def answer_with(self, attempt: Attempt) -> None:
        """The client gets the answer of `attempt`, whatever becomes of it."""
        attempts = self.attempts
        assert attempts is not None
        if attempts.may_race:
            attempts.won(attempt)
        self.answer = attempt.answer
        if self.has_body and not (attempts.may_resume and attempts.resumes):
            self.body.release()  # no other attempt can follow: do not hold 32 MiB through a long stream
        if self.answer is not None:
            self.receipt.status = self.answer.status
            self.receipt.detail = self.answer.remark

    def carry_on_with(self, answer: Answer) -> None:
        """`answer` is the rest of what the client has."""
        self.answer = answer
        if not self.resumes:
            self.body.release()

    @property
    def attempts_made(self) -> int:
        return 0 if self.attempts is None else self.attempts.made

    @property
    def resumes(self) -> bool:
        """If the answer breaks off, another attempt may carry it on."""
        return self.attempts is not None and self.attempts.may_resume and self.attempts.resumes

    def broke(self, attempt: Attempt, failure: Failure) -> None:
        """The answer that the client gets has broken off, or what was to carry it on has failed."""
        if self.attempts is None or not self.attempts.resume(attempt, failure):
            self.end_cut(failure, failure)

    def end_cut(self, failure: Failure, cut: Failure) -> None:
        """Nothing carries on the answer, which broke off by `cut`. The attempt that runs has failed by `failure`."""
        if self.attempts is not None:
            cut = self.attempts.cut or cut
            self.attempts.give_up(failure)
        self.fail(cut)

    def answered(self, failure: Failure | None, answer: Answer) -> None:
        """The answer has ended as its message said, be it an error (`failure`)."""
        self._finish(failure)
        self.client.exchange_ended(not answer.closes)

    def look_again(self, attempt: Attempt, answer: Answer) -> None:
        """The answer is longer than what was reserved for it."""
        if self.taking is not None:
            self.taking.look_again(attempt, answer)

    def refuse(self, refusal: Refusal | Failure) -> None:
        """No target's own limits let it pass."""
        cut = None if self.attempts is None else self.attempts.cut
        if cut is not None:
            self.end_cut(cut, cut)
        elif isinstance(refusal, Failure):
            self.fail(refusal)
        elif self.taking is not None:
            self.taking.refuse_by(refusal)

    def client_full(self) -> None:
        """The client does not keep up: stop reading from the upstream."""
        attempt, upstream = self._current, self._upstream
        # One that is to carry on an answer is paused with its head: until then its own limits count.
        if attempt is None or attempt.answer is None or self.answer is None:
            return
        if upstream is not None and not upstream.is_lost:
            upstream.read_later()

    def client_drained(self, is_slow: bool = False) -> None:
        attempt, upstream = self._current, self._upstream
        if attempt is not None and upstream is not None and not upstream.is_lost:
            attempt.since = self._relay.clock()  # the pause was the client's, not the upstream's
            upstream.read_on(is_slow)

    @property
    def _current(self) -> Attempt | None:
        return None if self.attempts is None else self.attempts.current

    @property
    def _upstream(self) -> UpstreamConnection | None:
        attempt = self._current
        return None if attempt is None else attempt.upstream

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
        self.report(error)
        self.fail(Failure(Side.PROXY, self.phase, Kind.INTERNAL, "this proxy has a fault; its log says where"))

    def report(self, error: Exception) -> None:
        self._relay.loop.call_exception_handler({"message": "an exchange failed", "exception": error})

    def client_left(self) -> None:
        """The client has gone: whatever runs for it is stopped at once. SDKs close as soon as they have read a stream's
        last event or its error, often before the message ends: that is not leaving."""
        if self.phase is _DONE:
            return
        failure: Failure | None
        watch = None if self.answer is None else self.answer.watch
        if watch is not None and watch.has_error:
            failure = ERROR_EVENT
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
        relay, attempt, client = self._relay, self._current, self.client
        if attempt is None or not attempt.sent_at or self.call is None or self.passage is None or self._left:
            return False
        policy = relay.disconnect_of(self.passage.grant, self.answer is not None and self.answer.is_said)
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
        self.entered(attempt)
        if self.attempts is not None and self.attempts.rival is not None:
            self.entered(self.attempts.rival)
        return True

    def _answer_failure(self, failure: Failure, status: int, lines: bytes) -> bool:
        """Write an error answer. True if the connection may carry another request."""
        head, client = self.head, self.client
        keeps = head is not None and head.keep_alive and client.can_go_on
        answer, self.receipt.bytes_out = error_answer(head, self.dialect, failure, status, self.id, keeps, lines)
        self.receipt.status = status
        client.write(answer)
        return keeps

    def _answer_here(self, head: RequestHead, ours: Ours) -> None:
        """No provider is asked."""
        receipt = self.receipt
        receipt.status = 200 if ours.body else 204
        receipt.dialect = ours.dialect.name
        receipt.bytes_out = 0 if head.method == b"HEAD" else len(ours.body)
        keeps = head.keep_alive and self.client.can_go_on
        self.client.write(our_answer(head, ours, self.id, keeps))
        self._finish(None)
        self.client.exchange_ended(keeps)

    def _give_up(self, failure: Failure | None) -> None:
        if self.attempts is not None:
            self.attempts.give_up(failure)

    def _finish(self, failure: Failure | None) -> None:
        """The one end of every exchange: give back what was taken, write the receipt."""
        relay, receipt, answer = self._relay, self.receipt, self.answer
        self.phase = _DONE
        self.attempts = None  # they refer back: as a cycle all would live until the collector runs
        self.body.release()
        if self._has_stream and self.passage is not None:
            relay.admission.give_stream(self.passage.grant)
        if self.taking is not None:
            self.taking.release()
        receipt.total_ms = milliseconds(relay.clock() - self.began)
        if answer is not None:
            receipt.bytes_out = answer.bytes_out
            if answer.watch is not None:
                receipt.events = answer.events
        if self._left is not None:
            failure, receipt.status, receipt.bytes_out = self._left
        if failure is not None:
            receipt.note(failure)
        self.booking.close(self)

    # -- time ---------------------------------------------------------------------------------------------------------

    def enter(self, phase: Phase, limit: float) -> None:
        self.enter_at(phase, limit, self._relay.clock())

    def enter_at(self, phase: Phase, limit: float, since: float) -> None:
        """Before there is an attempt, and between two of them."""
        self.phase = phase
        self.limit = limit
        self.since = since
        self._set_deadline(phase, limit, since)

    def entered(self, attempt: Sending) -> None:
        """`attempt` has come to a phase of its own."""
        attempts, before = self.attempts, self.client.deadline
        rival = None if attempts is None else attempts.rival
        if attempt is not rival:
            self.phase = attempt.phase
        self._set_deadline(attempt.phase, attempt.limit, attempt.since)
        if attempt.held is not None:
            self.client.deadline = min(self.client.deadline, attempt.held.until)
        if rival is not None:
            self.client.deadline = min(self.client.deadline, before)  # of the other one

    def _set_deadline(self, phase: Phase, limit: float, since: float) -> None:
        # In these two, progress and an average rate are looked for before the limit is up, be it infinite.
        if (phase is _BODY or phase is _SEND) and limit > phases.STEP:
            limit = phases.STEP
        due, client = since + limit, self.client
        client.deadline = due if due < self.total_due else self.total_due
        if client.is_full:
            client.watch_stall()

    def check(self, now: float) -> float:
        """Called by the sweeper: the next moment to look, or the exchange has failed."""
        if now >= self.total_due:
            detail = f"the exchange took longer than {self.seconds.total:g} s"
            self.fail(Failure(Side.PROXY, Phase.TOTAL, Kind.TIMEOUT, detail))
            return inf
        attempts, attempt = self.attempts, self._current
        if attempts is not None and attempt is not None:
            due = attempts.check(now)
            if self._current is not attempt:  # another one has its own
                return self.client.deadline
        else:
            failure = phases.check(self, self, self._relay, None, now)
            if failure is not None:
                if self.taking is not None and self.taking.is_waiting and failure.phase is Phase.QUEUE:
                    self.taking.refuse()
                else:
                    self.fail(failure)
                return inf
            due = self.since + self.limit
        due = min(due, self.total_due)
        return min(due, now + phases.STEP) if self.phase in (_SEND, _BODY) else due
