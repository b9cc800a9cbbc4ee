"""The fake loop keeps the order and the promises of a real one."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.loop import FakeLoop
from tests.fakes.transport import FakeTransport


def test_timers_run_in_order_each_at_its_own_time() -> None:
    ran: list[tuple[str, float]] = []
    with FakeLoop(now=0.0) as loop:

        def note(name: str) -> None:
            ran.append((name, loop.time()))

        def again() -> None:
            note("again")
            loop.call_later(1.0, note, "after again")

        loop.call_later(3.0, note, "third")
        loop.call_later(1.0, again)
        loop.call_at(1.0, note, "same time, later armed")
        cancelled = loop.call_later(2.0, note, "never")
        cancelled.cancel()
        loop.call_soon(note, "soon")
        assert len(loop.timers) == 3
        loop.advance(2.5)
        assert loop.time() == 2.5
        loop.advance(0.5)
        assert ran == [
            ("soon", 0.0),
            ("again", 1.0),
            ("same time, later armed", 1.0),
            ("after again", 2.0),
            ("third", 3.0),
        ]
        assert loop.timers == []


def test_call_soon_does_not_run_at_once() -> None:
    with FakeLoop() as loop:
        ran: list[int] = []
        loop.call_soon(ran.append, 1)
        assert ran == []
        loop.run_ready()
        assert ran == [1]


def test_an_exception_in_a_callback_fails_the_test() -> None:
    with FakeLoop() as loop:
        loop.call_soon(lambda: 1 / 0)
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            loop.run_ready()


def test_an_error_nobody_looked_at_fails_at_the_end() -> None:
    with pytest.raises(AssertionError, match="reached the loop: odd"):
        with FakeLoop() as loop:
            loop.call_exception_handler({"message": "odd"})


def test_an_error_the_test_expects_does_not() -> None:
    with FakeLoop() as loop:
        loop.call_exception_handler({"message": "odd"})
        assert [context["message"] for context in loop.expect_errors()] == ["odd"]


def test_a_failed_assertion_is_not_hidden_by_errors() -> None:
    with pytest.raises(KeyError):
        with FakeLoop() as loop:
            loop.call_exception_handler({"message": "odd"})
            raise KeyError


def test_callbacks_without_end_fail() -> None:
    with FakeLoop() as loop:

        def again() -> None:
            loop.call_soon(again)

        again()
        with pytest.raises(AssertionError, match="callbacks still make callbacks"):
            loop.run_ready()
        loop._ready.clear()


def test_tasks_futures_and_time_limits_work() -> None:
    async def slow() -> str:
        try:
            async with asyncio.timeout(5.0):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "late"
        return "never"

    with FakeLoop() as loop:
        task = loop.create_task(slow())
        loop.advance(4.9)
        assert loop.tasks == [task]
        loop.advance(0.2)
        assert task.result() == "late"
        assert loop.tasks == []


def test_run_until_complete_does_not_wait_for_time() -> None:
    async def naps() -> None:
        await asyncio.sleep(1.0)

    async def answers() -> int:
        return 7

    with FakeLoop() as loop:
        assert loop.run_until_complete(answers()) == 7
        with pytest.raises(AssertionError, match="still waits"):
            loop.run_until_complete(naps())


def test_connections_are_scripted() -> None:
    with FakeLoop() as loop:
        ready = FakeTransport(loop)
        slow = FakeTransport(loop)
        waiting: asyncio.Future[FakeTransport] = loop.create_future()
        loop.connections.extend([OSError(111, "refused"), ready, waiting])

        async def dial() -> asyncio.Transport:
            transport, protocol = await loop.create_connection(asyncio.Protocol, "10.0.0.1", 443, ssl=True)
            assert transport.get_protocol() is protocol
            return transport

        with pytest.raises(OSError, match="refused"):
            loop.run_until_complete(dial())
        assert loop.run_until_complete(dial()) is ready
        task = loop.create_task(dial())
        loop.run_ready()
        assert not task.done()
        waiting.set_result(slow)
        loop.run_ready()
        assert task.result() is slow
        assert [(d.host, d.port, d.ssl) for d in loop.dialed] == [("10.0.0.1", 443, True)] * 3
        with pytest.raises(AssertionError, match="nobody scripted create_connection"):
            loop.run_until_complete(dial())


def test_names_are_scripted_and_addresses_are_their_own() -> None:
    with FakeLoop() as loop:
        loop.addresses["api.test"] = ["10.0.0.1", "::1"]
        loop.addresses["gone.test"] = OSError("no such name")
        found = loop.run_until_complete(loop.getaddrinfo("api.test", 443))
        assert [info[4][:2] for info in found] == [("10.0.0.1", 443), ("::1", 443)]
        assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))[0][4] == ("127.0.0.1", 80)
        with pytest.raises(OSError, match="no such name"):
            loop.run_until_complete(loop.getaddrinfo("gone.test", 443))
        with pytest.raises(AssertionError, match=r"nobody scripted the name 'typo.test'"):
            loop.run_until_complete(loop.getaddrinfo("typo.test", 443))


def test_start_tls_hands_the_protocol_on_without_a_second_connection_made() -> None:
    made: list[asyncio.BaseTransport] = []

    class Client(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    with FakeLoop() as loop:
        plain, secure = FakeTransport(loop), FakeTransport(loop, sslcontext=object())
        plain.attach(Client())
        loop.upgrades.append(secure)
        assert loop.run_until_complete(loop.start_tls(plain, plain.get_protocol(), object())) is secure
        assert made == [plain]
        assert secure.get_protocol() is plain.get_protocol()
        assert not secure.can_write_eof()
