"""What all connections of one worker share.

Lives here: `Relay`: options, admission, the snapshot, pool, clocks, open clients, and the sinks that receipts go to.
May not live here: bytes of any request.
How it works: `server` builds one, plugs in sinks and listens with `client()` as the protocol factory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable

from proxy.catalog.snapshot import Snapshot
from proxy.outcome import Failure, Kind, Receipt, Side
from proxy.policy.admission import Admission
from proxy.relay.client import ClientConnection
from proxy.relay.connect import Connector
from proxy.relay.deadlines import Deadlines
from proxy.relay.hangup import HangupWatch
from proxy.relay.options import RelayOptions
from proxy.relay.phases import Seconds
from proxy.relay.pool import Connector as OpensLinks
from proxy.relay.pool import Pool
from proxy.relay.tasks import Tasks

Sink = Callable[[Receipt], None]


class Relay:
    __slots__ = (
        "admission",
        "bodies",
        "clock",
        "clients",
        "deadlines",
        "hangups",
        "is_draining",
        "loop",
        "name",
        "options",
        "pool",
        "seconds",
        "snapshot",
        "tasks",
        "_count",
        "_emptied",
        "_sinks",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: RelayOptions,
        admission: Admission,
        snapshot: Snapshot,
        sinks: Iterable[Sink] = (),
        connector: OpensLinks | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = loop
        # Seconds. Not the loop's own time: uvloop counts in whole milliseconds and only once per turn.
        self.clock = clock
        self.options = options
        self.admission = admission
        self.snapshot = snapshot
        self._sinks = tuple(sinks)
        # Says who we are in Via: a request that already bears this name has come round in a loop (RFC 9110 7.6.3).
        self.name = b"llm-proxy-" + os.urandom(6).hex().encode()
        self.seconds = Seconds.of(options.seconds)
        self.deadlines = Deadlines(loop, clock)
        self.hangups = HangupWatch(loop)
        self.tasks = Tasks(loop)
        self.pool = Pool(options, self.deadlines, self.tasks, connector or Connector(loop, options), clock)
        self.clients: set[ClientConnection] = set()
        self.bodies = 0  # bytes of request bodies held at this moment
        self.is_draining = False
        self._count = 0
        self._emptied: asyncio.Event | None = None

    def start(self) -> None:
        self.deadlines.start()
        self.hangups.start()

    def client(self) -> ClientConnection:
        """The protocol factory of all client listeners."""
        return ClientConnection(self)

    def client_closed(self, client: ClientConnection) -> None:
        self.clients.discard(client)
        self.deadlines.discard(client)
        if self._emptied is not None and not self.clients:
            self._emptied.set()

    def next_id(self) -> str:
        """Of an exchange: unique, in order within one process."""
        self._count += 1
        return f"{self.name[10:].decode()}-{self._count:x}"

    def record(self, receipt: Receipt) -> None:
        for sink in self._sinks:
            try:
                sink(receipt)
            except Exception as error:  # a recorder's fault is not the client's
                self.loop.call_exception_handler({"message": "a sink failed", "exception": error})

    async def drain(self, grace: float) -> None:
        """Finish what runs, for at most `grace` seconds, then tell the rest honestly and close everything."""
        self.is_draining = True
        for client in list(self.clients):
            client.close_when_idle()
        if self.clients:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), grace)
        self.give_up()
        if self.clients:
            await asyncio.sleep(0.1)  # for the honest endings to leave
        for client in list(self.clients):
            client.abort()
        await self.close()

    def give_up(self) -> None:
        """Tell every client whose exchange still runs that it ends here."""
        for client in list(self.clients):
            exchange = client.exchange
            if exchange is not None:
                exchange.fail(Failure(Side.PROXY, exchange.phase, Kind.SHUTDOWN, "this proxy is shutting down"))

    async def close(self) -> None:
        self.pool.close()
        await self.tasks.close()
        self.deadlines.stop()
        self.hangups.stop()
