"""One link to a provider, and the budget of the straight path: frames, writes, tasks, timers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest

from proxy.relay.upstream import JOIN_BYTES, LARGE_READ, SMALL_READ, SmallReads
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage

FRAMES = 6  # per streamed read, as DESIGN 4 wants


def frames_of(upstream: Peer, data: bytes) -> list[str]:
    """The Python functions of the project that one read runs through."""
    seen: list[str] = []
    ours = f"{Path('proxy').name}/"

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and f"/{ours}" in frame.f_code.co_filename:
            seen.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        upstream.protocol.data_received(data)
    finally:
        sys.setprofile(None)
    return seen


def streaming(stage: Stage) -> tuple[Peer, Peer]:
    client = stage.client()
    client.says(s.ask_stream())
    upstream = stage.upstream()
    upstream.says(s.STREAM_HEAD + s.chunk(s.ROLE))
    upstream.says(s.chunk(s.text(b"the first teaches the watch")))
    upstream.says(s.chunk(s.text(b"shown")))  # and the size of chunks like "usual"
    client.writes()
    return client, upstream


def test_frames_of_a_streamed_read() -> None:
    with Stage() as stage:
        client, upstream = streaming(stage)
        seen = frames_of(upstream, s.chunk(s.text(b"usual")))
        assert len(seen) <= FRAMES, seen
        assert client.writes() == [s.chunk(s.text(b"usual"))]


def test_a_streamed_read_arms_nothing() -> None:
    with Stage() as stage:
        client, upstream = streaming(stage)
        timers, deadline = len(stage.loop.timers), client.protocol.deadline
        for _ in range(50):
            upstream.protocol.data_received(s.chunk(s.text()))
        assert len(stage.loop.timers) == timers == 1
        assert client.protocol.deadline == deadline
        assert not stage.loop._ready
        assert len(client.writes()) == 50
        client.resets()


def test_a_request_on_a_pooled_link_needs_no_task_and_no_turn_of_the_loop() -> None:
    with Stage() as stage:
        upstream = stage.warm()
        client = stage.client()
        client.heard()
        timers = len(stage.loop.timers)
        client.protocol.data_received(s.ask())
        assert upstream.writes() == [s.sent_on()], "one write, in the same call stack"
        assert stage.loop.tasks == []
        assert len(stage.relay.tasks) == 0
        assert not stage.loop._ready
        upstream.protocol.data_received(s.unary())
        assert client.writes() == [s.passed_on()]
        assert stage.loop.tasks == []
        assert not stage.loop._ready
        assert len(stage.loop.timers) == timers


def test_a_large_body_is_not_copied_behind_its_head() -> None:
    body = b'{"model":"gpt-5","x":"' + b"x" * JOIN_BYTES + b'"}'
    with Stage() as stage:
        upstream = stage.warm()
        lists: list[int] = []
        write_all = upstream.transport.writelines
        upstream.transport.writelines = lambda data: (lists.append(len(list(data))), write_all(data))[1]  # type: ignore[method-assign]
        client = stage.client()
        client.says(s.ask(body=body))
        assert lists == [2]
        assert upstream.heard() == s.sent_on(body)
        client.resets()


# -- a client that does not read ----------------------------------------------------------------------------------

EVENTS = s.chunk(s.text(b"some words")) * 12  # in one write of a provider's
HIGH = 16 * 1024  # of what waits for a client, in our memory


def pour(upstream: Peer, size: int) -> bytes:
    """The provider sends so much, and more than the relay reads."""
    data = EVENTS * (size // len(EVENTS))
    upstream.says(data)
    return data


def waiting(client: Peer) -> int:
    return client.transport.get_write_buffer_size()


def test_what_waits_for_a_client_that_does_not_read_is_bounded() -> None:
    with Stage() as stage:
        client, upstream = streaming(stage)
        client.transport.block()
        sent = pour(upstream, HIGH + 4096)
        assert upstream.transport.paused
        sent += pour(upstream, 2_000_000)
        # It takes all that waits, but stays a little behind: less is read at once, and much all the same.
        client.reads_on(waiting(client))
        assert HIGH + SMALL_READ < waiting(client) < HIGH + LARGE_READ
        for _ in range(4):  # It takes its time: hardly more is read than it takes.
            stage.advance(0.2)
            client.reads_on(waiting(client))
            assert 0 < waiting(client) < HIGH + SMALL_READ
        client.reads_on()
        upstream.says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        assert stage.receipt().complete
        body = b"".join(client.writes()).replace(b"\r\n", b"")
        assert body.count(b"some words") == sent.count(b"some words"), "and nothing is lost or said twice"


def test_what_has_been_read_is_not_kept_beside_what_waits() -> None:
    with Stage() as stage:
        client, upstream = streaming(stage)
        client.transport.block()
        pour(upstream, 50_000)
        assert s.exchange_of(client).answer.cutter.block == b""
        client.resets()


def test_a_link_reads_freely_again_with_its_next_answer() -> None:
    with Stage() as stage:
        client, upstream = streaming(stage)
        client.transport.block()
        pour(upstream, 50_000)
        assert isinstance(upstream.transport.get_protocol(), SmallReads)
        stage.advance(0.2)
        client.reads_on()
        assert upstream.protocol.read_most == SMALL_READ
        upstream.says(s.chunk(s.FINISH + s.DONE) + s.LAST)
        assert upstream.transport.get_protocol() is upstream.protocol
        assert stage.pooled == 1
        client.says(s.ask())
        upstream.says(s.unary(b"x" * 3 * LARGE_READ))
        assert client.writes()[-1].endswith(b"x" * 3 * LARGE_READ), "one read, one write"
        assert upstream.protocol.uses == 2


@pytest.mark.parametrize("end", ["eof", "reset"])
def test_a_link_that_reads_little_sees_its_end(end: str) -> None:
    with Stage() as stage:
        client, upstream = streaming(stage)
        client.transport.block()
        pour(upstream, 50_000)
        client.reads_on()
        upstream.half_closes() if end == "eof" else upstream.resets()
        assert stage.receipt().ended_kind == "reset"
        assert client.heard().count(b"closed the connection in the middle") == 1
        assert stage.pooled == 0


def test_a_request_that_is_still_sent_while_its_answer_is_read_in_little() -> None:
    with Stage() as stage:
        client, upstream = streaming(stage)
        client.transport.block()
        pour(upstream, 50_000)
        upstream.stops_reading()
        assert upstream.protocol.is_full
        upstream.reads_on()
        assert not upstream.protocol.is_full
        client.resets()


def test_uses_are_counted() -> None:
    with Stage() as stage:
        upstream = stage.warm()
        client = stage.client()
        for expected in (2, 3):
            client.says(s.ask())
            assert upstream.protocol.uses == expected
            upstream.says(s.unary())


def test_callbacks_after_the_end_do_nothing() -> None:
    with Stage() as stage:
        upstream = stage.warm()
        upstream.resets()
        protocol = upstream.protocol
        protocol.data_received(b"late")
        protocol.eof_received()
        protocol.connection_lost(None)
        protocol.pause_writing()
        protocol.resume_writing()
        stage.loop.run_ready()
        assert stage.relay.pool.open == 0


def test_an_end_that_is_told_twice_counts_once() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().half_closes()
        stage.upstream().protocol.connection_lost(None)
        assert client.heard().count(b"HTTP/1.1 502 ") == 1
        assert len(stage.receipts) == 1


def test_a_reset_while_it_does_not_read_is_seen() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.STREAM_HEAD + s.chunk(s.text()))
        client.stops_reading()
        assert stage.upstream().transport.paused
        stage.upstream().resets()
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == ("UD", "reset")
        client.reads_on()
        assert client.heard().endswith(b"}}\n\n\r\n")


def test_an_end_that_waits_in_the_kernel_is_seen_when_reading_goes_on() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        upstream = stage.upstream()
        upstream.says(s.OPEN_STREAM_HEAD + s.text())
        client.stops_reading()
        upstream.transport.receive(s.DONE)
        upstream.transport.receive_eof()
        stage.loop.run_ready()
        assert stage.receipts == []
        client.reads_on()
        stage.loop.run_ready()
        assert client.heard().endswith(s.chunk(s.DONE) + s.LAST)
        assert stage.receipt().complete


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_answer_until_close_that_is_reset_is_cut(version: bytes, is_cut: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n"
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask(version=version))
        upstream = stage.upstream()
        upstream.says(head + s.DOCUMENT[:9])
        if is_cut:
            upstream.resets()
        else:
            upstream.half_closes()
        heard = client.heard()
        assert heard.count(s.DOCUMENT[:9]) == 1
        assert heard.endswith(s.LAST) is (version == b"1.1" and not is_cut)
        receipt = stage.receipt()
        assert (receipt.letters, receipt.ended_kind) == (("UD", "reset") if is_cut else ("--", "complete"))
        assert client.is_gone is (is_cut or version == b"1.0")
        assert client.transport.socket.linger == ((1, 0) if is_cut and version == b"1.0" else None)


def test_a_stream_until_close_that_is_reset_behind_its_finish_is_cut() -> None:
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask_stream())
        stage.upstream().says(s.OPEN_STREAM_HEAD + s.text() + s.FINISH)
        stage.upstream().resets()
        assert not client.heard().endswith(s.LAST)
        assert stage.receipt().ended_kind == "reset"


def test_an_end_without_an_error_ends_until_close_well() -> None:
    """As after a half-close that asyncio answers with a close."""
    with Stage() as stage:
        client = stage.client()
        client.says(s.ask())
        stage.upstream().says(b"HTTP/1.1 200 OK\r\n\r\n" + s.DOCUMENT)
        stage.upstream().protocol.connection_lost(None)
        assert client.heard().endswith(s.LAST)
        assert stage.receipt().complete
