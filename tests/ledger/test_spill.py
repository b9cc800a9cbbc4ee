"""What was spilled comes back, once and whole."""

from __future__ import annotations

import errno
import os
import stat
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from proxy.ledger import spill
from proxy.ledger.rows import Entry, entry_of, storable
from proxy.ledger.schema import ATTEMPTS
from proxy.ledger.spill import Spill
from tests.ledger.receipts import RUN, SECONDS, a_receipt, full_receipt


def entries(*numbers: int) -> list[Entry]:
    return [entry_of(a_receipt(number), RUN) for number in numbers]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db-spill"


@pytest.fixture
def file(path: Path) -> Iterator[Spill]:
    file = Spill(str(path))
    yield file
    file.close()


def everything(file: Spill, limit: int = 10) -> tuple[list[Entry], int]:
    """All that is in it, read as it is replayed; and how many lines were skipped."""
    found: list[Entry] = []
    skipped = 0
    while file.waiting:
        some, end, more = file.read(limit)
        assert len(some) <= limit
        found += some
        skipped += more
        file.advance(end)
    return found, skipped


def test_every_value_comes_back_as_it_was(file: Spill) -> None:
    entry = entry_of(full_receipt(), RUN)
    file.append([entry])
    assert everything(file) == ([entry], 0)


def test_a_line_of_an_older_version_has_nothing_where_columns_were_added(file: Spill, path: Path) -> None:
    entry = entry_of(full_receipt(), RUN)
    document = orjson.loads(spill._document(entry))
    for attempt in document["attempts"]:
        for name in ATTEMPTS[12:]:  # those of schema 3
            del attempt[name]
    text = orjson.dumps(document)
    path.write_bytes(b"%08x %b\n" % (zlib.crc32(text), text))
    older = Spill(str(path))
    [found], skipped = everything(older)
    older.close()
    assert skipped == 0
    assert found.exchange == entry.exchange
    assert found.attempts == [row[:12] + (None,) * len(ATTEMPTS[12:]) for row in entry.attempts]


def test_entries_come_in_order_and_in_pieces(file: Spill) -> None:
    file.append(entries(*range(7)))
    file.append(entries(7))
    assert everything(file, limit=3) == (entries(*range(8)), 0)


def test_lines_are_for_people_too(file: Spill, path: Path) -> None:
    file.append(entries(1, 2))
    first, second = path.read_text().splitlines()
    assert first[8:].startswith(f' {{"exchange":{{"id":"{RUN}-1","run":"{RUN}","started_at":1000000001.0,"key":null,')
    assert int(second[:8], 16)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_is_emptied_only_when_all_of_it_was_read(file: Spill, path: Path) -> None:
    file.append(entries(1, 2))
    _, end, _ = file.read(1)
    file.advance(end)
    assert len(path.read_bytes().splitlines()) == 2
    file.append(entries(3))  # meanwhile
    found, end, _ = file.read(10)
    assert found == entries(2, 3)
    file.append(entries(4))
    file.advance(end)
    assert file.waiting == len(path.read_bytes()) // 4
    assert everything(file) == (entries(4), 0)
    assert (path.read_bytes(), file.waiting) == (b"", 0)


def test_what_was_not_advanced_is_read_again(file: Spill) -> None:
    file.append(entries(1, 2))
    assert file.read(10) == file.read(10)


def test_the_next_process_reads_what_the_last_one_left(file: Spill, path: Path) -> None:
    file.append(entries(1, 2))
    _, end, _ = file.read(1)
    file.advance(end)
    again = Spill(str(path))
    assert everything(again) == (entries(1, 2), 0)  # replayed in part, and not emptied: all of it, again
    again.close()


@pytest.mark.parametrize("cut", [1, 2, 9, 10, 200])
def test_a_line_that_a_kill_cut_off_is_skipped(path: Path, cut: int) -> None:
    whole = Spill(str(path))
    whole.append(entries(1, 2))
    size = path.stat().st_size
    os.truncate(path, size - cut if cut < 200 else size // 2 + 1)
    again = Spill(str(path))
    # Without its end a line is no line, even where only the end is missing: it may be one of two digits that look well.
    assert everything(again) == (entries(1), 1)
    again.close()


@pytest.mark.parametrize(
    "damage",
    [b"\n", b"x\n", b"00000000 {}\n", b"zzzzzzzz {}\n", b"\xff" * 50 + b"\n", b'1234567 {"exchange":{}}\n', b"\0\n"],
)
def test_damage_in_the_middle_costs_its_line_only(path: Path, damage: bytes) -> None:
    first = Spill(str(path))
    first.append(entries(1))
    with path.open("ab") as raw:
        raw.write(damage)
    second = Spill(str(path))
    second.append(entries(2))
    third = Spill(str(path))
    assert everything(third) == (entries(1, 2), 1)
    third.close()


def test_one_changed_bit_is_seen(path: Path) -> None:
    Spill(str(path)).append(entries(1, 2))
    data = bytearray(path.read_bytes())
    data[data.index(b"/v1")] ^= 1  # still a document, and still a path: "." instead of "/"
    path.write_bytes(data)
    again = Spill(str(path))
    assert everything(again) == (entries(2), 1)
    again.close()


def test_what_follows_a_torn_line_is_a_line_of_its_own(path: Path) -> None:
    """The start replays, and so empties, the file before anything is appended. But that may fail."""
    Spill(str(path)).append(entries(1, 2))
    os.truncate(path, path.stat().st_size - 5)
    again = Spill(str(path))
    again.append(entries(3))
    assert everything(again) == (entries(1, 3), 1)
    again.close()


def test_a_document_with_a_sum_but_of_another_kind_is_skipped(path: Path) -> None:
    for document in (b"[]", b"{}", b'{"exchange":{},"attempts":[]}', b'{"exchange":[],"attempts":[]}', b"7"):
        assert spill.entry_in(b"%08x %b" % (spill.zlib.crc32(document), document)) is None


def test_a_line_of_an_older_version_lacks_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = [spill._line(each) for each in entries(1)]
    monkeypatch.setattr(spill, "EXCHANGES", (*spill.EXCHANGES, "colour"))
    entry = spill.entry_in(line[:-1])
    assert entry is not None
    assert entry.exchange == (*entries(1)[0].exchange, None)


def test_values_that_json_has_no_form_for_are_made_to_fit(file: Spill) -> None:
    odd = entry_of(a_receipt(tags="\ud800", bytes_in=2**70), RUN)
    file.append([odd])
    assert everything(file) == ([storable(odd)], 0)


def test_more_than_a_piece_is_read_in_pieces(file: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_PIECE", 3000)
    file.append(entries(*range(20)))
    assert everything(file) == (entries(*range(20)), 0)


def test_what_is_longer_than_a_piece_is_no_line(file: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_PIECE", 3000)
    file.append([entry_of(a_receipt(1, path="/" + "x" * 7000), RUN)])
    file.append(entries(2))
    found, skipped = everything(file)
    assert found == entries(2)
    assert skipped > 0


def test_a_disk_that_takes_half_of_it_keeps_nothing(file: Spill, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does when a disk becomes full within a write."""
    file.append(entries(1))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left") as full:
        file.append(entries(2, 3))
    assert full.value.errno == errno.ENOSPC
    monkeypatch.undo()
    file.append(entries(4))
    assert everything(file) == (entries(1, 4), 0)


def test_a_file_that_was_removed_is_made_anew(file: Spill, path: Path) -> None:
    file.append(entries(1, 2))
    _, end, _ = file.read(1)
    file.advance(end)
    path.unlink()
    file.append(entries(3))
    assert path.exists()
    assert everything(file) == (entries(3), 0)


def test_a_file_that_somebody_emptied_is_done(file: Spill, path: Path) -> None:
    file.append(entries(1, 2))
    os.truncate(path, 0)
    assert everything(file) == ([], 0)
    file.append(entries(3))
    assert everything(file) == (entries(3), 0)


def test_after_the_end_nothing_is_written_into_anybodys_file(path: Path) -> None:
    file = Spill(str(path))
    file.close()
    with path.open("w+b") as other:  # gets the number that the file had
        with pytest.raises(OSError, match="Bad file descriptor"):
            file.append(entries(1))
        assert other.read() == b""


def test_closing_removes_an_empty_file_and_keeps_a_full_one(path: Path) -> None:
    file = Spill(str(path))
    file.append(entries(1))
    file.close()
    assert path.exists()
    file = Spill(str(path))
    everything(file)
    file.close()
    assert not path.exists()


def test_two_threads_append_while_one_reads_and_empties(file: Spill) -> None:
    """The loop (queue full), the writer's thread (database locked), and the replay: nothing lost, nothing twice."""
    count = 300

    def fill(first: int) -> None:
        for number in range(first, first + count):
            file.append(entries(number))

    threads = [threading.Thread(target=fill, args=(first,)) for first in (0, count)]
    for thread in threads:
        thread.start()
    found: list[Entry] = []
    while any(thread.is_alive() for thread in threads) or file.waiting:
        some, skipped = everything(file)
        assert not skipped
        found += some
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(found) == sorted(entries(*range(2 * count)))
