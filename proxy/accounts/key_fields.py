"""What was said of a key -> columns of its row.

Lives here: `columns_of`, names, amounts. May not live here: which options there are (key_arguments), the store.
How it works: what was not said gives no column, and an empty text clears one. All that is wrong is said at once.
Nothing here repeats a value; a name that looks like one is refused without a word of it.
Doubted: providers are not looked up: what the server will have is in its environment, not in this one's.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from proxy.accounts.desk import Desk, Refusal
from proxy.ledger.period import ahead
from proxy.policy.rules import MICROS, RulesError, parse_rules
from proxy.server.values import LEAST_KEY, is_key_name, is_key_value, parse_policy

_MOST_TEXT = 256  # characters of an owner or of all tags: what a client's own tags are cut to
_MOST_LIST = 4096  # characters of a list: it is looked through at each request
_MOST_UID = 2**32 - 2
_VALUE = re.compile(r"lp-[A-Za-z0-9_-]{43}")
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def key_name(text: str, what: str = "key") -> str:
    """The name of a key or a group. Raises Refusal."""
    if _VALUE.fullmatch(text):
        raise Refusal("that is a key, and keys are called by their names: `llm-proxy keys list` shows them")
    if not is_key_name(text):
        raise Refusal(f"a {what}'s name has up to 64 letters, digits and . _ @ - and begins with a letter or a digit")
    return text


def columns_of(desk: Desk, arguments: argparse.Namespace) -> dict[str, Any]:
    """Columns and their values. Raises Refusal with all that is wrong."""
    found: dict[str, Any] = {}
    problems = []
    for option, (column, read) in _COLUMNS.items():
        said = getattr(arguments, option)
        if said is None:
            continue
        text = (",".join(said) if isinstance(said, list) else said).strip()
        try:
            found[column] = read(text, desk.now()) if text else _EMPTY.get(column)
        except ValueError as error:
            problems += [f"--{option}: {sentence}" for sentence in error.args]
    if problems:
        raise Refusal(*problems)
    return found


def limits_line(text: str) -> str:
    """A line of limits as it is kept: in the user's own words. Raises ValueError with a sentence for each problem."""
    try:
        parse_rules(text)
    except RulesError as error:
        raise ValueError(*error.problems) from None
    return " ".join(text.split())


def given_value(desk: Desk) -> str:
    """The value of a key that its user has chosen. Raises Refusal, which does not repeat it."""
    value = desk.line()
    if not is_key_value(value):
        raise Refusal(f"--value-from-stdin: a key has {LEAST_KEY} or more visible ASCII characters, in the first line")
    return value


def amounts(text: str) -> tuple[int, int]:
    """Microdollars and tokens that `0.05usd 1200tokens` means; what is not said is nothing. Raises Refusal."""
    words = [word for word in text.split() if not re.fullmatch(r"0+(\.0+)?(usd|tokens?)", word)]
    try:
        # The grammar of budgets, which has the same amounts.
        budgets = parse_rules(" ".join(f"{word}/total" for word in words)).budgets
    except RulesError:
        raise Refusal("--spent: write dollars, tokens or both, such as '0.05usd 1200tokens'") from None
    spent = {budget.unit == MICROS: budget.amount for budget in budgets}
    return spent.get(True, 0), spent.get(False, 0)


# --- single columns: ValueError with a sentence -----------------------------------------------------------------------


def _limits(text: str, now: float) -> str:
    return limits_line(text)


def _group(text: str, now: float) -> str:
    if not is_key_name(text):
        raise ValueError("is no name of a group")
    return text


def _text(text: str, now: float) -> str:
    if not text.isprintable() or len(text) > _MOST_TEXT:
        raise ValueError(f"may have up to {_MOST_TEXT} printable characters")
    return text


def _tags(text: str, now: float) -> str:
    tags = dict.fromkeys(tag.strip() for tag in _text(text, now).split(","))
    return ",".join(tag for tag in tags if tag)


def _models(text: str, now: float) -> str:
    words = text.split()
    if not all(map(str.isprintable, words)) or len(text) > _MOST_LIST:
        raise ValueError(f"may have up to {_MOST_LIST} printable characters: names with blanks between them")
    if any("," in word for word in words):
        raise ValueError("write blanks between the names, no commas")
    return " ".join(dict.fromkeys(words))


def _providers(text: str, now: float) -> str:
    words = text.split()
    if not all(map(_PROVIDER.fullmatch, words)) or len(text) > _MOST_LIST:
        raise ValueError("write names of providers with blanks between them, such as 'openai vllm'")
    return " ".join(dict.fromkeys(words))


def _disconnect(text: str, now: float) -> str:
    if parse_policy(text) is None:
        raise ValueError("write cancel, drain or drain:<seconds>")
    return text


def _expires(text: str, now: float) -> float:
    return ahead(text, now)


def _uid(text: str, now: float) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or int(text) > _MOST_UID:
        raise ValueError("write the number of a user, as `id -u` shows it")
    return int(text)


def _raw(text: str, now: float) -> int:
    return int(text)


_EMPTY = {"limits": ""}  # the other columns are NULL where there is nothing
_COLUMNS: dict[str, tuple[str, Callable[[str, float], Any]]] = {
    "limits": ("limits", _limits),
    "group": ("key_group", _group),
    "owner": ("owner", _text),
    "tag": ("tags", _tags),
    "models": ("models", _models),
    "providers": ("providers", _providers),
    "disconnect": ("disconnect", _disconnect),
    "expires": ("expires_at", _expires),
    "uid": ("uid", _uid),
    "raw": ("raw", _raw),
}
