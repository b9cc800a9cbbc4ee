"""Moments in words, in UTC and in a zone with summer time."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator

import pytest

from proxy.ledger.period import ahead, midnight, moment, shown, zone_name


def utc(*parts: int) -> float:
    return float(calendar.timegm((*parts, *[0] * (9 - len(parts)))))  # type: ignore[arg-type]


NOW = utc(2026, 11, 25, 12, 30)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One hour before UTC, two from the last Sunday of March to that of October; in a form that needs no zone files."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("today", utc(2026, 11, 25)),
        ("yesterday", utc(2026, 11, 24)),
        ("90s", NOW - 90),
        ("30m", NOW - 1800),
        ("24h", NOW - 86_400),
        ("7d", NOW - 7 * 86_400),
        ("2w", NOW - 14 * 86_400),
        (" 7D ", NOW - 7 * 86_400),
        ("2026-11-01", utc(2026, 11, 1)),
        ("2026-11-01T12:30", utc(2026, 11, 1, 12, 30)),
        ("2026-11-01 12:30:15", utc(2026, 11, 1, 12, 30, 15)),
        ("2026-11-01T12:30:00.5Z", utc(2026, 11, 1, 12, 30) + 0.5),
        ("2026-11-01T12:30+02:00", utc(2026, 11, 1, 10, 30)),
        ("all", None),
    ],
)
def test_words_mean_moments(text: str, expected: float | None) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "7", "d", "-7d", "1.5h", "7 d", "2026-13-01", "2026-02-30", "12:30", "٣d"]
)
def test_what_is_no_moment_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="not a time; write one of: today, yesterday, 30m"):
        moment(text, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW + 90),
        (" 7D ", NOW + 7 * 86_400),
        ("2026-11-26", utc(2026, 11, 26)),
        ("2026-11-25T12:31", NOW + 60),
        ("2026-11-25T14:31+02:00", NOW + 60),
    ],
)
def test_words_mean_moments_to_come(text: str, expected: float) -> None:
    assert ahead(text, NOW) == expected


@pytest.mark.parametrize("text", ["2026-11-25", "2026-11-25T12:30", "0d", "1970-01-01"])
def test_what_is_over_is_not_to_come(text: str) -> None:
    with pytest.raises(ValueError, match="is over already: write a time to come"):
        ahead(text, NOW)


@pytest.mark.parametrize("text", ["", "today", "now", "all", "-7d", "7", "+7d"])
def test_what_is_no_moment_to_come_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a time; write one of: 30m, 24h, 7d"):
        ahead(text, NOW)


def test_yesterday_may_be_in_another_month_or_year() -> None:
    assert moment("yesterday", utc(2026, 3, 1, 5)) == utc(2026, 2, 28)
    assert moment("yesterday", utc(2027, 1, 1)) == utc(2026, 12, 31)


@pytest.mark.usefixtures("berlin")
def test_a_local_day_begins_at_local_midnight() -> None:
    assert moment("today", utc(2026, 11, 25, 23, 30), is_local=True) == utc(2026, 11, 25, 23)
    assert moment("today", utc(2026, 7, 25, 22, 30), is_local=True) == utc(2026, 7, 25, 22)
    assert moment("2026-07-01", NOW, is_local=True) == utc(2026, 6, 30, 22)
    assert moment("2026-07-01T00:00Z", NOW, is_local=True) == utc(2026, 7, 1)
    assert moment("today", utc(2026, 11, 25, 23, 30)) == utc(2026, 11, 25)


@pytest.mark.usefixtures("berlin")
def test_the_days_on_which_summer_time_begins_and_ends_have_their_own_length() -> None:
    spring, autumn = utc(2026, 3, 29, 12), utc(2026, 10, 25, 12)
    assert midnight(spring, True) == utc(2026, 3, 28, 23)
    assert midnight(spring + 86_400, True) - midnight(spring, True) == 23 * 3600
    assert midnight(autumn, True, days_back=-1) - midnight(autumn, True) == 25 * 3600


@pytest.mark.usefixtures("berlin")
def test_moments_are_shown_in_the_zone_that_is_wanted() -> None:
    assert shown(NOW) == "2026-11-25 12:30"
    assert shown(NOW, is_local=True) == "2026-11-25 13:30"
    assert (zone_name(NOW, False), zone_name(NOW, True), zone_name(utc(2026, 7, 1), True)) == ("UTC", "CET", "CEST")


@pytest.mark.parametrize("at", [float("inf"), float("nan"), 1e300, -1e300])
def test_what_no_calendar_holds_is_shown_as_nothing(at: float) -> None:
    assert shown(at) == "-"
