"""The sidecar as a process, and the simulated provider behind it.

Lives here: `Sidecar` (`python -m proxy serve` with exactly the environment that a test gives), `Provider` (the
simulator in a thread with a loop of its own), and what a test can ask them. May not live here: fixtures (conftest),
assertions about answers.
How it works: the sidecar's log is its only channel to us: "ready" tells the ports, each receipt is a line. Threads read
both pipes all the time, so that a full pipe never stops the process. Every wait ends with PATIENCE.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import IO, Any, TypeVar

from proxy.simulator.provider import Simulator
from proxy.simulator.replay import Replay
from proxy.simulator.seen import SeenRequest

ROOT = Path(__file__).resolve().parent.parent.parent
COMPILED = ("PYTHONPATH", "PYTHONSAFEPATH")  # with which `scripts/test --compiled` names what is tested
PATIENCE = 20.0  # seconds; only reached when something hangs

T = TypeVar("T")

_NOTE = re.compile(r"\S+Z +(info|warn|error) ([^=]*?)(?: +\S+=.*)?$")  # in a text log


class Sidecar:
    """One running sidecar. `env` is all it gets, beside addresses of its own choice.

    `may_log_errors` and `may_end` are set by tests that mean it; conftest looks at both after each test.
    """

    def __init__(self, env: dict[str, str], *, address: str = "127.0.0.1:0", command: tuple[str, ...] = ()) -> None:
        self.lines: list[dict[str, Any]] = []  # stdout, parsed
        self.stdout = b""
        self.stderr = b""
        self.may_log_errors = False
        self.may_end = False
        self._is_text = env.get("LLM_PROXY_LOG") in ("text", "off")
        self._mark = 0
        self._changed = threading.Condition()
        whole = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONFAULTHANDLER": "1",
            **{name: os.environ[name] for name in COMPILED if name in os.environ},
            "LLM_PROXY_LISTEN": address,
            "LLM_PROXY_ADMIN_LISTEN": "127.0.0.1:0",
            "LLM_PROXY_DB": "off",
            "LLM_PROXY_RETRIES": "0",  # but where they are what a test is about
            **env,
        }
        self.process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "proxy", "serve"))],
            cwd=ROOT,
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, True), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, False), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            ready = self.wait_for_line(lambda line: line.get("message") == "ready")
        except BaseException:
            self.kill()
            raise
        self.listening: list[str] = ready["listen"]
        self.admin: list[str] = ready["admin"]
        self.port = int(self.listening[0].rpartition(":")[2]) if "unix:" not in self.listening[0] else 0
        self.admin_port = int(self.admin[0].rpartition(":")[2]) if self.admin else 0
        self.url = f"http://127.0.0.1:{self.port}"

    # -- what it says ---------------------------------------------------------------------------------------------

    def _read(self, pipe: IO[bytes], is_log: bool) -> None:
        for raw in iter(pipe.readline, b""):
            with self._changed:
                if is_log:
                    self.stdout += raw
                    self.lines.append(self._parsed(raw))
                else:
                    self.stderr += raw
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
        pipe.close()

    def _parsed(self, raw: bytes) -> dict[str, Any]:
        try:
            line: dict[str, Any] = json.loads(raw)
        except ValueError:
            text = raw.decode("utf-8", "replace")
            note = _NOTE.match(text)
            if note is None:  # a receipt of a text log; in a JSON log it is a fault
                return {"text": text} if self._is_text else {"level": "error", "message": f"not JSON: {text}"}
            lists = {name: value.split(",") for name, value in re.findall(r"(listen|admin)=(\S+)", text)}
            return {"level": note[1], "message": note[2], **lists}
        return line

    def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        """Until `is_so`, asked again at each line of the log. Fails when the process ends or patience does."""
        with self._changed:
            met = self._changed.wait_for(lambda: is_so() or not any(r.is_alive() for r in self._readers), PATIENCE)
            assert met and is_so(), f"waited for {what}\n{self.tail()}"

    def wait_for_line(self, fits: Callable[[dict[str, Any]], bool], after: int = 0) -> dict[str, Any]:
        """The first line of the log that fits, from line number `after` on."""
        self.wait_until(lambda: any(fits(line) for line in self.lines[after:]), "a line of the log")
        return next(line for line in self.lines[after:] if fits(line))

    @property
    def receipts(self) -> list[dict[str, Any]]:
        """Since `mark`, in the order of endings."""
        return [line for line in self.lines if "ended_by" in line][self._mark :]

    def wait_for_receipts(self, count: int) -> list[dict[str, Any]]:
        """The receipts since `mark`, once they stand for `count` requests."""
        self.wait_until(lambda: sum(each["stands_for"] for each in self.receipts) >= count, f"{count} receipts")
        return self.receipts

    def mark(self) -> None:
        """Forget the receipts of others. A request of our own goes through first: those before it are written then."""
        path = f"/mark-{len(self.lines)}"
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as link:
            link.sendall(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path.encode())
            assert link.recv(1)
            self.wait_for_line(lambda line: line.get("path") == path)
        self._mark = sum("ended_by" in line for line in self.lines)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Notes of level error: each is a fault of ours."""
        return [line for line in self.lines if line.get("level") == "error"]

    def tail(self) -> str:
        """The end of all it said."""
        out, err = (said[-6_000:].decode("utf-8", "replace") for said in (self.stdout, self.stderr))
        return f"exit code {self.process.poll()}\n--- stdout\n{out}\n--- stderr\n{err}"

    # -- what the system says about it ----------------------------------------------------------------------------

    def descriptors(self) -> int:
        """Open files (Linux)."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident(self) -> int:
        """Bytes of memory that are really in use (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    # -- its end --------------------------------------------------------------------------------------------------

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, once it has ended and all it said is read."""
        self.may_end = True
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def stop(self) -> None:
        """End it as an operator would; by force if that does not help, which is a failure."""
        if self.process.poll() is not None:
            self.wait()
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)  # what still streams has had its second
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.wait()


class Provider:
    """The simulated provider in a thread of its own. `seen()` are the requests since `mark()`."""

    def __init__(self, default: str = "", *, replay: Replay | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.simulator = Simulator(default=default, replay=replay, ssl=tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="provider", daemon=True)
        self._thread.start()
        self._mark = 0
        self.port = self.run(self.simulator.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it in the provider's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def wait_until(self, is_so: Callable[[Simulator], bool]) -> None:
        self.run(self.simulator.until(is_so))

    def mark(self) -> None:
        self._mark = self.simulator.requests[-1].number if self.simulator.requests else 0

    def seen(self) -> list[SeenRequest]:
        return [request for request in self.simulator.requests if request.number > self._mark]

    def wait_until_left(self) -> None:
        """Until every connection to it is closed or idle, i.e. nothing is being answered."""
        self.wait_until(lambda simulator: simulator.open_connections == 0)

    def close_listener(self) -> None:
        """From here the kernel refuses connections."""
        self._loop.call_soon_threadsafe(self.simulator.stop_listening)
        self.run(asyncio.sleep(0))

    def environ(self, key: str = "") -> dict[str, str]:
        """The vendors' own variables, as if this were each of them."""
        origin = f"http://127.0.0.1:{self.port}"
        return {
            "OPENAI_BASE_URL": f"{origin}/v1",
            "OPENAI_API_KEY": key or "sk-upstream-openai",
            "ANTHROPIC_BASE_URL": origin,
            "ANTHROPIC_API_KEY": key or "sk-ant-upstream",
            "GOOGLE_GEMINI_BASE_URL": origin,
            "GEMINI_API_KEY": key or "upstream-gemini",
            "OLLAMA_HOST": origin,
        }

    def close(self) -> None:
        self.run(self.simulator.close())
        self.run(self._let_go())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _let_go(self) -> None:
        """End what asyncio itself still has under way: TLS handshakes of clients that gave up."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in later turns of the loop
