"""The OpenAPI document of a table of routes, made of the table itself.

Lives here: `document`, and the route that serves it. May not live here: what the routes do or take (each has its
`About`); nothing about a single path is written here.
How it works: what is read of a request and what is said of it are one list (members), so the document cannot promise
what is not taken. Answers are told by the names of their members.
Doubted: what is inside those members is not described.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from proxy import __version__
from proxy.admin.members import About, Form, Member
from proxy.admin.routes import AdminAnswer, AdminRequest, Route, json_answer

PATH = "/openapi.json"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}


def openapi_route(routes: Callable[[], Sequence[Route]]) -> Route:
    """`routes`: all of the table, this one among them; asked when the document is."""

    def serve(request: AdminRequest) -> AdminAnswer:
        return json_answer(200, document(routes()))

    return Route("GET", PATH, serve, True, About("This document.", ("openapi", "info", "paths", "components")))


def document(routes: Sequence[Route]) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "llm-proxy admin API", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    about = route.about
    operation: dict[str, Any] = {
        "summary": about.what,
        "parameters": [_in_path(name) for name in re.findall(r"\{(\w+)\}", route.path)] + _in_query(about.query),
        "responses": {
            str(about.status): _said("It went well.", _answer(about)),
            "default": _said("It did not.", {"$ref": "#/components/schemas/Error"}),
        },
        "security": [{"token": []}] if route.needs_token else [],
    }
    if route.takes_body:
        is_needed = any(member.is_needed for member in about.body)
        operation["requestBody"] = {"required": is_needed, **_content(_body(about.body))}
    return operation


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(parameters: tuple[Member, ...]) -> list[dict[str, Any]]:
    return [
        {"name": each.name, "in": "query", "description": each.what, "schema": {"type": each.form.value}}
        for each in parameters
    ]


def _body(members: tuple[Member, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [member.name for member in members if member.is_needed],
        "properties": {member.name: _schema(member) for member in members},
    }


def _schema(member: Member) -> dict[str, Any]:
    kind: Any = [member.form.value, "null"] if member.is_cleared else member.form.value
    more: dict[str, Any] = {"items": {"type": "string"}} if member.form is Form.TEXTS else {}
    if member.form is Form.NUMBER:
        more["minimum"] = 0
    return {"type": kind, "description": member.what, **more}


def _answer(about: About) -> dict[str, Any]:
    return {"type": "object", "required": list(about.answer), "properties": {name: {} for name in about.answer}}


def _said(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, **_content(schema)}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}
