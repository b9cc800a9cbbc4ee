"""One link to a provider.

Lives here: `UpstreamConnection`, an asyncio.Protocol, and `SmallReads`, which reads in its place at times. May not
live here: which link is used (pool), what an answer means (answer), how links are opened (connect).
How it works: bytes go into the parser and from there, in the same call stack, to the attempt that holds the link, or
past it to its answer: a stream in the middle of which nothing else is to be decided. An idle link that receives
anything, be it the end, is dead. Once an answer has had to wait for its client, one read brings less up to its end, and
still less if the client is slow: all that a read brings may have to wait in our memory.
Doubted: over TLS the loop reads as much as ever; only what it hands on is less, and the rest waits encrypted.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from proxy.catalog.snapshot import Origin
from proxy.wire.responses import NOTHING, ResponseParser

if TYPE_CHECKING:
    from proxy.relay.answer import Answer
    from proxy.relay.pool import Pool
    from proxy.relay.sending import Sending

# Above this a body is handed to the kernel in its own pieces instead of being copied behind the head first.
JOIN_BYTES: Final = 64 * 1024
# uvloop's reads have up to 256,000 bytes. In pieces of this size an event costs no more CPU that could be told, and a
# single stream has a fifth more events a second, three runs of three (python -m bench --only back-to-back).
LARGE_READ: Final = 64 * 1024
# 0.2 us an event more where all is read so; a client that does not read holds 80 KiB less. nginx: 4 or 8 KiB.
SMALL_READ: Final = 16 * 1024
UNCOUNTED: Final = -1.0  # as deadline: the pool does not count it, not yet or no longer


class UpstreamConnection(asyncio.Protocol):
    """`attempt` is who uses it now, None while it is idle; `answer` takes what comes, up to its end, if the attempt has
    no more to say of it; `uses` counts the attempts it has served."""

    __slots__ = (
        "answer",
        "attempt",
        "born",
        "deadline",
        "is_full",
        "is_lost",
        "origin",
        "parser",
        "pool",
        "read_most",
        "transport",
        "unsent",
        "uses",
    )

    def __init__(self, pool: Pool, origin: Origin, max_head: int, now: float) -> None:
        self.pool = pool
        self.origin = origin
        self.born = now
        self.deadline = UNCOUNTED  # while idle: when it is too old to keep; while in use: NEVER
        self.attempt: Sending | None = None
        self.answer: Answer | None = None
        self.parser = ResponseParser(max_head)
        self.uses = 0
        self.unsent = 0  # bytes in our buffer when the sweeper last looked
        self.is_full = False
        self.is_lost = False
        self.read_most = 0  # bytes that one read brings; 0: as many as there are
        self.transport: asyncio.Transport

    # -- asyncio calls these ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.is_lost:  # within a tunnel its end, or bytes that nobody asked for, may come before this
            self.transport.abort()
            return
        # low=0: resume_writing then means that all has been handed to the kernel, which ends the phase SEND.
        self.transport.set_write_buffer_limits(high=JOIN_BYTES, low=0)

    def data_received(self, data: bytes) -> None:
        """The straight path of a streamed answer: five Python frames, this one, feed and the taking of chunks (parser),
        Answer.feed with its write, Watch.feed. Nothing of the attempt is read: in 5,000 streams an event takes 33.6 us
        so, and 36.4 if it is (medians of eight pairs, python -m bench --only paced-5000).
        """
        attempt = self.attempt
        parser = self.parser  # already here: see Answer.feed
        answer = self.answer
        if attempt is None:
            self.pool.drop(self)
            return
        try:
            parser.feed(data)
            if answer is not None and not parser.is_complete and parser.failure is None:
                if parser.pieces and answer.feed(parser.pieces, False):
                    answer.heard_at = self.pool.clock()
                parser.pieces = NOTHING
                if answer.bytes_out <= answer.stop_at:
                    return
            attempt.upstream_read(parser)
        except Exception as error:
            attempt.crashed(error)

    def eof_received(self) -> None:
        """The upstream will send no more. Returning None lets the transport close."""
        self._ended(is_cut=False)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended(is_cut=error is not None)

    def _ended(self, is_cut: bool) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        attempt = self.attempt
        if attempt is None:
            self.pool.drop(self)
            return
        try:
            self.parser.eof(is_cut)
            attempt.upstream_read(self.parser)
        except Exception as error:
            attempt.crashed(error)

    def pause_writing(self) -> None:
        self.is_full = True
        if self.attempt is not None:
            self.attempt.upstream_full()

    def resume_writing(self) -> None:
        self.is_full = False
        if self.attempt is not None:
            self.attempt.upstream_drained()

    # -- the exchange's and the pool's side ---------------------------------------------------------------------------

    def send(self, head: bytes, pieces: list[bytes], size: int) -> None:
        """Write a head and the whole body; `size` is the body's."""
        if size <= JOIN_BYTES:
            self.transport.write(head + b"".join(pieces) if pieces else head)
        else:
            self.transport.writelines([head, *pieces])

    def read_later(self) -> None:
        """Its client takes no more for now."""
        self.transport.pause_reading()
        if not self.read_most:
            self.read_most = LARGE_READ
            self.transport.set_protocol(SmallReads(self))

    def read_on(self, is_slow: bool) -> None:
        """Its client takes more, be it slowly."""
        if is_slow and self.read_most:
            self.read_most = SMALL_READ
        self.transport.resume_reading()

    def read_freely(self) -> None:
        """Small reads take two calls each instead of one, and most answers are never waited with."""
        self.read_most = 0
        self.transport.set_protocol(self)

    def close(self) -> None:
        """Nothing that is still to be written matters: whoever gets here has given up on the attempt, or is idle."""
        self.is_lost = True
        self.attempt = self.answer = None
        if hasattr(self, "transport"):  # else connection_made will see to it
            self.transport.abort()


class SmallReads(asyncio.BufferedProtocol):
    """In the place of a connection. Reads into the buffer that all links of its pool share: nothing is left in it when
    `buffer_updated` ends."""

    __slots__ = ("_connection",)

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection = connection

    def get_buffer(self, sizehint: int) -> memoryview:
        connection = self._connection
        return connection.pool.buffer[: connection.read_most]

    def buffer_updated(self, nbytes: int) -> None:
        connection = self._connection
        connection.data_received(bytes(connection.pool.buffer[:nbytes]))

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.connection_lost(error)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
