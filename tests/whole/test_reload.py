"""The configuration of a real process becomes another one, and nobody who is being served notices."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.raw import Ending, RawAnswer, RawClient, ScriptedUpstream, Send, Step, Wait
from tests.whole.processes import Provider, Sidecar
from tests.whole.test_admin import Answer, ask

KEY, OTHER = "sk-of-the-tests-0123456789", "sk-another-one-9876543210"
OLD, NEW = "sk-upstream-old-0123456789", "sk-upstream-new-0123456789"
BODY = b'{"model":"m","messages":[]}'
STREAM = b'{"model":"m","stream":true,"messages":[]}'
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"one"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Place:
    """A sidecar whose variables stand in a file, and somebody who writes it."""

    def __init__(self, start: Callable[..., Sidecar], folder: Path, **more: str) -> None:
        self._start = start
        self._file = folder / "env"
        self._more = {"LLM_PROXY_ENV_FILE": str(self._file), **more}
        self.sidecar: Sidecar

    def write(self, environ: dict[str, str]) -> None:
        """At once: a signal or a request of before may be read at this moment."""
        fresh = self._file.with_name(f"env-{threading.get_ident()}")
        fresh.write_text("".join(f"{name}={value}\n" for name, value in environ.items()))
        fresh.replace(self._file)

    def begin(self, environ: dict[str, str], **more: Any) -> Sidecar:
        self.write(environ)
        self.sidecar = self._start(self._more, **more)
        return self.sidecar

    def hang_up(self, environ: dict[str, str]) -> dict[str, Any]:
        """The last line about it, once it is done."""
        self.write(environ)
        before = len(self.sidecar.lines)
        self.sidecar.send_signal(signal.SIGHUP)
        ends = ("configuration reloaded", "the configuration was not reloaded: the one before stays in force")
        return self.sidecar.wait_for_line(lambda line: line.get("message") in ends, before)

    def post(self, environ: dict[str, str]) -> Answer:
        self.write(environ)
        return ask(f"http://127.0.0.1:{self.sidecar.admin_port}/reload", "POST")


@pytest.fixture
def place(start: Callable[..., Sidecar], tmp_path: Path) -> Place:
    return Place(start, tmp_path)


def of(provider: Provider, credential: str = OLD, **more: str) -> dict[str, str]:
    url = f"openai+http://127.0.0.1:{provider.port}/v1"
    environ = {"LLM_PROXY_PROVIDER_SIM": url, "LLM_PROXY_PROVIDER_SIM_API_KEY": credential}
    return {**environ, "LLM_PROXY_DEFAULT_PROVIDER": "sim", "LLM_PROXY_KEYS": f"ci={KEY},old={OTHER}", **more}


def call(client: RawClient, key: str, body: bytes = BODY) -> RawAnswer:
    fields = (("authorization", f"Bearer {key}"), ("content-type", "application/json"))
    client.request("POST", "/v1/chat/completions", body, *fields, host="localhost")
    return client.recv_response("POST")


def credentials(provider: Provider) -> list[str]:
    return [seen.get("authorization") or "" for seen in provider.seen()]


def test_a_stream_ends_well_and_the_next_request_goes_by_the_new_configuration(
    place: Place, provider: Provider
) -> None:
    go = threading.Event()
    script: list[Step] = [Send(CHUNKED + chunk(EVENT)), Wait(go), Send(chunk(END) + b"0\r\n\r\n")]
    with ScriptedUpstream(script) as slow:
        first = f"openai+http://127.0.0.1:{slow.port}/v1"
        before = of(provider, LLM_PROXY_PROVIDER_SLOW=first, LLM_PROXY_DEFAULT_PROVIDER="slow")
        sidecar = place.begin(before)
        with RawClient("127.0.0.1", sidecar.port) as client, RawClient("127.0.0.1", sidecar.port) as other:
            fields = (("authorization", f"Bearer {OTHER}"), ("content-type", "application/json"))
            client.request("POST", "/v1/chat/completions", STREAM, *fields, host="localhost")
            client.buffer = client.recv_until(EVENT) + client.buffer
            assert call(other, KEY, BODY.replace(b'"m"', b'"sim/m"')).status == 200
            # Its provider goes, its key goes, another one has limits: none of that is its business.
            gone = of(provider, NEW, LLM_PROXY_KEYS=f"ci={KEY}", LLM_PROXY_LIMITS="all: concurrent=1; key ci: rpm=2/2")
            noted = place.hang_up(gone)
            assert any(line.startswith("~ providers.sim.credential: bearer #") for line in sidecar_changes(sidecar))
            assert noted["level"] == "info"
            assert [call(other, KEY).status for _ in range(3)] == [200, 200, 429]
            assert credentials(provider) == [f"Bearer {OLD}", f"Bearer {NEW}", f"Bearer {NEW}"]
            go.set()
            answer = client.recv_response("POST")
            assert answer.ending is Ending.CLEAN and answer.body == EVENT + END
            assert call(client, OTHER).status == 401, "the same connection, the next request"
    [told] = [receipt for receipt in sidecar.wait_for_receipts(6) if receipt["stream"]]
    assert (told["provider"], told["key"], told["complete"]) == ("slow", "old", True)
    assert not any(secret.encode() in sidecar.stdout for secret in (OLD, NEW, KEY, OTHER))


def sidecar_changes(sidecar: Sidecar) -> list[str]:
    return [change for line in sidecar.lines for change in line.get("changes", [])]


def test_a_key_that_was_known_all_along_is_looked_at_again(place: Place, provider: Provider) -> None:
    """What was decided about a head stands for the next one that is the same, until something changes."""
    sidecar = place.begin(of(provider))
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert [call(client, OTHER).status for _ in range(3)] == [200] * 3
        place.hang_up(of(provider, LLM_PROXY_KEYS=f"ci={KEY}"))
        assert call(client, OTHER).status == 401


def test_a_provider_s_new_credential_is_used_on_a_connection_that_knew_the_old_one(
    place: Place, provider: Provider
) -> None:
    sidecar = place.begin(of(provider))
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert [call(client, KEY).status for _ in range(2)] == [200] * 2
        assert place.post(of(provider, NEW)).status == 200
        assert call(client, KEY).status == 200
    assert credentials(provider) == [f"Bearer {OLD}", f"Bearer {OLD}", f"Bearer {NEW}"]


@pytest.mark.parametrize("by", ["signal", "admin"])
def test_a_wrong_configuration_changes_nothing_and_all_of_it_is_told(place: Place, provider: Provider, by: str) -> None:
    sidecar = place.begin(of(provider))
    sidecar.may_log_errors = True
    wrong = of(provider, NEW, LLM_PROXY_KEYS=f"x={KEY}x", LLM_PROXY_LIMITS="all: rpm=x", LLM_PROXY_MAX_BODY="big")
    if by == "signal":
        assert place.hang_up(wrong)["errors"] == 2
    else:
        answer = place.post(wrong)
        assert (answer.status, answer.document["error"]["code"]) == (409, "conflict")
        assert len(answer.document["error"]["errors"]) == 2
        sidecar.wait_for_line(lambda line: line.get("errors") == 2)
    told = [line["message"].partition(":")[0] for line in sidecar.errors]
    assert told[:2] == ["LLM_PROXY_MAX_BODY", "LLM_PROXY_LIMITS"]
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert [call(client, key).status for key in (KEY, OTHER)] == [200, 200]
    assert credentials(provider) == [f"Bearer {OLD}"] * 2
    right = place.post(of(provider, NEW))
    assert right.status == 200 and len(right.document["changes"]) == 1


def test_what_takes_a_restart_is_named_and_the_rest_is_done(place: Place, provider: Provider) -> None:
    sidecar = place.begin(of(provider))
    more = {"LLM_PROXY_LOG": "text", "LLM_PROXY_TIMEOUT_STREAM": "7", "LLM_PROXY_TYPO": "x"}
    told = place.post(of(provider, **more)).document
    assert told["takes_restart"] == ["LLM_PROXY_LOG: takes a restart"]
    assert told["changes"] == ["~ LLM_PROXY_TIMEOUT_STREAM: 300 -> 7"]
    assert len(told["warnings"]) == 1 and "LLM_PROXY_TYPO" in told["warnings"][0]
    noted = sidecar.wait_for_line(lambda line: line.get("message") == "LLM_PROXY_LOG: takes a restart")
    assert noted["level"] == "warn"
    assert place.post(of(provider, **more)).document["changes"] == [], "once more: nothing new"


def test_a_token_of_the_operator_is_renewed(place: Place, provider: Provider) -> None:
    sidecar = place.begin(of(provider, LLM_PROXY_ADMIN_TOKEN=KEY))
    url = f"http://127.0.0.1:{sidecar.admin_port}"
    assert place.post(of(provider)).status == 401
    place.hang_up(of(provider, LLM_PROXY_ADMIN_TOKEN=OTHER))
    asked = [ask(f"{url}/keys", authorization=f"Bearer {value}").status for value in (KEY, OTHER)]
    assert asked == [401, 200]
    assert ask(f"{url}/reload", "POST", authorization=f"Bearer {OTHER}").document["changes"] == []


def test_keys_that_have_come_are_listed_as_static(place: Place, provider: Provider) -> None:
    sidecar = place.begin(of(provider))
    place.hang_up(of(provider, LLM_PROXY_KEYS=f"ci={KEY},new={OTHER}", LLM_PROXY_LIMITS="key new: rpm=6"))
    keys = ask(f"http://127.0.0.1:{sidecar.admin_port}/keys").document["keys"]
    assert [(key["name"], key["static"], key["limits"]) for key in keys] == [("ci", True, ""), ("new", True, "rpm=6")]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_without_its_environment_it_knows_what_it_was_started_with(
    start: Callable[..., Sidecar], provider: Provider, tmp_path: Path
) -> None:
    """LLM_PROXY_CLEAR_ENV: what was handed over in memory is what is read again."""
    secret = tmp_path / "secret"
    secret.write_text(OLD)
    environ = of(provider, LLM_PROXY_CLEAR_ENV="on", LLM_PROXY_PROVIDER_SIM_API_KEY_FILE=str(secret))
    del environ["LLM_PROXY_PROVIDER_SIM_API_KEY"]
    place = Place(start, tmp_path, **environ)
    sidecar = place.begin({})
    secret.write_text(NEW)
    place.hang_up({"LLM_PROXY_LIMITS": "key ci: rpm=60"})
    changed = [line.partition(":")[0] for line in sidecar_changes(sidecar)]
    assert sorted(changed) == ["+ limits key ci", "~ providers.sim.credential"]
    with RawClient("127.0.0.1", sidecar.port) as client:
        assert [call(client, key).status for key in (KEY, OTHER)] == [200, 200]
    assert credentials(provider) == [f"Bearer {NEW}"] * 2
    assert KEY.encode() not in Path(f"/proc/{sidecar.process.pid}/cmdline").read_bytes()
    assert sidecar.stderr == b""


def test_many_at_once_come_to_an_end_with_the_last_one_in_force(place: Place, provider: Provider) -> None:
    sidecar = place.begin(of(provider))
    answers: list[Answer] = []
    for seconds in range(1, 9):
        place.write(of(provider, LLM_PROXY_TIMEOUT_STREAM=str(seconds)))
        sidecar.send_signal(signal.SIGHUP)
    asking = [threading.Thread(target=lambda: answers.append(place.post(of(provider)))) for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert [answer.status for answer in answers] == [200] * 8
    assert place.post(of(provider)).document["changes"] == []
    now = place.post(of(provider, LLM_PROXY_TIMEOUT_STREAM="8")).document["changes"]
    assert json.dumps(now) == '["~ LLM_PROXY_TIMEOUT_STREAM: 300 -> 8"]'
