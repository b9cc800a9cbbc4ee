"""Arithmetic on the stamps of an exchange. Whole exchanges: test_exchange_limits."""

from __future__ import annotations

from math import inf

import pytest

from proxy.outcome import Limit, Phase
from proxy.relay import phases
from proxy.relay.phases import RATE_GRACE_SECONDS, Seconds
from tests.relay import stage as s


def test_zero_is_infinity_and_every_limit_has_its_place() -> None:
    seconds = Seconds.of({limit: float(number) for number, limit in enumerate(Limit)})
    assert Seconds._fields == tuple(limit.value for limit in Limit)
    assert seconds.idle == inf
    assert seconds[1:] == tuple(float(number) for number in range(1, len(Limit)))


def test_what_is_not_given_is_infinity() -> None:
    assert set(Seconds.of({})._replace(hold=inf)) == {inf}


def test_an_answer_that_is_not_held_is_not_held_for_ever() -> None:
    assert Seconds.of({}).hold == 0.0


def test_an_alias_may_have_limits_of_its_own() -> None:
    seconds = Seconds.of({Limit.TOTAL: 5.0, Limit.STREAM: 6.0})
    own = seconds.with_own({Limit.TOTAL: 0.0, Limit.FIRST_EVENT: 3.0})
    assert (own.total, own.first_event, own.stream) == (inf, 3.0, 6.0)


@pytest.mark.parametrize(
    ("elapsed", "received", "rate", "is_slow"),
    [
        (RATE_GRACE_SECONDS, 0, 256, False),
        (RATE_GRACE_SECONDS + 0.1, 0, 256, True),
        (100.0, 25_599, 256, True),
        (100.0, 25_600, 256, False),
        (1e6, 0, 0, False),
    ],
)
def test_a_drip(elapsed: float, received: int, rate: int, is_slow: bool) -> None:
    failure = phases._drip(1000.0, 1000.0 + elapsed, received, rate)
    assert (failure is not None) is is_slow
    if failure is not None:
        assert (failure.side.value, failure.phase, failure.kind.value) == ("client", Phase.BODY, "timeout")


def test_every_phase_that_waits_names_who_is_silent() -> None:
    waiting = {Phase.BODY, Phase.QUEUE, Phase.SEND, Phase.FIRST_BYTE, Phase.FIRST_EVENT, Phase.STREAM}
    assert set(phases._SILENCE) == waiting
    assert {side.value for side, _ in phases._SILENCE.values()} == {"client", "proxy", "upstream"}


def test_progress_moves_since_while_sending_and_silence_does_not() -> None:
    with s.Stage() as stage:
        upstream = stage.warm()
        upstream.transport.block()
        client = stage.client()
        client.says(s.ask(body=b'{"model":"gpt-5","x":"' + b"x" * 100_000 + b'"}'))
        exchange = s.exchange_of(client).attempts.current
        stage.advance(10.0)
        began = exchange.since
        upstream.transport.drain(10)
        stage.advance(2.0)
        moved = exchange.since
        assert moved > began
        stage.advance(5.0)
        assert exchange.since == moved
        client.resets()
