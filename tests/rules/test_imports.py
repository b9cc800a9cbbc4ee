"""Who may import whom: the table of DESIGN 3. A row names all rooms that its room may know beside itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rules.sources import DECISIONS, imported, modules, room

BELOW_RELAY = {"outcome", "wire", "dialects", "catalog", "policy"}
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "outcome": set(),
    "wire": {"outcome"},
    "dialects": {"outcome", "wire"},
    "catalog": {"outcome", "wire", "dialects"},
    "policy": {"outcome", "wire", "dialects", "catalog"},
    "relay": BELOW_RELAY,
    "ledger": {"outcome"},
    "telemetry": {"outcome"},
    "tokens": {"outcome", "wire", "dialects"},
    "admin": {"outcome", "catalog", "policy", "ledger", "telemetry"},
    "simulator": {"outcome", "wire", "dialects"},
    "server": {*BELOW_RELAY, "relay", "ledger", "telemetry", "tokens", "admin"},
    "accounts": {"outcome", "catalog", "policy", "ledger", "telemetry", "admin", "server"},
    "cli": {"outcome", "catalog", "policy", "ledger", "telemetry", "simulator", "server", "accounts"},
}
# Whatever waits, reads a clock, touches a file, a socket or another process.
INPUT_OUTPUT = set(
    """
    anyio asyncio concurrent datetime fcntl ftplib glob http.client http.server importlib io logging mmap
    multiprocessing os pathlib queue runpy sched select selectors shutil signal smtplib socket socketserver sqlite3
    sqlite_utils ssl subprocess tempfile threading time trio urllib.request uvloop
    """.split()
)


def breaks(of_room: str, names: set[str]) -> list[str]:
    """The imports in `names` that a module of `of_room` may not have."""
    wrong = []
    for name in sorted(names):
        parts = name.split(".")
        if parts[0] in ("tests", "bench"):
            wrong.append(f"{name}: the product knows neither tests nor benchmark")
        elif parts[0] == "proxy" and len(parts) > 1 and parts[1] != "__version__":
            if parts[1] != of_room and parts[1] not in MAY_IMPORT[of_room]:
                wrong.append(f"{name}: {of_room} may not know {parts[1]} (DESIGN 3)")
        elif of_room in DECISIONS and INPUT_OUTPUT & {parts[0], ".".join(parts[:2])}:
            wrong.append(f"{name}: {of_room} decides; input, output and clocks are elsewhere (DESIGN 3)")
    return wrong


@pytest.mark.parametrize("path", modules("proxy"), ids=str)
def test_a_module_imports_only_what_its_room_may_know(path: Path) -> None:
    assert breaks(room(path), imported(path)) == []


@pytest.mark.parametrize(
    ("of_room", "name"),
    [("wire", "proxy.relay.pool.take"), ("policy", "time.monotonic"), ("outcome", "asyncio"), ("admin", "proxy.relay")],
)
def test_the_table_bites(of_room: str, name: str) -> None:
    assert breaks(of_room, {name})


def test_the_table_has_no_upward_row() -> None:
    order = ["outcome", "wire", "dialects", "catalog", "policy", "relay", "server"]
    for index, name in enumerate(order):
        assert not MAY_IMPORT[name] & set(order[index:]), name
