"""Factors are found by a model's name as providers write it; estimates have the right order of magnitude."""

from __future__ import annotations

import pytest

from proxy.dialects.factors import estimate, estimate_events, factor
from proxy.dialects.text import answer_text
from tests import recordings
from tests.dialects.test_watch_recorded import STREAMS, dialect_of


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (None, 1.0),
        ("", 1.0),
        ("claude-3-haiku-20240307", 1.19),
        ("claude-3-5-sonnet-latest", 1.19),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", 1.19),
        ("claude-3-7-sonnet@20250219", 1.19),
        ("claude-sonnet-4-20250514", 1.12),
        ("anthropic/claude-sonnet-4.6", 1.12),
        ("anthropic/claude-4.6-sonnet-20260217", 1.12),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-opus-4-1-20250805-v1:0", 1.12),
        ("claude-opus-4-6", 1.12),
        ("claude-opus-4-7", 1.41),
        ("claude-opus-4-8", 1.41),
        ("anthropic/claude-opus-4.8", 1.41),
        ("anthropic/claude-4.8-opus", 1.41),
        ("claude-sonnet-5", 1.49),
        ("Claude-Fable-5", 1.49),
        ("claude-2.1", 1.0),
        ("claude-instant-1.2", 1.0),
        ("gemini-2.5-flash", 1.03),
        ("google/gemini-2.0-flash-001", 1.03),
        ("models/gemini-1.5-pro", 1.03),
        ("mistral-small-latest", 1.07),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 1.07),
        ("open-mistral-7b", 1.07),
        ("codestral-2501", 1.07),
        ("voxtral-mini", 1.07),
        ("command-r-plus", 1.05),
        ("commander", 1.0),
        ("deepseek/deepseek-chat", 1.03),
        ("deepseek-r1-distill-llama-3-70b", 1.03),
        ("meta-llama/Llama-3.3-70B-Instruct", 1.01),
        ("llama3-8b-8192", 1.01),
        ("llama-4-scout", 1.0),
        ("x-ai/grok-4", 0.98),
        ("groq/whatever", 1.0),
        ("sonar-pro", 1.01),
        ("gpt-4o-mini", 1.01),
        ("gpt-35-turbo", 1.01),
        ("gpt-5", 1.0),
        ("qwen3", 1.0),
        ("claude-" * 1000, 1.0),
    ],
)
def test_the_factor_of_a_model(model: str | None, expected: float) -> None:
    assert factor(model) == expected


def test_an_estimate_rounds_up() -> None:
    assert [estimate(size) for size in (0, 1, 4, 5, 4000)] == [0, 1, 1, 2, 1000]


@pytest.mark.parametrize(
    "dialect", ["openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama", "plain"]
)
def test_an_estimate_of_events(dialect: str) -> None:
    assert estimate_events(dialect, 0) == estimate_events(dialect, 0, is_stream=False) == 0
    assert estimate_events(dialect, 1) == 1
    assert 0 < estimate_events(dialect, 100_000) <= 25_000
    assert estimate_events(dialect, 300, is_stream=False) == 0  # all of it is frame
    assert estimate_events(dialect, 40_500, is_stream=False) == 10_000


def test_estimates_of_recorded_streams_are_of_the_right_order() -> None:
    """Half of the streams of some length lie within a factor of two of their text, nine of ten within four."""
    ratios = []
    for entry in STREAMS:
        data = (recordings.FIXTURES / entry["response"]["file"]).read_bytes()
        dialect = dialect_of(entry) or ""
        text = "".join(answer_text(dialect, data, True).values())
        if len(text) >= 100:
            ratio = estimate_events(dialect, len(data)) / estimate(len(text.encode("utf-8", "replace")))
            ratios.append(max(ratio, 1 / ratio))
    ratios.sort()
    if ratios:
        assert ratios[len(ratios) // 2] < 2
        assert ratios[len(ratios) * 9 // 10] < 4
