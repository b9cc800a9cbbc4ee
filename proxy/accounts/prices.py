"""`llm-proxy prices`: what the price table says.

Lives here: which rows are meant, and how they look. May not live here: prices, and which one holds for an exchange
(catalog.prices).
How it works: the user's table, if there is one, comes first, as it is asked first. A name stands for every row that
would be asked for it; where there is none, or all are wanted, for every row that has it in its own name. Rows that a
later one has replaced are left out, and so are those that say that nothing is known, unless there is nothing else.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from proxy.accounts import columns
from proxy.accounts.columns import Column
from proxy.accounts.desk import Desk, Refusal
from proxy.catalog.load import VENDORS
from proxy.catalog.prices import Price, Prices, PricesError, Rates

_DATE = re.compile(r"[-@]20\d\d-?\d\d-?\d\d$")  # a dated name without a row of its own costs what the undated one does
_ANY_WIDTH = 1_000_000
_FOR_ONE = ("search", "request")
_HEADS = {"cache_write": "write", "cache_write_1h": "write 1h"}


class Row(NamedTuple):
    """A price as people read it. `over`: input tokens that a request must exceed; 0: any request."""

    price: Price
    over: int
    rates: Rates


def run(desk: Desk, arguments: argparse.Namespace) -> int:
    prices = _prices(desk)
    found = list(rows_of(prices, desk.now(), arguments.model, arguments.provider))
    rows = chosen(found, arguments.model, arguments.all)
    if arguments.json:
        desk.say(columns.json_text(document(prices, rows), indented=True))
    elif rows:
        desk.say(f"Prices of {prices.version}, in dollars for a million tokens; searches and requests for one")
        desk.say(
            "cached, write and write 1h are input that was read from a cache, or written to one for 5 minutes or 1 h\n"
        )
        # Whatever reads a pipe has room for names, and needs them whole.
        desk.say(as_table(rows, desk.width if desk.out.isatty() else _ANY_WIDTH))
        if len(found) > len(rows):
            desk.say("\n" + _hidden(found, rows))
    else:
        desk.say("No such price is known. A table of your own, named by LLM_PROXY_PRICES, may have it.")
    return 0


def _prices(desk: Desk) -> Prices:
    from proxy.server.files import builtin_prices, read_text_file

    path = desk.variable("LLM_PROXY_PRICES")
    if not path:
        return builtin_prices()
    try:
        return builtin_prices().overlaid(Prices.of(read_text_file(path).encode()))
    except PricesError as error:
        raise Refusal("LLM_PROXY_PRICES: " + "; ".join(error.problems)) from None
    except (OSError, ValueError):
        raise Refusal("LLM_PROXY_PRICES: the file cannot be read") from None


def rows_of(prices: Prices, now: float, model: str | None, provider: str | None) -> Iterator[Row]:
    """The rows for `model` (a name, a part of one, or with `*`) of `provider` that hold at `now`, or will."""
    holding: dict[tuple[str, ...], int] = {}  # when the newest price began that has, by pattern and hours
    for price, over, rates in prices.rows():  # the newest first
        if _is_meant(price, model, provider):
            pattern = (price.version, price.provider, price.model, price.hours)
            if price.begins > now or holding.setdefault(pattern, price.begins) == price.begins:
                yield Row(price, over, rates)


def chosen(found: Sequence[Row], model: str | None, is_all: bool) -> list[Row]:
    """What is shown of `found`: see above. By table, the rows that would be asked first, then the model's own vendor,
    then others that are called by their name alone."""
    named = [row for row in found if model is None or _is_asked(row.price, model)]
    rows = list(found) if is_all or not named else named
    if not is_all:
        rows = [row for row in rows if row.price.is_known] or rows
    tables = list(dict.fromkeys(row.price.version for row in found))

    def place(row: Row) -> tuple[int, bool, bool, bool]:
        price = row.price
        vendor = VENDORS.get(price.provider)
        is_own = model is not None and vendor is not None and model.lower().startswith(vendor.owns)
        return tables.index(price.version), model is not None and row not in named, not is_own, vendor is None

    return sorted(rows, key=place)


def _hidden(found: Sequence[Row], rows: Sequence[Row]) -> str:
    number = len(found) - len(rows)
    unknown = sum(not row.price.is_known for row in found) - sum(not row.price.is_known for row in rows)
    what = [f"{number - unknown:,} with more in their name"] if number > unknown else []
    what += [f"{unknown:,} whose price is not known"] if unknown else []
    return f"Not shown: {' and '.join(what)}; --all shows them."


def _is_meant(price: Price, model: str | None, provider: str | None) -> bool:
    if provider is not None and price.provider != provider.lower():
        return False
    if model is None:
        return True
    return _is_asked(price, model) or ("*" not in model and model.lower() in price.model.lower())


def _is_asked(price: Price, model: str) -> bool:
    """Whether the price is one of `model` itself: a name, or with `*` several."""
    name, pattern = model.lower(), price.model.lower()
    if "*" in name:
        return _fits(name, pattern)
    return any(_fits(pattern, each) for each in (name, _DATE.sub("", name)))


def _fits(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None


def document(prices: Prices, rows: Iterable[Row]) -> dict[str, Any]:
    """Rows as plain values; figures are text, exactly as they are: dollars for a million, or for one."""
    return {"version": prices.version, "prices": [_as_dict(row) for row in rows]}


def _as_dict(row: Row) -> dict[str, Any]:
    price = row.price
    named = {"version": price.version, "provider": price.provider, "model": price.model}
    when = {"from": price.since or None, "hours": price.hours or None, "over": row.over or None}
    return {**named, **when, **{name: _dollars(name, rate) for name, rate in zip(Rates._fields, row.rates)}}


def as_table(rows: list[Row], most: int = columns.WIDTH) -> str:
    """One line for each row; columns that are empty in all of them are left out."""
    found = [
        Column("provider", [columns.name(row.price.provider) for row in rows], is_name=True),
        Column("model", [columns.name(row.price.model) for row in rows], is_name=True),
    ]
    for name in Rates._fields:
        cells = [_dollars(name, getattr(row.rates, name)) for row in rows]
        if any(cells):
            found.append(Column(_HEADS.get(name, name), [cell or "" for cell in cells]))
    notes = ["holds", *(_note(row) for row in rows)]
    if any(notes[1:]):
        wide = max(map(len, notes))
        padded = [note.ljust(wide) for note in notes]  # words, which stand at the left, but are not to be shortened
        found.append(Column(padded[0], padded[1:]))
    return columns.table(found, most=most)


def _note(row: Row) -> str:
    parts = [f"from {row.price.since}"] if row.price.since else []
    parts += [row.price.hours] if row.price.hours else []
    parts += [f"over {columns.count(row.over)}"] if row.over else []
    return ", ".join(parts if row.price.is_known else [*parts, "not known"])


def _dollars(name: str, rate: int | None) -> str | None:
    """A figure of a row exactly, in the unit it is written in."""
    if rate is None:
        return None
    text = f"{Decimal(rate).scaleb(-15 if name in _FOR_ONE else -9):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
