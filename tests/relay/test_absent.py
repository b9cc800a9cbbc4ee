"""Clients that leave, and answers that are read on without them."""

from __future__ import annotations

import pytest

from proxy.outcome import Side
from proxy.policy.keys import CANCEL, AuthMode, Disconnect
from proxy.relay.options import ByteLimits
from tests.relay import stage as s
from tests.relay.stage import FakeCounter, FoundTokens, Stage
from tests.relay.test_metering import DOCUMENT, REPORT, used

DRAIN = Disconnect(drains=True)
REST = s.chunk(s.text(b"later") + s.FINISH + REPORT + s.DONE) + s.LAST


def left_in_mid_stream(stage: Stage, *lines: bytes, leave: str = "half_closes") -> None:
    client = stage.client()
    client.says(s.ask_stream(*lines))
    stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
    getattr(client, leave)()


@pytest.mark.parametrize("leave", ["half_closes", "resets"])
def test_the_true_usage_of_a_stream_that_was_left(leave: str) -> None:
    counter = FakeCounter()
    with Stage(counter=counter, disconnect=DRAIN) as stage:
        left_in_mid_stream(stage, leave=leave)
        assert stage.receipts == []
        assert not stage.upstream().is_gone
        stage.upstream().says(REST)
        receipt = stage.receipt()
        assert (receipt.ended_by, receipt.ended_kind, receipt.letters) == (Side.CLIENT, "client_left", "CD")
        assert not receipt.complete
        assert used(receipt) == (11, "reported", 7, "reported", True)
        assert (receipt.status, receipt.bytes_out) == (200, len(s.text()))
        attempt = receipt.attempts[0]
        assert (attempt.status, attempt.failure) == (200, None)
        assert counter.told == []
        assert stage.pooled == 1, "the link may serve another exchange"


def test_a_document_that_was_left_before_it_began() -> None:
    with Stage(counter=FakeCounter(), disconnect=DRAIN) as stage:
        client = stage.client()
        client.says(s.ask())
        client.half_closes()
        assert client.is_gone
        stage.upstream().says(s.unary(DOCUMENT))
        receipt = stage.receipt()
        assert (receipt.status, receipt.bytes_out, receipt.ended_kind) == (0, 0, "client_left")
        assert used(receipt) == (11, "reported", 7, "reported", True)


def test_who_cancels_closes_the_link_at_once() -> None:
    counter = FakeCounter()
    with Stage(counter=counter) as stage:
        left_in_mid_stream(stage)
        assert stage.upstream().is_gone
        counter.told[0].done(FoundTokens(1, 5))
        assert used(stage.receipt()) == (5, "counted", 1, "counted", False)


def test_nothing_is_drained_before_the_provider_has_the_request() -> None:
    with Stage(disconnect=DRAIN, holds_connects=True) as stage:
        client = stage.client()
        client.says(s.ask())
        client.half_closes()
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.usage) == ("client_left", None)


def test_a_drain_that_is_cut_is_counted() -> None:
    counter = FakeCounter()
    with Stage(counter=counter, disconnect=DRAIN) as stage:
        left_in_mid_stream(stage)
        stage.upstream().says(s.chunk(s.text(b"later")))
        stage.upstream().resets()
        (told,) = counter.told
        assert told.data == s.text() + s.text(b"later")
        told.done(FoundTokens(2, 5))
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.bytes_out) == ("client_left", len(s.text()))
        assert used(receipt) == (5, "counted", 2, "counted", False)
        assert s.kind_of(receipt.attempts[0].failure) == "reset"


def test_a_drain_ends_after_its_seconds() -> None:
    with Stage(disconnect=Disconnect(True, 30.0)) as stage:
        left_in_mid_stream(stage)
        stage.advance(29.0)
        assert stage.receipts == []
        stage.advance(1.5)
        assert stage.receipt().ended_kind == "client_left"
        assert stage.upstream().is_gone


def test_a_drain_keeps_the_limits_of_its_phase() -> None:
    with Stage(disconnect=DRAIN) as stage:
        left_in_mid_stream(stage)
        stage.advance(s.SECONDS[s.Limit.STREAM] + 1.0)
        receipt = stage.receipt()
        assert receipt.ended_kind == "client_left"
        assert s.kind_of(receipt.attempts[0].failure) == "timeout"


def test_a_drain_is_bounded_in_bytes() -> None:
    with Stage(disconnect=DRAIN, limits=ByteLimits(drain=1000)) as stage:
        left_in_mid_stream(stage)
        upstream = stage.upstream()
        for _ in range(20):
            if not upstream.is_gone:
                upstream.says(s.chunk(s.text()))
        assert upstream.is_gone
        assert stage.receipt().ended_kind == "client_left"


def test_drains_are_bounded_in_number() -> None:
    with Stage(disconnect=DRAIN, limits=ByteLimits(drains=1)) as stage:
        left_in_mid_stream(stage)
        left_in_mid_stream(stage)
        assert [upstream.is_gone for upstream in stage.upstreams] == [False, True]
        stage.upstream(0).says(REST)
        assert len(stage.receipts) == 2
        left_in_mid_stream(stage)
        assert not stage.upstream(0).is_gone, "there is room again"
        stage.upstream(0).says(REST)


def test_keys_have_policies_of_their_own() -> None:
    keys = {"batch": "k" * 20, "chat": "c" * 20}
    with Stage(mode=AuthMode.KEYS, keys=keys, disconnect=CANCEL, disconnect_by_key={"batch": DRAIN}) as stage:
        left_in_mid_stream(stage, b"Authorization: Bearer " + b"c" * 20)
        assert stage.upstream().is_gone
        left_in_mid_stream(stage, b"Authorization: Bearer " + b"k" * 20)
        assert not stage.upstream().is_gone
        stage.upstream().says(REST)
        assert [receipt.key for receipt in stage.receipts] == ["chat", "batch"]


def test_a_client_that_did_not_read_has_paused_its_provider_no_longer() -> None:
    with Stage(disconnect=DRAIN, limits=ByteLimits(buffer=1000)) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.STREAM_HEAD + s.chunk(s.text()))
        client.stops_reading()
        assert upstream.transport.paused
        client.resets()
        assert not upstream.transport.paused
        upstream.says(REST)
        assert used(stage.receipt())[2:4] == (7, "reported")


def test_shutting_down_ends_a_drain() -> None:
    with Stage(disconnect=DRAIN) as stage:
        left_in_mid_stream(stage)
        stage.relay.give_up()
        receipt = stage.receipt()
        assert receipt.ended_kind == "client_left"
        assert s.kind_of(receipt.attempts[0].failure) == "shutdown"


def test_who_is_shutting_down_begins_no_drain() -> None:
    with Stage(disconnect=DRAIN) as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        stage.relay.is_draining = True
        client.half_closes()
        assert stage.upstream().is_gone
        stage.receipt()


def test_a_stale_link_is_not_replaced_for_a_client_that_has_left() -> None:
    """The provider has not begun: it would work, and be paid, for nobody."""
    with Stage(disconnect=DRAIN) as stage:
        stale = stage.warm()
        client = stage.client()
        client.says(s.ask_stream())
        client.half_closes()
        stale.resets()
        assert len(stage.upstreams) == 1
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.usage) == ("client_left", None)


def test_nothing_is_drained_while_a_stale_link_is_replaced() -> None:
    with Stage(disconnect=DRAIN) as stage:
        stale = stage.warm()
        stage.holds_connects = True
        client = stage.client()
        client.says(s.ask())
        stale.resets()
        client.half_closes()
        receipt = stage.receipt()
        assert (receipt.ended_kind, receipt.usage, receipt.sent_ms) == ("client_left", None, None)
