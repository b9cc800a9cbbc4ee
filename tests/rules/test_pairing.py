"""Each module has its tests, and each such test file its module: tests/<room>/test_<module>.py (DESIGN 13)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rules.sources import ROOT, modules, room

# Modules without a test file of their own, and why that is right.
UNPAIRED = {
    "proxy/__main__.py": "one line; tests/whole starts the process through it",
    "proxy/catalog/snapshot.py": "values without behaviour; load's tests are theirs",
    "proxy/dialects/call.py": "protocols and values; each dialect's test runs the contract",
    "proxy/relay/options.py": "values without behaviour; settings' tests check the numbers",
}
# Folders of tests that belong to no room: they look at the whole, or at what is around it.
NO_ROOM = {"whole", "adversity", "fuzz", "rules", "scripts", "fakes", "contracts", "bench"}


def test_file(path: Path) -> Path:
    if len(path.parts) == 2:  # outcome, cli: at the top
        return Path("tests") / f"test_{path.stem}.py"
    return Path("tests") / room(path) / f"test_{path.stem}.py"


test_file.__test__ = False  # type: ignore[attr-defined]

PAIRED = [path for path in modules("proxy") if path.name != "__init__.py" and str(path) not in UNPAIRED]


@pytest.mark.parametrize("path", PAIRED, ids=str)
def test_a_module_has_its_tests(path: Path) -> None:
    assert (ROOT / test_file(path)).is_file(), f"{path} has no {test_file(path)}"


def test_a_test_file_has_its_module() -> None:
    orphans = []
    for path in modules("tests"):
        if path.name.startswith("test_") and path.parts[1] not in NO_ROOM:
            module = Path("proxy", *path.parts[1:-1], path.name.removeprefix("test_"))
            # A module's tests may go on in a second file: test_client_pipelining.py beside client.py.
            stems = [each.stem for each in (ROOT / module).parent.glob("*.py")]
            if not any(module.stem == stem or module.stem.startswith(stem + "_") for stem in stems):
                orphans.append(f"{path}: no {module}")
    assert not orphans


@pytest.mark.parametrize("path", sorted(UNPAIRED))
def test_the_list_of_exceptions_is_needed(path: str) -> None:
    if (ROOT / path).exists():
        assert not (ROOT / test_file(Path(path))).exists(), f"{path} has tests of its own: take it off the list"
