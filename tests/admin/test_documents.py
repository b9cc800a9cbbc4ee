"""Rows as JSON: every member, and no digest."""

from __future__ import annotations

from collections import Counter

import pytest

from proxy.admin import documents
from proxy.ledger.keys import GroupRow, KeyRow, LostHold
from proxy.ledger.reader import Sum, Totals, Wanted
from tests.ledger.filled import DAY, HOUR, NOW

KEY = KeyRow("ci", "d" * 64, "lp-abcdefg", limits="rpm=60", created_at=NOW - DAY, changed_at=NOW - HOUR)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, "valid"),
        ({"expires_at": NOW + 1}, "valid"),
        ({"expires_at": NOW}, "expired"),
        ({"expires_at": NOW, "disabled": 1}, "disabled"),
        ({"disabled": 1, "removed_at": NOW}, "removed"),
    ],
)
def test_states(columns: dict[str, float], expected: str) -> None:
    assert documents.state(KEY._replace(**columns), NOW) == expected


def test_the_document_of_a_key() -> None:
    row = KEY._replace(tags="a,b", models="x y", raw=1, old_digest="e", old_prefix="lp-old", old_until=NOW)
    assert documents.key(row, NOW) == {
        "name": "ci",
        "state": "valid",
        "prefix": "lp-abcdefg",
        "old_prefix": None,
        "old_until": None,
        "owner": None,
        "tags": ["a", "b"],
        "group": None,
        "models": ["x", "y"],
        "providers": None,
        "limits": "rpm=60",
        "disconnect": None,
        "raw": True,
        "uid": None,
        "expires_at": None,
        "created_at": "2026-11-24T12:00:00.000Z",
        "changed_at": "2026-11-25T11:00:00.000Z",
        "removed_at": None,
    }


def test_two_values_are_shown_while_both_are_valid() -> None:
    row = KEY._replace(old_digest="e" * 64, old_prefix="lp-old", old_until=NOW + HOUR)
    assert documents.is_rotating(row, NOW) and not documents.is_rotating(row, NOW + HOUR)
    assert documents.key(row, NOW)["old_until"] == "2026-11-25T13:00:00.000Z"
    assert "e" * 64 not in str(documents.key(row, NOW)) and "d" * 64 not in str(documents.key(row, NOW))


def test_groups_have_the_number_of_their_keys() -> None:
    found = documents.groups([GroupRow("b", ""), GroupRow("a", "rpm=5")], Counter(["a", None]))
    assert [(each["name"], each["keys"]) for each in found] == [("a", 1), ("b", 0)]


def test_what_was_settled_has_both_times() -> None:
    found = documents.hold(LostHold(2, None, 7, 8, None, NOW, NOW, 5, 4))
    assert (found["started_at"], found["settled_at"]) == (None, "2026-11-25T12:00:00.000Z")
    assert (found["micros"], found["settled_micros"]) == (7, 5)


def test_sums_say_what_they_are_sums_of() -> None:
    figures = range(1, len(Sum._fields))
    totals = Totals([Sum(("m", "ci"), *figures)], Sum((), *figures), False)  # type: ignore[arg-type]
    found = documents.usage(["model", "key"], Wanted(since=NOW), totals, False)
    assert (found["since"], found["until"], found["days"]) == ("2026-11-25T12:00:00.000Z", None, "UTC")
    assert found["groups"][0]["key"] == "ci" and found["groups"][0]["requests"] == found["total"]["requests"] == 1
