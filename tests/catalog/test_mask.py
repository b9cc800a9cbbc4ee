"""A secret that comes back is hidden, wherever it is cut, and nothing else is touched."""

from __future__ import annotations

import base64
import copy
import inspect
import json
import pickle
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.mask import LEAST, Mask, MaskedBody
from proxy.catalog.secret import Secret

KEY = "sk-proj-0123456789abcdef"
ERROR = b'{"error":{"message":"Incorrect API key provided: %b. You can find it elsewhere."}}'


def mask(*values: str) -> Mask:
    return Mask([Secret(value) for value in values])


def in_reads(hiding: Mask, data: bytes, size: int) -> bytes:
    body = MaskedBody(hiding)
    out = [body.feed(data[at : at + size], False) for at in range(0, len(data), size)]
    return b"".join([*out, body.feed(b"", True)])


def test_it_becomes_as_many_stars() -> None:
    data = ERROR % KEY.encode()
    assert mask(KEY).hide(data) == ERROR % (b"*" * len(KEY))


def test_bytes_without_it_are_the_same_object() -> None:
    data = ERROR % b"sk-proj-0123456789abcdeX"
    assert mask(KEY).hide(data) is data


@pytest.mark.parametrize("size", range(1, 40))
def test_reads_of_any_size_give_the_same(size: int) -> None:
    data = ERROR % KEY.encode() + KEY.encode()[:-1] + b" " + KEY.encode()
    assert in_reads(mask(KEY), data, size) == mask(KEY).hide(data)


def test_only_what_could_be_a_beginning_is_held_back() -> None:
    body = MaskedBody(mask(KEY))
    assert body.feed(b"nothing of it", False) == b"nothing of it"
    assert body.feed(b"the key sk-proj-01", False) == b"the key "
    assert body.feed(b"99", False) == b"sk-proj-0199", "it was none after all"
    assert body.feed(KEY.encode()[:-1], False) == b""
    assert body.feed(b"", True) == KEY.encode()[:-1], "the end: no more can follow"


def test_values_that_overlap_are_both_hidden() -> None:
    both = mask("abcdefgh", "cdefghijklmnop")
    for size in range(1, 20):
        assert in_reads(both, b"-abcdefghijklmnop-abcdefghXcdefghijklmnop", size) == (
            b"-" + b"*" * 16 + b"-" + b"*" * 8 + b"X" + b"*" * 14
        )
    assert mask("abababab").hide(b"abababababX") == b"*" * 10 + b"X", "one may overlap itself"


@given(
    values=st.lists(st.text("ab", min_size=LEAST, max_size=12), min_size=1, max_size=3),
    text=st.text("ab", max_size=60),
    size=st.integers(1, 9),
)
def test_whatever_the_reads_no_value_is_left(values: list[str], text: str, size: int) -> None:
    hiding, data = mask(*values), text.encode()
    shown = in_reads(hiding, data, size)
    assert shown == hiding.hide(data)
    assert len(shown) == len(data)
    assert not any(value.encode() in shown for value in values)
    assert all(a in (b, ord("*")) for a, b in zip(shown, data, strict=True))


@pytest.mark.parametrize(
    "form",
    [
        lambda v: v,
        lambda v: json.dumps(v)[1:-1],
        lambda v: json.dumps(v)[1:-1].replace("/", "\\/"),
        lambda v: quote(v, safe=""),
    ],
)
def test_forms_in_which_a_value_comes_back(form: object) -> None:
    value = 'a/"b\\c+d=&e-f'
    data = form(value).encode()  # type: ignore[operator]
    assert mask(value).hide(b"<%b>" % data) == b"<" + b"*" * len(data) + b">"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Token"])
def test_a_scheme_is_no_part_of_it(scheme: str) -> None:
    assert mask(f"{scheme} {KEY}").hide(f"{scheme} {KEY}".encode()) == f"{scheme} ".encode() + b"*" * len(KEY)


def test_the_password_of_basic_credentials_is_hidden_too() -> None:
    encoded = base64.b64encode(b"somebody:correct horse").decode()
    hiding = mask(f"Basic {encoded}")
    assert hiding.hide(f"{encoded} correct horse".encode()) == b"*" * len(encoded) + b" " + b"*" * 13
    assert not mask("Basic not,base64") or mask("Basic not,base64").hide(b"x") == b"x"


def test_a_short_value_is_not_looked_for() -> None:
    assert not mask("ollama", "none")
    assert mask("ollama").hide(b"ollama") == b"ollama"
    assert not Mask([])


def test_a_text_that_may_be_cut() -> None:
    hiding = mask(KEY)
    for text in (KEY, f"id-{KEY}-more", f"id-{KEY[:-5]}"):
        assert hiding.may_be_in(text)
        assert "0123" not in hiding.hide_text(text)
    assert hiding.hide_text("req_sk-proj") == "req_sk-proj"
    assert not hiding.may_be_in("req_0123456789abcdef")
    assert hiding.hide_text("grüße") == "grüße"


def test_it_shows_nothing_itself() -> None:
    hiding = mask(KEY)
    assert KEY not in repr(hiding) + repr(inspect.getmembers(hiding))
    for way in (pickle.dumps, copy.copy, copy.deepcopy, lambda m: m.__getstate__()):
        with pytest.raises(TypeError):
            way(hiding)
