"""Limits as they hold now, and what is used of them, in plain words."""

from __future__ import annotations

from proxy.admin.limits import LimitPages
from proxy.policy.limits import Hold, Limiter
from proxy.policy.rules import parse_rules
from tests.admin.api import Api
from tests.policy.test_limits import NOW, SECOND, costing, limiter

DAY = "2027-01-16T00:00:00.000Z"


def api(limiter: Limiter) -> Api:
    return Api(LimitPages(limiter, lambda: None, lambda: NOW).routes())


def test_a_scope_with_all_that_there_is() -> None:
    made = limiter(key_ci="rpm=60/10 20usd/day 1ktokens/total:warn concurrent=4")
    hold = made.take(made.chain("ci", None, (), None), costing(1_500_000, 100), NOW)
    assert isinstance(hold, Hold)
    shown = api(made)("GET", "/limits/key%20ci")
    assert shown.status == 200
    assert shown.document == {
        "scope": "key ci",
        "limits": "rpm=60/10 concurrent=4 20usd/day 1000tokens/total:warn",
        "rates": [
            {
                "name": "rpm", "unit": "requests", "amount": 60, "seconds": 60, "burst": 10, "left": 9,
                "full_at": "2027-01-15T08:00:01.000Z",
            }
        ],
        "budgets": [
            {
                "name": "usd/day", "unit": "micros", "window": "day", "is_hard": True, "amount": 20_000_000,
                "spent": 1_500_000, "reserved": 1_500_000, "left": 18_500_000, "amount_usd": "20", "spent_usd": "1.5",
                "reserved_usd": "1.5", "left_usd": "18.5", "ends_at": DAY,
            },
            {
                "name": "tokens/total", "unit": "tokens", "window": "total", "is_hard": False, "amount": 1000,
                "spent": 100, "reserved": 100, "left": 900, "ends_at": None,
            },
        ],
        "concurrent": {"running": 1, "most": 4},
    }  # fmt: skip


def test_scopes_come_by_pages_in_order() -> None:
    made = limiter(all="rpm=5", key_b="rpm=1", key_a="rpm=1", group_x="concurrent=1")
    ask = api(made)
    seen, after = [], ""
    while after is not None:
        page = ask("GET", f"/limits?limit=3&after={after.replace(' ', '%20')}").document
        seen += [each["scope"] for each in page["limits"]]
        after = page["next"]
    assert seen == ["all", "group x", "key a", "key b"]


def test_a_name_with_a_slash_is_a_scope_like_any_other() -> None:
    made = limiter()
    made.set_rules("model a/b c", parse_rules("rpm=1"))
    ask = api(made)
    assert ask("GET", "/limits/model%20a%2Fb%20c").document["scope"] == "model a/b c"
    refused = ask("GET", "/limits/key%20nobody")
    assert refused.status == 404 and "Nothing is limited" in refused.message


def test_the_server_looks_before_anything_is_shown() -> None:
    made = limiter()

    def look() -> None:
        made.set_rules("all", parse_rules("rps=1"))

    ask = Api(LimitPages(made, look, lambda: NOW + SECOND).routes())
    assert [each["limits"] for each in ask("GET", "/limits").document["limits"]] == ["rps=1"]
