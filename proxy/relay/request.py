"""The head of the request that goes upstream.

Lives here: which fields of a client travel, and the lines that are ours. May not live here: choosing where to (policy).
How it works: Host, target and framing are written anew and are unambiguous; carriers of keys, cookies and our own
fields stay here; everything else travels as it came, in its order and its letter case.
"""

from __future__ import annotations

from proxy.policy.admission import Grant
from proxy.policy.keys import KEY_CARRIERS
from proxy.policy.router import Target
from proxy.wire import encode
from proxy.wire.head import Framing, RequestHead

# Expect has been answered here; Max-Forwards counts hops of OPTIONS and TRACE, which are not relayed as such.
_STAYS_HERE = KEY_CARRIERS | {b"cookie", b"cookie2", b"expect", b"max-forwards"}


def upstream_head(
    head: RequestHead,
    target: Target,
    grant: Grant,
    provider_lines: bytes,
    name: bytes,
    size: int | None,
    identity: bool,
) -> bytes:
    """`size` is that of a body held in full, None for one that streams through under the client's own framing.
    `identity` asks for an answer without content coding, so that its events can be read."""
    provider = target.provider
    set_by_us = {field for field, _ in provider.headers}
    parts = [b"%b %b HTTP/1.1\r\n" % (head.method, _request_target(target))]
    if grant.passthrough:
        parts.append(b"host: %b\r\n" % provider.host_header)
        parts += [b"%b: %b\r\n" % (field, value) for field, value in provider.headers]
        parts.append(encode.field_lines(grant.carried))
    else:
        parts.append(provider_lines)
    if identity:
        parts.append(b"accept-encoding: identity\r\n")
        set_by_us.add(b"accept-encoding")
    for lower, field, value in head.fields:
        if lower in _STAYS_HERE or lower in set_by_us or lower.startswith(b"x-llm-proxy-"):
            continue
        parts.append(b"%b: %b\r\n" % (field, value))
    parts.append(b"via: %b %b\r\n" % (head.version, name))
    if provider.origin.proxy is not None and provider.origin.scheme == "http":
        secret = provider.origin.proxy_authorization
        if secret is not None:
            parts.append(b"proxy-authorization: %b\r\n" % secret.reveal().encode("latin-1"))
    parts.append(_framing(head, size))
    return b"".join(parts)


def _request_target(target: Target) -> bytes:
    """Origin form, or absolute form towards an HTTP proxy (RFC 9112 section 3.2.2)."""
    provider = target.provider
    if provider.origin.proxy is not None and provider.origin.scheme == "http":
        return b"http://" + provider.host_header + target.target
    return target.target


def _framing(head: RequestHead, size: int | None) -> bytes:
    if size is None:
        if head.framing is Framing.CHUNKED:
            return encode.CHUNKED + b"\r\n"
        size = head.length
    if size or head.framing is not Framing.NONE or head.method in (b"POST", b"PUT", b"PATCH"):
        return encode.content_length(size) + b"\r\n"
    return b"\r\n"
