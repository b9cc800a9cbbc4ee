"""The configuration read again by the admin API, as SIGHUP has it.

Lives here: `Reloaded` (what came of it), `ReloadPage`: the route /reload. May not live here: reading the configuration
and putting it in force (server).
How it works: the server is told in the loop, at once; a thread waits for what comes of it. So one that asks while the
configuration is being read gets what it is after that.
Doubted: nothing yet.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from proxy.admin.members import About
from proxy.admin.routes import AdminAnswer, AdminRequest, Later, Route, json_answer
from proxy.outcome import Kind


class Reloaded(NamedTuple):
    """What came of reading the configuration again. `errors`: all that is wrong with it; then nothing has changed."""

    changes: list[str]
    takes_restart: list[str]
    warnings: list[str]
    errors: list[str]


class ReloadPage:
    """`begin` has the server read its configuration again; in the loop."""

    def __init__(self, begin: Callable[[], Future[Reloaded]]) -> None:
        self._begin = begin

    def routes(self) -> list[Route]:
        about = About("Read the configuration again.", ("changes", "takes_restart", "warnings"))
        return [Route("POST", "/reload", self._reload, True, about)]

    def _reload(self, request: AdminRequest) -> Later:
        future = self._begin()
        return Later(lambda: _answer(future.result()))


def _answer(found: Reloaded) -> AdminAnswer:
    if not found.errors:
        told = {"changes": found.changes, "takes_restart": found.takes_restart, "warnings": found.warnings}
        return json_answer(200, told)
    message = f"The configuration cannot be used, so that the old one stays: {'; '.join(found.errors)}."
    # Of the shape of all errors here, and one member more: what is wrong, one by one.
    error = {"code": Kind.CONFLICT.value, "message": message, "errors": found.errors}
    return json_answer(409, {"error": error})
