"""One connection of the admin listener, and the set of them.

Lives here: HTTP/1.1 for the admin listener, by h11; its bounds in bytes, time and number.
May not live here: what is answered (routes), the rules about browser pages (policy; a guard is handed in).
How it works: bytes go into h11 in small slices, because h11 bounds only heads that are incomplete. A request that is
whole is answered in the same call, or when a thread has the answer; until then no further request of this connection
is taken, so pipelined ones stay in order. Nor is one while the client does not read. One timer runs per connection:
idle, then head and body, then a client that does not read; none while a thread works, which has a limit of its own.
Whoever leaves meanwhile is not answered, and what was begun is done. A connection that is refused lingers for a moment,
since a close with unread bytes takes the answer away from a client that is still sending (DESIGN 16).
Doubted: nothing yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from enum import Enum
from typing import cast

import h11

from proxy.admin.routes import AdminAnswer, AdminRequest, Fields, Later, RouteTable, error_answer
from proxy.admin.threads import Threads
from proxy.outcome import Kind

Guard = Callable[[AdminRequest], str | None]
"""Says in a sentence why a request is refused with 403, or None (DESIGN 8: pages of a browser, foreign Host)."""

KIB = 1024

# Of a head, and of a body. Admin documents are small; nginx takes 32 KiB heads, kubelets send 200 bytes.
HEAD_BYTES = 64 * KIB
BODY_BYTES = 64 * KIB

# What h11 gets at once: a head that is complete in one read would otherwise pass at any size.
_SLICE = 4 * KIB

REQUEST_SECONDS = 10.0  # from the first byte of a request to its last
IDLE_SECONDS = 60.0  # without a request; and for a client that does not read its answer
_LINGER_SECONDS = 2.0  # for a client that still sends what was refused; nginx lingers 5

CONNECTIONS = 100

# Nothing here may be kept by a cache or read as anything but what it says it is.
_FIXED: Fields = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class AdminSessions:
    """The protocol factory of one admin listener: makes sessions, counts them, closes them.

    `guard` None: no check (the health listener, whose clients come by whatever address the pod has). `threads` make
    the answers that take one; None: the table has none.
    """

    __slots__ = ("guard", "limit", "loop", "open", "table", "threads")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        table: RouteTable,
        guard: Guard | None = None,
        limit: int = CONNECTIONS,
        threads: Threads | None = None,
    ) -> None:
        self.loop = loop
        self.table = table
        self.threads = threads
        self.guard = guard
        self.limit = limit
        self.open: set[AdminSession] = set()

    def __call__(self) -> AdminSession:
        return AdminSession(self)

    def close(self) -> None:
        """Close every connection; what was answered is flushed."""
        for session in tuple(self.open):
            session.close()


class _State(Enum):
    IDLE = "idle"  # between requests
    REQUEST = "request"  # some of a request has come
    WAITING = "waiting"  # a thread makes the answer
    LINGER = "linger"  # refused and answered; what still comes is thrown away
    CLOSED = "closed"


class AdminSession(asyncio.Protocol):
    """One connection."""

    __slots__ = (
        "_body", "_conn", "_has_said_all", "_head", "_is_paused", "_is_stalled", "_owner", "_state", "_timer",
        "_transport", "_unfed",
    )  # fmt: skip

    def __init__(self, owner: AdminSessions) -> None:
        self._owner = owner
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._state = _State.IDLE
        self._is_stalled = False  # the client does not read
        self._is_paused = False  # we do not read: enough has come while a thread works
        self._has_said_all = False  # the client has closed its side
        self._unfed = bytearray()  # read from the socket, not yet given to h11; at most one read
        self._head: h11.Request | None = None
        self._body = bytearray()

    # -- called by the loop -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        others = len(self._owner.open)
        self._owner.open.add(self)
        if others < self._owner.limit:
            self._arm(IDLE_SECONDS)
        elif others < 2 * self._owner.limit:
            self._refuse(Kind.OVERLOADED, "Too many admin connections are open.")
        else:  # so many linger that even an answer costs too much
            self._state = _State.CLOSED
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._state in (_State.LINGER, _State.CLOSED):
            return
        self._unfed += data
        if self._state is not _State.WAITING:
            self._take_requests()
        elif len(self._unfed) > HEAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool | None:
        if self._state is _State.WAITING:
            self._has_said_all = True
            return True  # it may still read the answer
        self.close()
        return None

    def pause_writing(self) -> None:
        self._is_stalled = True
        if self._transport is not None and self._state is not _State.LINGER:
            self._transport.pause_reading()
        self._arm(IDLE_SECONDS)

    def resume_writing(self) -> None:
        self._is_stalled = False
        if self._transport is None or self._state in (_State.LINGER, _State.CLOSED):
            return
        self._transport.resume_reading()
        self._arm(IDLE_SECONDS if self._state is _State.IDLE else REQUEST_SECONDS)
        self._take_requests()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _State.CLOSED
        self._owner.open.discard(self)
        self._disarm()
        self._transport = None

    def close(self) -> None:
        """Close after what was written has been flushed; a client that does not read is cut off by the timer."""
        if self._state is _State.CLOSED or self._transport is None:
            return
        self._state = _State.CLOSED
        self._unfed.clear()
        self._transport.close()
        self._arm(IDLE_SECONDS)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _take_requests(self) -> None:
        try:
            self._take_events()  # what h11 was given before the client stopped reading
            while self._unfed and self._is_taking():
                piece = bytes(self._unfed[:_SLICE])
                del self._unfed[:_SLICE]
                self._conn.receive_data(piece)
                self._take_events()
        except h11.RemoteProtocolError as error:
            self._refuse(*_protocol_error(error))

    def _is_taking(self) -> bool:
        return not self._is_stalled and self._state in (_State.IDLE, _State.REQUEST)

    def _begin(self) -> None:
        self._state = _State.REQUEST
        self._arm(REQUEST_SECONDS)

    def _take_events(self) -> None:
        while self._is_taking():
            event = self._conn.next_event()
            match event:
                case h11.Request():
                    self._take_head(event)
                case h11.Data():
                    self._body += event.data
                    if len(self._body) > BODY_BYTES:
                        self._refuse(Kind.BODY_TOO_LARGE, f"A body may have at most {BODY_BYTES} bytes here.")
                case h11.EndOfMessage():
                    self._take_end()
                case h11.ConnectionClosed():
                    self.close()
                case _:  # NEED_DATA
                    if self._state is _State.IDLE and self._conn.trailing_data[0]:
                        self._begin()  # some of a head is there
                    return

    def _take_head(self, head: h11.Request) -> None:
        if self._state is _State.IDLE:  # the whole head in one slice
            self._begin()
        self._head = head
        self._body.clear()
        length = next((int(value) for name, value in head.headers if name == b"content-length"), 0)
        if length > BODY_BYTES:
            self._refuse(Kind.BODY_TOO_LARGE, f"A body may have at most {BODY_BYTES} bytes here.")
        elif self._conn.they_are_waiting_for_100_continue:
            self._write(self._conn.send(h11.InformationalResponse(status_code=100, headers=[])))

    def _take_end(self) -> None:
        assert self._head is not None
        request = _request(self._head, bytes(self._body))
        self._head = None
        self._body.clear()
        decided = self._decide(request)
        if isinstance(decided, Later):
            self._start(decided, request)
        else:
            self._finish(decided, request)

    def _start(self, later: Later, request: AdminRequest) -> None:
        """Have a thread make the answer; a refusal at once if too many are being made."""
        self._state = _State.WAITING
        self._disarm()
        threads = self._owner.threads
        if threads is None or not threads.start(later, lambda made: self._take_answer(made, request)):
            busy = error_answer(Kind.OVERLOADED, "Too many admin requests are being answered: try again.")
            self._finish(busy, request)

    def _take_answer(self, made: AdminAnswer | BaseException, request: AdminRequest) -> None:
        if self._state is not _State.WAITING:
            if isinstance(made, BaseException):
                self._failed(made, request)
            return  # the client has left, or we stop
        self._finish(self._failed(made, request) if isinstance(made, BaseException) else made, request)
        self._go_on()

    def _go_on(self) -> None:
        """Take what has come while a thread was at work."""
        if self._transport is not None and self._is_taking():
            if self._is_paused:
                self._transport.resume_reading()
            self._take_requests()
        self._is_paused = False  # of a client that does not read, `resume_writing` takes care
        if self._has_said_all and self._state in (_State.IDLE, _State.REQUEST):
            self.close()

    def _finish(self, answer: AdminAnswer, request: AdminRequest) -> None:
        self._state = _State.IDLE
        self._arm(IDLE_SECONDS)
        self._send(answer, is_head=request.method == "HEAD")
        if self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            self._conn.start_next_cycle()
        else:
            self.close()

    def _decide(self, request: AdminRequest) -> AdminAnswer | Later:
        try:
            reason = self._owner.guard(request) if self._owner.guard is not None else None
            if reason is not None:
                return error_answer(Kind.FORBIDDEN, reason)
            return self._owner.table.answer(request)
        except Exception as error:  # one broken page must not take the probes' listener away
            return self._failed(error, request)

    def _failed(self, error: BaseException, request: AdminRequest) -> AdminAnswer:
        self._owner.loop.call_exception_handler(
            {"message": f"the admin page {request.path!r} failed", "exception": error, "protocol": self}
        )
        return error_answer(Kind.INTERNAL, "This page failed; the log says why.")

    # -- answers ----------------------------------------------------------------------------------------------------

    def _send(self, answer: AdminAnswer, is_head: bool = False, close: bool = False) -> None:
        fields = [
            (b"content-type", answer.media_type),
            (b"content-length", b"%d" % len(answer.body)),
            (b"date", _date(time.time())),
            *_FIXED,
            *answer.fields,
        ]
        if close:
            fields.append((b"connection", b"close"))
        pieces = [self._conn.send(h11.Response(status_code=answer.status, headers=fields))]
        if answer.body and not is_head:
            pieces.append(self._conn.send(h11.Data(data=answer.body)))
        pieces.append(self._conn.send(h11.EndOfMessage()))
        self._write(b"".join(piece for piece in pieces if piece))

    def _refuse(self, kind: Kind, message: str) -> None:
        """Answer and close; what the client still sends is read and thrown away for a moment."""
        if self._conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            is_head = self._head is not None and self._head.method == b"HEAD"
            self._send(error_answer(kind, message), is_head=is_head, close=True)
        self._unfed.clear()
        self._body.clear()
        self._state = _State.LINGER
        self._arm(_LINGER_SECONDS)
        assert self._transport is not None
        if self._is_stalled:
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _write(self, data: bytes | None) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # -- time -------------------------------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._owner.loop.call_later(seconds, self._on_time)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        if self._transport is None:
            return
        if self._is_stalled or self._state is _State.CLOSED:
            self._state = _State.CLOSED
            self._transport.abort()
        elif self._state is _State.REQUEST:
            self._refuse(Kind.TIMEOUT, f"A request must be complete within {REQUEST_SECONDS:.0f} s.")
        else:
            self.close()


def _request(head: h11.Request, body: bytes) -> AdminRequest:
    path, _, query = head.target.decode("latin-1").partition("?")
    return AdminRequest(head.method.decode("latin-1"), path, query, tuple(head.headers), body)


def _protocol_error(error: h11.RemoteProtocolError) -> tuple[Kind, str]:
    """h11's hint as one of our kinds. Its text may quote what the client sent, so it stays here."""
    match error.error_status_hint:
        case 431:
            return Kind.HEAD_TOO_LARGE, f"A head may have at most {HEAD_BYTES} bytes here."
        case 501:
            return Kind.CODING_UNSUPPORTED, "Of transfer codings only chunked is understood."
        case _:
            return Kind.BAD_REQUEST, "This is not valid HTTP/1.1."


def _date(now: float) -> bytes:
    """`now` as RFC 9110 section 5.6.7 wants it, whatever the locale."""
    return formatdate(now, usegmt=True).encode()
