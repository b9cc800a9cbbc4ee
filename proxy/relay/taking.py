"""What an exchange takes of the limits it falls under, and what a client is told that may not.

Lives here: `Taking`, `limit_lines`. May not live here: whether it may (policy), whose turn it is (waiting).
How it works: one synchronous step between the read body and the link to the provider takes all or nothing. A refusal
bears the fields by which the client's SDK finds out when to come again, in the words of its own vendor (WIRE 5). If
LLM_PROXY_TIMEOUT_QUEUE allows it, and the limit would let it pass in that time, the exchange waits instead. For a
budget nobody waits.
Sources: OpenAI's and Anthropic's pages on rate limits; RFC 9110 section 10.2.3 for Retry-After; the `_base_client` of
the SDKs for `x-should-retry` and `retry-after-ms`, which they ask first.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING

from proxy.dialects.factors import estimate_events, event_bytes
from proxy.outcome import Failure, Kind, Phase, Side, Usage, milliseconds
from proxy.policy.demand import demand_of, failure_of, used_of
from proxy.policy.limits import Chain, Demand, Hold, Refusal
from proxy.policy.router import Target
from proxy.policy.rules import INPUT, MICROS, OUTPUT, REQUESTS

if TYPE_CHECKING:
    from proxy.relay.exchange import Exchange
    from proxy.relay.relay import Relay
    from proxy.relay.request import Passage

_SECOND = 10**9
_LOOK_BYTES = 8 * 1024  # of an answer that is longer than what was reserved, between two looks at its budget
_MASKED = Failure(
    Side.CLIENT,
    Phase.ADMIT,
    Kind.FORBIDDEN,
    "where tokens or dollars are limited, an answer must say what it used: ask without fields and X-Goog-FieldMask",
)
_BEHIND = Failure(Side.CLIENT, Phase.QUEUE, Kind.TOO_MANY, "too many requests wait for this limit: try again later")


class Taking:
    """What one exchange takes. `begin` once; then, in any ending, `release` when the exchange is over and `settle` when
    what it used is known."""

    __slots__ = (
        "chain", "hold", "key", "scope", "size", "wait", "_demand", "_exchange", "_passage", "_refusal", "_relay",
        "_since", "_target",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, relay: Relay, passage: Passage, target: Target, chain: Chain) -> None:
        self.chain = chain
        self.hold: Hold | None = None
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
        self._target = target

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
        chain, exchange, passage = self.chain, self._exchange, self._passage
        call, to = exchange.call, self._target.provider
        found: Demand | Failure = _MASKED
        if not (chain.counts_tokens and passage.names_parts):
            model = self._target.model or (None if call is None else call.model)
            text = exchange.body.whole() if call is not None and chain.counts_tokens else b""
            found = demand_of(chain, call, text, model, to, passage.snapshot, self._relay.wall() / _SECOND)
        if isinstance(found, Failure):
            exchange.fail(found)
            return False
        self._demand = found
        return True

    def _try(self) -> Refusal | None:
        assert self._demand is not None
        found = self._relay.admission.limiter.take(self.chain, self._demand, self._relay.wall())
        if isinstance(found, Refusal):
            self._refusal, self.scope, self.wait = found, found.scope, found.wait
            return found
        self.hold = found
        call = self._exchange.call
        if self._relay.options.stops and found.costs[OUTPUT] and call is not None and call.stream:
            self._exchange.stop_at = found.costs[OUTPUT] * event_bytes(self._exchange.dialect.name)
        return None

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
            self._passage.grant, None if exchange.call is None else exchange.call.model, self._target
        )
        if chain is None:
            return True
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
            exchange.proceed(self._target)
        except Exception as error:
            exchange.crashed(error)

    def refuse(self) -> None:
        """Its time is up, or there is no room to wait."""
        refusal = self._refusal
        if refusal is None:
            self._exchange.fail(_BEHIND)
            return
        failure = failure_of(refusal)
        if self._since:
            failure = failure._replace(phase=Phase.QUEUE)
        self._exchange.fail(failure, limit_lines(refusal, self._exchange.dialect.name, self._relay.wall()))

    def look_again(self, passed: int) -> None:
        """So many bytes of the answer have passed, more than what was reserved is worth: stop it, if less than the
        difference is left of its budgets. By an estimate, since nothing is reported in mid-stream."""
        assert self.hold is not None
        reserved, exchange = self.hold.costs, self._exchange
        if exchange.answer is None or not exchange.answer.is_stream:  # bytes of a document say less of its tokens
            exchange.stop_at = inf
            return
        said = estimate_events(exchange.dialect.name, passed, True)
        tokens = said - reserved[OUTPUT]
        micros = reserved[MICROS] * tokens // max(1, reserved[OUTPUT])  # as dear as what was reserved, or less
        refusal = self._relay.admission.limiter.lacks(self.chain, (0, tokens, 0, tokens, micros), self._relay.wall())
        if refusal is None:
            exchange.stop_at = passed + _LOOK_BYTES
        else:
            failure = failure_of(refusal)
            detail = f"stopped, since it is longer than what was reserved for it: {failure.detail}"
            exchange.fail(Failure(Side.PROXY, exchange.phase, Kind.BUDGET, detail))

    def release(self) -> None:
        """The exchange is over."""
        if self._since:
            self._since = 0.0
            self._relay.waiting.leave(self)
        if self.hold is not None:
            self.hold.release()
            self._relay.waiting.wake()

    def settle(self, usage: Usage | None, cost: int | None, is_known: bool) -> None:
        """What the exchange used (None: nothing), and its cost in microdollars. If not known, what it took stands."""
        if self.hold is not None:
            self.hold.settle(used_of(self.hold, usage, cost) if is_known else None)
            self._relay.waiting.wake()


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
