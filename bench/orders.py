"""What a request orders from the bench upstream, and the exact bytes it gets.

Lives here: the orders, their names, the answers as precomputed bytes, the request that carries an order.
May not live here: sockets, clocks, measuring.
How it works: an order travels as the model name, since that is what every proxy and gateway passes on:
`unary-<bytes>`, `paced-<events a second>-<events>`, `burst-<events>`, `idle`. Both ends compute the same body from it,
so the load knows how many bytes, or how much content, make a complete answer. `paced-<rate>-0` goes on until the
upstream is told to finish.
Doubted: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

PATH = "/v1/chat/completions"
BODY_BYTES = 1024  # of a request, about
EVENT_BYTES = 300  # what an openai-chat chunk has with its usual fields, obfuscation included
STAMP_DIGITS = 19  # of a nanosecond clock: constant length, so that every event has the same size
DONE = b"data: [DONE]\n\n"
# Stands in content chunks only: the role chunk's delta begins with its role.
CONTENT_MARK = b'"delta":{"content":"'


class Order(NamedTuple):
    """One of the shapes above. `rate` is events a second (0: back to back); `events` counts content chunks."""

    shape: str
    size: int = 0
    rate: int = 0
    events: int = 0

    @property
    def name(self) -> str:
        match self.shape:
            case "unary":
                return f"unary-{self.size}"
            case "paced":
                return f"paced-{self.rate}-{self.events}"
            case "burst":
                return f"burst-{self.events}"
            case _:
                return self.shape

    @property
    def body_bytes(self) -> int:
        """Length of the complete answer body, without HTTP framing; the least where the order leaves its end open. An
        idle stream has none: it never ends."""
        if self.shape == "unary":
            return self.size
        return len(ROLE) + self.content * EVENT_BYTES + len(FINISH) + len(DONE)

    @property
    def content(self) -> int:
        """How much content the answer has: characters, or events of a stream; one at least if its end is open."""
        if self.shape == "unary":
            return self.size - _UNARY_LEAST
        return self.events or (1 if self.shape == "paced" else 0)


def unary(size: int) -> Order:
    return Order("unary", size=size)


def paced(rate: int, events: int) -> Order:
    return Order("paced", rate=rate, events=events)


def burst(events: int) -> Order:
    return Order("burst", events=events)


IDLE = Order("idle")


def read_order(model: str) -> Order | None:
    """The order that a model name stands for; None if it is none."""
    shape, *numbers = model.split("-")
    if not all(number.isdecimal() for number in numbers):
        return None
    match shape, [int(number) for number in numbers]:
        case "unary", [size]:
            return unary(max(size, _UNARY_LEAST))
        case "paced", [rate, events] if rate:
            return paced(rate, events)
        case "burst", [events]:
            return burst(events)
        case "idle", []:
            return IDLE
    return None


def _chunk(delta: str, finish: str = "null") -> str:
    return (
        'data: {"id":"chatcmpl-bench0000000000000000","object":"chat.completion.chunk","created":1700000000,'
        '"model":"bench-model","system_fingerprint":"fp_bench00000","choices":[{"index":0,'
        f'"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}],"obfuscation":"~"}}\n\n'
    )


def _event_parts() -> tuple[bytes, bytes]:
    """A content chunk before and after its stamp, padded so that both and the stamp make EVENT_BYTES."""
    text = _chunk('"content":"@"').encode()
    text = text.replace(b"~", b"x" * (EVENT_BYTES - len(text) + 2 - STAMP_DIGITS))
    before, _, after = text.partition(b"@")
    return before, after


EVENT_BEFORE, EVENT_AFTER = _event_parts()
EVENT = EVENT_BEFORE + b"token " * 3 + b"." + EVENT_AFTER
ROLE = _chunk('"role":"assistant","content":"","refusal":null').encode()
FINISH = _chunk("", '"stop"').encode()
USAGE = (
    b'data: {"id":"chatcmpl-bench0000000000000000","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench-model","choices":[],"usage":{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300}}\n\n'
)

_UNARY_HEAD = (
    b'{"id":"chatcmpl-bench0000000000000000","object":"chat.completion","created":1700000000,"model":"bench-model",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
)
_UNARY_TAIL = (
    b'","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300}}'
)
_UNARY_LEAST = len(_UNARY_HEAD) + len(_UNARY_TAIL)


def unary_body(size: int) -> bytes:
    """A whole chat completion of exactly `size` bytes (no fewer than its frame needs)."""
    return _UNARY_HEAD + b"x" * (size - _UNARY_LEAST) + _UNARY_TAIL


_WISH = "Please say something of a certain length. "
_BESIDE_WISHES = 440  # bytes of a body that are no wishes


def keys(key: str, count: int) -> list[str]:
    """`count` keys, of which the first is `key`: the same at both ends."""
    return [key, *(f"{key}-{number}" for number in range(1, count))]


def chunked(piece: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def request(
    order: Order,
    host: str,
    key: str,
    *,
    path: str = PATH,
    headers: Mapping[str, str] | None = None,
    size: int = BODY_BYTES,
) -> bytes:
    """The request that every contestant gets: head as an SDK sends it, about `size` bytes of body.

    `path` and further `headers` are for those who are asked in another way.
    """
    call: dict[str, object] = {
        "model": order.name,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. " * 10},
            {"role": "user", "content": _WISH * max(1, (size - _BESIDE_WISHES) // len(_WISH))},
        ],
        "temperature": 0.7,
        "max_tokens": 1000,
    }
    if order.shape != "unary":
        call["stream"] = True
    body = json.dumps(call, separators=(",", ":")).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\n"
        f"accept-encoding: gzip, deflate\r\nuser-agent: bench/1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\n{more}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
