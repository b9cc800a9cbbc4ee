"""What a client sees of every fault, over a real loopback socket."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import ssl
import time
from typing import Any

import orjson
import pytest
import trustme
import uvloop

from proxy.simulator.faults import WORDS, FaultError, read
from proxy.simulator.provider import Simulator
from proxy.simulator.script import GARBAGE
from proxy.simulator.speech import TEXT
from proxy.wire.inflate import inflater
from tests.simulator.raw_client import CHAT, Seen, ask, dechunk, listen, request, texts, with_simulator

DONE = b"data: [DONE]\n\n"


def see(spec: str, until: bytes | None = b"0\r\n\r\n", **fields: Any) -> Seen:
    """What one streamed openai-chat request with this spec gets."""
    got: list[Seen] = []

    async def test(simulator: Simulator) -> None:
        got.append(await ask(simulator.port, request(spec, **fields), until))

    with_simulator(test)
    return got[0]


def deltas(chunks: list[bytes]) -> list[str]:
    return [texts(chunk) for chunk in chunks if texts(chunk)]


def test_without_a_fault_one_chunk_per_event_and_a_proper_end() -> None:
    seen = see("")
    chunks = dechunk(seen.body)
    assert seen.head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert all(chunk.endswith(b"\n\n") and chunk.count(b"\n\n") == 1 for chunk in chunks[:-1])
    assert len(deltas(chunks)) == 8
    assert texts(seen.body) == TEXT
    assert chunks[-2:] == [DONE, b""]


def test_a_whole_answer_has_a_length() -> None:
    seen = see("", None, stream=False)
    assert f"content-length: {len(seen.body)}".encode() in seen.head.lower()
    assert orjson.loads(seen.body)["choices"][0]["message"]["content"] == TEXT
    assert seen.end == "open"


@pytest.mark.parametrize("spec", ["refuse", "reset"])
def test_reset_before_the_head(spec: str) -> None:
    assert see(spec, None) == Seen(b"", "reset")


def test_refuse_as_default_needs_no_request() -> None:
    async def test(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        assert await listen(reader) == Seen(b"", "reset")
        writer.close()

    with_simulator(test, default="refuse")


def test_a_closed_listener_refuses_and_opens_again() -> None:
    async def test(simulator: Simulator) -> None:
        port = simulator.port
        simulator.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await simulator.listen_again()
        assert simulator.port == port
        assert (await ask(port, request(), DONE)).status == 200

    with_simulator(test)


def test_drop_request_closes_without_an_answer() -> None:
    assert see("drop-request", None) == Seen(b"", "eof")


def test_silent_answers_nothing() -> None:
    assert see("silent", None) == Seen(b"", "open")


def test_a_silence_ends_after_its_hold() -> None:
    assert see("silent hold=0.05", None) == Seen(b"", "eof")
    assert see("stall=1 hold=0.05", None).end == "eof"


def test_silent_as_default_reads_nothing() -> None:
    async def test(simulator: Simulator) -> None:
        seen = await ask(simulator.port, request())
        assert seen == Seen(b"", "open")
        assert simulator.requests == []

    with_simulator(test, default="silent")


def test_deaf_stops_reading_the_body() -> None:
    async def test(simulator: Simulator) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        size = 64 * 1024 * 1024
        writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: h\r\nx-simulate: deaf\r\nContent-Length: {size}\r\n\r\n".encode())
        writer.write(bytes(size))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await writer.drain()
        writer.transport.abort()
        assert not simulator.requests[0].complete

    with_simulator(test)


def test_a_client_that_leaves_ends_a_silence() -> None:
    async def test(simulator: Simulator) -> None:
        await ask(simulator.port, request("silent"))
        await simulator.until(lambda it: it.open_connections == 0)

    with_simulator(test)


def test_head_then_silence() -> None:
    seen = see("stall=0", None)
    assert (seen.status, seen.body, seen.end) == (200, b"", "open")


def test_stall_after_n_events() -> None:
    seen = see("stall=3", None)
    assert len(deltas(dechunk(seen.body))) == 3
    assert seen.end == "open"


def test_pings_during_a_stall_are_comments() -> None:
    seen = see("stall=1 ping=0.02 hold=0.2", None)
    chunks = dechunk(seen.body)
    assert len(deltas(chunks)) == 1
    assert chunks.count(b": simulated\n\n") >= 3


def test_comments_before_each_delta() -> None:
    assert dechunk(see("comments events=4").body).count(b": simulated\n\n") == 4


@pytest.mark.parametrize(("spec", "end"), [("cut=3", "eof"), ("cut-rst=3", "reset")])
def test_cut_after_n_events(spec: str, end: str) -> None:
    seen = see(spec, None)
    chunks = dechunk(seen.body)
    assert len(deltas(chunks)) == 3
    assert b"" not in chunks
    assert seen.end == end


def test_a_cut_beyond_the_last_delta_still_comes_before_the_end() -> None:
    seen = see("cut=99 events=2", None)
    assert len(deltas(dechunk(seen.body))) == 2
    assert b'"finish_reason":"stop"' not in seen.body
    assert seen.end == "eof"


def test_a_cut_in_a_whole_answer_comes_after_half_of_it() -> None:
    seen = see("cut=1", None, stream=False)
    length = int(seen.head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert 0 < len(seen.body) < length
    assert seen.end == "eof"


def test_malformed_event() -> None:
    events = dechunk(see("malformed=2 events=4").body)[:-1]
    broken = [event for event in events if event != DONE and not _is_json(event)]
    assert len(broken) == 1
    assert events.index(broken[0]) == 3  # the opening, two deltas, then this
    assert events[-1] == DONE
    assert broken[0].endswith(b"\n\n")


def test_missing_terminal_event() -> None:
    none = see("no-end")
    assert b"[DONE]" not in none.body
    assert b'"finish_reason":"stop"' not in none.body
    assert dechunk(none.body)[-1] == b""
    only_last = see("no-done")
    assert b"[DONE]" not in only_last.body
    assert b'"finish_reason":"stop"' in only_last.body


def test_bad_chunk() -> None:
    seen = see("bad-chunk=2", None)
    good, _, bad = seen.body.partition(b"5zz\r\n")
    assert len(deltas(dechunk(good))) == 2
    assert (bad, seen.end) == (b"hello\r\n", "eof")


def test_extra_bytes_after_the_end_and_the_connection_lives() -> None:
    async def test(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        for spec, size in [("extra=30", 30), ("late-extra=25", 25), ("extra=7", 7)]:
            writer.write(request(spec, stream=False))
            seen = await listen(reader)
            length = int(seen.head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            assert len(seen.body) == length + size
            assert seen.body[length:].startswith(b"HTTP/1.1 200 OK"[:size])
            assert seen.end == "open"
        writer.close()
        assert simulator.connections == 1

    with_simulator(test)


def test_slow_trickle() -> None:
    slow = see("trickle=1", b"\r\n\r\n{", stream=False)
    assert len(slow.body) == 1
    quick = see("trickle=100000", None)
    assert max(map(len, dechunk(quick.body))) <= 1000
    assert texts(b"".join(dechunk(quick.body))) == TEXT


def test_trickle_keeps_its_rate() -> None:
    async def test(simulator: Simulator) -> None:
        began = asyncio.get_running_loop().time()
        seen = await ask(simulator.port, request('trickle=4000 text="%s"' % ("x" * 800)), DONE[-3:] + b"\r\n0\r\n\r\n")
        size = sum(map(len, dechunk(seen.body)))
        assert asyncio.get_running_loop().time() - began > size / 4000 * 0.8

    with_simulator(test)


def test_pace_is_events_a_second() -> None:
    async def test(simulator: Simulator) -> None:
        began = asyncio.get_running_loop().time()
        await ask(simulator.port, request("pace=50 events=11"), DONE)
        assert 0.19 < asyncio.get_running_loop().time() - began < 2

    with_simulator(test)


def test_delay_comes_before_the_head() -> None:
    assert see("delay=30", None) == Seen(b"", "open")
    assert see("delay=0.05").status == 200


@pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 500, 503, 529])
def test_error_status(status: int) -> None:
    seen = see(f"status={status}", b"}\n}\n")
    assert seen.status == status
    assert "message" in orjson.loads(seen.body)["error"]
    assert b"retry-after" not in seen.head


def test_error_status_with_retry_after() -> None:
    assert b"retry-after: 2\r\n" in see("status=429 retry-after=2", b"}\n}\n").head + b"\r\n"
    assert b"retry-after-ms: 150\r\n" in see("status=429 retry-after-ms=150", b"}\n}\n").head + b"\r\n"
    assert (
        b"retry-after: Wed, 21 Oct 2026 07:28:00 GMT"
        in see('status=503 retry-after="Wed, 21 Oct 2026 07:28:00 GMT"', b"}\n}\n").head
    )


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int) -> None:
    seen = see(f"status={status}", None)
    assert (seen.status, seen.body, seen.end) == (status, b"", "open")


def test_error_event_in_mid_stream() -> None:
    chunks = dechunk(see("error=2").body)
    assert len(deltas(chunks[:3])) == 2
    assert orjson.loads(chunks[3][6:])["error"]["type"] == "server_error"
    assert chunks[4:] == [DONE, b""]


def test_huge_event() -> None:
    chunks = dechunk(see("huge=300000").body)
    assert max(map(len, chunks)) > 300_000
    assert sum(len(chunk) > 10_000 for chunk in chunks) == 1


@pytest.mark.parametrize("spec", ["gzip", "deflate", "deflate=bare", "br", "zstd"])
def test_codings_can_be_read_event_by_event(spec: str) -> None:
    coding = spec.partition("=")[0].encode()
    seen = see(spec)
    assert b"content-encoding: " + coding + b"\r\n" in seen.head + b"\r\n"
    taken = inflater(coding)
    assert taken is not None
    events = [taken.feed(chunk) for chunk in dechunk(seen.body)]
    assert texts(b"".join(events)) == TEXT
    assert deltas(events[1:2]) == ["The "]
    taken.feed(b"what follows a complete body is ignored")
    assert not taken.is_broken
    whole = see(spec, None, stream=False)
    taken = inflater(coding)
    assert taken is not None
    assert orjson.loads(taken.feed(whole.body))["object"] == "chat.completion"


def test_gzip_is_what_everybody_reads() -> None:
    assert texts(gzip.decompress(b"".join(dechunk(see("gzip").body)))) == TEXT


def test_figures_that_cannot_be_are_refused() -> None:
    seen = see("input=5 cached=6", b"}\n}\n")
    assert seen.status == 400
    assert "parts of input" in orjson.loads(seen.body)["error"]["message"]


@pytest.mark.parametrize(("eol", "end"), [("cr", b"\r\r"), ("crlf", b"\r\n\r\n"), ("lf", b"\n\n")])
def test_line_ends(eol: str, end: bytes) -> None:
    chunks = dechunk(see(f"eol={eol}").body)[:-1]
    assert len(chunks) == 11
    assert all(chunk.endswith(end) for chunk in chunks)


def test_cuts_of_an_answer_keep_its_bytes() -> None:
    whole = b"".join(dechunk(see("").body))
    for cut in ["whole", "bytes", "edges", "inside", "random:5"]:
        chunks = dechunk(see(f"cuts={cut}", b"\r\n0\r\n\r\n").body)
        assert b"".join(chunks) == whole
        assert len(chunks) > 20 or cut == "whole"


def test_framings() -> None:
    assert texts(see("framing=length", DONE).body) == TEXT
    assert b"content-length: " in see("framing=length", DONE).head.lower()
    chunked = see("framing=chunked", stream=False)
    assert b"".join(dechunk(chunked.body)).startswith(b"{")
    closing = see("framing=close", None)
    assert closing.end == "eof"
    assert texts(closing.body) == TEXT
    assert b"content-length" not in closing.head.lower()
    assert b"chunked" not in closing.head.lower()


def test_both_framings() -> None:
    seen = see("both-framings")
    assert b"content-length: " in seen.head
    assert b"transfer-encoding: chunked" in seen.head
    assert texts(b"".join(dechunk(seen.body))) == TEXT


@pytest.mark.parametrize(("offset", "end"), [(5, "eof"), (-5, "open")])
def test_a_length_that_is_wrong(offset: int, end: str) -> None:
    seen = see(f"length={offset:+d}", None, stream=False)
    assert int(seen.head.partition(b"content-length: ")[2].split(b"\r\n")[0]) == len(seen.body) + offset
    assert seen.end == end


def test_a_length_for_a_stream_beyond_memory_is_refused() -> None:
    seen = see("framing=length bytes=100000000 delay=0.01", b"}\n}\n")
    assert seen.status == 400
    assert b"only possible for answers up to" in seen.body


@pytest.mark.parametrize("status", [b"100", b"103"])
def test_interim_answers(status: bytes) -> None:
    seen = see(f"interim={status.decode()}", DONE)
    assert seen.data.startswith(b"HTTP/1.1 " + status)
    assert b"HTTP/1.1 200 OK" in seen.body


def test_endless_interim_answers() -> None:
    seen = see("interim=endless", b"HTTP/1.1 100 \r\n\r\n" * 5)
    assert b"HTTP/1.1 200" not in seen.data


def test_garbage_instead_of_a_head() -> None:
    assert see("garbage", None) == Seen(GARBAGE, "eof")


def test_close_says_so_and_drop_does_not() -> None:
    said = see("close", None)
    assert b"connection: close" in said.head.lower()
    assert (texts(said.body), said.end) == (TEXT, "eof")
    unsaid = see("drop", None)
    assert b"connection: close" not in unsaid.head.lower()
    assert (texts(unsaid.body), unsaid.end) == (TEXT, "eof")


def test_idle_close_leaves_time_for_a_request() -> None:
    async def test(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        for _ in range(2):
            writer.write(request("idle-close=0.1"))
            assert (await listen(reader, b"0\r\n\r\n")).status == 200
        assert await listen(reader, quiet=5) == Seen(b"", "eof")
        writer.close()

    with_simulator(test)


@pytest.mark.parametrize(("spec", "end"), [("drop-next", "eof"), ("reset-next", "reset")])
def test_a_pooled_connection_dies_at_the_next_request(spec: str, end: str) -> None:
    async def test(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(request(spec))
        assert texts((await listen(reader, b"0\r\n\r\n")).body) == TEXT
        assert (await listen(reader)).end == "open"
        writer.write(request())
        assert await listen(reader, quiet=5) == Seen(b"", end)
        writer.close()
        assert len(simulator.requests) == 1

    with_simulator(test)


def test_early_answers_before_the_body_and_reads_the_rest() -> None:
    async def test(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: h\r\nx-simulate: early=%d status=413\r\nContent-Length: 200000\r\n\r\n"
        for early in (0, 1000):
            writer.write((head % early).encode() + bytes(early))
            assert (await listen(reader, b"}\n}\n")).status == 413
            assert not simulator.requests[-1].complete
            writer.write(bytes(200_000 - early))
            await simulator.until(lambda it: it.requests[-1].complete)
            assert simulator.requests[-1].size == 200_000
        writer.close()
        assert simulator.connections == 1

    with_simulator(test)


def test_echo_of_an_unknown_path_shows_what_was_sent() -> None:
    async def test(simulator: Simulator) -> None:
        body = bytes(range(256)) * 100
        sent = (
            b"PATCH /files/a%20b?x=1 HTTP/1.1\r\nHoSt: h\r\nX-Two: 1\r\nx-tWO: 2\r\nContent-Length: 25600\r\n\r\n"
            + body
        )
        seen = orjson.loads((await ask(simulator.port, sent, b"}")).body)
        assert (seen["method"], seen["path"], seen["bytes"]) == ("PATCH", "/files/a%20b?x=1", 25600)
        assert seen["sha256"] == hashlib.sha256(body).hexdigest()
        assert seen["headers"][:3] == [["HoSt", "h"], ["X-Two", "1"], ["x-tWO", "2"]]
        kept = simulator.requests[0]
        assert (kept.body, kept.complete, kept.get("x-two")) == (body, True, "1")

    with_simulator(test)


def test_echo_on_request() -> None:
    assert orjson.loads(see("echo", b"]]}").body)["method"] == "POST"
    body = see("echo=body", b'"messages":[]}')
    assert orjson.loads(body.body) == {"model": "m", "stream": True, "messages": []}


def test_head_requests_and_old_clients() -> None:
    async def test(simulator: Simulator) -> None:
        head = await ask(simulator.port, request(path="/anything", method="HEAD"))
        assert (head.status, head.body, head.end) == (200, b"", "open")
        assert b"content-length: " in head.head.lower()
        old = await ask(simulator.port, request(version="1.0"))
        assert (texts(old.body), old.end) == (TEXT, "eof")
        assert b"chunked" not in old.head.lower()

    with_simulator(test)


def test_expect_100_continue_and_pipelining() -> None:
    async def test(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(b"PUT /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await listen(reader, b"\r\n\r\n")).data.startswith(b"HTTP/1.1 100")
        writer.write(b"ok" + request(path="/second", method="GET") + request(path="/third", method="GET"))
        seen = await listen(reader, b'"/third"')
        assert seen.data.index(b'"/x"') < seen.data.index(b'"/second"') < seen.data.index(b'"/third"')
        writer.close()

    with_simulator(test)


def test_model_header_and_default_each_over_the_one_before() -> None:
    async def test(simulator: Simulator) -> None:
        counts = []
        for spec, model in [("", "m"), ("", "sim-events:2"), ("events=3", "sim-events:2"), ("plain", "m")]:
            seen = await ask(simulator.port, request(spec, model=model), b"0\r\n\r\n")
            counts.append(len(deltas(dechunk(seen.body))))
        assert counts == [1, 2, 3, 8]

    with_simulator(test, default="events=1")


def test_orders_are_for_one_request_each() -> None:
    async def test(simulator: Simulator) -> None:
        simulator.order("events=3", "plain", "reset")
        path = "/v1/models/sim-events:2:streamGenerateContent?alt=sse"
        counts = []
        for spec, model in [("", "sim-events:2"), ("", "sim-events:2"), ("events=4", "m"), ("", "m")]:
            seen = await ask(simulator.port, request(spec, model=model), b"0\r\n\r\n")
            counts.append(len(deltas(dechunk(seen.body))) if seen.data else 0)
        assert counts == [3, 8, 0, 1]
        simulator.order("events=3")
        assert len(dechunk((await ask(simulator.port, request("", path), b"0\r\n\r\n")).body)) == 3 + 2
        with pytest.raises(FaultError):
            simulator.order("nonsense")

    with_simulator(test, default="events=1")


def test_the_default_may_be_changed_while_it_runs() -> None:
    async def test(simulator: Simulator) -> None:
        statuses = []
        for spec in ("status=503", "", "status=429"):
            simulator.default = read(spec)
            statuses.append((await ask(simulator.port, request(), b"}")).status)
        assert statuses == [503, 200, 429]

    with_simulator(test)


def test_it_is_noted_when_a_request_came() -> None:
    async def test(simulator: Simulator) -> None:
        before = time.monotonic()
        await ask(simulator.port, request("delay=0.05"), b"0\r\n\r\n")
        between = time.monotonic()
        await ask(simulator.port, request(), b"0\r\n\r\n")
        first, second = (seen.at for seen in simulator.requests)
        assert before <= first <= between - 0.04, "as it came, and not as it was answered"
        assert between <= second <= time.monotonic()

    with_simulator(test)


def test_plain_in_the_header_forgets_the_model_in_the_path() -> None:
    async def test(simulator: Simulator) -> None:
        path = "/v1/models/sim-events:2:streamGenerateContent?alt=sse"
        for spec, count in [("", 2), ("plain", 8)]:
            seen = await ask(simulator.port, request(spec, path), b"0\r\n\r\n")
            assert len(dechunk(seen.body)) == count + 2

    with_simulator(test)


def test_wrong_specs_are_answered_with_every_problem() -> None:
    async def test(simulator: Simulator) -> None:
        for sent in (request("ctu=3 gzip=1"), request(model="sim:ctu=3,gzip=1")):
            seen = await ask(simulator.port, sent, b"}\n}\n")
            assert seen.status == 400
            message = orjson.loads(seen.body)["error"]["message"]
            assert "did you mean cut?" in message
            assert "gzip takes no value" in message

    with_simulator(test)
    with pytest.raises(FaultError):
        Simulator(default="ctu=3")


def test_what_is_not_http_gets_400() -> None:
    async def test(simulator: Simulator) -> None:
        seen = await ask(simulator.port, b"NOT HTTP\r\n\r\n")
        assert (seen.status, seen.end) == (400, "eof")
        bad_chunk = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        assert (await ask(simulator.port, bad_chunk)).status == 400

    with_simulator(test)


def test_a_large_stream_waits_for_its_reader() -> None:
    async def test(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port, limit=65536)
        writer.write(request("bytes=200000000"))
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        line = next(iter(simulator._open.values()))
        assert line.writer.transport.get_write_buffer_size() < 200_000
        got = 0
        while got < 20_000_000:
            got += len(await reader.read(65536))
        writer.transport.abort()
        await simulator.until(lambda it: it.open_connections == 0)

    with_simulator(test)


def test_close_ends_everything_under_way() -> None:
    async def test(simulator: Simulator) -> None:
        writers = []
        for spec in ("silent", "stall=1 ping=0.01", "pace=1", "bytes=1000000000", "deaf", "interim=endless"):
            _, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            writer.write(request(spec))
            writers.append(writer)
        await simulator.until(lambda it: len(it.requests) == 6)
        assert simulator.open_connections == 6
        await simulator.close()
        assert simulator.open_connections == 0
        for writer in writers:
            writer.transport.abort()

    with_simulator(test)


def test_tls() -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    async def test(simulator: Simulator) -> None:
        for spec, end in [("drop", "eof"), ("cut=1", "eof"), ("cut-rst=1", "reset")]:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", simulator.port, ssl=client, server_hostname="localhost"
            )
            writer.write(request(spec))
            seen = await listen(reader, quiet=2)
            assert seen.status == 200
            assert seen.end == end
            writer.transport.abort()

    with_simulator(test, ssl=server)


def test_endings_on_uvloop() -> None:
    async def test(simulator: Simulator) -> None:
        for spec, deltas_seen, end in [
            ("cut=3", 3, "eof"),
            ("cut-rst=3", 3, "reset"),
            ("stall=2", 2, "open"),
            ("drop", 8, "eof"),
            ("", 8, "open"),
        ]:
            seen = await ask(simulator.port, request(spec))
            assert (len(deltas(dechunk(seen.body))), seen.end) == (deltas_seen, end), spec
        for spec, end in [("refuse", "reset"), ("reset", "reset"), ("drop-request", "eof"), ("silent", "open")]:
            assert await ask(simulator.port, request(spec)) == Seen(b"", end), spec

    with_simulator(test, loop=uvloop.new_event_loop)


def test_every_word_is_tried_here() -> None:
    with open(__file__, encoding="utf-8") as source:
        text = source.read()
    elsewhere = {"text", "tool", "think", "replay"}  # test_voices, test_replay
    elsewhere |= {"input", "output", "cached", "cache-write", "reasoning", "usage", "quote"}  # test_speech
    assert [word for word in WORDS if word not in text and word not in elsewhere] == []


def _is_json(event: bytes) -> bool:
    try:
        json.loads(event[6:])
    except ValueError:
        return False
    return True
