"""The file of counters and holds: records of 128 bytes.

Lives here: their form, reading and replacing such a file, mapping a piece of it, `LostHold`. May not live here: which
records there are (counters), what their numbers mean (policy).
How it works: a record is the byte of its kind, a name of at most 95 bytes, and four signed numbers of 64 bits in this
machine's order. Its first word, which is the kind and the beginning of the name, is stored last: before that the record
is free, whatever else it says, so a kill leaves no halves. Record 0 is the head; its first number is the generation: if
it changes, keys have changed. Blocks of the disk are written before they are mapped: a store into a hole of a full disk
would be SIGBUS.
Doubted: numbers bear no checksum, since they are stored one by one: damage there is believed.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import struct
from collections.abc import MutableSequence
from contextlib import suppress
from typing import NamedTuple

from proxy.ledger.schema import LedgerUnusable

Place = tuple[MutableSequence[int], int]  # a view, and at which index of it the numbers of a record begin
Numbers = tuple[int, int, int, int]

_LAYOUT = struct.Struct("=c95s4q")  # kind, name, numbers
SIZE = 128
WORDS = SIZE // 8
NUMBERS = 12  # the word of a record at which its numbers begin
_NAME = 95
_FREE, COUNTER, HOLD, LOST, _HEAD = b"\0", b"c", b"h", b"l", b"H"

_MARK = b"counters of llm-proxy"
_VERSION = 1  # read in the wrong byte order it is another one
GENERATION, IS_FORGOTTEN = NUMBERS, NUMBERS + 1  # words of the head; the second: no record that is lost counts
_WHOLE = 64 << 10  # bytes of which a file has a whole number: what may be mapped on machines with large pages

_REMEDY = "put back a copy of it, or move it away, and all limits and budgets begin at zero"


class LostHold(NamedTuple):
    """What a request of `key` had taken and has not given back. A name beyond 95 bytes is the one that the file has."""

    key: str
    micros: int
    tokens: int
    started_at: int  # nanoseconds since the epoch; 0: the kill fell between the stores


class Found(NamedTuple):
    """What a file says."""

    generation: int
    counters: dict[str, Numbers]
    holds: list[LostHold]
    is_torn: bool  # the last record is not whole


def words_in(memory: bytearray | mmap.mmap) -> MutableSequence[int]:
    return memoryview(memory).cast("q")  # type: ignore[return-value]


def fitted(name: str) -> bytes:
    """`name` as a record holds it. Long names stay different, and zeros would be taken for the end."""
    data = name.encode("utf-8", "surrogatepass")
    if len(data) <= _NAME and b"\0" not in data:
        return data
    digest = hashlib.sha256(data).hexdigest()[:32].encode()
    beginning = data.replace(b"\0", b"")[: _NAME - len(digest) - 1].decode("utf-8", "ignore")
    return beginning.encode() + b"~" + digest


def write(place: Place, kind: bytes, name: bytes) -> None:
    """Make the record of `place` one of that kind and name, with zeros."""
    view, at = place
    first = at - NUMBERS
    words = memoryview((kind + name).ljust(SIZE, b"\0")).cast("q")
    view[first] = 0  # a kill from here on leaves a free record
    view[first + 1 : first + WORDS] = words[1:]
    view[first] = words[0]


def packed(generation: int, counters: dict[str, Numbers], lost: list[LostHold]) -> bytearray:
    """A file that says this: whole segments."""
    records = [_LAYOUT.pack(_HEAD, _MARK, generation, 0, _VERSION, 0)]
    records += [_LAYOUT.pack(COUNTER, fitted(name), *numbers) for name, numbers in counters.items()]
    records += [_LAYOUT.pack(LOST, fitted(key), began, micros, tokens, 0) for key, micros, tokens, began in lost]
    data = b"".join(records)
    return bytearray(data.ljust(-(-len(data) // _WHOLE) * _WHOLE, b"\0"))


def rewritten(path: str, data: bytearray) -> tuple[int, MutableSequence[int]]:
    """Put `data` at `path` in one step: the file, and its map. Raises OSError; then the old one is there."""
    new = path + "-new"
    with suppress(FileNotFoundError):
        os.unlink(new)  # a kill left it
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = mapped(fd, 0, data)
        os.fsync(fd)
        os.rename(new, path)
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            os.unlink(new)
        raise
    return fd, view


def mapped(fd: int, at: int, data: bytes | bytearray) -> MutableSequence[int]:
    """Write `data` at the end of the file, which is `at`, and map it. Raises OSError, ValueError; then it ends there as
    before."""
    try:
        # Written, not only mapped: the disk must have the blocks before a store may rely on them.
        if os.pwrite(fd, data, at) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return words_in(mmap.mmap(fd, len(data), offset=at))
    except BaseException:
        with suppress(OSError):
            os.ftruncate(fd, at)
        raise


def head_of(path: str) -> MutableSequence[int] | None:
    """The head of the file at `path`, as others change it, to be read only; None: there is no file."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return memoryview(mmap.mmap(fd, SIZE, access=mmap.ACCESS_READ)).cast("q")  # type: ignore[return-value]
    finally:
        os.close(fd)


def head_in(data: bytes, path: str) -> Numbers:
    """The numbers of the head, with which `data` begins. Raises LedgerUnusable."""
    kind, mark, *numbers = _LAYOUT.unpack(data[:SIZE].ljust(SIZE, b"\0"))
    if len(data) < SIZE or kind != _HEAD or mark.rstrip(b"\0") != _MARK:
        raise LedgerUnusable(f"{path} holds no counters of limits and budgets, or is damaged: {_REMEDY}")
    if numbers[2] != _VERSION:
        raise LedgerUnusable(f"{path} is of another version of llm-proxy, or of another machine: {_REMEDY}")
    return tuple(numbers)


def read(path: str) -> Found | None:
    """None: there is no file. Raises OSError, LedgerUnusable."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    generation, is_forgotten, _, _ = head_in(data, path)
    counters: dict[str, Numbers] = {}
    held: list[LostHold] = []
    whole = len(data) // SIZE * SIZE
    records = _LAYOUT.iter_unpack(memoryview(data)[SIZE:whole])
    for number, (kind, field, *numbers) in enumerate(records, 1):
        if kind == _FREE:
            continue
        name = _name_in(field)
        if name is None or kind not in (COUNTER, HOLD, LOST) or (kind == COUNTER and name in counters):
            raise LedgerUnusable(f"{path} is damaged (record {number}): {_REMEDY}")
        if kind == COUNTER:
            counters[name] = tuple(numbers)
        elif any(numbers) and not (kind == LOST and is_forgotten):
            began, micros, tokens, _ = numbers
            held.append(LostHold(name, micros, tokens, began))
    return Found(generation, counters, held, whole < len(data))


def _name_in(field: bytes) -> str | None:
    """None: no name that was ever written."""
    name = field.rstrip(b"\0")
    if b"\0" in name:
        return None
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
