"""Content codings, put on piece by piece so that each piece can be read when it arrives.

Lives here: `coder`. May not live here: when it is used (script), taking a coding off.
How it works: the libraries' compressors behind three functions. Those of br and zstd are imported at first need.
Doubted: nothing yet.
"""

from __future__ import annotations

import functools
import sys
import zlib
from collections.abc import Callable
from typing import NamedTuple


class Coder(NamedTuple):
    """One body. Whatever `compress` and `flush` give, joined, can be read as far as the last flush."""

    compress: Callable[[bytes], bytes]
    flush: Callable[[], bytes]
    finish: Callable[[], bytes]


def coder(coding: str) -> Coder:
    """For gzip, deflate, br or zstd, or "bare deflate": without zlib's wrapping, as some servers send it."""
    if coding == "br":
        import brotli  # type: ignore[import-untyped]

        br = brotli.Compressor(quality=4, lgwin=19)  # as nginx's module by itself; more costs megabytes a stream
        return Coder(br.process, br.flush, br.finish)
    if coding == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd

        frame = zstd.ZstdCompressor()
        return Coder(frame.compress, functools.partial(frame.flush, frame.FLUSH_BLOCK), frame.flush)
    bits = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS, "bare deflate": -zlib.MAX_WBITS}[coding]
    stream = zlib.compressobj(wbits=bits)
    return Coder(stream.compress, functools.partial(stream.flush, zlib.Z_SYNC_FLUSH), stream.flush)
