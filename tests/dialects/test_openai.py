"""OpenAI's older formats: what a call asks for, what a watch sees, what the SDK makes of our errors."""

from __future__ import annotations

import json
import random

import pytest

from proxy.dialects import DIALECTS
from proxy.dialects.body import model_span
from proxy.dialects.call import UnreadableBody
from proxy.dialects.openai import (
    ChoicesWatch,
    OpenAIChat,
    OpenAICompletions,
    OpenAIEmbeddings,
    without_usage_event,
)
from proxy.outcome import status_of
from tests.dialects.contract import REFUSED, STALLED, STATUSES
from tests.dialects.cost import DELTA
from tests.dialects.sdk import openai_error_of

CHAT = OpenAIChat()


def chunk(delta: dict[str, object] | None = None, finish: str | None = None, **more: object) -> bytes:
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    text = json.dumps({"id": "c", "choices": choices, **more}, separators=(",", ":"))
    return b"data: " + text.encode() + b"\n\n"


@pytest.mark.parametrize(
    ("body", "model", "stream", "cap"),
    [
        (b'{"model":"m"}', "m", False, None),
        (b'{"model":"m","stream":null,"max_tokens":null}', "m", False, None),
        (b'{"model":"p/m","stream":true,"max_completion_tokens":7}', "p/m", True, 7),
        (b'{"model":"m","max_completion_tokens":7,"max_tokens":9}', "m", False, 9),
        (b'{"model":"m","max_completion_tokens":9,"max_tokens":-1}', "m", False, None),
        (b'{"model":"m","max_completion_tokens":-1,"max_tokens":9}', "m", False, None),
        (b'{"model":"m","max_completion_tokens":9,"max_tokens":null}', "m", False, 9),
        (b'{"model":"m","max_tokens":0}', "m", False, None),
        (b'{"model":"m","max_tokens":5,"n_predict":90000}', "m", False, 90_000),
        (b'{"stream":true}', None, True, None),
    ],
)
def test_a_call_is_read(body: bytes, model: str | None, stream: bool, cap: int | None) -> None:
    for dialect in (CHAT, OpenAICompletions()):
        call = dialect.read_call(body, b"/v1/chat/completions", b"")
        assert (call.model, call.stream, call.cap) == (model, stream, cap)
        assert (model_span(body) is None) == (model is None)


@pytest.mark.parametrize(
    ("member", "names_more"),
    [
        (b'"models":["a","b"]', True),
        (b'"fallbacks":[{"model":"b"}]', True),
        (b'"preset":"p"', True),
        (b'"models":[]', False),
        (b'"models":null', False),
        (b'"user":"u"', False),
    ],
)
@pytest.mark.parametrize(
    "dialect", ["openai-chat", "openai-completions", "openai-embeddings", "openai-responses", "anthropic-messages"]
)
def test_further_models_are_seen(dialect: str, member: bytes, names_more: bool) -> None:
    for body in (b'{"model":"m",%b}' % member, b'{"model":"m","stream":true,%b}' % member):
        assert DIALECTS[dialect].read_call(body, b"/", b"").names_more is names_more


@pytest.mark.parametrize("body", [b'{"model":3}', b'{"stream":"yes"}', b'{"max_tokens":"9"}', b'{"Stream":true}', b"x"])
def test_a_call_that_could_be_misread_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        CHAT.read_call(body, b"", b"")


def test_azure_names_the_model_in_the_path() -> None:
    path = b"/openai/deployments/my%2Dgpt/chat/completions"
    assert CHAT.read_call(b'{"stream":true}', path, b"").model == "my-gpt"
    assert CHAT.read_call(b'{"model":"m"}', path, b"").model == "m"


def test_embeddings_never_stream() -> None:
    call = OpenAIEmbeddings().read_call(b'{"model":"e","stream":"what"}', b"/v1/embeddings", b"")
    assert (call.model, call.stream) == ("e", False)
    assert OpenAIEmbeddings().error_event(STALLED, 504, "r") == b""


def test_the_quick_way_sees_what_the_exact_way_sees() -> None:
    """Blocks of random chunks: however many the learned head lets pass, the end is judged the same."""
    dice = random.Random(3)
    usual = [chunk({"content": text}) for text in ("a", "b c", '"error"', '"finish_reason":"stop"', "[DONE]", "\n\n")]
    odd = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": ""}),
        chunk({"content": "x"}, usage={"total_tokens": 1}),
        chunk({"reasoning_content": "x"}),
        b": ping\n\n",
        b"data: [DONE]\n\n",
        chunk({"content": "x"}, "stop"),
        chunk({}, "stop"),
        chunk({"content": "x"}, error={"message": "m"}),
        b'event: error\ndata: {"error":{}}\n\n',
        b'data: {"choices":[],"usage":{}}\n\n',
    ]
    for _ in range(2000):
        quick, exact = ChoicesWatch(), ChoicesWatch()
        for _ in range(4):
            events = [dice.choice(usual if dice.random() < 0.9 else odd) for _ in range(dice.randint(1, 6))]
            block = b"".join(events)
            quick.texts = 0
            assert quick.feed(block) == exact.feed_slowly(block)
            for fact in ("is_complete", "is_terminal", "has_error", "has_report"):
                assert getattr(quick, fact) == getattr(exact, fact)
            assert quick.events == exact.events
            if quick.texts:  # so nobody searches it for a report
                assert all(event in usual for event in events)


def test_the_usual_delta_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ChoicesWatch()
    assert watch.feed(DELTA)
    monkeypatch.setattr(ChoicesWatch, "feed_slowly", None)
    assert watch.feed(DELTA)
    assert watch.feed(DELTA.replace(b" hello", b'\\"finish_reason\\":\\"stop\\" [DONE] \\"error\\"'))
    assert watch.feed(DELTA * 50)
    assert watch.events == 53
    assert not watch.is_complete


def test_text_without_quotes_between_what_was_learned_is_known_as_text() -> None:
    watch = ChoicesWatch()
    watch.feed(DELTA)
    assert not watch.texts  # it was parsed, and what it reports with it
    for block, is_text in (
        (DELTA, True),
        (DELTA.replace(b" hello", b"x") + DELTA * 3, True),
        (DELTA.replace(b" hello", b""), False),
        (DELTA.replace(b" hello", b'\\"'), False),
        (DELTA.replace(b"a1B", b"zzz"), False),
        (DELTA + DELTA.replace(b'"usage":null', b'"usage":{"total_tokens":1}'), False),
        (DELTA + b": ping\n\n", False),
        (b"data: [DONE]\n\n", False),
    ):
        watch.texts = 0
        watch.feed(block)
        assert watch.texts == is_text, block
    assert watch.is_complete


def test_a_tail_that_tells_an_ending_is_not_learned() -> None:
    last = DELTA.replace(b'"usage":null', b'"usage":null,"error":null')
    watch = ChoicesWatch()
    watch.feed(last)
    watch.feed(last)
    assert not watch.texts


def test_a_learned_head_does_not_hide_an_ending() -> None:
    for ending in (DELTA.replace(b'"finish_reason":null', b'"finish_reason":"stop"'), b"data: [DONE]\n\n"):
        for block in (ending, DELTA * 3 + ending, DELTA + ending + DELTA):
            watch = ChoicesWatch()
            watch.feed(DELTA)
            assert watch.feed(block)
            assert watch.is_complete


def test_a_learned_head_does_not_hide_an_error() -> None:
    broken = DELTA.replace(b'"usage":null', b'"usage":null,"error":{"message":"m"}')
    for block in (broken, DELTA * 3 + broken + DELTA):
        watch = ChoicesWatch()
        watch.feed(DELTA)
        assert watch.feed(block)
        assert watch.has_error


def test_what_is_learned_is_bounded() -> None:
    watch = ChoicesWatch()
    watch.feed(chunk({"content": "x"}, padding="p").replace(b'"id":"c"', b'"id":"' + b"c" * 5000 + b'"'))
    assert len(watch._head) == 1


@pytest.mark.parametrize("block", [b"", b"\xff", b"\n", b"\n\n", b"\xff\n\n", DELTA[:50], DELTA[:-2]])
@pytest.mark.parametrize("has_learned", [False, True])
def test_a_block_of_anything_is_taken(block: bytes, has_learned: bool) -> None:
    watch = ChoicesWatch()
    if has_learned:
        watch.feed(DELTA)
    watch.feed(block)
    assert not watch.is_complete


@pytest.mark.parametrize("data", [b"x", b"{", b"[]", b"3", b'"s"', b"[" * 100_000, b'{"choices":[3,null,{"delta":3}]}'])
def test_odd_data_is_progress_and_no_ending(data: bytes) -> None:
    watch = ChoicesWatch()
    assert watch.feed(b"data: " + data + b"\n\n")
    assert not watch.is_complete


@pytest.mark.parametrize("status", STATUSES)
def test_an_error_body_has_openais_shape(status: int) -> None:
    error = json.loads(CHAT.error_body(STALLED, status, "r"))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == "llm-proxy: " + STALLED.detail
    assert error["code"] == "timeout"
    assert error["type"].endswith("_error")


def test_the_sdk_raises_for_our_event() -> None:
    event = CHAT.error_event(STALLED, status_of(STALLED), "r")
    assert event.startswith(b'data: {"error":{') and event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    raised = openai_error_of(DELTA + event, "chat")
    assert raised is not None and "llm-proxy: the provider said" in str(raised)


def test_our_own_event_is_an_error_to_the_watch() -> None:
    watch = ChoicesWatch()
    watch.feed(CHAT.error_event(REFUSED, 400, "r"))
    assert watch.has_error
    assert not watch.is_terminal


@pytest.mark.parametrize("dialect", [CHAT, OpenAICompletions()])
def test_a_stream_without_usage_is_known(dialect: OpenAIChat) -> None:
    def lacks(body: bytes) -> bool:
        return dialect.read_call(body, b"", b"").lacks_usage

    assert lacks(b'{"model":"m","stream":true}')
    assert lacks(b'{"model":"m","stream":true,"stream_options":{"include_usage":false}}')
    assert not lacks(b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}')
    assert not lacks(b'{"model":"m"}')
    assert not lacks(b'{"model":"m","stream":false,"stream_options":null}')


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
KEPT = [
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n',
    b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
    b'data: {"choices":[],"usage":null}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\n\n',
    b'data: {"choices":[{"delta":{"content":"\\"choices\\":[],\\"usage\\":{}"}}]}\n\n',
    b'data: {"choices":[{"delta":{"tool":{"choices":[],"usage":{}}}}]}\n\n',
    b": comment\n\n",
    b"data: [DONE]\n\n",
]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_only_the_event_that_only_reports_usage_is_taken_out(end: bytes) -> None:
    kept = [event.replace(b"\n", end) for event in KEPT]
    for event in kept:
        assert without_usage_event(event) == event
    usages = [USAGE, USAGE.replace(b":[],", b": [ ] , "), b"event: x\nid: 7\n" + USAGE]
    for usage in (each.replace(b"\n", end) for each in usages):
        assert without_usage_event(usage) == b""
        for at in range(len(kept) + 1):
            assert without_usage_event(b"".join([*kept[:at], usage, *kept[at:]])) == b"".join(kept)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_what_begins_before_a_piece_or_ends_behind_it_stays(end: bytes) -> None:
    rest, begin = b'the end of a text"}}]}\n\n', b'data: {"choices":[{"delta":{"content":"and on'
    piece = (rest + USAGE + begin).replace(b"\n", end)
    assert without_usage_event(piece) == (rest + begin).replace(b"\n", end)
    assert without_usage_event(USAGE.strip()) == b"", "a stream may end without its last blank line"


def test_a_report_with_an_error_is_for_the_client() -> None:
    event = b'data: {"choices":[],"usage":{"prompt_tokens":1},"error":{"message":"cut short"}}\n\n'
    assert without_usage_event(event) == event
