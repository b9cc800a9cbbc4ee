"""From when to when: words for moments, as people type them.

Lives here: `moment` (text -> seconds since the epoch) and the way back (`shown`). May not live here: a clock (`now` is
passed in), queries.
How it works: a day begins at midnight in UTC, or in the zone of this process where the caller wants that. `7d` is seven
times 24 hours back from now, to the second; only `today`, `yesterday` and dates mean midnights.
Doubted: nothing yet.
"""

from __future__ import annotations

import calendar
import re
import time
from datetime import datetime

FORMS = "today, yesterday, 30m, 24h, 7d, 2w, 2026-11-01, 2026-11-01T12:30, all"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BACK = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)


def moment(text: str, now: float, is_local: bool = False) -> float | None:
    """Seconds since the epoch that `text` (one of FORMS) means at `now`; None for `all`. Raises ValueError with a
    sentence. A date or time with a zone of its own (`Z`, `+02:00`) means that one."""
    word = text.strip().lower()
    if word == "all":
        return None
    if word == "now":
        return now
    if word in ("today", "yesterday"):
        return midnight(now, is_local, days_back=int(word == "yesterday"))
    if back := _BACK.fullmatch(word):
        return now - int(back[1]) * _SECONDS[back[2]]
    try:
        at = datetime.fromisoformat(text.strip())
        if at.tzinfo is not None:
            return at.timestamp()
        return _epoch(at.timetuple()[:6], is_local) + at.microsecond / 1e6
    except (ValueError, OverflowError):
        raise ValueError(f"not a time; write one of: {FORMS}") from None


def midnight(now: float, is_local: bool = False, days_back: int = 0) -> float:
    """The first second of the day of `now`, or of one before it."""
    year, month, day = _broken_down(now, is_local)[:3]
    return _epoch((year, month, day - days_back, 0, 0, 0), is_local)  # both ways back take day 0 as a month before


def shown(at: float, is_local: bool = False, form: str = "%Y-%m-%d %H:%M") -> str:
    """`at` for people, to the minute, or in any form of strftime. Whatever no calendar holds is shown as `-`."""
    try:
        return time.strftime(form, _broken_down(at, is_local))
    except (ValueError, OverflowError, OSError, TypeError):
        return "-"


def zone_name(at: float, is_local: bool) -> str:
    """What the zone is called there and then."""
    return shown(at, is_local, "%Z") if is_local else "UTC"


def _broken_down(at: float, is_local: bool) -> time.struct_time:
    return time.localtime(at) if is_local else time.gmtime(at)


def _epoch(parts: tuple[int, ...], is_local: bool) -> float:
    if is_local:
        return time.mktime((*parts, 0, 0, -1))  # type: ignore[arg-type]  # -1: summer time as the zone has it then
    return float(calendar.timegm((*parts, 0, 0, 0)))
