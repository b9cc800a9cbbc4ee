"""A module is short, and opens with what lives in it (DESIGN 3, STYLE 4)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.rules.sources import ROOT, modules, tree

HARD_STOP = 500  # lines; about 400 is what a module should have

# Modules between 400 lines and the hard stop, each with the reason why it is one idea and not two.
LONG: dict[str, str] = {
    "proxy/outcome.py": "the words that every room shares are looked up in one place",
    "proxy/policy/limits.py": "one step takes from rates, budgets and slots or puts all back: all share one chain",
    "proxy/relay/exchange.py": "the life of one request: every phase and every ending passes here and shares its state",
}


def length(path: Path) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", modules("proxy"), ids=str)
def test_a_module_is_short(path: Path) -> None:
    limit = HARD_STOP if str(path) in LONG else 400
    assert length(path) <= limit, f"{path} has more than {limit} lines: which two ideas are in it?"


def test_the_list_of_long_modules_is_needed() -> None:
    assert [path for path in LONG if length(Path(path)) <= 400] == []


@pytest.mark.parametrize("path", modules("proxy", "bench"), ids=str)
def test_a_module_opens_with_its_rule(path: Path) -> None:
    docstring = ast.get_docstring(tree(path))
    assert docstring, f"{path} has no docstring"
    if path.parts[0] == "proxy" and path.name not in ("__init__.py", "__main__.py"):
        assert "ives here" in docstring, f"{path} does not say what lives there and what may not"


@pytest.mark.parametrize("path", [path for path in modules("proxy") if path.name == "__init__.py"], ids=str)
def test_a_room_names_its_modules(path: Path) -> None:
    docstring = ast.get_docstring(tree(path)) or ""
    missing = [each.stem for each in sorted((ROOT / path).parent.glob("*.py")) if each.stem[0] != "_"]
    missing = [name for name in missing if name not in docstring]
    assert not missing, f"{path} does not name {', '.join(missing)}"


@pytest.mark.parametrize("path", modules("tests"), ids=str)
def test_a_test_file_is_readable_in_one_sitting(path: Path) -> None:
    assert length(path) <= 800
