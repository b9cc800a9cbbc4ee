"""A stream that broke after the client got part of it, continued by a second one.

Lives here: `resumable`, `Said` (what the client has of a stream), `Resumed` (what it may get of a second stream).
May not live here: whether and where to try again (policy), who reads and writes (relay).
How it works: `Said` is fed the blocks that the client gets. After a cut, `Resumed` is fed the second stream: as long as
its text repeats what the client has it is held back, the event in which that ends is cut to the rest of its text, and
the events behind it pass under the id of the first stream. Where the text differs nothing has been passed, and the
exchange ends as if nobody had tried. While a `Resumed` is fed nobody feeds the `Said`: it is told what passes, so that
a second cut can be resumed like the first.
Doubted: only plain text of a single choice is resumed. A model that is not told to (a temperature of 0, a seed) seldom
says the same twice, so most attempts end where they differ; they cost the tokens, never a wrong character.
"""

from __future__ import annotations

import codecs

from proxy.dialects.resume_chat import ChatReader
from proxy.dialects.resume_event import Edit, EventReader, Seen, What, as_raw, as_units, rewritten, whole_events
from proxy.dialects.resume_messages import MessagesReader

# Of what a client has, as JSON has it: 250,000 tokens, more than any model says in one answer. Compared in 2 bytes a
# letter, which takes 1 ms to make of as much.
MAX_TEXT = 1024 * 1024

_READERS: dict[str, type[EventReader]] = {"openai-chat": ChatReader, "anthropic-messages": MessagesReader}


def resumable(dialect: str) -> Said | None:
    """For a stream of which nothing was sent yet. None: streams of this dialect are not resumed."""
    reader = _READERS.get(dialect)
    return Said(reader) if reader is not None else None


class Said:
    """What the client has of a stream: its text, and what a continuation must fit to."""

    __slots__ = ("block", "can_resume", "has_begun", "marks", "_new_reader", "_raw", "_reader")

    def __init__(self, reader: type[EventReader]) -> None:
        self.can_resume = True  # all that passed can be continued; once False it stays so
        self.has_begun = False  # the client knows of a message
        self.block: bytes | None = None  # index of the block of text that is open, where a dialect has blocks
        self.marks: dict[str, bytes] = {}  # raw values that are the same in all events of a stream
        self._new_reader = reader
        self._reader = reader()
        self._raw = bytearray()  # the text, as JSON has it: pieces of it joined are the JSON of the joined text

    def feed(self, block: bytes) -> None:
        """`block`: one or more whole events that the client gets."""
        # A delta of 320 bytes: 1.1 us, in a block with others 1.7; 30 if it is unlike the one before, as the first of a
        # stream is, and all where usage or Together's copy of the text stands behind the text (python -m timeit
        # -s "from tests.dialects.cost import DELTA; from proxy.dialects.resume import resumable;
        # s = resumable('openai-chat'); s.feed(DELTA)" "s.feed(DELTA); s._raw.clear()")
        if not self.can_resume:
            return
        raw = self._reader.usual_text(block)
        if raw is not None:
            self.add(raw)
            return
        for event in whole_events(block):
            raw = self._reader.usual_text(event)
            if raw is not None:
                self.add(raw)
            else:
                seen = self._reader.read(event)
                text = event[slice(*seen.texts[0])] if seen.texts else b""
                self.note(seen, event, text, event[slice(*seen.block)] if seen.block else None)

    def skip(self) -> None:
        """The client got an event that was too large to be looked at."""
        self.can_resume = False
        self._raw = bytearray()

    def resume(self) -> Resumed:
        """For a second stream; only if `can_resume`, and only one at a time. After a cut of that, again."""
        assert self.can_resume
        return Resumed(self, self._new_reader())

    def add(self, raw: bytes) -> None:
        """The client gets more text, raw as it stands in JSON."""
        if not self.can_resume:
            return
        self._raw += raw
        if len(self._raw) > MAX_TEXT:
            self.skip()

    def note(self, seen: Seen, event: bytes, raw: bytes, index: bytes | None) -> None:
        """The client gets an event, perhaps with other text and another index than stand in it."""
        what = seen.what
        if not self.can_resume or what is What.IDLE:
            return
        for name, span in seen.marks:
            self.marks.setdefault(name, event[slice(*span)])
        self.has_begun = True
        if what is What.OPEN and self.block is None:
            self.block = index
            self.add(raw)
        elif what is What.TEXT and index == self.block:
            self.add(raw)
        elif what is not What.BEGIN:
            self.skip()

    def units(self) -> bytes:
        """The text, as it is compared."""
        return as_units(bytes(self._raw))


class Resumed:
    """Lets of a second stream pass what the client does not have."""

    __slots__ = (
        "can_go_on", "has_error", "is_caught_up", "_at", "_block", "_has_passed", "_is_first", "_new_head", "_reader",
        "_said", "_shift", "_wanted",
    )  # fmt: skip

    def __init__(self, said: Said, reader: EventReader) -> None:
        self.can_go_on = True  # False: it differs, nothing of it may be passed any more
        self.has_error = False  # the provider's own error event has come; it passes only if it is caught up
        self._said = said
        self._reader = reader
        self._wanted = said.units()  # what must come first
        self._at = 0  # how much of it has come
        self._block: bytes | None = None  # index of the block that is the client's open one
        self._shift = 0  # from this stream's indices to the client's
        # All that the client has has come. From here on everything passes, and nothing can differ any more.
        self.is_caught_up = not self._wanted and said.block is None
        self._has_passed = False  # more than comments and pings
        self._is_first = True
        self._new_head: bytes | None = None  # in place of the reader's learned head

    def feed(self, block: bytes) -> bytes | None:
        """`block`: one or more whole events of the second stream. What the client gets for it, or None: this stream
        is not the same as the first, and the client gets nothing."""
        if not self.can_go_on:
            return None
        if self._is_first and block:
            block = block.removeprefix(codecs.BOM_UTF8)  # allowed nowhere but at the very beginning
            self._is_first = False
        passed = []
        for event in whole_events(block):
            piece = self._pass(event) if self.is_caught_up else self._compare(event)
            if piece is None:  # then all pieces before it were empty: what is caught up cannot differ any more
                self.can_go_on = False
                return None
            passed.append(piece)
        return b"".join(passed)

    def skip(self) -> None:
        """An event came that was too large to be looked at, and so cannot be passed."""
        self.can_go_on = False

    # -- as long as the client has it --------------------------------------------------------------------------------

    def _compare(self, event: bytes) -> bytes | None:
        raw = self._reader.usual_text(event)
        if raw is not None and self._is_had(raw):
            return b""
        seen = self._reader.read(event)
        match seen.what:
            case What.IDLE | What.BEGIN:
                return b""
            case What.OPEN:
                return b"" if self._open(seen, event) else None
            case What.TEXT | What.END:
                return self._join(seen, event)
            case What.ERROR:
                self.has_error = True
        return None

    def _is_had(self, raw: bytes) -> bool:
        """Whether the client has all of this text already. Only then it counts as come."""
        units = as_units(raw)
        if not self._wanted.startswith(units, self._at):
            return False
        self._count(len(units))
        return True

    def _count(self, size: int) -> None:
        self._at += size
        if self._at == len(self._wanted):
            self.is_caught_up = True
            self._wanted, self._at = b"", 0

    def _open(self, seen: Seen, event: bytes) -> bool:
        """The block that the client has open. Text in its beginning cannot be cut: it would be a beginning again."""
        ours = self._said.block
        if ours is None or self._block is not None or seen.block is None:
            return False
        self._block = event[slice(*seen.block)]
        self._shift = int(ours) - int(self._block)
        return self._is_had(event[slice(*seen.texts[0])] if seen.texts else b"")

    def _join(self, seen: Seen, event: bytes) -> bytes | None:
        index = event[slice(*seen.block)] if seen.block else None
        if index != self._block or not seen.texts:
            return None
        units = as_units(event[slice(*seen.texts[0])])
        common = min(len(units), len(self._wanted) - self._at)
        if not self._wanted.startswith(units[:common], self._at):
            return None
        self._count(common)
        if not self.is_caught_up:
            return b"" if seen.what is What.TEXT else None
        if common == len(units) and seen.what is What.TEXT:
            return b""
        return self._send(seen, event, as_raw(units[common:]))

    # -- what is new -------------------------------------------------------------------------------------------------

    def _pass(self, event: bytes) -> bytes:
        # A delta of 320 bytes: 2.5 us (python -m timeit -s "from tests.dialects.cost import DELTA; from
        # proxy.dialects.resume import resumable; s = resumable('openai-chat'); r = s.resume(); r.feed(DELTA)"
        # "r.feed(DELTA); s._raw.clear()")
        if self._new_head is not None:
            raw = self._reader.usual_text(event)
            if raw is not None:
                self._said.add(raw)
                return self._new_head + event[len(self._reader.head) :]
        seen = self._reader.read(event)
        if seen.what is What.BEGIN and self._said.has_begun and not self._has_passed:
            return b""
        if seen.what is What.ERROR:
            self.has_error = True
        return self._send(seen, event, None)

    def _send(self, seen: Seen, event: bytes, rest: bytes | None) -> bytes:
        """An event under the marks of the first stream; `rest`: with this text in place of its own."""
        marks = self._said.marks
        edits: list[Edit] = [(span, marks[name]) for name, span in seen.marks if name in marks]
        index = None
        if seen.block is not None:
            index = b"%d" % (int(event[slice(*seen.block)]) + self._shift)
            edits.append((seen.block, index))
        if seen.what is What.TEXT:
            self._new_head = self._head_with(edits, event[: seen.texts[0][0]])
        if seen.what is not What.IDLE:
            self._has_passed = True
        text = event[slice(*seen.texts[0])] if seen.texts else b""
        self._said.note(seen, event, text if rest is None else rest, index)
        if rest is not None:
            edits += [(span, rest) for span in seen.texts]
        return rewritten(event, edits)

    def _head_with(self, edits: list[Edit], head: bytes) -> bytes | None:
        """What stands in place of a learned head; None where there is none, or more than it would have to change."""
        if head != self._reader.head or any(span[0] >= len(head) for span, _ in edits):
            return None
        return rewritten(head, edits)
