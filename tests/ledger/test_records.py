"""The file of counters and holds: what is written is read, and nothing else is taken for it."""

from __future__ import annotations

import os
import stat
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger import records
from proxy.ledger.records import Found, LostHold
from proxy.ledger.schema import LedgerUnusable

COUNTERS = {"key ci rpm": (1, -2, 3, 2**63 - 1), "all usd/day": (5, 6, 7, -(2**63)), "": (1, 0, 0, 0)}
HOLDS = [LostHold("ci", 10, 20, 30), LostHold("ci", 10, 20, 30), LostHold("", 0, 0, 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db-counters"


def whole() -> bytes:
    return bytes(records.packed(77, COUNTERS, HOLDS))


def changed(at: int, new: bytes) -> bytes:
    data = whole()
    return data[:at] + new + data[at + len(new) :]


def test_what_was_written_is_read(path: Path) -> None:
    fd, _ = records.rewritten(str(path), bytearray(whole()))
    os.close(fd)
    assert records.read(str(path)) == Found(77, COUNTERS, HOLDS, False)
    assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (65536, 0o600)


def test_no_file_says_nothing(path: Path) -> None:
    assert records.read(str(path)) is None
    assert records.head_of(str(path)) is None


def test_a_file_is_replaced_whatever_a_kill_left_beside_it(path: Path) -> None:
    left = path.with_name(path.name + "-new")
    left.write_bytes(b"x" * 100_000)
    path.write_bytes(b"old")
    fd, view = records.rewritten(str(path), bytearray(whole()))
    view[records.GENERATION] = 78
    os.close(fd)
    assert not left.exists()
    found = records.read(str(path))
    assert found is not None and found.generation == 78


def test_where_it_cannot_be_replaced_the_old_one_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "pwrite", lambda *_: 5)
    with pytest.raises(OSError, match="No space left"):
        records.rewritten(str(path), bytearray(whole()))
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_what_no_disk_took_is_not_mapped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"x" * 65536)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:5], at))
    with path.open("r+b") as file, pytest.raises(OSError, match="No space left"):
        records.mapped(file.fileno(), 65536, bytes(65536))
    assert path.stat().st_size == 65536


def test_the_new_file_is_on_the_disk_before_it_has_the_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        fsync(fd)
        done.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")

    def renamed(old: str, new: str) -> None:
        rename(old, new)
        done.append("name")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    fd, _ = records.rewritten(str(path), bytearray(whole()))
    os.close(fd)
    assert done == ["file", "name", "folder"]


class Stores(list[int]):
    """Words, and what was stored in them in which order."""

    def __init__(self) -> None:
        super().__init__([7] * 32)
        self.made: list[Any] = []

    def __setitem__(self, at: Any, new: Any) -> None:
        super().__setitem__(at, new)
        self.made.append((at, new) if isinstance(at, int) else (at.start, at.stop))


def test_a_kill_while_a_name_is_stored_leaves_a_free_record() -> None:
    view = Stores()
    records.write((view, 16 + 12), records.HOLD, b"ci")
    first = int.from_bytes(b"hci\0\0\0\0\0", sys.byteorder)
    assert view.made == [(16, 0), (17, 32), (16, first)]
    assert view == [7] * 16 + [first] + [0] * 15


# -- files that are something else -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no counters"),
        (b"SQLite format 3\0" * 100, "holds no counters"),
        (bytes(65536), "holds no counters"),
        (changed(112, struct.pack("=q", 2)), "is of another version"),
        (changed(112, struct.pack("=q", 1)[::-1]), "is of another version of llm-proxy, or of another machine"),
        (changed(128, b"x"), r"is damaged \(record 1\)"),
        (changed(256 + 3, b"\xff"), r"is damaged \(record 2\)"),
        (changed(256 + 3, b"\0"), r"is damaged \(record 2\)"),
        (changed(256, whole()[128:256]), r"is damaged \(record 2\)"),  # a name twice
        (changed(3 * 128, b"c" + b"\xc3"), r"is damaged \(record 3\)"),
        (changed(65536 - 128, b"H" + b"counters of llm-proxy"), r"is damaged \(record 511\)"),
    ],
)
def test_what_is_not_ours_is_refused(path: Path, data: bytes, said: str) -> None:
    path.write_bytes(data)
    with pytest.raises(LedgerUnusable, match=said) as refused:
        records.read(str(path))
    assert str(refused.value).startswith(f"{path} ")
    assert str(refused.value).endswith(
        ": put back a copy of it, or move it away, and all limits and budgets begin at zero"
    )


def test_cut_at_any_length_it_is_refused_or_a_part_of_itself(path: Path) -> None:
    data = whole()[: 9 * 128]
    for length in range(len(data)):
        path.write_bytes(data[:length])
        if length < 128:
            with pytest.raises(LedgerUnusable, match="holds no counters"):
                records.read(str(path))
            continue
        found = records.read(str(path))
        there = length // 128 - 1
        assert found == Found(77, dict(list(COUNTERS.items())[:there]), HOLDS[: max(0, there - 3)], length % 128 != 0)


@given(data=st.data())
def test_noise_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "noise"
    noise = bytearray(whole()[: 7 * 128])
    for _ in range(data.draw(st.integers(1, 20))):
        noise[data.draw(st.integers(0, len(noise) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(noise + data.draw(st.binary(max_size=300)))
    try:
        found = records.read(str(path))
    except LedgerUnusable:
        return
    assert found is not None
    again = records.packed(found.generation, found.counters, found.holds)
    path.write_bytes(again)
    assert records.read(str(path)) == found._replace(is_torn=False)


def test_what_was_forgotten_is_not_read(path: Path) -> None:
    path.write_bytes(changed(104, b"\1"))
    found = records.read(str(path))
    assert found is not None and found.holds == []


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "key ci rpm", "x" * 95, "é" * 47, "日本", "a\nb\t\x7f", "\udc80", "~" * 95])
def test_a_name_that_fits_is_itself(name: str) -> None:
    assert records.fitted(name).decode("utf-8", "surrogatepass") == name


@pytest.mark.parametrize(
    "names",
    [
        ["x" * 96, "x" * 97, "x" * 500, "x" * 95 + "y"],
        ["é" * 48, "é" * 49, "x" + "é" * 48],
        ["a", "a\0", "a\0\0", "\0a"],
        ["\udc80" * 40, "\udc80" * 41],
        ["\U0001f600" * 30, "\ud83d\ude00" * 30],
    ],
)
def test_names_that_do_not_fit_stay_different(names: list[str]) -> None:
    fitted = [records.fitted(name) for name in names]
    assert len(set(fitted)) == len(names)
    for data in fitted:
        assert len(data) <= 95 and b"\0" not in data
        assert records.fitted(data.decode()) == data  # once more at the next open


def test_a_long_name_still_tells_whose_it_is() -> None:
    assert records.fitted("model " + "é" * 100).decode().startswith("model éééééé")
