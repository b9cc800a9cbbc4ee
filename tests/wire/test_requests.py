"""What is served, what is refused and as what, however the bytes arrive; and where h11 would decide otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from proxy.outcome import Kind, Phase
from proxy.wire.head import MAX_SHARED, Framing, HeadLimits, Heads
from proxy.wire.requests import MAX_EMPTY, MAX_KNOWN, RequestParser
from tests.wire.feeding import NEXT, cut, each_byte, h11_request, read_request, taken, whole
from tests.wire.vectors.requests import ABC, BAD, GOOD, HIDDEN, HOSTS_BAD, HOSTS_GOOD, TE, get, post

Way = Callable[[bytes], list[bytes]]
WAYS = pytest.mark.parametrize("way", [whole, each_byte])


@WAYS
@pytest.mark.parametrize("name", GOOD)
def test_what_is_served(name: str, way: Way) -> None:
    raw, body, expected = GOOD[name]
    read = read_request(way(raw))
    assert (read.kind, read.body, read.is_complete, read.rest) == (None, body, True, b"")
    assert {attribute: getattr(read.head, attribute) for attribute in expected} == expected


@WAYS
@pytest.mark.parametrize("name", GOOD)
def test_what_follows_waits_unread(name: str, way: Way) -> None:
    raw, body, _ = GOOD[name]
    for tail in (NEXT, b"\0 not HTTP", b"\r\n", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"):
        parser = RequestParser(HeadLimits())
        read = taken(parser, way(raw + tail))
        assert (read.kind, read.body, read.is_complete, read.rest) == (None, body, True, tail)
    parser = RequestParser(HeadLimits())
    taken(parser, way(raw + NEXT))
    parser.next()
    assert parser.head is not None and (parser.head.path, parser.is_complete, parser.rest) == (b"/next", True, b"")


@WAYS
@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str, way: Way) -> None:
    raw, kind = BAD[name]
    parser = RequestParser(HeadLimits())
    read = taken(parser, way(raw))
    in_body = read.head is not None
    assert (read.kind, read.is_complete) == (kind, False)
    assert read.phase is (Phase.BODY if in_body else Phase.HEAD)
    assert in_body == name.startswith(("a chunk ", "a last chunk", "a trailer"))
    # A connection on which something was refused says nothing more, whatever follows.
    parser.feed(NEXT)
    parser.next()
    parser.feed(NEXT)
    assert (parser.failure and parser.failure.kind, parser.is_complete, parser.rest) == (kind, False, b"")
    assert read_request(way(raw + NEXT))[:2] == read[:2]


@pytest.mark.parametrize("host", HOSTS_GOOD)
def test_a_host_that_is_one(host: bytes) -> None:
    head = read_request([get(host=b"Host: " + host + b"\r\n")]).head
    assert head is not None and head.host == host
    head = read_request([get(first=b"GET http://" + host + b"/ HTTP/1.1")]).head
    assert head is not None and head.host == host


@pytest.mark.parametrize("host", HOSTS_BAD)
def test_a_host_that_is_none_is_no_authority_either(host: bytes) -> None:
    # What ends an authority makes another one of it: http://a/b/ has a host, and is no way to smuggle one.
    if any(end in host for end in (b"/", b"?")):
        return
    assert read_request([get(first=b"GET http://" + host + b"/ HTTP/1.1")]).kind is Kind.BAD_REQUEST


# -- h11, the second opinion -------------------------------------------------------------------------------------------

# What h11 would refuse and we serve.
H11_REFUSES = {
    "chunked with extensions (9112 7.1.1)": "h11 knows no blanks before the semicolon; the RFC has us parse them",
    "an empty line before it (9112 2.2)": "h11 tolerates no empty line; the RFC asks for it",
    "a few of them": "as above",
}
# What h11 would serve and we refuse, all of it on purpose.
H11_SERVES = {
    "Host and targets: h11 looks at neither": {
        name for name in BAD if name.startswith(("Host ", "absolute form", "a wrong Host"))
    }
    | {
        "a fragment", "a quote in the target", "angles in the target", "a backslash in the target", "* with GET",
        "** with OPTIONS", "authority form", "a relative target", "a query alone", "another scheme",
    },
    "methods and versions: h11 leaves them to its user": {
        "0.9", "1.2", "2.0", "the preface of HTTP/2", "SOURCE", "M-SEARCH", "CONNECT", "TRACE", "a method nobody knows",
        "a method in lower case (9110 9.1)", "a method of 33 letters",
    },
    "one framing: h11 takes chunks before a length, and lengths that agree": {
        "a length and chunks (9112 6.1)", "chunks and a length", "a length of zero and chunks", "two equal lengths",
        "a list of lengths", "a list of lengths without blanks", "chunks in 1.0 (9112 6.1)", "chunked and a tab",
    },
    "sizes nobody sends: h11 waits for the bytes": {"a length of 2**64", "a length of 19 digits"},
    "what h11 tolerates and the RFC has a server refuse, or lets it": {
        "a folded value (9112 5.2)", "a value folded by a tab", "a folded offer", "an LF in a value (9112 2.2)",
        "a bell in a value", "a DEL in a value", "lines that end in LF", "an empty line of LF alone",
        "a last chunk in LF", "JSON",
    },
    "a second field that two readers could read differently": {
        "two keys", "two x-api-keys", "two api-keys", "two x-goog-api-keys", "two types", "two content codings",
    },
    "expectations: h11 leaves them to its user": {
        "two different expectations", "an expectation nobody knows (9110 10.1.1)", "an expectation more",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_h11_reads_the_same(name: str) -> None:
    raw, body, _ = GOOD[name]
    opinion = h11_request(raw)
    if name in H11_REFUSES:
        assert opinion.verdict == "refused", "off the list: h11 serves it now"
        return
    assert (opinion.verdict, opinion.body) == ("whole", body)
    head = read_request([raw]).head
    assert opinion.first is not None and head is not None
    assert opinion.first.method == head.method
    theirs = {name: value for name, value in reversed(list(opinion.first.headers)) if name != b"content-length"}
    # h11 writes codings in lower case.
    assert {name: value.lower() for name, value in theirs.items()} == {k: v.lower() for k, v in head.values.items()}


@pytest.mark.parametrize("name", BAD)
def test_h11_refuses_as_well(name: str) -> None:
    is_allowed = any(name in names for names in H11_SERVES.values())
    assert (h11_request(BAD[name][0]).verdict == "refused") != is_allowed


# -- limits ------------------------------------------------------------------------------------------------------------

TIGHT = HeadLimits(line=40, head=200, fields=4)


def line_of(size: int) -> bytes:
    return get(first=b"GET /" + b"a" * (size - 14) + b" HTTP/1.1")


def head_of(size: int) -> bytes:
    return get(b"A: " + b"a" * (size - len(get(b"A: "))))


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (line_of(40), None),
        (line_of(41), Kind.LINE_TOO_LONG),
        (line_of(42), Kind.LINE_TOO_LONG),
        (line_of(5000), Kind.LINE_TOO_LONG),
        (head_of(200), None),
        (head_of(201), Kind.HEAD_TOO_LARGE),
        (head_of(202), Kind.HEAD_TOO_LARGE),
        (head_of(5000), Kind.HEAD_TOO_LARGE),
        (get(b"A: 1", b"B: 2", b"C: 3"), None),
        (get(b"A: 1", b"B: 2", b"C: 3", b"D: 4"), Kind.HEAD_TOO_LARGE),
        (get(b"A: 1", b"A: 2", b"A: 3", b"A: 4"), Kind.HEAD_TOO_LARGE),
        # Of several faults the first counts.
        (b"GET /" + b"a" * 5000, Kind.LINE_TOO_LONG),
        (b"GET /" + b"a" * 20 + b"\n" + b"a" * 5000, Kind.BAD_REQUEST),
        (b"GET /" + b"a" * 36 + b"\n" + b"a" * 5000, Kind.BAD_REQUEST),
        (b"GET /" + b"a" * 37 + b"\n" + b"a" * 5000, Kind.LINE_TOO_LONG),
        (get(b"A: " + b"a" * 300, b"B: a\nb"), Kind.HEAD_TOO_LARGE),
        (get(b"B: a\nb", b"A: " + b"a" * 300), Kind.BAD_REQUEST),
        (get(b"A: " + b"a" * 300, first=b"GET / HTTP/2.0"), Kind.HEAD_TOO_LARGE),
        (b"\r\n" * (MAX_EMPTY // 2) + head_of(200), None),
        (b"\r\n" * (MAX_EMPTY // 2) + head_of(201), Kind.HEAD_TOO_LARGE),
        (b"\r\n" * 5000, Kind.BAD_REQUEST),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else repr(value)[:40],
)
def test_limits_of_a_head(raw: bytes, kind: Kind | None) -> None:
    results = {
        (read.kind, read.is_complete)
        for size in (1, 2, 3, 7, 39, 40, 41, 42, 199, 200, 201, 10_000)
        for read in [read_request([raw[at : at + size] for at in range(0, len(raw), size)], TIGHT)]
    }
    assert results == {(kind, kind is None)}


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\x16", Kind.BAD_REQUEST),
        (b"{", Kind.BAD_REQUEST),
        (b"\rG", Kind.BAD_REQUEST),
        (b"\n", Kind.BAD_REQUEST),
        (b"GET /\n", Kind.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: x\n", Kind.BAD_REQUEST),
        (line_of(41)[:42], Kind.LINE_TOO_LONG),
        (head_of(300)[:201], Kind.HEAD_TOO_LARGE),
    ],
)
def test_what_cannot_become_a_head_is_refused_at_once(raw: bytes, kind: Kind) -> None:
    for way in (whole, each_byte):
        assert read_request(way(raw), TIGHT).kind is kind
    assert read_request([raw[:-1]] if len(raw) > 1 else [], TIGHT).kind is None


@pytest.mark.parametrize("raw", [GOOD["a few of them"].raw, GOOD["an empty line before it (9112 2.2)"].raw + NEXT])
def test_empty_lines_may_be_cut_anywhere(raw: bytes) -> None:
    expected = read_request([raw])
    assert expected.is_complete
    for first, second in itertools.combinations(range(len(raw)), 2):
        assert read_request(cut(raw, first, second)) == expected


def test_empty_lines_are_no_beginning_and_are_counted_anew() -> None:
    parser = RequestParser(HeadLimits())
    assert not parser.has_begun
    for _ in range(5):
        parser.feed(b"\r\n" * 20)
        assert not parser.has_begun
        parser.feed(b"G")
        assert parser.has_begun
        parser.feed(get()[1:])
        assert parser.is_complete and parser.received == 0
        parser.next()
    assert not parser.has_begun


def test_nothing_is_nothing() -> None:
    parser = RequestParser(HeadLimits())
    for piece in (b"", b"P", b"", post(TE, body=ABC)[1:-3], b"", b"\n", b"", b"\r\n", b""):
        parser.feed(piece)
    assert parser.is_complete and parser.pieces == [b"abc"]


def test_received_counts_the_body_with_its_framing() -> None:
    for way in (whole, each_byte):
        parser = RequestParser(HeadLimits())
        taken(parser, way(b"\r\n" + post(TE, body=ABC) + NEXT))
        assert parser.received == len(ABC)
        parser.next()
        assert parser.received == 0
        parser = RequestParser(HeadLimits())
        taken(parser, way(post(b"Content-Length: 3", body=b"abc") + NEXT))
        assert parser.received == 3


POST = b"POST /v1/messages?a=b HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (POST + b"Host: a\r\n\r\n", b"/v1/messages"),
        (POST, b"/v1/messages"),  # the rest may never come: a time limit is worded, too
        (POST + b"Host", b"/v1/messages"),
        (b"\r\n" + POST + b"Ho", b"/v1/messages"),
        (POST + b"\r\n", b"/v1/messages"),  # no Host
        (POST + b"Host: a\nb", b"/v1/messages"),
        (POST + b"Host: a\r\nA b: c\r\n\r\n", b"/v1/messages"),
        (POST + b"Host: a\r\nA: " + b"x" * 40_000, b"/v1/messages"),
        (POST + b"Host: a\r\nA: " + b"x" * 40_000 + b"\r\n\r\n", b"/v1/messages"),
        (POST + b"Host: a\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"/v1/messages"),
        (POST + b"Host: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"/v1/messages"),
        (POST.replace(b"/1.1", b"/2.0") + b"\r\n", b"/v1/messages"),
        (b"POST http://a/api/chat?x HTTP/1.1\r\nHost: a:b\r\n\r\n", b"/api/chat"),
        (b"POST http://a HTTP/1.1\r\nHost: a:b\r\n\r\n", b"/"),
        (b"POST other: HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (POST[:-1], b""),
        (b"", b""),
        (b"POST /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"\x16\x03\x01", b""),
        (b"\r\n\r\n", b""),
    ],
)
def test_the_path_is_known_as_soon_as_there_is_a_request_line(raw: bytes, path: bytes) -> None:
    for way in (whole, each_byte):
        parser = RequestParser(HeadLimits())
        for piece in way(raw) if raw else []:
            parser.feed(piece)
        assert parser.path == path


def test_the_path_of_the_next_head_is_not_the_last_ones() -> None:
    parser = RequestParser(HeadLimits())
    parser.feed(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost")
    assert parser.path == b"/a"
    parser.next()
    assert parser.path == b"/b"


def test_extensions_count_though_they_are_no_body() -> None:
    parser = RequestParser(HeadLimits())
    parser.feed(post(TE))
    for _ in range(10):
        parser.feed(b"1;" + b"e" * 900 + b"\r\na\r\n")
    assert parser.received == 10 * 907


def test_chunks_of_one_read_are_one_piece() -> None:
    parser = RequestParser(HeadLimits())
    parser.feed(post(TE, body=b"2\r\nab\r\n" * 1000))
    assert parser.pieces == [b"ab" * 1000]


# -- one behind the other ----------------------------------------------------------------------------------------------


def test_any_request_behind_any_other_is_read_as_if_it_were_the_first() -> None:
    alone = {name: read_request([each.raw]) for name, each in GOOD.items()}
    for first, second in itertools.product(GOOD, GOOD):
        parser = RequestParser(HeadLimits())
        assert taken(parser, [GOOD[first].raw]) == alone[first]
        parser.next()
        assert taken(parser, [GOOD[second].raw]) == alone[second], (first, second)
        if parser.is_familiar:
            heads = [alone[name].head for name in (first, second)]
            assert len({str(head and head._replace(length=0)) for head in heads}) == 1


def test_a_broken_one_behind_a_good_one_is_refused_in_its_turn() -> None:
    for name, (raw, kind) in BAD.items():
        parser = RequestParser(HeadLimits())
        parser.feed(get() + raw)
        assert parser.is_complete and parser.failure is None and parser.rest == raw
        parser.next()
        assert parser.failure is not None and parser.failure.kind is kind, name


LENGTHS = [
    b"Content-Length: %d", b"content-length: %d", b"CONTENT-LENGTH: %d", b"Content-Length:%d", b"content-length:  %d",
    b"Content-Length: %d ", b"Content-Length: 00%d", b"Content-length: %d", b"Content-Length:\t%d\t",
]  # fmt: skip


@WAYS
@pytest.mark.parametrize("line", LENGTHS)
@pytest.mark.parametrize("sizes", [(5, 5), (5, 6), (5, 0), (0, 5), (10, 9), (9, 10), (5, 0, 7, 7, 0)])
def test_a_familiar_head_has_the_length_that_it_says(sizes: tuple[int, ...], line: bytes, way: Way) -> None:
    requests = [post(b"A: 1", line % size, b"B: 2", body=b"x" * size) for size in sizes]
    parser = RequestParser(HeadLimits())
    for request, size in zip(requests, sizes, strict=True):
        read = taken(parser, way(request))
        assert read == read_request([request])
        assert read.head is not None and (len(read.body), read.head.length) == (size, size)
        assert read.head.keep_alive is True and read.head.framing is Framing.LENGTH
        parser.next()
    parser.feed(b"".join(requests))  # and pipelined
    for size in sizes:
        assert parser.head is not None and parser.head.length == size and parser.is_complete
        parser.next()
    assert not parser.has_begun


def test_only_the_length_may_differ_in_a_familiar_head() -> None:
    first = post(b"Content-Length: 1", b"X-A: 1", body=b"a")
    for second, is_familiar in [
        (first, True),
        (post(b"Content-Length: 22", b"X-A: 1", body=b"a" * 22), True),
        (post(b"Content-Length: 1", b"X-A: 2", body=b"a"), False),
        (post(b"content-length: 1", b"X-A: 1", body=b"a"), False),
        (post(b"X-A: 1", b"Content-Length: 1", body=b"a"), False),
        (post(b"X-A: 1"), False),
        (get(), False),
    ]:
        parser = RequestParser(HeadLimits())
        parser.feed(first)
        assert not parser.is_familiar
        parser.next()
        parser.feed(second)
        assert parser.is_complete and parser.is_familiar is is_familiar
        assert parser.head == read_request([second]).head


def test_what_is_before_and_behind_a_known_length_may_overlap() -> None:
    parser = RequestParser(HeadLimits())
    parser.feed(post(b"Content-Length: 1 ", body=b"a"))
    parser.next()
    parser.feed(post(b"Content-Length: "))  # one blank for both
    assert not parser.is_familiar and parser.failure is not None


def test_a_large_head_is_not_kept_and_is_served_right_again() -> None:
    """What is remembered of a head stays with an idle connection."""
    fat = [post(b"X-Fat: " + b"a" * MAX_KNOWN, b"Content-Length: %d" % size, body=b"x" * size) for size in (3, 3, 4)]
    lean = post(b"Content-Length: 2", body=b"hi")
    parser = RequestParser(HeadLimits())
    for raw, is_familiar in [*((each, False) for each in fat), (lean, False), (lean, True), (fat[0], False)]:
        parser.feed(raw)
        assert parser.is_complete and parser.is_familiar is is_familiar
        assert parser.head == read_request([raw]).head
        assert b"".join(parser.pieces) == raw.partition(b"\r\n\r\n")[2]
        kept = sum(map(len, parser._known_bytes))
        assert kept == (len(lean) - 3 if raw is lean else 0)
        assert (parser._known is not None) is (raw is lean)
        parser.pieces = []
        parser.next()


@pytest.mark.parametrize("size", [MAX_KNOWN, MAX_KNOWN + 1])
def test_how_large_a_head_may_be_to_be_known(size: int) -> None:
    raw = get(b"X: ")
    raw = get(b"X: " + b"a" * (size - len(raw)))
    assert len(raw) == size
    parser = RequestParser(HeadLimits())
    for is_familiar in (False, size <= MAX_KNOWN):
        parser.feed(raw)
        assert parser.is_complete and parser.is_familiar is is_familiar
        parser.next()


def test_a_refused_head_is_never_familiar() -> None:
    limits = HeadLimits(line=8000, head=120)
    long = post(b"X: " + b"a" * 60, b"Content-Length: 1", body=b"a")
    parser = RequestParser(limits)
    parser.feed(long)
    parser.next()
    parser.feed(post(b"X: " + b"a" * 60, b"Content-Length: 0000000000000001", body=b"a"))
    assert parser.failure is not None and parser.failure.kind is Kind.HEAD_TOO_LARGE


def test_an_expectation_is_looked_at_each_time() -> None:
    parser = RequestParser(HeadLimits())
    for size in (0, 3, 0, 3):
        parser.feed(post(b"Expect: 100-continue", b"Content-Length: %d" % size))
        assert parser.head is not None and parser.head.expects_continue is (size > 0)
        parser.feed(b"a" * size)
        assert parser.is_complete
        parser.next()


# -- one memory for many parsers ---------------------------------------------------------------------------------------


def sharing(*firsts: bytes) -> RequestParser:
    """A new parser, which shares its memory with one that has read `firsts`."""
    heads = Heads()
    before = RequestParser(HeadLimits(), heads)
    for raw in firsts:
        taken(before, [raw])
        before.next()
    return RequestParser(HeadLimits(), heads)


def known_of(parser: RequestParser) -> tuple[object, ...]:
    """What a parser holds of a head: the very objects."""
    known = parser._known
    assert known is not None
    return known.fields, known.values, *parser._known_bytes


@WAYS
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (post(b"Content-Length: 3", b"A: 1", body=b"abc"), post(b"Content-Length: 3", b"A: 1", body=b"xyz")),
        (post(b"Content-Length: 3", b"A: 1", body=b"abc"), post(b"Content-Length: 12", b"A: 1", body=b"x" * 12)),
        (post(b"Content-Length: 3", b"A: 1", body=b"abc"), post(b"Content-Length: 0", b"A: 1")),
        (post(b"Content-Length: 0", b"A: 1"), post(b"Content-Length: 3", b"A: 1", body=b"abc")),
        (post(b"Content-Length: 3", body=b"abc"), post(b"Content-Length: 0003", body=b"xyz")),
        (post(b"content-length:  3", body=b"abc"), post(b"content-length:  3", body=b"xyz")),
        (get(b"A: 1"), get(b"A: 1")),
        (post(TE, body=ABC), post(TE, body=b"1\r\nx\r\n0\r\n\r\n")),
        (get(first=b"GET /a?b HTTP/1.0"), get(first=b"GET /a?b HTTP/1.0")),
        (get(b"Connection: close"), get(b"Connection: close")),
        (get(b"A: 1"), b"\r\n\r\n" + get(b"A: 1")),
    ],
)
def test_a_head_that_another_parser_has_read_is_read_the_same(first: bytes, second: bytes, way: Way) -> None:
    heads = Heads()
    before, parser = RequestParser(HeadLimits(), heads), RequestParser(HeadLimits(), heads)
    taken(before, [first])
    alone = read_request([second])
    for is_familiar in (False, True):  # what was decided on this connection was decided about another head
        assert taken(parser, way(second)) == alone and alone.is_complete
        assert parser.is_familiar is is_familiar and parser.rest == b""
        assert parser.received == len(second.partition(b"HTTP/1.")[2].partition(b"\r\n\r\n")[2])
        assert before.head is not None and parser.head is not None
        assert parser.head.fields is before.head.fields and parser.head.values is before.head.values
        assert all(ours is theirs for ours, theirs in zip(known_of(parser), known_of(before), strict=True))
        parser.next()


def test_a_shared_head_is_not_the_familiar_one_though_another_was() -> None:
    one, other = get(b"A: 1"), get(b"A: 2")
    parser = sharing(one, other)
    for raw, is_familiar in [(one, False), (one, True), (other, False), (other, True), (one, False), (one, True)]:
        assert taken(parser, [raw]) == read_request([raw])
        assert parser.is_familiar is is_familiar
        parser.next()


def test_any_request_of_another_connection_leaves_no_trace() -> None:
    every = {name: each[0] for name, each in (GOOD | BAD).items()}
    alone = {name: read_request([raw]) for name, raw in every.items()}
    for first, second in itertools.product(GOOD, every):
        parser = sharing(every[first])
        assert taken(parser, [every[second]]) == alone[second], (first, second)
        assert not parser.is_familiar


def test_a_head_that_differs_in_a_byte_is_read_anew() -> None:
    first = post(b"Authorization: Bearer a", b"Content-Length: 3", b"A: 1")
    theirs = read_request([first]).head
    assert theirs is not None
    end = first.index(b"3\r\n")
    for at in range(len(first)):
        second = first[:at] + bytes([first[at] ^ 1]) + first[at + 1 :]
        parser = sharing(first)
        assert taken(parser, [second]) == read_request([second]), at
        if at != end and parser.head is not None:
            assert parser.head._replace(length=3) != theirs, at


@pytest.mark.parametrize(
    "line",
    [
        b"", b"x", b"-3", b"+3", b"3 3", b"3, 3", b"0x3", b"3_0", b"\xb2", b"3\r\nContent-Length: 3",
        b"1" * 19, b"0" * 18 + b"3", b"9" * 100,
    ],
)  # fmt: skip
def test_a_shared_head_takes_no_length_that_is_none(line: bytes) -> None:
    parser = sharing(post(b"A: 1", b"Content-Length: 3", b"B: 2", body=b"abc"))
    read = taken(parser, [post(b"A: 1", b"Content-Length: " + line, b"B: 2", body=b"abc")])
    assert read == read_request([post(b"A: 1", b"Content-Length: " + line, b"B: 2", body=b"abc")])
    assert read.kind is Kind.BAD_REQUEST and read.head is None


def test_a_shared_head_may_have_a_length_of_as_many_digits_as_any() -> None:
    second = post(b"Content-Length: " + b"0" * 17 + b"2", body=b"hi")
    parser = sharing(post(b"Content-Length: 3", body=b"abc"))
    assert taken(parser, [second]) == read_request([second])
    assert parser.is_complete and parser.head is not None and parser.head.length == 2


def test_what_may_not_be_known_is_not_shared() -> None:
    heads = Heads()
    parser = RequestParser(HeadLimits(), heads)
    for raw in (
        post(b"Expect: 100-continue", b"Content-Length: 3", body=b"abc"),
        get(b"X: " + b"a" * MAX_KNOWN),
        get(b"Host: again"),
    ):
        taken(parser, [raw])
        parser.next()
        assert heads._heads == {} and parser._known is None
    again = RequestParser(HeadLimits(), heads)
    again.feed(post(b"Expect: 100-continue", b"Content-Length: 0"))
    assert again.head is not None and again.head.expects_continue is False


def test_the_shared_memory_is_bounded_and_loses_the_oldest() -> None:
    heads = Heads()
    count = 3 * MAX_SHARED
    asked = [get(b"A: %d" % number) for number in range(count)]
    for raw in asked:
        RequestParser(HeadLimits(), heads).feed(raw)
        assert len(heads._heads) <= MAX_SHARED
    assert [parts for parts, _ in heads._heads.values()] == [(raw, b"") for raw in asked[-MAX_SHARED:]]
    kept = list(heads._heads)
    RequestParser(HeadLimits(), heads).feed(asked[-1])
    assert list(heads._heads) == kept, "what is found is not put there again"
    parser = RequestParser(HeadLimits(), heads)
    assert taken(parser, [asked[0]]) == read_request([asked[0]])
    assert list(heads._heads) == [*kept[1:], (asked[0], b"")]


def test_thousands_of_pipelined_requests() -> None:
    parser = RequestParser(HeadLimits())
    parser.feed((post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN) + get()) * 1000)
    paths = []
    while parser.is_complete:
        assert parser.head is not None
        paths.append(parser.head.path)
        parser.next()
    assert paths == [b"/p", b"/"] * 1000 and not parser.has_begun
