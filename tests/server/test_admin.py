"""The admin table is whole, shut without the token, and its document cannot differ from it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.admin.routes import RouteTable
from proxy.catalog.secret import Secret
from proxy.policy.admission import Admission
from proxy.policy.counters import MemoryStore
from proxy.policy.limits import Limiter
from proxy.server.admin import Given, admin_table, static_rows, token_check
from proxy.server.settings import read_settings

TOKEN = "admin-token-of-the-tests-0001"


def table(**environ: str) -> RouteTable:
    settings = read_settings({"LLM_PROXY_DB": "off", **environ})
    limiter = Limiter(MemoryStore(), settings.calendar.end)
    admission = Admission(settings.ring(), limiter, browser_guard=True, hosts=frozenset(), streams_per_key=0)

    def nothing(*_: Any, **__: Any) -> Any:
        pass

    relay: Any = SimpleNamespace(admission=admission, look_for_changes=nothing, standing=nothing)
    return admin_table(Given(settings), relay, nothing, list, nothing, nothing, nothing)


def test_every_route_but_the_probes_needs_the_token() -> None:
    open_to_all = [route.path for route in table().routes if not route.needs_token]
    assert open_to_all == ["/healthz", "/readyz"]


def test_the_routes_that_are_promised() -> None:
    served = [f"{route.method} {route.path}" for route in table().routes]
    assert served == [
        "GET /healthz",
        "GET /readyz",
        "GET /openapi.json",
        "GET /keys",
        "POST /keys",
        "GET /keys/{name}",
        "PATCH /keys/{name}",
        "DELETE /keys/{name}",
        "POST /keys/{name}/rotate",
        "POST /keys/{name}/disable",
        "POST /keys/{name}/enable",
        "GET /groups",
        "PUT /groups/{name}",
        "DELETE /groups/{name}",
        "GET /limits",
        "GET /limits/{scope}",
        "GET /models",
        "PUT /models/{name}",
        "DELETE /models/{name}",
        "GET /targets",
        "GET /usage",
        "GET /exchanges",
        "GET /lost",
        "POST /lost/{id}/settle",
        "POST /reload",
    ]


@pytest.mark.parametrize("presented", [b"", b"wrong", TOKEN.encode()[:-1], TOKEN.encode() + b"x", "\u00e9".encode()])
def test_only_the_token_is_right(presented: bytes) -> None:
    check = token_check(Secret(TOKEN))
    assert check(TOKEN.encode()) and not check(presented)


def test_without_a_token_nobody_is_asked_for_one() -> None:
    assert token_check(None)(b"") and token_check(None)(b"anything")


def test_keys_of_the_environment_are_shown_without_their_values(tmp_path: Path) -> None:
    environ = {"LLM_PROXY_KEYS": "ci=0123456789abcdef", "LLM_PROXY_LIMITS": "key ci: rpm=60 20usd/month"}
    [row] = static_rows(read_settings({"LLM_PROXY_DB": "off", **environ})).values()
    assert (row.name, row.limits, row.digest, row.prefix) == ("ci", "rpm=60 20usd/month", None, None)


def test_what_the_pages_have_of_the_settings_is_what_is_in_force() -> None:
    """In place: the pages keep what they were given."""
    keys = {"LLM_PROXY_DB": "off", "LLM_PROXY_KEYS": "ci=0123456789abcdef,old=fedcba9876543210"}
    given = Given(read_settings(keys))
    static = given.static
    assert sorted(static) == ["ci", "old"] and given.is_token(b"")
    keys |= {"LLM_PROXY_KEYS": "ci=0123456789abcdef,new=fedcba9876543210", "LLM_PROXY_LIMITS": "key ci: rpm=60"}
    given.put(read_settings({**keys, "LLM_PROXY_ADMIN_TOKEN": TOKEN}))
    assert given.static is static and sorted(static) == ["ci", "new"] and static["ci"].limits == "rpm=60"
    assert given.is_token(TOKEN.encode()) and not given.is_token(b"")
