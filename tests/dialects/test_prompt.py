"""What a model is told is found in every dialect, and what nobody can count is said to be there."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from proxy.dialects.prompt import RequestText, request_text
from tests import recordings
from tests.dialects import transcripts
from tests.dialects.test_text import changes
from tests.dialects.test_watch_recorded import READ, dialect_of


def told(dialect: str, body: dict[str, object]) -> RequestText:
    found = request_text(dialect, json.dumps(body).encode())
    assert found is not None
    return found


def user(content: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}]}


CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
DOCUMENT = {"type": "document", "title": "d", "source": {"type": "text", "media_type": "text/plain", "data": "p"}}
FOUND = {"type": "search_result", "source": "address", "title": "e", "content": [{"type": "text", "text": "q"}]}
SCHEMA = {"name": "f", "input_schema": {"type": "object"}}
TOOL = {"type": "function", "function": {"name": "look"}}
# dialect, body, pieces, overhead, has_other
CASES: list[tuple[str, dict[str, object], list[str], int, bool]] = [
    ("openai-chat", user("hi"), ["hi"], 6, False),
    ("openai-chat", user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), ["a", "b"], 6, False),
    ("openai-chat", user([{"type": "image_url", "image_url": {"url": "data:AAAA"}}]), [], 6, True),
    ("openai-chat", user([{"type": "input_audio", "input_audio": {"data": "AAAA"}}]), [], 6, True),
    ("openai-chat", user([{"type": "file", "file": {"file_id": "f"}}]), [], 6, True),
    ("openai-chat", {"messages": [], "tools": [TOOL]}, [json.dumps(TOOL)], 0, False),
    ("openai-chat", {**user("hi"), "functions": [{"name": "f"}]}, ["hi", '{"name": "f"}'], 6, False),
    ("openai-chat", {**user("hi"), "tools": [{"type": "web_search"}]}, ["hi", '{"type": "web_search"}'], 6, True),
    ("openai-chat", {**user("hi"), "response_format": {"type": "json_object"}}, ["hi"], 6, False),
    (
        "openai-chat",
        {**user("hi"), "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        ["hi", '{"type": "json_schema", "json_schema": {"schema": {}}}'],
        6,
        False,
    ),
    ("openai-chat", {**user("hi"), "web_search_options": {"x": 1}}, ["hi"], 6, True),
    (
        "openai-chat",
        {
            "messages": [
                {"role": "system", "content": "s", "name": "n"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "r"},
                {"role": "assistant", "reasoning_content": "t", "reasoning": "t", "refusal": "no"},
                {"role": "assistant", "reasoning": "u"},
            ]
        },
        ["s", "n", "f", "{}", "r", "t", "no", "u"],
        18,
        False,
    ),
    ("openai-completions", {"prompt": "a", "suffix": "b"}, ["a", "b"], 0, False),
    ("openai-completions", {"prompt": ["a", "b"]}, ["a", "b"], 0, False),
    ("openai-completions", {"prompt": [1, 2, 3]}, [], 3, False),
    ("openai-embeddings", {"input": [[1, 2], [3]]}, [], 3, False),
    ("openai-embeddings", {"input": ["a", "b"]}, ["a", "b"], 0, False),
    ("openai-responses", {"input": "a", "instructions": "b"}, ["a", "b"], 6, False),
    ("openai-responses", {"input": "a", "text": {"format": {"type": "text"}}}, ["a"], 6, False),
    ("openai-responses", {"input": "a", "previous_response_id": "r"}, ["a"], 6, True),
    ("openai-responses", {"input": "a", "conversation": {"id": "c"}}, ["a"], 6, True),
    ("openai-responses", {"input": [{"type": "item_reference", "id": "i"}]}, [], 6, True),
    ("openai-responses", {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "AAAA"}]}, [], 6, True),
    (
        "openai-responses",
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "function_call", "name": "f", "arguments": '{"x":1}', "call_id": "c"},
                {"type": "function_call_output", "output": "r", "call_id": "c"},
                {"type": "function_call_output", "output": [{"type": "input_image", "image_url": "data:AAAA"}]},
            ]
        },
        ["a", "f", '{"x":1}', "r"],
        15,
        True,
    ),
    ("anthropic-messages", {**user("hi"), "system": "s"}, ["hi", "s"], 6, False),
    (
        "anthropic-messages",
        {
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "tools": [SCHEMA],
            **user(
                [
                    {"type": "thinking", "thinking": "t", "signature": "AAAA"},
                    {"type": "tool_use", "id": "i", "name": "f", "input": {"text": "x"}},
                    {"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text", "text": "r"}]},
                    DOCUMENT,
                    FOUND,
                ]
            ),
        },
        ["t", "f", '{"text": "x"}', "r", "d", "p", "address", "e", "q", "s", json.dumps(SCHEMA)],
        6,
        False,
    ),
    ("anthropic-messages", user([{"type": "image", "source": {"type": "base64", "data": "AAAA"}}]), [], 6, True),
    ("anthropic-messages", user([{"type": "redacted_thinking", "data": "AAAA"}]), [], 6, True),
    (
        "anthropic-messages",
        {**user("hi"), "tools": [{"type": "web_search_20250305", "name": "w"}]},
        ["hi", '{"type": "web_search_20250305", "name": "w"}'],
        6,
        True,
    ),
    ("anthropic-count-tokens", user("hi"), ["hi"], 6, False),
    (
        "gemini",
        {
            "contents": [{"role": "user", "parts": [{"text": "a"}, {"functionCall": {"name": "f", "args": {"x": 1}}}]}],
            "systemInstruction": {"parts": {"text": "s"}},
            "tools": [{"functionDeclarations": []}],
        },
        ["a", "f", '{"x": 1}', "s", '{"functionDeclarations": []}'],
        0,
        False,
    ),
    (
        "gemini",
        {
            "contents": [
                {
                    "parts": [
                        {"functionResponse": {"name": "f", "response": {"y": 2}}},
                        {"inlineData": {}},
                        {"fileData": {"x": 1}},
                    ]
                }
            ]
        },
        ["f", '{"y": 2}'],
        0,
        True,
    ),
    (
        "gemini",
        {"contents": [{"parts": [{"text": "a"}]}], "tools": [{"googleSearch": {}}]},
        ["a", '{"googleSearch": {}}'],
        0,
        True,
    ),
    ("gemini", {"contents": [{"parts": [{"text": "a"}]}], "cachedContent": "c"}, ["a"], 0, True),
    ("gemini", {"content": {"parts": [{"text": "a"}]}}, ["a"], 0, False),
    ("ollama", user("hi"), ["hi"], 6, False),
    ("ollama", {"prompt": "a", "system": "s", "context": [1, 2]}, ["s", "a"], 2, False),
    ("ollama", {"prompt": "a", "images": ["AAAA"]}, ["a"], 0, True),
    ("ollama", {"messages": [{"content": "a", "images": ["AAAA"]}]}, ["a"], 6, True),
    ("ollama", {"prompt": "a", "format": "json"}, ["a"], 0, False),
]


@pytest.mark.parametrize(("dialect", "body", "pieces", "overhead", "has_other"), CASES)
def test_a_request_holds(
    dialect: str, body: dict[str, object], pieces: list[str], overhead: int, has_other: bool
) -> None:
    assert told(dialect, body) == (pieces, overhead, has_other)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"{}", b'{"messages":[]}', b'{"model":"m"}', b"\xff"])
def test_a_body_in_which_nothing_is_known_is_none(body: bytes) -> None:
    assert request_text("openai-chat", body) is None
    assert request_text("plain", b'{"messages":[{"content":"hi"}]}') is None


def test_half_of_a_pair_is_read() -> None:
    found = request_text("openai-chat", b'{"messages":[{"content":"a\\ud83d"}]}')
    assert found is not None and found.pieces == ["a\ud83d"]


def test_what_is_nested_beyond_all_use_is_only_noted() -> None:
    content: object = "deep"
    for _ in range(100):
        content = [content]
    assert told("openai-chat", user(content)) == ([], 6, True)


@pytest.mark.parametrize("entry", transcripts.entries(), ids=lambda entry: str(entry["id"]))
def test_hostile_bodies_never_raise(entry: dict[str, Any]) -> None:
    body = transcripts.request_body(entry)
    dice = random.Random(5)
    for changed in changes(json.loads(body)) if body else []:
        request_text(entry["api"], json.dumps(changed).encode())
    for _ in range(50):
        broken = bytearray(body or b"{}")
        broken[dice.randrange(len(broken))] = dice.randrange(256)
        request_text(entry["api"], bytes(broken))


UNKNOWN = {
    "openai-completions/portkey--oinf-async-prompt-template-0": "the prompt is stored at the provider",
    "count-tokens/gemini--rllm-chat-count-tokens-with-gemini-gemini-nts-the-next-request-as-configured-1": "one body "
    "in another; its answer is a report and nothing else",
}
RECORDED = [entry for entry in READ if entry["request"]["file"] and (entry["usage"] or {}).get("input_tokens")]


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: str(entry["id"]))
def test_a_recorded_request_is_told_apart(entry: dict[str, Any]) -> None:
    """Something is found in each; and whatever is billed at many times its text is said to hold more than text."""
    found = request_text(dialect_of(entry) or "", (recordings.FIXTURES / entry["request"]["file"]).read_bytes())
    if entry["id"] in UNKNOWN:
        assert found is None
        return
    assert found is not None
    letters = sum(map(len, found.pieces))
    if entry["usage"]["input_tokens"] > 1000 + letters:
        assert found.has_other
