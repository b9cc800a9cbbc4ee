"""The log never waits, and never loses a line silently."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from proxy.outcome import Receipt
from proxy.telemetry.access_log import AccessLog

SECONDS = 20.0  # far more than anything here takes; only reached when something hangs


def a_receipt(number: int = 0) -> Receipt:
    return Receipt(id=str(number), started_at=0.0, client="unix", method="GET", path="/")


class Gate:
    """Imitates a reader: collects what is written, and blocks while it is shut."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.reached = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def write(self, data: bytes) -> None:
        self.reached.set()
        assert self.open.wait(SECONDS)
        self.written.append(data)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in b"".join(self.written).splitlines()]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            pass  # the test closed it


def fill(writer: int) -> int:
    """Fill a pipe to its last byte; how many bytes went in."""
    was_blocking = os.get_blocking(writer)
    os.set_blocking(writer, False)
    size = 0
    try:
        while True:
            size += os.write(writer, b"." * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, was_blocking)
    return size


def test_every_receipt_becomes_a_line_in_order() -> None:
    gate = Gate()
    log = AccessLog(gate.write, "json")
    log.start()
    for number in range(1000):
        log.observe(a_receipt(number))
    assert log.close(SECONDS)
    assert [line["id"] for line in gate.lines] == [str(n) for n in range(1000)]
    assert log.dropped == 0


def test_pieces_are_whole_lines_that_a_pipe_takes_at_once() -> None:
    gate = Gate()
    log = AccessLog(gate.write, "json")
    for number in range(100):
        log.observe(a_receipt(number))
    log.start()
    log.close(SECONDS)
    assert len(gate.written) > 1
    assert all(piece.endswith(b"\n") and len(piece) <= 4096 for piece in gate.written)


def test_a_line_is_written_without_a_next_one_behind_it() -> None:
    """The thread goes idle between the two, and is woken."""
    gate = Gate()
    log = AccessLog(gate.write, "json")
    log.start()
    for _ in range(3):
        gate.reached.clear()
        log.observe(a_receipt())
        assert gate.reached.wait(SECONDS)
        while not log._is_idle:
            time.sleep(0.001)
    log.close(SECONDS)


def test_a_full_queue_drops_counts_and_says_so_once_it_can_write() -> None:
    gate = Gate()
    log = AccessLog(gate.write, "json", capacity=10)
    gate.open.clear()
    log.start()
    log.observe(a_receipt(-1))
    assert gate.reached.wait(SECONDS)  # the thread now hangs in its write
    for number in range(25):
        log.observe(a_receipt(number))
    assert log.dropped == 15
    gate.open.set()
    assert log.close(SECONDS)
    written = gate.lines
    assert [line["id"] for line in written if "id" in line] == ["-1"] + [str(n) for n in range(10)]
    [note] = [line for line in written if "message" in line]
    assert (note["level"], note["dropped"], note["dropped_total"]) == ("warn", 15, 15)


def test_a_full_pipe_stops_neither_the_caller_nor_close(pipe: tuple[int, int]) -> None:
    _reader, writer = pipe
    fill(writer)
    log = AccessLog(writer, "json", capacity=100)
    log.start()
    for number in range(5000):
        log.observe(a_receipt(number))
    began = time.monotonic()
    assert log.close(0.2) is False
    assert time.monotonic() - began < SECONDS / 2
    assert log._thread is not None and not log._thread.is_alive()
    assert log.dropped == 5000


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_pipe_that_is_read_again_gets_what_waited_and_the_count(pipe: tuple[int, int], is_blocking: bool) -> None:
    reader, writer = pipe
    os.set_blocking(writer, is_blocking)
    filled = fill(writer)
    log = AccessLog(writer, "json", capacity=100)
    for number in range(150):
        log.observe(a_receipt(number))
    log.start()
    while filled:
        filled -= len(os.read(reader, filled))
    read: list[bytes] = []
    drain = threading.Thread(target=lambda: read.extend(iter(lambda: os.read(reader, 65536), b"")))
    drain.start()
    assert log.close(SECONDS)
    os.close(writer)
    drain.join(SECONDS)
    got = [json.loads(line) for line in b"".join(read).splitlines()]
    assert [line["id"] for line in got if "id" in line] == [str(n) for n in range(100)]
    assert [line["dropped"] for line in got if "message" in line] == [50]


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    log = AccessLog(writer, "text")
    log.start()
    log.observe(a_receipt())
    assert log.close(SECONDS) is False
    assert log.dropped == 1


def test_a_line_bigger_than_the_pipe_is_written_whole(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    log = AccessLog(writer, "text")
    log.note("info", "x" * 20_000)
    read: list[bytes] = []
    drain = threading.Thread(target=lambda: read.extend(iter(lambda: os.read(reader, 65536), b"")))
    drain.start()
    assert log.close(SECONDS)
    os.close(writer)
    drain.join(SECONDS)
    assert b"".join(read).count(b"x") == 20_000


def test_off_writes_no_receipts_but_notes_as_text() -> None:
    gate = Gate()
    log = AccessLog(gate.write, "off")
    log.start()
    log.observe(a_receipt())
    log.note("warn", "no key is configured", listen="127.0.0.1:8080")
    assert log.close(SECONDS)
    assert b"".join(gate.written).endswith(b"  warn no key is configured  listen=127.0.0.1:8080\n")
    assert b"".join(gate.written).count(b"\n") == 1


def test_notes_and_receipts_share_one_form() -> None:
    gate = Gate()
    log = AccessLog(gate.write, "json")
    log.note("info", "listening", url="http://127.0.0.1:8080")
    log.observe(a_receipt())
    log.close(SECONDS)  # never started: a start that failed still says why
    first, second = gate.lines
    assert (first["message"], first["url"]) == ("listening", "http://127.0.0.1:8080")
    assert second["id"] == "0"


def test_what_comes_after_close_is_counted() -> None:
    gate = Gate()
    log = AccessLog(gate.write, "json")
    log.start()
    log.close(SECONDS)
    log.observe(a_receipt())
    assert log.dropped == 1


def test_a_value_that_cannot_be_shown_does_not_end_the_log() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    gate = Gate()
    log = AccessLog(gate.write, "json")
    log.note("info", "odd", value=Hostile())
    log.observe(a_receipt())
    assert log.close(SECONDS)
    assert "RuntimeError" in str(gate.lines[0]["message"])
    assert gate.lines[1]["id"] == "0"


def test_observe_costs_no_system_call_and_no_formatting_while_the_thread_is_busy() -> None:
    """The promise is under 2 us; here as the number of Python frames it may take, which no busy machine changes."""
    log = AccessLog(lambda data: None, "json")
    frames: list[str] = []
    sys.setprofile(lambda frame, event, _: frames.append(frame.f_code.co_name) if event == "call" else None)
    try:
        log.observe(a_receipt())
    finally:
        sys.setprofile(None)
    assert [name for name in frames if name not in ("__init__", "a_receipt")] == ["observe", "_take"]
    log.close(SECONDS)
