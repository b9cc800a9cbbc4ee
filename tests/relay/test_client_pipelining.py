"""Requests that do not wait for the answers before them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from proxy.outcome import Limit
from proxy.relay.options import ByteLimits
from proxy.relay.turns import MOST
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage


def test_answers_come_in_the_order_of_requests() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask() + s.get() + s.ask_stream())
        upstream = stage.upstream()
        assert upstream.heard() == s.sent_on(), "one at a time"
        upstream.says(s.unary(b"first"))
        assert client.heard() == s.passed_on(b"first")
        assert upstream.heard().startswith(b"GET /v1/models HTTP/1.1\r\n")
        upstream.says(s.unary(b"second"))
        assert client.heard() == s.passed_on(b"second")
        assert upstream.heard() == s.sent_on(s.STREAM_BODY)
        upstream.says(s.STREAM_HEAD + s.chunk(s.text() + s.DONE) + s.LAST)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text() + s.DONE) + s.LAST
        assert [receipt.complete for receipt in stage.receipts] == [True] * 3
        assert len(stage.upstreams) == 1


@pytest.mark.parametrize("broken", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
def test_a_malformed_second_request_is_answered_after_the_first(broken: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask() + broken)
        assert client.heard() == b""
        stage.upstream().says(s.unary())
        answer = client.heard()
        assert answer.startswith(s.passed_on())
        rest = answer.removeprefix(s.passed_on())
        assert s.status_of(rest) == 400
        assert rest.count(b"HTTP/1.1 4") == 1
        assert client.is_lingering
        assert [(r.letters, r.status) for r in stage.receipts] == [("--", 200), ("CH", 400)]


def test_a_request_behind_one_that_closes_is_not_served() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(b"Connection: close") + s.ask())
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on(end=b"connection: close\r\n")
        assert client.is_lingering, "its bytes are unread: a plain close would be a reset"
        assert len(stage.receipts) == 1


def test_a_request_that_comes_in_pieces_behind_another() -> None:
    with Stage() as stage:
        client = stage.client()
        whole = s.ask() + s.ask(b"X-Second: 1")
        client.says(whole[:-40])
        stage.upstream().says(s.unary(b"first"))
        client.says_each(whole[-40:])
        assert stage.upstream().heard() == s.sent_on() + s.sent_on(s.BODY, b"X-Second: 1")
        stage.upstream().says(s.unary(b"second"))
        assert client.heard() == s.passed_on(b"first") + s.passed_on(b"second")


def test_five_thousand_at_once_without_recursion() -> None:
    """All of them come in one read: OPTIONS * is answered here."""
    one = b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Stage(limits=ByteLimits(buffer=1 << 20)) as stage:
        client = stage.client()
        client.says(one * 5_000)
        assert client.heard().count(b"HTTP/1.1 204 No Content\r\n") == 5_000
        assert len(stage.receipts) == 5_000
        assert not client.is_gone


def begun_by_turns(stage: Stage) -> list[int]:
    """How many exchanges had ended before each turn of the loop, until nothing is left to do."""
    seen = [len(stage.receipts)]

    def look() -> None:
        seen.append(len(stage.receipts))
        if len(stage.relay.turns):
            stage.loop.call_soon(look)

    stage.loop.call_soon(look)
    stage.loop.run_ready()
    return seen


def test_however_many_are_sent_ahead_a_turn_of_the_loop_begins_few() -> None:
    with Stage() as stage:
        clients = [stage.client() for _ in range(20)]
        for client in clients:
            client.transport.receive(s.request(b"POST", b"/nowhere", b"x") * 50)
        assert len(stage.receipts) == len(clients), "one for each read"
        seen = begun_by_turns(stage)
        assert max(after - before for before, after in itertools.pairwise(seen)) <= MOST
        assert len(stage.receipts) == 20 * 50
        for client in clients:
            assert client.heard().count(b"HTTP/1.1 404 ") == 50


def test_who_sends_one_at_a_time_waits_for_nobody() -> None:
    with Stage() as stage:
        greedy, modest = stage.client(), stage.client()
        greedy.transport.receive(s.request(b"POST", b"/nowhere", b"x") * 1000)
        modest.transport.receive(s.request(b"POST", b"/nowhere", b"x"))
        assert modest.heard().startswith(b"HTTP/1.1 404 ")
        assert len(stage.receipts) == 2
        stage.loop.run_ready()


def test_who_was_not_let_in_waits_for_a_turn_with_the_next_request() -> None:
    wrong = s.request(b"POST", b"/nowhere", b"x")
    with Stage() as stage:
        clients = [stage.client() for _ in range(20)]
        for client in clients:
            client.says(wrong)
        other = stage.client()
        other.says(s.ask())
        assert len(stage.receipts) == 20
        for client in clients:
            client.transport.receive(wrong)
        other.transport.receive(s.ask())  # behind one that was let in, and still runs
        assert len(stage.receipts) == 20, "none at once"
        stage.upstream().transport.receive(s.unary())
        assert len(stage.receipts) == 21
        assert stage.upstream().heard() == s.sent_on() * 2, "this one waits for nobody"
        seen = begun_by_turns(stage)
        assert max(after - before for before, after in itertools.pairwise(seen)) <= MOST
        assert len(stage.receipts) == 41
        clients[0].says(s.ask())  # let in: from the next one on it waits no more
        stage.upstream().says(s.unary())
        stage.upstreams[-1].says(s.unary())
        clients[0].transport.receive(s.ask())
        assert clients[0].protocol.exchange is not None
        stage.loop.run_ready()
        for upstream in stage.upstreams:
            if upstream.protocol.attempt is not None:
                upstream.says(s.unary())


def test_what_waits_for_its_turn_is_bounded_and_read_on_later() -> None:
    one = s.request(b"POST", b"/nowhere", b"x")
    with Stage() as stage:
        client = stage.client()
        client.transport.receive(one * (70_000 // len(one)))
        assert client.transport.paused
        assert len(stage.receipts) == 1
        client.transport.receive(one)  # what the loop had read already
        assert client.transport.paused
        resumed = Mock(wraps=client.transport.resume_reading)
        client.transport.resume_reading = resumed  # type: ignore[method-assign]
        stage.loop.run_ready()
        assert not client.transport.paused
        assert resumed.call_count <= 2, "each costs system calls"
        assert len(stage.receipts) == 70_000 // len(one) + 1


@pytest.mark.parametrize("leave", [Peer.half_closes, Peer.resets])
def test_who_leaves_while_it_waits_is_forgotten(leave: Callable[[Peer], None]) -> None:
    with Stage() as stage:
        client, other = stage.client(), stage.client()
        for each in (client, other):
            each.transport.receive(s.request(b"POST", b"/nowhere", b"x") * 100)
        leave(client)
        assert len(stage.receipts) <= 100 + 2, "nobody would read its answers"
        assert other.heard().count(b"HTTP/1.1 404 ") == 100


def test_time_spent_waiting_for_a_turn_is_not_the_clients() -> None:
    with Stage() as stage:
        client = stage.client()
        client.transport.receive(s.request(b"POST", b"/nowhere", b"x") * 3)
        client.protocol.on_deadline(stage.relay.clock() + s.SECONDS[Limit.HEAD])
        stage.loop.run_ready()
        assert [receipt.status for receipt in stage.receipts] == [404] * 3


def test_who_waits_at_shutdown_reads_the_answers_it_has() -> None:
    with Stage() as stage:
        client = stage.client()
        client.transport.receive(s.request(b"POST", b"/nowhere", b"x") * 3)
        client.protocol.close_when_idle()
        stage.loop.run_ready()
        assert client.is_lingering, "its bytes are unread: a plain close would be a reset"
        assert client.heard().count(b"HTTP/1.1 404 ") == 1
        assert len(stage.receipts) == 1


def test_five_thousand_over_one_link() -> None:
    with Stage(limits=ByteLimits(buffer=4 << 20)) as stage:
        client = stage.client()
        client.says(s.ask() * 5_000)
        for number in range(5_000):
            stage.upstream().transport.receive(s.unary(b"%d" % number))
            if number == 0:
                stage.loop.run_ready()
        stage.loop.run_ready()
        answers = client.heard().split(b"HTTP/1.1 200 OK\r\n")[1:]
        assert [int(answer.rpartition(b"\n")[2]) for answer in answers] == list(range(5_000))
        assert stage.relay.pool.opened == 1


def test_more_than_a_buffer_of_them_pauses_reading() -> None:
    with Stage() as stage:
        client = stage.client()
        count = 70_000 // len(s.ask()) + 1
        client.says(s.ask() * count)
        assert client.transport.paused
        client.transport.receive(s.get())
        assert len(client.protocol.parser.rest) < 75_000
        for _ in range(count):
            stage.upstream().says(s.unary())
        assert not client.transport.paused
        assert stage.upstream().transport.sent.count(b"GET /v1/models") == 1
        stage.upstream().says(s.unary())
        assert len(stage.receipts) == count + 1


def test_a_client_that_leaves_takes_what_it_pipelined_along() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask() * 3)
        client.half_closes()
        assert [receipt.ended_kind for receipt in stage.receipts] == ["client_left"]
        assert len(stage.upstreams) == 1


def test_a_cut_ends_what_was_pipelined_behind_it() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream() + s.ask())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        stage.upstream().resets()
        assert client.heard().endswith(b"}}\n\n\r\n")
        assert client.is_lingering
        assert len(stage.receipts) == 1
        assert len(stage.upstreams) == 1


def test_refusals_in_a_row() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says((s.request(b"POST", b"/nowhere", b"x") + s.request(b"PUT", s.CHAT, b"y")) * 2)
        answer = client.heard()
        assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [404, 405, 404, 405]
        assert not client.is_gone
