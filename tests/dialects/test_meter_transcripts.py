"""Our own transcripts through cutter and meter: the figures are those that were written into them, however the bytes
come."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dialects import DIALECTS
from proxy.outcome import Source
from proxy.wire.sse import EventFraming
from tests.dialects import transcripts
from tests.dialects.cuts import pieces_of, pour

FIGURES = ("input", "output", "cached", "cache_write", "reasoning")


def name(entry: dict[str, Any]) -> str:
    return str(entry["id"])


@pytest.mark.parametrize("entry", transcripts.entries(), ids=name)
def test_the_figures_are_those_of_the_manifest(entry: dict[str, Any]) -> None:
    framing = EventFraming(entry["response"]["framing"]) if entry["response"]["framing"] else None
    truth = entry["usage"] or {}
    for cut, pieces in pieces_of(transcripts.answer_body(entry)).items():
        usage = pour(DIALECTS[entry["api"]].meter(framing is not None), framing, pieces).usage()
        assert {each: getattr(usage, each) for each in FIGURES} == {
            each: truth.get(f"{each}_tokens") for each in FIGURES
        }, cut
        assert (usage.source is Source.REPORTED) == (usage.input is not None and usage.output is not None)


def test_every_dialect_that_is_read_has_a_reported_transcript() -> None:
    reported = {entry["api"] for entry in transcripts.entries() if entry["usage"]}
    assert reported == set(DIALECTS) - {"plain"}
