"""Keys and groups by the admin API: as the commands do it, in JSON, and every change is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.admin.keys import KeyPages
from proxy.ledger.counters import Counters, beside
from proxy.ledger.keys import KeyRow, KeyStore, digest_of
from tests.admin.api import Api
from tests.ledger.filled import DAY, HOUR, NOW
from tests.ledger.receipts import locked


class Desk:
    """An API over a ledger; `changes` counts what the server was told."""

    def __init__(self, path: str | None) -> None:
        self.path = path or ""
        self.changes = 0
        self.notes: list[str] = []
        static = {"static": KeyRow("static", limits="rpm=5")}
        pages = KeyPages(
            path, static, lambda: "keys", self._changed, lambda _, text, **more: self.notes.append(text), lambda: NOW
        )
        self.ask = Api(pages.routes())

    def _changed(self) -> None:
        self.changes += 1

    def store(self) -> KeyStore:
        return KeyStore(self.path, 1.0, lambda: NOW)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(str(tmp_path / "a.db"))


def test_a_new_key_is_shown_once_and_kept_as_its_digest(desk: Desk) -> None:
    said = {
        "name": "ci", "limits": "rpm=60  5usd/day", "owner": "Ann", "tags": ["a", "b"], "models": ["gpt-4o*", "fast"],
        "providers": ["openai"], "disconnect": "drain:5", "expires_at": "90d", "raw": False,
    }  # fmt: skip
    made = desk.ask("POST", "/keys", said)
    assert made.status == 201
    document = dict(made.document)
    value = document.pop("value")
    assert document["expires_at"] == "2027-02-23T12:00:00.000Z"
    assert document | {"limits": said["limits"], "expires_at": "90d"} == document | said
    assert document["limits"] == "rpm=60 5usd/day"
    assert (document["state"], document["static"], document["prefix"]) == ("valid", False, value[:10])
    assert desk.ask("GET", "/keys/ci").document == document
    with desk.store() as store:
        row = store.key("ci")
    assert row is not None and row.digest == digest_of(value)
    assert desk.changes == 1 and desk.notes == ["the key ci was made by the admin API"]


def test_what_get_shows_can_be_sent_back(desk: Desk) -> None:
    desk.ask("POST", "/keys", {"name": "ci", "tags": ["a"], "models": ["x"], "expires_at": "1d", "raw": True})
    before = desk.ask("GET", "/keys/ci").document
    fields = ("limits", "group", "owner", "tags", "models", "providers", "disconnect", "expires_at", "uid", "raw")
    changed = desk.ask("PATCH", "/keys/ci", {name: before[name] for name in fields})
    assert changed.status == 200
    assert {name: changed.document[name] for name in fields} == {name: before[name] for name in fields}


def test_a_change_sets_what_is_said_and_null_clears(desk: Desk) -> None:
    desk.ask("POST", "/keys", {"name": "ci", "limits": "rpm=1", "models": ["x"], "owner": "Ann"})
    changed = desk.ask("PATCH", "/keys/ci", {"limits": None, "models": None}).document
    assert (changed["limits"], changed["models"], changed["owner"]) == ("", None, "Ann")
    assert desk.ask("PATCH", "/keys/ci", {}).status == 400


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"limits": "rpm=0"}, "limits: 'rpm=0': write whole numbers"),
        ({"limits": "x", "owner": "a\nb"}, "owner: may have up to 256 printable characters"),
        ({"models": []}, "models: may not be an empty list; null means all."),
        ({"models": ["a b"]}, "models: each of them must be one name."),
        ({"models": [" "]}, "models: each of them must be one name."),
        ({"tags": ["a,b"]}, "tags: each of them must be one name."),
        ({"providers": ["OpenAI"]}, "providers: write names of providers"),
        ({"expires_at": "2020-01-01"}, "expires_at: is over already: write a time to come."),
        ({"uid": 2**32}, "uid: write the number of a user"),
        ({"modles": ["x"]}, "member not known: modles"),
        ({"value": "short"}, "value: a key has 16 or more visible ASCII characters."),
        ({"name": "a b"}, "A key's name has up to 64 letters"),
        ({"name": "lp-" + "x" * 43}, "That is a key, and keys are called by their names"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(desk: Desk, said: dict[str, Any], sentence: str) -> None:
    refused = desk.ask("POST", "/keys", {"name": "ci"} | said)
    assert refused.status == 400 and sentence in refused.message
    assert "short" not in refused.message and "x" * 43 not in refused.message
    assert [each["name"] for each in desk.ask("GET", "/keys").document["keys"]] == ["static"]


def test_what_there_is_already_is_a_conflict(desk: Desk) -> None:
    value = "a-value-of-somebody"
    assert desk.ask("POST", "/keys", {"name": "a", "value": value, "uid": 7}).document["value"] is None
    for said in ({"name": "a"}, {"name": "b", "value": value}, {"name": "b", "uid": 7}, {"name": "b", "group": "x"}):
        refused = desk.ask("POST", "/keys", said)
        assert refused.status == 409 and value not in refused.message
    assert desk.ask("PATCH", "/keys/a", {"group": "x"}).message == "There is no group called x: make it first."


def test_a_key_for_a_user_id_needs_no_value(desk: Desk) -> None:
    made = desk.ask("POST", "/keys", {"name": "local", "uid": 1000}).document
    assert (made["value"], made["prefix"], made["uid"]) == (None, None, 1000)
    assert desk.ask("PATCH", "/keys/local", {"uid": None}).status == 409


@pytest.mark.parametrize(
    ("said", "until"),
    [({}, NOW + 7 * DAY), ({"old_until": "1h"}, NOW + HOUR), ({"old_until": None}, None)],
)
def test_a_rotation_keeps_the_old_value_for_a_while(desk: Desk, said: dict[str, Any], until: float | None) -> None:
    first = desk.ask("POST", "/keys", {"name": "ci"}).document["value"]
    second = desk.ask("POST", "/keys/ci/rotate", said).document
    assert second["value"] not in (None, first)
    with desk.store() as store:
        row = store.key("ci")
    assert row is not None and row.old_until == until
    assert row.old_digest == (None if until is None else digest_of(first))
    given = desk.ask("POST", "/keys/ci/rotate", {"value": "given-by-somebody"})
    assert given.document["value"] is None
    assert desk.ask("POST", "/keys/ci/rotate", {"old_until": "yesterday"}).status == 400


def test_disabled_enabled_removed(desk: Desk) -> None:
    desk.ask("POST", "/keys", {"name": "ci"})
    assert desk.ask("POST", "/keys/ci/disable").document["state"] == "disabled"
    assert desk.ask("POST", "/keys/ci/enable").document["state"] == "valid"
    assert desk.ask("DELETE", "/keys/ci").document == {"removed": "ci"}
    assert desk.changes == 4
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/disable"), ("POST", "/enable")):
        assert desk.ask(method, "/keys/ci" + path).status == 404
    assert desk.ask("PATCH", "/keys/ci", {"owner": "x"}).message == "There is no key called ci."


def test_keys_of_the_environment_are_shown_and_cannot_be_changed(desk: Desk) -> None:
    with desk.store() as store:
        store.create(KeyRow("static", digest_of("x" * 16)))  # it is not used while the environment has that name
    [shown] = desk.ask("GET", "/keys").document["keys"]
    assert shown == desk.ask("GET", "/keys/static").document
    assert (shown["static"], shown["limits"], shown["state"], shown["prefix"]) == (True, "rpm=5", "valid", None)
    refusals = [
        desk.ask("PATCH", "/keys/static", {"limits": ""}),
        desk.ask("DELETE", "/keys/static"),
        *(desk.ask("POST", f"/keys/static/{what}") for what in ("rotate", "disable", "enable")),
    ]
    assert {(each.status, each.message) for each in refusals} == {
        (409, "static is a key of LLM_PROXY_KEYS: change it there, and reload llm-proxy.")
    }
    assert desk.ask("POST", "/keys", {"name": "static"}).status == 409


def test_keys_come_by_pages_in_the_order_of_their_names(desk: Desk) -> None:
    for name in ("zoo", "app", "static2", "ci"):
        desk.ask("POST", "/keys", {"name": name})
    seen, after = [], ""
    while after is not None:
        page = desk.ask("GET", f"/keys?limit=2&after={after}").document
        assert len(page["keys"]) <= 2 and page["auth"] == "keys"
        seen += [each["name"] for each in page["keys"]]
        after = page["next"]
    assert seen == ["app", "ci", "static", "static2", "zoo"]
    assert desk.ask("GET", "/keys?limit=0").status == 400


def test_groups(desk: Desk) -> None:
    assert desk.ask("PUT", "/groups/team", {"limits": "rpm=0"}).message.startswith("limits: 'rpm=0': write")
    assert desk.ask("PUT", "/groups/a b", {"limits": ""}).status == 400
    assert desk.ask("PUT", "/groups/team", {}).message == "limits is missing."
    made = desk.ask("PUT", "/groups/team", {"limits": "rpm=60"})
    assert (made.status, made.document["limits"], made.document["keys"]) == (200, "rpm=60", 0)
    desk.ask("POST", "/keys", {"name": "ci", "group": "team"})
    assert desk.ask("PUT", "/groups/team", {"limits": "rpm=61"}).document["keys"] == 1
    assert [each["name"] for each in desk.ask("GET", "/groups").document["groups"]] == ["team"]
    assert desk.ask("DELETE", "/groups/team").message == "1 key is in the group team: change them first."
    desk.ask("DELETE", "/keys/ci")
    assert desk.ask("DELETE", "/groups/team").document == {"removed": "team"}
    assert desk.ask("DELETE", "/groups/team").status == 404


def test_a_change_bumps_the_counters_file_and_a_refused_one_does_not(desk: Desk) -> None:
    desk.ask("GET", "/groups")
    counters = Counters(beside(desk.path), lambda *_, **__: None, 1)
    before = counters.generation
    desk.ask("POST", "/keys", {"name": "ci"})
    between = counters.generation
    desk.ask("POST", "/keys", {"name": "ci"})
    desk.ask("GET", "/keys")
    assert before != between == counters.generation
    counters.close()


def test_without_a_ledger_there_are_the_keys_of_the_environment_only() -> None:
    desk = Desk(None)
    assert [each["name"] for each in desk.ask("GET", "/keys").document["keys"]] == ["static"]
    for method, path, body in (("POST", "/keys", {"name": "ci"}), ("GET", "/keys/ci", None), ("GET", "/groups", None)):
        refused = desk.ask(method, path, body)
        assert refused.status == 404 and "LLM_PROXY_DB=off" in refused.message


def test_a_ledger_that_cannot_be_used_is_503(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.ask("POST", "/keys", {"name": "ci"})
    monkeypatch.setattr("proxy.admin.keys.WAIT", 0.01)
    with locked(Path(desk.path)):
        refused = desk.ask("POST", "/keys", {"name": "b"})
    assert refused.status == 503 and "locked" in refused.message
