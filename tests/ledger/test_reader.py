"""Questions to real ledgers: sums, days, pages, limits; beside a writer, after one, and on files that are none."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger import reader, schema
from proxy.ledger.reader import EVERYTHING, GROUPINGS, LedgerReader, Sum, TooSlow, Wanted
from proxy.ledger.schema import LedgerUnusable
from tests.ledger.filled import DAY, FAILED, HOUR, LEFT, NOW, fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def sums(path: Path, *by: str, wanted: Wanted = EVERYTHING, is_local: bool = False) -> dict[Any, Sum]:
    """The groups by their names, in order; the total under None."""
    with LedgerReader(str(path)) as ledger:
        totals = ledger.totals(by, wanted, is_local)
    found = {group.names if len(by) > 1 else group.names[0]: group for group in totals.groups}
    assert len(found) == len(totals.groups)
    return {**found, "total": totals.total}


def figures(group: Sum, *names: str) -> list[Any]:
    return [getattr(group, name) for name in names]


# --- sums -------------------------------------------------------------------------------------------------------------


def test_sums_are_right_and_what_is_not_known_counts_as_nothing(path: Path) -> None:
    fill(
        path,
        {
            "cached_tokens": 300,
            "cache_write_tokens": 20,
            "reasoning_tokens": 7,
            "searches": 2,
            "reported_cost_micros": 9,
        },
        {"input_tokens": 5, "output_tokens": None, "cost_micros": None},
        FAILED,
        LEFT,
        {"usage_source": "none", "input_tokens": None, "output_tokens": None, "cost_micros": None, "usage_complete": 0},
    )
    assert sums(path, "key")["billing"] == Sum(
        names=("billing",),
        requests=5,
        errors=1,
        incomplete=1,
        input_tokens=2005,
        cached_tokens=300,
        cache_write_tokens=20,
        output_tokens=140,
        reasoning_tokens=7,
        counted_tokens=40,
        estimated_tokens=0,
        searches=2,
        cost_micros=7000,
        reported_cost_micros=9,
        unpriced=1,
        unmeasured=1,
    )


def test_no_price_is_not_a_price_of_nothing(path: Path) -> None:
    fill(path, {"key": "a", "cost_micros": None}, {"key": "b", "cost_micros": 0}, {"key": "c", **FAILED})
    found = sums(path, "key")
    assert [found[key].cost_micros for key in "abc"] == [None, 0, None]
    assert [found[key].unpriced for key in "abc"] == [1, 0, 0]


def test_a_ledger_without_exchanges_has_a_total_of_nothing(path: Path) -> None:
    fill(path)
    assert list(sums(path, "model")) == ["total"]
    assert sums(path, "model")["total"] == Sum((), *[0] * 11, None, None, 0, 0)


@pytest.mark.parametrize(
    ("row", "errors", "incomplete"),
    [
        ({}, 0, 0),
        ({"status": 404}, 1, 0),  # passed as it is, and complete as a message
        ({"status": 503, "complete": 0}, 1, 0),
        ({"status": 200, "complete": 0}, 0, 1),
        ({"status": 499, "complete": 0}, 0, 1),
        ({"status": 0, "complete": 0}, 0, 1),
    ],
)
def test_an_exchange_is_well_or_an_error_or_incomplete(
    path: Path, row: dict[str, Any], errors: int, incomplete: int
) -> None:
    fill(path, row)
    assert figures(sums(path, "key")["total"], "errors", "incomplete") == [errors, incomplete]


def test_tokens_are_told_apart_by_who_says_so(path: Path) -> None:
    fill(path, {"input_source": "estimated", "output_source": "counted"}, {"input_source": "counted"}, {})
    assert figures(sums(path, "key")["total"], "counted_tokens", "estimated_tokens") == [1100, 1000]


def test_a_refusal_counts_for_all_that_it_stands_for(path: Path) -> None:
    fill(path, {}, {**FAILED, "status": 401, "stands_for": 1000}, {**LEFT, "stands_for": 3}, {"stands_for": None})
    assert figures(sums(path, "key")["total"], "requests", "errors", "incomplete") == [1005, 1000, 3]


def test_absurd_figures_of_a_provider_do_not_end_the_sums(path: Path) -> None:
    fill(path, {"input_tokens": 2**62}, {"input_tokens": 2**62}, {"output_tokens": -5}, {"cost_micros": 2**53 - 1})
    total = sums(path, "key")["total"]
    assert total.input_tokens == 2**63 - 1
    assert total.output_tokens == 295


def test_sums_of_money_are_exact(path: Path) -> None:
    fill(path, {"cost_micros": 2**52}, {"cost_micros": 1}, {"cost_micros": 2})
    assert sums(path, "key")["total"].cost_micros == 2**52 + 3


# --- groups -----------------------------------------------------------------------------------------------------------


GROUPS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "key": ([{"key": "a"}, {"key": None}], ["a", None]),
    "provider": ([{"provider": "x"}, {"provider": None}], ["x", None]),
    "alias": ([{"alias": "fast"}, {}], ["fast", None]),
    "model": ([{"model_requested": "a"}, {"model_requested": None, "model_served": "b"}], ["a", "b"]),
    "served": ([{"model_served": "a"}, FAILED], ["a", None]),
    "dialect": ([{"dialect": "a"}, {"dialect": "b"}], ["a", "b"]),
    "status": ([{}, FAILED], [200, 429]),
    "ending": ([{}, LEFT, FAILED], ["complete", "client stream client_left", "upstream done error_status"]),
    "day": ([{"started_at": NOW - DAY}, {}], ["2026-11-24", "2026-11-25"]),
    "tag": ([{"tags": "a"}, {}], ["a", None]),
}


@pytest.mark.parametrize("by", GROUPINGS)
def test_exchanges_are_grouped_by_what_they_have_in_common(path: Path, by: str) -> None:
    rows, names = GROUPS[by]
    fill(path, *rows)
    assert set(sums(path, by)) == {*names, "total"}


def test_the_dearest_come_first_then_those_with_most_tokens_and_the_unpriced_last(path: Path) -> None:
    fill(
        path,
        {"key": "unpriced", "cost_micros": None, "input_tokens": 10**6},
        {"key": "few", "cost_micros": 1, "input_tokens": 1},
        {"key": "many", "cost_micros": 1, "input_tokens": 9},
        # Sums decide, not what stands in one of the rows.
        {"key": "dear", "cost_micros": 1, "input_tokens": 2},
        {"key": "dear", "cost_micros": 1, "input_tokens": 2},
    )
    assert list(sums(path, "key")) == ["dear", "many", "few", "unpriced", "total"]


def test_tokens_that_decide_the_order_are_sums(path: Path) -> None:
    rows = [{"key": "a", "input_tokens": 6}, {"key": "a", "input_tokens": 6}, {"key": "b", "input_tokens": 10}]
    fill(path, *({**row, "cost_micros": None, "output_tokens": 0} for row in rows))
    assert list(sums(path, "key")) == ["a", "b", "total"]


def test_days_stand_in_their_own_order(path: Path) -> None:
    fill(
        path,
        {"started_at": NOW, "cost_micros": 1},
        {"started_at": NOW - DAY, "cost_micros": 9},
        {"started_at": NOW - 9},
    )
    found = sums(path, "day", "model")
    assert list(found) == [("2026-11-24", "gpt-4o"), ("2026-11-25", "gpt-4o"), "total"]


def test_a_day_ends_at_midnight_of_the_zone_that_is_wanted(path: Path, berlin: None) -> None:
    midnight = NOW - 12 * HOUR
    fill(path, {"started_at": midnight - 0.001}, {"started_at": midnight}, {"started_at": midnight - HOUR - 0.001})
    assert {day: group.requests for day, group in sums(path, "day").items()} == {
        "2026-11-24": 2,
        "2026-11-25": 1,
        "total": 3,
    }
    assert {day: group.requests for day, group in sums(path, "day", is_local=True).items()} == {
        "2026-11-24": 1,
        "2026-11-25": 2,
        "total": 3,
    }


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_an_exchange_stands_under_each_of_its_tags_and_once_in_the_total(path: Path) -> None:
    fill(
        path,
        {"tags": "team=a, job=7"},
        {"tags": "job=7,job=7,, ,"},
        {"tags": 'quote " \\ [1,2] \x1b'},
        {"tags": ""},
        {"tags": None},
        {"tags": b"\xff"},
    )
    found = sums(path, "tag")
    assert {tag: group.requests for tag, group in found.items()} == {
        "team=a": 1,
        "job=7": 2,
        'quote " \\ [1': 1,
        "2] \x1b": 1,
        None: 2,
        "\ufffd": 1,
        "total": 6,
    }
    assert found["total"].input_tokens == 6000


def test_groups_are_bounded_and_the_total_is_of_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_GROUPS", 3)
    fill(path, *({"key": f"k{number}"} for number in range(4)))
    with LedgerReader(str(path)) as ledger:
        totals = ledger.totals(["key"])
        assert (len(totals.groups), totals.has_more, totals.total.requests) == (3, True, 4)
        totals = ledger.totals(["key"], Wanted(key="k1"))
        assert (len(totals.groups), totals.has_more) == (1, False)


# --- which ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Wanted(), "1234"),
        (Wanted(since=NOW - DAY), "234"),
        (Wanted(until=NOW - DAY), "1"),
        (Wanted(since=NOW - 2 * DAY, until=NOW), "123"),
        (Wanted(key="a"), "2"),
        (Wanted(provider="x"), "3"),
        (Wanted(model="gpt-4o"), "134"),
        (Wanted(model="gpt-4o-2024-08-06"), "1234"),
        (Wanted(model="fast"), "2"),
        (Wanted(key="a", provider="x"), ""),
        (Wanted(key="' OR 1 --"), ""),
    ],
)
def test_only_what_is_wanted_counts(path: Path, wanted: Wanted, ids: str) -> None:
    fill(
        path,
        {"started_at": NOW - 2 * DAY},
        {"started_at": NOW - DAY, "key": "a", "alias": "fast", "model_requested": "fast"},
        {"provider": "x"},
        {"started_at": NOW},
    )
    with LedgerReader(str(path)) as ledger:
        assert ledger.totals(["key"], wanted).total.requests == len(ids)
        assert [row["id"] for row in ledger.latest(9, wanted)] == [f"r-{number}" for number in ids]
        assert [row["id"] for row in ledger.after(0, 9, wanted)] == [f"r-{number}" for number in ids]
        assert [row["id"] for row in ledger.exchanges(wanted)] == [f"r-{number}" for number in ids]


def test_a_name_that_no_row_can_have_is_refused(path: Path) -> None:
    fill(path, {})
    name = "\udcff"  # what Python makes of an argument that is not UTF-8
    with LedgerReader(str(path)) as ledger:
        with pytest.raises(LedgerUnusable, match="cannot hold what was asked for"):
            ledger.totals(["key"], Wanted(key=name))


# --- rows -------------------------------------------------------------------------------------------------------------


def test_the_latest_rows_come_in_the_order_in_which_they_were_written(path: Path) -> None:
    fill(path, *({"started_at": NOW - number} for number in range(5)))
    with LedgerReader(str(path)) as ledger:
        rows = ledger.latest(2)
    assert [(row["rowid"], row["id"]) for row in rows] == [(4, "r-4"), (5, "r-5")]
    assert list(rows[0]) == ["rowid", *schema.EXCHANGES]


def test_what_comes_after_a_row_is_found_a_step_at_a_time(path: Path) -> None:
    fill(path, *[{}] * 5)
    with LedgerReader(str(path)) as ledger:
        assert ledger.newest() == 5
        assert [row["rowid"] for row in ledger.after(2, 2)] == [3, 4]
        assert [row["rowid"] for row in ledger.after(4, 2)] == [5]
        assert ledger.after(5, 2) == []
        with pytest.raises(LedgerUnusable):
            ledger.after(2**63, 2)


def test_an_empty_ledger_has_no_newest_row(path: Path) -> None:
    fill(path)
    with LedgerReader(str(path)) as ledger:
        assert (ledger.newest(), ledger.latest(3), list(ledger.exchanges())) == (0, [], [])


def test_all_exchanges_come_by_pages_in_the_order_in_which_they_began(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "PAGE", 2)
    # Three began at the same moment: a page ends between them.
    begun = [5.0, 3.0, 3.0, 1.0, 3.0, 2.0, 9.0]
    fill(path, *({"started_at": at, "attempts": number % 3} for number, at in enumerate(begun)))
    with LedgerReader(str(path)) as ledger:
        rows = list(ledger.exchanges())
    assert [row["id"] for row in rows] == ["r-4", "r-6", "r-2", "r-3", "r-5", "r-1", "r-7"]
    assert [len(row["attempts"]) for row in rows] == [0, 2, 1, 2, 1, 0, 0]
    assert list(rows[0]) == list(schema.EXCHANGES)
    assert list(rows[1]["attempts"][0]) == [name for name in schema.ATTEMPTS if name != "exchange_id"]
    assert [attempt["number"] for attempt in rows[1]["attempts"]] == [1, 2]


def test_what_is_written_while_pages_are_read_is_left_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PAGE", 2)
    fill(path, *[{}] * 3)
    with LedgerReader(str(path)) as ledger:
        rows = ledger.exchanges()
        first = next(rows)
        fill(path, {"started_at": NOW})
        assert [first["id"], *(row["id"] for row in rows)] == ["r-1", "r-2", "r-3"]


def test_bytes_of_others_do_not_raise(path: Path) -> None:
    fill(path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "INSERT INTO exchanges (id, run, started_at, key, tags, status, complete, input_tokens, cost_micros)"
            " VALUES (x'ff', 'r', 'soon', CAST(x'61ff' AS TEXT), CAST(x'ff2c' AS TEXT), 'odd', 'odd', 'odd', 9e999)"
        )
    connection.close()
    with LedgerReader(str(path)) as ledger:
        for by in GROUPINGS:
            assert ledger.totals([by]).total.requests == 1
        assert ledger.latest(1)[0]["key"] == "a\ufffd"
        assert len(list(ledger.exchanges())) == 1


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_running_writer_is_seen_and_not_held_up(path: Path) -> None:
    fill(path)
    writer = schema.connect(str(path), 0.0)  # would not wait for anybody
    with LedgerReader(str(path)) as ledger:
        for number in range(3):
            writer.execute("INSERT INTO exchanges (id, run, started_at) VALUES (?, 'r', 0)", [str(number)])
            assert ledger.newest() == number + 1
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM exchanges")
        assert ledger.totals(["key"]).total.requests == 3
        writer.execute("COMMIT")
        assert ledger.totals(["key"]).total.requests == 0
        # No read is left open: a checkpoint writes everything back.
        assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    writer.close()


def test_both_halves_of_an_answer_are_of_one_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, {})
    with LedgerReader(str(path)) as ledger:
        ask = LedgerReader.rows

        def rows(self: LedgerReader, sql: str, values: Any = ()) -> Any:
            found = ask(self, sql, values)
            fill(path, {})
            return found

        monkeypatch.setattr(LedgerReader, "rows", rows)
        totals = ledger.totals(["key"])
    assert totals.total.requests == totals.groups[0].requests == 1


def test_nothing_can_be_written(path: Path) -> None:
    fill(path, {})
    with LedgerReader(str(path)) as ledger:
        for sql in ("DELETE FROM exchanges", "CREATE TEMP TABLE t (x)", "PRAGMA user_version = 9"):
            with pytest.raises(LedgerUnusable, match="readonly"):
                ledger.rows(sql)


@pytest.mark.parametrize("name", ["a b%41?mode=rw#x.db", "ü.db", "-", "a'b\".db"])
def test_any_name_of_a_file_is_taken_as_it_is(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / name, {})
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / name), name):
        with LedgerReader(path) as ledger:
            assert ledger.newest() == 1


def test_a_link_leads_to_the_ledger(tmp_path: Path, path: Path) -> None:
    fill(path, {})
    (tmp_path / "link").symlink_to(path)
    with LedgerReader(str(tmp_path / "link")) as ledger:
        assert ledger.newest() == 1


def test_a_stopped_ledger_can_be_read_where_nothing_can_be_made_beside_it(path: Path) -> None:
    fill(path, {})
    # As in a folder of somebody else, but for any user: SQLite can neither open nor make the file.
    os.symlink("nowhere/at/all", f"{path}-shm")
    with LedgerReader(str(path)) as ledger:
        assert ledger.newest() == 1
        with pytest.raises(LedgerUnusable):
            ledger.rows("DELETE FROM exchanges")
    Path(f"{path}-wal").write_bytes(b"something")
    with pytest.raises(LedgerUnusable, match="cannot be read: unable to open"):
        LedgerReader(str(path))


def test_a_file_that_is_not_there_is_not_made(path: Path) -> None:
    with pytest.raises(LedgerUnusable, match="there is no ledger at "):
        LedgerReader(str(path))
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no ledger of this version yet"),
        (b"no database at all " * 100, "is no ledger, nor any SQLite file"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "(is no ledger|is damaged|cannot be read)"),
    ],
)
def test_a_file_of_something_else_is_refused(path: Path, content: bytes, sentence: str) -> None:
    path.write_bytes(content)
    with pytest.raises(LedgerUnusable, match=sentence):
        LedgerReader(str(path))


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("CREATE TABLE t (x)", "a SQLite database of something else"),
        (
            f"PRAGMA application_id = {schema.APPLICATION}; PRAGMA user_version = {schema.VERSION + 1}",
            "newer llm-proxy",
        ),
        (f"PRAGMA application_id = {schema.APPLICATION}; CREATE TABLE t (x)", "no ledger of this version yet"),
    ],
)
def test_a_database_of_something_else_or_another_version_is_refused(path: Path, script: str, sentence: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    with pytest.raises(LedgerUnusable, match=sentence):
        LedgerReader(str(path))


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusable, match="is no file"):
        LedgerReader(str(tmp_path))


def test_damage_is_said_in_a_sentence(path: Path) -> None:
    fill(path, *[{"detail": "x" * 500}] * 200)
    with path.open("r+b") as file:
        file.seek(8 * 4096)
        file.write(b"\xff" * 4096 * 20)
    with LedgerReader(str(path)) as ledger, pytest.raises(LedgerUnusable, match="is damaged"):
        list(ledger.exchanges())


def test_a_locked_file_is_waited_for_and_then_said(path: Path) -> None:
    fill(path, {})
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerUnusable, match="is locked by another process"):
        LedgerReader(str(path), seconds=0.01)
    holder.close()


# --- limits -----------------------------------------------------------------------------------------------------------

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_question_that_takes_too_long_is_broken_off(path: Path) -> None:
    fill(path, {})
    with LedgerReader(str(path), seconds=0.01) as ledger:
        with pytest.raises(TooSlow, match=r"a\.db has no answer within 0\.01 s"):
            ledger.rows(_ENDLESS)
        assert ledger.newest() == 1  # the next one has its own time


def test_a_question_that_was_broken_off_leaves_nothing_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, {})
    with LedgerReader(str(path), seconds=0.01) as ledger:
        monkeypatch.setitem(reader._GROUPS, "key", f"({_ENDLESS})")
        with pytest.raises(TooSlow):
            ledger.totals(["key"])
        writer = schema.connect(str(path), 0.0)
        writer.execute("DELETE FROM exchanges")
        assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        writer.close()


def test_readers_give_back_their_files(path: Path) -> None:
    fill(path, {})
    before = len(os.listdir("/dev/fd"))
    for _ in range(20):
        with LedgerReader(str(path)) as ledger:
            ledger.newest()
        with pytest.raises(LedgerUnusable):
            LedgerReader(str(path.parent / "nothing"))
    assert len(os.listdir("/dev/fd")) <= before


def test_sums_by_time_use_the_index(path: Path) -> None:
    """A day's sums must not read all years."""
    fill(path, {})
    condition, values = Wanted(since=NOW).clause()
    with LedgerReader(str(path)) as ledger:
        for sql in (
            reader._select("count(*)", condition),
            reader._select(reader._ALL, f"rowid <= 9 AND {condition}", "ORDER BY started_at, rowid LIMIT 9"),
        ):
            [plan] = ledger.rows(f"EXPLAIN QUERY PLAN {sql}", values)
            assert "INDEX exchanges_started_at (started_at>?" in plan[3]


# --- what there is, and what a prune would remove ---------------------------------------------------------------------


def test_names_are_those_of_most_exchanges_first(path: Path) -> None:
    fill(path, {"key": "b", "tags": "x,y"}, {"key": "c"}, {"key": "b"}, {"key": "a", "tags": "y"}, {"key": None})
    with LedgerReader(str(path)) as ledger:
        assert ledger.names("key") == ["b", "a", "c"]
        assert ledger.names("tag") == ["y", "x"]
        assert ledger.names("provider") == ["openai"]


def test_a_model_has_all_its_names(path: Path) -> None:
    fill(path, {"alias": "fast"}, {"model_served": "gpt-4o"})
    with LedgerReader(str(path)) as ledger:
        assert ledger.names("model") == ["gpt-4o", "gpt-4o-2024-08-06", "fast"]


def test_only_those_with_a_tag(path: Path) -> None:
    fill(path, {"tags": "a, b"}, {"tags": "ab"}, {"tags": None}, {"tags": b"\xff,b"})
    with LedgerReader(str(path)) as ledger:
        assert [row["id"] for row in ledger.latest(9, Wanted(tag="b"))] == ["r-1", "r-4"]
        assert ledger.totals(["key"], Wanted(tag="b")).total.requests == 2
        assert [row["id"] for row in ledger.exchanges(Wanted(tag="ab"))] == ["r-2"]


def test_which_of_some_have_rows(path: Path) -> None:
    fill(path, {"id": "a"}, {"id": "b"})
    with LedgerReader(str(path)) as ledger:
        assert sorted(ledger.ids_among(["a", "x", "b"])) == ["a", "b"]
        assert ledger.ids_among([]) == []


def test_an_answer_that_was_read_to_its_end_after_the_client_left_is_whole(path: Path) -> None:
    fill(path, {**LEFT, "usage_complete": 1}, {**LEFT, "ended_by": "upstream", "usage_complete": 1}, LEFT)
    with LedgerReader(str(path)) as ledger:
        assert ledger.totals(["key"]).total.incomplete == 2


def test_what_is_expendable_by_age_is_exact_and_by_size_is_about_its_share(path: Path) -> None:
    fill(path, *({"started_at": NOW + at, "detail": "x" * 3000} for at in range(400)))
    with LedgerReader(str(path)) as ledger:
        assert ledger.expendable(None, 0) == 0
        assert ledger.expendable(NOW + 7, 0) == 7
        assert ledger.expendable(None, 10**9) == 0
        half = ledger.expendable(None, path.stat().st_size // 2)
        assert 180 < half < 220
        assert ledger.expendable(NOW + 300, path.stat().st_size // 2) == 300
