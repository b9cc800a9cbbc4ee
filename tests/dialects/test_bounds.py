"""What makes a request cost more than its bytes show."""

from __future__ import annotations

import json
import time

import pytest

from proxy.dialects.bounds import Look, look

TEXT = {"model": "m", "messages": [{"role": "user", "content": 'look at "file_id": https://x.test/a.png and n: 5'}]}


def test_text_is_bounded_whatever_it_says() -> None:
    assert look(json.dumps(TEXT).encode()) == Look(True, 1, False)


@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}]},
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]},
        {"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "AA=="}}]}]},
        {"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": "https://x.test"}}]}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "base64", "data": "AA=="}}]}]},
        {"messages": [{"content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]},
        {"messages": [{"content": "hi", "images": ["AA=="]}]},
        {"previous_response_id": "r"},
        {"conversation": {"id": "c"}},
        {"prompt": {"id": "p"}},
        {"input": [{"type": "item_reference", "id": "i"}]},
        {"tools": [{"type": "web_search_20250305"}]},
        {"tools": [{"type": "file_search", "vector_store_ids": []}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "mcp", "server_url": "https://x.test"}]},
        {"tools": [{"googleSearch": {}}]},
        {"tools": [{"google_search": {}}]},
        {"tools": [{"codeExecution": {}}]},
        {"contents": [{"parts": [{"fileData": {"fileUri": "gs://x"}}]}]},
        {"contents": [{"parts": [{"inline_data": {"data": "AA=="}}]}]},
        {"cachedContent": "cachedContents/1"},
        {"mcp_servers": []},
        {"messages": [{"content": [{"type": "document", "source": {"type": "base64", "data": "JVB"}}]}]},
        {"messages": [{"content": [{"type": "document_url", "document_url": "https://x.test/y.pdf"}]}]},
        {"messages": [{"content": [{"type": "audio_url", "audio_url": {"url": "https://x.test/y.wav"}}]}]},
        {"messages": [{"content": [{"type": "what_comes_next"}]}]},
        {"messages": [{"content": [{"type": ["image"]}]}]},
        {"input": [{"id": "msg_0"}]},
        {"input": [{"id": "msg_0", "type": None}]},
        {"tools": [{"type": "x_search"}]},
        {"tools": [{"type": "collections_search"}]},
        {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "m"}]},
        {"tools": [{"googleMaps": {}}]},
        {"tools": [{"retrieval": {"vertexRagStore": {}}}]},
        {"tools": [{"enterpriseWebSearch": {}, "functionDeclarations": []}]},
        {"Tools": [{"type": "x_search"}]},
        {"extra_body": {"google": {"cached_content": "c"}}},
        {"image\u017f": ["AA=="]},
        {"messages": [{"content": "hi", "image\u017f": ["AA=="]}]},
    ],
)
def test_what_is_elsewhere_or_no_text_is_not(members: dict[str, object]) -> None:
    assert not look(json.dumps(members).encode()).is_bounded
    assert not look(json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()).is_bounded


PROPERTIES = {name: {"type": "string"} for name in ("url", "file", "image", "path", "n", "type", "file_id", "tools")}
SCHEMA = {"type": "object", "properties": PROPERTIES}


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "function", "function": {"name": "bash", "description": "d", "parameters": SCHEMA}}]},
        {"tools": [{"type": "function", "name": "mcp", "strict": True, "parameters": SCHEMA}]},
        {"tools": [{"name": "web_search", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}]},
        {"tools": [{"type": "custom", "name": "f", "input_schema": SCHEMA}]},
        {"tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}], "contents": []},
        {"functions": [{"name": "f", "parameters": SCHEMA}]},
    ],
)
def test_tools_of_the_clients_own_are_text_whatever_their_properties_are_called(members: dict[str, object]) -> None:
    assert look(json.dumps(members).encode()) == Look(True, 1, True)


@pytest.mark.parametrize(
    "members",
    [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
            ]
        },
        {"messages": [{"tool_calls": [{"id": "c", "type": "function", "function": {"arguments": '{"file_id": 5}'}}]}]},
        {
            "messages": [
                {"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"path": "x", "n": "some"}}]}
            ]
        },
        {"input": [{"id": "msg_0", "type": "message", "content": [{"type": "output_text", "text": "x"}]}]},
        {"input": [{"id": "msg_0", "role": "user", "content": "x"}, {"type": "function_call_output", "output": "x"}]},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {"thinking": {"type": "enabled", "budget_tokens": 5}, "metadata": {"conversation": "c"}},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"prompt": [1, 2, 3]},
        {"contents": [{"parts": [{"text": "Gru\u00df"}]}]},
    ],
)
def test_text_with_all_that_usually_comes_with_it_is_bounded(members: dict[str, object]) -> None:
    assert look(json.dumps(members).encode()) == Look(True, 1, False)


@pytest.mark.parametrize(
    ("members", "choices"),
    [
        ({"n": 3}, 3),
        ({"n": 2, "best_of": 20}, 20),
        ({"n_cmpl": 4}, 4),
        ({"generationConfig": {"candidateCount": 4}}, 4),
        ({"generation_config": {"candidate_count": 4}}, 4),
        ({"generationConfig": {"candidateCount": "8"}}, 8),
        ({"n": 0}, 1),
        ({"n": -5}, 1),
        ({"n": "50"}, 50),
        ({"n": 49.5}, 50),
        ({"n": 16_384}, 16_384),  # of vLLM
        ({"n": 10**9}, 1_000_000),
        ({"n": "0x32"}, 1_000_000),
        ({"n": "inf"}, 1_000_000),
        ({"n": "nan"}, 1_000_000),
        ({"n": None}, 1),
        ({"n": {}}, 1),
        ({"N": 3}, 3),
        ({"extra_body": {"n": 3}}, 3),
        ({"prompt": "a"}, 1),
        ({"prompt": ["a", 'b"', "c"]}, 3),
        ({"prompt": [[1, 2], [3]], "n": 3}, 6),
        ({"prompt": [1, 2]}, 1),
        ({"prompt": []}, 1),
        ({"prompt": ["a" * 3000] * 100, "n": 2}, 202),  # large: at least as many
        ({"messages": [{"content": [{"type": "tool_use", "input": {"n": 500}}]}]}, 1),
    ],
)
def test_answers_asked_for_at_once(members: dict[str, object], choices: int) -> None:
    assert look(json.dumps(members).encode()).choices == choices


@pytest.mark.parametrize("number", [b"5e1", b"0.5e2", b"50.0", b'" 50 "'])
def test_numbers_of_answers_in_other_words(number: bytes) -> None:
    assert look(b'{"n": %b}' % number).choices == 50


def test_of_members_that_occur_twice_the_larger_counts() -> None:
    assert look(b'{"n":1,"n":9,"n":2}').choices == 9
    assert not look(b'{"tools":[{"type":"x_search","type":"function"}]}').is_bounded
    assert not look(b'{"tools":[{"type":"x_search"}],"tools":[]}').is_bounded


def test_tools_are_seen() -> None:
    assert look(b'{"tools":[{"type":"function","function":{"name":"f"}}]}') == Look(True, 1, True)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"messages":[{"content":[{"type":"im\u0061ge","source":{"type":"base64","data":"iVBOR"}}]}]}',
        rb'{"messages":[{"content":"x","image\u0073":["AA=="]}]}',
        rb'{"messages":[{"content":"x","image\u017F":["AA=="]}]}',
        rb'{"messages":[{"content":[{"t\u0079pe":"video_of_some_kind"}]}]}',
        rb'{"tools":[{"type":"f\u0069le_search"}]}',
        rb'{"t\u006Fols":[{"type":"file_search"}]}',
        rb'{"\u0066ile\u005Fid":"f"}',
    ],
)
def test_names_written_with_escapes_could_be_any(body: bytes) -> None:
    assert not look(body).is_bounded
    assert not look(body).is_later


def test_names_at_the_top_written_with_escapes_are_read() -> None:
    assert look(rb'{"\u006e":7}').choices == 7
    assert look(rb'{"b\u0061ckground":true}').is_later


@pytest.mark.parametrize(
    "text", [rb"\u003cp\u003e \u0026", rb"\\u0061", rb"a\nb \u00e4 \u0027 \u002b \u0060", rb"\\\\u006e"]
)
def test_other_escapes_hide_nothing(text: bytes) -> None:
    assert look(b'{"messages":[{"role":"user","content":"%b"}]}' % text) == Look(True, 1, False)
    assert look(b'{"metadata":{"%b":"1"},"input":"x"}' % text) == Look(True, 1, False)


@pytest.mark.parametrize(
    ("value", "is_later"),
    [(b"true", True), (b"1", True), (b'"true"', True), (b"false", False), (b"null", False)],
)
def test_answers_that_come_another_time(value: bytes, is_later: bool) -> None:
    assert look(b'{"background": %b}' % value).is_later is is_later
    assert not look(b'{"messages":[{"input":{"background":%b}}]}' % value).is_later


@pytest.mark.parametrize(
    "text", [rb"\u003cp\u003ehello world\u003c/p\u003e ", rb"\\", rb"\u00", "\u00e4".encode(), b'","', rb"\\u0061"]
)
@pytest.mark.parametrize("size", [200_000, 2_000_000])
def test_a_look_takes_a_time_that_grows_with_the_body(text: bytes, size: int) -> None:
    body = b'{"messages":["' + text * (size // len(text)) + b'"],"n":7}'
    began = time.process_time()
    look(body)
    assert time.process_time() - began < 0.5


def test_what_is_large_is_not_bounded_and_all_else_is_seen() -> None:
    body = b'{"messages":["' + b"x" * 300_000 + b'"],"n":7,"background":true,"tools":[{"type":"function"}]}'
    assert look(body) == Look(False, 7, True, True)


PLAIN = '"model":"m","temperature":0.5,"max_tokens":9,"stop":["a"],"messages":[{"role":"user","content":"image"}]'
IMAGE = '"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]'


def test_a_chat_of_plain_text_is_no_more_than_that_whatever_words_are_in_it() -> None:
    assert look(f"{{{PLAIN}}}".encode()) == Look(True, 1, False)


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize(
    ("more", "seen"),
    [
        (IMAGE, Look(False, 1, False)),
        ('"n":3', Look(False, 3, False)),  # the word in the text is looked at, too
        ('"N":3', Look(False, 3, False)),
        (r'"\u006e":3', Look(False, 3, False)),
        ('"tools":[{"type":"web_search"}]', Look(False, 1, True)),
        ('"file_id":"f"', Look(False, 1, False)),
    ],
)
def test_one_member_more_and_all_is_looked_at(where: str, more: str, seen: Look) -> None:
    body = f"{{{more},{PLAIN}}}" if where == "before" else f"{{{PLAIN},{more}}}"
    assert look(body.encode()) == seen
