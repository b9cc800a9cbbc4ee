"""Wrong keys in masses: connections that ask with a key nobody was given.

Lives here: `Flood`, and what it asks.
May not live here: what good clients do meanwhile (load), how figures are combined (scenarios).
How it works: requests go out in bundles, without waiting for answers, at a rate or as fast as they are answered; of
answers only the status lines are counted. So an attacker costs the load little, which matters, because load and good
clients share a core. At a rate, what finds no connection with room is not sent: the figure is what was refused, and not
what was meant.
Doubted: answers are not read by a parser; a status line in the middle of a body would count.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

_BUNDLE = 10  # requests in one write
_ROOM = 200  # requests of one connection that may be without an answer
_TICK_SECONDS = 0.001
_ANSWER, _REFUSAL = b"HTTP/1.1 ", b"HTTP/1.1 401 "


def wrong_key(host: str) -> bytes:
    """A small request as an SDK sends it; `%d` in it is for the number of its key: no two are the same."""
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n"
        "accept-encoding: gzip, deflate\r\nuser-agent: bench/1\r\ncontent-type: application/json\r\n"
        "authorization: Bearer sk-guessed-%016d\r\ncontent-length: 2\r\n\r\n{}"
    ).encode()


class _Attacker(asyncio.Protocol):
    __slots__ = ("_flood", "_tail", "is_lost", "open", "transport")

    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        self._tail = b""
        self.open = 0  # requests without an answer
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def ask(self, count: int) -> None:
        self.open += count
        self.transport.write(self._flood.requests(count))

    def data_received(self, data: bytes) -> None:
        data = self._tail + data  # a status line may be cut
        self._tail = data[1 - len(_REFUSAL) :]  # too short to hold one that was counted
        refused = data.count(_REFUSAL)
        self.open -= refused
        self._flood.note(self, refused, data.count(_ANSWER) - self._tail.count(_ANSWER))


class Flood:
    """`connections` that send `request` with ever other numbers, `rate` of them a second in all; 0: as fast as they are
    answered.

    `refused`: answers with 401 so far.
    """

    def __init__(self, port: int, request: bytes, connections: int, rate: float) -> None:
        self.refused = 0
        self._request = request
        self._number = 0
        self._port = port
        self._count = connections
        self._rate = rate
        self._attackers: list[_Attacker] = []
        self._answered = 0
        self._sent = 0
        self._began = 0.0
        self._is_over = False

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, attacker = await loop.create_connection(lambda: _Attacker(self), "127.0.0.1", self._port)
            self._attackers.append(attacker)
        self._began = time.perf_counter()
        if self._rate:
            self._tick()
            return
        for attacker in self._attackers:
            attacker.ask(_ROOM)

    def stop(self) -> str:
        """The end of it; what went wrong, if anything did."""
        self._is_over = True
        lost = sum(attacker.is_lost for attacker in self._attackers)
        for attacker in self._attackers:
            attacker.transport.abort()
        if lost:
            return f"{lost} connections with wrong keys were closed"
        if self._answered > self.refused + self._count:  # one of each may be cut off by the end
            return f"{self._answered - self.refused} wrong keys were answered with another status than 401"
        return "" if self.refused else "no wrong key was refused"

    def requests(self, count: int) -> bytes:
        number = self._number
        self._number += count
        return b"".join([self._request % each for each in range(number, self._number)])

    def note(self, attacker: _Attacker, refused: int, answered: int) -> None:
        self.refused += refused
        self._answered += answered
        if not self._rate and not self._is_over and refused:
            attacker.ask(refused)

    def _tick(self) -> None:
        if self._is_over:
            return
        asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        owed = int((time.perf_counter() - self._began) * self._rate) - self._sent
        self._sent += owed
        for _ in range(-(-owed // _BUNDLE)):
            attacker = self._attackers.pop(0)  # each in turn
            self._attackers.append(attacker)
            count = min(owed, _BUNDLE)
            owed -= count
            if attacker.open + count <= _ROOM and not attacker.is_lost:
                attacker.ask(count)
