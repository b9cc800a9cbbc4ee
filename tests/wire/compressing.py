"""Bodies as servers compress them: flushed event by event, or whole.

Lives here: `Compressor`, `compressed`, and what the cost comments in `proxy/wire/inflate.py` are measured with.
May not live here: assertions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from proxy.simulator.coding import coder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS = (b"gzip", b"deflate", b"bare deflate", b"br", b"zstd")


class Compressor:
    """One body of one coding. "bare deflate" is deflate without zlib's wrapping."""

    def __init__(self, coding: bytes) -> None:
        self.compress, self.flush, self.finish = coder(coding.decode())

    def event(self, data: bytes) -> bytes:
        return self.compress(data) + self.flush()


def compressed(coding: bytes, pieces: Iterable[bytes]) -> bytes:
    """The body of all pieces, compressed as one."""
    compressor = Compressor(coding)
    return b"".join([*map(compressor.compress, pieces), compressor.finish()])


def zstd_frame(data: bytes, options: dict[Any, int]) -> bytes:
    """One frame, flushed but not ended, with compression parameters of one's own."""
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(data) + compressor.flush(compressor.FLUSH_BLOCK)


def an_event(number: int) -> bytes:
    """300 bytes as OpenAI sends them, with a text that differs from event to event."""
    word = f"{number * 2654435761 % 2**32:x}"[: 2 + number % 7]
    begin = (
        '{"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz","object":"chat.completion.chunk","created":1700000000,'
        '"model":"gpt-4o-2024-08-06","system_fingerprint":"fp_0123456789","choices":'
        f'[{{"index":0,"delta":{{"content":" {word}"}},"logprobs":null,"finish_reason":null}}],"obfuscation":"'
    )
    return f'data: {begin:x<290}"}}\n\n'.encode()


def flushed_events(coding: bytes, count: int = 1000) -> list[bytes]:
    compressor = Compressor(coding)
    return [compressor.event(an_event(number)) for number in range(count)]
