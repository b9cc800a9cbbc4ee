"""One link to a client: keep-alive and close, leaving, back-pressure, late callbacks, crowds, faults."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from proxy.catalog.secret import Secret
from proxy.outcome import Phase
from proxy.policy.keys import AuthMode, KeyRing
from proxy.relay import client as module
from proxy.relay.attempt import Attempt
from proxy.relay.attempts import Attempts
from proxy.relay.exchange import Exchange
from proxy.relay.options import ByteLimits, RelayOptions
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage

CLOSE = b"connection: close\r\n"


# -- keep-alive and close ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "lines", "keeps", "told"),
    [
        (b"1.1", [], True, b""),
        (b"1.1", [b"Connection: keep-alive"], True, b""),
        (b"1.1", [b"Connection: close"], False, CLOSE),
        (b"1.1", [b"Connection: Keep-Alive, CLOSE"], False, CLOSE),
        (b"1.0", [], False, CLOSE),
        (b"1.0", [b"Connection: keep-alive"], True, b"connection: keep-alive\r\n"),
    ],
)
def test_who_keeps_the_connection(version: bytes, lines: list[bytes], keeps: bool, told: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(*lines, version=version))
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on(end=told)
        assert client.is_gone is not keeps
        assert stage.pooled == 1, "the client's wish is not the upstream's"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_refusal_keeps_too(version: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/nowhere", b"x", b"Connection: keep-alive", version=version))
        answer = client.heard()
        assert s.status_of(answer) == 404
        assert (b"connection: keep-alive\r\n" in answer) is (version == b"1.0")
        assert not client.is_gone


def test_the_body_of_a_refused_request_is_not_the_next_requests() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/nowhere", b'{"model":"evil"}') + s.ask())
        assert stage.upstream().heard() == s.sent_on()
        stage.upstream().says(s.unary())
        assert client.heard().endswith(s.passed_on())


def test_a_refusal_in_the_middle_of_a_body_closes_lingering() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/nowhere", b"x" * 1000)[:-500])
        answer = client.heard()
        assert s.status_of(answer) == 404
        assert CLOSE in answer
        assert client.is_lingering
        client.says(b"x" * 500 + s.ask())
        assert client.heard() == b""
        assert sum(map(len, client.protocol.parser.pieces)) <= 500, "read, and thrown away"
        assert stage.upstreams == []


def test_fresh_deciding_for_each_request_on_one_connection() -> None:
    """What policy decided for one head stands again only for the very same head."""
    with Stage(mode=AuthMode.KEYS, keys={"ann": "key-a", "bob": "key-b"}) as stage:
        client = stage.client()
        seen = []
        for lines in ([b"x-api-key: key-a"], [b"x-api-key: key-a"], [b"x-api-key: key-b"], [], [b"x-api-key: key-c"]):
            client.says(s.ask(*lines))
            if stage.relay.pool.open > stage.pooled:
                stage.upstream().says(s.unary())
            receipt = stage.receipt()
            seen.append((receipt.key, receipt.status))
        assert seen == [("ann", 200), ("ann", 200), ("bob", 200), (None, 401), (None, 401)]


def test_connections_share_heads_and_never_what_was_granted() -> None:
    names = {b"key-a": "ann", b"key-b": "bob", b"key-c": None}
    with Stage(mode=AuthMode.KEYS, keys={"ann": "key-a", "bob": "key-b"}) as stage:
        clients = [stage.client(), stage.client()]
        heads: dict[bytes, Any] = {}
        # Each meets heads that are new, its own last one, and one that only the other has sent since.
        for at, key in (
            (0, b"key-a"), (1, b"key-b"), (0, b"key-b"), (0, b"key-b"), (0, b"key-a"), (1, b"key-a"), (1, b"key-c"),
            (0, b"key-c"), (0, b"key-a"), (1, b"key-b"), (1, b"key-b"),
        ):  # fmt: skip
            for body in (s.BODY, s.STREAM_BODY):
                clients[at].says(s.ask(b"Authorization: Bearer " + key, body=body))
                if stage.relay.pool.open > stage.pooled:
                    stage.upstream().says(s.unary())
                receipt = stage.receipt()
                assert (receipt.key, receipt.status) == (names[key], 200 if names[key] else 401), (at, key)
            known = clients[at].protocol.parser._known
            assert heads.setdefault(key, known).fields is known.fields, "it was read once for all connections"
        stage.admission.ring = KeyRing({"bob": Secret("key-a")}, AuthMode.KEYS)
        late = stage.client()
        late.says(s.ask(b"Authorization: Bearer key-a"))
        stage.upstream().says(s.unary())
        assert stage.receipt().key == "bob", "what a key opens is looked up on each connection"


def test_a_familiar_head_goes_where_it_says() -> None:
    with Stage() as stage:
        client = stage.client()
        for body, target in ((s.BODY, s.CHAT), (s.STREAM_BODY, s.CHAT), (s.BODY, s.CHAT)):
            client.says(s.ask(b"X-Same: 1", body=body))
            upstream = stage.upstream()
            assert upstream.heard() == s.sent_on(body, b"X-Same: 1", target=target)
            upstream.says(s.unary(b'{"not":"a stream"}'))
        client.says(s.request(b"POST", b"/v1/embeddings", s.BODY, b"X-Same: 1"))
        assert stage.upstream().heard() == s.sent_on(s.BODY, b"X-Same: 1", target=b"/v1/embeddings")


def test_a_new_snapshot_is_seen_by_the_next_request() -> None:
    from proxy.catalog.snapshot import Snapshot

    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(s.unary())
        other = s.openai_provider(name="other", host_header=b"other.test", credential=None)
        stage.relay.snapshot = Snapshot({"other": other}, other)
        client.says(s.ask())
        assert b"host: other.test\r\n" in stage.upstream().transport.sent
        assert b"sk-provider" not in stage.upstream().heard().rpartition(b"POST ")[2]


# -- leaving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_leaving_without_a_request_leaves_no_receipt(leave: str) -> None:
    with Stage() as stage:
        client = stage.client()
        getattr(client, leave)()
        assert client.is_gone
        assert stage.receipts == []


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_leaving_with_half_a_head_leaves_one(leave: str) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask()[:30])
        getattr(client, leave)()
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind, receipt.status) == ("CH", "client_left", 0)
        assert client.heard() == b""


def test_a_half_close_after_an_answer_lets_the_answer_leave() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        client.transport.block()
        stage.upstream().says(s.unary())
        client.half_closes()
        assert client.transport.closed
        assert not client.transport.aborted
        client.reads_on()
        assert client.heard() == s.passed_on()


def test_callbacks_after_the_end_do_nothing() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.stops_reading()
        client.resets()
        stage.receipt()
        client.protocol.resume_writing()
        client.protocol.pause_writing()
        client.protocol.data_received(s.ask())
        client.protocol.eof_received()
        upstream.protocol.data_received(s.chunk(s.text()))
        upstream.protocol.eof_received()
        upstream.protocol.pause_writing()
        upstream.protocol.resume_writing()
        stage.loop.run_ready()
        assert len(stage.receipts) == 1
        assert len(stage.upstreams) == 1


def test_a_flush_after_the_end_of_an_answer_that_closes() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(b"Connection: close"))
        client.transport.block()
        stage.upstream().says(s.unary(b"x" * 70_000))
        assert client.transport.closed
        client.reads_on()
        assert client.heard() == s.passed_on(b"x" * 70_000, end=CLOSE)
        assert client.transport.is_lost


def test_a_close_that_cannot_flush_is_ended_by_the_stall_limit() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(b"Connection: close"))
        client.transport.block()
        stage.upstream().says(s.unary(b"x" * 70_000))
        stage.advance(59.0)
        assert not client.transport.aborted
        stage.advance(1.3)
        assert client.transport.aborted


# -- back-pressure ----------------------------------------------------------------------------------------------------


def test_a_slow_client_pauses_its_upstream_and_nobody_elses() -> None:
    with Stage() as stage:
        slow, quick = stage.client(), stage.client()
        slow.says(s.ask_stream())
        quick.says(s.ask_stream())
        for upstream in stage.upstreams:
            upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        slow.transport.block()
        stage.upstreams[0].says(s.chunk(s.text(b"x" * 70_000)))
        assert stage.upstreams[0].transport.paused
        assert not stage.upstreams[1].transport.paused
        stage.upstreams[0].transport.receive(s.chunk(s.text(b"waits")))
        size = slow.transport.get_write_buffer_size()
        stage.loop.run_ready()
        assert slow.transport.get_write_buffer_size() == size
        slow.reads_on()
        assert slow.heard().endswith(s.chunk(s.text(b"waits")))
        for upstream in stage.upstreams:
            upstream.says(s.chunk(s.DONE) + s.LAST)
        assert [receipt.complete for receipt in stage.receipts] == [True, True]


def test_a_client_that_is_full_when_its_answer_begins() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        client.stops_reading()
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD)
        assert upstream.transport.paused
        client.reads_on()
        upstream.says(s.chunk(s.text() + s.DONE) + s.LAST)
        assert stage.receipt().complete


def test_a_link_is_not_pooled_while_paused() -> None:
    with Stage() as stage:
        slow, quick = stage.client(), stage.client()
        slow.says(s.ask())
        slow.transport.block()
        upstream = stage.upstream()
        upstream.says(s.unary(b"x" * 70_000))
        assert stage.pooled == 1
        assert not upstream.transport.paused
        quick.says(s.ask())
        upstream.says(s.unary())
        assert quick.heard() == s.passed_on()


def test_a_client_that_does_not_read_is_not_read() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        client.transport.block()
        stage.upstream().says(s.unary(b"x" * 70_000))
        for _ in range(20):
            client.transport.receive(s.ask(body=b"y" * 100_000))
        stage.loop.run_ready()
        assert client.transport.paused
        held = len(client.protocol.parser.rest) + sum(map(len, client.protocol.parser.pieces))
        assert held < 200_000
        assert len(stage.receipts) == 1
        client.reads_on()
        assert len(stage.receipts) == 21, "and goes on where it was"


def test_a_hangup_is_seen_while_reading_is_paused() -> None:
    with Stage(limits=ByteLimits(buffer=1000)) as stage:
        client = stage.client()
        client.says(s.ask_stream() + s.ask() * 10)
        assert client.transport.paused
        assert list(stage.hangups.callbacks) == [client.transport.socket.fileno()]
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        stage.hangups.hang_up(client.transport.socket.fileno())
        stage.loop.run_ready()
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == ("CD", "client_left")
        assert stage.upstream().transport.aborted
        assert client.transport.aborted


def test_the_watch_ends_with_the_connection() -> None:
    """Its number may be another client's next."""
    with Stage(limits=ByteLimits(buffer=1000)) as stage:
        client = stage.client()
        client.says(s.ask_stream() + s.ask() * 10)
        assert client.transport.paused
        client.resets()
        assert stage.hangups.callbacks == {}
        assert stage.receipt().ended_kind == "client_left"


def test_reading_again_ends_the_watch() -> None:
    with Stage(limits=ByteLimits(buffer=1000)) as stage:
        client = stage.client()
        client.says(s.ask() * 10)
        for _ in range(10):
            stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on() * 10
        assert not client.transport.paused
        assert stage.hangups.callbacks == {}


# -- crowds -----------------------------------------------------------------------------------------------------------


def test_too_many_connections() -> None:
    with Stage(limits=ByteLimits(connections=2)) as stage:
        first, second, third = stage.client(), stage.client(), stage.client()
        answer = third.heard()
        assert s.status_of(answer) == 503
        assert b"x-llm-proxy-error: overloaded\r\n" in answer
        assert b"retry-after: 1\r\n" in answer
        assert third.is_lingering
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind, receipt.status) == ("PI", "overloaded", 503)
        third.half_closes()
        second.resets()
        fourth = stage.client()
        for client in (first, fourth):
            client.says(s.ask())
            stage.upstream().says(s.unary())
            assert client.heard() == s.passed_on()


def test_far_too_many_connections_are_not_even_told() -> None:
    with Stage(limits=ByteLimits(connections=1)) as stage:
        clients = [stage.client() for _ in range(3)]
        assert [client.transport.aborted for client in clients] == [False, False, True]
        assert clients[2].heard() == b""
        assert len(stage.receipts) == 1


# -- sockets ----------------------------------------------------------------------------------------------------------


def test_socket_options_and_address() -> None:
    with Stage(limits=ByteLimits(buffer=12345)) as stage:
        tcp = stage.client()
        unix = stage.client(peername="")
        option = (socket.IPPROTO_TCP, module._NOTSENT_LOWAT)
        assert tcp.transport.socket.options[option] == 12345
        assert option not in unix.transport.socket.options
        assert tcp.transport.get_write_buffer_limits()[1] == 12345 // 4
        for client in (tcp, unix):
            client.says(b"nonsense\r\n\r\n")
        assert [receipt.client for receipt in stage.receipts] == [
            "192.0.2.7",
            module.unix_peer(unix.transport.socket)[0],
        ]


def test_a_tls_client_lingers_without_a_fin() -> None:
    with Stage() as stage:
        client = stage.client(sslcontext=object())
        client.says(b"nonsense\r\n\r\n")
        assert s.status_of(client.heard()) == 400
        assert not client.is_gone
        stage.advance(5.3)
        assert client.transport.aborted


# -- HTTP/1.0 ---------------------------------------------------------------------------------------------------------


def test_http_10_gets_no_chunks_and_a_close() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream(b"Connection: keep-alive", version=b"1.0"))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        assert client.heard() == s.STREAM_HEAD_PASSED + CLOSE + b"\r\n" + s.text()
        stage.upstream().says(s.chunk(s.DONE) + s.LAST)
        assert client.heard() == s.DONE
        assert client.transport.closed
        assert client.transport.socket.linger is None
        assert stage.receipt().complete


def test_a_cut_for_http_10_is_a_reset() -> None:
    """Its answer ends by closing: only a reset tells it from a good end."""
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream(version=b"1.0"))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        client.heard()
        stage.upstream().resets()
        detail = "the upstream closed the connection in the middle of its answer"
        assert client.heard() == s.openai_event(detail, "reset")
        assert client.transport.socket.linger == (1, 0)
        assert client.transport.closed


def test_a_cut_for_http_11_is_no_reset() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        stage.upstream().resets()
        assert client.transport.socket.linger is None


# -- faults of ours ---------------------------------------------------------------------------------------------------


def break_down(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError("our fault")


@pytest.mark.parametrize(
    ("of", "where"),
    [
        (Exchange, "begin"),
        (Exchange, "body_received"),
        (Exchange, "body_ended"),
        (Exchange, "_dispatch"),
        (Attempt, "begin"),
        (Attempts, "_prepare"),
    ],
)
@pytest.mark.sources
def test_a_fault_in_a_request_is_a_500(of: type, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage() as stage:
        client = stage.client()
        with monkeypatch.context() as patch:
            patch.setattr(of, where, break_down)
            client.transport.receive(s.ask())
            stage.loop.run_ready_quietly()
        assert len(stage.loop.expect_errors()) == 1
        stage.loop.run_ready()
        answer = client.heard()
        assert s.status_of(answer) == 500
        assert b"x-llm-proxy-error: internal\r\n" in answer
        assert b"our fault" not in answer
        receipt = stage.receipt()
        assert (receipt.ended_by.value, receipt.ended_kind, receipt.status) == ("proxy", "internal", 500)
        if of is Exchange:
            assert client.is_gone or client.is_lingering, "who knows what state it left behind"


@pytest.mark.sources
def test_a_fault_in_a_pipelined_request_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask() + s.ask())
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "begin", break_down)
            stage.upstream().transport.receive(s.unary())
        assert len(stage.loop.expect_errors()) == 1
        stage.loop.run_ready()
        answer = client.heard()
        assert answer.startswith(s.passed_on())
        assert s.status_of(answer.removeprefix(s.passed_on())) == 500
        assert [receipt.status for receipt in stage.receipts] == [200, 500]
        assert stage.pooled == 1


@pytest.mark.sources
def test_a_fault_after_draining_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask() + s.ask())
        client.transport.block()
        stage.upstream().says(s.unary(b"x" * 70_000))
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "begin", break_down)
            client.transport.drain()
        assert len(stage.loop.expect_errors()) == 1
        stage.loop.run_ready()
        assert client.heard().count(b"HTTP/1.1 500 ") == 1


def test_a_fault_of_a_sink_is_not_the_clients() -> None:
    with Stage() as stage:
        stage.relay._sinks = (break_down, stage.receipts.append)
        client = stage.client()
        client.says(s.ask())
        stage.upstream().transport.receive(s.unary())
        assert len(stage.loop.expect_errors()) == 1
        assert client.heard() == s.passed_on()
        assert stage.receipt().complete


def test_the_defaults_are_those_of_the_options() -> None:
    limits = RelayOptions().bytes
    assert (limits.body, limits.buffer, limits.connections) == (32 << 20, 64 << 10, 10_000)


def phase_of(client: Peer) -> Phase | None:
    exchange = s.exchange_of(client)
    return None if exchange is None else exchange.phase
