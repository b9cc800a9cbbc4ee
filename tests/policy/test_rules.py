"""The line that says what may pass."""

from __future__ import annotations

import pytest

from proxy.policy.rules import (
    INPUT,
    MICROS,
    OUTPUT,
    REQUESTS,
    TOKENS,
    Budget,
    Rate,
    Rules,
    RulesError,
    dollars,
    parse_rules,
    written,
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("rpm=60", Rate("rpm", REQUESTS, 60, 60, 60)),
        ("RPS=5/10", Rate("rps", REQUESTS, 5, 1, 10)),
        ("rph=2", Rate("rph", REQUESTS, 2, 3600, 2)),
        ("tpm=100k/20k", Rate("tpm", TOKENS, 100_000, 60, 20_000)),
        ("itpd=1.5M", Rate("itpd", INPUT, 1_500_000, 86_400, 1_500_000)),
        ("otps=1g/1", Rate("otps", OUTPUT, 10**9, 1, 1)),
    ],
)
def test_a_rate(text: str, rate: Rate) -> None:
    assert parse_rules(text) == Rules((rate,))


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("20usd/month", Budget("usd/month", MICROS, 20_000_000, "month", True)),
        ("0.000001usd/hour", Budget("usd/hour", MICROS, 1, "hour", True)),
        ("1.5kusd/total:hard", Budget("usd/total", MICROS, 1_500_000_000, "total", True)),
        ("2Mtokens/day:warn", Budget("tokens/day", TOKENS, 2_000_000, "day", False)),
        ("1token/week", Budget("tokens/week", TOKENS, 1, "week", True)),
    ],
)
def test_a_budget(text: str, budget: Budget) -> None:
    assert parse_rules(text) == Rules((), (budget,))


def test_many_in_one_line() -> None:
    rules = parse_rules(" rpm=60, tpm=1k\n concurrent=4 1usd/day ")
    assert ([rate.name for rate in rules.rates], rules.concurrent) == (["rpm", "tpm"], 4)
    assert rules.counts_tokens
    assert parse_rules("") == parse_rules(" ,") == Rules()
    assert not parse_rules("rpm=1 concurrent=1").counts_tokens


@pytest.mark.parametrize(
    "word",
    [
        *("rpm", "rpm=", "rpm=0", "rpm=-1", "rpm=1.5", "rpm=x", "rpm=1/0", "rpm=1/", "rpx=1", "qpm=1", "rpm=1e9"),
        *("concurrent=0", "concurrent=x", "concurrent=1/2", "rpm=9999999g", "rpm=1/9999999g"),
        *("usd/day", "0usd/day", "0.0000001usd/day", "1eur/day", "1usd", "1usd/year", "1usd/day:maybe", "1.2.3usd/day"),
        *("1.5tokens/day", "9999999gusd/day", "20 usd/month", "hello"),
    ],
)
def test_what_is_no_rule(word: str) -> None:
    with pytest.raises(RulesError) as raised:
        parse_rules(f"tpm=1 {word}")
    assert raised.value.problems
    assert word.split()[0] in str(raised.value)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(RulesError) as raised:
        parse_rules("rpm=1 rpm=2 1usd/day 2usd/day:warn nonsense concurrent=1 concurrent=1")
    assert [problem.partition(":")[0] for problem in raised.value.problems] == [
        "'rpm=2'",
        "'2usd/day",
        "'nonsense'",
        "'concurrent=1'",
    ]


@pytest.mark.parametrize("text", ["rpm=60/10 tpm=100000 concurrent=4 20.5usd/month 2000000tokens/day:warn", ""])
def test_rules_are_written_as_they_are_read(text: str) -> None:
    assert written(parse_rules(text)) == text


def test_dollars() -> None:
    assert [dollars(micros) for micros in (0, 1, 20_500_000, 10**12)] == ["0", "0.000001", "20.5", "1000000"]


def test_a_rate_has_a_step_and_a_sign_of_its_own() -> None:
    (rate,) = parse_rules("rps=3").rates
    assert rate.step == 333_333_334
    others = [*parse_rules("rps=3/4").rates, *parse_rules("rps=4/3").rates, *parse_rules("rpm=3").rates, rate]
    assert len({other.sign for other in others} - {0}) == 4
    assert parse_rules("rps=1").rates[0].sign == parse_rules("rps=1/1").rates[0].sign < 2**63
