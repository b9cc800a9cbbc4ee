"""The commands for aliases: what they store, what they say, and that a running server is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.accounts import models as module
from proxy.ledger.models import ModelStore
from proxy.telemetry.lines import stamp
from tests.accounts.stage import HOSTILE, Said, give, is_harmless
from tests.ledger.filled import NOW

PROVIDERS = {
    "LLM_PROXY_PROVIDER_X": "openai+http://127.0.0.1:9/v1",
    "LLM_PROXY_PROVIDER_Y": "anthropic+http://127.0.0.1:9",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture(autouse=True)
def announced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that a running server was told of."""
    told: list[str] = []
    monkeypatch.setattr(module, "announce", told.append)
    return told


def models(path: Path, *argv: str, **more: Any) -> Said:
    return give("models", argv[0], "--db", str(path), *argv[1:], environ=PROVIDERS, **more)


def stored(path: Path) -> list[str]:
    with ModelStore(str(path), 1.0) as store:
        return [row.text for row in store.models()]


def test_an_alias_is_stored_with_its_ledger_and_told(path: Path, announced: list[str]) -> None:
    said = models(path, "set", "fast", "x/a*3,X/b|y/c", "--options", "Hedge retries=1")
    text = "fast (retries=1 hedge) = x/a*3, x/b | y/c"
    assert said == (0, f"{text} is stored\n", "")
    assert stored(path) == [text] and announced == [str(path)]
    models(path, "set", "fast", "y/c")
    models(path, "set", "big", "y/c")
    assert models(path, "list") == (0, "big = y/c\nfast = y/c\n", "")


def test_what_was_stored_is_taken_away(path: Path, announced: list[str]) -> None:
    models(path, "set", "fast", "x/a")
    assert models(path, "remove", "fast") == (0, "fast is removed\n", "")
    assert stored(path) == [] and len(announced) == 2
    models(path, "set", "faster", "x/a")
    said = models(path, "remove", "fast")
    assert (said.code, said.errors) == (2, "llm-proxy: error: no alias fast is stored; did you mean faster?\n")
    assert len(announced) == 3


def test_each_part_has_json(path: Path) -> None:
    documents = [
        json.loads(models(path, *argv, "--json").out)
        for argv in (["set", "fast", "x/a"], ["list"], ["remove", "fast"], ["list"])
    ]
    fast = {"name": "fast", "text": "fast = x/a", "changed_at": stamp(NOW)}
    assert documents == [fast, {"models": [fast]}, {"removed": "fast"}, {"models": []}]


def test_all_that_is_wrong_is_said_and_nothing_is_made(path: Path, announced: list[str]) -> None:
    said = models(path, "set", "fast", "z/a | x", "--options", "colour")
    assert (said.code, said.out) == (2, "")
    assert [line.removeprefix("llm-proxy: error: ")[:40] for line in said.errors.splitlines()] == [
        "alias 1, at character 7: is no option he",
        "alias 1, at character 17: there is no pr",
        "alias 1, at character 23: is no target: ",
        "places are counted in: fast (colour) = z",
    ]
    assert not path.exists() and announced == []


def test_a_wrong_environment_is_said_as_check_says_it(path: Path) -> None:
    environ = {**PROVIDERS, "LLM_PROXY_MAX_BODY": "big"}
    said = give("models", "set", "--db", str(path), "fast", "x/a", environ=environ)
    assert said.code == 2 and said.errors.startswith("llm-proxy: error: LLM_PROXY_MAX_BODY: ")


def test_where_nothing_is_stored_it_says_how(path: Path) -> None:
    said = models(path, "list")
    assert said.code == 1 and "there is no ledger" in said.errors
    models(path, "set", "fast", "x/a")
    models(path, "remove", "fast")
    assert models(path, "list").out == "No aliases are stored; `llm-proxy models set NAME TARGETS` stores one.\n"


def test_whatever_somebody_wrote_into_the_file_does_a_terminal_no_harm(path: Path) -> None:
    with ModelStore(str(path), 1.0) as store:
        store.put(HOSTILE, f"{HOSTILE} = x/a")
    for said in (models(path, "list"), models(path, "list", "--json"), models(path, "remove", HOSTILE + "x")):
        assert is_harmless(said.out) and is_harmless(said.errors)
