"""Names and figures as a terminal, a spreadsheet or a program should get them.

Lives here: tables of aligned columns, money and counts in words, lines of CSV, JSON. May not live here: what is shown
(usage, tail, prices, upkeep), questions to the ledger, printing.
How it works: names come from clients and providers, so none reaches a terminal as it is: what is not printable is shown
as an escape in plain sight (telemetry's `clean`), in CSV too, and JSON is ASCII. A cell of CSV that a spreadsheet would
would take for a formula begins with an apostrophe. Everything here is exact but for the digits of money and `brief`.
Doubted: letters of scripts that run from right to left are shown as they are; a terminal may turn their cell around.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from proxy.outcome import Phase, Side
from proxy.telemetry.lines import clean

WIDTH = 100  # columns of a terminal that a table keeps to where its figures let it
GAP = "  "
_LEAST_NAME = 10  # columns that a name keeps, however many figures stand beside it: those of a day


class Column(NamedTuple):
    """One column of a table, heading first. Names stand at the left and may be shortened, figures do neither."""

    head: str
    cells: list[str]
    is_name: bool = False

    @property
    def width(self) -> int:
        return max(map(width, (self.head, *self.cells)))


def table(columns: Sequence[Column], has_total: bool = False, most: int = WIDTH) -> str:
    """The lines of a table. `has_total`: the last row stands under a rule."""
    widths = _fitted(columns, most)
    rows = [[column.head for column in columns], *map(list, zip(*(column.cells for column in columns)))]
    lines = []
    for row in rows:
        cells = []
        for column, cell, wide in zip(columns, row, widths):
            cell = shortened(cell, wide)
            blank = " " * (wide - width(cell))
            cells.append(cell + blank if column.is_name else blank + cell)
        lines.append(GAP.join(cells).rstrip())
    if has_total:
        lines.insert(-1, "-" * (sum(widths) + len(GAP) * (len(widths) - 1)))
    return "\n".join(lines)


def _fitted(columns: Sequence[Column], most: int) -> list[int]:
    """The width of each column: the widest names give way until the table fits, or none can be shortened any more."""
    widths = [column.width for column in columns]
    over = sum(widths) + len(GAP) * (len(widths) - 1) - most
    names = [index for index, column in enumerate(columns) if column.is_name]
    while over > 0 and names:
        widest = max(names, key=lambda index: widths[index])
        if widths[widest] <= _LEAST_NAME:
            break
        widths[widest] -= 1
        over -= 1
    return widths


def width(text: str) -> int:
    """Columns that `text` takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def shortened(text: str, most: int) -> str:
    """`text` in at most `most` columns: what is too much goes from the middle, since names differ at their ends."""
    if width(text) <= most:
        return text
    start, end = text, text
    while width(start) > most // 2:
        start = start[:-1]
    while width(end) > most - 1 - width(start):
        end = end[1:]
    while end and unicodedata.combining(end[0]):  # an accent of what is gone would sit on the dots
        end = end[1:]
    return f"{start}…{end}"


def name(value: object) -> str:
    """A name for people: one line, nothing in it that a terminal would obey; `-` where there is none."""
    return "-" if value is None else clean(str(value), cut=200) or '""'


def letters(ended_by: str, ended_phase: str) -> str:
    """Who ended an exchange and when, as the log has it: `UD` = the upstream, during the stream."""
    try:
        return Side(ended_by).letter + Phase(ended_phase).letter
    except ValueError:
        return "??"


def count(number: int) -> str:
    """A number with its thousands marked."""
    return f"{number:,}"


def brief(number: int) -> str:
    """A number in at most six columns: below 10,000 as it is, above with three digits, as 12.3k or 4.56M."""
    if abs(number) < 10_000:
        return count(number)
    value, at = number / 1_000, 0
    while abs(value) >= 999.5 and at < len(_UNITS) - 1:
        value, at = value / 1_000, at + 1
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{digits}f}{_UNITS[at]}"


_UNITS = "kMGTPE"


def dollars(micros: int | None, digits: int = 6) -> str:
    """Microdollars as dollars with so many digits; `-` for None. What is not nothing is never shown as nothing."""
    if micros is None:
        return "-"
    least = 10 ** (6 - digits)
    if 0 < micros < least:
        return f"<${least / 1e6:.{digits}f}"
    return f"${micros / 1e6:,.{digits}f}"


def digits_for(micros: int) -> int:
    """Digits after the point that are worth showing beside a sum of that size: cents from $10 on."""
    return 2 if micros >= 10_000_000 else 4 if micros >= 100_000 else 6


def share(part: int, whole: int) -> str:
    """A share in per cent; `-` for none at all. What is not all is never shown as all."""
    if not part or not whole:
        return "-"
    percent = 100 * part / whole
    if percent < 0.1:
        return "<0.1%"
    if percent < 10:
        return f"{percent:.1f}%"
    return f"{min(percent, 99) if part < whole else 100:.0f}%"


def csv_line(cells: Iterable[object]) -> str:
    """One line of CSV (RFC 4180), without its end. None is an empty cell."""
    return ",".join(map(_csv_cell, cells))


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return str(value)
    text = clean(str(value))
    if text[:1] in tuple("=+-@"):  # a tab or a line end before them is an escape by now
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') or text != text.strip() else text


def json_text(document: Mapping[str, Any], *, indented: bool = False) -> str:
    """`document` as JSON in printable ASCII: a program gets every value as it is, a terminal nothing to obey."""
    text = orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 if indented else None).decode()
    return _UNSAFE.sub(_escaped, text)


_UNSAFE = re.compile(r"[^\n -~]")  # DEL may stand in JSON as it is, and so may everything beyond ASCII


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
