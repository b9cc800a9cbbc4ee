"""Counters in memory: always in the same place, each for itself."""

from __future__ import annotations

from proxy.policy.counters import WIDTH, MemoryStore


def test_a_counter_is_always_in_the_same_place() -> None:
    store = MemoryStore()
    view, at = store.counter("key ci rpm")
    view[at : at + WIDTH] = range(1, WIDTH + 1)
    again, there = store.counter("key ci rpm")
    assert list(again[there : there + WIDTH]) == [1, 2, 3, 4]
    other, here = store.counter("key ci rpd")
    assert list(other[here : here + WIDTH]) == [0, 0, 0, 0]


def test_a_hold_is_nobody_elses() -> None:
    store = MemoryStore()
    first, second = store.hold("ci"), store.hold("ci")
    first[0][first[1]] = 5
    assert second[0][second[1]] == 0
    store.free("ci", first)
