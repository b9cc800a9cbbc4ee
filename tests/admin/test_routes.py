"""One table, one error shape, two probes."""

from __future__ import annotations

import json

import pytest

from proxy.admin.members import About, Form, Member, Refused
from proxy.admin.routes import AdminAnswer, AdminRequest, Later, Route, RouteTable, health_table, json_answer, probes
from proxy.outcome import Kind
from tests.admin.api import done


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


def answer_of(asked: AdminRequest) -> AdminAnswer:
    return done(table().answer(asked))


def test_healthz_is_ok_as_long_as_somebody_answers() -> None:
    answer = done(health_table(lambda: ["not ready at all"]).answer(request("GET", "/healthz")))
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})


def test_readyz_says_why_not() -> None:
    reasons = ["the process is draining"]
    probe = health_table(lambda: reasons)
    answer = done(probe.answer(request("GET", "/readyz")))
    assert answer.status == 503
    assert json.loads(answer.body) == {"status": "not_ready", "reasons": ["the process is draining"]}
    reasons.clear()
    answer = done(probe.answer(request("GET", "/readyz")))
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ready"})


def test_the_health_table_serves_the_probes_and_nothing_else() -> None:
    assert [(r.method, r.path, r.needs_token) for r in health_table(list).routes] == [
        ("GET", "/healthz", False),
        ("GET", "/readyz", False),
    ]


@pytest.mark.parametrize("path", ["/", "/healthz/", "/HEALTHZ", "/healthz%20", "//healthz", "healthz", ""])
def test_unknown_paths_get_404(path: str) -> None:
    answer = answer_of(request("GET", path))
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
    answer = answer_of(request(method, path))
    assert answer.status == 405
    assert dict(answer.fields)[b"allow"] == allow
    assert json.loads(answer.body)["error"]["code"] == "method_not_allowed"


def test_head_is_get() -> None:
    assert table().answer(request("HEAD", "/healthz")) == table().answer(request("GET", "/healthz"))


@pytest.mark.parametrize("value", [None, b"Bearer wrong", b"Bearer", b"Bearer ", b"Basic right", b"right", b""])
def test_a_route_that_needs_the_token_is_shut_without_it(value: bytes | None) -> None:
    answer = answer_of(request("GET", "/secret", **({} if value is None else {"authorization": value})))
    assert answer.status == 401
    assert dict(answer.fields)[b"www-authenticate"] == b"Bearer"
    assert json.loads(answer.body)["error"]["code"] == "unauthorized"


def test_the_token_opens() -> None:
    for value in (b"Bearer right", b"bearer  right "):
        assert done(table().answer(request("GET", "/secret", authorization=value))).status == 200


def test_without_a_token_configured_no_token_opens() -> None:
    shut = RouteTable([Route("GET", "/secret", lambda r: json_answer(200, {}), needs_token=True)])
    for value in (b"", b"Bearer ", b"Bearer None"):
        assert done(shut.answer(request("GET", "/secret", authorization=value))).status == 401


def test_probes_need_no_token_in_any_table() -> None:
    assert done(table().answer(request("GET", "/healthz"))).status == 200


def test_two_routes_for_one_thing_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="two routes for GET /healthz"):
        RouteTable([*probes(list), *probes(list)])


def test_a_request_answers_for_its_fields() -> None:
    both = AdminRequest("GET", "/", "", ((b"host", b"a:1"), (b"x", b"first"), (b"x", b"second")))
    assert (both.host, both.get(b"x"), both.get(b"y")) == (b"a:1", b"first", None)
    assert AdminRequest("GET", "/", "", ()).host == b""


# --- parts of paths, queries, bodies ----------------------------------------------------------------------------------


def told(asked: AdminRequest) -> AdminAnswer:
    return json_answer(200, [dict(asked.named), dict(asked.asked), dict(asked.said)])


def refuse(asked: AdminRequest) -> AdminAnswer:
    raise Refused(Kind.CONFLICT, "It does not fit.")


NAME = Member("name", Form.TEXT, "")
PATHS = RouteTable(
    [
        Route("GET", "/things", told, True, About("", (), (NAME,))),
        Route("GET", "/things/{id}", told, True),
        Route("POST", "/things/{id}/do", told, True, About("", (), (), (NAME,))),
        Route("DELETE", "/things/{id}", refuse, True),
        Route("PUT", "/things/{id}", lambda asked: Later(lambda: refuse(asked)), True),
    ],
    lambda token: True,
)
JSON = (b"content-type", b"application/json")


def ask(
    method: str, path: str, query: str = "", body: bytes = b"", fields: tuple[tuple[bytes, bytes], ...] = (JSON,)
) -> tuple[int, object]:
    answer = done(PATHS.answer(AdminRequest(method, path, query, fields, body)))
    return answer.status, json.loads(answer.body)


def test_a_part_of_a_path_is_named_and_read_once() -> None:
    assert ask("GET", "/things/a%2Fb%20c%2520") == (200, [{"id": "a/b c%20"}, {}, {}])
    assert ask("POST", "/things/a/do") == (200, [{"id": "a"}, {}, {}])
    assert ask("HEAD", "/things/a")[0] == 200


@pytest.mark.parametrize(
    "path", ["/things/", "/things//do", "/things/a/", "/things/a/do/x", "/things/a/undo", "//things/a"]
)
def test_a_part_of_a_path_is_not_empty_and_the_rest_is_exact(path: str) -> None:
    assert ask("POST", path)[0] == 404


def test_another_method_for_such_a_path_gets_405() -> None:
    answer = done(PATHS.answer(AdminRequest("PATCH", "/things/a", "", ())))
    assert (answer.status, dict(answer.fields)[b"allow"]) == (405, b"DELETE, GET, HEAD, PUT")


def test_what_is_asked_for_and_said_is_read_by_the_route() -> None:
    assert ask("GET", "/things", "name=x") == (200, [{}, {"name": "x"}, {}])
    assert ask("GET", "/things", "nmae=x")[0] == 400
    assert ask("POST", "/things/a/do", body=b'{"name":"x"}') == (200, [{"id": "a"}, {}, {"name": "x"}])
    assert ask("POST", "/things/a/do", body=b'{"nmae":"x"}')[0] == 400
    assert ask("POST", "/things/a/do", "name=x")[0] == 400


@pytest.mark.parametrize(
    "media_type", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", None]
)
def test_whatever_changes_something_is_json_also_without_a_body(media_type: bytes | None) -> None:
    fields = () if media_type is None else ((b"content-type", media_type),)
    for method, path in (("POST", "/things/a/do"), ("PUT", "/things/a")):
        assert ask(method, path, fields=fields)[0] == 415
    assert ask("GET", "/things/a", fields=fields)[0] == 200


def test_a_refusal_has_the_one_error_shape_also_from_a_thread() -> None:
    expected = (409, {"error": {"code": "conflict", "message": "It does not fit."}})
    assert ask("DELETE", "/things/a") == ask("PUT", "/things/a") == expected


def test_the_token_is_asked_for_before_anything_is_looked_at() -> None:
    shut = RouteTable([Route("POST", "/a", told, True)])
    assert done(shut.answer(AdminRequest("POST", "/a", "x=1", (), b"{"))).status == 401
