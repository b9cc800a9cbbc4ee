"""What all connections of one worker share.

Lives here: `Relay`: options, admission, the snapshot, pool, clocks, open clients, the heads that parsers share, who
counts text, and the sinks that receipts go to.
May not live here: bytes of any request, but for those heads.
How it works: `server` builds one, plugs in sinks and listens with `client()` as the protocol factory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, MutableSet
from typing import Final, Protocol

from proxy.catalog.snapshot import Provider, Snapshot
from proxy.outcome import Failure, Kind, Receipt, Side
from proxy.policy.admission import Admission, Grant
from proxy.policy.credentials import Credentials
from proxy.policy.health import Health, TargetHealth, TargetKey
from proxy.policy.keys import CANCEL, Disconnect
from proxy.policy.retry import RetryBudget
from proxy.relay.absent import AbsentClient
from proxy.relay.client import ClientConnection
from proxy.relay.connect import Connector
from proxy.relay.deadlines import Deadlines
from proxy.relay.hangup import HangupWatch
from proxy.relay.metering import TextCounter
from proxy.relay.options import RelayOptions
from proxy.relay.phases import Seconds
from proxy.relay.pool import Connector as OpensLinks
from proxy.relay.pool import Pool
from proxy.relay.request import Passage
from proxy.relay.tasks import Tasks
from proxy.relay.turns import Turns
from proxy.relay.waiting import Waiting
from proxy.wire.head import Heads

Sink = Callable[[Receipt], None]
_LAST_WORDS: Final = Disconnect(True, 2.0)
LEAST_HEDGES: Final = 1.0  # in 10 s, for whoever has few requests
COUNT_SECONDS: Final = 5.0  # for what is still being counted when everything else has ended; then it is estimated


def _no_changes() -> None:
    """Keys are as they were at start."""


def _ignore(level: str, message: str, /, **more: object) -> None:
    """Nobody listens."""


class Hangups(Protocol):
    """Sees clients leave whose reading is paused (hangup)."""

    def watch(self, fd: int, callback: Callable[[], None], /) -> None: ...
    def unwatch(self, fd: int, /) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Relay:
    __slots__ = (
        "admission",
        "bodies",
        "clock",
        "clients",
        "counter",
        "health",
        "hedges",
        "retries",
        "deadlines",
        "drains",
        "hangups",
        "heads",
        "is_draining",
        "kept",
        "look_for_changes",
        "loop",
        "name",
        "notice",
        "options",
        "pool",
        "seconds",
        "snapshot",
        "started",
        "started_at",
        "tasks",
        "turns",
        "waiting",
        "wall",
        "_count",
        "_credentials",
        "_emptied",
        "_named",
        "_prefix",
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
        wall: Callable[[], int] = time.time_ns,
        run: str = "",
    ) -> None:
        """`wall`: nanoseconds since the epoch, for what outlives this process; `run` names this process: it begins the
        id of every exchange."""
        self.loop = loop
        # Seconds. Not the loop's own time: uvloop counts in whole milliseconds and only once per turn.
        self.clock = clock
        self.wall = wall
        self.waiting = Waiting(self)
        # Called before each request: a key that was changed elsewhere holds for the next one (DESIGN 10).
        self.look_for_changes: Callable[[], None] = _no_changes
        self.notice: Callable[..., None] = _ignore  # what the operator should know: level, sentence, further values
        self.options = options
        self.admission = admission
        self.snapshot = snapshot
        self._sinks = tuple(sinks)
        # Says who we are in Via: a request that already bears this name has come round in a loop (RFC 9110 7.6.3).
        self.name = b"llm-proxy-" + (run or os.urandom(6).hex()).encode()
        self.seconds = Seconds.of(options.seconds)
        self.deadlines = Deadlines(loop, clock)
        self.hangups: Hangups = HangupWatch(loop)
        self.tasks = Tasks(loop)
        self.turns = Turns(loop)
        self.health = Health()
        self.retries = RetryBudget(options.retry_share)
        self.hedges = RetryBudget(options.hedge_share, LEAST_HEDGES)
        self._credentials: dict[str, tuple[Provider, Credentials]] = {}
        self.pool = Pool(options, self.deadlines, self.tasks, connector or Connector(loop, options), clock)
        self.clients: MutableSet[ClientConnection] = set()
        self.drains: MutableSet[AbsentClient] = set()
        self.heads = Heads()  # that clients sent: all connections have the same limits
        self.counter: TextCounter | None = None
        self.bodies = 0  # bytes of request bodies held at this moment
        self.kept = 0  # bytes of requests and answers that may be kept for counting at this moment
        self.is_draining = False
        self.started = wall() // 10**9  # epoch seconds; and as RFC 3339 writes it: since when there are these models
        self.started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started))
        self._named, self._prefix = b"", ""  # what an id begins with, for that name
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
        self._note_emptied()

    def drain_ended(self, client: AbsentClient) -> None:
        self.drains.discard(client)
        self.deadlines.discard(client)
        self._note_emptied()

    def _note_emptied(self) -> None:
        if self._emptied is not None and not self.clients and not self.drains:
            self._emptied.set()

    def credentials_of(self, provider: Provider) -> Credentials:
        """What is known of the credentials of `provider`; nothing, once it has been configured anew."""
        known = self._credentials.get(provider.name)
        if known is None or known[0] is not provider:
            known = self._credentials[provider.name] = provider, Credentials(len(provider.credentials))
        return known[1]

    def standing(self) -> tuple[dict[TargetKey, TargetHealth], list[tuple[Provider, Credentials]], float]:
        """What is known of targets, and of the credentials of each provider that there is; and the time by `clock`."""
        providers = self.snapshot.providers
        known = [each for each in self._credentials.values() if providers.get(each[0].name) is each[0]]
        return dict(self.health.items()), known, self.clock()

    @property
    def exchanges(self) -> int:
        """How many there have been."""
        return self._count

    def next_number(self) -> int:
        """Of an exchange: unique within one process."""
        self._count += 1
        return self._count

    def id_of(self, number: int) -> str:
        """What an exchange is called everywhere: in order within one process, and unique among all."""
        if self._named is not self.name:
            self._named, self._prefix = self.name, self.name[10:].decode() + "-"
        return self._prefix + hex(number)[2:]

    def disconnect_of(self, grant: Grant, is_said: bool) -> Disconnect:
        """What becomes of an answer whose client, who came with `grant`, leaves now. `is_said`: all but its end has
        come, so that what it used comes at once, and costs nothing more."""
        if self.is_draining or len(self.drains) >= self.options.bytes.drains:
            return CANCEL
        own = None if grant.door is None else grant.door.key.disconnect
        policy = own or self.options.disconnect_by_key.get(grant.key or "", self.options.disconnect)
        return _LAST_WORDS if is_said and not policy.drains else policy

    def record(self, receipt: Receipt, passage: Passage | None = None) -> None:
        """Every receipt passes here; `passage` knows which secrets the provider was told and may have repeated."""
        if passage is not None:
            passage.scrub(receipt)
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
        if self.clients or self.drains:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), grace)
        self.give_up()
        if self.clients:
            await asyncio.sleep(0.1)  # for the honest endings to leave
            self.give_up()  # whoever was still shaking hands when the listeners closed
        for client in list(self.clients):
            client.abort()
        await self.close()

    def give_up(self) -> None:
        """Tell every client whose exchange still runs that it ends here."""
        running: list[ClientConnection | AbsentClient] = [*self.clients, *self.drains]
        for client in running:
            exchange = client.exchange
            if exchange is not None:
                exchange.fail(Failure(Side.PROXY, exchange.phase, Kind.SHUTDOWN, "this proxy is shutting down"))

    async def close(self) -> None:
        self.pool.close()
        if self.counter is not None:
            await self.counter.close(COUNT_SECONDS)
        await self.tasks.close()
        self.deadlines.stop()
        self.hangups.stop()
