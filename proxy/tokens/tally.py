"""Exact counts of text that comes in pieces.

Lives here: `Tally`, for one stream.
May not live here: the tokenizer (it is passed in), where text is in bytes (dialects).
How it works: a piece cannot be counted alone, since a token may reach into the next one (4 characters a piece: 86 % too
many, WIRE 11). So the end of the text waits, and what is before it is counted: up to a place where a token must end
whatever follows. Of these there are two, by the pattern with which o200k cuts text into words: a blank between a
non-blank and a letter belongs to the letter, and a letter or digit is never in one word with the mark behind it.
Doubted: text without such a place (base64, Thai, Chinese without marks) is cut after 4,096 characters all the same, at
an error of one token at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.dialects.text import MAX_CHANNELS, REST

_LONGEST_TAIL = 4096  # characters of one channel that wait
_MOST_HELD = 4 * _LONGEST_TAIL  # of all channels of a stream together
# Greedy, so that the last place is found, from the end. `[^\W_]` is a letter or digit; apostrophes are not among the
# marks, for 's and 'll belong to the letters before them.
_DECIDED = re.compile(r".*(?:\S(?= [A-Za-z])|[^\W_](?=[,.;:!?，。、；：！？]))", re.DOTALL)


class Tally:
    """How many tokens the text of one stream has. `count` counts a whole text."""

    __slots__ = ("_count", "_held", "_tails", "_tokens")

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._tokens = 0
        self._tails: dict[str, str] = {}  # the undecided end of each channel
        self._held = 0  # characters in them

    def add(self, texts: dict[str, str]) -> None:
        """More text, by channel."""
        for channel, text in texts.items():
            if channel not in self._tails and len(self._tails) >= MAX_CHANNELS:
                channel = REST
            before = self._tails.get(channel, "")
            tail = self._without_decided(before + text)
            self._tails[channel] = tail
            self._held += len(tail) - len(before)
        if self._held > _MOST_HELD:
            self._flush()

    def total(self) -> int:
        """Tokens of all there was. Text that is added afterwards begins a new token."""
        self._flush()
        return self._tokens

    def _without_decided(self, text: str) -> str:
        decided = _DECIDED.match(text)
        end = decided.end() if decided else 0
        if len(text) - end > _LONGEST_TAIL:
            end = len(text)
        self._tokens += self._count(text[:end])
        return text[end:]

    def _flush(self) -> None:
        self._tokens += sum(map(self._count, self._tails.values()))
        self._tails = dict.fromkeys(self._tails, "")
        self._held = 0
