"""One worker: listeners, relay, log, signals.

Lives here: `Worker` (used by `serve`, `demo` and tests) and `run`, which is the life of the process.
May not live here: reading the environment (settings), bytes of requests (relay), what may change (reload).
How it works: everything is built from one `Settings`; sockets are bound before anything is announced, so what is
printed is true. SIGTERM, and SIGINT once: stop accepting, finish what runs within LLM_PROXY_TIMEOUT_SHUTDOWN, tell
the rest honestly. SIGINT twice: stop at once. SIGHUP: read the configuration again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

from proxy import __version__, outcome
from proxy.admin.reload import Reloaded
from proxy.admin.routes import AdminRequest, health_table
from proxy.admin.session import AdminSessions
from proxy.admin.threads import Threads
from proxy.ledger.counters import Counters, beside
from proxy.ledger.schema import LedgerUnusable
from proxy.ledger.writer import Ledger
from proxy.outcome import Limit
from proxy.policy.admission import Admission, is_browser_page
from proxy.policy.counters import MemoryStore
from proxy.policy.keys import AuthMode
from proxy.policy.limits import Limiter
from proxy.policy.rules import Budget, Rate
from proxy.relay.relay import Relay, Sink
from proxy.server.addresses import Address
from proxy.server.admin import Given, admin_table
from proxy.server.certificates import client_tls, show_from_now_on
from proxy.server.contradictions import contradictions
from proxy.server.keys import StoredKeys, read_keys
from proxy.server.models import StoredModels
from proxy.server.reload import Reloading, changes, find_prices, joined, put, read_again
from proxy.server.settings import Settings
from proxy.server.sockets import CannotListen, bind
from proxy.telemetry.access_log import AccessLog
from proxy.telemetry.sampler import Sampler
from proxy.tokens.counter import Counter

BACKLOG = 1024
# More objects that were made than went, before the collector looks at those: 700 in Python, which 100 streams that open
# bring about, and the old ones were looked at again and again (3 % of a request).
_MORE_OBJECTS = 10_000
_SYNC_SECONDS = 1.0


Note = Callable[..., None]  # level, sentence, and by name what programs may pick out of it


def ignore(level: str, message: str, /, **more: object) -> None:
    """Nobody wants to know."""


class Worker:
    """`settings` are those in force. `listening` and `admin` are the addresses as bound: port 0 has become a number.
    `environ`: what `settings` were read from, to be read again; None: they stay as they are."""

    def __init__(
        self,
        settings: Settings,
        sinks: tuple[Sink, ...] = (),
        note: Note = ignore,
        run: str = "",
        counters: Counters | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self._given = Given(settings)
        self._environ = environ
        self._reloading: Reloading | None = None
        self._tls: ssl.SSLContext | None = None  # what clients are met with
        self._counters = counters  # of limits and budgets
        self._keys: StoredKeys | None = None
        self._syncing: asyncio.TimerHandle | None = None
        self._run = run  # begins the ids of its exchanges; "": the relay finds one
        self.listening: list[str] = []
        self.admin: list[str] = []
        self.relay: Relay
        self._models: StoredModels
        self.counter: Counter | None = None
        self._sinks = sinks
        self._note = note
        self._servers: list[asyncio.Server] = []
        self._paths: list[str] = []
        self._sessions: list[AdminSessions] = []
        self._threads: Threads | None = None

    async def start(self) -> None:
        """Bind everything and serve. Raises CannotListen."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        limiter = Limiter(self._counters or MemoryStore(), settings.calendar.end)
        for scope, rules in settings.rules.items():
            limiter.set_rules(scope, rules)
        limiter.on_passed = self._budget_passed
        admission = Admission(
            settings.ring(),
            limiter,
            browser_guard=settings.browser_guard,
            hosts=settings.hosts,
            streams_per_key=settings.relay.bytes.streams_per_key,
        )
        self.relay = Relay(loop, settings.relay, admission, settings.snapshot, self._sinks, run=self._run)
        self._count()
        self.relay.notice = self._note
        self.relay.start()
        self._models = StoredModels(self._given.path, self.relay, self._note)
        self._keys = read_keys(settings, self._counters, admission, self._models, self._note)
        if self._keys is not None:
            self.relay.look_for_changes = self._keys.look
        if self._counters is not None:
            self._sync_counters()
        find_prices(settings.snapshot)
        self._reloading = Reloading(loop, partial(read_again, self._environ), self._put, self._note)
        try:
            self._tls = client_tls(settings)
            for address in settings.listen:
                self.listening.append(await self._listen(address, self.relay.client, self._tls))
            self._threads = Threads(loop)
            table = admin_table(
                self._given, self.relay, self._models.catalog, self.readiness, self._stored, self.reload, self._note
            )
            for address in settings.admin_listen:
                sessions = AdminSessions(loop, table, self._admin_guard, threads=self._threads)
                self._sessions.append(sessions)
                self.admin.append(await self._listen(address, sessions, None))
            for address in settings.health_listen:
                sessions = AdminSessions(loop, health_table(self.readiness))
                self._sessions.append(sessions)
                self.admin.append(await self._listen(address, sessions, None))
        except BaseException:
            await self.stop(0)
            raise

    def reload(self) -> Future[Reloaded]:
        """Read the configuration again, once it has started. In the loop."""
        assert self._reloading is not None
        return self._reloading.begin()

    def _put(self, new: Settings) -> Reloaded:
        """`new` in force, as far as it can be, or nothing of it: whatever may fail comes first."""
        stored, now = self._keys, self.settings
        if stored is not None and not stored.is_mode_open:  # the ledger's first key may have turned keys on
            now = replace(now, mode=self.relay.admission.ring.mode)
        settings, late = joined(now, new)
        errors, tls = contradictions(settings), None
        try:
            tls = client_tls(settings)
        except (OSError, ValueError):
            errors.append("LLM_PROXY_TLS_CERT: the files have just been changed once more: reload again")
        warnings = list(new.warnings)
        if errors:
            return Reloaded([], [], warnings, errors)
        whole = replace(settings, snapshot=self._models.over(settings.snapshot))
        lines = changes(replace(now, snapshot=self.relay.snapshot), whole)
        put(self.relay, now, whole)
        self.settings = settings
        self._given.put(settings)
        if self._tls is not None and tls is not None:
            show_from_now_on(self._tls, tls)
        is_open = not settings.is_mode_given and settings.mode is AuthMode.OFF
        if stored is not None and (now.keys != settings.keys or stored.is_mode_open is not is_open):
            stored.set_static(frozenset(settings.keys), is_open)
        self._count()
        return Reloaded(lines, late, warnings, [])

    def _count(self) -> None:
        """Have text counted where nobody reports it, if the settings say so."""
        if self.settings.counts and self.settings.relay.meters and self.counter is None:
            loop = asyncio.get_running_loop()
            self.relay.counter = self.counter = Counter(loop, note=self._note)

    def _budget_passed(self, scope: str, rule: Rate | Budget) -> None:
        self._note("warn", f"the budget {rule.name} of {scope} is passed, and only warns", scope=scope, rule=rule.name)

    def _stored(self) -> None:
        """The admin API has changed keys or aliases: they hold from here on."""
        if self._keys is not None:
            self._keys.look_again()

    def _sync_counters(self, seen: int = 0) -> None:
        """Have the disk take what the counters say, once a second while requests come: what a power cut may cost.
        `seen`: requests at the last time."""
        counters, now = self._counters, self.relay.exchanges
        loop = asyncio.get_running_loop()
        if counters is not None and now != seen:
            loop.run_in_executor(None, counters.sync).add_done_callback(self._synced)
        self._syncing = loop.call_later(_SYNC_SECONDS, self._sync_counters, now)

    def _synced(self, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is not None:
            self._note("warn", f"the counters of limits and budgets did not reach the disk: {error}")

    async def _listen(self, address: Address, protocol: Callable[[], Any], context: ssl.SSLContext | None) -> str:
        loop = asyncio.get_running_loop()
        timeout = self.settings.relay.seconds[Limit.HEAD] or None
        tls: dict[str, Any] = {"ssl": context, "ssl_handshake_timeout": timeout} if context is not None else {}
        sock = bind(address)
        if address.path is not None:
            self._paths.append(address.path)
            server = await loop.create_unix_server(protocol, sock=sock, backlog=BACKLOG, **tls)
        else:
            server = await loop.create_server(protocol, sock=sock, backlog=BACKLOG, **tls)
        self._servers.append(server)
        if address.path is not None:
            return str(address)
        host, port = sock.getsockname()[:2]
        return str(Address(host, port))

    def _admin_guard(self, request: AdminRequest) -> str | None:
        return is_browser_page(request, self.settings.hosts, when=" here, always")

    def readiness(self) -> list[str]:
        """Why this worker should get no new requests; empty: it should."""
        reasons = []
        if self.relay.is_draining:
            reasons.append("shutting down")
        if not self.relay.snapshot.providers:
            reasons.append("no provider is configured")
        return reasons

    async def stop(self, grace: float) -> None:
        """Stop accepting, drain for at most `grace` seconds, close everything."""
        relay = self.relay
        relay.is_draining = True
        if self._reloading is not None:
            self._reloading.close()
        for server in self._servers[: len(self.listening)]:
            server.close()
        await relay.drain(grace)
        for sessions in self._sessions:
            sessions.close()
        if self._threads is not None:
            self._threads.close()
        if self._syncing is not None:
            self._syncing.cancel()
        if self._keys is not None:
            self._keys.close()
        for server in self._servers:
            server.close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                os.unlink(path)


def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Serve until told to stop. `environ`: what `settings` were read from. Returns the exit code: 0 stopped as asked,
    1 could not start or lost receipts."""
    import uvloop

    raise_descriptor_limit()
    log = AccessLog(sys.stdout.fileno(), cast(Literal["json", "text", "off"], settings.log))
    log.start()
    run = os.urandom(6).hex()
    ledger = None if settings.ledger is None else Ledger(settings.ledger, run, __version__, log.note)
    code = 1
    counters = None
    try:
        if ledger is not None and settings.ledger is not None:
            ledger.open()  # from here on nobody else has the files beside it either
            counters = Counters(beside(settings.ledger.path), log.note, time.time_ns())
            ledger.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_serve(settings, environ, run, log, ledger, counters))
    except LedgerUnusable as error:
        log.note("error", f"LLM_PROXY_DB: {error}")
    finally:
        if counters is not None:
            counters.close()
        if ledger is not None and not ledger.close(10.0):  # it says what is lost, while there is a log
            code = code or 1
        log.close(2.0)
    return code


async def _serve(
    settings: Settings,
    environ: Mapping[str, str],
    run: str,
    log: AccessLog,
    ledger: Ledger | None,
    counters: Counters | None,
) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: _report(log, context))
    sinks: tuple[Sink, ...] = () if settings.log == "off" else (log.observe,)
    if ledger is not None:
        sinks = (*sinks, ledger.observe)
    sampler = Sampler(sinks, log.note)
    worker = Worker(settings, (sampler.observe,) if sinks else (), log.note, run, counters, environ)
    stopping = asyncio.Event()
    interrupts = 0

    def stop() -> None:
        stopping.set()

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        stopping.set()
        if interrupts > 1:
            worker.relay.give_up()
            if worker.counter is not None:
                worker.counter.give_up()
            # What was written just now leaves at the end of this turn of the loop; receipts come with the next.
            loop.call_later(0.05, _exit_now, log, ledger, sampler)

    try:
        await worker.start()
    except CannotListen as error:
        log.note("error", str(error))
        return 1
    gc.freeze()  # what is here by now stays
    gc.set_threshold(_MORE_OBJECTS, 20, 20)  # requests leave no cycles (tests/bench/test_straight.py)
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGHUP, worker.reload)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    worker.relay.deadlines.add(sampler)
    _announce(worker, log)
    try:
        await stopping.wait()
        grace = worker.settings.relay.seconds[Limit.SHUTDOWN]
        busy = sum(client.exchange is not None for client in worker.relay.clients) + len(worker.relay.drains)
        log.note("info", "shutting down", in_flight=busy, seconds=grace)
        await worker.stop(grace)
    finally:
        sampler.close()
        if worker.counter is not None:  # whatever went wrong: the close of uvloop waits for all that is still watched
            await worker.counter.close(0.0)
    if interrupts > 1:
        log.note("warn", "stopped at once")
        return 130
    log.note("info", "stopped")
    return 0


def _exit_now(log: AccessLog, ledger: Ledger | None, sampler: Sampler) -> None:
    sampler.close()
    log.note("warn", "stopped at once")
    if ledger is not None:
        ledger.close(2.0)
    log.close(1.0)
    os._exit(130)


def _announce(worker: Worker, log: AccessLog) -> None:
    """Say where we listen and what we will do, in the log's own form."""
    settings = worker.settings
    for warning in settings.warnings:
        log.note("warn", warning)
    log.note(
        "info",
        "ready",
        compiled=not outcome.__file__.endswith(".py"),
        listen=worker.listening,
        tls=settings.tls_cert is not None,
        admin=worker.admin,
        auth=settings.mode.value,
        ledger="off" if settings.ledger is None else settings.ledger.path,
        providers=sorted(settings.snapshot.providers),
        default=settings.snapshot.default.name if settings.snapshot.default else "none",
    )


def _report(log: AccessLog, context: dict[str, Any]) -> None:
    """What reaches the loop's exception handler is a fault of ours; the text of an exception may hold bytes of a
    request, so only its type and place are logged."""
    error = context.get("exception")
    place = ""
    trace = getattr(error, "__traceback__", None)
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    log.note("error", str(context.get("message", "fault")), error=type(error).__name__, place=place)


def raise_descriptor_limit() -> None:
    """The soft limit of open files to the hard one: 1,024 would be used up by 500 exchanges."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
