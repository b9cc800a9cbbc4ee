"""A target that fails is left alone, and comes back: step by step, and against a model of all that may happen."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.policy.breaker import Breaker, BreakerOptions, State

OPTIONS = BreakerOptions()


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.fail(now, breaker.begin(now))


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    fail(breaker, now, 5)
    assert breaker.state(now) is State.OPEN
    return breaker


def test_all_may_pass_a_closed_one() -> None:
    breaker = Breaker()
    assert breaker.state(0.0) is State.CLOSED
    assert breaker.may(0.0)
    assert not breaker.begin(0.0)
    assert breaker.share(0.0) == 1.0
    assert breaker.retry_in(0.0) == 0.0


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker()
    fail(breaker, 100.0, 4)
    breaker.succeed(100.0, False)
    fail(breaker, 100.0, 4)
    assert breaker.may(100.0)
    fail(breaker, 100.0)
    assert not breaker.may(104.9)
    assert breaker.retry_in(101.0) == 4.0
    assert breaker.may(105.0)


def spread(breaker: Breaker, start: float, outcomes: str, step: float) -> None:
    for number, outcome in enumerate(outcomes):
        now = start + number * step
        if outcome == "x":
            breaker.fail(now, False)
        else:
            breaker.succeed(now, False)


@pytest.mark.parametrize(
    ("outcomes", "is_open"),
    [
        ("x." * 9 + "x", False),  # 19 outcomes
        ("x." * 9 + ".x", True),  # half of 20
        ("x.." * 10 + "x", False),
        ("x." * 30, True),
    ],
)
def test_a_share_of_failures_opens_it_once_there_are_enough(outcomes: str, is_open: bool) -> None:
    breaker = Breaker()
    spread(breaker, 100.0, outcomes, 0.1)
    assert breaker.is_closed is not is_open


@pytest.mark.parametrize("start", [0.0, 29.9, 1_000_000.3])
def test_outcomes_leave_the_window(start: float) -> None:
    breaker = Breaker(BreakerOptions(consecutive=0))
    spread(breaker, start, "x" * 19, 0.0)
    spread(breaker, start + 31.0, "x.", 0.0)
    assert breaker.is_closed
    spread(breaker, start + 31.0, "x." * 9, 0.0)
    assert breaker.is_closed
    spread(breaker, start + 31.0, "x", 0.0)  # the first one after there were 20
    assert not breaker.is_closed


@pytest.mark.parametrize("start", [0.0, 29.9, 1_000_000.3])
def test_outcomes_stay_for_nine_tenths_of_the_window_at_least(start: float) -> None:
    breaker = Breaker(BreakerOptions(consecutive=0))
    spread(breaker, start, "x" * 19, 0.0)
    spread(breaker, start + 26.9, "x", 0.0)
    assert not breaker.is_closed


def test_one_probe_at_a_time_and_its_success_closes_it() -> None:
    breaker = opened()
    assert breaker.begin(105.0)
    assert breaker.state(105.0) is State.PROBING
    assert not breaker.may(106.0)
    assert not breaker.begin(106.0)
    breaker.succeed(107.0, True)
    assert breaker.state(107.0) is State.WARMING
    assert breaker.state(117.0) is State.CLOSED
    fail(breaker, 118.0, 4)  # those from before are forgotten
    assert breaker.may(118.0)


def test_each_probe_that_fails_doubles_the_time_up_to_the_longest() -> None:
    breaker, now = opened(), 100.0
    waits = [breaker.retry_in(now)]
    for _ in range(4):
        now += waits[-1]
        fail(breaker, now)
        waits.append(breaker.retry_in(now))
    assert waits == [5.0, 10.0, 20.0, 20.0, 20.0]
    now += 20.0
    breaker.succeed(now, breaker.begin(now))
    fail(breaker, now, 5)
    assert breaker.retry_in(now) == 5.0


def test_what_began_before_it_opened_says_nothing() -> None:
    breaker = opened()
    breaker.succeed(101.0, False)
    assert breaker.state(101.0) is State.OPEN
    assert breaker.begin(105.0)
    breaker.succeed(106.0, False)
    breaker.fail(106.0, False)
    breaker.fail(106.0, False, 60.0)
    breaker.forget(106.0, False)
    assert breaker.state(106.0) is State.PROBING
    assert not breaker.may(106.0)
    breaker.succeed(107.0, True)
    assert breaker.is_closed


def test_a_probe_whose_client_left_gives_its_place_back() -> None:
    breaker = opened()
    assert breaker.begin(105.0)
    breaker.forget(106.0, True)
    assert breaker.state(106.0) is State.OPEN
    assert breaker.begin(106.0)
    breaker.fail(107.0, True)
    assert breaker.retry_in(107.0) == 10.0  # it was not counted as a failure


def test_a_probe_that_is_lost_does_not_block_for_ever() -> None:
    breaker = opened()
    assert breaker.begin(105.0)
    assert breaker.retry_in(105.0) == 40.0
    assert not breaker.may(144.9)
    assert breaker.begin(145.0)
    assert not breaker.may(145.0)
    breaker.succeed(146.0, True)
    breaker.fail(147.0, True)  # the lost one, after all: an ordinary failure
    assert breaker.is_closed


def test_a_lost_probe_that_succeeds_after_the_next_one_failed_closes_nothing() -> None:
    breaker = opened()
    assert breaker.begin(105.0)
    breaker.fail(146.0, breaker.begin(145.0))
    breaker.succeed(147.0, True)
    breaker.forget(147.0, True)
    assert breaker.retry_in(147.0) == 9.0


def test_a_wait_that_is_told_is_respected_at_once() -> None:
    breaker = Breaker()
    breaker.fail(100.0, False, 30.0)
    assert breaker.retry_in(100.0) == 30.0
    breaker.fail(101.0, False, 60.0)  # of one that began before
    assert breaker.retry_in(101.0) == 60.0
    breaker.fail(102.0, False, 1.0)
    breaker.fail(102.0, False)
    assert breaker.retry_in(102.0) == 59.0
    assert breaker.begin(161.0)
    breaker.fail(161.0, True, 1.0)  # and its own time has doubled
    assert breaker.retry_in(161.0) == 10.0


def test_a_wait_is_believed_up_to_five_minutes_and_none_is_none() -> None:
    breaker = Breaker()
    breaker.fail(100.0, False, 0.0)
    breaker.fail(100.0, False, None)
    assert breaker.is_closed
    breaker.fail(100.0, False, 86_400.0)
    assert breaker.retry_in(100.0) == 300.0


def test_a_short_wait_does_not_shorten_what_the_failures_cost() -> None:
    breaker = Breaker()
    fail(breaker, 100.0, 4)
    breaker.fail(100.0, False, 0.1)
    assert breaker.retry_in(100.0) == 5.0


def test_its_share_rises_after_recovery() -> None:
    breaker = opened()
    assert breaker.share(105.0) == 1.0  # the probe is not to be starved
    breaker.succeed(110.0, breaker.begin(105.0))
    shares = [breaker.share(110.0 + seconds) for seconds in (0.0, 5.0, 9.0, 10.0, 100.0)]
    assert shares == pytest.approx([0.1, 0.55, 0.91, 1.0, 1.0])


def test_one_that_opens_while_it_warms_is_not_kept_from_its_probe() -> None:
    breaker = opened()
    breaker.succeed(105.0, breaker.begin(105.0))
    fail(breaker, 106.0, 5)
    assert breaker.share(111.0) == 1.0


def test_without_a_warming_it_is_whole_at_once() -> None:
    breaker = Breaker(BreakerOptions(warm=0.0))
    fail(breaker, 100.0, 5)
    breaker.succeed(105.0, breaker.begin(105.0))
    assert breaker.share(105.0) == 1.0
    assert breaker.state(105.0) is State.CLOSED


class Life(RuleBasedStateMachine):
    """Attempts begin, end in any order and any way, or are lost; time passes. The caller asks first, as it should."""

    @initialize(
        consecutive=st.sampled_from([0, 1, 5]),
        ratio=st.sampled_from([0.1, 0.5, 1.0]),
        minimum=st.sampled_from([1, 5, 20]),
        warm=st.sampled_from([0.0, 10.0]),
    )
    def make(self, consecutive: int, ratio: float, minimum: int, warm: float) -> None:
        self.options = BreakerOptions(consecutive, ratio, minimum, 30.0, 5.0, 20.0, warm)
        self.breaker = Breaker(self.options)
        self.now = 1000.0
        self.running: list[bool] = []  # of each attempt: whether it is the probe
        self.probed_at = 0.0
        self.longest = self.now  # until when it may be open at most
        self.failures = 0

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 5.0, 12.0, 41.0, 500.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(times=st.integers(1, 8))
    def begin(self, times: int) -> None:
        for _ in range(times):
            if not self.breaker.may(self.now):
                return
            was_closed = self.breaker.is_closed
            is_probe = self.breaker.begin(self.now)
            assert is_probe is not was_closed
            if is_probe:
                if True in self.running:
                    assert self.now >= self.probed_at + 2 * self.options.longest, "two probes at a time"
                    self.running.remove(True)  # lost
                self.probed_at = self.now
            self.running.append(is_probe)

    @rule(at=st.integers(0, 50), how=st.sampled_from(["good", "bad", "bad", "told", "left"]), wait=st.floats(0.1, 400))
    def end(self, at: int, how: str, wait: float) -> None:
        if not self.running:
            return
        is_probe = self.running.pop(at % len(self.running))
        before = self.breaker.state(self.now)
        if how == "good":
            self.breaker.succeed(self.now, is_probe)
            if before is State.OPEN or not is_probe:
                assert self.breaker.state(self.now) is before, "a late success has changed something"
            else:
                assert self.breaker.is_closed
        elif how == "left":
            self.breaker.forget(self.now, is_probe)
            if is_probe and before is State.PROBING:
                assert self.breaker.may(self.now)
            else:
                assert self.breaker.state(self.now) is before
        else:
            told = wait if how == "told" else None
            self.failures += 1
            self.breaker.fail(self.now, is_probe, told)
            self.longest = max(self.longest, self.now + max(self.options.longest, min(told or 0.0, 300.0)))
            if told is not None and before is not State.PROBING:
                assert self.breaker.retry_in(self.now) >= min(told, 300.0) - 1e-6
            if before is State.PROBING and not is_probe:
                assert self.breaker.state(self.now) is before

    @invariant()
    def it_keeps_its_promises(self) -> None:
        if not hasattr(self, "breaker"):
            return
        breaker, now = self.breaker, self.now
        state = breaker.state(now)
        assert 0.0 < breaker.share(now) <= 1.0
        assert breaker.may(now) is (breaker.retry_in(now) == 0.0)
        assert breaker.is_closed is (state in (State.CLOSED, State.WARMING))
        if not self.failures:
            assert state is State.CLOSED
        if state is State.OPEN:
            assert now + breaker.retry_in(now) <= max(self.longest, now) + 1e-6, "open for too long"
        if state is State.PROBING:
            assert breaker.retry_in(now) <= 2 * self.options.longest + 1e-6
        assert 0 <= breaker._failures <= breaker._outcomes == sum(breaker._total)


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestLife = Life.TestCase


def test_who_is_asked_before_its_time_is_the_probe_and_pays_nothing_more_for_it() -> None:
    breaker = Breaker(BreakerOptions(consecutive=1, open=5.0))
    breaker.fail(1000.0, False)
    assert not breaker.may(1001.0)
    assert breaker.begin(1001.0), "nobody else was left"
    assert not breaker.begin(1001.0), "one at a time"
    breaker.fail(1002.0, True)
    assert breaker.retry_in(1002.0) == 5.0, "not twice as long"
    assert breaker.begin(1003.0)
    breaker.succeed(1004.0, True)
    assert breaker.is_closed
