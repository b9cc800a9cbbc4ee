"""The log: one line for each receipt, written by a thread, never waited for.

Lives here: `AccessLog`. May not live here: the form of a line (lines), which receipts exist (relay).
How it works: `observe` runs in the loop and only appends to a bounded deque. One daemon thread takes lines out,
formats them and writes them in pieces of whole lines of at most 4 KiB. A pipe takes such a piece in one go, so several
processes may share one stdout, and the thread hands the interpreter back after every piece, so the loop waits some tens
of microseconds for it and not the 5 ms of `sys.getswitchinterval`. What does not fit, or cannot be written, is counted
and reported in one line as soon as something can be written again. Notes (start-up, warnings) go the same way, so that
everything the process says has one form.
Doubted: the bound is a number of lines; 10,000 receipts of 8 KiB paths are 80 MB. A reader that slow loses them anyway.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Literal, NamedTuple

from proxy.outcome import Receipt
from proxy.telemetry import lines

Form = Literal["json", "text", "off"]

# Seconds the thread rests after it has emptied the queue, so that a busy process wakes it 20 times a second and not for
# every receipt; a wake costs the loop a system call.
_REST = 0.05

# Seconds between two looks whether the log is to be closed while the other end of the pipe does not read.
_LOOK = 0.1


class _Note(NamedTuple):
    at: float
    level: str
    message: str
    more: dict[str, object]


class AccessLog:
    """A bounded, never blocking log of receipts and notes.

    `write`: a file descriptor, or a function that takes whole lines and may block or raise OSError. `form`: "off"
    writes no receipts; notes, which people still need, are then written as text. `capacity`: lines that may wait.
    `observe` and `note` may be called before `start`; what they are given waits.
    """

    __slots__ = (
        "_capacity",
        "_closing",
        "_deadline",
        "_form",
        "_is_idle",
        "_overflowed",
        "_queue",
        "_reported",
        "_thread",
        "_unwritten",
        "_wake",
        "_write",
    )

    def __init__(self, write: Callable[[bytes], object] | int, form: Form, capacity: int = 10_000) -> None:
        self._write = write
        self._form = form
        self._capacity = capacity
        self._queue: deque[Receipt | _Note] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()  # C: a put costs 0.1 us, threading.Event.set 1 us
        self._is_idle = False  # the thread waits for `_wake`
        self._closing = False
        self._deadline: float | None = None  # time.monotonic() at which a closing thread gives up
        self._thread: threading.Thread | None = None
        # Two counters because two threads count, and += is no single step.
        self._overflowed = 0
        self._unwritten = 0
        self._reported = 0

    @property
    def dropped(self) -> int:
        """Lines lost so far: the queue was full, the log was closed, or the write failed."""
        return self._overflowed + self._unwritten

    def observe(self, receipt: Receipt) -> None:
        """Take `receipt` for the log. A sink on the data path: 0.2 us, never blocks, never raises."""
        if self._form != "off":
            self._take(receipt)

    def note(self, level: Literal["info", "warn", "error"], message: str, /, **more: object) -> None:
        """A line for people: `message` is a sentence, `more` what programs may want to pick out of it. No secrets."""
        self._take(_Note(time.time(), level, message, more))

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> bool:
        """Write what waits, for at most `timeout` seconds, and end the thread. Blocks. False: something was lost, or a
        `write` function of the caller still blocks."""
        if self._thread is None:  # notes about a start that failed are the ones worth having
            self.start()
        assert self._thread is not None
        self._deadline = time.monotonic() + timeout
        self._closing = True
        self._wake.put(None)
        self._thread.join(timeout + 2 * _LOOK)
        return not self._thread.is_alive() and self._unwritten == 0 and not self._queue

    # -- called by anybody ------------------------------------------------------------------------------------------

    def _take(self, item: Receipt | _Note) -> None:
        queue = self._queue
        if len(queue) >= self._capacity or self._closing:
            self._overflowed += 1
            return
        queue.append(item)
        # The thread sets `_is_idle` and looks at the queue after it; we append and look at `_is_idle` after that. One
        # of the two always sees the other, so no line waits for the next one.
        if self._is_idle:
            self._is_idle = False
            self._wake.put(None)

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            is_last = self._closing  # read before emptying: what came before `close` is then in the queue
            self._empty_queue()
            self._report_dropped()
            if is_last:
                return
            self._rest()

    def _rest(self) -> None:
        try:
            self._wake.get(timeout=_REST)  # only `close` wakes a thread that is not idle
            return
        except Empty:
            pass
        self._is_idle = True
        if self._queue or self._closing:
            self._is_idle = False
            return
        self._wake.get()

    def _empty_queue(self) -> None:
        piece: list[bytes] = []
        size = 0
        while self._queue:
            line = self._formatted(self._queue.popleft())
            if piece and size + len(line) > lines.LINE_BYTES:
                self._put(piece)
                piece, size = [], 0
            piece.append(line)
            size += len(line)
        if piece:
            self._put(piece)

    def _formatted(self, item: Receipt | _Note) -> bytes:
        is_json = self._form == "json"
        try:
            if isinstance(item, Receipt):
                return lines.receipt_json(item) if is_json else lines.receipt_text(item)
            return (lines.note_json if is_json else lines.note_text)(*item)
        except Exception as error:  # a value nobody thought of must not end the log; the line says so instead
            what = f"a line could not be formatted: {type(error).__name__}"
            return (lines.note_json if is_json else lines.note_text)(time.time(), "error", what, {})

    def _report_dropped(self) -> None:
        dropped = self.dropped
        if dropped == self._reported:
            return
        more: dict[str, object] = {"dropped": dropped - self._reported, "dropped_total": dropped}
        line = self._formatted(_Note(time.time(), "warn", "log lines were dropped", more))
        if self._write_out(line):
            self._reported = dropped

    def _put(self, piece: list[bytes]) -> None:
        if not self._write_out(b"".join(piece)):
            self._unwritten += len(piece)

    def _write_out(self, data: bytes) -> bool:
        """Write all of `data`. False: the other end is gone, or did not read until the deadline."""
        try:
            if isinstance(self._write, int):
                return self._write_fd(self._write, data)
            self._write(data)
            return True
        except (OSError, ValueError):  # ValueError: a closed file object
            return False

    def _write_fd(self, fd: int, data: bytes) -> bool:
        # poll first, and never more than a pipe takes at once: so this thread can always be ended, and a descriptor
        # that somebody made non-blocking (uvloop does that to pipes it shares) is no special case.
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        view = memoryview(data)
        while view:
            left = _LOOK if self._deadline is None else min(_LOOK, self._deadline - time.monotonic())
            if not poll.poll(max(0.0, left) * 1000):
                if left <= 0:
                    return False
                continue
            try:
                view = view[os.write(fd, view[: lines.LINE_BYTES]) :]
            except BlockingIOError:
                continue  # another process was faster
        return True
