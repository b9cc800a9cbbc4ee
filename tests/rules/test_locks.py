"""The lock files hold all that is installed, by hash, and name nobody's server."""

from __future__ import annotations

import re
import tomllib
from functools import cache

import pytest

from tests.rules.sources import ROOT

HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@cache
def locked(name: str) -> dict[str, str]:
    """Project name -> the whole of its entry (version, marker, hashes)."""
    text = (ROOT / "scripts" / f"{name}.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.split("==")[0]: line for line in lines}


def plain_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-").replace(".", "-")


@pytest.mark.parametrize("name", ["runtime", "test"])
def test_every_entry_is_pinned_and_hashed(name: str) -> None:
    for project, entry in locked(name).items():
        assert re.match(r"[a-z0-9-]+==[0-9a-z.]+ ", entry), project
        assert HASH.search(entry), project


@pytest.mark.parametrize("name", ["runtime", "test"])
def test_a_lock_names_no_server(name: str) -> None:
    text = (ROOT / "scripts" / f"{name}.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash)", text, re.MULTILINE), "options belong to the caller's pip"


def test_the_test_lock_holds_the_runtime_lock() -> None:
    runtime, test = locked("runtime"), locked("test")
    assert {name: test.get(name) for name in runtime} == runtime


def test_the_locks_are_made_from_pyproject() -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime = {plain_name(each) for each in about["project"]["dependencies"] + about["dependency-groups"]["build"]}
    assert runtime <= set(locked("runtime")), "run scripts/lock"
    assert {plain_name(each) for each in about["dependency-groups"]["test"]} <= set(locked("test")), "run scripts/lock"
    built_with = {plain_name(each) for each in about["build-system"]["requires"]}
    assert built_with <= runtime, "the set-up builds without isolation"
