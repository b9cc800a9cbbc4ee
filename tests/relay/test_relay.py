"""What all connections share: draining, sinks, ids, the lines of a provider."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.outcome import Kind
from proxy.relay.connect import ConnectFailed
from proxy.relay.request import credential_fields
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage


def drain(stage: Stage, grace: float = 10.0) -> None:
    """Begin to drain; `advance` carries it on."""
    stage.relay.tasks.start(_drain(stage, grace))
    stage.loop.run_ready()


async def _drain(stage: Stage, grace: float) -> None:
    relay = stage.relay
    tasks, relay.tasks = relay.tasks, type(relay.tasks)(stage.loop)  # so that close() does not wait for itself
    await relay.drain(grace)
    relay.tasks = tasks
    stage.is_drained = True  # type: ignore[attr-defined]


def is_drained(stage: Stage) -> bool:
    return getattr(stage, "is_drained", False)


@pytest.fixture
def stage():  # type: ignore[no-untyped-def]
    with Stage() as stage:
        yield stage
        stage.relay.deadlines.start()  # drain has stopped it; the end of the stage counts its timer


def test_how_targets_and_credentials_stand_is_that_of_the_providers_there_are() -> None:
    with Stage() as stage:
        relay, now = stage.relay, stage.loop.time()
        assert relay.standing() == ({}, [], now)
        provider = relay.snapshot.providers["openai"]
        health, known = relay.health.of(("openai", "m")), relay.credentials_of(provider)
        assert relay.standing() == ({("openai", "m"): health}, [(provider, known)], now)
        targets = relay.standing()[0]
        relay.health.of(("openai", "other"))
        assert len(targets) == 1, "it is of one moment"
        relay.snapshot = replace(relay.snapshot, providers={"openai": replace(provider)})
        assert relay.standing()[1] == [], "of a provider that was configured anew nothing is known"
        relay.snapshot = replace(relay.snapshot, providers={})
        assert relay.standing()[1] == []


def test_idle_connections_are_closed_at_once(stage: Stage) -> None:
    stage.warm(2)
    client = stage.client()
    drain(stage)
    assert client.transport.closed
    assert is_drained(stage)
    assert stage.pooled == 0
    assert all(upstream.is_gone for upstream in stage.upstreams)


def test_a_goodbye_that_does_not_come_holds_nothing_up(stage: Stage) -> None:
    """Idle SDKs never answer the one of TLS."""
    client = stage.client(sslcontext=object())
    client.transport.close = lambda: setattr(client.transport, "closed", True)  # type: ignore[method-assign]
    drain(stage)
    stage.advance(0.9)
    assert not client.transport.aborted
    assert not is_drained(stage)
    stage.advance(0.4)
    assert client.transport.aborted
    assert is_drained(stage)


def test_what_runs_may_end_and_is_told_to_close(stage: Stage) -> None:
    client = stage.client()
    client.says(s.ask() + s.ask())
    drain(stage)
    stage.advance(5.0)
    assert not client.is_gone
    stage.upstream().says(s.unary())
    assert client.heard() == s.passed_on(end=b"connection: close\r\n")
    assert len(stage.receipts) == 1, "what was pipelined behind it is not taken"
    stage.advance(5.3)
    assert is_drained(stage)


def test_a_stream_that_runs_may_end(stage: Stage) -> None:
    client = stage.client()
    client.says(s.ask_stream())
    stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
    drain(stage)
    stage.advance(9.0)
    stage.upstream().says(s.chunk(s.DONE) + s.LAST)
    assert stage.receipt().complete
    assert client.transport.closed
    assert stage.pooled == 0 or is_drained(stage)
    stage.advance(1.0)
    assert is_drained(stage)


def begin_document(stage: Stage, client: Peer) -> None:
    client.says(s.ask())


def begin_stream(stage: Stage, client: Peer) -> None:
    client.says(s.ask_stream())
    stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))


def begin_body(stage: Stage, client: Peer) -> None:
    client.says(s.ask()[:-3])


@pytest.mark.parametrize("begin", [begin_document, begin_stream, begin_body])
def test_what_takes_too_long_is_told(begin, stage: Stage) -> None:  # type: ignore[no-untyped-def]
    client = stage.client()
    begin(stage, client)
    client.heard()
    drain(stage)
    stage.advance(9.9)
    assert client.heard() == b""
    stage.advance(0.1)
    heard = client.heard()
    assert b'"code":"shutdown"' in heard
    assert not heard.endswith(s.LAST)
    receipt = stage.receipt()
    assert (receipt.ended_by.value, receipt.ended_kind) == ("proxy", "shutdown")
    assert receipt.status == (200 if begin is begin_stream else 503)
    stage.advance(0.2)
    assert is_drained(stage)
    assert client.is_gone


def test_a_client_that_reads_nothing_does_not_stop_the_end(stage: Stage) -> None:
    client = stage.client()
    begin_stream(stage, client)
    client.stops_reading()
    drain(stage)
    stage.advance(10.2)
    assert client.transport.aborted
    assert is_drained(stage)
    assert stage.receipt().ended_kind == "shutdown"


def test_who_comes_at_the_very_end_leaves_a_receipt_too(stage: Stage) -> None:
    """Its handshake, say, took longer than the grace."""
    slow = stage.client()
    begin_stream(stage, slow)
    drain(stage)
    stage.advance(10.05)
    late = stage.client()
    late.says(s.ask())
    stage.advance(0.2)
    assert is_drained(stage)
    assert b'"code":"shutdown"' in late.heard()
    assert [receipt.ended_kind for receipt in stage.receipts] == ["shutdown", "shutdown"]


def test_who_waits_for_a_link_is_told(stage: Stage) -> None:
    stage.holds_connects = True
    client = stage.client()
    client.says(s.ask())
    drain(stage)
    stage.advance(10.2)
    assert s.status_of(client.heard()) == 503
    receipt = stage.receipt()
    assert (receipt.letters, receipt.ended_kind) == ("PC", "shutdown")
    stage.holds_connects = False


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_ids_are_unique_and_in_order() -> None:
    with Stage() as stage:
        client = stage.client()
        for _ in range(20):
            client.says(s.request(b"POST", b"/nowhere", b""))
        assert [receipt.id for receipt in stage.receipts] == [f"0123456789ab-{n:x}" for n in range(1, 21)]


def test_every_relay_has_a_name_of_its_own() -> None:
    from proxy.relay.relay import Relay

    with Stage() as stage:
        names = {Relay(stage.loop, stage.options, stage.admission, stage.relay.snapshot).name for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith(b"llm-proxy-") and len(name) == 22 for name in names)


def test_all_sinks_hear_of_it() -> None:
    with Stage() as stage:
        more: list[object] = []
        stage.relay._sinks = (*stage.relay._sinks, more.append)
        client = stage.client()
        client.says(s.request(b"POST", b"/nowhere", b""))
        assert more == stage.receipts
        assert len(more) == 1


def test_a_provider_that_changed_is_asked_as_it_is_now() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        upstream = stage.upstream()
        assert b"\r\nhost: openai.test\r\n" in upstream.heard()
        upstream.says(s.unary())
        changed = s.openai_provider(host_header=b"new.test")
        stage.relay.snapshot = replace(stage.relay.snapshot, providers={"openai": changed}, default=changed)
        client.says(s.ask())
        assert b"\r\nhost: new.test\r\n" in upstream.heard()
        upstream.says(s.unary())
        assert len(stage.receipts) == 2


def test_a_provider_without_a_credential_sends_none() -> None:
    assert credential_fields(s.openai_provider(), None) == []


def test_no_secret_reaches_receipts_or_errors() -> None:
    with Stage() as stage:
        client = stage.client()
        stage.connects.append(ConnectFailed(Kind.CONNECT_FAILED, "no"))
        client.says(s.ask(b"Authorization: Bearer client-secret", body=s.BODY))
        client.says(s.get(b"/v1/models?key=query-secret"))
        stage.upstream().says(s.unary(b"", b"401 No"))
        shown = repr(stage.receipts) + client.heard().decode()
        for secret in ("client-secret", "query-secret", "sk-provider"):
            assert secret not in shown
