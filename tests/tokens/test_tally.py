"""Text that comes in pieces has as many tokens as in one piece."""

from __future__ import annotations

import random

import pytest

from proxy.dialects.text import MAX_CHANNELS, answer_text
from proxy.tokens.tally import Tally
from proxy.tokens.teller import load
from proxy.wire.sse import split_events
from tests import recordings
from tests.dialects.test_watch_recorded import STREAMS, dialect_of

COUNT = load()

TEXTS = {
    "english": "It's 9:30 a.m., and the state-of-the-art model's answers don't stop: they'll go on (or not?) " * 30,
    "german": "Die Donaudampfschifffahrtsgesellschaft fährt übermorgen, sagt man; „wirklich?“ fragte ich. " * 30,
    "chinese": "你好，世界！今天的天气很好。我们去公园散步吧？他说：“好的。”然后走了……价格是1.5元，共３个。" * 40,
    "japanese": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。テスト、です！" * 40,
    "russian": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. " * 30,
    "arabic": "كل إنسان يولد حرا، ومتساويا في الكرامة والحقوق. ٣٫١٤ " * 30,
    "hindi": "सभी मनुष्य जन्म से स्वतंत्र हैं, और गरिमा में समान हैं। " * 30,
    "code": "def f(x: int):\n\tif x > 10_000:\r\n        return f\"{x!r:>{width}}\"  # why?\n\n\n  a[b].d(*e)\n" * 30,
    "json": '{"a": [1, 2.50, -3e10], "b": {"c": null, "d": "x\\ny"}, "e": true}' * 40,
    "blanks": "a  b   c\n\n\n d \t e\r\n  \r\n f .  g,h ;i" * 40,
    "emoji": "👍🏽 well done 👨‍👩‍👧‍👦! 🇩🇪🇫🇷 é ñ e\u0301 " * 40,
    "specials": "<|endoftext|><|im_start|> not special " * 40,
}  # fmt: skip
# Without a place where a token must end: cut after 4,096 characters, at an error of one token each.
UNCUT = {
    "base64": "".join(random.Random(1).choices("ABCDEFabcdef0123456789+/", k=30_000)),
    "thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน" * 500,
    "one letter": "a" * 30_000,
    "blank": " " * 30_000,
}


def in_pieces(text: str, seed: int) -> int:
    dice = random.Random(seed)
    tally = Tally(COUNT)
    at = 0
    while at < len(text):
        size = dice.choice((1, 2, 4, 11, 90, 2000))
        tally.add({"text.0": text[at : at + size]})
        at += size
    return tally.total()


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("seed", range(4))
def test_pieces_are_counted_exactly(language: str, seed: int) -> None:
    text = TEXTS[language]
    assert in_pieces(text, seed) == COUNT(text)


def test_random_text_is_counted_exactly() -> None:
    """All kinds of characters that o200k's words tell apart, in any order."""
    dice = random.Random(2)
    for seed in range(2000):
        text = "".join(dice.choices("ab AB.,;:!?'1_\n\r\t/-é你，。 \u0301ǅ٣(\"", k=40))
        assert in_pieces(text, seed) == COUNT(text), repr(text)


@pytest.mark.parametrize("kind", UNCUT)
def test_text_without_a_place_to_cut_is_off_by_a_token_for_each_4096_characters(kind: str) -> None:
    text = UNCUT[kind]
    assert abs(in_pieces(text, 1) - COUNT(text)) <= len(text) / 4096 + 1


def test_channels_do_not_run_into_each_other() -> None:
    tally = Tally(COUNT)
    for letter in "counting":
        tally.add({"text.0": letter, "text.1": letter.upper()})
    assert tally.total() == COUNT("counting") + COUNT("COUNTING")


def test_what_waits_is_bounded() -> None:
    tally = Tally(COUNT)
    for _ in range(100):
        tally.add({"text.0": "x" * 900})
        assert sum(map(len, tally._tails.values())) <= 4096
    tally = Tally(COUNT)
    for step in range(20):
        for channel in range(100):
            tally.add({f"text.{step * 100 + channel}": "x" * 1000})
            assert sum(map(len, tally._tails.values())) <= 20_000
    assert len(tally._tails) <= MAX_CHANNELS + 1
    assert abs(tally.total() - 2000 * COUNT("x" * 1000)) <= 2000


def test_halves_of_an_emoji_are_counted_as_one() -> None:
    tally = Tally(COUNT)
    tally.add({"text.0": "so \ud83d"})
    tally.add({"text.0": "\ude00"})
    assert tally.total() == COUNT("so 😀")
    assert COUNT("\ud83d") == COUNT("\ufffd")


# -- recorded streams, cut ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", STREAMS, ids=lambda entry: str(entry["id"]))
def test_a_recorded_stream_is_counted_as_its_text(entry: dict[str, object]) -> None:
    """Cut at 25, 50, 75 and 100 % of its events, and handed over in random groups of them."""
    events = [b"data: " + data + b"\n\n" for _, data in split_events(answer(entry)) if b"\n" not in data]
    dialect = dialect_of(entry) or ""
    if dialect == "ollama":
        events = answer(entry).splitlines(keepends=True)
    dice = random.Random(4)
    for share in (0.25, 0.5, 0.75, 1):
        passed = events[: int(len(events) * share)]
        tally = Tally(COUNT)
        at = 0
        while at < len(passed):
            step = dice.choice((1, 2, 5, 40))
            tally.add(answer_text(dialect, b"".join(passed[at : at + step]), True))
            at += step
        whole = sum(map(COUNT, answer_text(dialect, b"".join(passed), True).values()))
        assert abs(tally.total() - whole) <= 0.03 * whole


def answer(entry: dict[str, object]) -> bytes:
    response = entry["response"]
    assert isinstance(response, dict)
    return (recordings.FIXTURES / response["file"]).read_bytes()
