"""A connection whose answer is made by a thread: it waits, in order, bounded, and may leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from proxy.admin.routes import AdminAnswer, Later, Route, RouteTable, json_answer, probes
from proxy.admin.session import HEAD_BYTES, AdminSessions
from proxy.admin.threads import Threads
from tests.admin.test_session import GET, HEALTHY, Seen, answers, connect
from tests.fakes.loop import FakeLoop

SLOW = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
TABLE = RouteTable(
    [*probes(list), Route("GET", "/slow", lambda request: Later(lambda: json_answer(200, "slow")), False)]
)


class HeldThreads:
    """Imitates Threads: what was begun is done when the test says so. `is_full`: none is free."""

    def __init__(self) -> None:
        self.is_full = False
        self.waiting: list[tuple[Later, Callable[[AdminAnswer | BaseException], None]]] = []

    def start(self, later: Later, done: Callable[[AdminAnswer | BaseException], None]) -> bool:
        if not self.is_full:
            self.waiting.append((later, done))
        return not self.is_full

    def finish(self, error: BaseException | None = None) -> None:
        later, done = self.waiting.pop(0)
        done(later.make() if error is None else error)


@pytest.fixture
def loop() -> Iterator[FakeLoop]:
    with FakeLoop() as loop:
        yield loop
        loop.advance(200.0)
        assert loop.timers == []


@pytest.fixture
def threads() -> HeldThreads:
    return HeldThreads()


@pytest.fixture
def sessions(loop: FakeLoop, threads: HeldThreads) -> AdminSessions:
    return AdminSessions(loop, TABLE, threads=cast(Threads, threads))


def documents(seen: list[Seen]) -> list[object]:
    return [json.loads(each.body) for each in seen]


def test_pipelined_requests_wait_for_it_and_stay_in_order(
    sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads
) -> None:
    transport = connect(sessions, loop)
    transport.receive(GET + SLOW + GET + SLOW + GET)
    assert documents(answers(transport)) == [HEALTHY]
    transport.receive(GET)
    loop.advance(30.0)  # a thread has a limit of its own
    assert len(threads.waiting) == 1
    threads.finish()
    assert documents(answers(transport)) == [HEALTHY, "slow", HEALTHY]
    threads.finish()
    assert documents(answers(transport)) == [HEALTHY, "slow", HEALTHY, "slow", HEALTHY, HEALTHY]
    assert not transport.is_closing()


def test_others_are_answered_meanwhile(sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads) -> None:
    first, second = connect(sessions, loop), connect(sessions, loop)
    first.receive(SLOW)
    second.receive(GET)
    assert documents(answers(second)) == [HEALTHY] and first.sent == b""
    threads.finish()
    assert documents(answers(first)) == ["slow"]


def test_head_has_no_body_and_close_closes(sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads) -> None:
    transport = connect(sessions, loop)
    transport.receive(SLOW.replace(b"GET", b"HEAD") + SLOW.replace(b"host", b"connection: close\r\nhost"))
    threads.finish()
    threads.finish()
    head, get = answers(transport, "HEAD", "GET")
    assert head.body == b"" and json.loads(get.body) == "slow"
    assert transport.closed


def test_when_none_is_free_it_is_refused_and_the_connection_stays(
    sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads
) -> None:
    threads.is_full = True
    transport = connect(sessions, loop)
    transport.receive(SLOW + GET)
    busy, fine = answers(transport)
    assert (busy.status, busy.code, fine.status) == (503, "overloaded", 200)


def test_whoever_leaves_meanwhile_is_not_answered(
    sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads
) -> None:
    transport = connect(sessions, loop)
    transport.receive(SLOW)
    transport.lose()
    loop.run_ready()
    assert sessions.open == set()
    threads.finish()
    assert transport.sent == b""


def test_whoever_has_said_all_still_gets_its_answer(
    sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads
) -> None:
    transport = connect(sessions, loop)
    transport.receive(SLOW + GET)
    transport.receive_eof()
    assert not transport.is_closing()
    threads.finish()
    assert documents(answers(transport)) == ["slow", HEALTHY]
    assert transport.closed


def test_a_stop_does_not_wait_for_a_thread(sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads) -> None:
    transport = connect(sessions, loop)
    transport.receive(SLOW)
    sessions.close()
    threads.finish()
    assert transport.closed and transport.sent == b""


def test_what_comes_meanwhile_is_bounded(sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads) -> None:
    transport = connect(sessions, loop)
    transport.receive(SLOW)
    many = GET * (HEAD_BYTES // len(GET) + 1)
    transport.receive(many)
    assert transport.paused
    threads.finish()
    assert not transport.paused
    assert documents(answers(transport)) == ["slow"] + [HEALTHY] * (len(many) // len(GET))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_fault_in_a_thread_is_500_and_reported(
    sessions: AdminSessions, loop: FakeLoop, threads: HeldThreads, is_there: bool
) -> None:
    transport = connect(sessions, loop)
    transport.receive(SLOW)
    if not is_there:
        transport.lose()
        loop.run_ready()
    threads.finish(RuntimeError("broken page"))
    [context] = loop.expect_errors()
    assert isinstance(context["exception"], RuntimeError)
    if is_there:
        [seen] = answers(transport)
        assert (seen.status, seen.code) == (500, "internal") and b"broken page" not in seen.body
