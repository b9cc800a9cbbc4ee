"""Where listeners bind.

Lives here: `Address` and how one is written. May not live here: sockets.
How it works: `host:port`, `[v6]:port`, `:port` (loopback), `unix:/path`; several in one variable stand between commas.
Names other than localhost are not accepted: what a name binds to is decided elsewhere, and may change.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from proxy.catalog.urls import is_loopback


class Address(NamedTuple):
    """One place to listen at: `path` of a Unix socket, or host and port. Port 0 takes any free one."""

    host: str = ""  # IPv6 without brackets
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Can only this machine reach it?"""
        return self.path is not None or is_loopback(self.host)

    def is_reached_by(self, host: str, port: int) -> bool:
        """Would a connection to `host` and `port` come back to this listener? Addresses of this machine other than
        loopback are not known here: the hop header ends such loops."""
        if self.path is not None or port != self.port or port == 0:
            return False
        here = is_loopback(self.host) or is_any(self.host)
        return host.lower() == self.host.lower() or (here and (is_loopback(host) or is_any(host)))


def is_any(host: str) -> bool:
    """0.0.0.0 or ::, which also connect to this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def parse_addresses(text: str) -> list[Address] | str:
    """All addresses in `text`, or what is wrong with it."""
    found: list[Address] = []
    for piece in text.split(","):
        if not piece.strip():
            continue
        address = parse_address(piece.strip())
        if isinstance(address, str):
            return address
        if address in found and (address.path is not None or address.port):
            return "names the same address twice"
        found.append(address)
    return found or "names no address"


def parse_address(text: str) -> Address | str:
    """One address, or what is wrong with it."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        # sun_path has 108 bytes on Linux and 104 elsewhere, one of them for the final NUL.
        if not path or "\0" in path or len(path.encode()) > 103:
            return "a Unix socket needs a path of at most 103 bytes: unix:/run/llm-proxy.sock"
        return Address(path=path)
    host, colon, number = text.rpartition(":")
    if not colon or not (number.isascii() and number.isdecimal()) or int(number) > 65535:
        return "write an address as host:port, [v6]:port or unix:/path"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return "write an IPv6 address in brackets, e.g. [::1]:8080"
    if host == "":
        host = "127.0.0.1"
    if host == "*":
        host = "0.0.0.0"
    if host.lower() != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return "the host must be an address or localhost"
    return Address(host, int(number))
