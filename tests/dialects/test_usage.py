"""What the providers mean by their figures: a case for each row of the table in proxy/dialects/usage.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects import usage
from proxy.dialects.usage import MessagesReport, chat, generate_content, micros, ollama
from proxy.outcome import Billed, Source, Usage


def figures(found: Usage | None) -> tuple[int | None, ...]:
    assert found is not None
    return found.input, found.output, found.cached, found.cache_write, found.reasoning


def report(prompt: Any = 10, completion: Any = 5, total: Any = 15, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more}


def reasoned(tokens: Any) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": tokens}}


# -- OpenAI and its imitators ------------------------------------------------------------------------------------------

CHAT = {
    "openai": (
        report(
            prompt_tokens_details={"cached_tokens": 4, "cache_write_tokens": 3, "audio_tokens": 0},
            **reasoned(2),
        ),
        (10, 5, 4, 3, 2),
    ),
    "openai, audio inside the prompt": (report(prompt_tokens_details={"audio_tokens": 7}), (10, 5, None, None, None)),
    "openai, no completion": ({"prompt_tokens": 10, "total_tokens": 10}, (10, 0, None, None, None)),
    "openai, completion null": (report(completion=None), (10, 5, None, None, None)),
    "xai": (report(total=45, **reasoned(30)), (10, 35, None, None, 30)),
    "xai, reasoning 0": (report(**reasoned(0)), (10, 5, None, None, 0)),
    "gemini compat": (report(total=109), (10, 99, None, None, None)),
    "gemini compat, details null": (report(total=109, completion_tokens_details=None), (10, 99, None, None, None)),
    "a total nobody explains": (report(total=109, **reasoned(3)), (10, 5, None, None, 3)),
    "a total that is too small": (report(total=3), (10, 5, None, None, None)),
    "vercel google, more reasoning than output": (
        report(market_cost=0.1, **reasoned(37)),
        (10, 42, None, None, 37),
    ),
    "vercel openai": (report(market_cost=0.1, **reasoned(4)), (10, 5, None, None, 4)),
    "openrouter, more reasoning than output": (report(cost=0.1, **reasoned(11)), (10, 5, None, None, 5)),
    "mistral audio": (
        report(total=390, prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 375}),
        (385, 5, 0, None, None),
    ),
    "audio and reasoning both outside": (
        report(total=30, prompt_tokens_details={"audio_tokens": 8}, **reasoned(7)),
        (18, 12, None, None, 7),
    ),
    "reasoning outside, audio inside": (
        report(total=45, prompt_tokens_details={"audio_tokens": 7}, **reasoned(30)),
        (10, 35, None, None, 30),
    ),
    "audio outside, reasoning inside": (
        report(total=390, prompt_tokens_details={"audio_tokens": 375}, **reasoned(2)),
        (385, 5, None, None, 2),
    ),
    "deepseek": (report(prompt_cache_hit_tokens=6, prompt_cache_miss_tokens=4), (10, 5, 6, None, None)),
    "mistral cached": (report(num_cached_tokens=6), (10, 5, 6, None, None)),
    "together cached": (report(cached_tokens=6), (10, 5, 6, None, None)),
    "vercel writes": (report(cache_creation_input_tokens=6), (10, 5, None, 6, None)),
    "perplexity reasoning": (report(reasoning_tokens=3), (10, 5, None, None, 3)),
    "more cached than asked": (report(prompt_tokens_details={"cached_tokens": 161}), (10, 5, 10, None, None)),
    "cached and written overlap": (
        report(prompt_tokens_details={"cached_tokens": 8, "cache_write_tokens": 8}),
        (10, 5, 8, 2, None),
    ),
    "figures as floats": (report(prompt=10.0, completion=5.0), (10, 5, None, None, None)),
    "the prompt alone": ({"prompt_tokens": 10}, (10, None, None, None, None)),
}


@pytest.mark.parametrize(("told", "expected"), CHAT.values(), ids=CHAT.keys())
def test_chat(told: dict[str, Any], expected: tuple[int | None, ...]) -> None:
    assert figures(chat(told)) == expected


def test_vercel_leaves_reasoning_out_for_google_whatever_its_size() -> None:
    told = report(market_cost=0.1, **reasoned(4))
    assert figures(chat(told, "google/gemini-3-pro-preview")) == (10, 9, None, None, 4)
    assert figures(chat(told, "openai/gpt-5")) == (10, 5, None, None, 4)


def test_elsewhere_a_google_model_is_read_as_any_other() -> None:
    assert figures(chat(report(cost=0.1, **reasoned(4)), "google/gemini-3-pro")) == (10, 5, None, None, 4)


def test_sources_and_completeness() -> None:
    whole, half = chat(report()), chat({"prompt_tokens": 10})
    assert whole is not None
    assert half is not None
    assert (whole.input_source, whole.output_source, whole.complete) == (Source.REPORTED, Source.REPORTED, True)
    assert (half.input_source, half.output_source, half.complete) == (Source.REPORTED, Source.NONE, False)


def test_timings_of_llama_cpp() -> None:
    assert figures(usage.timings({"cache_n": 83, "prompt_n": 1, "predicted_n": 57})) == (84, 57, 83, None, None)
    assert figures(usage.timings({"prompt_n": 1, "predicted_n": 57})) == (None, 57, None, None, None)
    assert usage.timings({"prompt_n": 9}) is None


def test_embeddings_generate_nothing() -> None:
    assert figures(usage.embeddings({"prompt_tokens": 7, "total_tokens": 7})) == (7, 0, None, None, None)
    assert figures(usage.embeddings({"total_tokens": 7})) == (7, 0, None, None, None)
    assert usage.embeddings({}) is None


def test_responses() -> None:
    told = {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 6},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 99,
    }
    assert figures(usage.responses(told)) == (20, 9, 5, 6, 4)


def test_counted_tokens() -> None:
    assert figures(usage.counted_tokens({"input_tokens": 43})) == (43, 0, None, None, None)
    assert figures(usage.counted_tokens({"totalTokens": 61, "promptTokensDetails": []})) == (61, 0, None, None, None)
    assert usage.counted_tokens({"input_tokens": None}) is None


# -- Anthropic ---------------------------------------------------------------------------------------------------------


def messages(*reports: Any) -> Usage:
    told = MessagesReport()
    for each in reports:
        told.add(each)
    found = told.usage()
    assert found is not None
    return found


def cached(given: int, read: int, written: int, output: int, **more: Any) -> dict[str, Any]:
    return {
        "input_tokens": given,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": output,
        **more,
    }


def test_reads_and_writes_of_the_cache_are_input() -> None:
    found = messages(cached(10, 200, 30, 5, output_tokens_details={"thinking_tokens": 2}))
    assert figures(found) == (240, 5, 200, 30, 2)


def test_without_a_cache_the_input_stands_alone() -> None:
    assert figures(messages({"input_tokens": 10, "output_tokens": 5})) == (10, 5, None, None, None)


def test_a_later_report_overrides_figure_by_figure_also_downwards() -> None:
    start = cached(10, 55096, 3, 1, cache_creation={"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2})
    found = messages(start, {"cache_read_input_tokens": 0, "output_tokens": 7, "input_tokens": None})
    assert figures(found) == (13, 7, 0, 3, None)
    assert found.cache_write_1h == 2


def test_a_report_tells_whether_it_told_an_output() -> None:
    told = MessagesReport()
    assert told.usage() is None
    assert not told.add({"input_tokens": 10})
    assert not told.add({"output_tokens": "7"})
    assert told.add({"output_tokens": 7})


def test_writes_for_an_hour_are_part_of_the_writes() -> None:
    one = {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 2056}}
    assert messages(cached(17, 0, 2056, 100, **one)).cache_write_1h == 2056
    assert messages(cached(17, 0, 56, 100, **one)).cache_write_1h == 56


def test_searches_and_costs_of_messages() -> None:
    found = messages({"server_tool_use": {"web_search_requests": 3}, "cost": 0.5}, {"output_tokens": 1})
    assert (found.searches, found.cost_micros) == (3, 500_000)


COMPACTION = cached(100, 0, 55096, 131, type="compaction")
LAST = cached(229, 0, 0, 5, type="message")


def test_iterations_are_the_bill_where_the_figures_beside_them_are_not() -> None:
    found = messages(cached(229, 0, 0, 5, iterations=[COMPACTION, LAST]))
    assert figures(found) == (229, 5, 0, 0, None)
    assert found.billed == (Billed(None, 55196, 131, 0, 55096), Billed(None, 229, 5, 0, 0))


def test_an_iteration_may_have_a_model_of_its_own() -> None:
    found = messages(cached(229, 0, 0, 5, iterations=[{**LAST, "model": "advisor-1"}]))
    assert found.billed == (Billed("advisor-1", 229, 5, 0, 0),)


@pytest.mark.parametrize(
    "iterations",
    [[LAST], [], [LAST, {"output_tokens": 3}], [COMPACTION, "x"], [COMPACTION] * 257, {}, None, "x"],
    ids=["the same figures", "none", "without an input", "not an object", "too many", "an object", "null", "a string"],
)
def test_iterations_that_say_nothing_more_are_no_bill(iterations: Any) -> None:
    assert messages(cached(229, 0, 0, 5, iterations=iterations)).billed == ()


# -- Google, Ollama ----------------------------------------------------------------------------------------------------


def test_thoughts_are_output_and_tools_are_input() -> None:
    told = {
        "promptTokenCount": 427,
        "candidatesTokenCount": 122,
        "totalTokenCount": 1767,
        "toolUsePromptTokenCount": 771,
        "thoughtsTokenCount": 447,
        "cachedContentTokenCount": 400,
    }
    assert figures(generate_content(told)) == (1198, 569, 400, None, 447)


def test_a_lost_candidates_count_is_in_the_total() -> None:
    told = {"promptTokenCount": 8, "totalTokenCount": 50, "thoughtsTokenCount": 30, "toolUsePromptTokenCount": 2}
    assert figures(generate_content(told)) == (10, 40, None, None, 30)


def test_an_output_that_is_left_out_stays_what_it_was() -> None:
    before = generate_content({"promptTokenCount": 8, "candidatesTokenCount": 20, "thoughtsTokenCount": 419})
    restarted = generate_content({"promptTokenCount": 9, "totalTokenCount": 9}, before)
    assert figures(restarted) == (9, 439, None, None, 419)
    thinking = {"promptTokenCount": 8, "thoughtsTokenCount": 500, "totalTokenCount": 508}
    assert figures(generate_content(thinking, restarted)) == (8, 500, None, None, 500)
    later = generate_content({"promptTokenCount": 8, "candidatesTokenCount": 16, "thoughtsTokenCount": 28}, restarted)
    assert figures(later) == (8, 44, None, None, 28)


def test_gemini_that_told_no_output_has_told_none() -> None:
    assert figures(generate_content({"promptTokenCount": 9, "totalTokenCount": 9})) == (9, None, None, None, None)
    assert figures(generate_content({"promptTokenCount": 9, "thoughtsTokenCount": 3})) == (9, 3, None, None, 3)
    assert generate_content({}) is None


def test_ollama() -> None:
    assert figures(ollama(26, 298)) == (26, 298, None, None, None)
    assert figures(ollama(None, 298)) == (None, 298, None, None, None)  # the prompt was cached
    assert figures(ollama(26, None)) == (26, 0, None, None, None)
    assert ollama(None, None) is None


# -- money, searches, hostility ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dollars", "expected"),
    [
        (0, 0),
        (2, 2_000_000),
        (0.0001346, 135),
        (0.0000005, 0),
        (0.0000015, 2),
        (0.0000025, 2),
        (0.0000035, 4),
        (0.0076509169000000005, 7651),
        (999_999.999999, 999_999_999_999),
        (1e-300, 0),
        (1e7, None),
        (-0.1, None),
        (math.nan, None),
        (math.inf, None),
        (True, None),
        ("0.1", None),
        (None, None),
        (10**400, None),
    ],
)
def test_dollars_become_whole_micro_dollars_half_to_even(dollars: Any, expected: int | None) -> None:
    assert micros(dollars) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"cost": 0.0005}, 500),
        ({"cost": 0}, 0),
        ({"cost": {"total_cost": 0.00501, "request_cost": 0.005}}, 5010),
        ({"cost": {}}, None),
        ({"cost_in_usd_ticks": 1654500}, 165),
        ({"cost_in_usd_ticks": 5_000}, 0),
        ({"cost_in_usd_ticks": 15_000}, 2),
        ({"cost_in_usd_ticks": 25_000}, 2),
        ({"cost_in_usd_ticks": 0}, None),
        ({"cost_in_usd_ticks": -5}, None),
        ({"cost_in_usd_ticks": 10**30}, None),
        ({"market_cost": 1}, None),
    ],
)
def test_what_a_provider_says_that_it_costs(told: dict[str, Any], expected: int | None) -> None:
    for found in (chat(report(**told)), usage.responses({"output_tokens": 1, **told})):
        assert found is not None
        assert found.cost_micros == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"server_tool_use": {"web_search_requests": 2}}, 2),
        ({"server_tool_use_details": {"web_search_requests": 2, "tool_calls_executed": 9}}, 2),
        ({"num_search_queries": 2}, 2),
        ({"num_sources_used": 2}, 2),
        ({"num_sources_used": 9, "server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 1}}, 3),
        ({"server_tool_use": {"web_search_requests": "2"}}, None),
        ({}, None),
    ],
)
def test_searches(told: dict[str, Any], expected: int | None) -> None:
    found = chat(report(**told))
    assert found is not None
    assert found.searches == expected


NO_FIGURES = [None, True, False, "7", -1, 1.5, 10**13, 1e300, math.inf, math.nan, [], [7], {}, {"a": 7}]


@pytest.mark.parametrize("value", NO_FIGURES, ids=repr)
def test_what_is_no_figure_is_as_good_as_absent(value: Any) -> None:
    assert usage.count(value) is None
    assert chat(report(value, value, value)) is None
    assert figures(chat(report(total=value, prompt_tokens_details=value, completion_tokens_details=value))) == (
        *(10, 5),
        *(None, None, None),
    )
    assert figures(chat(report(prompt_tokens_details={"cached_tokens": value}, **reasoned(value)))) == (
        *(10, 5),
        *(None, None, None),
    )
    assert figures(messages(cached(10, value, value, 5, cache_creation=value, server_tool_use=value))) == (
        *(10, 5),
        *(None, None, None),
    )


@pytest.mark.parametrize("value", [None, True, "usage", 7, 1.5, [], [{}]], ids=repr)
def test_what_is_no_report_is_none(value: Any) -> None:
    for read in (chat, usage.timings, usage.embeddings, usage.responses, generate_content, usage.counted_tokens):
        assert read(value) is None
    assert not MessagesReport().add(value)


def test_a_models_name_is_a_short_string() -> None:
    assert usage.as_model("gpt-own-1") == "gpt-own-1"
    assert [usage.as_model(value) for value in ("", None, 7, ["x"], "x" * 257)] == [None] * 5


KEYS = sorted(
    """prompt_tokens completion_tokens total_tokens prompt_tokens_details completion_tokens_details cached_tokens
    cache_write_tokens reasoning_tokens audio_tokens market_cost cost total_cost cost_in_usd_ticks num_sources_used
    server_tool_use web_search_requests input_tokens output_tokens input_tokens_details output_tokens_details
    cache_read_input_tokens cache_creation_input_tokens cache_creation ephemeral_1h_input_tokens thinking_tokens
    iterations promptTokenCount candidatesTokenCount thoughtsTokenCount totalTokenCount toolUsePromptTokenCount
    cachedContentTokenCount cache_n prompt_n predicted_n""".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 99) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12), st.sampled_from([None, "google/x"]))
@settings(max_examples=400, deadline=None)
def test_no_report_raises_and_no_part_is_larger_than_its_whole(told: dict[str, Any], model: str | None) -> None:
    overlaid = MessagesReport()
    overlaid.add(told)
    overlaid.add({"output_tokens": 3})
    found = [chat(told, model), usage.responses(told), overlaid.usage(), generate_content(told)]
    found += [usage.timings(told), usage.embeddings(told), usage.counted_tokens(told)]
    for each in found:
        if each is None:
            continue
        assert each.input is not None or each.output is not None
        for part in (each.cached, each.cache_write, each.cache_write_1h, each.reasoning, each.searches):
            assert part is None or 0 <= part <= 10**12
        if each.input is not None:
            assert (each.cached or 0) + (each.cache_write or 0) <= each.input <= 3 * 10**12
        if each.output is not None:
            assert (each.reasoning or 0) <= each.output <= 3 * 10**12


DETAIL_NAMES = ("cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens")
NAMES = ("prompt_tokens", "completion_tokens", "total_tokens", "cost", "reasoning_tokens", "cached_tokens")
_FIGURES = st.one_of(st.integers(-2, 60), st.none(), st.booleans(), st.floats(allow_nan=False), st.just(10**12 + 1))
_DETAILS = st.one_of(st.none(), st.just([]), st.dictionaries(st.sampled_from(DETAIL_NAMES), _FIGURES, max_size=4))


@given(st.integers(0, 50), st.integers(0, 50), _DETAILS, _DETAILS, st.dictionaries(st.sampled_from(NAMES), _FIGURES))
def test_the_short_way_says_what_the_long_way_says(
    prompt: int, completion: int, first: object, second: object, odd: dict[str, object]
) -> None:
    report = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": first,
        "completion_tokens_details": second,
        **odd,
    }
    short = chat(report)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usage, "_usual", lambda report: None)
        assert chat(report) == short
