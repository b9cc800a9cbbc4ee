"""Refusals that come in masses: some are told one by one, of the rest it is told how many they were.

Lives here: `Sampler`, a sink in front of the other sinks. May not live here: the form of a line (lines), rows (ledger).
How it works: whatever reached a provider, or ended well, is handed on as it is. What is refused without a key, or at a
limit, costs whoever sends it nothing, so a wrong key in a loop would fill the log and the disk. Of
these, each key's are handed on at a rate, and all of nobody's (a wrong key, a web page, what is no HTTP) at one rate
together. What is left out is counted by key and kind; the next of its key and kind that is handed on says in
`stands_for` how many it speaks for, and where none comes, the last that was left out does, a second later. So the sum
of `stands_for` is the number of requests, to the one, and no receipt is made up. The operator is told of the first that
is left out, and every ten seconds while it goes on.
A key's own refusals (429) are treated as nobody's are, each key at a rate of its own: a client that hammers at its
limit fills a disk just as well, and its owner still sees ten a second and the exact number.
Doubted: a receipt that stands for others shows its own client and detail, not theirs; the note names the most frequent
clients. A kill -9 loses what was counted within the last second, and no run file knows of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf

from proxy.outcome import Kind, Phase, Receipt
from proxy.telemetry.frequent import Frequent

# Somebody who tries things at a keyboard, or an SDK that retries three times, sees each. At worst 864,000 rows a day of
# one key, or of nobody's. A rate and no share of all: a share of a flood is a flood.
PER_SECOND = 10.0
BURST = 20.0

FOLD_SECONDS = 1.0  # until the last that was left out is handed on for the rest, if none of its kind comes
TELL_SECONDS = 10.0  # between two notes to the operator

# In passthrough mode anybody can invent keys: beyond so many within a second they are treated as nobody's.
MOST_KEYS = 1000
MOST_NAMES = 100  # clients, and keys, that are counted apart between two notes
_SHOWN = 5

_HEAD = Phase.HEAD  # looked up once: on Python 3.11 a member of an enum costs 0.12 us each time


@dataclass(slots=True)
class _LeftOut:
    """Receipts of one key and kind that were not handed on: how many, and the last of them."""

    count: int
    last: Receipt


@dataclass(slots=True)
class _Source:
    """A key, or all whose key is not known. `allowed`: receipts that it had left to be handed on, `at` that moment."""

    at: float
    allowed: float = BURST
    left_out: dict[str, _LeftOut] = field(default_factory=dict)

    def allowed_at(self, now: float) -> float:
        return min(BURST, self.allowed + (now - self.at) * PER_SECOND)


# What anybody can bring about who has no key, and what a key meets that goes on asking at its limit. Whatever else a
# known client does wrong keeps its own line and row.
_IN_MASSES = frozenset(
    kind.value
    for kind in (
        Kind.UNAUTHORIZED,
        Kind.FORBIDDEN,
        Kind.TOO_MANY,
        Kind.BUDGET,
        Kind.OVERLOADED,
        Kind.BAD_REQUEST,
        Kind.LINE_TOO_LONG,
        Kind.HEAD_TOO_LARGE,
        Kind.METHOD_UNKNOWN,
        Kind.VERSION_UNSUPPORTED,
        Kind.CODING_UNSUPPORTED,
        Kind.EXPECTATION_FAILED,
    )
)


_HALF = frozenset((Kind.CLIENT_LEFT.value, Kind.TIMEOUT.value))  # of a head that was never whole


def is_refusal(receipt: Receipt) -> bool:
    """It was refused, or left off within its head, by whoever sent it, and no provider was asked."""
    if receipt.complete or receipt.attempts:
        return False
    return receipt.ended_kind in _IN_MASSES or (receipt.ended_phase is _HEAD and receipt.ended_kind in _HALF)


class Sampler:
    """`sinks` get what is handed on; `note(level, message, **more)` tells the operator; `clock` counts seconds.

    `observe` is a sink itself. Whoever has a clock that ticks calls `on_deadline` when `deadline` has come up; at last
    `close`.
    """

    __slots__ = ("deadline", "_clients", "_clock", "_keys", "_note", "_reasons", "_sinks", "_sources", "_tell_at")

    def __init__(
        self,
        sinks: Iterable[Callable[[Receipt], None]],
        note: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deadline = inf  # when something that was left out is to be handed on or told
        self._sinks = tuple(sinks)
        self._note = note
        self._clock = clock
        self._sources: dict[str | None, _Source] = {}
        # What the operator has not been told yet
        self._tell_at = -inf
        self._reasons: dict[str, int] = {}
        self._clients = Frequent(MOST_NAMES)
        self._keys = Frequent(MOST_NAMES)

    def observe(self, receipt: Receipt) -> None:
        """Take `receipt`. A sink on the data path; raises what the sinks behind it raise."""
        if receipt.complete or not is_refusal(receipt):
            self._hand_on(receipt)
        else:
            self._sample(receipt, self._clock())

    def _sample(self, receipt: Receipt, now: float) -> None:
        source = self._source_of(receipt.key, now)
        kind = receipt.ended_kind
        allowed = source.allowed_at(now)
        if allowed < 1.0:
            self._leave_out(source, receipt, now)
            return
        source.at, source.allowed = now, allowed - 1.0
        if (others := source.left_out.pop(kind, None)) is not None:
            receipt.stands_for += others.count
        self._hand_on(receipt)

    def _source_of(self, key: str | None, now: float) -> _Source:
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) >= MOST_KEYS:
                self.deadline = min(self.deadline, now + FOLD_SECONDS)  # then those that rest are forgotten
                key = None
            source = self._sources.setdefault(key, _Source(now))
        return source

    def _leave_out(self, source: _Source, receipt: Receipt, now: float) -> None:
        kind = receipt.ended_kind
        others = source.left_out.get(kind)
        if others is None:
            source.left_out[kind] = _LeftOut(1, receipt)
        else:
            others.count += 1
            others.last = receipt
        self._reasons[kind] = self._reasons.get(kind, 0) + 1
        self._clients.add(receipt.client)
        if receipt.key is not None:
            self._keys.add(receipt.key)
        if now >= self._tell_at:
            self._tell(now)
        self.deadline = min(self.deadline, now + FOLD_SECONDS)

    # -- in time ------------------------------------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """Hand on the last of those that were left out, each with the number of all; tell, if it is time."""
        self.deadline = inf
        if self._reasons and now >= self._tell_at:
            self._tell(now)
        elif self._reasons:
            self.deadline = self._tell_at
        for key, source in list(self._sources.items()):
            left_out, source.left_out = source.left_out, {}
            if source.allowed_at(now) >= BURST:  # it rests: a new one would be the same
                del self._sources[key]
            for others in left_out.values():
                others.last.stands_for = others.count
                self._hand_on(others.last)

    def close(self) -> None:
        """Nothing comes any more: hand on and tell what there is."""
        self._tell_at = -inf
        self.on_deadline(self._clock())

    def _tell(self, now: float) -> None:
        reasons, self._reasons = self._reasons, {}
        more: dict[str, object] = {"reasons": reasons, "clients": self._clients.take(_SHOWN)}
        if keys := self._keys.take(_SHOWN):
            more["keys"] = keys
        count = sum(reasons.values())
        message = (
            f"refusals come faster than {PER_SECOND:g} a second: {count:,} more are not shown one by one, "
            "but counted in stands_for of those that are"
        )
        self._tell_at = now + TELL_SECONDS
        self._note("warn", message, left_out=count, **more)

    def _hand_on(self, receipt: Receipt) -> None:
        failed: Exception | None = None
        for sink in self._sinks:
            try:
                sink(receipt)
            except Exception as error:  # the others get it all the same
                failed = failed or error
        if failed is not None:
            raise failed
