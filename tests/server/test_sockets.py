"""A socket is bound where it was asked for, and whatever is in the way is named and left alone."""

from __future__ import annotations

import contextlib
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.server.addresses import Address, parse_addresses
from proxy.server.sockets import CannotListen, bind


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: the path of a Unix socket has 108 bytes at most, and pytest's own folders may have more."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def at(text: str) -> Address:
    found = parse_addresses(text)
    assert not isinstance(found, str), found
    return found[0]


@pytest.mark.parametrize(("text", "family"), [("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)])
def test_an_address_of_either_kind(text: str, family: int) -> None:
    with bind(at(text)) as bound:
        assert bound.family == family and bound.getsockname()[1] > 0 and not bound.getblocking()


def test_a_unix_socket_is_its_owners(folder: Path) -> None:
    with bind(at(f"unix:{folder}/s")):
        assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o600


def test_a_socket_that_nobody_listens_on_is_replaced(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with bind(at(f"unix:{path}")) as bound, socket.socket(socket.AF_UNIX) as client:
        bound.listen()
        client.connect(str(path))


def test_what_is_in_the_way_is_named_and_left_alone(folder: Path) -> None:
    path = folder / "s"
    path.write_text("a file")
    with pytest.raises(CannotListen, match="not a socket"):
        bind(at(f"unix:{path}"))
    assert path.read_text() == "a file"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(CannotListen, match="another process"):
            bind(at(f"unix:{path}"))
        assert path.exists()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListen, match=f"cannot listen on {address}: address already in use"):
            bind(at(address))


def test_a_socket_that_cannot_be_asked_is_left_alone(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(CannotListen, match="wrong type"):
            bind(at(f"unix:{path}"))
        assert path.exists()


def test_a_socket_whose_owner_is_too_busy_to_accept_is_left_alone(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as waiting:
        other.bind(str(path))
        other.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(CannotListen, match="there is a socket already"):
            bind(at(f"unix:{path}"))
        assert path.exists()
