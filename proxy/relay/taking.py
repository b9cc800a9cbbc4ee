"""What an exchange takes of the limits it falls under, and what a client is told that may not.

Lives here: `take`, `limit_lines`. May not live here: whether it may (policy), when it is given back (exchange).
How it works: one synchronous step between the read body and the link to the provider. A refusal bears the fields by
which the client's SDK finds out when to come again, in the words of its own vendor (WIRE 5).
Sources: OpenAI's and Anthropic's pages on rate limits; RFC 9110 section 10.2.3 for Retry-After; the `_base_client` of
the SDKs for `x-should-retry` and `retry-after-ms`, which they ask first.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from proxy.dialects.call import Call
from proxy.outcome import Failure
from proxy.policy.demand import demand_of, failure_of
from proxy.policy.limits import Hold, Refusal
from proxy.policy.router import Target
from proxy.policy.rules import INPUT, OUTPUT, REQUESTS

if TYPE_CHECKING:
    from proxy.relay.body import RequestBody
    from proxy.relay.relay import Relay
    from proxy.relay.request import Passage

_SECOND = 10**9
# Until an exchange of the same key ends, which nobody can foretell.
_SOON = _SECOND


class Refused(NamedTuple):
    """`lines` are fields of the answer."""

    failure: Failure
    lines: bytes = b""


def take(relay: Relay, passage: Passage, target: Target, call: Call | None, body: RequestBody) -> Hold | Refused:
    """Take what `call` may cost from every limit that it falls under, or from none."""
    chain = passage.chain
    assert chain is not None
    now = relay.wall()
    model = target.model or (None if call is None else call.model)
    text = body.whole() if call is not None and chain.counts_tokens else b""
    demand = demand_of(chain, call, text, model, target.provider, passage.snapshot, now / _SECOND)
    if isinstance(demand, Failure):
        return Refused(demand)
    taken = relay.admission.limiter.take(chain, demand, now)
    if isinstance(taken, Hold):
        return taken
    return Refused(failure_of(taken), limit_lines(taken, passage.route.dialect.name, now))


def limit_lines(refusal: Refusal, dialect: str, now: int) -> bytes:
    """When to come again, and how much there is of the limit that refused. `now`: nanoseconds since the epoch.

    A budget is not worth asking for again soon, and what can never pass not at all: the SDKs are told so.
    """
    lines = []
    if not refusal.is_never:
        wait = refusal.wait if refusal.wait is not None else None if refusal.is_budget else _SOON
        if wait is not None:
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
