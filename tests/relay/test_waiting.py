"""Waiting for a limit: in turn, bounded in number and time, and nobody is overtaken."""

from __future__ import annotations

import pytest

from proxy.outcome import Limit
from proxy.policy.keys import AuthMode
from proxy.policy.rules import parse_rules
from proxy.relay.options import ByteLimits, PoolOptions
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage

KEYS = {name: name * 16 for name in ("a", "b", "c")}


def bearer(key: str) -> bytes:
    return b"Authorization: Bearer " + KEYS[key].encode()


def staged(rules: dict[str, str], seconds: float = 7.0, queue: int = 1000) -> Stage:
    return Stage(
        rules=rules, mode=AuthMode.KEYS, keys=KEYS, seconds={Limit.QUEUE: seconds}, pool=PoolOptions(queue=queue)
    )


def asks(stage: Stage, key: str, body: bytes = s.BODY) -> Peer:
    client = stage.client()
    client.says(s.ask(bearer(key), body=body))
    return client


def answered(stage: Stage, clients: list[Peer]) -> list[int]:
    """Numbers of the clients that a provider has been asked for, in that order; each is answered now."""
    order = []
    while True:
        waiting = [each for each in stage.upstreams if each.protocol.attempt is not None]
        if not waiting:
            return order
        exchange = waiting[0].protocol.attempt.exchange
        order.append(next(at for at, client in enumerate(clients) if client.protocol is exchange.client))
        waiting[0].says(s.unary())


def test_it_waits_for_one_that_runs() -> None:
    with staged({"key a": "concurrent=1"}) as stage:
        first, second = asks(stage, "a"), asks(stage, "a")
        assert len(stage.upstreams) == 1
        stage.advance(3)
        assert second.heard() == b""
        stage.upstream().says(s.unary())
        stage.advance(0)
        stage.upstream().says(s.unary())
        assert (s.status_of(first.heard()), s.status_of(second.heard())) == (200, 200)
        assert [receipt.queue_ms for receipt in stage.receipts] == [None, 3000.0]


def test_it_waits_until_its_rate_allows_it() -> None:
    with staged({"key a": "rps=1/1"}) as stage:
        clients = [asks(stage, "a") for _ in range(3)]
        seen = [len(answered(stage, clients))]
        for _ in range(4):
            stage.advance(0.5)
            seen.append(len(answered(stage, clients)))
        assert seen == [1, 0, 1, 0, 1]
        assert [receipt.queue_ms for receipt in stage.receipts] == [None, 1000.0, 2000.0]


def test_waiting_is_off_by_default() -> None:
    with staged({"key a": "rps=1/1"}, seconds=0) as stage:
        asks(stage, "a")
        assert s.status_of(asks(stage, "a").heard()) == 429
        stage.upstream().says(s.unary())
        assert len(stage.receipts) == 2


def test_who_would_wait_too_long_is_refused_at_once() -> None:
    with staged({"key a": "rpm=2/1"}) as stage:
        asks(stage, "a")
        answer = asks(stage, "a").heard()
        assert (s.status_of(answer), b"retry-after: 30\r\n" in answer) == (429, True)
        stage.upstream().says(s.unary())
        assert len(stage.receipts) == 2


@pytest.mark.parametrize("rules", ["1token/total", "itpm=10"])
def test_for_a_budget_or_the_impossible_nobody_waits(rules: str) -> None:
    with staged({"key a": rules}) as stage:
        body = s.BODY[:-1] + b',"user":"' + b"x" * 500 + b'"}'
        assert s.status_of(asks(stage, "a", body).heard()) == 400
        stage.receipt()


def test_time_is_up_with_the_limits_own_answer() -> None:
    with staged({"key a": "concurrent=1"}) as stage:
        asks(stage, "a")
        second = asks(stage, "a")
        stage.advance(7.3)
        answer = second.heard()
        assert (s.status_of(answer), b"x-llm-proxy-error: too_many_requests" in answer) == (429, True)
        receipt = stage.receipt()
        assert (receipt.letters, receipt.status) == ("CQ", 429)
        stage.upstream().says(s.unary())
        stage.receipt()


def test_the_number_of_those_who_wait_is_bounded() -> None:
    with staged({"key a": "concurrent=1"}, queue=2) as stage:
        clients = [asks(stage, "a") for _ in range(4)]
        assert s.status_of(clients[3].heard()) == 429
        for client in clients:
            client.resets()
        assert len(stage.receipts) == 4


def test_keys_take_turns() -> None:
    """One key has ten that wait for what all share; the others' only request comes after one of its, each."""
    with staged({"all": "concurrent=1"}, seconds=100) as stage:
        clients = [asks(stage, "a") for _ in range(11)] + [asks(stage, "b"), asks(stage, "c"), asks(stage, "b")]
        order = []
        while len(order) < len(clients):
            order += answered(stage, clients)
            stage.advance(0)
        assert order[:7] == [0, 1, 11, 12, 2, 13, 3]
        assert sorted(order) == list(range(len(clients)))
        assert len(stage.receipts) == len(clients)


def test_nobody_is_overtaken() -> None:
    with staged({"key a": "concurrent=1", "all": "concurrent=2"}, seconds=100) as stage:
        clients = [asks(stage, "a"), asks(stage, "a"), asks(stage, "b"), asks(stage, "c"), asks(stage, "b")]
        assert [each.protocol.attempt is not None for each in stage.upstreams] == [True, True]  # of a and b
        stage.upstreams[1].says(s.unary())  # b's: the turn is c's, since a waits for itself alone
        stage.advance(0)
        late = asks(stage, "b")
        clients.append(late)
        assert late.heard() == b"", "it stands behind b's own"
        order: list[int] = []
        while len(order) < 5:
            order += answered(stage, clients)
            stage.advance(0)
        assert order.index(4) < order.index(5)
        assert len(stage.receipts) == 6


def test_a_key_that_waits_for_itself_holds_up_nobody() -> None:
    with staged({"key a": "concurrent=1"}) as stage:
        clients = [asks(stage, "a"), asks(stage, "a"), asks(stage, "b")]
        running = [upstream.protocol.attempt.exchange.client for upstream in stage.upstreams]
        assert running == [clients[0].protocol, clients[2].protocol]
        assert sorted(answered(stage, clients)) == [0, 1, 2]
        assert len(stage.receipts) == 3


def test_who_leaves_makes_room() -> None:
    with staged({"key a": "concurrent=1"}) as stage:
        clients = [asks(stage, "a") for _ in range(3)]
        clients[1].resets()
        assert stage.receipt().letters == "CQ"
        stage.upstream().says(s.unary())
        stage.advance(0)
        stage.upstream().says(s.unary())
        assert s.status_of(clients[2].heard()) == 200
        assert stage.relay.waiting.count == 0
        assert len(stage.receipts) == 3


def test_a_limit_that_is_lifted_lets_all_pass() -> None:
    with staged({"key a": "concurrent=1"}) as stage:
        clients = [asks(stage, "a") for _ in range(3)]
        stage.admission.limiter.set_rules("key a", parse_rules(""))
        stage.advance(1)
        assert answered(stage, clients) == [0, 1, 2]
        assert len(stage.receipts) == 3


def test_of_a_key_that_is_taken_away_nobody_who_waits_passes() -> None:
    with staged({"key a": "rps=1/1"}, seconds=100) as stage:
        clients = [asks(stage, "a") for _ in range(20)]
        stage.admission.ring.remove("a")
        stage.admission.limiter.set_rules("key a", parse_rules(""))
        stage.advance(1.1)
        stage.advance(20)
        assert len(stage.upstreams) == 1
        assert [s.status_of(client.heard()) for client in clients[1:]] == [401] * 19
        stage.upstream().says(s.unary())
        assert len(stage.receipts) == 20
        assert stage.relay.waiting.count == 0


def test_a_limit_that_comes_while_one_waits_is_charged_like_any_other() -> None:
    with staged({"key a": "rps=1/1"}, seconds=100) as stage:
        clients = [asks(stage, "a") for _ in range(5)]
        stage.admission.limiter.set_rules("key a", parse_rules("1token/total"))
        stage.advance(1.1)
        assert len(stage.upstreams) == 1
        for client in clients:
            client.resets()
        assert len(stage.receipts) == 5


def test_small_requests_of_another_key_do_not_starve_a_large_one() -> None:
    """a waits for 1,000 tokens of what all share; b goes on asking for 200 each, always later than a."""
    usage = b'{"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":0,"total_tokens":0}}'
    with staged({"all": "itps=1000/1000"}, seconds=100) as stage:

        def of(size: int) -> bytes:
            start = s.BODY[:-1] + b',"user":"'
            return start + b"x" * (size - len(start) - 2) + b'"}'

        asks(stage, "b", of(200))
        large = asks(stage, "a", of(1000))
        clients = [large]
        seconds = 0.0
        while not large.transport.sent and seconds < 5:
            clients.append(asks(stage, "b", of(200)))
            for upstream in stage.upstreams:
                attempt = upstream.protocol.attempt
                if attempt is not None:
                    upstream.says(s.unary(usage % attempt.exchange.receipt.bytes_in))
            stage.advance(0.1)
            seconds += 0.1
        assert seconds < 1.5, "it could pass after one"
        for client in clients:
            client.resets()
        stage.receipts.clear()
        stage.relay._count = 0


def test_bodies_that_wait_leave_room_for_those_that_need_not() -> None:
    limits = ByteLimits(body=10_000, bodies=40_000)
    keys = {"mode": AuthMode.KEYS, "keys": KEYS}
    with Stage(rules={"key a": "rps=1/1"}, seconds={Limit.QUEUE: 60.0}, limits=limits, **keys) as stage:  # type: ignore[arg-type]
        large = s.BODY[:-1] + b',"user":"' + b"x" * 9_000 + b'"}'
        waiting = [asks(stage, "a", large) for _ in range(6)]
        assert [s.status_of(client.heard() or b"HTTP/1.1 200") for client in waiting[3:]] == [429] * 3
        other = asks(stage, "b", large)
        stage.upstream().says(s.unary())
        assert s.status_of(other.heard()) == 200
        for client in stage.clients:
            client.resets()
        assert len(stage.receipts) == 7
        assert stage.relay.waiting.size == 0


def test_shutdown_tells_those_who_wait() -> None:
    with staged({"key a": "concurrent=1"}) as stage:
        clients = [asks(stage, "a") for _ in range(2)]
        stage.relay.give_up()
        assert [receipt.ended_kind for receipt in stage.receipts] == ["shutdown", "shutdown"]
        assert s.status_of(clients[1].heard()) == 503
        assert stage.relay.waiting.count == 0
