"""How a link to a client is closed: what must not look like a good end, and who is given how much time."""

from __future__ import annotations

import pytest

from proxy.relay import client as module
from proxy.relay.options import ByteLimits
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage

REFUSED = s.request(b"POST", b"/nowhere", b"x" * 1000)[:-500]  # answered before it is read: its client sends on
CLOSE = b"Connection: close"
LARGE = s.unary(b"x" * 70_000)
SLACK = 0.3  # the sweeper looks four times a second


def waits_for_goodbye(client: Peer) -> None:
    """From here a close is as over TLS: it takes effect when the client has closed, too."""
    client.transport.close = lambda: setattr(client.transport, "closed", True)  # type: ignore[method-assign]


# -- aborting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_unsent", [False, True])
def test_what_an_abort_loses_does_not_look_like_an_end(has_unsent: bool) -> None:
    with Stage(limits=ByteLimits(buffer=1000)) as stage:
        client = stage.client()
        client.says(s.ask_stream(version=b"1.0") + s.ask() * 10)
        if has_unsent:
            client.transport.block()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        assert client.transport.paused
        stage.hangups.hang_up(client.transport.socket.fileno())
        stage.loop.run_ready()
        assert client.transport.aborted
        assert client.transport.socket.linger == ((1, 0) if has_unsent else None)


def test_a_stall_is_a_reset() -> None:
    """Half an answer to HTTP/1.0 and a FIN behind it would be a whole one."""
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(version=b"1.0"))
        client.transport.block()
        stage.upstream().says(LARGE)
        stage.advance(60.0 + 1.0 + SLACK)
        assert client.transport.aborted
        assert client.transport.socket.linger == (1, 0)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_cut_over_tls(version: bytes) -> None:
    """A polite close would say goodbye in TLS, which ends an answer of HTTP/1.0 well."""
    with Stage() as stage:
        client = stage.client(sslcontext=object())
        client.says(s.ask_stream(version=version))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        stage.upstream().resets()
        is_old = version == b"1.0"
        assert client.transport.aborted is is_old
        assert client.transport.closed is not is_old
        assert client.transport.socket.linger == ((1, 0) if is_old else None)


def test_a_good_end_over_tls_is_polite() -> None:
    with Stage() as stage:
        client = stage.client(sslcontext=object())
        client.says(s.ask_stream(version=b"1.0"))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text() + s.DONE) + s.LAST)
        assert stage.receipt().complete
        assert client.transport.closed
        assert not client.transport.aborted
        assert client.transport.socket.linger is None


# -- lingering --------------------------------------------------------------------------------------------------------


def test_five_seconds_begin_when_all_is_sent() -> None:
    with Stage() as stage:
        client = stage.client()
        client.transport.block()
        client.says(REFUSED)
        for _ in range(4):
            stage.advance(59.0)
            assert not client.is_gone
            client.reads_on(10)
        client.reads_on()
        assert client.is_lingering
        assert s.status_of(client.heard()) == 404
        client.says(b"x" * 100_000)
        stage.advance(4.9)
        assert not client.is_gone
        stage.advance(0.1 + 1.0 + 2 * SLACK)
        assert client.transport.aborted
        assert client.transport.socket.linger is None, "it was all sent"


def test_five_seconds_are_all_however_much_still_comes() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(REFUSED)
        assert client.is_lingering
        for _ in range(4):
            client.says(b"x")
            stage.advance(1.2)
        assert not client.is_gone
        client.says(b"x")
        stage.advance(0.2 + 2 * SLACK)
        assert client.transport.aborted


def test_a_lingering_client_that_reads_nothing() -> None:
    with Stage() as stage:
        client = stage.client()
        client.transport.block()
        client.says(REFUSED)
        stage.advance(59.9)
        assert not client.is_gone
        stage.advance(0.1 + 1.0 + SLACK)
        assert client.transport.aborted
        assert client.transport.socket.linger == (1, 0)


# -- closing ----------------------------------------------------------------------------------------------------------


def test_a_closing_client_that_reads_slowly_gets_it_all() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(CLOSE))
        client.transport.block()
        stage.upstream().says(LARGE)
        assert client.transport.closed
        for _ in range(10):
            stage.advance(50.0)
            client.reads_on(100)
        assert not client.transport.aborted
        client.reads_on()
        assert client.heard() == s.passed_on(b"x" * 70_000, end=b"connection: close\r\n")
        assert client.transport.is_lost
        assert not client.transport.aborted


def test_a_closing_client_that_stops_reading() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(CLOSE))
        client.transport.block()
        stage.upstream().says(LARGE)
        stage.advance(50.0)
        client.reads_on(100)
        stage.advance(59.0)
        assert not client.transport.aborted
        stage.advance(1.0 + 1.0 + 2 * SLACK)
        assert client.transport.aborted


def test_a_goodbye_is_waited_for_a_second() -> None:
    with Stage() as stage:
        client = stage.client(sslcontext=object())
        waits_for_goodbye(client)
        stage.advance(70.0 + SLACK)
        assert client.transport.closed
        stage.advance(0.5)
        assert not client.transport.aborted
        stage.advance(0.5 + SLACK)
        assert client.transport.aborted
        assert client.transport.socket.linger is None


@pytest.mark.sources
def test_tls_may_hide_what_is_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop does not count what waits beneath its TLS; the kernel's queue tells that something does."""
    queued = [70_000]
    monkeypatch.setattr(module, "queued_in_kernel", lambda fd: queued[0])
    with Stage() as stage:
        client, plain = stage.client(sslcontext=object()), stage.client()
        for each in (client, plain):
            waits_for_goodbye(each)
            each.says(s.ask(CLOSE))
            stage.upstream().says(s.unary())
        for _ in range(3):
            queued[0] -= 10_000
            stage.advance(50.0)
            assert not client.transport.aborted
        assert plain.transport.aborted, "what TCP holds is told"
        queued[0] = 0
        stage.advance(1.0 + SLACK)
        assert client.transport.aborted


# -- leaving at the last event ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["half_closes", "hangs_up"])
@pytest.mark.parametrize("has_unsent", [False, True])
def test_whose_last_event_was_not_sent_has_left(leave: str, has_unsent: bool) -> None:
    with Stage(limits=ByteLimits(buffer=1000)) as stage:
        client = stage.client()
        client.says(s.ask_stream() + (s.ask() * 10 if leave == "hangs_up" else b""))
        if has_unsent:
            client.transport.block()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text() + s.DONE))
        if leave == "hangs_up":
            stage.hangups.hang_up(client.transport.socket.fileno())
        else:
            client.half_closes()
        assert stage.receipt().ended_kind == ("client_left" if has_unsent else "complete")


@pytest.mark.parametrize(("queued", "kind"), [(0, "complete"), (5, "complete"), (5000, "client_left")])
@pytest.mark.sources
def test_a_reset_leaves_only_the_kernels_word(queued: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes may be on their way: those behind the last event, at which SDKs leave."""
    monkeypatch.setattr(module, "queued_in_kernel", lambda fd: queued)
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text() + s.DONE))
        client.resets()
        assert stage.receipt().ended_kind == kind
