"""One table, one error shape, two probes."""

from __future__ import annotations

import json

import pytest

from proxy.admin.routes import AdminRequest, Route, RouteTable, health_table, json_answer, probes


def request(method: str, path: str, **fields: bytes) -> AdminRequest:
    return AdminRequest(method, path, "", tuple((name.encode(), value) for name, value in fields.items()))


def table() -> RouteTable:
    return RouteTable(
        [
            *probes(list),
            Route("GET", "/secret", lambda r: json_answer(200, {"mine": True}), needs_token=True),
            Route("POST", "/both", lambda r: json_answer(200, {"got": r.body.decode()}), needs_token=False),
            Route("GET", "/both", lambda r: json_answer(200, {"query": r.query}), needs_token=False),
        ],
        is_token=lambda token: token == b"right",
    )


def test_healthz_is_ok_as_long_as_somebody_answers() -> None:
    answer = health_table(lambda: ["not ready at all"]).answer(request("GET", "/healthz"))
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


def test_readyz_says_why_not() -> None:
    reasons = ["the process is draining"]
    probe = health_table(lambda: reasons)
    answer = probe.answer(request("GET", "/readyz"))
    assert answer.status == 503
    assert json.loads(answer.body) == {"status": "not_ready", "reasons": ["the process is draining"]}
    reasons.clear()
    answer = probe.answer(request("GET", "/readyz"))
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ready"})


def test_the_health_table_serves_the_probes_and_nothing_else() -> None:
    assert [(r.method, r.path, r.needs_token) for r in health_table(list).routes] == [
        ("GET", "/healthz", False),
        ("GET", "/readyz", False),
    ]


@pytest.mark.parametrize("path", ["/", "/healthz/", "/HEALTHZ", "/healthz%20", "//healthz", "healthz", ""])
def test_unknown_paths_get_404(path: str) -> None:
    answer = table().answer(request("GET", path))
    assert answer.status == 404
    assert json.loads(answer.body)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/healthz", b"GET, HEAD"),
        ("DELETE", "/both", b"GET, HEAD, POST"),
        ("OPTIONS", "/both", b"GET, HEAD, POST"),
    ],
)
def test_other_methods_get_405_and_what_is_allowed(method: str, path: str, allow: bytes) -> None:
    answer = table().answer(request(method, path))
    assert answer.status == 405
    assert dict(answer.fields)[b"allow"] == allow
    assert json.loads(answer.body)["error"]["code"] == "method_not_allowed"


def test_head_is_get() -> None:
    assert table().answer(request("HEAD", "/healthz")) == table().answer(request("GET", "/healthz"))


@pytest.mark.parametrize("value", [None, b"Bearer wrong", b"Bearer", b"Bearer ", b"Basic right", b"right", b""])
def test_a_route_that_needs_the_token_is_shut_without_it(value: bytes | None) -> None:
    answer = table().answer(request("GET", "/secret", **({} if value is None else {"authorization": value})))
    assert answer.status == 401
    assert dict(answer.fields)[b"www-authenticate"] == b"Bearer"
    assert json.loads(answer.body)["error"]["code"] == "unauthorized"


def test_the_token_opens() -> None:
    for value in (b"Bearer right", b"bearer  right "):
        assert table().answer(request("GET", "/secret", authorization=value)).status == 200


def test_without_a_token_configured_no_token_opens() -> None:
    shut = RouteTable([Route("GET", "/secret", lambda r: json_answer(200, {}), needs_token=True)])
    for value in (b"", b"Bearer ", b"Bearer None"):
        assert shut.answer(request("GET", "/secret", authorization=value)).status == 401


def test_probes_need_no_token_in_any_table() -> None:
    assert table().answer(request("GET", "/healthz")).status == 200


def test_two_routes_for_one_thing_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two routes for GET /healthz"):
        RouteTable([*probes(list), *probes(list)])


def test_a_request_answers_for_its_fields() -> None:
    both = AdminRequest("GET", "/", "", ((b"host", b"a:1"), (b"x", b"first"), (b"x", b"second")))
    assert (both.host, both.get(b"x"), both.get(b"y")) == (b"a:1", b"first", None)
    assert AdminRequest("GET", "/", "", ()).host == b""
