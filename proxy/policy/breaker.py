"""Is a target asked at all? One that keeps failing is left alone for a while, then tried with one request.

Lives here: `Breaker`, `BreakerOptions`, `State`. May not live here: which failures count (retry), what else is known of
a target (health), clocks (`now`: seconds of a clock that does not go back).
How it works: CLOSED, all may pass, and outcomes are counted: so many failures in a row, or such a share of those in
the window, open it. OPEN, nobody may, until its time has come. Then one attempt is the probe (PROBING); if it goes
well, the breaker is closed, and WARMING for a while, in which its share of the traffic rises; if not, it is open for
twice as long, up to `longest`. Who asks all the same before that time, since nobody else is left, is the probe as well,
but if that goes wrong the time is not doubled. A provider that says how long to wait is believed at once.
Whoever begins an attempt is told whether it is the probe, and hands that in with the outcome. What began before the
breaker opened says nothing about the time after: it neither closes it nor counts as a probe.
The window is a ring of buckets, so that an outcome costs the same however many there are.
Doubted: a probe that reports after it was given up for lost is taken for the one that runs now.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"
    WARMING = "warming"  # closed, and with a share that rises


class BreakerOptions(NamedTuple):
    """Times in seconds."""

    consecutive: int = 5  # failures in a row that open it; 0: any number
    ratio: float = 0.5  # of failures among the outcomes of the window, that opens it
    minimum: int = 20  # outcomes in the window below which the ratio says nothing
    window: float = 30.0
    open: float = 5.0  # for how long, the first time
    longest: float = 20.0  # after several probes that failed
    warm: float = 10.0


_BUCKETS: Final = 10  # of the window: it ends between 9/10 and the whole of its length ago
_LONGEST_WAIT: Final = 300.0  # seconds that a provider is believed; then it is asked again
_LOST: Final = 2  # times `longest` after which a probe that said nothing is given up
_COLD: Final = 0.1  # share at the beginning of WARMING
_DEFAULTS: Final = BreakerOptions()


class Breaker:
    __slots__ = (
        "_at", "_failed", "_failures", "_is_closed", "_is_early", "_opens_at", "_options", "_outcomes", "_probe_at",
        "_row", "_slot", "_span", "_total", "_warm_at",
    )  # fmt: skip

    def __init__(self, options: BreakerOptions = _DEFAULTS) -> None:
        self._options = options
        # Closed
        self._is_closed = True
        self._row = 0  # failures, one after the other
        self._total = [0] * _BUCKETS
        self._failed = [0] * _BUCKETS
        self._outcomes = self._failures = 0  # the sums of the two
        self._slot = 0  # the number of the bucket that is filled now, counted from the clock's beginning
        self._warm_at = 0.0  # the share is whole again
        # Open
        self._opens_at = 0.0  # a probe may go
        self._span = options.open
        self._is_early = False  # the probe went before its time
        self._probe_at: float | None = None  # when it began

    @property
    def is_closed(self) -> bool:
        """Also while it is warming."""
        return self._is_closed

    @property
    def opens_at(self) -> float:
        """When the next probe may go, if nothing is heard of one that runs; of no meaning while it is closed."""
        if self._probe_at is None:
            return self._opens_at
        return self._probe_at + _LOST * self._options.longest

    def state(self, now: float) -> State:
        if self._is_closed:
            return State.WARMING if now < self._warm_at else State.CLOSED
        return State.OPEN if self._probe_at is None else State.PROBING

    def may(self, now: float) -> bool:
        return self._is_closed or now >= self.opens_at

    def retry_in(self, now: float) -> float:
        """Seconds until an attempt may be made."""
        return 0.0 if self._is_closed else max(0.0, self.opens_at - now)

    def share(self, now: float) -> float:
        """Of its traffic, more than 0 and up to 1: less for a while after recovery, so that a target that has just come
        back is not met by all at once."""
        if now >= self._warm_at or not self._is_closed:
            return 1.0
        return max(_COLD, 1.0 - (1.0 - _COLD) * (self._warm_at - now) / self._options.warm)

    def begin(self, now: float) -> bool:
        """An attempt begins. True: it is the probe."""
        if self._is_closed or (self._probe_at is not None and now < self.opens_at):
            return False
        self._is_early = now < self._opens_at  # asked all the same, since nobody else was left
        self._probe_at = now
        return True

    def succeed(self, now: float, is_probe: bool) -> None:
        if self._is_closed:
            self._row = 0
            self._count(now, 0)
        elif is_probe and self._probe_at is not None:
            self._close(now)

    def fail(self, now: float, is_probe: bool, wait: float | None = None) -> None:
        """`wait`: seconds for which the provider asks to be left alone, if it says so."""
        wait = min(wait or 0.0, _LONGEST_WAIT)
        if self._is_closed:
            self._row += 1
            self._count(now, 1)
            if self._is_tripped():
                self._open(now, max(self._span, wait))
            elif wait > 0:
                self._open(now, wait)
        elif is_probe and self._probe_at is not None:
            if not self._is_early:
                self._span = min(2 * self._span, self._options.longest)
            self._open(now, max(self._span, wait))
        else:
            self._opens_at = max(self._opens_at, now + wait)

    def forget(self, now: float, is_probe: bool) -> None:
        """It ended and says nothing of the target: its client left. The place of a probe is free again."""
        if is_probe and self._probe_at is not None:
            self._probe_at = None
            self._opens_at = now

    def _open(self, now: float, seconds: float) -> None:
        self._is_closed = False
        self._probe_at = None
        self._opens_at = now + seconds

    def _close(self, now: float) -> None:
        self._is_closed = True
        self._probe_at = None
        self._span = self._options.open
        self._warm_at = now + self._options.warm
        self._row = self._outcomes = self._failures = 0
        self._total = [0] * _BUCKETS
        self._failed = [0] * _BUCKETS

    def _is_tripped(self) -> bool:
        options = self._options
        if 0 < options.consecutive <= self._row:
            return True
        return self._outcomes >= max(1, options.minimum) and self._failures >= options.ratio * self._outcomes

    def _count(self, now: float, failed: int) -> None:
        slot = int(now * _BUCKETS / self._options.window)
        if slot > self._slot:
            for old in range(self._slot + 1, min(slot, self._slot + _BUCKETS) + 1):
                self._outcomes -= self._total[old % _BUCKETS]
                self._failures -= self._failed[old % _BUCKETS]
                self._total[old % _BUCKETS] = self._failed[old % _BUCKETS] = 0
            self._slot = slot
        at = self._slot % _BUCKETS
        self._total[at] += 1
        self._failed[at] += failed
        self._outcomes += 1
        self._failures += failed
