"""Messages arrive as they were sent, however the bytes came; what is no frame is refused and nothing else raised."""

from __future__ import annotations

import random

import pytest

from proxy.tokens.frames import (
    MAX_FRAME,
    Absent,
    Answer,
    Asked,
    BrokenFrame,
    Finish,
    Fold,
    Forget,
    FrameReader,
    Said,
    encode,
)

ASKED: list[Asked] = [
    Fold(1, "openai-chat", [b"data: a\n\n", b"", bytes(range(256))]),
    Finish(2**63 - 1, "ollama", None, False, None),
    Finish(0, "gemini", [], True, b"{}"),
    Forget(7),
]
SAID: list[Said] = [Answer(1, None, None, False), Answer(2, 2**40, 0, True), Absent("ImportError")]


@pytest.mark.parametrize("size", [1, 3, 50, 1 << 20])
def test_messages_arrive_under_any_cut(size: int) -> None:
    for kind, messages in ((Asked, ASKED), (Said, SAID)):
        data = b"".join(map(encode, messages))
        reader: FrameReader[object] = FrameReader(kind)
        got = [message for at in range(0, len(data), size) for message in reader.feed(data[at : at + size])]
        assert got == messages


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        (MAX_FRAME + 1).to_bytes(4, "big"),
        b"\0\0\0\0",
        b"\0\0\0\1\xc1",
        bytes(encode(Forget(1))),  # the other side's
        b"\0\0\0\6\x92\xa6forge",
        b"\0\0\3\xe8" + b"\x91" * 1000,
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        list(FrameReader(Said).feed(data))


def test_the_longest_frame_is_waited_for() -> None:
    assert list(FrameReader(Said).feed(MAX_FRAME.to_bytes(4, "big") + b"x" * 1000)) == []


def test_messages_before_a_broken_frame_are_given() -> None:
    reader: FrameReader[Said] = FrameReader(Said)
    got = []
    with pytest.raises(BrokenFrame):
        for message in reader.feed(encode(SAID[0]) + b"\xff\xff\xff\xff"):
            got.append(message)
    assert got == [SAID[0]]


def test_random_bytes_raise_nothing_else() -> None:
    dice = random.Random(3)
    for _ in range(3000):
        frame = encode(dice.choice(ASKED))
        frame[dice.randrange(len(frame))] = dice.randrange(256)
        try:
            list(FrameReader(Asked).feed(bytes(frame)))
        except BrokenFrame:
            pass
