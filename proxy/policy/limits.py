"""Who has used how much of what may pass: one synchronous step takes all that a request needs, or nothing.

Lives here: `Limiter`, chains of limits, `Hold` (what a request has taken, and gives back exactly once), `Refusal`; the
arithmetic of rates (GCRA) and budgets. May not live here: what people write (rules), what a request may cost (demand),
clocks and calendars (handed in), where counters are kept (`CounterStore`; the ledger has one that survives a kill).
How it works: a scope (everything, a provider, a model, a group of keys, a key) has rules. The scopes that a request
falls under make its chain; one step walks along it and charges each limit, or puts all back where one refuses. Nothing
waits in between, so nothing can be raced. What a request may cost is charged when it comes, and what it did not cost is
given back when it ends: if the process dies in between, the charge stands, without anybody having to write that down.

A rate is one number, the theoretical arrival time of ITU-T I.371 (GCRA): a request costs `step` nanoseconds for each
unit, the number is moved that far, and may be ahead of the clock by as much as the burst is worth. So no job refills
anything. Tokens that come back move it back; and what they cost more than was thought, ahead: then others wait longer.
A second number tells which rate it is of, so that one which was changed while no process ran begins anew, too.

A budget is an amount, the end of its window, the moment at which that window's first request came, and the end of the
last window of which it was told that the budget is passed. Spending counts in the window in which it was admitted. What
comes back after that window has ended is not put into the next one.
Numbers are integers, times nanoseconds since the epoch, so that nothing is lost by rounding: a step is rounded up.
Doubted: a clock that is set back closes rates for as long; one that leaps forward and back begins a window early, and
what was spent of the one before is forgotten. That unused tokens come back means that a window may see
more of them than the limit and its burst, if that many were taken before it and not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, MutableSequence
from contextlib import suppress
from typing import Final, NamedTuple

from proxy.policy.counters import WIDTH, CounterStore
from proxy.policy.rules import MICROS, REQUESTS, TOKENS, Budget, Costs, Rate, Rules, pattern_of

_GRAIN: Final = 1000  # nanoseconds: tables keep moments as seconds in floating point
FOREVER: Final = 2**62  # nanoseconds since the epoch, in the year 2116; also a number that no counter reaches

WindowEnd = Callable[[str, int], int]
"""The end (nanoseconds since the epoch) of the window of that name that a moment lies in; FOREVER for `total`."""


class Refusal(NamedTuple):
    """Why a request may not pass now."""

    scope: str  # "key ci", "model gpt-4o", "all"
    rule: str  # its name: rpm, concurrent, usd/month
    unit: int  # of the amount: rules.REQUESTS ...; -1: exchanges at once
    limit: int
    remaining: int  # what is left of it now
    wait: int | None  # nanoseconds until the same request could pass, if nobody else came; None: nobody can say
    reset: int  # nanoseconds until all of the limit is there again
    is_budget: bool = False
    is_never: bool = False  # it needs more than there ever is


class _Slots:
    """Exchanges at once of one scope."""

    __slots__ = ("held", "most", "scope")

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self.held = 0
        self.most = 0


# For each rate of a chain: where its number is, nanoseconds for one unit, units at once, the unit, and nanoseconds that
# the number may be ahead of the clock. For each budget: where its numbers are, the amount, the unit, if it is hard.
# Plain tuples, since unpacking six members costs 0.05 us, and asking an object for them 0.15.
_Rate = tuple[MutableSequence[int], int, int, int, int, int]
_Budget = tuple[MutableSequence[int], int, int, int, bool]


class Demand(NamedTuple):
    """What a request may cost, and what it costs at least. A rate whose burst lies between the two takes all of the
    burst; one whose burst is below both could never let it pass."""

    most: Costs
    least: Costs


class Chain(NamedTuple):
    """All limits that a request falls under, ready to be walked."""

    key: str  # whose requests they are; for holds
    scopes: frozenset[str] = frozenset()
    rates: tuple[_Rate, ...] = ()
    budgets: tuple[_Budget, ...] = ()
    slots: tuple[_Slots, ...] = ()
    names: tuple[tuple[str, Rate | Budget], ...] = ()  # scope and rule of each rate, then of each budget
    counts_tokens: bool = False  # anything but requests and exchanges at once matters
    has_dollars: bool = False
    has_hard_dollars: bool = False
    is_kept: bool = True  # what was taken is told to the operator after a kill


class Hold:
    """What one request has taken. `settle` when what it used is known, `release` when the exchange has ended: each
    counts once, and may come in any order."""

    __slots__ = ("chain", "costs", "ends", "_is_settled", "_limiter", "_place", "_takes_slots")

    def __init__(
        self,
        chain: Chain,
        costs: Costs,
        ends: list[int],
        limiter: Limiter,
        place: tuple[MutableSequence[int], int] | None,
    ) -> None:
        self.chain = chain
        self.costs = costs
        self.ends = ends  # of the windows of its budgets
        self._is_settled = False
        self._limiter = limiter
        self._place = place
        self._takes_slots = True

    def settle(self, used: Costs | None) -> None:
        """What the request used in the end; None: nobody knows, so that what was charged stands."""
        if self._is_settled:
            return
        self._is_settled = True
        chain, costs = self.chain, self.costs
        if self.ends:
            # First: a kill in between leaves a charge that nobody can give back, never one that is given back twice.
            self._limiter.close(self, self._place)
        if used is None:
            return
        for view, at, step, burst, unit, _ in chain.rates:
            cost = costs[unit]
            change = used[unit] - (burst if cost > burst else cost)
            if change:
                arrival = view[at] + step * change
                view[at] = arrival if arrival < FOREVER else FOREVER  # min() would be 0.1 us, ten times a request
        for (view, at, _, unit, _), end in zip(chain.budgets, self.ends, strict=True):
            change = used[unit] - costs[unit]
            if change and view[at + 1] == end:
                spent = view[at] + change
                view[at] = 0 if spent < 0 else spent if spent < FOREVER else FOREVER

    def release(self) -> None:
        """The exchange is over: another one may begin."""
        if self._takes_slots:
            self._takes_slots = False
            for slots in self.chain.slots:
                slots.held -= 1


class Limiter:
    """All scopes with their rules. One for each worker."""

    __slots__ = (
        "carried", "on_passed", "open", "version", "_chains", "_models", "_rules", "_slots", "_store", "_window_end",
    )  # fmt: skip

    def __init__(self, store: CounterStore, window_end: WindowEnd) -> None:
        self.carried: dict[tuple[str, int], int] = {}  # what a new window of a scope begins with, by unit
        # Called when a budget that only warns is passed, reservations included, once in its window.
        self.on_passed: Callable[[str, Rate | Budget], None] = lambda scope, rule: None
        self.open: set[Hold] = set()  # on budgets, and not settled yet
        self.version = 0  # changes whenever a chain that was given before does not hold any more
        self._store = store
        self._window_end = window_end
        self._rules: dict[str, Rules] = {}
        self._models: dict[str, re.Pattern[str]] = {}  # scopes of models, with what their names look like
        self._slots: dict[str, _Slots] = {}  # by scope; they outlive their rules, since exchanges hold them
        self._chains: dict[tuple[str, ...], Chain] = {}

    def set_rules(self, scope: str, rules: Rules) -> None:
        """`scope` has these rules from now on. What was used of rules that stay counts on."""
        for rate in rules.rates:
            place = self._store.peek(f"{scope} {rate.name}")
            if place is not None:
                _sign(place, rate)
        self._rules.pop(scope, None)
        self._models.pop(scope, None)
        if rules != Rules():
            self._rules[scope] = rules
            if scope.startswith("model "):
                self._models[scope] = pattern_of(scope[6:])
        self.version += 1
        self._chains.clear()

    def rules(self, scope: str) -> Rules:
        return self._rules.get(scope, Rules())

    def chain(
        self,
        key: str | None,
        group: str | None,
        models: Iterable[str],
        provider: str | None,
        beside: Chain | None = None,
    ) -> Chain:
        """The limits of a request: those of its key, of the key's group, of the model by all names that it has here,
        of the provider, and of everything. A model's scope may hold `*`, which stands for anything. `beside` are those
        that are taken already: the operator is told of those only, if the process is killed."""
        named = (("key", key), ("group", group), ("provider", provider))
        scopes = [f"{kind} {name}" for kind, name in named if name is not None]  # a key may be called None
        scopes = [scope for scope in (*scopes, "all") if scope in self._rules]
        lower = [model.lower() for model in models]
        scopes += [scope for scope, pattern in self._models.items() if any(map(pattern.fullmatch, lower))]
        if beside is not None:
            scopes = [scope for scope in scopes if scope not in beside.scopes]
        asked = (key or "", "" if beside is None else "beside", *scopes)
        found = self._chains.get(asked)
        if found is None:
            if len(self._chains) > 10_000:  # keys by the hundred thousand
                self._chains.clear()
            found = self._make_chain(key or "", scopes)
            found = self._chains[asked] = found if beside is None else found._replace(is_kept=False)
        return found

    def _make_chain(self, key: str, scopes: Iterable[str]) -> Chain:
        rates: list[tuple[str, Rate]] = []
        budgets: list[tuple[str, Budget]] = []
        slots: list[_Slots] = []
        for scope in scopes:
            rules = self._rules[scope]
            rates += [(scope, rate) for rate in rules.rates]
            budgets += [(scope, budget) for budget in rules.budgets]
            if rules.concurrent is not None:
                held = self._slots.setdefault(scope, _Slots(scope))
                held.most = rules.concurrent
                slots.append(held)
        dollars = [budget for _, budget in budgets if budget.unit == MICROS]
        return Chain(
            key,
            frozenset(scopes),
            tuple(self._rate(scope, rate) for scope, rate in rates),
            tuple(self._budget(scope, budget) for scope, budget in budgets),
            tuple(slots),
            (*rates, *budgets),
            bool(budgets) or any(rate.unit != REQUESTS for _, rate in rates),
            bool(dollars),
            any(budget.is_hard for budget in dollars),
        )

    def _rate(self, scope: str, rate: Rate) -> _Rate:
        view, at = place = self._store.counter(f"{scope} {rate.name}")
        _sign(place, rate)
        step = rate.step
        return view, at, step, rate.burst, rate.unit, step * rate.burst

    def _budget(self, scope: str, budget: Budget) -> _Budget:
        view, at = self._store.counter(f"{scope} {budget.name}")
        return view, at, budget.amount, budget.unit, budget.is_hard

    def take(self, chain: Chain, demand: Demand, now: int) -> Hold | Refusal:
        """Take what `demand` says from every limit of `chain`, or nothing of any. `now`: nanoseconds since the epoch.

        Each limit is charged as it is looked at, and what was charged is put back if a later one refuses. For a key
        with 6 rates, 3 budgets and a number of exchanges 2.6 us, in the file 2.9 (python -m bench.admission).
        """
        for slots in chain.slots:
            if slots.held >= slots.most:
                return Refusal(slots.scope, "concurrent", -1, slots.most, 0, None, 0)
        costs = demand.most
        before: list[int] = []  # of each limit that was charged
        for view, at, step, burst, unit, room in chain.rates:
            cost = costs[unit]
            if cost > burst:
                if demand.least[unit] > burst:
                    return _too_fast(chain, _put_back(chain, before), demand, now)
                cost = burst
            old = arrival = view[at]
            if arrival < now:
                arrival = now
            arrival += step * cost
            if arrival - now > room and cost:
                return _too_fast(chain, _put_back(chain, before), demand, now)
            view[at] = arrival
            before.append(old)
        ends: list[int] = []
        is_news = False  # that a budget is passed
        for view, at, amount, unit, is_hard in chain.budgets:
            end = view[at + 1]
            if now >= end:
                end = self._roll(chain, len(before), now)
            old = view[at]
            spent = old + costs[unit]
            if spent > amount and costs[unit]:
                if is_hard:
                    return _used_up(chain, _put_back(chain, before), costs[unit], now)
                is_news = is_news or view[at + 3] != end
            view[at] = spent
            before.append(old)
            ends.append(end)
        for slots in chain.slots:
            slots.held += 1
        place = None
        if ends and chain.is_kept:
            # Behind the charges: a kill in between leaves a charge that nobody can give back, never one that can be
            # given back without having been made.
            place = self._store.hold(chain.key)
            view, at = place
            view[at + 1], view[at + 2], view[at] = costs[MICROS], costs[TOKENS], now
        hold = Hold(chain, costs, ends, self, place)
        if ends:
            self.open.add(hold)  # 0.15 us with its end: for whoever asks what is reserved now (use)
        if is_news:
            self._tell_passed(chain)
        return hold

    def _tell_passed(self, chain: Chain) -> None:
        """Tell what budgets are passed, each once in its window. When all is stored: no fault of who hears it may leave
        half a request behind."""
        for (view, at, amount, _, is_hard), name in zip(chain.budgets, chain.names[len(chain.rates) :], strict=True):
            if view[at] > amount and not is_hard and view[at + 3] != view[at + 1]:
                view[at + 3] = view[at + 1]
                with suppress(Exception):
                    self.on_passed(*name)

    def close(self, hold: Hold, place: tuple[MutableSequence[int], int] | None) -> None:
        """`hold` is settled."""
        self.open.discard(hold)
        if place is not None:
            view, at = place
            view[at] = view[at + 1] = view[at + 2] = 0
            self._store.free(hold.chain.key, place)

    def lacks(self, chain: Chain, costs: Costs, now: int) -> Refusal | None:
        """The first hard budget of `chain` that has less left than `costs`; None: all have as much."""
        for number, (view, at, amount, unit, is_hard) in enumerate(chain.budgets):
            if is_hard and now < view[at + 1] and view[at] + costs[unit] > amount:
                return _used_up(chain, len(chain.rates) + number, costs[unit], now)
        return None

    def give_back(self, chain: Chain, costs: Costs, at: int | None) -> None:
        """Take `costs` off the budgets of `chain` that were there at the moment `at`, if that lies in their window;
        None: off all of them."""
        for (view, place, _, unit, _), (_, rule) in zip(chain.budgets, chain.names[len(chain.rates) :], strict=True):
            assert isinstance(rule, Budget)
            began, end = view[place + 2], view[place + 1]
            if at is None or (began <= at + _GRAIN and end == self._window_end(rule.window, at)):
                view[place] = min(max(0, view[place] - costs[unit]), FOREVER)

    def _roll(self, chain: Chain, number: int, now: int) -> int:
        """The window of a budget has ended, or there was none yet: begin the one that `now` lies in. Its end."""
        scope, rule = chain.names[number]
        assert isinstance(rule, Budget)
        view, at, *_ = chain.budgets[number - len(chain.rates)]
        view[at] = self.carried.get((scope, rule.unit), 0)
        view[at + 2] = now
        view[at + 1] = end = self._window_end(rule.window, now)
        return end

    # -- for whoever only looks, in any thread -----------------------------------------------------------------------

    @property
    def has_rules(self) -> bool:
        return bool(self._rules)

    @property
    def has_models(self) -> bool:
        """Whether a model has rules of its own."""
        return bool(self._models)

    def scopes(self) -> list[str]:
        """Those that have rules."""
        return list(self._rules)

    def running(self, scope: str) -> int:
        """Exchanges of `scope` at this moment; 0 where their number is not limited."""
        slots = self._slots.get(scope)
        return 0 if slots is None else slots.held

    def ahead(self, scope: str, rate: Rate, now: int) -> int:
        """Nanoseconds until all of the rate's burst is there again."""
        return max(0, self._numbers(scope, rate.name)[0] - now)

    def spent(self, scope: str, budget: Budget, now: int) -> tuple[int, int]:
        """What is used of the budget, with what is reserved, and the end of its window."""
        used, end, *_ = self._numbers(scope, budget.name)
        if now >= end:  # as `_roll` would have it
            return self.carried.get((scope, budget.unit), 0), self._window_end(budget.window, now)
        return used, end

    def _numbers(self, scope: str, name: str) -> tuple[int, ...]:
        """A counter as it is now: all its numbers in one step of the interpreter."""
        found = self._store.peek(f"{scope} {name}")
        if found is None:
            return (0,) * WIDTH
        view, at = found
        return tuple(view[at : at + WIDTH])


def _sign(place: tuple[MutableSequence[int], int], rate: Rate) -> None:
    """The number there is that of `rate` from now on; one that means the times of another rate begins anew."""
    view, at = place
    if view[at + 2] != rate.sign:
        if view[at + 2]:  # else it is of a version that did not say what it means
            view[at] = 0
        view[at + 2] = rate.sign


def _put_back(chain: Chain, before: list[int]) -> int:
    """Undo what was charged before a limit refused; the number of that one."""
    places = [rate[:2] for rate in chain.rates] + [budget[:2] for budget in chain.budgets]
    for (view, at), old in zip(places, before, strict=False):
        view[at] = old
    return len(before)


def _too_fast(chain: Chain, number: int, demand: Demand, now: int) -> Refusal:
    scope, rule = chain.names[number]
    view, at, step, burst, unit, room = chain.rates[number]
    ahead = max(0, view[at] - now)
    is_never = demand.least[unit] > burst
    wait = None if is_never else ahead + step * min(demand.most[unit], burst) - room
    return Refusal(scope, rule.name, unit, burst, max(0, room - ahead) // step, wait, ahead, False, is_never)


def _used_up(chain: Chain, number: int, cost: int, now: int) -> Refusal:
    scope, rule = chain.names[number]
    view, at, amount, unit, _ = chain.budgets[number - len(chain.rates)]
    end = view[at + 1]
    wait = None if end >= FOREVER else end - now
    return Refusal(scope, rule.name, unit, amount, max(0, amount - view[at]), wait, wait or 0, True, cost > amount)
