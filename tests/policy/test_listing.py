"""What a key is told that it may use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.aliases import Alias, Choice
from proxy.catalog.snapshot import Origin, Provider, Snapshot
from proxy.policy.admission import Admission, Grant
from proxy.policy.counters import MemoryStore
from proxy.policy.keys import AuthMode, Door, Key, KeyRing
from proxy.policy.limits import FOREVER, Limiter
from proxy.policy.listing import Listed, asked_model, models_for
from proxy.policy.plan import Target

PROVIDERS = {
    name: Provider(name, family, Origin("https", name, 443))
    for name, family in (("openai", "openai"), ("anthropic", "anthropic"), ("vllm", "openai"))
}
OWNERS = (("claude-", "anthropic"), ("gpt-", "openai"))


def alias(name: str, *targets: str) -> Alias:
    """Each target is a group of its own."""
    pairs = [target.split("/", 1) for target in targets]
    return Alias(name, tuple((Choice(provider, model),) for provider, model in pairs))


FAST = alias("fast", "openai/gpt-4o-mini", "vllm/llama-3")
SMART = alias("Smart", "anthropic/claude-opus-4")
TWINS = Alias("twins", ((Choice("openai", "gpt-4o"), Choice("openai", "gpt-5")),))


def snapshot(*aliases: Alias, default: str | None = "openai") -> Snapshot:
    found = {each.name: each for each in aliases}
    return Snapshot(PROVIDERS, default=PROVIDERS.get(default or ""), owners=OWNERS, aliases=found)


def key(*models: str, providers: tuple[str, ...] | None = None) -> Key:
    return Key("ann", models=models, providers=None if providers is None else frozenset(providers))


def names(of: Snapshot, by: Key | None) -> list[str]:
    listed = models_for(of, by)
    assert listed is not None
    return [each.name for each in listed]


def nothing(name: bytes) -> bytes | None:
    """The fields of a head without any."""
    return None


# --- which requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/v1/models", ""),
        (b"/v1/models/", ""),
        (b"/v1/models/fast", "fast"),
        (b"/v1/models/openai/gpt-4o", "openai/gpt-4o"),
        (b"/v1/models/openai%2Fgpt-4o", "openai/gpt-4o"),
        (b"/v1/models/llama3.2:1b", "llama3.2:1b"),
        (b"/v1/models/gr%C3%B6%C3%9fe", "größe"),
        (b"/v1/models/a+b", "a+b"),
        (b"/v1/models/%FF", "\ufffd"),
        (b"/v1/models/100%", "100%"),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_model_that_is_asked_for(method: bytes, path: bytes, model: str) -> None:
    assert asked_model(method, path, nothing) == model


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"POST", b"/v1/models"),
        (b"POST", b"/v1/models/gemini-2.5-flash:generateContent"),
        (b"DELETE", b"/v1/models/ft:gpt-4o:mine"),
        (b"OPTIONS", b"/v1/models"),
        (b"GET", b"/v1/modelsx"),
        (b"GET", b"/v1/model"),
        (b"GET", b"/v1/Models"),
        (b"GET", b"/v1beta/models"),
        (b"GET", b"/openai/v1/models"),
        (b"GET", b"/models"),
        (b"GET", b"/"),
    ],
)
def test_other_requests_are_none_of_these(method: bytes, path: bytes) -> None:
    assert asked_model(method, path, nothing) is None


def test_google_s_client_expects_another_format() -> None:
    assert asked_model(b"GET", b"/v1/models", {b"x-goog-api-key": b"k"}.get) is None
    both = {b"x-goog-api-key": b"k", b"anthropic-version": b"2023-06-01"}
    assert asked_model(b"GET", b"/v1/models", both.get) == ""


@given(path=st.binary(max_size=40).map(lambda rest: b"/v1/models" + rest))
def test_any_bytes_will_do(path: bytes) -> None:
    model = asked_model(b"GET", path, nothing)
    assert (model is None) is (path[10:11] not in (b"", b"/"))
    (model or "").encode()  # holds no half of a character, which no answer could hold either


# --- whose answer it is -----------------------------------------------------------------------------------------------


def test_without_aliases_and_restrictions_the_provider_says_it() -> None:
    assert models_for(snapshot(), None) is None
    assert models_for(snapshot(), Key("ann")) is None
    assert models_for(snapshot(), Key("ann", providers=frozenset({"vllm"}))) is None


def test_without_keys_everybody_sees_all_aliases_as_configured() -> None:
    expected = [Listed("twins", "openai"), Listed("fast", "llm-proxy"), Listed("Smart", "anthropic")]
    assert models_for(snapshot(TWINS, FAST, SMART), None) == expected
    assert models_for(snapshot(TWINS, FAST, SMART), Key("ann")) == expected


def test_a_restricted_key_is_answered_where_nothing_is_listed() -> None:
    assert models_for(snapshot(), key()) == []
    assert models_for(snapshot(), key("gpt-*")) == []
    assert models_for(snapshot(FAST), key()) == []


# --- aliases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("fast", ["fast"]),
        ("SMART", ["Smart"]),
        ("*", ["fast", "Smart"]),
        ("f*", ["fast"]),
        ("llama-*", ["fast"]),
        ("vllm/*", ["fast"]),
        ("openai/gpt-4o-mini*", ["fast"]),
        ("anthropic/*", ["Smart"]),
        ("claude-opus-4*", ["Smart"]),
        ("claude-opus", ["claude-opus"]),
        ("openai/fast*", []),
        ("openai/llama*", []),
    ],
)
def test_an_alias_is_listed_by_its_name_or_a_target_s(pattern: str, expected: list[str]) -> None:
    assert names(snapshot(FAST, SMART), key(pattern)) == expected


def test_a_key_for_some_providers_sees_an_alias_that_has_a_target_there() -> None:
    everything = snapshot(FAST, SMART)
    assert models_for(everything, Key("ann", providers=frozenset({"vllm"}))) == [Listed("fast", "vllm")]
    assert models_for(everything, Key("ann", providers=frozenset({"other"}))) == []
    assert models_for(everything, key("fast", providers=("openai",))) == [Listed("fast", "openai")]


def test_the_same_target_must_suit_both_restrictions() -> None:
    assert names(snapshot(FAST), key("llama-*", providers=("vllm",))) == ["fast"]
    assert names(snapshot(FAST), key("llama-*", providers=("openai",))) == []


# --- names that a key was given out for -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("gpt-4o", "openai"),
        ("claude-opus-4", "anthropic"),
        ("vllm/llama-3", "vllm"),
        ("vllm/gpt-4o", "vllm"),
        ("vllm/meta/llama-3", "vllm"),
        ("meta-llama/Llama-3", "openai"),
        ("whatever", "openai"),
        ("openai/openai/x", "openai"),
    ],
)
def test_a_name_of_the_key_s_own(name: str, owner: str) -> None:
    assert models_for(snapshot(), key(name)) == [Listed(name, owner)]


def test_a_name_that_leads_nowhere_is_not_listed() -> None:
    assert names(snapshot(default=None), key("whatever", "gpt-4o")) == ["gpt-4o"]
    assert names(snapshot(), key("gpt-4o", "claude-x", providers=("anthropic",))) == ["claude-x"]
    assert names(snapshot(), key("vllm/")) == []
    assert names(snapshot(), key("OpenAI/gpt-4o")) == []  # is no provider, and the pattern is for the one that is


def test_aliases_come_first_and_nothing_twice() -> None:
    asked = key("gpt-4o-mini", "smart", "GPT-4o-mini", "claude-x", "fast", "claude-*")
    assert names(snapshot(FAST, SMART), asked) == ["fast", "Smart", "gpt-4o-mini", "claude-x"]


def test_the_name_of_an_alias_never_stands_for_a_model_beside_it() -> None:
    """It leads to the alias, of which this key may use no target."""
    assert names(snapshot(FAST), key("fast", providers=("anthropic",))) == []
    assert names(snapshot(alias("gpt-4o", "vllm/llama-3")), key("gpt-4o", providers=("openai",))) == []


# --- the same judgement as where it is asked for ----------------------------------------------------------------------

PATTERNS = "fast Smart gpt-4o gpt-4o-mini llama-3 vllm/llama-3 openai/gpt-4o vllm/* gpt-* */llama-3".split()


@given(
    models=st.none() | st.lists(st.sampled_from(PATTERNS), max_size=3),
    providers=st.none() | st.frozensets(st.sampled_from(sorted(PROVIDERS)), max_size=2),
)
def test_what_is_listed_is_what_admission_permits(models: list[str] | None, providers: frozenset[str] | None) -> None:
    all_of_it = snapshot(FAST, SMART, TWINS)
    asking = Key("ann", models=None if models is None else tuple(models), providers=providers)
    admission = Admission(
        KeyRing({}, AuthMode.KEYS),
        Limiter(MemoryStore(), lambda window, now: FOREVER),
        browser_guard=False,
        hosts=frozenset(),
        streams_per_key=0,
    )
    grant = Grant("ann", [], False, Door(asking, FOREVER, 1))

    def may(name: str, provider: str, model: str | None) -> bool:
        target = Target(PROVIDERS[provider], b"", model)
        return admission.permitted(grant, "POST", True, name, target, PROVIDERS) is None

    listed = names(all_of_it, asking)
    for each in all_of_it.aliases.values():
        choices = [choice for group in each.groups for choice in group]
        assert (each.name in listed) is any(may(each.name, choice.provider, choice.model) for choice in choices)
    for name, provider, model in (("gpt-4o", "openai", None), ("vllm/llama-3", "vllm", "llama-3")):
        assert (name in listed) is (name in (models or ()) and may(name, provider, model))
