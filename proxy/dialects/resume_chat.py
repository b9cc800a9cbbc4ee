"""Chunks of OpenAI's chat, as far as a stream of them can be resumed.

Lives here: `ChatReader`. May not live here: what the client has (resume), how spans are found (resume_event).
How it works: only what is known to do no harm is let through: one choice, text in its delta, and members that stand
beside it in real streams. Everything else that holds anything is OTHER (WIRE 3, 7).
Doubted: Perplexity is not resumed, since its chunks repeat sources to which the text refers by number: a second answer
may number others.
"""

from __future__ import annotations

from proxy.dialects.body import Span
from proxy.dialects.resume_event import (
    UNREADABLE,
    EventReader,
    Seen,
    What,
    are_empty,
    is_filled,
    members,
    only_element,
    within_quotes,
)

# By these clients and their tools see which chunks belong together. `model` is not among them: it stays the name of who
# said it.
_MARKS = ("id", "created")
_UNSAFE = ("citations", "search_results", "value")  # at the top: sources, and Writer's way to send text
# Beside the delta. `text`: Together repeats there what the delta holds; the finish reasons are looked at by name.
_HARMLESS = frozenset(
    "index delta text finish_reason native_finish_reason stop_reason matched_stop seed token_id "
    "content_filter_results content_filter_offsets".split()
)
_OF_DELTA = frozenset(("role", "content", "token_id"))


class ChatReader(EventReader):
    """Reads `chat.completion.chunk`s."""

    __slots__ = ()

    def _see(self, name: bytes, event: bytes, data: Span) -> Seen:
        if event.startswith(b"[DONE]", data[0]):
            return Seen(What.END)
        chunk = members(event, data)
        if _is_error(event, chunk):
            return Seen(What.ERROR)
        marks = tuple((mark, chunk[mark]) for mark in _MARKS if is_filled(event, chunk.get(mark)))
        try:
            what, texts = _see_choices(event, chunk)
        except UNREADABLE:
            what, texts = What.OTHER, ()
        if any(is_filled(event, chunk.get(each)) for each in _UNSAFE):
            what = What.OTHER
        return Seen(what, texts, marks)


def _is_error(event: bytes, chunk: dict[str, Span]) -> bool:
    kind, groq = chunk.get("object"), chunk.get("x_groq")
    if is_filled(event, chunk.get("error")) or (kind is not None and event[slice(*kind)] == b'"error"'):
        return True
    if groq is None or not event.startswith(b"{", groq[0]):
        return False
    return is_filled(event, members(event, groq).get("error"))


def _see_choices(event: bytes, chunk: dict[str, Span]) -> tuple[What, tuple[Span, ...]]:
    place = chunk.get("choices")
    if place is None:
        return What.OTHER, ()
    first = only_element(event, place)
    if first is None:
        return What.IDLE, ()
    choice = members(event, first)
    reason = choice.get("finish_reason")
    if is_filled(event, choice.get("error")) or (reason is not None and event[slice(*reason)] == b'"error"'):
        return What.ERROR, ()
    index, place = choice.get("index"), choice.get("delta")
    if not are_empty(event, choice, _HARMLESS) or (index is not None and event[slice(*index)] not in (b"0", b"null")):
        return What.OTHER, ()
    delta = members(event, place) if place is not None and is_filled(event, place) else {}
    texts = _texts(event, delta.get("content"), choice.get("text"))
    if texts is None or not are_empty(event, delta, _OF_DELTA):
        return What.OTHER, ()
    if is_filled(event, reason):
        return What.END, texts
    if texts:
        return What.TEXT, texts
    return (What.BEGIN if is_filled(event, delta.get("role")) else What.IDLE), ()


def _texts(event: bytes, content: Span | None, copy: Span | None) -> tuple[Span, ...] | None:
    """Where the text stands; None if it is no plain text, or its copy is another."""
    if content is None or not is_filled(event, content):
        return None if is_filled(event, copy) else ()
    text = within_quotes(event, content)
    if copy is None or not is_filled(event, copy):
        return (text,)
    return (text, within_quotes(event, copy)) if event[slice(*copy)] == event[slice(*content)] else None
