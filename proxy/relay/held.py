"""In the place of the client, while it is not sure that it will get this answer.

Lives here: `Held`: which answers wait, for what, and what becomes of them. May not live here: what a failure means
(policy.retry), which attempt follows (attempts).
How it works: as long as another attempt is possible, an error waits until its body is there, a stream until its first
event with content. Its answer writes as it always does, and what it writes waits here until it is let through or
dropped. Beside it stands what the provider said, as it came, for whoever asks why it failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.dialects.causes import cause_of
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.policy.retry import judge_event
from proxy.relay.metering import REFUSED
from proxy.wire.head import ResponseHead
from proxy.wire.inflate import inflater

if TYPE_CHECKING:
    from proxy.relay.answer import Answer
    from proxy.relay.attempt import Attempt

MOST: Final = 64 * 1024  # bytes that wait; also of an error body that is looked into (DESIGN 5)
ERROR_SECONDS: Final = 5.0  # for the rest of an error body: it is short, and a client waits for what follows
ERROR_EVENT: Final = Failure(Side.UPSTREAM, Phase.STREAM, Kind.ERROR_EVENT, "the provider's stream told an error")


class Held:
    """`until`: when the wait is over, in seconds of the relay's clock."""

    __slots__ = ("until", "_coding", "_heard", "_is_error", "_size", "_written")

    is_full = False

    def __init__(self, until: float, is_error: bool, coding: bytes | None) -> None:
        self.until = until
        self._is_error = is_error
        self._coding = coding
        self._heard: list[bytes] = []
        self._size = 0
        self._written: list[bytes] = []

    @property
    def transport(self) -> Held:
        """Answers write to the transport of a client. No attribute: each held answer would be a cycle."""
        return self

    def write(self, data: bytes) -> None:
        self._written.append(data)

    def hear(self, pieces: list[bytes]) -> None:
        """What one read brought of the body."""
        data = b"".join(pieces)
        self._heard.append(data)
        self._size += len(data)

    def said(self) -> bytes:
        """The body so far, readable, at most MOST of it."""
        data = b"".join(self._heard)[:MOST]
        reader = inflater(self._coding) if self._coding is not None else None
        return data if reader is None else reader.feed(data)[:MOST]

    def decide(self, attempt: Attempt, answer: Answer, is_last: bool, failure: Failure | None) -> bool:
        """Whether the answer goes through, after a read. False: it waits on, or another attempt has taken its place, or
        the exchange has ended."""
        is_full = self._size > MOST
        if self._is_error:
            is_whole = is_last or failure is not None or is_full
            return is_whole and not self._gives_way(attempt)
        if failure is not None or (is_last and answer.lacks_end):
            attempt.failed(missing_end() if failure is None else failure._replace(phase=attempt.phase))
            return False
        has_error = answer.watch is not None and answer.watch.has_error
        is_refusal = not answer.is_stream and REFUSED.match(self.said()) is not None
        if not has_error and not (is_last or is_full) and (is_refusal or attempt.phase is Phase.FIRST_EVENT):
            return False
        if (has_error or is_refusal) and attempt.try_again(ERROR_EVENT, judge_event(cause_of(200, self.said()))):
            return False
        self.let_through(attempt, answer)
        return True

    def time_is_up(self, attempt: Attempt, answer: Answer) -> bool:
        """Whether another attempt has taken its place now."""
        if self._is_error:
            return self._gives_way(attempt)
        self.let_through(attempt, answer)
        return False

    def _gives_way(self, attempt: Attempt) -> bool:
        """An error status: let another attempt take its place, if one may; else let it through, unless it is about our
        own credential."""
        answer = attempt.answer
        assert answer is not None
        if attempt.is_refused:
            attempt.refused(answer.status)
            return True
        failure = error_status(answer.status, Phase.DONE)
        if attempt.try_again(failure, attempt.judge()):
            return True
        self.let_through(attempt, answer)
        return False

    def let_through(self, attempt: Attempt, answer: Answer) -> None:
        """The client gets this answer, whatever follows."""
        exchange = attempt.exchange
        attempt.held = None
        exchange.answer_with(attempt)
        answer.replace_client(exchange.client)
        data = b"".join(self._written)
        if data:
            exchange.client.write(data)
        if exchange.client.is_full:
            exchange.client_full()


def hold(attempt: Attempt, answer: Answer, head: ResponseHead, now: float) -> Held | None:
    """Keep an answer back, if another attempt is possible and this one may be no good."""
    exchange = attempt.exchange
    is_error = head.status >= 400
    if not is_error and not (answer.is_stream and exchange.seconds.hold):
        return None
    # Somebody else may be asked; or what it says decides who is asked next time.
    if not (exchange.can_be_replaced or (is_error and (attempt.stake.is_watched or attempt.may_be_refused))):
        return None
    held = Held(now + (ERROR_SECONDS if is_error else exchange.seconds.hold), is_error, head.get(b"content-encoding"))
    answer.replace_client(held)
    return held


def missing_end() -> Failure:
    return Failure(Side.UPSTREAM, Phase.STREAM, Kind.MISSING_END, "the provider's stream ended without a finish")


def error_status(status: int, phase: Phase) -> Failure:
    return Failure(Side.UPSTREAM, phase, Kind.ERROR_STATUS, f"the provider answered {status}")
