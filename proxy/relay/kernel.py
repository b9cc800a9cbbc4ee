"""What the kernel knows about a client's socket, and what it is told.

Lives here: three questions and orders that asyncio has no words for. May not live here: when they are asked (client).
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios


def reset_on_close(sock: socket.socket | None) -> None:
    """Closing it will be a reset, so that what was written last cannot look like a proper end."""
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def unix_peer(sock: socket.socket | None) -> tuple[str, int | None]:
    """The other end of a Unix socket: `unix`, with its user and process where the system tells them (Linux), and the
    user's id."""
    option = getattr(socket, "SO_PEERCRED", None)
    if sock is None or option is None or sock.family != socket.AF_UNIX:
        return "unix", None
    pid, uid, _ = struct.unpack("iIi", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("iIi")))
    return f"unix:uid={uid},pid={pid}", uid


def queued_in_kernel(fd: int) -> int:
    """Bytes of a socket that its other side has not acknowledged (Linux; elsewhere 0)."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0
