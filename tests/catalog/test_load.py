"""Providers out of the environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.aliases import Choice
from proxy.catalog.families import FAMILIES
from proxy.catalog.load import VARIABLES, VENDORS, Loaded, load, secret_names
from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider, Snapshot


def snapshot(**environ: str) -> Snapshot:
    loaded = load(environ)
    assert loaded.errors == []
    return loaded.snapshot


def only(**environ: str) -> Provider:
    (provider,) = snapshot(**environ).providers.values()
    return provider


def error(**environ: str) -> str:
    (found,) = load(environ).errors
    return found


@pytest.mark.parametrize(
    ("variable", "name", "url", "auth"),
    [
        ("OPENAI_API_KEY", "openai", "https://api.openai.com/v1", "bearer"),
        ("ANTHROPIC_API_KEY", "anthropic", "https://api.anthropic.com", "x-api-key"),
        ("ANTHROPIC_AUTH_TOKEN", "anthropic", "https://api.anthropic.com", "bearer"),
        ("GEMINI_API_KEY", "gemini", "https://generativelanguage.googleapis.com", "x-goog-api-key"),
        ("GOOGLE_API_KEY", "gemini", "https://generativelanguage.googleapis.com", "x-goog-api-key"),
        ("XAI_API_KEY", "xai", "https://api.x.ai/v1", "bearer"),
        ("DEEPSEEK_API_KEY", "deepseek", "https://api.deepseek.com", "bearer"),
        ("MISTRAL_API_KEY", "mistral", "https://api.mistral.ai/v1", "bearer"),
        ("GROQ_API_KEY", "groq", "https://api.groq.com/openai/v1", "bearer"),
        ("OPENROUTER_API_KEY", "openrouter", "https://openrouter.ai/api/v1", "bearer"),
    ],
)
def test_a_credential_makes_its_provider_exist(variable: str, name: str, url: str, auth: str) -> None:
    provider = only(**{variable: " secret-value "})
    assert provider.name == name
    assert f"https://{provider.host_header.decode()}{provider.base.decode()}" == url
    assert provider.origin == Origin("https", provider.host_header.decode(), 443)
    assert provider.auth == auth
    assert provider.credential is not None
    assert provider.credential.reveal() == "secret-value"
    assert "secret-value" not in repr(provider)


@pytest.mark.parametrize("field", ["Authorization: Bearer", "X-API-Key:", "api-key:", "x-goog-api-key:"])
def test_a_field_that_carries_a_credential_is_one(field: str) -> None:
    environ = {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_HEADERS": f"A: b, {field} secret"}
    assert only(**environ).has_credential
    # Beside a key, or the client's own, nobody knows which of the two counts.
    assert load({**environ, "LLM_PROXY_PROVIDER_X_AUTH": "none", "LLM_PROXY_PROVIDER_X_API_KEY": "k"}).errors == []
    (twice,) = load({**environ, "LLM_PROXY_PROVIDER_X_API_KEY": "k"}).errors
    assert twice.startswith("LLM_PROXY_PROVIDER_X_HEADERS: ")
    assert "API key already" in twice
    (passed,) = [each for each in load(environ, passthrough=True).errors if "_HEADERS" in each]
    assert "passthrough" in passed
    assert "secret" not in twice + passed


def test_a_vendors_key_beside_a_field_that_carries_one_is_refused() -> None:
    found = error(OPENAI_API_KEY="k", LLM_PROXY_PROVIDER_OPENAI_HEADERS="Authorization: Bearer other")
    assert "authorization: this provider has an API key already" in found


def test_only_what_goes_out_is_a_credential() -> None:
    assert only(OPENAI_API_KEY="k").has_credential
    assert not only(LLM_PROXY_PROVIDER_X="openai+http://x/v1", LLM_PROXY_PROVIDER_X_HEADERS="A: b").has_credential
    silent = only(
        LLM_PROXY_PROVIDER_X="openai+http://x/v1", LLM_PROXY_PROVIDER_X_API_KEY="k", LLM_PROXY_PROVIDER_X_AUTH="none"
    )
    assert not silent.has_credential


@pytest.mark.parametrize(
    ("variable", "name", "url"),
    [
        ("OPENAI_BASE_URL", "openai", "http://10.0.0.1:8000/v1"),
        ("ANTHROPIC_BASE_URL", "anthropic", "http://10.0.0.1:8000"),
        ("GOOGLE_GEMINI_BASE_URL", "gemini", "http://10.0.0.1:8000"),
        ("OLLAMA_HOST", "ollama", "http://10.0.0.1:8000"),
    ],
)
def test_a_base_url_does_so_too_and_replaces_the_vendors(variable: str, name: str, url: str) -> None:
    provider = only(**{variable: url})
    assert provider.name == name
    assert provider.credential is None
    assert f"http://10.0.0.1:8000{provider.base.decode()}" == url
    assert provider.origin == Origin("http", "10.0.0.1", 8000)


def test_nothing_configured_is_nothing() -> None:
    assert load({}) == Loaded(Snapshot({}), [], [])
    assert load({"OPENAI_API_KEY": "", "OPENAI_BASE_URL": " "}) == Loaded(Snapshot({}), [], [])


def test_of_two_credentials_the_vendors_client_decides_which() -> None:
    loaded = load({"GOOGLE_API_KEY": "one", "GEMINI_API_KEY": "two"})
    credential = loaded.snapshot.providers["gemini"].credential
    assert credential is not None
    assert credential.reveal() == "one"
    assert loaded.warnings == ["GEMINI_API_KEY is not used, since GOOGLE_API_KEY is set"]


def test_azure_has_an_endpoint_of_ones_own() -> None:
    provider = only(AZURE_OPENAI_API_KEY="k", AZURE_OPENAI_ENDPOINT="https://mine.openai.azure.com/")
    assert (provider.family, provider.base, provider.auth) == ("azure", b"/openai/v1", "api-key")
    assert provider.host_header == b"mine.openai.azure.com"
    loaded = load({"AZURE_OPENAI_API_KEY": "k"})
    assert loaded.snapshot.providers == {}
    assert len(loaded.warnings) == 1


def test_a_further_server_by_name() -> None:
    provider = only(
        LLM_PROXY_PROVIDER_MY_VLLM="openai+http://10.0.0.5:8000/v1/",
        LLM_PROXY_PROVIDER_MY_VLLM_API_KEY="k",
        LLM_PROXY_PROVIDER_MY_VLLM_AUTH="X-API-Key",
        LLM_PROXY_PROVIDER_MY_VLLM_HEADERS="X-Team: blue , X-Cost-Center:42",
    )
    assert provider.name == "my_vllm"
    assert (provider.family, provider.base, provider.auth) == ("openai", b"/v1", "x-api-key")
    assert provider.host_header == b"10.0.0.5:8000"
    assert provider.headers == ((b"x-team", Secret("blue")), (b"x-cost-center", Secret("42")))
    assert "blue" not in repr(provider)


def test_fields_with_commas_are_written_as_json() -> None:
    provider = only(
        LLM_PROXY_PROVIDER_A="anthropic+https://a.example",
        LLM_PROXY_PROVIDER_A_HEADERS='{"Anthropic-Beta": "one,two"}',
    )
    assert provider.headers == ((b"anthropic-beta", Secret("one,two")),)


def test_what_a_provider_could_send_back_is_known_to_its_mask() -> None:
    fields = "Authorization: Basic Ym9iOnBhc3N3b3Jk, X-Edge-Token: edge-token-1, X-Team: blue-green-team"
    provider = only(
        LLM_PROXY_PROVIDER_A="openai+http://a.example/v1",
        LLM_PROXY_PROVIDER_A_HEADERS=fields,
        HTTP_PROXY="http://u:proxy-password@p.example:3128",
    )
    said = b"Ym9iOnBhc3N3b3Jk bob:password edge-token-1 proxy-password blue-green-team"
    assert provider.mask.hide(said).split() == [b"*" * 16, b"*" * 12, b"*" * 12, b"*" * 14, b"blue-green-team"]
    assert only(OPENAI_API_KEY="sk-credential").mask.hide(b"sk-credential") == b"*" * 13
    assert not only(OPENAI_BASE_URL="http://127.0.0.1:1/v1").mask


def test_options_reach_a_vendors_provider_too() -> None:
    provider = only(OPENAI_API_KEY="k", LLM_PROXY_PROVIDER_OPENAI_HEADERS="OpenAI-Organization: org")
    assert provider.headers == ((b"openai-organization", Secret("org")),)


def test_a_named_provider_replaces_the_vendors_and_gets_no_credential_of_it() -> None:
    provider = only(OPENAI_API_KEY="secret", LLM_PROXY_PROVIDER_OPENAI="openai+http://elsewhere.example/v1")
    assert provider.host_header == b"elsewhere.example"
    assert provider.credential is None


def test_azure_by_name_gets_its_base() -> None:
    for url in (
        "https://m.openai.azure.com",
        "https://m.openai.azure.com/openai/",
        "https://m.openai.azure.com/openai/v1",
    ):
        assert only(LLM_PROXY_PROVIDER_WEST="azure+" + url).base == b"/openai/v1"


@pytest.mark.parametrize(
    "environ",
    [
        {"LLM_PROXY_PROVIDER_X": "http://10.0.0.5/v1"},
        {"LLM_PROXY_PROVIDER_X": "sk-secret"},
        {"LLM_PROXY_PROVIDER_X": "openai+sk-secret"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://user:sk-secret@x/v1"},
        {"LLM_PROXY_PROVIDER_V1": "openai+http://x/v1"},
        {"LLM_PROXY_PROVIDER_API": "openai+http://x/v1"},
        {"LLM_PROXY_PROVIDER_": "openai+http://x/v1"},
        {"LLM_PROXY_PROVIDER_X_API_KEY": "sk-secret"},
        {"LLM_PROXY_PROVIDER_OPENAI_AUTH": "sk-secret"},
        {"OPENAI_API_KEY": "sk-secret with blanks"},
        {"OPENAI_API_KEY": "sk-secret\nx: y"},
        {"OPENAI_API_KEY": "sk-secret\u00e9"},
        {"OPENAI_BASE_URL": "sk-secret"},
        {"OLLAMA_HOST": "sk secret"},
        {"LLM_PROXY_DEFAULT_PROVIDER": "nobody"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_AUTH": "sk-secret"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_HEADERS": "sk-secret"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_HEADERS": "{sk-secret"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_HEADERS": '{"a": 1}'},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_HEADERS": "a b: sk-secret"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_HEADERS": "a: sk-secret\r\nb: c"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_HEADERS": "Host: sk-secret"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_X_HEADERS": "Transfer-Encoding: sk-secret"},
        {"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", "LLM_PROXY_PROVIDER_x": "openai+http://y/v1"},
        {"HTTPS_PROXY": "socks5://sk-secret"},
    ],
)
def test_what_is_wrong_is_said_once_with_its_variable_and_never_its_value(environ: dict[str, str]) -> None:
    found = error(**environ)
    assert found.partition(":")[0] in environ
    assert "secret" not in found


def test_all_errors_come_out_at_once() -> None:
    loaded = load(
        {
            "OPENAI_BASE_URL": "x",
            "ANTHROPIC_BASE_URL": "y",
            "LLM_PROXY_PROVIDER_Z": "z",
            "LLM_PROXY_DEFAULT_PROVIDER": "n",
        }
    )
    assert len(loaded.errors) == 4


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"LLM_PROXY_PROVIDER_X": "openai+http://x:8000"}, "LLM_PROXY_PROVIDER_X"),
        ({"ANTHROPIC_BASE_URL": "https://api.anthropic.com/v1"}, "ANTHROPIC_BASE_URL"),
    ],
)
def test_likely_mistakes_in_paths_are_warned_of(environ: dict[str, str], variable: str) -> None:
    (warning,) = load(environ).warnings
    assert warning.startswith(variable)


def test_the_default_is_openai_or_the_only_one_or_nobody() -> None:
    def default(**environ: str) -> str | None:
        found = snapshot(**environ).default
        return found.name if found is not None else None

    assert default(ANTHROPIC_API_KEY="a", OPENAI_API_KEY="b") == "openai"
    assert default(ANTHROPIC_API_KEY="a") == "anthropic"
    assert default(ANTHROPIC_API_KEY="a", GROQ_API_KEY="b") is None
    assert default(ANTHROPIC_API_KEY="a", GROQ_API_KEY="b", LLM_PROXY_DEFAULT_PROVIDER="Groq") == "groq"
    assert default() is None


def test_names_of_models_have_owners_and_the_longest_beginning_wins() -> None:
    found = snapshot(OPENAI_API_KEY="a", OLLAMA_HOST="b", ANTHROPIC_API_KEY="c")
    assert found.owner_of("gpt-4o") == "openai"
    assert found.owner_of("gpt-oss:20b") == "ollama"
    assert found.owner_of("o1") == "openai"
    assert found.owner_of("claude-opus-4-1") == "anthropic"
    assert found.owner_of("gemini-2.0-flash") is None
    assert found.owner_of("") is None
    assert list(found.owners) == sorted(found.owners, key=lambda owner: -len(owner[0]))


@given(st.text(alphabet="gpt-os:o1claude", max_size=10))
def test_an_owner_is_that_of_the_first_beginning_that_fits(model: str) -> None:
    found = snapshot(OPENAI_API_KEY="a", OLLAMA_HOST="b", ANTHROPIC_API_KEY="c")
    assert found.owner_of(model) == next((owner for start, owner in found.owners if model.startswith(start)), None)


def test_in_passthrough_all_vendors_with_an_address_exist_without_credentials() -> None:
    loaded = load({}, passthrough=True)
    assert set(loaded.snapshot.providers) == set(VENDORS) - {"azure", "ollama"}
    assert all(provider.credential is None for provider in loaded.snapshot.providers.values())
    assert loaded.snapshot.default is loaded.snapshot.providers["openai"]


def test_a_proxy_stands_before_the_origins_it_is_meant_for() -> None:
    found = snapshot(OPENAI_API_KEY="a", OLLAMA_HOST="localhost", HTTPS_PROXY="p:3128", HTTP_PROXY="p:3128")
    assert found.providers["openai"].origin.proxy == ("p", 3128)
    assert found.providers["ollama"].origin.proxy is None


# --- several credentials ----------------------------------------------------------------------------------------------


def values(provider: Provider) -> list[str]:
    return [secret.reveal() for secret in provider.credentials]


@pytest.mark.parametrize("keys", ["one,two", " one , two ,", "one\ntwo\n", "one\r\n\r\ntwo"])
def test_a_provider_may_have_several_credentials(keys: str) -> None:
    alone = only(LLM_PROXY_PROVIDER_X="openai+http://x/v1", LLM_PROXY_PROVIDER_X_API_KEYS=keys)
    assert values(alone) == ["one", "two"]
    assert alone.credential == Secret("one") and alone.further == (Secret("two"),)
    assert alone.has_credential
    vendor = only(LLM_PROXY_PROVIDER_OPENAI_API_KEYS=keys)
    assert (vendor.name, vendor.auth, values(vendor)) == ("openai", "bearer", ["one", "two"])


def test_the_one_that_is_set_alone_comes_first() -> None:
    keys = {"LLM_PROXY_PROVIDER_ANTHROPIC_API_KEYS": "two,three"}
    assert values(only(ANTHROPIC_API_KEY="one", **keys)) == ["one", "two", "three"]
    assert values(only(LLM_PROXY_PROVIDER_ANTHROPIC_API_KEY="one", **keys)) == ["one", "two", "three"]
    assert values(only(ANTHROPIC_API_KEY="one")) == ["one"]
    assert only(OLLAMA_HOST="x").credentials == ()


def test_further_credentials_are_shown_and_sent_back_no_more_than_the_first() -> None:
    provider = only(LLM_PROXY_PROVIDER_OPENAI_API_KEYS="sk-first-0,sk-second-0")
    assert provider.mask is not None
    assert provider.mask.hide(b"sk-first-0 sk-second-0") == b"********** ***********"
    assert not provider.field_mask
    assert "sk-" not in repr(provider)


def test_a_credential_that_is_carried_in_another_way_is_not_put_beside_them() -> None:
    keys = {"LLM_PROXY_PROVIDER_ANTHROPIC_API_KEYS": "secret-2"}
    found = error(ANTHROPIC_AUTH_TOKEN="secret-1", **keys)
    assert found.startswith("LLM_PROXY_PROVIDER_ANTHROPIC_API_KEYS: ANTHROPIC_AUTH_TOKEN is set")
    assert "secret" not in found
    said = only(ANTHROPIC_AUTH_TOKEN="one", LLM_PROXY_PROVIDER_ANTHROPIC_AUTH="bearer", **keys)
    assert (said.auth, values(said)) == ("bearer", ["one", "secret-2"])


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ("secret-1,secret-2,secret-1", "keys 1 and 3 are the same"),
        ("secret-1,secret 2", "key 2 holds blanks"),
        ("secret-2,secret-0", "key 2 is the one that another variable sets already"),
        (",", "write keys, separated by commas"),
    ],
)
def test_what_is_wrong_with_several_is_said_by_number(keys: str, what: str) -> None:
    found = error(OPENAI_API_KEY="secret-0", LLM_PROXY_PROVIDER_OPENAI_API_KEYS=keys)
    assert found.startswith(f"LLM_PROXY_PROVIDER_OPENAI_API_KEYS: {what}")
    assert "secret" not in found


def test_several_that_are_never_sent_are_warned_of() -> None:
    keys = {"LLM_PROXY_PROVIDER_X_API_KEYS": "one,two", "LLM_PROXY_PROVIDER_X_AUTH": "none"}
    (warning,) = load({"LLM_PROXY_PROVIDER_X": "openai+http://x/v1", **keys}).warnings
    assert warning == "LLM_PROXY_PROVIDER_X_API_KEYS: is not used, since LLM_PROXY_PROVIDER_X_AUTH is none"


def test_several_credentials_of_nobody_are_refused() -> None:
    assert error(LLM_PROXY_PROVIDER_X_API_KEYS="secret").startswith("LLM_PROXY_PROVIDER_X_API_KEYS: there is no ")


# --- aliases ----------------------------------------------------------------------------------------------------------


def test_aliases_know_all_providers() -> None:
    found = snapshot(
        OPENAI_API_KEY="k",
        LLM_PROXY_PROVIDER_MINE="openai+http://x/v1",
        LLM_PROXY_MODELS="\nfast = openai/gpt-4o*2, mine/llama (window=8k)\ngpt-4o (retries=1) = openai/gpt-4o;",
    )
    assert list(found.aliases) == ["fast", "gpt-4o"]
    assert found.aliases["fast"].groups == ((Choice("openai", "gpt-4o", 2, 128_000), Choice("mine", "llama", 1, 8000)),)
    assert found.aliases["gpt-4o"].retries == 1
    assert snapshot(OPENAI_API_KEY="k").aliases == {}


def test_all_that_is_wrong_with_aliases_is_said_beside_the_rest() -> None:
    errors = load({"OPENAI_BASE_URL": "x", "GROQ_API_KEY": "k", "LLM_PROXY_MODELS": "a = opnai/b; b = groq/c*0"}).errors
    assert errors[1:] == [
        "LLM_PROXY_MODELS: alias 1, at character 5: there is no provider of this name (groq)",
        "LLM_PROXY_MODELS: alias 2, at character 18: write a weight as a whole number from 1 to 1000",
    ]


def test_every_vendor_is_of_a_known_family() -> None:
    assert {vendor.family for vendor in VENDORS.values()} <= set(FAMILIES)
    assert len(set(VARIABLES)) == len(VARIABLES)


def test_secrets_are_known_by_name_so_that_they_may_come_from_files() -> None:
    names = secret_names({"LLM_PROXY_PROVIDER_X": "", "LLM_PROXY_PROVIDER_Y_API_KEY_FILE": ""})
    wanted = {"OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "LLM_PROXY_PROVIDER_X_API_KEY", "LLM_PROXY_PROVIDER_Y_API_KEY"}
    assert wanted | {"LLM_PROXY_PROVIDER_X_HEADERS", "LLM_PROXY_PROVIDER_X_API_KEYS"} <= names
    assert "LLM_PROXY_PROVIDER_OPENAI_API_KEYS" in names
    assert "LLM_PROXY_PROVIDER_Z_API_KEYS" in secret_names({"LLM_PROXY_PROVIDER_Z_API_KEYS_FILE": ""})
    assert "LLM_PROXY_PROVIDER_Z_API_KEYS_API_KEY" not in secret_names({"LLM_PROXY_PROVIDER_Z_API_KEYS": ""})
    assert "LLM_PROXY_PROVIDER_X" not in names
    assert "OPENAI_BASE_URL" not in names


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *VARIABLES,
                *("LLM_PROXY_PROVIDER_X", "LLM_PROXY_PROVIDER_X_HEADERS", "LLM_PROXY_PROVIDER_X_API_KEYS"),
                *("LLM_PROXY_MODELS", "HTTPS_PROXY", "NO_PROXY"),
            ]
        ),
        st.one_of(st.text(max_size=30), st.text(max_size=20).map(lambda text: "openai+http://" + text)),
    )
)
def test_no_environment_raises(environ: dict[str, str]) -> None:
    loaded = load(environ)
    if not loaded.errors:
        assert all(owner in loaded.snapshot.providers for _, owner in loaded.snapshot.owners)
