"""What was counted is counted, whatever became of the process; what a kill cut off is told until it is in safety."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger import counters, records
from proxy.ledger.counters import Counters, bump, holds, look
from proxy.ledger.records import LostHold, Numbers, Place
from proxy.ledger.schema import LedgerUnusable
from proxy.policy.limits import FOREVER, Chain, Demand, Hold, Limiter, Refusal
from proxy.policy.rules import parse_rules
from tests.ledger.receipts import SECONDS

NOW = 1_800_000_000 * 10**9
LATER = NOW + 10**9
Notes = list[tuple[str, str]]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.db-counters")


@pytest.fixture
def notes() -> Notes:
    return []


def an_open(path: str, notes: Notes | None = None, now: int = NOW) -> Counters:
    def note(level: str, message: str, **_: Any) -> None:
        assert notes is not None, message
        notes.append((level, message))

    return Counters(path, note, now)


def store(place: Place, *numbers: int) -> None:
    view, at = place
    for index, number in enumerate(numbers):
        view[at + index] = number


def numbers(place: Place) -> Numbers:
    view, at = place
    return view[at], view[at + 1], view[at + 2], view[at + 3]


def take(file: Counters, key: str, micros: int, tokens: int, now: int = NOW) -> Place:
    place = file.hold(key)
    store(place, now, micros, tokens)
    return place


def give_back(file: Counters, key: str, place: Place) -> None:
    store(place, 0, 0, 0, 0)
    file.free(key, place)


# -- counters ----------------------------------------------------------------------------------------------------------


def test_a_counter_is_zeros_and_always_in_the_same_place(path: str) -> None:
    file = an_open(path)
    place = file.counter("key ci rpm")
    assert numbers(place) == (0, 0, 0, 0)
    assert file.counter("key ci rpm") == place
    assert file.counter("key ci tpm")[1] != place[1]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    file.close()


def test_what_was_stored_is_there_without_a_close(path: str) -> None:
    file = an_open(path)
    store(file.counter("key ci rpm"), LATER)
    store(file.counter("key ci usd/day"), 5, LATER)
    expected = {"key ci rpm": (LATER, 0, 0, 0), "key ci usd/day": (5, LATER, 0, 0)}
    assert look(path) == expected
    del file
    assert look(path) == expected
    file = an_open(path)
    assert numbers(file.counter("key ci rpm")) == (LATER, 0, 0, 0)
    assert numbers(file.counter("key ci usd/day")) == (5, LATER, 0, 0)
    file.close()


def test_looking_makes_no_file(path: str) -> None:
    assert (look(path), holds(path), bump(path)) == ({}, [], False)
    assert not os.path.exists(path)


ODD = [
    "",
    " ",
    "é" * 200,
    "é" * 201,
    "x" * 95,
    "x" * 96,
    "x" * 97,
    "a\0",
    "a\0b",
    "a",
    "\udc80",
    "\U0001f600" * 40,
    "a\n",
]


def test_names_of_odd_letters_are_different_counters(path: str) -> None:
    file = an_open(path)
    for number, name in enumerate(ODD):
        store(file.counter(name), LATER + number)
    assert len(look(path)) == len(ODD)
    file.close()
    file = an_open(path)
    assert [numbers(file.counter(name))[0] for name in ODD] == [LATER + number for number in range(len(ODD))]
    assert len(look(path)) == len(ODD)
    file.close()


def test_ten_thousand_counters_over_many_segments(path: str) -> None:
    file = an_open(path)
    before = len(os.listdir("/dev/fd"))
    for number in range(10_000):
        store(file.counter(f"key k{number} usd/month"), number, LATER)
    assert len(os.listdir("/dev/fd")) - before < 15, "each map keeps a file descriptor"
    assert os.path.getsize(path) > 10_000 * 128
    assert os.stat(path).st_blocks * 512 >= os.path.getsize(path), "a store into a hole may be SIGBUS"
    file.close()
    expected = {f"key k{number} usd/month": (number, LATER, 0, 0) for number in range(10_000)}
    assert look(path) == expected
    file = an_open(path)
    assert {name: numbers(file.counter(name)) for name in expected} == expected
    for number in range(10_000):  # with the next segments behind them
        store(file.counter(f"key more{number} rpm"), LATER)
    assert len(look(path)) == 20_000
    file.close()


def test_an_open_drops_what_says_nothing_any_more(path: str) -> None:
    file = an_open(path)
    kept = {
        "a rate that is ahead": (NOW + 1, 0, 0, 0),
        "a budget of this window": (5, NOW + 1, 0, 0),
        "a budget for ever": (5, FOREVER, 0, 0),
        "a rate that is ahead, and what it means": (NOW + 1, 0, 7, 0),
        "a budget that was told": (5, NOW + 1, NOW, NOW + 1),
        "something of a later version": (0, 0, 0, 1),
    }
    dropped = {
        "a rate of the past": (NOW, 0, 0, 0),
        "a rate that nobody used": (0, 0, 0, 0),
        "a rate of the past, and what it meant": (NOW, 0, 7, 0),
        "a budget that was told in a window that ended": (5, NOW, NOW - 1, NOW),
        "a budget of a window that ended": (5, NOW, 0, 0),
    }
    for name, values in (kept | dropped).items():
        store(file.counter(name), *values)
    for number in range(2000):
        store(file.counter(f"old {number}"), NOW)
    file.close()
    assert os.path.getsize(path) > 2000 * 128
    an_open(path).close()
    assert look(path) == kept
    assert os.path.getsize(path) == 65536
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


# -- holds -------------------------------------------------------------------------------------------------------------


def test_a_hold_is_free_again_for_its_key(path: str) -> None:
    file = an_open(path)
    first, second = take(file, "ci", 1, 2), take(file, "ci", 3, 4)
    assert holds(path) == [LostHold("ci", 1, 2, NOW), LostHold("ci", 3, 4, NOW)]
    assert look(path) == {}
    give_back(file, "ci", first)
    assert holds(path) == [LostHold("ci", 3, 4, NOW)]
    assert take(file, "ci", 5, 6) == first
    give_back(file, "ci", second)
    give_back(file, "ci", first)
    assert holds(path) == []
    assert sorted(take(file, "ci", 7, 8)[1] for _ in range(3))[:2] == sorted([first[1], second[1]])
    assert len(holds(path)) == 3
    file.close()


def test_keys_by_the_hundred_thousand_share_what_is_free(path: str) -> None:
    file = an_open(path)
    steady = take(file, "steady", 7, 7)
    for number in range(100_000):
        give_back(file, f"k{number}", take(file, f"k{number}", 1, 1))
    place = take(file, "last", 1, 2)
    assert holds(path) == [LostHold("steady", 7, 7, NOW), LostHold("last", 1, 2, NOW)]
    give_back(file, "last", place)
    give_back(file, "steady", steady)
    assert os.path.getsize(path) == 65536
    file.close()


def test_many_at_once_are_many_places(path: str) -> None:
    file = an_open(path)
    taken = [take(file, f"k{number % 7}", number, 0) for number in range(2000)]
    assert sorted(each.micros for each in holds(path)) == list(range(2000))
    for number, place in enumerate(taken):
        give_back(file, f"k{number % 7}", place)
    size = os.path.getsize(path)
    for number in range(2000):  # of other keys: in the same places
        take(file, f"other{number}", number, 0)
    assert sorted(each.key for each in holds(path)) == sorted(f"other{number}" for number in range(2000))
    assert os.path.getsize(path) == size
    file.close()


def test_lost_holds_come_back_until_they_are_forgotten(path: str) -> None:
    file = an_open(path)
    assert file.lost == []
    take(file, "ci", 10, 20)
    take(file, "x" * 200, 11, 21)
    give_back(file, "b", take(file, "b", 12, 22))
    del file
    lost = [LostHold("ci", 10, 20, NOW), LostHold(records.fitted("x" * 200).decode(), 11, 21, NOW)]
    file = an_open(path)
    assert file.lost == lost
    take(file, "later", 1, 1)
    del file  # killed before the caller had them
    file = an_open(path)
    assert sorted(file.lost) == sorted([*lost, LostHold("later", 1, 1, NOW)])
    file.forget_lost()
    assert (file.lost, holds(path)) == ([], [])
    place = take(file, "ci", 5, 5)
    assert holds(path) == [LostHold("ci", 5, 5, NOW)]
    give_back(file, "ci", place)
    file.close()
    file = an_open(path)
    assert file.lost == []
    file.close()


def test_forgotten_places_are_used_again(path: str) -> None:
    file = an_open(path)
    for number in range(400):
        take(file, "ci", number, 1)
    del file
    file = an_open(path)
    assert len(file.lost) == 400
    file.forget_lost()
    for number in range(250):
        assert numbers(file.counter(f"c{number}")) == (0, 0, 0, 0)
        assert numbers(take(file, f"k{number % 3}", 2, 3)) == (NOW, 2, 3, 0)
    assert os.path.getsize(path) == 65536
    assert len(look(path)) == 250
    assert sorted(holds(path)) == sorted(LostHold(f"k{number % 3}", 2, 3, NOW) for number in range(250))
    file.close()


@pytest.mark.parametrize("stored", [(0, 5, 0), (0, 5, 6), (9, 0, 0), (0, 0, 6)])
def test_a_hold_that_a_kill_caught_between_its_stores_is_lost_too(path: str, stored: tuple[int, int, int]) -> None:
    file = an_open(path)
    store(file.hold("ci"), *stored)
    del file
    file = an_open(path)
    assert file.lost == [LostHold("ci", stored[1], stored[2], stored[0])]
    file.close()


# -- keys that changed -------------------------------------------------------------------------------------------------


def test_a_change_of_keys_is_seen(path: str) -> None:
    file = an_open(path)
    assert file.generation == NOW
    seen = [file.generation]
    for _ in range(3):
        assert bump(path)
        assert file.generation not in seen
        seen.append(file.generation)
    file.close()


def test_another_process_changes_keys(path: str) -> None:
    file = an_open(path)
    store(file.counter("a"), LATER)
    before, began = file.generation, time.time_ns()
    code = f"from proxy.ledger.counters import bump; assert bump({path!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=SECONDS)
    assert before != file.generation >= began
    assert look(path) == {"a": (LATER, 0, 0, 0)}
    file.close()


def test_two_changes_in_one_moment_are_two(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = an_open(path)
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    seen = [file.generation]
    for _ in range(3):
        bump(path)
        seen.append(file.generation)
    assert all(one != other for one, other in pairwise(seen))
    file.close()


def test_every_open_is_a_generation_of_its_own(path: str) -> None:
    seen = []
    for _ in range(3):
        file = an_open(path)
        seen.append(file.generation)
        file.close()
    assert all(one != other for one, other in pairwise(seen))


def test_a_change_while_a_server_starts_reaches_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    an_open(path).close()
    started: list[tuple[Counters, int]] = []

    def replaced(path: str) -> tuple[int, int]:
        if not started:  # between the store and the look whether it was of use
            file = an_open(path)
            started.append((file, file.generation))
        return place(path)

    place = counters.place
    monkeypatch.setattr(counters, "place", replaced)
    assert bump(path)
    [(file, before)] = started
    assert file.generation != before
    file.close()


def test_a_file_of_somebody_else_is_not_written_into(path: str) -> None:
    Path(path).write_bytes(b"x" * 1000)
    with pytest.raises(LedgerUnusable, match="holds no counters"):
        bump(path)
    with pytest.raises(LedgerUnusable, match="holds no counters"):
        look(path)
    with pytest.raises(LedgerUnusable, match="holds no counters"):
        an_open(path)
    assert Path(path).read_bytes() == b"x" * 1000


# -- disks -------------------------------------------------------------------------------------------------------------


def test_on_a_full_disk_names_go_on_in_memory(path: str, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    file = an_open(path, notes)
    for number in range(511):
        store(file.counter(f"c{number}"), LATER + number)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:1000], at))
    for number in range(511, 2000):
        store(file.counter(f"c{number}"), LATER + number)
        take(file, "ci", number, 1)
    assert [numbers(file.counter(f"c{number}"))[0] for number in range(2000)] == [LATER + n for n in range(2000)]
    assert (len(look(path)), os.path.getsize(path)) == (511, 65536)
    [(level, message)] = notes
    assert (level, message) == (
        "error",
        f"{path} cannot be written (No space left on device): what is counted from now on begins anew at the next "
        "start; make room on the disk and restart llm-proxy",
    )
    monkeypatch.undo()
    for number in range(2000, 4000):
        store(file.counter(f"c{number}"), LATER + number)
    assert len(look(path)) > 2000, "there is room again"
    assert bump(path)
    file.close()
    file = an_open(path)
    assert numbers(file.counter("c3999")) == (LATER + 3999, 0, 0, 0)
    file.close()


LIMITED = """
import resource, sys
from proxy.ledger.counters import Counters
notes = []
file = Counters(sys.argv[1], lambda level, message, **more: notes.append(message), 5)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
for number in range(3000):
    view, at = file.counter(f"c{number}")
    view[at] = 2**62
assert all(view[at] == 2**62 for view, at in map(file.counter, (f"c{number}" for number in range(3000))))
file.close()
print(len(notes), *notes)
"""


def test_a_real_limit_is_a_full_disk(path: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", LIMITED, path], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert child.stdout.startswith(f"1 {path} cannot be written (")
    assert (len(look(path)), os.path.getsize(path)) == (511, 65536)


def test_a_start_on_a_full_disk_goes_on_from_what_is_there(
    path: str, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = an_open(path)
    store(file.counter("spent"), 5, LATER)
    take(file, "ci", 10, 20)
    del file
    before = Path(path).read_bytes()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        file = an_open(path, notes)
        assert [level for level, _ in notes] == ["error"]
        assert numbers(file.counter("spent")) == (5, LATER, 0, 0)
        assert file.lost == [LostHold("ci", 10, 20, NOW)]
        file.forget_lost()
        for number in range(1000):
            store(file.counter(f"c{number}"), LATER)
        file.sync()
    generation = file.generation
    assert Path(path).read_bytes() == before
    assert bump(path)
    assert file.generation != generation, "keys that were taken away must not go on"
    file.close()
    assert len(notes) == 1


def test_a_first_start_on_a_full_disk_counts_in_memory(
    path: str, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    file = an_open(path, notes)
    store(file.counter("a"), 5)
    assert (numbers(file.counter("a"))[0], file.generation, len(notes)) == (5, NOW, 1)
    file.close()
    assert not os.path.exists(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnusable, match=f"there is no folder {tmp_path}/no"):
        an_open(str(tmp_path / "no" / "a"))
    with pytest.raises(LedgerUnusable, match="cannot be used"):
        an_open(str(tmp_path))


def test_a_torn_record_is_dropped_and_told(path: str, notes: Notes) -> None:
    file = an_open(path)
    for name in "abc":
        store(file.counter(name), LATER)
    file.close()
    os.truncate(path, 3 * 128 + 100)
    file = an_open(path, notes)
    assert set(look(path)) == {"a", "b"}
    assert notes == [("warn", f"{path} does not end with a whole record: what it held of one is dropped")]
    file.close()


def test_after_the_end_nothing_raises(path: str) -> None:
    file = an_open(path)
    place = take(file, "ci", 1, 2)
    file.close()
    file.close()
    file.sync()
    give_back(file, "ci", place)
    for number in range(1000):
        store(file.counter(f"c{number}"), LATER)
        take(file, f"k{number}", 1, 2)
    assert holds(path)


def test_a_sync_asks_the_disk(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    file = an_open(path)
    file.sync()
    monkeypatch.setattr(counters, "_sync", asked.append)
    file.sync()
    assert [os.fstat(fd).st_ino for fd in asked] == [os.stat(path).st_ino]
    file.close()


# -- against a model ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "key ci rpm", "é" * 60, "x" * 120, "x" * 121, "a\0"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), NAMES, st.integers(1, 2**63 - 1 - NOW)),
        st.tuples(st.just("take"), NAMES, st.integers(0, 10**15)),
        st.tuples(st.just("give"), st.integers(0, 9), st.none()),
        st.tuples(st.sampled_from(["kill", "forget", "bump", "fill"]), st.none(), st.none()),
    ),
    max_size=40,
)


@given(steps=STEPS)
def test_it_is_a_dict_that_outlives_its_process(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any, Any]]
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "model-counters")
    if os.path.exists(path):
        os.unlink(path)
    file = an_open(path)
    counted: dict[str, Numbers] = {}
    taken: list[tuple[str, LostHold, Place]] = []
    lost: list[LostHold] = []
    for what, one, other in steps:
        match what:
            case "count":
                counted[one] = (NOW + other, 0, 0, 0)
                store(file.counter(one), NOW + other)
            case "take":
                shown = records.fitted(one).decode()
                taken.append((one, LostHold(shown, other, 3, LATER), take(file, one, other, 3, LATER)))
            case "give" if one < len(taken):
                key, _, place = taken.pop(one)
                give_back(file, key, place)
            case "forget":
                file.forget_lost()
                lost = []
            case "bump":
                before = file.generation
                assert bump(path) and file.generation != before
            case "fill":
                for number in range(100):
                    counted[f"f{number}"] = (LATER, 0, 0, 0)
                    store(file.counter(f"f{number}"), LATER)
            case "kill":
                lost += [hold for _, hold, _ in taken]
                taken = []
                file.close()
                file = an_open(path)
        assert sorted(file.lost) == sorted(lost)
        assert sorted(holds(path)) == sorted([*lost, *(hold for _, hold, _ in taken)])
        assert look(path) == {records.fitted(name).decode(): values for name, values in counted.items()}
        assert {name: numbers(file.counter(name)) for name in counted} == counted
    file.close()


# -- under a limiter ---------------------------------------------------------------------------------------------------


def a_limiter(file: Counters) -> tuple[Limiter, Chain]:
    limiter = Limiter(file, lambda window, now: FOREVER if window == "total" else now + 10**12)
    limiter.set_rules("key ci", parse_rules("rpd=3 1usd/month 1000tokens/total concurrent=5"))
    return limiter, limiter.chain("ci", None, (), None)


def test_what_was_charged_is_charged_after_a_kill(path: str) -> None:
    asks = Demand((1, 100, 50, 50, 400_000), (1, 50, 50, 0, 0))
    file = an_open(path)
    limiter, chain = a_limiter(file)
    first, second = limiter.take(chain, asks, NOW), limiter.take(chain, asks, NOW)
    assert isinstance(first, Hold) and isinstance(second, Hold)
    first.settle((1, 60, 50, 10, 300_000))
    first.release()
    del file, limiter, chain, first, second
    file = an_open(path, now=LATER)
    assert file.lost == [LostHold("ci", 400_000, 100, NOW)]
    limiter, chain = a_limiter(file)
    refusal = limiter.take(chain, asks, LATER)
    assert isinstance(refusal, Refusal)
    assert (refusal.rule, refusal.remaining) == ("usd/month", 300_000)
    cheap = Demand((1, 10, 5, 5, 1000), (1, 5, 5, 0, 0))
    hold = limiter.take(chain, cheap, LATER)
    assert isinstance(hold, Hold)
    view, at, *_ = chain.budgets[1]
    assert (chain.names[-1][1].name, view[at]) == ("tokens/total", 60 + 100 + 10)
    hold.settle((1, 5, 5, 0, 500))
    assert view[at] == 60 + 100 + 5
    refusal = limiter.take(chain, cheap, LATER)
    assert isinstance(refusal, Refusal) and refusal.rule == "rpd"
    file.close()


def test_looking_for_a_counter_makes_none(path: str) -> None:
    opened = an_open(path)
    name = "model " + "x" * 300  # longer than a record: kept under a shorter name
    assert opened.peek("key ci rpm") is opened.peek(name) is None
    for each in ("key ci rpm", name):
        store(opened.counter(each), 7, 8, 0, 0)
        found = opened.peek(each)
        assert found is not None and numbers(found) == (7, 8, 0, 0)
    opened.close()
    again = an_open(path, now=5)
    found = again.peek(name)
    assert found is not None and numbers(found) == (7, 8, 0, 0)
    again.close()
