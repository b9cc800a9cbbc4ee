"""Context windows of well-known models, in tokens.

Lives here: the one table, and how a name is looked up in it. May not live here: windows that a user states (they stand
in the text of an alias), what a window is good for (policy).
How it works: the longest beginning that fits, and it fits only where the name ends there or goes on with `-`, `:` or
`@`: gpt-5-mini is of gpt-5, gpt-5.9 is another model, of which nothing is known. Not known is 0.
Where vendors state them: OpenAI, platform.openai.com/docs/models; Anthropic, the pages of single models and of context
windows at platform.claude.com/docs; Google, ai.google.dev/gemini-api/docs/models (its limit is one on the input alone);
xAI, docs.x.ai/developers/models; DeepSeek, api-docs.deepseek.com/quick_start/pricing; Mistral, docs.mistral.ai; Groq,
console.groq.com/docs/models. A vendor's "128k" stands as 128,000.
Doubted: only some of those pages (Claude, Gemini, DeepSeek, Grok) could be read in November 2026; the other figures are
as the vendors have announced them. A wrong one costs a try that is refused once more. A window holds at the vendor: a
server of one's own (Ollama, vLLM) cuts it to what its memory allows, so names as only such servers write them
(llama3.3:70b, meta-llama/...) are not in the table; state `window=` there.
"""

from __future__ import annotations

_MILLION = 1_000_000

WINDOWS: dict[str, int] = {
    # OpenAI
    "gpt-3.5-turbo": 16_385,
    "gpt-3.5-turbo-instruct": 4_096,
    "gpt-4": 8_192,
    "gpt-4-32k": 32_768,
    "gpt-4-1106": 128_000,  # these two were previews of the next
    "gpt-4-0125": 128_000,
    "gpt-4-turbo": 128_000,
    "gpt-4o": 128_000,
    "chatgpt-4o": 128_000,
    "gpt-4.1": 1_047_576,
    "gpt-4.5": 128_000,
    "o1": 200_000,
    "o1-mini": 128_000,
    "o1-preview": 128_000,
    "o3": 200_000,
    "o4-mini": 200_000,
    "gpt-5": 400_000,
    "gpt-5-chat": 128_000,
    "gpt-5.1": 400_000,
    "gpt-5.1-chat": 128_000,
    "gpt-5.2": 400_000,
    "gpt-5.2-chat": 128_000,
    "gpt-5.4": 1_050_000,
    "gpt-5.4-mini": 400_000,
    "gpt-5.4-nano": 400_000,
    # Anthropic
    "claude-2.1": 200_000,
    "claude-3": 200_000,
    "claude-haiku-4": 200_000,
    "claude-sonnet-4": 200_000,
    "claude-sonnet-4-6": _MILLION,
    "claude-sonnet-5": _MILLION,
    "claude-opus-4": 200_000,
    "claude-opus-4-6": _MILLION,
    "claude-opus-4-7": _MILLION,
    "claude-opus-4-8": _MILLION,
    "claude-opus-5": _MILLION,
    "claude-fable-5": _MILLION,
    # Google. Those for pictures and speech have other, smaller ones.
    "gemini-1.5-pro": 2_097_152,
    "gemini-1.5-flash": 1_048_576,
    "gemini-2.0-flash": 1_048_576,
    "gemini-2.0-flash-preview-image": 0,
    "gemini-2.0-flash-live": 0,
    "gemini-2.5-pro": 1_048_576,
    "gemini-2.5-pro-preview-tts": 0,
    "gemini-2.5-flash": 1_048_576,
    "gemini-2.5-flash-image": 0,
    "gemini-2.5-flash-preview-tts": 0,
    "gemini-2.5-flash-native-audio": 0,
    # xAI
    "grok-3": 131_072,
    "grok-4": 256_000,
    "grok-4-fast": 2_000_000,
    "grok-4-1-fast": 2_000_000,
    "grok-4.20": _MILLION,
    # DeepSeek
    "deepseek-chat": 128_000,
    "deepseek-reasoner": 128_000,
    "deepseek-v4": _MILLION,
    # Mistral
    "mistral-large": 128_000,
    "mistral-medium": 128_000,
    "mistral-small": 128_000,
    # Llama, as Groq writes it
    "llama-3.1": 131_072,
    "llama-3.3": 131_072,
}
_MAY_FOLLOW = ("", "-", ":", "@")
_LONG = "[1m]"  # behind the name of a Claude model: with its window of a million


def window_of(model: str) -> int:
    """The window of `model`, input and output together; 0: not known."""
    name = model.lower().removeprefix("ft:")
    if name.startswith("claude-") and name.endswith(_LONG):
        return _MILLION
    fitting = [start for start in WINDOWS if name.startswith(start) and name[len(start) :][:1] in _MAY_FOLLOW]
    return WINDOWS[max(fitting, key=len)] if fitting else 0
