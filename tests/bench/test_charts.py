"""Charts: well-formed, everything inside, texts apart, lengths in proportion."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from bench.charts import WIDTH, Bar, Line, Range, Scale, bars, lines, ranges

SVG = "{http://www.w3.org/2000/svg}"
SMALLEST_CHARACTER = 0.5  # of the size: an average letter of a narrow font; two texts closer than that would touch


def some_bars(count: int, factor: float = 1.1) -> list[Bar]:
    found = []
    for n in range(count):
        value = factor**n
        role = "ours" if n == 1 else "plain"
        found.append(Bar(f"contestant <{n}> & co", value, value * 0.9, value * 1.2, f"{value:.1f} (a..b)", role))
    return found


def some_ranges(count: int) -> list[Range]:
    return [
        Range(f"contestant {n}", [("p50", 10.0 + n), ("p90", 14.0 + n), ("p99", 40.0 * (n + 1))], "p50 · p99")
        for n in range(count)
    ]


def some_lines(count: int) -> list[Line]:
    found = []
    for n in range(count):
        points = [(50.0, 10.0 + n / 9, 9.5 + n / 9, 11.0 + n / 9), (5000.0, 10.0, 9.9, 10.2)]
        found.append(Line(f"contestant {n}", points, "10.0", "gateway" if n else "ours"))
    return found


def drawn(count: int) -> dict[str, str]:
    return {
        "even": bars([("title", "a note", "us", some_bars(count))]),
        "log": bars([("title", "a note " * 60, "us", some_bars(count, 9.0)), ("second", "", "KiB", some_bars(1))]),
        "ranges": ranges("title", "a note", "us", some_ranges(count)),
        "lines": lines("title", "a note", "streams", "us", some_lines(count)),
    }


CHARTS = [(kind, count) for count in (1, 4, 15) for kind in ("even", "log", "ranges", "lines")]


@pytest.mark.parametrize(("kind", "count"), CHARTS)
def test_a_chart_is_well_formed_on_a_white_ground(kind: str, count: int) -> None:
    root = ElementTree.fromstring(drawn(count)[kind])
    assert root.tag == f"{SVG}svg"
    ground = root.find(f"{SVG}rect")
    assert ground is not None and ground.get("fill") == "#ffffff"
    assert (ground.get("width"), ground.get("height")) == (root.get("width"), root.get("height"))
    assert root.findtext(f"{SVG}title")


@pytest.mark.parametrize(("kind", "count"), CHARTS)
def test_nothing_lies_outside(kind: str, count: int) -> None:
    root = ElementTree.fromstring(drawn(count)[kind])
    height = float(root.get("height", 0))
    for each in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(each.get(name, 0)) <= WIDTH
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(each.get(name, 0)) <= height
    for left, right, _, text in texts(root):
        assert left >= 0 and right <= WIDTH, text


@pytest.mark.parametrize(("kind", "count"), CHARTS)
def test_no_two_texts_touch(kind: str, count: int) -> None:
    found = texts(ElementTree.fromstring(drawn(count)[kind]))
    for number, (left, right, y, text) in enumerate(found):
        for other_left, other_right, other_y, other in found[number + 1 :]:
            assert abs(y - other_y) >= 12 or right <= other_left or other_right <= left, (text, other)


def texts(root: ElementTree.Element) -> list[tuple[float, float, float, str]]:
    """Left, right, height and text of all of them."""
    found = []
    for each in root.iter(f"{SVG}text"):
        width = len(each.text or "") * float(each.get("font-size", 0)) * SMALLEST_CHARACTER
        x = (
            float(each.get("x", 0))
            - {"start": 0.0, "middle": width / 2, "end": width}[each.get("text-anchor", "start")]
        )
        found.append((x, x + width, float(each.get("y", 0)), each.text or ""))
    return found


def lengths(svg: str) -> list[float]:
    """Of the bars: the boxes of their height."""
    return [float(found) for found in re.findall(r'width="([\d.]+)" height="16.0"', svg)]


def test_bars_are_in_proportion_from_zero() -> None:
    rows = [Bar(str(value), value, value, value, "") for value in (1.0, 2.0, 10.0)]
    one, two, ten = lengths(bars([("", "", "", rows)]))
    assert two / one == pytest.approx(2, rel=0.01)
    assert ten / one == pytest.approx(10, rel=0.01)


def test_values_far_apart_are_drawn_on_a_log_scale_that_says_so() -> None:
    near, far = (
        [Bar(str(value), value, value, value, "") for value in values] for values in ((1.0, 20.0), (1.0, 21.0, 441.0))
    )
    assert "log scale" not in bars([("", "", "us", near)])
    svg = bars([("", "", "us", far)])
    assert "us, log scale: lengths are not in proportion" in svg
    one, two, three = lengths(svg)
    assert three - two == pytest.approx(two - one, rel=0.01)


def test_a_bar_may_go_the_other_way() -> None:
    rows = [Bar("saves", 4.0, 3.0, 5.0, "4"), Bar("costs", -2.0, -2.5, -1.0, "-2")]
    svg = bars([("", "", "us", rows)])
    assert lengths(svg)[0] / lengths(svg)[1] == pytest.approx(2, rel=0.01)
    starts = [float(found) for found in re.findall(r'<rect x="([\d.]+)"', svg)]
    assert starts[1] < starts[0]


def test_the_whisker_goes_from_least_to_most_and_one_round_has_none() -> None:
    svg = bars([("", "", "", [Bar("a", 10.0, 5.0, 20.0, "10")])])
    bar = lengths(svg)[0]
    x1, x2 = (float(found) for found in re.findall(r'x1="([\d.]+)" [^>]*x2="([\d.]+)"[^>]*stroke-width="1.2"', svg)[0])
    start = float(re.findall(r'<rect x="([\d.]+)"', svg)[0])
    assert x1 - start == pytest.approx(bar / 2, rel=0.01)
    assert x2 - start == pytest.approx(bar * 2, rel=0.01)
    assert 'stroke-width="1.2"' not in bars([("", "", "", [Bar("a", 10.0, 10.0, 10.0, "10")])])


def test_ours_stands_out() -> None:
    svg = bars(
        [("", "", "", [Bar("llm-proxy", 1.0, 1.0, 1.0, "1", "ours"), Bar("nginx", 1.0, 1.0, 1.0, "1", "plain")])]
    )
    assert re.search(r'font-weight="bold">llm-proxy<', svg)
    assert not re.search(r'font-weight="bold">nginx<', svg)
    assert len(set(re.findall(r'height="16.0" fill="(#\w+)"', svg))) == 2


@pytest.mark.parametrize("values", [[3.0], [0.001, 0.0004], [1.0, 7.3], [1.0, 12_345.0], [-2.0, 5.0], [0.0], []])
def test_ticks_are_few_and_in_order_and_on_the_scale(values: list[float]) -> None:
    scale = Scale(values, 100.0, 500.0)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    assert all(one < other for one, other in pairwise(ticks))
    assert all(100.0 <= scale.at(tick) <= 500.0 for tick in ticks)
