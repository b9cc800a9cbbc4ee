"""Limits and budgets by the admin API, and what is used of them at this moment.

Lives here: `LimitPages`: the routes below /limits. May not live here: changing limits (those of keys and groups are
changed in keys, all others belong to the environment), the figures (policy.use).
How it works: the server looks first, so that what is shown holds for the next request; the holds are listed in the
loop; a thread does the rest. Scopes come by name, a page at a time.
Doubted: nothing yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from heapq import nsmallest
from typing import Any

from proxy.admin.documents import moment
from proxy.admin.keys import page_size
from proxy.admin.members import About, Form, Member, Refused
from proxy.admin.routes import AdminAnswer, AdminRequest, Later, Route, json_answer
from proxy.outcome import Kind
from proxy.policy.limits import Hold, Limiter
from proxy.policy.rules import INPUT, MICROS, OUTPUT, REQUESTS, TOKENS, dollars, written
from proxy.policy.use import BudgetUse, RateUse, Use, reserved_by, use_of

PAGE = 200  # scopes in one answer: 2 ms
_SECOND = 10**9
_UNITS = {
    REQUESTS: "requests", TOKENS: "tokens", INPUT: "input_tokens", OUTPUT: "output_tokens", MICROS: "micros",
}  # fmt: skip
_SCOPE = ("scope", "limits", "rates", "budgets", "concurrent")


class LimitPages:
    """`look` has the server read what has changed, in the loop. `now`: nanoseconds since the epoch."""

    def __init__(self, limiter: Limiter, look: Callable[[], None], now: Callable[[], int] = time.time_ns) -> None:
        self._limiter = limiter
        self._look = look
        self._now = now

    def routes(self) -> list[Route]:
        after = Member("after", Form.TEXT, "Only scopes behind this one: `next` of the answer before.")
        limit = Member("limit", Form.NUMBER, f"How many at most; {PAGE} if not said, and never more.")
        every = About("All that is limited, and what is used of it now.", ("limits", "next"), (after, limit))
        one = About("One scope: all, key NAME, group NAME, model NAME or provider NAME.", _SCOPE)
        return [
            Route("GET", "/limits", partial(self._later, self._list), True, every),
            Route("GET", "/limits/{scope}", partial(self._later, self._show), True, one),
        ]

    def _later(self, make: Callable[[AdminRequest, list[Hold]], AdminAnswer], request: AdminRequest) -> Later:
        self._look()
        return Later(partial(make, request, list(self._limiter.open)))

    def _list(self, request: AdminRequest, holds: list[Hold]) -> AdminAnswer:
        after, most = request.asked.get("after", ""), page_size(request, PAGE)
        scopes = nsmallest(most + 1, (scope for scope in self._limiter.scopes() if scope > after))
        now, reserved = self._now(), reserved_by(holds)
        uses = [use_of(self._limiter, scope, now, reserved) for scope in scopes[:most]]
        following = scopes[most - 1] if len(scopes) > most else None
        return json_answer(200, {"limits": [_document(use) for use in uses if use is not None], "next": following})

    def _show(self, request: AdminRequest, holds: list[Hold]) -> AdminAnswer:
        use = use_of(self._limiter, request.named["scope"], self._now(), reserved_by(holds))
        if use is None:
            raise Refused(Kind.NOT_FOUND, "Nothing is limited for this scope; GET /limits lists those that there are.")
        return json_answer(200, _document(use))


def _document(use: Use) -> dict[str, Any]:
    most = use.rules.concurrent
    return {
        "scope": use.scope,
        "limits": written(use.rules),
        "rates": list(map(_rate, use.rates)),
        "budgets": list(map(_budget, use.budgets)),
        "concurrent": None if most is None else {"running": use.running, "most": most},
    }


def _rate(use: RateUse) -> dict[str, Any]:
    rule = use.rule
    return {
        "name": rule.name,
        "unit": _UNITS[rule.unit],
        "amount": rule.amount,
        "seconds": rule.seconds,
        "burst": rule.burst,
        "left": use.left,
        "full_at": moment(use.full_at / _SECOND),
    }


def _budget(use: BudgetUse) -> dict[str, Any]:
    rule = use.rule
    amounts = {"amount": rule.amount, "spent": use.spent, "reserved": use.reserved, "left": use.left}
    for_people = {f"{name}_usd": dollars(value) for name, value in amounts.items()} if rule.unit == MICROS else {}
    return {
        "name": rule.name,
        "unit": _UNITS[rule.unit],
        "window": rule.window,
        "is_hard": rule.is_hard,
        **amounts,
        **for_people,
        "ends_at": None if use.ends_at is None else moment(use.ends_at / _SECOND),
    }
