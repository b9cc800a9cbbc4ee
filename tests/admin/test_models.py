"""Aliases by the admin API: what is in force is shown with how it stands, and what is wrong is told all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.admin.models import Catalog, ModelPages, Standing, read_alias
from proxy.catalog.alias_text import parse_aliases
from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider
from proxy.ledger.counters import Counters, beside
from proxy.ledger.models import ModelStore
from proxy.policy.credentials import Credentials
from proxy.policy.health import TargetHealth
from tests.admin.api import Api
from tests.ledger.receipts import locked

NOW = 1000.0
ORIGIN = Origin("http", "127.0.0.1", 9)
KEYS = (Secret("sk-first-0123456789"), Secret("sk-second-9876543210"))
X = Provider("x", "openai", ORIGIN, credential=KEYS[0], further=KEYS[1:])
Y = Provider("y", "anthropic", ORIGIN)
PROVIDERS = {"x": X, "y": Y}


class Place:
    """A ledger, and a server that looks into it when it is told to."""

    def __init__(self, path: Path | None, environment: str = "") -> None:
        self.path = None if path is None else str(path)
        self.environment = parse_aliases(environment, PROVIDERS)[0]
        self.standing: Standing = ({}, [], NOW)
        self.looks = 0
        self.changes = 0
        self.notes: list[tuple[str, str]] = []
        self.unused: dict[str, str] = {}
        self.api = Api(
            ModelPages(self.path, self.catalog, lambda: self.standing, self.look, self.changed, self.note).routes()
        )

    def catalog(self) -> Catalog:
        rows = []
        if self.path is not None:
            with ModelStore(self.path, 1.0) as store:
                rows = store.models()
        stored = {row.name: row for row in rows}
        used = [row.text for row in rows if row.name not in self.unused]
        aliases = self.environment | parse_aliases("; ".join(used), PROVIDERS)[0]
        return Catalog(PROVIDERS, aliases, self.environment, stored, self.unused)

    def look(self) -> None:
        self.looks += 1

    def changed(self) -> None:
        self.changes += 1

    def note(self, level: str, message: str, /, **more: object) -> None:
        self.notes.append((level, message))

    def put(self, name: str, targets: str, **more: Any) -> Any:
        return self.api("PUT", f"/models/{name}", {"targets": targets, **more})

    def names(self) -> dict[str, str]:
        """Of those in force, with where they come from."""
        return {each["name"]: each["source"] for each in self.api("GET", "/models").document["models"]}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "a.db", "fast = x/small; big (retries=3) = y/large")


# --- what there is ----------------------------------------------------------------------------------------------------

UNKNOWN = {"state": "closed", "retry_in": 0.0, "in_flight": 0, "latency_ms": None, "p95_ms": None}


def choice(provider: str, model: str, weight: int = 1, window: int | None = None, **state: Any) -> dict[str, Any]:
    return {"provider": provider, "model": model, "weight": weight, "window": window, **UNKNOWN, **state}


def test_an_alias_is_shown_with_where_it_comes_from_and_how_its_targets_stand(place: Place) -> None:
    slow, failing = TargetHealth(), TargetHealth()
    for _ in range(20):
        slow.begin(NOW)
        slow.first_event(0.25, NOW)
    for _ in range(5):
        failing.begin(NOW - 1)
        failing.end(NOW - 1, False, False)
    place.standing = ({("x", "small"): slow, ("y", "large"): failing}, [], NOW)
    document = place.put("fast", "x/small*3, x/other (window=32k) | y/large", options="retries=1  hedge").document
    assert document == {
        "name": "fast",
        "targets": "x/small*3, x/other (window=32k) | y/large",
        "options": "retries=1 hedge",
        "text": "fast (retries=1 hedge) = x/small*3, x/other (window=32k) | y/large",
        "source": "stored",
        "changed_at": document["changed_at"],
        "instead_of": "fast = x/small",
        "groups": [
            [
                choice("x", "small", 3, in_flight=20, latency_ms=250.0, p95_ms=250.0),
                choice("x", "other", window=32000),
            ],
            [choice("y", "large", state="open", retry_in=4.0)],
        ],
    }
    assert document["changed_at"].endswith("Z")
    fast, big = place.api("GET", "/models").document["models"]
    assert fast == document
    assert (big["source"], big["changed_at"], big["instead_of"], big["options"]) == (
        "environment", None, None, "retries=3",
    )  # fmt: skip
    assert place.looks, "what others have changed is seen first"


def test_a_stored_one_that_cannot_be_used_is_told_of_and_the_environments_is_in_force(place: Place) -> None:
    place.put("fast", "x/other")
    place.put("gone", "x/other")
    place.unused = {"fast": "why", "gone": "why not"}
    document = place.api("GET", "/models").document
    assert [(each["text"], each["source"]) for each in document["models"]] == [
        ("fast = x/small", "environment"),
        ("big (retries=3) = y/large", "environment"),
    ]
    assert document["unused"] == [
        {"name": "fast", "text": "fast = x/other", "problem": "why"},
        {"name": "gone", "text": "gone = x/other", "problem": "why not"},
    ]


def test_each_target_that_was_asked_is_shown_as_it_stands(place: Place) -> None:
    open_, probing, warming = TargetHealth(), TargetHealth(), TargetHealth()
    for health in (open_, probing, warming):
        health.begin(NOW - 6)
        health.end(NOW - 6, False, False, 5.5)
    open_.breaker.fail(NOW, False, 2.5)
    probing.begin(NOW)
    warming.end(NOW, warming.begin(NOW), True)
    place.standing = ({("y", "b"): warming, ("x", "b"): probing, ("x", "a"): open_}, [], NOW)
    document = place.api("GET", "/targets").document
    assert [(each["provider"], each["model"], each["state"], each["in_flight"]) for each in document["targets"]] == [
        ("x", "a", "open", 0),
        ("x", "b", "probing", 1),
        ("y", "b", "warming", 0),
    ]
    assert document["targets"][0]["retry_in"] == 2.5 and document["credentials"] == []


def test_credentials_that_are_out_are_named_by_fingerprint(place: Place) -> None:
    known = Credentials(2)
    known.refused(1, 401, "m", NOW)
    known.refused(0, 403, "m", NOW)
    place.standing = ({}, [(X, known), (Y, Credentials(0))], NOW)
    answer = place.api("GET", "/targets")
    assert answer.document["credentials"] == [
        {"provider": "x", "index": 1, "fingerprint": f"#{KEYS[1].fingerprint}", "model": None},
        {"provider": "x", "index": 0, "fingerprint": f"#{KEYS[0].fingerprint}", "model": "m"},
    ]
    assert not any(secret.reveal() in str(answer) for secret in KEYS)
    place.standing = ({}, [(X, known)], NOW + 61)
    assert [each["index"] for each in place.api("GET", "/targets").document["credentials"]] == [1]


# --- changes ----------------------------------------------------------------------------------------------------------


def test_what_is_put_is_stored_and_told_to_whoever_reads_the_counters_file(place: Place) -> None:
    assert place.path is not None
    counters = Counters(beside(place.path), lambda *_, **__: None, 1)
    before = counters.generation
    assert place.put("new", " X/a ,  x/b*2", options=None).status == 200
    assert counters.generation != before and place.changes == 1
    assert place.notes == [("info", "the alias new was stored by the admin API")]
    with ModelStore(place.path, 1.0) as store:
        assert [row.text for row in store.models()] == ["new = x/a, x/b*2"]
    assert place.names() == {"fast": "environment", "big": "environment", "new": "stored"}
    counters.close()


def test_what_was_put_is_taken_away_and_the_environments_comes_back(place: Place) -> None:
    place.put("fast", "y/large")
    assert place.names()["fast"] == "stored"
    assert place.api("DELETE", "/models/fast").document == {"removed": "fast"}
    assert place.names()["fast"] == "environment" and place.changes == 2
    refused = place.api("DELETE", "/models/fast")
    assert (refused.status, refused.document["error"]["code"]) == (409, "conflict")
    assert "an alias of LLM_PROXY_MODELS: change it there, and reload" in refused.message
    assert place.api("DELETE", "/models/none").status == 404


def test_a_name_may_be_that_of_a_model_with_slashes(place: Place) -> None:
    assert place.put("org%2Fmodel:free", "x/a").document["name"] == "org/model:free"
    assert place.api("DELETE", "/models/org%2Fmodel:free").status == 200


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_stored(place: Place) -> None:
    answer = place.put("fast", "z/a*0 | x", options="retries=11 colour")
    assert (answer.status, answer.document["error"]["code"]) == (400, "bad_request")
    errors = answer.document["error"]["errors"]
    assert [error.partition(": ")[0] for error in errors] == [
        "alias 1, at character 7",
        "alias 1, at character 18",
        "alias 1, at character 28",
        "alias 1, at character 28",
        "alias 1, at character 36",
    ]
    assert all(error in answer.message for error in errors)
    assert "fast (retries=11 colour) = z/a*0 | x" in answer.message
    assert place.names() == {"fast": "environment", "big": "environment"} and place.notes == []


@pytest.mark.parametrize(
    ("name", "targets", "options"),
    [
        ("fast", "x/a; evil = x/b", ""),
        ("fast", "x/a\nevil = x/b", ""),
        ("fast", ";", ""),
        ("fast", "", ""),
        ("fast", "x/a", "hedge) = x/b; evil ("),
        ("a;b", "x/a", ""),
        ("a = x/b; c", "x/a", ""),
        ("fast (hedge)", "x/a", ""),
        (" fast", "x/a", ""),
        ("x/a", "x/a", ""),
        ("é", "x/a", ""),
    ],
)
def test_nothing_but_one_alias_of_that_name_can_be_said(name: str, targets: str, options: str) -> None:
    text, found = read_alias(name, targets, options, PROVIDERS)
    assert isinstance(found, list) and found, text


def test_without_a_ledger_the_environments_are_shown_and_nothing_can_be_stored() -> None:
    place = Place(None, "fast = x/small")
    assert place.names() == {"fast": "environment"}
    for answer in (place.put("fast", "x/a"), place.api("DELETE", "/models/fast")):
        assert answer.status == 404 and "LLM_PROXY_DB=off" in answer.message


def test_a_ledger_that_cannot_be_written_now_is_no_fault_of_the_request(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.admin.models.WAIT", 0.0)
    assert place.put("fast", "x/a").status == 200
    assert place.path is not None
    with locked(Path(place.path)):
        assert place.put("fast", "x/b").status == 503
    assert place.api("GET", "/models").document["models"][0]["targets"] == "x/a"
