"""The configuration, read again while everything runs: SIGHUP, POST /reload.

Lives here: `read_again`, `joined` (what of it can be put in force), `changes` (in words), `put` (in force, as far as
the relay goes by it), `Reloading` (one after another). May not live here: what variables mean (settings), the parts of
a worker that go by settings, too (worker), the route (admin).
How it works: a thread reads everything, the files included, from the environment that the process was started with.
What comes of it is put in force in one synchronous step in the loop, or not at all: a request finds all of the old or
all of the new, and an exchange keeps the snapshot that it began with. What is bound to what the process has opened
(listeners, files, the pool) stays as it is and is named, for it takes a restart.
Who is let in without a key now is not by a change of mode: keys may be turned on, and never off.
Doubted: certificates and CAs towards providers are read once, also where only the files have changed; so is the text
of a price file whose `version` stays the same not seen as a change, though it is in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple

from proxy.admin.reload import Reloaded
from proxy.catalog.snapshot import Provider, Snapshot
from proxy.outcome import Limit
from proxy.policy.admission import Admission
from proxy.policy.health import Health
from proxy.policy.keys import AuthMode, Key, digest_of
from proxy.policy.limits import FOREVER, Limiter
from proxy.policy.retry import RetryBudget
from proxy.policy.rules import Rules
from proxy.relay.options import RelayOptions
from proxy.relay.phases import Seconds
from proxy.relay.relay import LEAST_HEDGES, Relay
from proxy.server.certificates import check_certificates
from proxy.server.report import as_document
from proxy.server.settings import ConfigurationError, Settings, read_settings
from proxy.server.table import NUMBERS
from proxy.telemetry.lines import CUT_CHARS, CUT_ITEMS

Note = Callable[..., None]


def read_again(environ: Mapping[str, str] | None) -> Settings:
    """The settings of `environ`, with files as they are now. Raises ConfigurationError. For a thread: 20 ms."""
    if environ is None:
        raise ConfigurationError(["this process does not know what it was started with: restart it"], [])
    settings = read_settings(environ)
    errors = check_certificates(settings)
    if errors:
        raise ConfigurationError(errors, list(settings.warnings))
    find_prices(settings.snapshot)
    return settings


def find_prices(snapshot: Snapshot) -> None:
    """Read the rows of all its providers now, and not in the loop later (catalog.prices)."""
    if snapshot.prices is not None:
        for provider in snapshot.providers.values():
            snapshot.prices.find(provider.name, provider.origin.host, "", 0.0)


# --- what of it can be put in force -----------------------------------------------------------------------------------

# What somebody has made something of that stays until the process ends.
_LATE: dict[str, Callable[[Settings], object]] = {
    "LLM_PROXY_LISTEN": lambda it: it.listen,
    "LLM_PROXY_ADMIN_LISTEN": lambda it: it.admin_listen,
    "LLM_PROXY_ADMIN_TOKEN": lambda it: it.admin_token,
    "LLM_PROXY_HEALTH_LISTEN": lambda it: it.health_listen,
    "LLM_PROXY_TLS_CERT": lambda it: it.tls_cert,
    # Off by default and off because it was said: only the latter lets the first key of the ledger pass without effect.
    "LLM_PROXY_AUTH": lambda it: (it.mode, it.mode is AuthMode.OFF and it.is_mode_given),
    "LLM_PROXY_LOG": lambda it: it.log,
    "LLM_PROXY_DB": lambda it: it.ledger.path if it.ledger else None,
    "LLM_PROXY_DB_DAYS": lambda it: it.ledger.days if it.ledger else 0,
    "LLM_PROXY_DB_SIZE": lambda it: it.ledger.max_bytes if it.ledger else 0,
    "LLM_PROXY_COUNT": lambda it: it.counts,
    "LLM_PROXY_BUDGET_ZONE": lambda it: it.calendar.zone,
    "LLM_PROXY_BUDGET_LOST": lambda it: it.carries_lost,
    "LLM_PROXY_CLEAR_ENV": lambda it: it.clears_env,
    "LLM_PROXY_UPSTREAM_CA": lambda it: it.relay.tls.ca_file,
    "LLM_PROXY_UPSTREAM_CERT": lambda it: it.relay.tls.cert_file,
    "LLM_PROXY_UPSTREAM_KEY": lambda it: it.relay.tls.key_file,
    "LLM_PROXY_TIMEOUT_CONNECT": lambda it: it.relay.seconds[Limit.CONNECT],
    "LLM_PROXY_TIMEOUT_QUEUE": lambda it: it.relay.seconds[Limit.QUEUE],
    "LLM_PROXY_MAX_UPSTREAM_HEAD": lambda it: it.relay.bytes.upstream_head,
    "LLM_PROXY_POOL_CONNECTIONS": lambda it: it.relay.pool.max_connections,
    "LLM_PROXY_POOL_IDLE": lambda it: it.relay.pool.max_idle,
    "LLM_PROXY_POOL_IDLE_SECONDS": lambda it: it.relay.pool.idle_seconds,
    "LLM_PROXY_POOL_AGE_SECONDS": lambda it: it.relay.pool.age_seconds,
    "LLM_PROXY_POOL_QUEUE": lambda it: it.relay.pool.queue,
}
# Of these, each connection of a client takes what holds when it begins.
_WITH_CONNECTIONS = {name for name, row in NUMBERS.items() if row.part == "head"} | {"LLM_PROXY_MAX_BUFFER"}


class Joined(NamedTuple):
    """`settings`: what can be put in force. `takes_restart`: a sentence for each variable that stays as it was."""

    settings: Settings
    takes_restart: list[str]


def joined(now: Settings, new: Settings) -> Joined:
    """`new`, but for what of `now` stays until the process ends."""
    # The first keys close what was open, as those of the ledger do; whoever was told `off` meant it.
    closes = now.mode is AuthMode.OFF and not now.is_mode_given and new.mode is AuthMode.KEYS
    mode = AuthMode.KEYS if closes else now.mode
    has_tls = now.tls_cert is not None and new.tls_cert is not None
    # Providers are others where clients bring their own credentials: those that fit stay.
    fits = (mode is AuthMode.PASSTHROUGH) == (new.mode is AuthMode.PASSTHROUGH)
    settings = replace(
        new,
        listen=now.listen,
        admin_listen=now.admin_listen,
        # The listener stays where it is, so that its token may become another one, and may not go.
        admin_token=new.admin_token or now.admin_token,
        health_listen=now.health_listen,
        tls_cert=new.tls_cert if has_tls else now.tls_cert,
        tls_key=new.tls_key if has_tls else now.tls_key,
        mode=mode,
        is_mode_given=now.is_mode_given,
        keys=new.keys if mode is AuthMode.KEYS else now.keys,
        log=now.log,
        ledger=now.ledger,
        counts=now.counts,
        relay=_relay(now.relay, new.relay),
        snapshot=new.snapshot if fits else now.snapshot,
        calendar=now.calendar,
        carries_lost=now.carries_lost,
        clears_env=now.clears_env,
    )
    late = [name for name, get in _LATE.items() if get(settings) != get(new)]
    return Joined(settings, [f"{name}: takes a restart" for name in late])


def _relay(now: RelayOptions, new: RelayOptions) -> RelayOptions:
    seconds = new.seconds | {Limit.CONNECT: now.seconds[Limit.CONNECT]}
    # The pool has one way or the other: with a queue, where somebody may wait for ever, or without.
    if bool(now.seconds[Limit.QUEUE]) != bool(new.seconds[Limit.QUEUE]):
        seconds[Limit.QUEUE] = now.seconds[Limit.QUEUE]
    sizes = replace(new.bytes, upstream_head=now.bytes.upstream_head)
    return replace(new, seconds=seconds, bytes=sizes, pool=now.pool, tls=now.tls)


# --- in words ---------------------------------------------------------------------------------------------------------


def changes(now: Settings, new: Settings) -> list[str]:
    """What is other in `new`, a line for each; secrets by their fingerprints."""
    lines = diff(_document(now), _document(new))
    mine, others = new.snapshot.providers, now.snapshot.providers
    for name in mine.keys() & others.keys():
        if mine[name] != others[name] and not any(line[2:].startswith(f"providers.{name}.") for line in lines):
            lines.append(f"~ providers.{name}: a secret of which nothing is shown")
    return lines


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Two documents as `+ path: value`, `- path: value` and `~ path: value -> value`, in their order. What is empty is
    not there."""
    was, now = dict(_flat(old)), dict(_flat(new))
    lines = []
    for path in dict.fromkeys([*was, *now]):
        name = _shown(path)
        if path not in was:
            lines.append(f"+ {name}: {now[path]}")
        elif path not in now:
            lines.append(f"- {name}: {was[path]}")
        elif was[path] != now[path]:
            later = " (for new connections)" if path[-1] in _WITH_CONNECTIONS else ""
            lines.append(f"~ {name}: {was[path]} -> {now[path]}{later}")
    return lines


def _flat(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each value of a document with the way to it. Lists of things that have names are taken by these."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _flat(each, (*path, str(name)))
    elif isinstance(value, (list, tuple)) and value and all(isinstance(each, Mapping) for each in value):
        yield from _flat({each.get("name", number): each for number, each in enumerate(value)}, path)
    elif isinstance(value, (list, tuple)):
        if value:
            yield path, " ".join(map(str, value))
    elif isinstance(value, bool):
        yield path, "on" if value else "off"
    elif value is not None and value != "":
        yield path, f"{value:g}" if isinstance(value, float) else str(value)


def _shown(path: tuple[str, ...]) -> str:
    section, *rest = path
    if section == "rules":
        return f"limits {'.'.join(rest)}"
    # These two are named by variables, which say all.
    return ".".join(rest if section in ("timeouts", "limits") else path)


def _document(settings: Settings) -> dict[str, Any]:
    """What `check` shows, and what it does not show of what can change."""
    document = as_document(settings)
    document.pop("warnings")
    providers = settings.snapshot.providers
    document["providers"] = {each.pop("name"): each for each in document["providers"]}
    for name, each in document["providers"].items():
        each.update(_secrets(providers[name]))
    aliases = document.get("aliases", ())
    document["aliases"] = {each["name"]: f"{each['targets']} {each['options']}".strip() for each in aliases}
    reserves = settings.snapshot.reserves._asdict()
    relay = settings.relay
    more = {"hedge_share": relay.hedge_share, "identity": relay.identity, "budget_stop": relay.stops}
    return {**document, **more, "reserves": reserves}


def _secrets(provider: Provider) -> dict[str, Any]:
    """Of the fields of a provider and of the way to it, by fingerprints."""
    way = provider.origin.proxy_authorization
    return {
        "headers": {name.decode("latin-1"): f"#{value.fingerprint}" for name, value in provider.headers},
        "proxy_authorization": None if way is None else f"#{way.fingerprint}",
    }


# --- in force ---------------------------------------------------------------------------------------------------------


def put(relay: Relay, now: Settings, settings: Settings) -> None:
    """`settings` hold from here on, and `now` not any more, for all that the relay and admission do."""
    admission = relay.admission
    _put_limits(admission.limiter, now, settings)
    _put_keys(admission, now, settings)
    admission.hosts = settings.hosts
    admission.streams_per_key = settings.relay.bytes.streams_per_key
    relay.options = settings.relay
    relay.seconds = Seconds.of(settings.relay.seconds)
    if settings.relay.retry_share != now.relay.retry_share:
        relay.retries = RetryBudget(settings.relay.retry_share)
    if settings.relay.hedge_share != now.relay.hedge_share:
        relay.hedges = RetryBudget(settings.relay.hedge_share, LEAST_HEDGES)
    _put_snapshot(relay, settings.snapshot)
    relay.waiting.wake()


def _put_snapshot(relay: Relay, snapshot: Snapshot) -> None:
    """Another object also where all of it is equal: what connections remember of before does not hold any more. But
    providers that are equal stay the same objects, so that what is known of their credentials stands."""
    old = relay.snapshot.providers
    providers = {name: old[name] if old.get(name) == each else each for name, each in snapshot.providers.items()}
    default = snapshot.default and providers[snapshot.default.name]
    relay.snapshot = replace(snapshot, providers=providers, default=default)
    if any(name in old and old[name] is not each for name, each in providers.items()):
        # What made a target fail may be what was changed. All begin anew: those that still fail are soon known again.
        relay.health = Health()


def _put_limits(limiter: Limiter, now: Settings, settings: Settings) -> None:
    changed = [scope for scope in now.rules | settings.rules if now.rules.get(scope) != settings.rules.get(scope)]
    # A key of the ledger that had such a name had limits of its own.
    changed += [f"key {name}" for name in settings.keys if name not in now.keys]
    for scope in dict.fromkeys(changed):
        limiter.set_rules(scope, settings.rules.get(scope, Rules()))


def _put_keys(admission: Admission, now: Settings, settings: Settings) -> None:
    ring = admission.ring
    changed = [name for name in now.keys | settings.keys if now.keys.get(name) != settings.keys.get(name)]
    for name in changed:  # all first: one of them may have the value that another one had
        ring.remove(name)
    for name in changed:
        if name in settings.keys:
            ring.put(Key(name), {digest_of(settings.keys[name].reveal().encode()): FOREVER})
    if settings.mode is not now.mode:
        ring.set_mode(settings.mode)
        admission.browser_guard = settings.browser_guard


# --- one after another ------------------------------------------------------------------------------------------------


class Reloading:
    """`read` is called in a thread, and raises ConfigurationError; `put` in the loop, with what it returned. All
    methods are called in the loop."""

    __slots__ = ("_following", "_is_closed", "_loop", "_note", "_put", "_read", "_running")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        read: Callable[[], Settings],
        put: Callable[[Settings], Reloaded],
        note: Note,
    ) -> None:
        self._loop = loop
        self._read = read
        self._put = put
        self._note = note
        self._running: Future[Reloaded] | None = None
        self._following: Future[Reloaded] | None = None  # begins when that has ended
        self._is_closed = False

    def begin(self) -> Future[Reloaded]:
        """Read everything, from here on: whoever comes while it is being read gets what is read after that, together
        with all others who came meanwhile. The future never fails."""
        future: Future[Reloaded] = Future()
        if self._is_closed:
            _end(future)
        elif self._running is None:
            self._start(future)
        elif self._following is None:
            self._following = future
        else:
            return self._following
        return future

    def close(self) -> None:
        """Nothing is put in force any more."""
        self._is_closed = True
        for future in (self._running, self._following):
            if future is not None:
                _end(future)
        self._running = self._following = None

    def _start(self, future: Future[Reloaded]) -> None:
        self._running = future
        self._loop.run_in_executor(None, self._read).add_done_callback(self._read_done)

    def _read_done(self, done: asyncio.Future[Settings]) -> None:
        future, self._running = self._running, None
        error = None if done.cancelled() else done.exception()  # asked, so that nobody calls it unseen
        if future is None:
            return
        found = self._outcome(done, error)
        tell(found, self._note)
        future.set_result(found)
        following, self._following = self._following, None
        if following is not None:
            self._start(following)

    def _outcome(self, done: asyncio.Future[Settings], error: BaseException | None) -> Reloaded:
        try:
            if error is not None:
                raise error
            return self._put(done.result())
        except ConfigurationError as wrong:
            return Reloaded([], [], wrong.warnings, wrong.errors)
        except Exception as fault:
            self._loop.call_exception_handler({"message": "reloading failed", "exception": fault})
            return Reloaded([], [], [], ["reloading failed by a fault of this program, which the log shows"])


def _end(future: Future[Reloaded]) -> None:
    future.set_result(Reloaded([], [], [], ["this process is shutting down"]))


def tell(found: Reloaded, note: Note) -> None:
    """The operator, in lines that the log shows whole."""
    for warning in found.warnings:
        note("warn", warning)
    for error in found.errors:
        note("error", error)
    if found.errors:
        note("error", "the configuration was not reloaded: the one before stays in force", errors=len(found.errors))
        return
    for sentence in found.takes_restart:
        note("warn", sentence)
    for lines in _fitting(found.changes):
        note("info", "configuration reloaded", changes=lines)


def _fitting(lines: list[str]) -> Iterator[list[str]]:
    """`lines` in lists that are not cut in any form of the log; one that is empty, if there are none."""
    found: list[str] = []
    for line in lines:
        if found and (len(found) == CUT_ITEMS or sum(map(len, found)) + len(found) + len(line) > CUT_CHARS):
            yield found
            found = []
        found.append(line)
    yield found
