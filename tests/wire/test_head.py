"""Which fields travel."""

from __future__ import annotations

import pytest

from proxy.wire.head import HOP_BY_HOP, Field, Framing, RequestHead, connection_tokens, end_to_end, joined


def fields_of(*pairs: tuple[bytes, bytes]) -> list[Field]:
    return [(name.lower(), name, value) for name, value in pairs]


def values_of(fields: list[Field]) -> dict[bytes, bytes]:
    return {lower: value for lower, _, value in reversed(fields)}


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (b"", set()),
        (b",", set()),
        (b" , ,\t", set()),
        (b"close", {b"close"}),
        (b"Close", {b"close"}),
        (b"a,b", {b"a", b"b"}),
        (b" a ,\tb\t,, C , a", {b"a", b"b", b"c"}),
        (b"a b", {b"a b"}),
        (b"a\xa0", {b"a\xa0"}),  # no blank of HTTP's
        (b"a\x0b", {b"a\x0b"}),
    ],
)
def test_options_of_a_connection(value: bytes, tokens: set[bytes]) -> None:
    assert connection_tokens(value) == tokens


def test_all_values_of_a_name() -> None:
    fields = fields_of((b"A", b"1"), (b"B", b"2"), (b"a", b""), (b"a", b"3, 4"))
    assert joined(fields, b"a") == b"1,,3, 4"
    assert joined(fields, b"c") == b""


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | {b"content-length", b"host"}))
def test_what_never_travels(name: bytes) -> None:
    fields = fields_of((b"A", b"1"), (name.title(), b"v"), (name.upper(), b"w"), (b"Z", b"2"))
    travelling, _ = end_to_end(fields, values_of(fields))
    assert travelling == fields_of((b"A", b"1"), (b"Z", b"2"))


def test_what_a_connection_names_does_not_travel() -> None:
    fields = fields_of((b"A", b"1"), (b"Connection", b"B, close"), (b"b", b"2"), (b"c", b"3"), (b"connection", b"c"))
    assert end_to_end(fields, values_of(fields)) == (fields_of((b"A", b"1")), {b"b", b"close", b"c"})


def test_without_a_connection_all_else_travels_as_it_came() -> None:
    fields = fields_of((b"B", b"1"), (b"a", b""), (b"B", b"1"), (b"b", b"2"))
    assert end_to_end(fields, values_of(fields)) == (fields, frozenset())


def test_a_head_answers_by_name() -> None:
    head = RequestHead(b"GET", b"/", b"", b"1.1", b"x", [], {b"a": b"1"}, Framing.NONE, 0, True, False)
    assert (head.get(b"a"), head.get(b"b")) == (b"1", None)
