"""What the cost comments in `proxy/dialects` are measured with."""

from __future__ import annotations

from proxy.dialects import DIALECTS
from proxy.dialects.anthropic import MessagesWatch
from proxy.dialects.call import Meter
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
RESPONSES_DELTA = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":12,'
    b'"item_id":"msg_0123456789abcdef0123456789abcdef0123456789abcdef","output_index":0,"content_index":0,'
    b'"delta":" hello","logprobs":[],"obfuscation":"a1B2c3D4e5"}\n\n'
)
GEMINI_CHUNK = (
    b'data: {"candidates": [{"content": {"parts": [{"text": "'
    + b"why is the sky blue " * 12
    + b'"}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 8,"candidatesTokenCount": 68,'
    b'"totalTokenCount": 104,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 8}],"thoughtsTokenCount": 28,'
    b'"serviceTier": "standard"},"modelVersion": "gemini-3-flash-preview","responseId": "AbCdEfGhIjKlMnOpQrStUvW"}'
    b"\r\n\r\n"
)
OLLAMA_LINE = (
    b'{"model":"llama3.2","created_at":"2026-01-01T00:00:00.123456789Z","message":{"role":"assistant","content":" he"},'
    b'"done":false}\n'
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


def meter(dialect: str) -> Meter:
    """A meter of a stream that has reported nothing."""
    return DIALECTS[dialect].meter(is_stream=True)


def feed_hundred(meter: Meter, event: bytes) -> None:
    """A hundred events, which are then taken away, so that the cost of keeping them is one of a real stream."""
    for _ in range(100):
        meter.feed(event)
    meter.take()
