"""The words for endings are complete and stable."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.outcome import (
    Attempt,
    Billed,
    Failure,
    Kind,
    Phase,
    Receipt,
    Side,
    Source,
    Usage,
    status_of,
    sum_known,
    sum_usage,
    weaker,
)  # fmt: skip


def status(kind: Kind, phase: Phase = Phase.STREAM) -> int:
    return status_of(Failure(Side.PROXY, phase, kind))


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_status_for_errors(kind: Kind) -> None:
    assert 400 <= status(kind) < 600


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (Phase.HEAD, 408),
        (Phase.BODY, 408),
        (Phase.QUEUE, 503),
        (Phase.CONNECT, 504),
        (Phase.SEND, 504),
        (Phase.FIRST_BYTE, 504),
        (Phase.FIRST_EVENT, 504),
        (Phase.STREAM, 504),
        (Phase.TOTAL, 504),
    ],
)
def test_the_status_of_a_timeout_says_whose_it_was(phase: Phase, expected: int) -> None:
    assert status(Kind.TIMEOUT, phase) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.BODY_TOO_LARGE, 413),
        (Kind.CONFLICT, 409),
        (Kind.LINE_TOO_LONG, 414),
        (Kind.MEDIA_TYPE_UNSUPPORTED, 415),
        (Kind.HEAD_TOO_LARGE, 431),
        (Kind.TOO_MANY, 429),
        (Kind.CONNECT_FAILED, 502),
        (Kind.CREDENTIAL_REFUSED, 502),
        (Kind.OVERLOADED, 503),
        (Kind.CLIENT_LEFT, 499),
        (Kind.LOOP, 508),
    ],
)
def test_the_statuses_that_design_promises(kind: Kind, expected: int) -> None:
    assert status(kind) == expected


def test_letters_are_unambiguous() -> None:
    assert len({phase.letter for phase in Phase}) == len(Phase)
    assert len({side.letter for side in Side}) == len(Side)


def test_a_receipt_says_in_two_letters_who_and_when() -> None:
    receipt = Receipt(id="1", started_at=0.0, client="", method="GET", path="/")
    assert receipt.letters == "--"
    receipt.complete, receipt.ended_by, receipt.ended_phase = False, Side.UPSTREAM, Phase.STREAM
    assert receipt.letters == "UD"


@pytest.mark.parametrize("one", Source)
@pytest.mark.parametrize("other", Source)
def test_a_sum_is_as_sure_as_its_weaker_part(one: Source, other: Source) -> None:
    order = [Source.REPORTED, Source.COUNTED, Source.ESTIMATED, Source.NONE]
    assert weaker(one, other) is order[max(order.index(one), order.index(other))]
    assert Usage(1, 2, input_source=one, output_source=other).source is weaker(one, other)


def test_nothing_is_known_of_a_usage_unless_it_is_said() -> None:
    usage = Usage()
    assert (usage.input, usage.output, usage.source, usage.complete) == (None, None, Source.NONE, False)


def test_an_attempt_is_the_first_and_says_no_more_unless_told() -> None:
    attempt = Attempt("openai", None, 0.0, 1.0, False, 200, None)
    assert attempt[7:] == ("first", None, None, None, None, 0)


@pytest.mark.parametrize(
    ("parts", "expected"), [([], None), ([None, None], None), ([None, 3, 4], 7), ([0], 0), ([0, None], 0)]
)
def test_what_is_not_known_adds_nothing(parts: list[int | None], expected: int | None) -> None:
    assert sum_known(iter(parts)) == expected


def test_a_sum_of_usages_has_all_their_figures() -> None:
    one, other = Billed("a", 1, 2), Billed(None, 3, 4)
    first = Usage(1, 2, 3, 4, 5, 6, 7, 8, Source.REPORTED, Source.COUNTED, True, 9, 10, (one,))
    second = Usage(10, 20, 30, 40, 50, 60, 70, 80, Source.ESTIMATED, Source.REPORTED, True, 90, 100, (other,))
    assert sum_usage(iter([first, second])) == Usage(
        *(11, 22, 33, 44, 55, 66, 77, 88),
        *(Source.ESTIMATED, Source.COUNTED, True, 99, 110, (one, other)),
    )


def test_a_sum_of_usages_is_as_sure_as_those_that_know_the_figure() -> None:
    nothing, known = Usage(), Usage(5, 6, input_source=Source.REPORTED, output_source=Source.COUNTED, complete=True)
    assert sum_usage([nothing, known]) == sum_usage([known, nothing]) == Usage(
        5, 6, input_source=Source.REPORTED, output_source=Source.COUNTED, complete=False
    )  # fmt: skip
    assert sum_usage([]) == sum_usage([nothing, nothing]) == Usage()


_figures = st.none() | st.integers(0, 10**6)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    figures = {f.name: draw(_figures) for f in fields(Usage) if f.default is None}
    usage = Usage(**figures, complete=draw(st.booleans()))
    known = st.sampled_from([Source.REPORTED, Source.COUNTED, Source.ESTIMATED])
    usage.input_source = Source.NONE if usage.input is None else draw(known)
    usage.output_source = Source.NONE if usage.output is None else draw(known)
    usage.billed = tuple(Billed(None, number, 0) for number in draw(st.lists(st.integers(0, 9), max_size=2)))
    return usage


@given(st.lists(usages(), min_size=1, max_size=5), st.integers(1, 4))
def test_usages_may_be_added_in_any_steps(parts: list[Usage], at: int) -> None:
    assert sum_usage(parts[:1]) == parts[0]
    assert sum_usage([sum_usage(parts[:at]), *parts[at:]]) == sum_usage(parts)
