"""Whose turn it is, and that nobody is forgotten."""

from __future__ import annotations

import pytest

from proxy.relay.turns import MOST, Turns
from tests.fakes.loop import FakeLoop


class Client:
    """Imitates one that has so many requests there."""

    def __init__(self, turns: Turns, name: int, requests: int, log: list[int]) -> None:
        self._turns = turns
        self._name = name
        self._left = requests
        self._log = log

    def go_on(self) -> None:
        self._log.append(self._name)
        self._left -= 1
        if self._left:
            self._turns.enter(self)


def test_all_take_their_turns_one_after_the_other() -> None:
    with FakeLoop() as loop:
        turns, log = Turns(loop), []
        for name in range(3):
            turns.enter(Client(turns, name, 4, log))
        assert (log, len(turns)) == ([], 3), "nothing happens at once"
        loop.run_ready()
        assert log == [0, 1, 2] * 4
        assert len(turns) == 0


def test_a_turn_of_the_loop_serves_so_many() -> None:
    with FakeLoop() as loop:
        turns, log = Turns(loop), []
        seen: list[int] = []
        for name in range(2 * MOST + 1):
            turns.enter(Client(turns, name, 1, log))
        loop.call_soon(lambda: seen.append(len(log)))
        loop.run_ready()
        assert seen == [MOST], "others come in between"
        assert len(log) == 2 * MOST + 1


def test_a_fault_of_one_is_not_the_end_of_the_others() -> None:
    class Faulty:
        def go_on(self) -> None:
            raise RuntimeError("broken")

    with FakeLoop() as loop:
        turns, log = Turns(loop), []
        turns.enter(Faulty())
        for name in range(MOST):
            turns.enter(Client(turns, name, 1, log))
        with pytest.raises(AssertionError, match="broken"):
            loop.run_ready()
        loop.run_ready()
        assert log == list(range(MOST))
