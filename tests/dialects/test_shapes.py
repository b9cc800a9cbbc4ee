"""What msgspec fills: whatever providers send, members are missing or of any type, and the rest is not looked at."""

from __future__ import annotations

import msgspec
import pytest

from proxy.dialects import shapes

STRUCTS = [each for name, each in vars(shapes).items() if name[0] != "_" and msgspec.inspect.is_struct_type(each)]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_member_may_be_missing(struct: type[msgspec.Struct]) -> None:
    assert msgspec.json.decode(b"{}", type=struct) == struct()
    assert msgspec.json.decode(b'{"unknown":{"deep":[1]}}', type=struct) == struct()


@pytest.mark.parametrize("value", [b"null", b"[1]", b'"text"', b"1.5", b'{"a":{}}'])
def test_figures_may_be_of_any_type(value: bytes) -> None:
    for struct, name in (
        (shapes.ChatChunk, "usage"),
        (shapes.ResponsesAnswer, "usage"),
        (shapes.AnthropicMessage, "usage"),
        (shapes.GeminiAnswer, "usageMetadata"),
        (shapes.OllamaLine, "eval_count"),
    ):
        found = msgspec.json.decode(b'{"%b":%b}' % (name.encode(), value), type=struct)
        assert msgspec.json.decode(value) in [getattr(found, field) for field in found.__struct_fields__]


def test_content_is_left_as_bytes() -> None:
    chunk = msgspec.json.decode(b'{"choices":[ {"delta":{"content":"\\u00e9"}} ]}', type=shapes.ChatChunk)
    assert bytes(chunk.choices) == b'[ {"delta":{"content":"\\u00e9"}} ]'
