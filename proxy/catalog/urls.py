"""Base URLs, Ollama's host forms, and the proxies that stand before an origin, read out of text.

Lives here: parsing what people write into variables. May not live here: what a path means (policy/router), connections.
How it works: everything returns either a value or one sentence that says what is wrong, never the text itself: a URL in
a variable may hold a password.
Doubted: NO_PROXY has no standard. Here: `*`, names with all names below them, addresses, networks, `name:port`.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from proxy.catalog.secret import Secret

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?|[0-9A-Fa-f:.]+")
_PATH = re.compile(r"(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)*")


class Base(NamedTuple):
    """A base URL in parts. `path` has no trailing slash; `host_header` names the port unless it is the scheme's own."""

    scheme: str
    host: str  # IPv6 without brackets
    port: int
    path: bytes

    @property
    def host_header(self) -> bytes:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return (name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}").encode()


def parse_base(text: str) -> Base | str:
    """A base URL as users write it for their SDKs; or what is wrong with it."""
    parts = _split(text)
    if parts is None:
        return "is not a URL"
    if parts.scheme not in _PORTS:
        return "must begin with http:// or https://"
    if "@" in parts.netloc:
        return "must not hold a user or password: put the credential into the variable for it"
    if parts.query or parts.fragment or text.rstrip().endswith(("?", "#")):
        return "must not have a query or fragment"
    host = parts.hostname or ""
    if _HOST.fullmatch(host) is None:
        return "has no usable host name"
    path = parts.path.rstrip("/")
    if _PATH.fullmatch(path) is None or "/." in path:
        return "has a path with characters or dot segments that cannot be sent"
    return Base(parts.scheme, host, parts.port or _PORTS[parts.scheme], path.encode())


def parse_ollama_host(text: str) -> Base | str:
    """OLLAMA_HOST as Ollama's own client reads it: all parts optional; port 11434 unless a scheme is given."""
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    before, slash, path = rest.partition("/")
    if before == "" or before.startswith(":"):
        before = "127.0.0.1" + before
    base = parse_base(f"{scheme}://{before}{slash}{path}")
    if isinstance(base, Base) and not found:
        named = _split(f"{scheme}://{before}")
        if named is not None and named.port is None:
            base = base._replace(port=11434)
    return base


def is_loopback(host: str) -> bool:
    """Does `host` (no brackets) mean this machine only? Names are not resolved: only localhost counts."""
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text.strip())
        _ = parts.port  # raises where it is no number up to 65535
    except ValueError:
        return None
    return None if any(mark in text.strip() for mark in "\\ \t\r\n") or parts.port == 0 else parts


class ProxyRules(NamedTuple):
    """Which origins are reached through which proxy (HTTPS_PROXY, HTTP_PROXY, NO_PROXY and their lower-case forms)."""

    by_scheme: dict[str, tuple[tuple[str, int], Secret | None]]
    exempt: tuple[str, ...]

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> tuple[ProxyRules, list[str]]:
        """The rules, and all errors. Lower case wins where both are set, as in curl and Python."""
        errors: list[str] = []
        by_scheme: dict[str, tuple[tuple[str, int], Secret | None]] = {}
        for scheme in ("http", "https"):
            variable = f"{scheme}_proxy" if environ.get(f"{scheme}_proxy") else f"{scheme}_proxy".upper()
            text = environ.get(variable, "")
            if text:
                found = _parse_proxy(text)
                if isinstance(found, str):
                    errors.append(f"{variable}: {found}")
                else:
                    by_scheme[scheme] = found
        text = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        exempt = tuple(piece.strip().lower() for piece in text.split(",") if piece.strip())
        return cls(by_scheme, exempt), errors

    def for_origin(self, scheme: str, host: str, port: int) -> tuple[tuple[str, int] | None, Secret | None]:
        """The proxy before an origin and its Proxy-Authorization, if any. Never one before this machine itself."""
        found = self.by_scheme.get(scheme)
        if found is None or is_loopback(host) or any(_is_exempt(rule, host.lower(), port) for rule in self.exempt):
            return None, None
        return found


def _parse_proxy(text: str) -> tuple[tuple[str, int], Secret | None] | str:
    parts = _split(text if "://" in text else "http://" + text)
    if parts is None:
        return "is not a URL"
    if parts.scheme != "http":
        return "only proxies that are spoken to over http:// are supported"
    host = parts.hostname or ""
    if _HOST.fullmatch(host) is None:
        return "has no usable host name"
    authorization = None
    if parts.username is not None:
        # Bytes, not texts: what stands there may be no UTF-8, in the environment as in its escapes.
        parted = [each.encode("utf-8", "surrogateescape") for each in (parts.username, parts.password or "")]
        pair = b":".join(map(unquote_to_bytes, parted))
        authorization = Secret("Basic " + base64.b64encode(pair).decode())
    return (host, parts.port or 80), authorization


def _is_exempt(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    name, colon, number = rule.rpartition(":")
    if colon and number.isdecimal() and (":" not in name or name.startswith("[")):
        if int(number) != port:
            return False
        rule = name
    rule = rule.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        rule = rule.removeprefix("*").lstrip(".")
        return bool(rule) and (host == rule or host.endswith("." + rule))
    try:
        return address in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False
