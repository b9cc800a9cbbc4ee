"""A request body between the two connections.

Lives here: `RequestBody`: pieces that are held, their account, and the way of those that stream through.
May not live here: reading it (dialects), sockets.
How it works: a body that decides where it goes is held whole, since its model stands in it; every other one is held
only until there is a link, and then goes out read by read under the client's own framing. A held one stays until an
answer is let through, for further attempts: as it came, and with what a target needs changed. One of more than `replay`
bytes is not kept twice, so it goes to one target only. What is held anywhere in this worker adds up in `relay.bodies`.
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
    """`is_held`: kept in full until an answer is let through. `size` counts what the client sent and is kept now."""

    __slots__ = ("is_held", "limit", "pieces", "size", "_changed", "_changed_for", "_relay")

    def __init__(self, relay: Relay) -> None:
        self.is_held = True
        self.limit = 0  # bytes; 0 = none
        self.size = 0
        self._changed: list[bytes] = []  # as the last target that needs changes gets it
        self._changed_for: tuple[str | None, bool] | None = None
        self.pieces: list[bytes] = []
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
        self.pieces += pieces
        self.size += size
        self._relay.bodies += size

    @property
    def has_room(self) -> bool:
        """Whether all bodies together are still within their bound."""
        return self._relay.bodies <= self._relay.options.bytes.bodies

    def whole(self) -> bytes:
        """All of it as one value, kept in place of the pieces."""
        if len(self.pieces) != 1:
            self.pieces = [b"".join(self.pieces)]
        return self.pieces[0]

    @property
    def can_be_sent_again(self) -> bool:
        return self.is_held and self.size <= self._relay.options.bytes.replay and self.has_room

    def version(self, model: str | None, asks_for_usage: bool, is_last: bool) -> list[bytes]:
        """The body with `model` where the model's name stands, and with `include_usage` put in; every other byte stays
        (DESIGN 4). `is_last`: no other will be asked for."""
        if self._changed_for == (model, asks_for_usage):
            return self._changed
        body = self.whole()
        span = None if model is None else model_span(body)
        if span is not None and model is not None:
            body = splice(body, span, raw_text(model))
        if asks_for_usage:
            body = with_usage_asked(body)
        if is_last:
            self.release()
            self.keep([body])
            return self.pieces
        self._forget_changed()
        self._changed, self._changed_for = [body], (model, asks_for_usage)
        self._relay.bodies += len(body)
        return self._changed

    def _forget_changed(self) -> None:
        self._relay.bodies -= sum(map(len, self._changed))
        self._changed, self._changed_for = [], None

    def release(self) -> None:
        if self._changed:
            self._forget_changed()
        self._relay.bodies -= self.size
        self.pieces = []
        self.size = 0

    def send_kept(self, upstream: UpstreamConnection, head: bytes, framing: Framing) -> None:
        """The head, and what has been waiting for the link."""
        upstream.transport.write(head)
        pieces = self.pieces
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
