"""How long each phase may last, and whose silence it is.

Lives here: `Seconds` (the limits as numbers), what a phase that lasted too long means, arithmetic on time stamps.
May not live here: the sweeper (deadlines), what a failure leads to (exchange).
How it works: an exchange stores the limit of its phase (`limit`) and when the phase began or last made progress
(`since`). Whoever makes no progress within the limit has failed; the whole may have a limit of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from proxy.outcome import Failure, Kind, Limit, Phase, Side

RATE_GRACE_SECONDS = 30.0  # of a request body, before its average rate counts
STEP = 1.0  # how often progress is looked for that leaves no stamp: a shrinking buffer, an average rate


class Seconds(NamedTuple):
    """The limits, by name; none is infinity. A dict by `Limit` costs 0.2 us a look: enums hash in Python."""

    idle: float
    head: float
    body: float
    queue: float
    connect: float
    send: float
    first_byte: float
    first_byte_unary: float
    first_event: float
    stream: float
    total: float
    client_stall: float
    shutdown: float

    @classmethod
    def of(cls, seconds: Mapping[Limit, float]) -> Seconds:
        """0 becomes infinity."""
        return cls(**{limit.value: seconds.get(limit) or inf for limit in Limit})


_SILENCE: dict[Phase, tuple[Side, str]] = {
    Phase.BODY: (Side.CLIENT, "the request body did not arrive: no bytes within {:g} s"),
    Phase.QUEUE: (Side.PROXY, "no connection to the provider came free within {:g} s"),
    Phase.SEND: (Side.UPSTREAM, "the provider took no bytes of the request for {:g} s"),
    Phase.FIRST_BYTE: (Side.UPSTREAM, "the provider did not answer within {:g} s"),
    Phase.FIRST_EVENT: (Side.UPSTREAM, "the provider's stream had no content within {:g} s"),
    Phase.STREAM: (Side.UPSTREAM, "the provider's answer paused for more than {:g} s"),
}


def silence(phase: Phase, limit: float) -> Failure:
    """`phase` has made no progress for `limit` seconds."""
    side, words = _SILENCE[phase]
    return Failure(side, phase, Kind.TIMEOUT, words.format(limit))


def too_long(total: float) -> Failure:
    detail = f"the exchange took longer than {total:g} s"
    return Failure(Side.PROXY, Phase.TOTAL, Kind.TIMEOUT, detail)


def too_slow(began: float, now: float, received: int, rate: int) -> Failure | None:
    """A body that drips: each byte is progress, the whole never ends (HTTP.md 2: nobody else has this limit)."""
    elapsed = now - began
    if not rate or elapsed <= RATE_GRACE_SECONDS or received >= rate * elapsed:
        return None
    detail = f"the request body arrived at less than {rate} bytes a second"
    return Failure(Side.CLIENT, Phase.BODY, Kind.TIMEOUT, detail)
