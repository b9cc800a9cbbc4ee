"""Windows by name: the longest beginning, and only where the name goes on as names do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.windows import WINDOWS, window_of


@pytest.mark.parametrize(
    ("model", "window"),
    [
        ("gpt-4o", 128_000),
        ("gpt-4o-mini-2024-07-18", 128_000),
        ("GPT-4o", 128_000),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", 128_000),
        ("gpt-4", 8_192),
        ("gpt-4-0613", 8_192),
        ("gpt-4-turbo-2024-04-09", 128_000),
        ("gpt-4-1106-preview", 128_000),
        ("gpt-4.1-nano", 1_047_576),
        ("gpt-3.5-turbo-0125", 16_385),
        ("o3-mini", 200_000),
        ("o1-mini-2024-09-12", 128_000),
        ("gpt-5-mini", 400_000),
        ("gpt-5-chat-latest", 128_000),
        ("claude-3-5-haiku-20241022", 200_000),
        ("claude-sonnet-4-5-20250929", 200_000),
        ("claude-sonnet-4-5[1m]", 1_000_000),
        ("claude-sonnet-4@20250514", 200_000),
        ("claude-opus-4-6", 1_000_000),
        ("gemini-1.5-pro-002", 2_097_152),
        ("gemini-2.5-flash-lite", 1_048_576),
        ("llama-3.3-70b-versatile", 131_072),
        ("grok-4-0709", 256_000),
        ("grok-4-fast-reasoning", 2_000_000),
    ],
)
def test_known_models(model: str, window: int) -> None:
    assert window_of(model) == window


@pytest.mark.parametrize(
    "model",
    [
        "",
        "gpt",
        "gpt-5.9",  # not of gpt-5: a newer one, of which nobody here knows anything
        "gpt-4.2",
        "o10",
        "gemini-2.5-flash-image",
        "llama3.3:70b",
        "meta-llama/Llama-3.3-70B-Instruct",
        "my-gpt-4o",
        "x[1m]",
    ],
)
def test_of_others_nothing_is_said(model: str) -> None:
    assert window_of(model) == 0


def test_the_table_is_written_as_it_is_looked_up() -> None:
    assert all(name == name.lower() and 0 <= window <= 10**7 for name, window in WINDOWS.items())
    assert all(window_of(name) == window for name, window in WINDOWS.items())


@given(st.sampled_from(sorted(WINDOWS)), st.sampled_from(["-", ":", "@"]), st.text("xyz0", max_size=5))
def test_the_longest_beginning_decides(start: str, mark: str, rest: str) -> None:
    name = f"{start}{mark}{rest}"
    longest = max(
        (other for other in WINDOWS if f"{name}-".startswith((f"{other}-", f"{other}:", f"{other}@"))), key=len
    )
    assert window_of(name) == WINDOWS[longest]
