"""What a request may say: the members of its body, the parameters of its query.

Lives here: `Member`, `About` (what a route takes and gives), reading both (`read_body`, `read_query`), `Refused`. May
not live here: what the members mean (keys, limits, spending), the document that is made of them (openapi).
How it works: a route names its members, and both reading and the OpenAPI document go by that one list. Whatever it does
not name is refused by its name, so that nobody takes a typing error for a change.
Only `application/json` is taken as a body, also where there is none: a form of a web page cannot send that.
Doubted: where a member stands twice in a body, the last one counts (as in most readers of JSON).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from proxy.outcome import Kind

_MOST = 10**15  # of any number: within 64 bits, whatever it is added to


class Refused(Exception):
    """The request cannot be done: `kind` gives the status, the message is a sentence."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Form(Enum):
    """How a member is written in JSON."""

    TEXT = "string"
    TEXTS = "array"  # of strings
    NUMBER = "integer"  # not negative
    FLAG = "boolean"


class Member(NamedTuple):
    """`is_cleared`: it may be null, which takes away what there was."""

    name: str
    form: Form
    what: str
    is_needed: bool = False
    is_cleared: bool = False


class About(NamedTuple):
    """What a route does, takes and gives. `answer`: the members of what it answers with, if all goes well."""

    what: str
    answer: tuple[str, ...] = ()
    query: tuple[Member, ...] = ()
    body: tuple[Member, ...] = ()
    status: int = 200


def is_json(media_type: bytes | None) -> bool:
    return media_type is not None and media_type.partition(b";")[0].strip().lower() == b"application/json"


def read_body(body: bytes, members: tuple[Member, ...]) -> dict[str, Any]:
    """What was said. Raises Refused."""
    try:
        found = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError:
        raise Refused(Kind.BAD_REQUEST, "The body is not valid JSON.") from None
    if not isinstance(found, dict):
        raise Refused(Kind.BAD_REQUEST, "The body must be a JSON object.")
    problems = _unknown(found, members, "member")
    for member in members:
        if member.name in found:
            problem = _problem(found[member.name], member)
            problems += [f"{member.name} {problem}"] if problem else []
        elif member.is_needed:
            problems.append(f"{member.name} is missing")
    if problems:
        raise Refused(Kind.BAD_REQUEST, "; ".join(problems) + ".")
    return found


def read_query(query: str, parameters: tuple[Member, ...]) -> dict[str, str]:
    """What was asked for. Raises Refused."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise Refused(Kind.BAD_REQUEST, "The query cannot be read.") from None
    found = dict(pairs)
    problems = _unknown(found, parameters, "parameter")
    problems += [f"{name} is said twice" for name in found if [each for each, _ in pairs].count(name) > 1]
    for parameter in parameters:
        text = found.get(parameter.name, "0" if parameter.form is Form.NUMBER else "false")
        if parameter.form is Form.NUMBER and (not text.isascii() or not text.isdecimal() or len(text) > 15):
            problems.append(f"{parameter.name} must be a whole number")
        if parameter.form is Form.FLAG and text not in ("true", "false"):
            problems.append(f"{parameter.name} must be true or false")
    if problems:
        raise Refused(Kind.BAD_REQUEST, "; ".join(problems) + ".")
    return found


def _unknown(found: Mapping[str, Any], members: tuple[Member, ...], what: str) -> list[str]:
    known = [member.name for member in members]
    unknown = [name[:40] for name in found if name not in known]
    if not unknown:
        return []
    there = f"there are: {', '.join(known)}" if known else "it takes none"
    return [f"{what} not known: {', '.join(unknown)} ({there})"]


def _problem(value: Any, member: Member) -> str:
    """What is wrong with it, to stand behind its name."""
    if value is None:
        return "" if member.is_cleared else "may not be null"
    match member.form:
        case Form.TEXT:
            return "" if isinstance(value, str) else "must be a string"
        case Form.TEXTS:
            is_right = isinstance(value, list) and all(isinstance(each, str) for each in value)
            return "" if is_right else "must be a list of strings"
        case Form.FLAG:
            return "" if isinstance(value, bool) else "must be true or false"
        case Form.NUMBER:
            is_right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
            return "" if is_right else "must be a whole number that is not negative"
