"""What meters read and what they keep. The rules that a naive meter breaks (WIRE 0) each have a test here, with data of
our own, so that they hold where no recorded traffic is at hand."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects import DIALECTS
from proxy.dialects.call import Meter
from proxy.dialects.meter import HEAD, WHOLE
from proxy.outcome import Source, Usage

READ = [dialect for dialect in DIALECTS.values() if dialect.name != "plain"]
STREAMED = ("openai-chat", "openai-completions", "openai-responses", "anthropic-messages", "gemini", "ollama")


def stream(dialect: str, *blocks: bytes) -> Meter:
    meter = DIALECTS[dialect].meter(is_stream=True)
    for block in blocks:
        meter.feed(block)
    return meter


def whole(dialect: str, document: Any, size: int = 1 << 20) -> Meter:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    meter = DIALECTS[dialect].meter(is_stream=False)
    for at in range(0, len(data), size):
        meter.feed(data[at : at + size])
    return meter


def figures(meter: Meter) -> tuple[int | None, int | None]:
    usage = meter.usage()
    return usage.input, usage.output


def sse(event: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(event).encode() + b"\n\n"


def named(event: dict[str, Any]) -> bytes:
    return sse(event, event["type"])


def chunk(content: str | None = "hi", finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return sse({"id": "c", "model": "gpt-own-1", "choices": [choice], **more})


def told(prompt: int = 9, completion: int = 5) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def report(prompt: int = 9, completion: int = 5, **more: Any) -> bytes:
    return sse({"id": "c", "model": "gpt-own-1", "choices": [], "usage": told(prompt, completion), **more})


DONE = b"data: [DONE]\n\n"
DECOY = 'so "usage":{"prompt_tokens":999,"completion_tokens":999,"total_tokens":1998} and "usage": {"input_tokens": 9}'


# -- what a naive meter does: chat -------------------------------------------------------------------------------------


def test_reports_are_never_added_up() -> None:
    running = [chunk("One", usage=told(31, at)) for at in range(5)]
    assert figures(stream("openai-chat", *running, report(31, 4), DONE)) == (31, 4)


def test_a_report_is_not_only_looked_for_in_the_last_chunk() -> None:
    moderation = sse({"id": "c", "choices": [], "usage": None, "moderation": {"input": {"flagged": False}}})
    assert figures(stream("openai-chat", chunk(), report(), moderation, DONE)) == (9, 5)


def test_the_last_report_stands_and_not_the_largest() -> None:
    assert figures(stream("openai-chat", chunk(usage=told(40, 30)), chunk(usage=told(20, 10)), DONE)) == (20, 10)


def test_a_report_may_come_twice_and_with_a_finish() -> None:
    finish = chunk(None, "stop", usage=told(), x_groq={"id": "r", "usage": told()})
    meter = stream("openai-chat", chunk(), finish, report(service_tier="on_demand"), DONE)
    assert figures(meter) == (9, 5)
    assert meter.usage().complete


def test_a_report_may_stand_in_x_groq_alone() -> None:
    assert figures(stream("openai-chat", chunk(None, "stop", x_groq={"id": "r", "usage": told()}))) == (9, 5)
    assert figures(whole("openai-chat", {"choices": [], "x_groq": {"usage": told()}})) == (9, 5)


def test_llama_cpp_reports_without_being_asked() -> None:
    timings = {"cache_n": 83, "prompt_n": 1, "prompt_per_token_ms": 8.9, "predicted_n": 57, "predicted_ms": 484.01}
    meter = stream("openai-chat", chunk(), chunk(None, "stop", timings=timings), DONE)
    assert figures(meter) == (84, 57)
    assert meter.is_reported


def test_null_is_no_report_and_does_not_undo_one() -> None:
    assert stream("openai-chat", chunk(usage=None), chunk(None, "stop", usage=None)).usage() == Usage()
    assert figures(stream("openai-chat", report(), chunk(usage=None), DONE)) == (9, 5)


def test_comments_and_blank_lines_stand_between() -> None:
    comment = b": OPENROUTER PROCESSING\n\n"
    repeated = chunk("", "stop", usage={**told(), "cost": 0.0001})
    meter = stream("openai-chat", comment, chunk() + comment, chunk(None, "stop"), comment + repeated, comment, DONE)
    assert figures(meter) == (9, 5)
    assert meter.usage().cost_micros == 100


def test_azures_first_chunk_has_no_choices_and_no_report() -> None:
    first = sse({"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    meter = stream("openai-chat", first, chunk())
    assert meter.usage() == Usage()
    assert meter.model == "gpt-own-1"


@pytest.mark.parametrize("space", ["", " ", "\n  "])
def test_a_report_is_found_however_its_json_is_spaced(space: str) -> None:
    text = f'{{"choices":{space}[],"usage"{space}:{space}{{"prompt_tokens":{space}9,"completion_tokens"{space}:5}}}}'
    event = b"".join(b"data: " + line.encode() + b"\n" for line in text.split("\n")) + b"\n"
    assert figures(stream("openai-chat", event)) == (9, 5)


def test_half_of_an_emoji_costs_no_report() -> None:
    event = chunk("x", "stop", usage=told()).replace(b'"x"', b'"\\ud83d"')
    assert figures(stream("openai-chat", event)) == (9, 5)


# -- text and arguments that look like a report ------------------------------------------------------------------------

TEXT_EVENTS: dict[str, Callable[[str], bytes]] = {
    "openai-chat": chunk,
    "openai-completions": lambda text: sse({"choices": [{"text": text, "finish_reason": None}]}),
    "openai-responses": lambda text: named({"type": "response.output_text.delta", "delta": text}),
    "anthropic-messages": lambda text: named({"type": "content_block_delta", "delta": {"text": text}}),
    "gemini": lambda text: sse({"candidates": [{"content": {"parts": [{"text": text}]}}]}),
    "ollama": lambda text: json.dumps({"message": {"content": text}, "done": False}).encode() + b"\n",
}
DECOYS = (
    DECOY,
    '"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":9}',
    '{"done":true,"prompt_eval_count":9,"eval_count":9}',
    '{"type":"message_delta","usage":{"output_tokens":9}}',
    '{"type":"response.completed","response":{"usage":{"input_tokens":9,"output_tokens":9}}}',
)


@pytest.mark.parametrize("decoy", DECOYS, ids=range(len(DECOYS)))
@pytest.mark.parametrize("dialect", STREAMED)
def test_text_that_looks_like_a_report_is_text(dialect: str, decoy: str) -> None:
    meter = stream(dialect, TEXT_EVENTS[dialect](decoy))
    assert meter.usage() == Usage()
    assert meter.kept > 0


FAKES: dict[str, Any] = {
    "usage": {**told(999, 999), "input_tokens": 999, "output_tokens": 999},
    "usageMetadata": {"promptTokenCount": 999, "candidatesTokenCount": 999},
    "type": "message_delta",
    "done": True,
    "prompt_eval_count": 999,
    "eval_count": 999,
}
ARGUMENT_EVENTS: dict[str, Callable[[Any], bytes]] = {
    "openai-chat": lambda fake: sse(
        {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": fake}}]}, "finish_reason": None}]}
    ),
    "openai-responses": lambda fake: named({"type": "response.output_item.done", "item": {"arguments": fake}}),
    "anthropic-messages": lambda fake: named({"type": "content_block_start", "content_block": {"input": fake}}),
    "gemini": lambda fake: sse({"candidates": [{"content": {"parts": [{"functionCall": {"args": fake}}]}}]}),
    "ollama": lambda fake: (
        json.dumps({"message": {"tool_calls": [{"function": {"arguments": fake}}]}, "done": False}).encode() + b"\n"
    ),
}
REPORTS: dict[str, tuple[bytes, ...]] = {
    "openai-chat": (report(),),
    "openai-responses": (
        named(
            {
                "type": "response.completed",
                "response": {"model": "r1", "usage": {"input_tokens": 9, "output_tokens": 5}},
            }
        ),
    ),
    "anthropic-messages": (
        named({"type": "message_start", "message": {"model": "m1", "usage": {"input_tokens": 9, "output_tokens": 2}}}),
        named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}),
    ),
    "gemini": (
        sse(
            {
                "candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14},
                "modelVersion": "g1",
            }
        ),
    ),
    "ollama": (b'{"model":"o1","done":true,"prompt_eval_count":9,"eval_count":5}\n',),
}


@pytest.mark.parametrize("dialect", REPORTS)
def test_the_arguments_of_a_tool_are_no_report(dialect: str) -> None:
    fake = ARGUMENT_EVENTS[dialect](FAKES)
    assert stream(dialect, fake).usage() == Usage()
    *first, last = REPORTS[dialect]
    for blocks in (
        (*REPORTS[dialect], fake),
        (fake, *REPORTS[dialect]),
        (b"".join([*REPORTS[dialect], fake]),),
        (*first, last.replace(b"5", b"4"), last, fake),  # of running reports the first alone is read at once
    ):
        assert figures(stream(dialect, *blocks)) == (9, 5)


@pytest.mark.parametrize("size", [100, 3 * WHOLE])
@pytest.mark.parametrize("key", ["arguments", "text"])
def test_a_document_is_read_at_its_top_level_alone(key: str, size: int) -> None:
    nested: Any = FAKES if key == "arguments" else DECOY + json.dumps(FAKES)
    document = {
        "model": "gpt-own-1",
        "padding": "x" * size,
        "choices": [{key: nested}],
        "usage": told(),
        "tail": [nested],
    }
    assert figures(whole("openai-chat", document)) == (9, 5)
    del document["usage"]
    assert whole("openai-chat", document).usage() == Usage()


# -- what a naive meter does: the others -------------------------------------------------------------------------------


def test_message_start_is_no_bill() -> None:
    start = named(
        {"type": "message_start", "message": {"model": "m1", "usage": {"input_tokens": 25, "output_tokens": 88}}}
    )
    meter = stream("anthropic-messages", start, TEXT_EVENTS["anthropic-messages"]("hi"))
    usage = meter.usage()
    assert (usage.input, usage.input_source, usage.output, usage.complete) == (25, Source.REPORTED, 88, False)
    assert not meter.is_reported
    assert meter.kept > 0
    meter.feed(named({"type": "content_block_stop", "usage": {"output_tokens": 99}}))
    assert figures(meter) == (25, 88)
    meter.feed(named({"type": "message_delta", "usage": {"output_tokens": 3, "input_tokens": 61}}))
    assert figures(meter) == (61, 3)
    assert meter.usage().complete
    assert meter.is_reported


def test_anthropics_figures_may_fall() -> None:
    start = {"input_tokens": 10, "cache_read_input_tokens": 55096, "cache_creation_input_tokens": 7, "output_tokens": 1}
    delta = {
        "input_tokens": 100,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 55096,
        "output_tokens": 9,
    }
    meter = stream(
        "anthropic-messages",
        named({"type": "message_start", "message": {"usage": start}}),
        named({"type": "message_delta", "usage": {"output_tokens": 12}}),
        named({"type": "message_delta", "usage": delta}),
    )
    usage = meter.usage()
    assert (usage.input, usage.cached, usage.cache_write, usage.output) == (55196, 0, 55096, 9)


def test_responses_report_in_the_event_that_ends_them() -> None:
    early = {"type": "response.in_progress", "response": {"usage": {"input_tokens": 1, "output_tokens": 1}}}
    assert stream("openai-responses", named(early)).usage() == Usage()
    for ending in ("completed", "incomplete", "failed"):
        last = {**early, "type": f"response.{ending}"}
        assert figures(stream("openai-responses", named(early), named(last))) == (1, 1)
    failed = {"type": "response.failed", "response": {"usage": None, "max_output_tokens": 5}}
    assert stream("openai-responses", named(failed)).usage() == Usage()


def test_openais_searches_are_counted_by_their_calls() -> None:
    calls = [
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "web_search_call"},
        {"type": "message", "content": [{"type": "web_search_call"}]},
    ]
    response = {"model": "r1", "output": calls, "usage": {"input_tokens": 1, "output_tokens": 1}}
    assert whole("openai-responses", response).usage().searches == 2
    assert stream("openai-responses", named({"type": "response.completed", "response": response})).usage().searches == 2
    assert whole("openai-responses", {**response, "output": "x"}).usage().searches == 0


def gemini(text: str = "hi", finish: str | None = None, **usage: int) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}]}, **({"finishReason": finish} if finish else {})}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "g1"}


TURNS = (
    gemini(promptTokenCount=145, candidatesTokenCount=20, thoughtsTokenCount=419, totalTokenCount=584),
    gemini(promptTokenCount=8, totalTokenCount=8),
    gemini(promptTokenCount=8, candidatesTokenCount=16, thoughtsTokenCount=28, totalTokenCount=52),
    gemini(promptTokenCount=85, candidatesTokenCount=12, totalTokenCount=97, finish="STOP"),
)


def as_sse(chunks: Iterable[Any]) -> list[bytes]:
    return [sse(each).replace(b"\n", b"\r\n") for each in chunks]


def as_array(chunks: Iterable[Any]) -> list[bytes]:
    lines = [json.dumps(each, indent=2).encode() for each in chunks]
    return [b"[" + lines[0], *(b"\n,\r\n" + line for line in lines[1:]), b"\n]"]


@pytest.mark.parametrize("write", [as_sse, as_array])
def test_geminis_last_chunk_stands_also_where_it_says_less(write: Callable[[Iterable[Any]], list[bytes]]) -> None:
    blocks = write(TURNS)
    expected = [(145, 439), (8, 439), (8, 44), (85, 12)]  # a restart leaves the output out: what was generated stays so
    for number, figure in enumerate(expected, 1):
        assert figures(stream("gemini", *blocks[:number])) == figure
        assert figures(stream("gemini", b"".join(blocks[:number]))) == figure
    meter = stream("gemini", *blocks)
    assert meter.usage().complete
    assert (meter.is_reported, meter.kept, meter.model) == (True, 0, "g1")


def test_asking_in_between_changes_nothing() -> None:
    meter = DIALECTS["gemini"].meter(is_stream=True)
    seen = []
    for block in as_sse(TURNS):
        meter.feed(block)
        seen.append(figures(meter))
    assert seen == [(145, 439), (8, 439), (8, 44), (85, 12)]


def test_a_chunk_that_says_less_comes_after_those_that_were_not_read_yet() -> None:
    assert figures(stream("gemini", *as_sse([TURNS[0], TURNS[3], TURNS[1]]))) == (8, 12)


def test_gemini_is_complete_with_its_finish_alone() -> None:
    assert not stream("gemini", *as_sse(TURNS[:3])).usage().complete
    assert stream("gemini", *as_sse(TURNS)).usage().complete


def test_gemini_without_an_output_has_not_reported_it() -> None:
    meter = stream("gemini", *as_sse([gemini(promptTokenCount=9, totalTokenCount=9, finish="STOP")] * 2))
    assert figures(meter) == (9, None)
    assert not meter.is_reported
    assert meter.kept > 0


def test_ollamas_last_line_alone_has_figures() -> None:
    early = b'{"model":"o1","done":false,"prompt_eval_count":1,"eval_count":1}\n'
    assert stream("ollama", early).usage() == Usage()
    cached = b'{"model":"o1","done":true,"eval_count":38}\n'
    meter = stream("ollama", early, cached)
    assert (figures(meter), meter.usage().input_source, meter.is_reported) == ((None, 38), Source.NONE, True)
    assert not meter.usage().complete


# -- keeping, taking, asking -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", REPORTS)
def test_events_are_kept_until_the_output_is_reported(dialect: str) -> None:
    text = TEXT_EVENTS[dialect]("hello")
    meter = stream(dialect, text, text)
    assert (meter.kept, meter.is_reported) == (2 * len(text), False)
    assert meter.take() == [text, text]
    assert (meter.kept, meter.take()) == (0, [])
    meter.feed(text)
    for block in REPORTS[dialect]:
        meter.feed(block)
    assert (meter.kept, meter.is_reported, meter.take()) == (0, True, [])
    meter.feed(text)
    assert meter.kept == 0
    assert figures(meter) == (9, 5)


@pytest.mark.parametrize("dialect", REPORTS)
def test_a_report_in_the_same_read_as_text_is_found(dialect: str) -> None:
    text = TEXT_EVENTS[dialect]("hello")
    assert figures(stream(dialect, text + b"".join(REPORTS[dialect]) + text)) == (9, 5)


def test_an_output_of_0_while_choices_go_on_is_none_yet() -> None:
    meter = stream("openai-chat", chunk("", usage=told(9, 0)), chunk("One"))
    assert (figures(meter), meter.is_reported, meter.usage().complete) == ((9, 0), False, False)
    assert meter.kept > 0
    meter.feed(chunk("two", usage=told(9, 2)))
    assert (figures(meter), meter.is_reported, meter.usage().complete) == ((9, 2), True, False)
    meter.feed(report(9, 0))
    assert (figures(meter), meter.usage().complete) == ((9, 0), True)


def test_a_report_without_an_output_does_not_undo_one() -> None:
    assert figures(stream("openai-chat", report(), sse({"choices": [], "usage": {"prompt_tokens": 9}}))) == (9, 5)


def test_running_reports_are_read_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.dialects import openai

    read: list[bytes] = []
    real = openai._read_chunk
    monkeypatch.setattr(openai, "_read_chunk", lambda data: read.append(data) or real(data))
    meter = stream("openai-chat", *(chunk("x", usage=told(9, at + 1)) for at in range(50)))
    assert len(read) == 1
    assert figures(meter) == (9, 50)
    assert len(read) == 2
    meter.feed(b"".join(chunk("x", usage=told(9, at + 51)) for at in range(50)))
    assert figures(meter) == (9, 100)
    assert len(read) == 3


def test_a_null_usage_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.dialects import openai

    monkeypatch.setattr(openai, "_read_chunk", lambda data: pytest.fail("parsed"))
    meter = stream("openai-chat", *[chunk(usage=None)] * 3, chunk("the word usage", usage=None))
    assert meter.kept > 0


def test_what_only_looks_like_a_running_report_hides_none() -> None:
    broken = b'data: {"choices":[],"usage":{"completion_tokens":7\n\n'
    assert figures(stream("openai-chat", chunk("x", usage=told(9, 2)) + broken)) == (9, 2)
    assert figures(stream("openai-chat", report(), broken)) == (9, 5)


@pytest.mark.parametrize("dialect", REPORTS)
def test_the_model_is_the_one_the_provider_names(dialect: str) -> None:
    expected = {"openai-chat": "gpt-own-1", "openai-responses": "r1", "anthropic-messages": "m1"}
    expected |= {"gemini": "g1", "ollama": "o1"}
    meter = stream(dialect, *REPORTS[dialect])
    assert meter.model == expected[dialect]
    assert stream(dialect).model is None
    assert stream(dialect, b"x\n\n" * 9).model is None


def test_the_model_is_known_after_the_first_event_and_after_all_is_taken() -> None:
    created = named({"type": "response.created", "response": {"model": "r1", "usage": None}})
    meter = stream("openai-responses", created)
    assert meter.model == "r1"
    meter = stream("openai-responses", created)
    meter.take()
    assert meter.model == "r1"
    nameless = named({"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 1}}})
    assert stream("openai-responses", created, nameless).model == "r1"


def test_plain_reports_nothing_and_keeps_nothing() -> None:
    for is_stream in (True, False):
        meter = DIALECTS["plain"].meter(is_stream)
        meter.feed(report())
        assert (meter.usage(), meter.model, meter.kept, meter.take()) == (Usage(), None, 0, [])
        assert meter.is_reported  # so that nobody counts


# -- whole answers -----------------------------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "openai-chat": ({"model": "a1", "choices": [], "usage": told()}, (9, 5)),
    "openai-completions": ({"model": "a1", "choices": [], "usage": told()}, (9, 5)),
    "openai-embeddings": ({"data": [], "model": "a1", "usage": {"prompt_tokens": 9, "total_tokens": 9}}, (9, 0)),
    "openai-responses": ({"model": "a1", "output": [], "usage": {"input_tokens": 9, "output_tokens": 5}}, (9, 5)),
    "anthropic-messages": ({"model": "a1", "usage": {"input_tokens": 9, "output_tokens": 5}}, (9, 5)),
    "gemini": ({**gemini(promptTokenCount=9, candidatesTokenCount=5), "modelVersion": "a1"}, (9, 5)),
    "ollama": ({"model": "a1", "done": True, "prompt_eval_count": 9, "eval_count": 5}, (9, 5)),
}
OLLAMA_FIRST = ("ollama", "report")


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("dialect", ANSWERS)
def test_a_whole_answer_is_read_from_any_pieces(dialect: str, size: int) -> None:
    document, expected = ANSWERS[dialect]
    meter = whole(dialect, document, size)
    assert figures(meter) == expected
    assert (meter.model, meter.is_reported, meter.usage().complete) == ("a1", True, True)
    assert meter.kept == len(json.dumps(document))
    assert meter.take() == [json.dumps(document).encode()]
    assert (meter.kept, meter.take(), figures(meter), meter.model) == (0, [], expected, "a1")


@pytest.mark.parametrize("size", [1000, 16 * 1024, 10**6])
@pytest.mark.parametrize(
    ("dialect", "first"),
    # Ollama's figures are four members of their own; they always come last.
    [(dialect, first) for dialect in ANSWERS for first in ("padding", "report") if (dialect, first) != OLLAMA_FIRST],
)
def test_a_long_answer_is_read_at_both_ends(dialect: str, size: int, first: str) -> None:
    document, expected = ANSWERS[dialect]
    padding = {"padding": [{"x": "y" * 1000}] * 300}  # Perplexity has its search results behind the usage
    long = {**padding, **document} if first == "padding" else {**document, **padding}
    meter = whole(dialect, long, size)
    assert figures(meter) == expected
    assert (meter.model, meter.is_reported) == ("a1", True)
    assert (meter.kept, meter.take()) == (0, [])


@pytest.mark.parametrize("length", [WHOLE - 1, WHOLE, WHOLE + 1, 2 * WHOLE, 2 * WHOLE + 1])
@pytest.mark.parametrize("size", [1, WHOLE, 5 * WHOLE])
def test_the_bound_is_exact(length: int, size: int) -> None:
    document = {"model": "a1", "choices": "", "usage": told()}
    document["choices"] = "x" * (length - len(json.dumps(document)))
    meter = whole("openai-chat", document, size)
    assert (figures(meter), meter.model) == ((9, 5), "a1")
    assert meter.kept == (length if length < WHOLE else 0)


def test_the_model_of_a_long_answer_is_found_in_its_head_and_the_usage_in_its_tail() -> None:
    document = {"id": "x", "model": "a1", "choices": "x" * 5 * WHOLE, "usage": told()}
    assert whole("openai-chat", document).model == "a1"
    document = {"meta": {"model": "nested"}, "model": "a1", "choices": [{"model": "nested"}, "x" * 5 * WHOLE]}
    assert whole("openai-chat", document).model == "a1"
    assert whole("openai-chat", {"meta": {"model": "nested"}, "choices": "x" * 5 * WHOLE}).model is None


def test_a_usage_with_details_is_found_in_the_head() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "tier": "x", **told(), "cost": {"total_cost": 0.005}}
    usage = whole("openai-chat", {"usage": details, "results": "x" * 5 * WHOLE}).usage()
    assert (usage.input, usage.output, usage.cached, usage.cost_micros) == (9, 5, 4, 5000)


@pytest.mark.parametrize("size", [10, 10**6])
def test_an_answer_that_was_cut_reports_nothing(size: int) -> None:
    data = json.dumps({"model": "a1", "choices": "x" * size, "usage": told()}).encode()
    assert whole("openai-chat", data[:-1]).usage() == Usage()
    assert whole("openai-chat", data[:-20]).usage() == Usage()
    assert not whole("openai-chat", data[:-1]).is_reported


def test_a_usage_in_the_middle_of_a_long_answer_is_not_found() -> None:
    document = {"a": "x" * HEAD, "usage": told(), "z": "x" * WHOLE}
    assert whole("openai-chat", document).usage() == Usage()


def test_blank_lines_may_come_before_the_answer() -> None:
    assert figures(whole("openai-chat", b"\n\n\n" + json.dumps({"usage": told()}).encode())) == (9, 5)


@pytest.mark.parametrize(
    ("dialect", "document", "count"),
    [
        ("anthropic-count-tokens", {"input_tokens": 43}, 43),
        ("gemini", {"totalTokens": 61, "promptTokensDetails": [{"tokenCount": 61}]}, 61),
        ("openai-responses", {"object": "response.input_tokens", "input_tokens": 11}, 11),
    ],
)
def test_what_was_only_counted_is_told(dialect: str, document: dict[str, Any], count: int) -> None:
    assert figures(whole(dialect, document)) == (count, 0)


@pytest.mark.parametrize("dialect", READ, ids=lambda dialect: dialect.name)
def test_an_error_reports_nothing(dialect: Any) -> None:
    meter = whole(dialect.name, {"error": {"message": "no", "type": "x"}})
    assert (meter.usage(), meter.is_reported) == (Usage(), False)


# -- hostility and size ------------------------------------------------------------------------------------------------

STARTS = [
    b"",
    b"data: ",
    b'data: {"usage":',
    b'{"eval_count":',
    b'[{"usageMetadata":',
    b'data: {"_tokens"',
    b'{"usage":{',
]


@given(st.binary(max_size=80), st.sampled_from(STARTS), st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_meter_raises_at_hostile_bytes(junk: bytes, start: bytes, is_stream: bool) -> None:
    for dialect in DIALECTS.values():
        meter = dialect.meter(is_stream)
        for block in (start + junk, start + junk + b"\n\n", junk + b"\n\n" + start, start + b"[" * 5000):
            meter.feed(block)
            meter.usage()
        assert isinstance(meter.model, str | None)
        assert meter.kept == sum(map(len, meter.take()))


@pytest.mark.parametrize(
    "key", [b'{"usage":', b'"usage"', b'{"usage":{},', b'"usage":{"completion_tokens":1},', b'{"model":"']
)
def test_a_long_document_full_of_keys_is_read_in_few_steps(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.dialects import openai

    calls: list[int] = []
    real = openai._read_chunk
    monkeypatch.setattr(openai, "_read_chunk", lambda data: calls.append(len(data)) or real(data))
    meter = whole("openai-chat", b"{" + key * 30_000)
    meter.usage()
    assert len(calls) <= 70
    assert meter.model is None


MOST_GROWTH = 1_000_000  # bytes
STEP = 64 * 1024


@pytest.mark.parametrize("dialect", STREAMED)
@pytest.mark.parametrize("is_reported", [False, True])
def test_a_stream_of_100_mb_is_metered_in_constant_memory(dialect: str, is_reported: bool) -> None:
    event = TEXT_EVENTS[dialect]("x" * 1000)
    block = event * (STEP // len(event))
    meter = DIALECTS[dialect].meter(is_stream=True)
    if is_reported:
        for each in REPORTS["openai-chat" if dialect == "openai-completions" else dialect]:
            meter.feed(each)
    assert growth(meter, block) < MOST_GROWTH


@pytest.mark.parametrize("dialect", ["openai-chat", "gemini"])
def test_100_mb_of_running_reports_are_metered_in_constant_memory(dialect: str) -> None:
    event = {"openai-chat": chunk("x" * 900, usage=told()), "gemini": REPORTS["gemini"][0]}[dialect]
    meter = DIALECTS[dialect].meter(is_stream=True)
    assert growth(meter, event * (STEP // len(event))) < MOST_GROWTH
    assert figures(meter) == (9, 5)


@pytest.mark.parametrize("dialect", ANSWERS)
def test_an_answer_of_100_mb_is_metered_in_constant_memory(dialect: str) -> None:
    meter = DIALECTS[dialect].meter(is_stream=False)
    meter.feed(b'{"padding":"')
    assert growth(meter, b"x" * STEP) < MOST_GROWTH
    meter.feed(b'",' + json.dumps(ANSWERS[dialect][0]).encode()[1:])
    assert figures(meter) == ANSWERS[dialect][1]


def test_a_piece_of_any_size_is_not_copied() -> None:
    meter = DIALECTS["openai-chat"].meter(is_stream=False)
    piece = b"x" * 10_000_000
    tracemalloc.start()
    try:
        meter.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < MOST_GROWTH
    finally:
        tracemalloc.stop()


def growth(meter: Meter, block: bytes) -> int:
    """Bytes by which the most memory in use exceeds that in use before, over 100 MB."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100_000_000 // len(block)):
            meter.feed(bytes(bytearray(block)))  # as reads do: other bytes each time
            if meter.kept >= STEP:
                meter.take()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [100, 20_000, 60_000])
@pytest.mark.parametrize("end", [b"}", b',"x":{"usage":{"prompt_tokens":9}}}', b"", b"}}"])
def test_a_long_document_is_read_at_its_ends_as_it_is_whole(size: int, end: bytes) -> None:
    """Also where the same key stands deeper, and where the document was cut or has a bracket too many."""
    text = b"x" * size
    body = (
        b'{"model":"m","choices":[{"message":{"content":"%b"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}'
        % text
    )
    meter = DIALECTS["openai-chat"].meter(False)
    meter.feed(body + end)
    is_whole = end not in (b"", b"}}")
    assert (meter.model, meter.usage().input, meter.usage().output) == (("m", 3, 4) if is_whole else (None, None, None))
