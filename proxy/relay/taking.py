"""What an exchange takes of the limits it falls under, and what a client is told that may not.

Lives here: `Taking`, `limit_lines`. May not live here: whether it may (policy), whose turn it is (waiting).
How it works: one synchronous step between the read body and the link to the provider takes all or nothing. A refusal
bears the fields by which the client's SDK finds out when to come again, in the words of its own vendor (WIRE 5). If
LLM_PROXY_TIMEOUT_QUEUE allows it, and the limit would let it pass in that time, the exchange waits instead. For a
budget nobody waits. What was taken is the first attempt's. An attempt that surely cost nothing hands it on to the next;
after one that may have cost something the next takes tokens and dollars again, and never counts as another request.
With an alias the limits of a single target (its model's, its provider's) are taken by each attempt for itself.
Sources: OpenAI's and Anthropic's pages on rate limits; RFC 9110 section 10.2.3 for Retry-After; the `_base_client` of
the SDKs for `x-should-retry` and `retry-after-ms`, which they ask first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.dialects.factors import estimate_events, event_bytes
from proxy.outcome import Failure, Kind, Phase, Side, Usage, milliseconds
from proxy.policy.demand import NOTHING, demand_of, failure_of, used_of
from proxy.policy.limits import Chain, Demand, Hold, Refusal
from proxy.policy.plan import Plan, Target
from proxy.policy.rules import INPUT, MICROS, OUTPUT, REQUESTS, Costs

if TYPE_CHECKING:
    from proxy.relay.answer import Answer
    from proxy.relay.attempt import Attempt
    from proxy.relay.exchange import Exchange
    from proxy.relay.relay import Relay
    from proxy.relay.request import Passage
    from proxy.relay.stakes import Stake

_SECOND: Final = 10**9
_LOOK_BYTES: Final = 8 * 1024  # of an answer that is longer than what was reserved, between two looks at its budget
_MASKED: Final = Failure(
    Side.CLIENT,
    Phase.ADMIT,
    Kind.FORBIDDEN,
    "where tokens or dollars are limited, an answer must say what it used: ask without fields and X-Goog-FieldMask",
)
_UNUSED: Costs = (0, 0, 0, 0, 0)  # of a hold that counts as no request
_NONE: Final = Chain("")
_BEHIND: Final = Failure(
    Side.CLIENT, Phase.QUEUE, Kind.TOO_MANY, "too many requests wait for this limit: try again later"
)


class Taking:
    """What one exchange takes. `begin` once, `attempt` for each attempt; then, in any ending, `release` when the
    exchange is over and `close` when what all attempts used is known."""

    __slots__ = (
        "chain", "key", "scope", "size", "wait", "_demand", "_exchange", "_free", "_hold", "_passage", "_plan",
        "_refusal", "_relay", "_since",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, relay: Relay, passage: Passage, plan: Plan, chain: Chain) -> None:
        self.chain = chain
        self._hold: Hold | None = None  # the first one, which has the exchange's place
        self._free: Hold | None = None  # of no attempt
        self.key = chain.key  # in whose line it waits
        self.size = 0  # bytes that are held while it waits
        self.scope = ""  # of the limit that refused it last
        self.wait: int | None = None  # nanoseconds until it could pass, as the limiter said then
        self._demand: Demand | None = None
        self._exchange = exchange
        self._passage = passage
        self._refusal: Refusal | None = None
        self._relay = relay
        self._since = 0.0  # when it began to wait
        self._plan = plan

    def begin(self) -> bool:
        """Take what the call may cost from every limit of its chain. False: the exchange was refused and has ended, or
        it waits, and will be told to `proceed`."""
        relay = self._relay
        if not self._ask():
            return False
        if relay.waiting.is_before(self.chain):
            return self._stand()
        refusal = self._try()
        if refusal is None:
            return True
        is_soon = refusal.wait is None or refusal.wait <= relay.seconds.queue * _SECOND
        if refusal.is_budget or refusal.is_never or relay.seconds.queue == inf or not is_soon:
            self.refuse()
            return False
        return self._stand()

    def _ask(self) -> bool:
        """What the call may cost of its chain. False: that cannot be known, and the exchange has failed."""
        found = self._demand_of(self.chain, self._plan.targets)
        if isinstance(found, Failure):
            self._exchange.fail(found)
            return False
        self._demand = found
        return True

    def _demand_of(self, chain: Chain, targets: Sequence[Target]) -> Demand | Failure:
        """What the call may cost of `chain` at the dearest of `targets`."""
        exchange, passage = self._exchange, self._passage
        call = exchange.call
        if chain.counts_tokens and passage.names_parts:
            return _MASKED
        text = exchange.body.whole() if call is not None and chain.counts_tokens else b""
        most: Demand | None = None
        now = self._relay.wall() / _SECOND
        for target in targets:
            model = target.model or (None if call is None else call.model)
            found = demand_of(chain, call, text, model, target.provider, passage.snapshot, now)
            if isinstance(found, Failure):
                return found
            most = found if most is None else _larger(most, found)
        assert most is not None
        return most

    def _try(self) -> Refusal | None:
        assert self._demand is not None
        found = self._relay.admission.limiter.take(self.chain, self._demand, self._relay.wall())
        if isinstance(found, Refusal):
            self._refusal, self.scope, self.wait = found, found.scope, found.wait
            return found
        self._hold = self._free = found
        return None

    def attempt(self, target: Target, free: Stake | None = None) -> tuple[Hold, Hold | None] | Refusal | Failure:
        """What the next attempt, at `target`, has of the exchange's limits, and of that target's own. `free`: of one
        that failed and surely cost nothing: its hold is handed on."""
        limiter, now = self._relay.admission.limiter, self._relay.wall()
        assert self._demand is not None
        own: Hold | None = None
        chain = None if self._plan.alias is None else self._relay.admission.own_chain(target, self.chain)
        if chain is not None:
            demand = self._demand_of(chain, (target,))
            if isinstance(demand, Failure):
                return demand
            taken = limiter.take(chain, demand, now)
            if isinstance(taken, Refusal):
                return taken
            own = taken
        if self._free is not None:
            common, self._free = self._free, None
            return common, own
        if free is not None and free.common is not None:
            common, free.common = free.common, None
            return common, own
        again = Demand((0, *self._demand.most[1:]), (0, *self._demand.least[1:]))
        taken = limiter.take(self.chain._replace(slots=()), again, now)
        if isinstance(taken, Refusal):
            if own is not None:
                own.settle(_UNUSED)
                own.release()
            return taken
        return taken, own

    def stop_at(self, stake: Stake) -> float:
        """Bytes of a stream beyond which it costs more than was reserved for it; infinity: it is not stopped."""
        call = self._exchange.call
        if not self._relay.options.stops or call is None or not call.stream:
            return inf
        outputs = [hold.costs[OUTPUT] for hold in (stake.common, stake.own) if hold is not None and hold.costs[OUTPUT]]
        return min(outputs) * event_bytes(self._exchange.dialect.name) if outputs else inf

    def settle(self, hold: Hold, usage: Usage | None, cost: int | None, is_known: bool) -> None:
        """What an attempt that had `hold` used (None: nothing), and its cost in microdollars. If not known, what it
        took stands."""
        if usage is None and is_known and hold.chain.is_kept and self._free is None:
            self._free = hold  # for the next attempt
            return
        used = used_of(hold, usage, cost) if is_known else None
        if used is not None and hold is not self._hold and hold.chain.is_kept:
            used = (0, *used[1:])  # the exchange is one request
        hold.settle(used)
        if not hold.chain.is_kept:
            hold.release()
        self._relay.waiting.wake()

    def _stand(self) -> bool:
        self.size = self._exchange.body.size
        if self._relay.waiting.has_room_for(self):
            self._exchange.enter(Phase.QUEUE, self._relay.seconds.queue)
            self._since = self._exchange.since
            self._relay.waiting.enter(self)
        else:
            self.refuse()
        return False

    @property
    def is_waiting(self) -> bool:
        return bool(self._since)

    def try_again(self) -> bool:
        """It is the first of its line. True: it has what it needs, and is to be passed on."""
        relay, exchange = self._relay, self._exchange
        refused = relay.admission.refuses_now(self._passage.grant, relay.wall())
        if refused is not None:  # its key has been taken away meanwhile
            exchange.fail(refused._replace(phase=Phase.QUEUE))
            return False
        chain = relay.admission.chain(
            self._passage.grant, None if exchange.call is None else exchange.call.model, self._plan
        )
        if chain is None:
            chain = _NONE
        if chain is not self.chain:  # limits have been changed
            self.chain = chain
            if not self._ask():
                return False
        return self._try() is None

    def pass_on(self) -> None:
        exchange = self._exchange
        exchange.receipt.queue_ms = milliseconds(self._relay.clock() - self._since)
        self._since = 0.0
        try:
            exchange.proceed(self._plan)
        except Exception as error:
            exchange.crashed(error)

    def refuse(self) -> None:
        """Its time is up, or there is no room to wait."""
        if self._refusal is None:
            self._exchange.fail(_BEHIND)
        else:
            self.refuse_by(self._refusal)

    def refuse_by(self, refusal: Refusal) -> None:
        failure = failure_of(refusal)
        if self._since:
            failure = failure._replace(phase=Phase.QUEUE)
        self._exchange.fail(failure, limit_lines(refusal, self._exchange.dialect.name, self._relay.wall()))

    def look_again(self, attempt: Attempt, answer: Answer) -> None:
        """More of the answer has passed than what was reserved for it is worth: stop it, if less than the difference is
        left of a budget. By an estimate, since nothing is reported in mid-stream."""
        exchange = self._exchange
        if not answer.is_stream:  # bytes of a document say less of its tokens
            answer.stop_at = inf
            return
        said = estimate_events(exchange.dialect.name, answer.bytes_out, True)
        for hold in (attempt.stake.common, attempt.stake.own):
            refusal = None if hold is None else self._lacks(hold, said)
            if refusal is not None:
                detail = f"stopped, since it is longer than what was reserved for it: {failure_of(refusal).detail}"
                exchange.fail(Failure(Side.PROXY, exchange.phase, Kind.BUDGET, detail))
                return
        answer.stop_at = float(answer.bytes_out + _LOOK_BYTES)

    def _lacks(self, hold: Hold, said: int) -> Refusal | None:
        """What has less left than an answer of `said` tokens costs more than was reserved."""
        tokens = said - hold.costs[OUTPUT]
        micros = hold.costs[MICROS] * tokens // max(1, hold.costs[OUTPUT])  # as dear as what was reserved, or less
        return self._relay.admission.limiter.lacks(hold.chain, (0, tokens, 0, tokens, micros), self._relay.wall())

    def release(self) -> None:
        """The exchange is over."""
        if self._since:
            self._since = 0.0
            self._relay.waiting.leave(self)
        if self._hold is not None:
            self._hold.release()
            self._relay.waiting.wake()

    def close(self) -> None:
        """What all attempts used is known: what none of them had comes back."""
        if self._free is not None:
            is_request = self._free is self._hold and bool(self._exchange.receipt.attempts)
            self._free.settle(NOTHING if is_request else _UNUSED)
            self._free = None
            self._relay.waiting.wake()


def _larger(one: Demand, other: Demand) -> Demand:
    """For each unit the larger of the two."""
    most = tuple(map(max, one.most, other.most))
    return Demand(most, tuple(map(max, one.least, other.least)))


def limit_lines(refusal: Refusal, dialect: str, now: int) -> bytes:
    """When to come again, and how much there is of the limit that refused. `now`: nanoseconds since the epoch.

    A budget is not worth asking for again soon, and what can never pass not at all: the SDKs are told so.
    """
    lines = []
    wait = refusal.wait
    if wait is None and not refusal.is_budget:
        wait = _SECOND  # until an exchange of the same key ends, which nobody can foretell
    if wait is not None and not refusal.is_never:
        lines += [f"retry-after: {-(-wait // _SECOND)}", f"retry-after-ms: {-(-wait // 10**6)}"]
    if refusal.is_never or refusal.is_budget:
        lines.append("x-should-retry: false")
    if not refusal.is_budget and refusal.unit >= 0:
        write = _anthropic if dialect.startswith("anthropic") else _openai
        lines += write(refusal, now)
    return "".join(f"{line}\r\n" for line in lines).encode()


def _openai(refusal: Refusal, now: int) -> list[str]:
    unit = "requests" if refusal.unit == REQUESTS else "tokens"
    return [
        f"x-ratelimit-limit-{unit}: {refusal.limit}",
        f"x-ratelimit-remaining-{unit}: {refusal.remaining}",
        f"x-ratelimit-reset-{unit}: {duration(refusal.reset)}",
    ]


def _anthropic(refusal: Refusal, now: int) -> list[str]:
    unit = {REQUESTS: "requests", INPUT: "input-tokens", OUTPUT: "output-tokens"}.get(refusal.unit, "tokens")
    moment = datetime.fromtimestamp(-(-(now + refusal.reset) // _SECOND), UTC)
    return [
        f"anthropic-ratelimit-{unit}-limit: {refusal.limit}",
        f"anthropic-ratelimit-{unit}-remaining: {refusal.remaining}",
        f"anthropic-ratelimit-{unit}-reset: {moment:%Y-%m-%dT%H:%M:%SZ}",
    ]


def duration(nanoseconds: int) -> str:
    """As Go writes durations, and OpenAI its resets: 6ms, 8.64s, 1m12s, 2h0m5s; to the millisecond, rounded up."""
    milliseconds = -(-nanoseconds // 10**6)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
