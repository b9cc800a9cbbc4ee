"""Streams that go wrong behind an alias: what the client gets of them, and what each target was asked, and when.

How it works: two providers stand behind one alias, and the faults are words of the simulator; where one must go on when
the test says so it is a script instead. What a provider said is known by asking it directly. Texts are compared word by
word, bytes with the numbers taken out that the simulator puts into its ids.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.simulator.books import Ending as Booked
from proxy.simulator.faults import parse
from proxy.simulator.speech import pieces
from tests.fakes.raw import Ending, RawAnswer, RawClient, ScriptedUpstream, Send, Step, Tell, Wait, WaitEnd
from tests.whole.processes import Provider, Sidecar
from tests.whole.targets import JSON, Begin, Targets, tried, tried_in
from tests.whole.test_sdk_endings import ASKS

LATE = 1.2  # seconds a limit may be late here: a quarter for the sweeper, the rest for a busy machine
ALIKE = "m (resume) = a/one | b/one"
WELL = ["a/one first 200 well"]


# Words that are all different, so that one too many or too few is seen.
TEXT = " ".join(f"w{number}" for number in range(60))
WHOLE = f'text="{TEXT}"'
PACED = f"{WHOLE} pace=200"  # so that the first words are the client's before all goes wrong


class Way(NamedTuple):
    """A dialect: where it is asked, what its errors have in them, and what only its whole streams have."""

    family: str
    path: str
    error: bytes
    last: bytes


WAYS = {
    "openai-chat": Way("openai", "/v1/chat/completions", b'data: {"error"', b"data: [DONE]\n\n"),
    "openai-responses": Way("openai", "/v1/responses", b"event: error\n", b"event: response.completed\n"),
    "anthropic-messages": Way("anthropic", "/v1/messages", b"event: error\n", b"event: message_stop\n"),
    "gemini": Way("gemini", "/v1beta/models/m:streamGenerateContent?alt=sse", b'data: {"error"', b'"STOP"'),
}
RESUMED = ("openai-chat", "anthropic-messages")
slow = pytest.mark.slow
any_way = pytest.mark.parametrize("name", WAYS)
each_way = pytest.mark.parametrize(
    "name", [name if name in RESUMED else pytest.param(name, marks=slow) for name in WAYS]
)
resumed_way = pytest.mark.parametrize("name", RESUMED)


@pytest.fixture
def begin(start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path) -> Begin:
    """Providers a, b, ... of the family that speaks the dialect of a name in WAYS."""

    def begin_one(name: str, *specs: str, **more: Any) -> Targets:
        way = WAYS[name]
        more = {"COUNT": "off", **more}
        whole = partial(Targets, start, provide, tmp_path / "ledger.db")
        if way.family != "gemini":
            return whole(*specs, family=way.family, **more)
        made = [provide(spec) for spec in specs]
        for at, each in zip("AB", made, strict=True):
            more[f"PROVIDER_{at}"] = f"gemini+http://127.0.0.1:{each.port}"
        targets = whole(**more)
        targets.providers = made
        return targets

    return begin_one


def asked(targets: Targets, name: str, **members: Any) -> tuple[RawAnswer, float]:
    """The stream that a client gets, and after how many seconds it ended."""
    began = time.monotonic()
    answer = targets.ask(path=WAYS[name].path, stream=True, **members)
    return answer, time.monotonic() - began


def straight(provider: Provider, name: str, **members: Any) -> bytes:
    """What that provider says to the same request of somebody who asks it by itself."""
    model = "m" if name == "gemini" else "one"  # there it stands in the path, and what is in the body means nothing
    members = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50, **members}
    with RawClient("127.0.0.1", provider.port) as client:
        path = WAYS[name].path.replace("/m:", "/one:")
        client.request("POST", path, json.dumps({**members, "stream": True}).encode(), JSON)
        return client.recv_response("POST").body


def numberless(body: bytes) -> bytes:
    return re.sub(rb"sim\d{8}", b"sim", body)


def words(spec: str) -> str:
    """What the simulator says, if nothing goes wrong."""
    return "".join(pieces(parse(spec)))


def first_words(count: int) -> str:
    """Of TEXT, as the simulator cuts it."""
    return "".join(f"w{number} " for number in range(count))


def said(body: bytes) -> str:
    """The text of a stream."""
    found = ""
    for line in body.splitlines():
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if event.get("type") == "response.output_text.delta":
            found += event["delta"]
        elif event.get("type") == "content_block_delta":
            found += event["delta"]["text"]
        for choice in event.get("choices", []):
            found += choice["delta"].get("content") or ""
        for candidate in event.get("candidates", []):
            found += "".join(part["text"] for part in candidate["content"]["parts"])
    return found


def is_broken_off(answer: RawAnswer, name: str) -> bool:
    """An error event is the last thing in it, it is told to have no proper end, and nothing of it says otherwise."""
    way = WAYS[name]
    at = answer.body.rfind(way.error)
    behind = answer.body[at:].rstrip(b"\r\n")
    is_last = at >= 0 and b"\n\n" not in behind and answer.body.count(way.error) == 1
    return answer.ending is Ending.CUT and b"llm-proxy: " in behind and is_last and way.last not in answer.body


def by_sdk(targets: Targets, name: str) -> str:
    """What an SDK makes of it, which raises if it is told an error."""
    texts: list[str] = []
    ASKS[name][0](targets.sidecar.url, "m", texts)
    return "".join(texts)


def sdk_raises(targets: Targets, name: str) -> str:
    """What an SDK had got before it raised."""
    texts: list[str] = []
    with pytest.raises(ASKS[name][1]):
        ASKS[name][0](targets.sidecar.url, "m", texts)
    return "".join(texts)


# -- before the first token -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        (1, "openai-chat"),
        (1, "anthropic-messages"),
        (1, "gemini"),
        pytest.param(3, "openai-chat", marks=slow),
    ],
)
def test_a_first_token_that_does_not_come(begin: Begin, limit: int, name: str) -> None:
    """The head is there at once, and comments or pings all the time; the first token would come at twice the limit."""
    ping = "" if name == "gemini" else ",ping=0.1"  # which has none
    targets = begin(name, f"stall=0,hold={2 * limit}{ping}", "", TIMEOUT_FIRST_EVENT=str(limit))
    answer, took = asked(targets, name)
    assert (answer.status, answer.ending, said(answer.body)) == (200, Ending.CLEAN, words(""))
    assert b'"one"' not in answer.body and b"ping" not in answer.body.partition(b"delta")[2]
    assert answer.body.count(WAYS[name].last) == 1
    assert limit - 0.01 <= took <= limit * 1.1 + LATE
    assert targets.counts == [1, 1]
    gap = targets.providers[1].seen()[0].at - targets.providers[0].seen()[0].at
    assert limit - 0.05 <= gap <= limit * 1.1 + LATE, "not before its time was up"
    targets.providers[0].wait_until(lambda s: [each.ending for each in s.books.entries] == [Booked.LEFT])
    expected = ["a/one first 200 timeout", "b/two fallback 200 well"]
    assert tried(targets.receipt()) == expected
    (row,) = targets.rows()
    assert tried_in(row) == expected
    assert row.attempts[0]["ended_phase"] == "first_event"
    assert row.attempts[0]["ended_ms"] >= limit * 1000 - 1 and row.attempts[1]["started_ms"] >= limit * 1000 - 1
    told = (row.exchange["provider"], row.exchange["model_served"], row.exchange["complete"])
    assert told == ("b", "two", 1)
    assert row.exchange["attempts"] == 2


@any_way
def test_an_error_in_place_of_the_first_token(begin: Begin, name: str) -> None:
    targets = begin(name, "error=0", "")
    answer, took = asked(targets, name)
    assert (answer.status, answer.ending, said(answer.body)) == (200, Ending.CLEAN, words(""))
    assert b"error" not in answer.body.replace(b'"error":null', b"") and answer.body.count(WAYS[name].last) == 1
    assert took < LATE, "at once"
    assert by_sdk(targets, name) == words("")
    assert targets.counts == [2, 2]
    expected = ["a/one first 200 error_event", "b/two fallback 200 well"]
    assert [tried(each) for each in targets.sidecar.wait_for_receipts(2)] == [expected, expected]
    row, _ = targets.rows()
    assert tried_in(row) == expected
    exchange, (first, second) = row.exchange, row.attempts
    assert (exchange["status"], exchange["complete"], exchange["provider"]) == (200, 1, "b")
    assert (first["bytes_out"], second["bytes_out"]) == (0, len(answer.body)) == (0, exchange["bytes_out"])
    assert first["output_tokens"] in (None, 0), "it said nothing"
    assert exchange["output_tokens"] == second["output_tokens"] == 8


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
START = b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":9}}}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
OUT = b'data: {"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}\n\n'
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
OPENING = {"openai-chat": [b": PROCESSING\n\n", ROLE], "anthropic-messages": [START, PING]}
REFUSED = {"openai-chat": OUT, "anthropic-messages": OVERLOADED}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@resumed_way
def test_an_error_behind_all_that_is_no_content(begin: Begin, name: str) -> None:
    events = [*OPENING[name], REFUSED[name]]
    with ScriptedUpstream([Send(CHUNKED), *(Send(chunk(event)) for event in events), Send(LAST)]) as first:
        base = "/v1" if name == "openai-chat" else ""
        url = f"{WAYS[name].family}+http://127.0.0.1:{first.port}{base}"
        targets = begin(name, "", "", PROVIDER_A=url)
        answer, _ = asked(targets, name)
        assert len(first.requests) == 1
    assert (answer.status, answer.ending, said(answer.body)) == (200, Ending.CLEAN, words(""))
    assert not any(event in answer.body for event in (OUT, OVERLOADED, ROLE, START))
    assert tried(targets.receipt()) == ["a/one first 200 error_event", "b/two fallback 200 well"]


@each_way
def test_an_error_behind_the_first_token_is_the_client_s(begin: Begin, name: str) -> None:
    """As the provider wrote it, and nobody is asked in its place."""
    targets = begin(name, f"{PACED} error=3", "")
    more = {"stream_options": {"include_usage": True}} if name == "openai-chat" else {}
    answer, _ = asked(targets, name, **more)
    assert answer.status == 200
    assert numberless(answer.body) == numberless(straight(targets.providers[0], name, **more))
    assert said(answer.body) == first_words(3)
    assert WAYS[name].error in answer.body and b"llm-proxy" not in answer.body
    assert sdk_raises(targets, name) == first_words(3)
    assert targets.counts == [3, 0]
    receipts = targets.sidecar.wait_for_receipts(2)
    assert [tried(each) for each in receipts] == [["a/one first 200 error_event"]] * 2
    told = [(each["complete"], each["ended_by"], each["ended_kind"]) for each in receipts]
    assert told == [(False, "upstream", "error_event")] * 2
    row, _ = targets.rows()
    assert (row.exchange["complete"], row.exchange["status"], row.exchange["output_tokens"] > 0) == (0, 200, True)


# -- cut in the middle ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["cut", pytest.param("cut-rst", marks=slow)])
@resumed_way
def test_a_cut_stream_ends_honestly(begin: Begin, name: str, cut: str) -> None:
    targets = begin(name, f"{PACED} {cut}=40", WHOLE)
    answer, took = asked(targets, name)
    assert is_broken_off(answer, name)
    assert said(answer.body) == first_words(40)
    assert took < LATE
    assert sdk_raises(targets, name) == first_words(40)
    assert targets.counts == [2, 0], "the client has a part of it: nobody else is asked"
    receipts = targets.sidecar.wait_for_receipts(2)
    assert [tried(each) for each in receipts] == [["a/one first 200 reset"]] * 2
    row, _ = targets.rows()
    exchange, (only,) = row.exchange, row.attempts
    assert (exchange["complete"], exchange["ended_by"], exchange["ended_kind"]) == (0, "upstream", "reset")
    assert exchange["output_tokens"] == only["output_tokens"] > 0
    assert exchange["usage_source"] == "estimated"


# How the second one says the same: in other pieces, in events that come in pieces, or with a different cut.
AGAIN = {
    "as before": WHOLE,
    "in seven deltas": f"{WHOLE} events=7",
    "in pieces": f"{WHOLE} cuts=random:7",
    "in one write": f"{WHOLE} cuts=whole",
    "after a while": f"{WHOLE} delay=0.3 pace=500",
}
REST = ("in pieces", "in one write", "after a while")


@pytest.mark.parametrize("again", ["as before", "in seven deltas", *(pytest.param(each, marks=slow) for each in REST)])
@resumed_way
def test_a_cut_stream_is_carried_on(begin: Begin, name: str, again: str) -> None:
    counts = again == "as before"
    targets = begin(name, f"{PACED} cut=40", AGAIN[again], models=ALIKE, COUNT="on" if counts else "off")
    answer, _ = asked(targets, name)
    assert (answer.status, answer.ending, said(answer.body)) == (200, Ending.CLEAN, TEXT)
    assert answer.body.count(WAYS[name].last) == 1 and WAYS[name].error not in answer.body
    assert len(set(re.findall(rb'"id":"([^"]*)"', answer.body))) == 1, "one stream, one id"
    assert answer.body.count(b"message_start") == (2 if name == "anthropic-messages" else 0)  # its name and its type
    assert by_sdk(targets, name) == TEXT
    assert targets.counts == [2, 2]
    expected = ["a/one first 200 reset", "b/one resume 200 well"]
    assert [tried(each) for each in targets.sidecar.wait_for_receipts(2)] == [expected, expected]
    row, _ = targets.rows()
    assert tried_in(row) == expected
    exchange, (first, second) = row.exchange, row.attempts
    assert (exchange["complete"], exchange["ended_kind"], exchange["bytes_out"]) == (1, "complete", len(answer.body))
    assert first["bytes_out"] + second["bytes_out"] == len(answer.body) and second["bytes_out"] > 0
    assert (first["output_source"], second["output_source"]) == ("counted" if counts else "estimated", "reported")
    assert 40 <= first["output_tokens"] <= 200 and second["output_tokens"] in (60, 7)
    for unit in ("input_tokens", "output_tokens"):
        assert first[unit] > 0 and exchange[unit] == first[unit] + second[unit], "both are paid for"


def test_a_cut_stream_is_carried_on_by_the_only_target(begin: Begin) -> None:
    name = "openai-chat"
    targets = begin(name, PACED, models="m (resume) = a/one")
    targets.providers[0].simulator.order("cut=40")
    answer, took = asked(targets, name)
    assert (answer.ending, said(answer.body)) == (Ending.CLEAN, TEXT)
    assert took < LATE
    assert tried(targets.receipt()) == ["a/one first 200 reset", "a/one resume 200 well"]


@resumed_way
def test_a_stream_that_is_cut_again_and_again(begin: Begin, name: str) -> None:
    """Twice it is carried on, as often as it may be tried again."""
    targets = begin(name, PACED, models="m (resume) = a/one")
    orders = targets.providers[0].simulator.order
    orders("cut=10", "cut=50")
    answer, _ = asked(targets, name)
    assert (answer.ending, said(answer.body)) == (Ending.CLEAN, TEXT)
    orders("cut=10", "cut=5", "events=7")  # the second one is cut before it says anything new
    assert by_sdk(targets, name) == TEXT
    orders("cut=10", "cut=50", "cut=55")
    answer, _ = asked(targets, name)
    assert is_broken_off(answer, name)
    assert said(answer.body) == first_words(55)
    assert targets.counts == [9]
    made = [tried(each) for each in targets.sidecar.wait_for_receipts(3)]
    again = ["a/one first 200 reset", "a/one resume 200 reset"]
    assert made == [[*again, f"a/one resume 200 {how}"] for how in ("well", "well", "reset")]
    *_, row = targets.rows()
    assert (row.exchange["complete"], row.exchange["ended_kind"]) == (0, "reset")
    assert row.exchange["output_tokens"] == sum(each["output_tokens"] for each in row.attempts)


OTHERWISE = {
    "from the beginning": 'text="It is quite another answer. " cuts=whole',
    "from the twentieth word": f'text="{first_words(20)}{first_words(60)[-200:]}"',
    "by one letter": f'text="{TEXT.replace("w39 ", "w3g ")}" cuts=whole',
    "by being shorter": f'text="{first_words(30)}"',
}


@pytest.mark.parametrize("how", OTHERWISE)
@resumed_way
def test_what_is_not_the_same_answer_is_not_joined(begin: Begin, name: str, how: str) -> None:
    targets = begin(name, f"{PACED} cut=40", OTHERWISE[how], models=ALIKE)
    answer, took = asked(targets, name)
    assert is_broken_off(answer, name)
    assert said(answer.body) == first_words(40), "not a letter of another answer, and none twice"
    assert took < LATE
    assert sdk_raises(targets, name) == first_words(40)
    assert targets.counts == [2, 2]
    expected = ["a/one first 200 reset", "b/one resume 200 differs"]
    assert [tried(each) for each in targets.sidecar.wait_for_receipts(2)] == [expected, expected]
    row, _ = targets.rows()
    assert tried_in(row) == expected
    exchange, (first, second) = row.exchange, row.attempts
    assert (exchange["complete"], exchange["ended_by"], exchange["ended_kind"]) == (0, "upstream", "reset")
    assert (first["bytes_out"] > 0, second["bytes_out"]) == (True, 0)
    assert exchange["output_tokens"] == first["output_tokens"] + (second["output_tokens"] or 0)


def test_what_was_the_same_so_far_may_go_on_otherwise(begin: Begin) -> None:
    """Nobody can know how the first one would have gone on."""
    name = "openai-chat"
    other = f"{first_words(40)}and so it ends"
    targets = begin(name, f"{PACED} cut=40", f'text="{other}"', models=ALIKE)
    answer, _ = asked(targets, name)
    assert (answer.ending, said(answer.body)) == (Ending.CLEAN, other)
    assert tried(targets.receipt()) == ["a/one first 200 reset", "b/one resume 200 well"]


FURTHER = ("status=204", "status=401", "gzip", "reset", "garbage", "no-end")


@pytest.mark.parametrize(
    "spec", ["error=0 cuts=whole", "echo", "status=503", *(pytest.param(each, marks=slow) for each in FURTHER)]
)
def test_what_cannot_carry_on_leaves_the_honest_end(begin: Begin, spec: str) -> None:
    name = "openai-chat"
    targets = begin(name, f"{PACED} cut=40", spec, models=ALIKE.replace("resume", "resume retries=1"))
    answer, took = asked(targets, name)
    assert is_broken_off(answer, name)
    assert said(answer.body) == first_words(40)
    assert took < LATE
    assert targets.providers[0].seen() and len(targets.receipt()["attempts"]) == 2
    assert (targets.receipt()["ended_kind"], targets.receipt()["complete"]) == ("reset", False)


def test_what_broke_first_is_what_the_client_is_told(begin: Begin) -> None:
    """And not why nobody could carry it on, however often that was tried."""
    name = "openai-chat"
    targets = begin(name, f"{PACED} stall=40", "status=500", models=ALIKE, TIMEOUT_STREAM="0.5")
    answer, _ = asked(targets, name)
    assert is_broken_off(answer, name)
    assert b"paused" in answer.body
    receipt = targets.receipt()
    assert tried(receipt) == ["a/one first 200 timeout", *["b/one resume 500 error_status"] * 2]
    assert (receipt["ended_phase"], receipt["ended_kind"], receipt["provider"]) == ("stream", "timeout", "a")


# -- silent in the middle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai-chat", pytest.param("anthropic-messages", marks=slow)])
def test_a_stall_ends_honestly(begin: Begin, name: str) -> None:
    targets = begin(name, f"{PACED} stall=40 ping=0.1", WHOLE, TIMEOUT_STREAM="1")
    answer, took = asked(targets, name)
    assert is_broken_off(answer, name)
    assert said(answer.body) == first_words(40)
    assert 0.99 <= took <= 1 + LATE
    assert sdk_raises(targets, name) == first_words(40)
    assert targets.counts == [2, 0]
    targets.providers[0].wait_until_left()
    (row, _) = targets.rows()
    assert tried_in(row) == ["a/one first 200 timeout"]
    told = (row.exchange["complete"], row.exchange["ended_phase"], row.exchange["ended_kind"])
    assert told == (0, "stream", "timeout")


@resumed_way
def test_a_stall_is_carried_on(begin: Begin, name: str) -> None:
    targets = begin(name, f"{PACED} stall=40 ping=0.1", WHOLE, models=ALIKE, TIMEOUT_STREAM="1")
    answer, took = asked(targets, name)
    assert (answer.ending, said(answer.body)) == (Ending.CLEAN, TEXT)
    assert answer.body.count(WAYS[name].last) == 1
    assert 0.99 <= took <= 1 + LATE
    targets.providers[0].wait_until_left()
    first, second = targets.providers[0].seen()[0].at, targets.providers[1].seen()[0].at
    assert 0.95 <= second - first <= 1 + LATE
    (row,) = targets.rows()
    assert tried_in(row) == ["a/one first 200 timeout", "b/one resume 200 well"]
    assert row.exchange["output_tokens"] == sum(each["output_tokens"] for each in row.attempts)
    assert row.exchange["complete"] == 1


# -- events that are wrong, or missing --------------------------------------------------------------------------------


@each_way
def test_a_malformed_event_passes_as_it_is(begin: Begin, name: str) -> None:
    targets = begin(name, f"{PACED} malformed=20", "")
    more = {"stream_options": {"include_usage": True}} if name == "openai-chat" else {}
    answer, _ = asked(targets, name, **more)
    assert numberless(answer.body) == numberless(straight(targets.providers[0], name, **more))
    assert (answer.status, answer.ending) == (200, Ending.CLEAN)
    targets.becomes(0, WHOLE)
    after, _ = asked(targets, name)
    assert (after.ending, said(after.body)) == (Ending.CLEAN, TEXT), "the process serves the next"
    assert [tried(each) for each in targets.sidecar.wait_for_receipts(2)] == [WELL, WELL]
    assert targets.counts == [3, 0]
    assert targets.sidecar.process.poll() is None


@each_way
def test_a_missing_end_is_told_at_once(begin: Begin, name: str) -> None:
    """Not when some time is up: the message has ended."""
    targets = begin(name, f"{PACED} no-end", "")
    answer, took = asked(targets, name)
    assert is_broken_off(answer, name)
    assert said(answer.body) == TEXT
    assert took < LATE
    assert sdk_raises(targets, name) == TEXT
    assert targets.counts == [2, 0]
    (row, _) = targets.rows()
    assert tried_in(row) == ["a/one first 200 missing_end"]
    told = (row.exchange["complete"], row.exchange["ended_by"], row.exchange["ended_kind"])
    assert told == (0, "upstream", "missing_end")


@each_way
def test_an_end_before_any_content_is_tried_elsewhere(begin: Begin, name: str) -> None:
    targets = begin(name, "events=0 no-end", "")
    answer, took = asked(targets, name)
    assert (answer.status, answer.ending, said(answer.body)) == (200, Ending.CLEAN, words(""))
    assert took < LATE
    assert by_sdk(targets, name) == words("")
    assert targets.counts == [2, 2]
    (row, _) = targets.rows()
    assert tried_in(row) == ["a/one first 200 missing_end", "b/two fallback 200 well"]


# -- how long the head waits ------------------------------------------------------------------------------------------


def head_after(client: RawClient, name: str) -> float:
    """Ask for a stream; seconds until its head is there."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50, "stream": True}
    began = time.monotonic()
    client.request("POST", WAYS[name].path, json.dumps(body).encode(), JSON, host="localhost")
    client.buffer = client.recv_until(b"\r\n\r\n") + client.buffer
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("name", "hold", "by_alias"),
    [
        ("openai-chat", "0", False),
        ("openai-chat", "1", False),
        ("openai-chat", "0.5", True),
        pytest.param("openai-chat", "0", True, marks=slow),
        pytest.param("anthropic-messages", "0", False, marks=slow),
        ("anthropic-messages", "1", False),
    ],
)
def test_how_long_a_head_is_held(begin: Begin, name: str, hold: str, by_alias: bool) -> None:
    """What is no content comes all the time and releases nothing. Once the head is out the answer is this one's."""
    go = threading.Event()
    content = said_by(name)
    script: list[Step] = [Send(CHUNKED + b"".join(map(chunk, OPENING[name]))), Wait(go)]
    with ScriptedUpstream([*script, Send(chunk(content) + LAST), WaitEnd()]) as first:
        base = "/v1" if name == "openai-chat" else ""
        url = f"{WAYS[name].family}+http://127.0.0.1:{first.port}{base}"
        how = {"models": f"m (hold={hold}) = a/one | b/two"} if by_alias else {"TIMEOUT_HOLD": hold}
        targets = begin(name, "", "", PROVIDER_A=url, **how)
        with RawClient("127.0.0.1", targets.sidecar.port) as client:
            took = head_after(client, name)
            assert float(hold) - 0.01 <= took <= float(hold) + LATE
            client.buffer = client.recv_until(OPENING[name][-1]) + client.buffer
            go.set()
            answer = client.recv_response("POST")
        assert (answer.ending, answer.body) == (Ending.CLEAN, b"".join(OPENING[name]) + content)
    assert tried(targets.sidecar.wait_for_receipts(1)[0]) == WELL


def said_by(name: str) -> bytes:
    """The rest of a short stream."""
    if name == "openai-chat":
        delta = b'{"choices":[{"index":0,"delta":%b,"finish_reason":%b}]}'
        events = [delta % (b'{"content":"hello"}', b"null"), delta % (b"{}", b'"stop"'), b"[DONE]"]
        return b"".join(b"data: %b\n\n" % event for event in events)
    events = [
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}',
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}',
        b'{"type":"message_stop"}',
    ]
    return b"".join(b"event: %b\ndata: %b\n\n" % (json.loads(event)["type"].encode(), event) for event in events)


def test_a_head_is_held_with_64_kib_at_most(begin: Begin) -> None:
    told, go = threading.Event(), threading.Event()
    comment = b": %b\n\n" % (b"x" * 40_000)
    script: list[Step] = [Send(CHUNKED + chunk(comment)), Tell(told), Wait(go), Send(chunk(comment)), WaitEnd()]
    with ScriptedUpstream(script) as first:
        targets = begin("openai-chat", "", "", PROVIDER_A=f"openai+http://127.0.0.1:{first.port}/v1")
        with RawClient("127.0.0.1", targets.sidecar.port) as client:
            body = {"model": "m", "messages": [], "stream": True}
            client.request("POST", targets.path, json.dumps(body).encode(), JSON, host="localhost")
            assert told.wait(10)
            assert quick(targets).status == 200
            client.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv()
            client.socket.settimeout(10)
            began = time.monotonic()
            go.set()
            assert client.recv_until(comment).startswith(b"HTTP/1.1 200 OK\r\n")
            assert time.monotonic() - began < LATE
        first.wait_until_closed()


@pytest.mark.parametrize("name", ["openai-chat", pytest.param("anthropic-messages", marks=slow)])
def test_a_head_that_is_out_stays_with_its_target(begin: Begin, name: str) -> None:
    """Half a second later the stream has failed; nobody can answer in its place any more."""
    targets = begin(name, "stall=0,ping=0.1", "", TIMEOUT_HOLD="0.5", TIMEOUT_FIRST_EVENT="1")
    answer, took = asked(targets, name)
    assert is_broken_off(answer, name)
    assert said(answer.body) == ""
    assert 0.99 <= took <= 1 + LATE
    assert targets.counts == [1, 0]
    assert tried(targets.receipt()) == ["a/one first 200 timeout"]


def test_without_a_hold_a_stream_has_begun_with_its_head(begin: Begin) -> None:
    name = "openai-chat"
    targets = begin(name, "error=0", "", TIMEOUT_HOLD="0")
    answer, _ = asked(targets, name)
    assert answer.body == straight(targets.providers[0], name)
    assert targets.counts == [2, 0]
    assert tried(targets.receipt()) == ["a/one first 200 error_event"]


def test_nothing_is_held_where_nothing_can_follow(begin: Begin) -> None:
    """The last attempt, and the only one."""
    name = "openai-chat"
    models = "m (retries=0) = a/one | b/two"
    targets = begin(name, "stall=0", "", models=models)
    with RawClient("127.0.0.1", targets.sidecar.port) as client:
        assert head_after(client, name) < LATE
    targets.providers[0].wait_until_left()
    receipt = targets.sidecar.wait_for_receipts(1)[0]
    assert (receipt["status"], receipt["ended_kind"]) == (200, "client_left")


# -- clients that leave -----------------------------------------------------------------------------------------------


def quick(targets: Targets, model: str = "b/quick") -> RawAnswer:
    """Another request goes to another provider and back: what came before it has been read since."""
    return targets.ask(model=model)


@pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset, RawClient.half_close])
def test_a_client_leaves_while_its_stream_is_held(begin: Begin, leave: Callable[[RawClient], None]) -> None:
    told = threading.Event()
    with ScriptedUpstream([Send(CHUNKED + chunk(ROLE)), Tell(told), WaitEnd()]) as first:
        targets = begin("openai-chat", "", "", PROVIDER_A=f"openai+http://127.0.0.1:{first.port}/v1")
        with RawClient("127.0.0.1", targets.sidecar.port) as client:
            body = {"model": "m", "messages": [], "stream": True}
            client.request("POST", targets.path, json.dumps(body).encode(), JSON, host="localhost")
            assert told.wait(10)
            assert quick(targets).status == 200
            leave(client)
            first.wait_until_closed()
        _, receipt = targets.sidecar.wait_for_receipts(2)
    assert tried(receipt) == ["a/one first 200 client_left"]
    told_of = (receipt["ended_by"], receipt["ended_phase"], receipt["ended_kind"], receipt["status"])
    assert told_of == ("client", "first_event", "client_left", 0)
    assert (receipt["bytes_out"], targets.counts) == (0, [0, 1])


def test_a_client_leaves_while_it_waits_for_a_retry(begin: Begin) -> None:
    targets = begin("openai-chat", "status=503 retry-after-ms=700", "", models="m = a/one")
    first, second = targets.providers
    with RawClient("127.0.0.1", targets.sidecar.port) as client:
        body = {"model": "m", "messages": [], "stream": True}
        client.request("POST", targets.path, json.dumps(body).encode(), JSON, host="localhost")
        first.wait_until(lambda simulator: simulator.answered == 1)
        assert quick(targets).status == 200
        client.close()
    receipt = targets.sidecar.wait_for_receipts(2)[-1]
    assert tried(receipt) == ["a/one first 503 error_status"]
    told = (receipt["ended_by"], receipt["ended_phase"], receipt["ended_kind"], receipt["status"])
    assert told == ("client", "queue", "client_left", 0)
    second.simulator.order("delay=1.2")  # until the time of the retry is over
    assert quick(targets).status == 200
    assert (len(first.seen()), len(second.seen())) == (1, 2)
    assert receipt["total_ms"] < 700


# -- what is too large to be kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_beyond_the_bound_gets_one_attempt(begin: Begin, stream: bool) -> None:
    targets = begin("openai-chat", "status=503", "", MAX_REPLAY="1000")
    small = {"model": "m", "messages": [], "stream": stream, "user": ""}
    body = json.dumps(small | {"user": "x" * (1000 - len(json.dumps(small)))}).encode()
    with RawClient("127.0.0.1", targets.sidecar.port) as client:
        for status, each in ((200, body), (503, body + b" ")):
            client.request("POST", targets.path, each, JSON, host="localhost")
            answer = client.recv_response("POST")
            assert (answer.status, answer.ending) == (status, Ending.CLEAN)
    assert b"simulated" in answer.body and b"llm-proxy" not in answer.body, "the provider's own error"
    assert targets.counts == [2, 1]
    assert [tried(each) for each in targets.sidecar.wait_for_receipts(2)] == [
        ["a/one first 503 error_status", "b/two fallback 200 well"],
        ["a/one first 503 error_status"],
    ]
