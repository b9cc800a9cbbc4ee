"""One link to a client.

Lives here: `ClientConnection`, an asyncio.Protocol: requests in order, one exchange at a time, answers written, and all
the ways in which a connection ends.
May not live here: what a request asks for (exchange), how bytes are parsed (wire).
How it works: each read goes through the parser, then `_advance` carries on whatever that made possible, but begins one
exchange only: the next one that is there already waits for its turn, as does the first where the one before was not let
in: wrong keys then cost others little, however many connections they come on. While an exchange runs the connection
keeps reading, so that a client that leaves is seen; pipelined bytes wait unparsed, at most a buffer full. Where reading
is paused, a HangupWatch sees the end instead.
Doubted: TLS handshakes that have not ended are no connections here yet; what bounds them is their time limit.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, cast

from proxy.outcome import Failure, Kind, Phase, Side
from proxy.relay.deadlines import NEVER
from proxy.relay.exchange import Exchange
from proxy.relay.kernel import queued_in_kernel, reset_on_close, unix_peer
from proxy.relay.request import Passage
from proxy.wire.requests import RequestParser

if TYPE_CHECKING:
    from proxy.relay.relay import Relay

# Without it the kernel takes 4 MB before pause_writing is called, with it 320 KB (DESIGN 4). Linux and macOS differ.
_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
# Of LLM_PROXY_MAX_BUFFER this part waits here: the kernel holds as much as all of it already, and a read more may come
# at any time. Who does not read then costs 85 KiB less, and back-to-back events no more (bench --only slow-readers).
_SHARE: Final = 4
_SLOW_SECONDS: Final = 0.1  # to take what waits: who is only less quick than we are needs some milliseconds
LINGER_SECONDS: Final = 5.0  # nginx waits 5 s for each read and 30 s in all; we wait 5 s in all
CLOSE_SECONDS = 1.0
TAIL_BYTES: Final = 1024  # more than what follows the last event of any dialect
STALL_STEP = 1.0  # how often a client that does not read is looked at

_OPEN: Final = 0
_LINGERING: Final = 1
_CLOSING: Final = 2
_LOST: Final = 3


class ClientConnection(asyncio.Protocol):
    __slots__ = (
        "address", "began", "deadline", "exchange", "is_full", "is_reading", "parser", "passage", "transport", "uid",
        "_advancing", "_closes_when_idle", "_fd", "_full_since", "_full_size", "_lingers_until", "_may_begin", "_relay",
        "_state", "_waits", "_was_refused",
    )  # fmt: skip

    def __init__(self, relay: Relay) -> None:
        # For the life of the connection
        self._relay = relay
        self.parser = RequestParser(relay.options.head, relay.heads)
        self.transport: asyncio.Transport
        self.address = ""
        self.uid: int | None = None  # of the process at the other end of a Unix socket
        self._fd = -1
        self._state = _OPEN
        self._closes_when_idle = False
        self.passage: Passage | None = None  # of the head that the parser knows
        # For the time being
        self.deadline = NEVER
        self.exchange: Exchange | None = None
        self.began = 0.0  # when the first byte of the request that is being read arrived
        self.is_full = False
        self.is_reading = True
        self._full_since = 0.0
        self._full_size = 0
        self._lingers_until = NEVER
        self._advancing = False
        self._may_begin = False  # an exchange, in this call of `_advance`
        self._waits = False  # for its turn to begin another one
        self._was_refused = False  # the head of the last request: a wrong key, a path that is none

    # -- asyncio calls these ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        relay = self._relay
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=relay.options.bytes.buffer // _SHARE)
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            self._fd = sock.fileno()
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, relay.options.bytes.buffer)
        name = self.transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self.address = name[0]
        else:
            self.address, self.uid = unix_peer(sock)
        relay.clients.add(self)
        relay.deadlines.add(self)
        self.began = relay.clock()
        self.deadline = self.began + relay.seconds.idle
        if len(relay.clients) > 2 * relay.options.bytes.connections:
            self.abort()  # even saying no takes a descriptor for a while
        elif len(relay.clients) > relay.options.bytes.connections:
            detail = f"more than {relay.options.bytes.connections} connections are open; try again soon"
            self._refuse(Failure(Side.PROXY, Phase.IDLE, Kind.OVERLOADED, detail))

    def data_received(self, data: bytes) -> None:
        if self._state != _OPEN:
            return  # lingering: read so that the other side can read our answer, and thrown away
        parser = self.parser
        if self.exchange is None and not parser.has_begun:
            self.began = self._relay.clock()
        try:
            parser.feed(data)
            self._advance()
        except Exception as error:
            self._crashed(error)

    def eof_received(self) -> None:
        """The client will send no more, which counts as leaving (DESIGN 6). Returning None lets the transport close,
        after what is still to be written."""
        self._left(self._state == _OPEN)

    def connection_lost(self, error: Exception | None) -> None:
        relay = self._relay
        was_open = self._state == _OPEN
        self._state = _LOST
        relay.hangups.unwatch(self._fd)
        relay.client_closed(self)
        self._left(was_open)

    def pause_writing(self) -> None:
        self.is_full = True
        self._note_unsent()
        self.watch_stall()
        if self.exchange is not None:
            self.exchange.client_full()

    def resume_writing(self) -> None:
        self.is_full = False
        if self.exchange is not None:
            self.exchange.client_drained(self._relay.clock() - self._full_since >= _SLOW_SECONDS)
        elif self._state == _OPEN:
            self.resume_reading()
            self._advance()

    # -- the exchange's side ------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_reading(self) -> None:
        if self.is_reading and self._state == _OPEN:
            self.is_reading = False
            self.transport.pause_reading()
            self._relay.hangups.watch(self._fd, self._hung_up)

    def resume_reading(self) -> None:
        if not self.is_reading:
            self.is_reading = True
            self._relay.hangups.unwatch(self._fd)
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def exchange_ended(self, keeps: bool) -> None:
        """The exchange has been answered in full. `keeps`: another request may follow on this connection."""
        relay = self._relay
        self.exchange = None
        self._was_refused = self.passage is None
        if self._state != _OPEN:
            return
        if not keeps or self._closes_when_idle or not self.parser.is_complete:
            self.end()
            return
        now = relay.clock()
        self.began = now
        self.parser.pieces = []  # of a request that was refused unread: they are not the next one's
        self.parser.next()
        self.deadline = now + (relay.seconds.head if self.parser.has_begun else relay.seconds.idle)
        if self.is_full:
            self.watch_stall()
        if not self.is_reading and len(self.parser.rest) <= relay.options.bytes.buffer:
            self.resume_reading()
        if self.parser.has_begun and not self._advancing:
            self._advance()

    def exchange_cut(self, hard: bool) -> None:
        """The exchange ended in the middle of its answer. `hard`: an answer that ends by closing (HTTP/1.0) must not
        seem to end well, so the kernel is told to reset."""
        self.exchange = None
        if self._state != _OPEN:
            return
        if not hard:
            self.end()
            return
        reset_on_close(self.transport.get_extra_info("socket"))
        if self.transport.get_extra_info("sslcontext") is None:
            self._close()
        else:
            self.abort()  # a polite close would say in TLS what it must not say in TCP

    def end(self) -> None:
        """Close so that what was written is read: a close with unread bytes in our buffer would make the kernel send a
        reset, which destroys it at the other side (0 of 10 senders lost the answer this way, 10 of 10 without)."""
        if self._state != _OPEN:
            return
        if self.parser.is_complete and not self.parser.rest and not self.parser.failure:
            self._close()
            return
        self._state = _LINGERING
        self._lingers_until = NEVER
        self.resume_reading()
        self._note_unsent()
        self.deadline = self._relay.clock()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def abort(self) -> None:
        """Nothing more is written. For a client that does not read, or that has left."""
        self.exchange = None
        self._state = _CLOSING
        if self.transport.get_write_buffer_size():  # what is lost here must not look like the end of an answer
            reset_on_close(self.transport.get_extra_info("socket"))
        self.transport.abort()

    def watch_stall(self) -> None:
        """While the client is full it is looked at often, whatever else it waits for."""
        self.deadline = min(self.deadline, self._relay.clock() + STALL_STEP)

    def close_when_idle(self) -> None:
        """For shutdown: finish the exchange that runs, take no other."""
        self._closes_when_idle = True
        if self.exchange is None and self._state == _OPEN:
            (self.end if self._waits else self._close)()

    @property
    def can_go_on(self) -> bool:
        """Whether this connection could carry another request: the one before is read to its end, and all is well."""
        parser = self.parser
        is_ending = self._closes_when_idle or self._relay.is_draining
        return parser.is_complete and parser.failure is None and not is_ending

    @property
    def has_received_all(self) -> bool:
        """Whether what was written has arrived, but for the few bytes that may follow a stream's last event. Asked when
        the client has left: after a reset uvloop has thrown its buffer away, but the kernel still counts its own."""
        return not self.transport.get_write_buffer_size() and queued_in_kernel(self._fd) <= TAIL_BYTES

    # -- within -------------------------------------------------------------------------------------------------------

    def _advance(self, is_turn: bool = False) -> None:
        """Carry on as far as the bytes reach, or one exchange has begun and ended. A loop, not recursion."""
        if self._advancing:
            return
        self._advancing = True
        self._may_begin = is_turn or not self._was_refused
        try:
            while self._state == _OPEN and not self._waits and self._step():
                pass
        except Exception as error:
            self._crashed(error)
        finally:
            self._advancing = False
        # Bytes behind a request: of one that runs, or that waits for its turn.
        if self._state == _OPEN and len(self.parser.rest) > self._relay.options.bytes.buffer:
            self.pause_reading()

    def go_on(self) -> None:
        """Its turn has come, if it is still there."""
        self._waits = False
        self._advance(is_turn=True)

    def _step(self) -> bool:
        """One step; False when more bytes, or an answer, must come first."""
        parser = self.parser
        exchange = self.exchange
        if exchange is None:
            if self.is_full:  # a client that does not read its answers gets no more of them, and is not read either
                if parser.has_begun:
                    self.pause_reading()
                return False
            if parser.head is None and parser.failure is None:
                if parser.has_begun:
                    self.deadline = self.began + self._relay.seconds.head
                return False
            if not self._may_begin:
                self._waits = True
                self._relay.turns.enter(self)
                return False
            self._may_begin = False
            exchange = self.exchange = Exchange(self, self._relay, parser.head, self.began)
            if parser.head is None and parser.failure is not None:
                exchange.fail(parser.failure)
                return False
            exchange.begin()
            return True
        if exchange.has_body:
            return False
        if parser.pieces:
            pieces = parser.pieces
            parser.pieces = []
            exchange.body_received(pieces, parser.received)
            if self.exchange is not exchange:
                return True
        if parser.failure is not None:
            exchange.fail(parser.failure)
            return False
        if parser.is_complete:
            exchange.body_ended()
            return self.exchange is not exchange
        return False

    def _refuse(self, failure: Failure) -> None:
        self.exchange = Exchange(self, self._relay, None, self.began)
        self.exchange.fail(failure)

    def _left(self, was_open: bool) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.client_left()
        elif was_open and self.parser.has_begun and self.parser.head is None:
            # Half a request: worth a receipt, not an answer.
            self.exchange = Exchange(self, self._relay, None, self.began)
            self.exchange.client_left()
        if self._state != _LOST:
            self._close()

    def _hung_up(self) -> None:
        """Seen while reading is paused. Requests that are still in the kernel are not read: nobody waits for them."""
        if self.exchange is not None:
            self.exchange.client_left()
        self.abort()

    def _close(self) -> None:
        if self._state in (_CLOSING, _LOST):
            return
        self._state = _CLOSING
        self._note_unsent()
        # With nothing left to send only a TLS client's own goodbye is waited for, and idle SDKs never send one.
        self.deadline = self._relay.clock() + (STALL_STEP if self._full_size else CLOSE_SECONDS)
        self.transport.close()

    def _note_unsent(self) -> None:
        self._full_size = self._unsent()
        self._full_since = self._relay.clock()

    def _unsent(self) -> int:
        """Bytes that wait in our buffers. uvloop's TLS transports do not count what waits in the TCP transport beneath
        them, and a close after which that is lost looks well. Where it holds anything, the kernel's queue does, too."""
        size = self.transport.get_write_buffer_size()
        return size if self.transport.get_extra_info("sslcontext") is None else size + queued_in_kernel(self._fd)

    def _check_ending(self, now: float) -> None:
        """While something is unsent, the client is given time as long as it reads; then to see our end, a little."""
        if self._unsent():
            if self._has_stalled(now):
                self.abort()
            else:
                self.deadline = now + STALL_STEP
        elif self._state == _LINGERING and now < self._lingers_until:
            self._lingers_until = self.deadline = min(self._lingers_until, now + LINGER_SECONDS)
        else:
            self.transport.abort()

    def _crashed(self, error: Exception) -> None:
        self._closes_when_idle = True  # whatever state this left behind serves no further request
        if self.exchange is None:
            self.exchange = Exchange(self, self._relay, None, self.began)
        self.exchange.crashed(error)

    def on_deadline(self, now: float) -> None:
        if self._state != _OPEN:
            self._check_ending(now)
        elif self.is_full and self._has_stalled(now):
            if self.exchange is not None:
                detail = "the client does not read its answer"
                self.exchange.fail(Failure(Side.CLIENT, self.exchange.phase, Kind.CLIENT_STALLED, detail))
            self.abort()
        elif (exchange := self.exchange) is not None:
            due = exchange.check(now)
            if self.exchange is exchange:  # else it has failed, and what follows has set its own deadline
                self.deadline = min(due, now + STALL_STEP) if self.is_full else due
        elif self.is_full or self._waits:
            self.deadline = now + STALL_STEP
        elif self.parser.has_begun:
            detail = f"the request head did not arrive within {self._relay.seconds.head:g} s"
            self._refuse(Failure(Side.CLIENT, Phase.HEAD, Kind.TIMEOUT, detail))
        else:
            self._close()

    def _has_stalled(self, now: float) -> bool:
        size = self._unsent()
        if size < self._full_size:
            self._full_size = size
            self._full_since = now
        return now - self._full_since >= self._relay.seconds.client_stall
