"""How the SDKs see endings that are not good: a cut stream raises, an error keeps its class, our own errors are errors.

How it works: each case says what the provider does (words of the simulator, in the model's name) and what the SDK must
raise. The proof that a raise is our doing is in the last tests: without the sidecar several of the same streams end in
silence, as if they were complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from tests.whole.conftest import KEY
from tests.whole.processes import Provider, Sidecar

HELLO: Any = [{"role": "user", "content": "hello"}]


def open_ai(url: str, max_retries: int = 0) -> openai.OpenAI:
    """Tries again only where a test is about that: its pauses are half a second and more."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=max_retries)


def chat(url: str, model: str, texts: list[str]) -> None:
    with open_ai(url) as client:
        for chunk in client.chat.completions.create(model=model, messages=HELLO, stream=True):
            texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]


def completions(url: str, model: str, texts: list[str]) -> None:
    with open_ai(url) as client:
        for chunk in client.completions.create(model=model, prompt="hello", stream=True):
            texts += [choice.text for choice in chunk.choices if choice.text]


def responses(url: str, model: str, texts: list[str]) -> None:
    with open_ai(url) as client:
        for event in client.responses.create(model=model, input="hello", stream=True):
            if event.type == "response.output_text.delta":
                texts.append(event.delta)
            elif event.type in ("response.failed", "error"):
                raise ToldByAnEvent(event.type)


def messages(url: str, model: str, texts: list[str]) -> None:
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        with client.messages.stream(model=model, max_tokens=10, messages=HELLO) as stream:
            for text in stream.text_stream:
                texts.append(text)


def gemini(url: str, model: str, texts: list[str]) -> None:
    with genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url)) as client:
        for chunk in client.models.generate_content_stream(model=model, contents="hello"):
            if chunk.text:
                texts.append(chunk.text)


def llama(url: str, model: str, texts: list[str]) -> None:
    with ollama.Client(host=url, headers={"authorization": f"Bearer {KEY}"}) as client:
        for part in client.chat(model, HELLO, stream=True):
            if part.message.content:
                texts.append(part.message.content)


class ToldByAnEvent(Exception):
    """The SDK hands out errors of this dialect as events."""


Ask = Callable[[str, str, list[str]], None]
ASKS: dict[str, tuple[Ask, tuple[type[Exception], ...]]] = {
    "openai-chat": (chat, (openai.APIError,)),
    "openai-completions": (completions, (openai.APIError,)),
    "openai-responses": (responses, (openai.APIError, ToldByAnEvent)),
    "anthropic-messages": (messages, (anthropic.APIError,)),
    "gemini": (gemini, (genai_errors.APIError,)),
    "ollama": (llama, (ollama.ResponseError,)),
}
# What breaks a stream -> how the receipt calls it.
BREAKS = {
    "cut=3": "reset",
    "cut-rst=3": "reset",
    "cut=0": "reset",
    "no-end": "missing_end",
    "bad-chunk=3": "protocol",
    "framing=close,cut=3": "missing_end",
    "cut=3,cuts=random:1": "reset",
}


@pytest.mark.parametrize("spec", BREAKS)
@pytest.mark.parametrize("name", ASKS)
def test_a_broken_stream_raises(sidecar: Sidecar, provider: Provider, name: str, spec: str) -> None:
    ask, raised = ASKS[name]
    texts: list[str] = []
    with pytest.raises(raised):
        ask(sidecar.url, f"sim:{spec}", texts)
    if "no-end" not in spec and "cut=0" not in spec:
        assert len(texts) == 3, "what came before the break is the client's"
    (receipt,) = sidecar.wait_for_receipts(1)
    assert receipt["complete"] is False and receipt["ended_by"] == "upstream" and receipt["status"] == 200
    assert receipt["ended_kind"] == BREAKS[spec]


@pytest.mark.parametrize("name", ASKS)
def test_the_provider_s_own_error_event_raises(sidecar: Sidecar, provider: Provider, name: str) -> None:
    ask, raised = ASKS[name]
    with pytest.raises(raised):
        ask(sidecar.url, "sim:error=2", [])
    (receipt,) = sidecar.wait_for_receipts(1)
    assert (receipt["complete"], receipt["ended_kind"]) == (False, "error_event")


@pytest.mark.parametrize("name", ASKS)
def test_a_silent_stream_raises_within_its_limit(impatient: Sidecar, provider: Provider, name: str) -> None:
    ask, raised = ASKS[name]
    texts: list[str] = []
    with pytest.raises(raised):
        # Google's and Ollama's clients cannot read a ping, and their providers send none.
        ask(impatient.url, "sim:stall=3" if name in ("gemini", "ollama") else "sim:stall=3,ping=0.1", texts)
    assert len(texts) == 3
    (receipt,) = impatient.wait_for_receipts(1)
    assert (receipt["ended_kind"], receipt["ended_phase"], receipt["complete"]) == ("timeout", "stream", False)
    assert 500 <= receipt["total_ms"] < 3_000, "pings must not count as progress"


@pytest.mark.parametrize("spec", ["reset", "drop-request", "garbage"])
@pytest.mark.parametrize("name", ASKS)
def test_no_answer_at_all_raises(sidecar: Sidecar, provider: Provider, name: str, spec: str) -> None:
    ask, _ = ASKS[name]
    expected: tuple[type[Exception], ...] = {
        "anthropic-messages": (anthropic.InternalServerError,),
        "gemini": (genai_errors.ServerError,),
        "ollama": (ollama.ResponseError,),
    }.get(name, (openai.InternalServerError,))
    with pytest.raises(expected) as caught:
        ask(sidecar.url, f"sim:{spec}", [])
    code = getattr(caught.value, "status_code", None) or getattr(caught.value, "code", None)
    assert code == 502
    assert "llm-proxy: " in str(caught.value)


OPENAI_CLASSES = {
    400: openai.BadRequestError,
    403: openai.InternalServerError,  # the provider refuses *our* credential: not the client's fault
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


@pytest.mark.parametrize("status", OPENAI_CLASSES)
@pytest.mark.parametrize("stream", [False, True])
def test_statuses_keep_their_class_openai(sidecar: Sidecar, provider: Provider, status: int, stream: bool) -> None:
    with open_ai(sidecar.url) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=f"sim:status={status}", messages=HELLO, stream=stream)
    assert type(caught.value) is OPENAI_CLASSES[status]
    assert caught.value.status_code == (502 if status == 403 else status)
    assert len(provider.seen()) == 1


ANTHROPIC_CLASSES = {
    400: anthropic.BadRequestError,
    404: anthropic.NotFoundError,
    413: anthropic.APIStatusError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    529: anthropic.InternalServerError,
}


@pytest.mark.parametrize("status", ANTHROPIC_CLASSES)
@pytest.mark.parametrize("stream", [False, True])
def test_statuses_keep_their_class_anthropic(sidecar: Sidecar, provider: Provider, status: int, stream: bool) -> None:
    with anthropic.Anthropic(base_url=sidecar.url, api_key=KEY, max_retries=0) as client:
        with pytest.raises(ANTHROPIC_CLASSES[status]) as caught:
            client.messages.create(model=f"sim:status={status}", max_tokens=1, messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict) and caught.value.body["type"] == "error"


def test_a_wrong_key_is_an_authentication_error(sidecar: Sidecar, provider: Provider) -> None:
    with openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key="sk-wrong-0123456789") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert "0123456789" not in str(caught.value)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
    with anthropic.Anthropic(base_url=sidecar.url, api_key="sk-wrong-0123456789") as theirs:
        with pytest.raises(anthropic.AuthenticationError):
            theirs.messages.create(model="claude", max_tokens=1, messages=HELLO)
    with genai.Client(api_key="wrong-0123456789", http_options=types.HttpOptions(base_url=sidecar.url)) as google:
        with pytest.raises(genai_errors.ClientError) as refused:
            google.models.generate_content(model="gemini-2.5-flash", contents="hello")
        assert refused.value.code == 401
    with ollama.Client(host=sidecar.url) as local:
        with pytest.raises(ollama.ResponseError) as told:
            local.chat("llama3", HELLO)
        assert told.value.status_code == 401
    assert provider.seen() == []


def test_the_sdk_retries_what_we_answer(start: Callable[..., Sidecar], provide: Any) -> None:
    provider = provide("drop-request")
    sidecar = start(provider.environ())
    with open_ai(sidecar.url, max_retries=2) as client, pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert len(provider.seen()) == 3, "one try of ours for each of the SDK's"
    with anthropic.Anthropic(base_url=sidecar.url, api_key=KEY, max_retries=1) as theirs:
        with pytest.raises(anthropic.InternalServerError):
            theirs.messages.create(model="claude", max_tokens=1, messages=HELLO)
    assert len(provider.seen()) == 5
    assert [receipt["status"] for receipt in sidecar.wait_for_receipts(5)] == [502] * 5


def test_the_sdk_does_not_retry_a_client_s_own_fault(sidecar: Sidecar, provider: Provider) -> None:
    with open_ai(sidecar.url, max_retries=2) as client, pytest.raises(openai.BadRequestError):
        client.post("/chat/completions", body={"model": ["not a name"], "messages": HELLO}, cast_to=object)
    assert len(sidecar.wait_for_receipts(1)) == 1 and provider.seen() == []


def test_retry_after_reaches_the_sdk(sidecar: Sidecar, provider: Provider) -> None:
    with open_ai(sidecar.url) as client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="sim:status=429,retry-after=7", messages=HELLO)
    assert caught.value.response.headers["retry-after"] == "7"


def test_a_provider_that_is_not_there(start: Callable[..., Sidecar], provide: Any) -> None:
    provider = provide()
    sidecar = start(provider.environ())
    provider.close_listener()
    with open_ai(sidecar.url) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
    assert caught.value.status_code == 502
    (receipt,) = sidecar.wait_for_receipts(1)
    assert (receipt["ended_kind"], receipt["ended_phase"]) == ("connect_failed", "connect")


def test_a_broken_stream_raises_async(sidecar: Sidecar, provider: Provider) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{sidecar.url}/v1", api_key=KEY) as client:
            stream = await client.chat.completions.create(model="sim:cut=3", messages=HELLO, stream=True)
            with pytest.raises(openai.APIError):
                async for _ in stream:
                    pass
        async with anthropic.AsyncAnthropic(base_url=sidecar.url, api_key=KEY) as theirs:
            with pytest.raises(anthropic.APIError):
                async with theirs.messages.stream(model="sim:cut=3", max_tokens=1, messages=HELLO) as events:
                    async for _ in events:
                        pass

    asyncio.run(ask())


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama"])
def test_without_the_sidecar_the_same_sdk_sees_nothing(provider: Provider, name: str) -> None:
    """What the tests above are worth: a stream without its end, straight from the provider, raises nothing."""
    ask, _ = ASKS[name]
    texts: list[str] = []
    ask(f"http://127.0.0.1:{provider.port}", "sim:no-end", texts)
    assert texts
