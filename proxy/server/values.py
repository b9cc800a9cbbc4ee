"""What people write into variables -> values.

Lives here: sizes, lines of variables, lists of keys, limits by scope, what becomes of answers whose clients leave. May
not live here: which variable holds what (settings), what a key may be (policy.key_fields), files.
How it works: everything returns None, or sentences, where the text is something else; nothing repeats the text, which
may be a secret that stands in the wrong place, but the words of limits, which are short.
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
    """`ci=0123456789abcdef,web=...`: keys by name, and all that is wrong."""
    keys: dict[str, Secret] = {}
    problems: list[str] = []
    owners: dict[Secret, str] = {}
    for piece in re.split(r"[,\n]", text):
        name, equals, value = (part.strip() for part in piece.partition("="))
        if not piece.strip():
            continue
        if not equals or not is_key_name(name):
            problems.append("write name=key, separated by commas")  # without its "=", a piece may be the key itself
        elif name in keys:
            problems.append(f"there are two keys called {name}")
        elif not is_key_value(value):
            how = f"needs {LEAST_KEY} or more visible ASCII characters; make one with: {MAKE_KEY}"
            problems.append(f"the key of {name} {how}")
        elif Secret(value) in owners:
            problems.append(f"{owners[Secret(value)]} and {name} have the same key")
        else:
            keys[name] = Secret(value)
            owners[keys[name]] = name
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
            return f"says twice what to do for the key {name}"
        else:
            by_key[name] = policy
    return default, by_key


_SCOPE = re.compile(r"(all)|(key|model|provider)\s+(\S{1,256})")


def parse_limits(text: str) -> tuple[dict[str, Rules], list[str]]:
    """`all: rpm=600; key ci: rpm=60 20usd/month; model gpt-5: concurrent=4`: rules by scope, and all that is wrong."""
    found: dict[str, Rules] = {}
    problems: list[str] = []
    for piece in re.split(r"[;\n]", text):
        if not piece.strip():
            continue
        # Names of models may hold colons; behind that of a scope there is a blank.
        name, colon, line = piece.strip().partition(": ")
        scope = _SCOPE.fullmatch(name.strip())
        if not colon or scope is None:
            problems.append(
                f"{piece.strip()[:40]!r}: write all, key, model or provider, a name, a colon and its limits"
            )
            continue
        whole = scope[1] or f"{scope[2]} {scope[3]}"
        if whole in found:
            problems.append(f"{whole}: is said twice")
        try:
            found[whole] = parse_rules(line)
        except RulesError as error:
            problems += [f"{whole}: {problem}" for problem in error.problems]
    return found, problems
