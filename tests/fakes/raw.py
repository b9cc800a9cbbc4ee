"""Both ends of a connection at the level of bytes, on real sockets.

Lives here: `RawClient`, a client that says exactly what it is told; `ScriptedUpstream`, a provider that does.
May not live here: anything of the project; opinions about what an answer should be.
How it works: both block and have a time limit on everything, which only a hanging test reaches. The upstream runs in
threads of its own, so both serve tests with processes and tests with a loop in this thread; there, call the client
through `asyncio.to_thread`. Scripts wait for events, never for time.

    with ScriptedUpstream([Send(b"HTTP/1.1 200 OK\\r\\n..."), Wait(go), Reset()]) as upstream:
        with RawClient("127.0.0.1", port) as client:
            client.send(b"POST /v1/chat/completions HTTP/1.1\\r\\n...")
            answer = client.recv_response()
            assert answer.ending is Ending.CUT
        assert upstream.requests[0].body == b"..."
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import NamedTuple

import h11

# Seconds. Only reached when something hangs.
PATIENCE = 20.0

_READ = 65536
_MAX_HEAD = 1 << 20


class Ending(Enum):
    """How an answer ended."""

    CLEAN = "clean"  # as its framing says
    CUT = "cut"  # the connection closed in the middle of it, or before it
    RESET = "reset"  # the same by a reset
    BROKEN = "broken"  # it is not HTTP


class RawAnswer(NamedTuple):
    """What a client saw. `status` 0: no head came. `fields` have lower-case names, in order, as sent."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    ending: Ending
    informational: list[int]  # statuses of 1xx answers before it
    raw: bytes  # the bytes it was read from, framing included

    def get(self, name: bytes) -> bytes | None:
        """The value of the only field called `name` (lower case); more than one is a failure of the test."""
        values = [value for field_name, value in self.fields if field_name == name]
        assert len(values) <= 1, f"{name!r} came {len(values)} times"
        return values[0] if values else None


class RawClient:
    """One connection to `host`:`port`, or to the Unix socket `path`. Nothing is sent that the test does not send."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        path: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str = "localhost",
        receive_buffer: int = 0,
    ) -> None:
        """`receive_buffer`: SO_RCVBUF in bytes, for a client that reads slowly (0 = the system's)."""
        self.buffer = b""  # read, and not yet taken
        self.received = 0  # bytes in all
        family = socket.AF_UNIX if path is not None else (socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(PATIENCE)
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.connect((host, port) if path is None else path)
            if path is None:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_each(self, data: bytes, size: int = 1) -> None:
        """In writes of `size` bytes. The kernel may still join them."""
        for start in range(0, len(data), size):
            self.send(data[start : start + size])

    def request(self, method: str, target: str, body: bytes = b"", *fields: tuple[str, str], host: str = "x") -> None:
        """A request with Host and, where there is a body, Content-Length; for tests that are about something else."""
        lines = [f"{method} {target} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in fields)]
        if body:
            lines.append(f"content-length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def recv(self) -> bytes:
        """What `buffer` holds or one read; b"" at the end. Raises ConnectionResetError."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        data = self.socket.recv(_READ)
        self.received += len(data)
        return data

    def recv_until(self, mark: bytes) -> bytes:
        """All bytes up to and with `mark`. Fails when the connection ends before it."""
        data = b""
        while mark not in data:
            more = self.recv()
            assert more, f"the connection ended before {mark!r}: {data[-200:]!r}"
            data += more
        end = data.index(mark) + len(mark)
        self.buffer = data[end:] + self.buffer
        return data[:end]

    def recv_to_end(self) -> tuple[bytes, Ending]:
        """All that still comes, and whether it ended by FIN (CLEAN) or RESET."""
        pieces = []
        try:
            while data := self.recv():
                pieces.append(data)
        except ConnectionError:
            return b"".join(pieces), Ending.RESET
        return b"".join(pieces), Ending.CLEAN

    def recv_response(self, method: str = "GET") -> RawAnswer:
        """The next answer, as an answer to `method`. What follows it stays in `buffer`."""
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        reader.send(h11.Request(method=method, target="/", headers=[("host", "x"), ("connection", "keep-alive")]))
        reader.send(h11.EndOfMessage())
        head: h11.Response | None = None
        body: list[bytes] = []
        informational: list[int] = []
        raw: list[bytes] = []
        ending: Ending | None = None
        while ending is None:
            try:
                event = reader.next_event()
                if event is h11.NEED_DATA:
                    data = self.recv()
                    raw.append(data)
                    reader.receive_data(data)
                elif isinstance(event, h11.InformationalResponse):
                    informational.append(event.status_code)
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    ending = Ending.CLEAN
                else:
                    ending = Ending.CUT
            except ConnectionError:
                ending = Ending.RESET
            except h11.RemoteProtocolError:
                # h11 says the same of a body that ends early and of one that is no HTTP: the end of input tells.
                ending = Ending.CUT if raw and raw[-1] == b"" else Ending.BROKEN
        read = b"".join(raw)
        rest = bytes(reader.trailing_data[0]) if ending is Ending.CLEAN else b""
        self.buffer = rest + self.buffer
        return RawAnswer(
            head.status_code if head is not None else 0,
            list(head.headers) if head is not None else [],
            b"".join(body),
            ending,
            informational,
            read[: len(read) - len(rest)],
        )

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close by RST, as a process that died with unread data does."""
        _linger_none(self.socket)
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


# -- the provider ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes. `each`: in writes of so many bytes."""

    data: bytes
    each: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on when the event is set."""

    event: threading.Event


@dataclass(frozen=True, slots=True)
class Tell:
    """Set the event: the script has come this far."""

    event: threading.Event


@dataclass(frozen=True, slots=True)
class WaitEnd:
    """Go on when the other side has closed its direction, by FIN or reset."""


@dataclass(frozen=True, slots=True)
class HalfClose:
    """Send FIN, keep reading."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close. As with any server the kernel makes a reset of it when bytes came that were not read."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Close by RST (SO_LINGER 0)."""


Step = Send | Wait | Tell | WaitEnd | HalfClose | Close | Reset


@dataclass(slots=True)
class SeenRequest:
    """A request as h11 read it. `fields` have lower-case names, in order. `is_whole`: its end was seen."""

    connection: int  # 0, 1, ... in the order of accepting
    method: str
    target: str
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    is_whole: bool = False

    def get(self, name: bytes) -> bytes | None:
        """The value of the only field called `name` (lower case); more than one is a failure of the test."""
        values = [value for field_name, value in self.fields if field_name == name]
        assert len(values) <= 1, f"{name!r} came {len(values)} times"
        return values[0] if values else None


@dataclass(slots=True)
class _Link:
    number: int
    socket: socket.socket
    thread: threading.Thread | None = None
    raw: bytearray = field(default_factory=bytearray)


class _Ended(Exception):
    """The connection is over; there is nothing more to play."""


class ScriptedUpstream:
    """Reads requests and plays a script after each: the n-th request gets the n-th script, later ones the last.

    `on_accept` is played before anything is read; `on_head` after the head, before the body (an early answer). A script
    that neither closes nor resets leaves the connection open for the next request. Bytes that h11 does not take for a
    request stand in `violations`, so that a test can say there were none; one that was cut is only not `is_whole`.
    """

    def __init__(
        self,
        *scripts: Sequence[Step],
        on_accept: Sequence[Step] = (),
        on_head: Sequence[Step] = (),
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._scripts = scripts or ([],)
        self._on_accept = on_accept
        self._on_head = on_head
        self._tls = tls
        self._links: list[_Link] = []
        self._changed = threading.Condition()
        self._open = 0
        self._is_closing = False
        self.requests: list[SeenRequest] = []
        self.violations: list[str] = []
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="scripted-upstream", daemon=True)
        self._acceptor.start()

    # -- for the test -----------------------------------------------------------------------------------------------

    @property
    def accepted(self) -> int:
        """Connections accepted so far."""
        return len(self._links)

    @property
    def open(self) -> int:
        """Connections that are open now, as far as this side has noticed."""
        return self._open

    def received(self, connection: int) -> bytes:
        """All bytes that came on a connection."""
        return bytes(self._links[connection].raw)

    def wait_for_requests(self, count: int) -> list[SeenRequest]:
        """The requests, once `count` of them came whole."""
        self._wait(lambda: sum(r.is_whole for r in self.requests) >= count, f"{count} requests")
        return list(self.requests)

    def wait_for_accepted(self, count: int) -> None:
        self._wait(lambda: len(self._links) >= count, f"{count} connections")

    def wait_until_closed(self) -> None:
        """Until no connection is open."""
        self._wait(lambda: self._open == 0, "all connections to close")

    def close(self) -> None:
        """End everything, also scripts that still wait."""
        with self._changed:
            self._is_closing = True
            links = list(self._links)
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which close alone does not
        except OSError:
            pass
        self._listener.close()
        for link in links:
            try:
                link.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._acceptor.join(PATIENCE)
        for link in links:
            if link.thread is not None:
                link.thread.join(PATIENCE)
                assert not link.thread.is_alive(), "a script did not end"

    def __enter__(self) -> ScriptedUpstream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- in the threads ---------------------------------------------------------------------------------------------

    def _wait(self, is_met: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(is_met, PATIENCE), f"waited {PATIENCE:.0f} s for {what}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._is_closing:
                    connection.close()
                    return
                link = _Link(len(self._links), connection)
                link.thread = threading.Thread(target=self._serve, args=(link,), daemon=True)
                self._links.append(link)
                self._open += 1
                self._changed.notify_all()
            link.thread.start()

    def _serve(self, link: _Link) -> None:
        try:
            link.socket.settimeout(PATIENCE)
            if link.socket.family in (socket.AF_INET, socket.AF_INET6):
                link.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._play(link, self._on_accept)
            if self._tls is not None:
                link.socket = self._tls.wrap_socket(link.socket, server_side=True)
            self._serve_requests(link)
        except (_Ended, OSError):
            pass
        finally:
            link.socket.close()
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def _serve_requests(self, link: _Link) -> None:
        """h11 reads one request at a time; bytes beyond it go to the reader of the next one."""
        ahead = b""
        while True:
            ahead, turn = self._read_request(link, ahead)
            self._play(link, self._scripts[min(turn, len(self._scripts) - 1)])

    def _read_request(self, link: _Link, ahead: bytes) -> tuple[bytes, int]:
        """What came after one request, and which one it was in the order in which they became whole."""
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        if ahead:  # b"" would say that the other side has closed
            reader.receive_data(ahead)
        seen: SeenRequest | None = None
        data = b"-"
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError as error:
                if data:
                    with self._changed:
                        self.violations.append(str(error))
                        self._changed.notify_all()
                raise _Ended from error
            if event is h11.NEED_DATA:
                data = link.socket.recv(_READ)
                link.raw += data
                reader.receive_data(data)
            elif isinstance(event, h11.Request):
                seen = SeenRequest(link.number, event.method.decode(), event.target.decode(), list(event.headers))
                with self._changed:
                    self.requests.append(seen)
                    self._changed.notify_all()
                self._play(link, self._on_head)
            elif isinstance(event, h11.Data):
                assert seen is not None
                seen.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert seen is not None
                with self._changed:
                    turn = sum(r.is_whole for r in self.requests)
                    seen.is_whole = True
                    self._changed.notify_all()
                return bytes(reader.trailing_data[0]), turn
            else:
                raise _Ended  # the other side closed between requests

    def _play(self, link: _Link, script: Sequence[Step]) -> None:
        for step in script:
            match step:
                case Send(data, each):
                    for start in range(0, len(data), each or max(1, len(data))):
                        link.socket.sendall(data[start : start + each] if each else data)
                case Wait(event):
                    self._wait_event(event)
                case Tell(event):
                    event.set()
                case WaitEnd():
                    self._read_to_end(link)
                case HalfClose():
                    link.socket.shutdown(socket.SHUT_WR)
                case Close():
                    raise _Ended
                case Reset():
                    _linger_none(link.socket)
                    raise _Ended

    def _wait_event(self, event: threading.Event) -> None:
        """Until `event`, looking now and then whether the test is over."""
        for _ in range(int(PATIENCE / 0.05)):
            if event.wait(0.05):
                return
            if self._is_closing:
                raise _Ended
        raise _Ended

    def _read_to_end(self, link: _Link) -> None:
        try:
            while data := link.socket.recv(_READ):
                link.raw += data
        except ConnectionError:
            pass


def _linger_none(connection: socket.socket) -> None:
    """Make the next close a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
