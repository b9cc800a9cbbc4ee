"""What settings read from files.

Lives here: files that a variable names, and the price table that comes with the program. May not live here: what stands
in them (settings, catalog).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from proxy import catalog
from proxy.catalog.prices import Prices

MAX_FILE = 1024 * 1024  # a file named by a variable; a longer one is not what somebody meant


def read_text_file(path: str) -> str:
    """The text of a file that a variable names. Raises OSError and ValueError."""
    with Path(path).open("rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError("larger than 1 MiB")
    return content.decode()


@cache
def builtin_prices() -> Prices:
    """The prices that were known when this version was made."""
    return Prices.built_in((Path(catalog.__path__[0]) / "prices.json").read_bytes())
