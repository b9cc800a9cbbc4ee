"""The request on its way: phases by which a link that takes nothing is known."""

from __future__ import annotations

from proxy.outcome import Phase
from tests.relay import stage as s
from tests.relay.stage import Stage

LARGE = b'{"model":"gpt-5","x":"' + b"x" * 200_000 + b'"}'


def test_a_body_that_the_link_does_not_take_is_being_sent() -> None:
    with Stage() as stage:
        upstream = stage.warm()
        upstream.transport.block()
        client = stage.client()
        client.says(s.ask(body=LARGE))
        attempt = s.exchange_of(client).attempts.current
        assert (attempt.phase, attempt.limit, attempt.sent_at) == (Phase.SEND, 25.0, 0.0)
        upstream.reads_on()
        assert attempt.phase is Phase.FIRST_BYTE
        assert attempt.sent_at > 0
        upstream.says(s.unary())
        assert client.heard() == s.passed_on()


def test_an_answer_that_comes_before_the_request_is_sent_is_an_answer() -> None:
    with Stage() as stage:
        upstream = stage.warm()
        upstream.transport.block()
        client = stage.client()
        client.says(s.ask(body=LARGE))
        upstream.says(s.unary(status=b"413 Too Large"))
        assert s.status_of(client.heard()) == 413
        receipt = stage.receipt()
        assert (receipt.sent_ms, receipt.status) == (None, 413)
        assert upstream.is_gone, "what is still to be sent would be read as the next request"
