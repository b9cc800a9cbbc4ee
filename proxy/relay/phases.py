"""How long each phase may last, and whose silence it is.

Lives here: the table of phases that wait, `due` and `overdue`: arithmetic on the stamps of an exchange.
May not live here: the sweeper (deadlines), what a failure leads to (exchange).
How it works: an exchange stores when its phase began or last made progress (`since`). Whoever makes no progress within
the phase's limit has failed; the whole may have a limit of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.outcome import Failure, Kind, Limit, Phase, Side

if TYPE_CHECKING:
    from proxy.relay.exchange import Exchange

RATE_GRACE_SECONDS = 30.0  # of a request body, before its average rate counts
STEP = 1.0  # how often progress is looked for that leaves no stamp: a shrinking buffer, an average rate

_WAITING: dict[Phase, tuple[Limit, Side, str]] = {
    Phase.BODY: (Limit.BODY, Side.CLIENT, "the request body did not arrive: no bytes within {:g} s"),
    Phase.QUEUE: (Limit.QUEUE, Side.PROXY, "no connection to the provider came free within {:g} s"),
    Phase.SEND: (Limit.SEND, Side.UPSTREAM, "the provider took no bytes of the request for {:g} s"),
    Phase.FIRST_BYTE: (Limit.FIRST_BYTE, Side.UPSTREAM, "the provider did not answer within {:g} s"),
    Phase.FIRST_EVENT: (Limit.FIRST_EVENT, Side.UPSTREAM, "the provider's stream had no content within {:g} s"),
    Phase.STREAM: (Limit.STREAM, Side.UPSTREAM, "the provider's answer paused for more than {:g} s"),
}


def due(exchange: Exchange, seconds: dict[Limit, float]) -> float:
    """When the phase, or the whole, will have lasted too long. CONNECT keeps its own time (connect)."""
    waiting = _WAITING.get(exchange.phase)
    if waiting is None:
        return exchange.total_due
    return min(exchange.since + seconds[_limit(exchange, waiting[0])], exchange.total_due)


def next_look(exchange: Exchange, seconds: dict[Limit, float]) -> float:
    """When the sweeper should look at it next."""
    at = due(exchange, seconds)
    return min(at, exchange.since + STEP) if exchange.phase is Phase.SEND else at


def overdue(exchange: Exchange, seconds: dict[Limit, float], now: float) -> Failure | None:
    """What has taken too long, if anything has."""
    if now >= exchange.total_due:
        detail = f"the exchange took longer than {seconds[Limit.TOTAL]:g} s"
        return Failure(Side.PROXY, Phase.TOTAL, Kind.TIMEOUT, detail)
    if now < due(exchange, seconds):
        return None
    limit, side, words = _WAITING[exchange.phase]
    return Failure(side, exchange.phase, Kind.TIMEOUT, words.format(seconds[_limit(exchange, limit)]))


def too_slow(began: float, now: float, received: int, rate: int) -> Failure | None:
    """A body that drips: each byte is progress, the whole never ends (HTTP.md 2: nobody else has this limit)."""
    elapsed = now - began
    if not rate or elapsed <= RATE_GRACE_SECONDS or received >= rate * elapsed:
        return None
    detail = f"the request body arrived at less than {rate} bytes a second"
    return Failure(Side.CLIENT, Phase.BODY, Kind.TIMEOUT, detail)


def _limit(exchange: Exchange, limit: Limit) -> Limit:
    if limit is Limit.FIRST_BYTE and (exchange.call is None or not exchange.call.stream):
        return Limit.FIRST_BYTE_UNARY
    return limit
