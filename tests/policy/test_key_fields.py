"""What is said of a key becomes columns, or sentences that do not repeat it."""

from __future__ import annotations

import pytest

from proxy.policy.key_fields import (
    FIELDS,
    FieldsError,
    is_key_name,
    is_key_value,
    limits_line,
    name_problem,
    parse_policy,
    read_fields,
)
from proxy.policy.keys import CANCEL, Disconnect


def ahead(text: str) -> float:
    if text != "7d":
        raise ValueError("is over already")
    return 7.0


def test_what_was_not_said_is_no_column_and_an_empty_text_clears() -> None:
    assert read_fields({}, ahead) == {}
    cleared = read_fields(dict.fromkeys(FIELDS, " "), ahead)
    assert cleared.pop("limits") == ""
    assert set(cleared.values()) == {None}
    assert set(cleared) | {"limits"} == {column for column, _ in FIELDS.values()}


def test_each_field_has_its_column() -> None:
    said = {"limits": "RPM=60  5usd/day", "group": "team", "tags": "a, b,a", "models": "x  x", "expires_at": "7d"}
    expected = {"limits": "RPM=60 5usd/day", "key_group": "team", "tags": "a,b", "models": "x", "expires_at": 7.0}
    assert read_fields(said, ahead) == expected


def test_all_that_is_wrong_is_said_at_once_by_field() -> None:
    with pytest.raises(FieldsError) as refused:
        read_fields({"limits": "rpm=0 x", "uid": "-1", "expires_at": "1d", "owner": "fine"}, ahead)
    assert [field for field, _ in refused.value.problems] == ["limits", "limits", "expires_at", "uid"]
    assert "expires_at is over already" in str(refused.value)


def test_a_line_of_limits_is_kept_as_it_was_written() -> None:
    assert limits_line(" RPM=60   1kusd/day:warn ") == "RPM=60 1kusd/day:warn"
    with pytest.raises(ValueError, match="is no limit"):
        limits_line("rpx=5")


def test_a_key_given_instead_of_a_name_is_not_repeated() -> None:
    value = "lp-" + "x" * 43
    problem = name_problem(value)
    assert problem is not None and value not in problem
    assert name_problem("a b", "group") == (
        "a group's name has up to 64 letters, digits and . _ @ - and begins with a letter or a digit"
    )
    assert name_problem("ci") is None


def test_one_policy() -> None:
    assert [parse_policy(word) for word in ("cancel", "drain", "drain:30")] == [
        CANCEL,
        Disconnect(True),
        Disconnect(True, 30.0),
    ]
    assert parse_policy("drain,cancel") is None


@pytest.mark.parametrize("name", ["a", "A.b_c@d-e", "0", "x" * 64])
def test_names_of_keys(name: str) -> None:
    assert is_key_name(name)


@pytest.mark.parametrize("name", ["", ".a", "a b", "a=b", "a,b", "a\n", "é", "x" * 65])
def test_what_is_no_name_of_a_key(name: str) -> None:
    assert not is_key_name(name)


@pytest.mark.parametrize(("value", "expected"), [("x" * 16, True), ("x" * 15, False), ("x" * 15 + " ", False)])
def test_values_of_keys(value: str, expected: bool) -> None:
    assert is_key_value(value) is expected
    assert not is_key_value(value + "\n")
    assert not is_key_value("é" * 16)
