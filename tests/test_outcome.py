"""The words for endings are complete and stable."""

from __future__ import annotations

import pytest

from proxy.outcome import Failure, Kind, Phase, Receipt, Side, Source, Usage, status_of, weaker


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
