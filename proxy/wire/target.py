"""What a request line asks for: host, path and query of its target.

Lives here: `REQUEST_LINE`, `place`, `seeming_path`. May not live here: fields other than Host, where a path leads.
How it works: a target is a path or an absolute http URL (RFC 9112 section 3.2); everything else is refused, and so is a
host that is no name or address.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

# Method, target, version. The target may hold what RFC 3986 allows, and "|^{}`[]" which browsers' URL parsers leave
# as they are; controls, blanks, quotes, <>, \ and # never.
REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!$-;=?-\[\]-~]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?@]+)(/[^?]*)?(\?.*)?")
# host[:port] (RFC 3986 section 3.2.2): a name or IPv4, or a bracketed IPv6; no userinfo, no blanks.
_HOST: Final = re.compile(rb"((?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?")


def _is_host(value: bytes) -> bool:
    matched = _HOST.fullmatch(value)
    if matched is None or int(matched[3] or 0) > 65535:
        return False
    if matched[2] is None:
        return True
    try:
        ipaddress.IPv6Address(matched[2].decode())
    except ValueError:
        return False
    return True


def place(target: bytes, method: bytes, host: bytes | None, minor: bytes) -> tuple[bytes, bytes, bytes] | str:
    """Host, path and query of a target (RFC 9112 section 3.2), or why they are refused."""
    if host is None:
        if minor == b"1":
            return "the field Host is missing"
        host = b""
    elif not _is_host(host):
        return "the field Host is not a host name"
    if target[:1] == b"/":
        path, _, query = target.partition(b"?")
        return host, path, query
    if target == b"*" and method == b"OPTIONS":
        return host, b"*", b""
    matched = _ABSOLUTE.fullmatch(target)
    if matched is None or not _is_host(matched[1]):
        return "the request target is neither a path nor an http URL"
    if method == b"OPTIONS" and not matched[2] and not matched[3]:
        return matched[1], b"*", b""  # RFC 9112 section 3.2.4
    # The authority of an absolute target replaces Host (RFC 9112 section 3.2.2).
    return matched[1], matched[2] or b"/", (matched[3] or b"")[1:]


def seeming_path(head: bytes | bytearray) -> bytes:
    """The path that `head`, be it finished or not, seems to ask for; b"" if there is no valid request line."""
    line = REQUEST_LINE.fullmatch(head, 0, max(head.find(b"\r\n"), 0))
    if line is None:
        return b""
    target = bytes(line[2])
    if target[:1] != b"/":
        absolute = _ABSOLUTE.fullmatch(target)
        return (absolute[2] or b"/") if absolute is not None else b""
    return target.partition(b"?")[0]
