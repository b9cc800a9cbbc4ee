"""Three targets that come and go, in a process of their own, by a script that a seed fixes.

Lives here: `moves` (the script), `Target` (a simulated provider that can be killed), `Targets` (the process, as a test
sees it), and what runs in that process. May not live here: the load, assertions (test_chaos).
How it works: a word on a line in, a line of JSON out; the process ends with its standard input. The script runs in the
loop of the simulators, so that a busy test does not delay it, and notes when it really did what. A target that is
killed is as one whose process was: nobody listens, and every link is reset, in the middle of whatever it carries.
Their ports are below those that the system gives to connections, so that nobody takes one while it is free.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from proxy.simulator.books import Entry
from proxy.simulator.faults import read
from proxy.simulator.provider import Simulator
from proxy.simulator.seen import SeenRequest
from proxy.simulator.speech import request_id

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("a", "b", "c")
LAST = 2
KILLED = "killed"
ERROR = "error"  # as the first event of a stream; what is no stream has a status for it
WELL = ("", "delay=0.3", "delay=0.8", "drop-next", "reset-next")  # it answers, if not always at once
# Each of these happens before one happens twice. What is silent is so for longer than anybody waits.
ILL = (
    KILLED, KILLED, "refuse", "reset", "silent hold=30", "delay=30", "status=500", "status=503",
    "status=429 retry-after=1", "status=503 retry-after=2", ERROR, "garbage", "cut=5", "cut-rst=5", "stall=5 hold=30",
    "no-end",
)  # fmt: skip
DARK = (KILLED, "refuse", "status=503", "reset")
_PACE = "pace=100"  # a stream lasts a tenth of a second
_PORTS = range(20_000, 30_000)


class Move(NamedTuple):
    """At so many seconds target number `target` begins to do what these words say."""

    at: float
    target: int
    words: str


def moves(seed: int, seconds: float, dark: float) -> list[Move]:
    """The script: each target by itself is well for a while and ill for a while, the last one only after the second
    `dark`, from which on all of them are down for 1.2 seconds. At the end all are well."""
    dice = random.Random(seed)
    deck: list[str] = []
    made = []
    for target in range(len(NAMES)):
        at = dice.uniform(0.5, 4.0) + (dark if target == LAST else 0.0)
        while at < seconds:
            if not deck:
                deck = dice.sample(ILL, len(ILL))
            made.append(Move(at, target, deck.pop()))
            at += dice.uniform(0.4, 2.5)
            made.append(Move(at, target, dice.choice(WELL)))
            at += dice.uniform(1.5, 5.0)
    made = [move for move in made if not dark <= move.at <= dark + 1.2 and move.at < seconds]
    for target in range(len(NAMES)):
        made += [Move(dark, target, dice.choice(DARK)), Move(dark + 1.2, target, ""), Move(seconds, target, "")]
    return sorted(made)


def is_well(words: str) -> bool:
    return words in WELL


class Target(Simulator):
    """`asked`: by the number of each request here, the number that its client gave it (the input tokens it orders)."""

    def __init__(self) -> None:
        super().__init__(default=_PACE)
        self.asked: dict[int, int] = {}
        self._begins_with_error = False

    def saw(self, seen: SeenRequest) -> None:
        found = re.search(r"input=(\d+)", seen.get("x-simulate") or "")
        self.asked[seen.number] = int(found[1]) if found else 0
        if self._begins_with_error:
            self.order("error=0" if seen.get("x-stream") else "status=500")
        super().saw(seen)

    async def become(self, words: str) -> None:
        self._begins_with_error = words == ERROR
        if words == KILLED:
            self.kill()
            return
        self.default = read(_PACE if words == ERROR else f"{_PACE} {words}")
        if self._server is None:
            await self.listen_again()

    def kill(self) -> None:
        self.stop_listening()
        for line in list(self._open.values()):
            line.rst_now()  # whoever writes there next finds out: what the books say was sent has been sent

    def answers(self) -> list[dict[str, Any]]:
        """What the books say of each answer, and whose request it was."""
        numbers = {request_id(number): asked for number, asked in self.asked.items()}
        return [{"asked": numbers[entry.request_id], **_told(entry)} for entry in self.books.entries]


def _told(entry: Entry) -> dict[str, Any]:
    report = entry.report if entry.is_reported else None
    tokens = None if report is None else [report.input, report.output]
    return {"status": entry.status, "ending": entry.ending.value, "bytes": entry.bytes, "tokens": tokens}


class Targets:
    """The process. `ports` in the order of NAMES."""

    def __init__(self, script: list[Move]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.whole.chaos"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.ports: list[int] = self.ask({"script": script})["ports"]

    def ask(self, word: Any) -> dict[str, Any]:
        """`begin` the script; how many `links` are open; the `books`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(word).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


# -- in the process ---------------------------------------------------------------------------------------------------


async def _listen(target: Target) -> None:
    for port in random.Random().sample(_PORTS, 100):
        try:
            await target.start(port=port)
            return
        except OSError:
            continue
    raise OSError("no port is free")


class _Stage:
    """`noted`: the moves as they happened: when (time.monotonic), which target, what."""

    def __init__(self, script: list[Move]) -> None:
        self.targets = [Target() for _ in NAMES]
        self.noted: list[tuple[float, int, str]] = []
        self._script = script
        self._playing: asyncio.Task[None] | None = None

    async def answer(self, word: Any) -> dict[str, Any]:
        match word:
            case "begin":
                self._playing = asyncio.get_running_loop().create_task(self._play())
                return {}
            case "links":
                return {"links": sum(target.open_connections for target in self.targets)}
            case "end":
                if self._playing is not None:
                    await self._playing
                return {}
            case "books":
                answers = {name: target.answers() for name, target in zip(NAMES, self.targets, strict=True)}
                asked = {name: list(target.asked.values()) for name, target in zip(NAMES, self.targets, strict=True)}
                return {"answers": answers, "asked": asked, "noted": self.noted, "cpu": time.process_time()}
        raise ValueError(word)

    async def _play(self) -> None:
        began = time.monotonic()
        for move in self._script:
            await asyncio.sleep(began + move.at - time.monotonic())
            await self.targets[move.target].become(move.words)
            self.noted.append((time.monotonic(), move.target, move.words))


async def _serve() -> None:
    loop = asyncio.get_running_loop()

    async def heard() -> Any:
        line = await loop.run_in_executor(None, sys.stdin.buffer.readline)
        return json.loads(line) if line else None

    def say(answer: dict[str, Any]) -> None:
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()

    first = await heard()
    stage = _Stage([Move(*move) for move in first["script"]])
    for target in stage.targets:
        await _listen(target)
    say({"ports": [target.port for target in stage.targets]})
    while (word := await heard()) is not None:
        say(await stage.answer(word))
    for target in stage.targets:
        await target.close()


if __name__ == "__main__":
    asyncio.run(_serve())
