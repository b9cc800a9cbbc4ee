"""The keys that are kept in the ledger, as policy needs them, and always as they are now.

Lives here: `StoredKeys`, `read_keys`. May not live here: what a key may (policy), the tables (ledger.keys), what people
type (accounts).
How it works: before each request one number in the counters' file is compared, 0.1 us; whoever has changed a key or a
group has changed that number. Then the rows after the last change known are read, here in the loop: 0.3 ms for a few.
Keys of LLM_PROXY_KEYS come first: one of the ledger that has such a name is left out, and the operator is told.
A key that is disabled or removed opens nothing, but its limits stay: its requests that run or wait are still counted by
them, and one that waits must not find that nothing limits it any more.
When LLM_PROXY_KEYS has changed, all rows are read once more: what gave way to a static key may come back.
Where no keys are used, the rows of keys are left alone; what kills left reserved (lost) and aliases that are stored
(models) are looked after all the same.
Doubted: reading blocks the loop; 100,000 keys take half a second, at start. The limits of a removed key stay in memory,
and in the list of limits, until another key has its name or the process ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from proxy.ledger.counters import Counters
from proxy.ledger.keys import GroupRow, KeyRow, KeyStore
from proxy.ledger.schema import LedgerUnusable, is_temporary
from proxy.policy.admission import Admission
from proxy.policy.key_fields import parse_policy
from proxy.policy.keys import AuthMode, Key
from proxy.policy.limits import FOREVER
from proxy.policy.rules import Rules, RulesError, parse_rules
from proxy.server.lost import LostRequests
from proxy.server.models import StoredModels
from proxy.server.settings import Settings

_SECOND = 10**9
_WAIT = 0.2  # seconds for others' locks: the loop stands still meanwhile
_PAUSE = 1.0  # seconds until the next try

Note = Callable[..., None]


class StoredKeys:
    """`path`: of the ledger. `static`: names that LLM_PROXY_KEYS has; None: keys are not used. `is_mode_open`:
    LLM_PROXY_AUTH says nothing, so that the first key of the ledger turns keys on.
    Raises LedgerUnusable; where it is only for now (a lock, a full disk) it tries again, and until then every request
    needs a key, if LLM_PROXY_AUTH says nothing."""

    __slots__ = (
        "_admission", "_counters", "_lost", "_models", "_note", "_path", "_reads_all", "_revision", "_seen", "_static",
        "_store", "_try_at", "_uses_keys", "is_mode_open",
    )  # fmt: skip

    def __init__(
        self,
        path: str,
        counters: Counters,
        admission: Admission,
        static: frozenset[str] | None,
        is_mode_open: bool,
        lost: LostRequests,
        models: StoredModels,
        note: Note,
    ) -> None:
        self._path = path
        self._store: KeyStore | None = None
        self._counters = counters
        self._admission = admission
        self._static = static or frozenset()
        self._uses_keys = static is not None
        self.is_mode_open = is_mode_open
        self._lost = lost
        self._models = models
        self._note = note
        self._revision = 0
        self._reads_all = False  # rows that were read already, too
        self._seen: int | None = None  # generation of what was read last; None: nothing was
        self._try_at = 0.0
        try:
            self._catch_up()
        except LedgerUnusable as error:
            if not is_temporary(error):
                raise
            self._fail(error)

    def look(self) -> None:
        """Called before each request."""
        if self._counters.generation != self._seen:
            now = time.monotonic()
            if now >= self._try_at:
                try:
                    self._catch_up()
                except LedgerUnusable as error:
                    self._fail(error)

    def look_again(self) -> None:
        """Something has changed for sure, whatever the counters' file says. In the loop."""
        if self._seen is not None:
            self._seen = -1  # no generation is negative
        self.look()

    def set_static(self, names: frozenset[str], is_mode_open: bool) -> None:
        """LLM_PROXY_KEYS has these names from now on, as the ring has them already; `is_mode_open` as at start."""
        if self._uses_keys:
            self._static = names
            self.is_mode_open = is_mode_open
            self._reads_all = True
            self.look_again()

    def close(self) -> None:
        self._models.close()
        if self._store is not None:
            self._store.close()

    def _fail(self, error: LedgerUnusable) -> None:
        self._try_at = time.monotonic() + _PAUSE
        self._note("error", f"what the ledger says of keys and aliases cannot be read ({error}): it is tried again")
        if self.is_mode_open:
            self._need_keys(True)

    def _catch_up(self) -> None:
        generation = self._counters.generation  # before the rows: what changes in between is read once more
        if self._store is None:
            self._store = KeyStore(self._path, _WAIT)
        if self._seen is None:
            self._lost.keep(self._store)
        if self._uses_keys:
            self._read(self._store)
        self._lost.look(self._store)
        self._models.look()
        self._seen = generation

    def _need_keys(self, needs: bool) -> None:
        self._admission.ring.set_mode(AuthMode.KEYS if needs else AuthMode.OFF)
        self._admission.browser_guard = not needs

    def _read(self, store: KeyStore) -> None:
        since, revision = self._revision, store.revision()
        for group in store.groups(since):
            self._take_group(group)
        found = store.keys(0, with_removed=True) if self._reads_all else store.keys(since)
        rows = [row for row in found if self._is_ours(row)]
        for row in rows:  # all first: one of them may have the value or the user id that another one had
            self._admission.ring.remove(row.name)
        for row in rows:
            self._take_key(row)
        self._revision, self._reads_all = revision, False
        if self.is_mode_open:
            # Also if the only key was disabled or removed since: that must not open what it had closed.
            self._need_keys(revision > 0)
            if revision > 0:
                self.is_mode_open = False
                self._note("info", "there are keys in the ledger now, so that every request needs one")

    def _take_group(self, group: GroupRow) -> None:
        rules: Rules | None = Rules()
        if group.removed_at is None:
            rules = self._rules(f"the group {group.name}", group.limits)
        self._admission.limiter.set_rules(f"group {group.name}", _CLOSED if rules is None else rules)

    def _is_ours(self, row: KeyRow) -> bool:
        if row.name not in self._static:
            return True
        if row.removed_at is None:
            self._note("warn", f"the ledger's key {row.name} is not used: LLM_PROXY_KEYS has one of that name")
        return False

    def _take_key(self, row: KeyRow) -> None:
        """`row` is that of a key which the ring does not have now."""
        ring, limiter = self._admission.ring, self._admission.limiter
        if row.removed_at is not None:
            return
        rules = self._rules(f"the key {row.name}", row.limits)
        if rules is None:
            return
        limiter.set_rules(f"key {row.name}", rules)
        if row.disabled:
            return
        digests = {}
        if row.old_digest is not None:
            digests[bytes.fromhex(row.old_digest)] = _moment(row.old_until)
        if row.digest is not None:
            digests[bytes.fromhex(row.digest)] = FOREVER
        taken = [digest for digest in digests if ring.has(digest, but_of=row.name)]
        if taken:
            self._note("warn", f"the ledger's key {row.name} has a value of LLM_PROXY_KEYS: that one is meant")
        ring.put(_key(row), {digest: until for digest, until in digests.items() if digest not in taken})

    def _rules(self, whose: str, text: str) -> Rules | None:
        try:
            return parse_rules(text)
        except RulesError as error:
            self._note("error", f"the limits of {whose} cannot be read, so that it is closed: {error}")
            return None


def read_keys(
    settings: Settings, counters: Counters | None, admission: Admission, models: StoredModels, note: Note
) -> StoredKeys | None:
    """What stands in the ledger beside rows, from here on as it is then; None: there is no ledger. Raises
    LedgerUnusable."""
    if counters is None or settings.ledger is None:
        return None
    is_mode_open = not settings.is_mode_given and settings.mode is AuthMode.OFF
    static = frozenset(settings.keys) if settings.mode is AuthMode.KEYS or is_mode_open else None
    lost = LostRequests(counters, admission, settings.carries_lost, note)
    return StoredKeys(settings.ledger.path, counters, admission, static, is_mode_open, lost, models, note)


# For a group whose limits cannot be read: who wrote them meant less than everything.
_CLOSED = Rules(concurrent=0)


def _key(row: KeyRow) -> Key:
    return Key(
        row.name,
        row.key_group,
        None if row.models is None else tuple(row.models.split()),
        None if row.providers is None else frozenset(row.providers.split()),
        None if row.raw is None else bool(row.raw),
        None if row.disconnect is None else parse_policy(row.disconnect),
        row.uid,
        _moment(row.expires_at),
    )


def _moment(seconds: float | None) -> int:
    return FOREVER if seconds is None else min(round(seconds * _SECOND), FOREVER)
