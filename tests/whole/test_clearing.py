"""The environment of a running sidecar, as everybody with a shell beside it sees it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.raw import RawClient
from tests.whole.processes import PATIENCE, ROOT, Sidecar
from tests.whole.test_secrets import Canaries, environ

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SCRIPT = Path(sys.executable).parent / "llm-proxy"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'


def family(pid: int) -> list[int]:
    """The process and all that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def seen_of(pid: int) -> bytes:
    """What the system shows of a process to anybody of the same user."""
    shown = b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline", "comm", "status"))
    files = [str(each.readlink()).encode() for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()]
    return shown + b"\n".join(files)


def ask(sidecar: Sidecar, key: str) -> int:
    """A call whose usage nobody reports, so that it must be counted."""
    with RawClient("127.0.0.1", sidecar.port) as client:
        fields = (("authorization", f"Bearer {key}"), ("x-simulate", "usage=never"))
        client.request("POST", "/v1/chat/completions", BODY, *fields, host="localhost")
        return client.recv_response().status


def wait_for_child(sidecar: Sidecar) -> list[int]:
    """Who is there, once the counting process is."""
    sidecar.wait_for_receipts(1)  # which waits for the count
    pids = family(sidecar.process.pid)
    assert len(pids) > 1, "no counting process was started"
    return pids


@pytest.mark.parametrize("command", [("-m", "proxy", "serve"), (str(SCRIPT), "serve")])
def test_no_process_shows_a_secret(
    start: Callable[..., Sidecar], provide: Any, tmp_path: Path, command: tuple[str, ...]
) -> None:
    canaries = Canaries()
    provider = provide()
    kept = tmp_path / "env"
    kept.write_text(f"LLM_PROXY_CLEAR_ENV=on\nLLM_PROXY_PROVIDER_GONE_API_KEY={canaries('gone')}\n")
    env = environ(canaries, provider, tmp_path) | {"LLM_PROXY_ENV_FILE": str(kept), "GITHUB_TOKEN": canaries("token")}
    del env["LLM_PROXY_PROVIDER_GONE_API_KEY"]
    sidecar = start(env, command=command)
    before = sidecar.process.pid
    assert ask(sidecar, canaries("ours")) == 200
    for pid in wait_for_child(sidecar):
        assert canaries.found_in(seen_of(pid)) == []
    assert b"serve" in seen_of(before), "the same process, with the same arguments"
    limits = Path(f"/proc/{before}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits), "nor does a core dump hold them"
    went_up = b"".join(name + value for seen in provider.seen() for name, value in seen.headers)
    assert set(canaries.found_in(went_up)) == {"openai"}, "what was handed over is what is used"
    assert sidecar.stderr == b""
    assert canaries.found_in(sidecar.stdout) == []


def test_without_being_asked_it_stays(start: Callable[..., Sidecar], provide: Any, tmp_path: Path) -> None:
    """So that the search above proves something."""
    canaries = Canaries()
    sidecar = start(environ(canaries, provide(), tmp_path))
    found = canaries.found_in(seen_of(sidecar.process.pid))
    assert {"openai", "ours", "tunnel", "extra", "gone"} <= set(found)
    assert "filed" not in found


def test_wrong_settings_are_said_once() -> None:
    env = {"LLM_PROXY_CLEAR_ENV": "on", "LLM_PROXY_LISTEN": "nowhere at all", "LLM_PROXY_TYPO": "x"}
    run = subprocess.run(
        [sys.executable, "-m", "proxy", "serve"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert run.returncode == 2
    assert run.stderr.count("LLM_PROXY_LISTEN:") == run.stderr.count("LLM_PROXY_TYPO:") == 1


def test_warnings_are_said_once(start: Callable[..., Sidecar], provide: Any) -> None:
    sidecar = start({**provide().environ(), "LLM_PROXY_CLEAR_ENV": "on", "LLM_PROXY_TYPO": "x"})
    sidecar.stop()
    assert sidecar.stderr.count(b"LLM_PROXY_TYPO") == 1
