"""A request body between the two connections. Whole exchanges: test_exchange."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxy.relay.body import RequestBody
from proxy.relay.options import ByteLimits
from proxy.wire.head import Framing

pytestmark = pytest.mark.sources  # its relay and its link are no real ones


class FakeLink:
    """Remembers what it was given."""

    def __init__(self, is_lost: bool = False) -> None:
        self.is_lost = is_lost
        self.writes: list[bytes] = []
        self.transport = SimpleNamespace(write=self.writes.append)

    def send(self, head: bytes, pieces: list[bytes], size: int) -> None:
        assert size == sum(map(len, pieces))
        self.writes.append(head + b"".join(pieces))


def body_of(relay: Any, *pieces: bytes, is_held: bool = True) -> RequestBody:
    body = RequestBody(relay)
    body.hold(is_held)
    if pieces:
        body.keep(list(pieces))
    return body


def relay_of(**limits: int) -> Any:
    return SimpleNamespace(bodies=0, options=SimpleNamespace(bytes=ByteLimits(**limits)))


def test_what_is_held_adds_up_and_is_given_back_once() -> None:
    relay = relay_of(bodies=10)
    first, second = body_of(relay, b"abc", b"de"), body_of(relay, b"fghij")
    assert (first.size, relay.bodies) == (5, 10)
    assert first.has_room
    second.keep([b"k"])
    assert not first.has_room
    first.release()
    first.release()
    assert (first.size, relay.bodies) == (0, 6)
    second.release()
    assert relay.bodies == 0


def test_each_kind_has_its_limit() -> None:
    relay = relay_of(body=5, upload=7)
    assert body_of(relay).limit == 5
    assert body_of(relay, is_held=False).limit == 7


def test_the_whole_is_the_pieces() -> None:
    relay = relay_of()
    assert body_of(relay, b"abc", b"", b"de").whole() == b"abcde"
    assert body_of(relay).whole() == b""


def test_a_splice_changes_the_account() -> None:
    relay = relay_of()
    body = body_of(relay, b'{"model":', b'"a/b","x":1}')
    changed = body.version("longer name", False, False)
    assert changed == [b'{"model":"longer name","x":1}']
    assert relay.bodies == body.size + len(changed[0])


def test_each_version_is_made_once_and_the_first_one_stays() -> None:
    relay = relay_of()
    body = body_of(relay, b'{"model":"a"}')
    assert body.version("b", False, False) is body.version("b", False, False)
    assert body.version("c", False, False) == [b'{"model":"c"}']
    assert body.version(None, False, False) == [b'{"model":"a"}']
    body.release()
    assert relay.bodies == 0


def test_the_last_one_takes_the_place_of_the_first() -> None:
    relay = relay_of()
    body = body_of(relay, b'{"model":"a"}')
    assert body.version("bb", False, True) == [b'{"model":"bb"}']
    assert relay.bodies == body.size == 14


def test_a_large_one_is_sent_once() -> None:
    relay = relay_of(replay=10)
    assert body_of(relay, b"0123456789").can_be_sent_again
    assert not body_of(relay, b"0123456789a").can_be_sent_again
    assert not body_of(relay, b"", is_held=False).can_be_sent_again


def test_what_was_kept_for_a_link_goes_out_and_is_let_go() -> None:
    for framing, expected in ((Framing.LENGTH, b"HEAD abcde"), (Framing.CHUNKED, b"HEAD 5\r\nabcde\r\n0\r\n\r\n")):
        relay = relay_of()
        body = body_of(relay, b"abc", b"de", is_held=False)
        link: Any = FakeLink()
        body.send_kept(link, b"HEAD ", framing)
        body.end(link, framing)
        assert b"".join(link.writes) == expected
        assert relay.bodies == 0


def test_no_pieces_make_no_chunk() -> None:
    """An empty chunk would end the body."""
    body = body_of(relay_of(), is_held=False)
    link: Any = FakeLink()
    body.forward(link, [], Framing.CHUNKED)
    body.forward(link, [b""], Framing.CHUNKED)
    assert b"".join(link.writes) == b""


def test_a_lost_link_is_not_written_to() -> None:
    body = body_of(relay_of(), is_held=False)
    link: Any = FakeLink(is_lost=True)
    body.forward(link, [b"abc"], Framing.CHUNKED)
    body.end(link, Framing.CHUNKED)
    assert link.writes == []
