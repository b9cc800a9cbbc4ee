"""Everything at once: a steady load while the targets behind an alias are killed, slowed and restored at random. Nobody
waits for longer than was promised, nobody is lied to, and afterwards all is as it was before.

How it works: the moments of the requests are fixed before the first one leaves, and no answer delays the next request.
The targets have a process of their own (chaos). Each request carries a number that comes back in its usage and its
text, so that all bytes of answers, rows of the ledger and entries in the providers' books can be told apart. How long
something took is compared with its own limits, by the sidecar's clock, and with room for a busy machine.
CHAOS_SEED=7 in the environment plays another script with another load.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import orjson
import pytest
import uvloop

from proxy.simulator.voices_openai import OpenAIChat
from tests.whole.chaos import NAMES, Targets, is_well, moves
from tests.whole.processes import Sidecar
from tests.whole.test_admin import ask as ask_admin
from tests.whole.test_ledger import check

SEED = int(os.environ.get("CHAOS_SEED", "6"))
REQUESTS = 5_000
RATE = 200  # a second
DARK = 12.0  # the second in which all targets are down
WORDS = 12
CAP = 200  # tokens that an answer may have
ATTEMPTS = 3  # one, and LLM_PROXY_RETRIES
LIMIT, SWEEP, CONNECT = 2.0, 0.25, 5.0  # seconds: of the alias, of the sidecar's clock, LLM_PROXY_TIMEOUT_CONNECT
PAUSES = 2 * (LIMIT + SWEEP)  # before a head and behind it
WAIT = 2.0  # seconds between two attempts: what a target asks for at most; a pause of our own is shorter
BUSY = 5.0  # seconds that a machine may be busy with something else
# Of the requests that had a target at each moment, the share that is served whole: before DARK, as long as the last
# target is well (0.99 on a quiet machine; 0.93 with other seeds), and in all (0.87; 0.82). What is lost was cut when
# its client had a part of it, or was more than may be tried again.
STEADY, FLOOR = 0.9, 0.6
CROWD = 800  # requests at once before the storm: what so many take of memory is not given back
COUNTING = 2  # open files towards the process that counts tokens
KEPT = 10 << 20  # bytes more than after them


class Call(NamedTuple):
    """One request. `number`: its input tokens. `at`: seconds after the beginning. `order`: more for the simulator."""

    number: int
    at: float
    alias: str
    is_stream: bool
    asks_usage: bool
    order: str = ""

    @property
    def text(self) -> str:
        return "".join(f"r{self.number}.{place} " for place in range(WORDS))

    @property
    def output(self) -> int:
        return 5 + self.number % 97

    def bytes(self) -> bytes:
        call: dict[str, Any] = {"model": self.alias, "max_tokens": CAP, "messages": [{"role": "user", "content": "Go"}]}
        lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"x-llm-proxy-tags: n={self.number}"]
        if self.is_stream:
            call["stream"] = True
            lines.append("x-stream: yes")
            if self.asks_usage:
                call["stream_options"] = {"include_usage": True}
        body = json.dumps(call).encode()
        lines.append(f'x-simulate: input={self.number} output={self.output} text="{self.text}" {self.order}')
        lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body


def calls(count: int, first: int, rate: float = RATE, order: str = "") -> list[Call]:
    """`count` requests at moments that are independent of each other, so many a second; half of them are streamed, and
    a quarter are those of an alias that hedges and resumes."""
    dice = random.Random(SEED + first)
    moments = sorted(dice.uniform(0, count / rate) for _ in range(count))
    made = []
    for place, at in enumerate(moments):
        alias = "sure" if dice.random() < 0.25 else "chat"
        made.append(Call(first + place, at, alias, dice.random() < 0.5, dice.random() < 0.5, order))
    return made


# -- the load ---------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What came. `is_whole`: it ended as its framing says."""

    status: int
    fields: dict[str, str]
    body: bytes
    is_whole: bool


class Done(NamedTuple):
    """`sent`, `ended`: time.monotonic. `late`: seconds by which the request left after its moment."""

    call: Call
    sent: float
    ended: float
    answer: Answer
    late: float


class Caller(asyncio.Protocol):
    """One connection. `stray`: bytes that no request asked for."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.is_open = True
        self.stray = b""
        self._buffer = bytearray()
        self._whole = 0  # bytes of an answer with a length; -1: it comes in chunks, 0: its head is not there
        self._waiter: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    async def ask(self, data: bytes) -> Answer:
        """Raises ValueError: what came was no answer."""
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return await self._waiter

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.stray += data
            return
        self._buffer += data
        if not self._whole and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = re.search(rb"\r\ncontent-length: *(\d+)\r\n", self._buffer[: end + 2].lower())
            self._whole = end + 4 + int(found[1]) if found else -1
        if 0 < self._whole <= len(self._buffer) or (self._whole < 0 and self._buffer.endswith(b"\r\n0\r\n\r\n")):
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._waiter is not None:
            self._end()

    def _end(self) -> None:
        waiter, self._waiter = self._waiter, None
        data, self._buffer, self._whole = bytes(self._buffer), bytearray(), 0
        if waiter is None or waiter.done():
            return
        try:
            answer = read_answer(data)
        except ValueError as error:
            waiter.set_exception(error)
            return
        if answer.fields.get("connection") == "close":
            self.is_open = False
            self.transport.close()
        waiter.set_result(answer)


def read_answer(data: bytes) -> Answer:
    """Raises ValueError: it is none."""
    head, blank, rest = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    version, number = status.split(" ")[:2] if blank else ("", "0")
    if version != "HTTP/1.1":
        raise ValueError(f"no answer: {data!r}")
    if "content-length" in fields:
        missing = int(fields["content-length"]) - len(rest)
        if missing < 0:
            raise ValueError(f"more than it said: {data!r}")
        return Answer(int(number), fields, rest, not missing)
    body, is_whole = b"", False
    while rest and not is_whole:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if rest[length : length + 2] != b"\r\n":
            raise ValueError(f"a chunk that is not whole: {data!r}")
        body, rest, is_whole = body + rest[:length], rest[length + 2 :], not length
    if rest:
        raise ValueError(f"bytes behind the end: {data!r}")
    return Answer(int(number), fields, body, is_whole)


class Load:
    """Sends calls, each at its moment, over connections that are kept. `most`: of them were open at once."""

    def __init__(self, port: int) -> None:
        self.began = 0.0
        self.done: list[Done] = []
        self.most = 0
        self._port = port
        self._idle: list[Caller] = []
        self._all: set[Caller] = set()

    async def run(self, calls: Iterable[Call]) -> None:
        self._idle = list(await asyncio.gather(*(self._connect() for _ in range(RATE))))
        self.began = began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    await asyncio.sleep(began + call.at - time.monotonic())
                    group.create_task(self._one(call, began + call.at))
        finally:
            for caller in self._all:
                caller.transport.abort()
            await asyncio.sleep(0.01)  # transports close in later turns of the loop
        assert not any(caller.stray for caller in self._all), "bytes that nobody asked for"

    async def _one(self, call: Call, due: float) -> None:
        caller = self._idle.pop() if self._idle else await self._connect()
        sent = time.monotonic()
        async with asyncio.timeout(60):
            answer = await caller.ask(call.bytes())
        self.done.append(Done(call, sent, time.monotonic(), answer, sent - due))
        if caller.is_open:
            self._idle.append(caller)
        else:
            self._all.discard(caller)

    async def _connect(self) -> Caller:
        _, caller = await asyncio.get_running_loop().create_connection(Caller, "127.0.0.1", self._port)
        self._all.add(caller)
        self.most = max(self.most, len(self._all))
        return caller


def make(calls: list[Call], port: int) -> Load:
    load = Load(port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(load.run(calls))
    return load


# -- is it honest? ----------------------------------------------------------------------------------------------------

_SERIAL = re.compile(rb"chatcmpl-sim(\d{8})")
_NO_SERIAL = b"chatcmpl-sim00000000"
_ERROR_EVENTS = b"".join(OpenAIChat("", 0, 0).error_events())  # as the provider says them


def expected(call: Call) -> bytes:
    """The whole answer, whatever the provider's own number for it."""
    voice = OpenAIChat("m", 0, call.number, with_usage=True)  # the sidecar asks for it where the client does not
    if not call.is_stream:
        voice.settle(call.output, None)
        return orjson.dumps(voice.whole(call.text, None))
    events = [*voice.opening(), *map(voice.delta, re.findall(r"\S+ ", call.text))]
    voice.settle(call.output, None)
    events += [data for _, data in voice.closing(False) if call.asks_usage or b'"choices":[]' not in data]
    return b"".join(events)


def judge(done: Done) -> str:
    """How it ended, as its client sees it. Fails where that is not honest."""
    call, answer = done.call, done.answer
    if answer.status != 200:
        assert answer.status >= 400 and answer.is_whole
        assert is_error(answer.body)
        return f"{'ours' if 'x-llm-proxy-error' in answer.fields else 'theirs'} {answer.status}"
    assert call.alias == "sure" or len(set(_SERIAL.findall(answer.body))) <= 1, "of two answers"
    body = _SERIAL.sub(_NO_SERIAL, answer.body)
    good = expected(call)
    if body == good:  # a client may take it for whole where only the end of its framing is missing
        return "whole" if answer.is_whole else "cut"
    if call.is_stream and answer.is_whole:
        assert body == _ERROR_EVENTS, "half an answer that looks complete"
        return "theirs event"
    assert not answer.is_whole, "half an answer that looks complete"
    said, event = (body, b"") if not call.is_stream else split_error(body)
    assert good.startswith(said), "other bytes"
    assert not call.is_stream or (said.endswith(b"\n\n") and is_error(event)), "no error event"
    return "ours event" if event else "cut"


def split_error(body: bytes) -> tuple[bytes, bytes]:
    """What was said, and what the error event at its end holds."""
    said, _, event = body.rpartition(b"data: ")
    assert event.endswith(b"\n\n")
    return said, event


def is_error(data: bytes) -> bool:
    """It is one in the dialect's shape."""
    error = json.loads(data)["error"]
    return isinstance(error["message"], str) and isinstance(error["type"], str) and "code" in error


# -- what the ledger says ---------------------------------------------------------------------------------------------

Row = dict[str, Any]


class Ledger:
    """`rows`, and `attempts` in order, by the number of the request."""

    def __init__(self, path: Path) -> None:
        with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute("select * from exchanges where tags is not null")]
            attempts = [dict(row) for row in connection.execute("select * from attempts order by exchange_id, number")]
        connection.close()
        self.count = len(rows)
        self.rows = {int(row["tags"].removeprefix("n=")): row for row in rows}
        numbers = {row["id"]: number for number, row in self.rows.items()}
        self.attempts: dict[int, list[Row]] = {number: [] for number in self.rows}
        for attempt in attempts:
            self.attempts[numbers[attempt["exchange_id"]]].append(attempt)

    def by_target(self) -> dict[tuple[int, str], list[Row]]:
        """Attempts by the number of the request and the name of the target."""
        found = defaultdict(list)
        for number, attempts in self.attempts.items():
            for attempt in attempts:
                found[number, attempt["provider"]].append(attempt)
        return found


def is_good(attempt: Row) -> bool:
    return attempt["status"] == 200 and attempt["ended_kind"] is None


def reported(attempt: Row) -> list[int] | None:
    is_reported = attempt["usage_source"] == "reported" and attempt["usage_complete"]
    return [attempt["input_tokens"], attempt["output_tokens"]] if is_reported else None


def used(row: Row) -> int:
    return (row["input_tokens"] or 0) + (row["output_tokens"] or 0)


def compare_with_client(ledger: Ledger, endings: dict[int, str], load: Load) -> None:
    """One row for each request, which says what its client got."""
    for done in load.done:
        number, answer = done.call.number, done.answer
        row, attempts, ending = ledger.rows[number], ledger.attempts[number], endings[number]
        about = f"{ending}, {row}, {attempts}"
        assert row["status"] == answer.status, about
        assert bool(row["complete"]) is (ending == "whole"), about
        assert row["attempts"] == len(attempts), about
        assert sum(attempt["why"] not in ("stale", "hedge") for attempt in attempts) <= ATTEMPTS, about
        if ending == "whole":
            assert row["bytes_out"] == len(answer.body), about
            assert [row["input_tokens"], row["output_tokens"]] >= [done.call.number, done.call.output], about
            assert any(map(is_good, attempts)), about


def compare_with_books(ledger: Ledger, books: dict[str, Any]) -> Counter[str]:
    """What each target has served, by its own books, against what the ledger says of it. Counts by their kinds those
    attempts whose answer was served in full when nobody waited for it any more."""
    late: Counter[str] = Counter()
    served = defaultdict(list)
    asked: Counter[tuple[int, str]] = Counter()
    for name in NAMES:
        asked.update((number, name) for number in books["asked"][name])
        for answer in books["answers"][name]:
            if answer["status"] == 200 and (answer["ending"] == "ended" or answer["tokens"] is not None):
                served[answer["asked"], name].append(answer)
    by_target = ledger.by_target()
    for key in served.keys() | by_target.keys() | asked.keys():
        attempts, answers = by_target.get(key, []), served.get(key, [])
        good = [attempt for attempt in attempts if is_good(attempt)]
        others = [attempt for attempt in attempts if attempt["status"] in (0, 200) and not is_good(attempt)]
        about = f"{key}: {attempts}, {answers}"
        assert sum(attempt["status"] > 0 for attempt in attempts) <= asked[key] <= len(attempts), about
        assert len(good) <= len(answers) <= len(good) + len(others), about
        # Books and ledger say the same in tokens, and that is what the client has ordered.
        orders = [[key[0], Call(key[0], 0, "", False, False).output]]
        assert [reported(attempt) for attempt in good] == orders * len(good), about
        assert all(answer["tokens"] in (*orders, None) for answer in answers), about
        late.update(attempt["ended_kind"] for attempt in others[: len(answers) - len(good)])
    return late


def compare_sums(ledger: Ledger, spent: dict[str, int]) -> None:
    """An exchange used what its attempts did; a budget is the sum of its rows, and of what an answer that never began
    was allowed to have: its provider may bill it in full."""
    sums: Counter[str] = Counter()
    for number, row in ledger.rows.items():
        attempts = ledger.attempts[number]
        assert used(row) == sum(map(used, attempts)), f"{row}, {attempts}"
        for attempt in attempts:
            is_unknown = attempt["input_tokens"] is not None and attempt["output_tokens"] is None
            sums[f"provider {attempt['provider']}"] += used(attempt) + CAP * is_unknown
    assert spent == {**sums, "all": sum(sums.values())}


def check_times(ledger: Ledger, load: Load) -> None:
    """No attempt takes longer than its limits, no exchange longer than its attempts and what is waited between them."""
    for done in load.done:
        row, attempts = ledger.rows[done.call.number], ledger.attempts[done.call.number]
        about = f"{done.ended - done.sent}, {row}, {attempts}"
        before, last = 0.0, 0.0
        for attempt in attempts:
            began, ended = attempt["started_ms"] / 1e3, attempt["ended_ms"] / 1e3
            first = min(ended, (attempt["first_event_ms"] or attempt["ended_ms"]) / 1e3)
            assert first - began <= CONNECT + PAUSES + BUSY and ended - first <= PAUSES + 2 * BUSY, about
            assert began - before <= WAIT + BUSY or attempt["why"] == "hedge", about
            before, last = ended, max(last, ended)
        assert row["total_ms"] / 1e3 - last <= BUSY, about
        assert done.ended - done.sent <= row["total_ms"] / 1e3 + 4 * BUSY, about


class Script:
    """What was ill at which time, as it was. `noted`: moment, target, words."""

    def __init__(self, noted: list[tuple[float, int, str]]) -> None:
        self.ill: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
        self.dark: list[tuple[float, float]] = []  # all of them
        since: dict[str, float] = {}
        for moment, target, words in noted:
            was_dark, name = len(since) == len(NAMES), NAMES[target]
            if not is_well(words):
                since.setdefault(name, moment)
            elif name in since:
                if was_dark:
                    self.dark.append((max(since.values()), moment))
                self.ill[name].append((since.pop(name), moment))

    def was_well(self, name: str, since: float, until: float) -> bool:
        """All of the time."""
        return not any(since <= end and until >= begin for begin, end in self.ill[name])

    def had_target(self, done: Done) -> bool:
        """At each moment of its life one was well."""
        return not any(done.sent <= end and done.ended >= begin for begin, end in self.dark)


def shares_of(load: Load, endings: dict[int, str], script: Script) -> tuple[float, float]:
    """What share of those that had a target is served whole: before all were down, and in all."""
    fair = [done for done in load.done if script.had_target(done)]
    early = [done for done in fair if done.ended < load.began + DARK]
    found = []
    for some in (early, fair):
        found.append(sum(endings[done.call.number] == "whole" for done in some) / len(some))
    return found[0], found[1]


def check_blame(ledger: Ledger, load: Load, script: Script) -> Counter[str]:
    """No target is blamed that was well. Counts what a busy machine may do: answers that came too late."""
    late: Counter[str] = Counter()
    offset = time.time() - time.monotonic()
    for done in load.done:
        began = ledger.rows[done.call.number]["started_at"] - offset
        for attempt in ledger.attempts[done.call.number]:
            kind = attempt["ended_kind"]
            if attempt["ended_by"] != "upstream" or (kind == "reset" and attempt["reused"]):
                continue
            since, until = began + attempt["started_ms"] / 1e3, began + attempt["ended_ms"] / 1e3
            if script.was_well(attempt["provider"], since - BUSY, until + 0.5):
                assert kind == "timeout", f"{attempt}"
                late[kind] += 1
    return late


# -- the test ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def targets() -> Iterator[Targets]:
    running = Targets(moves(SEED, REQUESTS / RATE, DARK))
    yield running
    running.close()


def environ(targets: Targets, path: Path) -> dict[str, str]:
    providers = {
        f"LLM_PROXY_PROVIDER_{name.upper()}": f"openai+http://127.0.0.1:{port}/v1"
        for name, port in zip(NAMES, targets.ports, strict=True)
    }
    times = f"first_byte={LIMIT} first_byte_unary={LIMIT} first_event={LIMIT} stream={LIMIT}"
    order = "a/m, b/m | c/m"
    budgets = [f"{scope} 1000Mtokens/total" for scope in ("all: concurrent=9000", *(f"provider {n}:" for n in NAMES))]
    return {
        **providers,
        "LLM_PROXY_MODELS": f"chat ({times}) = {order}; sure ({times} hedge resume) = {order}",
        "LLM_PROXY_RETRIES": str(ATTEMPTS - 1),
        "LLM_PROXY_DB": str(path),
        "LLM_PROXY_POOL_IDLE_SECONDS": "2",  # afterwards no link that is open may be one that is kept
        "LLM_PROXY_LIMITS": "; ".join(budgets),
    }


def spent_of_nothing_reserved(sidecar: Sidecar) -> dict[str, int]:
    """What is spent by each scope, once nothing is reserved and nothing runs."""
    for _ in range(100):
        scopes = ask_admin(f"http://127.0.0.1:{sidecar.admin_port}/limits").document["limits"]
        budgets = {scope["scope"]: budget for scope in scopes for budget in scope["budgets"]}
        running = [scope["concurrent"]["running"] for scope in scopes if scope["concurrent"]]
        if not any(running) and not any(budget["reserved"] for budget in budgets.values()):
            return {scope: budget["spent"] for scope, budget in budgets.items()}
        time.sleep(0.05)
    raise AssertionError(scopes)


def descriptors(sidecar: Sidecar, most: int = 0) -> int:
    """Open files without the ledger's, once there are no more than `most`. Links that are kept for reuse are closed in
    their own time; a leak does not go away."""
    folder = Path(f"/proc/{sidecar.process.pid}/fd")
    for _ in range(160):
        found = 0
        for file in folder.iterdir():
            try:
                found += "ledger.db" not in os.readlink(file)
            except FileNotFoundError:  # closed meanwhile
                continue
        if found <= most or not most:
            break
        time.sleep(0.05)
    return found


class Receipts:
    """Counts those in the log. `wait_for_receipts` of the sidecar goes through all of them at each line."""

    def __init__(self, sidecar: Sidecar) -> None:
        sidecar.mark()
        self._sidecar = sidecar
        self._seen = len(sidecar.lines)
        self._count = 0

    def count(self) -> int:
        new = self._sidecar.lines[self._seen :]
        self._seen += len(new)
        self._count += sum(line["stands_for"] for line in new if "ended_by" in line)
        return self._count

    def wait_for(self, count: int) -> None:
        self._sidecar.wait_until(lambda: self.count() >= count, f"{count} receipts")


class Storm(NamedTuple):
    """What was done, and what was seen of the process before and after it."""

    load: Load
    last: Load
    requests: int  # in all
    receipts: int
    books: dict[str, Any]
    resident: tuple[int, int]
    descriptors: tuple[int, int]
    spent: dict[str, int]


def storm(sidecar: Sidecar, targets: Targets) -> Storm:
    receipts = Receipts(sidecar)
    before = descriptors(sidecar) + COUNTING
    warm_up = [
        calls(40, 1_000, order="cut=5"),  # so that what counts is there
        calls(400, 2_000),
        calls(CROWD, 3_000, rate=100_000, order="delay=0.5"),
    ]
    for some in warm_up:
        make(some, sidecar.port)
    count = sum(map(len, warm_up))
    receipts.wait_for(count)
    resident = sidecar.resident()

    targets.ask("begin")
    load = make(calls(REQUESTS, 10_000), sidecar.port)
    targets.ask("end")
    last = make(calls(20, 9_000), sidecar.port)
    count += REQUESTS + 20
    receipts.wait_for(count)
    files = before, descriptors(sidecar, before)
    spent = spent_of_nothing_reserved(sidecar)
    memory = resident, sidecar.resident()
    return Storm(load, last, count, receipts.count(), targets.ask("books"), memory, files, spent)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_whatever_happens_to_its_targets(start: Callable[..., Sidecar], targets: Targets, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    sidecar = start(environ(targets, path))
    found = storm(sidecar, targets)
    load, books = found.load, found.books
    sidecar.stop()
    ledger = Ledger(path)

    endings = {done.call.number: judge(done) for done in load.done}
    assert len(endings) == REQUESTS
    assert ledger.count == len(ledger.rows) == found.receipts == found.requests
    assert check(path).returncode == 0
    compare_with_client(ledger, endings, load)
    compare_with_books(ledger, books)
    compare_sums(ledger, found.spent)
    check_times(ledger, load)

    script = Script(books["noted"])
    check_blame(ledger, load, script)
    early, all_of_it = shares_of(load, endings, script)
    assert early >= STEADY and all_of_it >= FLOOR, Counter(endings.values())
    assert [judge(done) for done in found.last.done] == ["whole"] * 20

    before, after = found.resident
    assert after - before <= KEPT, found.resident
    assert found.descriptors[1] <= found.descriptors[0], found.descriptors
