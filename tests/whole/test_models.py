"""Aliases of a real process are changed from outside, and each next request goes by what holds then."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.raw import Ending, RawAnswer, RawClient, Reset, ScriptedUpstream, Step, Wait
from tests.whole.processes import PATIENCE, ROOT, Provider, Sidecar
from tests.whole.test_admin import Answer, ask
from tests.whole.test_reload import Place

BODY = b'{"model":"fast","messages":[]}'
JSON = ("content-type", "application/json")


def environ(*providers: Provider, **more: str) -> dict[str, str]:
    """`providers` are called a, b, ..., and models of theirs mean nothing to them."""
    urls = {
        f"LLM_PROXY_PROVIDER_{name}": f"openai+http://127.0.0.1:{provider.port}/v1"
        for name, provider in zip("AB", providers)
    }
    return {**urls, "LLM_PROXY_DEFAULT_PROVIDER": "a", **more}


def call(client: RawClient) -> RawAnswer:
    client.request("POST", "/v1/chat/completions", BODY, JSON, host="localhost")
    return client.recv_response("POST")


def models(provider: Provider) -> list[str]:
    """What each request asked the provider for."""
    return [json.loads(seen.body)["model"] for seen in provider.seen()]


class Operator:
    """The admin API, and the commands in a process of their own."""

    def __init__(self, sidecar: Sidecar, environ: dict[str, str]) -> None:
        self._environ = environ
        self._url = f"http://127.0.0.1:{sidecar.admin_port}"

    def __call__(self, method: str, path: str, **body: Any) -> Answer:
        return ask(self._url + path, method, body or None)

    def command(self, *argv: str) -> str:
        return command(self._environ, *argv).stdout


def command(environ: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "proxy", *argv]
    return subprocess.run(line, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=True)


@pytest.fixture
def two(provide: Callable[..., Provider]) -> tuple[Provider, Provider]:
    return provide(), provide()


@pytest.fixture
def given(two: tuple[Provider, Provider], tmp_path: Path) -> dict[str, str]:
    return environ(*two, LLM_PROXY_DB=str(tmp_path / "a.db"), LLM_PROXY_MODELS="fast = a/first")


def listed(client: RawClient) -> list[str]:
    client.request("GET", "/v1/models", host="localhost")
    return [model["id"] for model in json.loads(client.recv_response().body)["data"]]


def test_each_next_request_on_an_open_connection_sees_what_was_changed(
    start: Callable[..., Sidecar], given: dict[str, str], two: tuple[Provider, Provider]
) -> None:
    sidecar = start(given)
    operator = Operator(sidecar, given)
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert [call(client).status for _ in range(2)] == [200, 200]
        assert operator("PUT", "/models/fast", targets="b/stored").document["instead_of"] == "fast = a/first"
        assert call(client).status == 200
        operator("PUT", "/models/new", targets="a/new")
        assert listed(client) == ["fast", "new"]
        assert operator("PUT", "/models/fast", targets="a/other | b/stored", options="retries=0").status == 200
        assert call(client).status == 200
        assert operator("DELETE", "/models/fast").status == 200
        assert call(client).status == 200
        assert operator("DELETE", "/models/fast").status == 409
        refused = operator("PUT", "/models/fast", targets="c/x, a", options="x")
        assert refused.status == 400 and len(refused.document["error"]["errors"]) == 3
        assert call(client).status == 200
        operator("DELETE", "/models/new")
        assert listed(client) == ["fast"]
    assert models(two[0]) == ["first", "first", "other", "first", "first"]
    assert models(two[1]) == ["stored"]


def test_what_another_process_changes_is_seen_as_well_and_outlives_this_one(
    start: Callable[..., Sidecar], given: dict[str, str], two: tuple[Provider, Provider]
) -> None:
    sidecar = start(given)
    operator = Operator(sidecar, given)
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert call(client).status == 200
        assert operator.command("models", "set", "fast", "b/stored") == "fast = b/stored is stored\n"
        [model] = operator("GET", "/models").document["models"]
        assert (model["text"], model["source"]) == ("fast = b/stored", "stored"), "before any request"
        assert operator.command("models", "set", "fast", "b/other") == "fast = b/other is stored\n"
        assert call(client).status == 200
    sidecar.stop()
    assert "fast        b/other" in command(given, "check").stdout
    sidecar = start(given)
    operator = Operator(sidecar, given)
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert call(client).status == 200
        operator.command("models", "remove", "fast")
        assert call(client).status == 200
    assert (models(two[0]), models(two[1])) == (["first", "first"], ["other", "other"])


def test_what_runs_goes_on_with_the_targets_that_it_began_with(
    start: Callable[..., Sidecar], given: dict[str, str], two: tuple[Provider, Provider]
) -> None:
    """Its first target fails when the alias is another one already: the second of before answers."""
    go = threading.Event()
    script: list[Step] = [Wait(go), Reset()]
    with ScriptedUpstream(script) as failing:
        given["LLM_PROXY_PROVIDER_SLOW"] = f"openai+http://127.0.0.1:{failing.port}/v1"
        given |= {"LLM_PROXY_MODELS": "fast = slow/one | b/two", "LLM_PROXY_RETRIES": "1"}
        sidecar = start(given)
        operator = Operator(sidecar, given)
        with RawClient("127.0.0.1", sidecar.port) as client, RawClient("127.0.0.1", sidecar.port) as other:
            client.request("POST", "/v1/chat/completions", BODY, JSON, host="localhost")
            failing.wait_for_requests(1)
            assert operator("PUT", "/models/fast", targets="a/stored").status == 200
            assert call(other).status == 200
            targets = operator("GET", "/targets").document["targets"]
            assert [(each["provider"], each["model"], each["in_flight"]) for each in targets] == [
                ("a", "stored", 0),
                ("slow", "one", 1),
            ]
            go.set()
            answer = client.recv_response("POST")
            assert answer.status == 200 and answer.ending is Ending.CLEAN
    assert (models(two[0]), models(two[1])) == (["stored"], ["two"])


def test_a_provider_that_goes_takes_the_aliases_along_that_name_it_and_nothing_else(
    start: Callable[..., Sidecar], two: tuple[Provider, Provider], tmp_path: Path
) -> None:
    given = environ(*two, LLM_PROXY_MODELS="fast = a/first")
    database = str(tmp_path / "a.db")
    place = Place(start, tmp_path, LLM_PROXY_DB=database)
    sidecar = place.begin(given)
    sidecar.may_log_errors = True
    operator = Operator(sidecar, {})
    operator("PUT", "/models/fast", targets="b/stored")
    operator("PUT", "/models/good", targets="a/stored")
    only_a = environ(two[0], LLM_PROXY_MODELS="fast = a/first")
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert call(client).status == 200
        reloaded = place.post(only_a)
        assert reloaded.status == 200 and "~ aliases.fast: b/stored -> a/first" in reloaded.document["changes"]
        assert call(client).status == 200
        document = operator("GET", "/models").document
        assert {each["name"]: each["source"] for each in document["models"]} == {
            "fast": "environment",
            "good": "stored",
        }
        assert [each["name"] for each in document["unused"]] == ["fast"]
        told = sidecar.wait_for_line(lambda line: line.get("level") == "error")
        assert "the stored alias fast is not used" in told["message"]
        checked = command({**only_a, "LLM_PROXY_DB": database}, "check")
        assert checked.stderr.count("warning: the stored alias fast is not used") == 1
        assert "~ aliases.fast: a/first -> b/stored" in place.post(given).document["changes"]
        assert call(client).status == 200
    assert (models(two[0]), models(two[1])) == (["first"], ["stored", "stored"])
    place.sidecar.stop()
    again = place.begin(only_a)  # nothing that is stored keeps it from starting
    again.may_log_errors = True
    with RawClient("127.0.0.1", again.port) as client:
        assert listed(client) == ["fast", "good"] and call(client).status == 200
    assert models(two[0])[-1] == "first" and len(again.errors) == 1


def test_how_targets_and_credentials_stand_is_seen(
    start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path
) -> None:
    failing, refusing = provide("status=500"), provide("status=401")
    given = environ(failing, refusing, LLM_PROXY_MODELS="fast = a/m; other = b/m", LLM_PROXY_PROVIDER_B_API_KEY="sk-b")
    sidecar = start({**given, "LLM_PROXY_DB": str(tmp_path / "a.db")})
    operator = Operator(sidecar, given)
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert operator("GET", "/targets").document == {"targets": [], "credentials": []}
        assert {call(client).status for _ in range(5)} == {500}
        client.request("POST", "/v1/chat/completions", BODY.replace(b"fast", b"other"), JSON, host="localhost")
        assert client.recv_response("POST").status == 502
    document = operator("GET", "/targets").document
    known = {(each["provider"], each["model"]): each for each in document["targets"]}
    assert known["a", "m"]["state"] == "open" and 0 < known["a", "m"]["retry_in"] <= 5
    assert known["b", "m"]["state"] == "closed" and known["b", "m"]["in_flight"] == 0
    assert document["credentials"] == [{"provider": "b", "index": 0, "fingerprint": "#short", "model": None}]
    [fast, _] = operator("GET", "/models").document["models"]
    assert fast["groups"][0][0]["state"] == "open"
