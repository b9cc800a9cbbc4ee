"""Answers of our own: their bytes in every dialect, for every kind of failure."""

from __future__ import annotations

import orjson
import pytest

from proxy.dialects import DIALECTS
from proxy.outcome import Failure, Kind, Phase, Side, status_of
from proxy.relay.local import error_answer
from tests.policy.heads import head
from tests.relay import stage as s
from tests.relay.stage import Stage


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_failure_has_an_answer_in_every_dialect(kind: Kind, dialect: str) -> None:
    failure = Failure(Side.PROXY, Phase.CONNECT, kind)
    status = status_of(failure)
    answer, size = error_answer(head(), DIALECTS[dialect], failure, status, "id-1", True)
    first, _, body = answer.partition(b"\r\n\r\n")
    lines = first.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % status)
    assert b"content-length: %d" % len(body) in lines
    assert b"x-llm-proxy-error: " + kind.value.encode() in lines
    assert b"x-llm-proxy-request-id: id-1" in lines
    assert (b"retry-after: 1" in lines) is (status in (429, 503))
    assert (b"www-authenticate: Bearer" in lines) is (status == 401)
    assert size == len(body)
    assert isinstance(orjson.loads(body), dict)


def test_an_answer_to_head_has_no_body_but_its_length() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"HEAD", b"/nowhere"))
        answer = client.heard()
        assert answer.endswith(b"\r\n\r\n")
        assert answer.count(b"\r\n\r\n") == 1
        assert b"content-length: 0" not in answer
        assert s.status_of(answer) == 404
        assert stage.receipt().bytes_out == 0
        client.says(s.get())
        stage.upstream().says(s.unary())
        assert client.heard() == s.passed_on()


def test_405_says_what_is_allowed() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"PUT", s.CHAT, b"{}"))
        answer = client.heard()
        assert s.status_of(answer) == 405
        assert b"\r\nallow: POST, GET\r\n" in answer


@pytest.mark.parametrize(
    ("version", "lines", "end"),
    [
        (b"1.1", [], b""),
        (b"1.1", [b"Connection: close"], b"connection: close\r\n"),
        (b"1.0", [b"Connection: keep-alive"], b"connection: keep-alive\r\n"),
        (b"1.0", [], b"connection: close\r\n"),
    ],
)
@pytest.mark.parametrize("target", [b"*", b"/v1/models"])
def test_options_that_end_here(target: bytes, version: bytes, lines: list[bytes], end: bytes) -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"OPTIONS", target, None, b"Max-Forwards: 0", *lines, version=version))
        allowed = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
        assert client.heard() == b"HTTP/1.1 204 No Content\r\n" + allowed + s.DATE + s.VIA + end + b"\r\n"
        assert client.is_gone is (end == b"connection: close\r\n")
        receipt = stage.receipt()
        assert (receipt.status, receipt.complete, receipt.attempts) == (204, True, [])


def test_options_with_hops_left_travels() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.request(b"OPTIONS", b"/v1/files"))
        assert stage.upstream().heard().startswith(b"OPTIONS /v1/files HTTP/1.1\r\n")


def test_options_is_not_answered_to_strangers() -> None:
    from proxy.policy.keys import AuthMode

    with Stage(mode=AuthMode.KEYS, keys={"ann": "k"}) as stage:
        client = stage.client()
        client.says(s.request(b"OPTIONS", b"*"))
        assert s.status_of(client.heard()) == 401
