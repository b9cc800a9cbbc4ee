"""Secrets that come back: hidden in the bytes that somebody else sent.

Lives here: `Mask` (which values, in which forms), `MaskedBody` (the same over the reads of one body).
May not live here: whose answers are looked at, and when (relay).
How it works: each byte of a value that is found becomes `*`, so that lengths and framing stay true and bytes without it
are untouched. Over two reads, what could be the beginning of a value is held back, less than the longest value is long.
A value is looked for as it goes over the wire, without its scheme, and as a JSON text or a URL would write it; of Basic
credentials the password, too.
Doubted: a value of less than 8 characters is not looked for: "ollama" or "none" stands in many honest answers, and
hiding it would break them. Who sends a value back in pieces, reversed or encoded in a way of his own is not caught;
this is against carelessness, and a provider who means harm has the credential anyway.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import AnyStr, NoReturn
from urllib.parse import quote

from proxy.catalog.secret import Secret

LEAST = 8  # characters of a value that is looked for


class Mask:
    """Hides `secrets`. Falsy if there is nothing to look for.

    is_in(data)       whether there is anything to hide in it
    may_be_in(text)   the same of a text that may be cut off, as a quick look: False is sure
    """

    __slots__ = ("is_in", "may_be_in", "_tell")

    def __init__(self, secrets: Iterable[Secret]) -> None:
        forms = {form for secret in secrets for form in _forms(secret.reveal())}
        values = sorted({form.encode("utf-8", "surrogateescape") for form in forms if len(form) >= LEAST})
        starts = tuple({value[:LEAST].decode("latin-1") for value in values})
        # As in Secret no attribute shows the values. Asked of each answer, so these are functions of their own and not
        # methods that ask `_tell`: 0.15 us instead of 0.35.
        self._tell: Callable[[], list[bytes]] = lambda: values
        self.is_in: Callable[[bytes], bool] = _search(values)
        self.may_be_in: Callable[[str], bool] = _search(starts)

    def __bool__(self) -> bool:
        return bool(self._tell())

    def __repr__(self) -> str:
        return f"Mask({len(self._tell())} values)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Mask cannot be copied or pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Mask cannot be copied or pickled")

    def hide(self, data: bytes) -> bytes:
        """`data` without the values; the same object if it has none."""
        return bytes(self.hide_in(data, bytearray(data))) if self.is_in(data) else data

    def hide_in(self, data: bytes, shown: bytearray) -> bytearray:
        """Write the stars for `data` into `shown`, which is as long. Values may overlap."""
        for value in self._tell():
            at = data.find(value)
            while at >= 0:
                shown[at : at + len(value)] = b"*" * len(value)
                at = data.find(value, at + 1)
        return shown

    def begun(self, data: bytes) -> int:
        """The number of bytes at the end of `data` that could be the beginning of a value."""
        return max((_overlap(data, value) for value in self._tell()), default=0)

    def hide_text(self, text: str) -> str:
        """`text`, which may be cut off, without the values and without a longer beginning of one at its end."""
        data = text.encode("utf-8", "surrogateescape")
        shown = self.hide_in(data, bytearray(data))
        cut = self.begun(data)
        if cut >= LEAST:
            shown[-cut:] = b"*" * cut
        return text if shown == data else shown.decode("utf-8", "replace")


class MaskedBody:
    """One body, read by read."""

    __slots__ = ("_mask", "_raw", "_shown")

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        # What is held back: as it came, and as it will be shown (it may hold the end of another value).
        self._raw = b""
        self._shown = b""

    def feed(self, data: bytes, is_last: bool) -> bytes:
        """What may go out now. `is_last`: nothing follows, so nothing is held back."""
        raw = self._raw + data
        shown = self._mask.hide_in(raw, bytearray(self._shown + data))
        end = len(raw) if is_last else len(raw) - self._mask.begun(raw)
        self._raw, self._shown = raw[end:], bytes(shown[end:])
        return bytes(shown[:end])


def _search(wanted: Sequence[AnyStr]) -> Callable[[AnyStr], bool]:
    def is_in(text: AnyStr) -> bool:
        for each in wanted:  # noqa: SIM110 (any() and its generator take three times as long)
            if each in text:
                return True
        return False

    return is_in


def _overlap(data: bytes, value: bytes) -> int:
    for size in range(min(len(value) - 1, len(data)), 0, -1):
        if data.endswith(value[:size]):
            return size
    return 0


def _forms(value: str) -> Iterator[str]:
    """How `value`, that of a header field, may come back."""
    scheme, _, rest = value.partition(" ")
    plain = [rest if rest and " " not in rest else value]
    if scheme.lower() == "basic":
        plain += _basic(rest)
    for each in plain:
        yield each
        written = json.dumps(each)[1:-1]
        yield written
        yield written.replace("/", "\\/")  # as PHP writes it
        yield quote(each, safe="", errors="surrogateescape")


def _basic(encoded: str) -> list[str]:
    """The pair in it, and its password."""
    try:
        pair = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return []
    return [pair, pair.partition(":")[2]]
