"""The chunked coding of requests, cut anywhere. That h11 agrees is shown with whole requests (test_requests)."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import chunked
from proxy.wire.chunked import LINE_COST, MAX_LINE, MAX_OVERHEAD, MAX_TRAILERS, ChunkDecoder, take_chunks
from tests.wire.feeding import cut, each_byte, whole


def decode(pieces: list[bytes]) -> tuple[bytes, bool, bool, int]:
    """(body, is it complete, is it refused, how many bytes were taken)"""
    decoder = ChunkDecoder()
    body: list[bytes] = []
    taken = 0
    for piece in pieces:
        taken += decoder.feed(piece, 0, body)
    assert b"" not in body
    return b"".join(body), decoder.is_complete, decoder.error != "", taken


GOOD = {
    "nothing": (b"0\r\n\r\n", b""),
    "one": (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    "many": (
        b"1\r\na\r\nA\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n1\r\nz\r\n0\r\n\r\n",
        b"a0123456789" + b"\r\n" * 5 + b"z",
    ),
    "zeros": (b"000003\r\nabc\r\n00\r\n\r\n", b"abc"),
    "fifteen digits": (b"000000000000003\r\nabc\r\n0\r\n\r\n", b"abc"),
    "extensions (9112 7.1.1)": (b'3;a\r\nabc\r\n1;b=c;d="e f;\\""\r\nd\r\n0;last\r\n\r\n', b"abcd"),
    "blanks before a semicolon": (b"3 \t;a\r\nabc\r\n0\r\n\r\n", b"abc"),
    "trailers (9112 7.1.2)": (b"3\r\nabc\r\n0\r\nA: b\r\nHost: c\r\nD:\r\nE: \xff\r\n\r\n", b"abc"),
    "a body like the end": (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
}
BAD = {
    "no size": b"\r\nabc\r\n",
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a minus": b"-3\r\nabc\r\n0\r\n\r\n",
    "0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "an underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "a blank before": b" 3\r\nabc\r\n0\r\n\r\n",
    "a blank behind": b"3 \r\nabc\r\n0\r\n\r\n",
    "a tab behind": b"3\t\r\nabc\r\n0\r\n\r\n",
    "another script": "\u0663\r\nabc\r\n0\r\n\r\n".encode(),
    "g": b"g\r\nabc\r\n0\r\n\r\n",
    "sixteen digits": b"0000000000000003\r\nabc\r\n0\r\n\r\n",
    "seventeen digits": b"10000000000000000\r\nabc",
    "LF behind a size": b"3\nabc\r\n0\r\n\r\n",
    "CR alone behind a size": b"3\rabc\r\n0\r\n\r\n",
    "two CR behind a size": b"3\r\r\nabc\r\n0\r\n\r\n",
    "LF in an extension (9112 7.1.1)": b"3;a\nabc\r\n0\r\n\r\n",
    "CR in an extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "NUL in an extension": b"3;\0\r\nabc\r\n0\r\n\r\n",
    "LF behind data": b"3\r\nabc\n0\r\n\r\n",
    "CR alone behind data": b"3\r\nabc\r0\r\n\r\n",
    "nothing behind data": b"3\r\nabc0\r\n\r\n",
    "more data than it says": b"3\r\nabcd\r\n0\r\n\r\n",
    "two other bytes behind data": b"3\r\nabcXY0\r\n\r\n",
    "LF and CR behind data": b"3\r\nabc\n\r0\r\n\r\n",
    "less data than it says": b"4\r\nabc\r\n0\r\n\r\n",
    "LF at the end": b"0\r\n\n",
    "LF behind zero": b"0\n\r\n",
    "a trailer without a colon": b"0\r\nabc\r\n\r\n",
    "a trailer without a name": b"0\r\n: b\r\n\r\n",
    "a trailer with a blank before the colon": b"0\r\nA : b\r\n\r\n",
    "a folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "a trailer in LF": b"0\r\nA: b\n\r\n",
    "a NUL in a trailer": b"0\r\nA: \0\r\n\r\n",
    "a long size line": b"3;" + b"a" * MAX_LINE + b"\r\nabc\r\n0\r\n\r\n",
    "a long trailer": b"0\r\nA: " + b"a" * MAX_LINE + b"\r\n\r\n",
    "many trailers": b"0\r\n" + b"A: b\r\n" * (MAX_TRAILERS // 4 + 1) + b"\r\n",
    "data without end behind it": b"1\r\na" + b"b" * 5000,
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_decoded(name: str) -> None:
    raw, body = GOOD[name]
    tail = b"GET /next"
    assert decode(whole(raw)) == decode(each_byte(raw)) == (body, True, False, len(raw))
    # What follows is not taken, wherever the reads were cut.
    for at in range(len(raw) + 1):
        assert decode(cut(raw, at) if at < len(raw) else [raw + tail]) == (body, True, False, len(raw))


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    raw = BAD[name]
    body, is_complete, is_refused, _ = decode(whole(raw))
    assert (is_complete, is_refused) == (False, True)
    for at in range(0, len(raw), max(1, len(raw) // 200)):
        assert decode(cut(raw, at))[:3] == (body, False, True), at
    assert decode(each_byte(raw))[:3] == (body, False, True)


def test_a_line_is_as_long_as_it_may_be_however_it_is_cut() -> None:
    for size, is_refused in [(MAX_LINE - 2, False), (MAX_LINE - 1, False), (MAX_LINE, False), (MAX_LINE + 1, True)]:
        line = b"3;" + b"a" * (size - 4) + b"\r\n"
        assert len(line) == size
        for at in (0, 1, 500, MAX_LINE - 2, MAX_LINE - 1, MAX_LINE, MAX_LINE + 1):
            assert decode(cut(line + b"abc\r\n", at))[:3] == (b"" if is_refused else b"abc", False, is_refused), (
                size,
                at,
            )


@pytest.mark.parametrize("line", [b"1;", b"1;a=b", b"00000001", b"1;" + b"x" * 900])
def test_a_body_of_nothing_but_extensions_is_refused(line: bytes) -> None:
    chunk = line + b"\r\na\r\n"
    most = MAX_OVERHEAD // (LINE_COST + len(line) - 1)
    assert decode([chunk * most + b"0\r\n\r\n"]) == (b"a" * most, True, False, len(chunk) * most + 5)
    _, is_complete, is_refused, taken = decode([chunk * 20_000])
    assert (is_complete, is_refused) == (False, True)
    assert taken < len(chunk) * (most + 2)


def test_data_pays_for_its_own_extension_and_no_other() -> None:
    signed = b"400;chunk-signature=" + b"f" * 64 + b"\r\n" + b"x" * 1024 + b"\r\n"
    assert decode([signed * 1000 + b"0\r\n\r\n"])[1]
    assert decode([b"100000;\r\n" + b"x" * 2**20 + b"\r\n" + b"1;\r\na\r\n" * 1000])[2]


def test_an_error_stays() -> None:
    decoder = ChunkDecoder()
    pieces: list[bytes] = []
    decoder.feed(b"zz\r\n", 0, pieces)
    error = decoder.error
    assert decoder.feed(b"0\r\n\r\n", 0, pieces) == 0
    assert (decoder.error, decoder.is_complete, pieces) == (error, False, [])


def test_an_offset_to_start_from() -> None:
    pieces = [b"before"]
    assert ChunkDecoder().feed(b"XXXX1\r\na\r\n2\r\nbc\r\n0\r\n\r\nYY", 4, pieces) == 22
    assert pieces == [b"before", b"abc"]  # what one feed brings is one piece


sizes = st.sampled_from([b"%x", b"%X", b"0%x", b"%x;e", b"%x ;e=f"])
chunks = st.lists(st.tuples(st.binary(min_size=1, max_size=40), sizes), max_size=12)


@given(chunks, st.lists(st.integers(0, 400), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_body_in_any_chunks_cut_anywhere(parts: list[tuple[bytes, bytes]], edges: list[int]) -> None:
    raw = b"".join((size % len(data)) + b"\r\n" + data + b"\r\n" for data, size in parts) + b"0\r\n\r\n"
    body = b"".join(data for data, _ in parts)
    assert decode(cut(raw, *edges)) == (body, True, False, len(raw))
    for end in range(len(raw)):
        assert decode([raw[:end]])[1:3] == (False, False)


@given(st.text("0123af;x \r\n:\t", max_size=40), st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=500, deadline=None)
def test_any_bytes_mean_the_same_however_they_are_cut(text: str, edges: list[int]) -> None:
    raw = text.encode()
    assert decode([raw])[:3] == decode(cut(raw, *edges))[:3] == decode(each_byte(raw))[:3]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_cost_of_small_chunks_grows_with_their_number_alone(size: int) -> None:
    def seconds(count: int) -> float:
        raw = (b"%x\r\n" % size + b"a" * size + b"\r\n") * count
        decoder = ChunkDecoder()
        began = time.process_time()
        decoder.feed(raw, 0, [])
        return time.process_time() - began

    small = min(seconds(3_000) for _ in range(5))
    assert min(seconds(30_000) for _ in range(3)) < 40 * small  # quadratic would be 100


def test_every_pair_of_cuts_of_a_short_body() -> None:
    raw = b"2;e\r\nab\r\n1\r\nc\r\n0\r\nA: b\r\n\r\n"
    for first, second in itertools.combinations(range(len(raw)), 2):
        assert decode(cut(raw, first, second)) == (b"abc", True, False, len(raw))


def test_few_sizes_of_chunks_are_remembered() -> None:
    for size in range(1, 2 * chunked._MANY_SIZES):
        found: list[bytes] = []
        chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
        assert take_chunks(chunk, 0, 1, found) == len(chunk)
        assert found == [b"x" * size]
    assert len(chunked._sizes) == chunked._MANY_SIZES
