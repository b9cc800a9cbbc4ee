"""Links to providers: idle ones for reuse, ones in the making, and exchanges that wait for one.

Lives here: `Pool`. May not live here: how a link is opened (connect), what goes over it (upstream, exchange).
How it works: per origin a stack of idle links (last in, first out: the rest grow old and go), a count of all, and a
queue of exchanges. `take` is synchronous and is the straight path. Where there is nothing to take, a task opens a
link for the exchange that asked; a link that comes free goes to the one that has waited longest. A link belongs to
one exchange at a time and comes back only after an answer that ended cleanly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from proxy.catalog.snapshot import Origin
from proxy.outcome import Failure, Kind, Limit, Phase, Side
from proxy.relay.connect import ConnectFailed
from proxy.relay.deadlines import NEVER, Deadlines
from proxy.relay.options import RelayOptions
from proxy.relay.tasks import Tasks
from proxy.relay.upstream import LARGE_READ, UNCOUNTED, UpstreamConnection

if TYPE_CHECKING:
    from proxy.relay.sending import Sending

Connector = Callable[["Pool", Origin], Awaitable[UpstreamConnection]]


class _Opening:
    """A link in the making. `attempt` is who gets it; None once that one has left: the next one may take its place."""

    __slots__ = ("attempt",)

    def __init__(self, attempt: Sending) -> None:
        self.attempt: Sending | None = attempt


class _Links:
    """What belongs to one origin."""

    __slots__ = ("idle", "open", "opening", "waiting")

    def __init__(self) -> None:
        self.idle: list[UpstreamConnection] = []
        self.open = 0  # idle, in use and in the making
        self.opening: list[_Opening] = []
        self.waiting: deque[Sending] = deque()


class Pool:
    """`opened` counts links ever opened: a pool that reconnects silently triples the cost per request, so tests and
    bench look at it. Links read into `buffer` in turn (upstream)."""

    __slots__ = ("buffer", "clock", "deadline", "opened", "_connector", "_links", "_options", "_queues", "_tasks")

    def __init__(
        self,
        options: RelayOptions,
        deadlines: Deadlines,
        tasks: Tasks,
        connector: Connector,
        clock: Callable[[], float],
    ) -> None:
        self.buffer = memoryview(bytearray(LARGE_READ))
        self.clock = clock
        self._options = options.pool
        self._queues = options.seconds[Limit.QUEUE] > 0
        self.deadline = NEVER  # of the idle link that is too old first
        deadlines.add(self)  # and no link: those in use have none, and are thousands
        self._tasks = tasks
        self._connector = connector
        self._links: dict[Origin, _Links] = {}
        self.opened = 0

    @property
    def idle(self) -> int:
        return sum(len(links.idle) for links in self._links.values())

    @property
    def open(self) -> int:
        return sum(links.open for links in self._links.values())

    def take(self, origin: Origin) -> UpstreamConnection | None:
        """An idle link, or None."""
        links = self._links.get(origin)
        if links is None:
            return None
        while links.idle:
            connection = links.idle.pop()
            if not connection.transport.is_closing():
                connection.deadline = NEVER
                return connection
            self._forget(connection, links)
        return None

    def request(self, origin: Origin, attempt: Sending) -> Failure | None:
        """Open a link for `attempt`, or let it wait for one; a Failure if neither may be. Later calls
        `attempt.connected` or `attempt.connect_failed`, unless `withdraw` comes first."""
        links = self._links.get(origin)
        if links is None:
            links = self._links[origin] = _Links()
        if links.open < self._options.max_connections:
            self._make(origin, links, attempt)
            return None
        for opening in links.opening:
            if opening.attempt is None:  # whoever it was for has left
                opening.attempt = attempt
                attempt.connecting()
                return None
        if not self._queues or len(links.waiting) >= self._options.queue:
            detail = f"all {self._options.max_connections} connections to the provider are in use; try again soon"
            return Failure(Side.PROXY, Phase.QUEUE, Kind.OVERLOADED, detail)
        attempt.queued()
        links.waiting.append(attempt)
        return None

    def withdraw(self, origin: Origin, attempt: Sending) -> None:
        """`attempt` ended while it waited. A link in the making is not called off: it will serve the next one."""
        links = self._links.get(origin)
        if links is None:
            return
        if attempt in links.waiting:
            links.waiting.remove(attempt)
        for opening in links.opening:
            if opening.attempt is attempt:
                opening.attempt = links.waiting.popleft() if links.waiting else None
                if opening.attempt is not None:
                    opening.attempt.connecting()

    def give(self, connection: UpstreamConnection, now: float) -> None:
        """A link whose answer ended cleanly."""
        links = self._links[connection.origin]
        options = self._options
        connection.attempt = connection.answer = None
        if connection.read_most:
            connection.read_freely()
        if connection.transport.is_closing() or now - connection.born >= options.age_seconds:
            self.drop(connection)
        elif links.waiting:
            _hand_over(connection, links.waiting.popleft(), True)
        elif len(links.idle) >= options.max_idle:
            self.drop(connection)
        else:
            connection.deadline = min(now + options.idle_seconds, connection.born + options.age_seconds)
            self.deadline = min(self.deadline, connection.deadline)
            links.idle.append(connection)

    def drop(self, connection: UpstreamConnection) -> None:
        """Close a link for good, wherever it stands. Safe to call twice, and before the link counts as one of ours."""
        connection.close()
        links = self._links.get(connection.origin)
        if links is None or connection.deadline < 0:
            return
        if connection in links.idle:
            links.idle.remove(connection)
        self._forget(connection, links)
        self._serve_next(connection.origin, links)

    def on_deadline(self, now: float) -> None:
        for links in list(self._links.values()):
            for connection in [each for each in links.idle if each.deadline <= now]:
                self.drop(connection)
        self.deadline = min((each.deadline for links in self._links.values() for each in links.idle), default=NEVER)

    def _forget(self, connection: UpstreamConnection, links: _Links) -> None:
        connection.deadline = UNCOUNTED
        self._count_out(connection.origin, links)

    def _count_out(self, origin: Origin, links: _Links) -> None:
        links.open -= 1
        if not links.open and not links.waiting:
            self._links.pop(origin, None)

    def _serve_next(self, origin: Origin, links: _Links) -> None:
        if links.waiting and links.open < self._options.max_connections:
            self._make(origin, links, links.waiting.popleft())

    def _make(self, origin: Origin, links: _Links, attempt: Sending) -> None:
        opening = _Opening(attempt)
        links.open += 1
        links.opening.append(opening)
        attempt.connecting()
        self._tasks.start(self._open(origin, links, opening))

    async def _open(self, origin: Origin, links: _Links, opening: _Opening) -> None:
        connection: UpstreamConnection | None = None
        fault: Exception = ConnectFailed(Kind.CONNECT_FAILED, "the provider closed the connection at once")
        try:
            connection = await self._connector(self, origin)
        except Exception as error:
            fault = error
        links.opening.remove(opening)
        attempt = opening.attempt
        if connection is None or connection.is_lost:
            self._count_out(origin, links)
            if isinstance(fault, ConnectFailed):
                if attempt is not None:
                    attempt.connect_failed(fault.failure)
            elif attempt is not None:
                attempt.crashed(fault)
            else:
                raise fault
            self._serve_next(origin, links)
            return
        self.opened += 1
        connection.deadline = NEVER
        if attempt is not None:
            _hand_over(connection, attempt, False)
        else:
            self.give(connection, self.clock())

    def close(self) -> None:
        """Close all idle links. Those in use end with their exchanges."""
        for links in list(self._links.values()):
            for connection in list(links.idle):
                self.drop(connection)


def _hand_over(connection: UpstreamConnection, attempt: Sending, reused: bool) -> None:
    """A fault here is this exchange's: neither the task's nor that of whoever gave the link back."""
    try:
        attempt.connected(connection, reused)
    except Exception as error:
        attempt.crashed(error)
