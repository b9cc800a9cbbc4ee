"""What may be said of a key, and what is kept of it.

Lives here: names and values that a key may have, `read_fields` (texts -> columns of its row), `parse_policy`. May not
live here: who says it (accounts by options, admin by JSON), the store, a clock: `ahead` is handed in.
How it works: every field comes as a text, and an empty one clears it; what was not said gives no column. All that is
wrong is said at once. Nothing here repeats a value; a name that looks like one is refused without a word of it.
Doubted: providers are not looked up: the key may be there before its provider is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from proxy.policy.keys import CANCEL, Disconnect
from proxy.policy.rules import RulesError, parse_rules

# 16 random letters and digits are 95 bits; what people invent is shorter.
LEAST_KEY: Final = 16
MOST_TEXT: Final = 256  # characters of an owner or of all tags: what a client's own tags are cut to
MOST_LIST: Final = 4096  # characters of a list: it is looked through at each request
_MOST_UID: Final = 2**32 - 2
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_VALUE: Final = re.compile(r"[\x21-\x7e]+")
_MADE_HERE: Final = re.compile(r"lp-[A-Za-z0-9_-]{43}")
_PROVIDER: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")

Ahead = Callable[[str], float]
"""The moment to come (seconds since the epoch) that a text means. Raises ValueError with a sentence."""


class FieldsError(ValueError):
    """`problems`: the field, and a sentence to stand behind its name, for each thing that is wrong."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field} {sentence}" for field, sentence in problems))
        self.problems = problems


def is_key_name(text: str) -> bool:
    """Whether a key, or a group of keys, may be called so: logs, tables and metrics show it as it is."""
    return _NAME.fullmatch(text) is not None


def is_key_value(text: str) -> bool:
    """Whether it may be a key: hard enough to guess, and any header field can carry it."""
    return len(text) >= LEAST_KEY and _VALUE.fullmatch(text) is not None


def name_problem(text: str, what: str = "key") -> str | None:
    """Why a key or a group (`what`) cannot be called so, as a sentence."""
    if _MADE_HERE.fullmatch(text):
        return "that is a key, and keys are called by their names: `llm-proxy keys list` shows them"
    if not is_key_name(text):
        return f"a {what}'s name has up to 64 letters, digits and . _ @ - and begins with a letter or a digit"
    return None


def read_fields(said: Mapping[str, str], ahead: Ahead) -> dict[str, Any]:
    """Columns and their values. Raises FieldsError."""
    found: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for field, (column, read) in FIELDS.items():
        if field not in said:
            continue
        text = said[field].strip()
        try:
            if not text:
                found[column] = _EMPTY.get(column)
            else:
                found[column] = ahead(text) if read is None else read(text)
        except ValueError as error:
            problems += [(field, sentence) for sentence in error.args]
    if problems:
        raise FieldsError(problems)
    return found


def limits_line(text: str) -> str:
    """A line of limits as it is kept: in the user's own words. Raises ValueError with a sentence for each problem."""
    try:
        parse_rules(text)
    except RulesError as error:
        raise ValueError(*error.problems) from None
    return " ".join(text.split())


def parse_policy(word: str) -> Disconnect | None:
    """`cancel`, `drain` or `drain:<seconds>`; None: it is something else."""
    if word == "cancel":
        return CANCEL
    if word == "drain":
        return Disconnect(drains=True)
    found = re.fullmatch(r"drain:(\d{1,6}(?:\.\d{1,3})?)", word, re.ASCII)
    return None if found is None else Disconnect(True, float(found[1]))


# --- single fields: ValueError with a sentence ------------------------------------------------------------------------


def _group(text: str) -> str:
    if not is_key_name(text):
        raise ValueError("is no name of a group")
    return text


def _text(text: str) -> str:
    if not text.isprintable() or len(text) > MOST_TEXT:
        raise ValueError(f"may have up to {MOST_TEXT} printable characters")
    return text


def _tags(text: str) -> str:
    tags = dict.fromkeys(tag.strip() for tag in _text(text).split(","))
    return ",".join(tag for tag in tags if tag)


def _models(text: str) -> str:
    words = text.split()
    if not all(map(str.isprintable, words)) or len(text) > MOST_LIST:
        raise ValueError(f"may have up to {MOST_LIST} printable characters: names with blanks between them")
    if any("," in word for word in words):
        raise ValueError("write blanks between the names, no commas")
    return " ".join(dict.fromkeys(words))


def _providers(text: str) -> str:
    words = text.split()
    if not all(map(_PROVIDER.fullmatch, words)) or len(text) > MOST_LIST:
        raise ValueError("write names of providers with blanks between them, such as 'openai vllm'")
    return " ".join(dict.fromkeys(words))


def _disconnect(text: str) -> str:
    if parse_policy(text) is None:
        raise ValueError("write cancel, drain or drain:<seconds>")
    return text


def _uid(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or int(text) > _MOST_UID:
        raise ValueError("write the number of a user, as `id -u` shows it")
    return int(text)


def _raw(text: str) -> int:
    return int(text)


_EMPTY: Final = {"limits": ""}  # the other columns are NULL where there is nothing
# By field: the column, and what reads its text (None: `ahead`).
FIELDS: dict[str, tuple[str, Callable[[str], Any] | None]] = {
    "limits": ("limits", limits_line),
    "group": ("key_group", _group),
    "owner": ("owner", _text),
    "tags": ("tags", _tags),
    "models": ("models", _models),
    "providers": ("providers", _providers),
    "disconnect": ("disconnect", _disconnect),
    "expires_at": ("expires_at", None),
    "uid": ("uid", _uid),
    "raw": ("raw", _raw),
}
