"""What an exchange takes of its limits: given back exactly once in every ending, and refused in the SDKs' own words."""

from __future__ import annotations

import orjson
import pytest

from proxy.catalog.prices import Prices
from proxy.outcome import Kind, Limit
from proxy.policy.demand import PREAMBLE
from proxy.policy.keys import AuthMode
from proxy.policy.limits import Refusal
from proxy.policy.rules import INPUT, OUTPUT, REQUESTS, TOKENS
from proxy.relay.connect import ConnectFailed
from proxy.relay.taking import duration, limit_lines
from tests.relay import stage as s
from tests.relay.stage import FakeCounter, FoundTokens, Stage

SECOND = 10**9
KEYS = {"mode": AuthMode.KEYS, "keys": {"ci": "k" * 16}}
BEARER = b"Authorization: Bearer " + b"k" * 16
PRICES = Prices.of(
    b'{"version":"t","prices":[{"provider":"openai","model":"gpt-5*","request":0.01,"input":0,"output":0}]}'
)
REPORTED = (
    b'{"id":"x","model":"gpt-5-2026","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}'
)


def staged(rules: dict[str, str], **more: object) -> Stage:
    more.setdefault("seconds", {Limit.QUEUE: 0.0})
    return Stage(rules=rules, **KEYS, **more)  # type: ignore[arg-type]


def spent(stage: Stage, rule: str = "tokens/total", scope: str = "key ci") -> int:
    """What the counter of a budget says."""
    chain = stage.admission.limiter.chain("ci", None, ["gpt-5"], "openai")
    names = [(scope, rule.name) for scope, rule in chain.names[len(chain.rates) :]]
    view, at, *_ = chain.budgets[names.index((scope, rule))]
    return view[at]


def running(stage: Stage) -> int:
    return stage.admission.limiter.chain("ci", None, ["gpt-5"], "openai").slots[0].held


def fields_of(answer: bytes) -> dict[str, str]:
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


# -- refused ----------------------------------------------------------------------------------------------------------


def test_a_limit_on_requests() -> None:
    with staged({"key ci": "rpm=2"}) as stage:
        client = stage.client()
        for _ in range(2):
            client.says(s.ask(BEARER))
            stage.upstream().says(s.unary())
            assert s.status_of(client.heard()) == 200
        client.says(s.ask(BEARER))
        answer = client.heard()
        assert s.status_of(answer) == 429
        fields = fields_of(answer)
        assert (fields["retry-after"], fields["retry-after-ms"]) == ("30", "30000")
        assert (fields["x-ratelimit-limit-requests"], fields["x-ratelimit-remaining-requests"]) == ("2", "0")
        assert fields["x-ratelimit-reset-requests"] == "1m0s"
        assert "x-should-retry" not in fields
        assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_many_requests"
        receipt = stage.receipts[-1]
        assert (receipt.status, receipt.letters, receipt.ended_kind) == (429, "CA", "too_many_requests")
        assert receipt.key == "ci"
        stage.loop.advance(30)
        client.says(s.ask(BEARER))
        stage.upstream().says(s.unary())
        assert s.status_of(client.heard()) == 200


def test_who_has_no_limits_is_not_limited() -> None:
    with staged({"key other": "rpm=1"}) as stage:
        client = stage.client()
        for _ in range(3):
            client.says(s.ask(BEARER))
            stage.upstream().says(s.unary())
            assert s.status_of(client.heard()) == 200


@pytest.mark.parametrize("scope", ["model gpt-5", "provider openai", "all"])
def test_limits_of_a_model_a_provider_and_everything(scope: str) -> None:
    with staged({scope: "rpm=1"}) as stage:
        client = stage.client()
        client.says(s.ask(BEARER))
        stage.upstream().says(s.unary())
        client.heard()
        client.says(s.ask(BEARER))
        assert s.status_of(client.heard()) == 429
        assert len(stage.receipts) == 2


def test_a_budget_that_is_used_up_is_not_to_be_asked_for_again() -> None:
    with staged({"key ci": "0.01usd/total"}, prices=PRICES) as stage:
        client = stage.client()
        client.says(s.ask(BEARER))
        stage.upstream().says(s.unary(REPORTED))
        client.heard()
        assert spent(stage, "usd/total") == 10_000
        client.says(s.ask(BEARER))
        answer = client.heard()
        fields = fields_of(answer)
        assert (s.status_of(answer), fields["x-should-retry"]) == (429, "false")
        assert "retry-after" not in fields, "nobody knows when"
        error = orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert (error["code"], error["type"]) == ("budget_exhausted", "insufficient_quota")
        assert stage.receipts[-1].ended_kind == "budget_exhausted"


def test_an_unpriced_model_is_refused_under_a_hard_budget_in_dollars() -> None:
    with staged({"key ci": "1usd/day"}, prices=PRICES) as stage:
        client = stage.client()
        client.says(s.ask(BEARER, body=s.BODY.replace(b"gpt-5", b"gpt-4")))
        answer = client.heard()
        assert s.status_of(answer) == 403
        assert b"LLM_PROXY_PRICES" in answer
        assert stage.receipt().ended_kind == "unpriced_model"


def test_a_request_larger_than_the_burst_can_never_pass() -> None:
    with staged({"key ci": "itpm=1k"}) as stage:
        client = stage.client()
        client.says(s.ask(BEARER, body=s.BODY[:-1] + b',"user":"' + b"x" * 9000 + b'"}'))
        answer = client.heard()
        assert (s.status_of(answer), fields_of(answer)["x-should-retry"]) == (400, "false")
        assert stage.receipt().ended_kind == "exceeds_limit"


# -- given back -------------------------------------------------------------------------------------------------------


def ends_well(stage: Stage, client: s.Peer) -> None:
    stage.upstream().says(s.unary(REPORTED))


def ends_with_an_error(stage: Stage, client: s.Peer) -> None:
    stage.upstream().says(s.unary(b'{"error":{}}', b"500 No"))


def is_reset(stage: Stage, client: s.Peer) -> None:
    stage.upstream().resets()


def times_out(stage: Stage, client: s.Peer) -> None:
    stage.loop.advance(s.SECONDS[Limit.FIRST_BYTE_UNARY] + 1)


def is_left(stage: Stage, client: s.Peer) -> None:
    client.resets()


def is_stopped(stage: Stage, client: s.Peer) -> None:
    stage.relay.give_up()


@pytest.mark.parametrize(
    ("ending", "tokens"),
    [(ends_well, 18), (ends_with_an_error, 0), (is_reset, 0), (times_out, 55), (is_left, 55), (is_stopped, 55)],
)
def test_every_ending_gives_back_what_was_not_used(ending: object, tokens: int) -> None:
    """Where an answer may have been begun and nobody has seen it, its output stays as it was reserved."""
    counter = FakeCounter()
    with staged({"key ci": "100ktokens/total concurrent=3"}, counter=counter) as stage:
        client = stage.client()
        client.says(s.ask(BEARER, body=s.BODY[:-1] + b',"max_tokens":50}'))
        assert spent(stage) == PREAMBLE + len(s.BODY) + len(b',"max_tokens":50') + 50
        assert running(stage) == 1
        ending(stage, client)  # type: ignore[operator]
        assert running(stage) == 0
        for told in counter.told:
            assert spent(stage) > tokens, "charged until it is known"
            told.done(FoundTokens(None, 5))
        assert spent(stage) == tokens
        usage = stage.receipt().usage
        assert tokens == (0 if usage is None else (usage.input or 0) + (50 if usage.output is None else usage.output))


def test_a_stream_that_is_cut_pays_for_what_passed() -> None:
    counter = FakeCounter()
    with staged({"key ci": "100ktokens/total"}, counter=counter) as stage:
        client = stage.client()
        client.says(s.ask_stream(BEARER))
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        upstream.resets()
        (told,) = counter.told
        told.done(FoundTokens(40, 5))
        assert spent(stage) == 45
        stage.receipt()


def test_what_no_request_got_out_takes_nothing() -> None:
    """Refused behind the limits: no connection, or too many streams."""
    with staged({"key ci": "100ktokens/total concurrent=2"}, streams_per_key=1) as stage:
        client = stage.client()
        stage.connects.append(ConnectFailed(Kind.CONNECT_FAILED, "no"))
        client.says(s.ask(BEARER))
        assert (spent(stage), running(stage), stage.receipt().status) == (0, 0, 502)
        first = stage.client()
        first.says(s.ask_stream(BEARER))
        reserved = spent(stage)
        client.says(s.ask_stream(BEARER))
        assert (spent(stage), running(stage), stage.receipt().status) == (reserved, 1, 429)
        stage.upstream().says(s.unary(REPORTED))
        assert (spent(stage), running(stage)) == (18, 0)
        stage.receipt()


def test_one_that_is_refused_has_taken_nothing_anywhere() -> None:
    with staged({"key ci": "rpm=60 1ktokens/total concurrent=3", "all": "rpm=1"}) as stage:
        client = stage.client()
        client.says(s.ask(BEARER, body=s.BODY[:-1] + b',"max_tokens":1}'))
        stage.upstream().says(s.unary(REPORTED))
        client.says(s.ask(BEARER))
        assert (spent(stage), running(stage), len(stage.receipts)) == (18, 0, 2)


@pytest.mark.parametrize("rule", ["1usd/day:warn", "rpm=60"])
def test_further_models_are_refused_where_dollars_count(rule: str) -> None:
    """Also on a connection that has had the same model before."""
    with staged({"key ci": rule}) as stage:
        client = stage.client()
        client.says(s.ask(BEARER))
        stage.upstream().says(s.unary(REPORTED))
        assert s.status_of(client.heard()) == 200
        client.says(s.ask(BEARER, body=s.BODY[:-1] + b',"models":["dear"]}'))
        if rule == "rpm=60":
            stage.upstream().says(s.unary(REPORTED))
            assert s.status_of(client.heard()) == 200
            return
        answer = client.heard()
        assert s.status_of(answer) == 403
        assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "model_forbidden"


def test_exchanges_at_once_count_until_they_end() -> None:
    with staged({"key ci": "concurrent=1"}) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask(BEARER))
        second.says(s.ask(BEARER))
        answer = second.heard()
        assert (s.status_of(answer), fields_of(answer)["retry-after"]) == (429, "1")
        stage.upstream().says(s.unary())
        second.says(s.ask(BEARER))
        stage.upstream().says(s.unary())
        assert s.status_of(second.heard()) == 200
        assert len(stage.receipts) == 3


def test_without_meters_what_was_reserved_stands() -> None:
    with staged({"key ci": "100ktokens/total"}, meters=False) as stage:
        client = stage.client()
        client.says(s.ask(BEARER, body=s.BODY[:-1] + b',"max_tokens":50}'))
        reserved = spent(stage)
        stage.upstream().says(s.unary(REPORTED))
        assert spent(stage) == reserved > 0
        client.says(s.ask(BEARER))
        stage.upstream().says(s.unary(b"{}", b"500 No"))
        assert spent(stage) == reserved
        assert len(stage.receipts) == 2


@pytest.mark.parametrize(
    ("rules", "options", "line"),
    [
        ({"all": "1ktokens/total"}, {"mode": AuthMode.OFF, "keys": {}}, b"x: y"),
        ({"all": "1ktokens/total"}, {"mode": AuthMode.PASSTHROUGH, "keys": {}}, b"Authorization: Bearer theirs-0123"),
        ({"model gpt-5": "1token/total"}, KEYS, BEARER),
    ],
)
def test_limits_in_tokens_close_paths_that_are_not_read(
    rules: dict[str, str], options: dict[str, object], line: bytes
) -> None:
    """The model, if any, stands in a body that nobody reads."""
    with Stage(rules=rules, **options) as stage:  # type: ignore[arg-type]
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/threads/runs", b'{"model":"gpt-5"}', line))
        assert s.status_of(client.heard()) == 403
        assert stage.upstreams == []
        stage.receipt()


def test_a_path_that_is_not_read_needs_a_key_without_such_limits() -> None:
    with staged({"key ci": "100ktokens/total"}) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/images/generations", b"{}", BEARER))
        answer = client.heard()
        assert s.status_of(answer) == 403
        client.says(s.request(b"GET", b"/v1/models", b"", BEARER))
        stage.upstream().says(s.unary())
        assert s.status_of(client.heard()) == 200
        assert len(stage.receipts) == 2


def test_who_hangs_up_before_the_report_does_not_hide_it() -> None:
    """All text has passed, the finish too; the usage event, which tells of 9,000 tokens of reasoning, has not."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9000,"total_tokens":9005}}\n\n'
    with staged({"key ci": "100ktokens/total"}, counter=FakeCounter()) as stage:
        client = stage.client()
        client.says(s.ask(BEARER, body=s.STREAM_BODY[:-1] + b',"max_completion_tokens":10000}'))
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()) + s.chunk(s.FINISH))
        client.resets()
        assert not upstream.is_gone
        upstream.says(s.chunk(usage + s.DONE) + s.LAST)
        assert spent(stage) == 9005
        assert stage.receipt().ended_kind == "client_left"


def test_for_the_report_of_who_hung_up_nobody_waits_long() -> None:
    counter = FakeCounter()
    with staged({"key ci": "100ktokens/total"}, counter=counter) as stage:
        client = stage.client()
        client.says(s.ask_stream(BEARER))
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()) + s.chunk(s.FINISH))
        client.resets()
        stage.advance(2.3)
        assert stage.upstream().is_gone
        counter.told[0].done(FoundTokens(1, 5))
        assert spent(stage) == 6
        stage.receipt()


def test_a_fault_of_ours_does_not_give_back_what_a_provider_bills() -> None:
    with staged({"key ci": "100ktokens/total"}) as stage:
        client = stage.client()
        client.says(s.ask(BEARER, body=s.BODY[:-1] + b',"max_tokens":50}'))
        client.protocol.exchange.crashed(ValueError("ours"))
        assert len(stage.loop.expect_errors()) == 1
        assert spent(stage) > 50
        assert stage.receipt().status == 500


@pytest.mark.parametrize(
    ("query", "fields"),
    [(b"?$fields=candidates", []), (b"?alt=sse&f%69elds=a", []), (b"", [b"X-Goog-FieldMask: candidates.content"])],
)
def test_a_provider_is_not_asked_to_leave_out_what_it_used(query: bytes, fields: list[bytes]) -> None:
    google = s.openai_provider(name="gemini", family="gemini", base=b"", auth="x-goog-api-key")
    path = b"/v1beta/models/gemini-2.5-pro:generateContent" + query
    with staged({"key ci": "100ktokens/total"}, providers=(google,)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", path, b'{"contents":[]}', BEARER, *fields))
        assert s.status_of(client.heard()) == 403
        assert stage.upstreams == []
        stage.receipt()
    with staged({"key ci": "rpm=9"}, providers=(google,)) as stage:
        client = stage.client()
        client.says(s.request(b"POST", path, b'{"contents":[]}', BEARER, *fields))
        assert query.rpartition(b"&")[2] in stage.upstream().heard()
        client.resets()
        stage.receipt()


# -- who waits ---------------------------------------------------------------------------------------------------------


@pytest.mark.sources
def test_a_waiting_exchange_that_fails_when_its_turn_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with staged({"key ci": "concurrent=1"}, seconds={Limit.QUEUE: 7.0}) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask(BEARER))
        second.says(s.ask(BEARER))
        exchange = s.exchange_of(second)
        assert exchange.taking.is_waiting
        monkeypatch.setattr(type(exchange), "proceed", lambda self, plan: 1 / 0)
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            stage.upstream().says(s.unary())
        assert s.status_of(second.heard()) == 500
        assert running(stage) == 0
        assert len(stage.receipts) == 2


def test_of_who_waits_the_limits_may_become_ones_that_cannot_be_counted() -> None:
    from proxy.policy.rules import parse_rules

    with staged({"key ci": "concurrent=1"}, seconds={Limit.QUEUE: 7.0}) as stage:
        first, second = stage.client(), stage.client()
        first.says(s.ask(BEARER))
        second.says(s.ask(BEARER))
        stage.admission.limiter.set_rules("key ci", parse_rules("1usd/total"))
        stage.upstream().says(s.unary())
        answer = second.heard()
        assert s.status_of(answer) == 403
        assert b"LLM_PROXY_PRICES" in answer
        assert [receipt.ended_kind for receipt in stage.receipts] == ["complete", "unpriced_model"]


# -- longer than what was reserved -----------------------------------------------------------------------------------


def long_stream(stage: Stage, reads: int) -> tuple[s.Peer, s.Peer]:
    client = stage.client()
    client.says(s.ask(BEARER, body=s.STREAM_BODY[:-1] + b',"max_tokens":10}'))
    upstream = stage.upstream()
    upstream.says(s.STREAM_HEAD)
    for _ in range(reads):
        if not upstream.is_gone:
            upstream.says(s.chunk(s.text(b"x" * 200) * 4))
    return client, upstream


def test_an_answer_that_costs_more_than_is_left_is_stopped_honestly() -> None:
    """A provider that does not keep to the cap."""
    counter = FakeCounter()
    with staged({"key ci": f"{400 + PREAMBLE}tokens/total"}, counter=counter, stops=True) as stage:
        client, upstream = long_stream(stage, 200)
        assert upstream.is_gone
        heard = client.heard()
        assert b'"code":"budget_exhausted"' in heard
        assert b"stopped, since it is longer than what was reserved" in heard
        assert not heard.endswith(s.LAST)
        counter.told[0].done(FoundTokens(300, 20))
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind, receipt.complete) == ("PD", "budget_exhausted", False)
        assert spent(stage) == 320
        passed = receipt.bytes_out
        assert 200 * 270 < passed < 400 * 270 + 10_000, "what was left was let through, and not much more"


@pytest.mark.parametrize("rules", ["400tokens/total", "40ktokens/total", "400tokens/total:warn", "rpm=60"])
def test_who_is_not_to_be_stopped_is_not(rules: str) -> None:
    stops = rules != "400tokens/total"
    counter = FakeCounter()
    with staged({"key ci": rules}, counter=counter, stops=stops) as stage:
        _, upstream = long_stream(stage, 200)
        assert not upstream.is_gone
        upstream.says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        for told in counter.told:
            told.done(FoundTokens(1000, 20))
        assert stage.receipt().complete


@pytest.mark.parametrize("rules", ["5ktokens/total", "1usd/total"])
def test_what_generates_nothing_is_not_stopped_for_its_length(rules: str) -> None:
    answer = (
        b'{"data":[{"embedding":[' + b"0.0123456789," * 2000 + b'0]}],"usage":{"prompt_tokens":5,"total_tokens":5}}'
    )
    with staged({"key ci": rules}, stops=True, prices=PRICES) as stage:
        client = stage.client()
        client.says(s.request(b"POST", b"/v1/embeddings", b'{"model":"gpt-5","input":"hi"}', BEARER))
        stage.upstream().says_each(s.unary(answer), 8000)
        assert stage.receipt().complete
        client.says(s.get(b"/v1/files/f/content", BEARER))
        stage.upstream().says_each(s.unary(b"x" * 60_000), 8000)
        assert stage.receipt().complete


def test_a_document_in_place_of_a_stream_is_not_stopped_for_its_length() -> None:
    """Its bytes say less of its tokens."""
    document = b'{"id":"x","choices":[{"message":{"content":"%b"},"finish_reason":"stop"}]}' % (b"x" * 200_000)
    with staged({"key ci": f"{400 + PREAMBLE}tokens/total"}, stops=True) as stage:
        client = stage.client()
        client.says(s.ask(BEARER, body=s.STREAM_BODY[:-1] + b',"max_tokens":10}'))
        stage.upstream().says_each(s.unary(document), 8000)
        assert client.heard().endswith(s.LAST)
        assert stage.receipt().complete


# -- when a key changes -----------------------------------------------------------------------------------------------


def test_a_changed_limit_holds_for_the_next_request_on_an_open_connection() -> None:
    from proxy.policy.rules import parse_rules

    with staged({}) as stage:
        client = stage.client()
        client.says(s.ask(BEARER))
        stage.upstream().says(s.unary())
        client.heard()
        stage.admission.limiter.set_rules("key ci", parse_rules("itpm=1"))
        client.says(s.ask(BEARER, body=s.BODY[:-1] + b',"user":"0123456789"}'))
        assert s.status_of(client.heard()) == 400
        assert len(stage.receipts) == 2


def test_a_key_that_is_taken_away_while_its_body_comes_opens_nothing() -> None:
    from proxy.policy.rules import parse_rules

    with staged({"key ci": "1usd/total"}) as stage:
        client = stage.client()
        whole = s.ask(BEARER)
        client.says(whole[:-1])
        stage.admission.ring.remove("ci")
        stage.admission.limiter.set_rules("key ci", parse_rules(""))
        client.says(whole[-1:])
        assert s.status_of(client.heard()) == 401
        assert stage.upstreams == []
        stage.receipt()


def test_a_limit_that_comes_while_a_body_does_holds_for_it() -> None:
    from proxy.policy.rules import parse_rules

    with staged({}) as stage:
        client = stage.client()
        whole = s.ask(BEARER)
        client.says(whole[:-1])
        stage.admission.limiter.set_rules("key ci", parse_rules("1token/total"))
        client.says(whole[-1:])
        assert s.status_of(client.heard()) == 400
        stage.receipt()


def test_a_removed_key_opens_nothing_any_more_also_not_on_an_open_connection() -> None:
    with staged({}) as stage:
        client = stage.client()
        client.says(s.ask(BEARER))
        stage.upstream().says(s.unary())
        client.heard()
        stage.admission.ring.remove("ci")
        client.says(s.ask(BEARER))
        assert s.status_of(client.heard()) == 401
        assert len(stage.receipts) == 2


def test_a_key_ends_at_its_date_also_on_an_open_connection() -> None:
    from proxy.policy.keys import Key, digest_of

    with staged({}) as stage:
        now = stage.relay.wall()
        digest = digest_of(b"k" * 16)
        stage.admission.ring.put(Key("ci", until=now + 10 * SECOND), {digest: now + 20 * SECOND})
        client = stage.client()
        client.says(s.ask(BEARER))
        stage.upstream().says(s.unary())
        client.heard()
        stage.loop.advance(10)
        client.says(s.ask(BEARER))
        assert s.status_of(client.heard()) == 401
        assert len(stage.receipts) == 2


# -- words ------------------------------------------------------------------------------------------------------------


def lines(refusal: Refusal, dialect: str) -> list[str]:
    return limit_lines(refusal, dialect, s.EPOCH).decode().splitlines()


def test_fields_for_openai() -> None:
    refusal = Refusal("key ci", "tpm", TOKENS, 1000, 10, 1_234_567, 8_640_000_000)
    assert (
        lines(refusal, "openai-chat")
        == lines(refusal, "ollama")
        == [
            "retry-after: 1",
            "retry-after-ms: 2",
            "x-ratelimit-limit-tokens: 1000",
            "x-ratelimit-remaining-tokens: 10",
            "x-ratelimit-reset-tokens: 8.64s",
        ]
    )


@pytest.mark.parametrize(
    ("unit", "name"), [(REQUESTS, "requests"), (TOKENS, "tokens"), (INPUT, "input-tokens"), (OUTPUT, "output-tokens")]
)
def test_fields_for_anthropic(unit: int, name: str) -> None:
    refusal = Refusal("key ci", "x", unit, 1000, 10, SECOND, 90 * SECOND + 1)
    assert lines(refusal, "anthropic-messages") == [
        "retry-after: 1",
        "retry-after-ms: 1000",
        f"anthropic-ratelimit-{name}-limit: 1000",
        f"anthropic-ratelimit-{name}-remaining: 10",
        f"anthropic-ratelimit-{name}-reset: 2027-01-15T08:01:31Z",
    ]


def test_a_budget_says_when_its_next_window_begins() -> None:
    refusal = Refusal("key ci", "usd/day", 4, 1000, 10, 3600 * SECOND, 3600 * SECOND, True)
    assert lines(refusal, "openai-chat") == ["retry-after: 3600", "retry-after-ms: 3600000", "x-should-retry: false"]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (999_000_001, "1s"),
        (8_640_000_000, "8.64s"),
        (72 * SECOND, "1m12s"),
        (60 * SECOND, "1m0s"),
        (7205 * SECOND, "2h0m5s"),
    ],
)
def test_durations(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text
