"""Events of Anthropic's Messages API, as far as a stream of them can be resumed.

Lives here: `MessagesReader`. May not live here: what the client has (resume), how spans are found (resume_event).
How it works: a message of one block of text is let through; any other block, citations and unknown events are OTHER,
yet with their block's index, which may have to be another one behind a join (WIRE 3).
Doubted: the end of a block counts as an end. Behind it comes an ending or another block, and no text is left
at which a second stream could be joined.
"""

from __future__ import annotations

import re

from proxy.dialects.body import Span
from proxy.dialects.call import UnreadableBody
from proxy.dialects.resume_event import (
    UNREADABLE,
    EventReader,
    Seen,
    What,
    are_empty,
    is_filled,
    members,
    within_quotes,
)

_OF_TEXT = frozenset(("type", "text"))
_PLACES = {  # what holds the text, and of which type it must be
    b"content_block_start": ("content_block", b"text"),
    b"content_block_delta": ("delta", b"text_delta"),
}
_INDEX = re.compile(rb"[0-9]{1,4}")  # of blocks; a message has a few


class MessagesReader(EventReader):
    """Reads `message_*` and `content_block_*` events."""

    __slots__ = ()

    def _see(self, name: bytes, event: bytes, data: Span) -> Seen:
        if name == b"ping":
            return Seen(What.IDLE)
        top = members(event, data)
        kind = _string(event, top.get("type"))
        if kind == b"error":
            return Seen(What.ERROR)
        if name not in (b"", kind):
            return Seen(What.OTHER)
        if kind.startswith(b"content_block_"):
            return _see_block(event, kind, top)
        if kind == b"message_start":
            message = top.get("message")
            said = members(event, message).get("content") if message is not None else None
            return Seen(What.OTHER if is_filled(event, said) else What.BEGIN)
        if kind == b"message_delta":
            delta = top.get("delta")
            ends = delta is not None and is_filled(event, members(event, delta).get("stop_reason"))
            return Seen(What.END if ends else What.IDLE)
        if kind == b"message_stop":
            return Seen(What.END)
        return Seen(What.IDLE if kind == b"ping" else What.OTHER)


def _see_block(event: bytes, kind: bytes, top: dict[str, Span]) -> Seen:
    index = top.get("index")
    if index is None or _INDEX.fullmatch(event, *index) is None:
        raise UnreadableBody("a block has a number")
    try:
        what, texts = _see_text(event, kind, top)
    except UNREADABLE:
        what, texts = What.OTHER, ()
    return Seen(what, texts, block=index)


def _see_text(event: bytes, kind: bytes, top: dict[str, Span]) -> tuple[What, tuple[Span, ...]]:
    if kind == b"content_block_stop":
        return What.END, ()
    if kind not in _PLACES:
        return What.OTHER, ()
    name, wanted = _PLACES[kind]
    said = members(event, top[name]) if name in top else {}
    if _string(event, said.get("type")) != wanted or "text" not in said or not are_empty(event, said, _OF_TEXT):
        return What.OTHER, ()
    span = within_quotes(event, said["text"])
    texts = (span,) if span[0] < span[1] else ()
    if name == "content_block":
        return What.OPEN, texts
    return (What.TEXT if texts else What.IDLE), texts


def _string(event: bytes, span: Span | None) -> bytes:
    """The raw text of a string; b"" if there is none."""
    return event[span[0] + 1 : span[1] - 1] if span is not None and event.startswith(b'"', span[0]) else b""
