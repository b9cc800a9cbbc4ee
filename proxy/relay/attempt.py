"""One try of an exchange at one target.

Lives here: `Attempt`: reading the answer, how it ended, and whether a link that died may be replaced. May not live
here: getting a link and writing on it (sending), which target it is and what follows if it fails (attempts), the bytes
of answers (answer).
How it works: a pooled link that was dead already is replaced once, at no cost: its answer to the request is its end,
within one round trip. As long as another attempt is possible, an answer that may be no good is held back: an error
until it is whole, a stream until its first event with content.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from proxy.catalog.mask import Mask
from proxy.dialects.causes import Cause, cause_of, wait_in
from proxy.outcome import Attempt as Tried
from proxy.outcome import Failure, Kind, Phase, Side, milliseconds
from proxy.policy.plan import Target
from proxy.policy.retry import FINAL, Verdict, judge_failure, judge_status
from proxy.relay import phases
from proxy.relay.answer import Answer, provider_request_id, timing_lines
from proxy.relay.held import ERROR_EVENT, error_status, hold, missing_end
from proxy.relay.metering import Metering
from proxy.relay.resuming import ResumedAnswer
from proxy.relay.sending import Sending
from proxy.wire.head import ResponseHead
from proxy.wire.responses import NOTHING, ResponseParser

if TYPE_CHECKING:
    from proxy.relay.exchange import Exchange
    from proxy.relay.relay import Relay
    from proxy.relay.stakes import Stake

# Later than this after the request was sent the upstream may have begun to work, and a second try could be billed twice
# (HTTP.md 4.10).
STALE_SECONDS: Final = 1.0

# Looked up once: on Python 3.11 a member of an enum costs 0.12 us each time, and a request has thirty of them.
_FIRST_BYTE: Final = Phase.FIRST_BYTE
_FIRST_EVENT: Final = Phase.FIRST_EVENT
_STREAM: Final = Phase.STREAM
_DONE: Final = Phase.DONE

_new: Final = tuple.__new__

# Which organization or project of OpenAI's pays: a key may be good, and not for that one.
_OF_CLIENTS: Final = (b"openai-organization", b"openai-project")

# Without an answer a provider may bill what it was asked all the same, if it was us or the client who broke it off.
_MAY_COST: Final = frozenset({Kind.CLIENT_LEFT, Kind.TIMEOUT, Kind.SHUTDOWN, Kind.INTERNAL, Kind.OUTRUN})


class Attempt(Sending):
    """`stake` is what it has to win or lose: limits, a credential, the standing of its target. `hides_usage`: the
    stream was asked to report usage by us and not by the client."""

    __slots__ = (
        "before", "first_event_ms", "hides_usage", "metering", "stake", "verdict", "why", "_first_byte_ms",
        "_request_id",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, relay: Relay, target: Target, stake: Stake, why: str) -> None:
        super().__init__(exchange, relay, target)
        self.why = why
        self.stake = stake
        self.hides_usage = False
        self.before: Answer | None = None  # what it carries on
        self.metering: Metering | None = None
        self.first_event_ms: float | None = None
        self.verdict: Verdict | None = None  # on its failure
        self._first_byte_ms: float | None = None
        self._request_id: str | None = None

    # -- the answer ---------------------------------------------------------------------------------------------------

    def upstream_read(self, parser: ResponseParser) -> None:
        """Something came from the upstream that its link does not pass on by itself, or its end."""
        answer = self.answer
        failure = parser.failure
        if answer is None:
            head = parser.head
            if head is None:
                if failure is not None:
                    self._ended_early(failure._replace(phase=self.phase))
                return
            if not self._begin_answer(head, self._relay.clock()):
                return
            answer = self.answer
            assert answer is not None
            if self.exchange.taking is not None:
                answer.stop_at = self.exchange.taking.stop_at(self.stake)
        is_last = parser.is_complete and failure is None
        pieces = parser.pieces
        now = self._relay.clock()
        if self.held is not None:
            self.held.hear(pieces)
        if pieces or is_last or answer.bytes_out == 0:
            if failure is not None and not answer.is_stream:
                # Framing broke in this read: what it brought cannot be told from what must not be passed on.
                pieces = NOTHING
            if answer.feed(pieces, is_last) and (pieces or is_last):
                self.since = now
                if self.phase is not _STREAM:
                    self._first_event(now)
            parser.pieces = NOTHING
        if self.held is not None and not self.held.decide(self, answer, is_last, failure):
            return
        if failure is not None:
            self.exchange.broke(self, failure._replace(phase=self.phase))
        elif is_last:
            self._answer_ended(answer, now)
        elif answer.bytes_out > answer.stop_at:
            self.exchange.look_again(self, answer)
        elif answer.is_stream and self.phase is _STREAM and self.held is None and self.upstream is not None:
            self.upstream.answer = answer  # until something else than the next event comes

    def _ended_early(self, failure: Failure) -> None:
        """The link ended, or broke HTTP, before there was an answer."""
        if not self._replace_stale(failure):
            self.failed(failure)

    def _begin_answer(self, head: ResponseHead, now: float) -> bool:
        exchange, relay = self.exchange, self._relay
        request, passage = exchange.head, exchange.passage
        assert request is not None and passage is not None
        self.pieces, self.lines = [], b""  # what follows is another attempt's
        if head.status < 300:
            self.metering = exchange.booking.metering(self)
        self._first_byte_ms = milliseconds(now - exchange.began)
        self._request_id = provider_request_id(head)
        lines = b""
        if relay.options.shows_timing:
            self.describe()
            model = self.target.model or exchange.receipt.model_requested
            lines = timing_lines(exchange.receipt, model, exchange.attempts_made)
        mask = passage.mask_of(self.provider)
        if self.before is not None:
            return self._carry_on(self.before, head, mask, now)
        self.answer = answer = Answer(
            exchange, request, head, relay.options.bytes, self.metering, mask, lines, self.hides_usage, exchange.resumes
        )
        if head.status >= 400 or answer.is_stream:
            self.held = hold(self, answer, head, now)
        if self.held is None:
            exchange.answer_with(self)
        if answer.is_stream:
            self.enter_at(_FIRST_EVENT, exchange.seconds.first_event, self.sent_at or now)
        else:
            self.enter_at(_STREAM, exchange.seconds.stream, now)
            if head.status < 300 and self.stake.is_concerned:
                self.stake.first_event(now - self._began, now, False)
        if exchange.client.is_full:
            exchange.client_full()
        return True

    def _carry_on(self, before: Answer, head: ResponseHead, mask: Mask | None, now: float) -> bool:
        """The rest of an answer that the client has the beginning of."""
        if head.status >= 300:
            self.verdict = self.judge()
            self.failed(error_status(head.status, self.phase))
            return False
        self.answer = answer = ResumedAnswer(self, before, head, self._relay.options.bytes, self.metering, mask)
        self.exchange.carry_on_with(answer)
        self.enter_at(_FIRST_EVENT, self.exchange.seconds.first_event, self.sent_at or now)
        if self.exchange.client.is_full:
            self.exchange.client_full()
        return True

    def _first_event(self, now: float) -> None:
        self.first_event_ms = milliseconds(now - self.exchange.began)
        self.enter_at(_STREAM, self.exchange.seconds.stream, now)
        if self.answer is not None:
            watch = self.answer.watch
            if watch is None or not watch.has_error:
                self.stake.first_event(now - self._began, now, self.answer.is_stream)
            if self.answer.is_stream and self.upstream is not None:
                self.upstream.parser.forget_fields()

    def try_again(self, failure: Failure, verdict: Verdict) -> bool:
        """It has failed. True: another attempt takes its place."""
        self.verdict = verdict
        return self.exchange.try_again(self, failure, verdict)

    def judge(self) -> Verdict:
        """What an error answer says of this target."""
        head = None if self.upstream is None else self.upstream.parser.head
        if head is None:
            return FINAL
        said = b"" if self.held is None else self.held.said()
        verdict = judge_status(head.status, head.get, cause_of(head.status, said), self._relay.wall() / 1e9)
        return verdict if verdict.wait is not None else verdict._replace(wait=wait_in(said))

    def _answer_ended(self, answer: Answer, now: float) -> None:
        exchange = self.exchange
        if answer.lacks_end:
            exchange.broke(self, missing_end())
            return
        failure: Failure | None = None
        if answer.status >= 400:
            failure = error_status(answer.status, _DONE)
            self.verdict = self.verdict or self.judge()
        elif answer.watch is not None and answer.watch.has_error:
            failure = ERROR_EVENT
        self._succeed(failure, answer, now)
        exchange.answered(failure, answer)

    # -- the end ------------------------------------------------------------------------------------------------------

    def check(self, now: float) -> float:
        """What has taken too long, if anything has. The next moment to look; infinity if it has failed."""
        if self.answer is not None and self.answer.heard_at > self.since:
            self.since = self.answer.heard_at
        if self.held is not None and self.answer is not None and now >= self.held.until:
            if self.held.time_is_up(self, self.answer):
                return inf
        failure = phases.check(self, self.exchange, self._relay, self.upstream, now)
        if failure is None:
            due = self.since + self.limit
            return due if self.held is None else min(due, self.held.until)
        self.failed(failure)
        return inf

    def failed(self, failure: Failure) -> None:
        """It has. If the client has something of an answer already, that has broken off."""
        exchange = self.exchange
        if exchange.answer is not None:
            exchange.broke(self, failure)
        elif not self.try_again(failure, judge_failure(failure)):
            exchange.fail(failure)

    def _replace_stale(self, failure: Failure) -> bool:
        """The link ended without an answer. If it was dead already, go on with a fresh one; else False."""
        upstream, exchange = self.upstream, self.exchange
        if (
            upstream is None
            or failure.kind is not Kind.RESET
            or not self.reused
            or upstream.parser.has_begun
            or exchange.has_left  # for a client that has left nobody is asked again
            or not (exchange.body.is_held or (exchange.has_body and not exchange.receipt.bytes_in))
            or (self.sent_at and self._relay.clock() - self.sent_at >= STALE_SECONDS)
        ):
            return False
        # Its stake goes with the fresh link.
        exchange.receipt.attempts.append(self._tried(failure, 0, self._relay.clock()))
        self._has_retried = True
        self.why = "stale"
        self.upstream = None
        self.sent_at = 0.0  # nobody has it yet
        self._relay.pool.drop(upstream)
        self.begin(self._relay.clock())
        return True

    @property
    def may_be_refused(self) -> bool:
        """Whether its answer may be to our own credential."""
        passage, answer = self.exchange.passage, self.answer
        is_ours = passage is not None and not passage.grant.passthrough and self.provider.has_credential
        return is_ours and answer is not None and answer.status in (401, 403)

    @property
    def is_refused(self) -> bool:
        """Whether it is: a provider may also mean what was asked, and that is for the client to see."""
        if not self.may_be_refused or self.held is None or self.answer is None:
            return False
        return cause_of(self.answer.status, self.held.said()) is not Cause.POLICY

    def refused(self, status: int) -> None:
        """Our own credential was: the client could do nothing about it, and is not shown what the provider says."""
        detail = f"the provider {self.provider.name} refused this proxy's credential with status {status}"
        failure = Failure(Side.UPSTREAM, _FIRST_BYTE, Kind.CREDENTIAL_REFUSED, detail)
        head = self.exchange.head
        if head is not None and any(head.get(name) is not None for name in _OF_CLIENTS):
            self.stake.credentials = None  # it may be about those: then no other client is to suffer
        if not self.try_again(failure, self.judge()):
            self.exchange.fail(failure)

    @property
    def is_about_credential(self) -> bool:
        """Whether another credential of the same provider may fare better."""
        head = None if self.upstream is None else self.upstream.parser.head
        return head is not None and head.status in (401, 403, 429)

    def may_cost(self, failure: Failure) -> bool:
        """Whether its provider may want money for it, though it failed so."""
        if self.answer is None:
            return bool(self.sent_at) and failure.kind in _MAY_COST
        return self.metering is not None

    def describe(self) -> None:
        """The receipt tells of this attempt."""
        receipt = self.exchange.receipt
        if self.before is not None:  # the times are those of what the client had first
            receipt.provider = self.provider.name if self.passed else receipt.provider
            return
        receipt.provider = self.provider.name
        receipt.connect_ms = self._connect_ms
        receipt.sent_ms = milliseconds(self.sent_at - self.exchange.began) if self.sent_at else None
        receipt.first_byte_ms = self._first_byte_ms
        receipt.first_event_ms = self.first_event_ms
        receipt.provider_request_id = self._request_id

    def _note(self, failure: Failure | None, status: int, now: float) -> None:
        """Put it on the receipt, and find out what it used."""
        if failure is not None and self.answer is None and self.may_cost(failure):
            self.metering = self.exchange.booking.metering(self)
        self.describe()
        if failure is not None or self.stake.is_concerned:
            self.stake.ended(now, status, failure, self.verdict)
        self.exchange.booking.note(self._tried(failure, status, now), self)

    def _tried(self, failure: Failure | None, status: int, now: float) -> Tried:
        exchange = self.exchange
        began = exchange.began
        started, ended = milliseconds(self._began - began), milliseconds(now - began)
        model = self.target.model or exchange.receipt.model_requested
        # In a third of the time that Tried(...) takes: see wire.head.with_length.
        return _new(
            Tried,
            (
                self.provider.name, model, started, ended, self.reused, status, failure, self.why, self.first_event_ms,
                None, None, None, self.passed,
            ),
        )  # fmt: skip

    @property
    def passed(self) -> int:
        """Bytes of its answer that the client got."""
        if self.answer is None or self.answer is not self.exchange.answer:
            return 0
        return self.answer.bytes_out - (0 if self.before is None else self.before.bytes_out)

    def _succeed(self, failure: Failure | None, answer: Answer, now: float) -> None:
        """The answer has ended as its message said, be it an error (`failure`): the link may serve another exchange."""
        self._note(failure, answer.status, now)
        upstream, self.upstream = self.upstream, None
        assert upstream is not None
        parser, exchange = upstream.parser, self.exchange
        keeps = parser.is_clean and parser.head is not None and parser.head.keep_alive and exchange.has_body
        if not keeps or upstream.is_full or upstream.is_lost:
            self._relay.pool.drop(upstream)
            return
        if exchange.client.is_full:  # for whose sake it was paused; who takes it next must be able to read
            upstream.transport.resume_reading()
        self._relay.pool.give(upstream, now)

    def give_up(self, failure: Failure | None) -> None:
        """Let go of the link, or of the place in the queue. A link whose answer was whole may serve another."""
        upstream = self.upstream
        if upstream is not None and self.answer is not None and upstream.parser.is_complete and failure is not None:
            if upstream.parser.failure is None and not self.answer.lacks_end:
                self._succeed(failure, self.answer, self._relay.clock())
                return
        self.upstream = None
        head = None if upstream is None else upstream.parser.head
        self._note(failure, 0 if head is None else head.status, self._relay.clock())
        if upstream is not None:
            self._relay.pool.drop(upstream)
        else:
            self._relay.pool.withdraw(self.provider.origin, self)
