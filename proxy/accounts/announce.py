"""A running server is told that keys or aliases have changed.

Lives here: `announce`, which every command calls that has changed one. May not live here: how the server is told
(ledger.counters).
How it works: the server looks at one number in its counters' file before each request; this changes it. Where there is
no such file no server has ever run here, and the next start reads all of them anyway.
"""

from __future__ import annotations


def announce(path: str) -> None:
    """Keys, groups, aliases or settlements in the ledger at `path` have changed. Raises LedgerUnusable."""
    from proxy.ledger.counters import beside, bump

    bump(beside(path))
