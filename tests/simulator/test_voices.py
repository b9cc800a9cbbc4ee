"""The official SDKs read every voice: streamed and whole, text, tools, reasoning, errors, usage."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import ollama
import pytest
from google.genai import errors as genai_errors
from google.genai import types

from proxy.simulator.provider import Simulator
from proxy.simulator.speech import TEXT
from tests.simulator.raw_client import ask, dechunk, request, with_simulator
from tests.simulator.sdks import (
    ARGUMENTS,
    ASKED,
    CLAUDE_TOOL,
    FUNCTION,
    SCHEMA,
    with_anthropic,
    with_gemini,
    with_ollama,
)

# -- anthropic-messages


def test_messages_streamed() -> None:
    async def test(client: anthropic.AsyncAnthropic, simulator: Simulator) -> None:
        async with client.messages.stream(model="m", max_tokens=9, messages=ASKED) as stream:
            assert "".join([text async for text in stream.text_stream]) == TEXT
            message = await stream.get_final_message()
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens == 8
        assert message.usage.input_tokens > 0

    with_anthropic(test)


def test_messages_whole_tools_and_count() -> None:
    async def test(client: anthropic.AsyncAnthropic, simulator: Simulator) -> None:
        message: Any = await client.messages.create(model="m", max_tokens=9, messages=ASKED)
        assert (message.content[0].text, message.stop_reason, message.usage.output_tokens) == (TEXT, "end_turn", 8)
        tools: Any = [CLAUDE_TOOL]
        message = await client.messages.create(model="sim-tool", max_tokens=9, messages=ASKED, tools=tools)
        assert (message.content[0].name, message.content[0].input) == ("weather", ARGUMENTS)
        async with client.messages.stream(model="sim-tool", max_tokens=9, messages=ASKED, tools=tools) as stream:
            message = await stream.get_final_message()
        assert (message.content[0].name, message.content[0].input) == ("weather", ARGUMENTS)
        assert message.stop_reason == "tool_use"
        assert (await client.messages.count_tokens(model="m", messages=ASKED)).input_tokens > 0

    with_anthropic(test)


def test_messages_thinking_and_two_blocks() -> None:
    async def test(client: anthropic.AsyncAnthropic, simulator: Simulator) -> None:
        async with client.messages.stream(model="sim-think:2", max_tokens=9, messages=ASKED) as stream:
            message: Any = await stream.get_final_message()
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.content[0].thinking == "Step 0. Step 1. "
        assert message.content[1].text == TEXT

    with_anthropic(test)


@pytest.mark.parametrize(("status", "word"), [(400, "invalid_request_error"), (429, "rate_limit"), (529, "overloaded")])
def test_anthropic_errors(status: int, word: str) -> None:
    async def test(client: anthropic.AsyncAnthropic, simulator: Simulator) -> None:
        with pytest.raises(anthropic.APIStatusError, match=word) as caught:
            await client.messages.create(model=f"sim-status:{status}", max_tokens=9, messages=ASKED)
        assert caught.value.status_code == status
        assert caught.value.request_id == "req_sim00000001"

    with_anthropic(test)


def test_anthropic_error_event_has_no_stop_after_it() -> None:
    async def test(client: anthropic.AsyncAnthropic, simulator: Simulator) -> None:
        seen = await ask(simulator.port, request("error=2", "/v1/messages"), b"0\r\n\r\n")
        assert seen.body.count(b"event: error") == 1
        assert b"message_stop" not in seen.body
        with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
            async with client.messages.stream(model="sim-error:2", max_tokens=9, messages=ASKED) as stream:
                await stream.get_final_message()

    with_anthropic(test)


# -- gemini


def test_gemini_streamed_and_whole() -> None:
    async def test(models: Any, simulator: Simulator) -> None:
        chunks = [chunk async for chunk in await models.generate_content_stream(model="m", contents="x")]
        assert "".join(chunk.text or "" for chunk in chunks) == TEXT
        assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
        assert chunks[-1].usage_metadata.candidates_token_count == 8
        # The SDK's releases differ in the version they put first (v1beta, v1).
        assert simulator.requests[0].target.endswith("/models/m:streamGenerateContent?alt=sse")
        whole = await models.generate_content(model="m", contents="x")
        assert whole.text == TEXT
        assert whole.usage_metadata.total_token_count == whole.usage_metadata.prompt_token_count + 8
        assert (await models.count_tokens(model="m", contents="x")).total_tokens > 0

    with_gemini(test)


def test_gemini_tools_thoughts_and_the_spec_in_its_path() -> None:
    async def test(models: Any, simulator: Simulator) -> None:
        declared = types.FunctionDeclaration(name="weather", parameters_json_schema=SCHEMA)
        config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
        whole = await models.generate_content(model="sim-tool", contents="x", config=config)
        assert (whole.function_calls[0].name, whole.function_calls[0].args) == ("weather", ARGUMENTS)
        streamed = await models.generate_content_stream(model="sim:think=2,events=3", contents="x")
        chunks = [chunk async for chunk in streamed]
        assert [part.thought for chunk in chunks for part in chunk.parts or []][:3] == [True, True, None]
        assert chunks[-1].usage_metadata.thoughts_token_count == 2
        assert chunks[-1].usage_metadata.candidates_token_count == 3

    with_gemini(test)


def test_gemini_errors() -> None:
    async def test(models: Any, simulator: Simulator) -> None:
        with pytest.raises(genai_errors.ClientError, match="RESOURCE_EXHAUSTED"):
            await models.generate_content(model="sim-status:429", contents="x")
        with pytest.raises(genai_errors.ServerError, match="UNAVAILABLE"):
            [chunk async for chunk in await models.generate_content_stream(model="sim-status:503", contents="x")]
        with pytest.raises(genai_errors.APIError, match="asked of the simulated provider"):
            [chunk async for chunk in await models.generate_content_stream(model="sim-error:2", contents="x")]

    with_gemini(test)


def test_gemini_without_sse_is_one_array_and_with_it_has_crlf() -> None:
    async def test(simulator: Simulator) -> None:
        path = "/v1beta/models/m:streamGenerateContent"
        array = b"".join(dechunk((await ask(simulator.port, request(path=path), b"0\r\n\r\n")).body))
        elements = json.loads(array)
        assert "".join(e["candidates"][0]["content"]["parts"][0]["text"] for e in elements) == TEXT
        assert array.count(b"\n,\r\n{") == len(elements) - 1
        events = b"".join(dechunk((await ask(simulator.port, request(path=path + "?alt=sse"), b"0\r\n\r\n")).body))
        assert events.count(b"\r\n\r\n") == events.count(b"data: ") == events.count(b"\n") / 2 == 9
        broken = b"".join(dechunk((await ask(simulator.port, request("no-end", path), b"\r\n0\r\n\r\n")).body))
        assert not broken.rstrip().endswith(b"]")
        error = await ask(simulator.port, request("status=404", path))
        assert json.loads(error.body)[0]["error"]["status"] == "NOT_FOUND"

    with_simulator(test)


# -- ollama


def test_ollama_chat() -> None:
    async def test(client: ollama.AsyncClient, simulator: Simulator) -> None:
        whole = await client.chat(model="m", messages=ASKED)
        assert (whole.message.content, whole.done, whole.eval_count) == (TEXT, True, 8)
        chunks = [chunk async for chunk in await client.chat(model="m", messages=ASKED, stream=True)]
        assert "".join(chunk.message.content or "" for chunk in chunks) == TEXT
        assert [chunk.done for chunk in chunks] == [False] * 8 + [True]
        called = await client.chat(model="sim-tool", messages=ASKED, tools=[FUNCTION])
        function = (called.message.tool_calls or [])[0].function
        assert (function.name, function.arguments) == ("weather", ARGUMENTS)
        thinking = [chunk async for chunk in await client.chat(model="sim-think:2", messages=ASKED, stream=True)]
        assert "".join(chunk.message.thinking or "" for chunk in thinking) == "Step 0. Step 1. "

    with_ollama(test)


def test_ollama_generate_list_and_errors() -> None:
    async def test(client: ollama.AsyncClient, simulator: Simulator) -> None:
        assert (await client.generate(model="m", prompt="x")).response == TEXT
        chunks = [chunk async for chunk in await client.generate(model="m", prompt="x", stream=True)]
        assert "".join(chunk.response or "" for chunk in chunks) == TEXT
        assert len((await client.list()).models) > 0
        with pytest.raises(ollama.ResponseError, match="asked of the simulated provider"):
            await client.chat(model="sim-status:500", messages=ASKED)
        with pytest.raises(ollama.ResponseError, match="asked of the simulated provider"):
            [chunk async for chunk in await client.chat(model="sim-error:2", messages=ASKED, stream=True)]

    with_ollama(test)


def test_ollama_streams_unless_told_otherwise() -> None:
    async def test(simulator: Simulator) -> None:
        body = b'{"model":"m","messages":[]}'
        head = b"POST /api/chat HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        seen = await ask(simulator.port, head + body, b"0\r\n\r\n")
        lines = b"".join(dechunk(seen.body)).splitlines()
        assert [json.loads(line)["done"] for line in lines] == [False] * 8 + [True]

    with_simulator(test)


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/v1/chat/completions", b"[DONE]"),
        ("/v1/completions", b"[DONE]"),
        ("/v1/responses", b"response.completed"),
        ("/v1/messages", b"message_stop"),
        ("/v1beta/models/m:streamGenerateContent?alt=sse", b'"finishReason"'),
        ("/api/chat", b'"done":true'),
        ("/api/generate", b'"done":true'),
    ],
)
def test_no_end_leaves_out_finish_and_terminal_event_in_every_dialect(path: str, last: bytes) -> None:
    async def test(simulator: Simulator) -> None:
        assert last in (await ask(simulator.port, request("", path), b"0\r\n\r\n")).body
        seen = await ask(simulator.port, request("no-end", path), b"\r\n0\r\n\r\n")
        for word in (last, b'"finish_reason":"stop"', b"end_turn", b"STOP", b"done_reason"):
            assert word not in seen.body
        assert b"hello" in seen.body

    with_simulator(test)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"])
def test_huge_and_endless_streams_in_every_dialect(path: str) -> None:
    async def test(simulator: Simulator) -> None:
        seen = await ask(simulator.port, request("bytes=3000000 huge=100000", path), b"0\r\n\r\n")
        assert 3_000_000 < len(seen.body) < 8_000_000  # responses repeats a million characters four times at its end

    with_simulator(test)
