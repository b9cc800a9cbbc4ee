"""Which of a provider's credentials is used: they take turns, and one that is refused stays out for a while.

Lives here: `Credentials`, which knows them by number. May not live here: the credentials themselves (catalog), what a
refusal means for the attempt (retry).
How it works: a 401 takes a credential out for all models, a 403 for the model that was asked for: a client that asks
for what the project may not use takes nothing from the others. It is out for a minute at first, and twice as long each
time, up to a quarter of an hour; then one request tries it, and nobody else until that one has told how it went. A 429
that says how long to wait closes one credential for so long.
What is out, is out for us: somebody may put it right at the provider, and nobody would tell us but the next try. A
limit is different: where there is but one credential, the provider is left to say 429 itself.
Doubted: a success that began before the refusal brings a credential back early; the next refusal takes it out again.
"""

from __future__ import annotations

from typing import Final

_FIRST_OUT: Final = 60.0  # seconds
_LONGEST_OUT: Final = 900.0
_LOST: Final = 60.0  # seconds after which a try that has told nothing is given up
_MOST_RECORDS: Final = 1000  # of credentials with models; a client may ask for any name
_LONGEST_NAME: Final = 256  # characters of a model's name that tell it from others


class _Out:
    """A credential that was refused."""

    __slots__ = ("span", "tried_at", "until")

    def __init__(self, now: float) -> None:
        self.span = _FIRST_OUT
        self.until = now + self.span
        self.tried_at: float | None = None  # the try that runs

    def may(self, now: float) -> bool:
        return now >= self.until and (self.tried_at is None or now >= self.tried_at + _LOST)

    def extend(self, now: float) -> bool:
        """True: it is refused once more. False: several that began before were refused as well, which is no news."""
        if now < self.until:
            return False
        self.span = min(2 * self.span, _LONGEST_OUT)
        self.until = now + self.span
        self.tried_at = None
        return True


class Credentials:
    """Those of one provider, by their numbers from 0."""

    __slots__ = ("_all", "_by_model", "_limited", "_next", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._next = 0
        self._limited: dict[int, float] = {}  # until when
        self._all: dict[int, _Out] = {}  # for all models
        self._by_model: dict[tuple[int, str], _Out] = {}  # the oldest first

    def pick(self, now: float, model: str) -> int | None:
        """The one to use for `model`; None: none is good for it now."""
        # While none is out or limited 0.2 us, with one that is out 1.6 (python -m timeit -s "from
        # proxy.policy.credentials import Credentials; c = Credentials(3)" "c.pick(1.0, 'm')")
        count, start = self.count, self._next
        if count and not (self._all or self._by_model or self._limited):
            self._next = (start + 1) % count
            return start
        for at in range(start, start + count):
            index = at % count
            if self._is_good(index, model, now):
                self._next = (index + 1) % count
                return index
        # Those that are only limited: the provider is left to say so itself.
        limited = [(until, index) for index, until in self._limited.items() if not self._outs(index, model)]
        return min(limited)[1] if limited else None

    @property
    def is_troubled(self) -> bool:
        """Whether any is out, so that a success is news."""
        return bool(self._all or self._by_model)

    def has_unlimited(self, now: float) -> bool:
        """Whether any of them is not told to wait."""
        return any(now >= self._limited.get(index, 0.0) for index in range(self.count))

    def _is_good(self, index: int, model: str, now: float) -> bool:
        if self._limited and self.count > 1:
            until = self._limited.get(index)
            if until is not None:
                if now < until:
                    return False
                del self._limited[index]
        outs = self._outs(index, model)
        if not all(out.may(now) for out in outs):
            return False
        for out in outs:
            out.tried_at = now
        return True

    def _outs(self, index: int, model: str) -> list[_Out]:
        found = (self._all.get(index), self._by_model.get((index, model[:_LONGEST_NAME])))
        return [out for out in found if out is not None]

    def refused(self, index: int, status: int, model: str, now: float) -> bool:
        """The provider answered 401 or 403 to it; any other status changes nothing. True: that is news."""
        if status == 401:
            out = self._all.get(index)
            if out is None:
                self._all[index] = _Out(now)
                return True
            return out.extend(now)
        if status == 403:
            self._all.pop(index, None)  # it is known there
            key = (index, model[:_LONGEST_NAME])
            out = self._by_model.get(key)
            if out is not None:
                return out.extend(now)
            if len(self._by_model) >= _MOST_RECORDS:
                del self._by_model[next(iter(self._by_model))]
            self._by_model[key] = _Out(now)
            return True
        return False

    def limited(self, index: int, wait: float, now: float) -> None:
        """The provider answered 429 to it, and said how long to wait."""
        self._limited[index] = max(now + wait, self._limited.get(index, 0.0))

    def worked(self, index: int, model: str, now: float) -> None:
        """The provider took it for `model`."""
        if self._all:
            self._all.pop(index, None)
        if self._by_model:
            self._by_model.pop((index, model[:_LONGEST_NAME]), None)

    def forget(self, index: int, model: str) -> None:
        """Nothing was learned: if this was a try of one that was refused, another may follow."""
        for out in self._outs(index, model):
            out.tried_at = None

    def out(self, now: float) -> list[tuple[int, str]]:
        """Those that are out, with the model for which; "" is all of them. One that was refused altogether stays in
        the list until it works again."""
        models = [key for key, out in self._by_model.items() if now < out.until]
        return [(index, "") for index in sorted(self._all)] + models
