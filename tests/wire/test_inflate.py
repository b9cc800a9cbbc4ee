"""What a compressed body says comes out at once and whole; a bomb costs nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator

import brotli
import pytest

from proxy.wire.inflate import Inflater, inflater
from tests.wire.compressing import CODINGS, Compressor, an_event, compressed, flushed_events, zstd, zstd_frame
from tests.wire.feeding import each_byte, whole

MIB = 1024 * 1024
MEMBERS = (b"gzip", b"zstd")  # codings of which another may follow where one ends
TEXT = b"".join(an_event(number) for number in range(200))


def named(coding: bytes) -> bytes:
    """What a server says in `content-encoding`."""
    return coding.removeprefix(b"bare ")


def an_inflater(coding: bytes) -> Inflater:
    found = inflater(named(coding))
    assert found is not None
    return found


def cut_at_random(data: bytes, seed: int) -> Iterator[bytes]:
    draw = random.Random(seed)
    at = 0
    while at < len(data):
        size = draw.choice((1, 2, 3, 10, 100, 1000))
        yield data[at : at + size]
        at += size


def fed(coding: bytes, pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    """What came out, and whether it broke."""
    taken = an_inflater(coding)
    return b"".join([taken.feed(piece) for piece in pieces]), taken.is_broken


def zeros(coding: bytes, size: int) -> bytes:
    return compressed(coding, [bytes(MIB)] * (size // MIB))


# What is right


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("body", [b"", b"x", TEXT, bytes(300_000), random.Random(1).randbytes(200_000)])
def test_a_body_comes_out_however_it_is_cut(coding: bytes, body: bytes) -> None:
    data = compressed(coding, [body])
    assert fed(coding, whole(data)) == (body, False)
    assert fed(coding, each_byte(data)) == (body, False)
    for seed in range(5):
        assert fed(coding, cut_at_random(data, seed)) == (body, False)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_flushed_event_comes_out_at_once(coding: bytes) -> None:
    taken = an_inflater(coding)
    for number, data in enumerate(flushed_events(coding)):
        assert taken.feed(data) == an_event(number)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 98_272, 128 * 1024, 500_000])
def test_so_does_one_that_fills_a_step(coding: bytes, size: int) -> None:
    """A library that has filled its output may hold more back, though it has no input left."""
    compressor = Compressor(coding)
    taken = an_inflater(coding)
    for letter in b"ab":
        event = bytes([letter]) * size
        assert taken.feed(compressor.event(event)) == event


@pytest.mark.parametrize("coding", CODINGS)
def test_a_whole_answer_that_grows_to_many_megabytes_passes(coding: bytes) -> None:
    body = random.Random(2).randbytes(1000) * 20_000
    pieces = [random.Random(3).randbytes(400_000), body]  # 20 MB out of 400 KB and a little
    assert fed(coding, whole(compressed(coding, pieces))) == (b"".join(pieces), False)


@pytest.mark.parametrize("coding", MEMBERS)
def test_several_members_are_one_body(coding: bytes) -> None:
    data = b"".join(compressed(coding, [an_event(number)]) for number in range(100))
    assert fed(coding, whole(data)) == (TEXT[: len(TEXT) // 2], False)
    assert fed(coding, each_byte(data)) == (TEXT[: len(TEXT) // 2], False)


@pytest.mark.parametrize("coding", MEMBERS)
def test_an_event_in_a_member_of_its_own_passes_for_ever(coding: bytes) -> None:
    member = compressed(coding, [random.Random(4).randbytes(100)])
    _, is_broken = fed(coding, [member] * 2000)
    assert not is_broken


def test_a_skippable_frame_of_zstd_is_skipped() -> None:
    skipped = bytes.fromhex("502a4d18 04000000") + b"skip"
    frame = compressed(b"zstd", [b"said"])
    for data in (skipped + frame, frame + skipped + frame):
        for pieces in (whole(data), each_byte(data)):
            assert fed(b"zstd", pieces) == (b"said" * data.count(frame), False)


@pytest.mark.parametrize("bits", range(9, 16))
def test_deflate_is_told_from_its_first_byte(bits: int) -> None:
    for level in (0, 1, 6, 9):
        for wbits in (bits, -bits):
            compressor = zlib.compressobj(level, wbits=wbits)
            data = compressor.compress(TEXT) + compressor.flush()
            assert fed(b"deflate", each_byte(data)) == (TEXT, False)


@pytest.mark.parametrize("lgwin", [10, 16, 22, 24])
def test_every_window_of_br_passes(lgwin: int) -> None:
    assert fed(b"br", whole(brotli.compress(TEXT, lgwin=lgwin))) == (TEXT, False)


# What ends early, or goes on


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_that_was_cut_off_gave_what_was_flushed(coding: bytes) -> None:
    events = flushed_events(coding, 20)
    data = b"".join(events)
    for size in range(0, len(data), 7):
        got, is_broken = fed(coding, whole(data[:size]))
        assert not is_broken
        assert TEXT.startswith(got)
        arrived = sum(size >= len(b"".join(events[:count])) for count in range(1, 21))
        assert len(got) >= len(b"".join(an_event(number) for number in range(arrived)))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("garbage", [b"\0" * 512, b"trailing", b"\x1f\x8bno", b"\x28\xb5\x2f\xfd"])
def test_what_follows_the_end_is_ignored(coding: bytes, garbage: bytes) -> None:
    data = compressed(coding, [TEXT])
    assert fed(coding, [data, garbage, garbage]) == (TEXT, False)
    assert fed(coding, each_byte(data + garbage)) == (TEXT, False)
    if coding != b"br":  # its library drops the last piece then
        assert fed(coding, whole(data + garbage)) == (TEXT, False)


# What is not what it says


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("body", [b"data: {}\n\n", b'{"id": 1}' * 100, b"\xff" * 100])
def test_a_body_that_is_not_compressed_breaks_and_stays_broken(coding: bytes, body: bytes) -> None:
    taken = an_inflater(coding)
    assert taken.feed(body) == b""
    assert taken.is_broken
    assert taken.feed(compressed(coding, [TEXT])) == b""
    assert taken.is_broken


@pytest.mark.parametrize("said", [b"gzip", b"br", b"zstd"])
@pytest.mark.parametrize("coding", CODINGS)
def test_so_does_one_of_another_coding(said: bytes, coding: bytes) -> None:
    if said != coding:
        got, is_broken = fed(said, whole(compressed(coding, [TEXT])))
        assert is_broken
        assert TEXT not in got


@pytest.mark.parametrize("coding", CODINGS)
def test_what_came_before_a_break_counts(coding: bytes) -> None:
    events = flushed_events(coding)
    taken = an_inflater(coding)
    assert b"".join(map(taken.feed, events[:100])) == TEXT[: len(TEXT) // 2]
    taken.feed(b"\xff" * 1000)
    assert taken.is_broken
    assert taken.feed(events[100]) == b""


def test_a_member_that_breaks_after_it_has_begun_is_no_garbage() -> None:
    second = compressed(b"gzip", [TEXT])
    got, is_broken = fed(b"gzip", cut_at_random(compressed(b"gzip", [b"first "]) + second[:-8] + b"badcheck", 1))
    assert is_broken
    assert got.startswith(b"first data: ")


@pytest.mark.parametrize("coding", CODINGS)
def test_hostile_bytes_never_raise(coding: bytes) -> None:
    draw = random.Random(5)
    data = compressed(coding, [TEXT, draw.randbytes(2000)])
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        got, is_broken = fed(coding, cut_at_random(bytes(changed), draw.randrange(100)))
        assert is_broken or len(got) <= MIB


# Bombs


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_breaks_early_and_costs_little(coding: bytes) -> None:
    data = zeros(coding, 64 * MIB)
    tracemalloc.start()
    try:
        got, is_broken = fed(coding, whole(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert is_broken
    assert MIB // 2 < len(got) <= 2 * MIB
    assert peak < 6 * MIB  # pieces and their sum


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_after_a_long_honest_body_is_stopped_as_soon(coding: bytes) -> None:
    compressor = Compressor(coding)
    honest = random.Random(6).randbytes(100_000)
    taken = an_inflater(coding)
    assert taken.feed(compressor.event(honest)) == honest
    bomb = b"".join(map(compressor.event, [bytes(MIB)] * 64))
    assert 8 * MIB < len(b"".join(map(taken.feed, each_byte(bomb)))) < 100 * (len(honest) + len(bomb))
    assert taken.is_broken


GROWTH = """
import resource, sys
from pathlib import Path
from proxy.wire.inflate import inflater
from tests.wire.test_inflate import MIB, wide, zeros

def peak():
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # What getrusage says there goes on from the process that started this one.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

bombs = [(coding, zeros(coding, 64 * MIB)) for coding in (b"gzip", b"deflate", b"br", b"zstd")]
bodies = {"bombs": bombs, "wide": wide()}[sys.argv[1]]
for coding, body in bodies:  # what the libraries need for themselves
    inflater(coding).feed(body)
before = peak()
taken = [inflater(coding) for coding, body in bodies * 25]
for each, (coding, body) in zip(taken, bodies * 25):
    each.feed(body)
print((peak() - before) // MIB)
"""


def wide() -> list[tuple[bytes, bytes]]:
    """Bodies that ask for the largest windows that pass, 16 and 8 MiB, and then say little."""
    widest = {zstd.CompressionParameter.window_log: 23}
    return [(b"br", brotli.compress(b"little", lgwin=24)), (b"zstd", zstd_frame(b"little", widest))]


@pytest.mark.parametrize("bodies", ["bombs", "wide"])
def test_many_bombs_at_once_cost_few_megabytes(bodies: str) -> None:
    """Of the whole process, since no tracer sees what br and zstd take for themselves."""
    call = subprocess.run([sys.executable, "-c", GROWTH, bodies], check=True, capture_output=True)
    assert int(call.stdout) < 10


def test_a_window_beyond_8_mib_is_refused_by_zstd() -> None:
    for log in (10, 22, 23):
        assert fed(b"zstd", whole(zstd_frame(b"little", {zstd.CompressionParameter.window_log: log})))[0] == b"little"
    for log in (24, 27):
        frame = zstd_frame(b"little", {zstd.CompressionParameter.window_log: log})
        assert fed(b"zstd", whole(frame)) == (b"", True)


def test_the_large_window_of_br_is_refused() -> None:
    """Its first byte is 0x11, then the window's size (RFC 7932 knows no such stream)."""
    assert fed(b"br", whole(b"\x11\x1e" + b"\0" * 10)) == (b"", True)


@pytest.mark.parametrize("coding", MEMBERS)
def test_a_body_of_empty_members_is_a_bomb(coding: bytes) -> None:
    _, is_broken = fed(coding, whole(compressed(coding, [b""]) * 10_000))
    assert is_broken


def test_a_bomb_within_a_bomb_is_measured_by_what_came_in() -> None:
    inner = zeros(b"gzip", 64 * MIB)
    outer = compressed(b"br", [inner])
    got, is_broken = fed(b"gzip, br", whole(outer))
    assert is_broken
    assert len(got) <= 2 * MIB


# Codings


@pytest.mark.parametrize("coding", [b"gzip", b"GZip", b"x-gzip", b" gzip ", b"identity, gzip", b"gzip,,identity"])
def test_names_are_read_in_any_form(coding: bytes) -> None:
    assert fed(coding, whole(compressed(b"gzip", [TEXT]))) == (TEXT, False)


@pytest.mark.parametrize("coding", [b"compress", b"gzip;q=1", b"gzip br", b"gzip, rot13", b"*", b"\xff", b"gzip," * 6])
def test_what_is_not_known_is_not_guessed(coding: bytes) -> None:
    assert inflater(coding) is None


@pytest.mark.parametrize("coding", [b"", b"identity", b" , identity"])
def test_nothing_to_take_off(coding: bytes) -> None:
    assert fed(coding, [b"as it ", b"", b"is"]) == (b"as it is", False)


@pytest.mark.parametrize("codings", [(b"gzip", b"br"), (b"zstd", b"deflate"), (b"gzip", b"gzip", b"br", b"zstd")])
def test_several_codings_are_taken_off_in_reverse(codings: tuple[bytes, ...]) -> None:
    data = TEXT
    for coding in codings:
        data = compressed(coding, [data])
    said = b", ".join(codings)
    assert fed(said, whole(data)) == (TEXT, False)
    assert fed(said, each_byte(data)) == (TEXT, False)


def test_a_flush_passes_through_several_codings() -> None:
    first, second = Compressor(b"gzip"), Compressor(b"br")
    taken = an_inflater(b"gzip, br")
    for number in range(50):
        assert taken.feed(second.event(first.event(an_event(number)))) == an_event(number)


def test_a_library_is_imported_for_its_own_coding_only() -> None:
    script = (
        "import sys\n"
        "from proxy.wire.inflate import inflater\n"
        "def seen(): return {n.split('.')[0] for n in sys.modules} & {'brotli', 'backports', 'compression'}\n"
        "inflater(b'gzip'), inflater(b'deflate')\n"
        "assert not seen(), seen()\n"
        "inflater(b'br')\n"
        "assert seen() == {'brotli'}, seen()\n"
        "inflater(b'zstd')\n"
        "assert len(seen()) == 2, seen()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
