"""What is said of a key becomes columns, or sentences."""

from __future__ import annotations

import argparse
import io
from typing import Any

import pytest

from proxy.accounts.desk import Desk, Refusal
from proxy.accounts.key_fields import amounts, columns_of, key_name
from tests.ledger.filled import DAY, NOW

OPTIONS = ("limits", "group", "owner", "tag", "models", "providers", "disconnect", "expires", "uid", "raw")
DESK = Desk({}, lambda: NOW, lambda seconds: None, io.StringIO(), io.StringIO())


def columns(**said: Any) -> dict[str, Any]:
    return columns_of(DESK, argparse.Namespace(**(dict.fromkeys(OPTIONS) | said)))


def test_what_was_not_said_is_no_column() -> None:
    assert columns() == {}


@pytest.mark.parametrize(
    ("option", "said", "column", "value"),
    [
        ("limits", "RPM=60   1kusd/day:warn", "limits", "RPM=60 1kusd/day:warn"),
        ("limits", "", "limits", ""),
        ("group", "team", "key_group", "team"),
        ("group", "", "key_group", None),
        ("owner", " Ann Ü ", "owner", "Ann Ü"),
        ("tag", ["a, b", "a", ",c,"], "tags", "a,b,c"),
        ("tag", [""], "tags", None),
        ("models", "*\tgpt-4o* gpt-4o*", "models", "* gpt-4o*"),
        ("providers", "openai vllm", "providers", "openai vllm"),
        ("disconnect", "drain:0.5", "disconnect", "drain:0.5"),
        ("expires", "7d", "expires_at", NOW + 7 * DAY),
        ("expires", "", "expires_at", None),
        ("uid", "0", "uid", 0),
        ("uid", "4294967294", "uid", 4294967294),
        ("raw", "1", "raw", 1),
        ("raw", "0", "raw", 0),
        ("raw", "", "raw", None),
    ],
)
def test_a_text_means_a_value(option: str, said: Any, column: str, value: Any) -> None:
    assert columns(**{option: said}) == {column: value}


@pytest.mark.parametrize(
    ("option", "said", "sentence"),
    [
        ("limits", "rpm=0", "--limits: 'rpm=0': write whole numbers"),
        ("group", "a b", "--group: is no name of a group"),
        ("owner", "a\nb", "--owner: may have up to 256 printable characters"),
        ("owner", "x" * 257, "--owner: may have up to 256 printable characters"),
        ("owner", "\udc80", "--owner: may have up to 256 printable characters"),
        ("tag", ["x" * 200, "x" * 200], "--tag: may have up to 256 printable characters"),
        ("models", "a\x1b[31m", "--models: may have up to 4096 printable characters"),
        ("models", "x " * 2100, "--models: may have up to 4096 printable characters"),
        ("models", "a,b", "--models: write blanks between the names, no commas"),
        ("providers", "OpenAI", "--providers: write names of providers with blanks between them"),
        ("providers", "a,b", "--providers: write names of providers with blanks between them"),
        ("disconnect", "drain:x", "--disconnect: write cancel, drain or drain:<seconds>"),
        ("disconnect", "a=drain", "--disconnect: write cancel, drain or drain:<seconds>"),
        ("expires", "2026-11-25", "--expires: is over already: write a time to come"),
        ("uid", "-1", "--uid: write the number of a user"),
        ("uid", "4294967295", "--uid: write the number of a user"),
        ("uid", "٣", "--uid: write the number of a user"),
    ],
)
def test_what_is_wrong_is_said(option: str, said: Any, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        columns(**{option: said})
    assert refused.value.args[0].startswith(sentence)


def test_a_key_given_instead_of_a_name_is_not_repeated() -> None:
    value = "lp-" + "x" * 43
    with pytest.raises(Refusal) as refused:
        key_name(value)
    assert value not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0)),
        ("0.05usd", (50_000, 0)),
        ("1200tokens", (0, 1200)),
        ("1.2ktokens 0.000001usd", (1, 1200)),
        ("0usd 1token", (0, 1)),
        ("0.0usd", (0, 0)),
    ],
)
def test_amounts(text: str, expected: tuple[int, int]) -> None:
    assert amounts(text) == expected


@pytest.mark.parametrize(
    "text", ["1", "usd", "-1usd", "1usd 2usd", "1usd/month", "rpm=5", "0.0000001usd", "1usd/total"]
)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(Refusal, match="--spent: write dollars, tokens or both"):
        amounts(text)
