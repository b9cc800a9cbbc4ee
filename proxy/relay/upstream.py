"""One link to a provider.

Lives here: `UpstreamConnection`, an asyncio.Protocol. May not live here: which link is used (pool), what an answer
means (answer), how links are opened (connect).
How it works: bytes go into the parser and from there, in the same call stack, to the attempt that holds the link. An
idle link that receives anything, be it the end, is dead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from proxy.catalog.snapshot import Origin
from proxy.wire.responses import ResponseParser

if TYPE_CHECKING:
    from proxy.relay.pool import Pool
    from proxy.relay.sending import Sending

# Above this a body is handed to the kernel in its own pieces instead of being copied behind the head first.
JOIN_BYTES: Final = 64 * 1024
UNCOUNTED: Final = -1.0  # as deadline: the pool does not count it, not yet or no longer


class UpstreamConnection(asyncio.Protocol):
    """`attempt` is who uses it now, None while it is idle; `uses` counts the attempts it has served."""

    __slots__ = (
        "attempt",
        "born",
        "deadline",
        "is_full",
        "is_lost",
        "origin",
        "parser",
        "pool",
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
        self.parser = ResponseParser(max_head)
        self.uses = 0
        self.unsent = 0  # bytes in our buffer when the sweeper last looked
        self.is_full = False
        self.is_lost = False
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
        attempt = self.attempt
        if attempt is None:
            self.pool.drop(self)
            return
        try:
            self.parser.feed(data)
            attempt.upstream_read(self.parser)
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

    def close(self) -> None:
        """Nothing that is still to be written matters: whoever gets here has given up on the attempt, or is idle."""
        self.is_lost = True
        self.attempt = None
        if hasattr(self, "transport"):  # else connection_made will see to it
            self.transport.abort()

    def on_deadline(self, now: float) -> None:
        self.pool.drop(self)
