"""Keys, groups and lost reservations: each change is whole and numbered, and no value is ever in the file."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger import keys as module
from proxy.ledger import schema
from proxy.ledger.keys import (
    CHANGEABLE,
    GroupRow,
    InUse,
    KeyRow,
    KeysError,
    KeyStore,
    LostHold,
    Missing,
    Taken,
    digest_of,
    new_value,
    prefix_of,
)
from proxy.ledger.schema import LedgerUnusable
from tests.ledger.receipts import a_ledger, a_receipt, locked, rows

A, B, C = (digest_of(letter * 16) for letter in "abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture
def store(path: Path) -> Iterator[KeyStore]:
    """Its clock says 1000, and a second more each time it is asked: once for a change."""
    seconds = iter(range(1000, 10_000))
    with KeyStore(str(path), 1.0, lambda: float(next(seconds))) as made:
        yield made


def found(store: KeyStore, name: str) -> KeyRow:
    row = store.key(name)
    assert row is not None
    return row


def names(store: KeyStore, since: int = 0) -> list[str]:
    rows = store.keys(since)
    return [row.name for row in rows]


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_new_value_is_random_and_can_be_sent() -> None:
    values = {new_value() for _ in range(100)}
    assert len(values) == 100
    assert all(re.fullmatch(r"lp-[A-Za-z0-9_-]{43}", value) for value in values)


def test_a_digest_is_the_one_that_a_presented_key_gets() -> None:
    assert digest_of("lp-x") == hashlib.sha256(b"lp-x").hexdigest()
    with pytest.raises(ValueError):
        digest_of("é")


def test_a_prefix_leaves_enough_to_guess() -> None:
    assert prefix_of("lp-" + "x" * 43) == "lp-xxxxxxx"
    assert prefix_of("abcdefghijklmnop") == "abcd"
    assert prefix_of("") == ""


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "row"), [("keys", KeyRow), ("key_groups", GroupRow), ("lost_holds", LostHold)])
def test_rows_have_the_columns_of_their_table(store: KeyStore, path: Path, table: str, row: Any) -> None:
    assert tuple(column["name"] for column in rows(path, f"PRAGMA table_info({table})")) == row._fields


def test_a_key_is_kept_as_it_was_given(store: KeyStore) -> None:
    store.set_group("team", "rpm=5")
    given = KeyRow(
        "ci", A, "lp-aaaaaaa", owner="Ann", tags="a,b", key_group="team", models="gpt-* x", providers="openai",
        limits="rpm=60", disconnect="drain:5", raw=0, uid=1000, expires_at=5e9, disabled=1,
    )  # fmt: skip
    store.create(given)
    assert store.key("ci") == given._replace(created_at=1001.0, changed_at=1001.0, revision=2)
    assert store.keys() == [found(store, "ci")]


def test_what_only_the_store_writes_is_not_taken_from_a_row(store: KeyStore) -> None:
    store.create(KeyRow("a", A, "p", B, "o", 9.0, created_at=1.0, changed_at=1.0, removed_at=1.0, revision=99))
    assert found(store, "a") == KeyRow("a", A, "p", created_at=1000.0, changed_at=1000.0, revision=1)


def test_a_key_is_changed_in_what_is_named_only(store: KeyStore) -> None:
    store.create(KeyRow("a", A, "p", owner="Ann", limits="rpm=1"))
    before = found(store, "a")
    store.change("a", owner=None, disabled=1)
    assert found(store, "a") == before._replace(owner=None, disabled=1, changed_at=1001.0, revision=2)


def test_what_has_a_method_of_its_own_is_no_column_to_change(store: KeyStore) -> None:
    store.create(KeyRow("a", A))
    for column in set(KeyRow._fields) - CHANGEABLE - {"name"}:
        with pytest.raises(TypeError, match=f"change does not set {column}"):
            store.change("a", **{column: 1})
    with pytest.raises(TypeError):
        store.change("a", **{"owner = 'x' --": 1})
    assert found(store, "a").revision == 1


def test_a_rotation_keeps_the_old_value_until_a_date(store: KeyStore) -> None:
    store.create(KeyRow("a", A, "pa"))
    store.rotate("a", B, "pb", 7000.0)
    row = found(store, "a")
    assert (row.digest, row.prefix, row.old_digest, row.old_prefix, row.old_until) == (B, "pb", A, "pa", 7000.0)
    store.rotate("a", C, "pc", None)
    row = found(store, "a")
    assert (row.digest, row.prefix, row.old_digest, row.old_prefix, row.old_until) == (C, "pc", None, None, None)


def test_a_key_without_a_value_gets_one(store: KeyStore) -> None:
    store.create(KeyRow("a", uid=5))
    store.rotate("a", A, "pa", 7000.0)
    assert found(store, "a")[1:6] == (A, "pa", None, None, None)


def test_a_removed_key_is_told_to_who_knew_it_and_to_nobody_else(store: KeyStore) -> None:
    store.create(KeyRow("a", A, "pa", uid=5))
    store.rotate("a", B, "pb", 7000.0)
    store.remove("a")
    assert store.key("a") is None
    assert store.keys() == []
    [gone] = store.keys(2)
    assert gone == KeyRow("a", None, "pb", created_at=1000.0, changed_at=1002.0, removed_at=1002.0, revision=3)
    assert store.keys(with_removed=True) == [gone]
    assert store.keys(3) == []


def test_name_values_and_user_id_of_a_removed_key_are_free(store: KeyStore) -> None:
    store.create(KeyRow("a", A, uid=5))
    store.rotate("a", B, "pb", 7000.0)
    store.remove("a")
    store.create(KeyRow("b", A, uid=5))
    store.create(KeyRow("a", B, owner="another"))
    assert [(row.name, row.revision) for row in store.keys(3)] == [("b", 4), ("a", 5)]
    assert (found(store, "a").removed_at, found(store, "a").prefix) == (None, None)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda s: s.create(KeyRow("a", C)), Taken, "there is a key called a already"),
        (lambda s: s.create(KeyRow("n", B)), Taken, "that value is, or was, the one of the key a: take another"),
        (lambda s: s.create(KeyRow("n", A)), Taken, "that value is, or was, the one of the key a: take another"),
        (lambda s: s.create(KeyRow("n", C, uid=5)), Taken, "the user id 5 is that of the key u already"),
        (lambda s: s.create(KeyRow("n")), InUse, "the key n has no value, and would be known by nothing: rotate it fi"),
        (lambda s: s.create(KeyRow("n", C, key_group="x")), Missing, "there is no group called x: make it first"),
        (lambda s: s.change("n", owner="x"), Missing, "there is no key called n"),
        (lambda s: s.change("a", uid=5), Taken, "the user id 5 is that of the key u already"),
        (lambda s: s.change("u", uid=None), InUse, "the key u has no value"),
        (lambda s: s.change("a", key_group="x"), Missing, "there is no group called x"),
        (lambda s: s.rotate("n", C, "p", None), Missing, "there is no key called n"),
        (lambda s: s.rotate("a", A, "p", None), Taken, "that value is, or was, the one of the key a"),
        (lambda s: s.rotate("u", B, "p", None), Taken, "that value is, or was, the one of the key a"),
        (lambda s: s.remove("n"), Missing, "there is no key called n"),
        (lambda s: s.remove_group("x"), Missing, "there is no group called x"),
        (lambda s: s.remove_group("team"), InUse, "1 key is in the group team: change them first"),
        (lambda s: s.settle_lost([1, 9]), Missing, "there is nothing numbered 9 that is not settled"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    store: KeyStore, path: Path, change: Callable[[KeyStore], object], error: type[KeysError], sentence: str
) -> None:
    store.set_group("team", "")
    store.create(KeyRow("a", A, key_group="team"))
    store.rotate("a", B, "pb", 7000.0)
    store.create(KeyRow("u", uid=5))
    store.add_lost("a", 1, 1, 1.0)
    tables = ("keys", "key_groups", "lost_holds")
    before = [rows(path, f"SELECT * FROM {table}") for table in tables]
    with pytest.raises(error, match=re.escape(sentence)):
        change(store)
    assert [rows(path, f"SELECT * FROM {table}") for table in tables] == before


# --- groups -----------------------------------------------------------------------------------------------------------


def test_a_group_is_made_changed_and_removed(store: KeyStore) -> None:
    store.set_group("team", "rpm=5")
    store.set_group("team", "rpm=6")
    assert store.groups() == [GroupRow("team", "rpm=6", 1001.0, None, 2)]
    store.create(KeyRow("a", A, key_group="team"))
    store.remove("a")
    store.remove_group("team")
    assert store.groups() == []
    assert store.groups(2) == [GroupRow("team", "rpm=6", 1004.0, 1004.0, 5)]
    store.set_group("team", "rpm=7")
    assert store.groups(5) == [GroupRow("team", "rpm=7", 1005.0, None, 6)]


# --- revisions --------------------------------------------------------------------------------------------------------


def test_one_count_runs_over_keys_and_groups(store: KeyStore) -> None:
    seen = [store.revision()]
    for change in (
        lambda: store.set_group("team", ""),
        lambda: store.create(KeyRow("a", A)),
        lambda: store.change("a", key_group="team"),
        lambda: store.rotate("a", B, "pb", None),
        lambda: store.change("a", key_group=None),
        lambda: store.remove_group("team"),
        lambda: store.remove("a"),
        lambda: store.create(KeyRow("a", A)),
    ):
        change()
        seen.append(store.revision())
    assert seen == list(range(9))


def test_rows_come_in_the_order_of_their_changes(store: KeyStore) -> None:
    for name, digest in (("b", A), ("a", B), ("c", C)):
        store.create(KeyRow(name, digest))
    store.change("b", owner="x")
    assert names(store) == ["a", "c", "b"]
    assert names(store, 2) == ["c", "b"]


def test_no_number_is_given_twice_when_two_change_at_once(store: KeyStore, path: Path) -> None:
    def many(letter: str) -> None:
        with KeyStore(str(path), 30.0) as other:
            for number in range(25):
                other.create(KeyRow(f"{letter}{number}", digest_of(f"{letter}{number}")))

    threads = [threading.Thread(target=many, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = store.keys()
    assert [row.revision for row in kept] == list(range(1, 51))


@pytest.mark.parametrize("with_removed", [True, False])
@pytest.mark.parametrize("table", ["keys", "key_groups"])
def test_rows_after_a_revision_are_found_by_their_index(
    store: KeyStore, path: Path, table: str, with_removed: bool
) -> None:
    connection = sqlite3.connect(path)
    plan = connection.execute("EXPLAIN QUERY PLAN " + module._since(table, "*", with_removed), (5,)).fetchall()
    connection.close()
    assert [step[3] for step in plan] == [f"SEARCH {table} USING INDEX {table}_revision (revision>?)"]


def test_the_last_revision_is_found_without_a_look_at_the_rows(store: KeyStore, path: Path) -> None:
    connection = sqlite3.connect(path)
    plan = [step[3] for step in connection.execute("EXPLAIN QUERY PLAN " + module._REVISION)]
    connection.close()
    searches = [step for step in plan if "keys" in step or "key_groups" in step]
    assert [step.split(" USING ")[1] for step in searches] == [
        "COVERING INDEX keys_revision",
        "COVERING INDEX key_groups_revision",
    ]


# --- reservations of killed processes ---------------------------------------------------------------------------------


def test_a_lost_reservation_is_settled_with_what_it_really_was(store: KeyStore) -> None:
    assert [store.add_lost("a", 500, 50, 900.0), store.add_lost(None, 7, 8, None)] == [1, 2]
    first, second = store.lost()
    assert first == LostHold(1, "a", 500, 50, 900.0, 1000.0)
    assert store.settle_lost([1, 1], 20, 5) == [first._replace(settled_at=1002.0, settled_micros=20, settled_tokens=5)]
    assert store.lost() == [second]
    assert [hold.settled_micros for hold in store.lost(unsettled_only=False)] == [20, None]
    with pytest.raises(Missing):
        store.settle_lost([1])


def test_all_of_a_key_are_settled_at_once(store: KeyStore) -> None:
    for key in ("a", "b", "a"):
        store.add_lost(key, 500, 50, 900.0)
    assert [hold.id for hold in store.settle_lost("a")] == [1, 3]
    assert store.settle_lost("a") == []
    assert [(hold.key, hold.id) for hold in store.lost()] == [("b", 2)]


# --- beside others ----------------------------------------------------------------------------------------------------


def test_a_running_server_and_the_store_write_to_one_file(store: KeyStore, path: Path) -> None:
    ledger = a_ledger(path)
    store.create(KeyRow("a", A))
    ledger.observe(a_receipt(1))
    ledger.turn()
    store.change("a", owner="x")
    ledger.observe(a_receipt(2))
    assert ledger.close(0)
    assert (len(rows(path)), found(store, "a").revision) == (2, 2)


def test_a_reader_waits_for_no_writer(store: KeyStore, path: Path) -> None:
    store.create(KeyRow("a", A))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE keys SET owner = 'x'")
    with KeyStore(str(path), 0.0) as reader:
        assert (reader.revision(), reader.keys()[0].owner) == (1, None)
        with pytest.raises(LedgerUnusable, match="is locked by another program"):
            reader.change("a", owner="y")
    other.close()


def test_a_change_waits_for_the_lock_of_another(store: KeyStore, path: Path) -> None:
    entered = threading.Event()
    with locked(path):
        thread = threading.Thread(target=lambda: (entered.set(), store.create(KeyRow("a", A))))
        thread.start()
        assert entered.wait(20)
        assert rows(path, "PRAGMA user_version") == [{"user_version": schema.VERSION}]
    thread.join(20)
    assert names(store) == ["a"]


def test_a_file_that_cannot_be_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusable, match="there is no folder"):
        KeyStore(str(tmp_path / "none" / "a.db"), 0.0)
    with pytest.raises(LedgerUnusable, match="give a path"):
        KeyStore(":memory:", 0.0)


def test_no_value_is_in_any_file(store: KeyStore, tmp_path: Path) -> None:
    values = [new_value() for _ in range(3)]
    store.create(KeyRow("a", digest_of(values[0]), prefix_of(values[0])))
    store.rotate("a", digest_of(values[1]), prefix_of(values[1]), 7000.0)
    store.rotate("a", digest_of(values[2]), prefix_of(values[2]), 7000.0)
    store.remove("a")
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert digest_of(values[0]).encode() in kept  # what is looked for would be found
    assert [value for value in values if value[:12].encode() in kept] == []


# --- pages ------------------------------------------------------------------------------------------------------------


def test_keys_come_by_name_a_page_at_a_time(store: KeyStore) -> None:
    for number, name in enumerate(("c", "a", "d", "b")):
        store.create(KeyRow(name, digest_of(f"value-{number}")))
    store.remove("d")
    assert [row.name for row in store.page("", 2)] == ["a", "b"]
    assert [row.name for row in store.page("b", 2)] == ["c"]
    assert store.page("c", 2) == []


def test_members_of_groups_are_counted(store: KeyStore) -> None:
    store.set_group("team", "")
    for name, group in (("a", "team"), ("b", "team"), ("c", None), ("d", "team")):
        store.create(KeyRow(name, digest_of(name * 16), key_group=group))
    store.remove("d")
    assert store.members() == {"team": 2, None: 1}
