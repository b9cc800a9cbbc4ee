"""Which rows of one document hold for a model, and at what time.

Lives here: `PriceTable`, patterns, and the histories of prices behind them (`Price`). May not live here: the form of a
document (price_file), whose prices hold for an exchange and what it costs (prices).
How it works: the rows of a provider are put by pattern when it is first asked for, and their figures read when a
pattern is: for OpenRouter 3 ms and then some microseconds, instead of 25 ms. A name is looked up as it is; then the
patterns with a `*` are tried, those with most letters first. Behind a pattern stand its rows, the newest first.
Doubted: patterns of equally many letters are tried in the order of the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from proxy.catalog.price_file import Placed, PriceFile, PricesError, Rates, begins, rates, span


class Price(NamedTuple):
    """What a pattern's models cost from one day on, or between two hours of the day.

    `steps`: (input tokens that a request must exceed, its rates then), rising.
    """

    version: str
    provider: str
    model: str  # the pattern
    since: str  # its first day; "": from ever
    hours: str  # as written; "": all day
    begins: int  # seconds since the epoch
    span: tuple[int, int] | None  # minutes of the day, UTC, the second one outside
    rates: Rates
    steps: tuple[tuple[int, Rates], ...]
    is_known: bool  # False: the row says that no price is known

    def is_valid(self, at: float) -> bool:
        """Whether it has begun at `at`, seconds since the epoch, and it is its time of the day."""
        if at < self.begins:
            return False
        if self.span is None:
            return True
        start, end = self.span
        minute = int(at) // 60 % 1440
        return start <= minute < end if start < end else minute >= start or minute < end

    def rates_for(self, tokens: int) -> Rates:
        """The rates of a request with `tokens` input tokens, for all of them."""
        for over, beyond in reversed(self.steps):
            if tokens > over:
                return beyond
        return self.rates


class PriceTable:
    """One document. `is_ours`: its providers are vendors, and the tests have looked at its rows; a user's are looked at
    now, and its providers may be named as in the settings. Raises PricesError."""

    __slots__ = ("_by_host", "_file", "_lists", "_patterns", "is_ours", "version")

    def __init__(self, document: bytes, *, is_ours: bool) -> None:
        self.is_ours = is_ours
        self._file = PriceFile(document)
        self.version = self._file.version
        self._lists: dict[str, _List] = {}
        if not is_ours:
            self._file.check()
            for provider in self._file.providers:
                self._list(provider).read_all(self._file.problems)
        if self._file.problems:
            raise PricesError(self._file.problems)
        hosts = [(host.lower(), vendor.lower()) for vendor, each in self._file.hosts.items() for host in each]
        self._by_host = {host: vendor for host, vendor in hosts if "*" not in host}
        self._patterns = [(_Pattern(host), vendor) for host, vendor in hosts if "*" in host]

    def vendor_at(self, host: str) -> str | None:
        """Whose prices hold at `host`, in lower case."""
        found = self._by_host.get(host)
        if found is None:
            found = next((vendor for pattern, vendor in self._patterns if pattern.fits(host)), None)
        return found

    def find(self, provider: str, vendor: str | None, names: Iterable[str]) -> Iterator[tuple[Price, ...]]:
        """The histories of all patterns that fit one of `names` (of one model, in lower case), the best one first."""
        sellers = [] if self.is_ours else [provider]
        if vendor is not None:
            sellers += [vendor, *self._file.also.get(vendor, ())]
        lists = [self._list(seller) for seller in dict.fromkeys(sellers)]
        for name in names:
            for each in lists:
                yield from each.find(name)

    def histories(self) -> Iterator[tuple[Price, ...]]:
        """All that is in it, by provider and pattern."""
        for provider in self._file.providers:
            yield from self._list(provider).read_all(self._file.problems)

    def _list(self, provider: str) -> _List:
        found = self._lists.get(provider)
        if found is None:
            found = self._lists[provider] = _List(self.version, provider, self._file.rows(provider))
        return found


class _Pattern:
    """A name in which each `*` stands for anything."""

    __slots__ = ("letters", "pieces", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.pieces = text.split("*")
        self.letters = len(text) - len(self.pieces) + 1

    def fits(self, name: str) -> bool:
        first, *middle, last = self.pieces
        start, end = len(first), len(name) - len(last)
        if start > end or not name.startswith(first) or not name.endswith(last):
            return False
        for piece in middle:
            found = name.find(piece, start, end)
            if found < 0:
                return False
            start = found + len(piece)
        return True


class _List:
    """The rows of one provider in one document."""

    __slots__ = ("_histories", "_patterns", "_provider", "_rows", "_version")

    def __init__(self, version: str, provider: str, rows: list[Placed]) -> None:
        self._version = version
        self._provider = provider
        self._rows: dict[str, list[Placed]] = {}
        self._histories: dict[str, tuple[Price, ...]] = {}
        for placed in rows:
            for pattern in placed.row.patterns:
                self._rows.setdefault(pattern, []).append(placed)
        self._patterns = [_Pattern(text) for text in self._rows if "*" in text]
        self._patterns.sort(key=lambda pattern: -pattern.letters)

    def find(self, name: str) -> Iterator[tuple[Price, ...]]:
        if name in self._rows and "*" not in name:
            yield self._history(name, [])
        for pattern in self._patterns:
            if pattern.fits(name):
                yield self._history(pattern.text, [])

    def read_all(self, problems: list[str]) -> list[tuple[Price, ...]]:
        return [self._history(pattern, problems) for pattern in sorted(self._rows)]

    def _history(self, pattern: str, problems: list[str]) -> tuple[Price, ...]:
        found = self._histories.get(pattern)
        if found is None:
            found = self._histories[pattern] = tuple(self._read(pattern, problems))
        return found

    def _read(self, pattern: str, problems: list[str]) -> list[Price]:
        """The prices of a pattern, the newest first, and of one day those for some hours first."""
        groups: dict[tuple[int, tuple[int, int] | None], dict[int, Placed]] = {}
        for placed in self._rows[pattern]:
            steps = groups.setdefault((begins(placed, problems), span(placed, problems)), {})
            if placed.row.over in steps:
                problems.append(f"{placed.where} says again what {steps[placed.row.over].where} says of {pattern}")
            steps[placed.row.over] = placed
        found = [self._price(pattern, *moment, groups[moment], problems) for moment in groups]
        found.sort(key=lambda price: (price.begins, price.span or ()), reverse=True)
        return found

    def _price(
        self, pattern: str, begins: int, span: tuple[int, int] | None, steps: dict[int, Placed], problems: list[str]
    ) -> Price:
        rising = sorted(steps)
        first = steps[rising[0]]
        if rising[0] != 0:
            how = f"a row of {pattern} without it, with the same `from` and `hours`"
            problems.append(f"{first.where}: `over` needs {how}")
        base = below = rates(first, problems)
        above: list[tuple[int, Rates]] = []
        for over in rising[1:]:
            named = rates(steps[over], problems)
            below = Rates(*(old if new is None else new for new, old in zip(named, below, strict=True)))
            above.append((over, below))
        written = (self._version, self._provider, pattern, first.row.since, first.row.hours)
        return Price(*written, begins, span, base, tuple(above), base != Rates())
