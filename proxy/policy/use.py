"""How much of each limit is used now, for whoever looks.

Lives here: `use_of` (a scope against its rules), `reserved_by` (what requests that run have taken of budgets). May not
live here: the arithmetic of taking (limits), what people see (admin).
How it works: nothing is changed, and no counter is made by being looked at. The holds are listed in the loop, which is
one step; all the rest may be done by another thread, since each counter is read in one step, too.
Doubted: counters are read one after the other, while requests come and go: what is reserved may be a moment older than
what is spent, and is never shown as more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from proxy.policy.limits import FOREVER, Hold, Limiter
from proxy.policy.rules import Budget, Rate, Rules

Reserved = Mapping[tuple[str, str, int], int]
"""Amounts by scope, name of the budget and end of its window."""


class RateUse(NamedTuple):
    rule: Rate
    left: int  # units that could pass at once
    full_at: int  # nanoseconds since the epoch: then all of the burst is there again


class BudgetUse(NamedTuple):
    rule: Budget
    spent: int  # with what is reserved
    reserved: int
    left: int
    ends_at: int | None  # nanoseconds since the epoch; None: never


class Use(NamedTuple):
    """`running`: exchanges at once, where their number is limited."""

    scope: str
    rules: Rules
    rates: tuple[RateUse, ...]
    budgets: tuple[BudgetUse, ...]
    running: int


def reserved_by(holds: Iterable[Hold]) -> Reserved:
    found: Counter[tuple[str, str, int]] = Counter()
    for hold in holds:
        chain = hold.chain
        for (scope, rule), end in zip(chain.names[len(chain.rates) :], hold.ends, strict=True):
            found[scope, rule.name, end] += hold.costs[rule.unit]
    return found


def use_of(limiter: Limiter, scope: str, now: int, reserved: Reserved) -> Use | None:
    """None: nothing is limited for `scope`. `now`: nanoseconds since the epoch."""
    rules = limiter.rules(scope)
    if rules == Rules():
        return None
    rates = tuple(_rate(limiter, scope, rate, now) for rate in rules.rates)
    budgets = tuple(_budget(limiter, scope, budget, now, reserved) for budget in rules.budgets)
    return Use(scope, rules, rates, budgets, limiter.running(scope))


def _rate(limiter: Limiter, scope: str, rate: Rate, now: int) -> RateUse:
    ahead, step = limiter.ahead(scope, rate, now), rate.step
    return RateUse(rate, max(0, step * rate.burst - ahead) // step, now + ahead)


def _budget(limiter: Limiter, scope: str, budget: Budget, now: int, reserved: Reserved) -> BudgetUse:
    spent, end = limiter.spent(scope, budget, now)
    spent = max(0, spent)
    held = min(reserved.get((scope, budget.name, end), 0), spent)
    return BudgetUse(budget, spent, held, max(0, budget.amount - spent), None if end >= FOREVER else end)
