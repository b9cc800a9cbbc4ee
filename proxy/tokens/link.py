"""The process that counts, as the loop sees it.

Lives here: `Link`, what the process is started with. May not live here: what is said (frames), when it is needed
(counter).
How it works: one socket pair is the process's input and output. A write that does not fit waits here and never blocks;
no task and no future is made. Starting holds the loop for 0.3 ms (2 ms with 19,000 open descriptors), since `Popen` of
CPython uses vfork; the loops' own subprocess_exec take 3 ms (asyncio) and 7 to 12 ms (uvloop, which forks 40 MiB).
An end is always a kill: the process has nothing to save, and nothing that hangs can refuse it.
Doubted: on macOS there is no vfork, and starting takes some milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence

# -P: nothing is imported from the current folder; -s: nor from the user's own.
COMMAND = (sys.executable, "-P", "-s", "-m", "proxy.tokens.teller")
_READ = 64 * 1024
_REAP_SECONDS = 0.01  # after a kill, doubled with each look up to a second


def environment() -> dict[str, str]:
    """Where the process finds the same packages as we do, and nothing more: our own environment holds secrets."""
    paths = dict.fromkeys(path for path in sys.path if path and os.pathsep not in path)
    return {"PYTHONPATH": os.pathsep.join(paths)}


class Link:
    """A started process. `hear` gets what it says, in pieces; `lost` is called once if it ends by itself.

    Raises OSError where it cannot be started.
    """

    __slots__ = ("waiting", "is_ended", "_hear", "_loop", "_lost", "_process", "_reaped", "_socket", "_unsent")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        command: Sequence[str],
        hear: Callable[[bytes], None],
        lost: Callable[[], None],
    ) -> None:
        self.waiting = 0  # bytes that were sent and that the system has not taken yet
        self.is_ended = False
        self._loop = loop
        self._hear = hear
        self._lost = lost
        self._unsent: deque[memoryview] = deque()
        self._reaped: asyncio.Future[None] | None = None
        self._socket, theirs = socket.socketpair()
        try:
            self._socket.setblocking(False)
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,  # a traceback could show content
                env=environment(),
                start_new_session=True,  # a Ctrl-C at our terminal is not for it
            )
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        loop.add_reader(self._socket, self._on_readable)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: bytes | bytearray) -> None:
        """Hand `frame` over. Never blocks; what becomes of it only an answer tells."""
        sent = 0
        if not self._unsent:
            sent = self._try_send(frame)
            if sent == len(frame):
                return
            self._loop.add_writer(self._socket, self._on_writable)
        self._unsent.append(memoryview(frame)[sent:])
        self.waiting += len(frame) - sent

    def end(self) -> None:
        """Kill it. `lost` is not called any more."""
        if self.is_ended:
            return
        self.is_ended = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._unsent.clear()
        self.waiting = 0
        self._process.kill()
        self._reap(_REAP_SECONDS)

    async def ended(self) -> None:
        """Wait until the system has let go of a process that was ended."""
        if self._process.returncode is None:
            self._reaped = self._loop.create_future()
            await self._reaped

    def _reap(self, seconds: float) -> None:
        if self._process.poll() is None:
            self._loop.call_later(seconds, self._reap, min(2 * seconds, 1.0))
        elif self._reaped is not None and not self._reaped.done():
            self._reaped.set_result(None)

    def _try_send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            sent: int = self._socket.send(data)
            return sent
        except BlockingIOError:
            return 0
        except OSError:  # it is gone: reading tells the same in a moment
            return len(data)

    def _on_writable(self) -> None:
        # One piece a turn: what the system takes at once is copied in 0.1 ms.
        data = self._unsent.popleft()
        sent = self._try_send(data)
        self.waiting -= sent
        if sent < len(data):
            self._unsent.appendleft(data[sent:])
        elif not self._unsent:
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._hear(data)
        else:
            self.end()
            self._lost()
