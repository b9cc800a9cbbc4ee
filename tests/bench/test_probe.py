"""Probing a loop: each question counts from when it was due, and what goes wrong is said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.arena import Probe
from bench.probe import Prober
from tests.bench.test_machine import pytestmark  # noqa: F401 (pytest reads it: Linux only)

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
INTERVAL_US = 2000

Answers = Callable[[Prober, int], Awaitable[bytes]]


def probed(answer: Answers, count: int) -> tuple[list[float], str]:
    """Latencies and the error of a prober that had `count` answers, or lost its connection."""

    async def scene() -> tuple[list[float], str]:
        enough = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for number in range(count):
                await reader.readuntil(b"\r\n\r\n")
                text = await answer(prober, number)
                writer.write(text[:20])
                await writer.drain()
                writer.write(text[20:])
            writer.close()
            enough.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            prober = Prober(Probe(server.sockets[0].getsockname()[1], "/healthz"), 1e6 / INTERVAL_US)
            await prober.start()
            await enough.wait()
            while not prober._error:
                await asyncio.sleep(0)
            return prober.latencies, prober.stop()

    return asyncio.run(scene())


async def _at_once(prober: Prober, number: int) -> bytes:
    return ANSWER


async def _late(prober: Prober, number: int) -> bytes:
    """The first answer takes three intervals in which nothing else happens, not even questions."""
    until = time.monotonic() + 3 * INTERVAL_US / 1e6
    while not number and time.monotonic() < until:
        pass
    return ANSWER


async def _unwell(prober: Prober, number: int) -> bytes:
    return ANSWER.replace(b"200 OK", b"503 No")


def test_each_answer_is_timed_and_a_connection_that_is_closed_is_missed() -> None:
    latencies, error = probed(_at_once, 5)
    assert error == "the connection was closed"
    assert len(latencies) == 5 and min(latencies) > 0


def test_questions_that_wait_for_an_answer_are_not_left_out() -> None:
    latencies, _ = probed(_late, 3)
    assert latencies[0] >= 3 * INTERVAL_US
    assert latencies[1] >= 2 * INTERVAL_US, "it was due one interval after the first, and had to wait"
    assert latencies[2] >= INTERVAL_US


def test_an_answer_of_another_status_is_an_error() -> None:
    assert "status 503" in probed(_unwell, 1)[1]
