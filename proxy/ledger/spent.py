"""What was spent where, of exchanges that went to more than one place: as SQL.

Lives here: `source`, what stands behind FROM when sums are asked for by provider or model, and `is_at`, the condition
that an exchange was at one. May not live here: which exchanges are wanted, what is summed (reader).
How it works: a row for each attempt, under the names of the columns of `exchanges`, so that what a target used, cost
and failed stands with the target; an exchange that one row tells all about is that row. Which these are is asked before
the other table is: a million of them take 1 s longer for it, a million under aliases 4 s. A request counts once in each
group that it was in (`stands_for` is 0 in its other rows there), by the attempt that went well, else by the last.
Doubted: an exchange older than the columns of attempts is one row; its first try met a dead link and used nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Without an alias there is one target; with one, what was asked for there stands only with the attempt.
_APART = "{0}.exchange_id = CASE WHEN exchanges.attempts > 1 OR exchanges.alias IS NOT NULL THEN exchanges.id END"

_OF_EXCHANGE = ("started_at", "key", "alias", "dialect", "tags")
_OF_ATTEMPT = tuple(
    """
    provider model_served usage_source input_source output_source usage_complete
    input_tokens output_tokens cached_tokens cache_write_tokens reasoning_tokens searches
    cost_micros reported_cost_micros
    """.split()
)
# What had no answer has the status that the exchange would have had for it.
_STATUS = """CASE WHEN {0}.status = 0 AND {0}.ended_by = 'upstream'
    THEN CASE {0}.ended_kind WHEN 'timeout' THEN 504 ELSE 502 END ELSE {0}.status END"""
_ASKED = "CASE WHEN exchanges.alias IS NULL THEN exchanges.model_requested ELSE {0}.model END"
_ENDINGS = {
    "status": _STATUS.format("tries"),
    "complete": "tries.ended_by IS NULL",
    "ended_by": "tries.ended_by",
    "ended_phase": "tries.ended_phase",
    "ended_kind": "tries.ended_kind",
}
# Groupings by which attempts of one exchange may differ, and what two of them have in common that are in one group.
_COMMON = {
    "provider": ("{0}.provider",),
    "model": (f"coalesce({_ASKED}, {{0}}.model_served)",),
    "served": ("{0}.model_served",),
    "status": (_STATUS,),
    "ending": ("{0}.ended_by", "{0}.ended_phase", "{0}.ended_kind"),
}
PLACES = frozenset({"provider", "model", "served"})  # groupings that are asked of attempts


def is_at(place: str) -> str:
    """The condition that an exchange, or one of its attempts, was at a provider, or asked for a model: with the name of
    it twice as values. `place`: provider or model."""
    own, others = {
        "provider": ("? = provider", "? = tries.provider"),
        "model": ("? IN (model_requested, model_served, alias)", "? IN (tries.model, tries.model_served)"),
    }[place]
    joined = _APART.format("tries")
    return f"({own} OR EXISTS (SELECT 1 FROM attempts AS tries WHERE {joined} AND {others}))"  # noqa: S608  # our words


def source(by: Sequence[str], provider: str | None, model: str | None) -> tuple[str, list[Any]]:
    """What to select from for groups `by`, of rows at this provider and of this model (None: any) only, and its values.
    It is called `exchanges`, and has those columns of it that sums and groups are made of."""
    common = {each for name in by for each in _COMMON.get(name, ())}
    values: list[Any] = []
    if provider is not None:
        common.update(_COMMON["provider"])
    alike = [f"{each.format('other')} IS {each.format('tries')}" for each in sorted(common)]
    if model is not None:
        alike.append(f"? IN ({_ASKED.format('other')}, other.model_served, exchanges.alias)")
        values.append(model)
    better = "(other.ended_by IS NULL, other.number) > (tries.ended_by IS NULL, tries.number)"
    another = " AND ".join(["other.exchange_id = tries.exchange_id", better, *alike])
    columns = {
        **{name: f"exchanges.{name}" for name in _OF_EXCHANGE},
        **{name: _either(name, f"tries.{name}") for name in _OF_ATTEMPT},
        # A single attempt ended as its exchange did, which may know better.
        **{name: _either(name, ending, " OR exchanges.attempts = 1") for name, ending in _ENDINGS.items()},
        "model_requested": _either("model_requested", _ASKED.format("tries")),
        "stands_for": _either("stands_for", f"NOT EXISTS (SELECT 1 FROM attempts AS other WHERE {another})"),  # noqa: S608
    }
    listed = ", ".join(f"{column} AS {name}" for name, column in columns.items())
    joined = f"{_APART.format('tries')} AND tries.why IS NOT NULL"
    return f"(SELECT {listed} FROM exchanges LEFT JOIN attempts AS tries ON {joined}) AS exchanges", values  # noqa: S608


def _either(name: str, of_attempt: str, or_if: str = "") -> str:
    return f"CASE WHEN tries.number IS NULL{or_if} THEN exchanges.{name} ELSE {of_attempt} END"
