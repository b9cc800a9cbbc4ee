"""What all watches share, and what every dialect must promise."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects import DIALECTS
from proxy.dialects.watch import is_filled, parse
from proxy.outcome import Failure, Kind, Phase, Side, status_of
from proxy.wire.sse import EventCutter, EventFraming
from tests.dialects.contract import STALLED

EVENTED = [dialect for dialect in DIALECTS.values() if dialect.framing is not EventFraming.NONE]


def test_names_are_their_own() -> None:
    assert all(name == dialect.name for name, dialect in DIALECTS.items())


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
@pytest.mark.parametrize("kind", Kind)
def test_every_failure_has_a_body_and_a_whole_event_in_every_dialect(dialect, kind: Kind) -> None:  # type: ignore[no-untyped-def]
    failure = Failure(Side.PROXY, Phase.STREAM, kind)
    body = json.loads(dialect.error_body(failure, status_of(failure), "r"))
    assert "llm-proxy: " in json.dumps(body)
    event = dialect.error_event(failure, status_of(failure), "r")
    if event:
        cutter = EventCutter(dialect.framing)
        assert cutter.feed(event) == event  # it ends at a boundary
        watch = dialect.watch()
        assert watch.feed(event)
        assert watch.has_error
        assert not watch.is_terminal


@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"data: ", b"event: error\ndata: ", b"[", b'{"choices":', b'data: {"choices":[']),
)
@settings(max_examples=300, deadline=None)
def test_no_watch_raises_at_hostile_bytes(junk: bytes, start: bytes) -> None:
    for dialect in EVENTED:
        watch = dialect.watch()
        for block in (start + junk, start + junk + b"\n\n", junk + b"\n\n" + start):
            watch.feed(block)


@pytest.mark.parametrize("dialect", EVENTED, ids=lambda dialect: dialect.name)
def test_a_watch_keeps_little(dialect) -> None:  # type: ignore[no-untyped-def]
    import pickle

    watch = dialect.watch()
    for at in range(50):
        watch.feed(b'data: {"id":"' + b"x" * 2000 + b'","choices":[{"delta":{"content":"%d"}}]}\n\n' % at)
    kept = [getattr(watch, slot) for each in type(watch).__mro__ for slot in getattr(each, "__slots__", ())]
    assert len(pickle.dumps(kept)) < 4096


def test_half_an_emoji_is_parsed_all_the_same() -> None:
    for escape in (b"\\ud83d", b"\\uD83d", b"\\uDE00", b"\\ude00\\ud83d"):
        event = parse(b'{"a":"' + escape + b'","finish_reason":"stop"}')
        assert event["a"]
        assert event["finish_reason"] == "stop"
    assert parse(b'{"a":"\\ud8') is None
    assert parse(b"{") is None
    assert parse(b"[" * 100_000) is None


LINES = (b"x", b"", b"{", b"{x}", b'{"a":', b"nul", b"data:", b"[1,,2]")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("dialect", EVENTED, ids=lambda dialect: dialect.name)
def test_a_line_that_is_not_json_costs_few_calls(dialect, line: bytes) -> None:  # type: ignore[no-untyped-def]
    """80,000 of them fit into one read, and nothing else runs meanwhile."""
    start, end = (b"", b"\n") if dialect.framing is EventFraming.NDJSON else (b"data: ", b"\n\n")
    block = (start + line + end) * 500
    watch = dialect.watch()
    calls = {"call": 0, "c_exception": 0}

    def count(frame: object, event: str, arg: object) -> None:
        if event in calls:
            calls[event] += 1

    sys.setprofile(count)
    try:
        watch.feed(block)
    finally:
        sys.setprofile(None)
    assert calls["call"] <= 500 * 6 + 10
    assert calls["c_exception"] <= 500 * (line[:1] in b"{[n" and line != b"")


@pytest.mark.parametrize("value", [None, "", [], {}, False])
def test_nothing_is_not_filled(value: object) -> None:
    assert not is_filled(value)


@pytest.mark.parametrize("value", ["x", 1, [0], {"a": None}, True])
def test_something_is_filled(value: object) -> None:
    assert is_filled(value)


def test_stalled_is_not_said_twice() -> None:
    assert DIALECTS["openai-chat"].error_body(STALLED, 504, "r").count(b"llm-proxy") == 1
