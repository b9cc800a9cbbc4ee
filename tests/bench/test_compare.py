"""Two runs agree if all that they print overlaps."""

from __future__ import annotations

import pytest

from bench.compare import agree, compare, text
from bench.record import Record
from bench.results import Results
from tests.bench.records import MACHINE, made_up, measured


def of(values: list[float], contestant: str = "nginx", name: str = "cpu_us", cores: int = 2) -> Record:
    record = made_up(rounds=1, machine={**MACHINE, "cores": cores})
    return Record(record.runs, record.contestants, Results(measured(contestant, values, name)))


def test_a_run_agrees_with_itself() -> None:
    assert agree(made_up(features=True), made_up(features=True))
    assert {each.word for each in compare(made_up(), made_up())} == {"agree"}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([10.0, 11.0, 12.0], [12.0, 13.0, 14.0], True),
        ([10.0, 11.0, 12.0], [12.1, 13.0, 14.0], False),
        ([12.1, 13.0, 14.0], [10.0, 11.0, 12.0], False),
        ([10.0, 11.0, 12.0], [1.0, 11.5, 90.0], True),
        ([10.0], [12.0], True),  # an eighth to both sides each
        ([10.0], [13.5], False),
    ],
)
def test_they_agree_if_their_spreads_overlap(one: list[float], other: list[float], expected: bool) -> None:
    assert agree(of(one), of(other)) is expected


def test_each_figure_is_printed_with_both_spreads_and_a_word() -> None:
    said = text(of([10.0, 11.0, 12.0]), of([20.0, 21.0, 22.0]))
    line = next(line for line in said.splitlines() if line.startswith("unary-1k, nginx: cpu_us"))
    assert "11.0 (10.0..12.0, 3)" in line and "21.0 (20.0..22.0, 3)" in line and line.endswith("differ")
    assert "0 agree, 1 differ, 0 only in one" in said


def test_what_only_one_has_decides_nothing_and_nothing_in_common_is_no_agreement() -> None:
    both = Record(of([1.0]).runs, of([1.0]).contestants, Results(measured("nginx", [10.0]) + measured("splice", [5.0])))
    assert agree(of([10.0]), both)
    assert [each.word for each in compare(of([10.0]), both)].count("only in one") >= 1
    assert not agree(of([10.0]), of([10.0], "splice"))


def test_throughput_decides_nothing() -> None:
    assert compare(of([10.0], name="per_second"), of([99.0], name="per_second")) == []


def test_noise_of_either_is_said() -> None:
    said = text(of([10.0]), of([10.0, 20.0]))
    assert "noisy, other: unary-1k, nginx: rounds differ" in said
    assert "noisy, one" not in said


def test_another_machine_is_said() -> None:
    assert "different machines" not in text(of([10.0]), of([10.0]))
    assert "different machines" in text(of([10.0]), of([10.0], cores=9))
