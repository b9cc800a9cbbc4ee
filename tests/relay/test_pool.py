"""Links for reuse: which one is taken, when one is let go, who waits."""

from __future__ import annotations

import pytest

from proxy.outcome import Kind
from proxy.relay.connect import ConnectFailed
from proxy.relay.options import PoolOptions
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage


def use(stage: Stage, client: Peer | None = None) -> Peer:
    """One exchange. Returns the link that it went over."""
    client = client or stage.client()
    before = [len(upstream.transport.sent) for upstream in stage.upstreams]
    client.says(s.ask())
    used = [
        upstream
        for number, upstream in enumerate(stage.upstreams)
        if number >= len(before) or len(upstream.transport.sent) > before[number]
    ]
    assert len(used) == 1
    used[0].says(s.unary())
    assert client.heard().endswith(s.passed_on())
    return used[0]


def test_last_in_first_out() -> None:
    with Stage() as stage:
        stage.warm(3)
        client = stage.client()
        assert [use(stage, client) for _ in range(3)] == [stage.upstreams[2]] * 3
        assert stage.pooled == 3
        assert stage.relay.pool.opened == 3


def test_links_of_one_origin_are_not_anothers() -> None:
    with Stage() as stage:
        stage.warm()
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/messages", b'{"model":"claude-x","max_tokens":1}'))
        assert stage.dialed == [s.OPENAI, s.ANTHROPIC]
        assert stage.upstream().heard().startswith(b"POST /v1/messages HTTP/1.1\r\nhost: anthropic.test\r\nx-api-key: ")


def test_an_idle_link_is_let_go_in_time() -> None:
    with Stage(pool=PoolOptions(idle_seconds=20.0)) as stage:
        upstream = stage.warm()
        stage.advance(19.9)
        assert not upstream.is_gone
        stage.advance(0.4)
        assert upstream.is_gone
        assert stage.pooled == stage.relay.pool.open == 0


def test_use_makes_it_young_again_but_not_for_ever() -> None:
    with Stage(pool=PoolOptions(idle_seconds=20.0, age_seconds=50.0)) as stage:
        upstream = stage.warm()
        for _ in range(3):
            stage.advance(15.0)
            assert use(stage) is upstream
        stage.advance(5.3)
        assert upstream.is_gone, "50 s old"


def test_a_link_that_grew_old_in_use_is_not_kept() -> None:
    with Stage(pool=PoolOptions(age_seconds=50.0)) as stage:
        client = stage.client()
        client.says(s.ask())
        stage.advance(60.0)
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.upstream().is_gone


def test_no_more_idle_ones_than_allowed() -> None:
    with Stage(pool=PoolOptions(max_idle=2)) as stage:
        stage.warm(4)
        assert stage.pooled == 2
        assert [upstream.is_gone for upstream in stage.upstreams] == [False, False, True, True]


@pytest.mark.parametrize("event", ["half_closes", "resets", "says"])
def test_whatever_comes_while_idle_is_the_end(event: str) -> None:
    with Stage() as stage:
        upstream = stage.warm()
        if event == "says":
            upstream.says(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        else:
            getattr(upstream, event)()
        assert upstream.is_gone
        assert stage.pooled == stage.relay.pool.open == 0
        assert use(stage) is not upstream


def test_a_link_that_is_closing_unseen_is_not_taken() -> None:
    with Stage() as stage:
        first, second = stage.warm(2), stage.upstreams[0]
        first.transport.abort()  # connection_lost is still on its way
        client = stage.client()
        client.transport.receive(s.ask())
        assert second.heard() == s.sent_on()
        stage.loop.run_ready()
        second.says(s.unary())
        assert client.heard() == s.passed_on()


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (s.unary(), True),
        (s.unary(s.DOCUMENT, b"200 OK", b"Connection: close"), False),
        (s.unary(s.DOCUMENT, b"200 OK", b"Connection: X, Close"), False),
        (s.unary().replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (s.unary(s.DOCUMENT, b"200 OK", b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"), True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + s.LAST, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
    ],
)
def test_what_is_kept(answer: bytes, is_kept: bool) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.get())
        stage.upstream().says(answer)
        assert stage.receipt().complete
        assert stage.pooled == is_kept
        assert stage.upstream().is_gone is not is_kept
        assert not client.is_gone


def test_an_answer_to_head_is_kept() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"HEAD", b"/v1/models"))
        stage.upstream().says(s.unary()[: -len(s.DOCUMENT)])
        assert client.heard() == s.passed_on()[: -len(s.DOCUMENT)]
        assert stage.pooled == 1
        client.says(s.get())
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_who_waits_is_served_in_order() -> None:
    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        clients = [stage.client() for _ in range(4)]
        for number, client in enumerate(clients):
            client.says(s.ask(b"X-Number: %d" % number))
        upstream = stage.upstream()
        for number, client in enumerate(clients):
            assert b"X-Number: %d\r\n" % number in upstream.heard()
            upstream.says(s.unary(b"%d" % number))
            assert client.heard() == s.passed_on(b"%d" % number)
        assert len(stage.upstreams) == 1


def test_who_left_is_not_served() -> None:
    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        first, left, last = (stage.client() for _ in range(3))
        for client in (first, left, last):
            client.says(s.ask())
        left.resets()
        stage.upstream().heard()
        stage.upstream().says(s.unary())
        assert stage.upstream().heard() == s.sent_on()
        stage.upstream().says(s.unary())
        assert last.heard() == s.passed_on()


def test_the_queue_has_an_end() -> None:
    with Stage(pool=PoolOptions(max_connections=1, queue=1)) as stage:
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.says(s.ask())
        assert s.status_of(clients[2].heard()) == 503
        assert stage.receipt().letters == "PQ"
        stage.upstream().says(s.unary())
        stage.upstream().says(s.unary())
        assert clients[1].heard() == s.passed_on()


def test_a_link_that_dies_makes_place_for_who_waits() -> None:
    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask())
        second.says(s.ask())
        stage.upstream().resets()
        assert s.status_of(first.heard()) == 502
        assert stage.upstream().heard() == s.sent_on()
        stage.upstream().says(s.unary())
        assert second.heard() == s.passed_on()
        assert len(stage.upstreams) == 2


def test_a_connect_that_fails_lets_the_next_try() -> None:
    with Stage(pool=PoolOptions(max_connections=1), holds_connects=True) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask())
        second.says(s.ask())
        stage.connect(ConnectFailed(Kind.CONNECT_FAILED, "no"))
        assert s.status_of(first.heard()) == 502
        stage.connect()
        stage.upstream().says(s.unary())
        assert second.heard() == s.passed_on()


def test_an_origin_that_is_down_leaves_nothing() -> None:
    with Stage() as stage:
        stage.connects.extend(ConnectFailed(Kind.CONNECT_FAILED, "no") for _ in range(50))
        clients = [stage.client() for _ in range(50)]
        for client in clients:
            client.says(s.ask())
        assert stage.relay.pool.open == 0
        assert len(stage.receipts) == 50
        use(stage)


# -- what should not happen -------------------------------------------------------------------------------------------


def test_a_fault_in_the_connector_is_a_500() -> None:
    with Stage() as stage:
        client = stage.client()
        stage.connects.append(ZeroDivisionError("our fault"))
        client.transport.receive(s.ask())
        stage.loop.run_ready_quietly()
        assert len(stage.loop.expect_errors()) == 1
        assert s.status_of(client.heard()) == 500
        assert stage.relay.pool.open == 0
        use(stage)


def test_a_link_that_dies_before_anybody_has_it() -> None:
    """A TLS link may get its end together with the last bytes of the handshake."""
    with Stage() as stage:
        make = stage._open

        async def make_and_end(pool, origin):  # type: ignore[no-untyped-def]
            link = await make(pool, origin)
            stage.upstream().transport.receive_eof()
            return link

        stage.relay.pool._connector = make_and_end
        client = stage.client()
        client.says(s.ask())
        assert s.status_of(client.heard()) == 502
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == ("UC", "connect_failed")
        assert stage.relay.pool.open == 0


@pytest.mark.sources
def test_a_fault_at_the_hand_over_is_the_waiting_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.relay.upstream import UpstreamConnection

    def break_down(*_: object) -> None:
        raise ZeroDivisionError("our fault")

    with Stage(pool=PoolOptions(max_connections=1)) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask())
        second.says(s.ask())
        with monkeypatch.context() as patch:
            patch.setattr(UpstreamConnection, "send", break_down)
            stage.upstream().transport.receive(s.unary())
        assert len(stage.loop.expect_errors()) == 1
        stage.loop.run_ready()
        assert first.heard() == s.passed_on()
        assert s.status_of(second.heard()) == 500


def test_dropping_twice_counts_once() -> None:
    with Stage() as stage:
        upstream = stage.warm(2)
        pool = stage.relay.pool
        pool.drop(upstream.protocol)
        pool.drop(upstream.protocol)
        stage.loop.run_ready()
        assert pool.open == pool.idle == 1
