"""An answer that broke off, carried on by another attempt."""

from __future__ import annotations

import random

import pytest

from proxy.outcome import Kind
from proxy.relay.connect import ConnectFailed
from tests.relay import stage as s
from tests.relay.targets import ERROR, A, B, asks, stage_of


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)


RESUMED = "m (resume) = a/one | b/two"


def delta(words: str, number: str = "c") -> bytes:
    more = b'"delta":{"content":"%b"},"finish_reason":null' % words.encode()
    return b'data: {"id":"%b","choices":[{"index":0,%b}]}\n\n' % (number.encode(), more)


def test_a_stream_that_was_cut_is_carried_on() -> None:
    with stage_of(RESUMED) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.ROLE + delta("Hello wor")))
        stage.upstream().resets()
        assert client.heard() == s.STREAM_HEAD_ON + s.chunk(s.ROLE + delta("Hello wor"))
        assert stage.dialed == [A, A], "the same model says the same, if any does"
        again = stage.upstream()
        again.says(s.STREAM_HEAD + s.chunk(s.ROLE.replace(b'"c"', b'"d"') + delta("Hel", "d")))
        again.says(s.chunk(delta("lo world", "d")))
        again.says(s.chunk(delta("!", "d")) + s.chunk(s.FINISH.replace(b'"c"', b'"d"') + s.DONE) + s.LAST)
        assert client.heard() == s.chunk(delta("ld")) + s.chunk(delta("!") + s.FINISH + s.DONE) + s.LAST
        receipt = stage.receipt()
        assert receipt.complete
        assert [(s.kind_of(each.failure), each.why) for each in receipt.attempts] == [
            ("reset", "first"),
            (None, "resume"),
        ]


def test_another_answer_is_not_carried_on() -> None:
    with stage_of(RESUMED) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello wor")))
        stage.upstream().resets()
        client.heard()
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello there")))
        heard = client.heard()
        assert heard.startswith(b"%x\r\ndata: {" % int(heard.split(b"\r\n")[0], 16))
        assert b"there" not in heard
        assert b'"error"' in heard
        assert not heard.endswith(s.LAST)
        assert client.is_lingering or client.is_gone
        receipt = stage.receipt()
        assert (receipt.complete, receipt.ended_kind) == (False, "reset")
        assert [s.kind_of(each.failure) for each in receipt.attempts] == ["reset", "differs"]


@pytest.mark.parametrize("second", ["refused", "503", "cut", "silent", "401"])
def test_a_second_attempt_that_fails_leaves_the_honest_error(second: str) -> None:
    with stage_of("m (resume retries=1 first_byte=5) = a/one") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello")))
        if second == "refused":
            stage.connects.append(ConnectFailed(Kind.CONNECT_FAILED, "refused"))
        stage.upstream().resets()
        if second in ("503", "401"):
            stage.upstream().says(s.unary(ERROR, second.encode() + b" No"))
        elif second == "cut":
            stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel")))
            stage.upstream().resets()
        elif second == "silent":
            stage.advance(5.5)
        heard = client.heard()
        assert b'"code":"reset"' in heard
        assert not heard.endswith(s.LAST)
        receipt = stage.receipt()
        assert (receipt.ended_kind, len(receipt.attempts)) == ("reset", 2)


def test_a_second_cut_is_resumed_like_the_first() -> None:
    with stage_of(RESUMED) as stage:
        client = asks(stage, stream=True)
        for words in ("One ", "One two ", "One two three"):
            stage.upstream().says(s.STREAM_HEAD + s.chunk(delta(words)))
            if words != "One two three":
                stage.upstream().resets()
        stage.upstream().says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        heard = client.heard()
        sent = b"".join(map(s.chunk, (delta("One "), delta("two "), delta("three"), s.FINISH + s.DONE)))
        assert heard == s.STREAM_HEAD_ON + sent + s.LAST
        assert [each.why for each in stage.receipt().attempts] == ["first", "resume", "resume"]


def test_a_stall_is_resumed_elsewhere() -> None:
    with stage_of("m (resume stream=10) = a/one | b/two") as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel")))
        stage.advance(10.5)
        assert stage.dialed == [A, B]
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hello") + s.FINISH + s.DONE) + s.LAST)
        assert client.heard().endswith(s.chunk(delta("lo") + s.FINISH + s.DONE) + s.LAST)
        receipt = stage.receipt()
        assert (receipt.complete, receipt.provider) == (True, "b")


def test_without_the_option_nothing_is_resumed() -> None:
    with stage_of() as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel")))
        stage.upstream().resets()
        assert b'"code":"reset"' in client.heard()
        assert len(stage.receipt().attempts) == 1


def test_a_client_that_has_left_gets_nothing_resumed() -> None:
    from proxy.policy.keys import Disconnect

    with stage_of(RESUMED, disconnect=Disconnect(True, 60.0)) as stage:
        client = asks(stage, stream=True)
        stage.upstream().says(s.STREAM_HEAD + s.chunk(delta("Hel")))
        client.resets()
        stage.upstream().resets()
        assert len(stage.receipt().attempts) == 1
