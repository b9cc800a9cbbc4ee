"""What requests had reserved when their process was killed: kept, told once, given back when it is settled."""

from __future__ import annotations

import pytest

from proxy.ledger.counters import beside, bump
from proxy.policy.limits import Demand, Hold
from proxy.policy.rules import MICROS
from tests.server.test_keys import NOW, ONE, SECOND, Place, place

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
    limiter.take(chain, Demand((1, 0, 0, 0, 0), ONE.least), now)  # so that the window is this one
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
