"""No secret ever shows: a canary stands in every place a secret can stand, and everything that comes out is searched.

How it works: keys, credentials, fields and proxy passwords are random; good and bad requests go in, in every dialect,
with every form of the log; then stdout, stderr and all answers are searched for each secret and for parts of it. What
only the provider may see is also looked for there, so that an empty search proves something.
"""

from __future__ import annotations

import base64
import itertools
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.raw import RawClient, ScriptedUpstream, Send
from tests.whole.processes import ROOT, Provider, Sidecar

STREAM = b'{"model":"%b","stream":true,"max_tokens":3,"messages":[],"input":"%b","prompt":"%b"}'
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1beta/models/m:generateContent",
    "/v1beta/models/m:streamGenerateContent?alt=sse",
    "/api/chat",
    "/v1/files",
    "/openai/v1/chat/completions",
    "/nowhere",
)
WORDS = ("", "status=401", "status=500", "cut=2", "reset", "garbage", "no-end", "error=1", "echo,status=400")


class Canaries:
    """Secrets by the place they stand in."""

    def __init__(self) -> None:
        self.by_place: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        return self.by_place.setdefault(place, f"{place}-{secrets.token_hex(16)}")

    def found_in(self, data: bytes) -> list[str]:
        """The places whose secret, or half of it, or whose base64 (behind whatever else), is in `data`."""
        found = []
        for place, secret in self.by_place.items():
            random = secret.rpartition("-")[2]
            encoded = (base64.b64encode(before + secret.encode()).decode() for before in (b"", b"u", b"u:"))
            forms = (random[:16], random[16:], random[8:24], *(each.rstrip("=")[4:-4] for each in encoded))
            found += [place for form in forms if form.encode() in data]
        return found


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


def environ(canaries: Canaries, provider: Provider, folder: Path) -> dict[str, str]:
    kept = folder / "credential"
    kept.write_text(canaries("filed") + "\n")
    return {
        **provider.environ(),
        "OPENAI_API_KEY": canaries("openai"),
        "ANTHROPIC_API_KEY": canaries("anthropic"),
        "GEMINI_API_KEY": canaries("gemini"),
        "LLM_PROXY_KEYS": f"app={canaries('ours')},other={canaries('other')}",
        "LLM_PROXY_ADMIN_TOKEN": canaries("admin"),
        "LLM_PROXY_PROVIDER_FILED": f"openai+http://127.0.0.1:{provider.port}/v1",
        "LLM_PROXY_PROVIDER_FILED_API_KEY_FILE": str(kept),
        "LLM_PROXY_PROVIDER_FILED_HEADERS": f"X-Extra: {canaries('extra')}",
        "LLM_PROXY_PROVIDER_GONE": "openai+http://127.0.0.1:9/v1",
        "LLM_PROXY_PROVIDER_GONE_API_KEY": canaries("gone"),
        "LLM_PROXY_PROVIDER_FAR": "openai+https://provider.invalid/v1",
        "HTTPS_PROXY": f"http://user:{canaries('tunnel')}@127.0.0.1:9",
    }


def requests(canaries: Canaries, good: str) -> Iterator[bytes]:
    """Good and bad ones, in every dialect, with secrets wherever a client may put them."""
    prompt = canaries("prompt").encode()
    for path, word in itertools.product(PATHS, WORDS):
        # The prompt's text stands where no error of ours may repeat it.
        yield _post(path, STREAM % (b"m", prompt, prompt), ("authorization", f"Bearer {good}"), ("x-simulate", word))
    for name in ("filed", "gone", "far"):
        yield _post(f"/{name}/v1/chat/completions", STREAM % (b"m", prompt, prompt), ("x-api-key", good))
    for path in PATHS:
        body = STREAM % (b"m", prompt, prompt)
        yield _post(path, body, ("authorization", f"Bearer {canaries('wrong')}"))
        yield _post(path, body, ("x-api-key", good), ("x-goog-api-key", canaries("second")))
        yield _post(path, body, ("authorization", f"Basic {base64.b64encode(canaries('basic').encode()).decode()}"))
        yield _post(path + ("&" if "?" in path else "?") + f"key={canaries('query')}", body)
        yield _post(path, body[:-9], ("x-api-key", good), ("cookie", f"a={canaries('cookie')}"))
        yield _post(path, b'{"model":["%b"]}' % prompt, ("x-api-key", good))
        yield _post(path, b'{"model":"m","model":"%b"}' % prompt, ("x-api-key", good))
    bad = canaries("malformed").encode()
    yield b"GET /?key=%b HTTP/9.9\r\nhost: localhost\r\n\r\n" % bad
    yield b"GET /v1/models HTTP/1.1\r\nauthorization: Bearer %b\r\n\r\n" % bad
    yield b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization : Bearer %b\r\n\r\n" % bad
    yield b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %b\x00\r\n\r\n" % bad
    yield b"%b /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n" % bad
    yield b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-api-key: %b" % bad  # and then it leaves
    yield b"POST /v1/files?key=%b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz" % bad


def _post(target: str, body: bytes, *fields: tuple[str, str]) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "host: localhost", "content-type: application/json", "connection: close"]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


@pytest.mark.parametrize("log", ["json", "text"])
def test_no_secret_is_ever_shown(
    start: Callable[..., Sidecar], provide: Any, canaries: Canaries, tmp_path: Path, log: str
) -> None:
    provider = provide("hold=0.1")
    env = environ(canaries, provider, tmp_path)
    sidecar = start({**env, "LLM_PROXY_LOG": log})
    answers: list[bytes] = []
    shown: list[str] = []
    for sent in requests(canaries, canaries("ours")):
        with RawClient("127.0.0.1", sidecar.port) as client:
            client.send(sent)
            if (b"echo" not in sent and sent.endswith(b"}")) or b"HTTP/9.9" in sent:
                answer = client.recv_to_end()[0]
                answers.append(answer)
                # A path that the simulated provider does not know is answered with the request itself.
                is_echo = b"POST /v1/files " in sent and answer.startswith(b"HTTP/1.1 200")
                if not is_echo and (found := canaries.found_in(answer)):
                    shown.append(f"{found} in the answer to {sent[:60]!r}: {answer[-300:]!r}")
            elif b"echo" in sent:
                client.recv_to_end()
            else:
                client.half_close()
                client.recv_to_end()
    sidecar.stop()
    everything = sidecar.stdout + sidecar.stderr
    assert len(everything) > 30_000 and len(answers) > 100
    assert not shown
    assert canaries.found_in(everything) == []
    went_up = b"".join(name + value for seen in provider.seen() for name, value in seen.headers)
    assert {"openai", "anthropic", "gemini", "filed", "extra"} <= set(canaries.found_in(went_up))
    assert not {"ours", "other", "cookie", "wrong", "second", "query"} & set(canaries.found_in(went_up))


def test_a_credential_that_the_provider_repeats_stays_here(start: Callable[..., Sidecar], canaries: Canaries) -> None:
    """OpenAI's 401 quotes the key it refuses."""
    body = b'{"error":{"message":"Incorrect API key provided: %b"}}' % canaries("openai").encode()
    head = b"HTTP/1.1 401 Unauthorized\r\nx-echo: %b\r\ncontent-length: %d\r\n\r\n"
    with ScriptedUpstream([Send(head % (canaries("openai").encode(), len(body)) + body)]) as upstream:
        sidecar = start(
            {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1", "OPENAI_API_KEY": canaries("openai")}
        )
        with RawClient("127.0.0.1", sidecar.port) as client:
            client.send(_post("/v1/chat/completions", b'{"model":"m","messages":[]}'))
            answer = client.recv_to_end()[0]
        assert upstream.requests[0].get(b"authorization") == b"Bearer " + canaries("openai").encode()
    assert answer.startswith(b"HTTP/1.1 502") and canaries.found_in(answer) == []
    sidecar.wait_for_receipts(1)
    assert canaries.found_in(sidecar.stdout + sidecar.stderr) == []


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("command", [("check",), ("check", "--json"), ("check", "--model", "gpt-4o"), ("serve",)])
def test_commands_show_no_secret(
    provide: Any, canaries: Canaries, tmp_path: Path, command: tuple[str, ...], broken: bool
) -> None:
    env = environ(canaries, provide(), tmp_path)
    env["PATH"] = os.environ["PATH"]
    if broken or command == ("serve",):
        env["LLM_PROXY_KEYS"] = canaries("nameless")
        env["LLM_PROXY_PROVIDER_BAD"] = f"openai+http://user:{canaries('userinfo')}@127.0.0.1:9/v1"
        env["LLM_PROXY_PROVIDER_BAD_HEADERS"] = canaries("headers")
        env["LLM_PROXY_ENV_FILE"] = str(tmp_path / "env")
        (tmp_path / "env").write_text(f"{canaries('line')}\n")
        env["OPENAI_BASE_URL"] = f"{canaries('url')}://x"
        env["LLM_PROXY_TIMEOUT_HEAD"] = canaries("seconds")
    run = subprocess.run([sys.executable, "-m", "proxy", *command], cwd=ROOT, env=env, capture_output=True, timeout=20)
    assert run.returncode == (2 if broken or command == ("serve",) else 0), run.stderr.decode()
    assert run.stdout + run.stderr
    assert canaries.found_in(run.stdout + run.stderr) == []
