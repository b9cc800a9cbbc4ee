"""Admission: keys, passthrough, the guard against web pages, streams per key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.aliases import Alias
from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider
from proxy.outcome import Failure, Kind, status_of
from proxy.policy.admission import Admission, Grant, is_browser_page
from proxy.policy.counters import MemoryStore
from proxy.policy.keys import AuthMode, Door, Key, KeyRing, fingerprint
from proxy.policy.limits import FOREVER, Chain, Limiter
from proxy.policy.plan import Plan, Target
from proxy.policy.rules import parse_rules
from proxy.wire.head import RequestHead
from tests.policy.heads import head

NOW = 1_800_000_000 * 10**9
KEY = "sk-proxy-0123456789abcdef"


def admission(mode: AuthMode, *, guard: bool = False, streams: int = 0) -> Admission:
    ring = KeyRing({"alice": Secret(KEY)} if mode is AuthMode.KEYS else {}, mode)
    limiter = Limiter(MemoryStore(), lambda window, now: FOREVER)
    return Admission(ring, limiter, browser_guard=guard, hosts=frozenset({"proxy.internal"}), streams_per_key=streams)


def granted(answer: Grant | Failure) -> Grant:
    assert isinstance(answer, Grant), answer
    return answer


def refused(answer: Grant | Failure) -> Failure:
    assert isinstance(answer, Failure), answer
    return answer


def test_a_key_is_granted_under_its_name_and_carries_nothing_on() -> None:
    grant = granted(admission(AuthMode.KEYS).admit(head(("authorization", "Bearer " + KEY)), NOW))
    assert grant[:3] == ("alice", [], False)
    assert grant.door is not None
    assert grant.door.key.name == "alice"


@pytest.mark.parametrize(
    "wrong",
    [
        head(),
        head(("x-api-key", "sk-proxy-0123456789abcdeX")),
        head(("authorization", "Basic " + KEY)),
        head(("x-api-key", KEY), ("authorization", "Bearer other")),
    ],
)
def test_without_the_key_a_request_is_refused_and_told_what_to_do(wrong: RequestHead) -> None:
    failure = refused(admission(AuthMode.KEYS).admit(wrong, NOW))
    assert failure.kind is Kind.UNAUTHORIZED
    assert status_of(failure) == 401
    assert "Authorization: Bearer" in failure.detail
    assert "alice" not in failure.detail
    assert KEY[:8] not in failure.detail


def test_off_grants_everybody_and_carries_nothing_on() -> None:
    assert granted(admission(AuthMode.OFF).admit(head(("authorization", "Bearer x")), NOW))[:3] == (None, [], False)


def test_passthrough_carries_the_clients_own_fields_as_sent() -> None:
    grant = granted(admission(AuthMode.PASSTHROUGH).admit(head(("Authorization", "Bearer x"), ("accept", "*/*")), NOW))
    assert grant[:3] == (fingerprint(b"x"), [(b"authorization", b"Authorization", b"Bearer x")], True)


def test_passthrough_moves_the_key_of_a_query_into_a_field() -> None:
    grant = granted(admission(AuthMode.PASSTHROUGH).admit(head(query=b"alt=sse&key=abc"), NOW))
    assert grant[:3] == (fingerprint(b"abc"), [(b"x-goog-api-key", b"x-goog-api-key", b"abc")], True)


def test_passthrough_makes_no_field_of_a_key_that_could_end_one() -> None:
    grant = granted(admission(AuthMode.PASSTHROUGH).admit(head(query=b"key=a%0d%0ax-evil:1"), NOW))
    assert grant.carried == []


def test_passthrough_without_a_credential_is_marked_so_that_ours_is_not_lent() -> None:
    assert granted(admission(AuthMode.PASSTHROUGH).admit(head(), NOW))[:3] == (None, [], True)


def test_passthrough_carries_other_schemes_too() -> None:
    grant = granted(admission(AuthMode.PASSTHROUGH).admit(head(("authorization", "Basic YTpi")), NOW))
    assert grant[:3] == (fingerprint(b"Basic YTpi"), [(b"authorization", b"authorization", b"Basic YTpi")], True)


def test_passthrough_refuses_two_different_credentials() -> None:
    twice = head(("x-api-key", "a"), ("authorization", "Bearer b"))
    assert refused(admission(AuthMode.PASSTHROUGH).admit(twice, NOW)).kind is Kind.UNAUTHORIZED


PAGES = [
    head(("Origin", "https://evil.example")),
    head(("Origin", "null")),
    head(("Origin", "http://localhost:3000")),
    head(("Sec-Fetch-Site", "cross-site")),
    head(("Sec-Fetch-Site", "same-site")),
    head(("Sec-Fetch-Site", "?")),
    head(host="evil.example"),
    head(host="evil.example:8080"),
    head(host="localhost.evil.example"),
    head(host="127.0.0.1.evil.example"),
    head(host="proxy.internal.evil.example:80"),
    head(host=""),
    head(host="a" * 300),
]
OWN_NAMES = (
    "localhost LocalHost:8080 localhost. 127.0.0.1:8080 10.1.2.3 [::1]:8080 [::1] proxy.internal Proxy.Internal.:80"
)
LOCAL = [head(host=host) for host in OWN_NAMES.split()]
LOCAL += [head(("Sec-Fetch-Site", site)) for site in ("none", "same-origin")]


@pytest.mark.parametrize("page", PAGES)
def test_web_pages_are_kept_out_where_no_key_does_it(page: RequestHead) -> None:
    assert status_of(refused(admission(AuthMode.OFF, guard=True).admit(page, NOW))) == 403
    assert isinstance(admission(AuthMode.OFF, guard=False).admit(page, NOW), Grant)


@pytest.mark.parametrize("local", LOCAL)
def test_programs_are_let_in(local: RequestHead) -> None:
    assert is_browser_page(local, frozenset({"proxy.internal"})) is None


def test_the_guard_says_when_pages_are_refused() -> None:
    for page in PAGES[:1]:
        assert "while no keys are configured" in (is_browser_page(page, frozenset()) or "")
        assert "refused always (" in (is_browser_page(page, frozenset(), " always") or "")


def test_the_guard_says_what_to_set_and_repeats_nothing() -> None:
    reason = is_browser_page(head(host="evil.example"), frozenset())
    assert reason is not None
    assert "LLM_PROXY_HOSTS" in reason
    assert "evil" not in reason


@given(st.binary(max_size=40))
def test_no_host_raises(host: bytes) -> None:
    is_browser_page(head()._replace(host=host), frozenset())


def test_streams_of_a_key_are_counted_and_given_back() -> None:
    guard = admission(AuthMode.KEYS, streams=2)
    grant, other = Grant("alice", []), Grant("bob", [])
    assert guard.take_stream(grant) is None
    assert guard.take_stream(grant) is None
    failure = guard.take_stream(grant)
    assert failure is not None
    assert status_of(failure) == 429
    assert guard.take_stream(other) is None
    guard.give_stream(grant)
    assert guard.take_stream(grant) is None


def test_no_limit_counts_nothing() -> None:
    guard = admission(AuthMode.KEYS)
    assert all(guard.take_stream(Grant("alice", [])) is None for _ in range(1_000))
    guard.give_stream(Grant("alice", []))


def test_counts_of_finished_streams_leave_nothing_behind() -> None:
    guard = admission(AuthMode.PASSTHROUGH, streams=1)
    for number in range(100):
        grant = Grant(f"#{number}", [], True)
        assert guard.take_stream(grant) is None
        guard.give_stream(grant)
    assert guard._streams == {}


# -- what a key may ask for -------------------------------------------------------------------------------------------

NAMES = frozenset({"openai", "openrouter", "groq"})


def permitted(
    models: tuple[str, ...] | None, model: str | None, provider: str, to: str | None, rules: str = "", **more: bool
) -> Failure | None:
    """`to`: the name that the model has there, if it is another one; `rules`: "scope: limits"."""
    found = admission(AuthMode.KEYS)
    if rules:
        scope, _, line = rules.partition(": ")
        found.limiter.set_rules(scope, parse_rules(line))
    grant = Grant("ci", [], False, Door(Key("ci", models=models), FOREVER, b"way"))
    target = Target(Provider(provider, "openai", Origin("https", "x.test", 443)), b"/v1/chat/completions", to)
    return found.permitted(grant, "POST", True, model, target, NAMES, **more)


@pytest.mark.parametrize(
    ("pattern", "model", "provider", "to", "may"),
    [
        ("gpt-*", "gpt-5", "openai", None, True),
        ("gpt-*", "openai/gpt-5", "openai", "gpt-5", True),
        ("gpt-*", "o1-pro", "openai", None, False),
        ("openai/*", "o1-pro", "openai", None, True),
        ("openai/*", "openai/o1-pro", "openai", "o1-pro", True),
        ("OpenAI/*", "openai/o1-pro", "openai", "o1-pro", True),
        ("openai/*", "openrouter/openai/o1-pro", "openrouter", "openai/o1-pro", False),
        ("openai/*", "openai/o1-pro", "openrouter", None, False),  # by way of /openrouter/v1/chat/completions
        ("openai/*", "OpenAI/o1-pro", "openrouter", None, False),
        ("openrouter/openai/*", "openrouter/openai/o1-pro", "openrouter", "openai/o1-pro", True),
        ("openrouter/*", "meta-llama/llama-4", "openrouter", None, True),
        ("meta-llama/*", "meta-llama/llama-4", "openrouter", None, True),
        ("meta-llama/*", "openrouter/meta-llama/llama-4", "openrouter", "meta-llama/llama-4", False),
        ("*", "openrouter/openai/o1-pro", "openrouter", "openai/o1-pro", True),
        ("*", None, "openai", None, False),
    ],
)
def test_a_pattern_with_a_provider_in_it_means_that_provider(
    pattern: str, model: str | None, provider: str, to: str | None, may: bool
) -> None:
    assert (permitted((pattern,), model, provider, to) is None) is may


@pytest.mark.parametrize(
    ("models", "rules", "may"),
    [
        (None, "", True),
        (None, "key ci: rpm=5 1Mtokens/day", True),
        (None, "key ci: 1usd/day", False),
        (None, "all: 1usd/day:warn", False),
        (None, "model dear*: rpm=5", False),
        (("*",), "", False),
    ],
)
def test_further_models_may_be_named_where_no_limit_is_for_single_ones(
    models: tuple[str, ...] | None, rules: str, may: bool
) -> None:
    failure = permitted(models, "cheap", "openrouter", None, rules, names_more=True)
    assert (failure is None) is may
    if failure is not None:
        assert (failure.kind, status_of(failure)) == (Kind.MODEL_FORBIDDEN, 403)
        assert "one model" in failure.detail
    if models is None:
        assert permitted(models, "cheap", "openrouter", None, rules) is None


# -- which limits hold ------------------------------------------------------------------------------------------------

RULES = ("key ci", "group team", "all", "provider a", "provider b", "model m", "model one", "model a/one", "model b/*")


def limited(*scopes: str, mode: AuthMode = AuthMode.KEYS) -> Admission:
    found = admission(mode)
    for scope in scopes:
        found.limiter.set_rules(scope, parse_rules("rpm=5"))
    return found


def target(provider: str, model: str | None) -> Target:
    return Target(Provider(provider, "openai", Origin("https", f"{provider}.test", 443)), b"/", model)


ALIAS = Plan(((target("a", "one"),), (target("b", "two"),)), Alias("m", ()))
CI = Grant("ci", [], False, Door(Key("ci", group="team"), FOREVER, b"way"))


def scopes(chain: Chain | None) -> set[str] | None:
    return None if chain is None else set(chain.scopes)


def test_without_an_alias_all_that_holds_is_in_one_chain() -> None:
    found = limited(*RULES)
    plan = Plan(((target("a", "one"),),))
    assert scopes(found.chain(CI, "a/one", plan)) == {
        "key ci", "group team", "all", "provider a", "model one", "model a/one",
    }  # fmt: skip
    plain = Plan(((target("b", None),),))
    assert scopes(found.chain(CI, "one", plain)) == {"key ci", "group team", "all", "provider b", "model one"}
    assert scopes(found.chain(CI, None, plain)) == {"key ci", "group team", "all", "provider b"}


def test_an_alias_has_what_holds_whichever_target_is_asked() -> None:
    found = limited(*RULES)
    assert scopes(found.chain(CI, "m", ALIAS)) == {"key ci", "group team", "all", "model m"}
    assert scopes(limited("provider a", "model one").chain(CI, "m", ALIAS)) is None


def test_a_targets_own_limits_are_those_that_are_left() -> None:
    found = limited(*RULES)
    taken = found.chain(CI, "m", ALIAS)
    (first,), (second,) = ALIAS.groups
    assert scopes(found.own_chain(first, taken)) == {"provider a", "model one", "model a/one"}
    assert scopes(found.own_chain(second, taken)) == {"provider b", "model b/*"}
    assert scopes(limited("key ci", "group team").own_chain(first, None)) is None


def test_what_an_alias_took_already_is_not_taken_for_a_target_again() -> None:
    found = limited("model *", "provider a")
    taken = found.chain(CI, "m", ALIAS)
    assert scopes(taken) == {"model *"}
    (first,), (second,) = ALIAS.groups
    assert scopes(found.own_chain(first, taken)) == {"provider a"}
    assert scopes(found.own_chain(second, taken)) is None
    assert scopes(found.own_chain(first, None)) == {"model *", "provider a"}


def test_a_targets_own_limits_belong_to_nobodys_key_and_are_not_told_after_a_kill() -> None:
    found = limited("provider a")
    (first,), _ = ALIAS.groups
    chain = found.own_chain(first, found.chain(CI, "m", ALIAS))
    assert chain is not None
    assert (chain.key, chain.is_kept) == ("", False)
    common = limited("all").chain(CI, "m", ALIAS)
    assert common is not None
    assert (common.key, common.is_kept) == ("ci", True)


def test_in_passthrough_mode_limits_of_keys_do_not_hold() -> None:
    found = limited("key #1", "all", mode=AuthMode.PASSTHROUGH)
    assert scopes(found.chain(Grant("#1", [], True), "m", ALIAS)) == {"all"}
    assert scopes(found.chain(Grant("#1", [], True), "x", Plan(((target("a", None),),)))) == {"all"}


def test_the_same_chain_stands_until_a_rule_changes() -> None:
    """Asked for with each request."""
    found = limited("key ci", "provider a")
    (first,), _ = ALIAS.groups
    taken = found.chain(CI, "m", ALIAS)
    assert found.chain(CI, "m", ALIAS) is taken
    own = found.own_chain(first, taken)
    assert found.own_chain(first, taken) is own
    version = found.version
    found.limiter.set_rules("provider a", parse_rules("rpm=6"))
    assert found.version != version
    assert found.own_chain(first, taken) is not own
