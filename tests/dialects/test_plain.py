from __future__ import annotations

import json

from proxy.dialects.plain import Plain
from proxy.wire.sse import EventFraming
from tests.dialects.contract import STALLED

PLAIN = Plain()


def test_nothing_is_read() -> None:
    call = PLAIN.read_call(b"\xff not json", b"/v1/files", b"")
    assert (call.model, call.stream) == (None, False)
    assert PLAIN.framing is EventFraming.NONE


def test_a_plain_answer_is_complete_where_its_framing_ends() -> None:
    watch = PLAIN.watch()
    assert watch.is_complete
    assert watch.feed(b"\xff")
    assert not watch.has_error


def test_errors_have_one_simple_shape_and_streams_get_none() -> None:
    said = json.loads(PLAIN.error_body(STALLED, 504, "r"))
    assert said["error"]["code"] == "timeout"
    assert said["error"]["message"] == "llm-proxy: " + STALLED.detail
    assert said["request_id"] == "r"
    assert PLAIN.error_event(STALLED, 504, "r") == b""
