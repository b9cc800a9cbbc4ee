"""What makes a request cost more than its bytes show."""

from __future__ import annotations

import json

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
    ],
)
def test_what_is_elsewhere_or_no_text_is_not(members: dict[str, object]) -> None:
    assert not look(json.dumps(members).encode()).is_bounded
    assert not look(json.dumps(members, separators=(",", ":")).encode()).is_bounded


@pytest.mark.parametrize(
    ("members", "choices"),
    [
        ({"n": 3}, 3),
        ({"n": 2, "best_of": 20}, 20),
        ({"generationConfig": {"candidateCount": 4}}, 4),
        ({"generation_config": {"candidate_count": 4}}, 4),
        ({"n": 0}, 1),
        ({"n": 999_999}, 128),
        ({"n": None}, 1),
    ],
)
def test_answers_asked_for_at_once(members: dict[str, object], choices: int) -> None:
    assert look(json.dumps(members).encode()).choices == choices


def test_tools_are_seen() -> None:
    assert look(b'{"tools":[{"type":"function","function":{"name":"f"}}]}') == Look(True, 1, True)


@pytest.mark.parametrize("key", [rb"\u006e", rb"file\u005fid", rb"\u0074ools"])
def test_keys_written_with_escapes_could_be_any(key: bytes) -> None:
    assert look(b'{"' + key + b'" : 5}') == Look(False, 128, True, True)
    assert look(b'{"text":"' + key + b'"}') == Look(True, 1, False)


@pytest.mark.parametrize(("body", "is_later"), [(b'{"background": true}', True), (b'{"background":false}', False)])
def test_answers_that_come_another_time(body: bytes, is_later: bool) -> None:
    assert look(body).is_later is is_later
