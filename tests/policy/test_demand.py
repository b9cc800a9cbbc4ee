"""What a request may cost at most, what it did cost, and what a client is told that may not come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.catalog.prices import Prices
from proxy.catalog.snapshot import Origin, Provider, Reserves, Snapshot
from proxy.dialects import DIALECTS
from proxy.dialects.call import Call
from proxy.outcome import Failure, Kind, Usage, status_of
from proxy.policy.counters import MemoryStore
from proxy.policy.demand import NOTHING, PREAMBLE, demand_of, failure_of, used_of
from proxy.policy.limits import FOREVER, Chain, Demand, Hold, Limiter, Refusal
from proxy.policy.rules import INPUT, OUTPUT, parse_rules
from tests import recordings
from tests.dialects import transcripts
from tests.dialects.test_watch_recorded import READ, dialect_of

NOW = 1_800_000_000 * 10**9
HOST = Provider("openai", "openai", Origin("https", "api.openai.com", 443))
PRICES = Prices.of(
    b'{"version":"t","prices":[{"provider":"openai","model":"gpt-5","input":1,"output":10,"cached":0.1},'
    b'{"provider":"openai","model":"written","input":1,"output":10,"cache_write":2},'
    b'{"provider":"openai","model":"embed","input":1}]}'
)
WINDOW = 200_000
BODY = json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}).encode()


def chain(line: str) -> tuple[Limiter, Chain]:
    limiter = Limiter(MemoryStore(), lambda window, now: FOREVER)
    limiter.set_rules("key ci", parse_rules(line))
    return limiter, limiter.chain("ci", None, (), None)


def demand(
    line: str = "1usd/day", body: bytes = BODY, model: str = "gpt-5", prices: Prices | None = PRICES, **call: object
) -> Demand | Failure:
    snapshot = Snapshot({}, prices=prices, reserves=Reserves(1000, 500))
    asked = Call(model, **call)  # type: ignore[arg-type]
    return demand_of(chain(line)[1], asked, body, model, HOST, snapshot, 1.8e9)


def most(found: Demand | Failure) -> tuple[int, ...]:
    assert isinstance(found, Demand), found
    return found.most


def test_text_has_no_more_tokens_than_bytes_and_the_output_is_capped() -> None:
    size = len(BODY) + PREAMBLE
    assert most(demand(cap=20)) == (1, size + 20, size, 20, size * 1 + 20 * 10)
    assert most(demand()) == (1, size + 500, size, 500, size + 5000), "without a cap what is configured"
    assert most(demand(cap=0)) == (1, len(BODY), len(BODY), 0, len(BODY))
    assert most(demand(cap=10**12))[3] == 2_000_000


def test_each_answer_may_be_as_long_as_the_cap() -> None:
    assert most(demand(body=BODY[:-1] + b',"n":4}', cap=20))[3] == 80


def test_what_is_not_in_the_body_reserves_a_context_window() -> None:
    body = BODY[:-1] + b',"previous_response_id":"r"}'
    found = demand(body=body, cap=1)
    assert most(found)[2] == 1000
    assert isinstance(found, Demand)
    assert found.least[2] == 0


def test_tools_get_text_of_the_provider() -> None:
    body = BODY[:-1] + b',"tools":[]}'
    assert most(demand(body=body, cap=1))[2] == PREAMBLE + len(body) + 1000


def test_the_dearest_price_counts() -> None:
    assert most(demand(model="written", cap=0))[4] == 2 * len(BODY)
    assert most(demand(model="embed", cap=0))[4] == len(BODY)


def test_without_a_price_a_hard_budget_in_dollars_refuses() -> None:
    for found in (demand(model="gpt-9"), demand(prices=None), demand(model="embed", cap=5)):
        assert isinstance(found, Failure)
        assert (found.kind, status_of(found)) == (Kind.UNPRICED, 403)
    assert most(demand("1usd/day:warn", model="gpt-9", cap=0)) == (1, len(BODY), len(BODY), 0, 0)
    assert most(demand("100tokens/day", model="gpt-9", cap=0))[1] == len(BODY)


def test_what_comes_another_time_cannot_be_limited() -> None:
    found = demand(body=BODY[:-1] + b',"background":true}')
    assert isinstance(found, Failure)
    assert (found.kind, status_of(found)) == (Kind.FORBIDDEN, 403)
    assert most(demand("rpm=5", body=BODY[:-1] + b',"background":true}')) == NOTHING


def test_where_only_requests_are_limited_nothing_is_looked_at() -> None:
    assert most(demand("rpm=5 concurrent=3", body=b"not even JSON")) == NOTHING
    assert most(demand("1usd/day", is_free=True)) == NOTHING


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_dialect_reads_its_cap(dialect: str) -> None:
    """Whoever caps its output reserves no more: else budgets refuse what they could pay."""
    cap = {
        "openai-responses": {"max_output_tokens": 7},
        "gemini": {"generationConfig": {"maxOutputTokens": 7}},
        "ollama": {"options": {"num_predict": 7}},
    }.get(dialect, {"max_tokens": 7})
    expected = {"openai-embeddings": 0, "plain": None, "anthropic-count-tokens": 0}.get(dialect, 7)
    path = b"/v1beta/models/g:generateContent" if dialect == "gemini" else b"/"
    call = DIALECTS[dialect].read_call(json.dumps({"model": "m", **cap}).encode(), path, b"")
    assert call.cap == expected or call.is_free


GEMINI = b"/v1beta/models/gemini-2.5-pro:generateContent"


def read_demand(dialect: str, body: bytes, path: bytes = GEMINI, model: str = "m") -> Demand:
    """What a body reserves of all limits on tokens, as its dialect reads it."""
    call = DIALECTS[dialect].read_call(body, path, b"")
    snapshot = Snapshot({}, reserves=Reserves(WINDOW, 32_000))
    found = demand_of(chain("1Gtokens/total")[1], call, body, call.model or model, HOST, snapshot, 1.8e9)
    assert isinstance(found, Demand), found
    return found


@pytest.mark.parametrize(
    ("dialect", "members", "output"),
    [
        ("openai-completions", b'"max_tokens":100,"prompt":["a","b","c"]', 300),
        ("openai-completions", b'"max_tokens":100,"n":3,"prompt":[[1],[2]]', 600),
        ("openai-chat", b'"max_tokens":100,"n":"50"', 5000),
        ("openai-chat", b'"max_tokens":100,"n":0.5e2', 5000),
        ("openai-chat", b'"max_tokens":100,"n":1000', 100_000),
        ("openai-chat", b'"max_tokens":5,"max_completion_tokens":-1', 32_000),
        ("openai-chat", b'"max_tokens":-1,"max_completion_tokens":5', 32_000),
        ("openai-chat", b'"max_tokens":0', 32_000),
        ("openai-chat", b'"max_tokens":5,"n_predict":90000', 90_000),
        ("openai-responses", b'"max_output_tokens":5,"n_predict":90000', 90_000),
        ("anthropic-messages", b'"max_tokens":5,"n_predict":-1', 32_000),
        ("anthropic-messages", b'"max_tokens":0', 32_000),
        ("ollama", b'"options":{"num_predict":0}', 32_000),
        ("ollama", b'"options":{"num_predict":-2}', 32_000),
        ("gemini", b'"generationConfig":{"candidateCount":"8","maxOutputTokens":100}', 800),
        ("openai-embeddings", b'"input":["a","b"],"max_tokens":5', 0),
    ],
)
def test_the_output_is_reserved_as_the_most_generous_server_reads_it(dialect: str, members: bytes, output: int) -> None:
    assert read_demand(dialect, b'{"model":"m",%b}' % members).most[OUTPUT] == output


def test_a_model_that_searches_reserves_a_context_window() -> None:
    assert read_demand("openai-chat", b'{"model":"openai/gpt-5:online"}').most[INPUT] == WINDOW


# What was used beyond what is reserved, and why nothing is done about it.
MORE: dict[str, str] = {}
USED = [
    (entry["id"], dialect_of(entry) or "", recordings.FIXTURES / entry["request"]["file"], entry, "_tokens")
    for entry in READ
    if entry["request"]["file"] and entry["usage"]
] + [
    (entry["id"], entry["api"], transcripts.FOLDER / entry["request"]["file"], entry, "")
    for entry in transcripts.entries()
    if entry["request"]["file"] and entry["usage"]
]


@pytest.mark.parametrize(("name", "dialect", "file", "entry", "end"), USED, ids=[each[0] for each in USED])
def test_nobody_ever_used_more_than_is_reserved(
    name: str, dialect: str, file: Path, entry: dict[str, Any], end: str
) -> None:
    path = entry["request"]["path"].encode()
    call = DIALECTS[dialect].read_call(file.read_bytes(), path, b"")
    if call.is_free:
        return
    reserved, usage = read_demand(dialect, file.read_bytes(), path).most, entry["usage"]
    figures = usage.get(f"input{end}") or 0, usage.get(f"output{end}") or 0
    billed = usage.get("billed_input_tokens") or 0, usage.get("billed_output_tokens") or 0
    is_enough = reserved[INPUT] >= max(figures[0], billed[0]) and reserved[OUTPUT] >= max(figures[1], billed[1])
    assert is_enough == (name not in MORE), (reserved, figures, billed)


# -- what it did cost -------------------------------------------------------------------------------------------------


def hold(line: str = "1usd/day", micros: int = 99) -> Hold:
    limiter, found = chain(line)
    costs = (1, 30, 20, 10, micros)
    taken = limiter.take(found, Demand(costs, NOTHING), NOW)
    assert isinstance(taken, Hold)
    return taken


def test_a_budget_is_the_sum_of_receipts() -> None:
    assert used_of(hold(), Usage(7, 3), 12) == (1, 10, 7, 3, 12)
    assert used_of(hold(), None, None) == NOTHING
    assert used_of(hold(), Usage(), None) == NOTHING
    assert used_of(hold(), Usage(7, None), None) == (1, 17, 7, 10, 99), "what nobody knows stays as it was reserved"
    assert used_of(hold(), Usage(None, 3), None) == (1, 23, 20, 3, 99)
    assert used_of(hold(), Usage(7, 3), None)[4] == 99


# -- what a client is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "kind", "status", "words"),
    [
        (
            Refusal("key ci", "rpm", 0, 60, 0, 1_250_000_000, 60 * 10**9),
            Kind.TOO_MANY,
            429,
            "this key has used up its limit of requests (rpm): try again in 1.25 s",
        ),
        (
            Refusal("group secret-team", "otpm", 3, 60, 0, 10**9, 0),
            Kind.TOO_MANY,
            429,
            "this key's group has used up its limit of output tokens (otpm): try again in 1 s",
        ),
        (
            Refusal("key ci", "tpm", 1, 60, 60, None, 0, False, True),
            Kind.EXCEEDS_LIMIT,
            400,
            "this request has more tokens than this key may use at once (60, tpm): send less",
        ),
        (
            Refusal("all", "concurrent", -1, 4, 0, None, 0),
            Kind.TOO_MANY,
            429,
            "this proxy has 4 requests running, and no more are allowed at once: let one finish first",
        ),
        (
            Refusal("key ci", "usd/month", 4, 20_000_000, 130_000, 86_400 * 3 * 10**9, 0, True),
            Kind.BUDGET,
            429,
            "the budget of this key (20 usd in a month) has 0.13 left, and this request may cost more; "
            "the next month begins in 3 d",
        ),
        (
            Refusal("model gpt-5", "tokens/total", 1, 500, 0, None, 0, True),
            Kind.BUDGET,
            429,
            "the budget of this model (500 tokens in total) has 0 left, and this request may cost more",
        ),
        (
            Refusal("provider acme", "usd/day", 4, 1, 1, 10**9, 0, True, True),
            Kind.EXCEEDS_LIMIT,
            400,
            "this request may cost more than all of the budget of this model's provider (0.000001 usd in a day): "
            "send a shorter one, or with a smaller cap on its output",
        ),
    ],
)
def test_what_a_client_is_told(refusal: Refusal, kind: Kind, status: int, words: str) -> None:
    failure = failure_of(refusal)
    assert (failure.kind, status_of(failure), failure.detail) == (kind, status, words)
    assert "acme" not in failure.detail and "secret" not in failure.detail
