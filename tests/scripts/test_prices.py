"""scripts/build_prices.py, on a package of our own making: what becomes of each thing that the package can say."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from proxy.catalog.prices import Prices
from scripts import build_prices

NOW = 1_795_176_000  # 2026-11-20, noon


def package(*models: str, provider: str = "id='openai', api_pattern='https://api\\\\.openai\\\\.com'") -> str:
    """The text of such a package: expressions that are read and not run."""
    listed = ", ".join(models)
    return f"# checked 2026-11-03\nproviders: list[Provider] = [Provider({provider}, models=[{listed}])]\n"


def model(match: str, prices: str, name: str = "m") -> str:
    return f"ModelInfo(id={name!r}, match={match}, prices={prices})"


def price(**figures: str) -> str:
    return "ModelPrice(" + ", ".join(f"{key}=Decimal('{value}')" for key, value in figures.items()) + ")"


def rows(*models: str, **more: str) -> list[dict[str, Any]]:
    text = package(*models, **more)
    document = build_prices.build(text, "as you like")
    build_prices.check(text, document)
    Prices.of(document.encode())
    found: dict[str, list[dict[str, Any]]] = json.loads(document, parse_float=Decimal)["prices"]
    return [row for each in found.values() for row in each]


EQUALS = "ClauseEquals(equals='Model-1')"
PRICE = price(input_mtok="0.5", output_mtok="2")


def test_the_same_package_makes_the_same_document() -> None:
    text = package(model(EQUALS, PRICE), model("ClauseEquals(equals='a')", PRICE))
    document = build_prices.build(text, "as you like")
    assert document == build_prices.build(text, "as you like")
    read = json.loads(document)
    assert read["version"] == f"genai-prices-{build_prices.VERSION}-2026-11-03"
    assert (read["licence"], read["hosts"]) == ("as you like", {"openai": ["api.openai.com"]})
    assert [row["model"] for row in read["prices"]["openai"]] == ["a", "model-1"]


def test_the_table_at_hand_is_that_of_the_version_named_here() -> None:
    assert json.loads(build_prices.TARGET.read_text())["version"].startswith(f"genai-prices-{build_prices.VERSION}-")


@pytest.mark.parametrize(
    ("match", "names"),
    [
        (EQUALS, "model-1"),
        ("ClauseStartsWith(starts_with='GPT')", "gpt*"),
        ("ClauseEndsWith(ends_with='gpt')", "*gpt"),
        ("ClauseContains(contains='gpt')", "*gpt*"),
        ("ClauseOr(or_=[ClauseEquals(equals='b'), ClauseEquals(equals='a')])", ["a", "b"]),
        (r"ClauseRegex(regex='^gpt-5\\.6-sol-\\d{4}-\\d{2}-\\d{2}$')", "gpt-5.6-sol"),
        (r"ClauseRegex(regex='^x-ai/grok-4\\.3-\\d{8}$')", "x-ai/grok-4.3"),
        (r"ClauseRegex(regex='^claude-opus-5[-@]\\d{8}$')", "claude-opus-5"),
        (r"ClauseRegex(regex='^gemini-3\\.5-flash-\\d')", "gemini-3.5-flash-0*"),
    ],
)
def test_clauses_become_patterns(match: str, names: str | list[str]) -> None:
    assert rows(model(match, PRICE)) == [{"model": names, "input": Decimal("0.5"), "output": 2}]


def test_what_speaks_is_not_priced_as_what_writes() -> None:
    match = r"ClauseAnd(and_=[ClauseStartsWith(starts_with='g'), ClauseRegex(regex='^(?!.*-[tT][tT][sS](?:$|-))')])"
    found = rows(model(match, PRICE), model("ClauseEquals(equals='gpt-audio')", PRICE))
    assert found == [
        {"model": "g*", "input": Decimal("0.5"), "output": 2},
        {"model": ["g*-tts", "g*-tts-*"]},
        {"model": "gpt-audio"},
    ]


@pytest.mark.parametrize(
    ("figures", "row"),
    [
        ({"input_mtok": "1.0399999999999998", "output_mtok": "0"}, {"input": Decimal("1.04"), "output": 0}),
        ({"input_mtok": "1", "cache_write_1h_mtok": "2"}, {"input": 1, "cache_write_1h": 2}),
        ({"input_mtok": "1", "web_searches_kcount": "10"}, {"input": 1, "search": Decimal("0.01")}),
        ({"input_mtok": "1", "input_audio_mtok": "9", "storage_searches_kcount": "1"}, {"input": 1}),
        # What our figures do not tell: a price that is not known.
        ({"input_mtok": "1", "output_audio_mtok": "9"}, {}),
        ({"input_mtok": "1", "requests_kcount": "9"}, {}),
        ({"audio_hours": "1"}, {}),
        ({}, {}),
    ],
)
def test_figures(figures: dict[str, str], row: dict[str, Any]) -> None:
    assert rows(model(EQUALS, price(**figures))) == [{"model": "model-1"} | row]


def test_steps_name_only_what_changes() -> None:
    tiers = "Tier(start=100, price=Decimal('2')), Tier(start=200, price=Decimal('3'))"
    tiers = f"TieredPrices(base=Decimal('1'), tiers=[{tiers}])"
    found = rows(model(EQUALS, f"ModelPrice(input_mtok={tiers}, output_mtok=Decimal('5'))"))
    assert [{key: row[key] for key in row if key != "model"} for row in found] == [
        {"input": 1, "output": 5},
        {"over": 100, "input": 2},
        {"over": 200, "input": 3},
    ]


def test_conditions_become_days_and_hours() -> None:
    def conditional(constraint: str, figures: str) -> str:
        return f"ConditionalPrice({constraint}prices={figures})"

    day = "constraint=StartDateConstraint(start_date=datetime.date({})), "
    hours = (
        "constraint=TimeOfDateConstraint(start_time=datetime.time(0, 30, tzinfo=datetime.UTC), "
        "end_time=datetime.time(16, 30, tzinfo=datetime.UTC)), "
    )
    conditions = [
        conditional("", price(input_mtok="1")),
        conditional(day.format("2026, 1, 2"), price(input_mtok="1", input_audio_mtok="7")),  # nothing of ours changes
        conditional(day.format("2026, 2, 3"), price(input_mtok="2")),
        conditional(hours, price(input_mtok="4")),
    ]
    assert rows(model(EQUALS, f"[{', '.join(conditions)}]")) == [
        {"model": "model-1", "input": 1},
        {"model": "model-1", "from": "2026-02-03", "input": 2},
        {"model": "model-1", "from": "2026-02-03", "hours": "00:30-16:30", "input": 4},
    ]


def test_a_name_that_two_models_claim_is_the_first_ones() -> None:
    found = rows(model(EQUALS, PRICE), model("ClauseOr(or_=[ClauseEquals(equals='model-1')])", price(input_mtok="9")))
    assert [row["input"] for row in found] == [Decimal("0.5")]


def test_what_is_free_at_openrouter_is_so_by_its_name() -> None:
    provider = "id='openrouter', api_pattern='https://(api\\\\.)?openrouter\\\\.ai'"
    free = model("ClauseEquals(equals='a/b:free')", "ModelPrice()", "a/b:free")
    assert rows(free, provider=provider) == [{"model": "*:free", "input": 0, "output": 0}]


def test_providers_behind_hugging_faces_router_are_named_at_the_end() -> None:
    provider = "id='huggingface_groq', api_pattern='https://router\\\\.huggingface\\\\.co/groq'"
    assert rows(model("ClauseStartsWith(starts_with='Qwen/')", PRICE), provider=provider)[0]["model"] == "qwen/*:groq"


def test_a_vendor_that_sells_others_models() -> None:
    provider = "id='azure', api_pattern='.*', fallback_model_providers=['openai', 'x-ai']"
    document = build_prices.build(package(model(EQUALS, PRICE), provider=provider), "")
    assert json.loads(document)["also"] == {"azure": ["openai", "xai"]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (package(provider="id='new', api_pattern='.*'"), "provider new is new"),
        (package(provider="id='openai', api_pattern='https://elsewhere'"), "openai is not at api.openai.com any more"),
        (package(model("ClauseLike(like='m')", PRICE)), "a clause of names that is not known"),
        (package(model("ClauseRegex(regex='^a|b$')", PRICE)), "an expression of names that is not known"),
        (
            package(model(EQUALS, "[ConditionalPrice(constraint=Moon(), prices=ModelPrice())]")),
            "a condition that is not",
        ),
        (package(model(EQUALS, "lambda: 1")), "cannot read Lambda"),
        ("models = []", "hold no providers"),
    ],
)
def test_what_is_not_foreseen_ends_the_run(text: str, why: str) -> None:
    with pytest.raises(build_prices.Unforeseen, match=why):
        build_prices.build(text, "")


def test_a_table_that_says_something_else_than_the_package_is_not_written() -> None:
    text = package(
        model("ClauseStartsWith(starts_with='m')", PRICE), model("ClauseStartsWith(starts_with='mo')", PRICE)
    )
    document = build_prices.build(text, "")
    build_prices.check(text, document)
    with pytest.raises(build_prices.Unforeseen, match="m of openai would have another price"):
        build_prices.check(text, document.replace('"output":2', '"output":3'))
