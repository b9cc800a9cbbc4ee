"""What is written is written once, whatever happened before; and what is missing of a run is known."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger import rows as ledger_rows
from proxy.ledger.book import BATCH, Book
from proxy.ledger.rows import Entry, entry_of, storable
from proxy.ledger.schema import ATTEMPTS, LedgerUnusable
from proxy.ledger.spill import Spill
from tests.ledger.receipts import RUN, Heard, a_receipt, ids, is_sound, rows, the_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def a_book(path: Path, heard: Heard | None = None, run: str = RUN) -> Book:
    return Book(str(path), 0.0, run, "1.2.3", heard or Heard())


def entries(*numbers: int, run: str = RUN, **more: Any) -> list[Entry]:
    return [entry_of(a_receipt(number, run, **more), run) for number in numbers]


def killed(book: Book) -> None:
    """Leave it as a kill would: nothing is said in the tables any more."""
    del book.counter
    book.close()


def test_rows_and_their_number_are_written_together(path: Path) -> None:
    book = a_book(path)
    book.write(entries(1, 2, 3), 5)
    assert ids(path) == ["run0-1", "run0-2", "run0-3"]
    run = the_run(path)
    assert (run["observed"], run["written"], run["lost"], run["ended_at"]) == (5, 3, None, None)
    assert (run["pid"], run["version"]) == (os.getpid(), "1.2.3")
    assert book.end(5) == 2
    assert the_run(path)["lost"] == 2
    killed(book)


def test_what_is_there_is_not_counted_again(path: Path) -> None:
    book = a_book(path)
    book.write(entries(1, 2), 2)
    book.write(entries(1, 2, 3), 3)
    assert the_run(path)["written"] == len(ids(path)) == 3
    killed(book)


def test_a_long_batch_breathes_between_its_groups(path: Path) -> None:
    book = a_book(path)
    breaths: list[int] = []
    book.breathe = lambda: breaths.append(len(ids(path)))
    book.write(entries(1), 1)
    assert breaths == []
    book.write(entries(*range(2, 2 + 3 * ledger_rows.GROUP)), 60)
    assert breaths == [1, 1]  # and it is one transaction
    killed(book)


@pytest.mark.sources
def test_one_odd_row_does_not_hold_up_the_others(path: Path) -> None:
    book = a_book(path)
    odd = entries(2, tags="\ud800") + entries(3, bytes_in=2**70) + entries(4, path=object())
    book.write([*entries(1), *odd, *entries(5)], 5)
    assert ids(path) == [f"run0-{n}" for n in range(1, 6)]
    assert [row["tags"] for row in rows(path)] == [None, "?", None, None, None]
    killed(book)


def test_a_failed_batch_leaves_nothing_and_can_be_written_later(path: Path) -> None:
    book = a_book(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TRIGGER no BEFORE INSERT ON attempts BEGIN SELECT RAISE(ABORT, 'not now'); END")
    batch = entries(1, 2)
    batch[1].attempts.append((batch[1].exchange[0], 1, *[None] * (len(ATTEMPTS) - 2)))
    with pytest.raises(sqlite3.Error, match="not now"):
        book.write(batch, 2)
    assert (ids(path), the_run(path)["written"]) == ([], 0)
    other.execute("DROP TRIGGER no")
    other.close()
    book.write(batch, 2)
    assert the_run(path)["written"] == 2
    killed(book)


def test_a_file_that_was_removed_or_replaced_is_not_written_any_more(path: Path) -> None:
    book = a_book(path)
    book.write(entries(1), 1)
    path.rename(path.with_suffix(".old"))
    with pytest.raises(OSError, match="its file was removed or replaced: restart llm-proxy"):
        book.write(entries(2), 2)
    path.write_bytes(path.with_suffix(".old").read_bytes())
    with pytest.raises(OSError, match="removed or replaced"):
        book.write(entries(2), 2)
    killed(book)


# -- what the last run left --------------------------------------------------------------------------------------------


def test_the_missing_receipts_of_a_killed_run_are_counted_and_told(path: Path) -> None:
    book = a_book(path)
    book.write(entries(1, 2, 3), 3)
    book.counter[0] = 10
    killed(book)
    heard = Heard()
    book = a_book(path, heard, "run1")
    run = the_run(path)
    assert (run["observed"], run["written"], run["lost"], run["ended_at"]) == (10, 3, 7, None)
    assert heard.notes == [
        (
            "warn",
            "the run before did not end its ledger (killed?): 7 of its receipts are missing",
            {"run": RUN, "observed": 10, "lost": 7},
        )
    ]
    killed(book)


def test_pruned_rows_are_not_missing(path: Path) -> None:
    book = a_book(path)
    book.write(entries(1, 2, 3), 3)
    book.counter[0] = 3
    assert book.prune(1e12, 0)[0] == 3
    assert ids(path) == []
    killed(book)
    killed(a_book(path, run="run1"))
    assert the_run(path)["lost"] == 0


def test_what_was_spilled_is_replayed_at_the_next_start_and_not_missing(path: Path) -> None:
    book = a_book(path)
    book.write(entries(1), 1)
    book.spill.append(entries(*range(2, 2 + 3 * BATCH)))
    book.counter[0] = 3 * BATCH + 1
    killed(book)
    heard = Heard()
    book = a_book(path, heard, "run1")
    assert len(ids(path)) == 3 * BATCH + 1
    run = the_run(path)
    assert (run["observed"], run["written"], run["lost"]) == (3 * BATCH + 1, 3 * BATCH + 1, 0)
    [(level, message, _)] = heard.notes
    assert level == "info"
    assert message.endswith("none of its receipts are missing")
    assert book.spill.waiting == 0
    killed(book)


def test_a_kill_between_commit_and_the_end_of_the_replay_makes_no_double_rows(path: Path) -> None:
    book = a_book(path)
    book.spill.append(entries(1, 2))
    some, _, _ = book.spill.read(10)
    book.write(some, 2)  # and here comes the kill
    book.counter[0] = 2
    killed(book)
    book = a_book(path, run="run1")
    assert ids(path) == ["run0-1", "run0-2"]
    assert (the_run(path)["written"], the_run(path)["lost"]) == (2, 0)
    killed(book)


def test_a_line_that_was_cut_off_is_told_and_missing(path: Path) -> None:
    book = a_book(path)
    book.spill.append(entries(1, 2))
    book.counter[0] = 2
    killed(book)
    spilled = Path(f"{path}-spill")
    os.truncate(spilled, spilled.stat().st_size - 30)
    heard = Heard()
    book = a_book(path, heard, "run1")
    assert ids(path) == ["run0-1"]
    assert the_run(path)["lost"] == 1
    assert heard.notes[0] == ("warn", f"1 lines of {path}-spill are not whole: skipped", {"skipped": 1})
    killed(book)


def test_a_spill_file_of_several_runs_counts_for_each(path: Path) -> None:
    killed(a_book(path))
    spill = Spill(f"{path}-spill")
    spill.append([*entries(1, 2), *entries(1, run="gone"), *entries(3)])
    spill.close()
    book = a_book(path, run="run1")
    assert the_run(path)["written"] == 3
    assert len(ids(path)) == 4
    gone = the_run(path, "gone")  # nobody knows any more of it
    assert (gone["written"], gone["lost"], gone["ended_at"]) == (1, None, None)
    killed(book)


def test_what_this_run_took_is_not_said_of_another(path: Path) -> None:
    killed(a_book(path))
    book = a_book(path, run="run1")
    book.write([*entries(1), *entries(1, run="run1")], 50)
    assert (the_run(path)["observed"], the_run(path, "run1")["observed"]) == (1, 50)
    killed(book)


def test_runs_before_the_last_are_left_as_they_are(path: Path) -> None:
    book = a_book(path)
    assert book.end(0) == 0
    killed(book)
    ended = the_run(path)
    assert ended["lost"] == 0
    heard = Heard()
    killed(a_book(path, heard, "run1"))
    assert heard.notes == []
    assert the_run(path) == ended


def test_without_the_run_file_nobody_knows_what_is_missing(path: Path) -> None:
    book = a_book(path)
    book.counter[0] = 5
    killed(book)
    os.unlink(f"{path}-run")
    heard = Heard()
    killed(a_book(path, heard, "run1"))
    assert the_run(path)["lost"] is None
    assert heard.notes == []


# -- one that cannot be opened -----------------------------------------------------------------------------------------


def test_a_second_writer_is_refused(path: Path) -> None:
    book = a_book(path)
    with pytest.raises(LedgerUnusable, match=rf"^{path} is in use by another llm-proxy \(process {os.getpid()}\)"):
        a_book(path, run="run1")
    book.write(entries(1), 1)
    killed(book)


@pytest.mark.parametrize("run", ["x" * 41, RUN])
def test_what_fails_leaves_nothing_open(path: Path, run: str) -> None:
    killed(a_book(path))
    before = open_files(path)
    with pytest.raises((LedgerUnusable, ValueError)):
        a_book(path, run=run)  # too long; used before
    assert open_files(path) == before == 0
    killed(a_book(path, run="run1"))


def open_files(path: Path) -> int:
    """How many descriptors this process has of the ledger's files."""
    places = {(status.st_dev, status.st_ino) for status in (each.stat() for each in path.parent.iterdir())}
    count = 0
    for fd in range(3, 256):
        try:
            status = os.fstat(fd)
        except OSError:
            continue
        count += (status.st_dev, status.st_ino) in places
    return count


def test_closing_leaves_two_files(path: Path) -> None:
    killed(a_book(path))
    assert sorted(each.name for each in path.parent.iterdir()) == ["a.db", "a.db-run"]
    assert is_sound(path)


def test_storable_is_used_for_the_batch_only_if_it_must_be(path: Path) -> None:
    """A value that fits is never changed on its way."""
    book = a_book(path)
    [entry] = entries(1, tags="ok\0")
    assert storable(entry) == entry
    book.write([entry], 1)
    assert rows(path)[0]["tags"] == "ok\0"
    killed(book)
