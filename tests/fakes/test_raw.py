"""The raw client and the scripted upstream, against each other: each must see what the other did."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import trustme

from tests.fakes.raw import (
    Close,
    Ending,
    HalfClose,
    RawClient,
    Reset,
    ScriptedUpstream,
    Send,
    Step,
    Tell,
    Wait,
    WaitEnd,
)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: 1\r\nX-A: 2\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nall of it"


def ask(upstream: ScriptedUpstream, method: str = "GET") -> tuple[int, bytes, Ending]:
    with RawClient(upstream.host, upstream.port) as client:
        client.request(method, "/")
        answer = client.recv_response(method)
        return answer.status, answer.body, answer.ending


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([Send(OK)], (200, b"ok", Ending.CLEAN)),
        ([Send(OK, each=1)], (200, b"ok", Ending.CLEAN)),
        ([Send(CHUNKED)], (200, b"abc", Ending.CLEAN)),
        ([Send(UNTIL_CLOSE), Close()], (200, b"all of it", Ending.CLEAN)),
        ([Send(UNTIL_CLOSE), HalfClose(), WaitEnd()], (200, b"all of it", Ending.CLEAN)),
        ([Send(OK[:-1]), Close()], (200, b"o", Ending.CUT)),
        ([Send(CHUNKED[:-5]), Close()], (200, b"abc", Ending.CUT)),
        ([Send(OK[:20]), Close()], (0, b"", Ending.CUT)),
        ([Close()], (0, b"", Ending.CUT)),
        ([Reset()], (0, b"", Ending.RESET)),
        ([Send(b"SSH-2.0-what\r\n\r\n"), Close()], (0, b"", Ending.BROKEN)),
        ([Send(CHUNKED.replace(b"\r\n3\r\n", b"\r\nzz\r\n"))], (200, b"", Ending.BROKEN)),
    ],
)
def test_how_an_answer_ended(script: list[Step], expected: tuple[int, bytes, Ending]) -> None:
    with ScriptedUpstream(script) as upstream:
        assert ask(upstream) == expected


def test_a_reset_in_the_middle() -> None:
    go = threading.Event()
    with ScriptedUpstream([Send(CHUNKED[:-5]), Wait(go), Reset()]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.request("GET", "/")
            client.buffer = client.recv_until(b"abc\r\n")
            go.set()
            answer = client.recv_response()
            assert (answer.status, answer.body, answer.ending) == (200, b"abc", Ending.RESET)


def test_the_answer_to_head_ends_at_its_head() -> None:
    with ScriptedUpstream([Send(OK[:-2])]) as upstream:
        assert ask(upstream, "HEAD") == (200, b"", Ending.CLEAN)


def test_informational_answers_repeated_fields_and_raw_bytes() -> None:
    with ScriptedUpstream([Send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + CHUNKED + OK)]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.request("GET", "/")
            first = client.recv_response()
            assert first.informational == [103]
            assert first.fields[1:] == [(b"x-a", b"1"), (b"x-a", b"2")]
            assert first.raw.endswith(CHUNKED)
            with pytest.raises(AssertionError, match="came 2 times"):
                first.get(b"x-a")
            second = client.recv_response()
            assert (second.body, second.raw, second.get(b"content-length")) == (b"ok", OK, b"2")


def test_requests_and_connections_are_recorded() -> None:
    with ScriptedUpstream([Send(OK)]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.request("POST", "/a?b=c", b"body", ("X-One", "1"))
            client.recv_response("POST")
            client.request("GET", "/second")
            client.recv_response()
            with RawClient(upstream.host, upstream.port) as other:
                other.request("GET", "/third")
                other.recv_response()
                first, second, third = upstream.wait_for_requests(3)
                assert (upstream.accepted, upstream.open) == (2, 2)
        upstream.wait_until_closed()
        assert (first.method, first.target, first.body, first.get(b"x-one")) == ("POST", "/a?b=c", b"body", b"1")
        assert [r.connection for r in (first, second, third)] == [0, 0, 1]
        assert upstream.received(0).startswith(b"POST /a?b=c HTTP/1.1\r\n")
        assert upstream.received(1).endswith(b"\r\n\r\n")
        assert upstream.violations == []


def test_each_request_gets_its_script_and_later_ones_the_last() -> None:
    scripts = [[Send(OK.replace(b"ok", b"%d!" % n))] for n in range(2)]
    with ScriptedUpstream(*scripts) as upstream:
        assert [ask(upstream)[1] for _ in range(3)] == [b"0!", b"1!", b"1!"]


def test_a_tunnel_can_be_played() -> None:
    with ScriptedUpstream([Send(b"HTTP/1.1 200 go\r\n\r\n")], [Send(OK)]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.send(b"CONNECT api.test:443 HTTP/1.1\r\nhost: api.test:443\r\n\r\n")
            assert client.recv_until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            client.request("GET", "/inside")
            assert client.recv_response().body == b"ok"
        assert [r.target for r in upstream.requests] == ["api.test:443", "/inside"]


def test_pipelined_requests_are_read_one_by_one() -> None:
    with ScriptedUpstream([Send(OK)]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.send(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\n")
            assert [client.recv_response().body for _ in range(2)] == [b"ok", b"ok"]
        assert [r.target for r in upstream.requests] == ["/1", "/2"]


def test_what_is_no_request_is_a_violation() -> None:
    with ScriptedUpstream([Send(OK)]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGARBAGE\r\n\r\n")
            client.recv_response()
            assert client.recv_to_end() == (b"", Ending.CLEAN)
        assert len(upstream.violations) == 1


def test_a_request_cut_in_its_body_is_seen_and_not_whole() -> None:
    with ScriptedUpstream([Send(OK)]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
            client.half_close()
            assert client.recv() == b""
        [seen] = upstream.requests
        assert (seen.body, seen.is_whole) == (b"half", False)
        assert upstream.violations == []


def test_steps_before_the_request_and_before_its_body() -> None:
    with ScriptedUpstream([], on_accept=[Reset()]) as upstream:
        try:
            client = RawClient(upstream.host, upstream.port)
        except ConnectionResetError:
            pass  # it came before we had even connected
        else:
            with client:
                assert client.recv_to_end() == (b"", Ending.RESET)
    early = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"
    with ScriptedUpstream([], on_head=[Send(early)]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
            assert client.recv_response("POST").status == 413


@pytest.mark.parametrize("leave", [RawClient.half_close, RawClient.reset, RawClient.close])
def test_an_upstream_sees_that_the_other_side_left(leave: object) -> None:
    began, left = threading.Event(), threading.Event()
    with ScriptedUpstream([Send(CHUNKED[:-5]), Tell(began), WaitEnd(), Tell(left)]) as upstream:
        client = RawClient(upstream.host, upstream.port)
        try:
            client.request("GET", "/")
            assert began.wait(20)
            assert not left.is_set()
            assert callable(leave)
            leave(client)
            assert left.wait(20)
        finally:
            client.close()


def test_close_ends_scripts_that_still_wait() -> None:
    with ScriptedUpstream([Wait(threading.Event())]) as upstream:
        with RawClient(upstream.host, upstream.port) as client:
            client.request("GET", "/")
            upstream.wait_for_requests(1)
    assert upstream.open == 0


def test_a_pipe_of_tls() -> None:
    authority = trustme.CA()
    server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(trusting)
    with ScriptedUpstream([Send(OK)], tls=server) as upstream:
        with RawClient(upstream.host, upstream.port, tls=trusting) as client:
            client.request("GET", "/")
            assert client.recv_response().body == b"ok"


def test_nothing_is_left_open() -> None:
    before = threading.active_count()
    with ScriptedUpstream([Send(OK)]) as upstream:
        for _ in range(50):
            assert ask(upstream)[0] == 200
        upstream.wait_until_closed()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((upstream.host, upstream.port), timeout=20)
