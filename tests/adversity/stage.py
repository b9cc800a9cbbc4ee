"""A real sidecar between peers that a test plays, and the count of what is left afterwards.

Lives here: `Stage`, `run`. May not live here: peers (peers), what providers say (speech), assertions about one subject.
How it works: Worker, clients and upstream share one uvloop, so that 200 rounds take a fraction of a second. The end of
the block is a test of its own: no client, link in use, body, stream, task, deadline or descriptor is left, and nothing
at all after the worker has stopped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from proxy.outcome import Receipt
from proxy.server.settings import read_settings
from proxy.server.worker import Worker, raise_descriptor_limit
from tests.adversity.peers import Peer, Script, Upstream, all_of, connect
from tests.fakes import loops

ROUNDS = 200
SETTLE = 3.0  # seconds until everything must be gone; it takes milliseconds

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    raise_descriptor_limit()
    return loops.run(main, loop_factory=uvloop.new_event_loop)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def nobody(link: Peer) -> None:
    """A provider that must not be reached."""
    data = await link.to_end()
    raise RuntimeError(f"something reached the upstream: {data!r}")


class Stage:
    """`settings` are variables without their prefix. `upstream_port` replaces the played upstream by another one.
    Bodies pass as they are unless a test says otherwise, and no helper counts what was cut."""

    def __init__(self, script: Script = nobody, *, upstream_port: int = 0, **settings: str) -> None:
        self.upstream = Upstream(script)
        self.receipts: list[Receipt] = []
        self.clients: list[Peer] = []
        self.worker: Worker
        self.port = 0
        self._settings = {"INCLUDE_USAGE": "off", "COUNT": "off", **settings}
        self._upstream_port = upstream_port
        self._outside: set[asyncio.Task[Any]] = set()
        self._before = 0
        self._bare = 0  # descriptors without the worker
        self._base = 0  # with it

    async def __aenter__(self) -> Stage:
        self._outside = set(asyncio.all_tasks())
        # The loop's first listener takes a spare descriptor (/dev/null) that stays.
        (await asyncio.get_running_loop().create_server(Peer, "127.0.0.1", 0)).close()
        await asyncio.sleep(0)
        self._before = descriptors()
        await self.upstream.start()
        self._bare = descriptors()
        at = f"http://127.0.0.1:{self._upstream_port or self.upstream.port}"
        environ = {
            "PROVIDER_OAI": f"openai+{at}/v1",
            "PROVIDER_CLAUDE": f"anthropic+{at}",
            "PROVIDER_GEM": f"gemini+{at}",
            "PROVIDER_OLL": f"ollama+{at}",
            "DEFAULT_PROVIDER": "oai",
            "LISTEN": "127.0.0.1:0",
            "ADMIN_LISTEN": "off",
            "RETRIES": "0",  # what one attempt does is asked here
            **self._settings,
        }
        settings = read_settings({f"LLM_PROXY_{name}": value for name, value in environ.items()})
        assert not settings.warnings, settings.warnings
        self.worker = Worker(settings, (self.receipts.append,))
        await self.worker.start()
        self.port = int(self.worker.listening[0].rpartition(":")[2])
        self._base = descriptors()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.nothing_is_left()
        finally:
            for client in self.clients:
                client.transport.abort()
            await self.worker.stop(0)
            await self.upstream.close()
        if kind is None:
            await self.settle(lambda: descriptors() == self._before, lambda: f"{descriptors()} != {self._before} files")

    async def stop(self, grace: float) -> None:
        """Stop the worker as SIGTERM does."""
        await self.worker.stop(grace)
        self._base = self._bare

    def refuse(self) -> None:
        """From here the kernel refuses connections to the upstream."""
        self.upstream.stop_listening()
        self._base -= 1

    # -- clients ------------------------------------------------------------------------------------------------------

    async def client(self, *, receive_buffer: int = 0) -> Peer:
        peer = await connect(self.port, receive_buffer=receive_buffer)
        self.clients.append(peer)
        return peer

    async def rounds(self, one: Callable[[Peer], Awaitable[T]], count: int = ROUNDS) -> list[T]:
        """`one` with `count` clients at once; afterwards their connections are closed by FIN."""

        async def turn() -> T:
            client = await self.client()
            try:
                return await one(client)
            finally:
                client.close()

        return await all_of([turn() for _ in range(count)])

    # -- what is left -------------------------------------------------------------------------------------------------

    async def settle(self, is_so: Callable[[], bool], what: Callable[[], str] | str) -> None:
        try:
            async with asyncio.timeout(SETTLE):
                while not is_so():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(what if isinstance(what, str) else what()) from None

    def left(self) -> dict[str, int]:
        """Everything that should be 0 once all clients have gone."""
        relay = self.worker.relay
        ours = {asyncio.current_task(), *self._outside, *self.upstream.running}
        tasks = [task for task in asyncio.all_tasks() if task not in ours]
        return {
            "clients": len(relay.clients),
            "links in use": relay.pool.open - relay.pool.idle,
            "bodies": relay.bodies,
            "tasks": len(tasks),
            "tasks of the relay": len(relay.tasks),
            "deadlines": len(relay.deadlines) - 1,  # the pool's own
            "watched for leaving": len(relay.hangups._callbacks),
            "streams": len(relay.admission._streams),
            "drains": len(relay.drains),
            "kept for counting": relay.kept,
            "links open at the upstream": self.upstream.open - relay.pool.idle if not self._upstream_port else 0,
            # each idle link has two ends in this process
            "files": descriptors() - self._base - self.upstream.held - relay.pool.idle
            if not self._upstream_port
            else 0,
        }

    async def nothing_is_left(self) -> None:
        for client in self.clients:
            client.close()
        await self.settle(lambda: not any(self.left().values()), lambda: f"left behind: {self.left()}")

    async def all_receipts(self, count: int = ROUNDS) -> list[Receipt]:
        await self.settle(lambda: len(self.receipts) >= count, lambda: f"{len(self.receipts)} receipts of {count}")
        assert len(self.receipts) == count
        return self.receipts


def ending(receipt: Receipt) -> tuple[str, str, str, bool, int, int]:
    """Letters, side, kind, complete, status, number of attempts."""
    return (
        receipt.letters,
        receipt.ended_by.value,
        receipt.ended_kind,
        receipt.complete,
        receipt.status,
        len(receipt.attempts),
    )
