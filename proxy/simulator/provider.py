"""The simulated provider: a listener and its connections.

Lives here: `Simulator`, what it has seen, and one coroutine per connection. May not live here: what is answered
(speech), what goes wrong (script), how bytes are written (line).
How it works: a connection reads a request, picks the answer, carries out its steps, and does what the faults want
between two requests. Silences watch for the client leaving; `close` ends everything at once. Nothing grows without
bound: bodies beyond 32 MiB are digested only, and the oldest seen requests are forgotten. What goes out is noted in the
books as it is handed to the socket.
Doubted: nothing yet.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl as ssl_module
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import h11

from proxy.simulator.books import Books, Ending, Entry
from proxy.simulator.faults import FaultError, Faults, Said, combine, name_of_model, read, spec_of_model
from proxy.simulator.line import READ, Left, Line
from proxy.simulator.replay import Recording, Replay, split_events
from proxy.simulator.script import End, Fin, Head, Interim, Mark, Raw, Rst, Send, Silence, Step, Until, Wait, script
from proxy.simulator.seen import SeenRequest, forget_bodies, remember
from proxy.simulator.speech import Answer, Ask, Part, Request, answer, error, read_ask, request_id, voice_of
from proxy.simulator.voices import Kind, Voice

HEADER = b"x-simulate"
MOST_BODY = 32 * 1024 * 1024  # of a request, kept to be read; larger ones are digested only (as our own body limit)


class Simulator:
    """A provider on a TCP port. `default` is a spec for every request (see faults); raises FaultError if it is wrong.
    Everything happens in one event loop.

    `requests`: what was seen, newest last (at most 1,000). `books`: what was answered. `connections`: accepted so far.
    `default` may be changed while it runs. `orders`: what is left of them (`order`).
    """

    def __init__(
        self, *, default: str = "", replay: Replay | None = None, ssl: ssl_module.SSLContext | None = None
    ) -> None:
        self.default: Said = read(default)
        self.replay = replay
        self.requests: list[SeenRequest] = []
        self.books = Books()
        self.connections = 0
        self.answered = 0  # answers carried out to their last step
        self.port = 0
        self._ssl = ssl
        self._host = ""
        self._serial = 0
        self.orders: deque[Said] = deque()
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], Line] = {}
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port. Raises OSError where it cannot."""
        self._server = await asyncio.start_server(self._accepted, host, port, ssl=self._ssl, limit=READ, backlog=1024)
        self._host = host
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def close(self) -> None:
        """Stop listening, drop every connection, wait until nothing is left."""
        self.stop_listening()
        lines = dict(self._open)
        for task, line in lines.items():
            task.cancel()
            line.abort()
        await asyncio.gather(*lines, return_exceptions=True)
        self.changed()

    def stop_listening(self) -> None:
        """From here new connections are refused by the kernel; open ones go on. `listen_again` ends it."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def listen_again(self) -> None:
        await self.start(self._host, self.port)

    async def until(self, is_so: Callable[[Simulator], bool], seconds: float = 10.0) -> None:
        """Wait until `is_so(self)`; asked again at each event here. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not is_so(self):
                waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter

    def order(self, *specs: str) -> None:
        """The next requests get one of these each, over the default and what their model's name says."""
        self.orders.extend(map(read, specs))

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def saw(self, seen: SeenRequest) -> None:
        remember(self.requests, seen)
        self.changed()

    def saw_body(self, seen: SeenRequest) -> None:
        forget_bodies(self.requests, seen)
        self.changed()

    def changed(self) -> None:
        """Wake whoever waits in `until`."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        line = Line(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = line
        self.changed()
        try:
            await _Connection(self, line, self.connections).run()
        except (OSError, EOFError, Left):
            pass  # the client left, which is its right
        except asyncio.CancelledError:
            pass  # only `close` cancels; ending quietly keeps the loop's handler quiet
        finally:
            line.abort()
            del self._open[task]
            self.changed()


class _Connection:
    """One client's connection: requests in turn, each with its faults."""

    __slots__ = ("line", "number", "simulator")

    def __init__(self, simulator: Simulator, line: Line, number: int) -> None:
        self.simulator = simulator
        self.line = line
        self.number = number

    async def run(self) -> None:
        default = combine(self.simulator.default)
        if default.refuse:
            self.line.rst_now()
            return
        if default.deaf or default.silent:
            await asyncio.sleep(default.hold)
            return
        faults: Faults | None = None
        while await self._may_go_on(faults):
            faults = await self._exchange()
            if faults is None:
                return

    async def _may_go_on(self, faults: Faults | None) -> bool:
        """Between two requests: the faults of the last one that strike only now."""
        if faults is None:
            return True
        if faults.close or faults.drop:
            await self.line.fin()
            return False
        if not self.line.next_cycle():
            await self.line.fin()
            return False
        if faults.drop_next or faults.reset_next:
            if await self.line.fill():
                await (self.line.rst() if faults.reset_next else self.line.fin())
            return False
        if faults.idle_close is not None:
            try:
                async with asyncio.timeout(faults.idle_close):
                    return await self.line.fill()
            except TimeoutError:
                await self.line.fin()
                return False
        return True

    async def _exchange(self) -> Faults | None:
        """One request and its answer; None where the connection is over."""
        try:
            head = await self._head()
            if head is None:
                return None
            seen, said, problem = self._see(head)
            early = combine(self.simulator.default, said)
            if early.refuse:
                self.line.rst_now()
                return None
            if early.deaf:
                await asyncio.sleep(early.hold)
                return None
            is_whole = await self._body(seen, early.early)
        except h11.RemoteProtocolError as wrong:
            await self._refuse(wrong)
            return None
        faults = await self._answer(seen, said, problem)
        if faults is not None and not is_whole:
            return await self._rest(seen, faults)
        return faults

    async def _head(self) -> h11.Request | None:
        while True:
            event = self.line.h11.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA or not await self.line.fill():
                return None

    def _see(self, head: h11.Request) -> tuple[SeenRequest, Said, FaultError | None]:
        """The request, and what its header and path say about the answer."""
        simulator = self.simulator
        target = head.target.decode("latin-1")
        fields = head.headers.raw_items()
        seen = SeenRequest(simulator.next_serial(), self.number, head.method.decode("latin-1"), target, fields)
        simulator.saw(seen)
        order = simulator.orders.popleft() if simulator.orders else {}
        try:
            said = _over(read(spec_of_model(read_ask(seen.method, target, None).model)), order)
            spec = " ".join(value.decode("latin-1") for name, value in head.headers if name == HEADER)
            return seen, _over(said, read(spec)), None
        except FaultError as problem:
            return seen, {}, problem

    async def _body(self, seen: SeenRequest, early: int | None) -> bool:
        """Read the body; False if the answer is due before its end."""
        digest = hashlib.sha256()
        pieces: list[bytes] = []
        if early is None and self.line.h11.they_are_waiting_for_100_continue:
            await self.line.interim(Interim(100, []))
        while early is None or seen.size < early:
            event = self.line.h11.next_event()
            if isinstance(event, h11.Data):
                seen.size += len(event.data)
                digest.update(event.data)
                if seen.size <= MOST_BODY:
                    pieces.append(bytes(event.data))
                else:
                    pieces.clear()
            elif isinstance(event, h11.EndOfMessage):
                seen.complete = True
                break
            elif event is not h11.NEED_DATA or not await self.line.fill():
                raise Left
        seen.body = b"".join(pieces)
        seen.sha256 = digest.hexdigest()
        self.simulator.saw_body(seen)
        return seen.complete

    async def _rest(self, seen: SeenRequest, faults: Faults) -> Faults | None:
        """What is left of a body that was answered early: read, so that no reset eats the answer."""
        try:
            while True:
                event = self.line.h11.next_event()
                if isinstance(event, h11.Data):
                    seen.size += len(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    seen.complete = True
                    self.simulator.saw_body(seen)
                    return faults
                elif event is not h11.NEED_DATA or not await self.line.fill():
                    return None
        except h11.RemoteProtocolError:
            return None

    async def _refuse(self, wrong: h11.RemoteProtocolError) -> None:
        """A request that is not HTTP: 400 and close, as servers do."""
        if self.line.h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = wrong.error_status_hint or 400
            headers = [("content-length", "0"), ("connection", "close")]
            await self.line.write(self.line.h11.send(h11.Response(status_code=status, headers=headers)))
        await self.line.fin()

    async def _answer(self, seen: SeenRequest, said: Said, problem: FaultError | None) -> Faults | None:
        body = seen.body if seen.size == len(seen.body) or seen.size <= MOST_BODY else None
        ask = read_ask(seen.method, seen.target, body)
        voice = voice_of(ask, seen.number, seen.size, seen.target)
        try:
            if problem is not None:
                raise problem
            faults = combine(self.simulator.default, read(spec_of_model(ask.model)), said)
            seen.faults = faults
            given, faults = self._given(seen, body, ask, faults, voice)
            steps = script(given, faults, voice, bodiless=_is_bodiless(seen, given.status))
            first = next(steps)  # so that what is asked wrongly shows before a head is out
        except FaultError as wrong:
            faults = Faults()
            given = error(ask, voice, 400, f"the simulator was asked for what it cannot do: {wrong}")
            steps = script(given, faults, voice, bodiless=_is_bodiless(seen, 400))
            first = next(steps)
        entry = Entry(request_id(seen.number), ask.dialect, name_of_model(ask.model))
        goes_on = await self._carry_out(first, steps, entry)
        self.simulator.answered += 1
        self.simulator.changed()
        return faults if goes_on else None

    def _given(
        self, seen: SeenRequest, body: bytes | None, ask: Ask, faults: Faults, voice: Voice
    ) -> tuple[Answer, Faults]:
        """A recording (with the cut of its folder), if one is asked for or fits; else what the voice says."""
        request = Request(seen.method, seen.target, seen.headers, body, seen.sha256, seen.size)
        replay = self.simulator.replay
        if faults.replay is not None:
            found = replay.get(faults.replay) if replay is not None else None
            if found is None:
                raise FaultError([f"there is no recording {faults.replay!r}"])
        elif replay is not None and faults.status < 400 and faults.echo is None:
            found = replay.find(seen.target.partition("?")[0], seen.sha256)
        else:
            found = None
        if found is None or replay is None:
            return answer(ask, request, faults, voice), faults
        return _recorded(found), replace(faults, cuts=faults.cuts or replay.cut)

    async def _carry_out(self, first: Step, steps: Iterator[Step], entry: Entry) -> bool:
        """True if the connection may serve another request."""
        step: Step | None = first
        try:
            while step is not None:
                if isinstance(step, Mark):
                    entry.events += 1
                    entry.report = step.report or entry.report
                elif not await self._step(step, entry):
                    return False
                step = next(steps, None)
        except (OSError, EOFError, Left):
            if entry.ending is not Ending.ENDED:
                entry.ending = Ending.LEFT
            raise
        finally:
            self.simulator.books.file(entry)
        return True

    async def _step(self, step: Step, entry: Entry) -> bool:
        line = self.line
        match step:
            case Send(data):
                await line.send(data)
                entry.bytes += len(data)
            case Until(seconds):
                due = line.began + seconds - asyncio.get_running_loop().time()
                if due > 0:
                    await (asyncio.sleep(due) if due < 1 else line.watch(due))
            case Head():
                await line.head(step)
                entry.status = step.status
            case End(extra):
                await line.end(extra)
                entry.ending = Ending.ENDED
            case Wait(seconds):
                await line.watch(seconds)
            case Interim():
                await line.interim(step)
            case Raw(data):
                await line.raw(data)
            case Silence():
                await self._be_silent(step)
                return False
            case Fin():
                await line.fin()
                return False
            case Rst():
                await line.rst()
                return False
        return True

    async def _be_silent(self, step: Silence) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + step.seconds
        while step.every and loop.time() + step.every < until:
            await self.line.watch(step.every)
            if step.ping:
                await self.line.send(step.ping)
        await self.line.watch(max(0.0, until - loop.time()))
        await self.line.fin()


def _over(weak: Said, strong: Said) -> Said:
    return strong if "plain" in strong else {**weak, **strong}


def _is_bodiless(seen: SeenRequest, status: int) -> bool:
    return seen.method == "HEAD" or status in (204, 304)


def _recorded(recording: Recording) -> Answer:
    body = recording.body()
    parts = split_events(body) if recording.streamed else [body]
    spoken = iter([Part(Kind.DELTA, part) for part in parts])
    return Answer(recording.status, recording.headers, spoken, recording.streamed)
