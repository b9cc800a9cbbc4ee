"""Answers that may show our credential again, and receipts that may.

Lives here: `SealedError` (a compressed error body, looked into before any of it goes out), `scrub`.
May not live here: what is hidden and how (catalog/mask), the head and the framing of an answer (answer).
How it works: an error body that comes compressed, as most do for a client that takes it, is held and read on the side.
If our credential is not in it, which is nearly always, it goes out byte for byte as it came; if it is, it goes out
decompressed and masked. What cannot be read (an unknown coding, a broken one, more than MOST) is not sent on: in its
place the client gets an error body of ours under the provider's status.
Doubted: while an error is held, its client sees nothing of it; it is short, and FIRST_BYTE was met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.catalog.mask import Mask
from proxy.outcome import Attempt, Receipt, Usage
from proxy.wire.head import Framing, ResponseHead
from proxy.wire.inflate import inflater

MOST: Final = 64 * 1024  # bytes of a compressed error body (DESIGN 5: as much of one is read)
_TOLD_ANEW: Final = (b"content-encoding", b"content-md5", b"content-digest", b"repr-digest", b"digest", b"etag")


class SealedError:
    """`instead`: a body of ours. `head_of` is set by the answer and makes the lines for its client; `new_head` are the
    lines that go out in place of those there are, if the body that goes out is not the provider's own."""

    __slots__ = ("head_of", "new_head", "_head", "_inflater", "_instead", "_mask", "_pieces", "_read", "_size")

    def __init__(self, mask: Mask, head: ResponseHead, coding: bytes, instead: bytes) -> None:
        self.head_of: Callable[[ResponseHead], bytes]
        self.new_head = b""
        self._head = head
        self._mask = mask
        self._inflater = inflater(coding)
        self._instead = instead
        self._pieces: list[bytes] = []  # as they came
        self._read: list[bytes] = []  # what they say
        self._size = 0

    def feed(self, data: bytes, is_last: bool) -> bytes | None:
        """None: nothing goes out yet. With `is_last` the whole body."""
        self._size += len(data)
        if self._inflater is not None and self._size <= MOST:
            self._pieces.append(data)
            self._read.append(self._inflater.feed(data))
        return self._body() if is_last else None

    def _body(self) -> bytes:
        raw, said = b"".join(self._pieces), b"".join(self._read)
        # In the raw bytes it stands behind the end of the coded ones, where no decoder looks.
        if self._inflater is None or self._inflater.is_broken or self._size > MOST or self._mask.is_in(raw):
            self._tell_anew(len(self._instead), b"application/json")
            return self._instead
        if not self._mask.is_in(said):
            return raw
        self._tell_anew(len(said), None)
        return self._mask.hide(said)

    def _tell_anew(self, size: int, kind: bytes | None) -> None:
        gone = _TOLD_ANEW if kind is None else (*_TOLD_ANEW, b"content-type")
        fields = [field for field in self._head.fields if field[0] not in gone]
        if kind is not None:
            fields.append((b"content-type", b"content-type", kind))
        head = self._head._replace(fields=fields, framing=Framing.LENGTH, length=size)
        self.new_head = self.head_of(head)


def scrub(receipt: Receipt, mask: Mask) -> None:
    """Hide what a provider may have put into those fields of a receipt that are its own words. All others are ours, the
    client's, or numbers. 0.5 us where there is nothing to hide."""
    usage = receipt.usage
    if len(receipt.attempts) > 1:
        receipt.attempts = [_scrubbed(attempt, mask) for attempt in receipt.attempts]
    billed = usage.billed if usage is not None else ()
    # One look at all of it: calls cost more here than the search.
    if not billed and not mask.may_be_in(f"{receipt.provider_request_id} {receipt.model_served} {receipt.detail}"):
        return
    receipt.provider_request_id = _hidden(mask, receipt.provider_request_id)
    receipt.model_served = _hidden(mask, receipt.model_served)
    receipt.detail = mask.hide_text(receipt.detail)
    _scrub_usage(usage, mask)


def _scrubbed(attempt: Attempt, mask: Mask) -> Attempt:
    _scrub_usage(attempt.usage, mask)
    if attempt.model_served is None or not mask.may_be_in(attempt.model_served):
        return attempt
    return attempt._replace(model_served=_hidden(mask, attempt.model_served))


def _scrub_usage(usage: Usage | None, mask: Mask) -> None:
    if usage is not None and usage.billed:
        usage.billed = tuple(part._replace(model=_hidden(mask, part.model)) for part in usage.billed)


def _hidden(mask: Mask, text: str | None) -> str | None:
    return None if text is None else mask.hide_text(text)
