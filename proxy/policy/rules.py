"""What may pass, as people write it: `rpm=60 tpm=100k/20k concurrent=4 20usd/month 2Mtokens/day:warn`.

Lives here: the grammar of limits and budgets, and the values that it gives; patterns of names. May not live here: who
has used how much (limits), when a day begins (server), where the text comes from.
How it works: one line of words, in any order, each at most once. The same line stands in variables, in the ledger and
in the admin API. Everything is read before anything is refused.

    rps rpm rph rpd =N[/BURST]       requests a second, minute, hour, day
    tps tpm tph tpd =N[/BURST]       tokens, input and output together
    itpm ... and otpm ...            tokens of the input, and of the output
    concurrent=N                     exchanges at once
    <AMOUNT>usd/<WINDOW>[:warn]      dollars in an hour, a day, a week, a month, or in total
    <AMOUNT>tokens/<WINDOW>[:warn]   tokens, input and output together

N may be written with k, M or G (thousands, millions, milliards). BURST is how much may come at once after a pause; N
where nothing else is said. A budget is hard unless it says `:warn`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

# What one exchange costs of each unit: requests, tokens, tokens of the input, of the output, microdollars.
REQUESTS: Final = 0
TOKENS: Final = 1
INPUT: Final = 2
OUTPUT: Final = 3
MICROS: Final = 4
Costs = tuple[int, ...]

_UNITS: Final = {"r": REQUESTS, "t": TOKENS, "it": INPUT, "ot": OUTPUT}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
WINDOWS: Final = ("hour", "day", "week", "month", "total")
_RATE: Final = re.compile(r"(r|t|it|ot)p([smhd])")
_NUMBER: Final = re.compile(r"(\d{1,12})(?:\.(\d{1,6}))?([kmg]?)")
_BUDGET: Final = re.compile(r"([\d.]+[kmg]?)(usd|tokens?)/([a-z]+)(?::([a-z]+))?")
_POWERS: Final = {"": 0, "k": 3, "m": 6, "g": 9}
_LONGEST: Final = 10 * 365 * 86_400  # seconds; in nanoseconds beyond the present it is far within 64 bits
_MOST: Final = 10**15  # of anything: a milliard dollars, or so many tokens; the arithmetic stays within 64 bits


class Rate(NamedTuple):
    """`amount` units in `seconds`, and at most `burst` of them at once."""

    name: str  # as it is written: rpm
    unit: int
    amount: int
    seconds: int
    burst: int

    @property
    def step(self) -> int:
        """Nanoseconds for one unit, rounded up."""
        return -(-self.seconds * 10**9 // self.amount)

    @property
    def sign(self) -> int:
        """A number that another rate of that name does not have, the same in every process; never 0."""
        said = f"{self.amount}/{self.seconds}/{self.burst}".encode()
        return int.from_bytes(hashlib.sha256(said).digest()[:7], "big") | 1


class Budget(NamedTuple):
    """`amount` (microdollars, or tokens) in each `window`. One that is not hard lets everything pass and tells."""

    name: str  # without the amount: usd/month
    unit: int
    amount: int
    window: str
    is_hard: bool


class Rules(NamedTuple):
    """All that one line says."""

    rates: tuple[Rate, ...] = ()
    budgets: tuple[Budget, ...] = ()
    concurrent: int | None = None

    @property
    def counts_tokens(self) -> bool:
        """Whether anything but the number of requests matters."""
        return bool(self.budgets) or any(rate.unit != REQUESTS for rate in self.rates)


class RulesError(ValueError):
    """`problems` are all that is wrong with the line, as sentences that repeat its words; `numbered` are the same with
    the number of a word in its place, for lines that may be secrets in the wrong place."""

    def __init__(self, found: list[tuple[int, str, str]]) -> None:
        self.problems = [f"{word[:40]!r}: {problem}" for _, word, problem in found]
        self.numbered = [f"word {number}: {problem}" for number, _, problem in found]
        super().__init__("; ".join(self.problems))


def parse_rules(text: str) -> Rules:
    """Raises RulesError."""
    problems: list[tuple[int, str, str]] = []
    found: dict[str, Rate | Budget | int] = {}
    for number, word in enumerate(filter(None, re.split(r"[\s,]+", text)), 1):
        read = _read(word.lower())
        if isinstance(read, str):
            problems.append((number, word, read))
            continue
        name = "concurrent" if isinstance(read, int) else read.name
        if name in found:
            problems.append((number, word, f"{name} is said twice"))
        found[name] = read
    if problems:
        raise RulesError(problems)
    rules = found.values()
    concurrent = found.get("concurrent")
    return Rules(
        tuple(rule for rule in rules if isinstance(rule, Rate)),
        tuple(rule for rule in rules if isinstance(rule, Budget)),
        concurrent if isinstance(concurrent, int) else None,
    )


def _read(word: str) -> Rate | Budget | int | str:
    """A rule, the number of exchanges at once, or what is wrong."""
    name, equals, value = word.partition("=")
    if not equals:
        return _budget(word)
    if name == "concurrent":
        number = _number(value)
        return "write a whole number, 1 or more" if number is None or not 1 <= number <= _MOST else number
    rate = _RATE.fullmatch(name)
    if rate is None:
        return "is no limit: write rpm=60, tpm=100k, concurrent=4, or a budget such as 20usd/month"
    first, slash, last = value.partition("/")
    amount, burst = _number(first), _number(last) if slash else _number(first)
    if amount is None or burst is None or not (1 <= amount <= _MOST and 1 <= burst <= _MOST):
        return "write whole numbers, 1 or more: rpm=60, or rpm=60/10 for at most 10 at once"
    if burst * _SECONDS[rate[2]] > amount * _LONGEST:
        return "so many at once would take ten years to come back: write a smaller number behind the /"
    return Rate(name, _UNITS[rate[1]], amount, _SECONDS[rate[2]], burst)


def _budget(word: str) -> Budget | str:
    found = _BUDGET.fullmatch(word)
    if found is None:
        return "is neither a limit (rpm=60) nor a budget (20usd/month, 2Mtokens/day:warn)"
    number, unit, window, mode = found.groups()
    if window not in WINDOWS:
        return f"a budget is for {', '.join(WINDOWS[:-1])} or {WINDOWS[-1]}"
    if mode not in (None, "warn", "hard"):
        return "a budget may end in :warn, and is hard otherwise"
    is_money = unit == "usd"
    amount = _number(number, 6 if is_money else 0)
    if amount is None or not 1 <= amount <= _MOST:
        return "write an amount such as 20usd, 0.5usd or 2Mtokens"
    unit = "usd" if is_money else "tokens"
    return Budget(f"{unit}/{window}", MICROS if is_money else TOKENS, amount, window, mode != "warn")


def _number(text: str, digits: int = 0) -> int | None:
    """`text` times 10 to the power of `digits`; None: it is no number, or not a whole one then."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    whole, rest, letter = found[1], found[2] or "", found[3]
    power = _POWERS[letter] + digits - len(rest)
    return int(whole + rest) * 10**power if power >= 0 else None


def written(rules: Rules) -> str:
    """The line that gives `rules`, for people."""
    words = [f"{rate.name}={rate.amount}" + f"/{rate.burst}" * (rate.burst != rate.amount) for rate in rules.rates]
    if rules.concurrent is not None:
        words.append(f"concurrent={rules.concurrent}")
    for budget in rules.budgets:
        unit, _, window = budget.name.partition("/")
        amount = dollars(budget.amount) if budget.unit == MICROS else str(budget.amount)
        words.append(f"{amount}{unit}/{window}" + ":warn" * (not budget.is_hard))
    return " ".join(words)


def dollars(micros: int) -> str:
    """An amount of microdollars in dollars, exactly: 20500000 is "20.5"."""
    whole, rest = divmod(micros, 10**6)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")


def pattern_of(text: str) -> re.Pattern[str]:
    """What matches lower-case names that `text` means, in which `*` stands for anything."""
    return re.compile(re.escape(text.lower()).replace(r"\*", ".*"), re.DOTALL)
