"""The peers: their table says all that is needed, they are installed once and stopped whole. None is installed here."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from bench import machine, peers
from bench.arena import Absent, Arena, Contestant, Start, free_port
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

CORE = machine.choose_cores().rest if sys.platform.startswith("linux") else 0
PEER = peers.Peer(
    name="fake",
    kind="gateway",
    about="one that is not there",
    installer="npm",
    package="@nobody/fake",
    version="1.2.3",
    command=["node", "{home}/run.js", "--port={port}", "--metrics={spare}"],
    unequal="everything",
    files={"config.json": '{"upstream": {"port": {upstream}}, "key": "{key}"}'},
    environment={"FAKE_CONFIG": "{folder}/config.json"},
    headers={"x-fake-host": "http://127.0.0.1:{upstream}"},
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Peers go there, and the only programs are those in its `bin`."""
    monkeypatch.setenv("BENCH_PEERS", str(tmp_path / "peers"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(peers, "_SYSTEM_PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(peers, "read", lambda: {"fake": PEER})
    (tmp_path / "bin").mkdir()
    return tmp_path


def ignore(line: str) -> None:
    """For installations of which nobody wants to hear."""


def write_program(place: Path, name: str, script: str) -> None:
    path = place / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def everything(peer: peers.Peer) -> list[str]:
    told = [peer.path, *peer.command]
    for mapping in (peer.files, peer.environment, peer.headers):
        told += mapping.values()
    return told


@pytest.mark.parametrize("peer", peers.read().values(), ids=lambda peer: peer.name)
def test_the_table_says_all_that_is_needed(peer: peers.Peer) -> None:
    assert peer.kind in {"proxy", "router", "gateway"}
    assert peer.about and peer.unequal
    assert peer.installer == "apt" or re.fullmatch(r"\d+(\.\d+)+", peer.version)
    assert peers._steps(peer)
    for text in everything(peer):
        assert set(re.findall(r"\{[a-z_]+\}", text)) <= {
            "{home}",
            "{folder}",
            "{port}",
            "{spare}",
            "{upstream}",
            "{key}",
        }
    if peer.command:
        together = "".join(everything(peer))
        assert "{port}" in together and "{upstream}" in together
        assert not peer.checks_keys or "{key}" in together


def test_peers_are_contestants(monkeypatch: pytest.MonkeyPatch) -> None:
    found = peers.contestants()
    assert {"envoy", "caddy", "vllm-router", "sglang-router", "litellm", "portkey"} <= found.keys()
    assert "haproxy" not in found  # started by servers
    assert found["envoy"].exact and not found["litellm"].exact
    assert found["litellm"].ready_seconds > 10


def test_one_that_is_not_installed_says_so(place: Path) -> None:
    contestant = peers.contestants()["fake"]
    assert contestant.start is not None
    with pytest.raises(Absent, match="not installed"):
        contestant.start(4711, place, "the-key")


def test_it_is_installed_once_for_each_version(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(place, "npm", f'echo "$@" >> {place}/asked')
    said: list[str] = []
    assert peers.install(["fake", "nobody"], said.append) == {}
    assert [line.split(" in ")[0] for line in said] == [
        "fake: installing @nobody/fake 1.2.3 with npm",
        "fake: installed",
    ]
    assert peers.install(["fake"], said.append) == {}
    assert (place / "asked").read_text().count("\n") == 1
    assert '"@nobody/fake": "1.2.3"' in (PEER.home / "package.json").read_text()
    assert peers.versions(["fake", "nobody"]) == {"fake": "1.2.3"}

    later = dataclasses.replace(PEER, version="1.2.4")
    monkeypatch.setattr(peers, "read", lambda: {"fake": later})
    assert peers.versions(["fake"]) == {}
    assert peers.install(["fake"], said.append) == {}
    assert (place / "asked").read_text().count("\n") == 2

    other = dataclasses.replace(later, pins={"below": "5.6"})
    monkeypatch.setattr(peers, "read", lambda: {"fake": other})
    assert peers.install(["fake"], said.append) == {}
    assert (place / "asked").read_text().count("\n") == 3
    assert '"overrides": {"below": "5.6"}' in (PEER.home / "package.json").read_text()


def test_what_cannot_be_installed_is_absent_with_a_word(place: Path) -> None:
    said: list[str] = []
    assert peers.install(["fake"], said.append) == {"fake": "needs npm"}
    assert said == []
    write_program(place, "npm", "echo trying; echo no such thing; exit 1")
    assert peers.install(["fake"], said.append) == {"fake": "not to be installed: no such thing"}
    assert not PEER.home.exists()
    write_program(place, "npm", "exit 3")
    assert peers.install(["fake"], said.append) == {"fake": "not to be installed: exit code 3"}


def test_packages_of_the_system_are_installed_by_root_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = dataclasses.replace(PEER, installer="apt", package="fake", version="", command=[])
    monkeypatch.setattr(peers, "read", lambda: {"fake": system})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    write_program(place, "apt-get", f"exec >> {place}/asked; echo $1")
    assert peers.install(["fake"], ignore) == {"fake": "not installed, and only root may"}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert peers.install(["fake"], ignore) == {}
    assert (place / "asked").read_text().split() == ["update", "install"]
    write_program(place, "fake", "")
    assert peers.install(["fake"], ignore) == {}
    assert (place / "asked").read_text().split() == ["update", "install"]  # it is on the path now


@pytest.mark.parametrize(
    ("installer", "steps"),
    [
        ("pip", ["-m venv {home}", "-m pip install * --only-binary :all: a==1.2 b==3.4"]),
        ("go", ["go install a@v1.2"]),
        ("cargo", ["cargo install * --locked --root {home} a@1.2"]),
    ],
)
def test_versions_are_fixed(installer: str, steps: list[str]) -> None:
    peer = dataclasses.replace(PEER, installer=installer, package="a", version="1.2", pins={"b": "3.4"})
    for step, expected in zip(peers._steps(peer), steps, strict=True):
        pattern = re.escape(expected.replace("{home}", str(peer.home))).replace(r"\*", ".*")
        assert re.search(pattern, " ".join(step))


def test_it_is_started_as_the_table_says(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not for the bench")
    write_program(place, "npm", "")
    write_program(place, "node", "")
    peers.install(["fake"], ignore)
    contestant = peers.contestants()["fake"]
    assert contestant.start is not None
    folder = place / "folder"
    folder.mkdir()
    start = contestant.start(4711, folder, "the-key")
    node, script, port, spare = start.command
    assert (node, script, port) == ("node", f"{PEER.home}/run.js", f"--port={start.port}")
    assert spare.removeprefix("--metrics=") not in ("", str(start.port))
    assert (folder / "config.json").read_text() == '{"upstream": {"port": 4711}, "key": "the-key"}'
    assert start.environment["FAKE_CONFIG"] == f"{folder}/config.json"
    assert start.environment["HOME"] == str(folder)
    assert "OPENAI_API_KEY" not in start.environment
    assert contestant.headers == {"x-fake-host": "http://127.0.0.1:4711"}

    (place / "bin" / "node").unlink()
    with pytest.raises(Absent, match="needs node"):
        contestant.start(4711, folder, "the-key")


_FAMILY = """
import os, signal, socket, sys
parent = os.getpid()
if not os.fork():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open("child", "w").write(str(os.getpid()))
    os.rename("child", "child.pid")
    while True:
        signal.pause()
while not os.path.exists("child.pid"):
    os.sched_yield()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal.pause()
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_peer_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    port = free_port()
    start = Start([sys.executable, "-c", _FAMILY, str(port)], port, {})
    with Arena(tmp_path) as arena:
        running = arena.start(Contestant("family", lambda upstream, folder, key: start, ""), 1, "key", CORE)
        child = int(next(tmp_path.glob("family-*/child.pid")).read_text())
        assert is_running(child)
        arena.stop(running)
        assert running.process is not None and running.process.returncode is not None
        while is_running(child):  # SIGKILL was sent: it ends when the kernel comes to it
            os.sched_yield()


_SLOW = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        open(f"asked-{Handler.asked}{self.path.replace('/', '-')}", "w")
        self.send_response(200 if Handler.asked > 2 else 503)
        self.send_header("content-length", "0")
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_one_that_listens_before_it_is_ready_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    start = Start([sys.executable, "-c", _SLOW, str(port)], port, {})
    slow = Contestant("slow", lambda upstream, folder, key: start, "", ready_path="/ready")
    with Arena(tmp_path) as arena:
        arena.start(slow, 1, "key", CORE)
        assert len(list(tmp_path.glob("slow-*/asked-*-ready"))) == 3


def test_routers_find_the_upstream_well(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena, socket.create_connection(("127.0.0.1", arena.start_upstream(CORE).port)) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nhost: upstream\r\n\r\n")
        assert link.recv(100).startswith(b"HTTP/1.1 200 ")


def test_one_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    port = free_port()
    start = Start([sys.executable, "-c", "import signal; open('began', 'w'); signal.pause()"], port, {})
    others = set(machine.tree(os.getpid()))  # of tests before this one
    never = Contestant("never", lambda upstream, folder, key: start, "", ready_seconds=0.0)
    with Arena(tmp_path) as arena:
        with pytest.raises(Absent, match="not ready within 0 s"):
            arena.start(never, 1, "key", CORE)
        assert set(machine.tree(os.getpid())) <= others
