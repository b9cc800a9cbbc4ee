"""The ledger with its thread: nobody waits for it, it waits for nothing, and it ends when it is told to."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger.book import Book
from proxy.ledger.spill import Spill
from proxy.ledger.writer import Ledger
from tests.ledger.receipts import RUN, SECONDS, Heard, a_ledger, a_receipt, ids, is_sound, rows, the_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


class Written:
    """Lets a test wait for what the thread wrote, and hold it back while it writes."""

    def __init__(self, ledger: Ledger) -> None:
        assert ledger._book is not None
        self._changed = threading.Condition()
        self._count = 0
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        ledger._book = _Seen(ledger._book, self)  # type: ignore[assignment]

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= count, SECONDS)

    def around(self, write: Callable[..., None], entries: list[Any], observed: int) -> None:
        self.begun.set()
        assert self.may_go_on.wait(SECONDS)
        write(entries, observed)
        with self._changed:
            self._count += len(entries)
            self._changed.notify_all()


class _Seen:
    """A book whose writes are seen."""

    def __init__(self, book: Book, written: Written) -> None:
        self.__dict__.update(_book=book, _written=written)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._book, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._book, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._book, name)

    def write(self, entries: list[Any], observed: int) -> None:
        self._written.around(self._book.write, entries, observed)


def observe(ledger: Ledger, *numbers: int) -> None:
    for number in numbers:
        ledger.observe(a_receipt(number))


def test_each_receipt_is_written_without_a_next_one_behind_it(path: Path) -> None:
    ledger = a_ledger(path, flush_seconds=0.0)
    written = Written(ledger)
    ledger.start()
    for number in range(1, 6):
        observe(ledger, number)
        written.wait_for(number)
    assert ledger.close(SECONDS)
    assert len(ids(path)) == 5


def test_a_thread_that_rests_is_woken_by_half_a_queue(path: Path) -> None:
    ledger = a_ledger(path, flush_seconds=3600.0, queue=100)
    written = Written(ledger)
    ledger.start()
    observe(ledger, *range(51))
    written.wait_for(51)
    assert ledger.close(SECONDS)


def test_closing_wakes_a_thread_that_rests_and_writes_everything(path: Path) -> None:
    ledger = a_ledger(path, flush_seconds=3600.0)
    ledger.start()
    observe(ledger, *range(1000))
    assert ledger.close(SECONDS) is True
    assert len(ids(path)) == 1000
    run = the_run(path)
    assert (run["observed"], run["written"], run["lost"]) == (1000, 1000, 0)
    assert "ledger" not in [thread.name for thread in threading.enumerate()]


def test_closing_wakes_an_idle_thread(path: Path) -> None:
    ledger = a_ledger(path, flush_seconds=0.0, days=1.0)
    ledger.start()
    observe(ledger, 1)
    assert ledger.close(SECONDS) is True


def test_what_was_observed_before_the_thread_is_written_by_it(path: Path) -> None:
    ledger = a_ledger(path, flush_seconds=3600.0)
    observe(ledger, 1)
    written = Written(ledger)
    ledger.start()
    written.wait_for(1)
    assert ledger.close(SECONDS)


def test_many_receipts_from_a_busy_loop_each_once(path: Path) -> None:
    ledger = a_ledger(path, flush_seconds=0.0, queue=500)
    ledger.start()
    observe(ledger, *range(5000))
    assert ledger.close(SECONDS) is True
    assert sorted(ids(path)) == sorted(f"{RUN}-{n}" for n in range(5000))
    assert (the_run(path)["written"], the_run(path)["lost"]) == (5000, 0)


def test_a_thread_that_hangs_makes_the_loop_spill_and_not_wait(path: Path) -> None:
    ledger = a_ledger(path, queue=10)
    written = Written(ledger)
    written.may_go_on.clear()
    ledger.start()
    observe(ledger, 0)
    assert written.begun.wait(SECONDS)
    observe(ledger, *range(1, 31))
    assert ledger.lost == 0
    assert ledger.spilled_bytes > 0
    written.may_go_on.set()
    assert ledger.close(SECONDS) is True
    assert len(ids(path)) == 31


def test_a_lock_is_survived_without_anybody_calling(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard, flush_seconds=0.0)
    ledger.start()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    observe(ledger, *range(20))
    heard.wait()
    assert heard.levels == ["warn"]
    other.close()
    heard.wait()
    assert heard.levels == ["warn", "info"]
    assert ledger.close(SECONDS) is True
    assert len(ids(path)) == 20


def test_closing_does_not_wait_for_a_thread_that_hangs_and_spills_what_it_holds(path: Path) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard)
    book = ledger._book
    assert book is not None
    written = Written(ledger)
    written.may_go_on.clear()
    ledger.start()
    observe(ledger, 1)
    assert written.begun.wait(SECONDS)
    observe(ledger, 2, 3)
    assert ledger.close(0.01) is True
    assert "the database does not answer" in heard.notes[0][1]
    assert ledger._book is not None  # the thread has not ended
    assert len(Path(f"{path}-spill").read_bytes().splitlines()) == 3
    # It comes back while the process is still there: what it holds is in the spill file too, and is written once.
    written.may_go_on.set()
    assert ledger._thread is not None
    ledger._thread.join(SECONDS)
    assert sorted(ids(path)) == [f"{RUN}-{n}" for n in (1, 2, 3)]
    assert (the_run(path)["written"], the_run(path)["lost"]) == (3, 0)


def test_a_fault_of_ours_does_not_end_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    ledger = a_ledger(path, heard, flush_seconds=0.0)

    is_mended = threading.Event()
    write = Book.write

    def fail(book: Book, *values: Any) -> None:
        if not is_mended.is_set():
            raise ZeroDivisionError("a fault")
        write(book, *values)

    monkeypatch.setattr(Book, "write", fail)
    monkeypatch.setattr(Spill, "append", fail)  # not reached once `write` is mended
    ledger.start()
    observe(ledger, 1)
    heard.wait()
    assert heard.levels == ["error"]
    assert "(a fault)" in heard.notes[0][1]
    is_mended.set()
    heard.wait()
    assert heard.levels == ["error", "info"]
    assert ledger.close(SECONDS) is True
    assert len(ids(path)) == 1


def test_readers_and_the_writer_do_not_disturb_each_other(path: Path) -> None:
    ledger = a_ledger(path, flush_seconds=0.0)
    written = Written(ledger)
    ledger.start()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM exchanges").fetchone() == (0,)
    observe(ledger, *range(100))
    written.wait_for(100)
    assert reader.execute("SELECT count(*) FROM exchanges").fetchone() == (0,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM exchanges").fetchone() == (100,)
    reader.close()
    assert ledger.close(SECONDS) is True
    assert is_sound(path)


def test_observing_costs_one_frame_and_no_file(path: Path) -> None:
    """The promise is 0.3 us; here as the number of Python frames it may take, which no busy machine changes."""
    ledger = a_ledger(path)
    receipt = a_receipt()
    frames: list[str] = []
    calls: list[str] = []

    def see(frame: Any, event: str, called: Any) -> None:
        if event == "call":
            frames.append(frame.f_code.co_name)
        elif event == "c_call":
            calls.append(called.__name__)

    sys.setprofile(see)
    try:
        ledger.observe(receipt)
        ledger.observe(receipt)
    finally:
        sys.setprofile(None)
    assert frames == ["observe", "observe"]
    assert calls == ["len", "append", "len", "append", "setprofile"]
    ledger.close(0)
    assert len(rows(path)) == 1  # the same receipt twice has one row
