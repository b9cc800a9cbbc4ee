"""Sockets to listen on.

Lives here: `bind`, `CannotListen`. May not live here: where to listen (addresses, settings), who is met there (worker).
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from proxy.server.addresses import Address


class CannotListen(Exception):
    """An address cannot be bound. The message says which and what to do."""


def bind(address: Address) -> socket.socket:
    """A socket at `address`, which does not listen yet. Raises CannotListen."""
    if address.path is not None:
        return _bind_unix(address.path)
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
    except OSError as error:
        sock.close()
        raise CannotListen(f"cannot listen on {address}: {_why(error)}") from error
    return sock


def _bind_unix(path: str) -> socket.socket:
    """Created for its owner only (0600). A socket that nobody listens on any more is removed first, nothing else is."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise CannotListen(f"cannot listen on unix:{path}: there is something that is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)  # of one whose queue is full: nothing else runs yet
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except FileNotFoundError:
                pass  # its owner has just removed it
            except OSError as error:  # not ours to connect to, or too busy to answer: somebody's all the same
                raise CannotListen(
                    f"cannot listen on unix:{path}: there is a socket already ({_why(error)})"
                ) from error
            else:
                raise CannotListen(f"cannot listen on unix:{path}: another process listens there")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise CannotListen(f"cannot listen on unix:{path}: {_why(error)}") from error
    finally:
        os.umask(before)
    return sock


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
