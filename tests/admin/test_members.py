"""What is not named is refused by its name, and nothing but JSON is read."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.admin.members import Form, Member, Refused, is_json, read_body, read_query
from proxy.outcome import Kind

MEMBERS = (
    Member("name", Form.TEXT, "", is_needed=True),
    Member("tags", Form.TEXTS, "", is_cleared=True),
    Member("count", Form.NUMBER, ""),
    Member("raw", Form.FLAG, ""),
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"name":"a"}', {"name": "a"}),
        (b'{"name":"","tags":null}', {"name": "", "tags": None}),
        (b'{"name":"a","tags":["x"],"count":0,"raw":false}', {"name": "a", "tags": ["x"], "count": 0, "raw": False}),
    ],
)
def test_what_is_right_is_read(body: bytes, expected: dict[str, Any]) -> None:
    assert read_body(body, MEMBERS) == expected


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "name is missing."),
        (b"{", "The body is not valid JSON."),
        (b"[]", "The body must be a JSON object."),
        (b'{"name":"a","nmae":1,"x":2}', "member not known: nmae, x (there are: name, tags, count, raw)."),
        (b'{"name":null}', "name may not be null."),
        (b'{"name":1}', "name must be a string."),
        (b'{"name":"a","tags":"x"}', "tags must be a list of strings."),
        (b'{"name":"a","tags":[1]}', "tags must be a list of strings."),
        (b'{"name":"a","count":true}', "count must be a whole number that is not negative."),
        (b'{"name":"a","count":-1}', "count must be a whole number that is not negative."),
        (b'{"name":"a","count":1e3}', "count must be a whole number that is not negative."),
        (b'{"name":"a","count":1000000000000001}', "count must be a whole number that is not negative."),
        (b'{"name":"a","raw":1}', "raw must be true or false."),
        (b'{"tags":1,"raw":0}', "name is missing; tags must be a list of strings; raw must be true or false."),
    ],
)
def test_what_is_wrong_is_said_all_at_once(body: bytes, sentence: str) -> None:
    with pytest.raises(Refused) as refused:
        read_body(body, MEMBERS)
    assert refused.value.kind is Kind.BAD_REQUEST
    assert sorted(str(refused.value)[:-1].split("; ")) == sorted(sentence[:-1].split("; "))


def test_a_body_where_none_is_taken_is_refused() -> None:
    assert read_body(b" ", ()) == read_body(b"{}", ()) == {}
    with pytest.raises(Refused, match="member not known: a \\(it takes none\\)"):
        read_body(b'{"a":1}', ())


def test_a_query_is_read_by_the_same_list() -> None:
    assert read_query("name=a%20b&count=3&raw=true", MEMBERS) == {"name": "a b", "count": "3", "raw": "true"}
    assert read_query("", MEMBERS) == {}


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("x=1", "parameter not known: x"),
        ("name=a&name=b", "name is said twice"),
        ("count=-1", "count must be a whole number"),
        ("count=", "count must be a whole number"),
        ("count=%D9%A3", "count must be a whole number"),
        ("raw=1", "raw must be true or false"),
        ("&".join(["name=a"] * 101), "The query cannot be read"),
        ("name=%ff", "The query cannot be read"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(query: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        read_query(query, MEMBERS)


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/jsonx", False),
        (b"text/plain", False),
        (b"application/x-www-form-urlencoded", False),
        (b"", False),
        (None, False),
    ],
)
def test_only_json_is_json(media_type: bytes | None, expected: bool) -> None:
    assert is_json(media_type) is expected
