from __future__ import annotations

import json

import pytest

from proxy.dialects.anthropic import AnthropicCountTokens, AnthropicMessages, MessagesWatch
from proxy.dialects.body import model_span
from proxy.dialects.call import UnreadableBody
from proxy.outcome import status_of
from tests.dialects.contract import STALLED, STATUSES
from tests.dialects.cost import BLOCK_DELTA
from tests.dialects.sdk import anthropic_error_of

MESSAGES = AnthropicMessages()
TYPES = {  # Anthropic's own (WIRE 6)
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def event(kind: str, **more: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}   \n\n".encode()


def test_a_call_is_read() -> None:
    body = b'{"max_tokens":64,"metadata":{"model":"no"},"model":"claude","stream":true}'
    call = MESSAGES.read_call(body, b"/v1/messages", b"")
    assert (call.model, call.stream, call.cap) == ("claude", True, 64)
    span = model_span(body)
    assert span and body[slice(*span)] == b'"claude"'
    with pytest.raises(UnreadableBody):
        MESSAGES.read_call(b'{"model":["claude"]}', b"", b"")


def test_counting_tokens_reads_the_model_alone() -> None:
    call = AnthropicCountTokens().read_call(b'{"model":"claude","stream":"?"}', b"/v1/messages/count_tokens", b"")
    assert (call.model, call.stream, call.is_free) == ("claude", False, True)
    assert AnthropicCountTokens().error_event(STALLED, 504, "r") == b""


def test_vertex_names_the_model_in_the_path() -> None:
    path = b"/v1/projects/p/locations/l/publishers/anthropic/models/claude%403:streamRawPredict"
    assert MESSAGES.read_call(b'{"stream":true}', path, b"").model == "claude@3"


@pytest.mark.parametrize(
    ("block", "progress"),
    [
        (event("ping"), False),
        (event("message_start", message={"usage": {"output_tokens": 1}}), False),
        (event("content_block_start", content_block={"type": "text", "text": ""}), False),
        (event("content_block_start", content_block={"type": "text", "text": "x"}), True),
        (event("content_block_start", content_block={"type": "thinking", "thinking": "", "signature": ""}), False),
        (event("content_block_start", content_block={"type": "tool_use", "name": "f", "input": {}}), True),
        (event("content_block_start", content_block={"type": "redacted_thinking", "data": "x"}), True),
        (BLOCK_DELTA, True),
        (event("content_block_stop"), True),
        (event("message_delta", delta={"stop_reason": None}), True),
        (event("something_new"), True),
        (b": comment\n\n", False),
        (b"event: message_delta\ndata: not json\n\n", True),
    ],
)
def test_progress_is_not_an_ending(block: bytes, progress: bool) -> None:
    watch = MessagesWatch()
    assert watch.feed(block) == progress
    assert not watch.is_complete


def test_pings_are_not_counted() -> None:
    watch = MessagesWatch()
    assert watch.feed(event("ping") + BLOCK_DELTA + event("ping"))
    assert watch.events == 1


@pytest.mark.parametrize(
    ("block", "terminal", "error"),
    [
        (event("message_delta", delta={"stop_reason": "end_turn"}), False, False),
        (event("message_stop"), True, False),
        (event("error", error={"type": "overloaded_error"}), False, True),
    ],
)
@pytest.mark.parametrize("around", [(b"", b""), (BLOCK_DELTA, b""), (BLOCK_DELTA * 2, BLOCK_DELTA)])
def test_an_ending_is_seen_wherever_it_stands(
    block: bytes, terminal: bool, error: bool, around: tuple[bytes, bytes]
) -> None:
    watch = MessagesWatch()
    assert watch.feed(around[0] + block + around[1])
    assert (watch.is_complete, watch.is_terminal, watch.has_error) == (True, terminal, error)


@pytest.mark.parametrize("status", STATUSES)
def test_an_error_body_has_anthropics_shape(status: int) -> None:
    said = json.loads(MESSAGES.error_body(STALLED, status, "req_1"))
    assert (said["type"], said["request_id"]) == ("error", "req_1")
    assert said["error"]["message"] == "llm-proxy: " + STALLED.detail
    assert said["error"]["code"] == "timeout"
    assert said["error"]["type"] == TYPES.get(status, said["error"]["type"])


def test_the_sdk_raises_for_our_event() -> None:
    sent = MESSAGES.error_event(STALLED, status_of(STALLED), "req_1")
    assert sent.startswith(b'event: error\ndata: {"type":"error","error":{"type":"timeout_error"')
    assert sent.endswith(b"}\n\n") and sent.count(b"\n") == 3
    raised = anthropic_error_of(BLOCK_DELTA + sent)
    assert raised is not None and "llm-proxy: the provider said" in str(raised)
    watch = MessagesWatch()
    watch.feed(sent)
    assert watch.has_error and not watch.is_terminal
