"""The process that counts: what each message means, and that it ends with its input."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.dialects.factors import factor
from proxy.dialects.text import answer_text, read_json
from proxy.tokens import teller as module
from proxy.tokens.frames import MAX_FRAME, Absent, Answer, Finish, Fold, Forget, FrameReader, Said, encode
from proxy.tokens.link import COMMAND, environment
from proxy.tokens.teller import Teller, load
from tests import recordings
from tests.dialects.test_prompt import RECORDED
from tests.dialects.test_watch_recorded import READ, dialect_of

COUNT = load()
SECONDS = 30.0  # far more than a start takes; only reached when something hangs


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


REQUEST = b'{"messages":[{"role":"user","content":"four"}]}'


def test_folded_and_finished_text_is_one_text() -> None:
    teller = Teller(lambda: len)
    assert teller.take(Fold(1, "openai-chat", [event("ab"), event("c")])) is None
    assert teller.take(Fold(2, "openai-chat", [event("other")])) is None
    assert teller.take(Finish(1, "openai-chat", [event("d")], True, REQUEST)) == Answer(1, 4, 10, False)
    assert teller.take(Finish(2, "openai-chat", [], True, None)) == Answer(2, 5, None, False)


def test_what_is_folded_is_counted_only_if_somebody_asks() -> None:
    def load() -> Callable[[str], int]:
        loads.append(1)
        return len

    loads: list[int] = []
    teller = Teller(load)
    for number in range(3):
        teller.take(Fold(number, "openai-chat", [event("ab")]))
    teller.take(Forget(0))
    assert loads == []
    assert teller.take(Finish(1, "openai-chat", [], True, None)) == Answer(1, 2, None, False)
    assert teller.take(Finish(2, "openai-chat", [], True, None)) == Answer(2, 2, None, False)
    assert loads == [1]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the stream that grows is counted, and then waits with nothing."""
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    monkeypatch.setattr(module, "HELD_BYTES", 3 * len(event("ab ab")))
    teller = Teller(lambda: count)
    for number in (1, 2, 1):
        teller.take(Fold(number, "openai-chat", [event("ab ab")]))
    assert counted == []
    teller.take(Fold(2, "openai-chat", [event(" cd cd")]))
    assert "".join(counted).startswith("ab ab cd")
    assert teller._held == 2 * len(event("ab ab"))
    assert teller.take(Finish(2, "openai-chat", [], True, None)) == Answer(2, 11, None, False)
    teller.take(Forget(1))
    assert teller._held == 0


def test_a_stream_is_forgotten_once_it_is_finished_or_nobody_asks() -> None:
    teller = Teller(lambda: len)
    for last in (Finish(1, "openai-chat", [], True, None), Forget(1), Finish(1, "openai-chat", None, True, None)):
        teller.take(Fold(1, "openai-chat", [event("ab")]))
        teller.take(last)
        assert teller.take(Finish(1, "openai-chat", [event("c")], True, None)) == Answer(1, 1, None, False)


def test_a_whole_answer_is_counted() -> None:
    whole = b'{"choices":[{"message":{"content":"abc"}}]}'
    assert Teller(lambda: len).take(Finish(1, "openai-chat", [whole[:9], whole[9:]], False, None)) == Answer(
        1, 3, None, False
    )


def test_lost_events_are_not_counted_but_the_request_is() -> None:
    assert Teller(lambda: len).take(Finish(1, "openai-chat", None, True, REQUEST)) == Answer(1, None, 10, False)
    image = b'{"messages":[{"content":[{"type":"image_url","image_url":"x"}]}]}'
    assert Teller(lambda: len).take(Finish(1, "openai-chat", None, True, image)) == Answer(1, None, 6, True)
    assert Teller(lambda: len).take(Finish(1, "openai-chat", [], True, b"{")) == Answer(1, 0, None, False)


def test_a_text_that_cannot_be_counted_spoils_its_own_stream_alone() -> None:
    def count(text: str) -> int:
        if "bad" in text:
            raise MemoryError
        return len(text)

    teller = Teller(lambda: count)
    teller.take(Fold(1, "openai-chat", [event("bad, very bad indeed")]))
    teller.take(Fold(2, "openai-chat", [event("good")]))
    teller.take(Fold(1, "openai-chat", [event("good again")]))
    assert teller.take(Finish(1, "openai-chat", [event("x")], True, REQUEST)) == Answer(1, None, 10, False)
    assert teller.take(Finish(3, "openai-chat", [event("bad")], True, None)) == Answer(3, None, None, False)
    assert teller.take(Finish(2, "openai-chat", [], True, REQUEST.replace(b"four", b"bad"))) == Answer(
        2, 4, None, False
    )


# -- the process itself ------------------------------------------------------------------------------------------------


class Process:
    """The real process on a socket pair."""

    def __init__(self, path: list[str] | None = None) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(SECONDS)
        env = environment()
        env["PYTHONPATH"] = os.pathsep.join([*(path or []), env["PYTHONPATH"]])
        with theirs:
            self.process = subprocess.Popen(COMMAND, stdin=theirs.fileno(), stdout=theirs.fileno(), env=env)

    def answers(self, count: int) -> list[Said]:
        reader: FrameReader[Said] = FrameReader(Said)
        got: list[Said] = []
        while len(got) < count and (data := self.socket.recv(65536)):
            got.extend(reader.feed(data))
        return got

    def end(self) -> int:
        self.socket.close()
        return self.process.wait(SECONDS)


def test_it_answers_in_order_and_ends_with_its_input() -> None:
    process = Process()
    for number in range(50):
        process.socket.sendall(encode(Fold(number, "openai-chat", [event("It is")])))
        process.socket.sendall(encode(Finish(number, "openai-chat", [event(f" {number}.")], True, None)))
    assert process.answers(50) == [Answer(n, COUNT(f"It is {n}."), None, False) for n in range(50)]
    assert process.end() == 0


def test_it_goes_on_while_the_sidecar_is_asked_to_stop() -> None:
    process = Process()
    for number, sent in enumerate((None, signal.SIGTERM, signal.SIGINT)):
        if sent is not None:
            process.process.send_signal(sent)
        process.socket.sendall(encode(Finish(number, "openai-chat", [event("hi")], True, None)))
        assert process.answers(1) == [Answer(number, COUNT("hi"), None, False)]
    assert process.end() == 0


def test_it_ends_when_nobody_reads_its_answers() -> None:
    process = Process()
    process.socket.sendall(encode(Finish(1, "openai-chat", [event("a")], True, None)) * 100)
    assert process.end() == 0


def test_it_ends_at_bytes_that_are_no_message(capfd: pytest.CaptureFixture[str]) -> None:
    process = Process()
    process.socket.sendall((MAX_FRAME + 1).to_bytes(4, "big"))
    assert process.answers(1) == []
    assert process.end() == 1
    assert "BrokenFrame" in capfd.readouterr().err


def test_without_a_tokenizer_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "quicktok.py").write_text("raise ImportError('no wheel for this machine')\n")
    process = Process([str(tmp_path)])
    process.socket.sendall(encode(Fold(1, "openai-chat", [event("a")])))
    process.socket.sendall(encode(Finish(1, "openai-chat", [event("b")], True, None)))
    assert process.answers(1) == [Absent("ImportError")]
    assert process.end() == 0


def test_the_tokenizer_is_imported_nowhere_else() -> None:
    code = "import sys, proxy.cli, proxy.server.worker, proxy.tokens.counter, proxy.tokens.teller; "
    code += "sys.exit('quicktok' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=SECONDS).returncode == 0


# -- how good the figures are, on recorded calls of which the provider has told the truth ------------------------------

IS_REAL = not hasattr(__import__("quicktok"), "Encoding")  # and not the stand-in


def test_the_tokenizer_is_o200k() -> None:
    """Figures of OpenAI's own, as recorded in usage; the stand-in cannot know them."""
    texts = {"Hello, how are you today?": 7, "你好，世界": 3, "strawberry": 3, "": 0}
    if IS_REAL:
        assert {text: COUNT(text) for text in texts} == texts


def test_counted_input_of_openai_is_what_it_reports() -> None:
    checked = 0
    for entry in RECORDED if IS_REAL else []:
        body = (recordings.FIXTURES / entry["request"]["file"]).read_bytes()
        request = read_json(body)
        if entry["provider"] not in ("openai", "azure") or request.keys() & {"tools", "functions", "text"}:
            continue
        answer = Teller(lambda: COUNT).take(Finish(1, dialect_of(entry) or "", None, False, body))
        assert answer is not None and answer.input is not None
        if not answer.has_other:
            assert abs(answer.input - entry["usage"]["input_tokens"]) <= 4, entry["id"]
            checked += 1
    assert checked >= 10 or not RECORDED or not IS_REAL


def test_counted_output_is_near_what_providers_report() -> None:
    """Answers of plain text of 20 tokens or more: no calls, and no reasoning that is reported. Some hide more."""
    ratios = []
    for entry in READ if IS_REAL else []:
        usage: dict[str, Any] = entry["usage"] or {}
        if not usage.get("output_tokens") or usage.get("reasoning_tokens"):
            continue
        data = (recordings.FIXTURES / entry["response"]["file"]).read_bytes()
        channels = answer_text(dialect_of(entry) or "", data, entry["streaming"])
        if channels and not [each for each in channels if not each.startswith("text.")]:
            counted = sum(map(COUNT, channels.values()))
            if counted >= 20:
                model = (entry["expect"]["models_returned"] or [entry["request"]["model"]])[0]
                ratios.append(counted * factor(model) / usage["output_tokens"])
    ratios.sort()
    if ratios:
        assert 0.95 < ratios[len(ratios) // 2] < 1.05
        assert ratios[len(ratios) // 10] > 0.5 and ratios[len(ratios) * 9 // 10] < 1.1
