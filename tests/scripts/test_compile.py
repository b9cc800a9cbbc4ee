"""scripts/compile.py: which modules are compiled, and that a package that was compiled does what its sources do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

OUTCOME = """
class Sum:
    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int) -> int:
        self.total += number
        return self.total
"""
BROKEN = OUTCOME + "\n    def wrong(self) -> int:\n        return 'no number'\n"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compile_script", ROOT / "scripts" / "compile.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_compiled_exists_and_what_is_left_would_be() -> None:
    script = load()
    found = script.modules(ROOT / "proxy")
    assert all((ROOT / path).is_file() for path in found)
    assert {"proxy/outcome.py", "proxy/relay/client.py", "proxy/wire/requests.py"} <= set(found)
    for name in script.LEFT:
        assert (ROOT / "proxy" / f"{name}.py").is_file(), f"{name} is no module any more"
        assert name.split("/")[0] in script.COMPILED, f"{name} would not be compiled anyway"
        assert f"proxy/{name}.py" not in found


def small(folder: Path, outcome: str) -> Path:
    """A checkout with a package of two modules that are compiled."""
    (folder / "proxy" / "wire").mkdir(parents=True)
    (folder / "proxy" / "__init__.py").touch()
    (folder / "proxy" / "wire" / "__init__.py").touch()
    (folder / "proxy" / "wire" / "head.py").write_text("SIZE = 3\n")
    (folder / "proxy" / "outcome.py").write_text(outcome)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def compile_it(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "compile.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.slow
def test_a_compiled_package_does_the_same(tmp_path: Path) -> None:
    root = small(tmp_path / "checkout", OUTCOME)
    done = compile_it(root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"2 modules are compiled in {root / 'build' / 'compiled'}\n"
    assert not list((root / "proxy").glob("*.so"))
    says = "from proxy import outcome; s = outcome.Sum(); s.add(2); print(s.add(3), outcome.__file__.endswith('.py'))"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(root / "build" / "compiled"), "PYTHONSAFEPATH": "1"}
    ran = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout == "5 False\n"
    assert (root / "build" / "compiled" / "stamp").is_file()


def test_what_cannot_be_compiled_is_told_and_leaves_what_was_there(tmp_path: Path) -> None:
    root = small(tmp_path / "checkout", BROKEN)
    (root / "build" / "compiled").mkdir(parents=True)
    done = compile_it(root)
    assert done.returncode == 1 and done.stdout == ""
    first, told, *_ = done.stderr.splitlines()
    assert first == "scripts/compile: it cannot be compiled here:"
    assert told.startswith("proxy/outcome.py:13: error: Incompatible return value type")
    assert (root / "build" / "compiled").is_dir()
