"""What a failed attempt means: is the same target asked again, or another one, or is that the answer?

Lives here: `Verdict`, `FINAL`, the judges (of a status, of an error event, of a failure), `backoff`, `patience`,
`RetryBudget`. May not live here: what a body says (dialects.causes), which targets there are (router), what is known of
them (health), waiting itself (relay).
How it works: a judge only says what would make sense. Whoever asks it also looks at how many tries are left, whether
the answer has begun, and at the budget.
Statuses are judged as the vendors' own clients do it (WIRE 5), save that a cause goes before a status: what this
provider would refuse again is not sent to it again.
Doubted: 409 is retried as OpenAI's and Anthropic's clients do, though nobody says what it is of use for.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import mktime_tz, parsedate_tz
from typing import Final, NamedTuple, assert_never

from proxy.dialects.causes import LONGEST_WAIT, Cause
from proxy.outcome import Failure, Kind, Phase, Side

WAIT_CAP: Final = 60.0  # seconds, as Anthropic's client; OpenAI's waits 120
_LEAST_BACKOFF: Final = 0.05  # seconds: what failed is not asked again in the same moment
_FIRST_BACKOFF: Final = 0.5  # seconds; and the longest: both as the vendors' clients have it
_LONGEST_BACKOFF: Final = 8.0
_LONGEST_FIELD: Final = 64  # bytes of a retry-after; an HTTP date has 29


class Verdict(NamedTuple):
    again: bool  # the same target may be asked again
    elsewhere: bool  # another target may
    wait: float | None = None  # seconds that the provider asks to wait; None: it says nothing
    is_fault: bool = False  # counts against the target in its breaker
    needs_window: bool = False  # only a target with a larger context window


FINAL: Final = Verdict(False, False)
_RETRY: Final = Verdict(True, True, is_fault=True)
_CONFLICT: Final = Verdict(True, True)  # 409: about this request, not about the target
_ELSEWHERE: Final = Verdict(False, True)
_EXHAUSTED: Final = Verdict(False, True, is_fault=True)
_TOO_LONG: Final = Verdict(False, True, needs_window=True)


def judge_status(status: int, get: Callable[[bytes], bytes | None], cause: Cause, now: float) -> Verdict:
    """`get`: a field of the answer's head, by its name in small letters. `now`: epoch seconds, for HTTP dates."""
    verdict = _by_cause(cause)
    if verdict is None:
        verdict = _by_status(status)
        if verdict is FINAL and cause in (Cause.RATE, Cause.OVERLOADED):
            verdict = _ELSEWHERE  # Groq: 413 for what is more than its tokens per minute at once
        told = get(b"x-should-retry")
        if told is not None:
            # It is said of the same provider, so it changes nothing about others.
            told = told.strip().lower()
            if told == b"true":
                verdict = verdict._replace(again=True)
            elif told == b"false":
                verdict = verdict._replace(again=False)
    if verdict.again or verdict.elsewhere:  # a 200, or a 400, may have a retry-after as well (WIRE 0.14)
        return verdict._replace(wait=_wait(get, now))
    return verdict


def judge_event(cause: Cause) -> Verdict:
    """An error event in place of a first token."""
    verdict = _by_cause(cause)
    if verdict is None:
        return FINAL if cause is Cause.INVALID else _RETRY
    return verdict


def judge_failure(failure: Failure) -> Verdict:
    """An attempt that ended without an answer, or with half of one. What a provider said itself is judged above."""
    match failure.side:
        case Side.CLIENT:
            return FINAL
        case Side.PROXY:
            # All connections to that provider are in use, or none came free in time.
            is_full = failure.phase is Phase.QUEUE and failure.kind in (Kind.OVERLOADED, Kind.TIMEOUT)
            return _ELSEWHERE if is_full else FINAL
        case Side.UPSTREAM:
            if failure.kind in (Kind.CONNECT_FAILED, Kind.RESET, Kind.PROTOCOL, Kind.MISSING_END):
                return _RETRY
            if failure.kind is Kind.TIMEOUT:
                is_begun = failure.phase is Phase.STREAM
                return Verdict(False, False, is_fault=True) if is_begun else _RETRY
            return FINAL
        case _:
            assert_never(failure.side)


def _by_cause(cause: Cause) -> Verdict | None:
    """None: it depends on the status."""
    match cause:
        case Cause.POLICY:
            return FINAL
        case Cause.CONTEXT:
            return _TOO_LONG
        case Cause.QUOTA:
            return _EXHAUSTED
        case Cause.MODEL | Cause.CREDENTIAL | Cause.TOO_LARGE:
            return _ELSEWHERE
        case Cause.OVERLOADED | Cause.RATE | Cause.INVALID | Cause.OTHER:
            return None
        case _:
            assert_never(cause)


def _by_status(status: int) -> Verdict:
    if status in (408, 429, 498) or status >= 500:  # 498: Groq's flex capacity; 529: Anthropic is overloaded
        return _RETRY
    if status == 409:
        return _CONFLICT
    if status in (401, 403):
        return _ELSEWHERE
    return FINAL


def _wait(get: Callable[[bytes], bytes | None], now: float) -> float | None:
    millis = get(b"retry-after-ms")
    if millis is not None and (seconds := _seconds(millis, 1000.0)) is not None:
        return seconds
    value = get(b"retry-after")
    if value is None:
        return None
    seconds = _seconds(value, 1.0)
    return _until(value, now) if seconds is None else seconds


def _seconds(value: bytes, unit: float) -> float | None:
    try:
        return _sensible(float(value[:_LONGEST_FIELD]) / unit)
    except ValueError:
        return None


def _until(value: bytes, now: float) -> float | None:
    """Seconds until an HTTP date; one that has passed is no advice."""
    try:
        parts = parsedate_tz(value[:_LONGEST_FIELD].decode("latin-1"))
        return None if parts is None else _sensible(mktime_tz(parts) - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None  # the standard library promises None, and has broken that before


def _sensible(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= LONGEST_WAIT else None  # never for NaN


def backoff(number: int, chance: float) -> float:
    """Seconds before retry `number` (1, 2, ...), with full jitter: those who failed together do not come back together.
    `chance`: from 0 to 1."""
    most = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(number - 1, 10))
    return max(_LEAST_BACKOFF, chance * most)


def patience(wait: float | None, left: float) -> bool:
    """Is it worth waiting as long as the provider says, with `left` seconds to go? None: it says nothing."""
    return wait is None or (wait <= WAIT_CAP and wait < left)


class RetryBudget:
    """Retries never exceed a share of the requests, so that they cannot make an outage worse.

    Each request adds `share` of a retry, and each 10 s add `least`, for whoever has few requests. What is not used is
    kept, up to a hundred. So of any span of time it holds, both as a sum over it:

        retries <= share * requests + least * seconds / 10 + what was kept when it began

    where `least` is kept at first, and never more than 100 (or `least`, if that is more).
    """

    __slots__ = ("_at", "_kept", "_least", "_most", "_share")

    def __init__(self, share: float, least: float = 10.0) -> None:
        self._share = share
        self._least = least
        self._most = max(least, _MOST_KEPT)
        self._kept = least
        self._at: float | None = None  # when time was last counted

    def note_request(self) -> None:
        # 0.16 us (python -m timeit -s "from proxy.policy.retry import RetryBudget; b = RetryBudget(0.2)"
        # "b.note_request()"). Time is counted when somebody takes.
        self._kept = min(self._most, self._kept + self._share)

    def has_one(self, now: float) -> bool:
        self._count_time(now)
        return self._kept >= 1.0

    def take(self, now: float) -> bool:
        """One retry, if there is one."""
        if not self.has_one(now):
            return False
        self._kept -= 1.0
        return True

    def _count_time(self, now: float) -> None:
        if self._at is not None and now > self._at and self._kept < self._least:
            self._kept = min(self._least, self._kept + self._least * (now - self._at) / _REFILL)
        self._at = now if self._at is None else max(now, self._at)


_MOST_KEPT: Final = 100.0  # retries: an outage is met by all requests that run, and they fail within one moment
_REFILL: Final = 10.0  # seconds
