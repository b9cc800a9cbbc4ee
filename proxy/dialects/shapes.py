"""What of a provider's JSON is made into values at all.

Lives here: the classes that msgspec fills: of a whole answer the few members that somebody reads.
May not live here: what they mean (each dialect, usage).
How it works: every member may be missing or of any type, since providers send what they like; `msgspec.Raw` is left as
bytes until somebody asks. Apart from the dialects because these classes are made by msgspec and not by Python, so that
they cannot be compiled (scripts/compile.py).
"""

from __future__ import annotations

from typing import Any

import msgspec


class Key(str):
    """A key without equality: two keys of one name are two entries of a dict. `str(key)` has equality again."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__  # slots of C: a method of ours would cost 0.1 us a key


# `type.__call__(Key, name)` makes a key without a Python frame: 1.4 us for 1.5 KB with five members, else 2.2.
read_members = msgspec.json.Decoder(dict[Key, msgspec.Raw], dec_hook=type.__call__).decode


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: str
    name: str | None = None


class _PlainChat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    model: str
    messages: list[_PlainMessage]
    stream: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    reasoning_effort: str | None = None


# Of a request: raises msgspec.MsgspecError or ValueError where there is anything but messages of plain text, and the
# usual settings. Where a member occurs twice, both have passed.
read_plain_chat = msgspec.json.Decoder(_PlainChat).decode


class ChatChunk(msgspec.Struct, gc=False):
    """A whole chat completion, or one chunk of it; also of the older completions and of embeddings."""

    model: Any = None
    usage: Any = None
    x_groq: Any = None
    timings: Any = None
    choices: msgspec.Raw = msgspec.Raw(b"[]")


class ChatChoice(msgspec.Struct, gc=False):
    finish_reason: Any = None


class OutputItem(msgspec.Struct, gc=False):
    """Of OpenAI's responses."""

    type: Any = None
    action: Any = None


class ResponsesAnswer(msgspec.Struct, gc=False):
    object: Any = None
    model: Any = None
    usage: Any = None
    input_tokens: Any = None  # of the endpoint that counts them
    output: msgspec.Raw = msgspec.Raw(b"[]")


class ResponsesEvent(msgspec.Struct, gc=False):
    type: Any = None
    response: ResponsesAnswer = msgspec.field(default_factory=ResponsesAnswer)


class AnthropicMessage(msgspec.Struct, gc=False):
    model: Any = None
    usage: Any = None
    input_tokens: Any = None  # of the endpoint that counts them


class AnthropicEvent(msgspec.Struct, gc=False):
    type: Any = None
    message: AnthropicMessage = msgspec.field(default_factory=AnthropicMessage)
    usage: Any = None


class GeminiCandidate(msgspec.Struct, gc=False, rename="camel"):
    finish_reason: Any = None


class GeminiAnswer(msgspec.Struct, gc=False, rename="camel"):
    model_version: Any = None
    usage_metadata: Any = None
    total_tokens: Any = None  # of countTokens
    candidates: msgspec.Raw = msgspec.Raw(b"[]")


class OllamaLine(msgspec.Struct, gc=False):
    model: Any = None
    done: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
