"""How long each phase may last, and whose silence it is.

Lives here: `Seconds` (the limits as numbers), and `check`: what has taken too long, by the stamps of an exchange.
May not live here: the sweeper (deadlines), what a failure leads to (exchange).
How it works: an attempt, and before there is one its exchange, has the limit of its phase (`limit`) and when the phase
began or last made progress (`since`). Whoever makes no progress within the limit has failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from proxy.outcome import Failure, Kind, Limit, Phase, Side

if TYPE_CHECKING:
    from proxy.relay.exchange import Exchange
    from proxy.relay.relay import Relay
    from proxy.relay.upstream import UpstreamConnection

RATE_GRACE_SECONDS = 30.0  # of a request body, before its average rate counts
STEP: Final = 1.0  # how often progress is looked for that leaves no stamp: a shrinking buffer, an average rate


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
    hold: float
    stream: float
    total: float
    client_stall: float
    shutdown: float

    @classmethod
    def of(cls, seconds: Mapping[Limit, float]) -> Seconds:
        """0 becomes infinity."""
        return cls(**{limit.value: seconds.get(limit) or (0.0 if limit in _NONE_AT_ZERO else inf) for limit in Limit})

    def with_own(self, seconds: Mapping[Limit, float]) -> Seconds:
        """These, but for those in `seconds`."""
        own = Seconds.of(seconds)
        return self._replace(**{limit.value: getattr(own, limit.value) for limit in seconds})


_NONE_AT_ZERO: Final = (Limit.HOLD,)  # of these 0 means that there is no such phase, not that it has no end


_SILENCE: dict[Phase, tuple[Side, str]] = {
    Phase.BODY: (Side.CLIENT, "the request body did not arrive: no bytes within {:g} s"),
    Phase.QUEUE: (Side.PROXY, "no connection to the provider came free within {:g} s"),
    Phase.SEND: (Side.UPSTREAM, "the provider took no bytes of the request for {:g} s"),
    Phase.FIRST_BYTE: (Side.UPSTREAM, "the provider did not answer within {:g} s"),
    Phase.FIRST_EVENT: (Side.UPSTREAM, "the provider's stream had no content within {:g} s"),
    Phase.STREAM: (Side.UPSTREAM, "the provider's answer paused for more than {:g} s"),
}


class Timed(Protocol):
    """Whose phase it is."""

    phase: Phase
    limit: float
    since: float


def check(
    timed: Timed, exchange: Exchange, relay: Relay, upstream: UpstreamConnection | None, now: float
) -> Failure | None:
    """What has taken too long, if anything has. Notes progress that left no stamp."""
    phase = timed.phase
    if exchange.client.is_full and exchange.answer is not None and phase in (Phase.FIRST_EVENT, Phase.STREAM):
        timed.since = now  # the upstream is paused by us
    elif phase is Phase.SEND and upstream is not None:
        unsent = upstream.transport.get_write_buffer_size()
        if unsent != upstream.unsent:
            upstream.unsent = unsent
            timed.since = now
    elif phase is Phase.BODY:
        failure = _drip(exchange.began, now, exchange.receipt.bytes_in, relay.options.bytes.min_body_rate)
        if failure is not None:
            return failure
    if now < timed.since + timed.limit:
        return None
    side, words = _SILENCE[phase]
    return Failure(side, phase, Kind.TIMEOUT, words.format(timed.limit))


def _drip(began: float, now: float, received: int, rate: int) -> Failure | None:
    """A body that drips: each byte is progress, the whole never ends (HTTP.md 2: nobody else has this limit)."""
    elapsed = now - began
    if not rate or elapsed <= RATE_GRACE_SECONDS or received >= rate * elapsed:
        return None
    detail = f"the request body arrived at less than {rate} bytes a second"
    return Failure(Side.CLIENT, Phase.BODY, Kind.TIMEOUT, detail)
