"""Every recorded answer, and every transcript, compressed in each way: what is read on the side is what it reports."""

from __future__ import annotations

import random

import pytest

from proxy.dialects import DIALECTS
from proxy.outcome import Source, Usage
from proxy.relay.metering import Metering
from proxy.wire.sse import EventFraming
from tests import recordings
from tests.dialects import transcripts
from tests.dialects.cuts import pour
from tests.dialects.test_watch_recorded import FRAMINGS, READ, dialect_of
from tests.relay.stage import Stage
from tests.wire.compressing import CODINGS, compressed

Answer = tuple[str, str, EventFraming | None, bytes]


def answers() -> list[Answer]:
    """Name, dialect, framing (None: one document) and bytes."""
    found: list[Answer] = []
    for entry in READ:
        framing = FRAMINGS.get(entry["stream_facts"]["framing"]) if entry["streaming"] else None
        data = (recordings.FIXTURES / entry["response"]["file"]).read_bytes()
        found.append((entry["id"], dialect_of(entry) or "", framing, data))
    for entry in transcripts.entries():
        framing = FRAMINGS.get((entry["response"]["framing"] or "").replace("_", "-"))
        found.append((entry["id"], entry["api"], framing, transcripts.answer_body(entry)))
    return found


def plainly(answer: Answer) -> tuple[Usage, bool]:
    """What it reports, and whether it reports its output."""
    _, dialect, framing, data = answer
    meter = pour(DIALECTS[dialect].meter(framing is not None), framing, [data])
    return meter.usage(), meter.is_reported


def aside(stage: Stage, answer: Answer, coding: bytes, cuts: random.Random) -> Usage:
    """What the relay reads of it while the compressed bytes pass in random pieces."""
    _, dialect, framing, data = answer
    metering = Metering(stage.relay, 1, DIALECTS[dialect], b"")
    metering.decode(coding.removeprefix(b"bare "), framing)
    packed = compressed(coding, [data])
    at = 0
    while at < len(packed):
        end = at + cuts.choice((1, 7, 100, 4000))
        metering.feed(packed[at:end])
        at = end
    told: list[Usage] = []

    def done(usage: Usage, model: str | None) -> None:
        told.append(usage)

    metering.finish(True, True, done)
    return told[0]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_answer_reports_the_same(coding: bytes) -> None:
    cuts = random.Random(coding)
    compared = 0
    with Stage() as stage:
        for answer in answers():
            (plain, is_reported), usage = plainly(answer), aside(stage, answer, coding, cuts)
            for name in ("cached", "cache_write", "reasoning", "searches", "cost_micros", "billed"):
                assert getattr(usage, name) == getattr(plain, name), answer[0]
            if plain.input_source is Source.REPORTED:
                assert (usage.input, usage.input_source) == (plain.input, Source.REPORTED), answer[0]
            if is_reported:
                assert (usage.output, usage.output_source) == (plain.output, plain.output_source), answer[0]
                compared += 1
        assert stage.relay.kept == 0
    assert compared > 25  # by the transcripts alone: 33
