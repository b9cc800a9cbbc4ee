"""Anything that no dialect reads: passed, not looked at.

Lives here: `Plain`, and an error body that people and most clients understand.
May not live here: guesses. How an unknown format ends or fails in mid-stream is not known, so nothing is ever added.
How it works: an answer ends where its framing ends, and every byte of it is progress.
Doubted: whether unknown event streams should get an error event; a client that does not know it might act on it.
"""

from __future__ import annotations

import orjson

from proxy.dialects.call import Call
from proxy.dialects.failures import sentence
from proxy.outcome import Failure, Usage
from proxy.wire.sse import EventFraming


class PlainWatch:
    """Nothing is known about the stream, so its framing alone tells whether it is complete."""

    __slots__ = ("events", "has_error", "has_report", "is_complete", "is_terminal", "texts")

    def __init__(self) -> None:
        self.is_complete = True
        self.is_terminal = False
        self.has_report = False
        self.texts = 0
        self.has_error = False
        self.events = 0

    def feed(self, block: bytes) -> bool:
        return True


class PlainMeter:
    """What an unknown format uses is not known, and there is no text in it that could be counted."""

    __slots__ = ()
    model = None
    is_reported = True
    kept = 0

    def feed(self, data: bytes, is_text: bool = False) -> None:
        pass

    def usage(self) -> Usage:
        return Usage()

    def take(self) -> list[bytes]:
        return []


class Plain:
    """The dialect of everything else."""

    name = "plain"
    framing = EventFraming.NONE

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        return Call(model=None)

    def watch(self) -> PlainWatch:
        return PlainWatch()

    def meter(self, is_stream: bool) -> PlainMeter:
        return PlainMeter()

    def error_body(self, failure: Failure, status: int, request_id: str) -> bytes:
        error = {"message": sentence(failure), "type": "llm_proxy_error", "code": failure.kind.value}
        return orjson.dumps({"error": error, "request_id": request_id})

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        return b""
