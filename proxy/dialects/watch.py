"""What the watches of all dialects share.

Lives here: `EventWatch`, the slow and exact way through a block; `NamedWatch` for events with names; reading an event's
JSON; which values count as empty.
May not live here: names that only one vendor uses.
How it works: a dialect's `feed` first looks at the bytes of the usual event and decides without parsing. Whatever does
not look exactly like that comes here, is split and parsed. The looks are sound because a quote inside a JSON string is
escaped: the bytes `"name":` can only be a key, never a model's text.
Doubted: nothing yet.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from proxy.dialects.body import without_half_pairs
from proxy.wire.sse import split_events

_decode = msgspec.json.Decoder().decode
_BEGINNINGS: Final = frozenset(bytes((byte,)) for byte in b'{["-0123456789tfn \t\r\n')  # of JSON texts


class EventWatch:
    """Watches a stream event by event. Dialects give `_see` and, for speed, override `feed`."""

    __slots__ = ("events", "has_error", "has_report", "is_complete", "is_terminal", "texts")

    def __init__(self) -> None:
        self.is_complete = False
        self.is_terminal = False
        self.has_error = False
        self.has_report = False
        self.texts = 0
        self.events = 0

    def feed(self, block: bytes) -> bool:
        return self.feed_slowly(block)

    def feed_slowly(self, block: bytes) -> bool:
        """Splits and parses. Never raises, whatever the bytes are."""
        progress = False
        for name, data in split_events(block):
            self.events += 1
            if self._see(name, data):
                progress = True
        return progress

    def _see(self, name: bytes, data: bytes) -> bool:
        """One event. True if it is progress."""
        raise NotImplementedError

    def _pass_over(self) -> bool:
        """A ping: it proves a connection, not an answer, so it is no progress and not counted."""
        self.events -= 1
        return False

    def _fail(self) -> bool:
        """The provider's own error: it is progress and an ending, since the provider has said how it ended."""
        self.has_error = True
        self.is_complete = True
        return True


class NamedWatch(EventWatch):
    """Watches a stream whose events have names, where the name alone tells that the usual event is progress."""

    __slots__ = ()
    usual = b"\xff"  # how the usual event begins: its name line and the start of its data line

    def feed(self, block: bytes) -> bool:
        # An event of 150 bytes: 0.45 us (python -m timeit -s "from tests.dialects.cost import BLOCK_DELTA as b,
        # messages_watch; w = messages_watch()" "w.feed(b)"). JSON holds no bare line ends, so counting them counts the
        # lines of events.
        if block.startswith(self.usual):
            count = 1 + block.count(b"\n\n" + self.usual)
            if block.count(b"\n") == 3 * count and block.endswith(b"\n\n"):
                self.events += count
                return True
        return self.feed_slowly(block)


def parse(data: bytes) -> Any:
    """The JSON value of an event, or None if it is none. Half a surrogate pair in an escape (a model may cut an emoji
    in two) is taken for another character: nobody here asks which."""
    # A read may hold 80,000 lines that are not JSON, so these must be cheap: an exception of msgspec costs 0.3 to 0.6
    # us, one of orjson 1.5, one of json 4.
    if data[:1] not in _BEGINNINGS:
        return None
    try:
        return _decode(data)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        pass
    changed = without_half_pairs(data)
    if changed is None:
        return None
    try:
        return _decode(changed)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None


def is_filled(value: object) -> bool:
    """False for what providers put where nothing is: null, "", [], {}, false."""
    return value is not None and value is not False and value != "" and value != [] and value != {}
