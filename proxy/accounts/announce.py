"""A running server is told that keys have changed.

Lives here: `announce`, which every command calls that has changed a key. May not live here: how the server is told
(ledger.counters).
How it works: `ledger.counters.bump` where that module is there. Until it is, nothing is told, and a server sees changes
when it looks for them by itself.
Doubted: the look for the module; it is a plain import as soon as the module is there.
"""

from __future__ import annotations

import importlib
import importlib.util

_TELLS = "proxy.ledger.counters"


def announce(path: str) -> None:
    """Keys, groups or settlements in the ledger at `path` have changed."""
    if importlib.util.find_spec(_TELLS) is not None:
        importlib.import_module(_TELLS).bump(path)
