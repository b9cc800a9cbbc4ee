"""The rest of an answer that broke off: never a character twice, never one left out, else the honest error."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.secret import Secret
from proxy.outcome import Kind, Limit
from proxy.policy.keys import Disconnect
from proxy.relay.connect import ConnectFailed
from proxy.relay.options import ByteLimits
from tests.relay import stage as s
from tests.relay.stage import FakeCounter, FoundTokens, Peer, Stage
from tests.relay.targets import BUSY, ERROR, A, B, asks, provider, stage_of

SAME = "m (resume) = a/one | b/one"  # the same model at another target
BODY = b'{"model":"m","stream":true,"messages":[]}'


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


def delta(words: str, number: str = "c") -> bytes:
    more = b'"delta":{"content":"%b"},"finish_reason":null' % words.encode()
    return b'data: {"id":"%b","choices":[{"index":0,%b}]}\n\n' % (number.encode(), more)


def cut(stage: Stage, words: str = "Hello wor", ask: bytes = b"") -> Peer:
    """A client has got these words when its stream breaks off, and another attempt has been made."""
    client = stage.client()
    client.says(ask or s.ask(body=BODY))
    stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE + delta(words)))
    stage.upstream().resets()
    assert client.heard().endswith(s.chunk(s.ROLE + delta(words)) if b"HTTP/1.0" not in ask else delta(words))
    return client


def goes_on(client: Peer, upstream: Peer, *events: bytes) -> bytes:
    """What the client hears of these events, each in a read of its own."""
    upstream.says(s.STREAM_HEAD)
    for each in events:
        upstream.says(s.chunk(each))
    return client.heard()


def is_honest(heard: bytes, code: bytes = b"reset") -> bool:
    """An error event ends what the client has, and there is no last chunk."""
    return b'"code":"%b"' % code in heard and s.LAST not in heard and b"[DONE]" not in heard


# -- what goes on -----------------------------------------------------------------------------------------------------


def test_it_goes_on_at_another_target_of_the_same_model() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage)
        assert stage.dialed == [A, B]
        assert b'"model":"one"' in stage.upstream().heard()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello world") + s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == s.chunk(delta("ld") + s.FINISH + s.DONE) + s.LAST
        receipt = stage.receipt()
        assert (receipt.complete, receipt.status, receipt.provider) == (True, 200, "b")
        assert [each.bytes_out for each in receipt.attempts] == [
            len(s.ROLE + delta("Hello wor")),
            len(delta("ld") + s.FINISH + s.DONE),
        ]
        assert receipt.bytes_out == sum(each.bytes_out for each in receipt.attempts)
        assert stage.pooled == 1


@given(st.text(alphabet="ab é\N{GRINNING FACE}", min_size=1, max_size=12), st.data())
def test_wherever_both_are_cut_the_client_gets_the_words_once(words: str, data: st.DataObject) -> None:
    """The first stream breaks off behind any character, and the second one has its own pieces."""
    at = data.draw(st.integers(1, len(words)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(words)), max_size=4)) | {len(words)})
    pieces = [words[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
    with stage_of(SAME) as stage:
        client = cut(stage, words[:at])
        heard = goes_on(client, stage.upstream(), *map(delta, pieces), s.FINISH + s.DONE)
        stage.upstream().says(s.LAST)
        heard += client.heard()
        assert text_of(heard) == words[at:]
        assert heard.endswith(s.DONE + b"\r\n" + s.LAST)
        assert stage.receipt().complete


def text_of(chunks: bytes) -> str:
    out = ""
    for line in chunks.split(b"\n"):
        if line.startswith(b"data: {"):
            out += orjson.loads(line[6:])["choices"][0]["delta"].get("content", "")
    return out


def test_what_was_said_to_the_last_word_needs_only_its_end() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello")
        assert goes_on(client, stage.upstream(), delta("Hel"), delta("lo")) == b""
        stage.upstream().says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == s.chunk(s.FINISH + s.DONE) + s.LAST
        assert stage.receipt().complete


def test_comments_and_roles_of_the_second_are_not_passed_before_it_goes_on() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello")
        assert goes_on(client, stage.upstream(), s.COMMENT, s.ROLE, s.COMMENT + delta("He"), s.COMMENT) == b""
        stage.upstream().says(s.chunk(delta("llo you")))
        assert client.heard() == s.chunk(delta(" you"))
        client.resets()


def test_a_client_of_http_1_0_gets_the_rest_without_chunks() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello ", s.ask(body=BODY, version=b"1.0"))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello world") + s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == delta("world") + s.FINISH + s.DONE
        assert client.is_gone
        assert stage.receipt().complete


def test_the_connection_carries_the_next_request() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello ")
        client.says(s.ask(body=b'{"model":"m","messages":[]}'))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello world") + s.FINISH + s.DONE) + s.LAST)
        assert client.heard().endswith(s.LAST)
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()
        assert [receipt.complete for receipt in stage.receipts] == [True, True]


USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9,"total_tokens":14}}\n\n'


def test_usage_that_only_we_asked_for_stays_here_of_both() -> None:
    providers = tuple(provider(name, takes_include_usage=True) for name in "ab")
    with Stage(models=SAME, retries=2, providers=providers) as stage:
        client = cut(stage, "Hello ")
        for upstream in stage.upstreams:
            assert upstream.heard().endswith(
                b'{"stream_options":{"include_usage":true},' + BODY[1:].replace(b'"m"', b'"one"')
            )
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello world") + s.FINISH + USAGE + s.DONE) + s.LAST)
        assert client.heard() == s.chunk(delta("world") + s.FINISH + s.DONE) + s.LAST
        second = stage.receipt().attempts[1].usage
        assert second is not None
        assert (second.input, second.output, second.complete) == (5, 9, True)


def test_a_long_second_answer_is_metered_as_it_comes() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello ")
        goes_on(client, stage.upstream(), delta("Hello "), *[delta("x" * 1000)] * 40)
        stage.upstream().says(s.chunk(s.FINISH + USAGE + s.DONE) + s.LAST)
        assert client.heard().endswith(USAGE + s.DONE + b"\r\n" + s.LAST)
        second = stage.receipt().attempts[1].usage
        assert second is not None
        assert (second.input, second.output) == (5, 9)


def test_a_long_second_answer_that_reports_nothing_is_counted_as_it_comes() -> None:
    counter = FakeCounter()
    with stage_of(SAME, counter=counter) as stage:
        client = cut(stage, "Hello ")
        goes_on(client, stage.upstream(), delta("Hello "), *[delta("x" * 1000)] * 90)
        assert len(counter.folded) == 1
        client.resets()
        for told in counter.told:
            told.done(None)
        stage.receipt()


def test_events_and_times_are_those_of_the_whole_answer() -> None:
    with stage_of(SAME) as stage:
        client = asks(stage, stream=True)
        stage.advance(1.0)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE + delta("Hello ")))
        stage.advance(1.0)
        stage.upstream().resets()
        stage.advance(1.0)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel")))
        stage.upstream().says(s.chunk(delta("lo you") + s.FINISH + s.DONE) + s.LAST)
        client.heard()
        receipt = stage.receipt()
        assert receipt.events == 5, "two before, and three of the second"
        assert (receipt.first_byte_ms, receipt.first_event_ms, receipt.total_ms) == (1000.0, 1000.0, 3000.0)


# -- Anthropic's streams ----------------------------------------------------------------------------------------------


def event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()


def begin(number: str) -> bytes:
    message = f'{{"id":"{number}","type":"message","role":"assistant","content":[],"usage":{{"input_tokens":3}}}}'
    start = event("message_start", f'{{"type":"message_start","message":{message}}}')
    block = '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    return start + event("content_block_start", block)


def say(words: str) -> bytes:
    text = f'{{"type":"text_delta","text":"{words}"}}'
    return event("content_block_delta", f'{{"type":"content_block_delta","index":0,"delta":{text}}}')


END = (
    event("content_block_stop", '{"type":"content_block_stop","index":0}')
    + event("message_delta", '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}')
    + event("message_stop", '{"type":"message_stop"}')
)


def test_a_message_of_anthropics_goes_on_in_its_block() -> None:
    family: dict[str, Any] = {"family": "anthropic", "base": b"", "auth": "x-api-key"}
    providers = tuple(provider(name, **family) for name in "ab")
    with Stage(models=SAME, retries=1, providers=providers) as stage:
        client = stage.client()
        body = b'{"model":"m","max_tokens":9,"stream":true,"messages":[]}'
        client.says(s.request(b"POST", b"/v1/messages", body))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(begin("m1") + say("Hello w")))
        stage.upstream().resets()
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(begin("m1") + say("Hello w"))
        assert goes_on(client, stage.upstream(), begin("m2"), say("Hello ")) == b""
        stage.upstream().says(s.chunk(say("world")) + s.chunk(END) + s.LAST)
        assert client.heard() == s.chunk(say("orld") + END) + s.LAST
        receipt = stage.receipt()
        assert receipt.complete
        assert receipt.usage is not None
        assert receipt.attempts[1].usage is not None
        assert receipt.attempts[1].usage.output == 9


# -- what cannot go on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","stream":true,"n":2,"messages":[]}',
        b'{"model":"a/one","stream":true,"messages":[]}',
    ],
)
def test_what_is_not_one_choice_under_an_alias_is_not_carried_on(body: bytes) -> None:
    with stage_of(SAME) as stage:
        client = stage.client()
        client.says(s.ask(body=body))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        stage.upstream().resets()
        assert is_honest(client.heard())
        assert stage.dialed == [A]
        assert len(stage.receipt().attempts) == 1


@pytest.mark.parametrize(
    "event_of_another_kind",
    [
        b'data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"id":"t"}]},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"refusal":"no"},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":1,"delta":{"content":"x"},"finish_reason":null}]}\n\n',
        s.FINISH,
    ],
)
def test_what_is_more_than_text_is_not_carried_on(event_of_another_kind: bytes) -> None:
    with stage_of(SAME) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello") + event_of_another_kind))
        client.heard()
        stage.upstream().resets()
        assert b'"code":"reset"' in client.heard()
        assert stage.dialed == [A]
        stage.receipt()


def test_responses_are_not_carried_on() -> None:
    text = event("response.output_text.delta", '{"type":"response.output_text.delta","delta":"a"}')
    with stage_of(SAME) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/responses", b'{"model":"m","stream":true,"input":"a"}'))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(text))
        stage.upstream().resets()
        assert b"event: error\n" in client.heard()
        assert stage.dialed == [A]
        stage.receipt()


def test_a_body_that_is_not_kept_is_not_sent_again() -> None:
    with stage_of(SAME, limits=ByteLimits(replay=20)) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        stage.upstream().resets()
        assert is_honest(client.heard())
        assert stage.dialed == [A]
        stage.receipt()


def test_an_event_that_was_too_large_to_be_looked_at_cannot_be_compared() -> None:
    limits = ByteLimits(event=2000, buffer=1000)
    with stage_of(SAME, limits=limits) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("a")) + s.chunk(delta("x" * 5000)))
        stage.upstream().resets()
        assert is_honest(client.heard())
        assert stage.dialed == [A]
        stage.receipt()
    with stage_of(SAME, limits=limits) as stage:
        client = cut(stage, "Hello")
        assert is_honest(goes_on(client, stage.upstream(), delta("Hel"), delta("x" * 5000)))
        receipt = stage.receipt()
        assert [s.kind_of(each.failure) for each in receipt.attempts] == ["reset", "differs"]


def test_without_a_retry_left_nothing_is_carried_on() -> None:
    with stage_of("m (resume retries=0) = a/one | b/one") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        stage.upstream().resets()
        assert is_honest(client.heard())
        stage.receipt()
    with stage_of(SAME) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        while stage.relay.retries.take(stage.loop.time()):
            pass
        stage.upstream().resets()
        assert is_honest(client.heard())
        assert len(stage.receipt().attempts) == 1


def test_an_error_that_the_provider_tells_is_its_end() -> None:
    told = b'data: {"error":{"message":"busy","type":"server_error"}}\n\n'
    with stage_of(SAME) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        stage.upstream().says(s.chunk(told) + s.LAST)
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(delta("Hello")) + s.chunk(told) + s.LAST
        assert stage.dialed == [A]
        assert stage.receipt().ended_kind == "error_event"


# -- where the second one is another answer ---------------------------------------------------------------------------

TOLD = b'data: {"error":{"message":"busy","type":"server_error"}}\n\n'


@pytest.mark.parametrize(
    "second",
    [
        [delta("Help")],
        [delta("Hell"), delta("!")],
        [delta("Hel"), s.FINISH + s.DONE],
        [delta("Hel"), TOLD],
        [TOLD],
        [b'data: {"id":"d","choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]},"finish_reason":null}]}\n\n'],
        [delta("Hel"), b"data: no json\n\n"],
    ],
)
def test_nothing_of_another_answer_is_passed(second: list[bytes]) -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello")
        heard = goes_on(client, stage.upstream(), *second)
        assert is_honest(heard)
        assert heard.count(b"data: ") == 1
        assert stage.upstream().is_gone
        receipt = stage.receipt()
        assert (receipt.complete, receipt.status, receipt.ended_kind) == (False, 200, "reset")
        assert [s.kind_of(each.failure) for each in receipt.attempts] == ["reset", "differs"]


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
@pytest.mark.parametrize("document", [s.DOCUMENT, ERROR])
def test_a_document_is_another_answer(kind: bytes, document: bytes) -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello")
        stage.upstream().says(s.unary(document, b"200 OK", b"Content-Type: " + kind))
        assert is_honest(client.heard())
        assert [s.kind_of(each.failure) for each in stage.receipt().attempts] == ["reset", "differs"]


def test_one_that_comes_compressed_is_another_answer() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello")
        stage.upstream().says(
            s.STREAM_HEAD.replace(b"Date:", b"Content-Encoding: gzip\r\nDate:") + s.chunk(b"\x1f\x8b")
        )
        assert is_honest(client.heard())
        stage.receipt()


@pytest.mark.parametrize("end", [b"", s.DONE])
def test_one_that_ends_before_it_has_said_what_the_client_has_is_cut_itself(end: bytes) -> None:
    with stage_of("m (resume retries=1) = a/one | b/one") as stage:
        client = cut(stage, "Hello")
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel") + end) + s.LAST)
        assert is_honest(client.heard())
        receipt = stage.receipt()
        assert not receipt.complete
        assert s.kind_of(receipt.attempts[1].failure) in ("missing_end", "differs")


def test_after_it_goes_on_an_error_of_its_own_is_passed_with_our_credential_hidden() -> None:
    key = "sk-proj-0123456789abcdef"
    providers = tuple(provider(name, credential=Secret(key)) for name in "ab")
    with Stage(models=SAME, retries=2, providers=providers) as stage:
        client = cut(stage, "Hello")
        told = b'data: {"error":{"message":"wrong key %b"}}\n\n'
        assert goes_on(client, stage.upstream(), delta("Hello you"), told % key.encode()) == (
            s.chunk(delta(" you")) + s.chunk(told % (b"*" * len(key)))
        )
        stage.upstream().says(s.LAST)
        assert client.heard() == s.LAST
        receipt = stage.receipt()
        assert receipt.ended_kind == "error_event"
        assert [s.kind_of(each.failure) for each in receipt.attempts] == ["reset", "error_event"]


# -- and again --------------------------------------------------------------------------------------------------------


def test_cuts_follow_each_other_until_the_retries_are_used_up() -> None:
    with stage_of("m (resume retries=2) = a/one | b/one") as stage:
        client = cut(stage, "One ")
        assert goes_on(client, stage.upstream(), delta("One two ")) == s.chunk(delta("two "))
        stage.upstream().resets()
        assert goes_on(client, stage.upstream(), delta("One "), delta("two three ")) == s.chunk(delta("three "))
        stage.upstream().resets()
        assert is_honest(client.heard())
        receipt = stage.receipt()
        assert [s.kind_of(each.failure) for each in receipt.attempts] == ["reset"] * 3
        sizes = [len(s.ROLE + delta("One ")), len(delta("two ")), len(delta("three "))]
        assert [each.bytes_out for each in receipt.attempts] == sizes


def test_a_second_one_that_is_cut_before_it_goes_on_is_followed_too() -> None:
    with stage_of("m (resume retries=2) = a/one | b/one") as stage:
        client = cut(stage, "One two")
        assert goes_on(client, stage.upstream(), delta("One ")) == b""
        stage.upstream().resets()
        stage.advance(1.0)  # nothing of it was of any use: not at once
        assert goes_on(client, stage.upstream(), delta("One two!")) == s.chunk(delta("!"))
        stage.upstream().says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == s.chunk(s.FINISH + s.DONE) + s.LAST
        assert stage.receipt().complete


def test_where_the_second_one_fails_the_cut_is_what_the_client_hears_of() -> None:
    """Whatever the attempts after it met."""
    with stage_of("m (resume retries=2) = a/one | b/one") as stage:
        stage.connects += [None, ConnectFailed(Kind.CONNECT_FAILED, "refused")]
        client = cut(stage, "Hello")
        stage.advance(1.0)
        stage.upstream().says(s.unary(ERROR, BUSY))
        assert is_honest(client.heard(), b"reset")
        receipt = stage.receipt()
        kinds = [s.kind_of(each.failure) for each in receipt.attempts]
        assert kinds == ["reset", "connect_failed", "error_status"]
        assert (receipt.ended_kind, receipt.ended_phase.value) == ("reset", "stream")


# -- limits -----------------------------------------------------------------------------------------------------------


def test_where_a_limit_has_no_room_for_another_attempt_the_cut_is_honest() -> None:
    """As long as nobody has counted what the first one said, all that it took is taken."""
    counter = FakeCounter()
    with stage_of(SAME, rules={"all": "40ktokens/total"}, counter=counter) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        stage.upstream().resets()
        assert is_honest(client.heard())
        assert stage.dialed == [A]
        counter.told[0].done(FoundTokens(1, 10))
        receipt = stage.receipt()
        assert (receipt.ended_kind, len(receipt.attempts)) == ("reset", 1)
        assert stage.relay.health.of(("b", "one")).in_flight == 0


def test_what_a_targets_own_limit_refuses_is_not_carried_on_there() -> None:
    rules = {"provider a": "rpm=1", "provider b": "rpm=1"}
    with stage_of(SAME, rules=rules) as stage:
        asks(stage, b"b/one")
        stage.upstream().says(s.unary())
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        stage.upstream().resets()
        assert is_honest(client.heard())
        receipt = stage.receipts[-1]
        assert [each.provider for each in receipt.attempts] == ["a"]
        assert receipt.ended_kind == "reset"
        assert stage.relay.health.of(("b", "one")).in_flight == 0


def test_silence_of_the_second_one_has_the_limits_of_any_attempt() -> None:
    with stage_of("m (resume retries=1 first_byte=5 first_event=9 stream=9) = a/one | b/one") as stage:
        client = cut(stage, "Hello")
        stage.advance(5.3)
        assert is_honest(client.heard())
        assert s.kind_of(stage.receipt().attempts[1].failure) == "timeout"
        client = cut(stage, "Hello")
        goes_on(client, stage.upstream(), s.ROLE)
        stage.advance(9.3)
        assert is_honest(client.heard())
        assert s.kind_of(stage.receipt().attempts[1].failure) == "timeout"


def test_the_limit_on_the_whole_holds_for_all_attempts_together() -> None:
    with stage_of("m (resume total=10) = a/one | b/one") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        stage.advance(6.0)
        stage.upstream().resets()
        client.heard()
        stage.advance(4.3)
        assert is_honest(client.heard(), b"timeout")
        assert stage.receipt().ended_phase.value == "total"


# -- clients in the meantime ------------------------------------------------------------------------------------------


def test_who_leaves_before_it_goes_on_ends_it() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello")
        goes_on(client, stage.upstream(), delta("Hel"))
        client.resets()
        assert stage.upstream().is_gone
        receipt = stage.receipt()
        assert (receipt.ended_kind, len(receipt.attempts)) == ("client_left", 2)


def test_who_leaves_may_be_drained_from_the_second_one_too() -> None:
    with stage_of(SAME, disconnect=Disconnect(True, 60.0)) as stage:
        client = cut(stage, "Hello")
        goes_on(client, stage.upstream(), delta("Hel"))
        client.resets()
        assert not stage.upstream().is_gone
        stage.upstream().says(s.chunk(delta("lo you") + s.FINISH + USAGE + s.DONE) + s.LAST)
        receipt = stage.receipt()
        assert receipt.ended_kind == "client_left"
        assert receipt.bytes_out == len(s.ROLE + delta("Hello"))
        assert receipt.attempts[1].usage is not None
        assert receipt.attempts[1].usage.output == 9


def test_who_does_not_read_pauses_the_second_one() -> None:
    with stage_of(SAME, seconds={Limit.CLIENT_STALL: 500.0}) as stage:
        client = cut(stage, "Hello")
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel")))
        client.stops_reading()
        assert stage.upstream().transport.paused
        stage.advance(300.0)
        client.reads_on()
        assert not stage.upstream().transport.paused
        stage.upstream().says(s.chunk(delta("lo you") + s.FINISH + s.DONE) + s.LAST)
        assert client.heard() == s.chunk(delta(" you") + s.FINISH + s.DONE) + s.LAST
        assert stage.receipt().complete


def test_who_stopped_reading_before_there_was_a_link_pauses_it_with_its_head() -> None:
    with stage_of(SAME) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        stage.holds_connects = True
        stage.upstream().resets()
        client.stops_reading()
        stage.connect()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel")))
        assert stage.upstream().transport.paused
        client.reads_on()
        assert not stage.upstream().transport.paused
        client.resets()


def test_a_shutdown_in_the_silence_is_told() -> None:
    with stage_of(SAME) as stage:
        client = cut(stage, "Hello")
        goes_on(client, stage.upstream(), delta("Hel"))
        stage.relay.give_up()
        assert is_honest(client.heard(), b"shutdown")
        assert stage.receipt().ended_kind == "shutdown"
