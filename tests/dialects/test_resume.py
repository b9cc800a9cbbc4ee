from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects import DIALECTS, resume
from proxy.dialects.resume import Resumed, Said, resumable
from proxy.dialects.resume_event import whole_events
from proxy.wire.sse import EventCutter, EventFraming, split_events
from tests import recordings
from tests.dialects import transcripts

CHAT, MESSAGES = "openai-chat", "anthropic-messages"

# -- streams of our own, and a client that collects them --------------------------------------------------------------


def chunk(who: str, delta: object, reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    said = {"id": "id-" + who, "created": len(who), "model": "model-" + who, "choices": [choice], **more}
    return b"data: " + json.dumps(said, separators=(",", ":")).encode() + b"\n\n"


def event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}  \n\n".encode()


def raw(text: str, in_ascii: bool) -> bytes:
    try:
        return json.dumps(text, ensure_ascii=in_ascii).encode()
    except UnicodeEncodeError:  # half a pair
        return json.dumps(text).encode()


def chat(who: str, deltas: list[str], in_ascii: bool = True, ends_with_text: bool = False) -> list[bytes]:
    """The events of a whole stream."""
    texts = []
    for number, delta in enumerate(deltas):
        is_last = ends_with_text and number == len(deltas) - 1
        padded = chunk(who, {"content": "TEXT"}, "stop" if is_last else None, usage=None, obfuscation="x" * number)
        texts.append(padded.replace(b'"TEXT"', raw(delta, in_ascii)))
    ending = [] if ends_with_text and deltas else [chunk(who, {}, "stop")]
    usage = b'data: {"id":"id-%b","choices":[],"usage":{"completion_tokens":5}}\n\n' % who.encode()
    return [chunk(who, {"role": "assistant", "content": ""}), *texts, *ending, usage, b"data: [DONE]\n\n"]


def messages(who: str, deltas: list[str], in_ascii: bool = True, index: int = 0) -> list[bytes]:
    part = event("content_block_delta", index=index, delta={"type": "text_delta", "text": "TEXT"})
    return [
        event("message_start", message={"id": who, "model": who, "content": [], "usage": {"output_tokens": 1}}),
        event("content_block_start", index=index, content_block={"type": "text", "text": ""}),
        event("ping"),
        *[part.replace(b'"TEXT"', raw(delta, in_ascii)) for delta in deltas],
        event("content_block_stop", index=index),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5}),
        event("message_stop"),
    ]


Speak = Callable[[str, list[str], bool], list[bytes]]
SPEAK: dict[str, Speak] = {CHAT: chat, MESSAGES: messages}


def values(stream: bytes) -> Iterator[dict[str, Any]]:
    """What a client reads; raises where it is not JSON."""
    for _, data in split_events(stream):
        if data != b"[DONE]":
            value = json.loads(data)
            assert isinstance(value, dict)
            yield value


def units(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def collected(stream: bytes) -> bytes:
    """All text that a client has of a stream, in UTF-16 units."""
    text = b""
    for value in values(stream):
        for choice in value.get("choices") or []:
            content = (choice.get("delta") or {}).get("content")
            text += units(content) if isinstance(content, str) else b""
        for name in ("content_block", "delta"):
            text += units((value.get(name) or {}).get("text") or "")
    return text


def feed(resumed: Resumed, blocks: list[bytes]) -> bytes | None:
    """What passes of a stream. None: it differs, and nothing passed."""
    passed = b""
    for block in blocks:
        piece = resumed.feed(block)
        if piece is None:
            assert not passed and not resumed.can_go_on and resumed.feed(block) is None
            return None
        passed += piece
    return passed


def told(dialect: str, blocks: list[bytes]) -> Said:
    said = resumable(dialect)
    assert said is not None
    for block in blocks:
        said.feed(block)
    return said


def is_one_stream(dialect: str, stream: bytes, who: str) -> bool:
    """Whether a client takes it for one whole stream, of `who`."""
    got = list(values(stream))
    if dialect == CHAT:
        roles = [each for each in got if each["choices"] and each["choices"][0]["delta"].get("role")]
        marks = {(each["id"], each.get("created", len(who))) for each in got}
        return len(roles) == 1 and marks == {("id-" + who, len(who))} and b"data: [DONE]" in stream
    kinds = [key for key, _ in itertools.groupby(each["type"] for each in got if each["type"] != "ping")]
    usual = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"]
    indices = {each["index"] for each in got if "index" in each}
    return [kind for kind in kinds if kind != "content_block_delta"] == [
        kind for kind in [*usual, "message_stop"] if kind != "content_block_delta"
    ] and len(indices) == 1


# -- any text, however it is cut ---------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["\U0001f600", "é", '"', "\\", "\n", "\ud83d", "\ude00", "\u2028", "\x00", "ab", "data: ", "{}"]
)
TEXTS = st.lists(PIECES | st.characters(), max_size=14).map("".join)
DIALECT = st.sampled_from([CHAT, MESSAGES])


def cut(data: st.DataObject, size: int, most: int = 8) -> list[int]:
    return sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=most))})


def stream_of(data: st.DataObject, dialect: str, who: str, text: bytes) -> list[bytes]:
    """A stream of that text (in units), cut into any deltas, spoken in any way."""
    edges = cut(data, len(text) // 2)
    deltas = [text[2 * a : 2 * b].decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(edges)]
    events = SPEAK[dialect](who, deltas, data.draw(st.booleans()))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(events)))
        events[at:at] = [b": still here\n\n"]
    return events


def blocks_of(data: st.DataObject, events: list[bytes]) -> list[bytes]:
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    joined = [b"".join(events[a:b]) for a, b in itertools.pairwise(cut(data, len(events)))]
    return [block.replace(b"\n", end) for block in joined]


def before_the_end(dialect: str, events: list[bytes]) -> int:
    """Where the first event stands after which nothing is left to resume."""
    ends = (b'"finish_reason":"', b"content_block_stop")[dialect == MESSAGES]
    return next(at for at, each in enumerate(events) if ends in each)


@given(st.data(), DIALECT, TEXTS, st.integers(1, 3))
@settings(max_examples=600, deadline=None)
def test_after_any_cuts_the_client_has_the_text_once(data: st.DataObject, dialect: str, text: str, cuts: int) -> None:
    whole = units(text)
    first = stream_of(data, dialect, "a", whole)
    sent = first[: data.draw(st.integers(0, before_the_end(dialect, first)))]
    said = told(dialect, blocks_of(data, sent))
    got = b"".join(sent)
    for number in range(cuts):
        assert said.can_resume and said.units() == collected(got)
        again = stream_of(data, dialect, "b" * (2 + number), whole)
        is_last = number == cuts - 1
        part = again if is_last else again[: data.draw(st.integers(0, before_the_end(dialect, again)))]
        resumed = said.resume()
        passed = feed(resumed, blocks_of(data, part))
        assert passed is not None and not resumed.has_error
        got += passed
    assert collected(got) == whole
    assert not said.can_resume, "it is complete"
    begun = [each for each in values(got) if each.get("choices") or each.get("message")]
    who = begun[0].get("id", "")[3:] if dialect == CHAT else ""
    assert is_one_stream(dialect, got, who)


@given(st.data(), DIALECT, TEXTS.filter(bool), st.integers(0, 0xFFFF))
@settings(max_examples=400, deadline=None)
def test_a_text_that_differs_passes_no_byte(data: st.DataObject, dialect: str, text: str, other: int) -> None:
    whole = units(text)
    first = stream_of(data, dialect, "a", whole)
    sent = first[: before_the_end(dialect, first)]
    said = told(dialect, [b"".join(sent)])
    at = 2 * data.draw(st.integers(0, len(whole) // 2 - 1))
    unit = other.to_bytes(2, "little")
    changed = whole[:at] + unit + whole[at + 2 :]
    passed = feed(said.resume(), blocks_of(data, stream_of(data, dialect, "b", changed)))
    assert (passed is None) is (changed != whole)
    assert said.can_resume is (changed != whole), "the next may still be tried"


@given(st.data(), DIALECT, TEXTS, TEXTS)
@settings(max_examples=400, deadline=None)
def test_another_text_is_joined_only_if_it_begins_with_the_first(
    data: st.DataObject, dialect: str, text: str, other: str
) -> None:
    other = data.draw(st.sampled_from([other, text + other, text[:-1] + other, text[: len(text) // 2]]))
    first = stream_of(data, dialect, "a", units(text))
    sent = first[: data.draw(st.integers(0, before_the_end(dialect, first)))]
    said = told(dialect, blocks_of(data, sent))
    had = said.units()
    passed = feed(said.resume(), blocks_of(data, stream_of(data, dialect, "b", units(other))))
    assert (passed is not None) is units(other).startswith(had)
    if passed is not None:
        assert collected(b"".join(sent) + passed) == units(other)


# -- cases -------------------------------------------------------------------------------------------------------------


def test_only_two_dialects_are_resumed() -> None:
    assert {name for name in DIALECTS if resumable(name) is not None} == {CHAT, MESSAGES}
    assert resumable("nothing") is None


@pytest.mark.parametrize(
    ("dialect", "bad"),
    [
        (CHAT, chunk("a", {"tool_calls": [{"index": 0}]})),
        (CHAT, chunk("a", {"reasoning": "hm"})),
        (CHAT, chunk("a", {"content": "!"}, "stop")),
        (CHAT, b"data: [DONE]\n\n"),
        (CHAT, b'data: {"error":{"code":1}}\n\n'),
        (CHAT, b"data: ?\n\n"),
        (CHAT, chunk("a", {"content": "x"}).replace(b'"index":0', b'"index":1')),
        (MESSAGES, event("content_block_stop", index=0)),
        (MESSAGES, event("content_block_start", index=1, content_block={"type": "text", "text": ""})),
        (MESSAGES, event("content_block_start", index=1, content_block={"type": "thinking", "thinking": ""})),
        (MESSAGES, event("content_block_delta", index=1, delta={"type": "text_delta", "text": "x"})),
        (MESSAGES, event("content_block_delta", index=0, delta={"type": "citations_delta", "citation": {}})),
        (MESSAGES, event("error", error={})),
    ],
)
@pytest.mark.parametrize("is_joined", [False, True])
def test_after_anything_but_text_nothing_is_resumed(dialect: str, bad: bytes, is_joined: bool) -> None:
    events = SPEAK[dialect]("a", ["x", "y"], True)[: 5 if dialect == MESSAGES else 3]
    said = told(dialect, events)
    assert said.can_resume
    block = events[-1] + bad + events[-1] if is_joined else bad
    said.feed(block)
    assert not said.can_resume
    said.feed(events[-1])
    assert not said.can_resume and said.units() == b""


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES])
def test_text_without_its_beginning(dialect: str) -> None:
    said = told(dialect, [SPEAK[dialect]("a", ["x"], True)[1 if dialect == CHAT else 3]])
    assert said.can_resume is (dialect == CHAT), "Anthropic's deltas belong to a block"


@pytest.mark.parametrize("size", [1, 1000])
def test_more_text_than_is_kept_is_not_resumed(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "MAX_TEXT", 10 * size)
    said = told(CHAT, chat("a", ["x" * size] * 10)[:11])
    assert said.can_resume
    said.feed(chunk("a", {"content": "x"}))
    assert not said.can_resume and said.units() == b""


def test_an_event_nobody_saw_is_not_resumed() -> None:
    said = told(CHAT, chat("a", ["x"])[:2])
    resumed = said.resume()
    resumed.skip()
    assert resumed.feed(chunk("b", {"content": "x"})) is None and said.can_resume
    said.skip()
    assert not said.can_resume


def test_nothing_was_sent_so_all_passes_as_it_is() -> None:
    for dialect in (CHAT, MESSAGES):
        events = SPEAK[dialect]("b", ["x", "y"], True)
        said = told(dialect, [b": keep-alive\n\n"])
        assert feed(said.resume(), events) == b"".join(events)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_cut_before_any_text(count: int) -> None:
    said = told(MESSAGES, messages("a", [])[:count])
    events = messages("b", ["x", "y"], index=0)
    expected = b"".join(events[1:] if count == 1 else events[2:])  # the ping in third place may pass
    assert feed(said.resume(), events) == expected
    said = told(CHAT, chat("a", [])[:1])
    passed = feed(said.resume(), [b": one moment\n\n", *chat("a", ["x", "y"])])
    assert passed == b"".join([b": one moment\n\n", *chat("a", ["x", "y"])[1:]])


def test_azures_first_chunk_is_no_beginning() -> None:
    filters = b'data: {"id":"","model":"","choices":[],"prompt_filter_results":[{}]}\n\n'
    said = told(CHAT, [filters])
    assert feed(said.resume(), chat("b", ["x"])) == b"".join(chat("b", ["x"]))
    said = told(CHAT, chat("a", ["x"])[:2])
    assert said.resume().feed(filters) == b""


def test_what_is_cut_changes_in_its_text_and_marks_only() -> None:
    said = told(CHAT, chat("a", ["ab", "c"])[:3])
    passed = feed(said.resume(), chat("bb", ["abcdé", "f"], in_ascii=False))
    assert passed is not None
    first, second, *rest = whole_events(passed)
    expected = chat("bb", ["dé", "f"], in_ascii=False)
    ours = [each.replace(b'"id-bb","created":2', b'"id-a","created":1') for each in expected]
    assert [first, second, *rest[:1]] == ours[1:4]
    assert b'"model":"model-bb"' in first and b'"id":"id-a"' in rest[1]


def test_together_says_its_text_twice() -> None:
    def twice(text: str) -> bytes:
        return chunk("a", {"content": text}).replace(b'"logprobs"', b'"text":"%b","logprobs"' % text.encode())

    said = told(CHAT, [twice("ab")])
    passed = said.resume().feed(twice("abc"))
    assert passed == twice("c") and said.units() == units("abc")


@pytest.mark.parametrize("is_sorted", [False, True])
def test_marks_behind_the_text_are_replaced_too(is_sorted: bool) -> None:
    def spoken(who: str, text: str) -> bytes:
        value = json.loads(chunk(who, {"content": text}).removeprefix(b"data: "))
        return b"data: " + json.dumps(value, sort_keys=is_sorted).encode() + b"\n\n"

    said = told(CHAT, [spoken("a", "x")])
    passed = feed(said.resume(), [spoken("bb", text) for text in ("xy", "1", "2", "3")])
    assert passed is not None
    assert collected(passed) == units("y123") and {each["id"] for each in values(passed)} == {"id-a"}
    assert {each["created"] for each in values(passed)} == {1}


def test_a_stream_without_marks_is_given_none() -> None:
    bare = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    assert told(CHAT, chat("a", ["x"])[:2]).resume().feed(bare % b"xy") == bare % b"y"
    passed = told(CHAT, [bare % b"x"]).resume().feed(chunk("bb", {"content": "xy"}))
    assert passed == chunk("bb", {"content": "y"})


def test_finish_with_the_last_text() -> None:
    whole = chat("b", ["ab", "cd"], ends_with_text=True)
    for had, rest in (("abc", "d"), ("abcd", ""), ("ab", "cd")):
        passed = feed(told(CHAT, chat("a", [had])[:2]).resume(), whole)
        assert passed is not None and collected(passed) == units(rest) and b'"finish_reason":"stop"' in passed
    for had in ("abcde", "abcx"):
        resumed = told(CHAT, chat("a", [had])[:2]).resume()
        assert (resumed.feed(b"".join(whole[:2])), resumed.feed(whole[2])) == (b"", None)


@pytest.mark.parametrize(
    ("dialect", "bad", "error"),
    [
        (CHAT, chunk("b", {"tool_calls": [{"index": 0}]}), False),
        (CHAT, chunk("b", {"role": "assistant", "reasoning_content": "hm"}), False),
        (CHAT, b"data: {\n\n", False),
        (CHAT, b'data: {"error":{"code":1}}\n\n', True),
        (CHAT, b"data: [DONE]\n\n", False),
        (MESSAGES, event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}), False),
        (MESSAGES, event("content_block_start", index=0, content_block={"type": "text", "text": "abc"}), False),
        (MESSAGES, event("content_block_delta", index=0, delta={"type": "text_delta", "text": "a"}), False),
        (MESSAGES, event("message_stop"), False),
        (MESSAGES, event("error", error={}), True),
    ],
)
@pytest.mark.parametrize("had", ["", "ab"])
def test_what_cannot_be_joined(dialect: str, bad: bytes, error: bool, had: str) -> None:
    said = told(dialect, SPEAK[dialect]("a", [had] if had else [], True)[: (1 if dialect == CHAT else 3) + bool(had)])
    if dialect == CHAT and not had:
        assert said.resume().feed(bad), "the client has no text that it would have to fit to"
        return
    resumed = said.resume()
    assert resumed.feed(SPEAK[dialect]("b", [], True)[0] + bad) is None
    assert (resumed.has_error, resumed.is_caught_up, resumed.can_go_on) == (error, False, False)
    assert said.can_resume


def test_once_caught_up_everything_passes() -> None:
    after = [
        b": keep-alive\n\n",
        b"data: ?\n\n",
        chunk("a", {"role": "assistant", "content": ""}),
        chunk("a", {"tool_calls": [{"index": 0}]}),
        b'data: {"error":{"code":1}}\n\n',
    ]
    said = told(CHAT, chat("a", ["ab"])[:2])
    resumed = said.resume()
    assert resumed.feed(b": before\n\n" + b"".join(chat("a", ["a"])[:2])) == b"" and not resumed.is_caught_up
    assert resumed.feed(chunk("a", {"content": "b"})) == b"" and resumed.is_caught_up
    assert resumed.feed(chunk("a", {"content": "c"})) == chunk("a", {"content": "c"}) and said.can_resume
    assert resumed.feed(b"".join(after)) == b"".join(after)
    assert resumed.has_error and resumed.can_go_on and not said.can_resume


def test_ids_are_the_first_streams_in_tool_calls_too() -> None:
    said = told(CHAT, chat("a", ["ab"])[:2])
    call = {"tool_calls": [{"index": 0, "id": "id-bb"}]}
    passed = feed(said.resume(), [chunk("bb", {"content": "ab"}), chunk("bb", call), b"data: ?\n\n"])
    assert passed == chunk("bb", call).replace(b'"id":"id-bb","created":2', b'"id":"id-a","created":1', 1) + (
        b"data: ?\n\n"
    )


def test_the_index_is_that_of_the_open_block() -> None:
    said = told(MESSAGES, messages("a", ["ab"])[:4])
    tool = event("content_block_start", index=8, content_block={"type": "tool_use", "name": "f", "input": {}})
    events = messages("b", ["a", "bc", "d"], index=7)
    passed = feed(said.resume(), [*events[:-2], tool, *events[-2:]])
    assert passed is not None
    ours = messages("b", ["c", "d"], index=0)
    assert passed == b"".join([*ours[3:-2], tool.replace(b'"index": 8', b'"index": 1'), *ours[-2:]])


def test_text_in_the_beginning_of_a_block() -> None:
    begun = event("content_block_start", index=0, content_block={"type": "text", "text": "ab"})
    events = messages("b", ["c", "d"])
    events[1] = begun
    said = told(MESSAGES, [events[0], begun])
    assert said.units() == units("ab")
    passed = feed(said.resume(), events)
    assert passed is not None and collected(passed) == units("cd") and b"content_block_start" not in passed
    said = told(MESSAGES, messages("a", ["a"])[:4])
    assert feed(said.resume(), events) is None, "the rest of it would be the beginning of a second block"
    said = told(MESSAGES, events[:1])
    assert feed(said.resume(), events) == b"".join(events[1:])


def test_halves_of_an_emoji_are_joined_across_streams() -> None:
    said = told(CHAT, chat("a", ["x\ud83d"])[:2])
    passed = feed(said.resume(), chat("b", ["x\U0001f600!"], in_ascii=False))
    assert passed is not None and b'"content":"\\ude00!"' in passed
    said = told(CHAT, chat("a", ["x\U0001f600"], in_ascii=False)[:2])
    assert said.resume().feed(b"".join(chat("b", ["x", "\ud83d", "\ude00"])[:4])) == b""


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES])
def test_a_byte_order_mark_stands_only_at_the_beginning(dialect: str) -> None:
    bom = b"\xef\xbb\xbf"
    events = SPEAK[dialect]("a", ["x", "y"], True)
    assert feed(told(dialect, []).resume(), [b"", bom + events[0], *events[1:]]) == b"".join(events)
    said = told(dialect, [bom + events[0], *events[1 : before_the_end(dialect, events)]])
    passed = feed(said.resume(), [bom + b"".join(events)])
    assert passed is not None and bom not in passed


def test_the_last_event_may_lack_its_blank_line() -> None:
    said = told(CHAT, chat("a", ["x"])[:2])
    events = chat("a", ["x"])
    assert feed(said.resume(), [b"".join(events).rstrip(b"\n")]) == b"".join(events[2:]).rstrip(b"\n")


# -- streams as providers speak them ----------------------------------------------------------------------------------

OURS = [entry for entry in transcripts.streams() if entry["api"] in SPEAK and not entry["expect"]["error"]]
RECORDED = [
    entry
    for entry in recordings.recorded()
    if entry["api"] in (*SPEAK, "anthropic-vertex") and entry["streaming"] and entry["response"]["file"]
]
RESUMABLE = {  # transcripts in which a cut can come behind text
    "anthropic-messages/cut-before-the-stop-reason",
    "anthropic-messages/several-message-deltas",
    "anthropic-messages/text-with-ping",
    "anthropic-messages/unnamed-events",
    "anthropic-messages/vertex-model-in-the-path",
    "openai-chat/azure-filter-results-first",
    "openai-chat/half-of-an-emoji",
    "openai-chat/llamacpp-finish-without-done",
    "openai-chat/openai-error-then-done",
    "openai-chat/openai-moderation-after-usage",
    "openai-chat/openai-text-that-looks-like-an-ending",
    "openai-chat/openai-text-with-usage",
    "openai-chat/openrouter-comments-and-repeated-finish",
    "openai-chat/snowflake-empty-finish-reason",
    "openai-chat/spaces-in-json",
    "openai-chat/vllm-usage-in-every-chunk",
}


def events_of(data: bytes) -> list[bytes]:
    """The whole events; of a stream that was cut in one, without that."""
    cutter = EventCutter(EventFraming.SSE)
    cutter.feed(data)
    return list(whole_events(cutter.block))


def resumptions(dialect: str, events: list[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
    """For all cuts of a stream behind which it can be resumed with itself: what the client has, what it gets more."""
    for at in range(len(events)):
        said = told(dialect, events[:at])
        if not said.can_resume:
            return
        yield b"".join(events[:at]), feed(said.resume(), [b"".join(events)])


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: str(entry["id"]))
def test_a_transcript_is_resumed_with_itself(entry: dict[str, Any]) -> None:
    events = events_of(transcripts.answer_body(entry))
    most = b""
    for had, more in resumptions(entry["api"], events):
        assert more is not None
        assert collected(had + more) == collected(b"".join(events))
        most = collected(had)
    assert bool(most) is (entry["id"] in RESUMABLE)


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: str(entry["id"]))
def test_a_recorded_stream_is_resumed_with_itself(entry: dict[str, Any]) -> None:
    dialect = CHAT if entry["api"] == CHAT else MESSAGES
    events = events_of((recordings.FIXTURES / entry["response"]["file"]).read_bytes())
    for had, more in itertools.islice(resumptions(dialect, events), 40):
        assert more is not None
        assert collected(had + more) == collected(b"".join(events))
