"""The rest of an answer whose beginning the client has from another attempt.

Lives here: `ResumedAnswer`, `Silence` (in the place of the client until it goes on). May not live here: whether an
answer can be carried on, and what of the second one is new (dialects.resume), which attempt it is (attempts).
How it works: the second answer is read and metered like any other, but what goes out is only what the client does not
have yet, in the framing of the first one and without a head. If it is not the same answer, nothing of it goes out, and
the client is told that the first one broke off.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from proxy.catalog.mask import Mask
from proxy.dialects.openai import without_usage_event
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.relay.answer import Answer
from proxy.relay.metering import FIRST_BYTES, Metering
from proxy.relay.options import ByteLimits
from proxy.wire import encode
from proxy.wire.head import ResponseHead

if TYPE_CHECKING:
    from proxy.relay.attempt import Attempt

_DIFFERS: Final = Failure(Side.UPSTREAM, Phase.STREAM, Kind.DIFFERS, "it said something else than what the client has")


class ResumedAnswer(Answer):
    """`differs`: it is another answer than the one that the client has the beginning of."""

    __slots__ = ("differs", "_repeated", "_resumed", "_waiting")

    def __init__(
        self,
        attempt: Attempt,
        before: Answer,
        head: ResponseHead,
        limits: ByteLimits,
        metering: Metering | None,
        mask: Mask | None,
    ) -> None:
        exchange = attempt.exchange
        assert exchange.head is not None and before.said is not None
        super().__init__(exchange, exchange.head, head, limits, metering, mask, b"", attempt.hides_usage, resumes=False)
        self.said = before.said
        self.differs = not self.is_stream
        self.closes = before.closes
        self.bytes_out = before.bytes_out
        self.status = before.status
        self._events = before.events
        self._repeated = 0  # events of what the client had already
        self.is_chunked = before.is_chunked
        self._prefix = b""
        self._resumed = before.said.resume()
        self._waiting = 0  # bytes of events for `metering`

    def feed(self, pieces: list[bytes], is_last: bool) -> bool:
        """As Answer's."""
        data = b"".join(pieces)
        if self.differs or (self.watch is None and not self._choose_events(data)):
            self.differs = self.differs or not self.is_stream  # a document
            return False
        cutter, watch = self.cutter, self.watch
        assert cutter is not None and watch is not None
        _, block = self._cut(data)
        progress = watch.feed(block) if block else False
        if self._unread is not None and block:
            self._unread.append(block)
            self._waiting += len(block)
            if self._waiting > FIRST_BYTES:  # of all that comes, not of what goes out
                self._waiting = 0
                self._read_usage()
        if is_last:
            block += self._flush(watch)
        is_repeating = not self._resumed.is_caught_up
        out = self._resumed.feed(block) if block else b""
        if cutter.skipped:
            self._resumed.skip()
        if is_repeating and not out:
            self._repeated = watch.events
        if out is None or not self._resumed.can_go_on:
            self.differs = True
            return False
        self._send(without_usage_event(out) if self._hides_usage else out, is_last and not self.lacks_end)
        return progress

    @property
    def events(self) -> int:
        """As Answer's: those that the client got."""
        return super().events - self._repeated

    def _send(self, data: bytes, is_last: bool) -> None:
        if self._mask is not None and self._resumed.has_error:
            data = self._mask.hide(data)
        self.bytes_out += len(data)
        out = encode.chunk(data) if data and self.is_chunked else data
        if is_last and self.is_chunked:
            out += encode.LAST_CHUNK
        if out:
            self._transport.write(out)

    @property
    def has_place(self) -> bool:
        """Only whole events have gone out, and nothing until it had caught up."""
        return not self._resumed.is_caught_up or self.watch is None or not self.watch.is_terminal

    @property
    def lacks_end(self) -> bool:
        """An end counts only if the client has all that goes before it."""
        return super().lacks_end or not self._resumed.is_caught_up


class Silence:
    """Decides after each read whether a resumed answer goes on. There is nothing to be held: it writes when it may."""

    __slots__ = ("_cut", "until")

    def __init__(self, cut: Failure) -> None:
        self.until = inf
        self._cut = cut  # what broke the answer that the client has

    def hear(self, pieces: list[bytes]) -> None:
        """See decide."""

    def said(self) -> bytes:
        return b""

    def decide(self, attempt: Attempt, answer: Answer, is_last: bool, failure: Failure | None) -> bool:
        """False: the exchange has ended, since this is another answer."""
        if isinstance(answer, ResumedAnswer) and answer.differs:
            attempt.exchange.end_cut(_DIFFERS, self._cut)
            return False
        return True

    def time_is_up(self, attempt: Attempt, answer: Answer) -> bool:
        return False
