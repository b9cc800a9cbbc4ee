"""From when to when: words for moments, as people type them.

Lives here: `moment` (text -> seconds since the epoch), `ahead` (the same of times to come) and the way back (`shown`).
May not live here: a clock (`now` is passed in), queries.
How it works: a day begins at midnight in UTC, or in the zone of this process where the caller wants that. `7d` is seven
times 24 hours back from now, or ahead, to the second; only `today`, `yesterday` and dates mean midnights.
Doubted: nothing yet.
"""

from __future__ import annotations

import calendar
import re
import time
from datetime import datetime

FORMS_AHEAD = "30m, 24h, 7d, 2w, 2027-01-31, 2027-01-31T12:30"
FORMS = "today, yesterday, 30m, 24h, 7d, 2w, 2026-11-01, 2026-11-01T12:30, all"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)


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
    span = _span(word)
    try:
        return now - span if span is not None else _dated(text, is_local)
    except (ValueError, OverflowError):
        raise ValueError(f"not a time; write one of: {FORMS}") from None


def ahead(text: str, now: float) -> float:
    """The moment after `now` that `text` (one of FORMS_AHEAD) means: a span from now, or a date's first moment in UTC.
    Raises ValueError with a sentence."""
    span = _span(text.strip().lower())
    try:
        at = now + span if span is not None else _dated(text, is_local=False)
    except (ValueError, OverflowError):
        raise ValueError(f"not a time; write one of: {FORMS_AHEAD}") from None
    if at <= now:
        raise ValueError("is over already: write a time to come")
    return at


def _span(word: str) -> int | None:
    found = _SPAN.fullmatch(word)
    return None if found is None else int(found[1]) * _SECONDS[found[2]]


def _dated(text: str, is_local: bool) -> float:
    """Raises ValueError, OverflowError."""
    at = datetime.fromisoformat(text.strip())
    if at.tzinfo is not None:
        return at.timestamp()
    return _epoch(at.timetuple()[:6], is_local) + at.microsecond / 1e6


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
