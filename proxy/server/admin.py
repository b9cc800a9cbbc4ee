"""What the admin listener serves, made of what the worker has.

Lives here: `admin_table`, `Given`. May not live here: what the pages do (admin), listeners (worker).
How it works: without LLM_PROXY_ADMIN_TOKEN every token is right, also none; settings have made sure that only this
machine can reach the listener then. A token is compared by its digest, in constant time. A table is made once; what of
the settings can become other while it is in use is in a `Given`.
Doubted: nothing yet.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from concurrent.futures import Future

from proxy.admin.keys import KeyPages
from proxy.admin.limits import LimitPages
from proxy.admin.models import Catalog, ModelPages
from proxy.admin.openapi import openapi_route
from proxy.admin.reload import Reloaded, ReloadPage
from proxy.admin.routes import Route, RouteTable, probes
from proxy.admin.spending import SpendingPages
from proxy.catalog.secret import Secret
from proxy.ledger.keys import KeyRow
from proxy.policy.keys import digest_of
from proxy.policy.rules import written
from proxy.relay.relay import Relay
from proxy.server.settings import Settings


class Given:
    """What the pages have of the settings in force."""

    __slots__ = ("is_token", "path", "static")

    def __init__(self, settings: Settings) -> None:
        self.path = None if settings.ledger is None else settings.ledger.path
        self.static: dict[str, KeyRow] = {}
        self.is_token: Callable[[bytes], bool]
        self.put(settings)

    def put(self, settings: Settings) -> None:
        """These are in force from now on. Threads have the rows: a name that stays is there all the time."""
        rows = static_rows(settings)
        self.static.update(rows)
        for name in [name for name in self.static if name not in rows]:
            del self.static[name]
        self.is_token = token_check(settings.admin_token)


def admin_table(
    given: Given,
    relay: Relay,
    catalog: Callable[[], Catalog],
    readiness: Callable[[], list[str]],
    changed: Callable[[], None],
    reload: Callable[[], Future[Reloaded]],
    note: Callable[..., None],
) -> RouteTable:
    """`changed` has the server see what the pages have stored; `reload` has it read its configuration again. `relay`
    looks by itself for what others have stored."""
    path, admission, look = given.path, relay.admission, relay.look_for_changes
    keys = KeyPages(path, given.static, lambda: admission.ring.mode.value, changed, note)
    routes: list[Route] = [
        *probes(readiness),
        openapi_route(lambda: routes),
        *keys.routes(),
        *LimitPages(admission.limiter, look).routes(),
        *ModelPages(path, catalog, relay.standing, look, changed, note).routes(),
        *SpendingPages(path, changed, note).routes(),
        *ReloadPage(reload).routes(),
    ]
    return RouteTable(routes, lambda presented: given.is_token(presented))


def token_check(token: Secret | None) -> Callable[[bytes], bool]:
    """Whether a presented token is the one."""
    if token is None:
        return lambda presented: True
    expected = digest_of(token.reveal().encode())
    return lambda presented: hmac.compare_digest(digest_of(presented), expected)


def static_rows(settings: Settings) -> dict[str, KeyRow]:
    """The keys of the environment, as rows of the ledger would have them. Nothing of their values is shown."""
    return {
        name: KeyRow(name, limits=written(settings.rules[f"key {name}"]) if f"key {name}" in settings.rules else "")
        for name in settings.keys
    }
