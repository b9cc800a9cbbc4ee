"""Whoever has changed keys in this process has them seen, whatever the counters' file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.ledger.counters import Counters, beside, bump
from proxy.ledger.keys import KeyRow, KeyStore, digest_of
from proxy.policy.admission import Admission
from proxy.policy.counters import MemoryStore
from proxy.policy.keys import AuthMode, KeyRing
from proxy.policy.limits import Limiter
from proxy.server.keys import StoredKeys
from tests.policy.test_limits import window_end

VALUE = "a-value-of-somebody"


def test_it_looks_again_though_nothing_was_bumped(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    counters = Counters(beside(path), lambda *_, **__: None, 1)
    ring = KeyRing({}, AuthMode.KEYS)
    admission = Admission(
        ring, Limiter(MemoryStore(), window_end), browser_guard=False, hosts=frozenset(), streams_per_key=0
    )
    keys = StoredKeys(path, counters, admission, frozenset(), False, False, lambda *_, **__: None)
    with KeyStore(path, 1.0) as store:
        store.create(KeyRow("ci", digest_of(VALUE)))
    keys.look()
    assert ring.find(VALUE.encode()) is None
    keys.look_again()
    assert ring.find(VALUE.encode()) is not None
    with KeyStore(path, 1.0) as store:
        store.remove("ci")
    bump(beside(path))
    keys.look()  # and bumps are seen as before
    assert ring.find(VALUE.encode()) is None
    keys.close()
    counters.close()


def test_it_reads_once_more_and_not_at_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "a.db")
    counters = Counters(beside(path), lambda *_, **__: None, 1)
    admission = Admission(
        KeyRing({}, AuthMode.KEYS),
        Limiter(MemoryStore(), window_end),
        browser_guard=False,
        hosts=frozenset(),
        streams_per_key=0,
    )
    keys = StoredKeys(path, counters, admission, frozenset(), False, False, lambda *_, **__: None)
    reads: list[int] = []
    monkeypatch.setattr(StoredKeys, "_read", lambda self, store: reads.append(1))
    keys.look_again()
    keys.look()
    assert reads == [1]
    keys.close()
    counters.close()
