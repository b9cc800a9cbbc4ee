"""Questions to the ledger by the admin API: right, bounded, and refused in words where there is nothing to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.admin.spending import SpendingPages
from proxy.ledger.keys import KeyStore
from tests.admin.api import Api
from tests.ledger.filled import DAY, FAILED, HOUR, NOW, fill


def api(path: str | None, changes: list[str] | None = None) -> Api:
    noted = [] if changes is None else changes
    pages = SpendingPages(path, lambda: noted.append("look"), lambda _, text, **more: noted.append(text), lambda: NOW)
    return Api(pages.routes())


@pytest.fixture
def path(tmp_path: Path) -> str:
    rows = [{}, {"key": "ci", "cost_micros": 20_500_000}, {"started_at": NOW - 3 * DAY}, {**FAILED, "key": "ci"}]
    return fill(tmp_path / "a.db", *rows)


def test_usage_of_today_by_model_unless_something_else_is_said(path: str) -> None:
    found = api(path)("GET", "/usage").document
    assert (found["by"], found["since"], found["until"]) == (["model"], "2026-11-25T00:00:00.000Z", None)
    assert (found["total"]["requests"], found["total"]["cost_micros"]) == (3, 20_503_500)
    assert found["total"]["cost_usd"] == "20.5035" and found["groups"][0]["cost_usd"] == "20.5035"
    assert found["total"]["reported_cost_usd"] is None


def test_usage_by_what_is_asked_for(path: str) -> None:
    found = api(path)("GET", "/usage?since=all&by=key,model&key=ci").document
    assert [(each["key"], each["model"], each["requests"]) for each in found["groups"]] == [("ci", "gpt-4o", 2)]
    assert api(path)("GET", "/usage?since=7d&until=2d").document["total"]["requests"] == 1


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("by=hour", "by must be one or more of day, key"),
        ("by=", "by must be one or more of day, key"),
        ("since=tomorrow", "since: not a time; write one of: today"),
        ("since=1d&until=2d", "since is not before until."),
        ("form=csv", "parameter not known: form"),
    ],
)
def test_what_makes_no_sense_is_refused(path: str, query: str, sentence: str) -> None:
    refused = api(path)("GET", f"/usage?{query}")
    assert refused.status == 400 and sentence in refused.message


def test_the_last_exchanges(path: str) -> None:
    ask = api(path)
    rows = ask("GET", "/exchanges").document["exchanges"]
    assert [row["id"] for row in rows] == ["r-1", "r-2", "r-3", "r-4"]
    assert (rows[1]["started_at"], rows[1]["cost_micros"], rows[1]["cost_usd"]) == (
        "2026-11-25T11:00:00.000Z", 20_500_000, "20.5"
    )  # fmt: skip
    assert rows[3]["cost_usd"] is None and "rowid" not in rows[0]
    assert [row["id"] for row in ask("GET", "/exchanges?limit=1&key=ci&since=1d").document["exchanges"]] == ["r-4"]
    assert ask("GET", "/exchanges?limit=0").status == 400


def test_what_a_kill_left_is_settled_once_and_the_server_looks(path: str) -> None:
    with KeyStore(path, 1.0, lambda: NOW) as store:
        number = store.add_lost("ci", 50_000, 10, NOW - HOUR)
    changes: list[str] = []
    ask = api(path, changes)
    [lost] = ask("GET", "/lost").document["lost"]
    assert (lost["id"], lost["usd"], lost["started_at"]) == (number, "0.05", "2026-11-25T11:00:00.000Z")
    settled = ask("POST", f"/lost/{number}/settle", {"micros": 20_000, "tokens": 4})
    assert settled.document["settled"][0]["settled_usd"] == "0.02"
    assert changes == [f"the lost request {number} was settled by the admin API", "look"]
    assert ask("POST", f"/lost/{number}/settle").status == 404
    assert ask("GET", "/lost").document == {"lost": []}
    assert len(ask("GET", "/lost?all=true").document["lost"]) == 1
    assert ask("POST", "/lost/x/settle").status == 404
    assert ask("POST", f"/lost/{number}/settle", {"micros": -1}).status == 400


def test_without_a_ledger_there_is_nothing_to_ask() -> None:
    ask = api(None)
    for path in ("/usage", "/exchanges", "/lost"):
        refused = ask("GET", path)
        assert refused.status == 404 and "LLM_PROXY_DB=off" in refused.message


def test_a_question_that_takes_too_long_is_ended_and_says_what_to_do(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.admin.spending.SECONDS", -1.0)
    monkeypatch.setattr("proxy.ledger.reader._STEPS", 1)
    refused = api(path)("GET", "/usage")
    assert refused.status == 503 and "no answer within" in refused.message


def test_a_ledger_that_is_gone_is_503(tmp_path: Path) -> None:
    refused = api(str(tmp_path / "none.db"))("GET", "/usage")
    assert refused.status == 503 and "there is no ledger" in refused.message
