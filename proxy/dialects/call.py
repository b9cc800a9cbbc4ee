"""What a client asks for, and what a dialect must be able to say.

Lives here: `Call`, the protocols `Dialect`, `Watch` and `Meter`, the error for bodies that cannot be read.
May not live here: anything that only one vendor does.
How it works: relay asks a dialect to read a body once (`read_call`), to watch a streamed answer (`watch`), to
meter any answer (`meter`), and to put a Failure into the client's own format (`error_body`, `error_event`). Bytes of
bodies are never built anew.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from proxy.outcome import Failure, Usage
from proxy.wire.sse import EventFraming

__all__ = ["Call", "Dialect", "EventFraming", "Meter", "UnreadableBody", "Watch"]


class Call(NamedTuple):
    """What was read out of a request body (and, for Gemini, out of its path)."""

    model: str | None  # None: the body names none (an error for most dialects, the upstream says so itself)
    stream: bool = False
    cap: int | None = None  # most output tokens the client allows; 0: nothing is generated
    framing: EventFraming | None = None  # of the answer where the call chooses it (Gemini); None: the dialect's
    is_free: bool = False  # asks how many tokens something has, and uses none
    lacks_usage: bool = False  # a stream that reports no usage unless it is asked to, and was not (WIRE 0.1)
    names_more: bool = False  # models that may answer in place of `model`


class UnreadableBody(Exception):
    """The body is not what its dialect needs to be read safely. The message is for the client: it says what to do and
    repeats nothing that was sent. Always a 400."""


class Watch(Protocol):
    """Looks at one streamed answer as it passes. `feed` is on the straight path: look before you parse."""

    is_complete: bool  # a terminal event or a finish reason has passed
    is_terminal: bool  # the very last event of the dialect has passed ([DONE], message_stop, done:true ...)
    has_error: bool  # the provider's own error event has passed
    has_report: bool  # an event that reports usage and nothing else has passed; only in the OpenAI chat dialects
    texts: int  # blocks that hold text, and no member says more than in the event before; its reader sets it to 0
    events: int  # data events so far, comments and pings apart

    def feed(self, block: bytes) -> bool:
        """`block` is one or more whole events. True if something in it is progress: text, reasoning, a tool call, a
        refusal, a finish, an error, anything unknown. Pings, comments, role-only and other empty chunks are not."""
        ...


class Meter(Protocol):
    """Reads what an answer reports about its usage, while it passes. Never raises."""

    @property
    def model(self) -> str | None:
        """The model that the provider says it served."""
        ...

    @property
    def is_reported(self) -> bool:
        """The provider has told its output, so the text need not be counted. Of a stream it may be asked at any time,
        of a whole answer at its end."""
        ...

    @property
    def kept(self) -> int:
        """Bytes kept undecoded, in case their text must be counted. A stream's grow until the output is reported or
        `take` is called; only the caller bounds them. A whole answer's are the answer below 64 KiB, else none."""
        ...

    def feed(self, data: bytes, is_text: bool = False) -> None:
        """Of a stream: one or more whole events. Of a whole answer: any piece of its body. `is_text`: it need not be
        searched for a report, as the watch has seen."""
        ...

    def usage(self) -> Usage:
        """What has been reported so far, as the caller's own copy. `complete`: in the report that is the last one by
        what it says; some streams report on and on, and only the stream's own ending tells which was the last."""
        ...

    def take(self) -> list[bytes]:
        """The kept bytes, for counting. Nothing is kept afterwards."""
        ...


class Dialect(Protocol):
    """One body format. Instances are stateless and shared."""

    name: str
    framing: EventFraming

    def read_call(self, body: bytes, path: bytes, query: bytes) -> Call:
        """What `body` asks for. Raises UnreadableBody."""
        ...

    def watch(self) -> Watch:
        """A fresh watch for one streamed answer."""
        ...

    def meter(self, is_stream: bool) -> Meter:
        """A fresh meter for one answer: a stream of events, or one document (also where a stream was asked for)."""
        ...

    def error_body(self, failure: Failure, status: int, request_id: str) -> bytes:
        """A whole JSON error body as this dialect's SDKs expect it."""
        ...

    def error_event(self, failure: Failure, status: int, request_id: str) -> bytes:
        """The event, with its closing blank line or newline, that tells a client in the middle of a stream that it
        broke. Never a terminal event. Empty where the format has no such thing."""
        ...
