"""What tokens cost: which price holds for an exchange, and the sum.

Lives here: `Prices`, one or more tables laid over each other, and the arithmetic. May not live here: the form of a
table (price_file) and its rows (price_table), files, what a provider itself says it costs (dialects), budgets (policy).
How it works: a price is found in three steps. Whose: by the host of the base URL, which proves who is paid. The name of
a provider proves nothing: `vllm` at 10.0.0.5 has no price unless the user's own table gives it one. But one that is
called as a vendor (`load.VENDORS`) keeps that vendor's prices behind a gateway, as OPENAI_BASE_URL=https://llm.acme.com
makes one, since what the gateway passes on is billed by the vendor; not so at an address, a bare name or a local one,
where a server of the user's own is likelier, and some of these call their models gpt-4. Which row: for the model's name
as it is, then without its date; exact names before patterns; a table laid over another before that one. When: the
newest row that has begun. Sums are integers, rounded half even once, at the end. Not known is None, never zero.
Sources: WIRE 4 (what is part of what), 0.10 (iterations), 0.13 (more cached tokens than input), 10; DESIGN 7.
Doubted: these are list prices. Batches, priority, regions and contracts cost otherwise, and `Usage` does not tell; nor
does it tell text from audio and images, so what answers in one of these has no price here, and audio that is put into
other models counts as text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from proxy.catalog.load import VENDORS
from proxy.catalog.price_file import PricesError, Rates
from proxy.catalog.price_table import Price, PriceTable
from proxy.outcome import Usage

__all__ = ["Price", "Prices", "PricesError", "Rates", "dollars"]

# Ends of names that only a local network knows (RFC 6761, 6762, ICANN's .internal), Kubernetes' and Docker's with them.
_LOCAL: Final = (".local", ".localhost", ".internal", ".lan")

# Names of models come from clients: how many answers are remembered, and how long a name may be.
_REMEMBERED: Final = 1000
_MODEL_CHARS: Final = 256

_NANODOLLARS: Final = 10**9  # for a million, in one microdollar for one
# Microdollars. Nine billion dollars for one exchange are a provider's slip, and do not fit into every reader's number.
_MOST: Final = 2**53

_COMPACT_DATE: Final = re.compile(r"(?<=-)(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$")
_DATE: Final = re.compile(r"[-@]20\d\d(-?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])$")


class Prices:
    """Tables of prices, the one that is asked first in front. `version` names all of them.

    Never changes, but remembers what it found.
    """

    __slots__ = ("_found", "_tables", "version")

    def __init__(self, version: str, tables: tuple[PriceTable, ...]) -> None:
        self.version = version
        self._tables = tables
        self._found: dict[tuple[str, str, str], tuple[tuple[Price, ...], ...]] = {}

    @classmethod
    def built_in(cls, document: bytes) -> Prices:
        """The project's own table, prices.json. The rows of a provider are read when it is first asked for, in up to
        1 ms, OpenRouter's in 3. A `find` of any model when the process starts does that before it matters."""
        table = PriceTable(document, is_ours=True)
        return cls(table.version, (table,))

    @classmethod
    def of(cls, document: bytes) -> Prices:
        """A user's table (price_file shows one). Raises PricesError with everything that is wrong in it."""
        table = PriceTable(document, is_ours=False)
        return cls(table.version, (table,))

    def overlaid(self, other: Prices) -> Prices:
        """These prices below those of `other`, which win wherever one of their rows holds."""
        return Prices(f"{self.version}+{other.version}", other._tables + self._tables)

    def find(self, provider: str, host: str, model: str, at: float) -> Price | None:
        """The price of `model` at `at`, in seconds since the epoch; None: not known.

        `provider`: its name in the settings; `host`: that of its base URL; `model`: as provider or client name it.
        """
        for history in self._fitting(provider, host, model):
            for price in history:
                if price.is_valid(at):
                    return price if price.is_known else None
        return None

    def cost(self, provider: str, host: str, model: str, usage: Usage, at: float) -> int | None:
        """What `usage` costs, in microdollars; None: a price is not known, or a figure that has a price.

        Searches that nobody reported count as none: most dialects cannot search.
        """
        price = self.find(provider, host, model, at)
        if price is None:
            return None
        total = _fees(usage, price)
        if not usage.billed:
            kept = (usage.cached or 0, usage.cache_write or 0, usage.cache_write_1h or 0)
            return _rounded(total, _tokens(price, usage.input, usage.output, *kept, usage.reasoning or 0))
        hour = usage.cache_write_1h or 0
        for part in usage.billed:
            paid = price if part.model is None else self.find(provider, host, part.model, at)
            # Iterations do not tell how long their writes are kept; their sum does.
            if paid is None or total is None:
                return None
            tokens = _tokens(paid, part.input, part.output, part.cached, part.cache_write, hour, 0)
            total = None if tokens is None else total + tokens
            hour -= max(0, min(hour, part.cache_write))
        return _rounded(total, 0)

    def most(self, provider: str, host: str, model: str, read: int, said: int, at: float) -> int | None:
        """The most that so many tokens of input and output could cost, in microdollars, whatever of them is cached or
        reasoning. None: a price is not known. Searches are not in it."""
        price = self.find(provider, host, model, at)
        if price is None:
            return None
        total = 0
        for rates in (price.rates, *(beyond for over, beyond in price.steps if read > over)):
            if (read and rates.input is None) or (said and rates.output is None):
                return None
            dearest = max(each or 0 for each in (rates.input, rates.cached, rates.cache_write, rates.cache_write_1h))
            spoken = max(rates.output or 0, rates.reasoning or 0)
            total = max(total, (rates.request or 0) + read * dearest + said * spoken)
        return -(-total // _NANODOLLARS)

    def rows(self) -> Iterator[tuple[Price, int, Rates]]:
        """All there is, for people to read: each price with its rates, and again with those that hold for requests with
        more input tokens than the number. By table, provider and pattern, the newest first."""
        for table in self._tables:
            for history in table.histories():
                for price in history:
                    yield price, 0, price.rates
                    yield from ((price, over, rates) for over, rates in price.steps)

    def _fitting(self, provider: str, host: str, model: str) -> tuple[tuple[Price, ...], ...]:
        """What holds for `model` at one time or another, in the order to be asked. Remembered, so that `find` takes
        0.5 us instead of 10, or of 140 for Bedrock with its 200 patterns:

        python -m timeit -s "from pathlib import Path; from proxy.catalog.prices import Prices" \
            -s "p = Prices.built_in(Path('proxy/catalog/prices.json').read_bytes())" \
            "p.find('', 'api.openai.com', 'gpt-4o', 2e9)"
        """
        found = self._found.get((provider, host, model))
        if found is None:
            if len(model) > _MODEL_CHARS:
                return ()
            seller, at, names = provider.lower(), host.lower().rstrip("."), _spellings(model)
            vendor = self.vendor_of(seller, at)
            found = tuple(each for table in self._tables for each in table.find(seller, vendor, names))
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[provider, host, model] = found
        return found

    def vendor_of(self, provider: str, host: str) -> str | None:
        """Whose list prices hold for `provider` at `host`."""
        for table in self._tables:
            vendor = table.vendor_at(host)
            if vendor is not None:
                return vendor
        return provider if provider in VENDORS and _is_public(host) else None


def dollars(rate: int) -> str:
    """A rate of `Rates` in dollars for a million, exactly: 75000000 is "0.075"."""
    whole, rest = divmod(rate, _NANODOLLARS)
    return f"{whole}.{rest:09}".rstrip("0").rstrip(".")


def _fees(usage: Usage, price: Price) -> int | None:
    """What is paid apart from tokens, in nanodollars times a million; None: not known."""
    rates = price.rates_for(usage.input or 0)
    searches = usage.searches or 0
    if searches <= 0:
        return rates.request or 0
    return None if rates.search is None else searches * rates.search + (rates.request or 0)


def _tokens(
    price: Price, held: int | None, output: int | None, cached: int, written: int, hour: int, reasoning: int
) -> int | None:
    """What tokens cost, in nanodollars times a million; None: not known.

    `held` is all input, with `cached` and `written` tokens in it; `hour` is part of those written, `reasoning` of the
    output. Figures that contradict that are cut to what holds them (WIRE 0.13).
    """
    rates = price.rates_for(held or 0)
    # A figure that is not known matters if it has a price. What has no price for output has none: embeddings.
    if (held is None and rates.input != 0) or (output is None and rates.output):
        return None
    held, output = max(held or 0, 0), max(output or 0, 0)
    total = 0
    if cached > 0 or written > 0:
        cached = max(0, min(cached, held))
        written = max(0, min(written, held - cached))
        hour = max(0, min(hour, written))
        write_rate = rates.input if rates.cache_write is None else rates.cache_write
        held -= cached + written
        for count, rate in (
            (cached, rates.input if rates.cached is None else rates.cached),
            (written - hour, write_rate),
            (hour, write_rate if rates.cache_write_1h is None else rates.cache_write_1h),
        ):
            if count and rate is None:
                return None
            total += count * (rate or 0)
    if reasoning > 0 and rates.reasoning is not None:
        reasoning = min(reasoning, output)
        output -= reasoning
        total += reasoning * rates.reasoning
    if (held and rates.input is None) or (output and rates.output is None):
        return None
    return total + held * (rates.input or 0) + output * (rates.output or 0)


def _rounded(fees: int | None, tokens: int | None) -> int | None:
    """Nanodollars times a million as microdollars, half to the even one."""
    if fees is None or tokens is None:
        return None
    micros, rest = divmod(fees + tokens, _NANODOLLARS)
    if rest * 2 > _NANODOLLARS or (rest * 2 == _NANODOLLARS and micros % 2):
        micros += 1
    return micros if micros <= _MOST else None


def _spellings(model: str) -> list[str]:
    """The names under which to look for `model`, in order: as it is, without the path that Google puts before it, its
    date with dashes (as OpenAI writes it; gateways write it without), and without its date."""
    name = model.strip().lower()
    names = [name]
    if name.startswith(("models/", "publishers/")):
        names.append(name.rpartition("models/")[2])
    names += [_COMPACT_DATE.sub(r"\1-\2-\3", each) for each in names]
    names += [_DATE.sub("", each) for each in names]
    return list(dict.fromkeys(names))


def _is_public(host: str) -> bool:
    """Whether `host` is a name that more than the local network knows."""
    if "." not in host or host.endswith(_LOCAL):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
