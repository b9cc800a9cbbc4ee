"""What people write into variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.keys import CANCEL, Disconnect
from proxy.policy.rules import parse_rules
from proxy.server.values import (
    parse_disconnect,
    parse_env_file,
    parse_keys,
    parse_limits,
    parse_size,
)


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
    assert parse_disconnect("a=drain,a=cancel") == "says twice what to do for the same key"


# --- keys and limits --------------------------------------------------------------------------------------------------


def test_keys() -> None:
    keys, problems = parse_keys("ci=0123456789abcdef,\n b.x@y = 0123456789abcdef= ,")
    assert ({name: secret.reveal() for name, secret in keys.items()}, problems) == (
        {"ci": "0123456789abcdef", "b.x@y": "0123456789abcdef="},
        [],
    )


def test_what_is_wrong_with_keys_is_said_at_once_and_shows_none() -> None:
    text = "hidden-hidden-hidden,a=short,b=0123456789abcdef,b=fedcba9876543210,c=0123456789abcdef"
    keys, problems = parse_keys(text)
    assert list(keys) == ["b"]
    assert len(problems) == 4
    assert not any(part in " ".join(problems) for part in ("hidden", "short", "0123", "fedc"))


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        ("", []),
        ("all: rpm=1", ["all"]),
        (
            "key a: rpm=1; model llama3:8b: 1usd/day:warn;\nprovider  p : tpm=1;",
            ["key a", "model llama3:8b", "provider p"],
        ),
        ("all: ", ["all"]),
    ],
)
def test_limits_by_scope(text: str, scopes: list[str]) -> None:
    found, problems = parse_limits(text)
    assert (list(found), problems) == (scopes, [])


def test_what_a_scope_may_do() -> None:
    assert parse_limits("key a: rpm=1 2usd/day")[0] == {"key a": parse_rules("rpm=1 2usd/day")}


def test_what_is_wrong_with_limits_is_said_at_once() -> None:
    _, problems = parse_limits("rpm=1; nobody x: rpm=1; all: what rpm=0; all: rpm=1; key a:rpm=1")
    assert len(problems) == 6
    assert problems[2:5] == [
        "entry 3: word 1: is neither a limit (rpm=60) nor a budget (20usd/month, 2Mtokens/day:warn)",
        "entry 3: word 2: write whole numbers, 1 or more: rpm=60, or rpm=60/10 for at most 10 at once",
        "entry 4: an earlier one is for the same",
    ]
    assert not any(word in " ".join(problems) for word in ("nobody", "what", "rpm=0"))
