"""Request heads for tests of policy, made from fields as a client would send them."""

from __future__ import annotations

from proxy.wire.head import Framing, RequestHead


def head(
    *fields: tuple[str, str],
    method: str = "POST",
    path: str = "/v1/chat/completions",
    query: bytes = b"",
    host: str = "localhost:8080",
) -> RequestHead:
    rows = [(name.lower().encode(), name.encode(), value.encode("latin-1")) for name, value in fields]
    index: dict[bytes, bytes] = {}
    for name, _, value in rows:
        index.setdefault(name, value)
    return RequestHead(
        method.encode(), path.encode(), query, b"1.1", host.encode(), rows, index, Framing.NONE, 0, True, False
    )
