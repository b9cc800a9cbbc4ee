"""Keys in words: what is shown of them, and that nothing in them reaches a terminal as it is."""

from __future__ import annotations

from collections import Counter

from proxy.accounts import key_views
from proxy.admin import documents
from proxy.ledger.keys import GroupRow, KeyRow, LostHold
from tests.accounts.stage import HOSTILE, is_harmless
from tests.ledger.filled import DAY, HOUR, NOW

KEY = KeyRow("ci", "d" * 64, "lp-abcdefg", limits="rpm=60", created_at=NOW - DAY, changed_at=NOW - HOUR)
HOSTILE_KEY = KEY._replace(
    name=HOSTILE, prefix=HOSTILE, owner=HOSTILE, tags=HOSTILE, key_group=HOSTILE, models=HOSTILE, providers=HOSTILE,
    limits=HOSTILE, disconnect=HOSTILE,
)  # fmt: skip


def test_a_table_leaves_out_what_no_key_has_and_is_in_order() -> None:
    rows = [KEY, KEY._replace(name="app", digest=None, prefix=None, uid=7, disabled=1, limits="")]
    assert key_views.table(rows, NOW, 100).split("\n") == [
        "key  begins       uid  state     limits",
        "app               7    disabled",
        "ci   lp-abcdefg…       valid     rpm=60",
    ]


def test_a_table_shows_two_values_while_both_are_valid() -> None:
    row = KEY._replace(old_digest="e" * 64, old_prefix="lp-old", old_until=NOW + HOUR)
    assert "old key until         limits\n" in key_views.table([row], NOW, 100)
    assert "  2026-11-25 13:00 UTC  rpm=60" in key_views.table([row], NOW, 100)
    assert "old key" not in key_views.table([row], NOW + HOUR, 100)


def test_all_about_a_key() -> None:
    row = KEY._replace(
        uid=7, owner="Ann", tags="a,b", key_group="team", models="gpt-* x", providers="openai", raw=0,
        disconnect="drain", expires_at=NOW + DAY, old_digest="e" * 64, old_prefix="lp-old", old_until=NOW + HOUR,
    )  # fmt: skip
    assert key_views.as_lines(row, GroupRow("team", ""), NOW).split("\n") == [
        "name          ci",
        "state         valid",
        "key           lp-abcdefg…; until 2026-11-25 13:00 UTC also lp-old…",
        "user id       7",
        "owner         Ann",
        "tags          a, b",
        "group         team (no limits)",
        "limits        rpm=60",
        "models        gpt-* x",
        "providers     openai",
        "disconnect    drain",
        "unread paths  no",
        "expires       2026-11-26 12:00 UTC",
        "created       2026-11-24 12:00 UTC",
        "changed       2026-11-25 11:00 UTC",
    ]


def test_groups_have_the_number_of_their_keys() -> None:
    groups = [GroupRow("b", ""), GroupRow("a", "rpm=5")]
    found = documents.groups(groups, Counter(["a", None]))
    assert key_views.group_table(found, 100) == "group  keys  limits\na         1  rpm=5\nb         0  none"


def test_what_was_settled_stands_beside_what_was_reserved() -> None:
    holds = [LostHold(1, "ci", 50_000, 10, NOW, NOW), LostHold(2, None, 7, 8, None, NOW, NOW, 5, 4)]
    assert key_views.hold_table(holds[:1], 100).split("\n") == [
        "id  key  started                reserved  tokens",
        " 1  ci   2026-11-25 12:00 UTC  $0.050000      10",
    ]
    assert key_views.hold_table(holds, 100).split("\n")[2].split() == (
        "2 - - $0.000007 8 2026-11-25 12:00 UTC $0.000005 4".split()
    )


def test_nothing_in_a_row_reaches_a_terminal_as_it_is() -> None:
    hold = LostHold(1, HOSTILE, 1, 1, 1e300, NOW)
    group = GroupRow(HOSTILE, HOSTILE)
    for text in (
        key_views.table([HOSTILE_KEY], NOW, 200),
        key_views.as_lines(HOSTILE_KEY, group, NOW),
        key_views.group_table(documents.groups([group], Counter()), 200),
        key_views.hold_table([hold], 200),
    ):
        assert is_harmless(text)
