"""OpenAI's own SDK through the sidecar, with no option but `base_url` and `api_key`.

How it works: what the simulated provider was asked and what the SDK made of its answer are compared with each other;
what an SDK sees of broken answers is in test_sdk_endings.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from proxy.simulator.speech import TEXT
from tests.whole.conftest import KEY
from tests.whole.processes import Provider, Sidecar

HELLO: Any = [{"role": "user", "content": "hello"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
def client(sidecar: Sidecar) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key=KEY) as made:
        yield made


def test_a_chat(client: openai.OpenAI, provider: Provider, sidecar: Sidecar) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.total_tokens > 0
    (seen,) = provider.seen()
    assert (seen.method, seen.target) == ("POST", "/v1/chat/completions")
    assert seen.get("authorization") == "Bearer sk-upstream-openai"
    (receipt,) = sidecar.wait_for_receipts(1)
    assert receipt["model_requested"] == "gpt-4o" and receipt["key"] == "tests"
    assert receipt["provider"] == "openai" and receipt["dialect"] == "openai-chat"
    assert receipt["status"] == 200 and receipt["complete"] is True and receipt["stream"] is False


def test_a_streamed_chat(client: openai.OpenAI, provider: Provider, sidecar: Sidecar) -> None:
    stream = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == TEXT
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    assert provider.seen()[0].get("accept-encoding") == "identity"
    (receipt,) = sidecar.wait_for_receipts(1)
    assert receipt["stream"] is True and receipt["complete"] is True and receipt["events"] >= len(chunks)
    assert 0 < receipt["first_byte_ms"] <= receipt["first_event_ms"] <= receipt["total_ms"]


def test_a_streamed_chat_that_did_not_ask_for_usage(
    client: openai.OpenAI, provider: Provider, sidecar: Sidecar
) -> None:
    """The provider is asked, the ledger knows, the client sees nothing of it."""
    model = "sim:input=300 output=40 cached=20"
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert json.loads(provider.seen()[0].body)["stream_options"] == {"include_usage": True}
    legacy = list(client.completions.create(model=model, prompt="hello", stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in legacy)
    for receipt in sidecar.wait_for_receipts(2):
        usage = receipt["usage"]
        assert (usage["input"], usage["output"], usage["cached"]) == (300, 40, 20)
        assert usage["output_source"] == "reported" and usage["complete"] is True


def test_a_client_that_leaves_is_counted(client: openai.OpenAI, provider: Provider, sidecar: Sidecar) -> None:
    stream = client.chat.completions.create(model="sim:pace=50 events=1000", messages=HELLO, stream=True)
    for _, _chunk in zip(range(5), stream, strict=False):
        pass
    stream.close()
    (receipt,) = sidecar.wait_for_receipts(1)
    assert receipt["ended_kind"] == "client_left"
    usage = receipt["usage"]
    assert usage["output_source"] == "counted" and 0 < usage["output"] < 1000 and usage["complete"] is False
    assert usage["input_source"] == "counted" and usage["input"] > 0


def test_a_streamed_chat_of_several_megabytes(client: openai.OpenAI, provider: Provider) -> None:
    stream = client.chat.completions.create(model="sim:events=40,huge=200000", messages=HELLO, stream=True)
    assert sum(len(chunk.choices[0].delta.content or "") for chunk in stream if chunk.choices) > 200_000


def test_tools_whole_and_streamed(client: openai.OpenAI, provider: Provider) -> None:
    answer = client.chat.completions.create(model="sim:tool", messages=HELLO, tools=[TOOL])
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function" and call.function.name == "get_weather"
    stream = client.chat.completions.create(model="sim:tool", messages=HELLO, tools=[TOOL], stream=True)
    arguments, reason = "", None
    for chunk in stream:
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or []:
                arguments += part.function.arguments or "" if part.function else ""
    assert json.loads(arguments) == json.loads(call.function.arguments)
    assert reason == "tool_calls"


def test_the_stream_of_the_sdk_that_assembles(client: openai.OpenAI, provider: Provider) -> None:
    with client.chat.completions.stream(model="gpt-4o", messages=HELLO) as stream:
        assert sum(event.type == "content.delta" for event in stream) > 1
        assert stream.get_final_completion().choices[0].message.content == TEXT


def test_an_image_in_the_body(client: openai.OpenAI, provider: Provider) -> None:
    picture = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 4096).decode()
    content: Any = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": picture}}]
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": content}])
    body = json.loads(provider.seen()[0].body)
    assert body["messages"][0]["content"][1]["image_url"]["url"] == picture


def test_a_model_of_a_named_provider(client: openai.OpenAI, provider: Provider) -> None:
    answer = client.chat.completions.create(model="openai/some/model", messages=HELLO, temperature=0.1)
    assert answer.choices[0].message.content == TEXT
    assert json.loads(provider.seen()[0].body)["model"] == "some/model"


def test_raw_and_streaming_responses(client: openai.OpenAI, provider: Provider) -> None:
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    assert raw.status_code == 200 and raw.headers["content-type"].startswith("application/json")
    assert raw.parse().choices[0].message.content == TEXT
    assert raw.request_id, "the provider's request id must reach the client"
    with client.chat.completions.with_streaming_response.create(
        model="gpt-4o", messages=HELLO, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client: openai.OpenAI, provider: Provider, encoding: Any) -> None:
    made = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], encoding_format=encoding)
    assert len(made.data) == 2 and len(made.data[1].embedding) > 1


def test_embeddings_as_the_sdk_asks_for_them(client: openai.OpenAI, provider: Provider) -> None:
    made = client.embeddings.create(model="text-embedding-3-small", input="a")
    assert all(isinstance(number, float) for number in made.data[0].embedding)


def test_completions(client: openai.OpenAI, provider: Provider) -> None:
    assert client.completions.create(model="gpt-3.5-turbo-instruct", prompt="a").choices[0].text == TEXT
    stream = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="a", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == TEXT


def test_responses(client: openai.OpenAI, provider: Provider) -> None:
    assert client.responses.create(model="gpt-4o", input="hello").output_text == TEXT
    events = list(client.responses.create(model="gpt-4o", input="hello", stream=True))
    assert events[-1].type == "response.completed" and events[-1].response.output_text == TEXT
    with client.responses.stream(model="gpt-4o", input="hello") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == TEXT


def test_lists_of_models(client: openai.OpenAI, provider: Provider) -> None:
    assert "sim" in [model.id for model in client.models.list()]
    assert provider.seen()[0].target == "/v1/models"


def test_a_file_is_uploaded_unchanged(client: openai.OpenAI, provider: Provider) -> None:
    data = bytes(range(256)) * 12_000  # 3 MB, not text
    client.files.with_raw_response.create(file=("a.bin", data), purpose="user_data")
    (seen,) = provider.seen()
    assert seen.target == "/v1/files"
    kind = seen.get("content-type") or ""
    assert kind.startswith("multipart/form-data; boundary=")
    boundary = kind.partition("boundary=")[2].encode()
    part = next(part for part in seen.body.split(b"--" + boundary) if b'name="file"' in part)
    content = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
    assert hashlib.sha256(content).digest() == hashlib.sha256(data).digest()


def test_everything_async(sidecar: Sidecar, provider: Provider) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{sidecar.url}/v1", api_key=KEY) as client:
            whole = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
            assert whole.choices[0].message.content == TEXT
            stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            assert "".join([c.choices[0].delta.content or "" async for c in stream if c.choices]) == TEXT
            events = await client.responses.create(model="gpt-4o", input="hello", stream=True)
            assert [event.type async for event in events][-1] == "response.completed"
            raw = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
            assert raw.parse().choices[0].message.content == TEXT
            made = await client.embeddings.create(model="text-embedding-3-small", input=["a"])
            assert len(made.data) == 1
            assert [model.id async for model in client.models.list()]

    asyncio.run(ask())


def test_many_streams_at_once(sidecar: Sidecar, provider: Provider) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> None:
        spec = f'sim:events=20,text="stream {number} of many. "'
        stream = await client.chat.completions.create(model=spec, messages=HELLO, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text and set(text.split(". ")) <= {f"stream {number} of many", ""}, text

    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{sidecar.url}/v1", api_key=KEY) as client:
            await asyncio.gather(*(one(client, number) for number in range(60)))

    asyncio.run(ask())


def test_leaving_a_stream_stops_the_provider(client: openai.OpenAI, provider: Provider, sidecar: Sidecar) -> None:
    stream = client.chat.completions.create(model="sim:pace=50,events=100000", messages=HELLO, stream=True)
    next(iter(stream))
    during = provider.simulator.open_connections
    stream.close()
    (receipt,) = sidecar.wait_for_receipts(1)
    assert (receipt["ended_by"], receipt["ended_kind"], receipt["complete"]) == ("client", "client_left", False)
    provider.wait_until(lambda simulator: simulator.open_connections < during)
