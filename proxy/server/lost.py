"""What requests had reserved when their process was killed: kept for the operator, and given back when it is settled.

Lives here: `LostRequests`. May not live here: the table of them (ledger.keys), the file that outlives the kill
(ledger.counters), what a budget is (policy), when to look (keys).
How it works: what the counters' file brings goes into the table `lost_holds`, is told, and only then forgotten there.
It is charged already, and stays so until its window ends, or, if the setting says so, in every window until somebody
settles it. Then what was not spent goes back to the budgets.
Doubted: nothing yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from proxy.ledger.counters import Counters
from proxy.ledger.keys import KeyStore
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
        for hold in store.apply_settled():
            micros, tokens = hold.micros - (hold.settled_micros or 0), hold.tokens - (hold.settled_tokens or 0)
            at = None if self._carries else round((hold.started_at or 0) * _SECOND)
            self._admission.give_back(hold.key or "", micros, tokens, at)
        self._admission.limiter.carried = self._carried(store) if self._carries else {}

    def _carried(self, store: KeyStore) -> dict[tuple[str, int], int]:
        """What was lost and is not settled, by scope and unit."""
        found: Counter[tuple[str, int]] = Counter()
        for hold in store.lost():
            key = self._admission.ring.named(hold.key or "")
            scopes = [f"key {hold.key}", "all"] + ([f"group {key.group}"] if key is not None and key.group else [])
            for scope in scopes:
                found[scope, MICROS] += hold.micros
                found[scope, TOKENS] += hold.tokens
        return dict(found)
