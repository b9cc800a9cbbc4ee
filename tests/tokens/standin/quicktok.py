"""Imitates the tokenizer where there are no wheels of it (Python 3.14, Macs with Intel processors), so that no test has
to be skipped there: cuts text into words as o200k does and takes four bytes of each for a token."""

from __future__ import annotations

import re

_WORDS = re.compile(r"[^\r\n\w]?[^\W\d_]+(?:'\w+)?|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


class Encoding:
    def count(self, text: str) -> int:
        try:
            return sum(-(-len(word.encode()) // 4) for word in _WORDS.findall(text))
        except UnicodeEncodeError as error:
            raise TypeError("incompatible function arguments") from error


def get_encoding(name: str) -> Encoding:
    assert name == "o200k_base"
    return Encoding()
