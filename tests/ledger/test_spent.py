"""What a target used, cost and failed stands with that target, and no request counts twice."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.ledger import spent
from proxy.ledger.reader import EVERYTHING, LedgerReader, Sum, Wanted
from tests.ledger.filled import FAILED, FAILED_OVER, NOW, fill

AZURE, OPENAI = FAILED_OVER["tries"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def sums(path: Path, *by: str, wanted: Wanted = EVERYTHING) -> dict[Any, Sum]:
    """The groups by their names; the total under its own."""
    with LedgerReader(str(path)) as ledger:
        totals = ledger.totals(by, wanted)
    found = {group.names if len(by) > 1 else group.names[0]: group for group in totals.groups}
    assert len(found) == len(totals.groups)
    return {**found, "total": totals.total}


def requests(found: dict[Any, Sum]) -> dict[Any, int]:
    return {name: group.requests for name, group in found.items()}


def test_each_target_has_what_it_took(path: Path) -> None:
    fill(path, FAILED_OVER)
    found = sums(path, "provider", "model")
    azure, openai, total = found["azure", "gpt-4o-eu"], found["openai", "gpt-4o"], found["total"]
    assert azure == Sum(
        ("azure", "gpt-4o-eu"), 1, 0, 1, 900, 0, 0, 30, 0, 900, 30, 0, 1100, None, unpriced=0, unmeasured=0
    )
    assert openai == Sum(
        ("openai", "gpt-4o"), 1, 0, 0, 1000, 0, 0, 100, 0, 0, 0, 0, 3500, None, unpriced=0, unmeasured=0
    )
    assert (total.requests, total.errors, total.incomplete, total.cost_micros) == (1, 0, 0, 4600)
    assert requests(sums(path, "served")) == {None: 1, "gpt-4o-2024-08-06": 1, "total": 1}


@pytest.mark.parametrize("by", ["provider", "model", "served"])
def test_exchanges_that_one_row_tells_all_about_are_that_row(path: Path, by: str) -> None:
    """Their attempts are not looked at: what stands there would be counted."""
    odd = {"why": "first", "provider": "other", "model": "other", "model_served": "other", "input_tokens": 10**9}
    fill(path, {"tries": [odd]}, {"tries": [{"provider": "older"}] * 2}, {}, FAILED)
    found = sums(path, by)
    assert found["total"] == sums(path, "key")["total"]
    assert {"other", "older"}.isdisjoint(found)
    assert sum(group.input_tokens for group in found.values()) == 2 * 3000


def test_an_alias_stands_under_the_model_that_was_asked_for(path: Path) -> None:
    alone = {**OPENAI, "why": "first", "model": "gpt-4o-mini"}
    refused = {**FAILED, "alias": "fast", "model_requested": "fast", "provider": None}
    fill(path, {"alias": "fast", "model_requested": "fast", "tries": [alone]}, refused, {})
    assert requests(sums(path, "model")) == {"gpt-4o-mini": 1, "fast": 1, "gpt-4o": 1, "total": 3}
    assert requests(sums(path, "alias")) == {"fast": 2, None: 1, "total": 3}


def test_two_attempts_at_one_target_are_one_request_there(path: Path) -> None:
    again = {**OPENAI, "why": "retry"}
    failed = {**OPENAI, "status": 503, "ended_by": "upstream", "ended_phase": "done", "ended_kind": "error_status"}
    fill(path, {**FAILED_OVER, "tries": [failed, again, AZURE, again]}, {"provider": "openai"})
    found = sums(path, "provider")
    assert requests(found) == {"openai": 2, "azure": 1, "total": 2}
    assert (found["openai"].errors, found["openai"].cost_micros) == (0, 4 * 3500)
    by_ending = sums(path, "provider", "ending")
    assert requests(by_ending) == {
        ("openai", "complete"): 2,
        ("openai", "upstream done error_status"): 1,
        ("azure", "upstream stream reset"): 1,
        "total": 2,
    }
    assert by_ending["openai", "upstream done error_status"].errors == 1


def test_a_request_of_which_a_part_has_no_price_is_not_taken_for_priced(path: Path) -> None:
    fill(path, {**FAILED_OVER, "cost_micros": 3500, "tries": [{**AZURE, "cost_micros": None}, OPENAI]}, {})
    found = sums(path, "provider")
    assert {name: group.unpriced for name, group in found.items()} == {"azure": 1, "openai": 0, "total": 1}
    assert (found["azure"].cost_micros, found["total"].cost_micros) == (None, 7000)


def test_a_hedge_that_lost_after_the_answer_came_is_no_failure_of_the_target(path: Path) -> None:
    lost = {**OPENAI, "why": "hedge", "status": 0, "ended_by": "proxy", "ended_phase": "first_byte", "ended_kind": "x"}
    fill(path, {**FAILED_OVER, "tries": [OPENAI, lost]})
    group = sums(path, "provider")["openai"]
    assert (group.requests, group.errors, group.incomplete) == (1, 0, 0)


@pytest.mark.parametrize(
    ("ended", "status", "is_error"),
    [
        ({"ended_by": "upstream", "ended_kind": "connect_failed"}, 502, True),
        ({"ended_by": "upstream", "ended_kind": "timeout"}, 504, True),
        ({"ended_by": "client", "ended_kind": "client_left"}, 0, False),
    ],
)
def test_what_was_not_answered_has_the_status_that_would_have_been_ours(
    path: Path, ended: dict[str, Any], status: int, is_error: bool
) -> None:
    fill(path, {**FAILED_OVER, "tries": [{**AZURE, **ended, "status": 0, "ended_phase": "connect"}, OPENAI]})
    group = sums(path, "provider", "status")["azure", status]
    assert (group.requests, group.errors, group.incomplete) == (1, is_error, not is_error)


def test_two_attempts_that_were_not_answered_in_different_ways_are_in_different_groups(path: Path) -> None:
    tries = [{**AZURE, "status": 0, "ended_kind": kind} for kind in ("connect_failed", "timeout")]
    fill(path, {**FAILED_OVER, "tries": [*tries, OPENAI]})
    found = requests(sums(path, "provider", "status"))
    assert found == {("azure", 502): 1, ("azure", 504): 1, ("openai", 200): 1, "total": 1}


def test_an_attempt_that_was_the_only_one_ended_as_its_exchange_did(path: Path) -> None:
    """A refused credential: what the provider said is not what the client got."""
    only = {**AZURE, "status": 401}
    fill(path, {**FAILED, "status": 502, "alias": "fast", "tries": [only]})
    assert ("azure", 502) in sums(path, "provider", "status")


@pytest.mark.parametrize(
    ("wanted", "cost", "ids"),
    [
        (Wanted(provider="azure"), 1100, ["r-1"]),
        (Wanted(provider="openai"), 3500 + 3500, ["r-1", "r-2"]),
        (Wanted(model="gpt-4o-eu"), 1100, ["r-1"]),
        (Wanted(model="gpt-4o"), 3500 + 3500, ["r-1", "r-2"]),
        (Wanted(model="fast"), 4600, ["r-1"]),
        (Wanted(model="gpt-4o-2024-08-06"), 3500 + 3500, ["r-1", "r-2"]),
        (Wanted(provider="azure", model="gpt-4o"), None, ["r-1"]),  # it was at both, but not at both at once
        (Wanted(provider="azure", key="nobody"), None, []),
    ],
)
def test_only_what_was_spent_there_is_in_sums_and_all_that_was_there_is_shown(
    path: Path, wanted: Wanted, cost: int | None, ids: list[str]
) -> None:
    fill(path, FAILED_OVER, {})
    for by in ("key", "provider", "model"):
        found = sums(path, by, wanted=wanted)
        assert found["total"].cost_micros == cost
        if by == "key":
            assert sum(requests(found).values()) == 2 * found["total"].requests
    with LedgerReader(str(path)) as ledger:
        assert [row["id"] for row in ledger.latest(9, wanted)] == ids
        assert [row["id"] for row in ledger.exchanges(wanted)] == ids


def test_a_request_at_a_provider_counts_once_whatever_else_is_asked(path: Path) -> None:
    fill(path, {**FAILED_OVER, "tries": [{**AZURE, "model": name} for name in "abc"], "tags": "x,y"})
    assert requests(sums(path, "key", wanted=Wanted(provider="azure"))) == {"billing": 1, "total": 1}
    assert requests(sums(path, "tag", wanted=Wanted(model="b"))) == {"x": 1, "y": 1, "total": 1}
    assert requests(sums(path, "tag", "model")) == {(tag, name): 1 for tag in "xy" for name in "abc"} | {"total": 1}


def test_sums_of_a_day_by_model_do_not_read_all_years(path: Path) -> None:
    fill(path, {})
    wanted = Wanted(since=NOW, provider="x", model="y")
    source, given_ = spent.source(("model",), wanted.provider, wanted.model)
    condition, values = wanted.clause(is_spent=True)
    with LedgerReader(str(path)) as ledger:
        sql = f"EXPLAIN QUERY PLAN SELECT total(cost_micros) FROM {source} WHERE {condition}"
        plan = [row[3] for row in ledger.rows(sql, [*given_, *values])]
    assert plan[0].endswith("INDEX exchanges_started_at (started_at>?)")
    assert "SEARCH tries USING PRIMARY KEY (exchange_id=?)" in plan[1]
    assert not any("SCAN" in step or "CO-ROUTINE" in step for step in plan)


def test_the_names_of_all_targets_are_known(path: Path) -> None:
    fill(path, FAILED_OVER, {})
    with LedgerReader(str(path)) as ledger:
        assert ledger.names("provider") == ["openai", "azure"]
        assert set(ledger.names("model")) == {"fast", "gpt-4o", "gpt-4o-eu", "gpt-4o-2024-08-06"}


places = st.sampled_from(["a", "b"])
attempts = st.fixed_dictionaries(
    {
        "why": st.just("first"),
        "provider": places,
        "model": places,
        "status": st.sampled_from([0, 200, 503]),
        "ended_by": st.sampled_from([None, "upstream"]),
        "cost_micros": st.none() | st.integers(0, 99),
        "input_tokens": st.integers(0, 99),
    }
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(attempts, min_size=1, max_size=4), min_size=1, max_size=4))
def test_groups_add_up_to_the_total(exchanges: list[list[dict[str, Any]]]) -> None:
    rows = []
    for tries in exchanges:
        known = [each["cost_micros"] for each in tries if each["cost_micros"] is not None]
        tokens = sum(each["input_tokens"] for each in tries)
        rows.append(
            {"alias": "x", "cost_micros": sum(known) if known else None, "input_tokens": tokens, "tries": tries}
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(fill(Path(folder) / "a.db", *rows))
        for by in (["provider"], ["model"], ["provider", "model"]):
            found = sums(path, *by)
            total = found.pop("total")
            assert sum(group.cost_micros or 0 for group in found.values()) == (total.cost_micros or 0)
            assert sum(group.input_tokens for group in found.values()) == total.input_tokens
            been = [{tuple(each[name] for name in by) for each in tries} for tries in exchanges]
            assert {group.names: group.requests for group in found.values()} == {
                names: sum(names in there for there in been) for names in set().union(*been)
            }
