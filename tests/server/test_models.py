"""Stored aliases go before those of the environment, are as they are now, and never keep anything from going on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.catalog.alias_text import parse_aliases, written
from proxy.catalog.snapshot import Snapshot
from proxy.ledger.models import ModelRow, ModelStore
from proxy.server import models as module
from proxy.server.models import StoredModels, merged, read_row, with_stored
from proxy.server.settings import Settings, read_settings

PROVIDER = "openai+http://127.0.0.1:9/v1"


def settings(**environ: str) -> Settings:
    return read_settings({"LLM_PROXY_DB": "off", "LLM_PROXY_PROVIDER_X": PROVIDER, **environ})


def texts(snapshot: Snapshot) -> list[str]:
    return [written(alias) for alias in snapshot.aliases.values()]


class Place:
    """A ledger, and a worker's snapshot over it."""

    def __init__(self, folder: Path, models: str = "fast = x/small; big = x/large") -> None:
        self.path = str(folder / "a.db")
        self.store = ModelStore(self.path, 1.0)
        self.notes: list[tuple[str, str]] = []
        self.relay = cast(Any, SimpleNamespace(snapshot=settings(LLM_PROXY_MODELS=models).snapshot))
        self.models = StoredModels(self.path, self.relay, self.note)

    def note(self, level: str, message: str, /, **more: object) -> None:
        self.notes.append((level, message))

    def then(self) -> list[str]:
        self.models.look()
        return texts(self.relay.snapshot)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.close()
    made.models.close()


# --- over the environment's -------------------------------------------------------------------------------------------


def test_a_stored_one_goes_before_and_a_new_one_stands_behind(place: Place) -> None:
    place.store.put("new", "new = x/n")
    place.store.put("fast", "fast (hedge) = x/other*2")
    assert place.then() == ["fast (hedge) = x/other*2", "big = x/large", "new = x/n"]
    place.store.remove("fast")
    assert place.then() == ["fast = x/small", "big = x/large", "new = x/n"]
    place.store.remove("new")
    assert place.then() == ["fast = x/small", "big = x/large"]
    assert place.notes == []


def test_the_snapshot_is_another_one_only_when_something_has_changed(place: Place) -> None:
    first = place.relay.snapshot
    place.models.look()
    assert place.relay.snapshot is first
    place.store.put("fast", "fast = x/other")
    place.models.look()
    second = place.relay.snapshot
    assert second is not first and texts(first)[0] == "fast = x/small", "whoever has the old one keeps it as it was"
    assert second.providers is first.providers
    place.models.look()
    assert place.relay.snapshot is second


def test_only_what_has_changed_is_read_anew_and_all_of_it_for_other_providers(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(row: ModelRow, providers: Any) -> Any:
        read.append(row.name)
        return read_row(row, providers)

    monkeypatch.setattr(module, "read_row", noted)
    for name in ("a", "b"):
        place.store.put(name, f"{name} = x/m")
    place.store.put("lost", "lost = y/m")
    place.models.look()
    place.store.put("b", "b = x/other")
    assert place.then()[-2:] == ["a = x/m", "b = x/other"]
    assert read == ["a", "b", "lost", "b"]
    place.relay.snapshot = place.models.over(settings().snapshot)
    assert len(read) == 4
    place.relay.snapshot = place.models.over(settings(LLM_PROXY_PROVIDER_Y=PROVIDER).snapshot)
    assert len(read) == 7 and texts(place.relay.snapshot)[-1] == "lost = y/m"


def test_a_ledger_that_was_put_back_from_before_is_a_change_too(place: Place) -> None:
    place.store.put("fast", "fast = x/one")
    place.store.put("fast", "fast = x/two")
    assert place.then()[0] == "fast = x/two"
    place.store._connection.execute("DELETE FROM models")
    place.store.put("fast", "fast = x/one")
    assert place.then()[0] == "fast = x/one"


def test_one_that_cannot_be_used_is_left_out_and_told_once(place: Place) -> None:
    place.store.put("fast", "fast = gone/m")
    place.store.put("new", "new = x/n")
    assert place.then() == ["fast = x/small", "big = x/large", "new = x/n"]
    place.store.put("big", "big = x/other")
    assert place.then() == ["fast = x/small", "big = x/other", "new = x/n"]
    told = "the stored alias fast is not used: alias 1, at character 8: there is no provider of this name (x) (in: fast"
    assert [(level, text[: len(told)]) for level, text in place.notes] == [("error", told)]


def test_a_reload_brings_another_environment_and_what_is_stored_stands(place: Place) -> None:
    place.store.put("fast", "fast = x/mine, y/mine")
    assert place.then() == ["fast = x/small", "big = x/large"]
    new = settings(LLM_PROXY_PROVIDER_Y=PROVIDER, LLM_PROXY_MODELS="fast = x/a; big = x/b; huge = x/c")
    place.relay.snapshot = place.models.over(new.snapshot)
    assert texts(place.relay.snapshot) == ["fast = x/mine, y/mine", "big = x/b", "huge = x/c"]
    assert place.models.catalog().unused == {}
    place.store.remove("fast")
    assert place.then() == ["fast = x/a", "big = x/b", "huge = x/c"], "the new environment's, not the first one's"
    place.store.put("fast", "fast = y/mine")
    assert place.then()[0] == "fast = y/mine"
    place.notes.clear()
    place.relay.snapshot = place.models.over(settings(LLM_PROXY_MODELS="fast = x/a").snapshot)
    assert texts(place.relay.snapshot) == ["fast = x/a"]
    assert [level for level, _ in place.notes] == ["error"] and "the stored alias fast is not used" in place.notes[0][1]


def test_the_pages_are_told_what_is_what(place: Place) -> None:
    place.store.put("fast", "fast = gone/m")
    place.store.put("new", "new = x/n")
    place.models.look()
    catalog = place.models.catalog()
    assert [*catalog.aliases] == ["fast", "big", "new"] and [*catalog.environment] == ["fast", "big"]
    assert [*catalog.stored] == ["fast", "new"] and [*catalog.unused] == ["fast"]
    assert catalog.providers is place.relay.snapshot.providers


@pytest.mark.parametrize("text", ["other = x/a", "fast = x/a; other = x/b", "", "nonsense", "x/fast = x/a"])
def test_what_stands_in_a_row_is_one_alias_of_its_name_or_nothing(text: str) -> None:
    """Anybody may write into the file."""
    providers = settings().snapshot.providers
    environment = parse_aliases("fast = x/small", providers)[0]
    name = "x/fast" if text.startswith("x/") else "fast"
    row = ModelRow(name, text)
    found = merged(environment, {row: read_row(row, providers)})
    assert found.aliases == environment and name in found.unused


def test_without_a_ledger_the_environments_hold() -> None:
    relay: Any = SimpleNamespace(snapshot=settings(LLM_PROXY_MODELS="fast = x/small").snapshot)
    models = StoredModels(None, relay, lambda *_, **__: None)
    models.look()
    assert [*models.catalog().aliases] == [*models.catalog().environment] == ["fast"]
    models.close()


# --- for check --------------------------------------------------------------------------------------------------------


def test_check_finds_what_a_process_would_find(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    given = {"LLM_PROXY_DB": path, "LLM_PROXY_MODELS": "fast = x/small", "LLM_PROXY_TYPO": "odd"}
    found, warnings = with_stored(settings(**given))
    assert (texts(found.snapshot), warnings) == (["fast = x/small"], [])
    assert list(tmp_path.iterdir()) == [], "to look makes no ledger"
    with ModelStore(path, 1.0) as store:
        store.put("fast", "fast = x/mine")
        store.put("lost", "lost = gone/m")
    found, warnings = with_stored(settings(**given))
    assert texts(found.snapshot) == ["fast = x/mine"]
    assert len(warnings) == 1 and "the stored alias lost is not used" in warnings[0]
    assert len(found.warnings) == 2 and found.warnings[1] == warnings[0]
    assert texts(with_stored(settings(**given | {"LLM_PROXY_DB": "off"}))[0].snapshot) == ["fast = x/small"]
