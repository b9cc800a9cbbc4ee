"""Keys: found by digest, read from every carrier, taken out of queries byte for byte."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.secret import Secret
from proxy.policy.keys import (
    AuthMode,
    Key,
    KeyRing,
    digest_of,
    fingerprint,
    presented,
    presented_values,
    strip_key,
)
from proxy.policy.limits import FOREVER
from tests.policy.heads import head

VALUE = "sk-proxy-0123456789abcdef"


def test_a_ring_finds_a_key_by_its_value_only() -> None:
    ring = KeyRing({"alice": Secret(VALUE)}, AuthMode.KEYS)
    found = ring.find(VALUE.encode())
    assert found is not None
    assert found.key.name == "alice"
    assert ring.find(b"alice") is None
    assert ring.find(VALUE.encode() + b" ") is None
    assert ring.find(b"\xff\x00") is None
    assert len(ring) == 1


def test_no_key_shows_in_a_ring() -> None:
    ring = KeyRing({"alice": Secret(VALUE)}, AuthMode.KEYS)
    assert VALUE not in repr(ring)
    assert VALUE not in repr(ring.find(VALUE.encode()))


def test_what_went_to_another_key_stays_there_when_its_first_one_goes() -> None:
    ring = KeyRing({}, AuthMode.KEYS)
    digest = digest_of(b"value")
    ring.put(Key("a", uid=7), {digest: FOREVER})
    ring.put(Key("b", uid=7), {digest: FOREVER})
    ring.remove("a")
    assert [door and door.key.name for door in (ring.find(b"value"), ring.find_user(7))] == ["b", "b"]
    ring.remove("b")
    assert ring.find(b"value") is ring.find_user(7) is None


def test_another_mode_is_another_version() -> None:
    ring = KeyRing({}, AuthMode.OFF)
    ring.set_mode(AuthMode.OFF)
    assert (ring.mode, ring.version) == (AuthMode.OFF, 0)
    ring.set_mode(AuthMode.KEYS)
    assert (ring.mode, ring.version) == (AuthMode.KEYS, 1)


def test_a_door_is_open_as_long_as_its_way_leads_to_the_key_of_that_name() -> None:
    ring = KeyRing({}, AuthMode.KEYS)
    old, new = digest_of(b"old"), digest_of(b"new")
    ring.put(Key("ci", uid=7), {old: FOREVER})
    door, user = ring.find(b"old"), ring.find_user(7)
    assert door is not None and user is not None
    ring.put(Key("ci", group="team", uid=7), {old: 100, new: FOREVER})
    assert [ring.is_open(each, 99) for each in (door, user)] == [True, True], "changed, but the same key"
    assert [ring.is_open(each, 100) for each in (door, user)] == [False, True], "rotated away"
    ring.put(Key("ci", until=50), {old: 100})
    assert [ring.is_open(each, 49) for each in (door, user)] == [True, False]
    assert not ring.is_open(door, 50), "the key has expired"
    ring.remove("ci")
    assert not ring.is_open(door, 1)
    ring.put(Key("other"), {old: FOREVER})
    assert not ring.is_open(door, 1), "somebody else's now"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer " + VALUE),
        ("authorization", "bearer  " + VALUE),
        ("AUTHORIZATION", "BEARER " + VALUE + " "),
        ("x-api-key", VALUE),
        ("Api-Key", VALUE),
        ("X-Goog-Api-Key", VALUE),
    ],
)
def test_every_carrier_is_read(name: str, value: str) -> None:
    assert presented(head((name, value))) == VALUE.encode()


def test_the_query_of_gemini_is_read() -> None:
    assert presented(head(query=b"alt=sse&key=abc%2Bd")) == b"abc+d"


@pytest.mark.parametrize(
    "fields",
    [[], [("authorization", "Basic YTpi")], [("authorization", "Bearer ")], [("x-api-key", "")], [("cookie", "key=x")]],
)
def test_what_is_no_key_is_none(fields: list[tuple[str, str]]) -> None:
    assert presented(head(*fields)) is None


def test_the_same_key_twice_is_one_key() -> None:
    both = head(("authorization", "Bearer " + VALUE), ("x-api-key", VALUE), query=b"key=" + VALUE.encode())
    assert presented(both) == VALUE.encode()


@pytest.mark.parametrize(
    "ambiguous",
    [
        head(("authorization", "Bearer one"), ("x-api-key", "two")),
        head(("x-api-key", "one"), ("x-api-key", "two")),
        head(("x-api-key", "one"), query=b"key=two"),
        head(query=b"key=one&key=two"),
        head(query=b"key=one&%6bey=two"),
    ],
)
def test_two_different_keys_are_none(ambiguous: object) -> None:
    assert presented_values(ambiguous) == [b"one", b"two"]  # type: ignore[arg-type]
    assert presented(ambiguous) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "rest", "value"),
    [
        (b"", b"", None),
        (b"alt=sse", b"alt=sse", None),
        (b"key=abc", b"", b"abc"),
        (b"key=abc&alt=sse", b"alt=sse", b"abc"),
        (b"alt=sse&key=abc", b"alt=sse", b"abc"),
        (b"a=1&&key=abc&b=%20+&", b"a=1&&b=%20+&", b"abc"),
        (b"key", b"", None),
        (b"key=", b"", None),
        (b"%6Bey=abc&x=%ZZ", b"x=%ZZ", b"abc"),
        (b"k%65%79=abc", b"", b"abc"),
        (b"monkey=1&keys=2&Key=3&key%20=4", b"monkey=1&keys=2&Key=3&key%20=4", None),
        (b"key=a&key=b", b"", b"a"),
        (b"key==", b"", b"="),
    ],
)
def test_a_key_is_taken_out_of_a_query(query: bytes, rest: bytes, value: bytes | None) -> None:
    assert strip_key(query) == (rest, value)


@given(
    st.lists(st.sampled_from([b"key=a", b"%6bey=b", b"key", b"x=1", b"y=%26", b"", b"key%3d=1", b"a;key=2", b"\xff"]))
)
def test_other_parameters_stay_as_they_are(pairs: list[bytes]) -> None:
    rest, _ = strip_key(b"&".join(pairs))
    kept = [pair for pair in pairs if pair not in (b"key=a", b"%6bey=b", b"key")]
    assert rest == b"&".join(kept)


@given(st.binary(max_size=60))
def test_nothing_that_another_reader_calls_key_is_left(query: bytes) -> None:
    rest, _ = strip_key(query)
    assert strip_key(rest) == (rest, None)
    read = parse_qsl(rest.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    assert not any(name == "key" for name, _ in read)


@given(
    st.binary(max_size=60),
    st.lists(st.tuples(st.sampled_from(["authorization", "x-api-key"]), st.text("aB rer\t\xff"))),
)
def test_no_bytes_raise(query: bytes, fields: list[tuple[str, str]]) -> None:
    presented(head(*fields, query=query))


def test_a_fingerprint_is_the_one_that_a_secret_shows() -> None:
    assert fingerprint(VALUE.encode()) == f"#{Secret(VALUE).fingerprint}"
