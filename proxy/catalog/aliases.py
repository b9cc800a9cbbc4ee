"""Aliases: a name that clients use, and the targets that may answer to it.

Lives here: `Choice`, `Alias` as frozen values. May not live here: which target is asked (policy), reading
configuration (load).
How it works: the groups are tried in order; within a group the targets are equals by weight. What an alias says of
retries and times goes before what holds for everything.
Doubted: nothing yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.outcome import Limit


class Choice(NamedTuple):
    """One target of an alias. `window` is its context window in tokens; 0: not known."""

    provider: str
    model: str
    weight: int = 1
    window: int = 0


@dataclass(frozen=True, slots=True)
class Alias:
    """`retries`: attempts after the first, None: as for everything. `seconds`: limits of its own; 0 = none. `hedges`:
    a second attempt is made where the first is slow. `resumes`: a stream that was cut is carried on by another
    attempt. `cost`: the most that one request may cost, in microdollars; None: any."""

    name: str
    groups: tuple[tuple[Choice, ...], ...]
    retries: int | None = None
    seconds: dict[Limit, float] = field(default_factory=dict)
    hedges: bool = False
    resumes: bool = False
    cost: int | None = None
