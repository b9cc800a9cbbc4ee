"""What a simulator has seen, for tests to look at, within bounds.

Lives here: `SeenRequest` and how many of them, and of their bodies, are kept. May not live here: reading (provider).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from proxy.simulator.faults import Faults

MOST_SEEN = 1_000  # requests
MOST_SEEN_BYTES = 64 * 1024 * 1024  # their bodies together: two of the largest that are kept at all


@dataclass(slots=True)
class SeenRequest:
    """A request as it came. `headers` in order and letter case as sent; `complete` is False while its body comes in;
    `at`: when its head was in, in seconds of time.monotonic."""

    number: int
    connection: int  # counted from 1
    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""  # empty where it was too large to keep, or forgotten
    size: int = 0
    sha256: str = ""
    complete: bool = False
    faults: Faults = field(default_factory=Faults)
    at: float = field(default_factory=time.monotonic)

    def get(self, name: str) -> str | None:
        """The first header of this name."""
        for sent, value in self.headers:
            if sent.lower() == name.lower().encode():
                return value.decode("latin-1")
        return None


def remember(requests: list[SeenRequest], seen: SeenRequest) -> None:
    requests.append(seen)
    del requests[:-MOST_SEEN]


def forget_bodies(requests: list[SeenRequest], seen: SeenRequest) -> None:
    """Take the bodies from the oldest until all fit; the one of `seen` stays."""
    kept = sum(len(request.body) for request in requests)
    for request in requests:
        if kept <= MOST_SEEN_BYTES:
            return
        if request is not seen:
            kept -= len(request.body)
            request.body = b""
