"""What is known of each target, and which of several equals is asked.

Lives here: `TargetHealth`, `Health`, `Candidate`, `choose`. May not live here: which targets may answer (catalog,
router), what opens a breaker (breaker), clocks and chance (handed in).
How it works: of the targets whose breakers let them, one is drawn by weight. A second one, drawn in the same way,
challenges it, and takes its place if it is clearly cheaper: if a request there may be expected to take less than half
as long. So the weights hold while targets are about as good as each other, and a slow or crowded one gets less. What a
request costs is the time to its first event, times what runs there already compared with its weight. With a sticky
value neither matters: the same value goes to the same target while that one may be asked (weighted rendezvous
hashing), so that a provider's prompt cache is met again.
Latency is a peak EWMA, as in Finagle: a slow answer counts at once, and fades over ten seconds, since a target that has
become slow must not get many requests first. If nothing is asked there, what was measured fades towards the best of the
group: it is tried again some day, but never thought better than that one.
Doubted: all of it is one worker's own knowledge; several workers each learn for themselves that a target fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from math import ceil, exp, log
from typing import Final, NamedTuple

from proxy.policy.breaker import Breaker, BreakerOptions

TargetKey = tuple[str, str]
"""Provider and model, as asked for there."""

_FADE: Final = 10.0  # seconds in which a measured latency falls to a third of its part; Finagle's default, too
_KEPT: Final = 64  # latencies kept for the percentile
_FEWEST: Final = 20  # below which a 95th percentile says nothing: it would be the maximum
_CLEARLY: Final = 0.5  # times the cost: the time to a first event differs twofold by chance and prompt alone
_MOST_TARGETS: Final = 10_000
_UNMEASURED: Final = 1.0  # seconds, if no target of a group has been measured


class _Ring:
    """The last latencies of one kind of answer."""

    __slots__ = ("_latencies", "_next", "_p95")

    def __init__(self) -> None:
        self._latencies: list[float] = []
        self._next = 0
        self._p95: float | None = None  # None: to be computed

    def add(self, seconds: float) -> None:
        if len(self._latencies) < _KEPT:
            self._latencies.append(seconds)
        else:
            self._latencies[self._next] = seconds
            self._next = (self._next + 1) % _KEPT
        self._p95 = None

    def p95(self) -> float | None:
        if len(self._latencies) < _FEWEST:
            return None
        if self._p95 is None:
            self._p95 = sorted(self._latencies)[ceil(0.95 * len(self._latencies)) - 1]
        return self._p95

    def __len__(self) -> int:
        return len(self._latencies)


class TargetHealth:
    """What is known of one target. Whoever begins an attempt must end it."""

    __slots__ = ("_documents", "_measured_at", "_streams", "breaker", "in_flight", "latency")

    def __init__(self, options: BreakerOptions | None = None) -> None:
        self.breaker = Breaker() if options is None else Breaker(options)
        self.in_flight = 0
        self.latency: float | None = None  # seconds to the first event, as last measured; None: never
        self._measured_at = 0.0
        self._streams, self._documents = _Ring(), _Ring()  # one document takes as long as all of a stream

    def begin(self, now: float) -> bool:
        """An attempt begins. True: it is the breaker's probe; hand that in with what follows."""
        # With first_event and end 1.2 us a request (python -m timeit -s "from proxy.policy.health import TargetHealth;
        # h = TargetHealth()" "h.begin(1.0); h.first_event(0.5, 2.0); h.end(3.0, False, True)")
        self.in_flight += 1
        return self.breaker.begin(now)

    def first_event(self, seconds: float, now: float, is_probe: bool = False, is_stream: bool = True) -> None:
        """The first event of an answer, or all of one that is no stream, came after `seconds`. A probe has succeeded
        with that: an answer may go on for minutes, and nobody else is let in meanwhile."""
        known = self.latency
        if known is None or seconds >= known:
            self.latency = seconds
        else:
            self.latency = seconds + (known - seconds) * exp((self._measured_at - now) / _FADE)
        self._measured_at = now
        (self._streams if is_stream else self._documents).add(seconds)
        if is_probe:
            self.breaker.succeed(now, True)

    def end(self, now: float, is_probe: bool, is_good: bool | None, wait: float | None = None) -> None:
        """The attempt ended well, or by a fault of the target. None: it says nothing of the target. `wait`: see
        Breaker.fail."""
        self.in_flight -= 1
        if is_good:
            self.breaker.succeed(now, is_probe)
        elif is_good is None:
            self.breaker.forget(now, is_probe)
        else:
            self.breaker.fail(now, is_probe, wait)

    def expected(self, now: float, best: float) -> float:
        """The latency to be expected, where the best of the group is `best`."""
        if self.latency is None:
            return best
        return best + (self.latency - best) * exp(min(0.0, self._measured_at - now) / _FADE)

    def p95(self, is_stream: bool = True) -> float | None:
        """Of the last latencies, of streams or of other answers; None: too few are known."""
        return (self._streams if is_stream else self._documents).p95()


class Health:
    """All targets that were asked for."""

    __slots__ = ("_options", "_targets")

    def __init__(self, options: BreakerOptions | None = None) -> None:
        self._options = options
        self._targets: dict[TargetKey, TargetHealth] = {}

    def of(self, key: TargetKey) -> TargetHealth:
        found = self._targets.get(key)
        if found is None:
            if len(self._targets) >= _MOST_TARGETS:  # only after many reloads: names come from the configuration
                self._drop_idle()
            found = self._targets[key] = TargetHealth(self._options)
        return found

    def items(self) -> Iterable[tuple[TargetKey, TargetHealth]]:
        return self._targets.items()

    def _drop_idle(self) -> None:
        idle = [key for key, each in self._targets.items() if not each.in_flight and each.breaker.is_closed]
        for key in idle:
            del self._targets[key]


class Candidate(NamedTuple):
    """A target of a group of equals. One with a weight of 0 is never chosen."""

    weight: int
    health: TargetHealth
    key: TargetKey


def choose(
    group: Sequence[Candidate], now: float, chance: Callable[[], float], sticky: bytes | None = None
) -> int | None:
    """The place in `group` of the target to ask now; None: no breaker lets anybody. `chance`: from 0 to below 1, asked
    twice at most."""
    # One of one 0.6 us, of two 2.1, of five 2.9; two and sticky 3.7 (python -m timeit -s "from random import random"
    # -s "from proxy.policy.health import Candidate as C, TargetHealth as T, choose" -s "g = [C(1, T(), ('p', str(n)))
    # for n in range(5)]" "choose(g, 1.0, random)")
    able: list[int] = []
    weights: list[float] = []
    known: list[float] = []
    for at, (weight, health, _) in enumerate(group):
        if weight > 0 and health.breaker.may(now):
            able.append(at)
            weights.append(weight * health.breaker.share(now))
            if health.latency is not None:
                known.append(health.latency)
    if len(able) < 2:
        return able[0] if able else None
    if sticky is not None:
        return max(able, key=lambda at: _affinity(group[at], sticky))
    total = sum(weights)
    first = _draw(weights, -1, chance() * total)
    second = _draw(weights, first, chance() * (total - weights[first]))
    ours, other = group[able[first]].health, group[able[second]].health
    # One whose time for a probe has come is not compared: it would lose to the others for ever.
    if not ours.breaker.is_closed:
        return able[first]
    if not other.breaker.is_closed:
        return able[second]
    best = min(known, default=_UNMEASURED)
    fair = total / len(able)  # the weight of a target if all had the same
    cost = ours.expected(now, best) * (1.0 + ours.in_flight * fair / weights[first])
    cost_there = other.expected(now, best) * (1.0 + other.in_flight * fair / weights[second])
    return able[second if cost_there < _CLEARLY * cost else first]


def _draw(weights: list[float], without: int, point: float) -> int:
    """The place at which the sum of the weights, save one, passes `point`."""
    found = 0
    for at, weight in enumerate(weights):
        if at != without:
            found = at
            if point < weight:
                break
            point -= weight
    return found


def _affinity(candidate: Candidate, sticky: bytes) -> float:
    """How much this value belongs to that target: a number that depends on nothing else, and whose maximum falls on
    each target as often as its weight says."""
    key = "\0".join(candidate.key).encode("utf-8", "surrogatepass")
    digest = blake2b(sticky + b"\0" + key, digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 2)
    return candidate.weight / -log(uniform)
