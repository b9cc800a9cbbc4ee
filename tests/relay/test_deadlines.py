"""The one sweeper for all time limits."""

from __future__ import annotations

from proxy.relay.deadlines import NEVER, SWEEP_SECONDS, Deadlines
from tests.fakes.loop import FakeLoop


class Item:
    """Writes down when its deadline came up, and moves it on by `step`."""

    def __init__(self, deadline: float, step: float = NEVER) -> None:
        self.deadline = deadline
        self.step = step
        self.seen: list[float] = []

    def on_deadline(self, now: float) -> None:
        self.seen.append(now)
        self.deadline = now + self.step


def started(loop: FakeLoop, *items: Item) -> Deadlines:
    deadlines = Deadlines(loop, loop.time)
    for item in items:
        deadlines.add(item)
    deadlines.start()
    return deadlines


def test_a_deadline_is_kept_to_a_quarter_of_a_second() -> None:
    with FakeLoop(now=100.0) as loop:
        item = Item(103.1)
        deadlines = started(loop, item)
        loop.advance(3.0)
        assert item.seen == []
        loop.advance(0.25)
        assert item.seen == [103.25]
        loop.advance(100.0)
        assert item.seen == [103.25]
        deadlines.stop()


def test_one_that_moves_on_is_looked_at_again() -> None:
    with FakeLoop(now=100.0) as loop:
        item = Item(101.0, step=1.0)
        deadlines = started(loop, item)
        loop.advance(3.0)
        assert item.seen == [101.0, 102.0, 103.0]
        deadlines.stop()


def test_never_is_never() -> None:
    with FakeLoop() as loop:
        item = Item(NEVER)
        deadlines = started(loop, item)
        loop.advance(100_000.0)
        assert item.seen == []
        deadlines.stop()


def test_one_timer_whatever_the_number() -> None:
    with FakeLoop() as loop:
        deadlines = started(loop, *[Item(NEVER) for _ in range(1000)])
        assert len(deadlines) == 1000
        loop.advance(10.0)
        assert len(loop.timers) == 1
        deadlines.stop()
        assert loop.timers == []
        deadlines.stop()


def test_who_is_taken_along_is_not_asked() -> None:
    with FakeLoop(now=100.0) as loop:
        items: list[Item] = []
        deadlines = Deadlines(loop, loop.time)

        class Taker(Item):
            def on_deadline(self, now: float) -> None:
                super().on_deadline(now)
                for item in items:
                    if item is not self:
                        deadlines.discard(item)

        items += [Taker(100.0) for _ in range(5)]
        for item in items:
            deadlines.add(item)
        deadlines.start()
        loop.advance(SWEEP_SECONDS)
        assert sum(len(item.seen) for item in items) == 1
        assert len(deadlines) == 1
        deadlines.stop()


def test_who_comes_along_is_asked_at_the_next_sweep() -> None:
    with FakeLoop(now=100.0) as loop:
        late = Item(0.0)
        deadlines = Deadlines(loop, loop.time)

        class Adder(Item):
            def on_deadline(self, now: float) -> None:
                super().on_deadline(now)
                deadlines.add(late)

        deadlines.add(Adder(100.0))
        deadlines.start()
        loop.advance(0.25)
        assert late.seen == []
        loop.advance(0.25)
        assert late.seen == [100.5]
        deadlines.stop()


def test_a_fault_of_one_does_not_stop_the_clock_of_others() -> None:
    with FakeLoop(now=100.0) as loop:

        class Broken(Item):
            def on_deadline(self, now: float) -> None:
                self.deadline = NEVER
                raise ZeroDivisionError("our fault")

        others = [Item(100.0, step=1.0) for _ in range(3)]
        deadlines = started(loop, others[0], Broken(100.0), *others[1:])
        loop._now += 0.25
        loop.run_ready_quietly()
        assert len(loop.expect_errors()) == 1
        loop.advance(1.0)
        assert [len(item.seen) for item in others] == [2, 2, 2]
        deadlines.stop()


def test_discarding_what_is_not_there() -> None:
    with FakeLoop() as loop:
        deadlines = started(loop)
        deadlines.discard(Item(0.0))
        assert len(deadlines) == 0
        deadlines.stop()
