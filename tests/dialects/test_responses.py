from __future__ import annotations

import json

import pytest

from proxy.dialects.call import Call, UnreadableBody
from proxy.dialects.responses import OpenAIResponses, ResponsesWatch
from proxy.outcome import status_of
from tests.dialects.contract import STALLED, STATUSES
from tests.dialects.sdk import openai_error_of

RESPONSES = OpenAIResponses()
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n'


def named(kind: str) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind})}\n\n".encode()


def test_a_call_is_read() -> None:
    call = RESPONSES.read_call(b'{"input":"hi","model":"m","stream":true,"max_output_tokens":5}', b"", b"")
    assert call == Call("m", True, 5)
    assert RESPONSES.read_call(b'{"model":"m"}', b"/v1/responses/input_tokens", b"").is_free
    assert RESPONSES.read_call(b'{"prompt":{"id":"p"}}', b"", b"").model is None
    with pytest.raises(UnreadableBody):
        RESPONSES.read_call(b'{"model":"m","stream":1}', b"", b"")


@pytest.mark.parametrize(
    ("kind", "progress", "complete", "terminal", "error"),
    [
        ("response.created", False, False, False, False),
        ("response.in_progress", False, False, False, False),
        ("response.queued", False, False, False, False),
        ("response.output_item.added", True, False, False, False),
        ("response.web_search_call.searching", True, False, False, False),
        ("response.something_new", True, False, False, False),
        ("response.completed", True, True, True, False),
        ("response.incomplete", True, True, True, False),
        ("response.failed", True, True, True, True),
        ("error", True, True, False, True),
    ],
)
@pytest.mark.parametrize("has_name", [True, False])
def test_names_say_it_all(
    kind: str, progress: bool, complete: bool, terminal: bool, error: bool, has_name: bool
) -> None:
    watch = ResponsesWatch()
    event = named(kind) if has_name else named(kind).split(b"\n", 1)[1]
    assert watch.feed(event) == progress
    assert (watch.is_complete, watch.is_terminal, watch.has_error, watch.events) == (complete, terminal, error, 1)


def test_the_name_of_an_oversized_event_is_enough() -> None:
    watch = ResponsesWatch()
    assert watch.feed(b"event: response.completed\n\n")
    assert watch.is_terminal


def test_usual_deltas_do_not_hide_what_is_between_them() -> None:
    for hidden in (named("response.completed"), b"data: [DONE]\n\n", b'data: {"error":{"message":"m"}}\n\n'):
        watch = ResponsesWatch()
        assert watch.feed(DELTA + hidden + DELTA)
        assert watch.is_complete
        assert watch.events == 3
    watch = ResponsesWatch()
    assert watch.feed(DELTA * 3 + b": \n\n" + DELTA)
    assert (watch.events, watch.is_complete) == (4, False)


def test_keepalives_are_neither_progress_nor_counted() -> None:
    watch = ResponsesWatch()
    assert not watch.feed(named("keepalive") * 3)
    assert watch.events == 0


def test_the_sdk_raises_for_our_event() -> None:
    event = RESPONSES.error_event(STALLED, status_of(STALLED), "r")
    raised = openai_error_of(DELTA + event, "responses")
    assert raised is not None and "llm-proxy: the provider said" in str(raised)


def test_our_event_has_the_documented_shape_too() -> None:
    event = RESPONSES.error_event(STALLED, 504, "r")
    name, data, *rest = event.split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    said = json.loads(data.removeprefix(b"data: "))
    assert said["type"] == "error"
    assert said["code"] == "timeout"
    assert said["message"] == said["error"]["message"]
    assert isinstance(said["sequence_number"], int)
    watch = ResponsesWatch()
    watch.feed(event)
    assert watch.has_error


@pytest.mark.parametrize("status", STATUSES)
def test_an_error_body_has_openais_shape(status: int) -> None:
    error = json.loads(RESPONSES.error_body(STALLED, status, "r"))["error"]
    assert set(error) == {"message", "type", "param", "code"}
