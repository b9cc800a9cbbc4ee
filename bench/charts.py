"""Charts as SVG: bars with spread, ranges, lines.

Lives here: scales, the three kinds of chart, the text of their SVG.
May not live here: which figures are drawn (pictures).
How it works: a chart is a list of SVG elements on a white ground of its own, in colours that are readable there: it
looks the same on a light and on a dark page. Bars lie, one line each, with the value as text behind the whisker; where
values span more than twenty times the least, the axis is logarithmic and says so. There is no chart library:
the three kinds are these few hundred lines, while the libraries bring tens of packages, and fonts, for the same.
Doubted: how wide a text is can only be guessed without its font. The guess is that of a wide one, and space is made by
it, so with most fonts there is a little too much of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH = 900.0
LOG_FROM = 20.0  # most / least beyond which small bars could not be told apart on an even scale
_TEXT, _QUIET, _GRID, _WHISKER = "#1f2328", "#59636e", "#e4e8ec", "#3d444d"
# By role. Ours is the one strong colour; the others are told apart by their names, not by their colours.
_COLOURS = {"ours": "#0b62c4", "feature": "#7fb2e8", "variant": "#7fb2e8", "plain": "#a0a9b3", "gateway": "#d9a35b"}
_LINE_COLOURS = ("#b5622c", "#2f7d4f", "#8250a8", "#8c6d1f", "#a33a5e", "#3a7f8c", "#6e7781", "#c2452d")
_DASHES = ("", "6 3", "2 3")
_ROW = 24.0
_SIZE = 12.0
_CHARACTER = 0.62  # of the size: what DejaVu Sans, a wide one, needs on average
_EDGE = 16.0


def _width(text: str, size: float = _SIZE) -> float:
    return len(text) * size * _CHARACTER


class Bar(NamedTuple):
    """`low` and `high`: the whisker; `inner`: the middle half, drawn thicker, if there were rounds enough."""

    name: str
    value: float
    low: float
    high: float
    text: str
    role: str = "gateway"
    inner: tuple[float, float] | None = None


class Range(NamedTuple):
    """Quantiles of one distribution, least first: (what it is called, value)."""

    name: str
    points: list[tuple[str, float]]
    text: str
    role: str = "gateway"


class Line(NamedTuple):
    """(x, median, low, high) in order of x."""

    name: str
    points: list[tuple[float, float, float, float]]
    text: str
    role: str = "gateway"


class Scale:
    """From a value to a place between two coordinates; even from zero, or logarithmic."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool | None = None) -> None:
        real = [value for value in values if value > 0]
        self.most = max(real, default=1.0)
        least = min(real, default=1.0)
        below = min([0.0, *values])
        self.is_log = log if log is not None else below == 0.0 and self.most / least > LOG_FROM
        # A bar on a log scale begins somewhere: at half the least, so that the shortest one can be seen.
        self.least = least / 2 if self.is_log else below
        self._start, self._end = start, end

    @property
    def zero(self) -> float:
        """Where bars begin."""
        return self._start if self.is_log else self.at(0.0)

    def at(self, value: float) -> float:
        if self.is_log:
            share = math.log(max(value, self.least) / self.least) / math.log(self.most / self.least)
        else:
            share = (value - self.least) / (self.most - self.least)
        return self._start + max(0.0, min(1.0, share)) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round numbers, never so many that their texts could meet."""
        return self._log_ticks() if self.is_log else self._even_ticks()

    def _even_ticks(self) -> list[float]:
        rough = (self.most - self.least) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
        first, last = math.ceil(self.least / step - 1e-9), math.floor(self.most / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        decades = math.log10(self.most / self.least)
        steps = (1,) if decades > 2.5 else (1, 2, 5)
        first, last = math.floor(math.log10(self.least)), math.ceil(math.log10(self.most))
        every = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        return [tick for tick in every if self.least <= tick <= self.most]


@dataclass(slots=True)
class _Drawing:
    """Elements so far, and how high the picture has become."""

    parts: list[str] = field(default_factory=list)
    height: float = _EDGE

    def text(
        self, x: float, y: float, text: str, *, anchor: str = "start", size: float = _SIZE, style: str = ""
    ) -> None:
        colour = _QUIET if "quiet" in style else _TEXT
        weight = ' font-weight="bold"' if "bold" in style else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" fill="{colour}"{weight}>'
            f"{escape(text)}</text>"
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0, dash: str = "") -> None:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:g}"{dashed}/>'
        )

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" fill="{colour}"/>'
        )

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"/>')

    def heading(self, title: str, note: str) -> None:
        self.text(_EDGE, self.height + 14, title, size=15, style="bold")
        self.height += 22
        for line in _wrapped(note, WIDTH - 2 * _EDGE):
            self.text(_EDGE, self.height + 12, line, style="quiet")
            self.height += 17
        self.height += 8

    def whole(self, label: str) -> str:
        height = self.height + _EDGE
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:g}" height="{height:.0f}" '
                f'viewBox="0 0 {WIDTH:g} {height:.0f}" font-family="sans-serif" role="img">',
                f"<title>{escape(label)}</title>",
                f'<rect width="{WIDTH:g}" height="{height:.0f}" fill="#ffffff"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def _wrapped(text: str, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line for line in lines if line]


def _tick_text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"


def _rows(drawing: _Drawing, names: list[str], texts: list[str], values: list[float], unit: str) -> Scale:
    """Names, grid and axis of a chart whose rows lie; leaves `drawing.height` at the first row."""
    left = _EDGE + max(map(_width, names)) + 10
    right = WIDTH - _EDGE - max(map(_width, texts)) - 12
    scale = Scale(values, left, right)
    top, bottom = drawing.height, drawing.height + len(names) * _ROW
    last = -math.inf
    for tick in scale.ticks():
        x = scale.at(tick)
        drawing.line(x, top, x, bottom, _GRID)
        text = _tick_text(tick)
        if x - _width(text, 11) / 2 > last + 6:
            drawing.text(x, bottom + 14, text, anchor="middle", size=11, style="quiet")
            last = x + _width(text, 11) / 2
    drawing.line(scale.zero, top, scale.zero, bottom, _QUIET)
    said = f"{unit}, log scale: lengths are not in proportion" if scale.is_log else unit
    drawing.text(left, bottom + 31, said, size=11, style="quiet")
    return scale


def _draw_bars(drawing: _Drawing, bars: list[Bar], unit: str) -> None:
    values = [value for bar in bars for value in (bar.value, bar.high, bar.low)]
    scale = _rows(drawing, [bar.name for bar in bars], [bar.text for bar in bars], values, unit)
    left = scale.at(scale.least)
    for bar in bars:
        middle = drawing.height + _ROW / 2
        style = "bold" if bar.role == "ours" else ""
        drawing.text(left - 8, middle + 4, bar.name, anchor="end", style=style)
        begin, end = sorted((scale.zero, scale.at(bar.value)))
        drawing.box(begin, middle - 8, end - begin, 16, _COLOURS[bar.role])
        low, high = scale.at(bar.low), scale.at(bar.high)
        if bar.low < bar.high:
            drawing.line(low, middle, high, middle, _WHISKER, 1.2)
            for x in (low, high):
                drawing.line(x, middle - 4, x, middle + 4, _WHISKER, 1.2)
            if bar.inner:
                drawing.line(scale.at(bar.inner[0]), middle, scale.at(bar.inner[1]), middle, _WHISKER, 4)
        drawing.text(max(end, high) + 8, middle + 4, bar.text, style=style)
        drawing.height += _ROW
    drawing.height += 34


def bars(panels: list[tuple[str, str, str, list[Bar]]]) -> str:
    """One chart of one or more panels: (title, note, unit, bars)."""
    drawing = _Drawing()
    for number, (title, note, unit, rows) in enumerate(panels):
        drawing.height += 20 if number else 0
        drawing.heading(title, note)
        _draw_bars(drawing, rows, unit)
    return drawing.whole("; ".join(panel[0] for panel in panels))


def ranges(title: str, note: str, unit: str, rows: list[Range]) -> str:
    """From the least quantile of each to its greatest: a dot at the first, ticks at the others."""
    drawing = _Drawing()
    drawing.heading(title, note)
    values = [value for row in rows for _, value in row.points]
    scale = _rows(drawing, [row.name for row in rows], [row.text for row in rows], values, unit)
    left = scale.at(scale.least)
    for row in rows:
        middle = drawing.height + _ROW / 2
        style = "bold" if row.role == "ours" else ""
        colour = _COLOURS[row.role]
        places = [scale.at(value) for _, value in row.points]
        drawing.text(left - 8, middle + 4, row.name, anchor="end", style=style)
        drawing.box(places[0], middle - 4, places[-1] - places[0], 8, colour)
        for x in places[1:]:
            drawing.line(x, middle - 8, x, middle + 8, _WHISKER, 1.5)
        drawing.dot(places[0], middle, 5, _TEXT if row.role == "ours" else _WHISKER)
        drawing.text(max(places) + 12, middle + 4, row.text, style=style)
        drawing.height += _ROW
    drawing.height += 34
    return drawing.whole(title)


def _apart(places: list[float], least: float, top: float, bottom: float) -> list[float]:
    """Moved so far that none is nearer than `least` to the next, as little as possible, in the same order."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = [places[index] for index in order]
    for number in range(len(moved)):
        moved[number] = max(moved[number], moved[number - 1] + least if number else top)
    for number in reversed(range(len(moved))):
        moved[number] = min(moved[number], moved[number + 1] - least if number + 1 < len(moved) else bottom)
    found = [0.0] * len(places)
    for index, place in zip(order, moved, strict=True):
        found[index] = place
    return found


def lines(title: str, note: str, x_unit: str, unit: str, series: list[Line]) -> str:
    """Values over a logarithmic x, with the spread of each point; names stand at the right, joined to their ends."""
    drawing = _Drawing()
    drawing.heading(title, note)
    height = max(260.0, len(series) * 17.0)
    top, bottom = drawing.height + 6, drawing.height + 6 + height
    left, right = _EDGE + 56, WIDTH - _EDGE - max(_width(f"{line.name}  {line.text}") for line in series) - 44
    xs = sorted({point[0] for line in series for point in line.points})
    across = Scale(xs, left, right, log=True)
    across.least = xs[0] * 0.8
    up = Scale([value for line in series for point in line.points for value in point[1:]], bottom, top)
    for tick in up.ticks():
        drawing.line(left, up.at(tick), right, up.at(tick), _GRID)
        drawing.text(left - 8, up.at(tick) + 4, _tick_text(tick), anchor="end", size=11, style="quiet")
    for x in xs:
        drawing.line(across.at(x), top, across.at(x), bottom, _GRID)
        drawing.text(across.at(x), bottom + 16, f"{x:,.0f}", anchor="middle", size=11, style="quiet")
    drawing.line(left, bottom, right, bottom, _QUIET)
    said = f"{unit}, log scale" if up.is_log else unit
    drawing.text(left, bottom + 34, f"across: {x_unit}, log scale; up: {said}", size=11, style="quiet")
    labels = _apart([up.at(line.points[-1][1]) for line in series], 16, top, bottom)
    others = 0
    for line, y in zip(series, labels, strict=True):
        colour, dash = _COLOURS["ours"], ""
        if line.role != "ours":
            colour, dash = _LINE_COLOURS[others % len(_LINE_COLOURS)], _DASHES[others // len(_LINE_COLOURS) % 3]
            others += 1
        _draw_line(drawing, line, across, up, colour, dash)
        end = line.points[-1]
        drawing.line(across.at(end[0]) + 6, up.at(end[1]), right + 30, y, colour, 0.6)
        style = "bold" if line.role == "ours" else ""
        drawing.text(right + 36, y + 4, f"{line.name}  {line.text}", style=style)
    drawing.height = bottom + 38
    return drawing.whole(title)


def _draw_line(drawing: _Drawing, line: Line, across: Scale, up: Scale, colour: str, dash: str) -> None:
    width = 3.0 if line.role == "ours" else 1.6
    for (x1, y1, *_), (x2, y2, *_) in zip(line.points, line.points[1:], strict=False):
        drawing.line(across.at(x1), up.at(y1), across.at(x2), up.at(y2), colour, width, dash)
    for x, y, low, high in line.points:
        drawing.line(across.at(x), up.at(low), across.at(x), up.at(high), colour, 1.2)
        drawing.dot(across.at(x), up.at(y), 4 if line.role == "ours" else 3, colour)
