"""The processes of a run: how contestants and the upstream are started, asked and stopped.

Lives here: what a contestant is, `Arena` (starts, waits until it answers, ends), the certificates of a run.
May not live here: who takes part and with which configuration (contestants, servers, sidecar), load, figures.
How it works: a contestant is a name and a function that says how to start it in front of an upstream; whatever is
absent or does not answer is skipped with a word. All contestants of a run stand side by side, on the same core.
Processes end with the run: ours when their standard input closes, the others by a signal. With TLS a contestant is
started once more, as a twin beside the plain one; certificates are made anew for each run, and everybody verifies them.
Doubted: nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench import orders

_CHECKOUT = Path(__file__).resolve().parent.parent
_STOP_SECONDS = 3.0

AUTHORITY, CERTIFICATE = "authority.pem", "certificate.pem"  # in the folder of whoever is started with TLS


class Absent(Exception):
    """This contestant cannot take part; the message is the word with which it is skipped."""


class Tls(NamedTuple):
    """On which sides a contestant speaks TLS."""

    client: bool = False
    upstream: bool = False


PLAIN = Tls()


class Probe(NamedTuple):
    """What to GET, and where, to learn whether somebody is well, at no cost to speak of and without the upstream."""

    port: int
    path: str


class Start(NamedTuple):
    """How to start a contestant. `port` 0: it prints the port as its first line."""

    command: list[str]
    port: int
    environment: dict[str, str]
    probe: Probe | None = None


@dataclass(frozen=True, slots=True)
class Contestant:
    """`start(upstream port, folder of its own, key that clients will show)`; None: there is nothing to start.

    `start_tls` gets the sides first, the upstream's port for that, and a folder with CERTIFICATE (chain and private
    key, for 127.0.0.1) and AUTHORITY, which vouches for it and for the upstream's; None: it has no TLS.
    """

    name: str
    start: Callable[[int, Path, str], Start] | None
    about: str
    by_default: bool = True
    checks_keys: bool = False  # and refuses those that it does not know
    exact: bool = True  # passes bodies byte for byte; else its answers are checked by their content
    path: str = orders.PATH
    headers: Mapping[str, str] = field(default_factory=dict)  # beside those that everybody gets
    start_tls: Callable[[Tls, int, Path, str], Start] | None = None
    keys: int = 1  # how many it knows: those of `orders.keys`
    ledger: str = ""  # a file in its folder that gets a row for each request
    ready_seconds: float = 10.0  # to start within
    ready_path: str = ""  # it is ready when a GET of this is answered with 200; "": when it accepts connections


@dataclass(slots=True)
class Running:
    """A contestant that answers. `pid` 0: no process (direct)."""

    contestant: Contestant
    port: int
    pid: int = 0
    ready_ms: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    folder: Path | None = None
    probe: Probe | None = None
    tls_port: int = 0  # of the upstream
    client_tls: ssl.SSLContext | None = None  # how clients connect
    start_twin: Callable[[Tls], Running] | None = field(default=None, repr=False)
    twins: dict[Tls, Running] = field(default_factory=dict, repr=False)

    def twin(self, tls: Tls) -> Running:
        """The same contestant with TLS on these sides: another process, which ends with this one. May raise Absent."""
        if tls not in self.twins:
            if self.start_twin is None:
                raise Absent("has no TLS")
            self.twins[tls] = self.start_twin(tls)
        return self.twins[tls]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def python_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment in which `-m` finds this project from any folder."""
    return {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_CHECKOUT), **(environment or {})}


def program(name: str) -> str:
    """Where it is installed; raises Absent."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Absent("not installed")
    return found


class Arena:
    """The processes of one run, with the folder that they may write in. Leaving it ends all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._tls_ports: dict[int, int] = {}  # of upstreams, by their plain ones

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def start_upstream(self, core: int) -> Running:
        _make_certificates(self._folder)
        command = [sys.executable, "-m", "bench.upstream", str(self._folder / CERTIFICATE)]
        upstream = self._launch(
            Contestant("upstream", None, ""), Start(command, 0, python_environment()), core, self._folder
        )
        self._tls_ports[upstream.port] = upstream.tls_port
        return upstream

    def start(self, contestant: Contestant, upstream: int, key: str, core: int) -> Running:
        """Raises Absent with the reason."""
        if contestant.start is None:
            running = Running(contestant, upstream)
        else:
            folder = self._make_folder(contestant)
            running = self._launch(contestant, contestant.start(upstream, folder, key), core, folder)
        running.start_twin = lambda tls: self._start_tls(contestant, tls, upstream, key, core)
        return running

    def _start_tls(self, contestant: Contestant, tls: Tls, upstream: int, key: str, core: int) -> Running:
        if upstream not in self._tls_ports:
            raise Absent("no upstream with TLS")
        context = ssl.create_default_context(cafile=self._folder / AUTHORITY)
        if contestant.start is None:  # whoever goes there directly speaks what the provider speaks: always TLS
            return Running(contestant, self._tls_ports[upstream], client_tls=context)
        if contestant.start_tls is None:
            raise Absent("has no TLS")
        folder = self._make_folder(contestant)
        for name in (AUTHORITY, CERTIFICATE):
            shutil.copy(self._folder / name, folder)
        port = self._tls_ports[upstream] if tls.upstream else upstream
        running = self._launch(contestant, contestant.start_tls(tls, port, folder, key), core, folder)
        running.client_tls = context if tls.client else None
        return running

    def stop(self, running: Running) -> None:
        for each in (*running.twins.values(), running):
            if each.process is not None:
                _stop(each.process)
        running.twins.clear()

    def _make_folder(self, contestant: Contestant) -> Path:
        folder = self._folder / f"{contestant.name}-{secrets.token_hex(4)}"
        folder.mkdir()
        return folder

    def _launch(self, contestant: Contestant, start: Start, core: int, folder: Path) -> Running:
        said = folder / "said"
        began = time.perf_counter()
        with said.open("wb") as said_to:
            process = subprocess.Popen(
                start.command,
                cwd=folder,
                env=start.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if not start.port else said_to,
                stderr=said_to,
                process_group=0,  # so that it can be stopped with all that it started
                # Before the program begins, so that every thread and child of it is born there.
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        self._stack.callback(_stop, process)
        try:
            port, tls_port = _wait_ready(process, contestant, start.port, said)
        except Absent:
            _stop(process)  # it would go on using the core of the others
            raise
        ready = (time.perf_counter() - began) * 1e3
        return Running(contestant, port, process.pid, ready, process, folder, start.probe, tls_port)


def _wait_ready(process: subprocess.Popen[bytes], contestant: Contestant, port: int, said: Path) -> tuple[int, int]:
    """Its ports, once it is ready."""
    began = time.perf_counter()
    tls_port = 0
    if not port:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        if not words or not all(word.isdigit() for word in words):
            raise Absent(f"did not start: {_last_line(said)}")
        port, tls_port = int(words[0]), int(words[1]) if words[1:] else 0
    while not _is_ready(port, contestant.ready_path):
        if process.poll() is not None:
            raise Absent(f"did not start: {_last_line(said)}")
        if time.perf_counter() - began > contestant.ready_seconds:
            raise Absent(f"not ready within {contestant.ready_seconds:.0f} s")
        time.sleep(0.05 if contestant.ready_path else 0.005)
    return port, tls_port


def _make_certificates(folder: Path) -> None:
    """An authority, and one certificate of it for whoever is at 127.0.0.1 here."""
    import trustme  # half a second, which only a run needs

    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(str(folder / AUTHORITY))
    issued = authority.issue_cert("127.0.0.1", "localhost", key_type=trustme.KeyType.ECDSA)
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / CERTIFICATE))


def _is_ready(port: int, path: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            if not path:
                return True
            link.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
            return link.recv(64).split()[1:2] == [b"200"]
    except OSError:
        return False


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().split("\n")
    return lines[-1][:200] or "it said nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that we started, with all of its group, and closes our ends of its pipes."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):  # as a rule nobody is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
