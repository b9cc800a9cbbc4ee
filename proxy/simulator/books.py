"""The provider's own books: what each answer reported as usage, how much of it went out, how it ended.

Lives here: `Books`, `Entry`, `Total`, `Ending`. May not live here: what is answered, and the sending (provider).
How it works: the provider keeps one `Entry` for each answer and files it when the answer is over. A report counts when
the last byte of its event has been handed to the socket; what the kernel then does with it nobody here can know.
Totals are kept for ever, one per dialect, model and ending; of the entries only the last are kept.
Doubted: recorded answers are in the books with their bytes, but nobody reads what usage they report.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from proxy.simulator.voices import Report

MOST_ENTRIES = 20_000  # about 8 MB; whoever compares row by row makes fewer exchanges than that
MOST_TOTALS = 1_000  # models are named by clients; beyond this they share a total
OTHER_MODELS = "(other models)"


class Ending(Enum):
    ENDED = "ended"  # the message came to its proper end
    CUT = "cut"  # by an order: not one byte, half of it, or a length that is not met
    LEFT = "left"  # the client did not wait for the end


@dataclass(slots=True)
class Entry:
    """One answer. Counts are of what was handed to the socket: events and bytes of the body, codings included, framing
    not. An answer that is not streamed is one event, or two where it was cut in halves."""

    request_id: str  # as its header says
    dialect: str
    model: str  # without an order in it
    status: int = 0  # 0: no head went out
    report: Report | None = None  # the last usage report that went out in full
    events: int = 0
    bytes: int = 0
    ending: Ending = Ending.CUT

    @property
    def is_reported(self) -> bool:
        """The final report went out."""
        return self.report is not None and self.report.is_final


@dataclass(slots=True)
class Total:
    """Sums over entries; the tokens of final reports only."""

    answers: int = 0
    reported: int = 0  # of them, with a final report
    events: int = 0
    bytes: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    def add(self, entry: Entry) -> None:
        self.answers += 1
        self.events += entry.events
        self.bytes += entry.bytes
        report = entry.report
        if report is not None and report.is_final:
            self.reported += 1
            self.input += report.input
            self.output += report.output
            self.cached += report.cached or 0
            self.cache_write += report.cache_write or 0
            self.reasoning += report.reasoning or 0


class Line(NamedTuple):
    """What a total is of."""

    dialect: str
    model: str
    ending: Ending


@dataclass(slots=True)
class Books:
    """`entries`: newest last. `totals`: by (dialect, model, ending)."""

    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=MOST_ENTRIES))
    totals: dict[Line, Total] = field(default_factory=dict)

    def file(self, entry: Entry) -> None:
        """`entry` is over; it must not change any more."""
        self.entries.append(entry)
        line = Line(entry.dialect, entry.model, entry.ending)
        if line not in self.totals and len(self.totals) >= MOST_TOTALS:
            line = line._replace(model=OTHER_MODELS)
        self.totals.setdefault(line, Total()).add(entry)
