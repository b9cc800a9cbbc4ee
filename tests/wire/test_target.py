"""Targets of requests. That h11 agrees, and every way to cut them, is shown with whole requests (test_requests)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.target import place, seeming_path


@pytest.mark.parametrize(
    ("target", "method", "placed"),
    [
        (b"/a?b?c", b"GET", (b"h", b"/a", b"b?c")),
        (b"/", b"GET", (b"h", b"/", b"")),
        (b"http://other:80/a?b", b"GET", (b"other:80", b"/a", b"b")),
        (b"HTTPS://other", b"GET", (b"other", b"/", b"")),
        (b"*", b"OPTIONS", (b"h", b"*", b"")),
        (b"http://other", b"OPTIONS", (b"other", b"*", b"")),
        (b"http://[::1]:8080/", b"GET", (b"[::1]:8080", b"/", b"")),
    ],
)
def test_where_a_target_is(target: bytes, method: bytes, placed: tuple[bytes, bytes, bytes]) -> None:
    assert place(target, method, b"h", b"1") == placed


@pytest.mark.parametrize("target", [b"*", b"a", b"h:80", b"ftp://h/", b"http:///a", b"http://u@h/", b"http://h:99999/"])
def test_what_is_neither_a_path_nor_a_url_is_refused(target: bytes) -> None:
    assert "target" in place(target, b"GET", b"h", b"1")


@pytest.mark.parametrize("host", [b"a b", b"a:65536", b"[::g]", b"::1", b"u@h", b"a/b", b""])
def test_what_is_no_host_is_refused(host: bytes) -> None:
    assert place(b"/", b"GET", host, b"1") == "the field Host is not a host name"


def test_only_http_1_0_needs_no_host() -> None:
    assert place(b"/", b"GET", None, b"1") == "the field Host is missing"
    assert place(b"/", b"GET", None, b"0") == (b"", b"/", b"")


@given(st.binary(max_size=80), st.sampled_from([b"", b"GET /a HTTP/1.1\r\n", b"GET http://", b"GET "]))
def test_no_bytes_raise(junk: bytes, start: bytes) -> None:
    place(junk, b"GET", junk, b"1")
    path = seeming_path(start + junk)
    assert path == b"" or path.startswith(b"/")
