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
