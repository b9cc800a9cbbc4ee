"""What of an upstream is passed on, where it ends, and what came behind its end, however the bytes arrive."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.outcome import Kind, Phase, Side
from proxy.wire.head import Framing
from proxy.wire.responses import MAX_INTERIM, MAX_OVERHEAD, ResponseParser
from tests.wire.feeding import MAX_HEAD, cut, each_byte, h11_answer, read_answer, whole
from tests.wire.vectors.responses import ABC, BAD, GOOD, OK, TE, answer

Way = Callable[[bytes], list[bytes]]
WAYS = pytest.mark.parametrize("way", [whole, each_byte])


@WAYS
@pytest.mark.parametrize("name", GOOD)
def test_what_is_passed_on(name: str, way: Way) -> None:
    raw, body, expected, method, by_close = GOOD[name]
    read = read_answer(way(raw), method)
    assert (read.kind, read.body, read.is_complete, read.is_clean) == (None, body, not by_close, True)
    assert {attribute: getattr(read.head, attribute) for attribute in expected} == expected
    assert read_answer(way(raw), method, eof=True) == read._replace(is_complete=True)


# What an upstream may say although nobody asked. Most of it looks like the end of a message, or like nothing.
TAILS = [
    b"x", b"\r\n", b"\r\n\r\n", b"\n", b"0\r\n\r\n", OK, answer(b"Content-Length: 0"), answer(TE, body=b"0\r\n\r\n"),
    answer(first=b"HTTP/1.1 204 x"), answer(), b"GARBAGE\r\n\r\n", b"\r\nA: b\r\n\r\n", b"\0" * 8 + b"a\r\n\r\n",
]  # fmt: skip


@WAYS
@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("name", [name for name, each in GOOD.items() if not each.by_close])
def test_bytes_behind_the_end_are_never_body_and_end_the_link(name: str, tail: bytes, way: Way) -> None:
    raw, body, _, method, _ = GOOD[name]
    read = read_answer(way(raw + tail), method)
    assert body.startswith(read.body) and not read.is_clean
    assert read.is_complete != (read.kind is Kind.PROTOCOL)
    # Wherever the reads were cut, also between the bytes of the end itself.
    for at in range(max(0, len(raw) - 6), len(raw) + len(tail)):
        read = read_answer(cut(raw + tail, at), method)
        assert body.startswith(read.body) and not read.is_clean, at
        if at == len(raw):  # the end was seen before anything else
            assert read.is_complete and read.body == body and read.kind is None


@WAYS
@pytest.mark.parametrize("name", BAD)
def test_what_is_a_failure_of_the_upstream(name: str, way: Way) -> None:
    raw, method = BAD[name]
    read = read_answer(way(raw), method)
    assert (read.kind, read.is_complete, read.is_clean) == (Kind.PROTOCOL, False, False)
    assert read_answer(way(raw + OK), method) == read
    in_body = name.startswith(("a chunk ", "an empty chunk", "a last chunk", "a trailer"))
    assert (read.head is not None) == in_body
    assert read.body in (b"", b"abc") if in_body else read.body == b""


# -- the end of the connection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_an_answer_that_is_cut_anywhere_is_no_answer(name: str) -> None:
    raw, body, _, method, by_close = GOOD[name]
    for at in range(len(raw)):
        read = read_answer([raw[:at]], method, eof=True)
        if by_close and read.is_complete:
            assert read.body == raw[len(raw) - len(body) : at]
            continue
        assert (read.kind, read.is_complete, read.is_clean) == (Kind.RESET, False, False), at
        assert body.startswith(read.body)


def test_an_end_before_anything_is_told_from_one_in_the_middle() -> None:
    details = set()
    for raw in (b"", b"H", answer(first=b"HTTP/1.1 100 x"), OK[:-1]):
        parser = ResponseParser(MAX_HEAD)
        parser.feed(raw)
        assert parser.has_begun is (raw != b"")
        parser.eof()
        assert parser.failure is not None and parser.failure.side is Side.UPSTREAM
        assert parser.failure.phase is (Phase.STREAM if raw == OK[:-1] else Phase.FIRST_BYTE)
        details.add(parser.failure.detail)
    assert len(details) == 2


def test_an_end_behind_the_end_changes_nothing() -> None:
    for raw in (OK, answer(first=b"HTTP/2 200 OK")):
        parser = ResponseParser(MAX_HEAD)
        parser.feed(raw)
        before = (parser.failure, parser.is_complete, parser.is_clean)
        parser.eof()
        assert (parser.failure, parser.is_complete, parser.is_clean) == before


HEAD = b"HTTP/1.1 200 OK\r\n"
STATES = {
    "nothing": (b"", Kind.RESET, False),
    "half a head": (HEAD, Kind.RESET, True),
    "an interim answer": (answer(first=b"HTTP/1.1 100 x"), Kind.RESET, True),
    "half a length": (OK[:-1], Kind.RESET, True),
    "a length": (OK, None, True),
    "half of chunks": (answer(TE, body=b"3\r\nabc\r\n"), Kind.RESET, True),
    "chunks": (answer(TE, body=b"3\r\nabc\r\n0\r\n\r\n"), None, True),
    "until close": (HEAD + b"\r\nabc", Kind.RESET, True),
    "until close, and nothing yet": (HEAD + b"\r\n", Kind.RESET, True),
    "something broken": (b"SSH-2.0-x\r\n", Kind.PROTOCOL, True),
}


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("name", STATES)
def test_a_reset_ends_nothing_well(name: str, is_cut: bool) -> None:
    raw, kind, has_begun = STATES[name]
    if not is_cut and name.startswith("until close"):
        kind = None
    parser = ResponseParser(MAX_HEAD)
    parser.feed(raw)
    body = b"".join(parser.pieces)
    assert parser.has_begun is has_begun
    parser.eof(is_cut)
    assert (None if parser.failure is None else parser.failure.kind) is kind
    assert parser.is_complete is (kind is None)
    assert b"".join(parser.pieces) == body
    assert parser.has_begun is has_begun, "the end is no byte"
    before = parser.failure
    parser.eof(not is_cut)
    assert (parser.failure, parser.is_complete) == (before, kind is None)


# -- one link, many answers --------------------------------------------------------------------------------------------


def test_any_answer_behind_any_other_is_read_as_if_it_were_the_first() -> None:
    kept = {name: each for name, each in GOOD.items() if not each.by_close}
    for first in [*kept.values(), *BAD.values()]:
        for second in kept.values():
            parser = ResponseParser(MAX_HEAD)
            parser.expect(first.method)
            parser.feed(first.raw)
            parser.expect(second.method)
            assert not parser.has_begun
            parser.feed(second.raw)
            assert parser.is_complete and parser.is_clean and parser.failure is None
            assert b"".join(parser.pieces) == second.body


def test_no_body_for_head_is_the_only_difference_of_methods() -> None:
    for method in (b"GET", b"POST", b"OPTIONS", b"DELETE"):
        assert read_answer([OK], method) == read_answer([OK])
    assert read_answer([OK], b"HEAD").is_clean is False


# -- limits ------------------------------------------------------------------------------------------------------------


def sized(size: int) -> bytes:
    return answer(b"A: " + b"a" * (size - len(answer(b"A: ", b"Content-Length: 0"))), b"Content-Length: 0")


@pytest.mark.parametrize("before", [b"", answer(first=b"HTTP/1.1 100 Continue")])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 98, 99, 100, 101, 1000])
def test_the_limit_of_heads_counts_all_of_them(step: int, before: bytes) -> None:
    for size in range(97, 104):
        raw = before + sized(size - len(before))
        assert len(raw) == size
        parser = ResponseParser(100)
        for at in range(0, size, step):
            parser.feed(raw[at : at + step])
        assert parser.is_complete is (size <= 100) and (parser.failure is None) is (size <= 100), size


def test_some_1xx_are_served_and_no_more() -> None:
    interim = answer(first=b"HTTP/1.1 102 Processing")
    assert read_answer([interim * MAX_INTERIM + OK]).is_complete
    assert read_answer([interim * (MAX_INTERIM + 1) + OK]).kind is Kind.PROTOCOL
    parser = ResponseParser(MAX_HEAD)
    for _ in range(2):  # and they are counted anew for each answer
        parser.expect(b"GET")
        parser.feed(interim * MAX_INTERIM)
        assert parser.failure is None and parser.has_begun
        parser.feed(OK)
        assert parser.is_complete


@pytest.mark.parametrize(
    ("start", "each"), [(b"0\r\nA: ", b"a" * 1000), (b"0\r\n", b"A: b\r\n"), (b"5;a=", b"b" * 1000)]
)
def test_what_brings_no_body_has_an_end(start: bytes, each: bytes) -> None:
    parser = ResponseParser(MAX_HEAD)
    parser.feed(answer(TE, body=start))
    fed = 0
    while parser.failure is None:
        parser.feed(each)
        fed += len(each)
        assert fed < 2 * MAX_OVERHEAD
    assert fed > MAX_OVERHEAD - 2 * len(each) and parser.failure.kind is Kind.PROTOCOL


def test_framing_beside_a_body_may_go_on() -> None:
    parser = ResponseParser(MAX_HEAD)
    parser.feed(answer(TE))
    for _ in range(200):
        parser.feed(b"1;" + b"e" * 1000 + b"\r\n")
        parser.feed(b"a\r\n")
        assert parser.pieces == [b"a"]
        parser.pieces.clear()
    parser.feed(b"0\r\n\r\n")
    assert parser.is_complete and parser.is_clean


# -- what a read brings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "framed"),
    [(answer(TE), b"3\r\nabc\r\n"), (answer(b"Content-Length: 900"), b"abc"), (answer(), b"abc")],
)
def test_each_read_is_handed_on_at_once(head: bytes, framed: bytes) -> None:
    parser = ResponseParser(MAX_HEAD)
    parser.feed(head + framed)
    for _ in range(5):
        assert parser.pieces == [b"abc"]
        parser.pieces.clear()
        parser.feed(framed)


@pytest.mark.parametrize(
    "line", [b"3", b"003", b"0000000000003", b"3;a=b", b"C", b"3;", b"+3", b"-3", b" 3", b"0x3", b"1_2", b"", b"g"]
)
def test_a_chunk_in_a_read_of_its_own_is_judged_as_any_other(line: bytes) -> None:
    framed = line + b"\r\n" + b"abc" * (4 if line == b"C" else 1) + b"\r\n"
    for _ in range(2):  # a size that came before is known by its line
        alone = read_answer([answer(TE), framed, framed, b"0\r\n\r\n"])
        by_httptools = read_answer([answer(TE, body=framed[:1]), framed[1:] + framed, b"0\r\n\r\n"])
        assert (alone.kind, alone.body, alone.is_complete) == by_httptools[:1] + by_httptools[2:4]
        assert alone.is_complete is (line.strip(b"0") in (b"3", b"3;a=b", b"C"))


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"a\r\nabcde", b"\r\n0\r\n\r\n"),  # in the middle of a chunk
        (b"5\r\n", b"\r\n0\r\n\r\n"),  # all of one
        (b"3;a\r\nabc\r\n5\r\n", b"\r\n0\r\n\r\n"),
    ],
)
def test_what_looks_like_the_end_may_be_data(first: bytes, more: bytes) -> None:
    parser = ResponseParser(MAX_HEAD)
    for at in range(2):
        parser.expect(b"GET")
        parser.feed(answer(TE, body=b"1\r\na\r\n"))
        if at:
            parser.forget_fields()
        parser.pieces.clear()
        parser.feed(first)
        parser.feed(b"0\r\n\r\n")
        assert not parser.is_complete and parser.failure is None
        parser.feed(more)
        assert parser.is_complete and parser.is_clean
        assert b"".join(parser.pieces).endswith(b"0\r\n\r\n")


def test_what_looks_like_the_end_may_be_a_trailer() -> None:
    read = read_answer([answer(TE, body=b"3\r\nabc\r\n0\r\n"), b"0\r\n\r\n"])
    assert read.kind is Kind.PROTOCOL and not read.is_complete


@pytest.mark.parametrize("bad", [b"3\r\nabcde", b"3\r\nabc\n\n", b"3\r\nabc\r\r", b"4\r\nabc\r\n", b"2\r\nabc\r\n"])
def test_a_chunk_in_a_read_of_its_own_is_as_long_as_it_says(bad: bytes) -> None:
    read = read_answer([answer(TE), bad, b"3\r\nabc\r\n0\r\n\r\n"])
    assert read.kind is Kind.PROTOCOL and not read.is_complete


def test_a_broken_chunk_comes_behind_what_was_whole() -> None:
    read = read_answer([answer(TE, body=b"3\r\nabc\r\n3\r\ndefg")])
    assert read.kind is Kind.PROTOCOL and read.body == b"abcdef" and read.head is not None


def test_too_long_for_its_length() -> None:
    parser = ResponseParser(MAX_HEAD)
    parser.feed(OK[:-2])
    parser.pieces.clear()
    parser.feed(b"bcd")
    assert parser.failure is not None and parser.pieces == []


# -- h11, the second opinion -------------------------------------------------------------------------------------------

# What h11 would pass on and we do not, all of it on purpose.
H11_PASSES = {
    "one framing: h11 takes chunks before a length, and lengths that agree": {
        "a length and chunks (9112 6.3)", "chunks and a length", "two equal lengths", "a list of lengths",
        "chunks in 1.0", "chunked and a tab, which httptools does not see", "chunked, a tab and a blank",
    },
    "lines that end in LF, folded values, controls: h11 tolerates them": {
        "lines that end in LF", "an LF in a value", "a folded value", "1xx with lines that end in LF",
    },
    "statuses and versions: h11 leaves them to its user": {"status 600", "HTTP/2.0", "HTTP/0.9", "HTTP/1.2"},
    "sizes: h11 has no limits there, or waits for the bytes": {
        "1xx without end", "two hundred and one fields", "a length of 19 digits", "a length of 2**64",
        "a last chunk in LF",
        "a chunk size of 17 digits",
    },
    "trailers: h11 does not look at what they say": {"a trailer that is a length (9110 6.5.1)"},
    "it waits for what cannot come": {"no HTTP", "a head without end"},
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_h11_reads_the_same(name: str) -> None:
    raw, body, _, method, by_close = GOOD[name]
    opinion = h11_answer(raw, method, eof=by_close)
    assert (opinion.verdict, opinion.body) == ("whole", body)
    head = read_answer([raw], method).head
    assert head is not None and opinion.first is not None
    assert isinstance(opinion.first.status_code, int) and opinion.first.status_code == head.status  # type: ignore[union-attr]


@pytest.mark.parametrize("name", BAD)
def test_h11_refuses_as_well(name: str) -> None:
    raw, method = BAD[name]
    is_allowed = any(name in names for names in H11_PASSES.values())
    assert (h11_answer(raw, method).verdict == "refused") != is_allowed


def test_the_least_head_is_enough() -> None:
    head = read_answer([b"HTTP/1.1 200\r\n\r\n"]).head
    assert head is not None and head.get(b"a") is None and head.framing is Framing.UNTIL_CLOSE
    assert read_answer([answer(TE, body=ABC)]).head is not None


def test_fields_can_be_forgotten_in_mid_body() -> None:
    parser = ResponseParser(1024)
    parser.expect(b"POST")
    parser.feed(b"HTTP/1.1 200 OK\r\nx-request-id: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    before = parser.head
    assert before is not None and before.fields
    parser.forget_fields()
    assert parser.head == before._replace(fields=[], values={})
    parser.feed(b"1\r\nb\r\n0\r\nx-trailer: 2\r\n\r\n")
    assert parser.pieces == [b"a", b"b"] and parser.is_complete and parser.is_clean


LAST = [b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0;e\r\n\r\n", b"0\r\nA b\r\n\r\n", b"0\n\n"]


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("middle", [b"", b"2\r\nbc\r\n", b"2;a\r\nbc\r\n", b"2\r\nbcd\r\n", b"1\r\nb\r\n" * 9])
def test_the_rest_is_read_alike_without_the_parser_of_the_beginning(middle: bytes, last: bytes) -> None:
    """In one read, in two wherever they meet, byte by byte."""
    rest = middle + last
    read = read_answer([answer(TE, body=b"1\r\na\r\n" + rest)])
    expected = read._replace(head=None, body=read.body[1:])
    for pieces in ([rest], each_byte(rest), *(cut(rest, at) for at in range(1, len(rest)))):
        assert read_answer(pieces, parser=in_mid_body())._replace(head=None) == expected


def in_mid_body() -> ResponseParser:
    parser = ResponseParser(MAX_HEAD)
    parser.feed(answer(TE, body=b"1\r\na\r\n"))
    parser.pieces.clear()
    parser.forget_fields()
    return parser
