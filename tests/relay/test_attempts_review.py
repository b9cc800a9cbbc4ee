"""What a review found in attempts, each on a whole relay: two at once, carrying on, bodies, limits, and pauses."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable

import pytest

from proxy.outcome import Limit
from proxy.relay.held import Held
from proxy.relay.metering import Counted
from proxy.relay.options import ByteLimits
from tests.relay import stage as s
from tests.relay.stage import Stage
from tests.relay.targets import BUSY, ERROR, A, B, C, asks, provider, stage_of, tried
from tests.relay.test_attempts_hedging import ANSWER, PASSED, hedged


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


ROLE = s.chunk(s.ROLE)
REST = s.chunk(s.text() + s.FINISH + s.DONE) + s.LAST
ENDED = s.FINISH + s.DONE
LIMITED = b"429 Too Many Requests"


def begins(stage: Stage, words: bytes = b"Hello wor") -> s.Peer:
    """A stream of which the client has `words`, and that is cut then."""
    client = asks(stage, stream=True)
    stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(words)))
    assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.text(words))
    stage.upstream().resets()
    return client


def asked(stage: Stage) -> int:
    """How many requests all providers got since this was asked last."""
    return sum(peer.heard().count(b"POST ") for peer in stage.upstreams)


# -- two at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said", "winner"),
    [
        ({Limit.HOLD: 3.0}, (True, True), 0),
        ({Limit.HOLD: 3.0, Limit.FIRST_BYTE: 3.1}, (True, False), 0),
        ({Limit.HOLD: 3.0, Limit.FIRST_BYTE: 4.1}, (False, True), 1),
    ],
    ids=["both holds", "hold and rival's time", "time and rival's hold"],
)
def test_what_ends_for_both_in_one_sweep_leaves_one_answer(
    seconds: dict[Limit, float], said: tuple[bool, bool], winner: int
) -> None:
    """`said`: which of the two has begun its stream, so that it is its hold that ends."""
    with hedged(seconds=seconds, retries=0) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        assert stage.dialed == [A, B]
        for upstream, has_begun in zip(stage.upstreams, said, strict=True):
            if has_begun:
                upstream.says(s.STREAM_HEAD + ROLE)
        stage.advance(2.9)
        assert client.heard() == b""
        assert [upstream.is_gone for upstream in stage.upstreams] == [False, False]
        stage.advance(0.4)
        assert client.heard() == s.STREAM_HEAD_ON + ROLE
        assert [upstream.is_gone for upstream in stage.upstreams] == [winner == 1, winner == 0]
        stage.upstreams[winner].says(REST)
        assert client.heard() == REST
        receipt = stage.receipt()
        assert (receipt.complete, receipt.provider) == (True, "ab"[winner])
        assert [each.failure is None for each in receipt.attempts] == [False, True]


def test_the_time_of_both_ends_in_one_sweep_and_it_is_one_error() -> None:
    with hedged(seconds={Limit.FIRST_BYTE: 4.1, Limit.FIRST_EVENT: 3.1}, retries=0) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        stage.upstreams[1].says(s.STREAM_HEAD + ROLE)
        stage.advance(2.9)
        assert client.heard() == b""
        stage.advance(0.4)
        heard = client.heard()
        assert (s.status_of(heard), heard.count(b"HTTP/1.1 ")) == (504, 1)
        assert [each[3] for each in tried(stage)] == ["timeout", "timeout"]


class ByNumber(s.FakeCounter):
    """As the real one: what is asked under the same number takes the place of what was."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[int, Callable[[Counted | None], None]] = {}

    def finish(
        self,
        stream: int,
        dialect: str,
        data: list[bytes],
        is_stream: bool,
        request: bytes | None,
        done: Callable[[Counted | None], None],
    ) -> None:
        self.open[stream] = done


@pytest.mark.parametrize("winner", [0, 1])
def test_two_answers_that_report_nothing_are_counted_apart(winner: int) -> None:
    counter = ByNumber()
    with hedged(counter=counter, rules={"all": "100Mtokens/total"}) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        stage.upstreams[1 - winner].says(s.STREAM_HEAD + ROLE)
        stage.upstreams[winner].says(ANSWER)
        assert client.heard() == PASSED
        assert len(counter.open) == 2
        assert stage.receipts == []
        for number, done in enumerate(counter.open.values()):
            done(s.FoundTokens(output=10 + number, input=100))
        usage = stage.receipt().usage
        assert usage is not None
        assert (usage.counted_input, usage.counted_output) == (200, 21)
        assert stage.admission.limiter.open == set()


def test_the_number_of_attempts_that_a_client_is_told_has_the_rival_in_it() -> None:
    with hedged(shows_timing=True) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.01)
        stage.upstreams[1].says(ANSWER)
        assert b"x-llm-proxy-attempts: 2\r\nx-llm-proxy-provider: b\r\n" in client.heard()
        assert len(stage.receipt().attempts) == 2


# -- carrying on ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "seconds"), [(b"x-nothing: 1", 0.5), (b"retry-after: 5", 5.0)])
@pytest.mark.parametrize("status", [BUSY, LIMITED])
def test_who_could_not_carry_it_on_is_asked_again_after_a_pause(status: bytes, line: bytes, seconds: float) -> None:
    with stage_of("m (resume retries=10) = a/one") as stage:
        client = begins(stage)
        assert asked(stage) == 2, "the first time at once"
        stage.upstream().says(s.unary(ERROR, status, line))
        stage.advance(seconds - 0.01)
        assert asked(stage) == 0
        stage.advance(0.02)
        assert asked(stage) == 1
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(b"Hello world") + ENDED) + s.LAST)
        assert client.heard() == s.chunk(s.text(b"ld") + ENDED) + s.LAST
        assert stage.receipt().complete


def test_the_pauses_of_who_cannot_carry_it_on_become_longer() -> None:
    with stage_of("m (resume retries=4) = a/one") as stage:
        client = begins(stage)
        asked(stage)
        for seconds in (0.5, 1.0, 2.0):
            stage.upstream().says(s.unary(ERROR, BUSY))
            stage.advance(seconds - 0.01)
            assert asked(stage) == 0
            stage.advance(0.02)
            assert asked(stage) == 1
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert b'"code":"reset"' in client.heard()


@pytest.mark.parametrize("status", [b"400 Bad Request", b"422 No", b"413 Too Large"])
def test_what_is_final_ends_the_carrying_on(status: bytes) -> None:
    with stage_of("m (resume retries=10) = a/one | b/one | c/one") as stage:
        client = begins(stage)
        assert stage.dialed == [A, B]
        stage.upstream().says(s.unary(ERROR, status))
        assert b'"code":"reset"' in client.heard()
        assert stage.dialed == [A, B]
        assert [each[2] for each in tried(stage)] == [200, int(status[:3])]


def opens(stage: Stage, *targets: tuple[str, str]) -> None:
    """Nobody is to ask these targets for a while."""
    for each in targets:
        health = stage.relay.health.of(each)
        for _ in range(5):
            health.begin(stage.loop.time())
            health.end(stage.loop.time(), False, False)
        assert not health.breaker.is_closed


def test_a_target_that_is_left_alone_carries_nothing_on() -> None:
    with stage_of("m (resume) = a/one | b/one | c/one") as stage:
        opens(stage, ("b", "one"))
        client = begins(stage)
        assert stage.dialed == [A, C]
        client.resets()


def test_where_all_are_left_alone_the_cut_is_told() -> None:
    with stage_of("m (resume) = a/one | b/one") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        opens(stage, ("a", "one"), ("b", "one"))
        stage.upstream().resets()
        assert b'"code":"reset"' in client.heard()
        assert len(stage.receipt().attempts) == 1


def test_that_it_says_something_else_is_no_fault_of_a_target() -> None:
    with stage_of("m (resume) = a/one | b/one") as stage:
        for _ in range(5):
            client = begins(stage)
            stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(b"Hello there")))
            assert b'"code":"reset"' in client.heard()
            assert [each[3] for each in tried(stage)] == ["reset", "differs"]
        health = stage.relay.health
        assert not health.of(("a", "one")).breaker.is_closed, "it was cut five times"
        assert health.of(("b", "one")).breaker.is_closed
        assert health.of(("b", "one")).in_flight == 0


LARGE = s.chunk(b'data: {"id":"c","x":"' + b"y" * 70_000)  # more than is held of one event, and its end is missing


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(s.chunk(s.text(b"Hello there") + ENDED) + s.LAST, id="differs and ends"),
        pytest.param(s.chunk(s.text(b"Hello there") + ENDED), id="differs and is done"),
        pytest.param(s.chunk(ENDED) + s.LAST, id="ends without a word"),
        pytest.param(s.chunk(s.text(b"Hello ") + s.DONE) + s.LAST, id="is done before it has said as much"),
        pytest.param(s.chunk(s.text(b"Hello w")) + LARGE, id="is cut within a large event"),
        pytest.param(s.chunk(s.text(b"Hello wor")) + LARGE, id="is cut within a large event behind the same words"),
        pytest.param(s.chunk(s.text(b"Hello wor") + s.text(b"ld")) + LARGE, id="goes on and is cut within a large one"),
    ],
)
def test_whatever_is_wrong_with_the_second_answer_the_client_is_told(second: bytes) -> None:
    with stage_of("m (resume retries=1) = a/one") as stage:
        client = begins(stage)
        stage.upstream().says(s.STREAM_HEAD + second)
        stage.upstream().resets()
        heard = client.heard()
        passed = s.chunk(s.text(b"ld")) if b"ld" in second else b""
        assert heard.startswith(passed)
        event = s.openai_event("the upstream closed the connection in the middle of its answer", "reset")
        assert heard[len(passed) :] == s.chunk(event)
        assert client.is_gone or client.is_lingering
        assert stage.receipt().ended_kind == "reset"


def named(model: bytes, words: bytes) -> bytes:
    return s.chunk(s.text(words).replace(b'{"id"', b'{"model":"%b","id"' % model))


@pytest.mark.parametrize(
    ("words", "name"), [(b"Other", "a"), (b"Hel", "a"), (b"Hello", "b")], ids=["differs", "says no more", "goes on"]
)
def test_the_receipt_names_whose_answer_the_client_has(words: bytes, name: str) -> None:
    with stage_of("m (resume retries=1 stream=10) = a/one | b/two") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + named(b"m-a", b"Hel"))
        stage.advance(10.5)
        assert stage.dialed == [A, B]
        stage.upstream().says(s.STREAM_HEAD + named(b"m-b", words))
        stage.upstream().resets()
        assert b'"code":"timeout"' in client.heard()
        receipt = stage.receipt()
        assert (receipt.provider, receipt.model_served) == (name, f"m-{name}")
        assert [each.provider for each in receipt.attempts] == ["a", "b"]


def test_each_who_carries_it_on_gets_the_body_that_it_can_read() -> None:
    """Once changed for one that reports usage if it is asked, it is not so for the next one."""
    providers = tuple(provider(name, takes_include_usage=name == "b") for name in "abc")
    models = "m (resume retries=3) = a/one | b/one | c/one"
    with Stage(models=models, providers=providers) as stage:
        client = begins(stage, b"One ")
        assert b'{"stream_options":{"include_usage":true},"model":"one"' in stage.upstream().heard()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(b"One ") + s.text(b"two ")))
        assert client.heard() == s.chunk(s.text(b"two "))
        stage.upstream().resets()
        assert stage.dialed == [A, B, C]
        assert stage.upstream().heard().endswith(b'{"model":"one","stream":true,"messages":[]}')
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(b"One two three") + ENDED) + s.LAST)
        assert client.heard() == s.chunk(s.text(b"three") + ENDED) + s.LAST


# -- bodies -----------------------------------------------------------------------------------------------------------


def asks_long(stage: Stage) -> s.Peer:
    client = stage.client()
    client.says(s.ask(body=b'{"model":"m","messages":["%b"]}' % (b"x" * 971)))
    return client


def test_a_changed_body_counts_among_all_bodies_and_one_behind_it_finds_no_room() -> None:
    with stage_of(limits=ByteLimits(bodies=2500)) as stage:
        client = asks_long(stage)
        assert stage.relay.bodies == 1000 + 1002
        other = asks_long(stage)
        assert b'"code":"overloaded"' in other.heard()
        stage.receipt()
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert stage.dialed == [A, B]
        assert stage.relay.bodies == 1000 + 1002, "one for each, not one for each target"
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert stage.relay.bodies == 0


def test_without_room_for_it_a_body_is_sent_once() -> None:
    with stage_of(limits=ByteLimits(bodies=1500)) as stage:
        client = asks_long(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert client.heard() == s.passed_on(ERROR, BUSY)
        assert stage.dialed == [A]
        assert [each[2] for each in tried(stage)] == [503]


def test_a_body_is_let_go_when_nothing_can_carry_the_answer_on_any_more() -> None:
    with stage_of("m (resume retries=1) = a/one") as stage:
        client = begins(stage)
        assert stage.relay.bodies > 0
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text(b"Hel")))
        assert stage.relay.bodies == 0
        stage.upstream().says(s.chunk(s.text(b"lo world") + ENDED) + s.LAST)
        assert client.heard() == s.chunk(s.text(b"ld") + ENDED) + s.LAST


def test_a_body_is_let_go_with_the_first_word_where_nothing_is_carried_on() -> None:
    with stage_of("m (resume) = a/one") as stage:
        client = stage.client()
        client.says(s.ask(body=b'{"model":"m","stream":true,"n":2,"messages":[]}'))
        assert stage.relay.bodies > 0
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        assert stage.relay.bodies == 0, "it wants two answers"
        client.resets()


def test_a_stream_that_was_held_is_gone_without_a_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        with stage_of() as stage:
            for _ in range(10):
                client = asks(stage, stream=True)
                stage.upstream().says(s.STREAM_HEAD + ROLE)
                stage.upstream().says(REST)
                assert client.heard() == s.STREAM_HEAD_ON + ROLE + REST
                client.resets()
            assert not any(isinstance(each, Held) for each in gc.get_objects())
    finally:
        gc.enable()


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["all", "provider a", "model one", "model a/one", "model m"])
def test_an_answer_longer_than_a_budget_has_left_is_stopped_whosever_budget_it_is(scope: str) -> None:
    with stage_of("m = a/one", rules={scope: "700tokens/total"}, stops=True) as stage:
        client = stage.client()
        client.says(s.ask(body=b'{"model":"m","stream":true,"max_tokens":50,"messages":[]}'))
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD)
        for _ in range(20):
            if not upstream.is_gone:
                upstream.says(s.chunk(s.text() * 100))
        assert upstream.is_gone
        assert b'"code":"budget_exhausted"' in client.heard()
        assert stage.receipt().ended_kind == "budget_exhausted"


def test_where_the_next_ones_limit_refuses_the_last_word_is_the_providers() -> None:
    with stage_of(rules={"provider b": "rpm=1"}) as stage:
        asks(stage, b"b/two")
        stage.upstream().says(s.unary())
        stage.receipt()
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY, b"x-should-retry: false"))
        assert client.heard() == s.passed_on(ERROR, BUSY, b"x-should-retry: false")
        assert tried(stage) == [("a", "one", 503, "error_status", "first")]


def test_or_the_first_one_is_asked_again() -> None:
    with stage_of("m (retries=1) = a/one | b/two", rules={"provider b": "rpm=1"}) as stage:
        asks(stage, b"b/two")
        stage.upstream().says(s.unary())
        stage.receipt()
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert client.heard() == b""
        stage.advance(0.5)
        stage.upstream().says(s.unary(ERROR, b"500 Oops"))
        assert client.heard() == s.passed_on(ERROR, b"500 Oops")
        assert [each[2:] for each in tried(stage)] == [(503, "error_status", "first"), (500, "error_status", "retry")]


def test_one_request_that_is_too_large_for_a_limit_closes_its_target_for_nobody() -> None:
    said = b'{"error":{"message":"Request too large for one on tokens per min","code":"rate_limit_exceeded"}}'
    with stage_of("m (retries=1) = a/one | b/two") as stage:
        for _ in range(6):
            client = asks(stage)
            stage.upstreams[0].says(s.unary(said, LIMITED, b"retry-after: 60"))
            stage.upstreams[1].says(s.unary())
            assert client.heard() == s.passed_on()
            assert [each[:3] for each in tried(stage)] == [("a", "one", 429), ("b", "two", 200)]
        assert stage.relay.health.of(("a", "one")).breaker.is_closed


def test_what_was_not_counted_when_it_began_is_not_taken_off_what_is() -> None:
    with stage_of("m = a/one") as stage:
        old = asks(stage, stream=True)
        stage.admission.streams_per_key = 2
        two = [asks(stage, stream=True) for _ in range(2)]
        old.resets()
        assert stage.streams == {None: 2}
        third = asks(stage, stream=True)
        assert s.status_of(third.heard()) == 429
        two[0].resets()
        assert stage.streams == {None: 1}
        fourth = asks(stage, stream=True)
        assert fourth.heard() == b""
        stage.admission.streams_per_key = 0
        for client in (two[1], fourth):
            client.resets()
        assert stage.streams == {}


# -- pauses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [BUSY, LIMITED, b"500 No"])
@pytest.mark.parametrize("line", [b"retry-after: 0", b"retry-after-ms: 0", b"retry-after-ms: 1", b"x-nothing: 1"])
def test_a_target_is_asked_four_times_in_three_seconds_at_most(
    status: bytes, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    with stage_of("m (retries=10) = a/one") as stage:
        client = asks(stage)
        began = stage.loop.time()
        times: list[float] = []
        while len(times) < 8:
            times += [stage.loop.time() - began] * asked(stage)
            if len(times) < 8:
                stage.upstream().says(s.unary(ERROR, status, line))
                stage.advance(0.05)
            assert stage.loop.time() < began + 60.0
        assert all(later - each >= 2.99 for each, later in zip(times, times[4:], strict=False)), times
        client.resets()


def test_googles_word_for_no_pause_is_not_taken_for_none() -> None:
    said = b'{"error":{"code":503,"details":[{"@type":"x/google.rpc.RetryInfo","retryDelay":"0.001s"}]}}'
    with stage_of("m (retries=10) = a/one") as stage:
        client = asks(stage)
        asked(stage)
        stage.upstream().says(s.unary(said, BUSY))
        stage.advance(0.19)
        assert asked(stage) == 0
        stage.advance(0.05)
        assert asked(stage) == 1
        client.resets()


def back_again(stage: Stage) -> None:
    """The first target was left alone, and its probe went well."""
    opens(stage, ("a", "one"))
    stage.advance(5.1)
    client = asks(stage)
    stage.upstream().says(s.unary())
    assert client.heard() == s.passed_on()
    assert stage.receipt().provider == "a"


def served(stage: Stage) -> str:
    """By whom the next request is."""
    client = asks(stage)
    for upstream in stage.upstreams:
        if b"POST " in upstream.heard():
            upstream.says(s.unary())
    assert client.heard() == s.passed_on()
    return str(stage.receipt().provider)


def test_a_target_that_has_just_come_back_gets_a_part_while_the_next_group_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with stage_of() as stage:
        back_again(stage)
        chances = iter([0.5, 0.05, 0.15, 0.5])
        monkeypatch.setattr(random, "random", lambda: next(chances))
        assert [served(stage) for _ in range(3)] == ["b", "a", "b"], "a tenth at first"
        stage.advance(9.0)
        assert served(stage) == "a"
        stage.advance(1.1)
        assert served(stage) == "a", "and all after ten seconds, without a throw"


@pytest.mark.parametrize("models", ["m = a/one", "m = a/one | b/two"])
def test_and_all_where_nobody_else_can(models: str) -> None:
    with stage_of(models) as stage:
        back_again(stage)
        opens(stage, ("b", "two"))
        assert [served(stage) for _ in range(3)] == ["a", "a", "a"]


def test_and_what_another_one_has_failed_to_serve() -> None:
    with stage_of("m = a/one | b/two") as stage:
        back_again(stage)
        client = asks(stage)
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert client.heard() == b""
        stage.upstreams[0].says(s.unary())
        assert client.heard() == s.passed_on()
        assert [each[:3] for each in tried(stage)] == [("b", "two", 503), ("a", "one", 200)]
