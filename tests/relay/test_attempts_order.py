"""Random orders of all that may happen to exchanges with several attempts, and what holds after each of them.

Lives here: `Play`, which acts one order out, and what is asserted of it. May not live here: single cases with a reason
of their own (test_attempts and its neighbours).
How it works: an order is a seed. It decides on the settings of a stage, and then, step by step, who does what: a client
asks, stops reading or leaves, a provider says the next piece of what it had in mind, a link is made or is not, time
passes, the counter answers, the proxy shuts down. Each provider says the beginning of one of two texts, in pieces of
any size, and then fails in one of the ways in which providers fail. What each client got is read by h11.
Nothing in it depends on the order of sets, so a seed that fails does so each time.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, MutableSet
from typing import Any, NamedTuple

import h11
import pytest

from proxy.catalog.secret import Secret
from proxy.outcome import Kind, Limit, Receipt
from proxy.policy.breaker import State
from proxy.policy.keys import CANCEL, Disconnect
from proxy.relay.connect import ConnectFailed
from proxy.relay.metering import Counted
from proxy.relay.options import PoolOptions
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage
from tests.relay.targets import ERROR, provider

ORDERS = 300

TEXTS = ("Hello wonderful world of words", "Hello wonderful other thing")
MODELS = (
    "m = a/one | b/two",
    "m (hedge) = a/one, b/one | c/two",
    "m (hedge retries=0) = a/one | b/two",
    "m (resume) = a/one | b/one",
    "m (resume retries=3) = a/one",
    "m (resume retries=4) = a/one | b/one | c/one",
    "m (hedge resume retries=4) = a/one | b/one",
    "m (retries=5 hold=2 first_byte=4 stream=3 total=20) = a/one, b/two | c/three",
    "m (hedge resume hold=1 first_byte=3 first_event=4 stream=2) = a/one, b/one",
)
BUDGET = "1Gtokens/total"
RULES: tuple[dict[str, str], ...] = (
    {"all": BUDGET, "provider a": BUDGET},
    {"all": BUDGET, "provider a": BUDGET},
    {"all": f"{BUDGET} concurrent=3", "provider a": f"{BUDGET} rpm=2"},
    {"all": BUDGET, "provider a": f"{BUDGET} concurrent=1", "provider b": "rpm=3"},
    {"all": BUDGET, "provider a": BUDGET, "model m": "100ktokens/total"},
    {"all": BUDGET, "provider a": "3000tokens/total", "model one": "50ktokens/day"},
)
SHORT = {Limit.FIRST_BYTE: 4.0, Limit.FIRST_EVENT: 5.0, Limit.STREAM: 3.0, Limit.HOLD: 1.0}
STATUSES = (b"500 No", b"503 No", b"429 No", b"401 No", b"403 No", b"400 No", b"404 No")
FIELDS = (b"x-nothing: 1", b"x-nothing: 1", b"retry-after: 0", b"retry-after: 2", b"x-should-retry: false")
USED = b'{"id":"x","model":"one","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'
REPORT = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\n'
BUSY = b'data: {"error":{"message":"busy","code":"overloaded"}}\n\n'
CUTS: tuple[bytes | str, ...] = ("reset", "end", s.LAST, b"zz\r\n")


class InOrder(MutableSet[Any]):
    """A set in the order in which its members came; that of a plain one differs from run to run."""

    def __init__(self) -> None:
        self._members: dict[Any, None] = {}

    def add(self, value: Any) -> None:
        self._members[value] = None

    def discard(self, value: Any) -> None:
        self._members.pop(value, None)

    def __contains__(self, value: object) -> bool:
        return value in self._members

    def __iter__(self) -> Iterator[Any]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


class Counter(s.FakeCounter):
    """As the real one: what is asked under the same number would take the place of what was."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[int, Callable[[Counted | None], None]] = {}

    def finish(
        self,
        stream: int,
        dialect: str,
        data: list[bytes],
        is_stream: bool,
        request: bytes | None,
        done: Callable[[Counted | None], None],
    ) -> None:
        assert stream not in self.open, "two answers are counted under one number"
        self.open[stream] = done

    def answer(self) -> None:
        while self.open:
            self.open.pop(next(iter(self.open)))(None)


class Answer(NamedTuple):
    """What a client got. `is_whole`: it has ended as its framing says."""

    is_stream: bool  # that was asked for
    status: int
    id: str
    body: bytes
    is_whole: bool

    @property
    def is_events(self) -> bool:
        return self.is_stream and self.status == 200 and not self.body.startswith(b"{")

    @property
    def text(self) -> str:
        chunks = [json.loads(data) for data in re.findall(rb"data: (\{.*\})\n\n", self.body)]
        deltas = [choice["delta"] for each in chunks for choice in each.get("choices", [])]
        return "".join(delta.get("content", "") for delta in deltas)


class Client:
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.asked: list[bool] = []  # for a stream
        self.has_left = False

    @property
    def is_deaf(self) -> bool:
        """Something that was written for it has not arrived, and never will."""
        return bool(self.peer.transport.lost)

    @property
    def is_over(self) -> bool:
        return self.peer.is_gone or self.peer.is_lingering

    def answers(self) -> list[Answer]:
        """As h11 reads them, one behind the other; the last one may be cut."""
        found, data = [], self.peer.transport.sent
        for is_stream in self.asked:
            if not data:
                break
            reader = h11.Connection(h11.CLIENT)
            reader.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
            reader.send(h11.EndOfMessage())
            reader.receive_data(data)
            head, body, is_whole = None, b"", False
            while (event := reader.next_event()) not in (h11.NEED_DATA, h11.PAUSED) and not is_whole:
                if isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                is_whole = isinstance(event, h11.EndOfMessage)
            assert head is not None, data
            name = dict(head.headers)[b"x-llm-proxy-request-id"].decode()
            found.append(Answer(is_stream, head.status_code, name, body, is_whole))
            data = reader.trailing_data[0] if is_whole else b""
        assert not data, ("bytes behind the last answer", data)
        return found


class Upstream:
    """A provider at one of its links. `script`: what it has in mind to say."""

    def __init__(self, peer: Peer, chance: random.Random, mood: float, takes_include_usage: bool) -> None:
        self.peer = peer
        self.script: list[bytes | str] = []
        self._chance = chance
        self._heard = b""
        self._mood = mood  # 0: it answers what it can, 1: nothing
        self._takes_include_usage = takes_include_usage

    def moves(self) -> None:
        if self.script:
            step = self.script.pop(0)
            if step == "reset":
                self.peer.resets()
            elif step == "end":
                self.peer.half_closes()
            else:
                assert isinstance(step, bytes)
                self.peer.says(step)
        elif (body := self._next_request()) is not None:
            self.script = self._answer(body)
        elif self._chance.random() < 0.1:  # an idle link, or a request that has not come in full
            self.peer.resets()

    def _next_request(self) -> dict[str, Any] | None:
        self._heard += self.peer.heard()
        head, _, body = self._heard.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)\Z", head)
        if length is None or len(body) < int(length[1]):
            return None
        self._heard = b""
        call = json.loads(body)  # nothing stands behind it
        asks = "stream_options" in call
        assert call["model"] in ("one", "two", "three")
        assert asks == (call.get("stream", False) and self._takes_include_usage), "it is asked for what it cannot do"
        assert isinstance(call, dict)
        return call

    def _answer(self, call: dict[str, Any]) -> list[bytes | str]:
        chance = self._chance
        if chance.random() < self._mood:
            answers = [s.unary(ERROR, chance.choice(STATUSES), chance.choice(FIELDS)) for _ in range(5)]
            answers.append(s.unary(ERROR))  # the status says nothing
            return chance.choice([["reset"], *map(self._cut, answers)])
        if "stream" not in call:
            return self._cut(s.unary(chance.choice([USED, USED, s.DOCUMENT])))
        return self._glue(self._stream("stream_options" in call))

    def _cut(self, data: bytes) -> list[bytes | str]:
        """In one piece, in two, or only the first of two."""
        at = self._chance.randint(1, len(data) - 1)
        return self._chance.choice([[data], [data], [data[:at], data[at:]], [data[:at], "reset"]])

    def _stream(self, reports: bool) -> list[bytes | str]:
        chance = self._chance
        text = TEXTS[chance.random() < 0.1]
        name = b"u%d" % chance.randint(0, 99)
        said: list[bytes | str] = [s.STREAM_HEAD]
        if chance.random() < 0.5:
            said.append(s.chunk(s.ROLE))
        while text:
            size = chance.randint(1, 8)
            said.append(s.chunk(s.text(text[:size].encode()).replace(b'"c"', b'"%b"' % name)))
            text = text[size:]
        ending = [s.FINISH, REPORT, s.DONE] if reports and chance.random() < 0.7 else [s.FINISH, s.DONE]
        said += [*map(s.chunk, ending), s.LAST]
        kind = chance.random()
        if kind < 0.35:
            return [*said[: chance.randint(1, len(said) - 1)], chance.choice(CUTS)]
        if kind < 0.4:
            return [*said[: chance.randint(1, len(said) - 3)], s.chunk(BUSY), chance.choice(CUTS)]
        return said

    def _glue(self, said: list[bytes | str]) -> list[bytes | str]:
        """Some pieces come in one read, or the first bytes of one behind the piece before it."""
        glued: list[bytes | str] = []
        for step in said:
            last = glued[-1] if glued else ""
            if isinstance(step, bytes) and isinstance(last, bytes) and self._chance.random() < 0.4:
                at = self._chance.choice([len(step), len(step), self._chance.randint(0, len(step))])
                glued[-1] = last + step[:at]
                step = step[at:]
            if step:
                glued.append(step)
        return glued


class Play:
    """One order, acted out."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.counter = Counter()
        self.most = chance.choice([10, 1000])  # tokens that each may be answered with
        self.takes_include_usage = {name: chance.random() < 0.5 for name in "abc"}
        self.stage = self._stage()
        self.clients: list[Client] = []
        self.upstreams: list[Upstream] = []
        self.mood = chance.choice([0.05, 0.1, 0.2, 0.4])  # of the providers
        self.shuts_down_at = chance.randint(0, 800)  # most are over by then
        for members in ("clients", "drains"):
            setattr(self.stage.relay, members, InOrder())
        self.stage.relay.deadlines._items = InOrder()  # type: ignore[assignment]
        self.stage.relay.deadlines.add(self.stage.relay.pool)
        for key in (("a", "one"), ("b", "one"), ("b", "two")):  # known well enough to be hedged
            health = self.stage.relay.health.of(key)
            for number in range(40):
                health.begin(self.stage.loop.time())
                health.first_event(1.0, self.stage.loop.time(), is_stream=number % 2 == 0)
                health.end(self.stage.loop.time(), False, True)

    def _stage(self) -> Stage:
        chance = self.chance

        def given(name: str) -> Any:
            further = (Secret("sk-number-2"),) if chance.random() < 0.4 else ()
            return provider(name, takes_include_usage=self.takes_include_usage[name], further=further)

        pools = (PoolOptions(), PoolOptions(max_connections=1), PoolOptions(max_connections=2, max_idle=1))
        return Stage(
            models=chance.choice(MODELS),
            retries=chance.choice([0, 1, 2, 4]),
            providers=tuple(map(given, "abc")),
            rules=chance.choice(RULES),
            pool=chance.choice(pools),
            counter=self.counter if chance.random() < 0.7 else None,
            disconnect=chance.choice([CANCEL, Disconnect(True, 8.0)]),
            holds_connects=chance.random() < 0.25,
            stops=chance.random() < 0.3,
            seconds=chance.choice([{}, {Limit.QUEUE: 0.0}, SHORT]),
            streams_per_key=chance.choice([0, 0, 0, 2]),
            shows_timing=True,
        )

    # -- what may happen ----------------------------------------------------------------------------------------------

    def steps(self) -> None:
        """Anything, and then only what brings to an end what has begun."""
        acts = {
            self.moves: 50, self.asks: 12, self.waits: 8, self.connects: 6, self.counts: 3, self.reads_on: 4,
            self.stops_reading: 1, self.leaves: 1,
        }  # fmt: skip
        beginning = self.chance.randint(10, 80)
        for number in range(beginning + 30):
            for peer in self.stage.upstreams[len(self.upstreams) :]:
                takes = self.takes_include_usage[peer.protocol.origin.host[0]]
                self.upstreams.append(Upstream(peer, self.chance, self.mood, takes))
            if number == beginning:
                for act in (self.asks, self.stops_reading, self.leaves):
                    del acts[act]
            self.chance.choices([*acts], [*acts.values()])[0]()
            if number == self.shuts_down_at:
                self.stage.relay.give_up()

    def asks(self) -> None:
        """A new client, or one that has its answer; sometimes twice at once."""
        chance = self.chance
        able = [each for each in self.clients if not each.is_over and not each.has_left]
        able = [each for each in able if s.exchange_of(each.peer) is None and not each.peer.protocol.is_full]
        if able and chance.random() < 0.4:
            client = chance.choice(able)
        elif len(self.clients) < 4:
            client = Client(self.stage.client())
            self.clients.append(client)
        else:
            return
        data = b""
        for _ in range(2 if chance.random() < 0.1 else 1):
            is_stream = chance.random() < 0.75
            name = chance.choice([b"m", b"m", b"m", b"m", b"a/one"])
            stream = b',"stream":true' if is_stream else b""
            data += s.ask(body=b'{"model":"%b"%b,"max_tokens":%d,"messages":[]}' % (name, stream, self.most))
            client.asked.append(is_stream)
        client.peer.says(data)

    def moves(self) -> None:
        able = [each for each in self.upstreams if not each.peer.is_gone]
        if able:
            self.chance.choice(able[-4:]).moves()

    def waits(self) -> None:
        self.stage.advance(self.chance.choice([0.1, 0.3, 1.0, 1.0, 1.0, 2.0, 6.0]))

    def connects(self) -> None:
        if self.stage._held:
            failed = ConnectFailed(Kind.CONNECT_FAILED, "no") if self.chance.random() < 0.3 else None
            self.stage.connect(failed)

    def _someone(self) -> Client | None:
        there = [each for each in self.clients if not each.peer.is_gone and not each.has_left]
        return self.chance.choice(there) if there else None

    def leaves(self) -> None:
        if (client := self._someone()) is not None:
            client.has_left = True
            self.chance.choice([client.peer.resets, client.peer.half_closes])()

    def stops_reading(self) -> None:
        """A client, or a provider."""
        able = [each.peer for each in self.upstreams if not each.peer.is_gone]
        if able and self.chance.random() < 0.3:
            able[-1].stops_reading()
        elif (client := self._someone()) is not None:
            client.peer.stops_reading()

    def reads_on(self) -> None:
        for peer in [each.peer for each in self.upstreams]:
            if not peer.is_gone:
                peer.reads_on()
        if (client := self._someone()) is not None:
            client.peer.reads_on()

    def counts(self) -> None:
        self.counter.answer()
        self.stage.loop.run_ready()

    # -- the end ------------------------------------------------------------------------------------------------------

    def read_all(self) -> None:
        """Whoever did not read does so now, if it is still there."""
        for client in self.clients:
            if not client.peer.transport.is_lost:
                client.peer.reads_on()
        self.counts()

    def end(self) -> None:
        for client in self.clients:
            if not client.peer.transport.is_lost:
                client.peer.resets()
        self.stage.advance(30.0)  # for those that are read on after their clients left
        self.counts()
        while self.stage._held:
            self.stage.connect()


# -- what holds -------------------------------------------------------------------------------------------------------


def assert_honest(client: Client, answer: Answer, receipt: Receipt | None) -> None:
    """`receipt`: None, as long as the exchange goes on."""
    is_told = b'"error"' in answer.body
    if answer.is_events:
        text = answer.text
        assert any(each.startswith(text) for each in TEXTS), ("neither of both", text)
        assert answer.body.count(b"[DONE]") <= 1
        assert b'"usage"' not in answer.body, "nobody has asked for it but us"
        if answer.is_whole:
            assert is_told or text in TEXTS, ("it looks whole and is not", text)
            assert is_told or b'"finish_reason":"stop"' in answer.body
        elif client.is_over and not client.has_left and not client.is_deaf:
            assert is_told or b"[DONE]" in answer.body, "it was cut, and nothing says so"
    elif answer.is_whole:
        json.loads(answer.body)
        assert is_told == (answer.status >= 400 or b'"error"' in answer.body)
    if receipt is None or client.has_left or client.is_deaf:
        return
    assert receipt.status == answer.status
    assert receipt.complete == (answer.is_whole and answer.status == 200 and not (answer.is_events and is_told))
    if receipt.complete:
        assert receipt.bytes_out == len(answer.body)
    assert answer.is_whole or client.is_over


def spent(receipt: Receipt, most: int, name: str | None) -> int:
    """What a receipt says was used, at one provider or at all. Who was broken off before it answered may have said as
    much as was reserved."""
    parts = [(each.provider, each.usage) for each in receipt.attempts]
    if not any(usage is not None for _, usage in parts):
        parts = [(receipt.provider or "", receipt.usage)]
    known = [usage for at, usage in parts if usage is not None and usage.input is not None and name in (None, at)]
    return sum((usage.input or 0) + (most if usage.output is None else usage.output) for usage in known)


def assert_even(play: Play) -> None:
    """Nothing is held, and what was counted is what the receipts say."""
    limiter, now = play.stage.admission.limiter, play.stage.loop.time()
    assert limiter.open == set()
    assert {scope: limiter.running(scope) for scope in limiter.scopes()} == dict.fromkeys(limiter.scopes(), 0)
    for scope, name in (("all", None), ("provider a", "a")):
        budget = limiter.rules(scope).budgets[0]
        sums = [spent(receipt, play.most, name) for receipt in play.stage.receipts]
        assert limiter.spent(scope, budget, play.stage.relay.wall())[0] == sum(sums), scope
    for key, health in play.stage.relay.health.items():
        assert health.in_flight == 0, key
        assert health.breaker.state(now) is not State.PROBING, key


@pytest.mark.parametrize("seed", range(ORDERS))
def test_in_any_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(random, "random", chance.random)
    play = Play(chance)
    with play.stage:
        play.steps()
        play.read_all()
        told = {receipt.id: receipt for receipt in play.stage.receipts}
        for client in play.clients:
            for answer in client.answers():
                assert_honest(client, answer, told.get(answer.id))
        play.end()
        assert_even(play)
