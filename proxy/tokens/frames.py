"""What the sidecar and the process that counts say to each other, as bytes.

Lives here: the messages, `encode`, `FrameReader`. May not live here: who sends them (link, teller).
How it works: a frame is its length in four bytes and a MessagePack array that begins with the message's name. The
sidecar says Fold, Finish and Forget, the process says Answer, or Absent and no more.
Doubted: nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

# Bytes of one frame. Real ones hold 64 KiB of events and as much of a request; the largest whole answers are far below.
MAX_FRAME = 8 * 1024 * 1024


class Fold(msgspec.Struct, array_like=True, tag="fold"):
    """Count these events of a stream, which goes on."""

    stream: int
    dialect: str
    data: list[bytes]


class Finish(msgspec.Struct, array_like=True, tag="finish"):
    """Count these as well, then say how many they are together, and forget the stream."""

    stream: int
    dialect: str
    data: list[bytes] | None  # None: other events of this stream are lost, so it is not counted
    is_stream: bool
    request: bytes | None  # to be counted too


class Forget(msgspec.Struct, array_like=True, tag="forget"):
    """Nobody will ask about this stream."""

    stream: int


class Answer(msgspec.Struct, array_like=True, tag="answer"):
    """What a Finish asked for. None: not asked, or it could not be counted."""

    stream: int
    output: int | None
    input: int | None
    has_other: bool  # the request holds more than text


class Absent(msgspec.Struct, array_like=True, tag="absent"):
    """There is no tokenizer here, and never will be."""

    why: str  # the kind of error, for the log


Asked = Fold | Finish | Forget
Said = Answer | Absent

_M = TypeVar("_M")
_encoder = msgspec.msgpack.Encoder()


def encode(message: Asked | Said) -> bytearray:
    """`message` as a frame. 64 KiB of events in 360 pieces: 5 us."""
    frame = bytearray(4)
    _encoder.encode_into(message, frame, 4)
    frame[:4] = (len(frame) - 4).to_bytes(4, "big")
    return frame


class BrokenFrame(Exception):
    """Bytes that are no frame: the other side is not what it should be."""


class FrameReader(Generic[_M]):
    """Takes bytes as they come, yields the messages in them. `kind`: Asked or Said."""

    __slots__ = ("_decode", "_unread")

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._unread = bytearray()

    def feed(self, data: bytes) -> Iterator[_M]:
        """The messages that are complete with `data`. Raises BrokenFrame at what is none, or too long."""
        unread = self._unread
        unread += data
        at = 0
        try:
            while len(unread) >= at + 4:
                size = int.from_bytes(unread[at : at + 4], "big")
                if size > MAX_FRAME:
                    raise BrokenFrame(f"a frame of {size:,} bytes")
                if len(unread) < at + 4 + size:
                    break
                body = bytes(unread[at + 4 : at + 4 + size])
                at += 4 + size
                try:
                    message: _M = self._decode(body)
                except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                    raise BrokenFrame("a frame that is no message") from error
                yield message
        finally:
            del unread[:at]
