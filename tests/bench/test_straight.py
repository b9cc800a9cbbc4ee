"""The gate of the straight path: how much it does for a request and for a read of a stream. No clock is asked.

Counts are exact: the same at each run, and on Python 3.11 to 3.13 (comprehensions are frames up to 3.11, so these are
3.11's). Whoever makes the path shorter lowers the number here; whoever makes it longer has a reason to give.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections import Counter as Tally
from collections.abc import Iterator

import pytest

from bench import straight
from bench.stage import BULK, Stage, WrongBytes, staged
from bench.straight import KINDS, calls_per_unit, count_calls, do, kept_by
from proxy.ledger.counters import beside
from proxy.ledger.counters import look as counters_in

FRAMES_PER_REQUEST = 206  # lower it when the path gets shorter
FRAMES_PER_READ = 5  # DESIGN 4 allows six
# Every 8 KiB the meter reads what has come, in 4 frames more, and every 64 KiB lets go of it, in another 3.
FRAMES_PER_LONG_READ = 14
FRAMES_PER_EVENT = 5.25  # on the average of a long stream
FRAMES_PER_SHORT_STREAM = 502  # 20 events with their request


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as found:
        yield found


def test_frames_of_a_request(stage: Stage) -> None:
    assert calls_per_unit(stage, KINDS["unary"]).frames <= FRAMES_PER_REQUEST


def test_every_request_is_as_long_as_the_other(stage: Stage) -> None:
    stage.unary(2)
    frames = {count_calls(lambda: stage.unary(1)).frames for _ in range(20)}
    assert len(frames) == 1


def test_frames_of_a_read_with_one_event(stage: Stage) -> None:
    stage.begin_stream()
    stage.read_events(10)
    frames = [count_calls(lambda: stage.read_events(1)).frames for _ in range(500)]
    stage.end_stream()
    # 27 events are 8 KiB.
    assert sorted(frames)[len(frames) * 24 // 27] <= FRAMES_PER_READ
    assert sum(frames) / len(frames) <= FRAMES_PER_EVENT


def test_frames_of_a_read_with_many_events(stage: Stage) -> None:
    """They grow with the read, not with the events in it."""
    stage.begin_stream()
    frames = [count_calls(lambda: stage.read_events(1, BULK)).frames for _ in range(20)]
    stage.end_stream()
    assert max(frames[2:]) <= FRAMES_PER_LONG_READ


def test_frames_of_a_short_stream(stage: Stage) -> None:
    assert calls_per_unit(stage, KINDS["short"]).frames <= FRAMES_PER_SHORT_STREAM


@pytest.mark.parametrize("name", list(KINDS))
def test_nothing_is_asked_of_the_loop(stage: Stage, name: str) -> None:
    """No task, no future, no timer, no call in its next turn."""
    stage.loop.asked.clear()
    KINDS[name].work(stage, 20)
    assert stage.loop.asked == Tally()


def test_one_upstream_connection_serves_all(stage: Stage) -> None:
    stage.unary(50)
    stage.short_streams(5)
    assert stage.relay.pool.opened == len(stage.loop.upstreams) == 1


def test_nothing_is_kept_of_an_event(stage: Stage) -> None:
    """The most blocks in use at any event of a thousand is the same in the next thousand, but for a few that the
    interpreter itself takes: within each thousand the meter has filled and emptied what it may keep."""
    stage.begin_stream()
    stage.read_events(2000)
    first, second = most_blocks(stage, 1000), most_blocks(stage, 1000)
    stage.end_stream()
    assert second - first <= 5


def most_blocks(stage: Stage, events: int) -> int:
    most = 0
    for _ in range(events):
        stage.read_events(1)
        most = max(most, sys.getallocatedblocks())
    return most


def test_an_event_brings_no_collection_nearer(stage: Stage) -> None:
    """What it makes for the garbage collector to look at it frees by itself."""
    stage.begin_stream()
    stage.read_events(2000)
    kept = kept_by(lambda: stage.read_events(2000))
    stage.end_stream()
    assert kept.young <= 20
    assert kept.cycles == 0


def test_nothing_is_kept_of_a_request(stage: Stage) -> None:
    """One block or object for each would be a leak. Less than that are SQLite's statements."""
    do(stage, KINDS["unary"], 1000)
    kept = kept_by(lambda: do(stage, KINDS["unary"], 1000))
    assert kept.blocks <= 500
    assert kept.objects <= 500


@pytest.mark.parametrize(("name", "units"), [("unary", 1000), ("short", 100)])
def test_no_exchange_leaves_a_cycle(stage: Stage, name: str, units: int) -> None:
    do(stage, KINDS[name], 10)
    assert kept_by(lambda: do(stage, KINDS[name], units)).cycles == 0


def test_every_exchange_has_its_row(stage: Stage) -> None:
    observed = stage.ledger.observed
    stage.unary(10)
    stage.short_streams(3)
    assert stage.ledger.observed - observed == stage.ledger.waiting == 13
    stage.settle()
    assert stage.ledger.waiting == stage.ledger.lost == 0


def test_everything_is_on(stage: Stage) -> None:
    """Who, what and how much stands in the row, and every limit has its counter: what is gated is the whole path."""
    stage.unary(1)
    stage.short_streams(1)
    stage.settle()
    ledger = stage.worker.settings.ledger
    assert ledger is not None
    with contextlib.closing(sqlite3.connect(ledger.path)) as database:
        rows = database.execute(
            "SELECT key, dialect, stream, status, complete, usage_source, output_tokens, bytes_out > 1000 "
            "FROM exchanges ORDER BY rowid DESC LIMIT 2"
        ).fetchall()
    assert rows == [("bench", "openai-chat", is_stream, 200, 1, "reported", 100, 1) for is_stream in (1, 0)]
    counters = counters_in(beside(ledger.path))
    assert {name.partition(" ")[0] for name in counters} >= {"all", "key", "model"}
    assert len(counters) >= 8
    assert stage.worker.settings.snapshot.prices is not None
    assert stage.notes == []


# -- the measure itself ------------------------------------------------------------------------------------------------


def test_a_frame_more_is_seen(stage: Stage) -> None:
    """The clock is asked for each request. Made a function of the project's, each look is one frame more."""
    before = calls_per_unit(stage, KINDS["unary"]).frames
    tick = stage.relay.clock
    looks = 0

    def look() -> float:
        nonlocal looks
        looks += 1
        return tick()

    look.__code__ = look.__code__.replace(co_filename=straight._PROXY + "/extra.py")
    stage.relay.clock = look
    stage.unary(1)
    looks = 0
    stage.unary(1)
    more = looks
    assert more > 0
    assert calls_per_unit(stage, KINDS["unary"]).frames == before + more


def test_a_cycle_and_what_is_kept_are_seen() -> None:
    kept: list[list[object]] = []

    def work() -> None:
        for _ in range(1000):
            circle: list[object] = []
            circle.append(circle)
            kept.append([])

    found = kept_by(work)
    # Some fewer, if others' objects of before go meanwhile: of these there are never a hundred.
    assert found.cycles >= 900
    assert found.objects >= 900
    assert found.blocks >= 900
    assert found.young >= 1900


def test_wrong_bytes_are_seen(stage: Stage) -> None:
    stage.begin_stream()
    stage.upstream.says(b"6\r\n: hey\n\r\n1\r\n\n\r\n")
    with pytest.raises(WrongBytes):
        stage.read_events(1)
    stage.end_stream()


def test_a_second_upstream_connection_is_seen(stage: Stage) -> None:
    stage.relay.pool.opened += 1
    with pytest.raises(WrongBytes, match="2 upstream links"):
        stage.unary(1)


def test_the_figures_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "unary", KINDS["unary"]._replace(batch=5))
    assert straight.main(["unary", "--lines", "3"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 4
    assert " us, " in told[0] and " frames, " in told[0] and told[0].endswith("per request")
    assert all(".py:" in line for line in told[1:])


def test_units_are_only_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert straight.main(["stream", "--units", "3"]) == 0
    assert capsys.readouterr().out == ""
