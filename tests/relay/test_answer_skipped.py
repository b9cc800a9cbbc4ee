"""Streams with an event that is too large to be looked at: when does it excuse a missing finish, and when not."""

from __future__ import annotations

import pytest

from proxy.relay.options import ByteLimits
from tests.relay import stage as s
from tests.relay.stage import Stage
from tests.relay.test_answer import GEMINI, HEAD, unchunked

LIMITS = ByteLimits(event=1024)
LARGE = s.text(b"x" * 2000)  # without a name: nobody can say what it told
BLANK = b"\n"


def ended(*reads: bytes, rest: bytes = b"") -> str:
    """How a stream of these reads ends, the last of which brings the end of the message, with `rest` before it."""
    with Stage(limits=LIMITS) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD)
        for read in reads[:-1]:
            upstream.says(s.chunk(read))
        upstream.says(s.chunk(reads[-1]) + (s.chunk(rest) if rest else b"") + s.LAST)
        heard = client.heard().removeprefix(s.STREAM_HEAD_ON)
        kind = stage.receipt().ended_kind
        if kind == "complete":
            assert unchunked(heard) == b"".join(reads) + rest
        else:
            assert not heard.endswith(s.LAST)
            assert b'"code":"missing_end"' in heard
        return kind


@pytest.mark.parametrize(
    "reads",
    [
        (s.text(), LARGE, s.text()),
        (s.text(), LARGE[:1500], LARGE[1500:], s.text()),
        (s.text(), LARGE[:1500], LARGE[1500:] + s.text()),
        (s.text() + LARGE + s.text(),),
        (LARGE, LARGE, s.text(), s.text()),
        (LARGE, s.text()[:10], s.text()[10:]),
        (LARGE, BLANK + s.text()),
    ],
)
def test_one_in_the_middle_excuses_nothing(reads: tuple[bytes, ...]) -> None:
    assert ended(*reads) == "missing_end"


@pytest.mark.parametrize(
    "reads",
    [
        (LARGE,),
        (s.text(), LARGE),
        (s.text() + LARGE,),
        (s.text(), LARGE[:1500], LARGE[1500:]),
        (s.text(), LARGE[:1500], LARGE[1500:] + LARGE),
        (s.text(), LARGE, BLANK),
        (s.text(), LARGE, s.text(), LARGE),
    ],
)
def test_the_last_one_may_have_told(reads: tuple[bytes, ...]) -> None:
    assert ended(*reads) == "complete"


@pytest.mark.parametrize("at", [500, 1500])
def test_the_last_one_may_lack_its_empty_line(at: int) -> None:
    assert ended(s.text(), LARGE[:at], LARGE[at:-1]) == "complete"
    assert ended(s.text() + LARGE[:at], LARGE[at:-2]) == "complete"


def test_an_ordinary_one_without_its_empty_line_behind_it() -> None:
    with Stage(limits=LIMITS) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(LARGE))
        client.heard()
        stage.upstream().says(s.chunk(s.text()[:-1]) + s.LAST)
        assert b"missing_end" in client.heard()
        assert stage.receipt().ended_kind == "missing_end"


@pytest.mark.parametrize("end", ["half_closes", "resets"])
def test_until_close(end: str) -> None:
    with Stage(limits=LIMITS) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.OPEN_STREAM_HEAD + s.text() + LARGE[:1500])
        upstream.transport.receive(LARGE[1500:])
        getattr(upstream, end)()
        heard = client.heard()
        assert heard.endswith(s.LAST) is (end == "half_closes")
        assert stage.receipt().ended_kind == ("complete" if end == "half_closes" else "reset")


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize("name", [b"response.completed", b"response.output_text.delta"])
def test_a_name_may_tell_it_all(name: bytes, is_whole: bool) -> None:
    """`response.completed` repeats the whole answer, images too, and is where the stream ends. Of another one
    nobody knows."""
    body = b'{"model":"gpt-5","stream":true,"input":"x"}'
    event = b"event: %b\ndata: {%b}\n\n" % (name, b'"x":"' + b"y" * 2000 + b'"')
    with Stage(limits=LIMITS) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/responses", body))
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD)
        for read in [event] if is_whole else [event[:1500], event[1500:]]:
            upstream.says(s.chunk(read))
        watch = client.protocol.exchange.answer.watch
        assert watch.is_terminal is (name == b"response.completed")
        upstream.says(s.LAST)
        assert stage.receipt().complete


def test_behind_a_large_last_element_of_an_array_stands_its_bracket() -> None:
    one = b'[{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}\n'
    large = b',\n{"candidates":[{"finishReason":"STOP","x":"%b"}]}\n' % (b"y" * 2000)
    with Stage(providers=(GEMINI,), limits=LIMITS) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1beta/models/gemini-x:streamGenerateContent", b'{"contents":[]}'))
        stage.upstream().says(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + s.chunk(one))
        for read in (large[:1500], large[1500:], b"]\n"):
            stage.upstream().says(s.chunk(read))
        stage.upstream().says(s.LAST)
        assert client.heard().endswith(s.LAST)
        assert stage.receipt().complete


def test_it_is_progress() -> None:
    with Stage(limits=LIMITS) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        for _ in range(3):
            stage.advance(140.0)
            upstream.says(s.chunk(LARGE))
        stage.advance(140.0)
        assert not client.is_gone
        stage.advance(11.0)
        assert stage.receipt().ended_kind == "timeout"
