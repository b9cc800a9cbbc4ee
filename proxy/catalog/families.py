"""Families of providers: how a base URL is joined, which dialects are spoken, how a credential is carried.

Lives here: the one table of families. May not live here: single vendors (load), paths of requests (policy/router).
How it works: a provider names its family; everything that differs between families is a column of this table.
Sources: WIRE 1, DESIGN 9, and how the vendors' own SDKs build their URLs.
Doubted: Anthropic and Gemini also offer OpenAI-shaped paths of their own; they are reached by configuring such a path
as a further provider of the openai family, because the credential is carried differently there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

OPENAI_DIALECTS = frozenset({"openai-chat", "openai-completions", "openai-responses", "openai-embeddings"})

ANTHROPIC_DIALECTS = frozenset({"anthropic-messages", "anthropic-count-tokens"})


class Family(NamedTuple):
    """`whole_path`: requests go to base + the whole path; otherwise to base + what follows /v1."""

    auth: str
    whole_path: bool
    dialects: frozenset[str]


FAMILIES: dict[str, Family] = {
    "openai": Family("bearer", False, OPENAI_DIALECTS),
    "azure": Family("api-key", False, OPENAI_DIALECTS),
    "anthropic": Family("x-api-key", True, ANTHROPIC_DIALECTS),
    "gemini": Family("x-goog-api-key", True, frozenset({"gemini"})),
    # Ollama answers OpenAI's and Anthropic's paths below its own root (an old one with its own 404).
    "ollama": Family("bearer", True, OPENAI_DIALECTS | ANTHROPIC_DIALECTS | {"ollama"}),
    # Any other server: everything passes, nothing is read.
    "plain": Family("bearer", True, frozenset()),
}

# The fields that carry a credential, ours or theirs (WIRE 1: OpenAI and most others, Anthropic, Azure, Gemini).
KEY_FIELDS = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})

# Names of further fields whose value is taken for a secret, e.g. cf-access-client-secret, x-auth-token.
_SECRET_FIELD = re.compile(rb"auth|key|secret|token|passw|credential|cookie|signature")


def is_secret_field(name: bytes) -> bool:
    """Whether a field called `name` (lower case) carries something that only its receiver may see."""
    return name in KEY_FIELDS or _SECRET_FIELD.search(name) is not None


AUTHS = ("bearer", "x-api-key", "api-key", "x-goog-api-key", "none")
