"""What people write into variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.keys import CANCEL, Disconnect
from proxy.server.values import parse_disconnect, parse_env_file, parse_size


def test_lines_of_variables() -> None:
    text = 'A=1\nexport B = "two = 2" \n#C=3\nD=\nE=\'"\'\nF="x\n'
    assert parse_env_file(text) == ({"A": "1", "B": "two = 2", "D": "", "E": '"', "F": '"x'}, [])


@given(st.text(max_size=80))
def test_no_file_of_variables_raises(text: str) -> None:
    parse_env_file(text)
    parse_size(text)
    parse_disconnect(text)


@pytest.mark.parametrize(
    ("text", "default", "by_key"),
    [
        ("cancel", CANCEL, {}),
        ("drain", Disconnect(True), {}),
        ("drain:0.5", Disconnect(True, 0.5), {}),
        ("a=drain", CANCEL, {"a": Disconnect(True)}),
        (" drain , a = cancel,b=drain:9", Disconnect(True), {"a": CANCEL, "b": Disconnect(True, 9.0)}),
    ],
)
def test_policies(text: str, default: Disconnect, by_key: dict[str, Disconnect]) -> None:
    assert parse_disconnect(text) == (default, by_key)


@pytest.mark.parametrize("text", ["", "x", "drain:", "drain:-1", "drain:1s", "=drain", "a=", "a=drain,cancel", ",,"])
def test_what_is_no_policy(text: str) -> None:
    assert isinstance(parse_disconnect(text), str)


def test_a_key_has_one_policy() -> None:
    assert parse_disconnect("a=drain,a=cancel") == "says twice what to do for the key a"
