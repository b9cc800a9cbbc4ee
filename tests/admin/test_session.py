"""The admin listener's HTTP: right, bounded, and never in the way of the loop."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import NamedTuple

import h11
import pytest
import uvloop

from proxy.admin.routes import AdminAnswer, AdminRequest, Route, RouteTable, json_answer, probes
from proxy.admin.session import AdminSession, AdminSessions, _date
from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport

GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
HEALTHY = {"status": "ok"}


class Seen(NamedTuple):
    status: int
    fields: dict[bytes, bytes]
    body: bytes

    @property
    def code(self) -> str:
        code: str = json.loads(self.body)["error"]["code"]
        return code


def echo(request: AdminRequest) -> AdminAnswer:
    return json_answer(200, {"query": request.query, "body": request.body.decode()})


def broken(request: AdminRequest) -> AdminAnswer:
    raise RuntimeError("broken page")


def big(request: AdminRequest) -> AdminAnswer:
    return AdminAnswer(200, b"x" * 100_000, b"text/plain")


TABLE = RouteTable(
    [
        *probes(list),
        Route("POST", "/echo", echo, False),
        Route("GET", "/broken", broken, False),
        Route("GET", "/big", big, False),
    ]
)


@pytest.fixture
def loop() -> Iterator[FakeLoop]:
    with FakeLoop() as loop:
        yield loop
        loop.advance(200.0)  # whatever is still open is idle by now
        assert loop.timers == []


@pytest.fixture
def sessions(loop: FakeLoop) -> AdminSessions:
    return AdminSessions(loop, TABLE)


def connect(sessions: AdminSessions, loop: FakeLoop) -> FakeTransport:
    return FakeTransport(loop).attach(sessions())


def answers(transport: FakeTransport, *methods: str) -> list[Seen]:
    """What was sent, read by h11 as answers to requests with these methods (GET unless told)."""
    reader = h11.Connection(h11.CLIENT)
    reader.receive_data(transport.sent)
    seen = []
    for method in methods or ["GET"] * transport.sent.count(b"HTTP/1.1 "):
        reader.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        reader.send(h11.EndOfMessage())
        head, body = None, b""
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.InformationalResponse), event
        assert head is not None
        seen.append(Seen(head.status_code, dict(head.headers), body))
        if reader.their_state is h11.DONE:
            reader.start_next_cycle()
    assert reader.trailing_data[0] == b""
    return seen


def test_an_answer_is_complete_and_the_connection_stays(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.receive(GET)
    [seen] = answers(transport)
    assert (seen.status, json.loads(seen.body)) == (200, HEALTHY)
    assert seen.fields[b"content-type"] == b"application/json"
    assert seen.fields[b"content-length"] == str(len(seen.body)).encode()
    assert seen.fields[b"cache-control"] == b"no-store"
    assert b"connection" not in seen.fields
    transport.receive(GET)
    assert [s.status for s in answers(transport)] == [200, 200]
    assert not transport.is_closing()
    assert len(transport.writes) == 2  # one write each


def test_byte_by_byte(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.receive_each(b"POST /echo?a=1 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc" + GET)
    first, second = answers(transport)
    assert json.loads(first.body) == {"query": "a=1", "body": "abc"}
    assert json.loads(second.body) == HEALTHY


def test_pipelined_requests_are_answered_in_order(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    one = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    transport.receive(one + GET + b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n" + GET[:10])
    assert [s.status for s in answers(transport)] == [200, 200, 404]
    transport.receive(GET[10:])
    assert [s.status for s in answers(transport)] == [200, 200, 404, 200]


def test_head_has_the_fields_of_get_and_no_body(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.receive(GET.replace(b"GET", b"HEAD") + GET)
    head, get = answers(transport, "HEAD", "GET")
    assert head.body == b"" and get.body != b""
    assert head.fields[b"content-length"] == get.fields[b"content-length"]


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
    ],
)
def test_close_where_due(sessions: AdminSessions, loop: FakeLoop, request_head: bytes) -> None:
    transport = connect(sessions, loop)
    transport.receive(request_head)
    [seen] = answers(transport)
    assert (seen.status, seen.fields[b"connection"]) == (200, b"close")
    assert transport.closed
    loop.run_ready()
    assert sessions.open == set()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),  # TLS to a clear-text port
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "bad_request"),  # no Host
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400, "bad_request"),
        (b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", 400, "bad_request"),
        (b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501, "coding_unsupported"),
        (b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 65537\r\n\r\n", 413, "body_too_large"),
        (b"GET /" + b"a" * 70_000, 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 1_000_000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
        (
            b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"1000\r\n"
            + b"a" * 4096
            + b"\r\n"
            b"f001\r\n" + b"a" * 0xF001,
            413,
            "body_too_large",
        ),
    ],
)
def test_what_is_wrong_is_refused_so_that_the_client_can_read_it(
    sessions: AdminSessions, loop: FakeLoop, data: bytes, status: int, code: str
) -> None:
    transport = connect(sessions, loop)
    transport.receive(data + b"and more" * 1000)
    [seen] = answers(transport)
    assert (seen.status, seen.code, seen.fields[b"connection"]) == (status, code, b"close")
    assert transport.eof_sent and not transport.closed  # lingers for what is still sent
    transport.receive(b"more" * 1000)
    assert len(transport.writes) == 1
    transport.receive_eof()
    loop.run_ready()
    assert transport.is_lost and loop.timers == []


def test_a_client_that_never_stops_sending_is_closed_after_a_moment(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.receive(b"nonsense\r\n\r\n")
    for _ in range(3):
        transport.receive(b"more")
        loop.advance(1.0)
    assert transport.is_lost


def test_a_body_of_exactly_the_limit_passes(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.receive(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 65536\r\n\r\n" + b"a" * 65536)
    [seen] = answers(transport)
    assert seen.status == 200 and len(json.loads(seen.body)["body"]) == 65536


def test_expect_100_continue(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    transport.receive(head % 3)
    assert transport.sent.startswith(b"HTTP/1.1 100 ")
    transport.receive(b"abc")
    [seen] = answers(transport, "POST")
    assert json.loads(seen.body)["body"] == "abc"
    too_large = connect(sessions, loop)
    too_large.receive(head % 1_000_000)
    assert too_large.sent.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_offers_to_switch_are_declined_and_the_connection_stays(
    sessions: AdminSessions, loop: FakeLoop, data: bytes
) -> None:
    transport = connect(sessions, loop)
    transport.receive(data + GET)
    assert transport.sent.count(b"HTTP/1.1 ") == 2
    assert transport.sent.endswith(b'{"status":"ok"}\n')
    assert not transport.is_closing()


# -- the guard ---------------------------------------------------------------------------------------------------------


def test_the_guard_refuses_before_any_route_is_looked_at(loop: FakeLoop) -> None:
    asked: list[tuple[bytes, bytes | None]] = []

    def guard(request: AdminRequest) -> str | None:
        asked.append((request.host, request.get(b"origin")))
        return "Pages of a browser may not come here." if request.get(b"origin") else None

    sessions = AdminSessions(loop, TABLE, guard)
    transport = connect(sessions, loop)
    transport.receive(b"GET /nothing HTTP/1.1\r\nHost: evil.test\r\nOrigin: http://evil.test\r\n\r\n" + GET)
    refused, answered = answers(transport)
    assert (refused.status, refused.code) == (403, "forbidden")
    assert answered.status == 200
    assert asked == [(b"evil.test", b"http://evil.test"), (b"localhost", None)]


def test_a_broken_page_is_500_reported_and_takes_nothing_away(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.receive(b"GET /broken?token=CANARY HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
    first, second = answers(transport)
    assert (first.status, first.code, second.status) == (500, "internal", 200)
    assert b"broken page" not in first.body
    [context] = loop.expect_errors()
    assert isinstance(context["exception"], RuntimeError)
    assert "CANARY" not in context["message"]


# -- time --------------------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_closed(sessions: AdminSessions, loop: FakeLoop) -> None:
    fresh, used = connect(sessions, loop), connect(sessions, loop)
    loop.advance(59.0)
    used.receive(GET)
    loop.advance(2.0)
    assert fresh.closed and fresh.sent == b""
    assert not used.is_closing()
    loop.advance(58.0)
    assert used.closed


@pytest.mark.parametrize(
    "begin",
    [
        b"G",
        GET[:-2],
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nab",
    ],
)
@pytest.mark.parametrize("before", [b"", GET])
def test_a_request_must_be_whole_in_time_however_it_trickles(
    sessions: AdminSessions, loop: FakeLoop, begin: bytes, before: bytes
) -> None:
    transport = connect(sessions, loop)
    transport.receive(before + begin)
    for _ in range(9):
        loop.advance(1.0)
        transport.receive(b"x")
    assert not transport.eof_sent
    loop.advance(1.0)
    seen = answers(transport)[-1]
    assert (seen.status, seen.code, seen.fields[b"connection"]) == (408, "timeout", b"close")
    loop.advance(2.0)
    assert transport.is_lost


def test_one_timer_per_connection_and_none_after_it(sessions: AdminSessions, loop: FakeLoop) -> None:
    transports = [connect(sessions, loop) for _ in range(3)]
    for transport in transports:
        transport.receive_each(GET + GET + GET[:5])
    assert len(loop.timers) == 3
    for transport in transports:
        transport.lose()
    loop.run_ready()
    assert loop.timers == [] and sessions.open == set()


# -- a client that does not read ---------------------------------------------------------------------------------------


def test_no_further_request_is_taken_while_the_client_does_not_read(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.block()
    want = b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n"
    transport.receive(want * 200)
    assert len(transport.writes) == 1  # above the high water at once
    assert transport.paused
    transport.drain()
    assert len(transport.writes) == 200
    assert not transport.paused
    assert [s.status for s in answers(transport)] == [200] * 200


def test_a_client_that_never_reads_is_cut_off(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.block()
    transport.receive(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
    loop.advance(59.0)
    assert not transport.aborted
    loop.advance(2.0)
    assert transport.aborted


def test_a_client_that_reads_slowly_gets_all_of_its_last_answer(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.block()
    transport.receive(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert transport.closed
    loop.advance(30.0)
    transport.drain()
    [seen] = answers(transport)
    assert len(seen.body) == 100_000


# -- number ------------------------------------------------------------------------------------------------------------


def test_above_the_limit_connections_are_told_and_far_above_cut(loop: FakeLoop) -> None:
    sessions = AdminSessions(loop, TABLE, limit=2)
    inside = [connect(sessions, loop) for _ in range(2)]
    told = [connect(sessions, loop) for _ in range(2)]
    cut = connect(sessions, loop)
    for transport in told:
        [seen] = answers(transport)
        assert (seen.status, seen.code) == (503, "overloaded")
    assert cut.aborted and cut.sent == b""
    for transport in inside:
        transport.receive(GET)
        assert answers(transport)[0].status == 200
    loop.advance(3.0)
    assert len(sessions.open) == 2
    inside[0].lose()
    loop.run_ready()
    late = connect(sessions, loop)
    late.receive(GET)
    assert answers(late)[0].status == 200


def test_close_ends_all_and_flushes(sessions: AdminSessions, loop: FakeLoop) -> None:
    idle, slow = connect(sessions, loop), connect(sessions, loop)
    slow.block()
    slow.receive(GET)
    sessions.close()
    slow.drain()
    loop.run_ready()
    assert idle.is_lost and slow.is_lost
    assert answers(slow)[0].status == 200
    assert sessions.open == set() and loop.timers == []


def test_a_client_that_half_closes_has_its_answer(sessions: AdminSessions, loop: FakeLoop) -> None:
    transport = connect(sessions, loop)
    transport.receive(GET)
    transport.receive_eof()
    loop.run_ready()
    assert answers(transport)[0].status == 200
    assert transport.is_lost


def test_dates_are_right_in_any_locale() -> None:
    assert _date(784111777.0) == b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_sessions_hold_no_dict() -> None:
    assert not hasattr(AdminSession(AdminSessions(FakeLoop(), TABLE)), "__dict__")


def test_on_a_real_socket_a_refused_upload_can_read_why() -> None:
    """A close with unread bytes would reset the connection and take the answer away (DESIGN 16)."""

    def upload(port: int) -> bytes:
        got = b""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n" + b"a" * 2_000_000)
            while data := client.recv(65536):
                got += data
        return got

    async def serve() -> bytes:
        loop = asyncio.get_running_loop()
        sessions = AdminSessions(loop, TABLE)
        server = await loop.create_server(sessions, "127.0.0.1", 0)
        try:
            return await asyncio.to_thread(upload, server.sockets[0].getsockname()[1])
        finally:
            sessions.close()
            server.close()
            await server.wait_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for _ in range(10):
            assert runner.run(serve()).startswith(b"HTTP/1.1 413 ")
