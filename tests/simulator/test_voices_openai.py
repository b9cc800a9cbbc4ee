"""The openai SDK reads its family: streamed and whole, text, tools, reasoning, errors, usage, order of events."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from proxy.simulator.provider import Simulator
from proxy.simulator.speech import TEXT
from tests.simulator.raw_client import ask, request, with_simulator
from tests.simulator.sdks import ARGUMENTS, ASKED, FUNCTION, SCHEMA, url, with_openai

TOOLS: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]

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
        async with openai.AsyncOpenAI(base_url=f"{url(simulator)}/v1", api_key="k", max_retries=1) as client:
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="sim:status=429 retry-after-ms=1", messages=ASKED)
            assert [seen.get("x-stainless-retry-count") for seen in simulator.requests] == ["0", "1"]

    with_simulator(run)


# -- openai-responses


def test_responses_streamed() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        async with client.responses.stream(model="m", input="x") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert final.output_text == TEXT
        assert final.usage is not None
        assert (final.usage.output_tokens, final.status) == (8, "completed")
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert kinds[2:4] == ["response.output_item.added", "response.content_part.added"]
        assert kinds.count("response.output_text.delta") == 8
        assert kinds[-4:-1] == [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
        ]
        assert kinds[-1] == "response.completed"

    with_openai(test)


def test_sequence_numbers_count_up_and_usage_stands_only_at_the_end() -> None:
    async def test(simulator: Simulator) -> None:
        seen = await ask(simulator.port, request("think=2", "/v1/responses"), b"0\r\n\r\n")
        values = [json.loads(line[6:]) for line in seen.body.split(b"\n") if line.startswith(b"data: ")]
        assert [value["sequence_number"] for value in values] == list(range(len(values)))
        usages = [value["response"]["usage"] for value in values if "response" in value]
        assert usages[:-1] == [None, None]
        assert usages[-1]["output_tokens_details"]["reasoning_tokens"] == 2
        assert usages[-1]["output_tokens"] == 10
        assert b"[DONE]" not in seen.body

    with_simulator(test)


def test_responses_whole_and_tools() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        assert (await client.responses.create(model="m", input="x")).output_text == TEXT
        whole: Any = await client.responses.create(model="sim-tool", input="x", tools=TOOLS)
        assert (whole.output[0].name, json.loads(whole.output[0].arguments)) == ("weather", ARGUMENTS)
        async with client.responses.stream(model="sim-tool", input="x", tools=TOOLS) as stream:
            final: Any = await stream.get_final_response()
        assert (final.output[0].name, json.loads(final.output[0].arguments)) == ("weather", ARGUMENTS)

    with_openai(test)


def test_responses_errors() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model="sim-status:429", input="x")
        stream = await client.responses.create(model="sim-error:2", input="x", stream=True)
        events: list[Any] = [event async for event in stream]
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        assert "asked of the simulated provider" in events[-2].message  # flat, as documented: the SDK does not raise
        assert events[-1].response.status == "failed"
        seen = await ask(simulator.port, request("error=2", "/v1/responses"), b"0\r\n\r\n")
        assert seen.body.index(b"event: error") < seen.body.index(b"event: response.failed")

    with_openai(test)
