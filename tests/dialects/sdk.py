"""What the vendors' own clients make of a stream, without a socket."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def openai_error_of(stream: bytes, api: str) -> Exception | None:
    """The error that openai-python raises while it reads `stream`."""
    openai = pytest.importorskip("openai", reason="the openai SDK is not installed")
    client = openai.OpenAI(api_key="k", base_url="http://unused", max_retries=0, http_client=_client(openai, stream))
    if api == "responses":
        return _error(lambda: list(client.responses.create(model="m", input="hi", stream=True)))
    return _error(lambda: list(client.chat.completions.create(model="m", messages=[], stream=True)))


def anthropic_error_of(stream: bytes) -> Exception | None:
    """The error that the anthropic SDK raises while it reads `stream`."""
    anthropic = pytest.importorskip("anthropic", reason="the anthropic SDK is not installed")
    client = anthropic.Anthropic(
        api_key="k", base_url="http://unused", max_retries=0, http_client=_client(anthropic, stream)
    )
    return _error(lambda: list(client.messages.create(model="m", max_tokens=1, messages=[], stream=True)))


def _client(sdk: object, stream: bytes) -> object:
    base = sdk.DefaultHttpxClient  # type: ignore[attr-defined]
    library = next(module for module in (_import("httpx2"), _import("httpx")) if _is_from(base, module))
    headers = {"content-type": "text/event-stream"}
    answer = library.Response(200, headers=headers, content=stream)  # type: ignore[union-attr]
    return base(transport=library.MockTransport(lambda request: answer))  # type: ignore[union-attr]


def _import(name: str) -> object:
    try:
        return __import__(name)
    except ImportError:
        return None


def _is_from(base: type, library: object) -> bool:
    return library is not None and issubclass(base, library.Client)  # type: ignore[attr-defined]


def _error(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None
