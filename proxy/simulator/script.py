"""From an answer and the faults asked for to the steps that carry them out.

Lives here: the steps, and `script`, which decides every fault that begins after the request has been read.
May not live here: sockets, clocks, h11. The provider carries steps out and decides nothing.
How it works: `script` yields steps lazily, so that a stream of any length needs no memory. The body's steps pass
through filters (codings, recut, trickle), each of which only touches `Send`; a `Mark` stands behind the last byte of
its event whatever they do, so that the books know what is out. A head that is not `honest`, and `Raw`, are what h11
would refuse to write; the provider writes those under it.
Doubted: nothing yet.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from proxy.simulator.coding import Coder, coder
from proxy.simulator.faults import FaultError, Faults
from proxy.simulator.replay import cut_body, split_events
from proxy.simulator.speech import MOST_WHOLE, Answer, Headers, Part
from proxy.simulator.voices import Kind, Report, Voice
from proxy.wire.head import Framing


class Wait(NamedTuple):
    """Silence for so many seconds; ends the connection if the client leaves meanwhile."""

    seconds: float


class Until(NamedTuple):
    """Not before so many seconds after the head."""

    seconds: float


class Interim(NamedTuple):
    status: int
    headers: Headers


class Head(NamedTuple):
    status: int
    headers: Headers  # with framing, unless `honest` and chunked: then h11 chooses
    framing: Framing
    honest: bool


class Send(NamedTuple):
    """Body bytes, framed as the head said: one chunk, where it is chunked."""

    data: bytes


class Mark(NamedTuple):
    """Nothing to do: an event of the answer is out, and with it this usage report."""

    report: Report | None


class Raw(NamedTuple):
    """Bytes as they are, under any framing."""

    data: bytes


class End(NamedTuple):
    """The proper end of the message, and in the same write `extra`."""

    extra: bytes


class Fin(NamedTuple):
    """Close, after everything written is out."""


class Rst(NamedTuple):
    """Reset, after everything written is out."""


class Silence(NamedTuple):
    """Nothing more for so many seconds, then Fin. `ping` every so many seconds where `every` is not 0."""

    seconds: float
    ping: bytes
    every: float


Step = Wait | Until | Interim | Head | Send | Mark | Raw | End | Fin | Rst | Silence

_PLAIN = Mark(None)
GARBAGE = b"\x16\x03\x01\x00 this is not HTTP\r\n\r\n"
_SMUGGLED = b"HTTP/1.1 200 OK\r\nx-smuggled: yes\r\ncontent-length: 4\r\n\r\nevil"
_LATE = 0.05  # seconds between the end of a message and bytes that come late


def script(answer: Answer, faults: Faults, voice: Voice, *, bodiless: bool) -> Iterator[Step]:
    """Every step of one answer. `bodiless`: HEAD, or a status that has no body."""
    head, body = _head_and_body(answer, faults, voice, bodiless)  # first, so that what cannot be done is said at once
    if faults.delay:
        yield Wait(faults.delay)
    yield from _interim(faults)
    instead = _instead_of_head(faults)
    if instead:
        yield from instead
        return
    yield head
    ended = False
    for step in () if bodiless else body:
        yield step
        ended = isinstance(step, Fin | Rst | Silence)
    if ended:
        return
    if faults.length is not None and faults.length > 0:
        yield Fin()
        return
    yield End((_SMUGGLED * (faults.extra // len(_SMUGGLED) + 1))[: faults.extra])
    if faults.late_extra:
        yield Wait(_LATE)
        yield Raw((_SMUGGLED * (faults.late_extra // len(_SMUGGLED) + 1))[: faults.late_extra])


def _interim(faults: Faults) -> Iterator[Step]:
    if faults.interim == "endless":
        for _ in itertools.count():
            yield Interim(100, [])
            yield Wait(0.01)
    elif faults.interim == "103":
        yield Interim(103, [("link", "</simulated.css>; rel=preload")])
    elif faults.interim == "100":
        yield Interim(100, [])


def _instead_of_head(faults: Faults) -> list[Step]:
    if faults.reset:
        return [Rst()]
    if faults.drop_request:
        return [Fin()]
    if faults.silent:
        return [Silence(faults.hold, b"", 0.0)]
    if faults.garbage:
        return [Raw(GARBAGE), Fin()]
    return []


def _head_and_body(answer: Answer, faults: Faults, voice: Voice, bodiless: bool) -> tuple[Head, Iterable[Step]]:
    headers = [*answer.headers, *_extra_headers(faults)]
    body: Iterable[Step] = _filtered(_body(answer, faults, voice), faults)
    framing = _framing(answer, faults)
    if bodiless and (answer.streamed or answer.status in (204, 304)):
        return Head(answer.status, headers, Framing.NONE, True), ()
    if framing is Framing.LENGTH or faults.length is not None or faults.both_framings:
        body, size = _sized(body)
        headers.append(("content-length", str(max(0, size + (faults.length or 0)))))
    if faults.both_framings or (faults.length is None and framing is Framing.CHUNKED and faults.framing):
        headers.append(("transfer-encoding", "chunked"))
    honest = faults.length is None and not faults.both_framings and framing is not Framing.UNTIL_CLOSE
    return Head(answer.status, headers, framing, honest), body


def _extra_headers(faults: Faults) -> Headers:
    headers: Headers = []
    if faults.retry_after is not None:
        headers.append(("retry-after", faults.retry_after))
    if faults.retry_after_ms is not None:
        headers.append(("retry-after-ms", str(faults.retry_after_ms)))
    codings = _codings(faults)
    if codings:
        headers.append(("content-encoding", ", ".join(coding.removeprefix("bare ") for coding in codings)))
    if faults.close or faults.framing == "close":
        headers.append(("connection", "close"))
    return headers


def _codings(faults: Faults) -> list[str]:
    """In the order in which they are applied."""
    deflate = "bare deflate" if faults.deflate == "bare" else "deflate"
    asked = {"gzip": faults.gzip, deflate: faults.deflate is not None, "br": faults.br, "zstd": faults.zstd}
    return [coding for coding, is_asked in asked.items() if is_asked]


def _framing(answer: Answer, faults: Faults) -> Framing:
    if faults.both_framings:
        return Framing.CHUNKED
    if faults.length is not None:
        return Framing.LENGTH
    if faults.framing is None:
        return Framing.CHUNKED if answer.streamed else Framing.LENGTH
    return {"chunked": Framing.CHUNKED, "length": Framing.LENGTH, "close": Framing.UNTIL_CLOSE}[faults.framing]


def _sized(body: Iterable[Step]) -> tuple[list[Step], int]:
    """The body's steps as a list with the number of bytes they promise; cut or not, the promise is the whole."""
    steps: list[Step] = []
    size = 0
    for step in body:
        steps.append(step)
        size += len(step.data) if isinstance(step, Send) else 0
        if size > MOST_WHOLE:
            raise FaultError([f"a content-length is only possible for answers up to {MOST_WHOLE} bytes"])
    if isinstance(steps[-1] if steps else None, Fin | Rst | Silence):
        size += 100  # what was cut off: some bytes that never come
    return steps, size


def _body(answer: Answer, faults: Faults, voice: Voice) -> Iterator[Step]:
    """The body with all that goes wrong at some delta. Those faults end the answer, but for `malformed`."""
    if not answer.streamed and not _pending(faults):
        parts = list(answer.parts)  # halves are only for faults
        yield Send(b"".join([part.data for part in parts]))
        yield Mark(parts[-1].report if parts else None)
        return
    comment = voice.comment if answer.streamed and faults.comments else b""
    pending = _pending(faults)
    deltas = 0
    for part in answer.parts:
        closing = part.kind in (Kind.FINISH, Kind.DONE)
        while pending and (closing or deltas >= pending[0][0]):
            _, fault = pending.pop(0)
            yield from _act(fault, faults, voice, part, answer.streamed)
            if fault != "malformed":
                return
        if _is_left_out(part, faults):
            continue
        if part.kind is Kind.DELTA:
            if faults.pace:
                yield Until(deltas / faults.pace)
            if comment:
                yield Send(comment)
            deltas += 1
        yield from _sends(part.data, faults, answer.streamed, part.report)
    if pending:
        yield from _act(pending[0][1], faults, voice, None, answer.streamed)


def _pending(faults: Faults) -> list[tuple[int, str]]:
    """What happens at which delta, in order."""
    names = ("malformed", "error", "bad_chunk", "stall", "cut", "cut_rst")
    return sorted((getattr(faults, name), name) for name in names if getattr(faults, name) is not None)


def _is_left_out(part: Part, faults: Faults) -> bool:
    if faults.no_end and part.kind is Kind.FINISH:
        return True
    return (faults.no_end or faults.no_done) and part.kind is Kind.DONE


def _act(fault: str, faults: Faults, voice: Voice, part: Part | None, streamed: bool) -> Iterator[Step]:
    match fault:
        case "malformed":
            yield from _sends(malformed(part.data if part else b"data: {}\n\n"), faults, streamed)
        case "error":
            for event in voice.error_events():
                yield from _sends(voice.said(event), faults, streamed)
        case "bad_chunk":
            yield Raw(b"5zz\r\nhello\r\n")
            yield Fin()
        case "stall":
            yield Silence(faults.hold, voice.comment if streamed else b"", faults.ping)
        case "cut":
            yield Fin()
        case "cut_rst":
            yield Rst()


def malformed(event: bytes) -> bytes:
    """`event` (or the last of several) with its JSON broken off and its end in place."""
    events = split_events(event) or [event]
    last = events[-1]
    body = last.rstrip(b"\r\n")
    return b"".join(events[:-1]) + body[: len(body) * 2 // 3] + last[len(body) :]


def _sends(data: bytes, faults: Faults, streamed: bool, report: Report | None = None) -> Iterator[Step]:
    """One Send and one Mark for each event in `data`; `report` stands in the last."""
    if streamed and faults.eol is not None:
        data = data.replace(b"\r\n", b"\n").replace(b"\n", {"lf": b"\n", "cr": b"\r", "crlf": b"\r\n"}[faults.eol])
    if streamed and data.count(b"\n\n") > 1:
        *events, data = split_events(data)
        for event in events:
            yield Send(event)
            yield _PLAIN
    if data:
        yield Send(data)
        yield Mark(report) if report is not None else _PLAIN


def _filtered(steps: Iterator[Step], faults: Faults) -> Iterator[Step]:
    for coding in _codings(faults):
        steps = _compressed(steps, coder(coding))
    if faults.cuts is not None:
        steps = _recut(steps, faults.cuts)
    if faults.trickle:
        steps = _trickled(steps, faults.trickle)
    return steps


def _compressed(steps: Iterator[Step], coder: Coder) -> Iterator[Step]:
    """Each Send compressed and flushed, so that it can be read when it arrives; the trailer only at a proper end."""
    step: Step | None = None
    for step in steps:
        if isinstance(step, Send):
            yield Send(coder.compress(step.data) + coder.flush())
        else:
            yield step
    if not isinstance(step, Fin | Rst | Silence):
        yield Send(coder.finish())


def _recut(steps: Iterator[Step], cut: str) -> Iterator[Step]:
    """Sends that follow each other, joined and cut anew. Joins at most MOST_WHOLE bytes at once."""
    held = bytearray()
    marks: deque[tuple[int, Mark]] = deque()  # and behind how many bytes they stand
    for step in steps:
        if isinstance(step, Send):
            held += step.data
        if isinstance(step, Mark):
            marks.append((len(held), step))
        elif not isinstance(step, Send) or len(held) > MOST_WHOLE:
            yield from _anew(bytes(held), marks, cut)
            held.clear()
            if not isinstance(step, Send):
                yield step
    yield from _anew(bytes(held), marks, cut)


def _anew(data: bytes, marks: deque[tuple[int, Mark]], cut: str) -> Iterator[Step]:
    size = 0
    for piece in cut_body(data, cut):
        yield Send(piece)
        size += len(piece)
        while marks and marks[0][0] <= size:
            yield marks.popleft()[1]


def _trickled(steps: Iterator[Step], rate: float) -> Iterator[Step]:
    """Sends in slices, so that `rate` bytes a second go out in at most 100 writes a second."""
    slice_size = max(1, int(rate / 100))
    sent = 0
    for step in steps:
        if not isinstance(step, Send):
            yield step
            continue
        for place in range(0, len(step.data), slice_size):
            yield Until(sent / rate)
            piece = step.data[place : place + slice_size]
            sent += len(piece)
            yield Send(piece)
