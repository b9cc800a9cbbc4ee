"""What came of reading the configuration again is told, all of it, and waited for in a thread."""

from __future__ import annotations

from concurrent.futures import Future

from proxy.admin.reload import Reloaded, ReloadPage
from proxy.admin.routes import AdminRequest, Later
from tests.admin.api import JSON, Api


def api(found: Reloaded) -> Api:
    future: Future[Reloaded] = Future()
    future.set_result(found)
    return Api(ReloadPage(lambda: future).routes())


def test_what_has_changed_is_told() -> None:
    answer = api(Reloaded(["+ keys.ci: #12ab34cd"], ["LLM_PROXY_LOG: takes a restart"], ["odd"], []))("POST", "/reload")
    assert answer.status == 200
    assert answer.document == {
        "changes": ["+ keys.ci: #12ab34cd"],
        "takes_restart": ["LLM_PROXY_LOG: takes a restart"],
        "warnings": ["odd"],
    }


def test_all_that_is_wrong_is_told_in_the_shape_of_all_errors() -> None:
    answer = api(Reloaded([], [], ["odd"], ["A: is wrong", "B: too"]))("POST", "/reload")
    assert answer.status == 409
    error = answer.document["error"]
    assert error["code"] == "conflict" and error["errors"] == ["A: is wrong", "B: too"]
    assert "the old one stays: A: is wrong; B: too." in error["message"]


def test_it_begins_when_asked_and_is_waited_for_elsewhere() -> None:
    begun: list[Future[Reloaded]] = []

    def begin() -> Future[Reloaded]:
        begun.append(Future())
        return begun[-1]

    table = Api(ReloadPage(begin).routes()).table
    made = table.answer(AdminRequest("POST", "/reload", "", (JSON,)))
    assert isinstance(made, Later) and len(begun) == 1
    begun[0].set_result(Reloaded([], [], [], []))
    assert made.make().status == 200


def test_it_changes_something_and_is_asked_for_as_such() -> None:
    [route] = ReloadPage(Future).routes()
    assert route.needs_token
    assert api(Reloaded([], [], [], []))("GET", "/reload").status == 405
