"""Google's and Ollama's own clients through the sidecar. Theirs have a base URL and a key only as well."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from google import genai
from google.genai import types

from proxy.simulator.speech import TEXT
from tests.whole.conftest import KEY
from tests.whole.processes import Provider, Sidecar

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def gemini(sidecar: Sidecar) -> Iterator[genai.Client]:
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=sidecar.url))
    yield client
    client.close()


@pytest.fixture
def llama(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> Iterator[ollama.Client]:
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)  # the client has no argument for it
    with ollama.Client(host=sidecar.url) as client:
        yield client


def test_gemini_whole(gemini: genai.Client, provider: Provider, sidecar: Sidecar) -> None:
    answer = gemini.models.generate_content(model="gemini-2.5-flash", contents="hello")
    assert answer.text == TEXT and answer.usage_metadata is not None
    (seen,) = provider.seen()
    assert seen.target == "/v1/models/gemini-2.5-flash:generateContent"
    assert seen.get("x-goog-api-key") == "upstream-gemini"
    (receipt,) = sidecar.wait_for_receipts(1)
    assert receipt["provider"] == "gemini" and receipt["dialect"] == "gemini"
    assert receipt["model_requested"] == "gemini-2.5-flash"


def test_gemini_streamed(gemini: genai.Client, provider: Provider, sidecar: Sidecar) -> None:
    chunks = list(gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="hello"))
    assert len(chunks) > 1 and "".join(chunk.text or "" for chunk in chunks) == TEXT
    (receipt,) = sidecar.wait_for_receipts(1)
    assert receipt["stream"] is True and receipt["complete"] is True


def test_gemini_counts_embeds_and_lists(gemini: genai.Client, provider: Provider) -> None:
    assert gemini.models.count_tokens(model="gemini-2.5-flash", contents="hello").total_tokens
    gemini.models.embed_content(model="gemini-embedding-001", contents="hello")
    list(gemini.models.list())
    assert [seen.target.rpartition("/")[2].partition("?")[0] for seen in provider.seen()] == [
        "gemini-2.5-flash:countTokens",
        "gemini-embedding-001:batchEmbedContents",
        "models",
    ]
    assert [seen.get("x-goog-api-key") for seen in provider.seen()] == ["upstream-gemini"] * 3


def test_gemini_tools_and_images(gemini: genai.Client, provider: Provider) -> None:
    declared = types.FunctionDeclaration(name="get_weather", parameters_json_schema={"type": "object"})
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
    contents: Any = [types.Part.from_bytes(data=bytes(range(256)) * 64, mime_type="image/png"), "?"]
    answer = gemini.models.generate_content(model="sim:tool", contents=contents, config=config)
    assert answer.function_calls is not None and answer.function_calls[0].name == "get_weather"


def test_gemini_async(sidecar: Sidecar, provider: Provider) -> None:
    async def ask() -> None:
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=sidecar.url))
        async with client.aio as talk:
            whole = await talk.models.generate_content(model="gemini-2.5-flash", contents="hello")
            assert whole.text == TEXT
            chunks = await talk.models.generate_content_stream(model="gemini-2.5-flash", contents="hello")
            assert "".join([chunk.text or "" async for chunk in chunks]) == TEXT
        client.close()

    asyncio.run(ask())


def test_ollama_whole(llama: ollama.Client, provider: Provider, sidecar: Sidecar) -> None:
    assert llama.chat("llama3", HELLO).message.content == TEXT
    assert llama.generate("llama3", "hello").response == TEXT
    assert [seen.target for seen in provider.seen()] == ["/api/chat", "/api/generate"]
    receipts = sidecar.wait_for_receipts(2)
    assert {receipt["dialect"] for receipt in receipts} == {"ollama"} and all(not r["stream"] for r in receipts)


def test_ollama_streamed(llama: ollama.Client, provider: Provider, sidecar: Sidecar) -> None:
    parts = list(llama.chat("llama3", HELLO, stream=True))
    assert len(parts) > 1 and "".join(part.message.content or "" for part in parts) == TEXT and parts[-1].done
    pieces = list(llama.generate("llama3", "hello", stream=True))
    assert "".join(piece.response or "" for piece in pieces) == TEXT
    assert all(r["stream"] and r["complete"] for r in sidecar.wait_for_receipts(2))


def test_ollama_lists(llama: ollama.Client, provider: Provider) -> None:
    assert "sim" in [model.model for model in llama.list().models]


def test_ollama_async(sidecar: Sidecar, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)

    async def ask() -> None:
        async with ollama.AsyncClient(host=sidecar.url) as client:
            parts = [part async for part in await client.chat("llama3", HELLO, stream=True)]
            assert "".join(part.message.content or "" for part in parts) == TEXT

    asyncio.run(ask())
