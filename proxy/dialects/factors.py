"""From o200k tokens to a model's own, and from bytes to tokens where nothing could be counted.

Lives here: `factor` for each family of models, `estimate` for text, `estimate_events` for what a provider sent.
May not live here: counting (tokens), which of the figures a receipt shows (relay), prices (catalog).
How it works: only OpenAI's newer tokenizer, o200k, is at hand. For others its count is multiplied by the median of
reported output over o200k tokens in recorded answers of plain text (WIRE 11).
Doubted: the figures are of text. A tool call costs 8 to 45 tokens beside its name and arguments, differently at every
provider, and a count of the text leaves them out. Gemini 3 and models newer than the recordings are taken for the next
older ones. An estimate from events is good for an order of magnitude: nine streams of ten lie within a factor of four.
"""

from __future__ import annotations

import re
from typing import Final

_CLAUDE: Final = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[.-](\d{1,2})(?!\d))?(?:-([a-z]+))?")

# WIRE 11: the median, and from how many answers. Names are searched anywhere: `us.anthropic.claude-...`, `x-ai/grok-4`.
_FAMILIES: Final = tuple(
    (re.compile(rf"(?<![a-z])(?:{pattern})"), value)
    for pattern, value in (
        ("gemini-", 1.03),  # 23
        ("gpt-(?:4o|4\\.1|3\\.5|35)", 1.01),  # 177
        ("deepseek", 1.03),  # 21; before llama, whose name its distilled models bear
        ("(?:meta-)?llama-?3", 1.01),  # 11
        ("(?:mini|mi|code|magi|dev)stral|(?:mi|pi|vo)xtral", 1.07),  # 29
        ("command(?![a-z])", 1.05),  # 15, Cohere
        ("grok-", 0.98),  # 8
        ("sonar(?![a-z])", 1.01),  # 6, Perplexity
    )
)

# Bytes of UTF-8 per o200k token in 89 recorded answers of 30 tokens or more: median 4.4, a tenth of them (code, JSON,
# Japanese) below 3.0. Rather 10 % too much for English than half of it for code.
_TEXT_BYTES: Final = 4

# Bytes of events per token of their text: the median of recorded streams of 20 tokens or more, in brackets the tenths
# at both ends, and how many. Most of an event is its frame, and how many tokens go into one is the provider's choice.
_EVENT_BYTES: Final = {
    "openai-chat": 270,  # (99-410, 27)
    "openai-completions": 200,  # (four streams of any length)
    "openai-responses": 400,  # (124-1,086, 8); its last events repeat the text
    "anthropic-messages": 64,  # (36-230, 11)
    "gemini": 65,  # (16-85, 5)
    "ollama": 135,  # (132-139, 3)
}
# Bytes of a whole JSON answer that are not its text: ids, model, usage. From 250 to 1,000 in the recorded ones.
_WHOLE_BYTES: Final = 500


def factor(model: str | None) -> float:
    """Tokens that `model` makes of text for each token that o200k makes of it; 1.0 where nothing was measured."""
    if model is None:
        return 1.0
    name = model.lower()
    if found := _CLAUDE.search(name):
        return _claude(int(found[2]), int(found[3] or 0), "opus" in (found[1], found[4]))
    for pattern, value in _FAMILIES:
        if pattern.search(name):
            return value
    return 1.0


def _claude(major: int, minor: int, is_opus: bool) -> float:
    if major >= 5:
        return 1.49  # 6
    if major == 4:
        # 9 of Opus 4.8, whose tokenizer came with 4.7 by its vendor's notes; 107 of the others
        return 1.41 if is_opus and minor >= 7 else 1.12
    return 1.19 if major == 3 else 1.0  # 24


def estimate(size: int) -> int:
    """About how many tokens `size` bytes of text are, rounded up."""
    return -(-size // _TEXT_BYTES)


def estimate_events(dialect: str, size: int, is_stream: bool = True) -> int:
    """About how many tokens of text `size` bytes of an answer hold: events of a stream, or one JSON document."""
    if not is_stream:
        return estimate(max(size - _WHOLE_BYTES, 0))
    return -(-size // event_bytes(dialect))


def event_bytes(dialect: str) -> int:
    """About how many bytes of a stream are a token."""
    return _EVENT_BYTES.get(dialect, _TEXT_BYTES)
