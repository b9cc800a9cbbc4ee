"""Answers that we give ourselves: refusals, failures before an answer began, OPTIONS, lists of models.

Lives here: their bytes. May not live here: when they are given (exchange), the words of a dialect (dialects), which
models there are (policy.listing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.dialects import DIALECTS
from proxy.dialects.call import Dialect
from proxy.dialects.models import anthropic_list, anthropic_one, openai_list, openai_one
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.policy.admission import Grant
from proxy.policy.listing import asked_model, models_for
from proxy.policy.router import PLAIN, allow
from proxy.relay.answer import VIA, date_line
from proxy.wire import encode
from proxy.wire.head import RequestHead

if TYPE_CHECKING:
    from proxy.relay.relay import Relay


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


class Ours(NamedTuple):
    """An answer that needs no provider. Without a body it is that to an OPTIONS."""

    dialect: Dialect
    body: bytes


# For `OPTIONS *` and for OPTIONS whose Max-Forwards is used up (RFC 9110 sections 7.6.2 and 9.3.7).
OPTIONS: Final = Ours(PLAIN, b"")


def list_models(relay: Relay, head: RequestHead, grant: Grant) -> Ours | Failure | None:
    """What `/v1/models` answers here; None: that is for a provider to say."""
    name = asked_model(head.method, head.path, head.get)
    if name is None:
        return None
    key = None if grant.door is None else grant.door.key
    models = models_for(relay.snapshot, key)
    if models is None:
        return None
    dialect = list_dialect(head)
    is_anthropic = dialect.name == "anthropic-messages"
    if not name:
        many = anthropic_list(models, relay.started_at, head.query) if is_anthropic else None
        return Ours(dialect, many or openai_list(models, relay.started))
    found = next((model for model in models if model.name == name), None)
    if found is not None:
        one = anthropic_one(found, relay.started_at) if is_anthropic else openai_one(found, relay.started)
        return Ours(dialect, one)
    if key is None or key.models is None:  # a provider may have it
        return None
    return Failure(Side.CLIENT, Phase.ADMIT, Kind.MODEL_UNKNOWN)


def list_dialect(head: RequestHead) -> Dialect:
    """In whose form a list of models is asked for: both vendors have it under the same path."""
    return DIALECTS["openai-chat" if head.get(b"anthropic-version") is None else "anthropic-messages"]


def our_answer(head: RequestHead, ours: Ours, exchange_id: str, keeps: bool) -> bytes:
    """The bytes of it. HEAD gets no body, and its length."""
    if not ours.body:
        fields = b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
        return encode.status_line(204) + fields + date_line() + VIA + _connection(head, keeps)
    parts = [
        encode.status_line(200),
        b"content-type: application/json\r\n",
        encode.content_length(len(ours.body)),
        date_line(),
        VIA,
        b"x-llm-proxy-request-id: %b\r\n" % exchange_id.encode(),
        _connection(head, keeps),
    ]
    return b"".join(parts if head.method == b"HEAD" else [*parts, ours.body])


def _connection(head: RequestHead | None, keeps: bool) -> bytes:
    if not keeps:
        return encode.CLOSE + b"\r\n"
    if head is not None and head.version == b"1.0":
        return encode.KEEP_ALIVE + b"\r\n"
    return b"\r\n"
