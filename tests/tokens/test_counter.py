"""Counting from the loop: every question is answered once, whatever becomes of the process, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.tokens.counter import Counted, Counter
from proxy.tokens.frames import Answer, encode
from proxy.tokens.link import COMMAND
from proxy.tokens.teller import load
from tests.fakes import loops
from tests.tokens.test_link import ECHO, open_files
from tests.tokens.test_tally import TEXTS
from tests.tokens.test_teller import REQUEST, event

SECONDS = 30.0  # only reached when something hangs
COUNT = load()
# The real process with another tokenizer, which takes a character for a token and loads in no time.
QUICK = (sys.executable, "-P", "-s", "-c", "from proxy.tokens.teller import run; run(lambda: len)")
SILENT = (sys.executable, "-c", "import os\nwhile os.read(0, 65536): pass")
DIES = (sys.executable, "-c", "pass")
NewLoop = Callable[[], asyncio.AbstractEventLoop]

on_both_loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class Asking:
    """A counter and what it was asked and said. Ends the process when the test is done."""

    def __init__(self, command: tuple[str, ...] = QUICK, **options: Any) -> None:
        self.notes: list[str] = []
        self.loop = asyncio.get_running_loop()
        self.counter = Counter(
            self.loop, lambda level, sentence: self.notes.append(sentence), command=command, **options
        )

    async def __aenter__(self) -> Asking:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.counter.close(SECONDS)

    def ask(self, stream: int, *texts: str, request: bytes | None = None) -> asyncio.Future[Counted | None]:
        """Finish `stream`. The future fails if it is answered twice."""
        future: asyncio.Future[Counted | None] = self.loop.create_future()
        data = [event(text) for text in texts]
        self.counter.finish(stream, "openai-chat", data, True, request, future.set_result)
        assert not future.done()  # never before the call returns
        return future

    def fold(self, stream: int, *texts: str) -> bool:
        return self.counter.fold(stream, "openai-chat", [event(text) for text in texts])

    @property
    def pid(self) -> int:
        assert self.counter._link is not None
        return self.counter._link.pid

    async def ended(self) -> None:
        """Until the present process is gone."""
        assert self.counter._link is not None
        async with asyncio.timeout(SECONDS):
            await self.counter._link.ended()


async def soon(future: asyncio.Future[Counted | None]) -> Counted | None:
    async with asyncio.timeout(SECONDS):
        return await future


def run(main: Callable[[], Coroutine[Any, Any, None]], new_loop: NewLoop = asyncio.new_event_loop) -> None:
    loops.run(main(), loop_factory=new_loop)


@on_both_loops
def test_text_is_counted_as_in_one_piece(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with Asking(COMMAND) as asking:
            dice = random.Random(6)
            for stream, text in enumerate(TEXTS.values()):
                pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
                while len(pieces) > 50:
                    step = dice.randrange(1, 50)
                    assert asking.fold(stream, *pieces[:step])
                    del pieces[:step]
                answer = await soon(asking.ask(stream, *pieces, request=REQUEST))
                assert answer == Counted(COUNT(text), COUNT("four") + 6, has_other=False)
            assert asking.counter.starts == 1
            assert asking.notes == []

    run(main, new_loop)


@on_both_loops
def test_many_streams_at_once_are_told_apart(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with Asking() as asking:
            for number in range(300):
                asking.fold(number, "a b c d " * (number % 7))
            asked = [asking.ask(number, "e") for number in range(300)]
            answers = [await soon(each) for each in asked]
            assert answers == [Counted(len("a b c d " * (n % 7) + "e"), None, False) for n in range(300)]

    run(main, new_loop)


def test_nothing_is_started_before_the_first_need() -> None:
    async def main() -> None:
        async with Asking() as asking:
            asking.counter.forget(1)
            assert asking.counter.starts == 0

    run(main)


@on_both_loops
def test_it_ends_when_idle_and_starts_again(new_loop: NewLoop) -> None:
    async def main() -> None:
        before = open_files()
        async with Asking(idle_seconds=0.0) as asking:
            for number in range(3):
                assert await soon(asking.ask(number, "hi")) == Counted(len("hi"), None, False)
                await asking.ended()
                with pytest.raises(ChildProcessError):  # no zombie
                    os.waitpid(asking.pid, os.WNOHANG)
                assert open_files() == before
            assert asking.counter.starts == 3
            assert asking.notes == []

    run(main, new_loop)


def test_it_stays_as_long_as_it_knows_a_part_of_a_stream() -> None:
    async def main() -> None:
        async with Asking(idle_seconds=0.0) as asking:
            asking.fold(1, "hello ")
            assert await soon(asking.ask(2, "hi")) == Counted(len("hi"), None, False)
            assert await soon(asking.ask(1, "world")) == Counted(len("hello world"), None, False)
            await asking.ended()
            asking.fold(3, "hello ")
            asking.counter.forget(3)
            await asking.ended()
            assert asking.counter.starts == 2

    run(main)


def test_the_process_forgets_what_is_forgotten() -> None:
    async def main() -> None:
        async with Asking() as asking:
            asking.fold(1, "hello ")
            asking.counter.forget(1)
            assert await soon(asking.ask(1, "world")) == Counted(len("world"), None, False)

    run(main)


def test_idle_time_counts_from_the_last_use() -> None:
    """One timer is armed, and looks again when there was a use in between."""

    async def main() -> None:
        async with Asking(idle_seconds=1000.0) as asking:
            counter = asking.counter
            await soon(asking.ask(1, "hi"))
            timer, since = counter._idle_timer, counter._idle_since
            assert timer is not None
            await soon(asking.ask(2, "hi"))
            assert counter._idle_timer is timer
            assert counter._idle_since > since
            timer.cancel()
            counter._end_idle()  # as if it had come at last
            assert counter._link is not None and not counter._link.is_ended
            assert counter._idle_timer is not None
            assert counter._idle_timer.when() == counter._idle_since + 1000.0
            counter._idle_timer.cancel()
            counter._idle_since -= 1000.0
            counter._end_idle()
            await asking.ended()
            assert counter.starts == 1

    run(main)


@on_both_loops
def test_a_process_that_is_killed_fails_what_it_knew_and_is_replaced(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with Asking(restart_seconds=0.0) as asking:
            await soon(asking.ask(0, "hi"))
            asking.fold(1, "hello ")
            asking.fold(2, "hello ")
            asking.fold(3, "hello ")
            os.kill(asking.pid, signal.SIGSTOP)  # so that the answer cannot be faster
            asked = asking.ask(4, "hi")
            os.kill(asking.pid, signal.SIGKILL)
            assert await soon(asked) is None
            assert not asking.fold(1, "world")
            # The rest of a stream is not taken for all of it; what the request holds is still counted.
            assert await soon(asking.ask(1, "world")) is None
            answer = await soon(asking.ask(2, "world", request=REQUEST))
            assert answer == Counted(None, len("four") + 6, has_other=False)
            asking.counter.forget(3)
            assert await soon(asking.ask(5, "hi")) == Counted(len("hi"), None, False)
            assert asking.counter.starts == 2
            [note] = asking.notes
            assert "ended by itself" in note
            assert not asking.counter._lost and not asking.counter._folded and not asking.counter._open

    run(main, new_loop)


@on_both_loops
def test_a_process_that_never_answers_is_ended(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with Asking(SILENT, reply_seconds=0.05, restart_seconds=1000.0) as asking:
            asked = [asking.ask(number, "hi") for number in range(3)]
            assert [await soon(each) for each in asked] == [None, None, None]
            await asking.ended()
            assert await soon(asking.ask(9, "hi")) is None  # not started again so soon
            assert not asking.fold(10, "hi")
            assert asking.counter.starts == 1
            [note] = asking.notes
            assert "did not answer within 0.05 seconds" in note

    run(main, new_loop)


def test_the_oldest_question_decides_whether_it_hangs() -> None:
    """An answer in time moves the watch to the next question; nothing is ended while answers come."""

    async def main() -> None:
        async with Asking(reply_seconds=5.0) as asking:
            await soon(asking.ask(0, "hi"))
            counter = asking.counter
            asked = asking.ask(1, "hi")
            counter._look()  # as if the timer had come
            assert await soon(asked) is not None
            counter._look()
            assert counter._reply_timer is None
            assert asking.notes == []

    run(main)


def test_the_rest_between_starts_grows_until_something_is_answered() -> None:
    async def main() -> None:
        async with Asking(DIES, restart_seconds=1.0) as asking:
            rests = []
            for number in range(16):
                assert await soon(asking.ask(number, "hi")) is None
                await asking.ended()
                rests.append(asking.counter._not_before - asking.loop.time())
                asking.counter._not_before = 0.0  # that long ago
            assert asking.counter.starts == 16
            for number, rest in enumerate(rests):
                assert min(2.0**number, 3600) - 0.5 < rest <= min(2.0**number, 3600)
            asking.counter._command = QUICK
            assert await soon(asking.ask(99, "hi")) is not None
            assert asking.counter._rest_seconds == 1.0

    run(main)


def test_a_process_that_says_nonsense_is_ended() -> None:
    async def main() -> None:
        async with Asking(ECHO) as asking:
            assert await soon(asking.ask(1, "hi")) is None
            await asking.ended()
            [note] = asking.notes
            assert "nobody understands" in note

    run(main)


def test_answers_to_what_nobody_asked_are_dropped() -> None:
    answers = bytes(
        encode(Answer(7, 1, 1, True)) + encode(Answer(1, 5, None, False)) + encode(Answer(1, 6, None, False))
    )
    says = (sys.executable, "-c", f"import os\nos.read(0, 9)\nos.write(1, {answers!r})\nwhile os.read(0, 65536): pass")

    async def main() -> None:
        async with Asking(says) as asking:
            assert await soon(asking.ask(1, "hi")) == Counted(5, None, False)
            assert asking.notes == []

    run(main)


def test_without_a_tokenizer_all_is_refused_and_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quicktok.py").write_text("raise ImportError('no wheel for this machine')\n")
    monkeypatch.syspath_prepend(tmp_path)

    async def main() -> None:
        async with Asking(COMMAND, restart_seconds=0.0) as asking:
            asking.fold(1, "hello")
            assert await soon(asking.ask(2, "hi")) is None
            assert await soon(asking.ask(1, "world", request=REQUEST)) is None
            assert not asking.fold(3, "hello")
            assert asking.counter.starts == 1
            [note] = asking.notes
            assert "no tokenizer here (ImportError)" in note

    run(main)


def test_what_cannot_be_started_is_told() -> None:
    async def main() -> None:
        async with Asking(("/nowhere/python",)) as asking:
            assert not asking.fold(1, "hello")
            assert await soon(asking.ask(2, "hi")) is None
            [note] = asking.notes
            assert "cannot be started: FileNotFoundError" in note

    run(main)


def test_a_full_queue_takes_nothing_and_a_cut_stream_is_not_counted_short() -> None:
    async def main() -> None:
        async with Asking(queue_bytes=1_000_000) as asking:
            await soon(asking.ask(0, "hi"))
            os.kill(asking.pid, signal.SIGSTOP)
            assert asking.fold(1, "hello ")
            assert asking.fold(2, "hello ")
            taken = 0
            while asking.fold(3, "x" * 50_000):
                taken += 1
                assert taken < 100
            assert not asking.fold(1, "x" * 900_000)
            refused = asking.ask(4, "x" * 900_000)
            assert await soon(refused) is None
            os.kill(asking.pid, signal.SIGCONT)
            # 1 was refused a part: None. 2 was not: exact. 3 ended at the first refusal.
            assert await soon(asking.ask(2, "world")) == Counted(len("hello world"), None, False)
            assert await soon(asking.ask(1, "world")) is None
            assert await soon(asking.ask(3)) is None
            assert not asking.counter._lost and not asking.counter._folded
            assert asking.counter.starts == 1

    run(main)


def test_a_frame_larger_than_any_is_not_taken() -> None:
    async def main() -> None:
        async with Asking() as asking:
            assert await soon(asking.ask(1, "x" * 9_000_000)) is None
            assert asking.counter.starts == 0

    run(main)


@on_both_loops
def test_close_waits_for_what_is_under_way(new_loop: NewLoop) -> None:
    async def main() -> None:
        asking = Asking()
        asking.fold(99, "alive")
        asked = [asking.ask(number, "hi") for number in range(10)]
        await asking.counter.close(SECONDS)
        assert [each.result() for each in asked] == [Counted(len("hi"), None, False)] * 10
        assert not asking.fold(1, "hi")
        assert await soon(asking.ask(2, "hi")) is None
        await asking.counter.close(SECONDS)

    run(main, new_loop)


@on_both_loops
def test_close_gives_up_in_time(new_loop: NewLoop) -> None:
    async def main() -> None:
        before = open_files()
        asking = Asking(SILENT)
        asked = [asking.ask(number, "hi") for number in range(3)]
        began = time.monotonic()
        await asking.counter.close(0.05)
        assert time.monotonic() - began < SECONDS / 2
        assert [each.result() for each in asked] == [None] * 3
        assert open_files() == before
        with pytest.raises(ChildProcessError):
            os.waitpid(asking.pid, os.WNOHANG)

    run(main, new_loop)


def test_one_answer_that_fails_does_not_cost_the_next(loop_errors: list[str]) -> None:
    both = bytes(encode(Answer(1, 5, None, False)) + encode(Answer(2, 6, None, False)))
    says = (sys.executable, "-c", f"import os\nos.read(0, 9)\nos.write(1, {both!r})\nwhile os.read(0, 65536): pass")

    async def main() -> None:
        def fail(answer: Counted | None) -> None:
            raise ZeroDivisionError("our fault")

        async with Asking(says) as asking:
            asking.counter.finish(1, "openai-chat", [], True, None, fail)
            assert await soon(asking.ask(2, "hi")) == Counted(6, None, False)

    asyncio.run(main())
    assert "our fault" in loop_errors.pop()


INTERRUPTED = """
import asyncio, signal, sys
from proxy.tokens.counter import Counter

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: print("interrupted", flush=True) or ask(2))
    counter = Counter(loop)
    def ask(number):
        counter.finish(number, "ollama", [], True, b'{"context":[1,2]}', lambda found: print(found, flush=True))
    ask(1)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_ctrl_c_is_not_for_it() -> None:
    """SIGINT to the sidecar's whole group, as a terminal sends it: the sidecar drains, and still counts."""
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, start_new_session=True
    ) as sidecar:
        assert sidecar.stdout is not None
        found = sidecar.stdout.readline()
        assert b"input=2" in found
        os.killpg(sidecar.pid, signal.SIGINT)
        assert sidecar.stdout.readline() == b"interrupted\n"
        assert sidecar.stdout.readline() == found
        sidecar.kill()


def test_folding_holds_the_loop_for_no_time() -> None:
    """64 KiB of events in 2 ms at most, in the best of many: usually 0.1 ms."""

    async def main() -> None:
        async with Asking() as asking:
            await soon(asking.ask(0, "hi"))
            data = [event("hello")] * (65536 // len(event("hello")))
            best = SECONDS
            for _ in range(50):
                began = time.perf_counter()
                assert asking.counter.fold(1, "openai-chat", data)
                best = min(best, time.perf_counter() - began)
                await asyncio.sleep(0)
            assert best < 0.002
            asking.counter.forget(1)

    run(main)


@on_both_loops
def test_who_cannot_wait_is_told_in_the_next_turn(new_loop: NewLoop) -> None:
    async def main() -> None:
        async with Asking(SILENT) as asking:
            answers = [asking.ask(number, "text") for number in range(3)]
            asking.counter.give_up()
            await asyncio.sleep(0)
            assert [answer.result() for answer in answers] == [None] * 3
            assert not asking.fold(9, "more")

    run(main, new_loop)
