from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects.body import Span
from proxy.dialects.resume_chat import ChatReader
from proxy.dialects.resume_event import (
    UNREADABLE,
    Seen,
    What,
    as_raw,
    as_units,
    members,
    only_element,
    rewritten,
    whole_events,
    within_quotes,
)
from tests.dialects.cost import DELTA

HALVES = st.sampled_from(["\ud83d", "\ude00", "\U0001f600", '"', "\\", "\n", "é", "a"])
TEXTS = st.lists(HALVES | st.characters(), max_size=12).map("".join)


@given(TEXTS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_text_is_compared_by_units_whatever_its_escapes(text: str, in_ascii: bool) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    whole = units.decode("utf-16-le", "surrogatepass")  # halves beside each other are one character there
    try:
        raw = json.dumps(text, ensure_ascii=in_ascii).encode()
    except UnicodeEncodeError:
        raw = json.dumps(text).encode()
    assert as_units(raw[1:-1]) == units
    assert json.loads(b'"%b"' % as_raw(units)) == whole


@given(TEXTS, TEXTS)
@settings(max_examples=300, deadline=None)
def test_pieces_of_raw_text_joined_are_the_joined_text(one: str, two: str) -> None:
    raw = json.dumps(one)[1:-1] + json.dumps(two)[1:-1]
    assert as_units(raw.encode()) == (one + two).encode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("blanks", [1, 2, 3])
def test_events_of_a_block_keep_all_bytes(end: bytes, blanks: int) -> None:
    events = [b"data: 1" + end + end * blanks, b": x" + end + end * blanks, b"event: a" + end + b"data: 2" + end + end]
    assert list(whole_events(b"".join(events))) == events
    assert list(whole_events(b"".join(events) + b"data: 3")) == [*events, b"data: 3"]
    assert list(whole_events(b"")) == []


@given(
    st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4) | st.none() | st.just([{"a": 1}])),
    st.sampled_from([(",", ":"), (" , ", " : ")]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_spans_are_exact(value: dict[str, object], separators: tuple[str, str], in_ascii: bool) -> None:
    text = b"data: " + json.dumps(value, separators=separators, ensure_ascii=in_ascii).encode() + b"  "
    found = members(text, (6, len(text)))
    assert {name: json.loads(text[slice(*span)]) for name, span in found.items()} == value


@pytest.mark.parametrize("text", [b'{"a":1,"a":2}', b'{"a":1,"\\u0061":2}', b"[1]", b"{", b"", b'{"a":1}{'])
def test_what_can_be_read_in_two_ways_is_not_read(text: bytes) -> None:
    with pytest.raises(UNREADABLE):
        members(text, (0, len(text)))


@pytest.mark.parametrize(
    ("text", "element"), [(b"[]", None), (b"[ ]", None), (b"[1]", b"1"), (b'[ {"a":[1]} ]', b'{"a":[1]}')]
)
def test_the_one_element_of_a_list(text: bytes, element: bytes | None) -> None:
    event = b"data: " + text + b" "
    span = only_element(event, (6, 6 + len(text)))
    assert (span and event[slice(*span)]) == element


@pytest.mark.parametrize("text", [b"[1,2]", b"{}", b"null", b'""'])
def test_several_elements_and_no_list(text: bytes) -> None:
    with pytest.raises(UNREADABLE):
        only_element(text, (0, len(text)))


@pytest.mark.parametrize("text", [b"1", b'"a\\q"', b'"a\nb"', b'"', b'"a"b"', b'"\\u12"', b"null"])
def test_no_string(text: bytes) -> None:
    with pytest.raises(UNREADABLE):
        within_quotes(text, (0, len(text)))


def test_edits_stand_in_any_order() -> None:
    edits: list[tuple[Span, bytes]] = [((0, 1), b"AAA"), ((4, 5), b""), ((2, 3), b"C")]
    assert rewritten(b"abcdef", edits) == rewritten(b"abcdef", edits[::-1]) == b"AAAbCdf"


def taught() -> ChatReader:
    reader = ChatReader()
    assert reader.read(DELTA).what is What.TEXT
    return reader


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (b'"content":"x"', b"x"),
        (b'"content":""', b""),
        (b'"content":"\\"\\\\\\u00e9"', b'\\"\\\\\\u00e9'),
        ('"content":"é"'.encode(), "é".encode()),
        (b'"content":"\xff"', None),
        (b'"content":"a\x01"', None),
        (b'"content":"\\q"', None),
        (b'"content":null', None),
        (b'"content":"x","refusal":"y"', None),
        (b'"content":"x', None),
        (b'"content":"x\\"', None),
    ],
)
def test_the_usual_event_is_known_by_its_bytes(new: bytes, text: bytes | None) -> None:
    event = DELTA.replace(b'"content":" hello"', new)
    assert taught().usual_text(event) == text
    if text:
        seen = ChatReader().read(event)
        assert [event[slice(*span)] for span in seen.texts] == [text]
    elif text is None:
        assert ChatReader().read(event).what is not What.TEXT


@pytest.mark.parametrize(
    ("old", "new", "is_usual"),
    [
        (b'"a1B"', b'"a1Bcccc"', True),
        (b'"a1B"', b'""', True),
        (b'"a1B"}', b'"a1B"}  ', True),
        (b"\n\n", b"\r\n\r\n", True),
        (b"\n\n", b"", True),
        (b'"a1B"}', b'"a1B","error":"x"}', False),
        (b'"a1B"', b'"a\\"B"', False),
        (b'"finish_reason":null', b'"finish_reason":"stop"', False),
        (b'"usage":null', b'"usage":{}', False),
        (b"\n\n", b"\n\n" + DELTA, False),
        (b"\n\n", b"\ndata: x\n\n", False),
        (b'"id":"chat', b'"id":"char', False),
    ],
)
def test_padding_may_differ_and_nothing_else(old: bytes, new: bytes, is_usual: bool) -> None:
    assert (taught().usual_text(DELTA.replace(old, new, 1)) is not None) is is_usual


def test_nothing_is_usual_before_one_was_read() -> None:
    assert ChatReader().usual_text(DELTA) is None
    large = DELTA.replace(b"hello", b"h" * 20_000)
    reader = ChatReader()
    assert reader.read(large).what is What.TEXT and reader.usual_text(large) is None, "too large to keep"


@pytest.mark.parametrize(
    ("event", "what"),
    [
        (b"", What.IDLE),
        (b": comment\n\n", What.IDLE),
        (b"retry: 10\nid: 7\n\n", What.IDLE),
        (b"event: chunk\n\n", What.OTHER),
        (b"data\n\n", What.OTHER),
        (b"data: {\n\n", What.OTHER),
        (b"data: \xff\n\n", What.OTHER),
        (b"event: error\ndata: {}\n\n", What.ERROR),
        (b'error: {"message":"x"}\n\n', What.ERROR),
        (b'{"error":{"message":"x"}}\n\n', What.ERROR),
        (DELTA.removeprefix(b"data: "), What.OTHER),
        (DELTA.replace(b'"choices"', b'\ndata: "choices"'), What.OTHER),
        (b"retry: 1\n" + DELTA.removeprefix(b"data: "), What.OTHER),
        (b": " + DELTA[:-1] + DELTA, What.OTHER),
        (b"id: 1\n" + DELTA, What.TEXT),
        (DELTA.replace(b"data: ", b"data:"), What.TEXT),
        (DELTA.replace(b"\n", b"\r\n"), What.TEXT),
        (DELTA.replace(b" hello", b"\\ud83d"), What.TEXT),
        (DELTA.replace(b'"created":1700000000', b'"created":%b1%b' % (b"[" * 5000, b"]" * 5000)), What.OTHER),
    ],
)
def test_any_event_is_read(event: bytes, what: What) -> None:
    assert ChatReader().read(event).what is what


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_reading_never_raises(data: bytes) -> None:
    for event in (data, b"data: " + data, b"data: {" + data + b"}\n\n", DELTA.replace(b"hello", data)):
        assert isinstance(ChatReader().read(event), Seen)
