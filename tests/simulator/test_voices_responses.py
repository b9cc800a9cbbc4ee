"""The openai SDK reads Responses, and their events have the order of WIRE 3."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from proxy.simulator.provider import Simulator
from proxy.simulator.speech import TEXT
from tests.simulator.raw_client import ask, request, with_simulator
from tests.simulator.test_voices import ARGUMENTS, SCHEMA, with_openai

TOOLS: Any = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]


def test_streamed() -> None:
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


def test_whole_and_tools() -> None:
    async def test(client: openai.AsyncOpenAI, simulator: Simulator) -> None:
        assert (await client.responses.create(model="m", input="x")).output_text == TEXT
        whole: Any = await client.responses.create(model="sim-tool", input="x", tools=TOOLS)
        assert (whole.output[0].name, json.loads(whole.output[0].arguments)) == ("weather", ARGUMENTS)
        async with client.responses.stream(model="sim-tool", input="x", tools=TOOLS) as stream:
            final: Any = await stream.get_final_response()
        assert (final.output[0].name, json.loads(final.output[0].arguments)) == ("weather", ARGUMENTS)

    with_openai(test)


def test_errors() -> None:
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
