"""What was said of a key by options -> columns of its row.

Lives here: `columns_of`, names, amounts, values from standard input, as refusals of a command. May not live here: which
options there are (key_arguments), what a key may have (policy.key_fields, which the admin API goes by too), the store.
How it works: an option says what its field of policy.key_fields does; what was not said gives no column.
Doubted: nothing yet.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from proxy.accounts.desk import Desk, Refusal
from proxy.ledger.period import ahead
from proxy.policy.key_fields import FIELDS, LEAST_KEY, FieldsError, is_key_value, name_problem, read_fields
from proxy.policy.rules import MICROS, RulesError, parse_rules

_OPTIONS = {"tags": "tag", "expires_at": "expires"}  # of fields that have another name


def key_name(text: str, what: str = "key") -> str:
    """The name of a key or a group. Raises Refusal."""
    problem = name_problem(text, what)
    if problem is not None:
        raise Refusal(problem)
    return text


def columns_of(desk: Desk, arguments: argparse.Namespace) -> dict[str, Any]:
    """Columns and their values. Raises Refusal with all that is wrong."""
    said = {field: getattr(arguments, _OPTIONS.get(field, field)) for field in FIELDS}
    texts = {
        field: ",".join(each) if isinstance(each, list) else each for field, each in said.items() if each is not None
    }
    try:
        return read_fields(texts, lambda text: ahead(text, desk.now()))
    except FieldsError as error:
        raise Refusal(*(f"--{_OPTIONS.get(field, field)}: {sentence}" for field, sentence in error.problems)) from None


def given_value(desk: Desk) -> str:
    """The value of a key that its user has chosen. Raises Refusal, which does not repeat it."""
    value = desk.line()
    if not is_key_value(value):
        raise Refusal(f"--value-from-stdin: a key has {LEAST_KEY} or more visible ASCII characters, in the first line")
    return value


def amounts(text: str) -> tuple[int, int]:
    """Microdollars and tokens that `0.05usd 1200tokens` means; what is not said is nothing. Raises Refusal."""
    words = [word for word in text.split() if not re.fullmatch(r"0+(\.0+)?(usd|tokens?)", word)]
    try:
        # The grammar of budgets, which has the same amounts.
        budgets = parse_rules(" ".join(f"{word}/total" for word in words)).budgets
    except RulesError:
        raise Refusal("--spent: write dollars, tokens or both, such as '0.05usd 1200tokens'") from None
    spent = {budget.unit == MICROS: budget.amount for budget in budgets}
    return spent.get(True, 0), spent.get(False, 0)
