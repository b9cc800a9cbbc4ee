"""The official SDKs, each with a simulator as its provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import ollama
import openai
from google import genai
from google.genai import types

from proxy.simulator.provider import Simulator
from tests.simulator.raw_client import with_simulator

ARGUMENTS = {"city": "Köln", "days": 3}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
CLAUDE_TOOL = {"name": "weather", "input_schema": SCHEMA}
ASKED: list[Any] = [{"role": "user", "content": "hello"}]


def with_openai(test: Callable[[openai.AsyncOpenAI, Simulator], Any], **options: Any) -> None:
    async def run(simulator: Simulator) -> None:
        async with openai.AsyncOpenAI(base_url=f"{url(simulator)}/v1", api_key="k", max_retries=0) as client:
            await test(client, simulator)

    with_simulator(run, **options)


def with_anthropic(test: Callable[[anthropic.AsyncAnthropic, Simulator], Any], **options: Any) -> None:
    async def run(simulator: Simulator) -> None:
        async with anthropic.AsyncAnthropic(base_url=url(simulator), api_key="k", max_retries=0) as client:
            await test(client, simulator)

    with_simulator(run, **options)


def with_gemini(test: Callable[[Any, Simulator], Any], **options: Any) -> None:
    async def run(simulator: Simulator) -> None:
        client = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=url(simulator)))
        try:
            await test(client.aio.models, simulator)
        finally:
            await client.aio.aclose()
            client.close()

    with_simulator(run, **options)


def with_ollama(test: Callable[[ollama.AsyncClient, Simulator], Any], **options: Any) -> None:
    async def run(simulator: Simulator) -> None:
        client = ollama.AsyncClient(host=url(simulator))
        try:
            await test(client, simulator)
        finally:
            await client._client.aclose()

    with_simulator(run, **options)


def url(simulator: Simulator) -> str:
    return f"http://127.0.0.1:{simulator.port}"
