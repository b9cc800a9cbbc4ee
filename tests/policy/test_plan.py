"""Which targets may answer: aliases by groups, names that say their provider, names that somebody owns, the default."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.alias_text import parse_aliases
from proxy.catalog.aliases import Alias, Choice
from proxy.catalog.families import FAMILIES
from proxy.catalog.snapshot import Origin, Provider, Snapshot
from proxy.dialects import DIALECTS
from proxy.dialects.call import Call
from proxy.outcome import Failure, Kind, Phase, Side, status_of
from proxy.policy.plan import Plan, Target, join, of_family, plan
from proxy.policy.router import Route

BASES = {"openai": b"/v1", "azure": b"/openai/v1", "anthropic": b"", "gemini": b"", "ollama": b"", "plain": b"/base"}
PATHS = {
    "openai-chat": b"/v1/chat/completions",
    "openai-completions": b"/v1/completions",
    "openai-embeddings": b"/v1/embeddings",
    "openai-responses": b"/v1/responses",
    "anthropic-messages": b"/v1/messages",
    "anthropic-count-tokens": b"/v1/messages/count_tokens",
    "gemini": b"/v1beta/models/m:generateContent",
    "ollama": b"/api/chat",
}
OWNERS = (("claude-", "anthropic"), ("gpt-", "openai"))
COMMON = "openai vllm=openai anthropic gemini ollama azure other=plain"


def provider(text: str) -> Provider:
    """`family`, or `name=family`."""
    name, _, family = text.partition("=")
    family = family or name
    return Provider(name, family, Origin("https", f"{name}.test", 443), BASES[family])


def snapshot(aliases: str = "", providers: str = COMMON, default: str | None = "openai") -> Snapshot:
    named = {each.name: each for each in map(provider, providers.split())}
    found, problems = parse_aliases(aliases, named)
    assert not problems, problems
    owners = tuple((prefix, owner) for prefix, owner in OWNERS if owner in named)
    return Snapshot(named, named[default] if default else None, owners, aliases=found)


def planned(
    model: str | None,
    dialect: str = "openai-chat",
    aliases: str = "",
    *,
    query: bytes = b"",
    path: bytes = b"",
    catalog: Snapshot | None = None,
) -> Plan | Failure:
    route = Route(DIALECTS[dialect], True, None, path or PATHS[dialect])
    return plan(route, Call(model), query, catalog or snapshot(aliases))


def groups(found: Plan | Failure) -> list[list[str]]:
    """`provider/model` of each target; without a slash where the name in the body stays."""
    assert isinstance(found, Plan), found
    return [[_spelt(target) for target in group] for group in found.groups]


def _spelt(target: Target) -> str:
    return f"{target.provider.name}/{target.model}" if target.model else target.provider.name


def only(found: Plan | Failure) -> Target:
    assert isinstance(found, Plan), found
    ((target,),) = found.groups
    return target


def refused(found: Plan | Failure) -> Failure:
    assert isinstance(found, Failure), found
    assert (found.side, found.phase) == (Side.CLIENT, Phase.HEAD)
    return found


# -- aliases ----------------------------------------------------------------------------------------------------------


def test_an_alias_has_its_targets_in_its_groups_and_its_order() -> None:
    aliases = "m = openai/one*3, vllm/two (window=8k) | azure/three, ollama/four"
    found = planned("m", aliases=aliases)
    assert groups(found) == [["openai/one", "vllm/two"], ["azure/three", "ollama/four"]]
    assert isinstance(found, Plan)
    assert found.alias is not None
    assert found.alias.name == "m"
    assert [(each.weight, each.window) for each in found.targets] == [(3, 0), (1, 8000), (1, 0), (1, 0)]
    assert [each.target for each in found.targets] == [
        b"/v1/chat/completions",
        b"/v1/chat/completions",
        b"/openai/v1/chat/completions",
        b"/v1/chat/completions",
    ]


def test_the_targets_of_a_plan_stand_one_after_the_other() -> None:
    found = planned("m", aliases="m = openai/one | vllm/two, azure/three")
    assert isinstance(found, Plan)
    assert found.targets == (found.groups[0][0], *found.groups[1])


@pytest.mark.parametrize(
    ("dialect", "left"),
    [
        ("openai-chat", [["openai/one"], ["ollama/four"]]),
        ("openai-embeddings", [["openai/one"], ["ollama/four"]]),
        ("anthropic-messages", [["anthropic/two"], ["ollama/four"]]),
        ("anthropic-count-tokens", [["anthropic/two"], ["ollama/four"]]),
        ("gemini", [["gemini/three"]]),
        ("ollama", [["ollama/four"]]),
    ],
)
def test_of_an_alias_those_stay_who_speak_the_dialect_and_no_group_is_empty(
    dialect: str, left: list[list[str]]
) -> None:
    aliases = "m = openai/one, anthropic/two | gemini/three | ollama/four"
    assert groups(planned("m", dialect, aliases)) == left


@pytest.mark.parametrize(
    ("targets", "dialect", "told"),
    [
        ("openai/one", "anthropic-messages", "/v1/chat/completions or /v1/responses"),
        ("anthropic/one", "openai-chat", "/v1/messages"),
        ("gemini/one", "openai-chat", "/v1beta/models/{model}:generateContent"),
        ("ollama/one", "gemini", "/v1/chat/completions or /v1/responses or /v1/messages or /api/chat"),
        (
            "openai/one | anthropic/two",
            "gemini",
            "/v1/chat/completions or /v1/responses or /v1/messages",
        ),
    ],
)
def test_an_alias_that_nobody_can_answer_to_says_where_to_ask(targets: str, dialect: str, told: str) -> None:
    failure = refused(planned("m", dialect, f"m = {targets}"))
    assert (failure.kind, status_of(failure)) == (Kind.BAD_REQUEST, 400)
    assert failure.detail == f"no target of m speaks {dialect}: ask for it under {told}"


def test_an_alias_goes_before_whoever_owns_its_name() -> None:
    found = planned("gpt-4o", aliases="gpt-4o = vllm/mine")
    assert groups(found) == [["vllm/mine"]]


def test_an_alias_is_its_whole_name_as_it_is_written() -> None:
    for name in ("M", "m ", "m-2", "openai/m"):
        found = planned(name, aliases="m = vllm/mine")
        assert isinstance(found, Plan)
        assert found.alias is None


def test_a_path_that_names_its_provider_knows_no_aliases() -> None:
    catalog = snapshot("m = vllm/mine")
    route = Route(DIALECTS["openai-chat"], True, catalog.providers["azure"], b"/v1/chat/completions")
    found = plan(route, Call("m"), b"", catalog)
    target = only(found)
    assert (target.provider.name, target.model, target.target) == ("azure", None, b"/openai/v1/chat/completions")


# -- Gemini's aliases: the model stands in the path -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model", "expected"),
    [
        (b"/v1beta/models/m:generateContent", "g-1", b"/v1beta/models/g-1:generateContent"),
        (b"/v1beta/models/m:streamGenerateContent", "g-1", b"/v1beta/models/g-1:streamGenerateContent"),
        (b"/v1beta/models/m%3AcountTokens", "g-1", b"/v1beta/models/g-1%3AcountTokens"),
        (b"/v1/models/m:embedContent", "pub/g-1", b"/v1/models/pub%2Fg-1:embedContent"),
        (b"/v1beta/models/m:generateContent", "g:1@x", b"/v1beta/models/g%3A1%40x:generateContent"),
    ],
)
def test_in_a_path_an_alias_gives_way_to_each_targets_own_name(path: bytes, model: str, expected: bytes) -> None:
    found = planned("m", "gemini", f"m = gemini/{model}", path=path, query=b"alt=sse&key=secret")
    target = only(found)
    assert target.target == expected + b"?alt=sse"
    assert target.model == model, "what it is called there, for limits and the ledger"


def test_a_path_of_another_dialect_stays_as_it_is() -> None:
    assert only(planned("chat", "openai-chat", "chat = vllm/two")).target == b"/v1/chat/completions"


# -- names that are no alias ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "dialect", "expected"),
    [
        ("vllm/llama", "openai-chat", "vllm/llama"),
        ("vllm/meta/llama", "openai-chat", "vllm/meta/llama"),
        ("vllm/", "openai-chat", "openai"),
        ("/llama", "openai-chat", "openai"),
        ("nobody/llama", "openai-chat", "openai"),
        ("gpt-4o", "openai-chat", "openai"),
        ("claude-x", "anthropic-messages", "anthropic"),
        ("unheard-of", "anthropic-messages", "anthropic"),
        (None, "openai-chat", "openai"),
        (None, "anthropic-count-tokens", "anthropic"),
        ("gpt-4o", "ollama", "ollama"),
        ("claude-x", "gemini", "gemini"),
        ("ollama/llama", "ollama", "ollama/llama"),
    ],
)
def test_one_name_leads_to_one_target(model: str | None, dialect: str, expected: str) -> None:
    found = planned(model, dialect)
    assert groups(found) == [[expected]]
    assert isinstance(found, Plan)
    assert found.alias is None


@pytest.mark.parametrize(
    ("model", "dialect", "name"),
    [
        ("claude-x", "openai-chat", "anthropic"),
        ("anthropic/claude-x", "openai-chat", "anthropic"),
        ("other/x", "openai-chat", "other"),
        ("gpt-4o", "anthropic-messages", "openai"),
        ("openai/gpt-4o", "ollama", "openai"),
    ],
)
def test_a_provider_that_does_not_speak_it_is_not_asked(model: str, dialect: str, name: str) -> None:
    failure = refused(planned(model, dialect))
    assert failure.kind is Kind.UNROUTED
    assert failure.detail.startswith(f"provider {name} (family ")
    assert f"does not speak {dialect}" in failure.detail


def test_the_default_goes_before_the_home_of_a_dialect() -> None:
    catalog = snapshot(providers="anthropic ollama", default="ollama")
    assert groups(planned("unheard-of", "anthropic-messages", catalog=catalog)) == [["ollama"]]
    catalog = snapshot(providers="openai mine=anthropic", default="openai")
    assert groups(planned("unheard-of", "anthropic-messages", catalog=catalog)) == [["mine"]]


def test_where_nobody_is_left_it_says_what_to_set() -> None:
    nobody = refused(planned("x", catalog=snapshot(providers="", default=None)))
    assert "OPENAI_API_KEY" in nobody.detail
    unset = refused(planned("x", catalog=snapshot(providers="vllm=openai", default=None)))
    assert "LLM_PROXY_DEFAULT_PROVIDER" in unset.detail
    homeless = refused(planned("x", "ollama", catalog=snapshot(providers="openai", default="openai")))
    assert "does not speak ollama" in homeless.detail


def test_a_family_is_the_vendors_own_before_others_of_it() -> None:
    catalog = snapshot(providers="mine=anthropic anthropic", default=None)
    assert of_family("anthropic", catalog) is catalog.providers["anthropic"]
    catalog = snapshot(providers="anthropic=openai mine=anthropic yours=anthropic", default=None)
    assert of_family("anthropic", catalog) is catalog.providers["mine"], "it bears the name, and is another family"
    assert of_family("gemini", catalog) is None


def test_a_path_that_nobody_reads_goes_where_the_head_said() -> None:
    catalog = snapshot()
    route = Route(DIALECTS["plain"], False, catalog.providers["openai"], b"/v1/files")
    target = only(plan(route, None, b"limit=1&key=secret&after=b", catalog))
    assert (target.target, target.model) == (b"/v1/files?limit=1&after=b", None)


def test_a_query_that_was_only_a_key_leaves_no_question_mark() -> None:
    assert only(planned("gpt-4o", query=b"key=secret")).target == b"/v1/chat/completions"


# -- paths under base URLs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "base", "path", "joined"),
    [
        ("openai", b"/v1", b"/v1/embeddings", b"/v1/embeddings"),
        ("openai", b"/openai/v1", b"/v1/embeddings", b"/openai/v1/embeddings"),
        ("openai", b"", b"/v1/embeddings", b"/embeddings"),
        ("openai", b"/api", b"/api/tags", b"/api/tags"),
        ("openai", b"/api", b"/apis", b"/api/apis"),
        ("openai", b"/api", b"/api", b"/api"),
        ("azure", b"/openai/v1", b"/openai/deployments/d/chat", b"/openai/deployments/d/chat"),
        ("openai", b"/base", b"/openai/x", b"/base/openai/x"),
        ("anthropic", b"/anthropic", b"/v1/messages", b"/anthropic/v1/messages"),
        ("gemini", b"/g", b"/v1beta/models/x:y", b"/g/v1beta/models/x:y"),
        ("ollama", b"/o", b"/o/api/chat", b"/o/o/api/chat"),
        ("plain", b"/p", b"/v1/x", b"/p/v1/x"),
    ],
)
def test_a_path_is_joined_as_the_vendors_client_does_it(family: str, base: bytes, path: bytes, joined: bytes) -> None:
    assert join(Provider("p", family, Origin("https", "p.test", 443), base), path) == joined


# -- whatever is configured -------------------------------------------------------------------------------------------

NAMES = [each.partition("=")[0] for each in COMMON.split()]
CHOICES = st.builds(Choice, st.sampled_from(NAMES), st.sampled_from(["one", "two"]), st.integers(1, 3))
GROUPS = st.lists(st.lists(CHOICES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=3).map(tuple)


@given(GROUPS, st.sampled_from(sorted(PATHS)))
def test_a_plan_holds_exactly_those_that_speak_the_dialect(
    configured: tuple[tuple[Choice, ...], ...], dialect: str
) -> None:
    base = snapshot()
    catalog = Snapshot(base.providers, base.default, base.owners, aliases={"m": Alias("m", configured)})
    able = {name for name, each in base.providers.items() if dialect in FAMILIES[each.family].dialects}
    expected = [
        [f"{each.provider}/{each.model}" for each in group if each.provider in able]
        for group in configured
        if any(each.provider in able for each in group)
    ]
    found = planned("m", dialect, catalog=catalog)
    if not expected:
        assert refused(found).kind is Kind.BAD_REQUEST
        return
    assert groups(found) == expected
    assert isinstance(found, Plan)
    assert sum(each.weight for each in found.targets) == sum(
        each.weight for group in configured for each in group if each.provider in able
    )
