"""A table of routes, asked without a connection: what takes a thread is done at once.

Lives here: `Api`. May not live here: assertions.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from proxy.admin.routes import AdminAnswer, AdminRequest, Later, Route, RouteTable

JSON = (b"content-type", b"application/json")


class Answer(NamedTuple):
    status: int
    document: Any

    @property
    def message(self) -> str:
        return str(self.document["error"]["message"])


class Api:
    """Everybody has the token."""

    def __init__(self, routes: list[Route]) -> None:
        self.table = RouteTable(routes, lambda token: True)

    def __call__(self, method: str, target: str, body: Any = None) -> Answer:
        path, _, query = target.partition("?")
        data = b"" if body is None else json.dumps(body).encode()
        made = self.table.answer(AdminRequest(method, path, query, (JSON,), data))
        answer = done(made)
        return Answer(answer.status, json.loads(answer.body))


def done(made: AdminAnswer | Later) -> AdminAnswer:
    if isinstance(made, AdminAnswer):
        return made
    answer = made.make()
    if made.after is not None:
        made.after()
    return answer
