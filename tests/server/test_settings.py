"""Settings out of an environment: every variable, every refusal, all errors at once, no value repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.snapshot import Reserves
from proxy.ledger.writer import LedgerOptions
from proxy.outcome import Limit, Source, Usage
from proxy.policy.keys import CANCEL, AuthMode, Disconnect
from proxy.policy.rules import parse_rules
from proxy.relay.options import DEFAULT_SECONDS, RelayOptions
from proxy.server.addresses import Address
from proxy.server.settings import (
    ConfigurationError,
    Settings,
    read_settings,
)
from proxy.server.table import NUMBERS, SETTINGS, TIMEOUTS
from proxy.server.values import parse_size

KEY = "sk-proxy-0123456789abcdef"
PRICES = """{"version": "acme-1",
 "prices": [{"provider": "vllm", "model": "llama-3*", "input": 0.20, "output": "0.60"}]}"""
FILES = {
    "prices": PRICES,
    "key": KEY + "\n",
    "keys": f"alice={KEY}\nbob={KEY}2\n",
    "empty": "\n",
    "two": "one\r\ntwo\n",
}


def read_file(path: str) -> str:
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[path]


def settings(has_keys: bool = False, **environ: str) -> Settings:
    """`has_keys`: the ledger holds some."""
    return read_settings({"OPENAI_API_KEY": "x"} | environ, read_file, lambda path: has_keys)


def errors(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        settings(**environ)
    assert "hidden" not in str(refused.value)
    return refused.value.errors


def error(**environ: str) -> str:
    (found,) = errors(**environ)
    return found


def test_the_defaults() -> None:
    found = settings()
    assert found.listen == (Address("127.0.0.1", 8080),)
    assert found.admin_listen == (Address("127.0.0.1", 8081),)
    assert found.health_listen == ()
    assert found.mode is AuthMode.OFF
    assert found.browser_guard
    assert found.relay == RelayOptions()
    assert found.log == "json"
    assert found.warnings == ()
    assert list(found.snapshot.providers) == ["openai"]


def test_nothing_at_all_is_a_proxy_without_providers_and_says_so() -> None:
    found = read_settings({}, read_file)
    assert found.snapshot.providers == {}
    assert len(found.warnings) == 1
    assert "OPENAI_API_KEY" in found.warnings[0]


@pytest.mark.parametrize("variable", TIMEOUTS)
def test_every_time_can_be_set(variable: str) -> None:
    found = settings(**{variable: " 2.5 "}).relay.seconds
    assert found == DEFAULT_SECONDS | {TIMEOUTS[variable]: 2.5}
    assert settings(**{variable: "0"}).relay.seconds[TIMEOUTS[variable]] == 0.0


@pytest.mark.parametrize("text", ["x", "-1", "1s", "1e3", "nan", "inf", "1,5", "1 2", ".", "0x1", "9" * 20, "\u0661"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    assert error(LLM_PROXY_TIMEOUT_CONNECT=text).startswith("LLM_PROXY_TIMEOUT_CONNECT: ")


@pytest.mark.parametrize("variable", NUMBERS)
def test_every_number_can_be_set(variable: str) -> None:
    number = NUMBERS[variable]
    # Sizes that contradict no other: a body fits into all bodies, a line into a head.
    text = {"LLM_PROXY_MAX_HEAD": "64k", "LLM_PROXY_MAX_BODIES": "64M"}.get(
        variable, "2k" if number.unit == "bytes" else "7"
    )
    found = settings(**{variable: text}).relay
    changed = getattr(getattr(found, number.part), number.field)
    assert changed == (parse_size(text) if number.unit == "bytes" else 7)
    assert changed != getattr(getattr(RelayOptions(), number.part), number.field)


@pytest.mark.parametrize("variable", NUMBERS)
@pytest.mark.parametrize("text", ["x", "-1", "1.5k", "1T", "\u0661"])
def test_what_is_no_number_is_an_error(variable: str, text: str) -> None:
    assert error(**{variable: text}).startswith(variable)


@pytest.mark.parametrize(
    "variable", [name for name, number in NUMBERS.items() if number.least and number.unit != "seconds"]
)
def test_a_limit_that_would_stop_everything_is_an_error(variable: str) -> None:
    assert error(**{variable: "0"}).startswith(variable)


def test_counts_have_no_letters() -> None:
    assert error(LLM_PROXY_MAX_FIELDS="1k").startswith("LLM_PROXY_MAX_FIELDS")


def test_retries() -> None:
    found = settings(LLM_PROXY_RETRIES="0", LLM_PROXY_RETRY_SHARE=".05").relay
    assert (found.retries, found.retry_share) == (0, 0.05)
    found = settings(LLM_PROXY_RETRIES="10", LLM_PROXY_RETRY_SHARE="1").relay
    assert (found.retries, found.retry_share) == (10, 1.0)


@pytest.mark.parametrize("text", ["x", "11", "-1", "1.5", "1k", "\u0661"])
def test_what_is_no_number_of_retries_is_an_error(text: str) -> None:
    assert error(LLM_PROXY_RETRIES=text).startswith("LLM_PROXY_RETRIES: must be a whole number from 0 to 10")


def test_the_share_of_requests_that_are_sent_twice() -> None:
    assert settings().relay.hedge_share == 0.05
    assert settings(LLM_PROXY_HEDGE_SHARE="0").relay.hedge_share == 0.0


@pytest.mark.parametrize("name", ["LLM_PROXY_RETRY_SHARE", "LLM_PROXY_HEDGE_SHARE"])
@pytest.mark.parametrize("text", ["x", "1.1", "2", "-0.1", "20%", ".", "1e-1", "nan", "\u0661"])
def test_what_is_no_share_is_an_error(name: str, text: str) -> None:
    assert error(**{name: text}).startswith(f"{name}: must be a fraction from 0 to 1")


def test_aliases() -> None:
    FILES["models"] = "LLM_PROXY_MODELS='fast (retries=1) = openai/gpt-4o; big = openai/gpt-4.1;'\n"
    found = settings(LLM_PROXY_ENV_FILE="models")
    assert {name: alias.retries for name, alias in found.snapshot.aliases.items()} == {"fast": 1, "big": None}
    assert found.snapshot.prices is not None and found.warnings == ()


def test_what_is_wrong_with_an_alias_is_shown() -> None:
    assert error(LLM_PROXY_MODELS="fast = opnai/gpt-4o") == (
        "LLM_PROXY_MODELS: alias 1, at character 8: there is no provider of this name (openai)"
    )


def test_limits_may_be_those_of_an_alias() -> None:
    found = settings(LLM_PROXY_MODELS="team:fast = openai/gpt-4o", LLM_PROXY_LIMITS="model team:fast: rpm=1")
    assert list(found.rules) == ["model team:fast"]


def test_addresses() -> None:
    found = settings(
        LLM_PROXY_LISTEN="127.0.0.1:1,unix:/run/x", LLM_PROXY_ADMIN_LISTEN="off", LLM_PROXY_HEALTH_LISTEN="0.0.0.0:3"
    )
    assert found.listen == (Address("127.0.0.1", 1), Address(path="/run/x"))
    assert found.admin_listen == ()
    assert found.health_listen == (Address("0.0.0.0", 3),)


@pytest.mark.parametrize("variable", ["LLM_PROXY_LISTEN", "LLM_PROXY_ADMIN_LISTEN", "LLM_PROXY_HEALTH_LISTEN"])
def test_a_wrong_address_is_an_error(variable: str) -> None:
    assert error(**{variable: "hidden"}).startswith(variable)


def test_listening_is_not_switched_off() -> None:
    assert error(LLM_PROXY_LISTEN="off").startswith("LLM_PROXY_LISTEN")


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_turn_the_mode_on_and_the_guard_off() -> None:
    found = settings(LLM_PROXY_KEYS=f"alice={KEY}, bob = {KEY}=2 ,")
    assert found.mode is AuthMode.KEYS
    assert not found.browser_guard
    assert {name: secret.reveal() for name, secret in found.keys.items()} == {"alice": KEY, "bob": KEY + "=2"}
    ring = found.ring()
    door = ring.find((KEY + "=2").encode())
    assert door is not None
    assert door.key.name == "bob"
    assert KEY not in repr(found)


def test_keys_in_the_ledger_turn_the_mode_on_too() -> None:
    found = settings(True, LLM_PROXY_LISTEN="0.0.0.0:8080")
    assert (found.mode, found.is_mode_given, found.browser_guard, found.keys) == (AuthMode.KEYS, False, False, {})
    assert settings(True, LLM_PROXY_DB="off").mode is AuthMode.OFF
    assert settings(True, LLM_PROXY_AUTH="off").mode is AuthMode.OFF


def test_keys_may_come_later() -> None:
    found = settings(LLM_PROXY_AUTH="keys")
    assert (found.mode, found.is_mode_given) == (AuthMode.KEYS, True)
    assert [warning for warning in found.warnings if "llm-proxy keys create" in warning]
    assert not settings(True, LLM_PROXY_AUTH="keys").warnings


# --- limits -----------------------------------------------------------------------------------------------------------


def test_limits() -> None:
    found = settings(
        LLM_PROXY_KEYS=f"ci={KEY}",
        LLM_PROXY_LIMITS="all: rpm=600; key ci: rpm=60 20usd/month\nmodel l3:8b: concurrent=2; provider openai: tpm=1k",
        LLM_PROXY_BUDGET_ZONE="Europe/Berlin",
        LLM_PROXY_BUDGET_LOST="operator",
        LLM_PROXY_RESERVE_OUTPUT="500",
    )
    assert found.rules == {
        "all": parse_rules("rpm=600"),
        "key ci": parse_rules("rpm=60 20usd/month"),
        "model l3:8b": parse_rules("concurrent=2"),
        "provider openai": parse_rules("tpm=1k"),
    }
    assert (found.calendar.zone, found.carries_lost) == ("Europe/Berlin", True)
    assert found.snapshot.reserves == Reserves(200_000, 500)
    nothing = settings()
    assert (nothing.rules, nothing.calendar.zone, nothing.carries_lost) == ({}, "UTC", False)
    assert nothing.snapshot.reserves == Reserves()


@pytest.mark.parametrize(
    "environ",
    [
        {"LLM_PROXY_LIMITS": "rpm=6"},
        {"LLM_PROXY_LIMITS": "all: rpm"},
        {"LLM_PROXY_LIMITS": "all: rpm=6; all: rpm=7"},
        {"LLM_PROXY_LIMITS": "key nobody: rpm=6"},
        {"LLM_PROXY_LIMITS": "provider nobody: rpm=6"},
        {"LLM_PROXY_LIMITS": "group team: rpm=6"},
        {"LLM_PROXY_BUDGET_ZONE": "Nowhere"},
        {"LLM_PROXY_BUDGET_LOST": "never"},
        {"LLM_PROXY_RESERVE_INPUT": "0"},
        {"LLM_PROXY_RESERVE_OUTPUT": "many"},
    ],
)
def test_limits_that_cannot_be_meant_are_refused(environ: dict[str, str]) -> None:
    assert error(**environ).partition(":")[0] in environ


def test_without_meters_limits_count_what_is_reserved() -> None:
    found = settings(LLM_PROXY_METER="off", LLM_PROXY_LIMITS="all: tpm=1k")
    assert any(warning.startswith("LLM_PROXY_METER") for warning in found.warnings)
    assert not settings(LLM_PROXY_METER="off", LLM_PROXY_LIMITS="all: rpm=1k").warnings


@pytest.mark.parametrize("mode", ["off", "passthrough", "PassThrough"])
def test_modes_without_keys(mode: str) -> None:
    found = settings(LLM_PROXY_AUTH=mode)
    assert found.mode is AuthMode(mode.lower())
    assert found.browser_guard


@pytest.mark.parametrize(
    "environ",
    [
        {"LLM_PROXY_AUTH": "keys", "LLM_PROXY_DB": "off"},
        {"LLM_PROXY_AUTH": "hidden"},
        {"LLM_PROXY_AUTH": "off", "LLM_PROXY_KEYS": "a=" + KEY},
        {"LLM_PROXY_AUTH": "passthrough", "LLM_PROXY_KEYS": "a=" + KEY},
        {"LLM_PROXY_KEYS": "hidden-hidden-hidden"},
        {"LLM_PROXY_KEYS": "=hidden-hidden-hidden"},
        {"LLM_PROXY_KEYS": "a b=hidden-hidden-hidden"},
        {"LLM_PROXY_KEYS": "alice=hidden"},
        {"LLM_PROXY_KEYS": "alice=hidden hidden hidden"},
        {"LLM_PROXY_KEYS": "alice=hidden-hidden-\u00e9\u00e9\u00e9"},
        {"LLM_PROXY_KEYS": f"alice={KEY},alice={KEY}2"},
        {"LLM_PROXY_KEYS": f"alice={KEY},bob={KEY}"},
    ],
)
def test_keys_that_cannot_be_meant_are_refused(environ: dict[str, str]) -> None:
    assert error(**environ).partition(":")[0] in environ


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080", "127.0.0.1:1,0.0.0.0:2"])
@pytest.mark.parametrize("mode", [{}, {"LLM_PROXY_AUTH": "passthrough"}])
def test_other_machines_need_a_key(listen: str, mode: dict[str, str]) -> None:
    found = error(LLM_PROXY_LISTEN=listen, **mode)
    assert found.startswith("LLM_PROXY_LISTEN")
    assert "LLM_PROXY_KEYS" in found
    assert settings(LLM_PROXY_LISTEN=listen, LLM_PROXY_KEYS="a=" + KEY).listen


def test_the_admin_listener_stays_here_without_a_token_and_probes_need_not() -> None:
    found = error(LLM_PROXY_ADMIN_LISTEN="0.0.0.0:1")
    assert found.startswith("LLM_PROXY_ADMIN_LISTEN") and "LLM_PROXY_ADMIN_TOKEN" in found
    assert settings(LLM_PROXY_HEALTH_LISTEN="0.0.0.0:1").health_listen


def test_with_a_token_the_admin_listener_may_be_elsewhere_with_a_warning() -> None:
    found = settings(LLM_PROXY_ADMIN_LISTEN="0.0.0.0:1", LLM_PROXY_ADMIN_TOKEN=KEY)
    assert found.admin_token is not None and found.admin_token.reveal() == KEY
    (warning,) = found.warnings
    assert warning.startswith("LLM_PROXY_ADMIN_LISTEN: has no TLS")
    assert settings(LLM_PROXY_ADMIN_TOKEN=KEY, LLM_PROXY_ADMIN_LISTEN="unix:/run/x").warnings == ()
    assert settings().admin_token is None


def test_the_admin_token_is_hard_to_guess_and_may_come_from_a_file() -> None:
    assert error(LLM_PROXY_ADMIN_TOKEN="hidden").startswith("LLM_PROXY_ADMIN_TOKEN: needs 16 or more")
    found = settings(LLM_PROXY_ADMIN_TOKEN_FILE="key").admin_token
    assert found is not None and found.reveal() == KEY


def test_hosts() -> None:
    assert settings(LLM_PROXY_HOSTS="Proxy.Internal, llm ,").hosts == {"proxy.internal", "llm"}
    assert error(LLM_PROXY_HOSTS="proxy:8080").startswith("LLM_PROXY_HOSTS")


# --- loops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("127.0.0.1:8080", "http://localhost:8080/v1"),
        ("127.0.0.1:8080", "http://0.0.0.0:8080/v1"),
        ("127.0.0.1:8080", "http://[::1]:8080/v1"),
        ("[::1]:80", "http://localhost/v1"),
        ("127.0.0.1:9", "http://localhost:8081/v1"),
        ("unix:/run/x,127.0.0.1:443", "https://localhost/v1"),
    ],
)
def test_a_base_url_that_is_the_proxy_itself_is_refused(listen: str, url: str) -> None:
    found = error(LLM_PROXY_LISTEN=listen, OPENAI_BASE_URL=url)
    assert found.startswith("provider openai")


def test_another_port_of_this_machine_is_no_loop() -> None:
    assert settings(OPENAI_BASE_URL="http://localhost:11434/v1").snapshot.providers["openai"].origin.port == 11434


def test_two_listeners_cannot_share_an_address() -> None:
    assert "two listeners" in error(LLM_PROXY_LISTEN="127.0.0.1:1", LLM_PROXY_ADMIN_LISTEN="127.0.0.1:1")
    assert settings(LLM_PROXY_LISTEN="127.0.0.1:0", LLM_PROXY_ADMIN_LISTEN="127.0.0.1:0")


# --- all at once, warnings --------------------------------------------------------------------------------------------


def test_all_errors_come_out_at_once() -> None:
    found = errors(
        LLM_PROXY_LISTEN="x",
        LLM_PROXY_LOG="x",
        LLM_PROXY_KEYS="x",
        LLM_PROXY_MAX_BODY="x",
        LLM_PROXY_TIMEOUT_HEAD="x",
        LLM_PROXY_TLS_CERT="nowhere",
        LLM_PROXY_IDENTITY="x",
        OPENAI_BASE_URL="x",
        LLM_PROXY_DEFAULT_PROVIDER="x",
    )
    named = {sentence.partition(":")[0].split(" ")[0] for sentence in found}
    wanted = "LISTEN LOG KEYS MAX_BODY TIMEOUT_HEAD TLS_CERT IDENTITY DEFAULT_PROVIDER"
    assert named == {"OPENAI_BASE_URL"} | {f"LLM_PROXY_{name}" for name in wanted.split()}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("LLM_PROXY_LISEN", "LLM_PROXY_LISTEN"),
        ("LLM_PROXY_TIMEOUT_FIRST_BYT", "LLM_PROXY_TIMEOUT_FIRST_BYTE"),
        ("LLM_PROXY_TIME_OUT_TOTAL", "LLM_PROXY_TIMEOUT_TOTAL"),
        ("LLM_PROXY_KEY", "LLM_PROXY_KEYS"),
        ("LLMPROXY_LISTEN", "LLM_PROXY_LISTEN"),
        ("LLM_PROXY_PROVDER_X", "LLM_PROXY_PROVIDER_<NAME>"),
        ("LLM_PROXY_KEYS_FIL", "LLM_PROXY_KEYS_FILE"),
        ("OPENAI_APIKEY", "OPENAI_API_KEY"),
        ("ANTROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        ("OPENAI_BASEURL", "OPENAI_BASE_URL"),
    ],
)
def test_a_typing_error_is_answered_with_the_nearest_name(name: str, nearest: str) -> None:
    (warning,) = settings(**{name: "hidden"}).warnings
    assert warning.startswith(f"{name}: ")
    assert f"did you mean {nearest}?" in warning
    assert "hidden" not in warning


def test_names_near_to_nothing_and_names_of_others() -> None:
    (warning,) = settings(LLM_PROXY_XYZZY="1").warnings
    assert "did you mean" not in warning
    assert settings(PATH="/bin", HOME="/", OPENAI_ORG_ID="x", AWS_API_TOKEN="x", LLM_PROXIES="1").warnings == ()


def test_every_variable_of_the_table_is_known() -> None:
    for setting in SETTINGS:
        try:
            warnings = list(settings(**{setting.name.replace("<NAME>", "X"): "\u00e9 / \u00e9"}).warnings)
        except ConfigurationError as refused:
            warnings = refused.warnings
        assert not any("not a variable" in warning for warning in warnings), setting.name


# --- files ------------------------------------------------------------------------------------------------------------


def test_secrets_may_come_from_files() -> None:
    found = read_settings({"OPENAI_API_KEY_FILE": "key", "LLM_PROXY_KEYS_FILE": "keys"}, read_file)
    credential = found.snapshot.providers["openai"].credential
    assert credential is not None
    assert credential.reveal() == KEY
    assert list(found.keys) == ["alice", "bob"]
    assert found.mode is AuthMode.KEYS
    assert found.warnings == ()


def test_a_further_providers_secret_too() -> None:
    found = settings(LLM_PROXY_PROVIDER_X="openai+http://x/v1", LLM_PROXY_PROVIDER_X_API_KEY_FILE="key")
    credential = found.snapshot.providers["x"].credential
    assert credential is not None
    assert credential.reveal() == KEY


def test_several_secrets_of_one_provider_too() -> None:
    found = settings(LLM_PROXY_PROVIDER_OPENAI_API_KEYS_FILE="two")
    assert [secret.reveal() for secret in found.snapshot.providers["openai"].credentials] == ["x", "one", "two"]
    assert found.warnings == ()


@pytest.mark.parametrize("path", ["empty", "nowhere"])
def test_a_secrets_file_without_a_secret_is_an_error(path: str) -> None:
    assert error(LLM_PROXY_KEYS_FILE=path).startswith("LLM_PROXY_KEYS_FILE")


def test_a_secret_given_twice_is_an_error() -> None:
    assert error(OPENAI_API_KEY_FILE="key").startswith("OPENAI_API_KEY")


def test_the_environment_wins_over_the_file_of_variables() -> None:
    FILES["env"] = "LLM_PROXY_LOG=text\nexport LLM_PROXY_LISTEN='127.0.0.1:9'\n# x\n\nLLM_PROXY_ENV_FILE=other\n"
    found = settings(LLM_PROXY_ENV_FILE="env", LLM_PROXY_LOG="off")
    assert found.log == "off"
    assert found.listen == (Address("127.0.0.1", 9),)
    assert found.env_file == "env"
    assert len(found.warnings) == 1


def test_a_wrong_file_of_variables_is_an_error() -> None:
    FILES["bad"] = "LLM_PROXY_LOG=text\nhidden\n1x=2\n"
    assert [sentence.split(" is")[0] for sentence in errors(LLM_PROXY_ENV_FILE="bad")] == [
        "LLM_PROXY_ENV_FILE: line 2",
        "LLM_PROXY_ENV_FILE: line 3",
    ]
    assert error(LLM_PROXY_ENV_FILE="nowhere").startswith("LLM_PROXY_ENV_FILE")


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_certificate_and_key_come_together() -> None:
    assert "both or none" in error(LLM_PROXY_TLS_CERT="key")
    assert "both or none" in error(LLM_PROXY_TLS_KEY="key")
    assert error(LLM_PROXY_UPSTREAM_KEY="key").startswith("LLM_PROXY_UPSTREAM_KEY")


def test_limits_that_contradict_each_other_are_refused() -> None:
    assert "LLM_PROXY_MAX_HEAD" in error(LLM_PROXY_MAX_REQUEST_LINE="64k")
    assert "LLM_PROXY_MAX_BODIES" in error(LLM_PROXY_MAX_BODY="1G")


def test_a_head_without_a_limit_is_warned_of() -> None:
    (warning,) = settings(LLM_PROXY_TIMEOUT_HEAD="0").warnings
    assert warning.startswith(f"LLM_PROXY_TIMEOUT_{Limit.HEAD.name}")


@given(
    st.dictionaries(
        st.sampled_from(
            [setting.name.replace("<NAME>", "X") for setting in SETTINGS] + ["OPENAI_BASE_URL", "OLLAMA_HOST"]
        ),
        st.one_of(st.text(max_size=20), st.sampled_from(["off", "0", "1", "1k", "127.0.0.1:8080", "a=" + KEY, "key"])),
        max_size=6,
    )
)
def test_no_environment_raises_anything_else(environ: dict[str, str]) -> None:
    try:
        read_settings(environ, read_file)
    except ConfigurationError:
        pass


# --- metering and the ledger ------------------------------------------------------------------------------------------


def test_the_ledger_is_on_unless_it_is_off() -> None:
    assert settings().ledger == LedgerOptions("llm-proxy.db")
    assert settings(LLM_PROXY_DB="off").ledger is None
    found = settings(LLM_PROXY_DB="/var/lib/x.db", LLM_PROXY_DB_DAYS="30.5", LLM_PROXY_DB_SIZE="500M").ledger
    assert found == LedgerOptions("/var/lib/x.db", days=30.5, max_bytes=500 * 2**20)
    assert error(LLM_PROXY_DB_DAYS="a month").startswith("LLM_PROXY_DB_DAYS: must be a number of days")
    assert error(LLM_PROXY_DB_SIZE="10k").startswith("LLM_PROXY_DB_SIZE: must be 1M or more")
    assert error(LLM_PROXY_DB_SIZE="big").startswith("LLM_PROXY_DB_SIZE")


@pytest.mark.parametrize("name", ["METER", "COUNT", "IDENTITY", "RESPONSE_HEADERS", "INCLUDE_USAGE"])
def test_switches_are_on_or_off(name: str) -> None:
    assert error(**{f"LLM_PROXY_{name}": "maybe"}).startswith(f"LLM_PROXY_{name}: must be one of on, off")


def test_switches() -> None:
    found = settings()
    assert (found.counts, found.relay.meters, found.relay.shows_timing) == (True, True, False)
    found = settings(LLM_PROXY_COUNT="off", LLM_PROXY_METER="OFF", LLM_PROXY_RESPONSE_HEADERS="on")
    assert (found.counts, found.relay.meters, found.relay.shows_timing) == (False, False, True)


def test_who_is_asked_for_usage() -> None:
    def asked(**environ: str) -> dict[str, bool]:
        providers = settings(**environ).snapshot.providers
        return {name: provider.takes_include_usage for name, provider in providers.items() if name != "openai"}

    vllm = {"LLM_PROXY_PROVIDER_VLLM": "openai+http://10.0.0.5:8000/v1"}
    everybody = {
        "MISTRAL_API_KEY": "x",
        "ANTHROPIC_API_KEY": "x",
        "GROQ_API_KEY": "x",
        "LLM_PROXY_PROVIDER_M2": "openai+https://api.mistral.ai/v1",
    }
    assert asked(**vllm, **everybody) == {
        "vllm": True,
        "mistral": False,
        "anthropic": False,
        "groq": True,
        "m2": False,
    }
    assert not settings(LLM_PROXY_INCLUDE_USAGE="off").snapshot.providers["openai"].takes_include_usage
    assert asked(**vllm, LLM_PROXY_PROVIDER_VLLM_INCLUDE_USAGE="off") == {"vllm": False}
    assert asked(**vllm, LLM_PROXY_INCLUDE_USAGE="off", LLM_PROXY_PROVIDER_VLLM_INCLUDE_USAGE="on") == {"vllm": True}
    assert asked(MISTRAL_API_KEY="x", LLM_PROXY_PROVIDER_MISTRAL_INCLUDE_USAGE="on") == {"mistral": True}
    assert "on, off" in error(**vllm, LLM_PROXY_PROVIDER_VLLM_INCLUDE_USAGE="yes")


def test_what_becomes_of_answers_whose_clients_leave() -> None:
    keys = {"LLM_PROXY_KEYS": f"a={KEY},b={KEY}2"}
    assert settings().relay.disconnect == CANCEL
    found = settings(LLM_PROXY_DISCONNECT="drain:2.5,a=cancel,b=drain", **keys).relay
    assert found.disconnect == Disconnect(True, 2.5)
    assert found.disconnect_by_key == {"a": CANCEL, "b": Disconnect(True)}
    assert "not every name in it" in error(LLM_PROXY_DISCONNECT="c=drain", **keys)
    assert error(LLM_PROXY_DISCONNECT="wait").startswith("LLM_PROXY_DISCONNECT: write cancel")


def test_prices_of_the_users_own() -> None:
    assert settings().snapshot.prices is not None
    found = settings(LLM_PROXY_PRICES="prices").snapshot.prices
    assert found is not None
    assert found.version.endswith("acme-1")
    usage = Usage(1_000_000, 1_000_000, input_source=Source.REPORTED, output_source=Source.REPORTED)
    assert found.cost("vllm", "10.0.0.5", "llama-3-8b", usage, 1.8e9) == 800_000
    assert errors(LLM_PROXY_PRICES="bad")[0].startswith("LLM_PROXY_PRICES: ")
    assert error(LLM_PROXY_PRICES="nowhere").startswith("LLM_PROXY_PRICES: the file cannot be read")
