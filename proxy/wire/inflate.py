"""What a compressed body says: gzip, deflate, br and zstd taken off piece by piece, within bounds.

Lives here: `inflater`, `Inflater`. May not live here: what the bytes then mean, and the body itself, which passes as it
came; this is read on the side.
How it works: each coding is a generator that turns pieces into pieces of about `_STEP` bytes, so nothing larger stands
in memory between two looks at how much has grown out of how little. Whatever a server flushed comes out at once. A
library is imported when the first body of its coding comes.
Doubted: a read of 256 KB that grows to just under the limit is 25 MB and holds the loop for 20 ms (many small frames
of zstd: 45 ms); only a provider who means it can send such bytes. Where garbage follows the end of a br stream in the
same piece, that piece is lost: the library drops both. Its import costs the loop 1 ms, that of zstd 7 ms, once. A body
that asks for a window of 8 MiB (zstd) or 16 MiB (br) holds that much, once it has said as much.
"""

from __future__ import annotations

import functools
import sys
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

# Bytes that one step of a coding gives before the growth is looked at (br: up to half more, its library rounds up).
# Neighbours: curl 16 KiB, Envoy 4 KiB, Apache 8 KiB; each step costs a look, and 64 KiB are nothing beside the window.
_STEP = 64 * 1024
# A step that gives less has given all. zlib and zstd fill _STEP; brotli stops at each of its blocks, the first of them
# 32 KiB, once it has taken its input, and says all the same that it wants more (seen with 1.2.1).
_ALL = 16 * 1024
_SLICE = 16 * 1024  # bytes of the body that are counted as taken at once: a bomb of 1000:1 is noticed within them

# A body may grow to _RATIO times its size, and to _FLOOR in any case, since the first KB of an answer may say much.
# Flushed events of 300 bytes grow 16 to 19 times (tests/wire/compressing.py), 27 times if they are all the same, since
# each flush has bytes of its own. Neighbours: Envoy 100, Apache 200 (DeflateInflateRatioLimit).
_RATIO = 100
_FLOOR = 1024 * 1024
# What the begin of a gzip member or zstd frame counts for. It costs 4 or 13 us, so a body of nothing but empty ones, 9
# to 20 bytes each, is a bomb as well. An event of 100 bytes in a member of its own still passes.
_MEMBER = 8 * 1024

_ZSTD_WINDOW_LOG = 23  # 8 MiB, which every receiver must take and no sender may exceed (RFC 9659)
_MOST_CODINGS = 5  # in one body; curl and undici take as many


class Inflater:
    """Decompresses one body piece by piece. Never raises.

    What a server flushed comes out of the `feed` that completes it. A body that is cut off simply yields nothing more.
    Bytes behind the end of a complete body are ignored, as browsers do.
    """

    __slots__ = ("_coders", "_errors", "_growth", "is_broken")

    def __init__(self, codings: list[_Coding]) -> None:
        """`codings`: in the order in which they are taken off; none: the body is what it says."""
        self.is_broken = False  # the data is not what its coding says, or it grew too much; `feed` gives no more
        self._growth = _Growth()
        self._coders = [_Coder(coding, self._growth) for coding in codings]
        self._errors: tuple[type[Exception], ...] = (_GrownTooMuch, *(coding.error for coding in codings))

    def feed(self, data: bytes) -> bytes:
        """Everything that `data` yields, up to the break if it breaks; b"" from then on.

        For 300 bytes of an event: gzip and deflate 1.7 us, br 2.5, zstd 1.5; the libraries alone take 0.4 to 1.1
        (python -m timeit -s "from tests.wire.compressing import flushed_events as f; from proxy.wire.inflate import
        inflater as i; e = f(b'gzip')" "feed = i(b'gzip').feed" "for x in e: feed(x)", divided by 1000 events).
        """
        if self.is_broken:
            return b""
        if not self._coders:
            return data
        pieces = self._slices(data)
        for coder in self._coders:
            pieces = coder.pieces(pieces)
        out = []
        try:
            for piece in pieces:
                out.append(piece)  # noqa: PERF402 (what came before an error counts)
        except self._errors:
            self.is_broken = True
            self._coders.clear()  # their windows are up to 16 MiB
        return b"".join(out)

    def _slices(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _SLICE):
            piece = data[at : at + _SLICE]
            self._growth.taken += len(piece)
            yield piece


def inflater(coding: bytes) -> Inflater | None:
    """The one for a body with this value of `content-encoding` (RFC 9110 section 8.4: several are applied in order);
    None if it has a coding that is not known here, or more than five."""
    names = [name.strip(b" \t") for name in coding.lower().split(b",")]
    names = [name for name in names if name not in (b"", b"identity")]
    if len(names) > _MOST_CODINGS or not all(name in _CODINGS for name in names):
        return None
    return Inflater([_CODINGS[name]() for name in reversed(names)])


class _GrownTooMuch(Exception):
    pass


class _Growth:
    """How much one body has become, over all of its codings, out of how much."""

    __slots__ = ("made", "taken")

    def __init__(self) -> None:
        self.taken = self.made = 0

    def add(self, size: int) -> None:
        self.made += size
        if self.made > _FLOOR and self.made > _RATIO * self.taken:
            raise _GrownTooMuch


class _Coding(NamedTuple):
    """One coding. `begin(data)` makes the library's decoder for a stream, member or frame that begins with `data`; it
    has `decompress(data, most)`, `eof` and `unused_data`, as zlib and zstd agree."""

    begin: Callable[[bytes], Any]
    error: type[Exception]  # all that its decoder raises
    has_members: bool = False  # another stream may follow where one ends


class _Coder:
    """Takes one coding off one body."""

    __slots__ = ("_coding", "_decoder", "_growth", "_is_certain", "_is_over")

    def __init__(self, coding: _Coding, growth: _Growth) -> None:
        self._coding = coding
        self._growth = growth
        self._decoder: Any = None
        self._is_certain = True  # not garbage that follows a complete member
        self._is_over = False

    def pieces(self, source: Iterable[bytes]) -> Iterator[bytes]:
        """What the pieces of `source` yield. Raises the coding's error, and _GrownTooMuch."""
        for data in source:
            while data and not self._is_over:
                data = yield from self._member(data)

    def _member(self, data: bytes) -> Generator[bytes, None, bytes]:
        """Yields what `data` holds of the present member; the bytes that follow it are returned."""
        if self._decoder is None:
            self._growth.add(_MEMBER)
            self._decoder = self._coding.begin(data)
        decoder = self._decoder
        try:
            piece = decoder.decompress(data, _STEP)
        except self._coding.error:
            if self._is_certain:
                raise
            self._is_over = True
            return b""
        while piece:
            self._is_certain = True
            self._growth.add(len(piece))
            yield piece
            if len(piece) < _ALL or decoder.eof:
                break
            # Only zlib wants the bytes that it has not used yet to be handed in again.
            piece = decoder.decompress(getattr(decoder, "unconsumed_tail", b""), _STEP)
        if not decoder.eof:
            return b""
        rest: bytes = decoder.unused_data
        self._decoder = None
        self._is_certain = False
        self._is_over = not self._coding.has_members
        return rest


def _gzip() -> _Coding:
    return _Coding(lambda data: zlib.decompressobj(zlib.MAX_WBITS | 16), zlib.error, has_members=True)


def _deflate() -> _Coding:
    return _Coding(_begin_deflate, zlib.error)


def _begin_deflate(data: bytes) -> Any:
    # With zlib's wrapping (RFC 9110 section 8.4.1.2), or bare as some servers send it. Wrapped data says 8 in the lower
    # half of its first byte; bare data never does: that would be a stored block with a padding that no encoder writes.
    is_wrapped = data[0] & 0x0F == 8
    return zlib.decompressobj(zlib.MAX_WBITS if is_wrapped else -zlib.MAX_WBITS)


@functools.cache
def _brotli() -> _Coding:
    import brotli  # type: ignore[import-untyped]

    class Decoder:
        """brotli's decoder, with the methods of the others. Its window has at most 16 MiB (RFC 7932 section 9.1)."""

        unused_data = b""  # the library calls it an error if there is any

        def __init__(self, data: bytes) -> None:
            self._decoder = brotli.Decompressor()

        def decompress(self, data: bytes, most: int) -> bytes:
            piece: bytes = self._decoder.process(data, output_buffer_limit=most)
            return piece

        @property
        def eof(self) -> bool:
            return bool(self._decoder.is_finished())

    return _Coding(Decoder, brotli.error)


@functools.cache
def _zstd() -> _Coding:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return _Coding(lambda data: zstd.ZstdDecompressor(options=options), zstd.ZstdError, has_members=True)


_CODINGS: dict[bytes, Callable[[], _Coding]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,  # RFC 9110 section 8.4.1.3
    b"deflate": _deflate,
    b"br": _brotli,
    b"zstd": _zstd,
}
