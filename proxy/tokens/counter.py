"""Counting in another process, as the sidecar uses it.

Lives here: `Counter`, `Counted`. May not live here: what is said to the process and how (frames, link), tokenizers.
How it works: all calls are synchronous and hand bytes over; the answer comes as a callback. The process starts at the
first need and ends when it has been idle: nothing asked, and no stream alive of which it holds a part. One timer
watches the oldest question. A process that dies or hangs fails all questions and loses all streams: those are estimated
by whoever asked. It is started again at the next need, but with a growing rest between two starts, so that a process
that cannot live costs nothing. Where there is no tokenizer, that is told once, and nothing is started again.
Doubted: an answer that takes longer than `reply_seconds` on a starved machine is taken for a hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from proxy.tokens.frames import (
    MAX_FRAME,
    Absent,
    Answer,
    Asked,
    BrokenFrame,
    Finish,
    Fold,
    Forget,
    FrameReader,
    Said,
    encode,
)
from proxy.tokens.link import COMMAND, Link

_FRAMING = 1024  # bytes of a frame beside the bytes it carries, at most
_LONGEST_REST = 3600.0  # seconds between two starts of a process that never answers
_KILL_SECONDS = 1.0  # a killed process is gone within milliseconds


class Counted(NamedTuple):
    """Tokens by o200k, before the factor of any family. None: not asked for, or it could not be counted."""

    output: int | None
    input: int | None
    has_other: bool  # the request holds more than text, so `input` is a part of it


class _Question(NamedTuple):
    deadline: float
    done: Callable[[Counted | None], None]


class Counter:
    """Counts tokens of text where no provider reported them. Belongs to one loop.

    A stream has a number, never used twice. For each stream of which a fold was taken, `finish` or `forget` is called.

    note             told about what an operator should know: level, sentence
    idle_seconds     after which the process ends when nothing needs it
    queue_bytes      that may wait for the process; beyond them nothing is taken
    reply_seconds    an answer may take; then the process is taken for hung
    restart_seconds  between the end of a process that died or hung and the next start; doubled while it never answers
    """

    __slots__ = (
        "starts",
        "_command",
        "_emptied",
        "_folded",
        "_idle_seconds",
        "_idle_timer",
        "_is_absent",
        "_is_closed",
        "_link",
        "_loop",
        "_lost",
        "_not_before",
        "_note",
        "_open",
        "_queue_bytes",
        "_reader",
        "_reply_seconds",
        "_reply_timer",
        "_rest_seconds",
        "_restart_seconds",
        "_idle_since",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        note: Callable[[Literal["info", "warn", "error"], str], object] | None = None,
        idle_seconds: float = 60.0,
        queue_bytes: int = 4 * 1024 * 1024,
        reply_seconds: float = 10.0,
        restart_seconds: float = 10.0,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.starts = 0  # how many processes were ever started
        self._loop = loop
        self._note = note
        self._command = command
        self._idle_seconds = idle_seconds
        self._queue_bytes = queue_bytes
        self._reply_seconds = reply_seconds
        self._restart_seconds = restart_seconds
        # The process and what it knows.
        self._link: Link | None = None
        self._reader: FrameReader[Said] = FrameReader(Said)
        self._folded: set[int] = set()  # streams of which it holds a part
        self._lost: set[int] = set()  # streams of which a part was folded and is gone
        self._open: dict[int, _Question] = {}  # by stream; the oldest first
        # When it may start and has to end.
        self._is_absent = False
        self._is_closed = False
        self._not_before = 0.0
        self._rest_seconds = restart_seconds
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._reply_timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None

    def fold(self, stream: int, dialect: str, data: list[bytes]) -> bool:
        """Hand over whole events in the middle of a stream. 64 KiB in 360 pieces: 30 to 110 us, 12 of them here and the
        rest in the kernel (a copy, and waking the process).

        False: they were not taken, so a part of the stream's text is known to nobody. The caller then estimates the
        whole stream, whatever `finish` says of the rest; where an earlier fold was taken, it says None itself.
        """
        if stream in self._lost:
            return False
        if self._send(Fold(stream, dialect, data), sum(map(len, data))):
            self._folded.add(stream)
            return True
        if stream in self._folded:
            self._lost.add(stream)
            self._forget_folded(stream)
        return False

    def finish(
        self,
        stream: int,
        dialect: str,
        data: list[bytes],
        is_stream: bool,
        request: bytes | None,
        done: Callable[[Counted | None], None],
    ) -> None:
        """Count the last events of a stream, or a whole answer, and `request` if it is given. `done` is called exactly
        once and never before this returns; None: nothing could be counted."""
        is_lost = stream in self._lost
        self._lost.discard(stream)
        size = sum(map(len, data)) + len(request or b"")
        question = Finish(stream, dialect, None if is_lost else data, is_stream, request)
        if (is_lost and request is None) or not self._send(question, size):
            self._forget_folded(stream)
            self._loop.call_soon(done, None)
            return
        self._folded.discard(stream)
        self._open[stream] = _Question(self._loop.time() + self._reply_seconds, done)
        if self._reply_timer is None:
            self._reply_timer = self._loop.call_later(self._reply_seconds, self._look)

    def forget(self, stream: int) -> None:
        """The stream will not be finished: nobody wants to know."""
        self._lost.discard(stream)
        self._forget_folded(stream)

    def give_up(self) -> None:
        """Take nothing more, and call every `done` with None in the loop's next turn: for who cannot wait."""
        self._is_closed = True
        self._lose_all()

    async def close(self, seconds: float) -> None:
        """Take nothing more, wait for what was asked, at most so many `seconds`, and end the process."""
        self._is_closed = True
        if self._open:
            self._emptied = self._loop.create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._emptied
            except TimeoutError:
                pass
        for timer in (self._idle_timer, self._reply_timer):
            if timer is not None:
                timer.cancel()
        self._lose_all()
        if self._link is not None:
            self._link.end()
            try:
                async with asyncio.timeout(_KILL_SECONDS):
                    await self._link.ended()
            except TimeoutError:
                pass
        await asyncio.sleep(0)  # the last `done`s are called in this turn

    # -- towards the process ------------------------------------------------------------------------------------------

    def _send(self, message: Asked, size: int) -> bool:
        if size + _FRAMING > min(MAX_FRAME, self._queue_bytes):
            return False
        link = self._running_link()
        if link is None or link.waiting + size > self._queue_bytes:
            return False
        link.send(encode(message))
        return True

    def _running_link(self) -> Link | None:
        """The process, started if need be; None if there may be none now."""
        if self._is_closed or self._is_absent:
            return None
        if self._link is not None and not self._link.is_ended:
            return self._link
        if self._loop.time() < self._not_before:
            return None
        self._reader = FrameReader(Said)
        self.starts += 1
        try:
            self._link = Link(self._loop, self._command, self._on_data, self._on_lost)
        except OSError as error:
            self._fail(f"cannot be started: {type(error).__name__}")
            return None
        return self._link

    def _forget_folded(self, stream: int) -> None:
        if stream not in self._folded:
            return
        self._folded.discard(stream)
        if self._link is not None and not self._link.is_ended:
            self._link.send(encode(Forget(stream)))  # a few bytes, also when the queue is full
        self._look_idle()

    # -- from the process ---------------------------------------------------------------------------------------------

    def _on_data(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                if isinstance(message, Answer):
                    self._on_answer(message)
                else:
                    self._on_absent(message)
        except BrokenFrame:
            self._fail("says what nobody understands")

    def _on_answer(self, answer: Answer) -> None:
        self._rest_seconds = self._restart_seconds
        question = self._open.pop(answer.stream, None)
        if question is not None:
            self._loop.call_soon(question.done, Counted(answer.output, answer.input, answer.has_other))
        self._look_idle()

    def _on_absent(self, message: Absent) -> None:
        self._is_absent = True
        self._end_link()
        self._tell(f"there is no tokenizer here ({message.why}): tokens that nobody reports are estimated from bytes")

    def _on_lost(self) -> None:
        self._fail("ended by itself")

    def _fail(self, how: str) -> None:
        """The process is of no use any more."""
        self._not_before = self._loop.time() + self._rest_seconds
        self._rest_seconds = min(2 * self._rest_seconds, _LONGEST_REST)
        self._end_link()
        self._tell(f"the process that counts tokens {how}: tokens that nobody reports are estimated meanwhile")

    def _tell(self, sentence: str) -> None:
        if self._note is not None:
            self._note("warn", sentence)

    def _end_link(self) -> None:
        if self._link is not None:
            self._link.end()
        self._lose_all()

    def _lose_all(self) -> None:
        self._lost |= self._folded
        self._folded.clear()
        for question in self._open.values():
            self._loop.call_soon(question.done, None)
        self._open.clear()
        self._look_idle()

    # -- timers -------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._reply_timer = None
        if self._open:
            oldest = next(iter(self._open.values()))
            if oldest.deadline <= self._loop.time():
                self._fail(f"did not answer within {self._reply_seconds:g} seconds")
            else:
                self._reply_timer = self._loop.call_at(oldest.deadline, self._look)

    def _look_idle(self) -> None:
        """Whether nothing needs the process: it then has `idle_seconds` to live."""
        if self._open:
            return
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        if self._folded:
            return
        self._idle_since = self._loop.time()
        if self._idle_timer is None and self._link is not None and not self._link.is_ended:
            self._idle_timer = self._loop.call_later(self._idle_seconds, self._end_idle)

    def _end_idle(self) -> None:
        self._idle_timer = None
        if self._open or self._folded or self._link is None:
            return
        until = self._idle_since + self._idle_seconds
        if self._loop.time() < until:  # it was used meanwhile
            self._idle_timer = self._loop.call_at(until, self._end_idle)
        else:
            self._link.end()
