"""Addresses as people write them, and whether a base URL leads back to one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.server.addresses import Address, is_any, parse_address, parse_addresses


@pytest.mark.parametrize(
    ("text", "expected", "written"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080), "127.0.0.1:8080"),
        ("localhost:0", Address("localhost", 0), "localhost:0"),
        (":8080", Address("127.0.0.1", 8080), "127.0.0.1:8080"),
        ("*:8080", Address("0.0.0.0", 8080), "0.0.0.0:8080"),
        ("[::1]:8080", Address("::1", 8080), "[::1]:8080"),
        ("[::]:8080", Address("::", 8080), "[::]:8080"),
        ("unix:/run/x.sock", Address(path="/run/x.sock"), "unix:/run/x.sock"),
        ("unix:x.sock", Address(path="x.sock"), "unix:x.sock"),
    ],
)
def test_an_address_is_read_and_written(text: str, expected: Address, written: str) -> None:
    assert parse_address(text) == expected
    assert str(expected) == written


@pytest.mark.parametrize(
    "text",
    [
        *("", "8080", "localhost", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1"),
        *("::1:8080", "example.com:80", "127.1:80", "[::1]", "[::1:80", "[]:80x", "unix:", "unix:/" + "a" * 110),
        "http://localhost:80",
    ],
)
def test_what_is_no_address_is_explained(text: str) -> None:
    assert isinstance(parse_address(text), str)


def test_several_stand_between_commas() -> None:
    assert parse_addresses("127.0.0.1:1, unix:/run/x ,") == [Address("127.0.0.1", 1), Address(path="/run/x")]
    assert parse_addresses("127.0.0.1:0,127.0.0.1:0") == [Address("127.0.0.1", 0)] * 2
    for wrong in ("", " , ", "127.0.0.1:1,x", "127.0.0.1:1,127.0.0.1:1", "unix:/a,unix:/a"):
        assert isinstance(parse_addresses(wrong), str)


@given(st.text(max_size=30))
def test_no_text_raises_and_what_is_read_is_written_alike(text: str) -> None:
    found = parse_address(text)
    if isinstance(found, Address):
        assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        *((text, True) for text in ("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/x")),
        *((text, False) for text in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1")),
    ],
)
def test_who_can_reach_it(text: str, is_local: bool) -> None:
    address = parse_address(text)
    assert isinstance(address, Address)
    assert address.is_local is is_local


@pytest.mark.parametrize(
    ("listen", "host", "port", "expected"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("127.0.0.1:8080", "localhost", 8080, True),
        ("127.0.0.1:8080", "0.0.0.0", 8080, True),
        ("127.0.0.1:8080", "::1", 8080, True),
        ("0.0.0.0:8080", "localhost", 8080, True),
        ("[::]:8080", "127.0.0.1", 8080, True),
        ("10.0.0.1:8080", "10.0.0.1", 8080, True),
        ("127.0.0.1:8080", "127.0.0.1", 8081, False),
        ("127.0.0.1:8080", "10.0.0.1", 8080, False),
        ("10.0.0.1:8080", "127.0.0.1", 8080, False),
        ("127.0.0.1:0", "127.0.0.1", 0, False),
        ("unix:/x", "127.0.0.1", 0, False),
    ],
)
def test_what_leads_back(listen: str, host: str, port: int, expected: bool) -> None:
    address = parse_address(listen)
    assert isinstance(address, Address)
    assert address.is_reached_by(host, port) is expected


def test_any() -> None:
    assert is_any("0.0.0.0")
    assert is_any("::")
    assert not is_any("localhost")
