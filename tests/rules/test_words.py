"""Words that do not belong into the project's files, and names that are not ours (DESIGN 2)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.rules.sources import ROOT, modules, tree, written_files

# In pieces, so that this file may be looked at, too.
REGISTRIES = re.compile("py" r"pi\.(org|io)|python" r"hosted\.|npm" r"js\.|anaconda" r"\.org|crates" r"\.io", re.I)
# Somebody's own folders. Of the folders that everybody has, only those for temporary files are a sign of such a path.
MACHINE = re.compile(r"(?<![\w.~>}\])/-])/(" "work|root|home|Users" r")/\w|(?<![\w.])/" r"tmp/\w")
# One word per idea: these are synonyms of words that we have.
SYNONYMS = re.compile(r"downstream|backend|frontend|payload|deployment|(^|_)(util|helper|misc)s?(_|$)", re.I)
LEFT_OVER = {"utils", "util", "helpers", "helper", "common", "base", "misc", "tools"}


@pytest.mark.parametrize("path", written_files(), ids=str)
def test_no_registry_and_no_machine_is_named(path: Path) -> None:
    text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
    found = [f"{path}:{number}" for number, line in enumerate(text.splitlines(), 1) if wrong_in(line)]
    assert not found


def wrong_in(line: str) -> bool:
    return bool(REGISTRIES.search(line) or MACHINE.search(line))


@pytest.mark.parametrize(
    ("line", "is_wrong"),
    [
        ("see https://" + "py" + "pi.org/simple", True),
        ("open('/" + "work/main/x')", True),
        ("unix:/" + "tmp/a.sock", True),
        ("unix:/run/llm-proxy.sock", False),
        ("tests/work/x", False),
        ("GET /v1/chat/completions", False),
    ],
)
def test_the_search_finds_what_it_is_for(line: str, is_wrong: bool) -> None:
    assert wrong_in(line) is is_wrong


def names_in(source: ast.Module) -> set[str]:
    """Names that a module gives: of functions, classes, arguments, variables and attributes."""
    names: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


@pytest.mark.parametrize("path", modules("proxy"), ids=str)
def test_names_use_our_words(path: Path) -> None:
    assert path.stem not in LEFT_OVER, "an idea without a name: find it"
    assert sorted(name for name in names_in(tree(path)) if SYNONYMS.search(name)) == []
