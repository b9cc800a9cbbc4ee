"""The process on a real loop: bytes go in order both ways, nothing blocks, nothing is left behind."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from proxy.tokens.link import Link
from tests.fakes import loops

SECONDS = 20.0  # only reached when something hangs
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
ECHO = (
    sys.executable,
    "-c",
    "import os\nwhile data := os.read(0, 65536):\n while data:\n  data = data[os.write(1, data):]",
)


class Heard:
    """Collects what a link hears, and lets tests wait for it."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self.data = bytearray()
        self.lost = 0
        self._changed = asyncio.Event()
        self.link = Link(asyncio.get_running_loop(), command, self._hear, self._lose)

    def _hear(self, data: bytes) -> None:
        self.data += data
        self._changed.set()

    def _lose(self) -> None:
        self.lost += 1
        self._changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not is_so():
                await self._changed.wait()
                self._changed.clear()

    async def end(self) -> None:
        self.link.end()
        async with asyncio.timeout(SECONDS):
            await self.link.ended()


def run(main: Coroutine[Any, Any, None], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loops.run(main, loop_factory=new_loop)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("new_loop", LOOPS)
def test_all_bytes_go_there_and_back_in_order(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        heard = Heard(ECHO)
        sent = bytearray()
        for number in range(200):
            frame = bytes([number]) * (2_000_000 if number % 50 == 49 else 20_000)  # larger than any socket takes, too
            heard.link.send(frame)
            sent += frame
        assert heard.link.waiting > 0  # 12 MB fit into no socket
        await heard.until(lambda: len(heard.data) == len(sent))
        assert heard.data == sent
        assert heard.link.waiting == 0
        heard.link.send(b"more")
        await heard.until(lambda: heard.data.endswith(b"more"))
        await heard.end()
        assert heard.lost == 0

    run(main(), new_loop)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_an_end_by_itself_is_told_once(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        heard = Heard((sys.executable, "-c", "print('last words')"))
        await heard.until(lambda: heard.lost == 1)
        assert heard.data == b"last words\n"
        assert heard.link.is_ended
        heard.link.end()
        async with asyncio.timeout(SECONDS):
            await heard.link.ended()
        assert heard.lost == 1

    run(main(), new_loop)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_sending_to_a_process_that_is_gone_is_no_error(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        heard = Heard((sys.executable, "-c", "import os; os.read(0, 1)"))
        for _ in range(100):
            heard.link.send(b"x" * 100_000)
        await heard.until(lambda: heard.lost == 1)
        await heard.end()

    run(main(), new_loop)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_process_that_ignores_everything_is_killed_and_nothing_is_left(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    ignore = (
        "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nprint(flush=True)\ntime.sleep(99)"
    )

    async def main() -> None:
        before = open_files()
        for _ in range(5):
            heard = Heard((sys.executable, "-c", ignore))
            await heard.until(lambda: bool(heard.data))  # noqa: B023
            heard.link.send(b"x" * 1_000_000)
            await heard.end()
            with pytest.raises(ChildProcessError):  # no zombie
                os.waitpid(heard.link.pid, os.WNOHANG)
        assert open_files() == before

    run(main(), new_loop)


def test_what_cannot_be_started_raises_and_leaves_nothing() -> None:
    async def main() -> None:
        before = open_files()
        with pytest.raises(OSError):
            Heard(("/nowhere/python",))
        assert open_files() == before

    run(main(), asyncio.new_event_loop)


def test_it_gets_no_secret_no_file_and_a_session_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("LLM_PROXY_KEYS", "a=canary")
    tell = (
        "import os, sys; print([dict(os.environ), os.listdir('/dev/fd'), os.getsid(0), sys.flags.safe_path, sys.path])"
    )

    async def main() -> None:
        with open(__file__) as file:
            os.set_inheritable(file.fileno(), False)
            heard = Heard((sys.executable, "-P", "-s", "-c", tell))
            await heard.until(lambda: heard.lost == 1)
        await heard.end()
        environ, files, session, is_safe, path = ast.literal_eval(heard.data.decode())
        assert environ.keys() <= {"PYTHONPATH", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
        assert "canary" not in str(environ)
        assert set(files) <= {"0", "1", "2", "3"}  # 3: the listing itself
        assert session == heard.link.pid != os.getsid(0)
        assert is_safe
        ours = list(dict.fromkeys(each for each in sys.path if each))
        assert path[: len(ours)] == ours  # the same packages in the same order, and not the current folder

    run(main(), asyncio.new_event_loop)
