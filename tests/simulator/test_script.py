"""Every fault as a list of steps, without a socket."""

from __future__ import annotations

import itertools
import zlib

import pytest

from proxy.simulator.faults import WORDS, parse
from proxy.simulator.script import (
    End,
    Fin,
    Head,
    Interim,
    Mark,
    Raw,
    Rst,
    Send,
    Silence,
    Step,
    Until,
    Wait,
    malformed,
    script,
)
from proxy.simulator.speech import Answer, Part
from proxy.simulator.voices import Kind, Report
from proxy.simulator.voices_openai import OpenAIChat
from proxy.wire.head import Framing
from proxy.wire.inflate import inflater

PARTS = [
    Part(Kind.OPEN, b"data: open\n\n"),
    Part(Kind.DELTA, b'data: {"t":"one"}\n\n'),
    Part(Kind.DELTA, b'data: {"t":"two"}\n\n'),
    Part(Kind.FINISH, b"data: finish\n\n", Report(7, 2)),
    Part(Kind.DONE, b"data: done\n\n"),
]
OPEN, ONE, TWO, FINISH, DONE = (Send(part.data) for part in PARTS)


def marked(spec: str, streamed: bool = True, bodiless: bool = False) -> list[Step]:
    """Every step."""
    parts = PARTS if streamed else [Part(Kind.DELTA, b"first,"), Part(Kind.DELTA, b"second", Report(7, 2))]
    answer = Answer(200, [("x", "y")], iter(parts), streamed)
    return list(script(answer, parse(spec), OpenAIChat("m", 1, 1), bodiless=bodiless))


def steps(spec: str, streamed: bool = True, bodiless: bool = False) -> list[Step]:
    """Every step in which something happens."""
    return [step for step in marked(spec, streamed, bodiless) if not isinstance(step, Mark)]


def after_head(spec: str) -> list[Step]:
    head, *rest = steps(spec)
    assert isinstance(head, Head)
    return rest


def test_no_fault() -> None:
    head, *rest = steps("")
    assert head == Head(200, [("x", "y")], Framing.CHUNKED, True)
    assert rest == [OPEN, ONE, TWO, FINISH, DONE, End(b"")]


def test_whole_answers_go_out_at_once_unless_cut() -> None:
    length = [("x", "y"), ("content-length", "12")]
    assert steps("", False) == [Head(200, length, Framing.LENGTH, True), Send(b"first,second"), End(b"")]
    assert steps("stall=1", False)[1:] == [Send(b"first,"), Silence(600.0, b"", 0.0)]
    assert steps("cut=9", False)[1:] == [Send(b"first,"), Send(b"second"), Fin()]


@pytest.mark.parametrize(
    ("word", "act"),
    [("cut", Fin()), ("cut-rst", Rst()), ("stall", Silence(600.0, b": simulated\n\n", 0.0))],
)
def test_what_ends_an_answer_at_a_delta(word: str, act: Step) -> None:
    assert after_head(f"{word}=0") == [act]
    assert after_head(f"{word}=1") == [OPEN, ONE, act]
    assert after_head(f"{word}=2") == [OPEN, ONE, TWO, act]
    assert after_head(f"{word}=3") == [OPEN, ONE, TWO, act]


def test_the_first_of_several_faults_wins_and_malformed_goes_on() -> None:
    assert after_head("cut=2 stall=1") == [OPEN, ONE, Silence(600.0, b": simulated\n\n", 0.0)]
    broken = Send(malformed(TWO.data))
    assert after_head("malformed=1 cut=2") == [OPEN, ONE, broken, TWO, Fin()]


def test_what_is_left_out() -> None:
    assert after_head("no-end") == [OPEN, ONE, TWO, End(b"")]
    assert after_head("no-done") == [OPEN, ONE, TWO, FINISH, End(b"")]


def test_error_event_then_the_proper_end() -> None:
    assert after_head("error=1")[2:] == [*map(Send, OpenAIChat("m", 1, 1).error_events()), End(b"")]


def test_bad_chunk_is_raw_and_final() -> None:
    assert [type(step) for step in after_head("bad-chunk=1")] == [Send, Send, Raw, Fin]


def test_before_the_head() -> None:
    assert steps("reset") == [Rst()]
    assert steps("drop-request") == [Fin()]
    assert steps("silent hold=3") == [Silence(3.0, b"", 0.0)]
    assert steps("delay=2 reset") == [Wait(2.0), Rst()]
    assert steps("interim=100")[0] == Interim(100, [])
    parts = Answer(200, [], iter(PARTS), True)
    endless = script(parts, parse("interim=endless"), OpenAIChat("m", 1, 1), bodiless=False)
    assert {type(step) for step in itertools.islice(endless, 1000)} == {Interim, Wait}


def test_heads_that_lie() -> None:
    both = steps("both-framings")[0]
    assert isinstance(both, Head)
    size = sum(len(part.data) for part in PARTS)
    assert both.headers[1:] == [("content-length", str(size)), ("transfer-encoding", "chunked")]
    assert not both.honest
    assert steps("length=+5", False)[0] == Head(200, [("x", "y"), ("content-length", "17")], Framing.LENGTH, False)
    assert isinstance(steps("length=+5", False)[-1], Fin)
    assert steps("length=-5", False)[-1] == End(b"")
    assert steps("framing=close")[0] == Head(200, [("x", "y"), ("connection", "close")], Framing.UNTIL_CLOSE, False)


def test_extra_bytes_come_in_the_write_of_the_end_or_later() -> None:
    end = after_head("extra=9")[-1]
    assert isinstance(end, End)
    assert len(end.extra) == 9
    *_, end, wait, late = after_head("late-extra=200")
    assert (end, type(wait)) == (End(b""), Wait)
    assert isinstance(late, Raw)
    assert len(late.data) == 200


def test_no_body_for_head_requests() -> None:
    assert steps("", bodiless=True) == [Head(200, [("x", "y")], Framing.NONE, True), End(b"")]
    head, end = steps("", False, bodiless=True)
    assert isinstance(head, Head)
    assert ("content-length", "12") in head.headers
    assert end == End(b"")


def test_pace_and_trickle_do_not_drift() -> None:
    assert [step for step in after_head("pace=4") if isinstance(step, Until)] == [Until(0.0), Until(0.25)]
    trickled = after_head("trickle=2")
    size = sum(len(part.data) for part in PARTS)
    assert [step for step in trickled if isinstance(step, Until)] == [Until(place / 2) for place in range(size)]
    assert all(len(step.data) == 1 for step in trickled if isinstance(step, Send))


def test_filters_keep_the_bytes() -> None:
    whole = b"".join(part.data for part in PARTS)
    for spec in ("cuts=bytes", "cuts=edges", "cuts=whole", "trickle=1000"):
        assert b"".join(step.data for step in after_head(spec) if isinstance(step, Send)) == whole
    assert len([step for step in after_head("cuts=whole") if isinstance(step, Send)]) == 1
    packed = b"".join(step.data for step in after_head("gzip cuts=bytes") if isinstance(step, Send))
    assert zlib.decompress(packed, wbits=31) == whole
    assert after_head("cuts=bytes cut=1")[-1] == Fin()


def test_a_cut_gzip_stream_has_no_trailer() -> None:
    packed = b"".join(step.data for step in after_head("gzip cut=1") if isinstance(step, Send))
    coder = zlib.decompressobj(wbits=31)
    assert coder.decompress(packed) == OPEN.data + ONE.data
    assert not coder.eof


def test_several_codings_are_applied_in_a_fixed_order() -> None:
    head, *rest = steps("zstd br deflate=bare gzip")
    assert isinstance(head, Head)
    assert head.headers[-1] == ("content-encoding", "gzip, deflate, br, zstd")
    assert next(step.data[:1] for step in steps("deflate", False) if isinstance(step, Send)) == b"\x78"
    assert next(step.data[:1] for step in steps("deflate=bare", False) if isinstance(step, Send)) != b"\x78"
    taken = inflater(b"gzip, deflate, br, zstd")
    assert taken is not None
    got = [taken.feed(step.data) for step in rest if isinstance(step, Send)]
    assert got == [*(part.data for part in PARTS), *[b""] * (len(got) - len(PARTS))]  # each in its own piece


@pytest.mark.parametrize("spec", ["", "cuts=bytes", "cuts=whole", "cuts=edges", "trickle=900", "gzip", "br cuts=bytes"])
def test_a_mark_stands_behind_the_last_byte_of_its_event(spec: str) -> None:
    taken = inflater(b"gzip" if "gzip" in spec else b"br" if "br" in spec else b"")
    assert taken is not None
    sent, ends = b"", []
    for step in marked(spec):
        if isinstance(step, Send):
            sent += taken.feed(step.data)
        elif isinstance(step, Mark):
            ends.append((len(sent), step.report))
    sizes = list(itertools.accumulate(len(part.data) for part in PARTS))
    reports = [None, None, None, Report(7, 2), None]
    if spec == "cuts=whole":
        sizes = [sizes[-1]] * 5
    assert [report for _, report in ends] == reports
    assert all(end >= size for (end, _), size in zip(ends, sizes))
    assert sum(end for end, _ in ends) <= sum(sizes) + 5  # with edges, the cut behind an event is one byte later


def test_whole_answers_are_one_event_or_two_halves() -> None:
    assert [step for step in marked("", False) if isinstance(step, Mark)] == [Mark(Report(7, 2))]
    assert [step for step in marked("cut=9", False) if isinstance(step, Mark)] == [Mark(None), Mark(Report(7, 2))]
    assert [step for step in marked("cut=1", False) if isinstance(step, Mark)] == [Mark(None)]


def test_an_event_that_is_left_out_or_broken_reports_nothing() -> None:
    assert Mark(Report(7, 2)) not in marked("no-end")
    assert Mark(Report(7, 2)) not in marked("malformed=2 cut=2")
    assert Mark(Report(7, 2)) in marked("no-done")


def test_malformed_keeps_the_end_of_the_event() -> None:
    assert malformed(b'data: {"a":"b"}\r\n\r\n') == b'data: {"a"\r\n\r\n'
    assert malformed(b'{"a":"bcd"}\n') == b'{"a":"b\n'
    assert malformed(b'data: 1\n\ndata: {"a":"b"}\n\n') == b'data: 1\n\ndata: {"a"\n\n'
    assert malformed(b"") == b""


@pytest.mark.parametrize("name", sorted(WORDS))
def test_every_word_alone_makes_a_script(name: str) -> None:
    value = {"text": "x", "retry-after": "1", "framing": "close", "length": "+1", "cuts": "edges", "eol": "cr"}
    spec = name if WORDS[name].bare is not None else f"{name}={value.get(name, '300')}"
    answer = Answer(200, [], iter(PARTS), True)
    assert next(script(answer, parse(spec), OpenAIChat("m", 1, 1), bodiless=False), None) is not None
