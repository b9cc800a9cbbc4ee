"""A proxy on the way to providers: answers CONNECT, then passes bytes both ways.

Lives here: `TunnelProxy`. May not live here: TLS, anything about the bytes inside of the tunnel.
How it works: a thread that accepts, two more per tunnel. Names are not looked up: the test says where they lead.
"""

from __future__ import annotations

import socket
import threading
from types import TracebackType

PATIENCE = 20.0
_OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class TunnelProxy:
    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._goal = ("127.0.0.1", 0)
        self._answer = _OPENED
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def leads_to(self, host: str, port: int) -> None:
        self._goal = (host, port)

    def says(self, answer: bytes) -> None:
        """Answer CONNECT with these bytes, then close."""
        self._answer = answer

    def __enter__(self) -> TunnelProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._open):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        self._thread.join(PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            link.settimeout(PATIENCE)
            self._open.append(link)
            head = b""
            while b"\r\n\r\n" not in head and (data := link.recv(65536)):
                head += data
            self.heads.append(head)
            link.sendall(self._answer)
            if self._answer is not _OPENED:
                link.close()
                continue
            goal = socket.create_connection(self._goal, PATIENCE)
            self._open.append(goal)
            for source, sink in ((link, goal), (goal, link)):
                threading.Thread(target=_pass, args=(source, sink), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
