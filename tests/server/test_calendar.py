"""When the windows of budgets end, in zones whose days are not all alike."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from proxy.policy.limits import FOREVER
from proxy.policy.rules import WINDOWS
from proxy.server.calendar import Calendar


def at(text: str, zone: str = "UTC") -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=UTC if zone == "UTC" else ZoneInfo(zone))
    return round(local.timestamp()) * 10**9


@pytest.mark.parametrize(
    ("zone", "now", "window", "end"),
    [
        ("UTC", "2026-11-26T10:59:59", "hour", "2026-11-26T11:00:00"),
        ("UTC", "2026-11-26T11:00:00", "hour", "2026-11-26T12:00:00"),
        ("UTC", "2026-11-26T00:00:00", "day", "2026-11-27T00:00:00"),
        ("UTC", "2026-11-26T10:00:00", "week", "2026-11-30T00:00:00"),
        ("UTC", "2026-11-30T00:00:00", "week", "2026-12-07T00:00:00"),
        ("UTC", "2026-11-26T10:00:00", "month", "2026-12-01T00:00:00"),
        ("UTC", "2026-12-31T23:59:59", "month", "2027-01-01T00:00:00"),
        ("UTC", "2028-02-29T10:00:00", "month", "2028-03-01T00:00:00"),
        ("Asia/Kolkata", "2026-11-26T10:10:00", "hour", "2026-11-26T11:00:00"),
        ("Asia/Kolkata", "2026-11-26T10:10:00", "day", "2026-11-27T00:00:00"),
        ("Europe/Berlin", "2026-03-29T01:00:00", "day", "2026-03-30T00:00:00"),  # 23 hours
        ("Europe/Berlin", "2026-10-25T01:00:00", "day", "2026-10-26T00:00:00"),  # 25 hours
        ("Europe/Berlin", "2026-10-20T01:00:00", "week", "2026-10-26T00:00:00"),
        ("America/Santiago", "2026-09-05T12:00:00", "day", "2026-09-06T01:00:00"),  # midnight does not exist
    ],
)
def test_where_a_window_ends(zone: str, now: str, window: str, end: str) -> None:
    assert Calendar(zone).end(window, at(now, zone)) == at(end, zone)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"])
def test_windows_follow_one_another_without_a_gap(zone: str) -> None:
    """Each moment lies in one window, and its end is ahead: for two years, hour by hour."""
    calendar = Calendar(zone)
    start = at("2026-01-01T00:20:00")
    for window in WINDOWS[:-1]:
        before = 0
        for hour in range(2 * 365 * 24):
            now = start + hour * 3600 * 10**9
            end = calendar.end(window, now)
            assert end > now
            assert end >= before
            before = end
            if hour % 500 == 0:
                assert calendar.end(window, end - 1) == end
                assert calendar.end(window, end) > end


def test_in_total_never_ends() -> None:
    assert Calendar().end("total", 1) == FOREVER


@pytest.mark.parametrize("zone", ["Nowhere/City", "../etc/passwd", "\0", "Europe"])
def test_a_zone_that_is_not_known(zone: str) -> None:
    with pytest.raises(ValueError, match="knows no time zone"):
        Calendar(zone)
