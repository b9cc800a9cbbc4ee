"""The admin API of a real process: who may use it, and that the next request sees what it changed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes.raw import RawClient
from tests.ledger.receipts import locked
from tests.whole.processes import PATIENCE, ROOT, Provider, Sidecar

PRICES = '{"version": "t", "prices": [{"provider": "openai", "model": "gpt-4o", "input": 1, "output": 1}]}'
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
    prices = tmp_path / "prices.json"
    prices.write_text(PRICES)
    environ = {**provider.environ(), "LLM_PROXY_DB": str(tmp_path / "a.db"), "LLM_PROXY_ADMIN_TOKEN": TOKEN}
    environ["LLM_PROXY_PRICES"] = str(prices)
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
    operator.sidecar.wait_for_line(lambda line: line.get("message") == "the key ci was removed by the admin API")
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


def test_limits_show_what_runs_and_what_it_has_reserved(operator: Operator, provider: Provider) -> None:
    limits = "concurrent=4 rpd=9 10usd/day 1Mtokens/day"
    key = operator("POST", "/keys", {"name": "ci", "limits": limits}).document["value"]
    body = {"model": "gpt-4o", "stream": True, "max_tokens": 1000, "messages": []}
    fields = f"host: localhost\r\nx-api-key: {key}\r\nx-simulate: pace=1 events=1000"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n"
    data = json.dumps(body).encode()
    with RawClient("127.0.0.1", operator.sidecar.port) as client:
        client.send(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        assert client.socket.recv(12) == b"HTTP/1.1 200"
        shown = operator("GET", "/limits/key%20ci").document
        assert shown["concurrent"] == {"running": 1, "most": 4}
        assert [each["left"] for each in shown["rates"]] == [8]
        assert all(budget["reserved"] == budget["spent"] > 0 for budget in shown["budgets"])
    operator.sidecar.wait_for_receipts(1)
    shown = operator("GET", "/limits/key%20ci").document
    assert shown["concurrent"] == {"running": 0, "most": 4}
    assert all(budget["reserved"] == 0 for budget in shown["budgets"])
    assert [each["scope"] for each in operator("GET", "/limits").document["limits"]] == ["key ci"]


def test_what_was_spent_is_told(operator: Operator) -> None:
    key = operator("POST", "/keys", {"name": "ci"}).document["value"]
    assert [operator.call(key) for _ in range(3)] == [200] * 3
    end = time.monotonic() + PATIENCE  # rows are written within 0.2 s
    while len(operator("GET", "/exchanges?key=ci").document["exchanges"]) < 3:
        assert time.monotonic() < end
    [group] = operator("GET", "/usage?by=key").document["groups"]
    assert (group["key"], group["requests"], group["input_tokens"], group["output_tokens"]) == ("ci", 3, 30, 15)


def test_a_ledger_that_keeps_a_change_waiting_keeps_no_traffic_waiting(operator: Operator, tmp_path: Path) -> None:
    key = operator("POST", "/keys", {"name": "ci"}).document["value"]
    body = b'{"name":"late"}'
    fields = f"host: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json"
    head = f"POST /keys HTTP/1.1\r\n{fields}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with RawClient("127.0.0.1", operator.sidecar.admin_port) as client:
        with locked(tmp_path / "a.db"):
            client.send(head + body)
            assert operator("GET", "/healthz").status == 200  # its connection is younger: the change is begun
            assert operator.call(key) == 200
        answer = client.recv_response()
    assert answer.status == 201, answer.body


def test_without_a_ledger_each_of_its_pages_says_so(start: Callable[..., Sidecar], provider: Provider) -> None:
    operator = Operator(start({**provider.environ(), "LLM_PROXY_DB": "off"}))
    for path in ("/usage", "/exchanges", "/lost", "/groups", "/keys/ci"):
        refused = operator("GET", path)
        assert refused.status == 404 and "LLM_PROXY_DB=off" in refused.document["error"]["message"]
    assert operator("GET", "/limits").document == {"limits": [], "next": None}
    assert operator("GET", "/openapi.json").document["openapi"] == "3.1.0"
