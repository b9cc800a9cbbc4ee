"""A request body between the two connections.

Lives here: `RequestBody`: pieces that are held, their account, and the way of those that stream through.
May not live here: reading it (dialects), sockets.
How it works: a body that decides where it goes is held whole, since its model stands in it; every other one is held
only until there is a link, and then goes out read by read under the client's own framing. What is held anywhere in
this worker adds up in `relay.bodies`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.dialects.body import model_span, raw_text, splice, with_usage_asked
from proxy.outcome import Failure, Kind, Phase, Side
from proxy.relay.upstream import UpstreamConnection
from proxy.wire import encode
from proxy.wire.head import Framing

if TYPE_CHECKING:
    from proxy.relay.relay import Relay


class RequestBody:
    """`is_held`: kept in full until it has been sent. `size` counts what is kept at this moment."""

    __slots__ = ("is_held", "limit", "size", "_pieces", "_relay")

    def __init__(self, relay: Relay) -> None:
        self.is_held = True
        self.limit = 0  # bytes; 0 = none
        self.size = 0
        self._pieces: list[bytes] = []
        self._relay = relay

    def hold(self, is_held: bool) -> None:
        """What the route says about it."""
        limits = self._relay.options.bytes
        self.is_held = is_held
        self.limit = limits.body if is_held else limits.upload

    def too_large(self, size: int) -> Failure | None:
        """A body of `size` bytes, framing included, that is more than may be."""
        if not self.limit or size <= self.limit:
            return None
        detail = f"the request body is larger than {self.limit} bytes"
        return Failure(Side.CLIENT, Phase.BODY, Kind.BODY_TOO_LARGE, detail)

    def keep(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        self._pieces += pieces
        self.size += size
        self._relay.bodies += size

    @property
    def has_room(self) -> bool:
        """Whether all bodies together are still within their bound."""
        return self._relay.bodies <= self._relay.options.bytes.bodies

    def whole(self) -> bytes:
        """All of it as one value, kept in place of the pieces."""
        if len(self._pieces) != 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def rename_model(self, model: str) -> None:
        """Put `model` where the model's name stands; every other byte stays (DESIGN 4)."""
        body = self.whole()
        span = model_span(body)
        if span is not None:
            self._replace(splice(body, span, raw_text(model)))

    def ask_for_usage(self) -> None:
        """Put `include_usage` in; every other byte stays."""
        self._replace(with_usage_asked(self.whole()))

    def _replace(self, body: bytes) -> None:
        self.release()
        self.keep([body])

    def release(self) -> None:
        self._relay.bodies -= self.size
        self._pieces = []
        self.size = 0

    def send_held(self, upstream: UpstreamConnection, head: bytes) -> None:
        """The head and the whole body, together. It stays here: a stale link may have to be replaced."""
        upstream.send(head, self._pieces, self.size)

    def send_kept(self, upstream: UpstreamConnection, head: bytes, framing: Framing) -> None:
        """The head, and what has been waiting for the link."""
        upstream.transport.write(head)
        pieces = self._pieces
        self.release()
        if pieces:
            self.forward(upstream, pieces, framing)

    def forward(self, upstream: UpstreamConnection, pieces: list[bytes], framing: Framing) -> None:
        data = b"".join(pieces)
        if data and not upstream.is_lost:
            upstream.transport.write(encode.chunk(data) if framing is Framing.CHUNKED else data)

    def end(self, upstream: UpstreamConnection, framing: Framing) -> None:
        if framing is Framing.CHUNKED and not upstream.is_lost:
            upstream.transport.write(encode.LAST_CHUNK)
