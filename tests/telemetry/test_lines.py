"""A line is one line, whatever the values hold, and says what the receipt says."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from proxy.outcome import Attempt, Billed, Failure, Kind, Phase, Receipt, Side, Source, Usage
from proxy.telemetry import lines

HOSTILE = [
    "/a\nb",
    '/a\r\n{"id":"forged"}',
    "/\x1b[2J",
    "/\x9b31m",  # the one-byte form of the same escape
    "/\u2028next",
    "/\u202egnp.exe",
    "/\x7f",
    "/\udc80",  # what surrogateescape makes of a byte that is no UTF-8
    "/\x00",
]


def a_receipt(**changes: object) -> Receipt:
    receipt = Receipt(
        id="01J",
        started_at=1_700_000_000.25,
        client="127.0.0.1",
        method="POST",
        path="/v1/chat/completions",
        status=200,
    )
    for name, value in changes.items():
        setattr(receipt, name, value)
    return receipt


USED = Usage(12, 34, input_source=Source.REPORTED, output_source=Source.COUNTED, billed=(Billed(None, 1, 2),))


def test_tokens_and_cost_in_words() -> None:
    assert b"tokens=" not in lines.receipt_text(a_receipt())
    assert b"  tokens=12/~34 cost=$0.001500  " in lines.receipt_text(a_receipt(usage=USED, cost_micros=1500))
    guessed = Usage(7, 8, input_source=Source.ESTIMATED, output_source=Source.ESTIMATED)
    assert "  tokens=≈7/≈8  " in lines.receipt_text(a_receipt(usage=guessed)).decode()
    reported = Usage(12, None, input_source=Source.REPORTED, output_source=Source.REPORTED)
    assert b"  tokens=12/?  " in lines.receipt_text(a_receipt(usage=reported))


def test_usage_in_a_json_line() -> None:
    usage = json.loads(lines.receipt_json(a_receipt(usage=USED)))["usage"]
    assert (usage["input"], usage["output"], usage["input_source"], usage["output_source"]) == (
        12,
        34,
        "reported",
        "counted",
    )
    assert usage["billed"] == [{"model": None, "input": 1, "output": 2, "cached": 0, "cache_write": 0}]


def cut_stream() -> Receipt:
    failure = Failure(Side.UPSTREAM, Phase.STREAM, Kind.RESET, "connection reset")
    return a_receipt(
        complete=False,
        ended_by=Side.UPSTREAM,
        ended_phase=Phase.STREAM,
        ended_kind=Kind.RESET.value,
        detail="connection reset",
        stream=True,
        attempts=[Attempt("openai", "gpt-4o", 0.5, 1.5, True, 200, failure)],
    )


def test_a_json_line_has_the_fields_of_the_receipt_and_the_letters() -> None:
    line = lines.receipt_json(cut_stream())
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    read = json.loads(line)
    assert list(read) == [f.name for f in fields(Receipt)] + ["ended"]
    assert read["ended"] == "UD"
    assert (read["ended_by"], read["ended_phase"], read["ended_kind"]) == ("upstream", "stream", "reset")
    assert read["attempts"] == [
        {
            "provider": "openai",
            "model": "gpt-4o",
            "started_ms": 0.5,
            "ended_ms": 1.5,
            "reused": True,
            "status": 200,
            "failure": {"side": "upstream", "phase": "stream", "kind": "reset", "detail": "connection reset"},
        }
    ]
    assert json.loads(lines.receipt_json(a_receipt()))["ended"] == "--"


BUSY = Failure(Side.UPSTREAM, Phase.DONE, Kind.ERROR_STATUS, "busy")
REFUSED = Failure(Side.UPSTREAM, Phase.CONNECT, Kind.CONNECT_FAILED, "refused")


def failed_over() -> Receipt:
    return a_receipt(
        provider="anthropic",
        alias="fast",
        model_requested="fast",
        attempts=[
            Attempt("openai", "gpt-4o-mini", 0.5, 1.5, True, 503, BUSY, "first", usage=Usage(input=7), cost_micros=0),
            Attempt("groq", None, 1.5, 2.5, False, 0, REFUSED, "fallback"),
            Attempt(
                "anthropic", "claude-haiku-4-5", 2.5, 9.5, False, 200, None, "fallback", 3.5, USED, 9, "served", 99
            ),
        ],
    )


def test_an_attempt_in_json_shows_what_says_something() -> None:
    first, second, third = json.loads(lines.receipt_json(failed_over()))["attempts"]
    always = ["provider", "model", "started_ms", "ended_ms", "reused", "status", "failure"]
    assert list(first) == [*always, "usage", "cost_micros"]
    assert (first["usage"], first["cost_micros"]) == ({"input": 7, "complete": False}, 0)
    assert list(second) == [*always, "why"] and second["why"] == "fallback"
    assert list(third) == list(Attempt._fields)
    assert third["usage"]["billed"] == [{"model": None, "input": 1, "output": 2, "cached": 0, "cache_write": 0}]
    assert set(third["usage"]) == {"input", "output", "input_source", "output_source", "complete", "billed"}


def test_text_names_the_targets_where_there_was_more_than_one() -> None:
    line = lines.receipt_text(failed_over()).decode()
    tries = "attempts=3 openai/gpt-4o-mini:503 groq:connect_failed anthropic/claude-haiku-4-5"
    assert f"  anthropic/claude-haiku-4-5  alias=fast  in=0 out=0  {tries}  id=01J\n" in line
    [*_, last] = failed_over().attempts
    assert b"attempts=" not in lines.receipt_text(a_receipt(attempts=[last]))


def test_text_names_the_last_targets_of_many_and_none_of_them_can_forge_a_field() -> None:
    many = [Attempt("p", f"m{number}", 0.0, 1.0, False, 0, REFUSED) for number in range(20)]
    line = lines.receipt_text(a_receipt(attempts=many)).decode()
    shown = " ".join(f"p/m{number}:connect_failed" for number in range(12, 20))
    assert f"  attempts=20 (12 more) {shown}  " in line
    forged = [Attempt("p", "m id=7", 0.0, 1.0, False, 200, None)] * 2
    assert '  attempts=2 "p/m id=7" "p/m id=7"  ' in lines.receipt_text(a_receipt(attempts=forged)).decode()


def test_an_alias_without_an_attempt_has_no_target() -> None:
    assert b"/v1/chat/completions  -  alias=fast  " in lines.receipt_text(
        a_receipt(alias="fast", model_requested="fast")
    )


def test_the_quick_way_and_the_thorough_way_say_the_same() -> None:
    plain = (a_receipt(), cut_stream(), a_receipt(key=None, connect_ms=1.5), a_receipt(usage=USED))
    for receipt in (*plain, failed_over()):
        assert lines.receipt_json(receipt) == lines._rebuilt(receipt)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", ["path", "model_requested", "detail", "client", "provider_request_id", "id", "key"])
def test_no_value_can_forge_a_line_or_steer_a_terminal(name: str, hostile: str) -> None:
    receipt = a_receipt(complete=False, **{name: hostile})
    for line in (lines.receipt_json(receipt), lines.receipt_text(receipt)):
        text = line.decode()  # always UTF-8
        assert text.endswith("\n")
        assert text[:-1].isprintable()
    shown = json.loads(lines.receipt_json(receipt))[name]
    assert shown.isprintable() and shown.startswith("/")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_note_can_forge_a_line(hostile: str) -> None:
    more: dict[str, object] = {"where": hostile, "list": [hostile]}
    for form in (lines.note_json, lines.note_text):
        text = form(0.0, "warn", hostile, more).decode()
        assert text[:-1].isprintable() and text.endswith("\n")


def test_letters_of_other_scripts_stay_readable() -> None:
    receipt = a_receipt(path="/modèle/模型")
    assert json.loads(lines.receipt_json(receipt))["path"] == "/modèle/模型"
    assert "/modèle/模型" in lines.receipt_text(receipt).decode()


def test_a_query_string_that_slipped_in_stays_out() -> None:
    receipt = a_receipt(path="/v1beta/models/gemini-pro:generateContent?key=AIzaCANARY")
    for line in (lines.receipt_json(receipt), lines.receipt_text(receipt)):
        assert b"CANARY" not in line
        assert b":generateContent" in line


def test_long_values_are_cut_so_that_a_pipe_takes_the_line_in_one_piece() -> None:
    long = "x" * 8000
    failure = Failure(Side.UPSTREAM, Phase.CONNECT, Kind.CONNECT_FAILED, "no address answered")
    receipt = a_receipt(
        path="/" + long, model_requested=long, attempts=[Attempt("p", None, 0.0, 1.0, False, 0, failure)] * 100
    )
    for line in (
        lines.receipt_json(receipt),
        lines.receipt_text(receipt),
        lines.note_json(0, "info", "m", {"a": long}),
    ):
        assert len(line) <= lines.LINE_BYTES
    assert json.loads(lines.receipt_json(receipt))["path"].startswith("/xxxx")


@pytest.mark.parametrize("char", ["x", "é"])
def test_many_attempts_with_long_names_and_usage_are_cut_as_well(char: str) -> None:
    long = char * 8000
    failure = Failure(Side.UPSTREAM, Phase.CONNECT, Kind.CONNECT_FAILED, long)
    attempt = Attempt(long, long, 0.0, 1.0, False, 503, failure, "fallback", 1.0, USED, 9, long, 9)
    receipt = a_receipt(
        path="/" + long, key=long, model_requested=long, model_served=long, detail=long, tags=long,
        provider_request_id=long, attempts=[attempt] * 9, usage=USED,
    )  # fmt: skip
    for line in (lines.receipt_json(receipt), lines.receipt_text(receipt)):
        assert len(line) <= lines.LINE_BYTES
    shown = json.loads(lines.receipt_json(receipt))
    assert (len(shown["attempts"]), shown["attempts"][0]["cost_micros"]) == (2, 9)
    few = a_receipt(model_requested="x" * 8000, attempts=[attempt._replace(provider="p", model="m")] * 2)
    assert len(json.loads(lines.receipt_json(few))["attempts"]) == 2


def test_values_json_cannot_hold_do_not_lose_the_line() -> None:
    assert json.loads(lines.receipt_json(a_receipt(bytes_out=2**70)))["bytes_out"] == str(2**70)
    assert json.loads(lines.note_json(0, "info", "m", {"x": object, "p": Phase.HEAD, "n": {"a": 1}}))["p"] == "head"


def test_a_text_line_reads_from_left_to_right() -> None:
    receipt = cut_stream()
    receipt.provider, receipt.model_requested, receipt.key = "openai", "gpt-4o", "my app"
    receipt.total_ms, receipt.first_event_ms, receipt.events = 12_345.6, 3.21, 7
    receipt.bytes_in, receipt.bytes_out = 10, 20
    assert lines.receipt_text(receipt).decode() == (
        "2023-11-14T22:13:20.250Z   200 UD    12.3s  POST /v1/chat/completions  openai/gpt-4o  stream events=7 "
        'first=3.2ms  key="my app"  in=10 out=20  id=01J  reset: connection reset\n'
    )


def test_a_complete_exchange_may_have_something_to_tell() -> None:
    line = lines.receipt_text(a_receipt(detail="the stream came compressed")).decode()
    assert line.endswith("id=01J  the stream came compressed\n")


def test_text_lines_align() -> None:
    refused = a_receipt(status=0, total_ms=5.0)
    columns = {lines.receipt_text(r).index(b"POST") for r in (a_receipt(total_ms=123.4), refused, cut_stream())}
    assert len(columns) == 1


def test_notes_in_both_forms() -> None:
    more: dict[str, object] = {"url": "http://127.0.0.1:8080", "level": "never", "names": ["a", "b c"]}
    assert json.loads(lines.note_json(1.5, "info", "listening", more)) == {
        "at": 1.5,
        "level": "info",
        "message": "listening",
        "url": "http://127.0.0.1:8080",
        "names": ["a", "b c"],
    }
    assert lines.note_text(1.5, "info", "listening", {"url": "http://127.0.0.1:8080", "names": ["a", "b c"]}) == (
        b'1970-01-01T00:00:01.500Z  info listening  url=http://127.0.0.1:8080  names="a,b c"\n'
    )
    assert lines.note_text(1.5, "warn", "some", {"clients": {"10.0.0.1": 7, "unix": 1}}) == (
        b"1970-01-01T00:00:01.500Z  warn some  clients=10.0.0.1:7,unix:1\n"
    )


def test_a_refusal_that_stands_for_others_says_for_how_many() -> None:
    assert b"stands_for" not in lines.receipt_text(a_receipt())
    assert b"  stands_for=12  " in lines.receipt_text(a_receipt(stands_for=12))
    assert json.loads(lines.receipt_json(a_receipt(stands_for=12)))["stands_for"] == 12


def test_stamp_carries_into_the_next_second() -> None:
    assert lines.stamp(0.9999) == "1970-01-01T00:00:01.000Z"
