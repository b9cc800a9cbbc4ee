"""A secret of every kind goes through every path, and everything that comes out is searched for it.

How it works: beside test_secrets, which sends good and bad requests, this goes where a secret comes back: providers
that quote what they were sent, a value in the wrong variable, a fault within an exchange, a crash, the ledger's files
and all that prints from them, the admin listener, /proc. Each test also proves that the secret was where it was to be
found, so that an empty search says something.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from proxy.catalog.load import VARIABLES
from proxy.server.table import SETTINGS
from tests.fakes.raw import RawClient
from tests.whole.processes import ROOT, Provider, Sidecar
from tests.whole.test_secrets import PATHS, STREAM, Canaries, _post, environ
from tests.whole.tunnel import TunnelProxy

CALLS = tuple(path for path in PATHS if path not in ("/v1/files", "/nowhere", "/openai/v1/chat/completions"))
DOCUMENTS = ("/v1/embeddings", "/v1/messages/count_tokens", "/v1beta/models/m:generateContent")
# What a provider does with all that it was sent. Without an error, its id of the request holds it.
QUOTES = (
    "quote",
    "quote status=400",
    "quote status=401",
    "quote status=429 framing=chunked cuts=bytes",
    "quote status=500 framing=close",
    "quote status=503 gzip",
    "quote status=400 br cuts=bytes",
    "quote status=529 zstd deflate framing=chunked",
    "quote error=1",
    "quote error=2 cuts=random:7",
    "quote cut=1",
)
# The same program with two faults of ours in it: they raise with all of a request, and of an answer, in their text.
FAULTY = """
from proxy.relay import attempt, exchange
from proxy.cli import main

pass_in, provider_request_id = exchange.pass_in, attempt.provider_request_id

def broken_in(relay, head, grant):
    if head.get(b"x-fault") == b"in":
        raise RuntimeError(f"{head.get(b'authorization')} {head} {grant} {relay.snapshot}")
    return pass_in(relay, head, grant)

def broken_out(head):
    if head.get(b"x-fault"):
        raise RuntimeError(f"{head}")
    return provider_request_id(head)

exchange.pass_in, attempt.provider_request_id = broken_in, broken_out
raise SystemExit(main(["serve"]))
"""
CARRIERS = (
    ("authorization", "Bearer %s"),
    ("x-api-key", "%s"),
    ("api-key", "%s"),
    ("x-goog-api-key", "%s"),
    ("?key=", "%s"),
)


def carried(path: str, carrier: tuple[str, str], value: str, *fields: tuple[str, str]) -> bytes:
    """A call with a key in one of the five places."""
    name, form = carrier
    body = STREAM % (b"m", b"p", b"p")
    if name == "?key=":
        return _post(path + ("&" if "?" in path else "?") + "key=" + value, body, *fields)
    return _post(path, body, (name, form % value), *fields)


def ask(port: int, request: bytes) -> bytes:
    with RawClient("127.0.0.1", port) as client:
        client.send(request)
        return client.recv_to_end()[0]


# Commands in one process, since to start one takes longer than most of them: a line of words each.
COMMANDS = """
import sys
from proxy.cli import main

for line in sys.stdin:
    main(line.split())
"""


def sent_up(provider: Provider) -> bytes:
    return b"\n".join(name + b": " + value for seen in provider.seen() for name, value in seen.headers)


def whole_environ(canaries: Canaries, provider: Provider, folder: Path) -> dict[str, str]:
    """A secret of every kind that an operator has, and a ledger."""
    return environ(canaries, provider, folder) | {
        "PATH": os.environ["PATH"],
        "LLM_PROXY_DB": str(folder / "ledger.db"),
        "LLM_PROXY_PROVIDER_FILED_HEADERS": f"X-Auth-Token: {canaries('extra')}, X-Other: 1",
        "LLM_PROXY_PROVIDER_NEAR": "openai+http://provider.invalid/v1",
        "LLM_PROXY_PROVIDER_NEAR_API_KEY": canaries("near"),
        "HTTP_PROXY": f"http://user:{canaries('forward')}@127.0.0.1:{provider.port}",  # it answers by itself
        "LLM_PROXY_RESPONSE_HEADERS": "on",
    }


def ask_everything(canaries: Canaries, port: int) -> list[bytes]:
    """Every way in which a provider may repeat what it was sent, and every carrier of a key."""
    good, answers = canaries("ours"), []
    cookie = ("cookie", f"session={canaries('cookie')}")
    for path, quote in itertools.product(CALLS, QUOTES):
        if path in DOCUMENTS and "error=" in quote:
            continue  # an event in the middle of a document is no error that any vendor sends
        request = carried(path, CARRIERS[0], good, ("x-simulate", quote), cookie, ("accept-encoding", "gzip, br"))
        answers.append(ask(port, request))
    for provider, quote in itertools.product(("filed", "near", "gone", "far"), QUOTES[:4]):
        answers.append(ask(port, carried(f"/{provider}/v1/chat/completions", CARRIERS[0], good, ("x-simulate", quote))))
    for carrier in CARRIERS:
        answers.append(ask(port, carried(CALLS[0], carrier, good, ("x-simulate", "quote status=400"), cookie)))
        answers.append(ask(port, carried(CALLS[0], carrier, canaries("wrong"), cookie)))
    return answers


def admin(port: int, token: str, method: str, path: str, body: bytes = b"") -> bytes:
    lines = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n"
    if method != "GET":
        lines += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return ask(port, lines.encode() + b"\r\n" + body)


def admin_answers(canaries: Canaries, port: int) -> list[bytes]:
    """Every page, with the token, with one that is wrong, and with a key in its place."""
    key, token = canaries("ours"), canaries("admin")
    pages = ("/keys", "/keys/app", "/groups", "/limits", "/limits/key%20app", "/lost", "/usage", "/exchanges?limit=100")
    paths = (*pages, "/openapi.json", "/healthz", "/readyz", "/metrics", "/", f"/{key}", f"/healthz?key={key}")
    return [admin(port, each, "GET", path) for each in (token, key, canaries("wrong")) for path in paths]


def make_key(canaries: Canaries, port: int) -> str:
    """A key by the admin API, whose answer shows it once: the name under which its value is a canary from now on."""
    for number in range(50):
        answer = admin(port, canaries("admin"), "POST", "/keys", b'{"name":"k%d","limits":"rpm=1000"}' % number)
        value = str(json.loads(answer.partition(b"\r\n\r\n")[2])["value"])
        if "-" not in value[3:]:
            canaries.by_place["made"] = value
            return f"k{number}"
    raise AssertionError("none without a dash")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("log", "is_locked"), [("json", False), ("text", True)])
@pytest.mark.sources
def test_what_comes_back_shows_no_secret(
    start: Callable[..., Sidecar], provide: Any, tmp_path: Path, log: str, is_locked: bool
) -> None:
    canaries, provider = Canaries(), provide()
    env = whole_environ(canaries, provider, tmp_path) | {"LLM_PROXY_LOG": log, "PYTHONASYNCIODEBUG": "1"}
    sidecar = start(env, command=("-c", FAULTY))
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as lock:
        if is_locked:
            lock.execute("begin exclusive")
        answers = ask_everything(canaries, sidecar.port)
        went_up = sent_up(provider)
        answers += admin_answers(canaries, sidecar.admin_port)
        if not is_locked:
            name = make_key(canaries, sidecar.admin_port)
            answers.append(ask(sidecar.port, carried(CALLS[0], CARRIERS[0], canaries("made"))))
            assert answers[-1].startswith(b"HTTP/1.1 200")
            answers.append(admin(sidecar.admin_port, canaries("admin"), "GET", f"/keys/{name}"))
            answers += admin_answers(canaries, sidecar.admin_port)
        sidecar.may_log_errors = True
        fault = carried(CALLS[0], CARRIERS[0], canaries("ours"), ("x-fault", "in"))
        answers.append(ask(sidecar.port, fault))
        sidecar.wait_for_line(lambda line: line.get("level") == "error")
        sidecar.stop() if is_locked else crash(sidecar)
    for at, answer in enumerate(answers):
        shown = set(canaries.found_in(answer))
        assert not shown, f"answer {at}: {shown} in {answer!r}"
    assert {"openai", "anthropic", "gemini", "filed", "extra", "near"} <= set(canaries.found_in(went_up))
    assert "forward" in canaries.found_in(went_up), "the proxy's own credential went to the proxy"
    stars = sum(b"*" * 16 in answer for answer in answers)
    assert stars > 50, f"only {stars} answers had something to hide"
    assert canaries.found_in(sidecar.stdout) == [] and len(sidecar.stdout) > 20_000
    assert canaries.found_in(sidecar.stderr) == []
    files = {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.name.startswith("ledger.db")}
    assert sum(map(len, files.values())) > 20_000
    assert any(name.endswith("-spill") and content for name, content in files.items()) is is_locked
    for name, content in files.items():
        assert canaries.found_in(content) == [], name
    said = printed_from(env)
    assert canaries.found_in(said) == [] and len(said) > (10_000 if is_locked else 100_000)


def crash(sidecar: Sidecar) -> None:
    """As a fault in C would end it: faulthandler writes where every thread is."""
    sidecar.send_signal(signal.SIGABRT)
    sidecar.wait()
    assert b"Fatal Python error: Aborted" in sidecar.stderr


def printed_from(env: dict[str, str]) -> bytes:
    """All that these commands say."""
    commands = """
        tail -n 1000
        tail -n 1000 --json
        usage --since all --by key,model,served,provider,ending,tag
        usage --since all --json
        ledger export
        ledger export --format csv
        ledger check
        prices
        check
        check --json
        check --model gpt-4o"""
    whole = [sys.executable, "-c", COMMANDS]
    found = subprocess.run(whole, input=commands.strip().encode(), cwd=ROOT, env=env, capture_output=True, timeout=30)
    assert found.returncode == 0, found.stderr
    return found.stdout + found.stderr


@pytest.mark.sources
def test_a_fault_in_an_answer_shows_no_secret(start: Callable[..., Sidecar], provide: Any, tmp_path: Path) -> None:
    """The exception's text is the head of an answer that repeats the credential."""
    canaries = Canaries()
    faulty = FAULTY.replace("x-fault", "x-request-id")
    sidecar = start(whole_environ(canaries, provide(), tmp_path), command=("-c", faulty))
    sidecar.may_log_errors = True
    answer = ask(sidecar.port, carried(CALLS[0], CARRIERS[0], canaries("ours"), ("x-simulate", "quote")))
    assert answer.startswith(b"HTTP/1.1 500 ")
    fault = sidecar.wait_for_line(lambda line: line.get("level") == "error")
    assert fault["error"] == "RuntimeError" and "in broken_out" in fault["place"]
    sidecar.stop()
    assert canaries.found_in(answer + sidecar.stdout + sidecar.stderr) == []


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier[0])
def test_a_passed_through_credential_is_seen_by_its_client_only(
    start: Callable[..., Sidecar], provide: Any, tmp_path: Path, carrier: tuple[str, str]
) -> None:
    canaries, provider = Canaries(), provide()
    ledger = {"LLM_PROXY_DB": str(tmp_path / "ledger.db"), "LLM_PROXY_AUTH": "passthrough"}
    env = {"OPENAI_BASE_URL": f"http://127.0.0.1:{provider.port}/v1", **ledger, "PATH": os.environ["PATH"]}
    sidecar = start(env)
    for quote in QUOTES:
        answer = ask(sidecar.port, carried(CALLS[0], carrier, canaries("theirs"), ("x-simulate", quote)))
        assert quote == "quote cut=1" or b"gzip" in answer or b"content-encoding" in answer or canaries.found_in(answer)
    sidecar.stop()
    assert set(canaries.found_in(sent_up(provider))) == {"theirs"}
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert len(files) > 20_000
    assert canaries.found_in(files + sidecar.stdout + sidecar.stderr + printed_from(env)) == []


def test_a_proxy_that_repeats_its_password_shows_it_to_nobody(start: Callable[..., Sidecar], tmp_path: Path) -> None:
    canaries = Canaries()
    with TunnelProxy() as tunnel:
        tunnel.says(b"HTTP/1.1 407 %b\r\nx: %b\r\n\r\n" % ((canaries("password").encode(),) * 2))
        proxy = f"http://user:{canaries('password')}@127.0.0.1:{tunnel.port}"
        env = {"LLM_PROXY_PROVIDER_FAR": "openai+https://provider.invalid/v1", "HTTPS_PROXY": proxy}
        sidecar = start(env | {"LLM_PROXY_DB": str(tmp_path / "ledger.db")})
        answer = ask(sidecar.port, carried(CALLS[0], CARRIERS[0], "any"))
        assert b"refused the tunnel with status 407" in answer
        assert canaries.found_in(b"".join(tunnel.heads)) == ["password"]
        sidecar.stop()
    files = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert canaries.found_in(answer + files + sidecar.stdout + sidecar.stderr) == []


# -- values in the wrong place ----------------------------------------------------------------------------------------

# What stands in these is shown because it is what they are for: a path, names of machines.
SHOWN = {"LLM_PROXY_DB", "LLM_PROXY_HOSTS", "OLLAMA_HOST"}
NAMES = sorted(
    {setting.name.replace("<NAME>", "SOME") for setting in SETTINGS}
    | set(VARIABLES)
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "LLM_PROXY_MODELS", "LLM_PROXY_ADMIN_TOKEN", "LLM_PROXY_NONSENSE"}
)
FORMS = ("{}", "{}=x", "a={}", "a={},a={}", "{}=billing,b={}", "{}=drain", "http://u:{}@h", "{'{}", "{}:80", "unix:{}")


# Made once: it knows nothing of the environment, and takes five times as long as what it is made for.
PARSER = cache(cli._parser)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Makes these the whole environment of this process."""

    monkeypatch.setattr(cli, "_parser", PARSER)

    def use(env: dict[str, str]) -> None:
        for name in list(os.environ):
            if name not in ("PATH", "HOME", "PYTEST_CURRENT_TEST"):
                monkeypatch.delenv(name)
        for name, value in env.items():
            monkeypatch.setenv(name, value)

    return use


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SHOWN])
def test_a_secret_in_the_wrong_variable_is_not_repeated(
    name: str, alone: Callable[[dict[str, str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    canaries = Canaries()
    for form in FORMS:
        if (form == "unix:{}" and name.endswith("LISTEN")) or (form == "{}:80" and name.endswith("HEADERS")):
            continue  # the path of a socket and the name of a field are shown
        value = form.replace("{}", canaries("wrong"))
        alone({"LLM_PROXY_PROVIDER_SOME": "openai+http://127.0.0.1:9/v1", "LLM_PROXY_DB": "off", name: value})
        for command in (["check"], ["check", "--json"]):
            cli.main(command)
            said = capsys.readouterr()
            assert canaries.found_in((said.out + said.err).encode()) == [], (form, said.out[-500:], said.err)


FILES = [name for name in NAMES if name.endswith(("_FILE", "_CERT", "_KEY", "_CA", "_PRICES"))]


@pytest.mark.parametrize("name", [*FILES, "LLM_PROXY_KEYS_FILE", "OPENAI_API_KEY_FILE"])
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "{} {}",
        "NAME={}",
        '{"key": "{}", "version": "{}", "prices": "{}"}',
        '{"version": "1", "prices": [{"model": "{}", "input": "{}"}], "vendors": {"a": "{}"}}',
        "-----BEGIN PRIVATE KEY-----\n{}\n",
    ],
)
def test_a_file_that_is_another_one_is_not_quoted(
    name: str, form: str, tmp_path: Path, alone: Callable[[dict[str, str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    canaries = Canaries()
    (tmp_path / "f").write_text(form.replace("{}", canaries("content")))
    pair = {"LLM_PROXY_TLS_KEY": "LLM_PROXY_TLS_CERT", "LLM_PROXY_UPSTREAM_KEY": "LLM_PROXY_UPSTREAM_CERT"}
    alone({"LLM_PROXY_DB": "off", name: str(tmp_path / "f"), pair.get(name, "HOME"): str(tmp_path / "f")})
    cli.main(["check"])
    said = capsys.readouterr()
    assert canaries.found_in((said.out + said.err).encode()) == []
