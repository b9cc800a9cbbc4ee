"""What a request may cost at most, before it is sent; what it did cost; why it may not come.

Lives here: `demand_of`, `affordable`, `used_of`, `failure_of`, `PREAMBLE`. May not live here: whether it may (limits),
how many tokens it used (relay.metering), what a body's bytes do not show (dialects.bounds).
How it works: text has no more tokens than bytes, besides what a provider puts before it; what is not text, or is kept
elsewhere, reserves a whole context window. The output is bounded by the caller's cap, for each of the answers it asks
for, else by a configured number. The price is the dearest that could apply. All of it but what was used comes back at
the end.
Doubted: web searches and other fees for what a provider does by itself are not reserved: nobody can say how many.
"""

from __future__ import annotations

from typing import Final

from proxy.catalog.snapshot import Provider, Snapshot
from proxy.dialects.bounds import look
from proxy.dialects.call import Call
from proxy.outcome import Failure, Kind, Phase, Side, Usage
from proxy.policy.limits import Chain, Demand, Hold, Refusal
from proxy.policy.plan import Plan
from proxy.policy.rules import INPUT, MICROS, OUTPUT, REQUESTS, TOKENS, Costs, dollars

# What a request has used that never got an answer which costs anything.
NOTHING: Costs = (1, 0, 0, 0, 0)
_ONE: Final = Demand((1, 0, 0, 0, 0), (1, 0, 0, 0, 0))
PREAMBLE: Final = 256  # tokens that nobody sent and is told of: xAI some 200 (213 reported for a body of 220 bytes)
_TOOL_TOKENS: Final = 1000  # that a provider adds where there are tools: Anthropic up to 700, others less
_MOST_OUTPUT: Final = 2_000_000  # tokens; caps beyond what any model can do are clients' way to say "none"
_SEARCHES: Final = ":online"  # how a model ends whom OpenRouter is to search the web for
_SURE_BYTES: Final = 8  # text has hardly fewer tokens than one for so many bytes

_UNPRICED: Final = Failure(
    Side.CLIENT,
    Phase.ADMIT,
    Kind.UNPRICED,
    "this key has a budget in dollars, and no price is known for this model here: ask for another model, or have its "
    "price put into LLM_PROXY_PRICES",
)


_LATER: Final = Failure(
    Side.CLIENT,
    Phase.ADMIT,
    Kind.FORBIDDEN,
    "this key has limits in tokens or dollars, and what a response in the background uses cannot be known here: ask "
    "without background",
)


def demand_of(
    chain: Chain, call: Call | None, body: bytes, model: str | None, to: Provider, snapshot: Snapshot, at: float
) -> Demand | Failure:
    """The costs of `call`, whose body goes to `model` of the provider `to`, as far as `chain` counts them. `at`: epoch
    seconds, for prices. Failure: UNPRICED, FORBIDDEN."""
    if call is None or not chain.counts_tokens or call.is_free:
        return _ONE
    seen = look(body)
    if seen.is_later:
        return _LATER
    reserves = snapshot.reserves
    read = len(body) + PREAMBLE * (call.cap != 0) + _TOOL_TOKENS * seen.has_tools
    is_bounded = seen.is_bounded and not (model or "").endswith(_SEARCHES)
    least = len(body) // _SURE_BYTES if is_bounded else 0
    if not is_bounded:
        read = max(read, reserves.input)
    cap = reserves.output if call.cap is None else min(call.cap, _MOST_OUTPUT)
    said = cap * seen.choices
    micros = 0
    if chain.has_dollars:
        found = None
        if snapshot.prices is not None and model is not None:
            found = snapshot.prices.most(to.name, to.origin.host, model, read, said, at)
        if found is None and chain.has_hard_dollars:
            return _UNPRICED
        micros = found or 0
    return Demand((1, read + said, read, said, micros), (1, least, least, 0, 0))


_DOLLARS: Final = Chain("", counts_tokens=True, has_dollars=True, has_hard_dollars=True)


def affordable(plan: Plan, call: Call | None, body: bytes, snapshot: Snapshot, at: float) -> Plan | Failure:
    """Of an alias with a limit on what one request costs, those targets at which `call` keeps it. Failure:
    EXCEEDS_LIMIT, UNPRICED, FORBIDDEN."""
    most = None if plan.alias is None else plan.alias.cost
    if most is None:
        return plan
    failure: Failure | None = None
    groups = []
    for group in plan.groups:
        left = []
        for target in group:
            found = demand_of(_DOLLARS, call, body, target.model, target.provider, snapshot, at)
            if isinstance(found, Failure):
                failure = failure or found
            elif found.most[MICROS] <= most:
                left.append(target)
            else:
                failure = _too_dear(most)
        groups.append(tuple(left))
    kept = tuple(filter(None, groups))
    return plan._replace(groups=kept) if kept or failure is None else failure


def _too_dear(most: int) -> Failure:
    detail = (
        f"this request may cost more than {dollars(most)} usd, which is the most for one to this model: send a shorter "
        "one, or with a smaller cap on its output"
    )
    return Failure(Side.CLIENT, Phase.ADMIT, Kind.EXCEEDS_LIMIT, detail)


def used_of(hold: Hold, usage: Usage | None, cost: int | None) -> Costs:
    """The costs of a request whose receipt says `usage` and `cost` (microdollars): a budget is the sum of receipts.
    What nobody can tell (a client left before the answer began, a figure is missing) stays as it was reserved."""
    if usage is None or (usage.input is None and usage.output is None):
        return NOTHING
    read = hold.costs[INPUT] if usage.input is None else usage.input
    said = hold.costs[OUTPUT] if usage.output is None else usage.output
    return (1, read + said, read, said, hold.costs[MICROS] if cost is None else cost)


_WHOSE: Final = {
    "key": "this key",
    "group": "this key's group",
    "model": "this model",
    "provider": "this model's provider",
}
_UNITS: Final = {REQUESTS: "requests", TOKENS: "tokens", INPUT: "input tokens", OUTPUT: "output tokens"}


def failure_of(refusal: Refusal) -> Failure:
    """What a client is told: which limit, and what to do. Names of groups and providers stay here."""
    whose = _WHOSE.get(refusal.scope.partition(" ")[0], "this proxy")
    if refusal.rule == "concurrent":
        detail = f"{whose} has {refusal.limit} requests running, and no more are allowed at once: let one finish first"
        return Failure(Side.CLIENT, Phase.ADMIT, Kind.TOO_MANY, detail)
    if refusal.is_budget:
        return _budget_failure(refusal, whose)
    unit = _UNITS[refusal.unit]
    if refusal.is_never:
        detail = (
            f"this request has more {unit} than {whose} may use at once ({refusal.limit}, {refusal.rule}): send less"
        )
        return Failure(Side.CLIENT, Phase.ADMIT, Kind.EXCEEDS_LIMIT, detail)
    wait = (refusal.wait or 0) / 1e9
    detail = f"{whose} has used up its limit of {unit} ({refusal.rule}): try again in {wait:.3g} s"
    return Failure(Side.CLIENT, Phase.ADMIT, Kind.TOO_MANY, detail)


def _budget_failure(refusal: Refusal, whose: str) -> Failure:
    unit, _, window = refusal.rule.partition("/")
    amounts = [dollars(each) if refusal.unit == MICROS else str(each) for each in (refusal.limit, refusal.remaining)]
    budget = f"the budget of {whose} ({amounts[0]} {unit} in {'total' if window == 'total' else 'a ' + window})"
    if refusal.is_never:
        detail = (
            f"this request may cost more than all of {budget}: send a shorter one, or with a smaller cap on its output"
        )
        return Failure(Side.CLIENT, Phase.ADMIT, Kind.EXCEEDS_LIMIT, detail)
    detail = f"{budget} has {amounts[1]} left, and this request may cost more"
    if refusal.wait is not None:
        detail += f"; the next {window} begins in {_span(refusal.wait)}"
    return Failure(Side.CLIENT, Phase.ADMIT, Kind.BUDGET, detail)


def _span(wait: int) -> str:
    """Nanoseconds for people, rounded up."""
    seconds = -(-wait // 10**9)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{-(-seconds // size)} {unit}"
    return f"{seconds} s"
