"""A secret comes out by `reveal` and in no other way."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from proxy.catalog.secret import Secret

VALUE = "sk-very-secret-value"


def test_it_is_revealed_only_when_asked() -> None:
    secret = Secret(VALUE)
    assert secret.reveal() == VALUE
    for shown in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>40}",
        repr([secret]),
        repr({"a": secret}),
    ):
        assert VALUE not in shown
        assert secret.fingerprint in shown


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_what_would_write_it_down_is_refused(way: object) -> None:
    with pytest.raises(TypeError) as refused:
        way(Secret(VALUE))  # type: ignore[operator]
    assert VALUE not in str(refused.value)


def test_equality_is_that_of_the_values() -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret(VALUE + "x")
    assert Secret(VALUE) != VALUE
    assert len({Secret(VALUE), Secret(VALUE)}) == 1
