"""A document of prices, ours or a user's: its form, and everything that is wrong in it.

Lives here: `PriceFile`, its rows (`Row`), and the figures of a row as integers (`Rates`). May not live here: which row
holds for a model (price_table), whose prices hold and what an exchange costs (prices), files.
How it works: a user writes

    {
      "version": "acme-2026-11",
      "prices": [
        {"provider": "vllm", "model": "llama-3*", "input": 0.20, "output": 0.60},
        {"provider": "vllm", "model": "llama-3*", "input": 0.18, "output": "0.54", "from": "2026-12-01"},
        {"provider": "openai", "model": ["gpt-4.1", "gpt-4.1-mini"], "input": 1, "cached": 0.25, "output": 4},
        {"provider": "openai", "model": ["gpt-4.1", "gpt-4.1-mini"], "over": 200000, "input": 2},
        {"provider": "vllm", "model": "qwen*", "input": 0.1, "output": 0.4},
        {"provider": "vllm", "model": "qwen*", "input": 0.05, "output": 0.2, "hours": "20:00-06:00"}
      ],
      "hosts": {"openai": ["llm.example.com", "*.llm.example.com"]}
    }

in dollars for a million tokens: `input`, `output`, `cached`, `cache_write` (kept five minutes), `cache_write_1h`,
`reasoning`; and in dollars for one: `search`, `request`. What a row does not name costs what it is part of: cached
tokens are input, reasoning is output; input, output and searches without a figure have no known price. `provider` is
the name a provider has in the settings, or the vendor that its host belongs to. `*` in `model` stands for anything;
letter case does not count. A row holds from the UTC day `from` on, until the next one begins; one with `hours` (UTC)
goes before the one without. A row with `over` holds for all tokens of a request with more input tokens than that, not
only for the excess; what it does not name costs as below. A row without any figure says that no price is known.
`hosts` tells at which further hosts a vendor's prices hold.
Ours has the same form with three differences. `prices` is an object, provider -> rows without `provider`, so that those
of one provider can be read alone. `also` names further providers whose models one sells at their price. `source` and
`licence` say whose work it is.
Figures become integers of nanodollars for a million (tokens, searches, requests), exactly, or the row is refused.
Doubted: msgspec ends at the first wrong field of a row, so a row with two shows the second at the next try.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple, TypeVar

import msgspec

# Ours has 300 KB. What somebody named by mistake is not read for minutes.
DOCUMENT_BYTES = 4 << 20
# Sentences that are shown; of the others there is the number.
_SHOWN = 30
# Dollars, for a million tokens or for one search: more is a slip of the decimal point.
_MOST_DOLLARS = 1_000_000

_VERSION = re.compile(r"[!-~]{1,64}")
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_MODEL = re.compile(r"[!-~]{1,256}")
_HOST = re.compile(r"[a-z0-9*._:-]{1,253}")
_DAY = re.compile(r"(19[7-9][0-9]|2[0-9]{3})-([0-9]{2})-([0-9]{2})")
_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


class PricesError(Exception):
    """A document cannot be used. `problems`: one sentence for each thing that is wrong in it."""

    def __init__(self, problems: list[str]) -> None:
        problems = list(dict.fromkeys(problems))
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        self.problems = problems[:_SHOWN] + more
        super().__init__("; ".join(self.problems))


class Rates(NamedTuple):
    """Nanodollars for a million of each. None: not named."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    search: int | None = None
    request: int | None = None


class Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A row as it is written."""

    model: str | list[str]
    provider: str = ""
    since: str = msgspec.field(default="", name="from")
    hours: str = ""
    over: int = 0
    input: Decimal | None = None
    output: Decimal | None = None
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    search: Decimal | None = None
    request: Decimal | None = None

    @property
    def patterns(self) -> list[str]:
        return [self.model.lower()] if isinstance(self.model, str) else [each.lower() for each in self.model]


class Placed(NamedTuple):
    """A row and where it stands: the how manyth, and in whose list."""

    row: Row
    number: int
    provider: str  # "": in the list of all

    @property
    def where(self) -> str:
        return f"{self.provider}, price {self.number}" if self.provider else f"price {self.number}"


class PriceFile:
    """A document, read as far as it must be: rows of an object of `prices` only when they are asked for.

    `problems` grows whenever something is read that is wrong; PricesError is raised where nothing can be read at all.
    """

    __slots__ = ("_rows", "also", "hosts", "licence", "problems", "source", "version")

    def __init__(self, document: bytes) -> None:
        self.problems: list[str] = []
        parts = self._parts(document)
        self.version = self._take(parts, "version", str, "")
        self.source = self._take(parts, "source", str, "")
        self.licence = self._take(parts, "licence", str, "")
        self.hosts = self._take(parts, "hosts", dict[str, list[str]], {})
        self.also = self._take(parts, "also", dict[str, list[str]], {})
        self._rows: dict[str, msgspec.Raw | list[Placed]] = {}
        self._read_prices(parts.pop("prices", msgspec.Raw(b"[]")))
        self.problems += [f"{name[:64]!r} is not known here" for name in parts]

    @property
    def providers(self) -> list[str]:
        """All that have rows, in order."""
        return list(self._rows)

    def rows(self, provider: str) -> list[Placed]:
        """The rows of `provider`, in order; none if it has none."""
        rows = self._rows.get(provider, [])
        if isinstance(rows, list):
            return rows
        found = self._read_rows(rows, provider)
        self.problems += [f"{each.where} names its provider twice" for each in found if each.row.provider]
        return found

    def check(self) -> None:
        """Look at what reading does not look at: names, and what no row may be without."""
        if _VERSION.fullmatch(self.version) is None:
            self.problems.append("`version` must be there: up to 64 visible characters, e.g. acme-2026-11")
        for provider in self.providers:
            if _PROVIDER.fullmatch(provider) is None:
                self.problems.append(f"no provider can be called {provider[:64]!r}")
            for placed in self.rows(provider):
                patterns = placed.row.patterns
                if not patterns or not all(_MODEL.fullmatch(pattern) for pattern in patterns):
                    self.problems.append(
                        f"{placed.where}: `model` must be a name or a list of names, 1 to 256 letters each"
                    )
        hosts = [host for each in self.hosts.values() for host in each]
        self.problems += [f"{host[:64]!r} is not a host" for host in hosts if _HOST.fullmatch(host.lower()) is None]

    @staticmethod
    def _parts(document: bytes) -> dict[str, msgspec.Raw]:
        if len(document) > DOCUMENT_BYTES:
            raise PricesError([f"it is larger than {DOCUMENT_BYTES >> 20} MiB"])
        try:
            return msgspec.json.decode(document, type=dict[str, msgspec.Raw])
        except _UNREADABLE as error:
            raise PricesError([f"it is not a JSON object: {_said(error)}"]) from None

    def _take(self, parts: dict[str, msgspec.Raw], name: str, kind: type[T], default: T) -> T:
        raw = parts.pop(name, None)
        if raw is None:
            return default
        try:
            return msgspec.json.decode(raw, type=kind)
        except _UNREADABLE as error:
            self.problems.append(f"`{name}`: {_said(error)}")
            return default

    def _read_prices(self, raw: msgspec.Raw) -> None:
        if memoryview(raw)[:1].tobytes() == b"{":
            self._rows.update(self._take({"prices": raw}, "prices", dict[str, msgspec.Raw], {}))
            return
        for placed in self._read_rows(raw, ""):
            if not placed.row.provider:
                self.problems.append(f"{placed.where}: `provider` must be there")
            rows = self._rows.setdefault(placed.row.provider.lower(), [])
            assert isinstance(rows, list)
            rows.append(placed)

    def _read_rows(self, raw: msgspec.Raw, provider: str) -> list[Placed]:
        try:
            rows = msgspec.json.decode(raw, type=list[Row])
            return [Placed(row, number, provider) for number, row in enumerate(rows, 1)]
        except _UNREADABLE:
            pass  # one by one, for a sentence about each that is wrong
        placed = []
        for number, each in enumerate(self._take({"prices": raw}, "prices", list[msgspec.Raw], []), 1):
            try:
                placed.append(Placed(msgspec.json.decode(each, type=Row), number, provider))
            except _UNREADABLE as error:
                where = f"{provider}, price" if provider else "price"
                self.problems.append(f"{where} {number}: {_said(error)}")
        return placed


def rates(placed: Placed, problems: list[str]) -> Rates:
    """The figures of a row. Those that cannot be used are missing, and said in `problems`."""
    found = []
    for name in Rates._fields:
        amount: Decimal | None = getattr(placed.row, name)
        rate = None
        if amount is not None:
            # One search is a millionth of a million.
            places = 15 if name in ("search", "request") else 9
            rate = _scaled(amount, places)
            if rate is None:
                what = f"must be 0 to {_MOST_DOLLARS} dollars with at most {places} places"
                problems.append(f"{placed.where}: `{name}` {what}")
        found.append(rate)
    return Rates(*found)


def begins(placed: Placed, problems: list[str]) -> int:
    """Seconds since the epoch at which a row begins to hold; 0 for one that always did."""
    if not placed.row.since:
        return 0
    seconds = _day_begins(placed.row.since)
    if seconds is None:
        problems.append(f"{placed.where}: `from` must be a day such as 2026-11-30")
        return 0
    return seconds


def span(placed: Placed, problems: list[str]) -> tuple[int, int] | None:
    """The minutes of the day between which a row holds, the second one outside; None: at any time."""
    if not placed.row.hours:
        return None
    match = _HOURS.fullmatch(placed.row.hours)
    if match is None:
        problems.append(f"{placed.where}: `hours` must be of the form 16:30-00:30")
        return None
    hour, minute, end_hour, end_minute = map(int, match.groups())
    return hour * 60 + minute, end_hour * 60 + end_minute


def _scaled(amount: Decimal, places: int) -> int | None:
    """`amount` * 10**`places` if that is a whole number, and the amount one of money."""
    if not amount.is_finite() or not 0 <= amount <= _MOST_DOLLARS:
        return None
    scaled = int(amount.scaleb(places))
    # Compared at its own scale, where nothing is rounded: `scaleb` does round what has more than 28 digits.
    return scaled if Decimal(scaled).scaleb(-places) == amount else None


def _day_begins(text: str) -> int | None:
    match = _DAY.fullmatch(text)
    if match is None:
        return None
    year, month, day = map(int, match.groups())
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    months = (31, 29 if is_leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not 1 <= month <= 12 or not 1 <= day <= months[month - 1]:
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 + sum(months[: month - 1]) + day
    return (days - 719_163) * 86_400  # 719,163: the same count for the first day of 1970


def _said(error: Exception) -> str:
    """What msgspec says, without the sign it has for the whole document."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return re.sub(r" - at `\$\.?([^`]*)`", lambda match: f" at `{match[1]}`" if match[1] else "", str(error))[:200]
