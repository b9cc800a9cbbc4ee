"""Aliases as people write them: `fast (retries=3 hedge) = openai/gpt-4o-mini*3, groq/llama-3.3-70b | anthropic/...`.

Lives here: the grammar, both ways. May not live here: what an alias does (policy), where the text comes from.
How it works: everything is read before anything is refused, so that all problems come out at once, each with the place
it stands at and what stands there. Names of models are no secrets; what cannot be printed is escaped.

    aliases   alias; alias           or one on each line; blank ones are skipped
    alias     NAME [(OPTION ...)] = group | group      the groups are tried in order
    group     target, target                           equals, by weight
    target    PROVIDER/MODEL [*WEIGHT] [(weight=N window=N)]

An alias may have the options retries=0..10; first_byte first_byte_unary first_event hold stream total =SECONDS, where
0 is none; hedge; resume; cost=0.05usd. A window is in tokens, and may be written with k or M (thousands, millions).
Doubted: a provider's name is read in any letter case, since variables name it in capitals; a model's is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from proxy.catalog.aliases import Alias, Choice
from proxy.catalog.snapshot import Provider
from proxy.catalog.windows import window_of
from proxy.outcome import Limit

MOST_RETRIES = 10
_MOST_WEIGHT = 1000
_MOST_WINDOW = 10**9

_TIMES = (Limit.FIRST_BYTE, Limit.FIRST_BYTE_UNARY, Limit.FIRST_EVENT, Limit.HOLD, Limit.STREAM, Limit.TOTAL)

_ENTRY = re.compile(r"[^;\r\n]+")
_HEAD = re.compile(r"([^()=]*)(?:\(([^()]*)\)([^()=]*))?=")
_TARGET = re.compile(r"([^\s()*]*)\s*(?:\*\s*([^\s()*]*)\s*)?(?:\(([^()]*)\))?")
_WORD = re.compile(r"[^\s,]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,255}")
_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MODEL = re.compile(r"[A-Za-z0-9@._\[\]:/-]{1,256}")
_NUMBER = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)([km]?)", re.ASCII)
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?|\.\d{1,9}", re.ASCII)
_DOLLARS = re.compile(r"(\d{1,9}(?:\.\d{1,12})?|\.\d{1,12})usd", re.ASCII)
_POWERS = {"": 1, "k": 1000, "m": 1_000_000}


def parse_aliases(text: str, providers: Mapping[str, Provider]) -> tuple[dict[str, Alias], list[str]]:
    """The aliases in `text` by name, and all that is wrong with it. They are whole only if nothing is."""
    reading = _Reading(text, providers)
    for entry in _ENTRY.finditer(text):
        if entry[0].strip():
            reading.read(_part(_Piece(text, 0), entry.start(), entry.end()))
    return reading.aliases, reading.problems


def written(alias: Alias) -> str:
    """The text that gives `alias`, on one line."""
    options = options_text(alias)
    return f"{alias.name} ({options}) = {targets_text(alias)}" if options else f"{alias.name} = {targets_text(alias)}"


def options_text(alias: Alias) -> str:
    """What stands in the parentheses behind its name; empty: nothing."""
    words = [f"retries={alias.retries}"] if alias.retries is not None else []
    words += [f"{limit.value}={_plain(alias.seconds[limit])}" for limit in _TIMES if limit in alias.seconds]
    words += ["hedge"] if alias.hedges else []
    words += ["resume"] if alias.resumes else []
    if alias.cost is not None:
        words.append(f"cost={_plain(Decimal(alias.cost) / 10**6)}usd")
    return " ".join(words)


def targets_text(alias: Alias) -> str:
    """What stands behind the `=`."""
    return " | ".join(", ".join(target_text(choice) for choice in group) for group in alias.groups)


def target_text(choice: Choice) -> str:
    """One target. Its window is written only where it is not the one that its model is known to have."""
    text = f"{choice.provider}/{choice.model}" + f"*{choice.weight}" * (choice.weight != 1)
    if choice.window != window_of(choice.model):
        text += f" (window={_short(choice.window)})"
    return text


def _plain(number: float | Decimal) -> str:
    """Without an exponent, and without zeros that say nothing."""
    text = f"{Decimal(repr(number)) if isinstance(number, float) else Decimal(number):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _short(tokens: int) -> str:
    for letter, power in (("M", 1_000_000), ("k", 1000)):
        if tokens and tokens % power == 0:
            return f"{tokens // power}{letter}"
    return str(tokens)


# --- values of options ------------------------------------------------------------------------------------------------
# Each takes what stands behind the `=`, None where there is no `=`, and gives None for what is none of its values.


def _flag(value: str | None) -> bool | None:
    return True if value is None else None


def _whole(least: int, most: int, letters: bool = False) -> Callable[[str | None], int | None]:
    def read(value: str | None) -> int | None:
        found = _NUMBER.fullmatch(value or "")
        if found is None or (found[2] and not letters):
            return None
        number = Decimal(found[1]) * _POWERS[found[2]]
        return int(number) if number == int(number) and least <= number <= most else None

    return read


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and _SECONDS.fullmatch(value) else None


def _cost(value: str | None) -> int | None:
    found = _DOLLARS.fullmatch(value or "")
    if found is None:
        return None
    micros = Decimal(found[1]) * 10**6
    return int(micros) if micros == int(micros) and micros >= 1 else None


class _Option(NamedTuple):
    read: Callable[[str | None], Any]
    how: str


_WEIGHT = _Option(_whole(1, _MOST_WEIGHT), f"a weight as a whole number from 1 to {_MOST_WEIGHT}")
_OF_TARGET = {
    "weight": _WEIGHT,
    "window": _Option(_whole(0, _MOST_WINDOW, letters=True), "a window in tokens: window=128k, window=1M"),
}
_OF_ALIAS = {
    "retries": _Option(_whole(0, MOST_RETRIES), f"retries=0 to retries={MOST_RETRIES}"),
    **{limit.value: _Option(_seconds, f"{limit.value}=2.5, in seconds; 0 for none") for limit in _TIMES},
    "hedge": _Option(_flag, "hedge alone"),
    "resume": _Option(_flag, "resume alone"),
    "cost": _Option(_cost, "cost=0.05usd, in whole microdollars, one or more"),
}


# --- reading ----------------------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """A part of the text, and how many characters stand before it."""

    text: str
    at: int


def _part(piece: _Piece, start: int, end: int) -> _Piece:
    """What is between the two, without the blanks around it."""
    text = piece.text[start:end]
    return _Piece(text.strip(), piece.at + start + len(text) - len(text.lstrip()))


def _split(piece: _Piece, mark: str) -> Iterator[_Piece]:
    """The parts between `mark`s that are not in parentheses."""
    start = 0
    for found in re.finditer(rf"\([^()]*\)|{re.escape(mark)}", piece.text):
        if found[0] == mark:
            yield _part(piece, start, found.start())
            start = found.end()
    yield _part(piece, start, len(piece.text))


class _Reading:
    """One pass over one text."""

    def __init__(self, text: str, providers: Mapping[str, Provider]) -> None:
        self.aliases: dict[str, Alias] = {}
        self.problems: list[str] = []
        self._providers = providers
        self._names: set[str] = set()
        self._number = 0  # of the alias that is read, from 1
        self._seen: set[tuple[str, str]] = set()  # its targets

    def read(self, entry: _Piece) -> None:
        """One alias."""
        self._number += 1
        self._seen = set()
        head = _HEAD.match(entry.text)
        if head is None or (head[3] or "").strip():
            self._wrong(entry, "write it as name = provider/model, provider/model | provider/model")
            return
        name = _part(entry, *head.span(1))
        self._read_name(name)
        options = {} if head[2] is None else self._options(_part(entry, *head.span(2)), _OF_ALIAS)
        behind = _part(entry, head.end(), len(entry.text))
        groups = tuple(self._group(piece) for piece in _split(behind, "|"))
        self.aliases[name.text] = Alias(
            name.text,
            groups,
            retries=options.get("retries"),
            seconds={limit: options[limit.value] for limit in _TIMES if options.get(limit.value) is not None},
            hedges="hedge" in options,
            resumes="resume" in options,
            cost=options.get("cost"),
        )

    def _read_name(self, name: _Piece) -> None:
        if _NAME.fullmatch(name.text) is None:
            self._wrong(
                name, "an alias has letters, digits and . _ - / : @ in its name, and begins with a letter or digit"
            )
            return
        before, slash, _ = name.text.partition("/")
        if slash and before in self._providers:
            self._wrong(name, f"means a model of provider {before} already: give it another name")
        if name.text in self._names:
            self._wrong(name, "an earlier one has this name")
        self._names.add(name.text)

    def _group(self, group: _Piece) -> tuple[Choice, ...]:
        choices = (self._target(piece) for piece in _split(group, ","))
        return tuple(choice for choice in choices if choice is not None)

    def _target(self, piece: _Piece) -> Choice | None:
        if not piece.text:
            self._wrong(piece, "there is no target here: write provider/model")
            return None
        found = _TARGET.fullmatch(piece.text)
        name, slash, model = (found[1] if found else "").partition("/")
        if found is None or not slash or _PROVIDER.fullmatch(name) is None or _MODEL.fullmatch(model) is None:
            self._wrong(piece, "is no target: write provider/model, with *3 or (weight=3 window=128k) behind it")
            return None
        options = {} if found[3] is None else self._options(_part(piece, *found.span(3)), _OF_TARGET)
        if found[2] is not None:
            if "weight" in options:
                self._wrong(piece, "the weight is said twice")
            options["weight"] = _WEIGHT.read(found[2])
            if options["weight"] is None:
                self._wrong(piece, f"write {_WEIGHT.how}")
        name = name.lower()
        self._check(piece, name, model)
        window = options.get("window")
        return Choice(name, model, options.get("weight") or 1, window_of(model) if window is None else window)

    def _check(self, piece: _Piece, name: str, model: str) -> None:
        """Whether such a target can be asked."""
        provider = self._providers.get(name)
        if provider is None:
            self._wrong(piece, f"there is no provider of this name ({', '.join(self._providers) or 'there are none'})")
        elif provider.family == "plain":
            self._wrong(piece, f"provider {name} is of the family plain, in whose requests no model is read")
        if (name, model) in self._seen:
            self._wrong(piece, "this target stands in the alias twice")
        self._seen.add((name, model))

    def _options(self, piece: _Piece, known: dict[str, _Option]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for match in _WORD.finditer(piece.text):
            word = _part(piece, *match.span())
            name, equals, value = word.text.lower().partition("=")
            option = known.get(name)
            if option is None:
                self._wrong(word, f"is no option here ({', '.join(known)})")
                continue
            if name in found:
                self._wrong(word, f"{name} is said twice")
            found[name] = option.read(value if equals else None)
            if found[name] is None:
                self._wrong(word, f"write {option.how}")
        return found

    def _wrong(self, piece: _Piece, problem: str) -> None:
        # The place alone: what stands there may be a secret that belongs to another variable.
        self.problems.append(f"alias {self._number}, at character {piece.at + 1}: {problem}")
