"""Which refusals are told one by one, and that the sum is right to the one."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from proxy.outcome import Attempt, Failure, Kind, Phase, Receipt, Side
from proxy.telemetry.sampler import BURST, FOLD_SECONDS, MOST_KEYS, PER_SECOND, TELL_SECONDS, Sampler, is_refusal

WRONG_KEY = Failure(Side.CLIENT, Phase.ADMIT, Kind.UNAUTHORIZED, "the key is not valid here")
WEB_PAGE = Failure(Side.CLIENT, Phase.ADMIT, Kind.FORBIDDEN, "requests from web pages are refused")
TOO_MANY = Failure(Side.CLIENT, Phase.ADMIT, Kind.TOO_MANY, "try again later")
RESET = Failure(Side.UPSTREAM, Phase.FIRST_BYTE, Kind.RESET, "cut")
_BURST = int(BURST)


class Scene:
    """A sampler whose clock the test moves, what it handed on and what it told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.handed: list[Receipt] = []
        self.notes: list[dict[str, Any]] = []
        self.sampler = Sampler([self.handed.append], self._note, lambda: self.now)
        self._count = 0

    def _note(self, level: str, message: str, /, **more: object) -> None:
        self.notes.append({"level": level, "message": message, **more})

    def ends(self, failure: Failure | None = WRONG_KEY, count: int = 1, **more: Any) -> None:
        """So many requests end so."""
        for _ in range(count):
            self._count += 1
            receipt = Receipt(f"r-{self._count}", 0.0, more.get("client", "10.0.0.1"), "POST", "/v1")
            for name, value in more.items():
                setattr(receipt, name, value)
            if failure is not None:
                receipt.note(failure)
            self.sampler.observe(receipt)

    def passes(self, seconds: float) -> None:
        """As the sweeper does, four times a second."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.25)
            if self.sampler.deadline <= self.now:
                self.sampler.on_deadline(self.now)

    @property
    def sum(self) -> int:
        return sum(receipt.stands_for for receipt in self.handed)

    @property
    def told(self) -> int:
        return sum(note["left_out"] for note in self.notes)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_whoever_tries_things_sees_each(scene: Scene) -> None:
    scene.ends(count=_BURST)
    assert [receipt.stands_for for receipt in scene.handed] == [1] * _BURST
    assert (scene.notes, scene.sampler.deadline) == ([], inf)


def test_of_a_flood_so_many_a_second_are_handed_on_and_the_sum_is_exact(scene: Scene) -> None:
    for _ in range(1000):  # 10 s
        scene.ends(count=100)
        scene.now += 0.01
    assert len(scene.handed) == pytest.approx(BURST + 10 * PER_SECOND, abs=1)
    scene.passes(FOLD_SECONDS)
    assert scene.sum == 100_000
    assert len({receipt.id for receipt in scene.handed}) == len(scene.handed), "nothing is handed on twice"


def test_what_is_left_out_last_is_handed_on_for_all_a_second_later(scene: Scene) -> None:
    scene.ends(count=_BURST + 50)
    scene.passes(FOLD_SECONDS - 0.25)
    assert scene.sum == _BURST
    scene.passes(0.25)
    last = scene.handed[-1]
    assert (last.id, last.stands_for) == (f"r-{_BURST + 50}", 50)
    scene.passes(60.0)
    assert len(scene.handed) == _BURST + 1


def test_one_that_comes_in_time_speaks_for_those_of_its_kind_only(scene: Scene) -> None:
    scene.ends(count=_BURST + 5)
    scene.ends(WEB_PAGE, 3)
    scene.now += 1.1 / PER_SECOND
    scene.ends()
    assert (scene.handed[-1].ended_kind, scene.handed[-1].stands_for) == ("unauthorized", 6)
    scene.passes(FOLD_SECONDS)
    assert (scene.handed[-1].ended_kind, scene.handed[-1].stands_for) == ("forbidden", 3)


def test_each_key_has_its_own_rate_and_nobody_has_one_together(scene: Scene) -> None:
    scene.ends(WRONG_KEY, 100, client="10.0.0.1")
    scene.ends(WEB_PAGE, 100, client="10.0.0.2")
    assert len(scene.handed) == _BURST
    scene.ends(TOO_MANY, 100, key="ci")
    scene.ends(TOO_MANY, 3, key="billing")
    assert [receipt.key for receipt in scene.handed[_BURST:]] == ["ci"] * _BURST + ["billing"] * 3
    scene.sampler.close()
    sums = {(receipt.key, receipt.ended_kind): 0 for receipt in scene.handed}
    for receipt in scene.handed:
        sums[receipt.key, receipt.ended_kind] += receipt.stands_for
    assert sums == {
        (None, "unauthorized"): 100,
        (None, "forbidden"): 100,
        ("ci", "too_many_requests"): 100,
        ("billing", "too_many_requests"): 3,
    }


@pytest.mark.parametrize(
    ("failure", "attempts", "expected"),
    [
        (None, 0, False),
        (WRONG_KEY, 0, True),
        (TOO_MANY, 0, True),
        (Failure(Side.CLIENT, Phase.HEAD, Kind.BAD_REQUEST), 0, True),
        (Failure(Side.CLIENT, Phase.HEAD, Kind.CLIENT_LEFT), 0, True),
        (Failure(Side.CLIENT, Phase.HEAD, Kind.TIMEOUT), 0, True),
        (Failure(Side.CLIENT, Phase.BODY, Kind.CLIENT_LEFT), 0, False),
        (Failure(Side.CLIENT, Phase.HEAD, Kind.NOT_FOUND), 0, False),
        (Failure(Side.CLIENT, Phase.ADMIT, Kind.UNREADABLE_BODY), 0, False),
        (Failure(Side.PROXY, Phase.IDLE, Kind.OVERLOADED), 0, True),
        (Failure(Side.PROXY, Phase.ADMIT, Kind.INTERNAL), 0, False),
        (Failure(Side.CLIENT, Phase.STREAM, Kind.CLIENT_LEFT), 1, False),
        (RESET, 1, False),
    ],
)
def test_what_reached_a_provider_or_is_our_own_fault_is_never_left_out(
    scene: Scene, failure: Failure | None, attempts: int, expected: bool
) -> None:
    tries = [Attempt("openai", None, 0.0, 1.0, False, 0, failure)] * attempts
    scene.ends(failure, 1000, attempts=tries)
    assert is_refusal(scene.handed[0]) is expected
    assert len(scene.handed) == (_BURST if expected else 1000)


def test_the_operator_is_told_at_once_and_then_every_ten_seconds(scene: Scene) -> None:
    scene.ends(count=_BURST)
    assert scene.notes == []
    scene.ends(client="10.0.0.9")
    assert [(note["left_out"], note["clients"]) for note in scene.notes] == [(1, {"10.0.0.9": 1})]
    scene.ends(count=400)
    scene.ends(WEB_PAGE, 100, client="10.0.0.2")
    scene.ends(TOO_MANY, _BURST + 7, key="ci", client="unix")
    scene.passes(TELL_SECONDS - 0.25)
    assert len(scene.notes) == 1
    scene.passes(0.25)
    assert len(scene.notes) == 2
    assert scene.notes[1]["level"] == "warn"
    assert scene.notes[1]["left_out"] == 507
    assert scene.notes[1]["reasons"] == {"unauthorized": 400, "forbidden": 100, "too_many_requests": 7}
    assert scene.notes[1]["clients"] == {"10.0.0.1": 400, "10.0.0.2": 100, "unix": 7}
    assert scene.notes[1]["keys"] == {"ci": 7}
    scene.passes(60.0)
    assert (len(scene.notes), scene.sampler.deadline) == (2, inf), "nothing new: nothing is said"


def test_a_close_hands_on_and_tells_what_there_is(scene: Scene) -> None:
    scene.ends(count=_BURST + 300)
    scene.sampler.close()
    assert scene.sum == _BURST + 300
    assert scene.told == 300
    scene.sampler.close()
    assert (scene.sum, scene.told) == (_BURST + 300, 300)


def test_invented_keys_take_bounded_memory_and_rate(scene: Scene) -> None:
    for number in range(5 * MOST_KEYS):
        scene.ends(TOO_MANY, key=f"#{number:08x}")
    assert len(scene.sampler._sources) <= MOST_KEYS + 1
    assert len(scene.handed) == MOST_KEYS + _BURST
    scene.passes(3 * FOLD_SECONDS)
    assert scene.sum == 5 * MOST_KEYS
    assert set(scene.sampler._sources) == {None}, "who rests is forgotten"


def test_a_sink_that_fails_keeps_nothing_from_the_others() -> None:
    def fail(receipt: Receipt) -> None:
        raise RuntimeError("a recorder's fault")

    handed: list[Receipt] = []
    sampler = Sampler([fail, handed.append], lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="a recorder's fault"):
        sampler.observe(Receipt("r-1", 0.0, "unix", "GET", "/"))
    assert len(handed) == 1
