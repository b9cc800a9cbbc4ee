"""What people write into variables -> values.

Lives here: sizes, lines of variables, what becomes of answers whose clients leave. May not live here: which variable
holds what (settings), files.
How it works: everything returns None, or one sentence, where the text is something else; nothing repeats the text,
which may be a secret that stands in the wrong place.
"""

from __future__ import annotations

import re

from proxy.relay.options import CANCEL, Disconnect


def parse_size(text: str, *, letters: bool = True) -> int | None:
    """A whole number, with k, M or G for powers of 1024 if `letters`. None if it is none."""
    found = re.fullmatch(r"(\d{1,15})([kKmMgG]?)[bB]?" if letters else r"(\d{1,15})()", text, re.ASCII)
    if found is None:
        return None
    return int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()]


def parse_env_file(text: str) -> tuple[dict[str, str], list[int]]:
    """NAME=value by line, and the numbers of lines that are something else. Blank lines, `#` lines, a leading `export`
    and one pair of quotes around a value are understood; nothing is expanded."""
    found: dict[str, str] = {}
    bad_lines: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name) is None:
            bad_lines.append(number)
            continue
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value
    return found, bad_lines


def parse_disconnect(text: str) -> tuple[Disconnect, dict[str, Disconnect]] | str:
    """`drain:30,batch=cancel`: what becomes of an answer whose client leaves, and for single keys what else; or what is
    wrong with the text."""
    default, by_key = CANCEL, {}
    for number, piece in enumerate(text.split(",")):
        name, equals, word = (part.strip() for part in piece.rpartition("="))
        policy = _parse_policy(word)
        if policy is None or (equals and not name) or (number and not equals):
            return "write cancel, drain or drain:<seconds>, and for single keys name=drain:30, separated by commas"
        if not equals:
            default = policy
        elif name in by_key:
            return "says twice what to do for the same key"
        else:
            by_key[name] = policy
    return default, by_key


def _parse_policy(word: str) -> Disconnect | None:
    if word == "cancel":
        return CANCEL
    if word == "drain":
        return Disconnect(drains=True)
    found = re.fullmatch(r"drain:(\d{1,6}(?:\.\d{1,3})?)", word, re.ASCII)
    return None if found is None else Disconnect(True, float(found[1]))
