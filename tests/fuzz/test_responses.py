"""Any bytes are an answer or a Failure, the same however cut but for what is behind the end; nothing raises.
What we call whole and clean is whole for h11, with the same body; what h11 calls whole does not keep us waiting."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.head import Framing
from tests.fuzz.mutations import ANSWERS, FRAGMENTS, Mutator
from tests.wire.feeding import ReadAnswer, cut, each_byte, h11_answer, read_answer
from tests.wire.vectors.responses import TE, answer

METHODS = [b"GET", b"POST", b"HEAD"]


def agree(one: ReadAnswer, other: ReadAnswer) -> bool:
    """The same; or both saw that something stands behind the end. A read that brings it with the end is dropped
    whole where a length said so, and never counts as an end; one that brings it later comes too late for that."""
    if one == other:
        return True
    if one.head is None or one.head != other.head or one.is_clean or other.is_clean:
        return False
    may_differ = one.is_complete or other.is_complete or one.head.framing is Framing.LENGTH
    return may_differ and (one.body.startswith(other.body) or other.body.startswith(one.body))


def check(data: bytes, edges: list[int], method: bytes) -> bool:
    """True if `data` is an answer."""
    whole = read_answer([data], method)
    assert agree(read_answer(cut(data, *edges), method), whole)
    if len(data) < 1500:
        assert agree(read_answer(each_byte(data), method), whole)
    ended = read_answer([data], method, eof=True)
    assert ended.is_complete or ended.kind is not None  # no way to wait on
    for read, eof in ((whole, False), (ended, True)):
        assert not (read.is_complete and read.kind)
        opinion = h11_answer(data, method, eof)
        if read.is_complete and read.is_clean and read.head is not None:
            if opinion.verdict == "whole":
                assert opinion.body == read.body
            else:
                # The one difference allowed: extensions and trailers that h11 does not like. They end here.
                assert read.head.framing is Framing.CHUNKED and opinion.first is not None
        elif opinion.verdict == "whole":
            assert read.is_complete or read.kind is not None
    return whole.is_complete


def run(seed: int, count: int) -> int:
    mutator = Mutator(seed, ANSWERS)
    complete = 0
    for _ in range(count):
        data, method = mutator.next(), mutator.random.choice(METHODS)
        try:
            complete += check(data, mutator.edges(data), method)
        except BaseException as error:
            error.add_note(f"seed {seed}: {method!r} {data!r}")
            raise
    return complete


def test_bent_answers() -> None:
    assert run(1, 2_000) > 200  # a fair share of what is tried is still an answer


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_many_bent_answers(seed: int) -> None:
    run(seed, 12_000)


words = st.one_of(st.sampled_from([*FRAGMENTS, b"HTTP/1.1 100 x\r\n\r\n"]), st.binary(max_size=3))


@given(st.lists(words, max_size=12).map(b"".join), st.lists(st.integers(0, 200), max_size=4), st.sampled_from(METHODS))
@settings(max_examples=400, deadline=None)
def test_any_words_behind_a_status_line(words: bytes, edges: list[int], method: bytes) -> None:
    check(b"HTTP/1.1 200 OK\r\n" + words, edges, method)


@given(st.lists(words, max_size=10).map(b"".join), st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=400, deadline=None)
def test_any_words_in_chunks(words: bytes, edges: list[int]) -> None:
    check(answer(TE, body=b"3\r\nabc\r\n" + words + b"0\r\n\r\n"), edges, b"GET")


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes, edges: list[int]) -> None:
    check(data, edges, b"GET")
