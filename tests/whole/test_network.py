"""What is around HTTP: upgrade offers, TLS on both sides, Unix sockets, a proxy on the way to the provider."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import trustme

from proxy.simulator.speech import TEXT
from tests.fakes.raw import Ending, RawClient, ScriptedUpstream, Send
from tests.whole.conftest import KEY
from tests.whole.processes import ROOT, Provider, Sidecar
from tests.whole.tunnel import TunnelProxy

JSON = ("content-type", "application/json")
KEYED = ("authorization", f"Bearer {KEY}")
CHAT = b'{"model":"m","messages":[]}'
STREAM = b'{"model":"m","stream":true,"messages":[]}'
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


# --- the offer of every Java client ---------------------------------------------------------------------------------

# java.net.http.HttpClient with its default version, on its first clear-text request, field for field.
JDK = (
    b"POST %b HTTP/1.1\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Content-Length: %d\r\n"
    b"Host: localhost:8080\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    b"Upgrade: h2c\r\n"
    b"User-Agent: Java-http-client/21.0.2\r\n"
    b"authorization: Bearer " + KEY.encode() + b"\r\n"
    b"content-type: application/json\r\n"
    b"\r\n%b"
)
HIDDEN = b"GET /v1/hidden HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n"


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/messages", b"/v1/files", b"/openai/v1/things"])
def test_an_offer_of_h2c_is_passed_over(sidecar: Sidecar, provider: Provider, path: bytes) -> None:
    body = CHAT.replace(b"{", b'{"max_tokens":1,')
    with RawClient("127.0.0.1", sidecar.port) as client:
        for _ in range(2):  # and the connection stays a good one
            client.send(JDK % (path, len(body), body))
            answer = client.recv_response("POST")
            assert answer.status == 200 and answer.ending is Ending.CLEAN and answer.informational == []
    assert [seen.body for seen in provider.seen()] == [body, body]
    for seen in provider.seen():
        assert all(seen.get(name) is None for name in ("upgrade", "http2-settings", "connection"))


@pytest.mark.parametrize("split", [0, 1, 40, 400])
def test_a_request_hidden_in_the_body_of_such_an_offer_stays_a_body(
    sidecar: Sidecar, provider: Provider, split: int
) -> None:
    sent = JDK % (b"/v1/files", len(HIDDEN), HIDDEN)
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.send(sent[: len(sent) - split])
        client.send(sent[len(sent) - split :])
        assert client.recv_response("POST").status == 200
        client.request("GET", "/v1/models", b"", KEYED)  # the next answer is the next request's
        answer = client.recv_response()
        assert answer.status == 200 and b'"object":"list"' in answer.body
    assert [seen.target for seen in provider.seen()] == ["/v1/files", "/v1/models"]
    assert provider.seen()[0].body == HIDDEN
    assert [receipt["path"] for receipt in sidecar.wait_for_receipts(2)] == ["/v1/files", "/v1/models"]


def test_a_streamed_answer_to_such_an_offer(sidecar: Sidecar, provider: Provider) -> None:
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.send(JDK % (b"/v1/chat/completions", len(STREAM), STREAM))
        answer = client.recv_response("POST")
    assert answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")


# --- TLS and Unix sockets -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The CA and a certificate for localhost, as files."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    made = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(made["ca"])
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(made["cert"], append=number > 0)
    issued.private_key_pem.write_to_path(made["key"])
    return made


def server_context(authority: trustme.CA, *, asks_for_one: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    if asks_for_one:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls_with_clients(
    start: Callable[..., Sidecar], provider: Provider, authority: trustme.CA, files: dict[str, str]
) -> None:
    env = {**provider.environ(), "LLM_PROXY_TLS_CERT": files["cert"], "LLM_PROXY_TLS_KEY": files["key"]}
    sidecar = start(env)
    with RawClient("127.0.0.1", sidecar.port, tls=client_context(authority)) as client:
        for _ in range(2):
            client.request("POST", "/v1/chat/completions", STREAM, JSON, host="localhost")
            answer = client.recv_response("POST")
            assert answer.ending is Ending.CLEAN and answer.body.endswith(b"data: [DONE]\n\n")
        client.request("POST", "/v1/chat/completions", STREAM, JSON, ("x-simulate", "cut=2"), host="localhost")
        assert client.recv_response("POST").ending is not Ending.CLEAN
    with openai.OpenAI(
        base_url=f"https://localhost:{sidecar.port}/v1",
        api_key="any",
        http_client=openai.DefaultHttpxClient(verify=client_context(authority)),
    ) as sdk:
        answered = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
        assert answered.choices[0].message.content == TEXT
    with RawClient("127.0.0.1", sidecar.port) as clear:  # no TLS at all: it must not hang, nor be served
        clear.request("GET", "/v1/models", host="localhost")
        assert not clear.recv_to_end()[0].startswith(b"HTTP/1.1 200")


def test_a_client_that_never_shakes_hands(
    start: Callable[..., Sidecar], provider: Provider, files: dict[str, str]
) -> None:
    limits = {"LLM_PROXY_TIMEOUT_HEAD": "0.4"}
    env = {"LLM_PROXY_TLS_CERT": files["cert"], "LLM_PROXY_TLS_KEY": files["key"]}
    sidecar = start({**provider.environ(), **env, **limits})
    with RawClient("127.0.0.1", sidecar.port) as silent:
        assert silent.recv_to_end()[0] == b""


def test_tls_with_the_provider(
    start: Callable[..., Sidecar], provide: Any, authority: trustme.CA, files: dict[str, str]
) -> None:
    provider = provide(tls=server_context(authority))
    url = f"openai+https://localhost:{provider.port}/v1"
    sidecar = start({"LLM_PROXY_PROVIDER_X": url, "LLM_PROXY_UPSTREAM_CA": files["ca"]})
    with RawClient("127.0.0.1", sidecar.port) as client:
        for word, ending in (("", Ending.CLEAN), ("cut=3", Ending.CUT), ("events=500", Ending.CLEAN)):
            client.request("POST", "/v1/chat/completions", STREAM, JSON, ("x-simulate", word), host="localhost")
            answer = client.recv_response("POST")
            assert answer.status == 200 and answer.ending is ending
            if ending is Ending.CUT:
                assert b"llm-proxy: " in answer.body
                client = _again(client, sidecar)
        client.close()
    assert sidecar.wait_for_receipts(3)[0]["complete"] is True


def _again(client: RawClient, sidecar: Sidecar) -> RawClient:
    client.close()
    return RawClient("127.0.0.1", sidecar.port)


def test_a_provider_that_nobody_vouches_for(start: Callable[..., Sidecar], provide: Any, authority: trustme.CA) -> None:
    """The system's authorities do not know ours: nothing is sent, and the error says why."""
    provider = provide(tls=server_context(authority))
    sidecar = start({"LLM_PROXY_PROVIDER_X": f"openai+https://localhost:{provider.port}/v1"})
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request("POST", "/v1/chat/completions", CHAT, JSON, host="localhost")
        answer = client.recv_response("POST")
    assert answer.status == 502 and b"certificate" in answer.body
    assert provider.seen() == []


def test_a_provider_under_another_name(
    start: Callable[..., Sidecar], provide: Any, authority: trustme.CA, files: dict[str, str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    provider = provide(tls=context)
    url = f"openai+https://localhost:{provider.port}/v1"
    sidecar = start({"LLM_PROXY_PROVIDER_X": url, "LLM_PROXY_UPSTREAM_CA": files["ca"]})
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request("POST", "/v1/chat/completions", CHAT, JSON, host="localhost")
        assert client.recv_response("POST").status == 502
    assert provider.seen() == []


@pytest.mark.parametrize("has_certificate", [True, False])
def test_a_client_certificate_for_the_provider(
    start: Callable[..., Sidecar], provide: Any, authority: trustme.CA, files: dict[str, str], has_certificate: bool
) -> None:
    provider = provide(tls=server_context(authority, asks_for_one=True))
    env = {"LLM_PROXY_UPSTREAM_CERT": files["cert"], "LLM_PROXY_UPSTREAM_KEY": files["key"]} if has_certificate else {}
    url = f"openai+https://localhost:{provider.port}/v1"
    sidecar = start({"LLM_PROXY_PROVIDER_X": url, "LLM_PROXY_UPSTREAM_CA": files["ca"], **env})
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request("POST", "/v1/chat/completions", CHAT, JSON, host="localhost")
        assert client.recv_response("POST").status == (200 if has_certificate else 502)
    assert len(provider.seen()) == int(has_certificate)


def test_a_unix_socket(start: Callable[..., Sidecar], provider: Provider, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    sidecar = start(provider.environ(), address=f"unix:{path}")
    assert Path(path).stat().st_mode & 0o777 == 0o600
    with RawClient(path=path) as client:
        client.request("POST", "/v1/chat/completions", STREAM, JSON, host="localhost")
        answer = client.recv_response("POST")
        assert answer.ending is Ending.CLEAN and answer.body.endswith(b"data: [DONE]\n\n")
    assert sidecar.wait_for_receipts(1)[0]["client"].startswith("unix")
    sidecar.stop()
    assert not Path(path).exists()


def test_a_socket_that_a_dead_process_left_is_taken_over(
    start: Callable[..., Sidecar], provider: Provider, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    first = start(provider.environ(), address=f"unix:{path}")
    first.kill()
    assert Path(path).exists()
    start(provider.environ(), address=f"unix:{path}")
    with RawClient(path=path) as client:
        client.request("GET", "/v1/models", host="localhost")
        assert client.recv_response().status == 200


# --- a proxy on the way ---------------------------------------------------------------------------------------------


@pytest.fixture
def tunnel() -> Iterator[TunnelProxy]:
    with TunnelProxy() as running:
        yield running


def test_https_goes_through_a_tunnel(
    start: Callable[..., Sidecar], provide: Any, authority: trustme.CA, files: dict[str, str], tunnel: TunnelProxy
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("provider.invalid").configure_cert(context)  # a name that only the proxy can look up
    provider = provide(tls=context)
    tunnel.leads_to("localhost", provider.port)
    sidecar = start(
        {
            "LLM_PROXY_PROVIDER_X": "openai+https://provider.invalid:4443/v1",
            "LLM_PROXY_UPSTREAM_CA": files["ca"],
            "HTTPS_PROXY": f"http://user:secret@127.0.0.1:{tunnel.port}",
        }
    )
    with RawClient("127.0.0.1", sidecar.port) as client:
        for _ in range(2):
            client.request("POST", "/v1/chat/completions", STREAM, JSON, host="localhost")
            answer = client.recv_response("POST")
            assert answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")
    assert len(tunnel.heads) == 1, "the tunnel is kept like any other connection"
    assert tunnel.heads[0].startswith(b"CONNECT provider.invalid:4443 HTTP/1.1\r\nHost: provider.invalid:4443\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n" in tunnel.heads[0]
    assert all(seen.get("proxy-authorization") is None for seen in provider.seen())


@pytest.mark.parametrize(
    "told",
    [
        b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n\r\nmore",
    ],
)
def test_a_proxy_that_refuses(start: Callable[..., Sidecar], tunnel: TunnelProxy, told: bytes) -> None:
    tunnel.says(told)
    env = {
        "LLM_PROXY_PROVIDER_X": "openai+https://provider.invalid/v1",
        "HTTPS_PROXY": f"http://127.0.0.1:{tunnel.port}",
    }
    sidecar = start(env)
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request("POST", "/v1/chat/completions", CHAT, JSON, host="localhost")
        answer = client.recv_response("POST")
    assert answer.status == 502 and "llm-proxy: the proxy" in json.loads(answer.body)["error"]["message"]


def test_no_proxy_is_obeyed(start: Callable[..., Sidecar], provider: Provider, tunnel: TunnelProxy) -> None:
    env = {**provider.environ(), "HTTP_PROXY": f"http://127.0.0.1:{tunnel.port}", "NO_PROXY": "127.0.0.1"}
    sidecar = start(env)
    with RawClient("127.0.0.1", sidecar.port) as client:
        client.request("GET", "/v1/models", host="localhost")
        assert client.recv_response().status == 200
    assert tunnel.heads == []


# --- the provider's connections -------------------------------------------------------------------------------------


def test_connections_are_kept_and_a_dead_one_is_replaced(start: Callable[..., Sidecar]) -> None:
    closed = threading.Event()
    with ScriptedUpstream([Send(OK)]) as upstream:
        sidecar = start({"LLM_PROXY_PROVIDER_X": f"openai+http://127.0.0.1:{upstream.port}/v1"})
        with RawClient("127.0.0.1", sidecar.port) as client:
            for _ in range(5):
                client.request("POST", "/v1/chat/completions", CHAT, JSON, host="localhost")
                assert client.recv_response("POST").status == 200
        assert upstream.accepted == 1 and not closed.is_set()
    assert [receipt["attempts"][0]["reused"] for receipt in sidecar.wait_for_receipts(5)] == [False] + [True] * 4


@pytest.mark.parametrize("word", ["drop-next", "reset-next"])
def test_a_connection_that_died_while_idle_costs_nobody_an_answer(
    sidecar: Sidecar, provider: Provider, word: str
) -> None:
    with RawClient("127.0.0.1", sidecar.port) as client:
        for number in range(6):
            fields = (JSON, KEYED, ("x-simulate", word))
            client.request("POST", "/v1/chat/completions", CHAT, *fields)
            answer = client.recv_response("POST")
            assert answer.status == 200, (number, answer)
    receipts = sidecar.wait_for_receipts(6)
    assert all(receipt["complete"] for receipt in receipts)
    assert sum(len(receipt["attempts"]) for receipt in receipts) > 6, "some of them were tried again"


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_key_may_be_a_user_at_a_unix_socket(
    start: Callable[..., Sidecar], provider: Provider, tmp_path: Path, is_ours: bool
) -> None:
    """No secret is needed: the system says who is at the other end."""
    database = str(tmp_path / "ledger.db")
    uid = os.getuid() + (not is_ours)
    command = [sys.executable, "-m", "proxy", "keys", "create", "me", "--uid", str(uid), "--db", database]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=30)
    path = str(tmp_path / "s")
    sidecar = start({**provider.environ(), "LLM_PROXY_DB": database}, address=f"unix:{path}")
    with RawClient(path=path) as client:
        client.request("POST", "/v1/chat/completions", CHAT, JSON, host="localhost")
        assert client.recv_response("POST").status == (200 if is_ours else 401)
    assert sidecar.wait_for_receipts(1)[0]["key"] == ("me" if is_ours else None)
