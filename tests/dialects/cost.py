"""What the cost comments in `proxy/dialects` are measured with."""

from __future__ import annotations

from proxy.dialects.anthropic import MessagesWatch
from proxy.dialects.openai import ChoicesWatch

DELTA = (
    b'data: {"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,'
    b'"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"a1B"}\n\n'
)
BLOCK_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":" hello"}}\n\n'
)
CHAT_BODY = (
    b'{"messages":[{"role":"system","content":"You answer in one word."},{"role":"user","content":"'
    + b"why is the sky blue " * 68
    + b'"}],"model":"gpt-4o","stream":true,"temperature":0.2,"max_completion_tokens":100}'
)


def chat_watch() -> ChoicesWatch:
    """A watch that has seen the first delta of its stream."""
    watch = ChoicesWatch()
    watch.feed(DELTA)
    return watch


def messages_watch() -> MessagesWatch:
    return MessagesWatch()
