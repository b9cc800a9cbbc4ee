"""The most frequent of any number of names, in little memory."""

from __future__ import annotations

from proxy.telemetry.frequent import Frequent


def test_with_room_for_all_counts_are_exact_and_the_most_frequent_comes_first() -> None:
    names = Frequent(10)
    for name in "abcbcc":
        names.add(name)
    assert list(names.take(2).items()) == [("c", 3), ("b", 2)]
    assert names.take(2) == {}, "it begins anew"


def test_any_number_of_names_takes_bounded_memory_and_hides_nobody_who_is_frequent() -> None:
    names = Frequent(10)
    for number in range(10_000):
        names.add(f"once-{number}")
        if number % 5 == 0:
            names.add("often")
        assert len(names) <= 10
    [(name, count)] = names.take(1).items()
    assert name == "often"
    assert 2_000 - 12_000 // 11 <= count <= 2_000, "too low by one in eleven of all at most, never too high"
