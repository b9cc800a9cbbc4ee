"""A second attempt beside a slow first one: when it comes, which of the two the client gets, and what becomes of the
other one.

How it works: the first target takes a tenth of a second for everything until it is known, and after that as long as the
test orders. So the second attempt is due after a tenth of a second, on a busy machine too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator.books import Ending as Booked
from tests.fakes.raw import Ending, RawAnswer, RawClient
from tests.whole.links import Link, Reply, each
from tests.whole.processes import Provider, Sidecar
from tests.whole.targets import JSON, Begin, Targets, tried, tried_in

USUAL = 0.1  # seconds
ENOUGH = 25  # requests after which a 95th percentile is known
LATE = 0.5  # seconds on a busy machine
HEDGED = "m (hedge) = a/one | b/two"
A_TEXT = " ".join(["alpha"] * 30)
B_TEXT = " ".join(["beta"] * 30)
A = f'delay={USUAL} text="{A_TEXT}"'
B = f'text="{B_TEXT}"'
SHARE = 0.05

streamed = pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
mostly_streamed = pytest.mark.parametrize(
    "stream", [pytest.param(True, id="stream"), pytest.param(False, id="document", marks=pytest.mark.slow)]
)


@pytest.fixture
def begin(start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path) -> Begin:
    return partial(Targets, start, provide, tmp_path / "ledger.db", models=HEDGED, COUNT="off")


def request(stream: bool, **more: Any) -> bytes:
    message = [{"role": "user", "content": "hello"}]
    return json.dumps({"model": "m", "messages": message, "max_tokens": 50, "stream": stream, **more}).encode()


def text_of(answer: RawAnswer | Reply) -> str:
    """The text of an answer to a chat, streamed or not, that has ended well."""
    whole = answer.ending is Ending.CLEAN if isinstance(answer, RawAnswer) else answer.is_whole
    assert (answer.status, whole) == (200, True), answer
    if not answer.body.startswith(b"data: "):
        return str(json.loads(answer.body)["choices"][0]["message"]["content"])
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert answer.body.count(b'"role"') == answer.body.count(b'"finish_reason":"stop"') == 1
    events = [json.loads(line[6:]) for line in answer.body.splitlines() if line.startswith(b"data: {")]
    assert len({event["id"] for event in events}) == 1, "all of one stream"
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


def all_at_once(port: int, count: int, asked: bytes) -> list[Reply]:
    async def main() -> list[Reply]:
        links = [Link(port) for _ in range(count)]
        await asyncio.gather(*(link.open() for link in links))
        found = await asyncio.gather(*(link.ask("POST", "/v1/chat/completions", asked, JSON) for link in links))
        await asyncio.gather(*(link.close() for link in links))
        return found

    return asyncio.run(main())


def get_known(targets: Targets, count: int = ENOUGH, stream: bool = True) -> float:
    """Make so many usual requests, all at once: none of them knows of the others. The 95th percentile of their times to
    the first event, by their receipts."""
    replies = all_at_once(targets.sidecar.port, count, request(stream))
    assert {text_of(reply) for reply in replies} == {A_TEXT}
    receipts = targets.sidecar.wait_for_receipts(count)
    assert {tuple(tried(receipt)) for receipt in receipts} == {("a/one first 200 well",)}
    times = sorted(time_of(receipt, stream) for receipt in receipts)
    forget(targets)
    return times[ceil(0.95 * len(times)) - 1] / 1000


def save_up(targets: Targets, count: int) -> None:
    """Make requests that would let others be sent twice, and never are themselves: they are too large to be kept."""

    async def one(link: Link, _: int) -> None:
        reply = await link.ask("POST", targets.path, request(False, model="saving", user="x" * 1000), JSON)
        assert reply.status == 200

    asyncio.run(each(range(count), targets.sidecar.port, one, links=8))
    forget(targets)


def forget(targets: Targets) -> None:
    """Receipts and requests are counted from here."""
    targets.sidecar.mark()
    for provider in targets.providers:
        provider.mark()


def time_of(receipt: dict[str, Any], stream: bool) -> float:
    (only,) = receipt["attempts"]
    until = only["first_event_ms"] if stream else only["ended_ms"]
    return float(until) - float(only["started_ms"])


def order(targets: Targets, number: int, *specs: str) -> None:
    targets.providers[number].simulator.order(*specs)


# -- one that is slow -------------------------------------------------------------------------------------------------


@streamed
def test_a_slow_one_gets_company_after_about_the_95th_percentile(begin: Begin, stream: bool) -> None:
    targets = begin(A, B)
    p95 = get_known(targets, stream=stream)
    a, b = targets.providers
    left = len(a.simulator.books.entries)
    order(targets, 0, "delay=8")
    began = time.monotonic()
    answer = targets.ask(stream=stream)
    took = time.monotonic() - began
    assert text_of(answer) == B_TEXT
    assert p95 - 0.01 <= took <= p95 + LATE
    assert targets.counts == [1, 1]
    gap = b.seen()[0].at - a.seen()[0].at
    assert p95 - 0.02 <= gap <= p95 + LATE
    a.wait_until(lambda simulator: len(simulator.books.entries) > left)
    assert a.simulator.books.entries[-1].ending is Booked.LEFT, "its link is closed, not read on"
    (receipt,) = targets.sidecar.wait_for_receipts(1)
    expected = ["a/one first 0 outrun", "b/two hedge 200 well"]
    assert tried(receipt) == expected
    row = targets.rows()[-1]
    assert tried_in(row) == expected
    exchange, (first, second) = row.exchange, row.attempts
    assert (exchange["provider"], exchange["model_served"], exchange["complete"]) == ("b", "two", 1)
    assert (first["started_ms"], exchange["attempts"]) == (pytest.approx(0, abs=50), 2)
    assert p95 * 1000 - 10 <= second["started_ms"] - first["started_ms"] <= (p95 + LATE) * 1000
    assert first["ended_by"] == "proxy" and first["bytes_out"] == 0 and second["bytes_out"] == len(answer.body)
    assert first["input_tokens"] > 0, "what it may have cost is on its own row"
    assert exchange["input_tokens"] == first["input_tokens"] + second["input_tokens"]
    assert exchange["output_tokens"] == (first["output_tokens"] or 0) + second["output_tokens"]


@mostly_streamed
def test_the_first_one_may_win_all_the_same(begin: Begin, stream: bool) -> None:
    targets = begin(A, f"delay=8 {B}")
    get_known(targets, stream=stream)
    b = targets.providers[1]
    order(targets, 0, "delay=0.4")
    answer = targets.ask(stream=stream)
    assert text_of(answer) == A_TEXT
    b.wait_until(lambda simulator: bool(simulator.books.entries))
    assert [entry.ending for entry in b.simulator.books.entries] == [Booked.LEFT]
    (receipt,) = targets.sidecar.wait_for_receipts(1)
    assert tried(receipt) == ["b/two hedge 0 outrun", "a/one first 200 well"]
    assert (receipt["provider"], receipt["model_served"], receipt["complete"]) == ("a", "one", True)
    assert targets.counts == [1, 1]
    row = targets.rows()[-1]
    assert tried_in(row) == ["b/two hedge 0 outrun", "a/one first 200 well"]
    assert row.exchange["bytes_out"] == len(answer.body)


def test_the_only_target_is_asked_twice(begin: Begin) -> None:
    targets = begin(A, models="m (hedge) = a/one")
    get_known(targets)
    order(targets, 0, "delay=8")
    assert text_of(targets.ask(stream=True)) == A_TEXT
    (receipt,) = targets.sidecar.wait_for_receipts(1)
    assert tried(receipt) == ["a/one first 0 outrun", "a/one hedge 200 well"]
    assert targets.counts == [2]


def test_a_head_and_a_role_are_no_answer_yet(begin: Begin) -> None:
    targets = begin(A, B)
    get_known(targets)
    order(targets, 0, "plain stall=0 hold=8 ping=0.02")
    assert text_of(targets.ask(stream=True)) == B_TEXT
    (receipt,) = targets.sidecar.wait_for_receipts(1)
    assert tried(receipt) == ["a/one first 200 outrun", "b/two hedge 200 well"]
    targets.providers[0].wait_until(lambda simulator: simulator.books.entries[-1].ending is Booked.LEFT)


def test_once_the_head_is_out_nobody_else_is_asked(begin: Begin) -> None:
    targets = begin(A, B, models="m (hedge hold=0) = a/one | b/two")
    get_known(targets)
    order(targets, 0, "plain cut=0", "plain stall=0 hold=0.5")
    for _ in range(2):
        answer = targets.ask(stream=True)
        assert (answer.status, answer.ending) == (200, Ending.CUT)
    receipts = targets.sidecar.wait_for_receipts(2)
    assert [tried(receipt) for receipt in receipts] == [["a/one first 200 reset"]] * 2
    assert targets.counts == [2, 0]


# -- where there is none ----------------------------------------------------------------------------------------------


def test_as_long_as_little_is_known_nobody_is_sent(begin: Begin) -> None:
    targets = begin(A, B)
    get_known(targets, 19)
    order(targets, 0, "delay=0.5")
    assert text_of(targets.ask(stream=True)) == A_TEXT
    order(targets, 0, "delay=8")
    assert text_of(targets.ask(stream=True)) == B_TEXT, "now it is"
    receipts = targets.sidecar.wait_for_receipts(2)
    assert [len(receipt["attempts"]) for receipt in receipts] == [1, 2]


def test_nobody_is_sent_for_an_alias_that_does_not_ask_for_it(begin: Begin) -> None:
    targets = begin(A, B, models="m = a/one | b/two")
    get_known(targets)
    order(targets, 0, "delay=0.5")
    assert text_of(targets.ask(stream=True)) == A_TEXT
    assert targets.counts == [1, 0]


def test_nobody_is_sent_for_what_is_too_large_to_be_kept(begin: Begin) -> None:
    targets = begin(A, B, MAX_REPLAY="1000")
    get_known(targets)
    order(targets, 0, "delay=0.5", "delay=0.5")
    assert text_of(targets.ask(stream=True, user="x" * 1000)) == A_TEXT
    assert text_of(targets.ask(stream=True)) == B_TEXT
    assert targets.counts == [2, 1]


def test_two_attempts_are_one_request(begin: Begin) -> None:
    """For limits on requests, and on how many may run at once."""
    targets = begin(A, B, LIMITS=f"all: rpd=1/{ENOUGH + 2} concurrent={ENOUGH}")
    get_known(targets)
    order(targets, 0, "delay=8", "delay=8")
    assert [text_of(targets.ask(stream=True)) for _ in range(2)] == [B_TEXT] * 2
    refused = targets.ask(stream=True)
    assert (refused.status, refused.get(b"x-llm-proxy-error")) == (429, b"too_many_requests")
    assert targets.counts == [2, 2]


# -- one of them fails ------------------------------------------------------------------------------------------------


@mostly_streamed
def test_the_one_that_is_left_goes_on(begin: Begin, stream: bool) -> None:
    """First the first fails, then the second, while the other one still works on it."""
    targets = begin(A, B, RETRIES="0")
    get_known(targets, stream=stream)
    order(targets, 0, "delay=0.3 status=503")
    order(targets, 1, "delay=0.5")
    assert text_of(targets.ask(stream=stream)) == B_TEXT
    order(targets, 0, "delay=0.5")
    order(targets, 1, "status=503")
    assert text_of(targets.ask(stream=stream)) == A_TEXT
    receipts = targets.sidecar.wait_for_receipts(2)
    assert [tried(receipt) for receipt in receipts] == [
        ["a/one first 503 error_status", "b/two hedge 200 well"],
        ["b/two hedge 503 error_status", "a/one first 200 well"],
    ]
    assert targets.counts == [2, 2]


def test_when_both_fail_a_third_one_is_asked(begin: Begin) -> None:
    targets = begin(A, "delay=0.5 status=500", f'text="{B_TEXT}"', models="m (hedge) = a/one | b/two | c/three")
    get_known(targets)
    order(targets, 0, "delay=0.3 status=503")
    assert text_of(targets.ask(stream=True)) == B_TEXT
    (receipt,) = targets.sidecar.wait_for_receipts(1)
    expected = ["a/one first 503 error_status", "b/two hedge 500 error_status", "c/three fallback 200 well"]
    assert tried(receipt) == expected


def test_when_both_fail_the_last_error_is_the_client_s(begin: Begin) -> None:
    targets = begin(A, "delay=0.5 status=500", RETRIES="0")
    get_known(targets)
    order(targets, 0, "delay=0.3 status=503")
    answer = targets.ask(stream=True)
    assert (answer.status, answer.ending) == (500, Ending.CLEAN)
    (receipt,) = targets.sidecar.wait_for_receipts(1)
    assert tried(receipt) == ["a/one first 503 error_status", "b/two hedge 500 error_status"]
    assert (receipt["ended_kind"], receipt["status"]) == ("error_status", 500)


def test_two_that_are_silent_are_told_when_the_time_of_the_second_is_up(begin: Begin) -> None:
    targets = begin(A, "delay=8", models="m (hedge first_byte=0.5 retries=0) = a/one | b/two")
    p95 = get_known(targets)
    order(targets, 0, "delay=8")
    began = time.monotonic()
    answer = targets.ask(stream=True)
    took = time.monotonic() - began
    assert (answer.status, answer.ending) == (504, Ending.CLEAN)
    assert p95 + 0.5 - 0.01 <= took <= p95 + 0.5 + LATE
    (receipt,) = targets.sidecar.wait_for_receipts(1)
    assert tried(receipt) == ["a/one first 0 timeout", "b/two hedge 0 timeout"]
    assert all(500 <= each["ended_ms"] - each["started_ms"] <= 500 + LATE * 1000 for each in receipt["attempts"])


def test_the_second_one_s_time_is_no_concern_of_an_answer_that_is_out(begin: Begin) -> None:
    """The head of the first goes out, its silence being over, in the same moment in which the time of the second is."""
    targets = begin(A, "delay=8", models="m (hedge hold=0.5 first_byte=0.4) = a/one | b/two")
    get_known(targets)
    order(targets, 0, "plain stall=0 hold=1")
    answer = targets.ask(stream=True)
    assert (answer.status, answer.ending) == (200, Ending.CUT)
    (receipt,) = targets.sidecar.wait_for_receipts(1)
    assert sorted(tried(receipt)) == ["a/one first 200 reset", "b/two hedge 0 outrun"]
    assert receipt["total_ms"] >= 1000


# -- a client that leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset])
@mostly_streamed
def test_a_client_leaves_while_two_work_for_it(begin: Begin, leave: Callable[[RawClient], None], stream: bool) -> None:
    targets = begin(A, f"delay=8 {B}")
    get_known(targets, stream=stream)
    a, b = targets.providers
    before = len(a.simulator.books.entries)
    order(targets, 0, "delay=8")
    with RawClient("127.0.0.1", targets.sidecar.port) as client:
        client.request("POST", targets.path, request(stream), JSON, host="localhost")
        b.wait_until(lambda simulator: bool(simulator.requests) and simulator.requests[-1].complete)
        leave(client)
        (receipt,) = targets.sidecar.wait_for_receipts(1)
    a.wait_until(lambda simulator: len(simulator.books.entries) > before)
    b.wait_until(lambda simulator: bool(simulator.books.entries))
    assert [each.simulator.books.entries[-1].ending for each in (a, b)] == [Booked.LEFT] * 2
    b.wait_until_left()
    assert sorted(tried(receipt)) == ["a/one first 0 client_left", "b/two hedge 0 client_left"]
    told = (receipt["ended_by"], receipt["ended_phase"], receipt["ended_kind"], receipt["status"], receipt["complete"])
    assert told == ("client", "first_byte", "client_left", 0, False)
    assert receipt["total_ms"] < 5000
    assert targets.counts == [1, 1]


# -- many -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_not_more_than_a_share_of_requests_is_sent_twice(begin: Begin) -> None:
    """200 at once to a target that has become slow. One may always be sent, and one for each twentieth request."""
    targets = begin(A, B)
    get_known(targets)
    targets.becomes(0, f"{A} delay=1")
    began = time.monotonic()
    replies = all_at_once(targets.sidecar.port, 200, request(True))
    took = time.monotonic() - began
    texts = Counter(text_of(reply) for reply in replies)
    assert set(texts) == {A_TEXT, B_TEXT}
    receipts = targets.sidecar.wait_for_receipts(200)
    twice = [receipt for receipt in receipts if len(receipt["attempts"]) > 1]
    assert all(tried(receipt) == ["a/one first 0 outrun", "b/two hedge 200 well"] for receipt in twice)
    most = 1 + SHARE * (ENOUGH + 200) + took / 10
    assert most - 4 <= len(twice) <= most
    assert texts[B_TEXT] == len(twice)
    assert targets.counts == [200, len(twice)]
    rows = targets.rows()[ENOUGH:]
    assert sum(each.exchange["attempts"] for each in rows) == 200 + len(twice)
    assert Counter(why for each in rows for why in (row["why"] for row in each.attempts)) == {
        "first": 200,
        "hedge": len(twice),
    }


@pytest.mark.slow
@streamed
def test_two_that_answer_in_the_same_moment_are_never_mixed(begin: Begin, stream: bool) -> None:
    models = f"{HEDGED}; saving (hedge) = c/saving"
    targets = begin(A, f"delay={USUAL} pace=2000 {B}", "", models=models, MAX_REPLAY="1000")
    get_known(targets, stream=stream)
    save_up(targets, 400)
    targets.becomes(0, f'delay={2 * USUAL} pace=2000 text="{A_TEXT}"')
    texts: Counter[str] = Counter()
    replies = all_at_once(targets.sidecar.port, 20, request(stream))
    texts.update(map(text_of, replies))
    assert set(texts) <= {A_TEXT, B_TEXT}
    receipts = targets.sidecar.wait_for_receipts(20)
    twice = [receipt for receipt in receipts if len(receipt["attempts"]) == 2]
    assert len(twice) >= 15
    for receipt in twice:
        loser, winner = receipt["attempts"]
        assert (loser["failure"]["kind"], winner["failure"]) == ("outrun", None)
        assert receipt["provider"] == winner["provider"] != loser["provider"]
    served = Counter(receipt["provider"] for receipt in receipts)
    assert (served["a"], served["b"]) == (texts[A_TEXT], texts[B_TEXT])
    for provider in targets.providers:
        provider.wait_until(lambda simulator: all(request.complete for request in simulator.requests))
