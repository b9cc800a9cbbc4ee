"""What an exchange used: reported, counted or estimated; nothing of it twice, and the receipt waits for it."""

from __future__ import annotations

import gzip
import zlib

import pytest

from proxy.catalog.prices import Prices
from proxy.dialects import DIALECTS
from proxy.dialects.factors import estimate, estimate_events
from proxy.outcome import Kind, Receipt, Source, Usage
from proxy.relay import metering
from proxy.relay.connect import ConnectFailed
from proxy.relay.metering import FIRST_BYTES, FOLD_BYTES
from proxy.relay.options import ByteLimits
from proxy.wire.sse import EventFraming
from tests.relay import stage as s
from tests.relay.stage import FakeCounter, FoundTokens, Stage

REPORT = (
    b'data: {"id":"c","model":"gpt-5-2026","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,'
    b'"total_tokens":18}}\n\n'
)
DOCUMENT = b'{"id":"x","model":"gpt-5-2026","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}'
PRICES = Prices.of(b'{"version":"t","prices":[{"provider":"openai","model":"gpt-5*","input":1,"output":10}]}')
BIG = b"data: " + b" " * 900 + s.text(b"hello there")[6:]


def used(receipt: Receipt) -> tuple[int | None, str, int | None, str, bool]:
    usage = receipt.usage
    assert usage is not None
    return usage.input, usage.input_source.value, usage.output, usage.output_source.value, usage.complete


def stream(stage: Stage, *reads: bytes, ask: bytes = b"") -> s.Peer:
    """A client asks for a stream, and the provider says these blocks of events, one a read."""
    client = stage.client()
    client.says(ask or s.ask_stream())
    upstream = stage.upstream()
    upstream.says(s.STREAM_HEAD)
    for read in reads:
        upstream.says(s.chunk(read))
    return client


# -- reported ---------------------------------------------------------------------------------------------------------


def test_a_reported_stream_needs_nobody_to_count() -> None:
    counter = FakeCounter()
    with Stage(counter=counter, prices=PRICES) as stage:
        stream(stage, s.text(), s.FINISH, REPORT)
        stage.upstream().says(s.chunk(s.DONE) + s.LAST)
        receipt = stage.receipt()
        assert used(receipt) == (11, "reported", 7, "reported", True)
        assert (receipt.model_requested, receipt.model_served) == ("gpt-5", "gpt-5-2026")
        assert (receipt.cost_micros, receipt.price_version) == (81, "t")
        assert (counter.folded, counter.told) == ([], [])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_reported_document(size: int) -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        stage.client().says(s.ask())
        stage.upstream().says_each(s.unary(DOCUMENT), size)
        receipt = stage.receipt()
        assert used(receipt) == (11, "reported", 7, "reported", True)
        assert receipt.cost_micros is None, "there are no prices"
        assert counter.told == []


def test_a_streaming_call_answered_with_a_document() -> None:
    with Stage(counter=FakeCounter()) as stage:
        stage.client().says(s.ask_stream())
        stage.upstream().says(s.unary(DOCUMENT))
        assert used(stage.receipt()) == (11, "reported", 7, "reported", True)


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("size", [3, 10_000])
def test_a_compressed_answer_is_read_on_the_side(is_stream: bool, size: int) -> None:
    """Its bytes pass as they are."""
    packer = zlib.compressobj(wbits=31)
    plain = s.text() + s.FINISH + REPORT + s.DONE if is_stream else DOCUMENT
    packed = packer.compress(plain) + packer.flush()
    with Stage(counter=FakeCounter(), identity=False) as stage:
        client = stage.client()
        client.says(s.ask_stream() if is_stream else s.ask())
        stage.upstream().says_each(s.unary(packed, b"200 OK", b"Content-Encoding: gzip"), size)
        assert client.heard() == s.passed_on(packed, b"200 OK", b"Content-Encoding: gzip")
        assert used(stage.receipt()) == (11, "reported", 7, "reported", True)


@pytest.mark.parametrize("coding", [b"gzip", b"snappy"])
def test_what_cannot_be_decompressed_is_estimated(coding: bytes) -> None:
    with Stage(counter=FakeCounter()) as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(s.unary(b"no gzip", b"200 OK", b"Content-Encoding: " + coding))
        assert client.heard() == s.passed_on(b"no gzip", b"200 OK", b"Content-Encoding: " + coding)
        (told,) = stage_counter(stage).told
        assert (told.data, told.request) == (b"", s.BODY)
        told.done(FoundTokens(99, 4))
        assert used(stage.receipt())[:2] == (4, "counted")


def stage_counter(stage: Stage) -> FakeCounter:
    assert isinstance(stage.relay.counter, FakeCounter)
    return stage.relay.counter


def test_a_stream_that_told_an_error_has_no_final_report() -> None:
    with Stage(counter=FakeCounter()) as stage:
        running = REPORT.replace(b'"choices":[]', b'"choices":[{"delta":{"content":"a"}}]')
        stream(stage, s.text(), running, b'data: {"error":{"message":"overloaded"}}\n\n')
        stage.upstream().says(s.LAST)
        receipt = stage.receipt()
        assert (receipt.ended_kind, used(receipt)) == ("error_event", (11, "reported", 7, "reported", False))


def test_a_stream_that_broke_behind_its_finish_has_one() -> None:
    with Stage(counter=FakeCounter()) as stage:
        stream(stage, s.text(), s.FINISH, REPORT)
        stage.upstream().resets()
        receipt = stage.receipt()
        assert (receipt.ended_kind, used(receipt)) == ("reset", (11, "reported", 7, "reported", True))


# -- counted ----------------------------------------------------------------------------------------------------------


def test_a_cut_stream_is_counted_and_the_client_does_not_wait_for_it() -> None:
    counter = FakeCounter()
    with Stage(counter=counter, prices=PRICES) as stage:
        client = stream(stage, s.text(), s.text(b"more"))
        stage.upstream().resets()
        assert client.heard().endswith(s.chunk(s.openai_event(CUT, "reset")))
        assert stage.receipts == []
        (told,) = counter.told
        assert told[1:5] == ("openai-chat", s.text() + s.text(b"more"), True, s.STREAM_BODY)
        told.done(FoundTokens(2, 5))
        receipt = stage.receipt()
        assert used(receipt) == (5, "counted", 2, "counted", False)
        assert receipt.usage is not None
        assert (receipt.usage.counted_input, receipt.usage.counted_output) == (5, 2)
        assert receipt.cost_micros == 25
        assert receipt.ended_kind == "reset"


CUT = "the upstream closed the connection in the middle of its answer"


def test_a_factor_of_the_family_is_applied_and_the_bare_count_kept() -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        client = stage.client()
        body = b'{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[]}'
        client.says(s.request(b"POST", b"/v1/messages", body))
        stage.upstream().says(s.unary(b'{"model":"claude-sonnet-4-5","content":[]}'))
        (told,) = counter.told
        told.done(FoundTokens(1000, 100))
        receipt = stage.receipt()
        assert used(receipt)[:4] == (112, "counted", 1120, "counted")
        assert receipt.usage is not None
        assert (receipt.usage.counted_input, receipt.usage.counted_output) == (100, 1000)


def test_a_request_with_more_than_text_makes_its_count_an_estimate() -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        stage.client().says(s.ask())
        stage.upstream().says(s.unary(b"{}"))
        counter.told[0].done(FoundTokens(0, 40, has_other=True))
        assert used(stage.receipt())[:2] == (40, "estimated")


def test_who_left_before_the_answer_may_have_to_pay_for_the_question() -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        client = stage.client()
        client.says(s.ask())
        client.half_closes()
        (told,) = counter.told
        assert (told.data, told.request) == (b"", s.BODY)
        told.done(FoundTokens(None, 3))
        assert used(stage.receipt()) == (3, "counted", None, "none", False)


def test_what_never_reached_a_provider_used_nothing() -> None:
    with Stage(counter=FakeCounter()) as stage:
        stage.connects.append(ConnectFailed(Kind.CONNECT_FAILED, "refused"))
        stage.client().says(s.ask())
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.usage) == (Kind.CONNECT_FAILED.value, None)


@pytest.mark.parametrize("status", [b"400 Bad Request", b"500 Oops", b"302 Found"])
def test_an_error_uses_nothing(status: bytes) -> None:
    with Stage(counter=FakeCounter()) as stage:
        stage.client().says(s.ask())
        stage.upstream().says(s.unary(DOCUMENT, status))
        assert stage.receipt().usage is None


def test_questions_about_tokens_use_none() -> None:
    with Stage(counter=FakeCounter()) as stage:
        stage.client().says(s.request(b"POST", b"/v1/messages/count_tokens", b'{"model":"claude-x","messages":[]}'))
        stage.upstream().says(s.unary(b'{"input_tokens":43}'))
        assert stage.receipt().usage is None


def test_without_meters_nothing_is_read() -> None:
    with Stage(counter=FakeCounter(), meters=False) as stage:
        stage.client().says(s.ask())
        stage.upstream().says(s.unary(DOCUMENT))
        assert stage.receipt().usage is None


def test_a_long_document_without_a_report_is_estimated_and_not_counted_as_nothing() -> None:
    """It is not kept, so the counter gets none of its text and says 0."""
    counter = FakeCounter()
    document = b'{"choices":[{"message":{"content":"%b"}}]}' % (b"word " * FOLD_BYTES)
    with Stage(counter=counter) as stage:
        stage.client().says(s.ask())
        stage.upstream().says_each(s.unary(document), 50_000)
        (told,) = counter.told
        assert (told.data, told.request) == (b"", s.BODY)
        told.done(FoundTokens(0, 5))
        receipt = stage.receipt()
        assert used(receipt)[2:4] == (estimate_events("openai-chat", len(document), False), "estimated")
        assert receipt.usage is not None
        assert receipt.usage.counted_output is None


@pytest.mark.parametrize("size", [10, FOLD_BYTES])
def test_embeddings_generate_nothing_however_long_they_are(size: int) -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        stage.client().says(s.request(b"POST", b"/v1/embeddings", b'{"model":"e","input":"hi"}'))
        stage.upstream().says(s.unary(b'{"data":[{"embedding":[%b1]}]}' % (b"0.25," * size)))
        (told,) = counter.told
        assert told.data == b""
        told.done(FoundTokens(None, 1))
        assert used(stage.receipt()) == (1, "counted", 0, "counted", False)


def test_text_of_an_answer_that_was_reported_is_not_counted_for_its_input() -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        stage.client().says(s.ask())
        stage.upstream().says(s.unary(b'{"choices":[],"usage":{"completion_tokens":7}}'))
        (told,) = counter.told
        assert (told.data, told.request) == (b"", s.BODY)
        told.done(FoundTokens(0, 5))
        receipt = stage.receipt()
        assert used(receipt) == (5, "counted", 7, "reported", False)
        assert receipt.usage is not None
        assert receipt.usage.counted_output is None


def test_a_compressed_answer_is_estimated_by_what_it_says() -> None:
    packer = zlib.compressobj(wbits=31)
    plain = BIG * (FOLD_BYTES // len(BIG))
    packed = packer.compress(plain) + packer.flush()
    with Stage(identity=False) as stage:
        stage.client().says(s.ask_stream())
        stage.upstream().says(s.unary(packed, b"200 OK", b"Content-Encoding: gzip"))
        assert used(stage.receipt())[2:4] == (estimate_events("openai-chat", len(plain)), "estimated")


class BrokenPrices(Prices):
    def cost(self, *_: object) -> int | None:
        raise ArithmeticError


@pytest.mark.sources
def test_a_fault_in_a_price_costs_neither_receipt_nor_connection() -> None:
    with Stage(counter=FakeCounter(), prices=BrokenPrices("t", ())) as stage:
        client = stage.client()
        for _ in range(2):
            client.says(s.ask())
            stage.upstream().transport.receive(s.unary(DOCUMENT))
            assert len(stage.loop.expect_errors()) == 1
        assert used(stage.receipts[0]) == (11, "reported", 7, "reported", True)
        assert (len(stage.receipts), stage.receipts[0].cost_micros) == (2, None)
        assert not client.is_gone


@pytest.mark.sources
def test_a_fault_in_a_meter_costs_neither_receipt_nor_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(metering.Metering, "_fill_input")
    with Stage() as stage:
        client = stage.client()
        for _ in range(2):
            client.says(s.ask())
            stage.upstream().transport.receive(s.unary())
            assert len(stage.loop.expect_errors()) == 1
        assert [receipt.letters for receipt in stage.receipts] == ["--", "--"]
        assert not client.is_gone


def test_an_unfinished_event_hides_no_report_before_it() -> None:
    """In Gemini's array all elements that wait are read as one text."""
    elements = b'[{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":3},"modelVersion":"g1"}\n,{"cand'
    with Stage(counter=FakeCounter()) as stage:
        meter = metering.Metering(stage.relay, 1, DIALECTS["gemini"], b"")
        meter.decode(b"gzip", EventFraming.JSON_ARRAY)
        meter.feed(gzip.compress(elements))
        told: list[Usage] = []
        meter.finish(True, False, lambda usage, model: told.append(usage))
        assert [(usage.input, usage.output) for usage in told] == [(9, 3)]


# -- folded -----------------------------------------------------------------------------------------------------------


def test_a_long_stream_is_folded_in_pieces_of_64_kib() -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        count = 3 * FOLD_BYTES // len(BIG)
        stream(stage, *[BIG] * count)
        stage.upstream().resets()
        assert [FOLD_BYTES < len(folded) <= FOLD_BYTES + 2 * FIRST_BYTES for folded in counter.folded] == [True, True]
        (told,) = counter.told
        assert len(told.data) < FOLD_BYTES + FIRST_BYTES
        assert b"".join(counter.folded) + told.data == BIG * count
        told.done(FoundTokens(500, 5))
        assert used(stage.receipt())[2:4] == (500, "counted")


def test_a_long_stream_that_is_reported_is_not_counted() -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        stream(stage, *[BIG] * ((FOLD_BYTES + 2 * FIRST_BYTES) // len(BIG)), s.FINISH, REPORT)
        stage.upstream().says(s.chunk(s.DONE) + s.LAST)
        assert used(stage.receipt()) == (11, "reported", 7, "reported", True)
        assert (len(counter.folded), counter.forgotten, counter.told) == (1, [1], [])


@pytest.mark.parametrize(
    "body",
    [b'{"error":{"message":"overloaded","code":503}}', b' {\n "type" : "error", "error": {}}', b'{ "error" : "no" }'],
)
def test_an_error_under_a_good_status_uses_nothing(body: bytes) -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        stage.client().says(s.ask())
        stage.upstream().says(s.unary(body))
        stream(stage, b"event: error\ndata: {}\n\n")
        stage.upstream().says(s.LAST)
        stream(stage, b"data: " + body.strip().replace(b"\n", b" ") + b"\n\n")
        stage.upstream().says(s.LAST)
        for receipt in stage.receipts:
            assert used(receipt) == (None, "none", None, "none", False)
            assert receipt.cost_micros is None
        assert counter.told == []


def test_a_counter_that_takes_no_more_means_an_estimate() -> None:
    counter = FakeCounter(takes=False)
    with Stage(counter=counter) as stage:
        count = 2 * FOLD_BYTES // len(BIG)
        stream(stage, *[BIG] * count)
        stage.upstream().resets()
        (told,) = counter.told
        told.done(FoundTokens(3, 5))
        found = used(stage.receipt())
        assert found[:4] == (5, "counted", estimate_events("openai-chat", len(BIG) * count), "estimated")


@pytest.mark.parametrize("counter", [None, FakeCounter()])
def test_where_nobody_can_count_bytes_must_do(counter: FakeCounter | None) -> None:
    with Stage(counter=counter) as stage:
        stream(stage, s.text())
        stage.upstream().resets()
        if counter is not None:
            counter.told[0].done(None)
        assert used(stage.receipt()) == (
            estimate(len(s.STREAM_BODY)),
            "estimated",
            estimate_events("openai-chat", len(s.text())),
            "estimated",
            False,
        )


def test_a_long_request_is_estimated() -> None:
    counter = FakeCounter()
    body = b'{"model":"gpt-5","messages":[{"role":"user","content":"%b"}]}' % (b"a word " * (FOLD_BYTES // 7))
    with Stage(counter=counter) as stage:
        stage.client().says(s.ask(body=body))
        stage.upstream().says(s.unary(b'{"choices":[]}'))
        (told,) = counter.told
        assert told.request is None
        told.done(FoundTokens(0, None))
        assert used(stage.receipt())[:2] == (estimate(len(body)), "estimated")


def test_a_photo_in_a_long_request_is_not_taken_for_text() -> None:
    text, photo = b"a few words " * 10_000, b"iVBORw0KGgoAAAANSUhEUgAA" * 40_000
    body = b'{"model":"gpt-5","messages":[{"content":"%b"},{"url":"data:image/png;base64,%b"}]}' % (text, photo)
    with Stage() as stage:
        stage.client().says(s.ask(body=body))
        stage.upstream().says(s.unary(b'{"choices":[]}'))
        given, source, *_ = used(stage.receipt())
        assert source == "estimated"
        assert given == pytest.approx(len(text) / 4, rel=0.1)


def test_all_that_is_kept_is_bounded() -> None:
    """With room for two beginnings and one whole stream, the second long stream is not kept, and estimated."""
    room = 2 * (FIRST_BYTES + len(s.STREAM_BODY)) + FOLD_BYTES
    counter = FakeCounter()
    with Stage(counter=counter, limits=ByteLimits(kept=room)) as stage:
        events = [BIG] * (2 * FIRST_BYTES // len(BIG))
        stream(stage, *events)
        assert stage.relay.kept == len(s.STREAM_BODY) + FIRST_BYTES + FOLD_BYTES
        stream(stage, *events)
        assert stage.relay.kept == room
        for upstream in stage.upstreams:
            upstream.resets()
        first, second = counter.told
        assert len(first.data) == len(BIG) * len(events)
        for told in (first, second):
            told.done(FoundTokens(9, 5))
        assert [used(receipt)[3] for receipt in stage.receipts] == ["counted", "estimated"]


# -- include_usage ----------------------------------------------------------------------------------------------------

ASKED = b'{"stream_options":{"include_usage":true},"model":"gpt-5","stream":true,"messages":[]}'
ASKS_ITSELF = b'{"model":"gpt-5","stream":true,"stream_options":{"include_usage":true},"messages":[]}'


def asking(**changes: object) -> tuple[s.Provider, ...]:
    return (s.openai_provider(takes_include_usage=True, **changes),)


@pytest.mark.parametrize("size", [1, 13, 10_000])
def test_usage_is_asked_for_and_its_report_is_kept_from_the_client(size: int) -> None:
    with Stage(counter=FakeCounter(), providers=asking()) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        assert upstream.heard() == s.sent_on(ASKED)
        null = s.text().replace(b"}\n\n", b',"usage":null}\n\n')
        upstream.says(s.STREAM_HEAD)
        upstream.says_each(s.chunk(s.ROLE + null + s.FINISH + REPORT + s.DONE) + s.LAST, size)
        heard = client.heard()
        assert b"".join(chunks(heard)) == s.ROLE + null + s.FINISH + s.DONE
        receipt = stage.receipt()
        assert used(receipt) == (11, "reported", 7, "reported", True)
        assert receipt.bytes_out == len(s.ROLE + null + s.FINISH + s.DONE)


def chunks(answer: bytes) -> list[bytes]:
    """The data of each chunk of an answer that ended."""
    rest = answer.partition(b"\r\n\r\n")[2]
    found = []
    while rest != s.LAST:
        size, _, rest = rest.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return found


def test_who_asks_for_usage_sees_it() -> None:
    with Stage(providers=asking()) as stage:
        client = stream(stage, s.text(), s.FINISH, REPORT, ask=s.ask(body=ASKS_ITSELF))
        upstream = stage.upstream()
        assert upstream.heard() == s.sent_on(ASKS_ITSELF)
        upstream.says(s.chunk(s.DONE) + s.LAST)
        assert REPORT in client.heard()
        assert used(stage.receipt())[2:4] == (7, "reported")


@pytest.mark.parametrize(
    ("events", "ending"),
    [
        (REPORT[:-1], b""),  # a server that leaves the last line end out
        (REPORT[:-2], b""),
        (REPORT[:-2].replace(b" ", b"", 1), b""),
        (b'data: {"choices":[],"usage":{"total_tokens":18}}\n\n' + s.DONE, s.DONE),  # no figure that we read
        (REPORT.replace(b"\n", b"\r\n") + s.DONE, s.DONE),
        (b": ping\n\n" + REPORT + s.DONE[:-1], b": ping\n\n" + s.DONE[:-1]),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_the_report_is_hidden_in_whatever_form_it_comes(events: bytes, ending: bytes, size: int) -> None:
    with Stage(providers=asking()) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD)
        upstream.says_each(s.chunk(s.text() + s.FINISH + events) + s.LAST, size)
        assert b"".join(chunks(client.heard())) == s.text() + s.FINISH + ending
        assert stage.receipt().complete


def test_a_report_before_the_finish_is_hidden_too() -> None:
    with Stage(providers=asking()) as stage:
        client = stream(stage, s.text(), REPORT, s.text(b"more"), s.FINISH)
        stage.upstream().says(s.chunk(s.DONE) + s.LAST)
        assert b"".join(chunks(client.heard())) == s.text() + s.text(b"more") + s.FINISH + s.DONE
        assert used(stage.receipt()) == (11, "reported", 7, "reported", True)


@pytest.mark.parametrize("behind", [b"", s.text(b"x" * 70_000)])
def test_the_report_is_hidden_beside_events_that_are_too_long_to_wait(behind: bytes) -> None:
    long = s.text(b"x" * 70_000)
    with Stage(providers=asking()) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(long[:69_000]))
        upstream.says(s.chunk(long[69_000:] + s.FINISH + REPORT + behind[:69_000]))
        upstream.says(s.chunk(behind[69_000:] + s.DONE) + s.LAST)
        assert b"".join(chunks(client.heard())) == long + s.FINISH + behind + s.DONE
        assert used(stage.receipt()) == (11, "reported", 7, "reported", True)


@pytest.mark.parametrize("coding", [True, False])
def test_a_stream_that_may_come_compressed_is_not_asked(coding: bool) -> None:
    """The report could not be taken out of it."""
    with Stage(providers=asking(), identity=False) as stage:
        stage.client().says(s.ask_stream(*[b"Accept-Encoding: gzip"] * coding))
        assert (b"include_usage" in stage.upstream().heard()) is not coding
        stage.upstream().resets()
        stage.receipt()


@pytest.mark.parametrize("meters", [True, False])
def test_who_must_not_be_asked_is_not(meters: bool) -> None:
    providers = asking() if not meters else None
    with Stage(providers=providers, meters=meters) as stage:
        client = stream(stage, s.text(), s.FINISH, REPORT)
        assert stage.upstream().heard() == s.sent_on(s.STREAM_BODY)
        stage.upstream().says(s.chunk(s.DONE) + s.LAST)
        assert REPORT in client.heard()
        stage.receipt()


@pytest.mark.parametrize(("version", "asks"), [(b"2024-06-01", False), (b"2024-10-21", True), (b"preview", True)])
def test_older_versions_of_azure_are_not_asked(version: bytes, asks: bool) -> None:
    with Stage(providers=asking()) as stage:
        body = s.STREAM_BODY
        stage.client().says(s.request(b"POST", s.CHAT + b"?api-version=" + version, body))
        heard = stage.upstream().heard()
        assert (b"include_usage" in heard) is asks
        stage.upstream().resets()
        stage.receipt()


def test_a_renamed_model_and_usage_go_into_one_body() -> None:
    with Stage(providers=asking()) as stage:
        stage.client().says(s.ask(body=b'{"model":"openai/gpt-5","stream":true}'))
        heard = stage.upstream().heard()
        assert heard.endswith(b'\r\n\r\n{"stream_options":{"include_usage":true},"model":"gpt-5","stream":true}')
        stage.upstream().resets()
        assert stage.receipt().attempts[0].model == "gpt-5"


# -- what else a receipt has ------------------------------------------------------------------------------------------


def test_tags_are_noted_and_bounded_and_stay_here() -> None:
    with Stage() as stage:
        stage.client().says(s.ask(b"X-LLM-Proxy-Tags: team=search, run=7"))
        assert b"tags" not in stage.upstream().heard().lower()
        stage.upstream().says(s.unary())
        assert stage.receipt().tags == "team=search, run=7"
        stage.client().says(s.ask(b"x-llm-proxy-tags: " + b"t" * 1000))
        stage.upstream().says(s.unary())
        assert stage.receipt().tags == "t" * 256


def test_times_of_the_phases() -> None:
    with Stage(holds_connects=True) as stage:
        client = stage.client()
        asked = s.ask()
        client.says(asked[:-5])
        stage.advance(1.0)
        client.says(asked[-5:])
        stage.advance(2.0)
        stage.connect()
        stage.advance(4.0)
        stage.upstream().says(s.unary())
        receipt = stage.receipt()
        times = (receipt.body_ms, receipt.connect_ms, receipt.sent_ms, receipt.first_byte_ms, receipt.total_ms)
        assert times == (1000.0, 2000.0, 3000.0, 7000.0, 7000.0)
        assert (receipt.attempts[0].started_ms, receipt.attempts[0].ended_ms) == (1000.0, 7000.0)


def test_timing_is_told_to_clients_where_they_are_to_know() -> None:
    with Stage(shows_timing=True, holds_connects=True) as stage:
        client = stage.client()
        client.says(s.ask())
        stage.advance(2.0)
        stage.connect()
        stage.advance(4.0)
        stage.upstream().says(s.unary())
        head = client.heard().partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert b"server-timing: llm-proxy;dur=0.000, connect;dur=2000.000, provider;dur=4000.000" in head
        assert b"x-llm-proxy-request-id: " + s.ID in head


def test_usage_is_a_value() -> None:
    assert Usage(1) == Usage(1)
    assert Usage().source is Source.NONE
