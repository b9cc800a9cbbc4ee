"""Vectors, bent.

Lives here: `Mutator`, which makes hostile bytes out of well-known ones, and the corpora. May not live here: assertions.
How it works: a seed names a whole run, so that a failure can be had again; one to four bends of a line, a byte or a
splice with another vector. What is bent stays near HTTP,
where parsers differ; noise alone is refused at its first byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.wire.vectors import requests, responses

REQUESTS: list[bytes] = [
    *(each.raw for each in requests.GOOD.values() for _ in range(3)),
    *(raw for raw, _ in requests.BAD.values() if len(raw) < 4000),
]
ANSWERS: list[bytes] = [
    *(each.raw for each in responses.GOOD.values() for _ in range(3)),
    *(each.raw for each in responses.BAD.values() if len(each.raw) < 4000),
]

FRAGMENTS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"\x0b", b"\x0c", b"\x7f", b"\x85", b"\xa0",
    b"\xff", b"\r\n\r\n",
    b"0\r\n\r\n", b"3\r\nabc\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n", b"content-length : 1\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Connection: host, content-length\r\n", b"Host: y\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2", b"GET ", b"HEAD ", b"POST ", b"OPTIONS * ", b"http://a/", b"chunked",
    b"identity", b"+", b"-",
    b"0x", b"_", b"ffffffffffffffff", b"18446744073709551615", b"\r\n x: folded", b"A" * 300,
    b"GET /hidden HTTP/1.1\r\nHost: z\r\n\r\n",
]  # fmt: skip


class Mutator:
    def __init__(self, seed: int, corpus: list[bytes]) -> None:
        self.random = random.Random(seed)
        self.corpus = corpus
        self._bends: list[Callable[[bytes], bytes]] = [
            self._replace, self._insert, self._insert, self._drop, self._cut, self._splice, self._again,
            self._line_away,
            self._line_twice, self._lines_swapped, self._case, self._digit,
        ]  # fmt: skip

    def next(self) -> bytes:
        data = self.random.choice(self.corpus)
        for _ in range(self.random.choice((0, 1, 1, 1, 2, 2, 3, 4))):
            data = self.random.choice(self._bends)(data)
        return data[:20_000]

    def edges(self, data: bytes) -> list[int]:
        """Where to cut `data`."""
        return [self.random.randint(0, len(data)) for _ in range(self.random.randint(0, 5))]

    def _at(self, data: bytes) -> int:
        return self.random.randint(0, len(data))

    def _replace(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + bytes([self.random.randrange(256)]) + data[at + 1 :]

    def _insert(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self.random.choice(FRAGMENTS) + data[at:]

    def _drop(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + data[at + self.random.choice((1, 1, 2, 5)) :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._at(data)]

    def _splice(self, data: bytes) -> bytes:
        other = self.random.choice(self.corpus)
        return data[: self._at(data)] + other[self._at(other) :]

    def _again(self, data: bytes) -> bytes:
        return data + self.random.choice(self.corpus)

    def _lines(self, data: bytes) -> tuple[list[bytes], int]:
        lines = data.split(b"\r\n")
        return lines, self.random.randrange(len(lines))

    def _line_away(self, data: bytes) -> bytes:
        lines, at = self._lines(data)
        return b"\r\n".join(lines[:at] + lines[at + 1 :])

    def _line_twice(self, data: bytes) -> bytes:
        lines, at = self._lines(data)
        return b"\r\n".join(lines[: at + 1] + lines[at:])

    def _lines_swapped(self, data: bytes) -> bytes:
        lines, at = self._lines(data)
        other = self.random.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
        return b"\r\n".join(lines)

    def _case(self, data: bytes) -> bytes:
        start = self._at(data)
        end = start + self.random.randint(1, 20)
        return data[:start] + data[start:end].swapcase() + data[end:]

    def _digit(self, data: bytes) -> bytes:
        digits = [at for at, byte in enumerate(data) if 48 <= byte <= 57]
        if not digits:
            return data
        at = self.random.choice(digits)
        return data[:at] + self.random.choice([b"0", b"1", b"2", b"4", b"9", b"00", b"a", b""]) + data[at + 1 :]
