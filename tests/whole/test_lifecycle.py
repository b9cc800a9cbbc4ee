"""The life of the process: signals in the middle of streams, a provider that is killed, probes, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy import outcome
from tests.fakes.raw import Ending, RawClient, ScriptedUpstream, Send, Step, Wait, WaitEnd
from tests.whole.processes import PATIENCE, ROOT, Provider, Sidecar

JSON = ("content-type", "application/json")
BODY = b'{"model":"m","stream":true,"max_tokens":1,"messages":[]}'
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture
def paused() -> Iterator[tuple[ScriptedUpstream, threading.Event]]:
    """A provider that sends one event and goes on when told."""
    go = threading.Event()
    script: list[Step] = [Send(CHUNKED + chunk(EVENT % b"one")), Wait(go), Send(chunk(END) + b"0\r\n\r\n")]
    with ScriptedUpstream(script) as upstream:
        yield upstream, go
        go.set()


def begin_stream(sidecar: Sidecar, path: str = "/v1/chat/completions") -> RawClient:
    """A client in the middle of a stream."""
    client = RawClient("127.0.0.1", sidecar.port)
    client.request("POST", path, BODY, JSON, host="localhost")
    head = client.recv_until(b"\r\n\r\n")
    first = client.recv_until(b"\n\r\n" if path == "/api/chat" else b"\n\n\r\n")
    client.buffer = head + first + client.buffer
    return client


def ask_admin(sidecar: Sidecar, path: str) -> tuple[int, Any]:
    with RawClient("127.0.0.1", sidecar.admin_port) as client:
        client.request("GET", path, host="localhost")
        answer = client.recv_response()
    try:
        return answer.status, json.loads(answer.body)
    except ValueError:
        return answer.status, answer.body


def test_the_first_word_tells_whether_what_runs_is_compiled(start: Callable[..., Sidecar], provider: Provider) -> None:
    # Also that the compiled suite (.ci/run) starts what it means to test.
    ready = start(provider.environ()).wait_for_line(lambda line: line.get("message") == "ready")
    assert ready["compiled"] is not outcome.__file__.endswith(".py")


def test_a_stream_ends_well_within_the_grace(
    start: Callable[..., Sidecar], paused: tuple[ScriptedUpstream, threading.Event]
) -> None:
    upstream, go = paused
    sidecar = start({"LLM_PROXY_PROVIDER_X": f"openai+http://127.0.0.1:{upstream.port}/v1"})
    idle = RawClient("127.0.0.1", sidecar.port)
    assert ask_admin(sidecar, "/readyz")[0] == 200
    with begin_stream(sidecar) as client:
        sidecar.may_end = True
        sidecar.send_signal(signal.SIGTERM)
        noted = sidecar.wait_for_line(lambda line: line.get("message") == "shutting down")
        assert noted["in_flight"] == 1
        assert idle.recv() == b"", "an idle connection is closed"
        status, reasons = ask_admin(sidecar, "/readyz")
        assert status == 503 and "shutting down" in str(reasons)
        assert ask_admin(sidecar, "/healthz")[0] == 200
        with pytest.raises(OSError):
            RawClient("127.0.0.1", sidecar.port)
        go.set()
        answer = client.recv_response("POST")
        assert answer.ending is Ending.CLEAN and answer.body == EVENT % b"one" + END
        assert client.recv_to_end() == (b"", Ending.CLEAN)
    idle.close()
    assert sidecar.wait() == 0
    (receipt,) = sidecar.receipts
    assert receipt["complete"] is True, "and it was written before the end"
    assert sidecar.lines[-1]["message"] == "stopped"


SHUT: dict[str, tuple[str, bytes]] = {
    "openai": ("/v1/chat/completions", b'data: {"error":{"message":"llm-proxy: '),
    "anthropic": ("/v1/messages", b'event: error\ndata: {"type":"error"'),
    "responses": ("/v1/responses", b"data: {"),
    "gemini": ("/v1beta/models/m:streamGenerateContent?alt=sse", b'data: {"error":{'),
    "ollama": ("/api/chat", b'{"error":"llm-proxy: '),
}


@pytest.mark.parametrize("name", SHUT)
def test_a_stream_beyond_the_grace_is_told(start: Callable[..., Sidecar], provider: Provider, name: str) -> None:
    path, told = SHUT[name]
    sidecar = start({**provider.environ(), "LLM_PROXY_TIMEOUT_SHUTDOWN": "0.3"})
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request("POST", path, BODY, JSON, ("x-simulate", "pace=100 events=1000000"), host="localhost")
        client.buffer = client.recv_until(b'"model"' if name == "ollama" else b"data: ") + client.buffer
        sidecar.may_end = True
        sidecar.send_signal(signal.SIGTERM)
        answer = client.recv_response("POST")
    assert answer.ending is Ending.CUT
    body = answer.body.replace(b"\r\n", b"\n").rstrip(b"\n")
    last = body.rpartition(b"\n" if name == "ollama" else b"\n\n")[2]
    assert last.startswith(told) or (name == "responses" and b"error" in last), last
    assert b"shutting down" in last
    assert sidecar.wait() == 0
    (receipt,) = sidecar.receipts
    assert (receipt["complete"], receipt["ended_by"], receipt["ended_kind"]) == (False, "proxy", "shutdown")


def test_an_answer_that_is_drained_may_end_within_the_grace(start: Callable[..., Sidecar], provider: Provider) -> None:
    sidecar = start({**provider.environ(), "LLM_PROXY_DISCONNECT": "drain"})
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request(
            "POST", "/v1/chat/completions", BODY, JSON, ("x-simulate", "pace=50 events=30 output=30"), host="localhost"
        )
        client.recv_until(b"data: ")
    sidecar.mark()  # the loop has seen it leave
    sidecar.may_end = True
    sidecar.send_signal(signal.SIGTERM)
    noted = sidecar.wait_for_line(lambda line: line.get("message") == "shutting down")
    assert noted["in_flight"] >= 1
    assert sidecar.wait() == 0
    (receipt,) = sidecar.receipts
    assert (receipt["ended_kind"], receipt["usage"]["output"]) == ("client_left", 30)


def test_a_request_that_waits_at_the_end_of_the_grace(start: Callable[..., Sidecar], provider: Provider) -> None:
    """No answer has begun, so it is an answer: 503 in the dialect."""
    sidecar = start({**provider.environ(), "LLM_PROXY_TIMEOUT_SHUTDOWN": "0.3"})
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request("POST", "/v1/messages", BODY, JSON, ("x-simulate", "silent"), host="localhost")
        provider.wait_until(lambda simulator: bool(provider.seen()) and provider.seen()[0].complete)
        sidecar.may_end = True
        sidecar.send_signal(signal.SIGTERM)
        answer = client.recv_response("POST")
    assert answer.status == 503 and json.loads(answer.body)["type"] == "error"
    assert sidecar.wait() == 0


def test_an_interrupt_ends_like_a_termination_and_the_second_at_once(
    start: Callable[..., Sidecar], paused: tuple[ScriptedUpstream, threading.Event]
) -> None:
    sidecar = start({"LLM_PROXY_PROVIDER_X": f"openai+http://127.0.0.1:{paused[0].port}/v1"})
    with begin_stream(sidecar) as client:
        sidecar.may_end = True
        sidecar.send_signal(signal.SIGINT)
        sidecar.wait_for_line(lambda line: line.get("message") == "shutting down")
        assert sidecar.process.poll() is None
        sidecar.send_signal(signal.SIGINT)
        assert sidecar.wait() == 130
        answer = client.recv_response("POST")
        assert answer.ending is not Ending.CLEAN
        assert b'"code":"shutdown"' in answer.body
    assert sidecar.lines[-1]["message"] == "stopped at once"
    assert sidecar.lines[-2]["ended_kind"] == "shutdown"
    assert "Traceback" not in sidecar.stderr.decode()


def test_an_idle_process_ends_at_once(start: Callable[..., Sidecar], provider: Provider) -> None:
    sidecar = start(provider.environ())
    sidecar.may_end = True
    sidecar.send_signal(signal.SIGTERM)
    assert sidecar.wait() == 0 and sidecar.stderr == b""


def test_a_provider_that_is_killed_in_the_middle(start: Callable[..., Sidecar]) -> None:
    """kill -9: the kernel closes for it."""
    with subprocess.Popen(
        [sys.executable, "-m", "proxy", "simulate", "--port", "0", "--pace", "50", "--fault", "events=1000000"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split(b"http://127.0.0.1:")[1].split()[0])
            sidecar = start({"LLM_PROXY_PROVIDER_X": f"openai+http://127.0.0.1:{port}/v1"})
            with begin_stream(sidecar) as client:
                client.buffer = client.recv_until(b"hello") + client.buffer
                process.kill()
                answer = client.recv_response("POST")
            assert answer.ending is Ending.CUT and b"llm-proxy: " in answer.body and b"[DONE]" not in answer.body
        finally:
            process.kill()
            process.wait(PATIENCE)
    (receipt,) = sidecar.wait_for_receipts(1)
    assert (receipt["ended"], receipt["ended_kind"]) == ("UD", "reset")
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request("POST", "/v1/chat/completions", BODY, JSON, host="localhost")
        assert client.recv_response("POST").status == 502


def test_probes(start: Callable[..., Sidecar], provider: Provider) -> None:
    sidecar = start({**provider.environ(), "LLM_PROXY_HEALTH_LISTEN": "127.0.0.1:0"})
    assert len(sidecar.admin) == 2
    for address in sidecar.admin:
        with RawClient("127.0.0.1", int(address.rpartition(":")[2])) as client:
            for path in ("/healthz", "/readyz"):
                client.request("GET", path, host="localhost")
                assert client.recv_response().status == 200
    bare = start({})
    assert ask_admin(bare, "/healthz")[0] == 200
    status, reasons = ask_admin(bare, "/readyz")
    assert status == 503 and "no provider" in str(reasons)


def test_an_address_that_is_taken(start: Callable[..., Sidecar], provider: Provider) -> None:
    first = start(provider.environ())
    code, out, err = run("serve", LLM_PROXY_LISTEN=f"127.0.0.1:{first.port}", LLM_PROXY_ADMIN_LISTEN="off")
    assert code == 1 and f"127.0.0.1:{first.port}" in out + err and "Traceback" not in out + err


def run(*command: str, **env: str) -> tuple[int, str, str]:
    environ = {"PATH": os.environ["PATH"], **env}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *command], cwd=ROOT, env=environ, capture_output=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("command", "env", "code", "told"),
    [
        (("check",), {"OPENAI_API_KEY": "sk-1234567890"}, 0, "openai"),
        (("check",), {}, 0, "no provider"),
        (("check",), {"LLM_PROXY_LISTEN": "nowhere"}, 2, "LLM_PROXY_LISTEN"),
        (("check",), {"LLM_PROXY_LISTEN": "0.0.0.0:8080"}, 2, "LLM_PROXY_KEYS"),
        (("check",), {"LLM_PROXY_TIMEOUT_HEAD": "soon", "LLM_PROXY_MAX_BODY": "big"}, 2, "LLM_PROXY_MAX_BODY"),
        (("check",), {"LLM_PROXY_PROVIDER_X": "nofamily"}, 2, "LLM_PROXY_PROVIDER_X"),
        (("check",), {"LLM_PROXY_TLS_CERT": "/nowhere", "LLM_PROXY_TLS_KEY": "/nowhere"}, 2, "LLM_PROXY_TLS_CERT"),
        (("check",), {"OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, 2, "this proxy itself"),
        (("check", "--model", "gpt-4o"), {"OPENAI_API_KEY": "sk-1234567890"}, 0, "gpt-4o"),
        (("serve",), {"LLM_PROXY_AUTH": "keys", "LLM_PROXY_DB": "off"}, 2, "LLM_PROXY_KEYS"),
        (("nothing",), {}, 2, "usage"),
        (("check", "--nothing"), {}, 2, "usage"),
        ((), {}, 2, "usage"),
        (("--version",), {}, 0, "llm-proxy"),
        (("--help",), {}, 0, "serve"),
        (("simulate", "--fault", "ctu=3"), {}, 2, "did you mean cut"),
    ],
)
def test_exit_codes(command: tuple[str, ...], env: dict[str, str], code: int, told: str) -> None:
    got, out, err = run(*command, **env)
    assert got == code, out + err
    assert told in out + err and "Traceback" not in err
    if code == 2:
        assert out == ""


def test_all_errors_are_told_at_once() -> None:
    code, _, err = run("check", LLM_PROXY_TIMEOUT_HEAD="x", LLM_PROXY_MAX_BODY="y", LLM_PROXY_LISTEN="z")
    assert code == 2 and all(name in err for name in ("TIMEOUT_HEAD", "MAX_BODY", "LISTEN"))


@pytest.mark.parametrize(
    ("last", "kind"), [(END, "complete"), (b'data: {"error":{"message":"overloaded"}}\n\n', "error_event")]
)
def test_a_client_that_leaves_at_the_last_event_has_not_left(
    start: Callable[..., Sidecar], last: bytes, kind: str
) -> None:
    """SDKs close when they have what they want, before the message itself has ended."""
    with ScriptedUpstream([Send(CHUNKED + chunk(EVENT % b"one" + last)), WaitEnd()]) as upstream:
        sidecar = start({"LLM_PROXY_PROVIDER_X": f"openai+http://127.0.0.1:{upstream.port}/v1"})
        with RawClient("127.0.0.1", sidecar.port) as client:
            client.request("POST", "/v1/chat/completions", BODY, JSON, host="localhost")
            client.recv_until(last + b"\r\n")
        upstream.wait_until_closed()
    (receipt,) = sidecar.wait_for_receipts(1)
    assert (receipt["ended_kind"], receipt["complete"]) == (kind, kind == "complete")
