"""What requests had reserved when their process was killed: kept, told once, given back when it is settled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.ledger.counters import beside, bump
from proxy.ledger.keys import KeyRow, KeyStore, digest_of
from proxy.policy.limits import Demand, Hold
from proxy.policy.rules import MICROS, parse_rules
from proxy.server.keys import StoredKeys
from tests.server.test_keys import NOW, ONE, SECOND, VALUE, Place, place

__all__ = ["place"]  # a fixture


def killed(place: Place, micros: int, rules: str = "1usd/hour") -> None:
    """A process with a request of `ci` under way ends by SIGKILL; another one has the place."""
    place.create("ci", limits=rules)
    place.serve()
    limiter = place.admission.limiter
    taken = limiter.take(limiter.chain("ci", None, (), None), Demand((1, 9, 9, 0, micros), ONE.least), NOW)
    assert isinstance(taken, Hold)
    place.counters.close()
    place.counters = place.open(NOW + 1)


def left(place: Place, now: int = NOW + 2) -> int:
    """Microdollars that the budget of `ci` still allows."""
    limiter = place.admission.limiter
    chain = limiter.chain("ci", None, (), None)
    probe = limiter.take(chain, Demand((1, 0, 0, 0, 0), ONE.least), now)  # so that the window is this one
    assert isinstance(probe, Hold)
    probe.settle(None)  # else it is lost, too, when the process is killed next
    view, at, amount, unit, _ = chain.budgets[0]
    assert unit == MICROS
    return amount - view[at]


def test_what_ran_counts_as_spent_and_is_told_once(place: Place) -> None:
    killed(place, 400_000)
    place.serve()
    assert left(place) == 600_000
    (lost,) = place.store.lost()
    assert (lost.key, lost.micros, lost.tokens) == ("ci", 400_000, 9)
    assert [message for level, message in place.notes if level == "warn"] == [
        "1 requests were running when the process before was killed: the 0.4 usd and 9 tokens that they had reserved "
        "count as spent (`llm-proxy keys lost` shows them)"
    ]
    place.counters.close()
    place.counters = place.open(NOW + 3)
    place.serve()
    assert len(place.store.lost()) == 1
    assert [level for level, _ in place.notes] == ["warn"]
    assert left(place) == 600_000


def test_what_comes_twice_is_written_once(place: Place) -> None:
    """Killed between the table and the file."""
    killed(place, 400_000)
    (hold,) = place.counters.lost
    place.store.add_lost(hold.key, hold.micros, hold.tokens, hold.started_at / SECOND)
    place.serve()
    assert len(place.store.lost()) == 1


def test_settled_what_was_not_spent_comes_back_once(place: Place) -> None:
    killed(place, 400_000)
    stored = place.serve()
    place.store.settle_lost("ci", 100_000, 9)
    bump(beside(place.path))
    stored.look()
    assert left(place) == 900_000
    bump(beside(place.path))
    stored.look()
    assert left(place) == 900_000


def test_settled_while_no_server_runs(place: Place) -> None:
    killed(place, 400_000)
    place.serve()
    place.store.settle_lost("ci", 100_000, 9)
    place.serve()
    assert left(place) == 900_000


@pytest.mark.parametrize(("carries", "rest"), [(False, 1_000_000), (True, 600_000)])
def test_in_the_next_window_it_counts_if_the_setting_says_so(place: Place, carries: bool, rest: int) -> None:
    killed(place, 400_000)
    stored = place.serve(carries=carries)
    later = NOW + 3600 * SECOND
    assert left(place, later) == rest
    place.store.settle_lost("ci", 100_000, 9)
    bump(beside(place.path))
    stored.look()
    assert left(place, later) == (1_000_000 if not carries else 900_000)
    assert left(place, later + 3600 * SECOND) == 1_000_000


# -- which budgets get something back ---------------------------------------------------------------------------------

LATER = NOW + 10 * SECOND


def takes(place: Place, key: str, group: str | None, tokens: int, now: int = NOW) -> list[int]:
    """A request of that many tokens; what the budgets of its key and group say then."""
    limiter = place.admission.limiter
    chain = limiter.chain(key, group, (), None)
    assert isinstance(limiter.take(chain, Demand((1, tokens, 0, 0, 0), ONE.least), now), Hold)
    return [view[at] for view, at, *_ in chain.budgets]


def settled(place: Place, change: Callable[[], object]) -> StoredKeys:
    """The process is killed, `change` is made, another process begins, and nothing was spent."""
    place.counters.close()
    place.counters = place.open(NOW + 1)
    change()
    stored = place.serve()
    limiter = place.admission.limiter
    limiter.set_rules("all", parse_rules("9ktokens/total"))
    place.store.settle_lost("a")
    return stored


def looks(place: Place, stored: StoredKeys) -> None:
    bump(beside(place.path))
    stored.look()


def at(place: Place, seconds: int) -> KeyStore:
    """The ledger for who changes it so many seconds after the kill."""
    return KeyStore(place.path, 1.0, lambda: NOW / SECOND + seconds)


@pytest.fixture
def team(place: Place) -> Place:
    """Two groups, and a key in one of them."""
    with at(place, -5) as store:
        for name in ("old", "new"):
            store.set_group(name, "1ktokens/total 1ktokens/day")
        store.create(KeyRow("a", digest_of(VALUE), VALUE[:5], key_group="old", limits="9ktokens/total"))
    place.serve()
    place.admission.limiter.set_rules("all", parse_rules("9ktokens/total"))
    return place


def test_a_key_its_group_and_everything_get_back_what_they_were_charged(team: Place) -> None:
    assert takes(team, "a", "old", 900) == [900] * 4
    looks(team, settled(team, lambda: None))
    assert takes(team, "a", "old", 1, LATER) == [1] * 4


def test_a_group_to_which_the_key_went_gets_nothing(team: Place) -> None:
    takes(team, "a", "old", 900)
    with at(team, 5) as store:
        stored = settled(team, lambda: store.change("a", key_group="new"))
    assert takes(team, "a", "new", 500, LATER) == [1400, 500, 500, 1400]
    looks(team, stored)
    assert takes(team, "a", "new", 1, LATER) == [501, 501, 501, 501]
    assert takes(team, "a", "old", 1, LATER)[1:3] == [901, 901], "nor the one that it was in: nobody knows which"


def test_a_key_that_was_changed_at_the_moment_of_the_request_may_have_come_from_anywhere(team: Place) -> None:
    takes(team, "a", "old", 900)
    with at(team, 0) as store:
        stored = settled(team, lambda: store.change("a", key_group="new"))
    takes(team, "a", "new", 500)
    looks(team, stored)
    assert takes(team, "a", "new", 1, LATER)[1:3] == [501, 501]


def test_a_budget_that_came_later_gets_nothing(team: Place) -> None:
    takes(team, "a", "old", 900)
    with at(team, 5) as store:
        stored = settled(team, lambda: store.set_group("old", "1ktokens/total 2ktokens/hour"))
    assert takes(team, "a", "old", 50, LATER) == [950, 950, 50, 950]
    looks(team, stored)
    assert takes(team, "a", "old", 1, LATER) == [51, 51, 51, 51]


def test_carried_into_a_window_of_the_budgets_that_were_charged(team: Place) -> None:
    takes(team, "a", "old", 900)
    team.counters.close()
    team.counters = team.open(NOW + 1)
    team.serve(carries=True)
    carried = team.admission.limiter.carried
    assert {scope for scope, _ in carried} == {"all", "key a", "group old"}
    with at(team, 5) as store:
        store.change("a", key_group="new")
    team.serve(carries=True)
    assert {scope for scope, _ in team.admission.limiter.carried} == {"all", "key a"}
