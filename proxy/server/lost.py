"""What requests had reserved when their process was killed: kept for the operator, and given back when it is settled.

Lives here: `LostRequests`. May not live here: the table of them (ledger.keys), the file that outlives the kill
(ledger.counters), what a budget is (policy), when to look (keys).
How it works: what the counters' file brings goes into the table `lost_holds`, is told, and only then forgotten there.
It is charged already, and stays so until its window ends, or, if the setting says so, in every window until somebody
settles it. Then what was not spent goes back to budgets that were surely charged: those of the key and of everything,
and those of its group, if nobody has changed the key since. Never to those of models and providers: which ones a
request fell under is not known any more.
Doubted: a budget that was taken away before the request came, and put back after the kill in the same window, is taken
for one that was charged; and so are all, if LLM_PROXY_BUDGET_LOST has become `operator` since. None gets more than all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from proxy.ledger.counters import Counters
from proxy.ledger.keys import KeyStore, LostHold
from proxy.policy.admission import Admission
from proxy.policy.rules import MICROS, TOKENS, dollars

_SECOND = 10**9


class LostRequests:
    """`carries`: they count in each window until they are settled. Both methods raise LedgerUnusable."""

    __slots__ = ("_admission", "_carries", "_counters", "_note")

    def __init__(self, counters: Counters, admission: Admission, carries: bool, note: Callable[..., None]) -> None:
        self._counters = counters
        self._admission = admission
        self._carries = carries
        self._note = note

    def keep(self, store: KeyStore) -> None:
        """Put those that the process before left into the table, and tell."""
        lost = self._counters.lost
        if not lost:
            return
        for hold in lost:
            key, started_at = hold.key or None, hold.started_at / _SECOND
            if not store.has_lost(key, started_at):
                store.add_lost(key, hold.micros, hold.tokens, started_at)
        self._counters.forget_lost()
        micros, tokens = sum(hold.micros for hold in lost), sum(hold.tokens for hold in lost)
        self._note(
            "warn",
            f"{len(lost)} requests were running when the process before was killed: the {dollars(micros)} usd and "
            f"{tokens} tokens that they had reserved count as spent (`llm-proxy keys lost` shows them)",
            requests=len(lost),
        )

    def look(self, store: KeyStore) -> None:
        """Give back what was settled since, and have new windows begin with what is not. Behind the keys."""
        limiter = self._admission.limiter
        for hold in store.apply_settled():
            micros, tokens = hold.micros - (hold.settled_micros or 0), hold.tokens - (hold.settled_tokens or 0)
            at = None if self._carries else round((hold.started_at or 0) * _SECOND)
            chain = limiter.chain(hold.key, self._group(store, hold), (), None)
            limiter.give_back(chain, (0, tokens, 0, 0, micros), at)
        limiter.carried = self._carried(store) if self._carries else {}

    def _carried(self, store: KeyStore) -> dict[tuple[str, int], int]:
        """What was lost and is not settled, by scope and unit."""
        found: Counter[tuple[str, int]] = Counter()
        for hold in store.lost():
            group = self._group(store, hold)
            for scope in ("all", f"key {hold.key}", *([f"group {group}"] if group else [])):
                found[scope, MICROS] += hold.micros
                found[scope, TOKENS] += hold.tokens
        return dict(found)

    def _group(self, store: KeyStore, hold: LostHold) -> str | None:
        """The group that the key of `hold` was in then. None: none, or nobody can say."""
        key = None if hold.key is None else self._admission.ring.named(hold.key)
        if key is None or key.group is None:
            return None
        row = store.key(key.name)
        return None if row is None or (row.changed_at or 0) >= (hold.started_at or 0) else key.group
