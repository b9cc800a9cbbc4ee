"""Bodies cut into pieces, and fed to meters as relay does it."""

from __future__ import annotations

import itertools
import random

from proxy.dialects.call import Meter
from proxy.wire.sse import EventCutter, EventFraming


def pieces_of(data: bytes) -> dict[str, list[bytes]]:
    """`data` whole, byte by byte, at random, and cut within every character of several bytes, by the name of it."""
    dice = random.Random(len(data))
    edges = sorted(dice.randrange(len(data) + 1) for _ in range(40))
    inside = [at for at in range(1, len(data)) if data[at] & 0xC0 == 0x80]
    return {
        "whole": [data],
        "bytes": [data[at : at + 1] for at in range(len(data))],
        "random": _cut(data, edges),
        "characters": _cut(data, inside),
    }


def _cut(data: bytes, edges: list[int]) -> list[bytes]:
    return [data[a:b] for a, b in itertools.pairwise([0, *edges, len(data)])]


def pour(meter: Meter, framing: EventFraming | None, pieces: list[bytes]) -> Meter:
    """Feeds a whole answer. `framing`: of its events; None: it is one document."""
    if framing is None:
        for piece in pieces:
            meter.feed(piece)
        return meter
    cutter = EventCutter(framing)
    for piece in pieces:
        cutter.feed(piece)
        if cutter.block:
            meter.feed(cutter.block)
    cutter.flush()
    if cutter.block:
        meter.feed(cutter.block)
    return meter
