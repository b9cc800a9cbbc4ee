"""What the official SDKs do with refusals: they come again when that helps, and not when it does not.

How it works: one sidecar; each test has a key of its own with limits that are met at once. How often an SDK has asked
is what the receipts say. Waits are the SDKs' own and as short as the limit allows (0.2 s).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.whole.processes import Provider, Sidecar

HELLO: Any = [{"role": "user", "content": "hello"}]
RULES = {
    "fast": "rps=5/1",
    "slow": "rpm=1/1",
    "poor": "0.01usd/month",
    "small": "itpm=1k",
    "unpriced": "9usd/day",
}
PRICES = {
    "version": "sdk",
    "prices": [
        {"provider": vendor, "model": "*", "request": 0.006, "input": 0, "output": 0}
        for vendor in ("openai", "anthropic", "gemini", "ollama")
    ]
    + [{"provider": "openai", "model": "free-*", "input": None, "output": None}],
}


def value(name: str) -> str:
    return f"{name}-0123456789abcdef"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Provider, Sidecar]]:
    prices = tmp_path_factory.mktemp("prices") / "prices.json"
    prices.write_text(json.dumps(PRICES))
    limits = {vendor + name: rules for vendor in VENDORS for name, rules in RULES.items()}
    provider = Provider()
    sidecar = Sidecar(
        {
            **provider.environ(),
            "LLM_PROXY_PRICES": str(prices),
            "LLM_PROXY_KEYS": ",".join(f"{name}={name[:2]}{value(name[2:])}" for name in limits),
            "LLM_PROXY_LIMITS": ";".join(f"key {name}: {rules}" for name, rules in limits.items()),
        }
    )
    yield provider, sidecar
    assert sidecar.errors == [], sidecar.tail()
    sidecar.stop()
    provider.close()


class Asker:
    """One vendor's SDK: `ask` asks once for something short, or raises what the SDK raises."""

    def __init__(self, ask: Callable[[Sidecar, str, str], None], error: type[Exception], retries: bool) -> None:
        self.ask = ask
        self.error = error
        self.retries = retries  # by itself


def _openai(sidecar: Sidecar, key: str, words: str) -> None:
    with openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key=key) as client:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": words}], max_tokens=5)


def _responses(sidecar: Sidecar, key: str, words: str) -> None:
    with openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key=key) as client:
        client.responses.create(model="gpt-4o", input=words, max_output_tokens=16)


def _anthropic(sidecar: Sidecar, key: str, words: str) -> None:
    with anthropic.Anthropic(base_url=sidecar.url, api_key=key) as client:
        client.messages.create(model="claude-x", messages=[{"role": "user", "content": words}], max_tokens=5)


def _gemini(sidecar: Sidecar, key: str, words: str) -> None:
    client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=sidecar.url))
    client.models.generate_content(
        model="gemini-2.5-flash", contents=words, config=types.GenerateContentConfig(max_output_tokens=5)
    )
    client.close()


def _ollama(sidecar: Sidecar, key: str, words: str) -> None:
    with ollama.Client(host=sidecar.url, headers={"authorization": f"Bearer {key}"}) as client:
        client.chat(model="llama3", messages=[{"role": "user", "content": words}], options={"num_predict": 5})


VENDORS = {
    "o-": Asker(_openai, openai.APIStatusError, True),
    "r-": Asker(_responses, openai.APIStatusError, True),
    "a-": Asker(_anthropic, anthropic.APIStatusError, True),
    "g-": Asker(_gemini, errors.APIError, False),
    "l-": Asker(_ollama, ollama.ResponseError, False),
}


def status_of(error: Exception) -> int:
    return int(getattr(error, "status_code", 0) or getattr(error, "code", 0))


def refused(
    made: tuple[Provider, Sidecar], vendor: str, name: str, words: str = "hello"
) -> tuple[Exception, list[int]]:
    """What the SDK raised, and the status of each time it has asked."""
    _, sidecar = made
    sidecar.mark()
    asker = VENDORS[vendor]
    with pytest.raises(asker.error) as raised:
        asker.ask(sidecar, f"{vendor}{value(name)}" if name in RULES else name, words)
    return raised.value, [receipt["status"] for receipt in settled(sidecar)]


def settled(sidecar: Sidecar) -> list[dict[str, Any]]:
    """The receipts since the mark, all of them: those before a request of our own that comes last."""
    mark = sidecar._mark
    sidecar.mark()
    end = sidecar._mark
    return [line for line in sidecar.lines if "ended_by" in line][mark : end - 1]


def passes(made: tuple[Provider, Sidecar], vendor: str, name: str) -> None:
    VENDORS[vendor].ask(made[1], f"{vendor}{value(name)}", "hello")


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_limit_that_is_over_soon_is_waited_for(made: tuple[Provider, Sidecar], vendor: str) -> None:
    passes(made, vendor, "fast")
    if VENDORS[vendor].retries:
        made[1].mark()
        passes(made, vendor, "fast")
        statuses = [receipt["status"] for receipt in settled(made[1])]
        assert statuses == [429, 200] or statuses == [200], statuses  # a slow machine has waited long enough
    else:
        error, statuses = refused(made, vendor, "fast")
        assert (status_of(error), statuses) == (429, [429])


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_budget_that_is_used_up_is_not_asked_for_again(made: tuple[Provider, Sidecar], vendor: str) -> None:
    passes(made, vendor, "poor")
    error, statuses = refused(made, vendor, "poor")
    assert (status_of(error), statuses) == (429, [429])
    assert "budget" in str(error)
    if vendor in ("o-", "r-"):
        assert isinstance(error, openai.RateLimitError)
        assert (error.code, error.type) == ("budget_exhausted", "insufficient_quota")
    elif vendor == "a-":
        assert isinstance(error, anthropic.RateLimitError)
        assert error.body["error"]["code"] == "budget_exhausted"  # type: ignore[index]


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_can_never_pass_is_not_asked_for_again(made: tuple[Provider, Sidecar], vendor: str) -> None:
    error, statuses = refused(made, vendor, "small", "word " * 3000)
    assert (status_of(error), statuses) == (400, [400])
    assert "llm-proxy: this request has more input tokens" in str(error)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_wrong_key_is_not_asked_with_again(made: tuple[Provider, Sidecar], vendor: str) -> None:
    error, statuses = refused(made, vendor, "no-key-of-ours-at-all")
    assert (status_of(error), statuses) == (401, [401])
    assert "llm-proxy: the key is not valid here" in str(error)


def test_what_has_no_price_is_not_asked_for_again(made: tuple[Provider, Sidecar]) -> None:
    _, sidecar = made
    sidecar.mark()
    with (
        openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key=f"o-{value('unpriced')}") as client,
        pytest.raises(openai.PermissionDeniedError) as raised,
    ):
        client.chat.completions.create(model="openai/free-1", messages=HELLO)
    assert raised.value.code == "unpriced_model"
    assert [receipt["status"] for receipt in settled(sidecar)] == [403]


def test_the_time_to_come_again_is_obeyed(made: tuple[Provider, Sidecar]) -> None:
    """An SDK that may not wait so long gives up and says so; the answer tells it when."""
    _, sidecar = made
    passes(made, "a-", "slow")
    with (
        anthropic.Anthropic(base_url=sidecar.url, api_key=f"a-{value('slow')}", max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError) as raised,
    ):
        client.messages.create(model="claude-x", messages=HELLO, max_tokens=5)
    fields = raised.value.response.headers
    assert 55 <= int(fields["retry-after"]) <= 60
    assert fields["anthropic-ratelimit-requests-limit"] == "1"
    assert fields["anthropic-ratelimit-requests-remaining"] == "0"
    assert fields["anthropic-ratelimit-requests-reset"].endswith("Z")
