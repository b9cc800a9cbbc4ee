"""The process that counts: `python -m proxy.tokens.teller`, started by the sidecar and spoken to by it alone.

Lives here: `Teller` (what each message means), loading the tokenizer, reading and writing. It is the one place that
imports a tokenizer.
May not live here: where text is in bytes (dialects), the counting of pieces (tally), when the process starts and ends
(counter, link).
How it works: one message after another, from standard input, which is also the way out; nothing else is opened. It ends
with its input, and with nothing else: signals that are meant for the sidecar pass it by (a Ctrl-C at the terminal, a
SIGTERM that systemd sends to all processes of a service, whose streams are then still counted), and whatever becomes of
the sidecar, no such process stays behind. It is nicer than the sidecar, and writes no log, since what it reads is
content. Most streams report in the end, so what is folded only waits here: decoding events costs ten times what moving
them does, and the vocabulary is loaded when the first of them must really be counted.
Doubted: nothing yet.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
from collections.abc import Callable

from proxy.dialects.prompt import request_text
from proxy.dialects.text import answer_text
from proxy.tokens.frames import Absent, Answer, Asked, Fold, Forget, FrameReader, encode
from proxy.tokens.tally import Tally

# Of events that wait undecoded, all streams together; beyond it those of the stream that grows are counted.
HELD_BYTES = 32 * 1024 * 1024
_NICER = 5
_READ = 256 * 1024
_INPUT, _OUTPUT = 0, 1  # file descriptors


class NoTokenizer(Exception):
    """It cannot be loaded. The message says how that failed."""


class _Stream:
    """`waiting`: events that nobody has looked at yet, by dialect. `tally`: None before the first count of them."""

    __slots__ = ("is_spoilt", "size", "tally", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[str, bytes, bool]] = []
        self.size = 0  # of them, in bytes
        self.tally: Tally | None = None
        self.is_spoilt = False  # some of its events could not be counted


class Teller:
    """Counts for many streams. `load` gives the function that counts the tokens of a text; it is called at the first
    need, and raises NoTokenizer."""

    __slots__ = ("_count", "_held", "_load", "_streams")

    def __init__(self, load: Callable[[], Callable[[str], int]]) -> None:
        self._load = load
        self._count: Callable[[str], int] | None = None
        self._streams: dict[int, _Stream] = {}
        self._held = 0  # bytes that wait, of all streams

    def take(self, message: Asked) -> Answer | None:
        """Does what `message` asks for. Raises NoTokenizer alone: bytes that nobody could read are not counted."""
        if isinstance(message, Fold):
            self._add(message.stream, message.dialect, message.data, is_stream=True)
            if self._held > HELD_BYTES:
                self._count_waiting(self._streams[message.stream])
            return None
        if isinstance(message, Forget):
            self._drop(message.stream)
            return None
        if message.data is not None:
            self._add(message.stream, message.dialect, message.data, message.is_stream)
        output = self._total(message.stream)
        return Answer(message.stream, output, *self._told(message.dialect, message.request))

    def _add(self, number: int, dialect: str, data: list[bytes], is_stream: bool) -> None:
        stream = self._streams.setdefault(number, _Stream())
        joined = b"".join(data)
        stream.waiting.append((dialect, joined, is_stream))
        stream.size += len(joined)
        self._held += len(joined)

    def _drop(self, number: int) -> _Stream | None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._held -= stream.size
        return stream

    def _count_waiting(self, stream: _Stream) -> None:
        if stream.tally is None:
            stream.tally = Tally(self._counting())
        waiting, stream.waiting = stream.waiting, []
        self._held -= stream.size
        stream.size = 0
        try:
            for dialect, data, is_stream in waiting:
                stream.tally.add(answer_text(dialect, data, is_stream))
        except Exception:  # a fault of ours, or no memory: this stream is not counted, all others are
            stream.is_spoilt = True

    def _total(self, number: int) -> int | None:
        stream = self._streams.get(number)
        if stream is None:
            return None
        self._count_waiting(stream)
        self._drop(number)
        try:
            return None if stream.is_spoilt or stream.tally is None else stream.tally.total()
        except Exception:  # as above
            return None

    def _counting(self) -> Callable[[str], int]:
        if self._count is None:
            self._count = self._load()
        return self._count

    def _told(self, dialect: str, request: bytes | None) -> tuple[int | None, bool]:
        """Tokens of a request, if it is to be counted and can be, and whether it holds more than text."""
        if request is None:
            return None, False
        count = self._counting()
        try:
            found = request_text(dialect, request)
            if found is None:
                return None, False
            return found.overhead + sum(map(count, found.pieces)), found.has_other
        except Exception:  # as above
            return None, False


def load() -> Callable[[str], int]:
    """A function that counts o200k tokens. Takes 0.3 s and 60 MB. Raises NoTokenizer: there are no wheels for every
    machine."""
    try:
        count: Callable[[str], int] = importlib.import_module("quicktok").get_encoding("o200k_base").count
    except Exception as error:
        raise NoTokenizer(type(error).__name__) from error

    def count_any(text: str) -> int:
        try:
            return count(text)
        except TypeError:  # halves of surrogate pairs; two that came apart are one character again
            return count(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    count_any("loaded")
    return count_any


def run(load: Callable[[], Callable[[str], int]]) -> None:
    """Answers until the input ends. Raises NoTokenizer, BrokenFrame, and OSError when nobody reads any more."""
    teller = Teller(load)
    reader: FrameReader[Asked] = FrameReader(Asked)
    while data := os.read(_INPUT, _READ):
        for message in reader.feed(data):
            if (answer := teller.take(message)) is not None:
                _write(encode(answer))


def _write(frame: bytearray) -> None:
    while frame:
        del frame[: os.write(_OUTPUT, frame)]


def _step_back() -> None:
    """Let the sidecar go first, whenever both could run."""
    try:
        os.nice(_NICER)
        if hasattr(os, "SCHED_BATCH"):
            # Else Linux lets a process that a write has woken run at once, even on the writer's core: of 300 folds on
            # one core every tenth then took 1.7 ms or more, with this 0.1.
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:  # a container may forbid it
        pass


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _step_back()
    try:
        if importlib.util.find_spec("quicktok") is None:
            raise NoTokenizer("ModuleNotFoundError")
        run(load)
    except NoTokenizer as absent:
        _write(encode(Absent(str(absent))))
    except BrokenPipeError:  # the sidecar is gone
        pass


if __name__ == "__main__":
    main()
