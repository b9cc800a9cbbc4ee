"""The others: proxies and gateways that are measured beside the sidecar, as bench/peers.toml lists them.

Lives here: reading the table, installing what it names into a directory of its own, and how each peer is started.
May not live here: what a peer is (the table), processes and their end (contestants), which of them take part (main).
How it works: every peer gets a folder of its own in .peers at the top of the checkout (or in $BENCH_PEERS), filled by
the client of its package index, at the version that the table fixes. A file with the recipe is written last, so that
what is not whole, or not of this recipe, is made anew. What cannot be installed or started is absent, with a word. A
peer sees an environment of ours, not the user's.
Doubted: only the peer itself has a fixed version; what it depends on is what the index has on that day. Debian's
packages have the version that the distribution has. Some peers listen on all interfaces, since they cannot be told not
to.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import orders
from bench.contestants import Absent, Contestant, Start, free_port

_TABLE = Path(__file__).with_name("peers.toml")
_INSTALL_SECONDS = 1200.0  # a Go program on two slow cores takes some minutes
_HOLE = re.compile(r"\{(home|folder|port|spare|upstream|key)\}")  # nothing else in braces is ours: JSON, YAML
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Peer:
    """One row of the table; its head says what the fields mean."""

    name: str
    kind: str
    about: str
    installer: str
    package: str
    version: str
    command: list[str]
    unequal: str
    pins: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = orders.PATH
    exact: bool = False
    checks_keys: bool = False
    counts_usage: bool = False
    by_default: bool = True
    ready_seconds: float = 10.0
    ready_path: str = ""

    @property
    def home(self) -> Path:
        return root() / self.name


def root() -> Path:
    """Where peers are installed. Not below bench/: tests read all that lies there."""
    return Path(os.environ.get("BENCH_PEERS") or _TABLE.parent.parent / ".peers").resolve()


def read(table: Path = _TABLE) -> dict[str, Peer]:
    with table.open("rb") as file:
        return {name: Peer(name, **row) for name, row in tomllib.load(file).items()}


def contestants() -> dict[str, Contestant]:
    """The peers that are started as the table says, installed or not. One that is not says so when it is to start."""
    found = {}
    for peer in read().values():
        if not peer.command:
            continue
        headers: dict[str, str] = {}  # filled in at the start: they may name the upstream
        found[peer.name] = Contestant(
            peer.name,
            functools.partial(_start, peer, headers),
            f"{peer.kind}: {peer.about}",
            peer.by_default,
            peer.checks_keys,
            exact=peer.exact,
            path=peer.path,
            headers=headers,
            ready_seconds=peer.ready_seconds,
            ready_path=peer.ready_path,
        )
    return found


def unequal() -> dict[str, str]:
    """For the report: what could not be made equal with the sidecar, by peer."""
    return {peer.name: peer.unequal for peer in read().values()}


def versions(names: Iterable[str]) -> dict[str, str]:
    """For the report: of those that are installed."""
    peers = read()
    found = {}
    for name in names:
        if name in peers and _is_installed(peers[name]):
            found[name] = peers[name].version or _debian_version(peers[name].package)
    return found


def _debian_version(package: str) -> str:
    try:
        asked = ["dpkg-query", "-W", "-f=${Version}", package]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    except OSError:
        return "unknown"


# -- starting ----------------------------------------------------------------------------------------------------


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"


def _start(peer: Peer, headers: dict[str, str], upstream: int, folder: Path, key: str) -> Start:
    if not _is_installed(peer):
        raise Absent("not installed (--peers does)")
    port = free_port()
    values = {
        "home": str(peer.home),
        "folder": str(folder),
        "port": str(port),
        "spare": str(free_port()),
        "upstream": str(upstream),
        "key": key,
    }

    def fill(text: str) -> str:
        return _HOLE.sub(lambda hole: values[hole[1]], text)

    for name, text in peer.files.items():
        (folder / name).write_text(fill(text))
    headers.update({name: fill(text) for name, text in peer.headers.items()})
    command = [fill(word) for word in peer.command]
    if shutil.which(command[0], path=_path()) is None:
        raise Absent(f"needs {command[0]}")
    # Its home is the run's own folder: no settings of the user, and nothing of the peer's stays behind.
    environment = {
        "PATH": _path(),
        "HOME": str(folder),
        **{name: fill(text) for name, text in peer.environment.items()},
    }
    return Start(command, port, environment)


# -- installing --------------------------------------------------------------------------------------------------


def install(names: Iterable[str], say: Callable[[str], None]) -> dict[str, str]:
    """Installs those of `names` that are in the table and not there yet; says why the others are absent, by name."""
    peers = read()
    absent = {}
    for name in names:
        if name in peers:
            reason = _install(peers[name], say)
            if reason:
                absent[name] = reason
    return absent


def _recipe(peer: Peer) -> str:
    """What makes an installation the right one. Environments do not survive being moved, so the place is part of it."""
    return json.dumps([peer.installer, peer.package, peer.version, dict(peer.pins), sys.version, str(peer.home)])


def _stamp(peer: Peer) -> Path:
    return peer.home / "recipe.json"


def _is_installed(peer: Peer) -> bool:
    if peer.installer == "apt":
        return shutil.which(peer.package, path=_path()) is not None
    try:
        return _stamp(peer).read_text() == _recipe(peer)
    except OSError:
        return False


def _install(peer: Peer, say: Callable[[str], None]) -> str:
    """Why it could not be installed; empty if it is there."""
    with _alone():
        if _is_installed(peer):
            return ""
        client = {"pip": sys.executable, "apt": "apt-get"}.get(peer.installer, peer.installer)
        if shutil.which(client) is None:
            return f"needs {client}"
        if peer.installer == "apt" and os.geteuid() != 0:
            return "not installed, and only root may"
        say(f"{peer.name}: installing {peer.package} {peer.version} with {peer.installer}")
        began = time.monotonic()
        shutil.rmtree(peer.home, ignore_errors=True)
        peer.home.mkdir(parents=True)
        if peer.installer == "npm":
            (peer.home / "package.json").write_text(_manifest(peer))
        for step in _steps(peer):
            reason = _run(step, peer)
            if reason:
                shutil.rmtree(peer.home)
                return f"not to be installed: {reason}"
        _stamp(peer).write_text(_recipe(peer))
        say(f"{peer.name}: installed in {time.monotonic() - began:.0f} s")
        return ""


def _manifest(peer: Peer) -> str:
    """What npm installs; the command line cannot say what is to be taken of that on which the peer depends."""
    return json.dumps({"dependencies": {peer.package: peer.version}, "overrides": dict(peer.pins)})


def _steps(peer: Peer) -> list[list[str]]:
    """The command lines that install it. Nothing is built or run where the index has it ready (pip, npm)."""
    home = str(peer.home)
    match peer.installer:
        case "pip":
            pins = [f"{name}=={version}" for name, version in peer.pins.items()]
            quiet = ["install", "--quiet", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:"]
            return [
                [sys.executable, "-m", "venv", home],
                [f"{home}/bin/python", "-m", "pip", *quiet, f"{peer.package}=={peer.version}", *pins],
            ]
        case "npm":
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
            return [["npm", "install", *quiet, "--prefix", home]]  # what _manifest says
        case "go":
            return [["go", "install", f"{peer.package}@v{peer.version}"]]
        case "cargo":
            return [["cargo", "install", "--quiet", "--locked", "--root", home, f"{peer.package}@{peer.version}"]]
        case "apt":
            install = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", peer.package]
            return [["apt-get", "update", "--quiet"], install]
    raise ValueError(f"{peer.name}: {peer.installer!r} is no installer")


def _run(step: list[str], peer: Peer) -> str:
    """Runs one step; what it said last if it failed. Package clients keep the user's settings: they know the index."""
    more = {"GOBIN": f"{peer.home}/bin", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            step,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_INSTALL_SECONDS,
            env={**os.environ, **more},
            check=False,
        )
    except OSError as error:
        return f"{step[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"took more than {_INSTALL_SECONDS:.0f} s"
    lines = done.stdout.strip().split("\n")
    return "" if done.returncode == 0 else (lines[-1][:200] or f"exit code {done.returncode}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One run at a time installs."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
