"""Any bytes are a request or a Failure, the same however they are cut; nothing raises.
Whatever is accepted leaves as exactly one request with the same body, in the eyes of h11."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider
from proxy.policy.admission import Grant
from proxy.policy.plan import Target
from proxy.relay.request import framing_lines, upstream_lines
from proxy.wire import encode
from proxy.wire.head import Framing, HeadLimits, RequestHead
from proxy.wire.requests import RequestParser
from tests.fuzz.mutations import FRAGMENTS, REQUESTS, Mutator
from tests.wire.feeding import cut, each_byte, h11_requests, read_request, taken

LIMITS = HeadLimits(line=120, head=400, fields=8)
PROVIDER = Provider("p", "openai", Origin("http", "u", 80), b"/v1", b"u", Secret("theirs"))
TARGET = Target(PROVIDER, b"/v1/x", None)


def check(data: bytes, edges: list[int]) -> None:
    for limits in (HeadLimits(), LIMITS):
        whole = read_request([data], limits)
        assert read_request(cut(data, *edges), limits) == whole
        if len(data) < 1500:
            assert read_request(each_byte(data), limits) == whole
    check_series(data)


def check_series(data: bytes) -> None:
    """All requests in `data`, one behind the other."""
    parser = RequestParser(HeadLimits())
    read = taken(parser, [data])
    while read.is_complete:
        assert read.head is not None
        check_forwarded(read.head, read.body)
        parser.next()
        alone = read_request([read.rest])
        read = taken(parser, [b""])
        assert read == alone  # what went before leaves no trace
    assert read.is_complete or parser.failure or not parser.rest


def check_forwarded(head: RequestHead, body: bytes) -> None:
    grant = Grant(None, [])
    held = (
        upstream_lines(head, TARGET, grant, b"llm-proxy-x", False, Secret("theirs"))
        + framing_lines(head, len(body))
        + body
    )
    streamed = upstream_lines(head, TARGET, grant, b"llm-proxy-x", True, Secret("theirs")) + framing_lines(head, None)
    if head.framing is Framing.CHUNKED:
        streamed += (encode.chunk(body) if body else b"") + encode.LAST_CHUNK
    else:
        streamed += body
    for out in (held, streamed):
        opinions = h11_requests(out)
        assert [each.verdict for each in opinions] == ["whole"], (out, opinions)
        seen = opinions[0]
        assert seen.first is not None and seen.body == body
        values = list(seen.first.headers)
        assert [value for name, value in values if name == b"host"] == [b"u"]
        assert [value for name, value in values if name == b"authorization"] == [b"Bearer theirs"]
        names = [name for name, _ in values]
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
        assert not {b"connection", b"upgrade", b"te", b"trailer", b"expect", b"cookie"}.intersection(names)


def run(seed: int, count: int) -> int:
    mutator = Mutator(seed, REQUESTS)
    accepted = 0
    for _ in range(count):
        data = mutator.next()
        try:
            check(data, mutator.edges(data))
        except BaseException as error:
            error.add_note(f"seed {seed}: {data!r}")
            raise
        accepted += read_request([data]).is_complete
    return accepted


def test_bent_requests() -> None:
    assert run(1, 1500) > 200  # a fair share of what is tried is still served


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_many_bent_requests(seed: int) -> None:
    run(seed, 20_000)


words = st.one_of(
    st.sampled_from([*FRAGMENTS, b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"A: b\r\n"]), st.binary(max_size=3)
)


@given(st.lists(words, max_size=14).map(b"".join), st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=400, deadline=None)
def test_any_words_behind_a_request_line(words: bytes, edges: list[int]) -> None:
    check(b"POST /v1/x HTTP/1.1\r\nHost: x\r\n" + words, edges)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes, edges: list[int]) -> None:
    check(data, edges)


@given(st.binary(max_size=300), st.lists(st.integers(1, 60), max_size=6), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_body_arrives_as_it_left(body: bytes, sizes: list[int], is_chunked: bool) -> None:
    if is_chunked:
        pieces = cut(body, *sizes)
        framed = b"".join(encode.chunk(piece) for piece in pieces if piece) + encode.LAST_CHUNK
        data = b"POST /v1/x HTTP/1.1\r\nHost: x\r\n" + encode.CHUNKED + b"\r\n" + framed
    else:
        data = b"POST /v1/x HTTP/1.1\r\nHost: x\r\n" + encode.content_length(len(body)) + b"\r\n" + body
    assert read_request([data]).body == body
    check(data, sizes)
