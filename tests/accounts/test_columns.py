"""Tables, money and files that no name in them can break."""

from __future__ import annotations

import csv
import io
import json

import pytest

from proxy.accounts import columns
from proxy.accounts.columns import Column
from tests.accounts.stage import HOSTILE, is_harmless


def test_names_stand_at_the_left_and_figures_at_the_right() -> None:
    text = columns.table(
        [
            Column("model", ["a", "long name", "total"], True),
            Column("n", ["1", "22", "23"]),
            Column("cost", ["$1", "", "$1"]),
        ],
        has_total=True,
    )
    assert text == (
        "model       n  cost\n"  #
        "a           1    $1\n"
        "long name  22\n"
        "-------------------\n"
        "total      23    $1"
    )


def test_the_widest_name_gives_way_first_and_figures_never_do() -> None:
    text = columns.table(
        [Column("a", ["x" * 30], True), Column("b", ["short"], True), Column("n", ["1,234,567"])], most=40
    )
    assert [len(line) for line in text.split("\n")] == [40, 40]
    assert text.endswith(f"{'x' * 11}…{'x' * 10}  short  1,234,567")
    narrow = columns.table([Column("a", ["x" * 30], True), Column("n", ["1,234,567"])], most=10)
    assert narrow.split("\n")[1] == "xxxxx…xxxx  1,234,567"


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abc…fg"),
        ("abcdefg", 1, "…"),
        ("漢字漢字漢字", 7, "漢…漢字"),
        ("e\u0301" * 4, 3, "e\u0301…e\u0301"),
    ],
)
def test_what_is_too_long_loses_its_middle(text: str, most: int, expected: str) -> None:
    assert columns.shortened(text, most) == expected
    assert columns.width(columns.shortened(text, most)) <= most


def test_wide_letters_keep_the_columns_in_line() -> None:
    text = columns.table([Column("name", ["漢字", "ab"], True), Column("n", ["1", "2"])])
    assert text == "name  n\n漢字  1\nab    2"


def test_a_name_is_shown_so_that_a_terminal_obeys_nothing() -> None:
    assert columns.name(HOSTILE) == "a\\x0ab\\x0d\\x1b[31m\\x07\\x7f\\x9b2J\\u202e\\u200f\\u2028"
    assert columns.name("x" * 5000) == "x" * 200 + "…"
    assert [columns.name(value) for value in (None, "", 200)] == ["-", '""', "200"]


@pytest.mark.parametrize(("number", "expected"), [(0, "0"), (1234567, "1,234,567"), (-5, "-5")])
def test_numbers_have_their_thousands_marked(number: int, expected: str) -> None:
    assert columns.count(number) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0"),
        (7, "7"),
        (9_999, "9,999"),
        (10_000, "10.0k"),
        (12_345, "12.3k"),
        (99_949, "99.9k"),
        (99_950, "100k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (4_564_999, "4.56M"),
        (12_345_678, "12.3M"),
        (999_999_999, "1.00G"),
        (10**12, "1.00T"),
        (-123_456, "-123k"),
    ],
)
def test_a_brief_number_keeps_three_digits_and_small_ones_all(number: int, expected: str) -> None:
    assert columns.brief(number) == expected


@pytest.mark.parametrize("exponent", range(22))
def test_a_brief_number_is_short(exponent: int) -> None:
    for number in (10**exponent, 10**exponent - 1, 95 * 10**exponent // 10):
        assert len(columns.brief(number)) <= 5 + (exponent > 20) * 3


@pytest.mark.parametrize(
    ("micros", "digits", "expected"),
    [
        (None, 2, "-"),
        (0, 2, "$0.00"),
        (12_345_678, 2, "$12.35"),
        (12_345_678_901, 2, "$12,345.68"),
        (9_999, 2, "<$0.01"),
        (10_000, 2, "$0.01"),
        (1, 6, "$0.000001"),
        (1_249, 4, "$0.0012"),
        (99, 4, "<$0.0001"),
    ],
)
def test_money_has_as_many_digits_as_wanted_and_is_never_rounded_away(
    micros: int | None, digits: int, expected: str
) -> None:
    assert columns.dollars(micros, digits) == expected


@pytest.mark.parametrize(
    ("micros", "digits"), [(0, 6), (99_999, 6), (100_000, 4), (9_999_999, 4), (10_000_000, 2), (10**15, 2)]
)
def test_large_sums_need_fewer_digits(micros: int, digits: int) -> None:
    assert columns.digits_for(micros) == digits


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (0, 100, "-"),
        (0, 0, "-"),
        (1, 100_000, "<0.1%"),
        (1, 200, "0.5%"),
        (12, 100, "12%"),
        (9999, 10_000, "99%"),
        (100, 100, "100%"),
    ],
)
def test_a_share_is_never_all_or_nothing_unless_it_is(part: int, whole: int, expected: str) -> None:
    assert columns.share(part, whole) == expected


@pytest.mark.parametrize(
    ("by", "phase", "expected"), [("client", "stream", "CD"), ("upstream", "done", "U-"), ("nobody", "x", "??")]
)
def test_an_ending_has_two_letters(by: str, phase: str, expected: str) -> None:
    assert columns.letters(by, phase) == expected


CELLS = ["plain", "a,b", 'say "x"', " blank ", "", None, 12, -3, 1.5, "漢字"]


def test_csv_is_read_back_as_it_was() -> None:
    [row] = csv.reader(io.StringIO(columns.csv_line(CELLS)))
    assert row == ["plain", "a,b", 'say "x"', " blank ", "", "", "12", "-3", "1.5", "漢字"]


@pytest.mark.parametrize("start", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)"])
def test_no_name_becomes_a_formula(start: str) -> None:
    [row] = csv.reader(io.StringIO(columns.csv_line([start])))
    assert row == ["'" + start]


@pytest.mark.parametrize("start", ["\t=1", "\r=1", "\n=1", "\x00=1"])
def test_nor_does_one_behind_a_letter_that_is_not_seen(start: str) -> None:
    line = columns.csv_line([start])
    assert is_harmless(line)
    assert line[0] == "\\"


def test_csv_keeps_one_line_for_each_row() -> None:
    line = columns.csv_line([HOSTILE, "x"])
    assert "\n" not in line
    assert is_harmless(line)


def test_json_is_harmless_and_exact() -> None:
    document = {"name": HOSTILE + "\U0001f600ä", "n": 2**53, "none": None, "inf": float("inf")}
    for is_indented in (True, False):
        text = columns.json_text(document, indented=is_indented)
        assert text.isascii() and is_harmless(text)
        assert json.loads(text) == {**document, "inf": None}
    assert "\n" not in columns.json_text(document)


def test_json_of_what_json_has_no_form_for_does_not_raise() -> None:
    assert json.loads(columns.json_text({"x": b"\xff"})) == {"x": "b'\\xff'"}
