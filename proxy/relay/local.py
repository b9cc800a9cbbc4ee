"""Answers that we give ourselves: refusals, failures before an answer began, OPTIONS.

Lives here: their bytes. May not live here: when they are given (exchange), the words of a dialect (dialects).
"""

from __future__ import annotations

from proxy.dialects.call import Dialect
from proxy.outcome import Failure
from proxy.policy.router import allow
from proxy.relay.answer import VIA, date_line
from proxy.wire import encode
from proxy.wire.head import RequestHead


def error_answer(
    head: RequestHead | None,
    dialect: Dialect,
    failure: Failure,
    status: int,
    exchange_id: str,
    keeps: bool,
    lines: bytes = b"",
) -> tuple[bytes, int]:
    """A whole error answer in the asked dialect, and the size of its body. `x-llm-proxy-error` tells it from one that a
    provider gave; `keeps`: the connection may carry another request; `lines`: further fields."""
    body = dialect.error_body(failure, status, exchange_id)
    parts = [
        encode.status_line(status),
        b"content-type: application/json\r\n",
        encode.content_length(len(body)),
        date_line(),
        VIA,
        b"x-llm-proxy-error: %b\r\n" % failure.kind.value.encode(),
        b"x-llm-proxy-request-id: %b\r\n" % exchange_id.encode(),
    ]
    if status == 401:
        parts.append(b"www-authenticate: Bearer\r\n")
    elif status == 405 and head is not None:
        parts.append(b"allow: %b\r\n" % allow(head.path))
    elif status in (429, 503) and not lines:
        parts.append(b"retry-after: 1\r\n")
    parts.append(lines)
    parts.append(_connection(head, keeps))
    if head is not None and head.method == b"HEAD":
        return b"".join(parts), 0
    parts.append(body)
    return b"".join(parts), len(body)


def options_answer(head: RequestHead, keeps: bool) -> bytes:
    """For `OPTIONS *` and for OPTIONS whose Max-Forwards is used up (RFC 9110 sections 7.6.2 and 9.3.7)."""
    fields = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
    return encode.status_line(204) + fields + date_line() + VIA + _connection(head, keeps)


def _connection(head: RequestHead | None, keeps: bool) -> bytes:
    if not keeps:
        return encode.CLOSE + b"\r\n"
    if head is not None and head.version == b"1.0":
        return encode.KEEP_ALIVE + b"\r\n"
    return b"\r\n"
