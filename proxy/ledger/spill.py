"""The spill file: receipts that the database could not take, kept until it can.

Lives here: `Spill`. May not live here: when something is spilled or replayed (writer).
How it works: the file beside the database only grows, by one write for each call, until all of it was read; then it is
emptied. A line is the CRC-32 of a JSON document, a space, the document. Names are in it, so that a later version with
more columns reads it, and people do. What does not match its sum (a write that a kill cut off) is skipped and counted.
Replaying a line twice is harmless, see rows; so nothing is recorded about how far a replay came.
Two threads append: the writer's, and the loop when the queue is full. The lock is held for one write or truncation.
Doubted: emptying a file of a gigabyte may hold that lock for 100 ms; it takes a database locked for an hour.
"""

from __future__ import annotations

import errno
import os
import threading
import zlib
from collections.abc import Iterable

import orjson

from proxy.ledger.rows import Entry, storable
from proxy.ledger.schema import ATTEMPTS, EXCHANGES

# Bytes read at a time. A line is about 1.5 KB; paths and tags are bounded by the size of a request head (32 KiB, each
# byte six in JSON at the worst), so whatever is longer than this is no line.
_PIECE = 1 << 20


class Spill:
    """The file at `path`, made if it is not there. Raises OSError."""

    __slots__ = ("_fd", "_is_torn", "_lock", "_path", "_read", "_size")

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fd = self._open()
        self._begin()

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)

    def _begin(self) -> None:
        self._read = 0  # bytes already replayed
        self._size = os.fstat(self._fd).st_size
        # A kill cut the last line off: the next one must not become its end.
        self._is_torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"

    @property
    def waiting(self) -> int:
        """Bytes that were not replayed yet."""
        return self._size - self._read

    def append(self, entries: Iterable[Entry]) -> None:
        """Add a line for each of `entries`: all of them or, with OSError, none."""
        data = b"".join(map(_line, entries))
        with self._lock:
            if os.fstat(self._fd).st_nlink == 0:  # somebody removed it: what is in there would be seen by nobody
                fd = self._open()
                os.dup2(fd, self._fd, inheritable=False)  # in one step: the other thread may be reading
                os.close(fd)
                self._begin()
            before = self._size, self._is_torn
            if self._is_torn:
                data = b"\n" + data
            written = os.write(self._fd, data)
            self._size, self._is_torn = self._size + written, written < len(data)
            if self._is_torn:  # the disk is full
                os.ftruncate(self._fd, before[0])
                self._size, self._is_torn = before
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)

    def read(self, limit: int) -> tuple[list[Entry], int, int]:
        """The next entries, at most `limit`; where they end, for `advance`; how many lines between were not whole."""
        size = self._size
        data = os.pread(self._fd, min(_PIECE, size - self._read), self._read)
        if not data:
            return [], size, 0  # somebody emptied it
        entries: list[Entry] = []
        at = skipped = 0
        while at < len(data) and len(entries) < limit:
            end = data.find(b"\n", at) + 1
            if not end:
                if at:
                    break  # the piece ends within a line: it is the first of the next piece
                end = len(data)
            entry = entry_in(data[at : end - 1])
            if entry is None:
                skipped += 1
            else:
                entries.append(entry)
            at = end
        return entries, self._read + at, skipped

    def advance(self, end: int) -> None:
        """Everything before `end` is in the database. Raises OSError."""
        with self._lock:
            self._read = end
            if end >= self._size:
                os.ftruncate(self._fd, 0)
                self._read = self._size = 0

    def close(self) -> None:
        """Close the file, and remove it if nothing is in it. After it `append` raises."""
        with self._lock:
            fd, self._fd = self._fd, -1  # never the number of a file that somebody opens next
            try:
                if not self._size:
                    os.unlink(self._path)
            except OSError:
                pass  # an empty file says the same
            os.close(fd)


def _line(entry: Entry) -> bytes:
    try:
        document = _document(entry)
    except TypeError:  # orjson's word for half characters and large numbers
        document = _document(storable(entry))
    return b"%08x %b\n" % (zlib.crc32(document), document)


def _document(entry: Entry) -> bytes:
    attempts = [dict(zip(ATTEMPTS, row)) for row in entry.attempts]
    return orjson.dumps({"exchange": dict(zip(EXCHANGES, entry.exchange)), "attempts": attempts})


def entry_in(line: bytes) -> Entry | None:
    """What is in a line (without its end); None: not what was written."""
    try:
        if int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        document = orjson.loads(line[9:])
        exchange = tuple(map(document["exchange"].get, EXCHANGES))
        attempts = [tuple(map(attempt.get, ATTEMPTS)) for attempt in document["attempts"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return Entry(exchange, attempts) if isinstance(exchange[0], str) else None
