"""The words for endings are complete and stable."""

from __future__ import annotations

import pytest

from proxy.outcome import Failure, Kind, Phase, Receipt, Side, status_of


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
        (Kind.LINE_TOO_LONG, 414),
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
