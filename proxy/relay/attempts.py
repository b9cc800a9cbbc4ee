"""The attempts of one exchange: which target is asked, and what follows if it fails.

Lives here: `Attempts`. May not live here: what a failure means (policy.retry), links and answers (attempt), limits
(taking), what an attempt has to win or lose (stakes).
How it works: the first target comes out of the first group that has one whose breaker lets it pass. One that fails
makes room for another that was not asked yet, of its group or the next, at once; only when none is left is one asked
again, after a pause: as long as its provider said, or else longer each time and at random. Each attempt after the first
counts against the exchange's own number and against the worker's share of retries. All of it ends when an answer is let
through to the client. Where no breaker lets anything pass, the target that will be back first is asked all the same.
Where the alias hedges, a rival is sent after an attempt that takes longer to its first event than nineteen of twenty
did: whichever has something for the client first goes on, and the other one is given up.
Doubted: a target without an alias has no breaker, since there is nobody who could answer in its place.
"""

from __future__ import annotations

import random
from asyncio import TimerHandle
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.dialects.bounds import look
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.policy.health import Candidate, choose
from proxy.policy.limits import Refusal
from proxy.policy.plan import Plan, Target
from proxy.policy.retry import Verdict, backoff, patience
from proxy.relay.attempt import Attempt
from proxy.relay.resuming import Silence
from proxy.relay.stakes import Stake, take_stake

if TYPE_CHECKING:
    from proxy.relay.exchange import Exchange
    from proxy.relay.relay import Relay


# Of the longest pause: 0.43, 0.86 and 1.72 seconds are 3.01, if the first one is 0 (a resume).
_LEAST_CHANCE: Final = 0.43


class Next(NamedTuple):
    """What follows a failed attempt."""

    target: Target
    wait: float  # seconds
    why: str
    stake: Stake | None = None  # taken already


class Attempts:
    """`current` is the attempt that runs, or answers; `rival` runs beside it until one of them answers."""

    __slots__ = (
        "current", "cut", "made", "may_race", "may_resume", "rival", "_again", "_exchange", "_hedges", "_is_single",
        "_left", "_plan", "_relay", "_timer", "_tried",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, relay: Relay, plan: Plan) -> None:
        alias = plan.alias
        retries = relay.options.retries if alias is None or alias.retries is None else alias.retries
        self.current: Attempt | None = None
        self.rival: Attempt | None = None
        self.cut: Failure | None = None  # what broke the answer that the client has
        self.made = 0  # attempts
        self._again: list[tuple[float, Target]] = []  # targets that may be asked again, and when
        self._exchange = exchange
        self._is_single: bool | None = None  # one choice is asked for; None: nobody has looked yet
        self._left = 0 if exchange.call is None else retries
        self._plan = plan
        self._relay = relay
        self._timer: TimerHandle | None = None
        self.may_race = self._hedges = alias is not None and alias.hedges  # a rival may still be sent
        self.may_resume = alias is not None and alias.resumes
        self._tried: list[Target] = []

    # -- one after the other ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the first attempt."""
        self._relay.retries.note_request()
        target = self._plan.groups[0][0]
        if self._hedges:
            self._relay.hedges.note_request()
        if self._plan.alias is not None:
            target = self._untried(0) or self._soonest(0) or target
        self._start(target, "first")

    @property
    def can_go_on(self) -> bool:
        """Whether another attempt may follow the one that runs."""
        return self._left > 0 and self._is_open

    @property
    def can_be_replaced(self) -> bool:
        """Whether the attempt that runs may not be the one that answers."""
        may_follow = self._left > 0 or self._timer is not None  # of a rival
        return self.rival is not None or (may_follow and self._is_open)

    @property
    def _is_open(self) -> bool:
        exchange = self._exchange
        return exchange.answer is None and not exchange.has_left and exchange.body.can_be_sent_again

    def after(self, attempt: Attempt, failure: Failure, verdict: Verdict) -> Next | None:
        """What follows `attempt`, which failed; None: nothing does. As long as it is not given up, what its provider
        said may still go to the client: so another target's own limits are asked before."""
        now = self._relay.clock()
        if not (verdict.elsewhere or verdict.again) or not self.can_go_on or not self._relay.retries.has_one(now):
            return None
        found = self._next(attempt, failure, verdict, now)
        if found is None:
            return None
        self._relay.retries.take(now)
        self._left -= 1
        return found

    def _next(self, attempt: Attempt, failure: Failure, verdict: Verdict, now: float) -> Next | None:
        if attempt.is_about_credential and self._has_other_key(attempt):
            return Next(attempt.target, 0.0, "retry")
        left = self._exchange.total_due - now
        if verdict.again and not (failure.kind is Kind.TIMEOUT and len(self._plan.targets) > 1):
            pause = self._pause(verdict.wait)
            if patience(pause, left):
                self._again.append((now + pause, attempt.target))
        if verdict.elsewhere:
            found = self._other(attempt, failure, attempt.target.window + 1 if verdict.needs_window else 0, now)
            if found is not None:
                return found
        if not self._again or verdict.needs_window:
            return None
        at, target = min(self._again, key=lambda each: each[0])
        self._again.remove((at, target))
        return Next(target, max(0.0, at - now), "retry") if at - now < left else None

    def _pause(self, wait: float | None) -> float:
        """Seconds before a target is asked again: as long as its provider says, else at random, and never so short that
        it would have more than four requests in three seconds."""
        pause = backoff(self.made, random.random()) if wait is None else wait
        return max(pause, backoff(self.made, _LEAST_CHANCE))

    def _has_other_key(self, attempt: Attempt) -> bool:
        """Whether its provider has a credential that was not tried in this exchange."""
        return sum(each is attempt.target for each in self._tried) < attempt.stake.keys

    def _other(self, attempt: Attempt, failure: Failure, window: int, now: float) -> Next | None:
        """Another target, with what an attempt there needs."""
        free = None if attempt.may_cost(failure) else attempt.stake
        while (target := self._untried(window) or self._soonest(window)) is not None:
            stake = self._stake(target, now, free)
            if isinstance(stake, Stake):
                return Next(target, 0.0, "fallback", stake)
            self._tried.append(target)
        return None

    def follow(self, found: Next) -> None:
        """Make the next attempt, now or when it is time."""
        if not found.wait:
            self._start(found.target, found.why, found.stake)
            return
        self._exchange.enter(Phase.QUEUE, inf)
        self._timer = self._relay.loop.call_later(found.wait, self._go, found)

    def _go(self, found: Next) -> None:
        self._timer = None
        try:
            self._start(found.target, found.why)
        except Exception as error:
            self._exchange.crashed(error)

    def _start(self, target: Target, why: str, stake: Stake | None = None) -> None:
        """Make an attempt, with what it needs of limits; at another target, if that one's limits refuse."""
        now = self._relay.clock()
        refused: Refusal | Failure | None = None
        while stake is None:
            found = self._stake(target, now)
            if isinstance(found, Stake):
                stake = found
                break
            self._tried.append(target)
            refused = found if refused is None else min(refused, found, key=_until)
            other = self._untried(0)
            if other is None:
                self._exchange.refuse(refused)
                return
            target = other
        self.made += 1
        self._tried.append(target)
        self.current = attempt = Attempt(self._exchange, self._relay, target, stake, why)
        self._prepare(attempt)
        if self.cut is not None:
            attempt.before, attempt.held = self._exchange.answer, Silence(self.cut)
        attempt.begin(now)
        if self._hedges and self._runs_alone(attempt) and self._is_open:
            self._plan_rival(target)

    def _runs_alone(self, attempt: Attempt) -> bool:
        # Apart: what calls a method cannot know what its attributes are afterwards, and the compiler thinks it can.
        return self.current is attempt and self.rival is None

    def _stake(self, target: Target, now: float, free: Stake | None = None) -> Stake | Refusal | Failure:
        """What an attempt at `target` needs of limits and credentials. `free`: of one that failed and cost nothing."""
        exchange = self._exchange
        assert exchange.passage is not None
        is_alias, passthrough = self._plan.alias is not None, exchange.passage.grant.passthrough
        return take_stake(exchange.taking, self._relay, passthrough, target, is_alias, now, free)

    def _prepare(self, attempt: Attempt) -> None:
        """What `attempt` sends to its target."""
        relay, exchange = self._relay, self._exchange
        head, passage, call, body = exchange.head, exchange.passage, exchange.call, exchange.body
        assert head is not None and passage is not None
        target, options = attempt.target, relay.options
        asks = False
        if call is not None and call.lacks_usage and options.meters:
            # In a compressed stream the report could not be taken out again.
            is_readable = options.identity or head.get(b"accept-encoding") is None
            asks = is_readable and passage.may_ask_for_usage(target.provider)
        model = target.model if exchange.dialect.name != "gemini" else None  # there it stands in the path
        size = None
        if body.is_held:
            attempt.pieces, size = body.pieces, body.size
            if model is not None or asks:
                attempt.pieces = body.version(
                    model, asks, not (self._hedges or self.may_resume or self.can_be_replaced)
                )
                size = len(attempt.pieces[0])
            attempt.size = size
        identity = call is not None and call.stream and options.identity
        attempt.lines = passage.upstream_head(head, target, relay.name, size, identity, attempt.stake.secret)
        attempt.hides_usage = asks

    def _untried(self, window: int) -> Target | None:
        """A target that was not asked yet and whose breaker lets it pass, out of the first group that has one."""
        now = self._relay.clock()
        warming: Target | None = None  # has just come back, and gets a part of its requests only
        for group in self._plan.groups:
            targets = [each for each in group if each.window >= window and not self._is_tried(each)]
            if not targets:
                continue
            candidates = [self._candidate(each) for each in targets]
            at = choose(candidates, now, random.random, self._sticky)
            if at is None:
                continue
            share = candidates[at].health.breaker.share(now)
            if share >= 1.0 or random.random() < share:
                return targets[at]
            warming = warming or targets[at]
        return warming

    def _is_tried(self, target: Target) -> bool:
        return any(each is target for each in self._tried)  # comparing them by value takes 20 us

    def _candidate(self, target: Target) -> Candidate:
        key = target.provider.name, target.model or ""
        return Candidate(target.weight, self._relay.health.of(key), key)

    @property
    def _sticky(self) -> bytes | None:
        passage = self._exchange.passage
        return None if passage is None else passage.sticky

    def _soonest(self, window: int) -> Target | None:
        """Where no breaker lets anything pass: of those that were not asked yet, the one that will be back first."""
        now = self._relay.clock()
        targets = [each for each in self._plan.targets if each.window >= window and not self._is_tried(each)]
        return min(targets, key=lambda each: self._candidate(each).health.breaker.retry_in(now), default=None)

    # -- carrying on --------------------------------------------------------------------------------------------------

    @property
    def resumes(self) -> bool:
        exchange = self._exchange
        if not self.may_resume or exchange.call is None or not exchange.call.stream:
            return False
        if self._is_single is None:
            self._is_single = look(exchange.body.whole()).choices == 1
        return self._is_single and self._left > 0 and exchange.body.can_be_sent_again

    def resume(self, attempt: Attempt, failure: Failure) -> bool:
        """`attempt`, or the answer that the client has from it, has broken off. True: another one carries that on."""
        answer, now = self._exchange.answer, self._relay.clock()
        is_cut = failure.side is Side.UPSTREAM and not self._exchange.has_left
        if answer is None or not (is_cut and self.resumes and answer.can_be_resumed):
            return False
        found = self._carrier(attempt, failure, now)
        if found is None or not self._relay.retries.take(now):
            return False
        self._left -= 1
        self.cut = self.cut or failure
        self.give_up(failure)
        self.follow(found)
        return True

    def _carrier(self, attempt: Attempt, failure: Failure, now: float) -> Next | None:
        """Who may say the same again: the same model, at best elsewhere; if that one is silent, rather another. At
        once, or if it is not the first to try, after a pause."""
        verdict = attempt.verdict
        if verdict is not None and not (verdict.again or verdict.elsewhere):
            return None
        others = [each for each in self._plan.targets if not self._is_tried(each) and self._may(each, now)]
        target = next((each for each in others if each.model == attempt.target.model), None)
        is_away = failure.kind in (Kind.TIMEOUT, Kind.CONNECT_FAILED) or not self._may(attempt.target, now)
        if target is None and others and is_away:
            target = others[0]
        if target is not None:
            return Next(target, 0.0, "resume")
        if not self._may(attempt.target, now) or (verdict is not None and not verdict.again):
            return None
        told = None if verdict is None else verdict.wait
        wait = 0.0 if attempt.passed and told is None else self._pause(told)
        return Next(attempt.target, wait, "resume") if patience(wait, self._exchange.total_due - now) else None

    def _may(self, target: Target, now: float) -> bool:
        return self._candidate(target).health.breaker.may(now)

    # -- two at once --------------------------------------------------------------------------------------------------

    def _plan_rival(self, target: Target) -> None:
        call = self._exchange.call
        wait = self._candidate(target).health.p95(call is not None and call.stream)
        if wait is not None:
            self._timer = self._relay.loop.call_later(wait, self._send_rival)

    def _send_rival(self) -> None:
        self._timer = None
        first, now = self.current, self._relay.clock()
        if first is None or not self._is_open or not self._relay.hedges.has_one(now):
            return
        self._hedges = False
        target = self._untried(0) or first.target
        stake = self._stake(target, now)
        if not isinstance(stake, Stake):  # a limit, or a budget, has no room for two
            return
        self._relay.hedges.take(now)
        self._tried.append(target)
        self.made += 1
        try:
            self.rival = rival = Attempt(self._exchange, self._relay, target, stake, "hedge")
            self._prepare(rival)
            rival.begin(now)
        except Exception as error:
            self._exchange.crashed(error)

    def lost_one(self, attempt: Attempt, failure: Failure) -> bool:
        """`attempt` has failed. True: its rival runs on alone."""
        rival = self.rival
        if rival is None:
            return False
        left = rival if attempt is self.current else self.current
        self.current, self.rival = left, None
        attempt.give_up(failure)
        self._exchange.entered(left or rival)
        return True

    def won(self, attempt: Attempt) -> None:
        """The client gets the answer of `attempt`."""
        self._cancel_timer()
        rival = self.rival
        if rival is None:
            return
        loser = self.current if attempt is rival else rival
        self.current, self.rival = attempt, None
        if loser is not None:
            loser.give_up(Failure(Side.PROXY, loser.phase, Kind.OUTRUN, "another attempt answered first"))

    # -- the end ------------------------------------------------------------------------------------------------------

    def check(self, now: float) -> float:
        """The next moment to look at what runs."""
        due = inf
        for attempt in (self.current, self.rival):
            # The one before may have won, or ended all of it.
            if attempt is not None and (attempt is self.current or attempt is self.rival):
                due = min(due, attempt.check(now))
        return due

    def give_up(self, failure: Failure | None) -> None:
        """Nothing more is tried."""
        self._cancel_timer()
        running, self.current, self.rival = (self.current, self.rival), None, None
        for attempt in running:
            if attempt is not None:
                attempt.give_up(failure)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _until(refused: Refusal | Failure) -> tuple[bool, bool, bool, int]:
    """Orders reasons why targets may not be asked by how soon they pass: the client hears of the first."""
    if isinstance(refused, Failure):
        return (True, False, False, 0)
    return (False, refused.is_never, refused.is_budget, refused.wait or 0)
