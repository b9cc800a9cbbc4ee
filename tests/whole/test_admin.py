"""The admin API of a real process: who may use it, and that the next request sees what it changed."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.whole.processes import PATIENCE, ROOT, Provider, Sidecar

TOKEN = "admin-token-of-the-tests-0001"


class Answer(NamedTuple):
    status: int
    document: dict[str, Any]
    fields: dict[str, str]


def ask(url: str, method: str = "GET", body: Any = None, **fields: str) -> Answer:
    """What is at `url`. Names of fields have `_` for `-`."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    if method in ("POST", "PUT", "PATCH"):
        headers.setdefault("content-type", "application/json")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return Answer(answer.status, json.loads(answer.read()), dict(answer.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, json.loads(error.read()), dict(error.headers))


class Operator:
    """Somebody with the token."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.origin = f"http://127.0.0.1:{sidecar.admin_port}"
        self.sidecar = sidecar

    def __call__(self, method: str, path: str, body: Any = None, **fields: str) -> Answer:
        return ask(self.origin + path, method, body, **{"authorization": f"Bearer {TOKEN}", **fields})

    def call(self, key: str) -> int:
        """The status of a request of a client with that key."""
        body = {"model": "sim:input=10 output=5", "messages": []}
        return ask(self.sidecar.url + "/v1/chat/completions", "POST", body, authorization=f"Bearer {key}").status


@pytest.fixture
def operator(start: Callable[..., Sidecar], provider: Provider, tmp_path: Path) -> Operator:
    environ = {**provider.environ(), "LLM_PROXY_DB": str(tmp_path / "a.db"), "LLM_PROXY_ADMIN_TOKEN": TOKEN}
    return Operator(start({**environ, "LLM_PROXY_KEYS": "static=sk-static-0123456789"}))


def test_a_key_lives_its_life_and_each_next_request_sees_it(operator: Operator) -> None:
    made = operator("POST", "/keys", {"name": "ci", "models": ["sim:*"]})
    assert made.status == 201 and made.document["models"] == ["sim:*"]
    first = made.document["value"]
    assert operator.call(first) == 200

    assert operator("PATCH", "/keys/ci", {"limits": "rpd=2"}).document["limits"] == "rpd=2"
    assert [operator.call(first) for _ in range(3)] == [200, 200, 429]
    assert operator("PATCH", "/keys/ci", {"limits": None}).status == 200

    rotated = operator("POST", "/keys/ci/rotate", {"old_until": "1h"}).document
    assert rotated["value"] != first and rotated["old_prefix"] == first[:10]
    assert [operator.call(value) for value in (first, rotated["value"])] == [200, 200]
    last = operator("POST", "/keys/ci/rotate", {"old_until": None}).document["value"]
    assert [operator.call(value) for value in (first, rotated["value"], last)] == [401, 401, 200]

    assert operator("POST", "/keys/ci/disable").document["state"] == "disabled"
    assert operator.call(last) == 401
    assert operator("POST", "/keys/ci/enable").document["state"] == "valid"
    assert operator.call(last) == 200
    assert operator("DELETE", "/keys/ci").document == {"removed": "ci"}
    assert operator.call(last) == 401
    assert operator("GET", "/keys/ci").status == 404
    shown = operator.sidecar.stdout
    assert not any(value.encode() in shown for value in (first, rotated["value"], last, TOKEN))


def test_only_the_token_opens(operator: Operator) -> None:
    for fields in ({"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": ""}):
        refused = operator("GET", "/keys", **fields)
        assert (refused.status, refused.document["error"]["code"]) == (401, "unauthorized")
    assert operator("GET", "/keys").document["keys"][0]["static"] is True
    assert operator("GET", "/healthz", authorization="").status == 200


def test_no_web_page_gets_anything_even_with_the_token(operator: Operator) -> None:
    for fields in ({"origin": "http://localhost"}, {"sec_fetch_site": "cross-site"}, {"host": "evil.example"}):
        refused = operator("GET", "/keys", **fields)
        assert refused.status == 403
        assert not any(name.lower().startswith("access-control") for name in refused.fields)
    form = operator("POST", "/keys/static/disable", content_type="application/x-www-form-urlencoded")
    assert (form.status, form.document["error"]["code"]) == (415, "media_type_unsupported")
    assert operator("OPTIONS", "/keys").status == 405


def test_without_a_token_it_is_open_here_and_the_first_key_closes_the_proxy(
    start: Callable[..., Sidecar], provider: Provider, tmp_path: Path
) -> None:
    operator = Operator(start({**provider.environ(), "LLM_PROXY_DB": str(tmp_path / "a.db")}))
    assert operator.call("anything") == 200
    key = ask(operator.origin + "/keys", "POST", {"name": "ci"}).document["value"]
    assert [operator.call(value) for value in ("anything", key)] == [401, 200]


def test_a_process_that_others_could_steer_does_not_start() -> None:
    environ = {"LLM_PROXY_ADMIN_LISTEN": "0.0.0.0:0", "LLM_PROXY_LISTEN": "127.0.0.1:0", "LLM_PROXY_DB": "off"}
    command = [sys.executable, "-m", "proxy", "serve"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "LLM_PROXY_ADMIN_TOKEN" in done.stdout + done.stderr
