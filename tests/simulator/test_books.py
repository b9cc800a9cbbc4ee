"""The books say what went out, and how it ended; their sums are the sums of their entries."""

from __future__ import annotations

import asyncio

import pytest

from proxy.simulator.books import MOST_ENTRIES, MOST_TOTALS, OTHER_MODELS, Books, Ending, Entry, Line, Total
from proxy.simulator.provider import Simulator
from proxy.simulator.voices import Report
from tests.simulator.raw_client import CHAT, ask, dechunk, listen, request, with_simulator

USAGE = {"stream_options": {"include_usage": True}}
GEMINI = "/v1beta/models/m:streamGenerateContent?alt=sse"


def kept(*sent: bytes, until: bytes | None = b"0\r\n\r\n") -> list[Entry]:
    """The entries after these requests, each on a connection of its own."""
    found: list[Entry] = []

    async def test(simulator: Simulator) -> None:
        for each in sent:
            await ask(simulator.port, each, until)
        await simulator.until(lambda it: len(it.books.entries) == len(sent))
        found.extend(simulator.books.entries)

    with_simulator(test)
    return found


def test_an_answer_that_ended_is_booked_with_its_report() -> None:
    [entry] = kept(request("input=70 output=9 cached=20 events=3", **USAGE))
    assert (entry.request_id, entry.dialect, entry.model) == ("req_sim00000001", "openai-chat", "m")
    assert (entry.status, entry.ending, entry.events) == (200, Ending.ENDED, 7)  # opening, 3, finish, usage, [DONE]
    assert (entry.report, entry.is_reported) == (Report(70, 9, 20), True)


def test_the_bytes_are_those_of_the_body_without_its_framing() -> None:
    async def test(simulator: Simulator) -> None:
        for spec in ("", "gzip", "zstd cuts=bytes", "trickle=100000"):
            seen = await ask(simulator.port, request(spec), b"\r\n0\r\n\r\n")
            await simulator.until(lambda it: it.open_connections == 0)
            assert simulator.books.entries[-1].bytes == sum(map(len, dechunk(seen.body)))
            assert simulator.books.entries[-1].events == 11
        whole = await ask(simulator.port, request(stream=False))
        await simulator.until(lambda it: it.open_connections == 0)
        assert (simulator.books.entries[-1].bytes, simulator.books.entries[-1].events) == (len(whole.body), 1)

    with_simulator(test)


@pytest.mark.parametrize("spec", ["cut=2", "cut-rst=2", "bad-chunk=2", "stall=2 hold=0.05"])
def test_what_was_cut_has_no_final_report(spec: str) -> None:
    chat, gemini, messages = kept(
        request(spec, **USAGE), request(spec, GEMINI), request(spec, "/v1/messages"), until=None
    )
    assert {entry.ending for entry in (chat, gemini, messages)} == {Ending.CUT}
    assert (chat.report, chat.events) == (None, 3)
    assert gemini.report is not None and (gemini.report.output, gemini.events) == (2, 2)
    assert messages.report is not None and messages.report.output == 1  # from its first event
    assert not any(entry.is_reported for entry in (chat, gemini, messages))


@pytest.mark.parametrize("spec", ["reset", "drop-request", "garbage", "silent hold=0.05"])
def test_no_head_is_status_0(spec: str) -> None:
    [entry] = kept(request(spec), until=None)
    assert (entry.status, entry.events, entry.bytes, entry.ending) == (0, 0, 0, Ending.CUT)


def test_a_length_that_is_not_met_is_a_cut() -> None:
    [entry] = kept(request("length=+5", stream=False), until=None)
    assert (entry.ending, entry.is_reported) == (Ending.CUT, True)


@pytest.mark.parametrize("spec", ["no-end", "usage=never", "status=429"])
def test_a_message_that_ends_without_a_report(spec: str) -> None:
    [entry] = kept(request(spec, **USAGE), until=None)
    assert (entry.ending, entry.report) == (Ending.ENDED, None)


def test_the_error_event_ends_the_message() -> None:
    [entry] = kept(request("error=2"))
    assert (entry.ending, entry.events) == (Ending.ENDED, 5)  # opening, 2, the error and [DONE]


@pytest.mark.parametrize("spec", ["pace=100 events=100000", "stall=1", "silent", "bytes=1000000000", "delay=30"])
def test_a_client_that_leaves(spec: str) -> None:
    async def test(simulator: Simulator) -> None:
        await ask(simulator.port, request(spec), b"data: " if spec[0] in "pb" else None)
        await simulator.until(lambda it: len(it.books.entries) == 1)
        [entry] = simulator.books.entries
        assert (entry.ending, entry.is_reported) == (Ending.LEFT, False)

    with_simulator(test)


def test_a_client_that_leaves_after_the_end_has_not_left() -> None:
    [entry] = kept(request("late-extra"), until=b"0\r\n\r\n")
    assert entry.ending is Ending.ENDED


def test_what_the_end_of_the_simulator_stops_is_a_cut() -> None:
    async def test(simulator: Simulator) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(request("pace=1"))
        await simulator.until(lambda it: len(it.requests) == 1)
        await simulator.close()
        assert [entry.ending for entry in simulator.books.entries] == [Ending.CUT]
        writer.transport.abort()

    with_simulator(test)


def test_requests_that_are_not_answered_are_not_in_the_books() -> None:
    async def test(simulator: Simulator) -> None:
        await ask(simulator.port, request("refuse"))
        await ask(simulator.port, b"NOT HTTP\r\n\r\n")
        await ask(simulator.port, request()[:-3])
        await simulator.until(lambda it: it.open_connections == 0)
        assert (list(simulator.books.entries), simulator.books.totals) == ([], {})

    with_simulator(test)


def test_the_totals_are_the_sums_of_the_entries() -> None:
    async def test(simulator: Simulator) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        for model in ("sim:events=3", "sim-events:5", "other", "sim"):
            for path in (CHAT, "/v1/messages", "/v1/responses"):
                writer.write(request("reasoning=3 cached=2 cache-write=1 usage", path, model=model))
                await listen(reader, b"0\r\n\r\n")
        writer.close()
        await ask(simulator.port, request("cut=1", "/v1/messages", model="sim"))
        await simulator.until(lambda it: len(it.books.entries) == 13)
        books = simulator.books
        assert set(books.totals) == {
            Line(dialect, model, Ending.ENDED)
            for dialect in ("openai-chat", "anthropic-messages", "openai-responses")
            for model in ("sim", "other")
        } | {Line("anthropic-messages", "sim", Ending.CUT)}
        summed = Books()
        for entry in books.entries:
            summed.file(entry)
        assert summed.totals == books.totals
        total = books.totals[Line("openai-chat", "sim", Ending.ENDED)]
        assert (total.answers, total.reported, total.reasoning, total.cached, total.cache_write) == (3, 3, 9, 6, 3)
        assert total.output == 3 + 5 + 8 + 9
        cut = books.totals[Line("anthropic-messages", "sim", Ending.CUT)]
        assert (cut.answers, cut.reported, cut.input, cut.output) == (1, 0, 0, 0)
        assert cut.events == 4 and cut.bytes > 0  # message_start, ping, the begin of a block, one delta

    with_simulator(test)


def test_the_books_are_bounded() -> None:
    books = Books()
    for number in range(MOST_ENTRIES + 5):
        books.file(Entry(str(number), "plain", str(number), ending=Ending.ENDED, events=1))
    assert len(books.entries) == MOST_ENTRIES
    assert books.entries[0].request_id == "5"
    assert len(books.totals) <= MOST_TOTALS + 10  # and what is beyond, for each dialect and ending
    assert books.totals[Line("plain", OTHER_MODELS, Ending.ENDED)] == Total(
        MOST_ENTRIES + 5 - MOST_TOTALS, events=19_005
    )
