"""What an exchange costs: known prices by hand, whose they are, and sums that are exact."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.load import VENDORS
from proxy.catalog.prices import Prices, PricesError, Rates, dollars
from proxy.catalog.urls import is_loopback, parse_base
from proxy.outcome import Billed, Usage

FILE = Path(__file__).resolve().parent.parent.parent / "proxy" / "catalog" / "prices.json"


@cache
def built_in() -> Prices:
    return Prices.built_in(FILE.read_bytes())


def at(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


NOW = at("2026-11-20T12:00")


def prices(*rows: dict[str, Any], version: str = "mine", **more: Any) -> Prices:
    written = [{"provider": "x", "model": "m"} | row for row in rows]
    return Prices.of(json.dumps({"version": version, "prices": written} | more).encode())


def cost(of: Prices, usage: Usage, model: str = "m", when: float = NOW) -> int | None:
    return of.cost("x", "10.0.0.5", model, usage, when)


# -- our table ----------------------------------------------------------------------------------------------------

ANTHROPIC = "api.anthropic.com"
BEDROCK = "bedrock-runtime.us-east-1.amazonaws.com"
GOOGLE = "generativelanguage.googleapis.com"


@pytest.mark.parametrize(
    ("host", "model", "usage", "microdollars"),
    [
        # 800 * 2.50 + 200 * 1.25 + 500 * 10 dollars for a million
        ("api.openai.com", "gpt-4o", Usage(1000, 500, cached=200), 7250),
        # 10 * 0.15 + 3 * 0.60 = 3.3
        ("api.openai.com", "gpt-4o-mini-2024-07-18", Usage(10, 3), 3),
        # an older snapshot has kept its price: 5 and 15
        ("api.openai.com", "gpt-4o-2024-05-13", Usage(1000, 1000), 20_000),
        # and a search is 10 dollars for a thousand: 1000 * 2 + 100 * 8 + 3 * 10,000
        ("api.openai.com", "gpt-4.1", Usage(1000, 100, searches=3), 32_800),
        # 5000 * 0.02
        ("api.openai.com", "text-embedding-3-small", Usage(5000, None), 100),
        # 3000 * 3 + 4000 * 0.30 + 2000 * 3.75 + 1000 * 6 + 100 * 15: writes for an hour cost twice the input
        (ANTHROPIC, "claude-sonnet-4-5-20250929", Usage(10_000, 100, 4000, 3000, 1000), 25_200),
        # more than 200,000 tokens: 6 and 22.50 for all of them
        (ANTHROPIC, "claude-sonnet-4-5", Usage(250_000, 1000), 1_522_500),
        (ANTHROPIC, "claude-sonnet-4-5", Usage(200_000, 1000), 615_000),
        # reasoning is output: 1000 * 1 + 1000 * 5
        (ANTHROPIC, "claude-haiku-4-5", Usage(1000, 1000, reasoning=900), 6000),
        # 1000 * 1.25 + 10 * 10
        (GOOGLE, "models/gemini-2.5-pro", Usage(1000, 10), 1350),
        # 200,001 * 2.50 + 10 * 15 = 500,152.5
        (GOOGLE, "gemini-2.5-pro", Usage(200_001, 10), 500_152),
        # 57 * 0.30 + 47 * 2.50 = 134.6, which is what Vercel's gateway charged for the recorded request
        (GOOGLE, "gemini-2.5-flash", Usage(57, 47, reasoning=37), 135),
        # 1,000,000 * 0.05 + 100,000 * 0.08
        ("api.groq.com", "llama-3.1-8b-instant", Usage(1_000_000, 100_000), 58_000),
        # (289 - 128) * 1.25 + 128 * 0.20 + 171 * 2.50 = 654.35, as xAI's own ticks say of a recorded request
        ("api.x.ai", "grok-4.3", Usage(289, 171, cached=128, reasoning=163), 654),
        # 1 * 0.30 + 11 * 0.075 + 291 * 0.50 = 146.625, the same
        ("api.x.ai", "grok-3-mini", Usage(12, 291, cached=11, reasoning=290), 147),
        # 3 * 3 + 3211 * 3.75 + 100 * 15 = 13,550.25, as OpenRouter's bill says
        ("openrouter.ai", "anthropic/claude-4.6-sonnet-20260217", Usage(3214, 100, 0, 3211), 13_550),
        ("openrouter.ai", "Anthropic/Claude-Sonnet-4.6", Usage(3214, 100, 0, 3211), 13_550),
        ("openrouter.ai", "minimax/minimax-m2:free", Usage(43, 10), 0),
        # (76 - 64) * 0.45 + 64 * 0.225 + 47 * 2.20 = 123.2, as Avian's bill says
        ("api.avian.io", "moonshotai/kimi-k2.5", Usage(76, 47, cached=64), 123),
        # Azure sells OpenAI's models for OpenAI's price
        ("mine.openai.azure.com", "gpt-4.1-mini", Usage(1000, 1000), 2000),
        # Bedrock's regional endpoints cost a tenth more: 3.30 and 16.50
        (BEDROCK, "us.anthropic.claude-sonnet-4-5-20250929-v1:0", Usage(1000, 1000), 19_800),
        # Vertex: Anthropic's models at Google
        ("us-east5-aiplatform.googleapis.com", "claude-haiku-4-5@20251001", Usage(1000, 1000), 6000),
    ],
)  # fmt: skip
def test_known_prices(host: str, model: str, usage: Usage, microdollars: int) -> None:
    assert built_in().cost("work", host, model, usage, NOW) == microdollars


@pytest.mark.parametrize(
    ("host", "model"),
    [
        ("api.openai.com", "gpt-99"),
        ("api.openai.com", "meta-llama/Llama-3.1-8B"),
        ("api.openai.com", ""),
        ("api.openai.com", "gpt-4o" + "x" * 10_000),
        # These answer in what costs apart, and no usage tells how much.
        ("api.openai.com", "gpt-4o-audio-preview"),
        (GOOGLE, "gemini-2.5-flash-image"),
        ("api.perplexity.ai", "sonar"),
        # They cost otherwise than the models that their names begin with.
        (GOOGLE, "gemini-2.5-pro-of-tomorrow-tts"),
        (ANTHROPIC, "claude-fable-5-9"),
        ("10.0.0.5", "gpt-4o"),
        ("", "gpt-4o"),
    ],
)
def test_a_price_that_is_not_known_is_none(host: str, model: str) -> None:
    assert built_in().cost("work", host, model, Usage(1000, 1000), NOW) is None


def test_prices_have_a_history() -> None:
    usage = Usage(250_000, 0)
    when = at("2026-03-13T00:00")  # until then Claude Opus 4.6 cost double beyond 200,000 tokens
    found = [built_in().cost("", ANTHROPIC, "claude-opus-4-6", usage, moment) for moment in (when - 1, when)]
    assert found == [2_500_000, 1_250_000]


def test_the_time_of_the_day_counts_where_a_vendor_says_so() -> None:
    usage = Usage(1_000_000, 0)
    times = ("00:29", "00:30", "16:29", "16:30")  # DeepSeek, at half price in China's night
    found = [
        built_in().cost("", "api.deepseek.com", "deepseek-chat", usage, at(f"2025-06-01T{time}")) for time in times
    ]
    assert found == [135_000, 270_000, 270_000, 135_000]


def test_every_row_of_it_is_right() -> None:
    """`built_in` does not look; `of` does."""
    assert Prices.of(FILE.read_bytes()).version == built_in().version
    assert built_in().version.startswith("genai-prices-")


def test_it_is_small_and_says_whose_work_it_is() -> None:
    data = FILE.read_bytes()
    assert len(data) < 400_000
    document = json.loads(data)
    assert "genai-prices" in document["source"]
    assert "Permission is hereby granted" in document["licence"]
    assert "Copyright (c) Pydantic" in document["licence"]


def test_it_lists_what_people_ask_for() -> None:
    rows = list(built_in().rows())
    assert {"openai", "anthropic", "gemini", "azure", "mistral", "xai"} <= {price.provider for price, _, _ in rows}
    [found] = [rates for price, over, rates in rows if (price.provider, price.model) == ("openai", "gpt-4o")]
    assert found == Rates(2_500_000_000, 10_000_000_000, 1_250_000_000, search=10**13)
    steps = [over for price, over, _ in rows if (price.provider, price.model) == ("gemini", "gemini-2.5-pro*")]
    assert steps == [0, 200_000]
    assert all(price.version == built_in().version for price, _, _ in rows)


# -- whose prices -------------------------------------------------------------------------------------------------


def test_vendors_at_their_own_hosts_have_the_prices_of_their_name() -> None:
    for name, vendor in VENDORS.items():
        base = parse_base(vendor.url) if vendor.url else None
        if base is not None and not isinstance(base, str) and not is_loopback(base.host):
            assert built_in().vendor_of("any", base.host) == name


@pytest.mark.parametrize(
    ("provider", "host", "is_known"),
    [
        ("openai", "api.openai.com", True),
        ("OpenAI", "llm.acme.com", True),
        ("work", "API.OpenAI.com.", True),
        # Behind a gateway the vendor's prices hold, whoever has put it there ...
        ("openai", "llm.acme.com", True),
        ("azure", "apim.acme.com", True),
        # ... but a name that the user thought of is no vendor, and a server in the house none either.
        ("work", "llm.acme.com", False),
        ("vllm", "10.0.0.5", False),
        ("openai", "10.0.0.5", False),
        ("openai", "127.0.0.1", False),
        ("openai", "::1", False),
        ("openai", "fd00::1.2.3.4", False),
        ("openai", "localhost", False),
        ("openai", "localai", False),
        ("openai", "vllm.models.svc.cluster.local", False),
        ("openai", "host.docker.internal", False),
        # The host proves more than the name.
        ("openai", "api.groq.com", False),
    ],
)
def test_whose_prices_hold(provider: str, host: str, is_known: bool) -> None:
    assert (built_in().find(provider, host, "gpt-4o", NOW) is not None) is is_known


def test_only_vendors_that_have_variables_of_their_own_are_known_by_name() -> None:
    model = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    assert built_in().find("together", "api.together.xyz", model, NOW) is not None
    assert built_in().find("together", "llm.acme.com", model, NOW) is None


def test_a_users_table_names_providers_as_the_settings_do() -> None:
    mine = built_in().overlaid(prices({"provider": "vllm", "model": "llama-3*", "input": "0.20", "output": 0.60}))
    usage = Usage(1_000_000, 1_000_000)
    assert mine.cost("vllm", "10.0.0.5", "llama-3.1-8b", usage, NOW) == 800_000
    assert mine.cost("vllm", "10.0.0.5", "qwen", usage, NOW) is None
    assert mine.cost("other", "10.0.0.5", "llama-3.1-8b", usage, NOW) is None


def test_a_users_table_can_say_at_which_hosts_a_vendors_prices_hold() -> None:
    mine = built_in().overlaid(prices(hosts={"openai": ["10.0.0.5", "*.house"]}))
    for host in ("10.0.0.5", "llm.house"):
        found = mine.find("work", host, "gpt-4o", NOW)
        assert found is not None
        assert found.provider == "openai"
    # A host of ours may become another one's.
    other = built_in().overlaid(prices({"provider": "x", "input": 1}, hosts={"x": ["api.openai.com"]}))
    assert other.find("work", "api.openai.com", "gpt-4o", NOW) is None
    assert other.find("work", "api.openai.com", "m", NOW) is not None


# -- tables over each other ---------------------------------------------------------------------------------------


def test_a_users_rows_win_and_all_others_stay() -> None:
    mine = built_in().overlaid(
        prices(
            {"provider": "openai", "model": "gpt-4o*", "input": 1, "output": 2, "from": "2026-01-01"},
            {"provider": "anthropic", "model": "claude-opus*"},
        )
    )
    usage = Usage(1000, 1000)

    def found(host: str, model: str, when: str) -> int | None:
        return mine.cost("any", host, model, usage, at(when))

    # Theirs is a pattern and ours the name itself; theirs wins all the same, once it has begun.
    assert found("api.openai.com", "gpt-4o", "2026-01-01T00:00") == 3000
    assert found("api.openai.com", "gpt-4o", "2025-12-31T23:59") == 12_500
    assert found("api.openai.com", "gpt-4.1", "2026-01-01T00:00") == 10_000
    # A row without figures makes a price one that is not known.
    assert found(ANTHROPIC, "claude-opus-4-5", "2026-01-01T00:00") is None
    assert found(ANTHROPIC, "claude-haiku-4-5", "2026-01-01T00:00") == 6000


def test_the_version_names_both_and_each_price_its_own() -> None:
    mine = built_in().overlaid(prices({"provider": "openai", "model": "gpt-4o", "input": 1}, version="acme-1"))
    assert mine.version == f"{built_in().version}+acme-1"
    first = mine.find("", "api.openai.com", "gpt-4o", NOW)
    second = mine.find("", "api.openai.com", "gpt-4.1", NOW)
    assert first is not None
    assert second is not None
    assert (first.version, second.version) == ("acme-1", built_in().version)
    assert next(mine.rows())[0] == first


def test_a_table_that_cannot_be_used_says_why() -> None:
    with pytest.raises(PricesError, match="`input` must be"):
        prices({"input": -1})


# -- names of models ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        *("m-1", " M-1 ", "models/m-1", "publishers/acme/models/M-1"),
        *("m-1-2026-10-30", "m-1-20261030", "m-1@20261030", "models/m-1-2026-10-30"),
    ],
)
def test_names_are_looked_up_without_path_and_date(model: str) -> None:
    assert prices({"model": "m-1", "input": 1}).find("x", "", model, NOW) is not None


@pytest.mark.parametrize(
    "model", ["m-1-2026-13-30", "m-1-2026-1030", "m-1-1030", "m-1-x", "x/m-1", "accounts/me/models/m-1"]
)
def test_what_is_no_date_and_no_path_stays_in_the_name(model: str) -> None:
    assert prices({"model": "m-1", "input": 1}).find("x", "", model, NOW) is None


def test_a_date_with_a_price_of_its_own_goes_before_the_name_without_it() -> None:
    both = prices({"model": "m", "input": 1}, {"model": "m-2024-05-13", "input": 2})
    assert [cost(both, Usage(10, 0), name) for name in ("m", "m-2024-05-13", "m-20240513", "m-2024-05-14")] == [
        *(10, 20, 20, 10)
    ]


def test_what_is_found_is_remembered_within_bounds() -> None:
    one = prices({"model": "m*", "input": 1})
    for number in range(3000):
        assert one.find("x", "", f"m{number}", NOW) is not None
        assert one.find("x", "", f"n{number}", NOW) is None
    assert len(one._found) <= 1000


# -- sums ---------------------------------------------------------------------------------------------------------

ALL = {"input": 10, "output": 100, "cached": 1, "cache_write": 12, "cache_write_1h": 20, "reasoning": 50}
ALL |= {"search": 0.01, "request": 0.005}


def test_each_kind_of_token_has_its_own_price_and_the_rest_that_of_what_holds_it() -> None:
    usage = Usage(1000, 100, cached=200, cache_write=300, cache_write_1h=100, reasoning=40, searches=2)
    # 500 * 10 + 200 * 1 + 200 * 12 + 100 * 20 + 60 * 100 + 40 * 50 + 2 * 10,000 + 5,000
    assert cost(prices(ALL), usage) == 5000 + 200 + 2400 + 2000 + 6000 + 2000 + 20_000 + 5000
    # without prices of their own: 1000 * 10 + 100 * 100
    assert cost(prices({"input": 10, "output": 100, "search": 0}), usage) == 20_000
    # writes for an hour cost at least what others do: 700 * 10 + 300 * 12 + 100 * 100
    assert cost(prices({"input": 10, "output": 100, "cache_write": 12, "search": 0}), usage) == 20_600


@pytest.mark.parametrize(
    ("half", "microdollars"),
    # Tokens at half a microdollar each: 0.5, 1.5, 2.5 ... go to the even one.
    [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4), (9, 4), (11, 6)],
)
def test_halves_go_to_the_even_microdollar(half: int, microdollars: int) -> None:
    assert cost(prices({"input": "0.5", "output": 0}), Usage(half, 0)) == microdollars


def test_it_is_rounded_once_on_the_sum() -> None:
    # 0.4 + 0.4 + 0.4 + 0.4 are 1.6, and not four times nothing
    four = prices({"input": 0.4, "cached": 0.4, "cache_write": 0.4, "output": 0.4})
    assert cost(four, Usage(3, 1, cached=1, cache_write=1)) == 2
    # a hair above and below the half
    assert cost(prices({"input": "0.500000001", "output": 0}), Usage(1, 0)) == 1
    assert cost(prices({"input": "1.499999999", "output": 0}), Usage(1, 0)) == 1


AMOUNTS = st.decimals(min_value=0, max_value=1000, places=9)
COUNTS = st.integers(min_value=0, max_value=10**7)


@given(AMOUNTS, AMOUNTS, AMOUNTS, COUNTS, COUNTS, COUNTS)
def test_sums_are_those_of_decimals(
    input: Decimal, output: Decimal, cached: Decimal, held: int, out: int, part: int
) -> None:
    part = min(part, held)
    one = prices({"input": str(input), "output": str(output), "cached": str(cached)})
    exact = (held - part) * input + part * cached + out * output
    assert cost(one, Usage(held, out, cached=part)) == int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))


@pytest.mark.parametrize(
    ("usage", "microdollars"),
    [
        # More cached than there was input (WIRE 0.13), more written than is left, more reasoning than output.
        (Usage(10, 0, cached=161), 10 * 1),
        (Usage(10, 0, cached=4, cache_write=100), 4 * 1 + 6 * 12),
        (Usage(10, 0, cache_write=4, cache_write_1h=100), 6 * 10 + 4 * 20),
        (Usage(10, 0, cache_write_1h=4), 100),
        (Usage(0, 10, reasoning=100), 10 * 50),
        (Usage(-5, -5, cached=-5, cache_write=-5, cache_write_1h=-5, reasoning=-5, searches=-5), 0),
        (Usage(10, 10, cached=-5, cache_write=-5, reasoning=-5), 100 + 1000),
        (Usage(0, 0), 0),
    ],
)
def test_figures_that_contradict_each_other_are_cut(usage: Usage, microdollars: int) -> None:
    assert cost(prices(ALL | {"request": 0}), usage) == microdollars


@pytest.mark.parametrize(
    ("row", "usage", "microdollars"),
    [
        # A figure that is not known matters, unless its price is nothing.
        ({"input": 1, "output": 1}, Usage(None, 10), None),
        ({"input": 1, "output": 1}, Usage(10, None), None),
        ({"input": 0, "output": 1}, Usage(None, 10), 10),
        ({"input": 1, "output": 0}, Usage(10, None), 10),
        ({"input": 0, "output": 0}, Usage(), 0),
        # A price that is not known matters, unless its figure is nothing.
        ({"input": 1}, Usage(10, None), 10),
        ({"input": 1}, Usage(10, 0), 10),
        ({"input": 1}, Usage(10, 1), None),
        ({"output": 1}, Usage(0, 10), 10),
        ({"output": 1}, Usage(None, 10), None),
        ({"output": 1}, Usage(10, 10), None),
        ({"output": 1, "cached": 1}, Usage(10, 10, cached=10), 20),
        ({"output": 1, "cached": 1}, Usage(10, 10, cached=9), None),
        ({"input": 1, "output": 1}, Usage(10, 10, searches=0), 20),
        ({"input": 1, "output": 1}, Usage(10, 10, searches=1), None),
        ({"input": 1, "output": 1, "search": 0}, Usage(10, 10, searches=1), 20),
        ({"reasoning": 1, "input": 1}, Usage(0, 10, reasoning=10), 10),
        ({"request": 1, "input": 0, "output": 0}, Usage(10, 10), 1_000_000),
        ({}, Usage(0, 0), None),
    ],
)
def test_unknown_is_none_and_never_nothing(row: dict[str, Any], usage: Usage, microdollars: int | None) -> None:
    assert cost(prices(row), usage) == microdollars


def test_what_nobody_can_have_used_has_no_cost() -> None:
    assert cost(prices({"input": 1, "output": 0}), Usage(2**53, 0)) == 2**53
    assert cost(prices({"input": 1, "output": 0}), Usage(2**53 + 1, 0)) is None
    assert cost(prices({"input": 1, "output": 0}), Usage(10**400, 0)) is None


def test_where_parts_are_billed_they_are_the_cost() -> None:
    two = prices(
        {"input": 1, "output": 10, "cached": 0.1, "search": 0.01}, {"model": "advisor", "input": 5, "output": 50}
    )
    billed = (Billed(None, 1000, 10, cached=500), Billed("advisor", 100, 1), Billed(None, 10, 0))
    # 500 * 1 + 500 * 0.1 + 10 * 10 + 100 * 5 + 1 * 50 + 10 * 1, and the search once; the sums of the usage do not count
    assert cost(two, Usage(7, 7, searches=1, billed=billed)) == 500 + 50 + 100 + 500 + 50 + 10 + 10_000
    assert cost(two, Usage(7, 7, billed=(*billed, Billed("nobody", 0, 0)))) is None
    assert cost(two, Usage(7, 7, billed=billed), model="nobody") is None
    assert cost(two, Usage(7, 7, searches=1, billed=(Billed("advisor", 1, 1),)), model="advisor") is None


def test_parts_that_write_for_an_hour_share_what_the_usage_says_of_it() -> None:
    one = prices({"input": 1, "output": 0, "cache_write": 2, "cache_write_1h": 4})
    billed = (Billed(None, 100, 0, 0, 60), Billed(None, 100, 0, 0, 60))
    # 80 * 1 + 30 * 2 + 90 * 4
    assert cost(one, Usage(0, 0, cache_write_1h=90, billed=billed)) == 80 + 60 + 360


def test_parts_find_the_price_for_their_own_size() -> None:
    one = prices({"input": 1, "output": 1}, {"input": 2, "over": 100})
    assert cost(one, Usage(300, 0, billed=(Billed(None, 101, 0), Billed(None, 100, 0)))) == 302


def test_fees_too_may_depend_on_the_size() -> None:
    one = prices({"input": 0, "output": 0, "search": 1}, {"search": 2, "over": 100})
    assert [cost(one, Usage(size, 0, searches=3)) for size in (100, 101)] == [3_000_000, 6_000_000]


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, "0"), (1, "0.000000001"), (75_000_000, "0.075"), (10**9, "1"), (15 * 10**10, "150"), (1_500_000_000, "1.5")],
)
def test_rates_are_shown_in_dollars(rate: int, text: str) -> None:
    assert dollars(rate) == text
