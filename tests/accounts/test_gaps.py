"""What is in no row is said in sentences that are true of one request and of many."""

from __future__ import annotations

import pytest

from proxy.accounts import gaps
from proxy.ledger.audit import Missing
from tests.accounts.stage import HOSTILE, is_harmless

NOTHING = Missing(0, 0, was_killed=True, is_exact=True, is_running=False)


def test_nothing_is_said_of_nothing() -> None:
    assert gaps.sentences(NOTHING, "a.db") == []
    assert gaps.document(NOTHING) == {"spilled": 0, "lost": 0}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            NOTHING._replace(spilled=7217),
            "7,217 more requests wait in a.db-spill and are not in the sums; the next `llm-proxy serve` adds them.",
        ),
        (
            NOTHING._replace(spilled=1, is_running=True),
            "1 more request waits in a.db-spill and is not in the sums; the running process adds it.",
        ),
        (
            NOTHING._replace(lost=167),
            "167 requests were lost when the process was killed; see `llm-proxy ledger check`.",
        ),
        (
            NOTHING._replace(lost=1, was_killed=False),
            "1 request was lost since no disk took them; see `llm-proxy ledger check`.",
        ),
        (
            NOTHING._replace(lost=2, is_exact=False),
            "At least 2 requests were lost when the process was killed; see `llm-proxy ledger check`.",
        ),
        (
            NOTHING._replace(is_exact=False),
            "An unknown number of requests were lost when the process was killed; see `llm-proxy ledger check`.",
        ),
    ],
)
def test_what_is_missing_is_a_sentence(found: Missing, expected: str) -> None:
    assert gaps.sentences(found, "/somewhere/a.db") == [expected]


def test_an_unknown_number_is_none_for_programs() -> None:
    assert gaps.document(NOTHING._replace(lost=2, is_exact=False)) == {"spilled": 0, "lost": None}


def test_where_only_some_were_asked_for_no_more_is_claimed_than_is_known() -> None:
    [sentence] = gaps.sentences(NOTHING._replace(spilled=5), "a.db", is_all=False, absent="shown")
    assert sentence.startswith("Up to 5 more requests wait in a.db-spill and are not shown; ")


def test_the_name_of_the_file_is_harmless() -> None:
    assert is_harmless("".join(gaps.sentences(NOTHING._replace(spilled=5), HOSTILE)))
