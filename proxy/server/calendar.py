"""When the windows of budgets end.

Lives here: `Calendar`. May not live here: what is spent in a window (policy.limits).
How it works: days, weeks (from Monday) and months begin at midnight of one zone, hours with its full hours. A day of
that zone may have 23 or 25 hours.
Doubted: nothing yet.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from proxy.policy.limits import FOREVER

_SECOND = 10**9
_HOUR = 3600


class Calendar:
    """The days of `zone`: UTC, or a name such as Europe/Berlin. ValueError, without the name: this system knows none of
    that name."""

    def __init__(self, zone: str = "UTC") -> None:
        self.zone = zone
        self._zone: tzinfo = UTC  # needs no database of zones, which small images lack
        if zone.upper() != "UTC":
            try:
                self._zone = ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError("this system knows no time zone of that name (is tzdata installed?)") from None

    def end(self, window: str, now: int) -> int:
        """The end of the window that `now` lies in, both in nanoseconds since the epoch."""
        if window == "total":
            return FOREVER
        seconds = now // _SECOND
        local = datetime.fromtimestamp(seconds, self._zone)
        if window == "hour":
            offset = int((local.utcoffset() or timedelta()).total_seconds())
            return (seconds + _HOUR - (seconds + offset) % _HOUR) * _SECOND
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if window == "day":
            following = midnight + timedelta(days=1)
        elif window == "week":
            following = midnight + timedelta(days=7 - local.weekday())
        else:
            following = midnight.replace(year=local.year + local.month // 12, month=local.month % 12 + 1, day=1)
        # Its own offset holds there: the clocks may have been changed meanwhile.
        return round(following.timestamp()) * _SECOND
