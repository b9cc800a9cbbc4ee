"""Providers that fail before their answer has begun, in each way that they do: what the client gets, how often each
target was asked and when, and what the receipt and the ledger say.

How it works: each provider is a simulator of its own that notes when it was asked. Waits are those that providers and
the sidecar take; where one has an upper limit, a machine that is busy at that moment gets three tries.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from proxy.simulator.replay import Replay
from proxy.simulator.speech import TEXT
from tests.fakes.raw import Ending, RawAnswer, RawClient
from tests.whole.processes import Provider, Sidecar
from tests.whole.targets import TWO, Begin, Row, Targets, tried, tried_in
from tests.whole.test_admin import ask

ONE = "m = a/one"
SLACK = 0.3  # seconds beyond a limit that the sweeper keeps to a quarter of a second
BUSY = 1.2  # the same where there is one try only, on a machine that is busy at that moment


@pytest.fixture
def begin(start: Callable[..., Sidecar], provide: Callable[..., Provider], tmp_path: Path) -> Begin:
    return partial(Targets, start, provide, tmp_path / "ledger.db")


def text_of(answer: RawAnswer) -> str:
    """The text of an answer to a chat, streamed or not; the answer has ended well."""
    assert (answer.status, answer.ending) == (200, Ending.CLEAN), answer
    if answer.get(b"content-type") == b"application/json":
        text: str = json.loads(answer.body)["choices"][0]["message"]["content"]
        return text
    assert answer.body.endswith(b"data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in answer.body.splitlines() if line.startswith(b"data: {")]
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in events if each["choices"])


def request_id(answer: RawAnswer) -> bytes | None:
    """Which request of its provider it is the answer to."""
    return answer.get(b"x-request-id")


def direct(provider: Provider, path: str = "/v1/chat/completions") -> RawAnswer:
    """What the provider itself says."""
    with RawClient("127.0.0.1", provider.port) as client:
        client.request("POST", path, b'{"model":"one","messages":[]}', ("content-type", "application/json"))
        return client.recv_response("POST")


def warnings(targets: Targets) -> list[str]:
    return [line["message"] for line in targets.sidecar.lines if line.get("level") == "warn"]


def only(rows: list[Row]) -> Row:
    [row] = rows
    return row


def replay(folder: Path, **bodies: bytes) -> Replay:
    """Answers that providers have been seen to give, by name: streams with 200, and errors with 400."""
    folder.mkdir()
    entries = []
    for name, body in bodies.items():
        is_stream = b"event:" in body
        file = folder / f"{name}.{'sse' if is_stream else 'json'}"
        file.write_bytes(body)
        kind = "text/event-stream" if is_stream else "application/json"
        response = {"status": 200 if is_stream else 400, "content_type": kind, "file": file.name}
        entries.append({"id": name, "response": response})
    (folder / "manifest.json").write_text(json.dumps({"fixtures": entries}))
    return Replay(folder)


# -- 429 --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", ["m", "a/one"], ids=["alias", "model"])
@pytest.mark.parametrize(
    ("says", "wait"), [("retry-after=1", 1.0), ("retry-after=2", 2.0), ("retry-after-ms=700 retry-after=9", 0.7)]
)
def test_a_429_is_asked_again_when_its_provider_says(begin: Begin, model: str, says: str, wait: float) -> None:
    targets = begin("", models=ONE)
    for _ in range(3):
        targets.providers[0].simulator.order(f"status=429 {says}")
        answer = targets.ask(model=model)
        assert text_of(answer) == TEXT
        assert tried(targets.receipt()) == ["a/one first 429 error_status", "a/one retry 200 well"]
        first, second = targets.arrivals()[-2:]
        assert second - first >= 0.99 * wait, "it was asked too early"
        if second - first <= 1.1 * wait:
            break
    else:
        pytest.fail(f"asked at {targets.arrivals()}")
    row = targets.rows()[-1]
    assert tried_in(row) == ["a/one first 429 error_status", "a/one retry 200 well"]
    assert row.attempts[1]["started_ms"] >= 990 * wait
    assert (row.exchange["status"], row.exchange["complete"], row.exchange["attempts"]) == (200, 1, 2)


def test_a_429_that_says_nothing_is_asked_again_after_a_pause_that_grows(begin: Begin) -> None:
    targets = begin("", models=ONE)
    for _ in range(3):
        targets.providers[0].simulator.order("status=429", "status=429")
        assert text_of(targets.ask()) == TEXT
        first, second, third = targets.arrivals()[-3:]
        assert second - first >= 0.04 and third - second >= 0.04, "not in the same moment"
        if second - first < 0.5 + SLACK and third - second < 1.0 + SLACK:
            break
    else:
        pytest.fail(f"asked at {targets.arrivals()}")
    well = "a/one retry 200 well"
    assert tried(targets.receipt()) == ["a/one first 429 error_status", "a/one retry 429 error_status", well]


@pytest.mark.parametrize("models", [ONE, TWO])
@pytest.mark.parametrize("says", ["", "retry-after=1"])
def test_nobody_is_hammered_and_the_last_429_goes_out_as_it_came(begin: Begin, models: str, says: str) -> None:
    specs = [f"status=429 {says}"] * (1 + models.count("|"))
    targets = begin(*specs, models=models)
    answer = targets.ask()
    seen = sorted(request.at for provider in targets.providers for request in provider.seen())
    assert len([at for at in seen if at < seen[0] + 3.0]) <= 4
    assert len(seen) == 3
    if says and models == ONE:
        assert seen[2] - seen[1] >= 0.99 and seen[1] - seen[0] >= 0.99
    receipt = targets.receipt()
    last = targets.providers[0 if receipt["provider"] == "a" else 1]
    own = direct(last)
    ours = {b"via", b"date", b"x-request-id"}
    assert (answer.status, answer.body) == (429, own.body)
    assert [field for field in answer.fields if field[0] not in ours] == [
        field for field in own.fields if field[0] not in ours
    ]
    assert answer.get(b"retry-after") == (b"1" if says else None)
    assert request_id(answer) == b"req_sim%08d" % (last.seen()[-2].number)
    assert (receipt["status"], receipt["ended_kind"], receipt["complete"]) == (429, "error_status", False)
    row = only(targets.rows())
    assert [each["status"] for each in row.attempts] == [429] * 3
    assert (row.exchange["status"], row.exchange["cost_micros"]) == (429, None)


@pytest.mark.slow
@pytest.mark.parametrize("says", ["", "retry-after=0", "retry-after-ms=1"])
def test_however_many_retries_there_are_nobody_is_hammered(begin: Begin, says: str) -> None:
    targets = begin(f"status=429 {says}", models="m (retries=10 total=3) = a/one")
    assert targets.ask().status == 429
    assert 2 <= targets.counts[0] <= 4, targets.arrivals()


def test_a_wait_that_nobody_would_wait_for_is_the_clients(begin: Begin) -> None:
    targets = begin("status=429 retry-after=61", models=ONE)
    answer = targets.ask()
    assert (answer.status, answer.get(b"retry-after")) == (429, b"61")
    assert targets.counts == [1]
    assert tried(targets.receipt()) == ["a/one first 429 error_status"]


def test_a_429_is_not_waited_for_where_there_is_another_target(begin: Begin) -> None:
    targets = begin("status=429 retry-after=30", "")
    assert text_of(targets.ask()) == TEXT
    assert tried(targets.receipt()) == ["a/one first 429 error_status", "b/two fallback 200 well"]
    assert [text_of(targets.ask()) for _ in range(3)] == [TEXT] * 3
    assert targets.counts == [1, 4], "it is left alone for as long as it says"
    assert targets.receipt()["total_ms"] < 1_000


# -- 500, 503 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["m", "a/one"], ids=["alias", "model"])
def test_a_500_is_asked_again(begin: Begin, model: str, stream: bool) -> None:
    targets = begin("", models=ONE)
    targets.providers[0].simulator.order("status=500")
    answer = targets.ask(model=model, stream=stream)
    assert text_of(answer) == TEXT
    assert request_id(answer) == b"req_sim00000002"
    first, second = targets.arrivals()
    assert 0.04 <= second - first < 0.5 + BUSY
    assert tried(targets.receipt()) == ["a/one first 500 error_status", "a/one retry 200 well"]
    assert targets.receipt()["provider_request_id"] == "req_sim00000002"
    row = only(targets.rows())
    assert tried_in(row) == ["a/one first 500 error_status", "a/one retry 200 well"]
    assert row.exchange["alias"] == ("m" if model == "m" else None)
    assert [each["bytes_out"] for each in row.attempts] == [0, row.exchange["bytes_out"]]


def test_a_500_goes_to_the_other_target_at_once(begin: Begin) -> None:
    targets = begin("", "")
    targets.providers[0].simulator.order("status=500")
    assert text_of(targets.ask()) == TEXT
    assert targets.counts == [1, 1]
    assert targets.providers[1].seen()[0].at - targets.providers[0].seen()[0].at < SLACK
    assert json.loads(targets.providers[1].seen()[0].body)["model"] == "two"
    assert tried(targets.receipt()) == ["a/one first 500 error_status", "b/two fallback 200 well"]
    assert text_of(targets.ask()) == TEXT
    assert tried(targets.receipt()) == ["a/one first 200 well"], "once is not often"


@pytest.mark.parametrize("stream", [False, True])
def test_a_target_that_is_down_is_never_seen_by_a_client(begin: Begin, stream: bool) -> None:
    targets = begin("status=503", "")
    for _ in range(8):
        assert text_of(targets.ask(stream=stream)) == TEXT
    assert targets.counts == [5, 8], "five failures in a row, and it is left alone"
    receipts = targets.receipts()
    failed, well = "a/one first 503 error_status", "b/two fallback 200 well"
    assert [tried(each) for each in receipts] == [[failed, well]] * 5 + [["b/two first 200 well"]] * 3
    assert {(each["provider"], each["model_served"], each["alias"]) for each in receipts} == {("b", "two", "m")}
    assert warnings(targets) == ["the target a/one keeps failing, and is left alone"]
    rows = targets.rows()
    assert {(row.exchange["provider"], row.exchange["model_served"], row.exchange["complete"]) for row in rows} == {
        ("b", "two", 1)
    }
    assert [tried_in(row) for row in rows] == [tried(each) for each in receipts]


# -- no answer at all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["reset", "drop-request", "garbage"])
def test_a_link_that_ends_without_an_answer_goes_to_the_other_target(begin: Begin, fault: str, stream: bool) -> None:
    targets = begin("", "")
    targets.providers[0].simulator.order(fault)
    assert text_of(targets.ask(stream=stream)) == TEXT
    assert targets.counts == [1, 1]
    kind = "protocol" if fault == "garbage" else "reset"
    expected = [f"a/one first 0 {kind}", "b/two fallback 200 well"]
    assert tried(targets.receipt()) == expected
    assert tried_in(only(targets.rows())) == expected


@pytest.mark.parametrize("fault", ["reset", "drop-request"])
def test_a_link_that_ends_without_an_answer_is_replaced_where_there_is_no_other(begin: Begin, fault: str) -> None:
    targets = begin("", models=ONE)
    targets.providers[0].simulator.order(fault)
    assert text_of(targets.ask()) == TEXT
    first, second = targets.arrivals()
    assert 0.04 <= second - first < 0.5 + BUSY, "it was no stale link: nothing is asked again in the same moment"
    assert tried(targets.receipt()) == ["a/one first 0 reset", "a/one retry 200 well"]


def test_links_that_always_end_without_an_answer_are_told_honestly(begin: Begin) -> None:
    targets = begin("reset", models=ONE)
    answer = targets.ask()
    assert (answer.status, answer.get(b"x-llm-proxy-error")) == (502, b"reset")
    assert json.loads(answer.body)["error"]["code"] == "reset"
    assert targets.counts == [3]
    failed = ["a/one first 0 reset", "a/one retry 0 reset", "a/one retry 0 reset"]
    row = only(targets.rows())
    assert (tried(targets.receipt()), tried_in(row)) == (failed, failed)
    assert (row.exchange["status"], row.exchange["ended_kind"], row.exchange["complete"]) == (502, "reset", 0)


@pytest.mark.slow
def test_a_silent_target_is_not_asked_twice_when_there_is_another(begin: Begin) -> None:
    targets = begin("silent", "", TIMEOUT_FIRST_BYTE="1")
    a, b = targets.providers
    targets.becomes(0, "")  # so that it reads what it does not answer
    a.simulator.order("silent")
    b.simulator.order("status=503")
    assert text_of(targets.ask(stream=True)) == TEXT
    assert targets.counts == [1, 2]
    [asked], (first, second) = ([request.at for request in each.seen()] for each in (a, b))
    assert 0.99 <= first - asked < 1.0 + BUSY
    assert 0.04 <= second - first < 0.5 + BUSY
    expected = ["a/one first 0 timeout", "b/two fallback 503 error_status", "b/two retry 200 well"]
    assert tried(targets.receipt()) == expected
    row = only(targets.rows())
    assert tried_in(row) == expected
    assert (row.attempts[0]["ended_phase"], row.exchange["provider"]) == ("first_byte", "b")


@pytest.mark.slow
def test_a_silent_target_without_another_is_asked_again_and_then_told(begin: Begin) -> None:
    targets = begin("", models="m (first_byte=0.5 retries=1) = a/one")
    targets.providers[0].simulator.order("silent", "silent")
    answer = targets.ask(stream=True)
    assert (answer.status, answer.get(b"x-llm-proxy-error")) == (504, b"timeout")
    assert targets.counts == [2]
    assert tried(targets.receipt()) == ["a/one first 0 timeout", "a/one retry 0 timeout"]


def test_a_name_that_cannot_be_resolved_goes_to_the_other_target(begin: Begin) -> None:
    # A name that is too long for any name server: nothing leaves this machine.
    name = ".".join(["nowhere" * 9] * 4)
    targets = begin("", "", PROVIDER_A=f"openai+http://{name}/v1")
    for _ in range(6):
        assert text_of(targets.ask()) == TEXT
    assert targets.counts == [0, 6]
    expected = ["a/one first 0 connect_failed", "b/two fallback 200 well"]
    assert [tried(each) for each in targets.receipts()] == [expected] * 5 + [["b/two first 200 well"]]
    assert "cannot be resolved" in targets.receipts()[0]["attempts"][0]["failure"]["detail"]
    row = targets.rows()[0]
    assert (tried_in(row), row.exchange["provider"], row.exchange["status"]) == (expected, "b", 200)


def test_a_link_that_was_dead_already_is_no_failure_of_its_target(begin: Begin) -> None:
    """A provider that closes idle links: nobody sees it, no retry is spent on it, and no breaker counts it."""
    targets = begin("drop-next input=10 output=5", "", RETRIES="0", LIMITS="all: tpd=1M")
    with RawClient("127.0.0.1", targets.sidecar.port) as client:
        assert [text_of(targets.ask_on(client)) for _ in range(8)] == [TEXT] * 8
    assert targets.counts == [8, 0]
    stale = ["a/one first 0 reset", "a/one stale 200 well"]
    assert [tried(each) for each in targets.receipts()] == [["a/one first 200 well"]] + [stale] * 7
    assert [[each["reused"] for each in receipt["attempts"]] for receipt in targets.receipts()[1:]] == [
        [True, False]
    ] * 7
    [rate] = limits(targets, "all")["rates"]
    assert rate["amount"] - rate["left"] == pytest.approx(8 * 15, abs=1), "each counts once"
    rows = targets.rows()
    assert [tried_in(row) for row in rows[1:]] == [stale] * 7
    assert {row.exchange["input_tokens"] for row in rows} == {10}


# -- what no other attempt mends --------------------------------------------------------------------------------------

TOO_LONG = b"""{
  "error": {
    "message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded"
  }
}
"""
REFUSED = (
    b'{"error":{"message":"The response was filtered due to the prompt triggering the content management policy.",'
    b'"type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":'
    b'"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filtered":true,"severity":"high"}}}}}'
)


@pytest.mark.parametrize("stream", [False, True])
def test_an_input_that_is_too_long_goes_to_a_larger_window(begin: Begin, tmp_path: Path, stream: bool) -> None:
    models = "m = a/one (window=8k), b/two (window=8k) | c/three (window=8k), d/four (window=128k)"
    targets = begin(*["replay=long"] * 3, "", models=models, replay=replay(tmp_path / "replay", long=TOO_LONG))
    assert text_of(targets.ask(stream=stream)) == TEXT
    *small, large = targets.counts
    assert (sum(small[:2]), small[2], large) == (1, 0, 1), "no other one of the same window is asked"
    first, second = tried(targets.receipt())
    assert first in ("a/one first 400 error_status", "b/two first 400 error_status")
    assert second == "d/four fallback 200 well"
    assert tried_in(only(targets.rows())) == [first, second]


@pytest.mark.parametrize("models", [ONE, "m = a/one (window=8k) | b/two (window=8k)", TWO], ids=["one", "same", "none"])
def test_an_input_that_is_too_long_for_all_is_the_clients(begin: Begin, tmp_path: Path, models: str) -> None:
    targets = begin("replay=long", "", models=models, replay=replay(tmp_path / "replay", long=TOO_LONG))
    answer = targets.ask()
    assert (answer.status, answer.body) == (400, TOO_LONG)
    assert answer.get(b"x-llm-proxy-error") is None
    assert targets.counts == [1, 0]
    assert tried(targets.receipt()) == ["a/one first 400 error_status"]
    assert only(targets.rows()).exchange["status"] == 400


@pytest.mark.parametrize("stream", [False, True])
def test_refused_content_is_asked_of_nobody_else(begin: Begin, tmp_path: Path, stream: bool) -> None:
    targets = begin("replay=policy", "", replay=replay(tmp_path / "replay", policy=REFUSED))
    for _ in range(6):
        answer = targets.ask(stream=stream)
        assert (answer.status, answer.body, answer.get(b"content-type")) == (400, REFUSED, b"application/json")
    assert targets.counts == [6, 0], "and no breaker takes it for a failure"
    assert {tuple(tried(each)) for each in targets.receipts()} == {("a/one first 400 error_status",)}
    assert {(row.exchange["status"], row.exchange["provider"]) for row in targets.rows()} == {(400, "a")}


@pytest.mark.parametrize(
    ("models", "retries", "counts"),
    [
        ("m (retries=0) = a/one | b/two", "2", [1, 0]),
        (TWO, "0", [1, 0]),
        ("m (retries=1) = a/one | b/two", "0", [1, 1]),
        ("m (retries=1) = a/one, b/two | c/three", "2", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_nothing_is_tried_more_often_than_it_may(
    begin: Begin, models: str, retries: str, counts: list[int] | None, stream: bool
) -> None:
    targets = begin("status=503", "status=503", "status=503", models=models, RETRIES=retries)
    answer = targets.ask(stream=stream)
    assert (answer.status, answer.get(b"x-llm-proxy-error")) == (503, None)
    if counts is None:
        assert sorted(targets.counts) == [0, 1, 1], targets.counts
    else:
        assert targets.counts == [*counts, 0]
    assert len(targets.receipt()["attempts"]) == sum(targets.counts)


@pytest.mark.parametrize("fault", ["reset", "status=500", "status=429"])
def test_without_retries_a_model_is_asked_once(begin: Begin, fault: str) -> None:
    targets = begin(fault, models=ONE, RETRIES="0")
    assert targets.ask(model="a/one").status == (502 if fault == "reset" else int(fault[-3:]))
    assert targets.counts == [1]


# -- credentials ------------------------------------------------------------------------------------------------------

FIRST, SECOND = "sk-of-the-provider-first-0001", "sk-of-the-provider-second-0002"


def test_a_refused_credential_makes_room_for_the_other_and_says_so(begin: Begin) -> None:
    targets = begin("", models=ONE, PROVIDER_A_API_KEY=FIRST, PROVIDER_A_API_KEYS=SECOND)
    provider, sidecar = targets.providers[0], targets.sidecar
    provider.simulator.order("status=401 quote")
    for _ in range(4):
        assert text_of(targets.ask()) == TEXT
    carried = [request.get("authorization") for request in provider.seen()]
    refused, other = (FIRST, SECOND) if carried[0] == f"Bearer {FIRST}" else (SECOND, FIRST)
    assert carried == [f"Bearer {refused}"] + [f"Bearer {other}"] * 4
    assert tried(targets.receipts()[0]) == ["a/one first 401 credential_refused", "a/one retry 200 well"]
    assert [tried(each) for each in targets.receipts()[1:]] == [["a/one first 200 well"]] * 3
    assert tried_in(targets.rows()[0]) == ["a/one first 401 credential_refused", "a/one retry 200 well"]
    [line] = [line for line in sidecar.lines if line.get("level") == "warn"]
    assert "credential for a/one was refused" in line["message"] and line["status"] == 401
    assert line["credential"].startswith("#")
    assert not any(secret.encode() in said for secret in (FIRST, SECOND) for said in (sidecar.stdout, sidecar.stderr))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["m", "a/one"], ids=["alias", "model"])
def test_limits_of_all_credentials_are_waited_for(begin: Begin, model: str) -> None:
    targets = begin("", models=ONE, PROVIDER_A_API_KEY=FIRST, PROVIDER_A_API_KEYS=SECOND)
    targets.providers[0].simulator.order(*["status=429 retry-after=1"] * 2)
    assert text_of(targets.ask(model=model)) == TEXT
    _, second, third = targets.arrivals()
    assert second < 0.9, "the other one at once"
    assert third >= 0.99, "and then none before its time"
    carried = [request.get("authorization") for request in targets.providers[0].seen()]
    assert sorted(map(str, carried[:2])) == [f"Bearer {FIRST}", f"Bearer {SECOND}"]


@pytest.mark.parametrize("says", ["", "retry-after=61"])
def test_limits_of_all_credentials_are_told_as_the_provider_tells_them(begin: Begin, says: str) -> None:
    targets = begin(f"status=429 {says}", models=ONE, PROVIDER_A_API_KEY=FIRST, PROVIDER_A_API_KEYS=SECOND, RETRIES="1")
    answer = targets.ask()
    assert (answer.status, answer.get(b"x-llm-proxy-error")) == (429, None)
    assert answer.get(b"retry-after") == (says[-2:].encode() or None)
    assert targets.ask().status == 429, "it was no refusal"


@pytest.mark.parametrize("says", ["status=429", "status=429 retry-after=9", "status=401"])
def test_when_no_credential_is_good_the_other_target_is_asked(begin: Begin, says: str) -> None:
    targets = begin(says, "", PROVIDER_A_API_KEY=FIRST, PROVIDER_A_API_KEYS=SECOND)
    assert text_of(targets.ask()) == TEXT
    assert targets.counts == [2, 1], "each credential once"
    assert [each.split()[1] for each in tried(targets.receipt())] == ["first", "retry", "fallback"]


# -- what the client and the ledger are told --------------------------------------------------------------------------


def limits(targets: Targets, scope: str) -> dict[str, Any]:
    """What is used of the limits of `scope` now."""
    answer = ask(f"http://127.0.0.1:{targets.sidecar.admin_port}/limits/{scope.replace(' ', '%20')}")
    assert answer.status == 200, answer
    return answer.document


SCOPES = ("all", "provider a", "provider b", "model m", "model one", "model two")


def spent(targets: Targets) -> dict[str, int]:
    """In microdollars, by scope."""
    budgets = {scope: limits(targets, scope)["budgets"][0] for scope in SCOPES}
    assert {budget["reserved"] for budget in budgets.values()} == {0}
    return {scope: budget["spent"] for scope, budget in budgets.items()}


def parted(one: int, two: int) -> dict[str, int]:
    """The same, where the two targets cost so much."""
    both = one + two
    return dict(zip(SCOPES, (both, one, two, both, one, two), strict=True))


# A message that begins, says what its input took, and fails: it was for nothing, but not for free.
HALF = b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"one","content":[],\
"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":30,"output_tokens":1}}}

event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}

"""


@pytest.fixture
def prices(tmp_path: Path) -> str:
    """Thousand microdollars for a token of one, and ten for one of two."""
    table = [
        {"provider": name, "model": model, "input": dollars, "output": dollars}
        for name, model, dollars in (("a", "one", 1000), ("b", "two", 10))
    ]
    (tmp_path / "prices.json").write_text(json.dumps({"version": "mine", "prices": table}))
    return str(tmp_path / "prices.json")


def accounts(prices: str) -> dict[str, str]:
    rules = "; ".join(f"{scope}: 9usd/day" for scope in SCOPES)
    return {"PRICES": prices, "LIMITS": rules, "RESPONSE_HEADERS": "on"}


def check_sums(row: Row) -> None:
    """What an exchange used is what its attempts used."""
    for name in ("cost_micros", "input_tokens", "output_tokens"):
        assert sum(each[name] or 0 for each in row.attempts) == (row.exchange[name] or 0), name


@pytest.mark.parametrize("stream", [False, True])
def test_who_answered_is_named_and_paid_and_who_did_not_is_not(begin: Begin, prices: str, stream: bool) -> None:
    targets = begin("status=503", "input=100 output=20", **accounts(prices))
    answer = targets.ask(stream=stream)
    assert text_of(answer) == TEXT
    names = (b"attempts", b"provider", b"model")
    assert [answer.get(b"x-llm-proxy-" + name) for name in names] == [b"2", b"b", b"two"]
    receipt = targets.receipt()
    assert answer.get(b"x-llm-proxy-request-id") == receipt["id"].encode()
    assert (receipt["provider"], receipt["model_served"], receipt["cost_micros"]) == ("b", "two", 1200)
    sums = spent(targets)
    assert sums == {
        "all": 1200,
        "provider a": 0,
        "provider b": 1200,
        "model m": 1200,
        "model one": 0,
        "model two": 1200,
    }
    row = only(targets.rows())
    failed, answered = row.attempts
    assert (failed["cost_micros"], failed["input_tokens"], failed["output_tokens"]) == (None, None, None)
    assert (answered["cost_micros"], answered["input_tokens"], answered["output_tokens"]) == (1200, 100, 20)
    assert answered["model_served"] == "two"
    names_of = ("provider", "model_requested", "model_served", "alias", "provider_request_id", "attempts")
    assert tuple(row.exchange[name] for name in names_of) == ("b", "m", "two", "m", "req_sim00000001", 2)
    assert row.exchange["price_version"].endswith("mine")
    check_sums(row)


def test_a_stream_that_failed_behind_its_head_costs_what_it_took(begin: Begin, prices: str, tmp_path: Path) -> None:
    targets = begin(
        "replay=half",
        "input=100 output=20",
        family="anthropic",
        replay=replay(tmp_path / "replay", half=HALF),
        **accounts(prices),
    )
    answer = targets.ask(stream=True)
    assert answer.status == 200 and answer.ending is Ending.CLEAN
    assert b"Overloaded" not in answer.body and answer.body.count(b"event: message_start") == 1
    assert answer.get(b"x-llm-proxy-provider") == b"b"
    assert tried(targets.receipt()) == ["a/one first 200 error_event", "b/two fallback 200 well"]
    sums = spent(targets)
    row = only(targets.rows())
    failed, answered = row.attempts
    assert failed["input_tokens"] == 30 and failed["output_tokens"] in (0, 1)
    assert failed["cost_micros"] == 1000 * (30 + failed["output_tokens"])
    assert (answered["cost_micros"], row.exchange["model_served"], row.exchange["provider"]) == (1200, "two", "b")
    check_sums(row)
    both, one, two = (row.exchange["cost_micros"], failed["cost_micros"], answered["cost_micros"])
    assert sums == {
        "all": both,
        "provider a": one,
        "provider b": two,
        "model m": both,
        "model one": one,
        "model two": two,
    }


@pytest.mark.slow
def test_what_nobody_can_tell_costs_nothing_in_the_ledger_and_what_was_reserved_in_budgets(
    begin: Begin, prices: str
) -> None:
    """A silent target may want money for what it was asked: its input is known, what it would have said is not."""
    targets = begin("", "input=100 output=20", TIMEOUT_FIRST_BYTE="0.5", **accounts(prices))
    targets.providers[0].simulator.order("silent")
    assert text_of(targets.ask(stream=True)) == TEXT
    assert tried(targets.receipt()) == ["a/one first 0 timeout", "b/two fallback 200 well"]
    sums = spent(targets)
    row = only(targets.rows())
    failed, answered = row.attempts
    assert failed["input_tokens"] > 0 and failed["input_source"] in ("counted", "estimated")
    assert (failed["output_tokens"], failed["cost_micros"], failed["usage_complete"]) == (None, None, 0)
    assert (answered["cost_micros"], row.exchange["cost_micros"], row.exchange["usage_complete"]) == (1200, 1200, 0)
    check_sums(row)
    reserved = sums["provider a"]
    assert reserved >= 1000 * (failed["input_tokens"] + 50), "of its answer what the client allows, which is 50 tokens"
    assert sums == parted(reserved, 1200)


# -- a target that comes and goes -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_flapping_target_is_left_alone_probed_by_one_and_back_again(begin: Begin) -> None:
    targets = begin("status=503", "delay=0.02")
    a = targets.providers[0]
    for _ in range(5):
        assert text_of(targets.ask()) == TEXT
    assert targets.counts == [5, 5]
    targets.becomes(0, "status=503 delay=0.5")  # slow to fail: nobody else may pass meanwhile
    ended = threading.Event()
    wrong: list[RawAnswer] = []

    def go_on() -> None:
        with RawClient("127.0.0.1", targets.sidecar.port) as client:
            while not ended.is_set():
                answer = targets.ask_on(client)
                if answer.status != 200:
                    wrong.append(answer)

    crowd = [threading.Thread(target=go_on) for _ in range(4)]
    for each in crowd:
        each.start()
    try:
        a.wait_until(lambda simulator: simulator.answered >= 6)
        targets.becomes(0, "delay=0.5")
        a.run(a.simulator.until(lambda simulator: simulator.answered >= 7, 15.0))
        before = targets.counts[1]
        targets.becomes(0, "delay=0.02")
        a.wait_until(lambda simulator: simulator.answered >= 50)
    finally:
        ended.set()
        for each in crowd:
            each.join()
    assert wrong == []
    at = targets.arrivals()
    assert 4.99 <= at[5] - at[4] < 5.0 + BUSY, "five seconds after it failed, and only once"
    assert 10.0 <= at[6] - at[5] < 10.5 + BUSY, "then ten, from when the probe had failed"
    assert at[7] - at[6] >= 0.49, "and the others only when a probe has gone well"
    assert targets.counts[1] <= before + 4, "nobody goes on to the fallback once it is back"
    receipts = targets.receipts()
    assert sum(len(each["attempts"]) == 2 for each in receipts) == 6
    assert warnings(targets) == ["the target a/one keeps failing, and is left alone"]
    assert [line["message"] for line in targets.sidecar.lines if "is back" in line.get("message", "")] == [
        "the target a/one is back"
    ]


# -- the SDKs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["status=503", "status=429 retry-after=20", "reset", "status=401"])
def test_openai_s_sdk_sees_a_normal_answer_and_asks_once(begin: Begin, fault: str) -> None:
    targets = begin(fault, "")
    hello: Any = [{"role": "user", "content": "hello"}]
    with openai.OpenAI(base_url=f"{targets.sidecar.url}/v1", api_key="none") as client:
        answer = client.chat.completions.create(model="m", messages=hello)
        assert (answer.choices[0].message.content, answer.model) == (TEXT, "two")
        stream = client.chat.completions.create(model="m", messages=hello, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == TEXT
    rows = targets.rows()
    assert [row.exchange["provider"] for row in rows] == ["b", "b"], "one request each"
    assert rows[0].exchange["attempts"] == 2


@pytest.mark.parametrize("fault", ["status=529", "status=429 retry-after=20", "reset"])
def test_anthropic_s_sdk_sees_a_normal_answer_and_asks_once(begin: Begin, fault: str) -> None:
    targets = begin(fault, "", family="anthropic")
    said: Any = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
    with anthropic.Anthropic(base_url=targets.sidecar.url, api_key="none") as client:
        message = client.messages.create(**said)
        assert (message.content[0].text, message.model) == (TEXT, "two")
        with client.messages.stream(**said) as stream:
            assert "".join(stream.text_stream) == TEXT
    rows = targets.rows()
    assert [row.exchange["provider"] for row in rows] == ["b", "b"], "one request each"
    assert rows[0].exchange["attempts"] == 2


def test_the_sdks_list_the_aliases_that_a_key_may_use(begin: Begin) -> None:
    models = "fast = a/one | b/two; big = b/two"
    every = "sk-of-everything-0123456789"
    targets = begin("", "", models=models, KEYS=f"every={every}")
    admin = f"http://127.0.0.1:{targets.sidecar.admin_port}"
    made = ask(f"{admin}/keys", "POST", {"name": "few", "models": ["fast"]})
    assert made.status == 201
    few: str = made.document["value"]
    for key, names in ((every, ["fast", "big"]), (few, ["fast"])):
        with openai.OpenAI(base_url=f"{targets.sidecar.url}/v1", api_key=key) as client:
            assert [model.id for model in client.models.list()] == names
            assert client.models.retrieve("fast").owned_by == "llm-proxy"
            if key == few:
                with pytest.raises(openai.NotFoundError):
                    client.models.retrieve("big")
                with pytest.raises(openai.PermissionDeniedError):
                    client.chat.completions.create(model="big", messages=[{"role": "user", "content": "hello"}])
        with anthropic.Anthropic(base_url=targets.sidecar.url, api_key=key) as claude:
            assert [model.id for model in claude.models.list()] == names
            assert [model.id for model in claude.models.list(limit=1)] == names
            assert claude.models.retrieve("fast").type == "model"
    assert targets.counts == [0, 0], "no provider is asked"
