"""The kernel's words about real sockets."""

from __future__ import annotations

import os
import socket

from proxy.relay.kernel import queued_in_kernel, reset_on_close, unix_peer


def test_what_the_other_side_has_not_read_is_queued() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert queued_in_kernel(ours.fileno()) == 0
        ours.sendall(b"x" * 1000)
        queued = queued_in_kernel(ours.fileno())
        theirs.recv(1000)
        assert queued_in_kernel(ours.fileno()) == 0
        assert queued >= 1000 or queued == 0  # 0 where the system does not tell


def test_a_queue_of_a_socket_that_is_none() -> None:
    assert queued_in_kernel(-1) == 0


def test_a_close_can_be_made_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with theirs:
            reset_on_close(ours)
            ours.close()
            theirs.settimeout(10)
            try:
                read = theirs.recv(1)
            except ConnectionResetError:
                read = b"reset"
            assert read == b"reset"
    reset_on_close(ours)  # closed already
    reset_on_close(None)


def test_who_is_at_the_other_end_of_a_unix_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        told = unix_peer(ours)
    assert told in ((f"unix:uid={os.getuid()},pid={os.getpid()}", os.getuid()), ("unix", None))
    assert unix_peer(None) == ("unix", None)
    with socket.socket(socket.AF_INET) as other:
        assert unix_peer(other) == ("unix", None)
