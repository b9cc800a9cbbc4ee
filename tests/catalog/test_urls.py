"""Base URLs, Ollama's hosts and forward proxies, as people write them."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.urls import Base, ProxyRules, is_loopback, parse_base, parse_ollama_host


@pytest.mark.parametrize(
    ("text", "expected", "host_header"),
    [
        ("https://api.openai.com/v1", Base("https", "api.openai.com", 443, b"/v1"), b"api.openai.com"),
        ("https://api.openai.com/v1/", Base("https", "api.openai.com", 443, b"/v1"), b"api.openai.com"),
        (" HTTPS://API.OpenAI.com ", Base("https", "api.openai.com", 443, b""), b"api.openai.com"),
        ("http://10.0.0.5:8000/v1", Base("http", "10.0.0.5", 8000, b"/v1"), b"10.0.0.5:8000"),
        ("http://x:80", Base("http", "x", 80, b""), b"x"),
        ("https://x:80/", Base("https", "x", 80, b""), b"x:80"),
        ("http://[::1]:9/a/b", Base("http", "::1", 9, b"/a/b"), b"[::1]:9"),
        ("http://my_host.internal/", Base("http", "my_host.internal", 80, b""), b"my_host.internal"),
    ],
)
def test_a_base_url_in_parts(text: str, expected: Base, host_header: bytes) -> None:
    found = parse_base(text)
    assert found == expected
    assert isinstance(found, Base)
    assert found.host_header == host_header


@pytest.mark.parametrize(
    "text",
    [
        *("", "api.openai.com/v1", "ftp://x", "http://", "http://:80", "http://user:pw@x/", "http://tok@x", "//x/v1"),
        *("http://x?a=1", "http://x/#f", "http://x/?", "http://x:99999", "http://x:0", "http://x:a", "http://[::1/"),
        *("http://x y/", "http://x/a b", "http://x/\u00fc", "http://\u00fc.de/", "http://x//v1", "http://x/../v1"),
        *("http://x/v1/..", "http://-x/", "http://x\\y/", "http://x/\r\nHost:y", "http://x/a\\b"),
    ],
)
def test_what_is_no_base_url_is_explained_without_repeating_it(text: str) -> None:
    found = parse_base(text)
    assert isinstance(found, str)
    assert "pw" not in found.split("password")[0]
    assert "tok@" not in found


# As Ollama's own client reads them; its documentation tests, in other words.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2.3.4", Base("http", "1.2.3.4", 11434, b"")),
        (":56789", Base("http", "127.0.0.1", 56789, b"")),
        ("1.2.3.4:56789", Base("http", "1.2.3.4", 56789, b"")),
        ("http://1.2.3.4", Base("http", "1.2.3.4", 80, b"")),
        ("https://1.2.3.4", Base("https", "1.2.3.4", 443, b"")),
        ("https://1.2.3.4:56789", Base("https", "1.2.3.4", 56789, b"")),
        ("example.com", Base("http", "example.com", 11434, b"")),
        ("example.com/", Base("http", "example.com", 11434, b"")),
        ("example.com:56789/path/", Base("http", "example.com", 56789, b"/path")),
        ("example.com/path", Base("http", "example.com", 11434, b"/path")),
        ("[2001:db8::1]", Base("http", "2001:db8::1", 11434, b"")),
        ("[2001:db8::1]:56789/path", Base("http", "2001:db8::1", 56789, b"/path")),
        ("https://[2001:db8::1]", Base("https", "2001:db8::1", 443, b"")),
        ("example.com:80", Base("http", "example.com", 80, b"")),
    ],
)
def test_ollama_host_is_read_as_its_client_reads_it(text: str, expected: Base) -> None:
    assert parse_ollama_host(text) == expected


@given(st.text(max_size=30))
def test_no_text_raises(text: str) -> None:
    for found in (parse_base(text), parse_base("http://" + text), parse_ollama_host(text)):
        if isinstance(found, Base):
            assert all(0x21 <= byte <= 0x7E for byte in found.host_header + found.path)
    ProxyRules.read({"HTTPS_PROXY": text, "NO_PROXY": text})[0].for_origin("https", "x.example", 443)


def rules(**environ: str) -> ProxyRules:
    found, errors = ProxyRules.read(environ)
    assert errors == []
    return found


def test_each_scheme_has_its_own_proxy() -> None:
    both = rules(HTTPS_PROXY="http://p:3128", HTTP_PROXY="q")
    assert both.for_origin("https", "x.example", 443) == (("p", 3128), None)
    assert both.for_origin("http", "x.example", 80) == (("q", 80), None)
    assert rules(HTTP_PROXY="q").for_origin("https", "x.example", 443) == (None, None)


def test_lower_case_wins_and_an_empty_one_does_not_count() -> None:
    assert rules(https_proxy="p:1", HTTPS_PROXY="q:2").for_origin("https", "x.example", 443)[0] == ("p", 1)
    assert rules(https_proxy="", HTTPS_PROXY="q:2").for_origin("https", "x.example", 443)[0] == ("q", 2)


def test_a_proxys_user_and_password_become_a_field_value() -> None:
    _, authorization = rules(HTTPS_PROXY="http://us%40er:p%3Aw@p:3128").for_origin("https", "x.example", 443)
    assert authorization is not None
    assert authorization.reveal() == "Basic dXNAZXI6cDp3"
    assert "dXNA" not in repr(authorization)


@pytest.mark.parametrize("password", ["p%FF", os.fsdecode(b"p\xff")])
def test_a_proxys_password_that_is_no_utf8_is_no_crash(password: str) -> None:
    rules, errors = ProxyRules.read({"HTTP_PROXY": f"http://u:{password}@proxy.example"})
    authorization = rules.for_origin("http", "a.example", 80)[1]
    assert not errors and authorization is not None
    assert base64.b64decode(authorization.reveal()[6:]) == b"u:p\xff"


@pytest.mark.parametrize("text", ["https://p:3128", "socks5://p", "http://", "p:port", "http://a b"])
def test_proxies_that_cannot_be_used_are_errors(text: str) -> None:
    _, errors = ProxyRules.read({"HTTPS_PROXY": text})
    assert len(errors) == 1
    assert errors[0].startswith("HTTPS_PROXY: ")


@pytest.mark.parametrize(
    ("no_proxy", "host", "exempt"),
    [
        ("*", "x.example", True),
        ("example", "x.example", True),
        (".example", "x.example", True),
        ("*.example", "x.example", True),
        ("x.example", "X.Example", True),
        ("x.example:443", "x.example", True),
        ("x.example:8443", "x.example", False),
        ("ample", "x.example", False),
        ("other, x.example", "x.example", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("2001:db8::/32", "2001:db8::5", True),
        ("[2001:db8::5]:443", "2001:db8::5", True),
        ("[2001:db8::5]:80", "2001:db8::5", False),
        (".", "x.example", False),
        ("", "localhost", True),
        ("", "127.9.9.9", True),
        ("", "::1", True),
        ("", "x.example", False),
    ],
)
def test_exemptions(no_proxy: str, host: str, exempt: bool) -> None:
    found, _ = rules(HTTPS_PROXY="p:1", NO_PROXY=no_proxy).for_origin("https", host, 443)
    assert (found is None) is exempt


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST.", "127.0.0.1", "127.8.0.1", "::1")),
        *((host, False) for host in ("0.0.0.0", "10.0.0.1", "localhost.example", "")),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
