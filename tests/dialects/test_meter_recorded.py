"""The recorded traffic through cutter and meter: the figures are the true ones, however the bytes come. Needs the
folder beside the checkout; our own transcripts cover the dialects without it."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dialects import DIALECTS
from proxy.outcome import Billed, Source, Usage
from proxy.wire.sse import EventFraming
from tests import recordings
from tests.dialects.conftest import Metered, table
from tests.dialects.cuts import pieces_of, pour
from tests.dialects.test_watch_recorded import FRAMINGS, READ, dialect_of

CUTS = ("whole", "bytes", "random", "characters")

# The truth holds what the provider wrote, and says in its notes that a part is larger than its whole: we clamp.
LARGER_THAN_THE_INPUT = {"openai-chat/mistral--prism-reasoning-content-array"}
LARGER_THAN_THE_OUTPUT = {"openai-chat/openrouter--pai-openrouter-stream-error-0"}
# Streams that tell an output and not that it was the last one.
NOT_FINAL = {
    "anthropic-messages/anthropic--doc-stream-overloaded-mid-text": "only message_start came",
    "gemini-stream/gemini--doc-stream-error-event": "an error came, and no finish reason",
    "gemini-stream/gemini--doc-stream-raw-json-error-tail": "an error came, and no finish reason",
    "ollama-generate/ollama--ollmetry-ollama-async-generation-legacy-0": "the input is unknown",
    "openai-chat/litellm-proxy--dd-completion-stream-multiple-choices-proxy-0": "on a chunk after the finish",
    "openai-chat/openrouter--pai-openrouter-stream-error-0": "on a chunk after the finish",
}
NOT_REPORTED = {"anthropic-messages/anthropic--doc-stream-overloaded-mid-text": "a lower bound (WIRE 3)"}


def name(entry: dict[str, Any]) -> str:
    return str(entry["id"])


def meter_it(entry: dict[str, Any], cut: str) -> tuple[Usage, str | None, bool, int]:
    data = (recordings.FIXTURES / entry["response"]["file"]).read_bytes()
    framing = framing_of(entry)
    meter = DIALECTS[dialect_of(entry) or ""].meter(framing is not None)
    pour(meter, framing, pieces_of(data)[cut])
    return meter.usage(), meter.model, meter.is_reported, meter.kept


def framing_of(entry: dict[str, Any]) -> EventFraming | None:
    return FRAMINGS.get(entry["stream_facts"]["framing"]) if entry["streaming"] else None


def truth(entry: dict[str, Any]) -> list[int | None]:
    usage = entry["usage"]
    figures = [usage[f"{each}_tokens"] for each in ("input", "output", "cached", "cache_write", "reasoning")]
    if entry["id"] in LARGER_THAN_THE_INPUT:
        figures[2] = min(figures[2], figures[0])
    if entry["id"] in LARGER_THAN_THE_OUTPUT:
        figures[4] = min(figures[4], figures[1])
    return figures


@pytest.mark.parametrize("entry", READ, ids=name)
def test_the_figures_are_the_true_ones(entry: dict[str, Any], metered: Metered) -> None:
    for cut in CUTS:
        usage, model, is_reported, kept = meter_it(entry, cut)
        if entry["usage"] is None:
            assert usage == Usage(), cut
            assert not is_reported
            continue
        figures = [usage.input, usage.output, usage.cached, usage.cache_write, usage.reasoning]
        assert figures == truth(entry), cut
        assert usage.input_source is (Source.NONE if usage.input is None else Source.REPORTED)
        assert usage.output_source is Source.REPORTED
        assert usage.complete == (entry["id"] not in NOT_FINAL)
        assert is_reported == (entry["id"] not in NOT_REPORTED)
        assert kept == 0 or framing_of(entry) is None or not is_reported
        if returned := entry["expect"]["models_returned"]:
            assert model in returned, cut
    metered[entry["provider"], entry["api"], entry["usage"] is not None] += 1


BILLED = [entry for entry in READ if (entry["usage"] or {}).get("billed_iterations")]


@pytest.mark.parametrize("entry", BILLED, ids=name)
def test_what_is_billed_apart_is_told(entry: dict[str, Any]) -> None:
    usage = meter_it(entry, "whole")[0]
    assert usage.billed == tuple(
        Billed(each["model"], *(each[f"{kind}_tokens"] for kind in ("input", "output", "cached", "cache_write")))
        for each in entry["usage"]["billed_iterations"]
    )
    assert sum(each.input for each in usage.billed) == entry["usage"]["billed_input_tokens"]
    assert sum(each.output for each in usage.billed) == entry["usage"]["billed_output_tokens"]


@pytest.mark.parametrize("entry", [entry for entry in READ if entry["usage"] and entry not in BILLED], ids=name)
def test_what_is_reported_besides_is_read(entry: dict[str, Any]) -> None:
    raw = entry["usage"]["raw"]
    usage = meter_it(entry, "whole")[0]
    assert usage.billed == ()
    cost = raw.get("cost")
    dollars = cost["total_cost"] if isinstance(cost, dict) else cost
    if dollars is None and raw.get("cost_in_usd_ticks"):
        dollars = raw["cost_in_usd_ticks"] / 1e10
    if dollars is None:
        assert usage.cost_micros is None
    else:
        assert usage.cost_micros == pytest.approx(dollars * 1e6, abs=0.5000001)
    if "num_sources_used" in raw:
        assert usage.searches == raw["num_sources_used"]


def test_searches_are_told() -> None:
    told = {
        "anthropic-messages/anthropic--ellmer-anthropic-web-search-0": 1,
        "anthropic-messages/anthropic--mira-anthropic-beta-claude-sonnet-4-0-0-9567": 4,
        "openai-chat/openrouter--pai-openrouter-web-search-annotations-stream-0": 1,
        "openai-responses/azure--vercel-web-search": 1,
    }
    assert {entry["id"]: meter_it(entry, "whole")[0].searches for entry in READ if entry["id"] in told} == (
        told if READ else {}
    )


def test_the_exceptions_are_needed() -> None:
    ids = {entry["id"] for entry in READ if entry["usage"]}
    assert not READ or ids >= LARGER_THAN_THE_INPUT | LARGER_THAN_THE_OUTPUT | NOT_FINAL.keys() | NOT_REPORTED.keys()


def test_the_table_has_a_row_for_each_provider_and_sums() -> None:
    counts: Metered = Metered({("acme", "chat", True): 2, ("acme", "other", False): 1, ("zeta", "chat", False): 3})
    assert [line.split() for line in table(counts)] == [
        ["chat", "other", "all"],
        ["acme", "2+0", "0+1", "2+1"],
        ["zeta", "0+3", ".", "0+3"],
        ["all", "2+3", "0+1", "2+4"],
    ]
