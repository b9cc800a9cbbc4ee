"""Links in the making: whose they are, what becomes of one that is lost before it is there, and what is counted."""

from __future__ import annotations

import pytest

from proxy.catalog.snapshot import Origin
from proxy.outcome import Kind, Limit, Phase
from proxy.relay.connect import ConnectFailed
from proxy.relay.options import PoolOptions
from proxy.relay.pool import Pool
from proxy.relay.upstream import UpstreamConnection
from tests.fakes.transport import FakeTransport
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage

ONE = PoolOptions(max_connections=1)
NO = ConnectFailed(Kind.CONNECT_FAILED, "no")


def phase_of(client: Peer) -> Phase:
    phase = client.protocol.exchange.phase
    assert isinstance(phase, Phase)
    return phase


# -- lost before it is there ------------------------------------------------------------------------------------------


def ends(link: UpstreamConnection) -> None:
    link.eof_received()
    link.connection_lost(None)


def breaks(link: UpstreamConnection) -> None:
    link.connection_lost(ConnectionResetError(104, "Connection reset by peer"))


def speaks(link: UpstreamConnection) -> None:
    link.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")


class Early:
    """A connector whose first link hears of its end before anybody has it: before its `connection_made`, as TLS in a
    tunnel can bring it, or right behind."""

    def __init__(self, stage: Stage, happens, is_made: bool) -> None:  # type: ignore[no-untyped-def]
        self._make = stage._open
        self._stage = stage
        self._happens = happens
        self._is_made = is_made
        self.transport = FakeTransport(stage.loop)
        stage.relay.pool._connector = self

    async def __call__(self, pool: Pool, origin: Origin) -> UpstreamConnection:
        self._stage.relay.pool._connector = self._make
        link = UpstreamConnection(pool, origin, 65536, pool.clock())
        if self._is_made:
            self.transport.attach(link)
        self._happens(link)
        if not self._is_made:
            self.transport.attach(link)
        assert pool.open == 1, "in the making until it is told that it is not"
        return link


@pytest.mark.parametrize("is_made", [False, True])
@pytest.mark.parametrize("happens", [ends, breaks, speaks])
def test_a_link_that_is_lost_at_once_counts_once(happens, is_made: bool) -> None:  # type: ignore[no-untyped-def]
    with Stage() as stage:
        early = Early(stage, happens, is_made)
        client = stage.client()
        client.says(s.ask())
        assert s.status_of(client.heard()) == 502
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == ("UC", "connect_failed")
        assert early.transport.is_closing(), "nobody else would close it"
        assert stage.relay.pool.open == 0
        assert stage.relay.pool.opened == 0
        client.says(s.ask())
        assert stage.relay.pool.open == 1
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


@pytest.mark.parametrize("is_made", [False, True])
@pytest.mark.parametrize("happens", [ends, breaks, speaks])
def test_and_the_next_one_gets_a_link(happens, is_made: bool) -> None:  # type: ignore[no-untyped-def]
    with Stage(pool=ONE, holds_connects=True) as stage:
        Early(stage, happens, is_made)
        first, second = stage.client(), stage.client()
        for client in (first, second):
            client.transport.receive(s.ask())
        assert [phase_of(client) for client in (first, second)] == [Phase.CONNECT, Phase.QUEUE]
        stage.loop.run_ready()
        assert s.status_of(first.heard()) == 502
        assert stage.relay.pool.open == 1
        assert phase_of(second) is Phase.CONNECT
        stage.connect()
        stage.upstream().says(s.unary())
        assert second.heard() == s.passed_on()


@pytest.mark.parametrize("happens", [ends, breaks, speaks])
def test_a_lost_link_that_nobody_wants_any_more(happens) -> None:  # type: ignore[no-untyped-def]
    with Stage() as stage:
        Early(stage, happens, False)
        client = stage.client()
        client.transport.receive(s.ask())
        client.transport.receive_eof()
        stage.loop.run_ready()
        assert stage.receipt().ended_kind == "client_left"
        assert stage.relay.pool.open == 0


# -- whose it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", [0.0, 7.0])
def test_a_newcomer_gets_the_link_of_one_who_left(queue: float) -> None:
    with Stage(pool=ONE, holds_connects=True, seconds={Limit.QUEUE: queue}) as stage:
        left, client = stage.client(), stage.client()
        left.says(s.ask())
        left.resets()
        assert stage.receipt().letters == "CC"
        client.says(s.ask())
        assert client.heard() == b""
        assert phase_of(client) is Phase.CONNECT
        assert stage.relay.pool.open == 1
        stage.connect()
        assert stage.upstream().heard() == s.sent_on()
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert len(stage.dialed) == 1
        assert not stage.receipt().attempts[0].reused


def test_and_its_failure() -> None:
    with Stage(pool=ONE, holds_connects=True) as stage:
        left, client = stage.client(), stage.client()
        left.says(s.ask())
        left.resets()
        stage.receipt()
        client.says(s.ask())
        stage.connect(NO)
        assert s.status_of(client.heard()) == 502
        assert stage.receipt().letters == "UC"
        assert stage.relay.pool.open == 0
        assert len(stage.dialed) == 1


def test_who_waits_comes_before_a_newcomer() -> None:
    with Stage(pool=ONE, holds_connects=True) as stage:
        left, waiting, newcomer = stage.client(), stage.client(), stage.client()
        left.says(s.ask())
        waiting.says(s.ask(b"X-Number: 1"))
        assert phase_of(waiting) is Phase.QUEUE
        left.resets()
        assert phase_of(waiting) is Phase.CONNECT
        newcomer.says(s.ask(b"X-Number: 2"))
        assert phase_of(newcomer) is Phase.QUEUE
        stage.connect()
        for client, number in ((waiting, b"1"), (newcomer, b"2")):
            assert b"X-Number: %b\r\n" % number in stage.upstream().heard()
            stage.upstream().says(s.unary(number))
            assert client.heard() == s.passed_on(number)


def test_everybody_leaves_and_the_link_is_kept() -> None:
    with Stage(pool=ONE, holds_connects=True) as stage:
        clients = [stage.client() for _ in range(3)]
        for client in clients:
            client.says(s.ask())
        for client in clients:
            client.resets()
        assert [receipt.letters for receipt in stage.receipts] == ["CC"] * 3
        stage.connect()
        assert stage.pooled == stage.relay.pool.open == 1


# -- a link of one's own ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "status"), [(Kind.CONNECT_FAILED, 502), (Kind.TIMEOUT, 504)])
def test_who_waited_and_then_connects_no_longer_waits(kind: Kind, status: int) -> None:
    with Stage(pool=ONE, holds_connects=True) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask())
        stage.connect()
        second.says(s.ask())
        assert phase_of(second) is Phase.QUEUE
        stage.advance(6.5)
        stage.upstream().resets()
        assert stage.receipt().letters == "UF"
        assert phase_of(second) is Phase.CONNECT
        stage.advance(4.9)  # QUEUE has 7 s
        assert second.heard() == b""
        stage.connect(ConnectFailed(kind, "no"))
        assert s.status_of(second.heard()) == status
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == ("UC", kind.value)
        assert [attempt.failure and attempt.failure.phase for attempt in receipt.attempts] == [Phase.CONNECT]


def test_a_fault_of_ours_while_nobody_waits_is_told() -> None:
    with Stage(holds_connects=True) as stage:
        client = stage.client()
        client.says(s.ask())
        client.resets()
        stage.connects.append(ZeroDivisionError("our fault"))
        stage._held.popleft().set_result(None)
        stage.loop.run_ready_quietly()
        assert len(stage.loop.expect_errors()) == 1
        assert stage.relay.pool.open == 0
