"""The table of variables covers every option there is, once."""

from __future__ import annotations

from dataclasses import fields

import pytest

from proxy.outcome import Limit
from proxy.relay.options import RelayOptions
from proxy.server.table import NUMBERS, SETTINGS, TIMEOUTS, defaults_of, size_text
from proxy.server.values import parse_size


def test_every_limit_and_every_number_can_be_set() -> None:
    assert set(TIMEOUTS.values()) == set(Limit)
    there_are = {(part, field.name) for part in ("head", "bytes", "pool") for field in fields(defaults_of(part))}
    assert {(number.part, number.field) for number in NUMBERS.values()} == there_are


def test_each_name_stands_once_and_says_what_it_is() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len(names) == len(set(names))
    assert all(name.startswith("LLM_PROXY_") for name in names)
    assert all(setting.what and setting.unit in ("", "seconds", "days", "bytes", "file") for setting in SETTINGS)
    assert {*TIMEOUTS, *NUMBERS} <= set(names)


def test_defaults_are_written_as_they_would_be_set() -> None:
    rows = {setting.name: setting for setting in SETTINGS}
    for name, number in NUMBERS.items():
        value = getattr(defaults_of(number.part), number.field)
        if number.unit == "bytes":
            assert parse_size(rows[name].default) == value
        else:
            assert float(rows[name].default) == value
        assert value >= number.least


def test_what_stands_in_no_part_has_its_default_too() -> None:
    rows = {setting.name: setting.default for setting in SETTINGS}
    assert int(rows["LLM_PROXY_RETRIES"]) == RelayOptions().retries
    assert float(rows["LLM_PROXY_RETRY_SHARE"]) == RelayOptions().retry_share


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1, "1"), (1024, "1k"), (1536, "1536"), (2**20, "1M"), (2**30, "1G")]
)
def test_sizes_in_words(size: int, text: str) -> None:
    assert size_text(size) == text
    assert parse_size(text) == size
