"""What no sum has: requests that wait beside the ledger, and those that were lost.

Lives here: sentences about them. May not live here: finding them (ledger.audit).
How it works: the commands that read the ledger's rows ask here what rows there should be besides, in the same span of
time. Of the lost nobody knows what they were, so keys and models choose among the rows only.
Doubted: nothing yet.
"""

from __future__ import annotations

import os
from typing import Any

from proxy.ledger.audit import Missing, missing
from proxy.ledger.reader import LedgerReader, Wanted
from proxy.telemetry.lines import clean


def look(ledger: LedgerReader, asked: Wanted) -> Missing:
    """What is missing from an answer about `asked`."""
    return missing(ledger, asked.since, asked.until)


def document(found: Missing) -> dict[str, Any]:
    """As plain values. `lost` None: nobody knows how many."""
    return {"spilled": found.spilled, "lost": found.lost if found.is_exact else None}


def sentences(found: Missing, path: str, is_all: bool = True, absent: str = "in the sums") -> list[str]:
    """Nothing if nothing is missing. `is_all`: all requests of their time were asked for, of whatever key and model.
    `absent`: where they are not."""
    said = []
    if found.spilled:
        many = found.spilled > 1
        then = "the running process adds" if found.is_running else "the next `llm-proxy serve` adds"
        said.append(
            f"{'' if is_all else 'Up to '}{_more(found.spilled)} {'wait' if many else 'waits'} in "
            f"{clean(os.path.basename(path))}-spill and {'are' if many else 'is'} not {absent}; "
            f"{then} {'them' if many else 'it'}."
        )
    if found.lost or not found.is_exact:
        number = _requests(found.lost) if found.is_exact else f"At least {_requests(found.lost)}"
        if not found.lost:
            number = "An unknown number of requests"
        when = "when the process was killed" if found.was_killed else "since no disk took them"
        said.append(f"{number} {'was' if found.lost == 1 else 'were'} lost {when}; see `llm-proxy ledger check`.")
    return said


def _requests(number: int) -> str:
    return "1 request" if number == 1 else f"{number:,} requests"


def _more(number: int) -> str:
    return "1 more request" if number == 1 else f"{number:,} more requests"
