"""What is lost is counted where a kill cannot reach, and told without a flood."""

from __future__ import annotations

import threading

import pytest

from proxy.ledger import losses as module
from proxy.ledger.losses import Losses
from proxy.ledger.run import LOST
from tests.ledger.receipts import SECONDS, Heard


class Clock:
    """Imitates the module `time`: it is what it is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_the_first_is_told_and_then_once_a_minute(clock: Clock) -> None:
    heard = Heard()
    losses = Losses(heard)
    for _ in range(241):  # two minutes
        losses.add(10, "full")
        clock.now += 0.5
    assert (losses.count, losses.why) == (2410, "full")
    assert heard.notes == [
        ("error", f"the ledger loses receipts (full): {count} so far", {"lost": count}) for count in (10, 1210, 2410)
    ]


def test_what_is_lost_after_the_end_is_told_at_once(clock: Clock) -> None:
    heard = Heard()
    losses = Losses(heard)
    assert losses.end() is False
    losses.add(1, "full")
    assert losses.end() is True
    assert losses.end() is False
    losses.add(1, "full again")
    assert [more["lost"] for _, _, more in heard.notes] == [1, 2]


def test_what_somebody_else_tells_is_counted_only(clock: Clock) -> None:
    heard = Heard()
    losses = Losses(heard)
    counter = [0] * 4
    losses.count_in(counter)
    losses.add(3, "full", is_told=True)
    assert (losses.count, counter[LOST], heard.notes) == (3, 3, [])
    losses.add(1, "full")
    assert len(heard.notes) == 1


def test_another_counter_has_what_the_first_had() -> None:
    losses = Losses(Heard())
    losses.add(5, "full")
    counter = [9] * 4
    losses.count_in(counter)
    assert counter == [9, 5, 9, 9]
    losses.add(1, "full")
    assert counter[LOST] == 6


def test_two_threads_lose_nothing_of_the_count() -> None:
    losses = Losses(Heard())
    counter = [0] * 4
    losses.count_in(counter)
    threads = [threading.Thread(target=lambda: [losses.add(1, "full") for _ in range(5000)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert (losses.count, counter[LOST]) == (10_000, 10_000)
