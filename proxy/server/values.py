"""What people write into variables -> values.

Lives here: sizes, lines of variables, lists of keys, limits by scope, what becomes of answers whose clients leave. May
not live here: which variable holds what (settings), what a key may be (policy.key_fields), files.
How it works: everything returns None, or sentences, where the text is something else; nothing repeats the text, which
may be a secret that stands in the wrong place.
"""

from __future__ import annotations

import re

from proxy.catalog.secret import Secret
from proxy.policy.key_fields import LEAST_KEY, is_key_name, is_key_value, parse_policy
from proxy.policy.keys import CANCEL, Disconnect
from proxy.policy.rules import Rules, RulesError, parse_rules

MAKE_KEY = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


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


def parse_keys(text: str) -> tuple[dict[str, Secret], list[str]]:
    """`ci=0123456789abcdef,web=...`: keys by name, and all that is wrong. Not even names are repeated: what is turned
    round, or has no "=", is the key itself."""
    keys: dict[str, Secret] = {}
    problems: list[str] = []
    numbers: dict[Secret, int] = {}
    for number, piece in enumerate(re.split(r"[,\n]", text), 1):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not piece.strip():
            continue
        if not equals or not is_key_name(name):
            problems.append("write name=key, separated by commas")
        elif name in keys:
            problems.append(f"key {number} has the name of an earlier one")
        elif not is_key_value(value):
            how = f"needs {LEAST_KEY} or more visible ASCII characters; make one with: {MAKE_KEY}"
            problems.append(f"key {number} {how}")
        elif Secret(value) in numbers:
            problems.append(f"{numbers[Secret(value)]} and {number} are the same key")
        else:
            keys[name] = Secret(value)
            numbers[keys[name]] = number
    return keys, problems


def parse_disconnect(text: str) -> tuple[Disconnect, dict[str, Disconnect]] | str:
    """`drain:30,batch=cancel`: what becomes of an answer whose client leaves, and for single keys what else; or what is
    wrong with the text."""
    default, by_key = CANCEL, {}
    for number, piece in enumerate(text.split(",")):
        name, equals, word = (part.strip() for part in piece.rpartition("="))
        policy = parse_policy(word)
        if policy is None or (equals and not name) or (number and not equals):
            return "write cancel, drain or drain:<seconds>, and for single keys name=drain:30, separated by commas"
        if not equals:
            default = policy
        elif name in by_key:
            return "says twice what to do for the same key"
        else:
            by_key[name] = policy
    return default, by_key


_SCOPE = re.compile(r"(all)|(key|model|provider)\s+(\S{1,256})")


def parse_limits(text: str) -> tuple[dict[str, Rules], list[str]]:
    """`all: rpm=600; key ci: rpm=60 20usd/month; model gpt-5: concurrent=4`: rules by scope, and all that is wrong."""
    found: dict[str, Rules] = {}
    problems: list[str] = []
    for number, piece in enumerate(re.split(r"[;\n]", text), 1):
        if not piece.strip():
            continue
        # Names of models may hold colons; behind that of a scope there is a blank.
        name, colon, line = f"{piece.strip()} ".partition(": ")
        scope = _SCOPE.fullmatch(name.strip())
        if not colon or scope is None:
            problems.append(f"entry {number}: write all, key, model or provider, a name, a colon and its limits")
            continue
        whole = scope[1] or f"{scope[2]} {scope[3]}"
        if whole in found:
            problems.append(f"entry {number}: an earlier one is for the same")
        found[whole] = Rules()
        try:
            found[whole] = parse_rules(line)
        except RulesError as error:
            problems += [f"entry {number}: {problem}" for problem in error.numbered]
    return found, problems
