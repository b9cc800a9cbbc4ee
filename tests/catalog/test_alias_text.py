"""The text of aliases: every form, every refusal with its place, and the way back."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.alias_text import MOST_RETRIES, parse_aliases, written
from proxy.catalog.aliases import Alias, Choice
from proxy.catalog.snapshot import Origin, Provider
from proxy.catalog.windows import WINDOWS, window_of
from proxy.outcome import Limit

ORIGIN = Origin("http", "x", 80)
PROVIDERS = {
    name: Provider(name, family, ORIGIN)
    for name, family in {"openai": "openai", "groq": "openai", "anthropic": "anthropic", "files": "plain"}.items()
}


def aliases(text: str) -> dict[str, Alias]:
    found, problems = parse_aliases(text, PROVIDERS)
    assert problems == []
    return found


def only(text: str) -> Alias:
    (found,) = aliases(text).values()
    return found


def problem(text: str) -> str:
    (found,) = parse_aliases(text, PROVIDERS)[1]
    return found


def models(alias: Alias) -> list[list[str]]:
    return [[f"{choice.provider}/{choice.model}" for choice in group] for group in alias.groups]


# --- what is read -----------------------------------------------------------------------------------------------------


def test_groups_in_order_and_equals_in_each() -> None:
    alias = only("fast = openai/gpt-4o-mini*3, groq/llama-3.3-70b | anthropic/claude-haiku-4-5")
    assert alias == Alias(
        "fast",
        (
            (Choice("openai", "gpt-4o-mini", 3, 128_000), Choice("groq", "llama-3.3-70b", 1, 131_072)),
            (Choice("anthropic", "claude-haiku-4-5", 1, 200_000),),
        ),
    )


def test_every_option() -> None:
    text = (
        "big (retries=3 first_byte=1 first_byte_unary=2.5 first_event=.5 hold=0 stream=30 total=60 hedge resume "
        "cost=0.05usd) = openai/gpt-4.1"
    )
    alias = only(text)
    assert alias.retries == 3
    assert alias.seconds == {
        Limit.FIRST_BYTE: 1.0,
        Limit.FIRST_BYTE_UNARY: 2.5,
        Limit.FIRST_EVENT: 0.5,
        Limit.HOLD: 0.0,
        Limit.STREAM: 30.0,
        Limit.TOTAL: 60.0,
    }
    assert (alias.hedges, alias.resumes, alias.cost) == (True, True, 50_000)
    assert only("a (retries=0) = openai/x").retries == 0
    assert only("a () = openai/x") == only("a = openai/x")


@pytest.mark.parametrize(
    "text", ["A (Retries=3, HEDGE) = OpenAI/X", "A(retries=3 hedge)=openai/X", "A (hedge retries=3) =openai/X"]
)
def test_letter_case_order_and_blanks_of_what_is_ours_do_not_matter(text: str) -> None:
    assert only(text) == Alias("A", ((Choice("openai", "X"),),), retries=3, hedges=True)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("openai/x", Choice("openai", "x")),
        ("openai/x*1000", Choice("openai", "x", 1000)),
        ("openai/x * 2 (window=9)", Choice("openai", "x", 2, 9)),
        ("openai/x (weight=2, window=1.5M)", Choice("openai", "x", 2, 1_500_000)),
        ("openai/x(window=32K)", Choice("openai", "x", 1, 32_000)),
        ("openai/gpt-4o (window=0)", Choice("openai", "gpt-4o", 1, 0)),
        ("openai/gpt-4o (window=64k)", Choice("openai", "gpt-4o", 1, 64_000)),
        ("groq/meta-llama/Llama-3.3_70B:free@v1", Choice("groq", "meta-llama/Llama-3.3_70B:free@v1")),
        ("anthropic/claude-sonnet-4-5[1m]", Choice("anthropic", "claude-sonnet-4-5[1m]", 1, 1_000_000)),
    ],
)
def test_a_target(text: str, choice: Choice) -> None:
    assert only(f"a = {text}").groups == ((choice,),)


@pytest.mark.parametrize(
    "text",
    [
        "a=openai/x;b=openai/y",
        "\n a=openai/x\r\n\r\n\tb=openai/y\n",
        ";;a=openai/x; ;\nb=openai/y;",
    ],
)
def test_lines_and_semicolons_stand_between_aliases_and_blank_ones_do_not_count(text: str) -> None:
    assert list(aliases(text)) == ["a", "b"]
    assert aliases(" \n;") == {} == aliases("")


def test_names_are_kept_as_they_are_written() -> None:
    names = ["fast", "Fast", "team:fast", "v1.2_x@y-z", "nobody/fast", "gpt-4o", "openai"]
    assert list(aliases("; ".join(f"{name} = openai/x" for name in names))) == names


def test_one_provider_may_stand_in_it_with_several_models_and_a_model_with_several_providers() -> None:
    assert models(only("a = openai/x, openai/y | groq/x")) == [["openai/x", "openai/y"], ["groq/x"]]


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "shown", "what"),
    [
        ("a = opnai/gpt-4o", 5, "opnai/gpt-4o", "there is no provider of this name (openai, groq, anthropic, files)"),
        ("a = openai/x | , groq/x", 16, None, "no target here"),
        ("a = openai/x |", 15, None, "no target here"),
        ("a =", 4, None, "no target here"),
        ("a = gpt-4o", 5, "gpt-4o", "is no target"),
        ("a = /gpt-4o", 5, "/gpt-4o", "is no target"),
        ("a = openai/", 5, "openai/", "is no target"),
        ("a = openai/x y", 5, "openai/x y", "is no target"),
        ("a = openai/x b = openai/y", 5, "openai/x b = openai/y", "is no target"),
        ("a = openai/x (weight=2", 5, "openai/x (weight=2", "is no target"),
        ("a = openai/x*2*3", 5, "openai/x*2*3", "is no target"),
        ("a = openai/x, openai/x*2", 15, "openai/x*2", "stands in the alias twice"),
        ("a = openai/x | OPENAI/x", 16, "OPENAI/x", "stands in the alias twice"),
        ("a = files/x", 5, "files/x", "family plain"),
        ("a = openai/x*0", 5, "openai/x*0", "whole number from 1 to 1000"),
        ("a = openai/x*1001", 5, "openai/x*1001", "whole number from 1 to 1000"),
        ("a = openai/x*", 5, "openai/x*", "whole number from 1 to 1000"),
        ("a = openai/x*1k", 5, "openai/x*1k", "whole number from 1 to 1000"),
        ("a = openai/x*1.5", 5, "openai/x*1.5", "whole number from 1 to 1000"),
        ("a = openai/x*2 (weight=2)", 5, "openai/x*2 (weight=2)", "said twice"),
        ("a = openai/x (weight=2 window=x)", 24, "window=x", "window=128k"),
        ("a = openai/x (window=1.5)", 15, "window=1.5", "window=128k"),
        ("a = openai/x (window=2000M)", 15, "window=2000M", "window=128k"),
        ("a = openai/x (retries=2)", 15, "retries=2", "is no option here (weight, window)"),
        ("a (retries=11) = openai/x", 4, "retries=11", "retries=0 to retries=10"),
        ("a (retries) = openai/x", 4, "retries", "retries=0 to retries=10"),
        ("a (retries=-1) = openai/x", 4, "retries=-1", "retries=0 to retries=10"),
        ("a (retries=1 retries=1) = openai/x", 14, "retries=1", "said twice"),
        ("a (total=1s) = openai/x", 4, "total=1s", "in seconds"),
        ("a (total=1e3) = openai/x", 4, "total=1e3", "in seconds"),
        ("a (total=\u0661) = openai/x", 4, "total=\u0661", "in seconds"),
        ("a (connect=1) = openai/x", 4, "connect=1", "is no option here"),
        ("a (hedge=on) = openai/x", 4, "hedge=on", "hedge alone"),
        ("a (resume=) = openai/x", 4, "resume=", "resume alone"),
        ("a (cost=0.05) = openai/x", 4, "cost=0.05", "0.05usd"),
        ("a (cost=0usd) = openai/x", 4, "cost=0usd", "one or more"),
        ("a (cost=0.0000015usd) = openai/x", 4, "cost=0.0000015usd", "whole microdollars"),
        ("a (retries=2 = openai/x", 1, "a (retries=2 = openai/x", "write it as name ="),
        ("a (retries=2) b = openai/x", 1, "a (retries=2) b = openai/x", "write it as name ="),
        ("openai/x", 1, "openai/x", "write it as name ="),
        ("= openai/x", 1, None, "letters, digits"),
        ("a b = openai/x", 1, "a b", "letters, digits"),
        ("-a = openai/x", 1, "-a", "letters, digits"),
        ("a* = openai/x", 1, "a*", "letters, digits"),
        ("b\u00fccher = openai/x", 1, "b\u00fccher", "letters, digits"),
        ("openai/fast = openai/x", 1, "openai/fast", "of provider openai already"),
        ("a = openai/x\n;a = groq/x", 15, "a", "an earlier one has this name"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, at: int, shown: str | None, what: str) -> None:
    found = problem(text)
    assert f", at character {at}: " in found
    assert what in found
    assert shown is None or text[at - 1 :].startswith(shown)


def test_what_stands_there_is_not_repeated() -> None:
    """It may be a secret that belongs to another variable."""
    assert problem("b = openai/x; fast = openai/x, opnai/gpt-4o") == (
        "alias 2, at character 32: there is no provider of this name (openai, groq, anthropic, files)"
    )
    for text in ("hush", "hush = x", "a = hush", "a = hush/x", "a (hush) = openai/x", "a = openai/x (hush)"):
        assert "hush" not in problem(text)


def test_all_that_is_wrong_comes_out_at_once() -> None:
    text = "a (foo hedge=1) = x/y, , z; b = openai/x; b c = openai/x*0\n; d"
    problems = parse_aliases(text, PROVIDERS)[1]
    places = [re.search(r"at character (\d+)", each) for each in problems]
    assert [int(place[1]) for place in places if place] == [4, 8, 19, 24, 26, 43, 49, 62]


@pytest.mark.parametrize("mark", ["\x1b[2J", "\x00", "\u202e", "\x85", "\u2028"])
def test_what_cannot_be_printed_is_escaped(mark: str) -> None:
    text = f"a{mark} = openai/x; b = openai/{mark}y, {mark}z/q; c (h{mark}) = openai/x; d (total={mark}) = openai/x"
    problems = parse_aliases(text, PROVIDERS)[1]
    assert len(problems) >= 4
    assert all(each.isprintable() for each in problems)


@given(st.text(alphabet="a/=();|,*\n 1k.openi-hdg\x00\u00e9", max_size=60))
def test_no_text_raises_and_what_is_refused_can_be_printed(text: str) -> None:
    found, problems = parse_aliases(text, PROVIDERS)
    assert all(each.isprintable() for each in problems)
    if not problems:
        assert parse_aliases("\n".join(map(written, found.values())), PROVIDERS) == (found, [])
        assert all(group for alias in found.values() for group in alias.groups)


# --- the way back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "fast = openai/gpt-4o-mini*3, groq/llama-3.3-70b | anthropic/claude-haiku-4-5",
        "a (retries=3 first_event=10 hold=0 total=0.5 hedge resume cost=0.05usd) = openai/gpt-4.1 (window=2M)",
        "a (cost=1000000usd) = openai/x*2 (window=128k) | openai/y (window=131072)",
        "a (total=0.000000001) = openai/gpt-4o (window=0)",
    ],
)
def test_an_alias_is_written_in_one_way(text: str) -> None:
    assert written(only(text)) == text


def test_a_window_is_written_only_where_it_is_not_the_known_one() -> None:
    assert written(only("a = openai/gpt-4o (window=128k)")) == "a = openai/gpt-4o"


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}", fullmatch=True)
MODELS = st.one_of(st.sampled_from(sorted(WINDOWS)), st.from_regex(r"[A-Za-z0-9@._:/\[\]-]{1,30}", fullmatch=True))
CHOICES = st.builds(
    Choice,
    st.sampled_from(["openai", "groq", "anthropic"]),
    MODELS,
    st.integers(1, 1000),
    st.one_of(st.none(), st.integers(0, 10**9)),
).map(lambda choice: choice if choice.window is not None else choice._replace(window=window_of(choice.model)))
GROUPS = (
    st.lists(CHOICES, min_size=1, max_size=6, unique_by=lambda choice: choice[:2])
    .flatmap(lambda choices: st.tuples(st.just(choices), st.sets(st.integers(1, 5))))
    .map(lambda found: split(*found))
)
TIMES = [Limit.FIRST_BYTE, Limit.FIRST_BYTE_UNARY, Limit.FIRST_EVENT, Limit.HOLD, Limit.STREAM, Limit.TOTAL]
SECONDS = st.one_of(
    st.integers(0, 10**9 - 1).map(float),
    st.integers(0, 10**9).map(lambda number: float(f"{number // 1000}.{number % 1000:03}")),
    st.integers(0, 10**9 - 1).map(lambda number: float(f"0.{number:09}")),
)
ALIASES = st.builds(
    Alias,
    NAMES,
    GROUPS,
    retries=st.one_of(st.none(), st.integers(0, MOST_RETRIES)),
    seconds=st.dictionaries(st.sampled_from(TIMES), SECONDS),
    hedges=st.booleans(),
    resumes=st.booleans(),
    cost=st.one_of(st.none(), st.integers(1, 10**15 - 1)),
)


def split(choices: list[Choice], cuts: set[int]) -> tuple[tuple[Choice, ...], ...]:
    """`choices` in groups, with a new one at each of `cuts`."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(choices)), len(choices)]
    return tuple(tuple(choices[start:end]) for start, end in itertools.pairwise(edges))


@given(ALIASES)
def test_what_is_written_is_read_again(alias: Alias) -> None:
    assert parse_aliases(written(alias), PROVIDERS) == ({alias.name: alias}, [])


@given(st.lists(ALIASES, max_size=4, unique_by=lambda alias: alias.name), st.sampled_from(["; ", "\n", ";\n\n"]))
def test_many_of_them_too(many: list[Alias], between: str) -> None:
    text = between.join(map(written, many))
    assert parse_aliases(text, PROVIDERS) == ({alias.name: alias for alias in many}, [])
