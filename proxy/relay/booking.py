"""What the attempts of one exchange used, put together on its receipt.

Lives here: `Booking`. May not live here: what was used (metering), prices (catalog), what limits get back (taking).
How it works: each attempt that has ended is noted, with the figures of its answer once they are known: they may have to
be counted first. When all are, and the exchange is over, the receipt gets their sums and is handed on: what failed
attempts cost is part of what the exchange cost, and no more than that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from proxy.outcome import Attempt as Tried
from proxy.outcome import Receipt, Usage, sum_known, sum_usage
from proxy.relay.metering import Metering, cost_of

if TYPE_CHECKING:
    from proxy.relay.attempt import Attempt
    from proxy.relay.exchange import Exchange
    from proxy.relay.relay import Relay


_MOST_ATTEMPTS: Final = 1000  # of one exchange, by far


class Booking:
    """The last that a receipt waits for. Does not refer to its exchange: as a cycle both would live until the collector
    runs."""

    __slots__ = ("_is_closed", "_metered", "_number", "_open", "_parts", "_relay")

    def __init__(self, relay: Relay, number: int) -> None:
        self._relay = relay
        self._number = number  # of the exchange; its first answer is counted under it
        self._open = 0  # attempts whose figures are not known yet
        self._metered = 0  # answers; two may be at once
        self._is_closed = False
        # Number of the attempt, what it used, its cost, the model that was served.
        self._parts: list[tuple[int, Usage, int | None, str | None]] = []

    def metering(self, attempt: Attempt) -> Metering | None:
        """For an attempt at a provider who may want money for it from now on."""
        exchange, relay = attempt.exchange, self._relay
        call = exchange.call
        if call is None or not relay.options.meters or call.is_free or attempt.metering is not None:
            return attempt.metering
        number = self._number if not self._metered else -(_MOST_ATTEMPTS * self._number + self._metered)
        self._metered += 1
        return Metering(relay, number, exchange.dialect, exchange.body.whole(), call.cap != 0)

    def note(self, tried: Tried, attempt: Attempt) -> None:
        """`attempt` has ended so."""
        exchange, metering, answer = attempt.exchange, attempt.metering, attempt.answer
        exchange.receipt.attempts.append(tried)
        if metering is None:
            # Not metered by our own wish: nobody will know what it used.
            is_known = self._relay.options.meters or answer is None or answer.status >= 300
            self._settle(attempt, None, None, is_known)
            return
        ended_well = tried.failure is None
        if answer is not None and answer.watch is not None:
            ended_well = ended_well or (answer.watch.is_complete and not answer.watch.has_error)
        attempt.metering = None
        self._open += 1
        done = partial(self._known, attempt, len(exchange.receipt.attempts) - 1)
        try:
            metering.finish(answer is not None, ended_well, done)
        except Exception as error:  # a fault in a figure must cost neither the receipt nor the client's connection
            exchange.report(error)
            metering.release()
            self._open -= 1
            self._settle(attempt, None, None, False)

    def _known(self, attempt: Attempt, number: int, usage: Usage, model: str | None) -> None:
        """What an attempt used is known."""
        exchange = attempt.exchange
        receipt, passage = exchange.receipt, exchange.passage
        assert passage is not None
        cost = None
        try:
            names = (model, receipt.attempts[number].model)
            if usage.input is not None or usage.output is not None:  # else it was refused, and costs nothing
                cost = cost_of(attempt.provider, names, usage, passage.snapshot, receipt.started_at)
        except Exception as error:  # as in `note`
            exchange.report(error)
        self._parts.append((number, usage, cost, model))
        self._settle(attempt, usage, cost, True)
        self._open -= 1
        if self._is_closed and not self._open:
            self._record(exchange)

    def _settle(self, attempt: Attempt, usage: Usage | None, cost: int | None, is_known: bool) -> None:
        taking = attempt.exchange.taking
        if taking is not None:
            for hold in attempt.stake.holds():
                taking.settle(hold, usage, cost, is_known)

    def close(self, exchange: Exchange) -> None:
        """The exchange is over."""
        self._is_closed = True
        if not self._open:
            self._record(exchange)

    def _record(self, exchange: Exchange) -> None:
        """The very last: put together the figures, give back what nobody used, hand over the receipt."""
        receipt, passage = exchange.receipt, exchange.passage
        if self._parts:
            _, receipt.usage, receipt.cost_micros, receipt.model_served = self._parts[0]
            if len(receipt.attempts) > 1:  # of a single one the figures are those of the exchange (outcome.Attempt)
                self._add_up(receipt)
            prices = None if passage is None else passage.snapshot.prices
            if receipt.cost_micros is not None and prices is not None:
                receipt.price_version = prices.version
        if exchange.taking is not None:
            exchange.taking.close()
            exchange.taking = None
        self._relay.record(receipt, passage)

    def _add_up(self, receipt: Receipt) -> None:
        parts, attempts = sorted(self._parts, key=lambda part: part[0]), receipt.attempts
        for number, usage, cost, model in parts:
            attempts[number] = attempts[number]._replace(usage=usage, cost_micros=cost, model_served=model)
        receipt.usage = sum_usage(usage for _, usage, _, _ in parts)
        receipt.cost_micros = sum_known(cost for _, _, cost, _ in parts)
        # Of what the client got; what was to carry that on may have been another's.
        shown = [each.model_served for each in attempts if each.bytes_out and each.model_served is not None]
        receipt.model_served = shown[-1] if shown else parts[-1][3]
