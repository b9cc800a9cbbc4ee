"""What we write is read by h11 as what we meant."""

from __future__ import annotations

from http import HTTPStatus

import h11
import pytest

from proxy.wire import encode
from tests.wire.feeding import h11_answer, h11_request


@pytest.mark.parametrize("status", [*HTTPStatus, 299, 499, 529, 599], ids=int)
@pytest.mark.parametrize("reason", [b"", b"Because", b"\xe9 t\xe9"])
def test_a_status_line(status: int, reason: bytes) -> None:
    line = encode.status_line(status, reason)
    assert line.startswith(b"HTTP/1.1 %d " % status) and line.endswith(b"\r\n") and line.count(b"\n") == 1
    if reason:
        assert line == b"HTTP/1.1 %d %b\r\n" % (status, reason)
    elif status in list(HTTPStatus):
        assert line == b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())
    if status >= 200:
        opinion = h11_answer(line + encode.content_length(0) + b"\r\n")
        assert opinion.verdict == "whole" and opinion.first is not None
        assert isinstance(opinion.first, h11.Response) and opinion.first.status_code == status


def test_fields_go_out_in_order_and_in_their_own_case() -> None:
    fields = [(b"b", b"B", b"1"), (b"a", b"a", b""), (b"b", b"b", b"\xff, 2")]
    assert encode.field_lines(fields) == b"B: 1\r\na: \r\nb: \xff, 2\r\n"
    assert encode.field_lines([]) == b""


@pytest.mark.parametrize("size", [0, 1, 9, 10, 2**40])
def test_a_length(size: int) -> None:
    assert encode.content_length(size) == f"content-length: {size}\r\n".encode()


@pytest.mark.parametrize("bodies", [[], [b"a"], [b"a" * 15, b"b" * 16, b"c" * 17], [b"\r\n0\r\n\r\n"], [b"x" * 70_000]])
def test_chunks_bring_back_what_went_in(bodies: list[bytes]) -> None:
    body = b"".join(map(encode.chunk, bodies)) + encode.LAST_CHUNK
    head = encode.status_line(200) + encode.CHUNKED
    for more in (b"", encode.CLOSE, encode.KEEP_ALIVE):
        assert h11_answer(head + more + b"\r\n" + body)[:2] == ("whole", b"".join(bodies))
        request = b"POST / HTTP/1.1\r\nhost: x\r\n" + encode.CHUNKED + more + b"\r\n"
        assert h11_request(request + body)[:2] == ("whole", b"".join(bodies))


def test_continue_is_a_whole_answer_of_its_own() -> None:
    final = encode.status_line(204) + b"\r\n"
    opinion = h11_answer(encode.CONTINUE + final)
    assert opinion.verdict == "whole" and isinstance(opinion.first, h11.Response)
    assert h11_answer(encode.CONTINUE).verdict == "more"
