"""What a model said is found in every dialect, once, and in channels that are not glued together."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import pytest

from proxy.dialects.text import MAX_CHANNELS, REST, answer_text, json_text, read_json
from proxy.wire.sse import split_events
from tests import recordings
from tests.dialects import transcripts
from tests.dialects.test_watch_recorded import READ, dialect_of

# What is said in our own transcripts: channel -> text. Those that are not here say nothing.
SAID = {
    "openai-chat/openai-text-with-usage": {"text.0": "Héllo😀 world"},
    "openai-chat/openai-two-tool-calls": {"call.0.0": 'look{"q":1}', "call.0.1": 'look{"finish_reason":"stop"}'},
    "openai-chat/openai-refusal": {"refusal.0": "I cannot."},
    "openai-chat/openai-two-choices": {"text.0": "a", "text.1": "b"},
    "openai-chat/deepseek-reasoning": {"reasoning.0": "Hmm, yes", "text.0": "Hi"},
    "openai-chat/mistral-content-array": {"reasoning.0": "Hm", "text.0": "Hi"},
    "openai-chat/perplexity-crlf-without-done": {"text.0": "Hi you"},
    "openai-chat/half-of-an-emoji": {"text.0": "\ud83d\ude00"},
    "openai-chat/odd-lines-of-the-standard": {"text.0": "Hi"},
    "openai-chat/openai-cut-in-an-event": {"text.0": "Hi"},
    "openai-chat/answer": {"text.0": "Hello"},
    "openai-completions/text": {"text.0": "Hi you"},
    "openai-completions/writer-values-without-end": {"text.0": "Hi you"},
    "openai-completions/answer": {"text.0": "Hi"},
    "openai-responses/text": {"text.0.0": "event: response.completed\n\nHi"},
    "openai-responses/tool-call-and-reasoning": {"reasoning.0.0": "Hm", "call.0": "{"},
    "anthropic-messages/thinking-and-tool": {"reasoning.0": "Hm", "call.1": 'look{"type": "message_stop"}'},
    "anthropic-messages/unnamed-events": {"text.0": "Hi"},
    "anthropic-messages/answer": {"text.0": "Hi"},
    "gemini/text": {"text.0": 'Héllo "finishReason": "STOP"!'},
    "gemini/thought-and-function-call": {"reasoning.0": "Hm", "call.0": 'look{"finishReason": null}'},
    "gemini/array": {"text.0": 'Hé ] } " \\ [!'},
    "gemini/answer": {"text.0": "Hi"},
    "ollama/chat": {"text.0": 'Héllo "done":true'},
    "ollama/thinking-then-tool": {"reasoning.0": "Hm", "call.0.0": 'look{"done": true, "error": "none"}'},
    "ollama/generate": {"text.0": "Hi"},
    "ollama/answer": {"text.0": "Hi"},
    "ollama/cut": {"text.0": "Hi you"},
    "plain/unknown-events": {},
    "openai-embeddings/answer": {},
    "anthropic-count-tokens/answer": {},
    "gemini/blocked-prompt": {},
}
BY_ID = {str(entry["id"]): entry for entry in transcripts.entries()}


def said(entry: dict[str, Any], data: bytes) -> dict[str, str]:
    return answer_text(entry["api"], data, bool(entry["response"]["framing"]))


def name(entry: dict[str, Any]) -> str:
    return str(entry["id"])


@pytest.mark.parametrize("entry_id", SAID)
def test_our_transcripts_say_what_they_say(entry_id: str) -> None:
    entry = BY_ID[entry_id]
    assert said(entry, transcripts.answer_body(entry)) == SAID[entry_id]


def events_of(data: bytes, framing: str) -> list[bytes]:
    """Whole events, as they would be handed over one by one."""
    if framing == "ndjson":
        return data.splitlines(keepends=True)
    if framing == "sse":
        ends = [at + 2 for at in range(len(data)) if data[at : at + 2] == b"\n\n"]
        return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]
    return [data]


@pytest.mark.parametrize("entry", transcripts.streams(), ids=name)
def test_events_one_by_one_say_the_same(entry: dict[str, Any]) -> None:
    data = transcripts.answer_body(entry)
    together: dict[str, str] = {}
    for event in events_of(data, entry["response"]["framing"]):
        for channel, text in said(entry, event).items():
            together[channel] = together.get(channel, "") + text
    assert together == said(entry, data)


# -- recorded traffic --------------------------------------------------------------------------------------------------

# Where a client of the recordings sees other text than a model wrote, and why.
OTHER_TEXT = {
    "openai-completions/writer--ollmetry-writer-async-streaming-completions-legacy-0": "text under a name of Writer's",
}
OTHER_REASONING = {
    "openai-chat/snowflake--pai-snowflake-thinking-streaming-0": "reasoning in reasoning_details alone",
}
OTHER_CALLS = {
    "openai-responses/lmstudio--vercel-tool-call": "arguments in the .done event alone (Doubted in the module)",
}


def joined(channels: dict[str, str], kind: str) -> str:
    """The text of one kind, in the order of choices and parts."""

    def order(channel: str) -> list[int]:
        return [int(part) for part in channel.split(".")[1:]]

    return "".join(channels[each] for each in sorted((c for c in channels if c.startswith(kind + ".")), key=order))


@pytest.mark.parametrize("entry", READ, ids=name)
def test_a_recorded_answer_says_what_its_client_sees(entry: dict[str, Any]) -> None:
    data = (recordings.FIXTURES / entry["response"]["file"]).read_bytes()
    channels = answer_text(dialect_of(entry) or "", data, entry["streaming"])
    expect = entry["expect"]
    text = joined(channels, "text")
    same = (len(text), hashlib.sha256(text.encode("utf-8", "replace")).hexdigest())
    assert (same == (expect["text_chars"], expect["text_sha256"])) == (entry["id"] not in OTHER_TEXT)
    if entry["id"] in OTHER_REASONING:
        assert joined(channels, "reasoning")
    else:
        assert len(joined(channels, "reasoning")) == expect["reasoning_chars"]
    assert len(joined(channels, "refusal")) == expect["refusal_chars"]
    calls = without_blanks(joined(channels, "call"))
    for call in expect["tool_calls"]:
        arguments = call["arguments"] if isinstance(call["arguments"], str) else json_text(call["arguments"])
        assert (call["name"] or "") in calls
        has_arguments = without_blanks(arguments or "").removesuffix("{}") in calls
        assert has_arguments == (entry["id"] not in OTHER_CALLS)


def without_blanks(text: str) -> str:
    return "".join(text.split())


def test_the_exceptions_are_needed() -> None:
    ids = {entry["id"] for entry in READ}
    assert not READ or ids >= OTHER_TEXT.keys() | OTHER_REASONING.keys() | OTHER_CALLS.keys()


# -- one by one --------------------------------------------------------------------------------------------------------


def chat(*deltas: dict[str, object]) -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def test_reasoning_under_two_names_is_taken_once() -> None:
    both = chat({"reasoning": "Hm", "reasoning_content": "Hm", "reasoning_details": [{"text": "Hm"}]})
    assert answer_text("openai-chat", both, True) == {"reasoning.0": "Hm"}
    details = chat({"reasoning": "", "reasoning_details": [{"text": "Hm"}, {"summary": "So"}, {"data": "x"}, None]})
    assert answer_text("openai-chat", details, True) == {"reasoning.0": "HmSo"}


def test_perplexity_repeats_the_whole_message_beside_each_delta() -> None:
    choice = {"index": 0, "delta": {"content": "b"}, "message": {"content": "ab"}}
    chunk = json.dumps({"choices": [choice]}).encode()
    assert answer_text("openai-chat", b"data: " + chunk + b"\r\n\r\n", True) == {"text.0": "b"}
    assert answer_text("openai-chat", chunk, False) == {"text.0": "ab"}


def test_a_name_that_is_repeated_with_each_piece_is_taken_once() -> None:
    pieces = [
        {"tool_calls": [{"index": 1, "function": {"name": "look", "arguments": text}}]} for text in ('{"a"', ":1}")
    ]
    assert answer_text("openai-chat", chat(*pieces), True) == {"call.0.1": 'look{"a":1}'}


def test_whole_calls_without_an_index_are_two() -> None:
    calls = [{"function": {"name": name, "arguments": {"a": 1}}} for name in ("look", "find")]
    assert answer_text("openai-chat", chat({"tool_calls": calls}), True) == {
        "call.0.0": 'look{"a": 1}',
        "call.0.1": 'find{"a": 1}',
    }
    assert answer_text("openai-chat", chat({"function_call": calls[0]["function"]}), True) == {
        "call.0.0": 'look{"a": 1}'
    }
    custom = chat({"tool_calls": [{"custom": {"name": "run", "input": "x=1"}}]})
    assert answer_text("openai-chat", custom, True) == {"call.0.0": "runx=1"}


def responses(*events: dict[str, object]) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), json.dumps(event).encode()) for event in events
    )


def test_the_responses_api_repeats_and_is_not_counted_twice() -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "ab"}]}
    call = {"type": "function_call", "name": "look", "arguments": "{}"}
    stream = responses(
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"},
        {"type": "response.audio.delta", "delta": "AAAA"},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "b"},
        {"type": "response.output_text.done", "output_index": 0, "text": "ab"},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.output_item.added", "output_index": 1, "item": {**call, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
        {"type": "response.completed", "response": {"output": [item, call]}},
    )
    assert answer_text("openai-responses", stream, True) == {"text.0.0": "ab", "call.1": "look{}"}
    unnamed = b"\n".join(line for line in stream.split(b"\n") if not line.startswith(b"event:"))
    assert answer_text("openai-responses", unnamed, True) == {"text.0.0": "ab", "call.1": "look{}"}
    whole = json.dumps({"output": [item, call]}).encode()
    assert answer_text("openai-responses", whole, False) == {"text.0.0": "ab", "call.1": "look{}"}


def test_a_whole_answer_of_the_responses_api() -> None:
    output = [
        {"type": "reasoning", "summary": [{"text": "Hm"}], "content": [{"text": "So"}]},
        {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "code_interpreter_call", "code": "x=1", "outputs": [{"logs": "not the model's"}]},
        {"type": "custom_tool_call", "name": "run", "input": "y"},
        {"type": "mcp_list_tools", "tools": [{"name": "not the model's"}]},
    ]
    assert answer_text("openai-responses", json.dumps({"output": output}).encode(), False) == {
        "reasoning.0.0": "HmSo",
        "refusal.1.0": "no",
        "call.2": "x=1",
        "call.3": "runy",
    }


def test_anthropic_counts_what_the_model_wrote_and_not_what_tools_found() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "AAAA"},
        {"type": "server_tool_use", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "content": [{"title": "found"}]},
        {"type": "text", "text": "Hi", "citations": [{"cited_text": "found"}]},
        {"type": "compaction", "content": "short"},
    ]
    whole = {
        "reasoning.0": "Hm",
        "call.2": 'web_search{"query": "x"}',
        "text.4": "Hi",
        "compaction.5": "short",
    }
    assert answer_text("anthropic-messages", json.dumps({"content": content}).encode(), False) == whole
    deltas = [
        {"index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}},
        {"index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"index": 2, "content_block": {"type": "server_tool_use", "name": "web_search", "input": {}}},
        {"index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"query": '}},
        {"index": 2, "delta": {"type": "input_json_delta", "partial_json": '"x"}'}},
        {"index": 4, "content_block": {"type": "text", "text": ""}},
        {"index": 4, "delta": {"type": "citations_delta", "citation": {"cited_text": "found"}}},
        {"index": 4, "delta": {"type": "text_delta", "text": "Hi"}},
        {"index": 5, "delta": {"type": "compaction_delta", "content": "short"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    ]
    stream = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in deltas)
    assert answer_text("anthropic-messages", stream, True) == whole


def test_gemini_finds_calls_in_pieces_and_code() -> None:
    parts = [
        {"text": "Hm", "thought": True},
        {"functionCall": {"name": "look", "willContinue": True}},
        {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "Bos"}, {"stringValue": "ton"}]}},
        {"executableCode": {"language": "PYTHON", "code": "x=1"}},
        {"codeExecutionResult": {"output": "not the model's"}},
        {"inlineData": {"data": "AAAA"}},
        {"text": "Hi"},
    ]
    answer = json.dumps({"candidates": [{"content": {"parts": parts}}]})
    found = {"reasoning.0": "Hm", "call.0": "lookBostonx=1", "text.0": "Hi"}
    assert answer_text("gemini", answer.encode(), False) == found
    assert answer_text("gemini", b"data: " + answer.encode() + b"\r\n\r\n", True) == found
    twice = {channel: text * 2 for channel, text in found.items()}
    for piece in (f"[{answer}\n,\r\n{answer}", f",\n{answer},{answer}\n]\n"):
        assert answer_text("gemini", piece.encode(), True) == twice
    assert answer_text("gemini", f"[{answer},{answer},{answer[:40]}".encode(), True) == twice  # cut in the third


# -- hostile bytes -----------------------------------------------------------------------------------------------------

DIALECTS = ("openai-chat", "openai-completions", "openai-responses", "anthropic-messages", "gemini", "ollama")


def test_channels_are_bounded_and_no_text_is_lost() -> None:
    chunks = [{"choices": [{"index": index, "delta": {"content": "x"}}]} for index in range(5000)]
    channels = answer_text("openai-chat", b"".join(b"data: %s\n\n" % json.dumps(c).encode() for c in chunks), True)
    assert len(channels) == MAX_CHANNELS + 1
    assert channels[REST] == "x" * (5000 - MAX_CHANNELS)


def test_an_index_that_is_none_names_no_channel() -> None:
    for index in (-1, 10**9, 1.5, True, "A" * 1000, None, {}):
        chunk = json.dumps({"choices": [{"index": index, "delta": {"content": "x"}}]}).encode()
        assert answer_text("openai-chat", b"data: " + chunk + b"\n\n", True) == {"text.0": "x"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("is_stream", [True, False])
def test_values_of_any_type_are_taken_for_nothing(dialect: str, is_stream: bool) -> None:
    """Every value in real events, in turn, becomes every other kind of value."""
    for entry in transcripts.entries():
        if entry["api"] != dialect or bool(entry["response"]["framing"]) != is_stream:
            continue
        data = transcripts.answer_body(entry)
        texts = [each for _, each in split_events(data)] if dialect != "ollama" and is_stream else data.split(b"\n")
        for text in texts if is_stream else [data]:
            value = read_json(text)
            for changed in changes(value):
                raw = json.dumps(changed).encode()
                answer_text(dialect, (b"data: " + raw + b"\n\n") if dialect != "ollama" else raw + b"\n", is_stream)


def changes(value: object) -> list[object]:
    """`value` with one value in it replaced, in all ways."""
    others: list[object] = [None, True, 7, -0.5, "x", [], {}, [None], [[1]], [{"text": 1}], {"text": [1]}]
    if isinstance(value, dict):
        return others + [{**value, key: each} for key, inner in value.items() for each in changes(inner)]
    if isinstance(value, list):
        return others + [
            [*value[:i], each, *value[i + 1 :]] for i, inner in enumerate(value) for each in changes(inner)
        ]
    return others


@pytest.mark.parametrize("dialect", DIALECTS)
def test_broken_bytes_never_raise(dialect: str) -> None:
    dice = random.Random(11)
    bodies = [transcripts.answer_body(entry) for entry in transcripts.entries() if entry["api"] == dialect]
    deep = b'{"choices":' + b"[" * 100_000
    surrogates = b'data: {"choices":[{"delta":{"content":"\\ud83d"}}],"a":' + b"[" * 5000 + b"\n\n"
    bodies += [b"", b"[", b"]", b",", deep, b"data: " + deep + b"\n\n", surrogates, b"\xff\xfe", b"data: {\n\n"]
    for body in bodies:
        for _ in range(30):
            broken = bytearray(body)
            for _ in range(dice.randrange(4)):
                if broken:
                    broken[dice.randrange(len(broken))] = dice.randrange(256)
            for is_stream in (True, False):
                answer_text(dialect, bytes(broken), is_stream)


def test_a_broken_event_is_skipped_and_the_next_is_read() -> None:
    data = b'data: {"choices":[{"delta":{"content":"a"}}]\n\n' + chat({"content": "b"}) + b"data: [DONE]\n\n"
    assert answer_text("openai-chat", data, True) == {"text.0": "b"}
    assert answer_text("ollama", b'{"message":{"content":"a"}\n{"response":"b"}\n', True) == {"text.0": "b"}


def test_json_with_half_a_pair_is_read() -> None:
    assert read_json(b'["\\ud83d", "\\uD83D\\ude00"]') == ["\ud83d", "😀"]
    assert read_json(b'["\\ud83d"') is None
    assert read_json(b'["\\udead' + b"[" * 100_000) is None
    assert json_text({"a": "\ud83d"}) == '{"a": "\ud83d"}'
    assert json_text({}) == json_text([]) == json_text("x") == json_text(None) == ""
