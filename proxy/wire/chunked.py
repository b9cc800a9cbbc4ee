"""The chunked coding, decoded strictly (RFC 9112 section 7.1).

Lives here: `take_chunks`, of whole chunks, and `ChunkDecoder`, of requests. May not live here: heads, limits on whole
bodies (the caller counts raw bytes).
How it works: five states, each consumes from one offset; a chunk that is there in full is taken in one step (0.6 us,
against 3 line by line), and what one feed brings becomes one piece. httptools decodes many chunks faster, but tells no
offset: behind a chunked body it would parse a pipelined request before that may be looked at. Answers are never
pipelined, so theirs are decoded by httptools (responses) if they are more than a few whole chunks a read.
"""

from __future__ import annotations

import re
from typing import Final

# A size line: no sign, no blank before the size, no 0x: int() would take all of them. 15 digits stay below 2**60.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_SIZE_DIGITS: Final = 7
_PLAIN_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,7}")
_MANY_SIZES: Final = 1024
_ALL: Final = 1 << 30
_sizes: Final[dict[bytes, int]] = {}  # size lines that came before: a look takes a seventh of reading one
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

MAX_LINE: Final = 1024  # of a size line with its extensions; nobody who means well sends any (Node: 16 KiB in all)
MAX_TRAILERS: Final = 8 * 1024
# A size line with an extension, or of more digits than any size needs, is read by itself, in 3 us. So it counts as this
# many bytes and its own, against the data behind it: 256 KiB of such lines would hold the loop for 0.12 s.
LINE_COST: Final = 64
MAX_OVERHEAD: Final = 16 * 1024

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


class ChunkDecoder:
    """Feed it raw bytes from `start`; it appends the body in them to `pieces`, as one piece at most, and returns the
    offset behind what it took.
    `is_complete` turns true at the last CRLF; `error` is set, once, when the bytes are not chunked coding."""

    __slots__ = ("error", "is_complete", "_line", "_overhead", "_remaining", "_state", "_trailer_bytes")

    def __init__(self) -> None:
        self.error = ""
        self.is_complete = False
        self._state = _SIZE
        self._line = b""
        self._overhead = 0
        self._remaining = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes, start: int, pieces: list[bytes]) -> int:
        at = start
        end = len(data)
        found: list[bytes] = []
        while at < end and not self.error and self._state != _DONE:
            if self._state == _DATA:
                at = self._take_data(data, at, end, found)
            elif self._state == _SIZE and not self._line:
                taken = take_chunks(data, at, _ALL, found)
                at = taken if taken > at else self._take_line(data, at, end)
            else:
                at = self._take_line(data, at, end)
        self.is_complete = self._state == _DONE
        if found:
            # 43 bytes of memory would stand behind each piece of two bytes, and only the two are counted.
            pieces.append(found[0] if len(found) == 1 else b"".join(found))
        return at

    def _take_data(self, data: bytes, at: int, end: int, found: list[bytes]) -> int:
        stop = min(end, at + self._remaining)
        found.append(data[at:stop])
        self._remaining -= stop - at
        if not self._remaining:
            self._state = _DATA_END
        return stop

    def _take_line(self, data: bytes, at: int, end: int) -> int:
        """Size lines, the CRLF behind data, and trailers are all lines; they may arrive in pieces."""
        limit = min(end, at + MAX_LINE - len(self._line))
        found = data.find(b"\n", at, limit)
        stop = limit if found < 0 else found + 1
        self._line += data[at:stop]
        if found < 0:
            if len(self._line) >= MAX_LINE:
                self.error = "a line of the chunked coding is too long"
            elif self._state == _DATA_END and self._line != b"\r":
                self.error = "a chunk is longer than its size says"
            return stop
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            self.error = "a line of the chunked coding does not end in CRLF"
        else:
            self._end_line(line[:-2])
        return stop

    def _end_line(self, line: bytes) -> None:
        if self._state == _SIZE:
            matched = _SIZE_LINE.fullmatch(line)
            if matched is None:
                self.error = "a chunk size is not a hexadecimal number"
                return
            self._remaining = int(matched[1], 16)
            if len(line) > 7 or b";" in line:
                self._overhead = max(0, self._overhead + LINE_COST + len(line) - self._remaining)
                if self._overhead > MAX_OVERHEAD:
                    self.error = "the chunks are mostly extensions"
                    return
            self._state = _DATA if self._remaining else _TRAILERS
        elif self._state == _DATA_END:
            if line:
                self.error = "a chunk is longer than its size says"
            self._state = _SIZE
        elif not line:
            self._state = _DONE
        else:
            # Trailers end here, whatever they claim to be: a key or a Host in one must not count (HTTP.md 4.6).
            self._trailer_bytes += len(line)
            if _TRAILER_LINE.fullmatch(line) is None:
                self.error = "a trailer is not a field"
            elif self._trailer_bytes > MAX_TRAILERS:
                self.error = "the trailers are too long"


def take_chunks(data: bytes, at: int, most: int, found: list[bytes]) -> int:
    """The first `most` chunks without extensions that lie in `data` from size line to CRLF, but for the last chunk of
    all, are appended to `found`; the offset behind them."""
    size = len(data)
    while len(found) < most:
        end = data.find(b"\r\n", at, at + _SIZE_DIGITS + 2)
        if end <= at:
            break
        line = data[at:end]
        length = _sizes.get(line) or _read_size(line)
        start = end + 2
        stop = start + length
        if not length or stop + 2 > size or data[stop : stop + 2] != b"\r\n":
            break
        found.append(data[start:stop])
        at = stop + 2
    return at


def _read_size(line: bytes) -> int:
    """Of a chunk; 0 also for what is none: int() would take signs and blanks, too."""
    size = int(line, 16) if _PLAIN_SIZE.fullmatch(line) else 0
    if size and len(_sizes) < _MANY_SIZES:
        _sizes[line] = size
    return size
