"""Anthropic's own SDK through the sidecar, with no option but `base_url` and `api_key`."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from proxy.simulator.speech import TEXT
from tests.whole.conftest import KEY
from tests.whole.processes import Provider, Sidecar

MODEL = "claude-of-the-tests"  # a name of no real model: the SDK warns of those that will end
ASK: Any = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
TOOL: Any = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture
def client(sidecar: Sidecar) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=sidecar.url, api_key=KEY) as made:
        yield made


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message(client: anthropic.Anthropic, provider: Provider, sidecar: Sidecar) -> None:
    message = client.messages.create(**ASK)
    assert text_of(message) == TEXT and message.stop_reason == "end_turn" and message.usage.output_tokens > 0
    (seen,) = provider.seen()
    assert seen.target == "/v1/messages" and seen.get("x-api-key") == "sk-ant-upstream"
    assert seen.get("anthropic-version")
    (receipt,) = sidecar.wait_for_receipts(1)
    assert receipt["provider"] == "anthropic" and receipt["dialect"] == "anthropic-messages"
    assert receipt["model_requested"] == MODEL and receipt["complete"] is True


def test_a_streamed_message(client: anthropic.Anthropic, provider: Provider, sidecar: Sidecar) -> None:
    events = list(client.messages.create(**ASK, stream=True))
    assert events[0].type == "message_start" and events[-1].type == "message_stop"
    with client.messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == TEXT
        assert stream.get_final_message().stop_reason == "end_turn"
    receipts = sidecar.wait_for_receipts(2)
    assert all(receipt["stream"] and receipt["complete"] for receipt in receipts)


def test_what_a_message_used(client: anthropic.Anthropic, provider: Provider, sidecar: Sidecar) -> None:
    """Input includes what was read from a cache and written to it, whatever the vendor's own field holds."""
    asked = {**ASK, "model": "sim:input=500 cached=300 cache-write=100 output=60"}
    told = client.messages.create(**asked).usage
    assert (told.input_tokens, told.cache_read_input_tokens, told.output_tokens) == (100, 300, 60)
    with client.messages.stream(**asked) as stream:
        assert stream.get_final_message().usage.output_tokens == 60
    for receipt in sidecar.wait_for_receipts(2):
        usage = receipt["usage"]
        assert [usage[name] for name in ("input", "output", "cached", "cache_write")] == [500, 60, 300, 100]
        assert usage["complete"] is True


def test_thinking_before_the_text(client: anthropic.Anthropic, provider: Provider) -> None:
    asked = {**ASK, "model": "sim:think=4"}
    with client.messages.stream(**asked) as stream:
        message = stream.get_final_message()
    assert message.content[0].type == "thinking" and text_of(message) == TEXT


def test_tools_whole_and_streamed(client: anthropic.Anthropic, provider: Provider) -> None:
    asked = {**ASK, "model": "sim:tool", "tools": [TOOL]}
    whole = client.messages.create(**asked)
    assert whole.stop_reason == "tool_use"
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    calls: list[Any] = [next(b for b in message.content if b.type == "tool_use") for message in (whole, streamed)]
    assert calls[0].name == calls[1].name == "get_weather" and calls[0].input == calls[1].input != {}


def test_an_image_in_the_body(client: anthropic.Anthropic, provider: Provider) -> None:
    picture = base64.b64encode(bytes(range(256)) * 4096).decode()
    source = {"type": "base64", "media_type": "image/png", "data": picture}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "?"}]
    client.messages.create(**{**ASK, "messages": [{"role": "user", "content": content}]})
    assert json.loads(provider.seen()[0].body)["messages"][0]["content"][0]["source"]["data"] == picture


def test_raw_and_streaming_responses(client: anthropic.Anthropic, provider: Provider) -> None:
    raw = client.messages.with_raw_response.create(**ASK)
    assert raw.status_code == 200 and text_of(raw.parse()) == TEXT
    assert raw.request_id, "the provider's request id must reach the client"
    with client.messages.with_streaming_response.create(**ASK, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[0] == "event: message_start" and lines[-2] == "event: message_stop"


def test_tokens_are_counted(client: anthropic.Anthropic, provider: Provider) -> None:
    assert client.messages.count_tokens(model=MODEL, messages=ASK["messages"]).input_tokens > 0
    assert provider.seen()[0].target == "/v1/messages/count_tokens"


def test_betas(client: anthropic.Anthropic, provider: Provider) -> None:
    message = client.beta.messages.create(**ASK, betas=["context-1m-2025-08-07"])
    assert text_of(message) == TEXT
    (seen,) = provider.seen()
    assert seen.target.startswith("/v1/messages") and seen.get("anthropic-beta") == "context-1m-2025-08-07"


def test_lists_of_models_go_to_anthropic(client: anthropic.Anthropic, provider: Provider, sidecar: Sidecar) -> None:
    client.models.with_raw_response.list()
    assert provider.seen()[0].get("x-api-key") == "sk-ant-upstream"
    assert sidecar.wait_for_receipts(1)[0]["provider"] == "anthropic"


def test_a_bearer_token_is_a_key_too(sidecar: Sidecar, provider: Provider) -> None:
    with anthropic.Anthropic(base_url=sidecar.url, auth_token=KEY, api_key=None) as client:
        assert text_of(client.messages.create(**ASK)) == TEXT
    (seen,) = provider.seen()
    assert seen.get("x-api-key") == "sk-ant-upstream" and seen.get("authorization") is None


def test_everything_async(sidecar: Sidecar, provider: Provider) -> None:
    async def ask() -> None:
        async with anthropic.AsyncAnthropic(base_url=sidecar.url, api_key=KEY) as client:
            assert text_of(await client.messages.create(**ASK)) == TEXT
            async with client.messages.stream(**ASK) as stream:
                assert "".join([text async for text in stream.text_stream]) == TEXT
            events = [event.type async for event in await client.messages.create(**ASK, stream=True)]
            assert events[-1] == "message_stop"
            counted = await client.messages.count_tokens(model=MODEL, messages=ASK["messages"])
            assert counted.input_tokens > 0

    asyncio.run(ask())
