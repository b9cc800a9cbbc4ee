"""The official SDKs read every voice: streamed and whole, text, tools, reasoning, errors, usage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from proxy.simulator.provider import Simulator
from proxy.simulator.speech import TEXT
from tests.simulator.raw_client import ask, dechunk, request, with_simulator

ARGUMENTS = {"city": "Köln", "days": 3}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
CLAUDE_TOOL = {"name": "weather", "input_schema": SCHEMA}
ASKED: list[Any] = [{"role": "user", "content": "hello"}]


def with_openai(test: Callable[[openai.AsyncOpenAI, Simulator], Any], **options: Any) -> None:
    async def run(simulator: Simulator) -> None:
        async with openai.AsyncOpenAI(base_url=f"{_url(simulator)}/v1", api_key="k", max_retries=0) as client:
            await test(client, simulator)

    with_simulator(run, **options)


def with_anthropic(test: Callable[[anthropic.AsyncAnthropic, Simulator], Any], **options: Any) -> None:
    async def run(simulator: Simulator) -> None:
        async with anthropic.AsyncAnthropic(base_url=_url(simulator), api_key="k", max_retries=0) as client:
            await test(client, simulator)

    with_simulator(run, **options)


def with_gemini(test: Callable[[Any, Simulator], Any], **options: Any) -> None:
    async def run(simulator: Simulator) -> None:
        client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=_url(simulator)))
        try:
            await test(client.aio.models, simulator)
        finally:
            await client.aio.aclose()
            client.close()

    with_simulator(run, **options)


def with_ollama(test: Callable[[ollama.AsyncClient, Simulator], Any], **options: Any) -> None:
    async def run(simulator: Simulator) -> None:
        client = ollama.AsyncClient(host=_url(simulator))
        try:
            await test(client, simulator)
        finally:
            await client._client.aclose()

    with_simulator(run, **options)


def _url(simulator: Simulator) -> str:
    return f"http://127.0.0.1:{simulator.port}"


# -- openai-chat, openai-completions, openai-embeddings


def test_chat_streamed() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        options: Any = {"include_usage": True}
        stream = await client.chat.completions.create(model="m", messages=ASKED, stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        usage = chunks[-1].usage
        assert chunks[-1].choices == []
        assert usage is not None
        assert usage.completion_tokens == 8
        assert usage.total_tokens == usage.prompt_tokens + 8
        assert all(chunk.usage is None for chunk in chunks[:-1])

    with_openai(test)


def test_chat_without_asking_for_usage_has_none() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        stream = await client.chat.completions.create(model="m", messages=ASKED, stream=True)
        assert [chunk.usage async for chunk in stream if chunk.usage] == []

    with_openai(test)
    with_simulator(_no_usage_in_bytes)


async def _no_usage_in_bytes(simulator: Simulator) -> None:
    assert b"usage" not in (await ask(simulator.port, request(), b"[DONE]")).data


def test_chat_whole_with_raw_response() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=ASKED)
        answer = raw.parse()
        assert raw.headers["x-request-id"] == "req_sim00000001"
        assert answer.choices[0].message.content == TEXT
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 8
        assert simulator.requests[0].get("authorization") == "Bearer k"

    with_openai(test)


def test_chat_tools() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        tools: Any = [FUNCTION]
        whole = await client.chat.completions.create(model="sim-tool", messages=ASKED, tools=tools)
        call: Any = (whole.choices[0].message.tool_calls or [])[0]
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)
        assert whole.choices[0].finish_reason == "tool_calls"
        async with client.chat.completions.stream(model="sim-tool", messages=ASKED, tools=tools) as stream:
            final = await stream.get_final_completion()
        call = (final.choices[0].message.tool_calls or [])[0]
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)
        assert final.choices[0].finish_reason == "tool_calls"

    with_openai(test)


def test_chat_reasoning() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        stream = await client.chat.completions.create(model="sim-think:2", messages=ASKED, stream=True)
        thoughts = [getattr(c.choices[0].delta, "reasoning_content", None) async for c in stream]
        assert "".join(thought or "" for thought in thoughts) == "Step 0. Step 1. "

    with_openai(test)


def test_completions() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        whole = await client.completions.create(model="m", prompt="x")
        assert (whole.choices[0].text, whole.choices[0].finish_reason) == (TEXT, "stop")
        stream = await client.completions.create(model="m", prompt="x", stream=True)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].text for chunk in chunks) == TEXT
        assert chunks[-1].choices[0].finish_reason == "stop"

    with_openai(test)


def test_embeddings_in_both_encodings() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        packed = await client.embeddings.create(model="m", input=["a", "b", "c"], dimensions=16)
        plain = await client.embeddings.create(model="m", input=["a", "b", "c"], dimensions=16, encoding_format="float")
        assert [row.index for row in packed.data] == [0, 1, 2]
        assert len(packed.data[0].embedding) == 16
        assert [row.embedding for row in packed.data] == [row.embedding for row in plain.data]
        assert packed.usage.prompt_tokens > 0

    with_openai(test)


def test_models() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        assert "sim-cut:3" in [model.id async for model in client.models.list()]

    with_openai(test)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_openai_errors(status: int, kind: type[openai.APIStatusError]) -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        with pytest.raises(kind, match="asked of the simulated provider"):
            await client.chat.completions.create(model=f"sim-status:{status}", messages=ASKED)

    with_openai(test)


def test_openai_error_event() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        stream = await client.chat.completions.create(model="sim-error:2", messages=ASKED, stream=True)
        with pytest.raises(openai.APIError, match="asked of the simulated provider"):
            [chunk async for chunk in stream]

    with_openai(test)


def test_the_sdk_obeys_retry_after() -> None:
    async def run(simulator: Simulator) -> None:
        async with openai.AsyncOpenAI(base_url=f"{_url(simulator)}/v1", api_key="k", max_retries=1) as client:
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="sim:status=429 retry-after-ms=1", messages=ASKED)
            assert [seen.get("x-stainless-retry-count") for seen in simulator.requests] == ["0", "1"]

    with_simulator(run)


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
