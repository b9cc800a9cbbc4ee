"""What tests of limits share.

Lives here: clocks, drips, and the providers that answer at once or never. May not live here: any one limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from tests.adversity.peers import Heard, Peer
from tests.adversity.speech import DOCUMENT, length

COUNT = 20  # at once
SWEEP = 0.6  # seconds a limit may be late: a quarter for the sweeper, the rest for a busy machine
STEP = 1.0 + SWEEP  # the same where progress is looked for once a second


async def timed(work: Awaitable[Heard]) -> tuple[Heard, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    return await work, loop.time() - began


def kept(took: float, limit: float, late: float = SWEEP) -> bool:
    return limit - 0.01 <= took <= limit + late


async def drip(peer: Peer, data: bytes, every: float = 0.03) -> None:
    """Byte by byte until the other side has ended."""
    for place in range(len(data)):
        if peer.ended is not None or peer.lost:
            return
        peer.send(data[place : place + 1])
        await asyncio.sleep(every)


async def silent(link: Peer) -> None:
    await link.request()
    await link.to_end()


async def answering(link: Peer) -> None:
    while link.ended is None:
        await link.request()
        link.send(length(len(DOCUMENT)) + DOCUMENT)
        await link.until(lambda: bool(link.buffer) or link.ended is not None)


async def asked(client: Peer, request: bytes) -> Heard:
    client.send(request)
    return await client.answer()
