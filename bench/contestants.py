"""Who is measured: how each contestant is started, asked and stopped.

Lives here: the contestants, the processes of a run, the configuration that nginx and llm-proxy get.
May not live here: load, figures.
How it works: a contestant is a name and a function that says how to start it in front of an upstream; whatever is
absent or does not answer is skipped with a word. All contestants of a run stand side by side, on the same core, and
get the same requests. Processes end with the run: ours when their standard input closes, the others by a signal.
Doubted: nginx gets no key to check and does no accounting; it is the bar for moving bytes, not for being a gateway.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_CHECKOUT = Path(__file__).resolve().parent.parent
_READY_SECONDS = 10.0
_STOP_SECONDS = 3.0

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{user}
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 32m;
    keepalive_requests 100000000;
    upstream provider {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


class Absent(Exception):
    """This contestant cannot take part; the message is the word with which it is skipped."""


class Start(NamedTuple):
    """How to start a contestant. `port` 0: it prints the port as its first line."""

    command: list[str]
    port: int
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Contestant:
    """`start(upstream port, folder of its own, key that clients will show)`; None: there is nothing to start."""

    name: str
    start: Callable[[int, Path, str], Start] | None
    about: str
    by_default: bool = True
    checks_keys: bool = False  # and refuses those that it does not know


@dataclass(slots=True)
class Running:
    """A contestant that answers. `pid` 0: no process (direct)."""

    contestant: Contestant
    port: int
    pid: int = 0
    ready_ms: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _python(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment in which `-m` finds this project from any folder."""
    return {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_CHECKOUT), **(environment or {})}


def _start_splice(upstream: int, folder: Path, key: str) -> Start:
    return Start([sys.executable, "-m", "bench.splice", str(upstream)], 0, _python())


def _start_nginx(upstream: int, folder: Path, key: str) -> Start:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise Absent("not installed")
    port = free_port()
    # As root, nginx would switch to a user who cannot enter our folder.
    user = f"user {getpass.getuser()} {grp.getgrgid(os.getegid()).gr_name};" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, user=user, upstream=upstream, port=port))
    log = str(folder / "error.log")
    return Start([program, "-p", str(folder), "-e", log, "-c", str(config)], port, {})


# Of every kind, and never met. No budget in dollars: there is no price for a server of one's own.
_LIMITS = (
    "key bench: rps=1G rpd=1G tpm=1G otpm=1G concurrent=1M 900Gtokens/day 900Gtokens/total;all: rpm=1G; model *: tpm=1G"
)


def _start_llm_proxy(upstream: int, folder: Path, key: str) -> Start:
    port = free_port()
    environment = {
        "LLM_PROXY_LISTEN": f"127.0.0.1:{port}",
        "LLM_PROXY_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "LLM_PROXY_PROVIDER_BENCH": f"openai+http://127.0.0.1:{upstream}/v1",
        "LLM_PROXY_DEFAULT_PROVIDER": "bench",
        "LLM_PROXY_KEYS": f"bench={key}",
        "LLM_PROXY_LIMITS": _LIMITS,
        "LLM_PROXY_LOG": "off",
    }
    return Start([sys.executable, "-m", "proxy", "serve"], port, _python(environment))


def _start_unmetered(upstream: int, folder: Path, key: str) -> Start:
    start = _start_llm_proxy(upstream, folder, key)
    off = {"LLM_PROXY_METER": "off", "LLM_PROXY_DB": "off", "LLM_PROXY_LIMITS": ""}
    return start._replace(environment={**start.environment, **off})


def _start_unlimited(upstream: int, folder: Path, key: str) -> Start:
    start = _start_llm_proxy(upstream, folder, key)
    return start._replace(environment={**start.environment, "LLM_PROXY_LIMITS": ""})


def _start_before(upstream: int, folder: Path, key: str) -> Start:
    checkout = os.environ.get("BENCH_BEFORE", "")
    if not Path(checkout, "proxy", "__main__.py").is_file():
        raise Absent("set BENCH_BEFORE to a checkout of the version to compare with (git worktree add DIR COMMIT)")
    start = _start_llm_proxy(upstream, folder, key)
    return start._replace(environment={**start.environment, "PYTHONPATH": str(Path(checkout).resolve())})


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("direct", None, "no proxy: the load asks the upstream"),
        Contestant("splice", _start_splice, "floor: uvloop, bytes forwarded without a look"),
        Contestant("nginx", _start_nginx, "1 worker, unbuffered, upstream keep-alive, no log"),
        Contestant("llm-proxy", _start_llm_proxy, "this project: keys, limits, metering, ledger; log off", True, True),
        Contestant("unmetered", _start_unmetered, "this project without metering, ledger, limits", False, True),
        Contestant("unlimited", _start_unlimited, "this project without limits and budgets", False, True),
        Contestant("before", _start_before, "llm-proxy as it was: the checkout in BENCH_BEFORE", False, True),
    )
}


def make_key() -> str:
    return secrets.token_hex(16)


class Arena:
    """The processes of one run, with the folder that they may write in. Leaving it ends all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def start_upstream(self, core: int) -> Running:
        start = Start([sys.executable, "-m", "bench.upstream"], 0, _python())
        return self._launch(Contestant("upstream", None, ""), start, core, self._folder)

    def start(self, contestant: Contestant, upstream: int, key: str, core: int) -> Running:
        """Raises Absent with the reason."""
        if contestant.start is None:
            return Running(contestant, upstream)
        folder = self._folder / f"{contestant.name}-{secrets.token_hex(4)}"
        folder.mkdir()
        return self._launch(contestant, contestant.start(upstream, folder, key), core, folder)

    def stop(self, running: Running) -> None:
        if running.process is not None:
            _stop(running.process)

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
                # Before the program begins, so that every thread and child of it is born there.
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        self._stack.callback(_stop, process)
        port = start.port
        if not port:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.strip().isdigit():
                raise Absent(f"did not start: {_last_line(said)}")
            port = int(line)
        while not _accepts(port):
            if process.poll() is not None:
                raise Absent(f"did not start: {_last_line(said)}")
            if time.perf_counter() - began > _READY_SECONDS:
                raise Absent(f"not ready within {_READY_SECONDS:.0f} s")
            time.sleep(0.005)
        return Running(contestant, port, process.pid, (time.perf_counter() - began) * 1e3, process)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().split("\n")
    return lines[-1][:200] or "it said nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that we started, and closes our ends of its pipes."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
