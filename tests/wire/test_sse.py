"""Cutting streams at event boundaries, however their bytes arrive."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.sse import EventCutter, EventFraming, split_events

LINE_ENDS = (b"\n", b"\r\n", b"\r")
SSE, NDJSON, ARRAY = EventFraming.SSE, EventFraming.NDJSON, EventFraming.JSON_ARRAY

STREAMS = {
    "lf": b"data: a\n\ndata: b\n\n",
    "crlf": b"data: a\r\n\r\ndata: b\r\n\r\n",
    "cr": b"data: a\r\rdata: b\r\r",
    "mixed": b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\ndata: d\n\n",
    "comment": b": hello\n\ndata: a\n\n: bye\n\n",
    "several data lines": b"event: x\ndata: a\ndata: b\nid: 1\nretry: 5\n\n",
    "bom": b"\xef\xbb\xbfdata: a\n\n",
    "blank lines before and between": b"\n\ndata: a\n\n\n\ndata: b\n\n",
    "unfinished": b"data: a\n\ndata: b\n",
    "cut character": "data: \u00e9\U0001f600\n\n".encode(),
}


def feed(cutter: EventCutter, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """(all that was written, all that was shown), the end of the message included."""
    out = block = b""
    for piece in pieces:
        out += cutter.feed(piece)
        block += cutter.block
    out += cutter.flush()
    return out, block + cutter.block


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(edge, len(data)) for edge in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_whole_and_byte_by_byte_write_and_show_the_same(stream: bytes) -> None:
    assert feed(EventCutter(SSE), [stream]) == (stream, stream)
    assert feed(EventCutter(SSE), [stream[i : i + 1] for i in range(len(stream))]) == (stream, stream)


lines = st.sampled_from([b"data: x", b"data:{}", b": c", b"event: e", b"", b"id: 1", "data: \u00e9".encode()])
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
sse_streams = st.lists(st.tuples(lines, ends), max_size=30).map(lambda pairs: b"".join(a + b for a, b in pairs))
edges = st.lists(st.integers(0, 300), max_size=12)


@given(sse_streams, edges)
@settings(max_examples=400, deadline=None)
def test_any_cut_of_an_event_stream_changes_nothing(stream: bytes, at: list[int]) -> None:
    assert feed(EventCutter(SSE), cut(stream, at)) == (stream, stream)
    events = list(split_events(stream))
    cutter = EventCutter(SSE)
    seen = []
    for piece in [*cut(stream, at), None]:
        if piece is None:
            cutter.flush()
        else:
            cutter.feed(piece)
        seen += split_events(cutter.block)
    assert seen == events


@given(sse_streams, edges)
@settings(max_examples=400, deadline=None)
def test_what_was_written_always_ends_at_a_boundary(stream: bytes, at: list[int]) -> None:
    cutter = EventCutter(SSE)
    out = b""
    for piece in cut(stream, at):
        out += cutter.feed(piece)
        assert not cutter.is_open
        *before, last = [b"\n", *re.findall(rb"\r\n|\n|\r|[^\r\n]+", out)]
        assert last in LINE_ENDS and (not before or before[-1] in LINE_ENDS)


@given(st.lists(st.sampled_from([b'{"a":1}', b'{"done":true}', b"", b"{", b"x\r"]), max_size=20), edges)
@settings(max_examples=200, deadline=None)
def test_any_cut_of_lines_changes_nothing(rows: list[bytes], at: list[int]) -> None:
    stream = b"\n".join(rows)
    assert feed(EventCutter(NDJSON), cut(stream, at)) == (stream, stream)


json_values = st.recursive(
    st.one_of(st.none(), st.integers(-9, 9), st.sampled_from(['"', "\\", "][}{", '\\"', "\u00e9", ",\r\n"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", '"]', "{"]), inner)),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "}"]), json_values), max_size=5), edges)
@settings(max_examples=200, deadline=None)
def test_any_cut_of_an_array_shows_whole_elements(elements: list[object], at: list[int]) -> None:
    stream = ("[" + "\n,\r\n".join(json.dumps(element, indent=1) for element in elements) + "]\n").encode()
    assert feed(EventCutter(ARRAY), cut(stream, at)) == (stream, stream)
    cutter = EventCutter(ARRAY)
    found = []
    for piece in cut(stream, at):
        cutter.feed(piece)
        found += json.loads(b"[" + cutter.block.strip(b"[], \r\n") + b"]")
    assert found == elements


def naive_boundaries(data: bytes) -> list[int]:
    """The offsets behind elements of an array, and behind it, byte by byte."""
    found = []
    depth = 0
    in_array = in_string = is_escaped = False
    for at, byte in enumerate(data, 1):
        if in_string:
            in_string = is_escaped or byte != 0x22
            is_escaped = byte == 0x5C and not is_escaped
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            in_array = byte == 0x5B if depth == 0 else in_array
            depth += 1
        elif byte in b"]}":
            depth = max(depth - 1, 0)
            if depth == 0 or (depth == 1 and in_array):
                found.append(at)
    return found


@given(st.lists(st.text(alphabet='[]{}"\\,a', max_size=12).map(str.encode), max_size=6))
@settings(max_examples=1000, deadline=None)
def test_brackets_are_counted_as_byte_by_byte(reads: list[bytes]) -> None:
    cutter = EventCutter(ARRAY)
    written = b""
    for end, read in enumerate(reads, 1):
        written += cutter.feed(read)
        assert len(written) == max(naive_boundaries(b"".join(reads[:end])), default=0)


def test_a_read_of_brackets_alone_costs_few_calls() -> None:
    cutter = EventCutter(ARRAY)
    calls = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        cutter.feed(b"[{" * 20_000)
        cutter.feed(b"}]" * 20_000)
    finally:
        sys.setprofile(None)
    assert calls < 200


def test_a_plain_object_in_place_of_an_array_is_one_event() -> None:
    cutter = EventCutter(ARRAY)
    assert cutter.feed(b'{"error": {"details": [{}, {}') == b""
    assert cutter.feed(b"]}}") == b'{"error": {"details": [{}, {}]}}'
    assert cutter.block == b'{"error": {"details": [{}, {}]}}'


def test_the_usual_read_is_handed_on_itself() -> None:
    data = b"data: " + b"x" * 294 + b"\n\n"
    cutter = EventCutter(SSE)
    assert cutter.feed(data) is data
    assert cutter.block is data


def test_the_tail_waits_for_its_boundary() -> None:
    cutter = EventCutter(SSE)
    assert cutter.feed(b"data: a\n\ndata: b") == b"data: a\n\n"
    assert cutter.block == b"data: a\n\n"
    assert cutter.feed(b"\n") == b""
    assert cutter.block == b""
    assert cutter.feed(b"\ndata: c") == b"data: b\n\n"
    assert cutter.block == b"data: b\n\n"
    assert cutter.flush() == b"data: c"
    assert cutter.block == b"data: c"
    assert cutter.flush() == b""


@pytest.mark.parametrize(
    ("end", "is_boundary"), [(b"\r\r", True), (b"\r\n\r", False), (b"\n\r", False), (b"\n", False)]
)
def test_a_lone_cr_waits_where_it_may_be_half_of_a_line_end(end: bytes, is_boundary: bool) -> None:
    cutter = EventCutter(SSE)
    assert bool(cutter.feed(b"data: a" + end)) == is_boundary
    assert cutter.feed(b"data: b") == (b"" if is_boundary or end == b"\n" else b"data: a" + end)


def test_the_rest_of_a_line_end_after_a_boundary_is_no_event_of_its_own() -> None:
    cutter = EventCutter(SSE)
    assert cutter.feed(b"data: a\r\r") == b"data: a\r\r"
    assert cutter.feed(b"\ndata: b\r\n\r\n") == b"\ndata: b\r\n\r\n"
    assert list(split_events(cutter.block)) == [(b"", b"b")]


def test_a_tail_over_the_limit_flows_and_stays_open_until_the_next_boundary() -> None:
    cutter = EventCutter(SSE, hold_limit=10)
    assert cutter.feed(b"data: abcd") == b""
    assert not cutter.is_open
    assert cutter.feed(b"e") == b"data: abcde"
    assert cutter.is_open
    assert cutter.feed(b"f") == b"f"
    assert cutter.feed(b"\n\ndata: g") == b"\n\n"
    assert not cutter.is_open
    assert cutter.block == b"data: abcdef\n\n"
    assert cutter.flush() == b"data: g"


def test_the_end_of_an_open_event_shows_all_of_it_and_writes_nothing_twice() -> None:
    cutter = EventCutter(SSE, hold_limit=4)
    assert cutter.feed(b"data: abc") == b"data: abc"
    assert cutter.flush() == b""
    assert cutter.block == b"data: abc"
    assert not cutter.is_open


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_an_oversized_event_is_passed_and_not_shown(size: int) -> None:
    stream = b"data: a\n\ndata: " + b"x" * 200 + b"\n\ndata: b\n\n"
    cutter = EventCutter(SSE, hold_limit=20, event_limit=100)
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert feed(cutter, pieces) == (stream, b"data: a\n\ndata: b\n\n")
    assert cutter.skipped == 1


@pytest.mark.parametrize("size", [1, 33, 10_000])
def test_of_an_oversized_event_its_name_is_shown(size: int) -> None:
    stream = b"event: response.completed\ndata: " + b"x" * 200 + b"\n\n"
    cutter = EventCutter(SSE, event_limit=100)
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    out, block = feed(cutter, pieces)
    assert out == stream
    assert list(split_events(block)) == [(b"response.completed", b"")]


def test_an_oversized_unfinished_event_is_counted_at_the_end() -> None:
    cutter = EventCutter(NDJSON, event_limit=8)
    assert cutter.feed(b"0123456789") == b"0123456789"
    assert cutter.is_open
    assert cutter.flush() == b""
    assert (cutter.block, cutter.skipped) == (b"", 1)


def test_without_framing_every_byte_flows() -> None:
    cutter = EventCutter(EventFraming.NONE)
    assert feed(cutter, [b"a\n", b"\nb"])[0] == b"a\n\nb"


@pytest.mark.parametrize("framing", [SSE, ARRAY, NDJSON])
def test_a_large_event_byte_by_byte_costs_as_much_for_each_byte(framing: EventFraming) -> None:
    def seconds(size: int) -> float:
        cutter = EventCutter(framing, hold_limit=10**7, event_limit=10**7)
        cutter.feed(b'[{"a":"' if framing is ARRAY else b"data: ")
        began = time.process_time()
        for _ in range(size):
            cutter.feed(b"x")
        return time.process_time() - began

    small = min(seconds(20_000) for _ in range(3))
    assert min(seconds(200_000) for _ in range(2)) < 30 * small  # quadratic would be 100


def test_events_are_split_as_the_standard_says() -> None:
    block = (
        b"\xef\xbb\xbf: comment\n\nevent: a\ndata:1\ndata:  2\nid: 7\n\n"
        b"data\n\nevent: named\n\nretry: 5\n\ndatax: no\n\ndata: last"
    )
    assert list(split_events(block)) == [(b"a", b"1\n 2"), (b"", b""), (b"named", b""), (b"", b"last")]


def test_errors_outside_the_standard_are_shown() -> None:
    assert list(split_events(b'error: {"code":500}\n\n')) == [(b"error", b'{"code":500}')]
    assert list(split_events(b'{\n  "error": {}\n}\n')) == [(b"", b'{\n  "error": {}\n}')]
