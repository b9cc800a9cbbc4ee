"""The document says what the table serves: each of its paths is called, and answers as it says."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from proxy.admin.keys import KeyPages
from proxy.admin.limits import LimitPages
from proxy.admin.models import Catalog, ModelPages
from proxy.admin.openapi import document, openapi_route
from proxy.admin.reload import Reloaded, ReloadPage
from proxy.admin.routes import Route, probes
from proxy.admin.spending import SpendingPages
from proxy.catalog.snapshot import Origin, Provider
from proxy.ledger.keys import KeyStore
from tests.admin.api import Api
from tests.ledger.filled import fill
from tests.policy.test_limits import limiter

# What must be there, or be said, for a call to go well.
BODIES: dict[str, Any] = {
    "post /keys": {"name": "new"},
    "patch /keys/{name}": {"owner": "Ann"},
    "put /groups/{name}": {"limits": "rpm=5"},
    "put /models/{name}": {"targets": "x/m"},
}
NAMES = {"name": "ci", "scope": "all", "id": "1"}
X = Provider("x", "openai", Origin("http", "127.0.0.1", 9))


@pytest.fixture
def api(tmp_path: Path) -> Api:
    path = fill(tmp_path / "a.db", {})
    with KeyStore(path, 1.0) as store:
        store.add_lost("ci", 1, 1, 1.0)

    def nothing(*_: Any, **__: Any) -> None:
        pass

    def reload() -> Future[Reloaded]:
        future: Future[Reloaded] = Future()
        future.set_result(Reloaded([], [], [], []))
        return future

    routes: list[Route] = [
        *probes(list),
        openapi_route(lambda: routes),
        *KeyPages(path, {}, lambda: "keys", nothing, nothing).routes(),
        *LimitPages(limiter(all="rpm=5"), nothing).routes(),
        *ModelPages(path, lambda: Catalog({"x": X}, {}, {}, {}, {}), lambda: ({}, [], 0.0), *[nothing] * 3).routes(),
        *SpendingPages(path, nothing, nothing).routes(),
        *ReloadPage(reload).routes(),
    ]
    return Api(routes)


def operations(api: Api) -> dict[str, Any]:
    """By method and path."""
    paths = api("GET", "/openapi.json").document["paths"]
    return {f"{method} {path}": it for path, methods in paths.items() for method, it in methods.items()}


def test_it_has_every_route_and_each_says_what_it_is_for(api: Api) -> None:
    found = operations(api)
    assert list(found) == [f"{route.method.lower()} {route.path}" for route in api.table.routes]
    assert [name for name, it in found.items() if not it["summary"]] == []
    assert [name for name, it in found.items() if not it["security"]] == ["get /healthz", "get /readyz"]


def test_each_path_answers_as_it_says(api: Api) -> None:
    for operation, it in operations(api).items():
        with_key(api)
        method, path = operation.split(" ")
        if operation == "delete /groups/{name}":
            api("DELETE", "/keys/ci")
        for parameter in it["parameters"]:
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", NAMES[parameter["name"]])
        answer = api(method.upper(), path, BODIES.get(operation, {} if "requestBody" in it else None))
        said = it["responses"].get(str(answer.status))
        assert said is not None, (operation, answer)
        schema = said["content"]["application/json"]["schema"]
        assert set(answer.document) == set(schema["required"]) == set(schema["properties"]), operation


def with_key(api: Api) -> None:
    api("DELETE", "/keys/ci")
    api("DELETE", "/keys/new")
    assert api("PUT", "/groups/ci", {"limits": ""}).status == 200
    assert api("POST", "/keys", {"name": "ci", "group": "ci"}).status == 201


def test_every_member_and_parameter_that_it_names_is_known_and_no_other(api: Api) -> None:
    for operation, it in operations(api).items():
        method, path = operation.split(" ")
        if not it["security"]:
            continue
        path = path.replace("{name}", "ci").replace("{scope}", "all").replace("{id}", "1")
        query = "&".join(f"{each['name']}=1" for each in it["parameters"] if each["in"] == "query")
        named = api(method.upper(), f"{path}?{query}")
        assert "not known" not in str(named.document), operation
        assert "parameter not known: x" in api(method.upper(), f"{path}?x=1").message
        if "requestBody" in it:
            members = it["requestBody"]["content"]["application/json"]["schema"]["properties"]
            assert "not known" not in str(api(method.upper(), path, dict.fromkeys(members)).document), operation
            assert "member not known: x" in api(method.upper(), path, {"x": 1}).message


def test_forms_are_told_as_json_schema_has_them(api: Api) -> None:
    schema = operations(api)["post /keys"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["name"] and schema["additionalProperties"] is False
    assert schema["properties"]["models"]["type"] == ["array", "null"]
    assert schema["properties"]["models"]["items"] == {"type": "string"}
    assert schema["properties"]["name"]["type"] == "string"


def test_whatever_is_said_to_be_there_is_there(api: Api) -> None:
    whole = document(api.table.routes)
    references = [each for each in str(whole).split("'") if each.startswith("#/")]
    for reference in set(references):
        found: Any = whole
        for part in reference[2:].split("/"):
            found = found[part]
