"""The README says what is so: settings, commands, paths (DESIGN 14)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

from tests.rules.sources import ROOT


@cache
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def code_lines(text: str) -> list[str]:
    """The lines of all fenced blocks."""
    return [
        line.strip() for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.M | re.S) for line in block.split("\n")
    ]


def rows(text: str) -> dict[str, list[str]]:
    """Settings rows: name -> its cells. A row is one whose first cell begins with such a name in backquotes."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if match := re.match(r"`([A-Z][A-Z0-9_<>]+)`$", cells[0]):
            assert match[1] not in found, f"{match[1]} stands twice"
            found[match[1]] = cells
    return found


def shown(value: Any) -> str:
    """A default as a reader sees it: without backquotes, nothing for none."""
    return str(value).replace("`", "").strip().lower() if value not in (None, "") else ""


def settings() -> list[Any]:
    from proxy.server.table import SETTINGS

    return list(SETTINGS)


def test_every_setting_has_a_row_and_every_row_a_setting() -> None:
    names = {setting.name for setting in settings()}
    assert len(names) == len(settings()), "a setting is named twice"
    assert set(rows(readme())) == names


def test_a_row_gives_the_default_and_the_unit() -> None:
    table = rows(readme())
    wrong = []
    for setting in settings():
        cells = table.get(setting.name, [])
        if cells and shown(setting.default) not in [shown(cell) for cell in cells[1:]]:
            wrong.append(f"{setting.name}: the default {setting.default!r} is not in its row {cells}")
        if cells and setting.unit and not any(setting.unit in cell for cell in cells[1:]):
            wrong.append(f"{setting.name}: the unit {setting.unit!r} is not in its row {cells}")
    assert not wrong


def test_every_setting_says_what_it_is_for() -> None:
    assert [setting.name for setting in settings() if not setting.what.strip()] == []


def test_scripts_named_there_can_be_run() -> None:
    named = set(re.findall(r"(?<![\w/])(?:scripts|\.ci)/[a-z]+\b(?![./])", readme()))
    assert {"scripts/run", "scripts/test"} <= named
    assert [name for name in sorted(named) if not os.access(ROOT / name, os.X_OK)] == []


def test_commands_named_there_exist() -> None:
    called = {
        match[1]
        for line in code_lines(readme())
        if (match := re.search(r"(?:^|[\s;&|])(?:scripts/run|llm-proxy|python3? -m proxy) ([a-z][a-z-]*)", line))
    }
    help_text = subprocess.run(
        [sys.executable, "-m", "proxy", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert called
    assert [name for name in sorted(called) if not re.search(rf"\b{name}\b", help_text)] == []


def test_the_parts_of_keys_are_all_there_and_so_are_their_options() -> None:
    table = readme().partition("| `llm-proxy keys` |")[2].partition("\n\n")[0]
    named = re.findall(r"`([a-z]+)(?: [A-Z]+…?)?`(?=[, |])", table)
    script = "import sys; from proxy.cli import main; sys.exit(main(sys.argv[1:]))"

    def help_of(*argv: str) -> str:
        command = [sys.executable, "-c", script, "keys", *argv, "--help"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert named == re.findall(r"^    ([a-z]+)  ", help_of(), re.M)
    options = set(re.findall(r"--[a-z][a-z-]*", table))
    known = "".join(help_of(part) for part in ("create", "list", "rotate", "group", "settle"))
    assert [option for option in sorted(options) if option not in known] == []


def test_the_routes_of_the_admin_api_are_all_there_and_no_others() -> None:
    from tests.server.test_admin import table

    named = re.findall(r"`([A-Z]+ /[^`?]*)`", readme().partition("| admin route |")[2].partition("\n\n")[0])
    assert sorted(named) == sorted(f"{route.method} {route.path}" for route in table().routes)


def test_paths_named_there_exist() -> None:
    text = readme()
    paths = set(re.findall(r"`((?:proxy|bench|tests|scripts)/[\w./-]*)`", text))
    paths |= {path for path in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in path}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("| `LLM_PROXY_A` | 10 | s | what |", {"LLM_PROXY_A": ["`LLM_PROXY_A`", "10", "s", "what"]}),
        (
            "| `LLM_PROXY_PROVIDER_<NAME>` | | | x |",
            {"LLM_PROXY_PROVIDER_<NAME>": ["`LLM_PROXY_PROVIDER_<NAME>`", "", "", "x"]},
        ),
        ("| name | default |\n|---|---|", {}),
    ],
)
def test_rows_are_read_as_written(text: str, expected: dict[str, list[str]]) -> None:
    assert rows(text) == expected
