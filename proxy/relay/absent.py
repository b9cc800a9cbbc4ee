"""In the place of a client that has left, while its provider goes on to the end.

Lives here: `AbsentClient`, which stands where a ClientConnection stood, and the bounds of such a drain.
May not live here: who may be drained (options), what the answer means (exchange, answer).
How it works: the exchange does not know the difference: what it writes is counted and dropped, what it asks of its
client is answered for a client that takes everything and sends nothing. Phases keep their limits; the seconds of the
policy shorten the limit on the whole, and a number of bytes bounds it, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.outcome import Failure, Kind, Phase, Side
from proxy.relay.deadlines import NEVER

if TYPE_CHECKING:
    from proxy.relay.exchange import Exchange
    from proxy.relay.relay import Relay

_STOPPED: Final = Failure(
    Side.PROXY, Phase.STREAM, Kind.CLIENT_LEFT, "the client had left, and draining reached its bound"
)


class AbsentClient:
    """Stands in for the client of one exchange. `is_full`, `can_go_on` and the like are what a ClientConnection has."""

    __slots__ = ("deadline", "exchange", "is_full", "transport", "_left", "_relay")

    can_go_on = False
    has_received_all = False

    def __init__(self, relay: Relay, exchange: Exchange) -> None:
        self.exchange: Exchange | None = exchange
        self.is_full = False
        self.transport = self  # writes go to the transport of a client
        self.deadline = NEVER
        self._left = relay.options.bytes.drain
        self._relay = relay
        relay.drains.add(self)
        relay.deadlines.add(self)

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0 and self.exchange is not None:
            self._relay.loop.call_soon(self._stop)  # not from within the write of an answer that is being fed

    def on_deadline(self, now: float) -> None:
        exchange = self.exchange
        if exchange is not None:
            due = exchange.check(now)
            if self.exchange is exchange:
                self.deadline = due

    def exchange_ended(self, keeps: bool) -> None:
        self._end()

    def exchange_cut(self, hard: bool) -> None:
        self._end()

    def pause_reading(self) -> None:
        """Nothing comes from a client that has left."""

    def resume_reading(self) -> None:
        """See pause_reading."""

    def watch_stall(self) -> None:
        """A client that has left does not stall."""

    def _stop(self) -> None:
        if self.exchange is not None:
            self.exchange.fail(_STOPPED)

    def _end(self) -> None:
        self.exchange = None
        self._relay.drain_ended(self)
