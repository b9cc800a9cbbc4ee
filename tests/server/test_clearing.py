"""Which variables go before the second start, and what it gets of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest

from proxy.server.clearing import HANDED_OVER, CannotClear, secrets_in, start_again, taken_over

SECRET = {
    "OPENAI_API_KEY": "sk",
    "ANTHROPIC_AUTH_TOKEN": "t",
    "OPENAI_BASE_URL": "https://u:p@a.example/v1",
    "LLM_PROXY_KEYS": "a=0123456789abcdef",
    "LLM_PROXY_KYES": "a=0123456789abcdef",
    "LLM_PROXY_PROVIDER_A": "openai+http://a.example/v1",
    "LLM_PROXY_PROVIDER_A_HEADERS": "X-Key: value",
    "LLM_PROXY_TIMEOUT_HEAD": "sk-in-the-wrong-place",
    "LLM_PROXY_CLEAR_ENV": "on",
    "LLMPROXY_KEY": "sk",
    "HTTPS_PROXY": "http://user:password@proxy.example:3128",
    "https_proxy": "user:password@proxy.example:3128",
    "ALL_PROXY": "socks5://user:password@proxy.example",
    "AWS_SECRET_ACCESS_KEY": "x",
    "GITHUB_TOKEN": "x",
    "PGPASSWORD": "x",
    "DATABASE_URL": "postgres://user:password@db.example/x",
}
KEPT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nowhere",
    "LANG": "C.UTF-8",
    "PYTHONFAULTHANDLER": "1",
    "SSL_CERT_FILE": "/etc/ssl/ca.pem",
    "SSLKEYLOGFILE": "/var/keys.log",
    "HTTP_PROXY": "http://proxy.example:3128",
    "NO_PROXY": "localhost",
}


class Started(Exception):
    """Instead of a new process: what it would be given."""

    def __init__(self, path: str, argv: list[str], env: dict[str, str]) -> None:
        self.path, self.argv, self.env = path, argv, env


def started(environ: dict[str, str]) -> Started:
    def execute(path: str, argv: list[str], env: dict[str, str]) -> None:
        raise Started(path, argv, env)

    with pytest.raises(Started) as found:
        start_again(environ, execute)
    return found.value


def test_secrets_go_and_the_rest_stays() -> None:
    assert secrets_in({**SECRET, **KEPT}) == SECRET


def test_the_second_start_knows_what_the_first_knew() -> None:
    odd = os.fsdecode(b"\xff\xfe=p")
    environ = {**SECRET, **KEPT, "LLM_PROXY_ODD": odd}
    second = started(environ)
    assert second.path == second.argv[0] == sys.executable
    assert second.argv[1:] == sys.orig_argv[1:]
    descriptor = int(second.env[HANDED_OVER])
    assert second.env == {**KEPT, HANDED_OVER: str(descriptor)}
    assert os.get_inheritable(descriptor)
    assert os.fstat(descriptor).st_nlink == 0, "no name leads to it"
    env = dict(second.env)
    assert taken_over(env) == environ
    assert env == KEPT, "nothing of it is left in the process's own environment"
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_more_than_a_pipe_holds_is_handed_over() -> None:
    environ = {f"LLM_PROXY_PROVIDER_P{n}_API_KEY": "k" * 1000 for n in range(200)}
    assert taken_over(started(environ).env) == environ


def test_a_first_start_has_its_own_environment() -> None:
    environ = {"A": "b"}
    assert taken_over(environ) is environ


@pytest.mark.parametrize("number", ["", "x", "-1", "0", "99999"])
def test_a_number_that_leads_nowhere_is_a_clear_error(number: str) -> None:
    with pytest.raises(CannotClear, match="is set by this program itself: unset it"):
        taken_over({HANDED_OVER: number})


def test_a_file_that_has_a_name_is_none_of_ours() -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(json.dumps({"PATH": "else"}).encode())
        file.flush()
        with pytest.raises(CannotClear):
            taken_over({HANDED_OVER: str(file.fileno())})


def test_a_start_that_is_refused_says_what_to_do() -> None:
    def execute(*_: object) -> None:
        raise OSError(7, "Argument list too long")

    with pytest.raises(CannotClear, match=r"\(Argument list too long\): set it to off") as refused:
        start_again(SECRET, execute)
    assert not any(value in str(refused.value) for value in SECRET.values() if len(value) > 3)


SCRIPT = """
import ctypes, resource, sys
from proxy.server.clearing import forbid_dumps
forbid_dumps()
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) if sys.platform == "linux" else 0
print(dumpable, *resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_a_process_that_forbids_dumps_has_none() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout.split() == ["0", "0", "0"]
