"""Nobody gets more than the rules say, and nobody less: rates against a model, budgets, what comes back."""

from __future__ import annotations

import random
from collections.abc import MutableSequence

import pytest

from proxy.policy.counters import MemoryStore
from proxy.policy.limits import FOREVER, Chain, Demand, Hold, Limiter, Refusal
from proxy.policy.rules import INPUT, MICROS, OUTPUT, REQUESTS, TOKENS, Costs, parse_rules

SECOND = 10**9
NOW = 1_800_000_000 * SECOND
ONE = Demand((1, 0, 0, 0, 0), (1, 0, 0, 0, 0))


def window_end(window: str, now: int) -> int:
    """Hours and days of UTC; a total never ends."""
    size = {"hour": 3600 * SECOND, "day": 86_400 * SECOND}.get(window)
    return FOREVER if size is None else now - now % size + size


def limiter(**scopes: str) -> Limiter:
    made = Limiter(MemoryStore(), window_end)
    for scope, text in scopes.items():
        made.set_rules(scope.replace("_", " "), parse_rules(text))
    return made


def one(text: str) -> tuple[Limiter, Chain]:
    made = limiter(key_ci=text)
    return made, made.chain("ci", None, (), None)


def costing(micros: int = 0, input: int = 0, output: int = 0) -> Demand:
    costs = (1, input + output, input, output, micros)
    return Demand(costs, (1, 0, 0, 0, 0))


def spent(chain: Chain) -> int:
    """What the chain's first budget says."""
    view, at, *_ = chain.budgets[0]
    return view[at]


def passes(limiter: Limiter, chain: Chain, demand: Demand = ONE, now: int = NOW) -> bool:
    return isinstance(limiter.take(chain, demand, now), Hold)


def refused(limiter: Limiter, chain: Chain, demand: Demand = ONE, now: int = NOW) -> Refusal:
    found = limiter.take(chain, demand, now)
    assert isinstance(found, Refusal)
    return found


# -- rates against a model --------------------------------------------------------------------------------------------


class Bucket:
    """The model: a bucket that leaks. Its level is exact, in units times the length of the window."""

    def __init__(self, amount: int, seconds: int, burst: int) -> None:
        self.leak, self.window, self.size = amount, seconds * SECOND, burst * seconds * SECOND
        self.level, self.at = 0, 0

    def take(self, cost: int, now: int) -> bool:
        self.level = max(0, self.level - (now - self.at) * self.leak)
        self.at = now
        if self.level + cost * self.window > self.size:
            return False
        self.level += cost * self.window
        return True


EXACT = ["rps=10", "rps=100/5", "rpm=60", "rpm=600/1", "rpd=86400/100", "tpm=60k", "tpm=600/200", "itpd=864k/5k"]


@pytest.mark.slow
@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize("load", [0.3, 1.0, 3.0])
def test_a_rate_does_what_a_leaking_bucket_does(text: str, load: float) -> None:
    """2.4 million random arrivals in all, at a third of the rate, at the rate, and at three times as much."""
    dice = random.Random(text + str(load))
    limiter, chain = one(text)
    (rate,) = parse_rules(text).rates
    bucket = Bucket(rate.amount, rate.seconds, rate.burst)
    most = 1 if rate.unit == REQUESTS else max(1, rate.burst // 3)
    pause = rate.seconds * SECOND / rate.amount * (1 + most) / 2 / load
    now = NOW
    for _ in range(100_000):
        now += round(dice.expovariate(1) * pause)
        cost = dice.randint(1, most)
        costs = (cost,) * 5
        assert passes(limiter, chain, Demand(costs, costs), now) == bucket.take(cost, now)


@pytest.mark.parametrize("text", ["rps=7", "rps=1000/3", "rpm=61/10", "rpd=999", "rps=3/1", "rps=123457/50"])
def test_no_window_holds_more_than_limit_and_burst_and_none_less_by_more_than_one(text: str) -> None:
    """Also where a unit's share of the window is no whole number of nanoseconds."""
    limiter, chain = one(text)
    (rate,) = parse_rules(text).rates
    step = rate.seconds * SECOND / rate.amount
    dice = random.Random(text)
    now, passed = NOW, []
    while len(passed) < 3000:  # saturated: somebody asks several times in each step
        now += dice.randint(0, max(1, round(step / 2)))
        if passes(limiter, chain, now=now):
            passed.append(now)
    for _ in range(2000):
        first, last = sorted(dice.sample(range(len(passed)), 2))
        size = passed[last] - passed[first]
        assert last - first + 1 <= rate.burst + size / step
    size = now - NOW
    if rate.burst > 1:  # else what passes between the moment it may and the next ask is lost
        assert len(passed) >= rate.burst + size / step - 1


def test_asked_at_every_moment_a_rate_gives_all_it_has() -> None:
    limiter, chain = one("rps=10/2")
    passed = [at for at in range(0, 10 * SECOND, SECOND // 1000) if passes(limiter, chain, now=NOW + at)]
    assert len(passed) == 2 + 99  # two at once, then one each 100 ms
    assert passed[:3] == [0, 0 + SECOND // 1000, SECOND // 10]


# -- tokens that are not known yet ------------------------------------------------------------------------------------


def test_what_was_not_used_comes_back_and_what_was_used_beyond_it_is_owed() -> None:
    limiter, chain = one("tpm=600")
    hold = limiter.take(chain, costing(input=100, output=500), NOW)
    assert isinstance(hold, Hold)
    assert not passes(limiter, chain, costing(input=1))
    hold.settle((1, 200, 100, 100, 0))
    assert passes(limiter, chain, costing(input=400))
    assert not passes(limiter, chain, costing(input=1))
    limiter, chain = one("tpm=600")
    hold = limiter.take(chain, costing(input=100), NOW)
    assert isinstance(hold, Hold)
    hold.settle((1, 1200, 1200, 0, 0))
    assert not passes(limiter, chain, costing(input=1), NOW + 60 * SECOND)
    assert passes(limiter, chain, costing(input=1), NOW + 61 * SECOND)


def test_who_says_no_cap_takes_the_whole_burst() -> None:
    limiter, chain = one("tpm=1000")
    open_end = Demand((1, 128_000, 0, 128_000, 0), (1, 200, 200, 0, 0))
    hold = limiter.take(chain, open_end, NOW)
    assert isinstance(hold, Hold)
    assert not passes(limiter, chain, costing(input=1))
    hold.settle((1, 300, 200, 100, 0))
    assert passes(limiter, chain, costing(input=700))
    assert not passes(limiter, chain, costing(input=1))


def test_what_could_never_pass_is_told_at_once() -> None:
    limiter, chain = one("rpm=60 tpm=1000")
    certain = Demand((1, 1001, 1001, 0, 0), (1, 1001, 1001, 0, 0))
    refusal = refused(limiter, chain, certain)
    assert (refusal.rule, refusal.is_never, refusal.wait) == ("tpm", True, None)
    for _ in range(60):
        assert passes(limiter, chain), "what was refused has taken nothing"


def test_a_call_that_is_free_does_not_wait_for_tokens() -> None:
    limiter, chain = one("tpm=10")
    assert passes(limiter, chain, costing(input=10))
    assert passes(limiter, chain, costing())


# -- exchanges at once ------------------------------------------------------------------------------------------------


def test_exchanges_at_once() -> None:
    limiter, chain = one("concurrent=2")
    first, second = limiter.take(chain, ONE, NOW), limiter.take(chain, ONE, NOW)
    assert isinstance(first, Hold) and isinstance(second, Hold)
    assert refused(limiter, chain).rule == "concurrent"
    first.settle(None)
    assert refused(limiter, chain), "what it used is known, but it runs"
    first.release()
    first.release()
    assert passes(limiter, chain)
    assert refused(limiter, chain), "given back once"


def test_exchanges_run_on_while_their_limit_changes() -> None:
    limiter, chain = one("concurrent=2")
    hold = limiter.take(chain, ONE, NOW)
    limiter.set_rules("key ci", parse_rules("concurrent=1"))
    chain = limiter.chain("ci", None, (), None)
    assert refused(limiter, chain)
    assert isinstance(hold, Hold)
    hold.release()
    assert passes(limiter, chain)


# -- budgets ----------------------------------------------------------------------------------------------------------


def test_a_budget_is_reserved_and_settled() -> None:
    limiter, chain = one("1usd/day")
    hold = limiter.take(chain, costing(600_000), NOW)
    assert isinstance(hold, Hold)
    refusal = refused(limiter, chain, costing(600_000))
    assert (refusal.is_budget, refusal.rule, refusal.limit, refusal.remaining) == (True, "usd/day", 10**6, 400_000)
    assert refusal.wait == window_end("day", NOW) - NOW
    hold.settle((1, 0, 0, 0, 100_000))
    hold.settle((1, 0, 0, 0, 0))
    assert passes(limiter, chain, costing(900_000)), "settled once"
    assert not passes(limiter, chain, costing(1))


def test_what_nobody_knows_stays_charged() -> None:
    limiter, chain = one("1usd/total")
    hold = limiter.take(chain, costing(600_000), NOW)
    assert isinstance(hold, Hold)
    hold.settle(None)
    refusal = refused(limiter, chain, costing(600_000))
    assert (refusal.wait, refusal.is_never) == (None, False)
    assert refused(limiter, chain, costing(2_000_000)).is_never


def test_a_window_ends_and_what_began_in_it_is_its_own() -> None:
    limiter, chain = one("1usd/hour")
    hold = limiter.take(chain, costing(900_000), NOW)
    later = window_end("hour", NOW)
    assert not passes(limiter, chain, costing(200_000), later - 1)
    assert passes(limiter, chain, costing(200_000), later)
    assert isinstance(hold, Hold)
    hold.settle((1, 0, 0, 0, 0))
    assert passes(limiter, chain, costing(800_000), later)
    assert not passes(limiter, chain, costing(1), later), "900,000 of the hour before are not this hour's"


def test_what_is_given_back_goes_to_budgets_that_were_there_and_never_below_nothing() -> None:
    limiter, chain = one("1ktokens/total 1ktokens/hour")
    assert passes(limiter, chain, costing(input=500), NOW + SECOND)
    both = [(view, at) for view, at, *_ in chain.budgets]
    limiter.give_back(chain, (0, 100, 0, 0, 0), NOW + SECOND - 240)  # as exact as a moment in the ledger is
    assert [view[at] for view, at in both] == [400, 400]
    limiter.give_back(chain, (0, 100, 0, 0, 0), NOW)
    assert [view[at] for view, at in both] == [400, 400], "nobody was charged then"
    later = window_end("hour", NOW)
    assert passes(limiter, chain, costing(input=1), later)
    limiter.give_back(chain, (0, 100, 0, 0, 0), NOW + SECOND)
    assert [view[at] for view, at in both] == [301, 1]
    limiter.give_back(chain, (0, 1000, 0, 0, 0), None)
    assert [view[at] for view, at in both] == [0, 0]
    limiter.give_back(chain, (0, -7, 0, 0, 0), later)
    assert [view[at] for view, at in both] == [7, 7], "more was spent than was reserved"


def test_a_budget_that_warns_lets_pass_and_tells_once() -> None:
    limiter, chain = one("10tokens/day:warn")
    told: list[str] = []
    limiter.on_passed = lambda scope, rule: told.append(f"{scope} {rule.name}")
    for number in range(4):
        assert passes(limiter, chain, costing(input=8))
        assert told == ["key ci tokens/day"] * (number > 0)
    later = window_end("day", NOW)
    assert passes(limiter, chain, costing(input=8), later)
    assert len(told) == 1
    assert not chain.has_hard_dollars
    assert passes(limiter, chain, costing(input=8), later)
    assert len(told) == 2, "another window"


def test_a_budget_that_warns_is_told_once_also_where_reservations_come_back_or_turn_out_too_small() -> None:
    limiter, chain = one("10tokens/day:warn")
    told: list[str] = []
    limiter.on_passed = lambda scope, rule: told.append(scope)
    for _ in range(3):
        hold = limiter.take(chain, costing(input=11), NOW)
        assert isinstance(hold, Hold)
        hold.settle((1, 1, 1, 0, 0))
    assert told == ["key ci"]
    limiter, chain = one("10tokens/day:warn")
    limiter.on_passed = lambda scope, rule: told.append("later")
    hold = limiter.take(chain, costing(input=1), NOW)
    assert isinstance(hold, Hold)
    hold.settle((1, 99, 99, 0, 0))
    assert passes(limiter, chain, costing(input=1))
    assert told == ["key ci", "later"]


def test_nothing_is_told_of_a_request_that_another_limit_refuses() -> None:
    limiter_ = limiter(key_ci="10tokens/day:warn", all="5tokens/day")
    told: list[str] = []
    limiter_.on_passed = lambda scope, rule: told.append(scope)
    assert refused(limiter_, limiter_.chain("ci", None, (), None), costing(input=11)).scope == "all"
    assert told == []


def test_a_hard_budget_that_cost_more_than_was_reserved_is_not_said_to_warn_only() -> None:
    limiter, chain = one("10tokens/day 5tokens/hour:warn")
    told: list[str] = []
    limiter.on_passed = lambda scope, rule: told.append(rule.name)
    hold = limiter.take(chain, costing(input=1), NOW)
    assert isinstance(hold, Hold)
    hold.settle((1, 99, 99, 0, 0))
    assert passes(limiter, chain)
    limiter.set_rules("key ci", parse_rules("100tokens/day 5tokens/hour:warn"))
    assert passes(limiter, limiter.chain("ci", None, (), None), costing(input=1))
    assert told == ["tokens/hour"]


def test_who_is_told_cannot_leave_half_a_request() -> None:
    def fails(scope: str, rule: object) -> None:
        raise OSError("the log is full")

    limiter, chain = one("10tokens/day:warn 1usd/day concurrent=1")
    limiter.on_passed = fails
    hold = limiter.take(chain, costing(7, input=11), NOW)
    assert isinstance(hold, Hold)
    assert limiter.open == {hold}
    assert [view[at] for view, at, *_ in chain.budgets] == [11, 7]
    assert refused(limiter, chain).rule == "concurrent"
    hold.release()
    assert passes(limiter, chain)


def test_all_or_nothing() -> None:
    """The last limit of a chain refuses: nothing was taken from those before."""
    limiter_ = limiter(
        key_ci="rpm=60 concurrent=9 1usd/day", group_team="2usd/day", model_m="rpm=1", provider_p="rpm=9", all="rpm=99"
    )
    chain = limiter_.chain("ci", "team", ["m"], "p")
    assert passes(limiter_, chain, costing(1))
    before = {scope: limiter_.chain(*scope).rates for scope in [("ci", None, (), None), (None, None, (), "p")]}
    values = [view[at] for rates in before.values() for view, at, *_ in rates]
    assert refused(limiter_, chain, costing(1)).scope == "model m"
    assert [view[at] for rates in before.values() for view, at, *_ in rates] == values
    assert spent(limiter_.chain("ci", None, (), None)) == 1
    assert chain.slots[0].held == 1


def test_a_chain_holds_what_applies() -> None:
    limiter_ = limiter(key_a="rpm=1", group_g="tpm=1", all="1usd/day:warn")
    assert [scope for scope, _ in limiter_.chain("a", "g", ["m"], "p").names] == ["key a", "group g", "all"]
    assert limiter_.chain("b", None, ["m"], "p").rates == ()
    assert limiter_.chain(None, None, (), None).names[0][0] == "all"
    assert not limiter_.chain("a", None, (), None).has_hard_dollars
    limiter_.set_rules("all", parse_rules(""))
    assert limiter_.chain("b", None, ["m"], "p") == Chain("b")


def test_who_has_no_name_is_not_called_none() -> None:
    limiter_ = limiter(key_None="rpm=1", group_None="rpm=1", provider_None="rpm=1")
    assert limiter_.chain(None, None, (), None).rates == ()
    assert limiter_.chain("None", None, (), None).scopes == {"key None"}


def test_a_model_has_all_its_names_and_may_be_a_pattern() -> None:
    limiter_ = limiter()
    limiter_.set_rules("model GPT-4o*", parse_rules("rpm=1"))
    limiter_.set_rules("model o3", parse_rules("rpm=1"))
    for names, scopes in {
        ("gpt-4o",): {"model GPT-4o*"},
        ("openai/gpt-4o-mini", "gpt-4o-mini"): {"model GPT-4o*"},
        ("O3",): {"model o3"},
        ("o3-mini",): set(),
        (): set(),
    }.items():
        assert limiter_.chain("ci", None, names, "p").scopes == scopes
    limiter_.set_rules("model o3", parse_rules(""))
    assert limiter_.chain("ci", None, ["o3"], "p").scopes == set()


# -- beside what is taken already -------------------------------------------------------------------------------------


def test_what_stands_in_the_other_chain_is_not_in_this_one() -> None:
    limiter_ = limiter()
    for scope in ("key ci", "group team", "provider p", "all", "model m", "model *"):
        limiter_.set_rules(scope, parse_rules("rpm=5"))
    taken = limiter_.chain("ci", None, ["m"], None)
    assert taken.scopes == {"key ci", "all", "model m", "model *"}
    own = limiter_.chain(None, None, ["m", "other"], "p", taken)
    assert own.scopes == {"provider p"}
    assert [scope for scope, _ in own.names] == ["provider p"]
    everything = limiter_.chain("ci", "team", ["m"], "p", Chain(""))
    assert everything.scopes == {"key ci", "group team", "provider p", "all", "model m", "model *"}
    assert limiter_.chain("ci", None, ["m"], None, taken).rates == ()


def test_a_chain_beside_another_is_not_mistaken_for_one_of_its_own() -> None:
    limiter_ = limiter(provider_p="rpm=5 1usd/day")
    alone = limiter_.chain(None, None, (), "p")
    beside = limiter_.chain(None, None, (), "p", Chain(""))
    assert (alone.is_kept, beside.is_kept) == (True, False)
    assert alone.scopes == beside.scopes
    assert limiter_.chain(None, None, (), "p") is alone
    assert limiter_.chain(None, None, (), "p", Chain("")) is beside


class Remembering(MemoryStore):
    """Knows for whose requests there are places now."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[str] = []

    def hold(self, name: str) -> tuple[MutableSequence[int], int]:
        self.held.append(name)
        return super().hold(name)

    def free(self, name: str, place: tuple[MutableSequence[int], int]) -> None:
        self.held.remove(name)


@pytest.mark.sources
def test_a_hold_that_is_not_kept_takes_no_place_and_counts_all_the_same() -> None:
    store = Remembering()
    limiter_ = Limiter(store, window_end)
    limiter_.set_rules("key ci", parse_rules("1usd/day"))
    limiter_.set_rules("provider p", parse_rules("100tokens/total rpm=5 concurrent=2"))
    common = limiter_.chain("ci", None, (), None)
    own = limiter_.chain(None, None, (), "p", common)
    first = limiter_.take(common, costing(1), NOW)
    second = limiter_.take(own, costing(input=60), NOW)
    assert isinstance(first, Hold) and isinstance(second, Hold)
    assert store.held == ["ci"]
    assert limiter_.open == {first, second}
    assert spent(own) == 60
    assert refused(limiter_, own, costing(input=60)).rule == "tokens/total"
    second.settle((1, 10, 10, 0, 0))
    second.release()
    assert store.held == ["ci"]
    first.settle((1, 0, 0, 0, 1))
    assert (store.held, limiter_.open) == ([], set())
    assert (spent(own), own.slots[0].held) == (10, 0)


# -- when rules change ------------------------------------------------------------------------------------------------


def test_a_changed_rule_counts_on() -> None:
    limiter, chain = one("10usd/day rpm=60")
    assert passes(limiter, chain, costing(6_000_000))
    limiter.set_rules("key ci", parse_rules("7usd/day rpm=60"))
    chain = limiter.chain("ci", None, (), None)
    assert refused(limiter, chain, costing(2_000_000)).remaining == 1_000_000


def test_a_rate_that_is_changed_begins_anew_and_one_that_stays_goes_on() -> None:
    limiter, chain = one("rpm=2 rpd=3")
    assert passes(limiter, chain) and passes(limiter, chain)
    assert not passes(limiter, chain)
    limiter.set_rules("key ci", parse_rules("rpm=4 rpd=3"))
    chain = limiter.chain("ci", None, (), None)
    assert passes(limiter, chain)
    assert refused(limiter, chain).rule == "rpd"


def test_a_rate_that_was_changed_while_no_process_ran_begins_anew_and_one_that_stays_goes_on() -> None:
    store = MemoryStore()

    def process(text: str) -> tuple[Limiter, Chain]:
        made = Limiter(store, window_end)
        made.set_rules("key ci", parse_rules(text))
        return made, made.chain("ci", None, (), None)

    limiter, chain = process("rpd=2 rph=2")
    assert passes(limiter, chain) and passes(limiter, chain)
    limiter, chain = process("rpd=2 rph=5")
    assert refused(limiter, chain).rule == "rpd"
    limiter, chain = process("rpd=100k/1 rph=5")
    assert limiter.ahead("key ci", parse_rules("rpd=100k/1").rates[0], NOW) == 0
    assert passes(limiter, chain)
    assert not passes(limiter, chain)


def test_a_rate_of_a_version_that_did_not_say_what_it_means_goes_on() -> None:
    limiter, chain = one("rpd=1")
    assert passes(limiter, chain)
    view, at, *_ = chain.rates[0]
    view[at + 2] = 0
    limiter.set_rules("key ci", parse_rules("rpd=1"))
    assert not passes(limiter, limiter.chain("ci", None, (), None))


def test_what_a_budget_lacks() -> None:
    limiter, chain = one("10tokens/day 9usd/day:warn")
    assert passes(limiter, chain, costing(5_000_000, input=4))
    assert limiter.lacks(chain, (0, 6, 0, 0, 10**9), NOW) is None
    lacks = limiter.lacks(chain, (0, 7, 0, 0, 0), NOW)
    assert lacks is not None and (lacks.rule, lacks.remaining) == ("tokens/day", 6)
    assert limiter.lacks(chain, (0, 7, 0, 0, 0), window_end("day", NOW)) is None
    assert spent(chain) == 4


def test_a_thousand_random_lives_never_spend_more_than_there_is() -> None:
    """Requests come, cost less than was thought, end in any order: at no moment do charges exceed the budget, and at
    the end the counter holds what was used."""
    dice = random.Random(11)
    for _ in range(200):
        limiter, chain = one("1000tokens/total concurrent=7")
        running: list[tuple[Hold, Costs]] = []
        used = 0
        for _ in range(100):
            if running and dice.random() < 0.5:
                hold, costs = running.pop(dice.randrange(len(running)))
                hold.settle(costs)
                hold.release()
                used += costs[TOKENS]
            most = dice.randint(1, 60)
            taken = limiter.take(chain, costing(input=most), NOW)
            if isinstance(taken, Hold):
                real = dice.randint(0, most)
                running.append((taken, (1, real, real, 0, 0)))
            charged = spent(chain)
            assert charged == used + sum(hold.costs[TOKENS] for hold, _ in running) <= 1000
            assert chain.slots[0].held == len(running) <= 7


def test_no_figure_is_too_large_for_a_counter() -> None:
    """A provider may report anything; and what rules allow stays far within 64 bits."""
    limiter, chain = one("tpd=1 rps=1G 1Gusd/total:warn 1Gtokens/day:warn")
    for _ in range(3):
        hold = limiter.take(chain, costing(10**15, input=1), NOW)
        if isinstance(hold, Hold):
            hold.settle((1, 2**53, 2**53, 0, 2**60))
        limiter.set_rules("key ci", parse_rules("rps=1G 1Gusd/total:warn 1Gtokens/day:warn"))
        chain = limiter.chain("ci", None, (), None)
    assert all(-(2**63) <= view[at] < 2**63 for view, at, *_ in (*chain.rates, *chain.budgets))
    with pytest.raises(ValueError, match="ten years"):
        parse_rules("rpd=1/200000")


def test_units() -> None:
    assert (REQUESTS, TOKENS, INPUT, OUTPUT, MICROS) == (0, 1, 2, 3, 4)
    limiter, chain = one("itpm=10 otpm=20")
    assert passes(limiter, chain, costing(input=10, output=5))
    assert refused(limiter, chain, costing(input=1)).rule == "itpm"
    assert refused(limiter, chain, costing(output=16)).rule == "otpm"
    assert passes(limiter, chain, costing(output=15))
