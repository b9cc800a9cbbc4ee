"""What `check` says: complete, true, and free of secrets."""

from __future__ import annotations

import re

import orjson

from proxy.server.report import as_document, as_text, routes_of
from proxy.server.settings import Settings, read_settings
from proxy.server.table import NUMBERS, TIMEOUTS

SECRETS = ["sk-upstream-secret", "proxy-key-0123456789", "header-secret", "dXNlcjpwYXNz", "pass-word"]


def settings(**environ: str) -> Settings:
    given = {
        "OPENAI_API_KEY": "sk-upstream-secret",
        "LLM_PROXY_PROVIDER_VLLM": "openai+http://10.0.0.5:8000/v1",
        "LLM_PROXY_PROVIDER_VLLM_HEADERS": "x-team: header-secret",
        "LLM_PROXY_KEYS": "alice=proxy-key-0123456789",
        "HTTPS_PROXY": "http://user:pass-word@p.internal:3128",
        "LLM_PROXY_HOSTS": "llm",
    }
    return read_settings(given | environ)


def test_everything_that_is_decided_stands_in_it_and_no_secret() -> None:
    document = as_document(settings(), ("gpt-4o",))
    assert document["listen"] == ["http://127.0.0.1:8080"]
    assert document["auth"] == "keys"
    assert list(document["keys"]) == ["alice"]
    assert set(document["timeouts"]) == set(TIMEOUTS)
    assert set(document["limits"]) == set(NUMBERS)
    openai, vllm = document["providers"]
    assert openai["proxy"] == "p.internal:3128"
    assert openai["credential"].startswith("bearer #")
    assert "gpt-*" in openai["models"]
    assert vllm["url"] == "http://10.0.0.5:8000/v1"
    assert vllm["headers"] == ["x-team"]
    for text in (as_text(document), orjson.dumps(document).decode()):
        assert not [secret for secret in SECRETS if secret in text]
        assert "10.0.0.5:8000" in text
        assert "alice" in text


def test_metering_and_ledger() -> None:
    document = as_document(settings(LLM_PROXY_DISCONNECT="cancel,alice=drain:2.5", LLM_PROXY_DB="/var/lib/x.db"))
    assert document["ledger"] == "/var/lib/x.db"
    assert document["disconnect"] == {"default": "cancel", "alice": "drain:2.5"}
    assert [provider["include_usage"] for provider in document["providers"]] == [True, True]
    text = as_text(document)
    assert "leaving    cancel, alice=drain:2.5" in text and "ledger     /var/lib/x.db, keeps everything" in text
    assert [provider["prices"] for provider in document["providers"]] == ["openai", None]
    assert "prices openai" in text and "prices none at this address" in text
    bounded = as_text(as_document(settings(LLM_PROXY_DB_DAYS="30", LLM_PROXY_DB_SIZE="500M")))
    assert "keeps 30 days and 500M" in bounded
    assert "counted where it is not; prices genai-prices-" in text
    off = as_text(as_document(settings(LLM_PROXY_METER="off", LLM_PROXY_DB="off", LLM_PROXY_DISCONNECT="drain")))
    assert "usage      off" in off and "ledger     off" in off and "leaving    drain" in off


def test_where_a_model_goes_for_each_kind_of_client() -> None:
    ways = routes_of("vllm/llama", settings())
    assert ways["openai"] == "vllm as llama: http://10.0.0.5:8000/v1/chat/completions"
    assert "does not speak" in ways["anthropic"]
    assert set(routes_of("b\u00fccher", settings())) == {"openai", "anthropic", "ollama"}


MODELS = """
fast (retries=3 first_event=10 hedge cost=0.05usd) = openai/gpt-4o*3, vllm/llama (window=8k) | claude/claude-haiku-4-5
own = vllm/llama
"""


def with_aliases() -> Settings:
    return settings(
        LLM_PROXY_MODELS=MODELS, LLM_PROXY_PROVIDER_CLAUDE="anthropic+http://10.0.0.6", LLM_PROXY_RETRY_SHARE="0.1"
    )


def test_aliases_with_all_that_is_said_of_them() -> None:
    document = as_document(with_aliases())
    fast, own = document["aliases"]
    assert (fast["name"], own["name"]) == ("fast", "own")
    assert fast["targets"] == "openai/gpt-4o*3, vllm/llama (window=8k) | claude/claude-haiku-4-5"
    assert fast["options"] == "retries=3 first_event=10 hedge cost=0.05usd"
    assert fast["groups"] == [
        [
            {"provider": "openai", "model": "gpt-4o", "weight": 3, "window": 128_000},
            {"provider": "vllm", "model": "llama", "weight": 1, "window": 8_000},
        ],
        [{"provider": "claude", "model": "claude-haiku-4-5", "weight": 1, "window": 200_000}],
    ]
    assert (fast["retries"], fast["seconds"], fast["hedge"], fast["resume"]) == (3, {"first_event": 10.0}, True, False)
    assert (fast["cost_micros"], own["cost_micros"], own["retries"]) == (50_000, None, None)
    assert fast["formats"] == {
        "openai": ["openai/gpt-4o*3", "vllm/llama (window=8k)"],
        "anthropic": ["claude/claude-haiku-4-5"],
        "ollama": [],
        "gemini": [],
    }
    assert (document["retries"], document["retry_share"]) == (2, 0.1)
    assert orjson.loads(orjson.dumps(document))["aliases"] == document["aliases"]


def test_aliases_in_words() -> None:
    lines = as_text(as_document(with_aliases())).splitlines()
    at = lines.index("aliases")
    assert [line.strip() for line in lines[at + 1 : at + 9]] == [
        "fast        openai/gpt-4o*3, vllm/llama (window=8k) | claude/claude-haiku-4-5",
        "retries=3 first_event=10 hedge cost=0.05usd",
        "for clients of openai, anthropic",
        "no target speaks ollama, gemini",
        "own         vllm/llama",
        "for clients of openai",
        "no target speaks anthropic, ollama, gemini",
        "retries    2 after the first attempt, for at most 10 % of requests",
    ]
    assert "aliases" not in as_text(as_document(settings())).splitlines()


def test_where_an_alias_goes_for_each_kind_of_client() -> None:
    ways = routes_of("fast", with_aliases())
    assert ways["openai"] == "openai/gpt-4o*3, vllm/llama (window=8k)"
    assert ways["anthropic"] == "claude/claude-haiku-4-5"
    assert ways["ollama"] == ways["gemini"] == "no target of fast speaks this, they speak openai, anthropic"
    (groups,) = {routes_of("g", settings(LLM_PROXY_MODELS="g = openai/a | vllm/b, vllm/c"))["openai"]}
    assert groups == "openai/a | vllm/b, vllm/c"
    assert routes_of("fast", settings())["openai"].startswith("openai: https://")  # no alias there


def test_an_alias_goes_before_the_owner_of_its_name() -> None:
    ways = routes_of("gpt-4o", settings(LLM_PROXY_MODELS="gpt-4o = vllm/llama"))
    assert ways["openai"] == "vllm/llama"


def test_every_credential_is_shown_as_its_fingerprint() -> None:
    further = {"LLM_PROXY_PROVIDER_OPENAI_API_KEYS": "sk-upstream-secret-2,sk-upstream-secret-3"}
    credential = as_document(settings(**further))["providers"][0]["credential"]
    assert re.fullmatch("bearer #[0-9a-f]{8}, #[0-9a-f]{8}, #[0-9a-f]{8}", credential)


def test_an_empty_configuration_is_described_too() -> None:
    text = as_text(as_document(read_settings({"LLM_PROXY_LISTEN": "unix:/run/x,[::1]:1"}), ("gpt-4o",)))
    assert "unix:/run/x, http://[::1]:1" in text
    assert "providers  none" in text


def test_a_credential_in_a_configured_field_is_told() -> None:
    environ = {"LLM_PROXY_PROVIDER_X": "openai+http://10.0.0.5/v1", "LLM_PROXY_PROVIDER_X_HEADERS": "Api-Key: hidden"}
    (provider,) = as_document(read_settings(environ))["providers"]
    assert provider["credential"] == "in its headers"
    assert "hidden" not in str(provider)


def test_in_passthrough_no_credential_of_ours_is_claimed() -> None:
    found = read_settings({"OPENAI_API_KEY": "sk-upstream-secret", "LLM_PROXY_AUTH": "passthrough"})
    assert {provider["credential"] for provider in as_document(found)["providers"]} == {"the client's credential"}


def test_limits_and_where_keys_are() -> None:
    document = as_document(
        settings(LLM_PROXY_LIMITS="all: rpm=600; key alice: 20usd/month:warn", LLM_PROXY_BUDGET_ZONE="Europe/Berlin")
    )
    assert document["rules"] == {"all": "rpm=600", "key alice": "20usd/month:warn"}
    text = as_text(document)
    for line in ("  all: rpm=600", "  key alice: 20usd/month:warn", "budgets    have the days of Europe/Berlin"):
        assert line in text.splitlines()
    assert "llm-proxy keys list" in text
    assert "llm-proxy keys list" not in as_text(as_document(settings(LLM_PROXY_DB="off")))


def test_the_admin_token_is_shown_as_its_fingerprint() -> None:
    found = as_document(read_settings({"LLM_PROXY_DB": "off", "LLM_PROXY_ADMIN_TOKEN": "admin-token-0123456789"}))
    assert re.fullmatch("#[0-9a-f]{8}", found["admin_token"])
    assert f"admin      http://127.0.0.1:8081, with the token {found['admin_token']}\n" in as_text(found)
    without = as_document(read_settings({"LLM_PROXY_DB": "off"}))
    assert without["admin_token"] is None and "8081, without a token\n" in as_text(without)
