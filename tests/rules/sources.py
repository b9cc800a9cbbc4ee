"""The project's own files, as the rules look at them."""

from __future__ import annotations

import ast
import os
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DECISIONS = ("outcome", "wire", "dialects", "catalog", "policy")  # rooms without input and output (DESIGN 3)


def modules(*folders: str) -> list[Path]:
    """All Python files under `folders` of the checkout, as paths from its top."""
    return [path for path in _files(*folders) if path.suffix == ".py"]


def written_files() -> list[Path]:
    """Every file that people write, as paths from the top of the checkout."""
    found = [ROOT / "pyproject.toml", ROOT / "README.md", ROOT / ".ci" / "run"]
    return sorted([*(path.relative_to(ROOT) for path in found), *_files("proxy", "bench", "tests", "scripts")])


def _files(*folders: str) -> list[Path]:
    """Without what is installed or made there (`bench/.peers`, caches)."""
    found = []
    for top in folders:
        for folder, inner, names in os.walk(ROOT / top):
            inner[:] = [name for name in inner if not name.startswith((".", "__pycache__"))]
            found += [Path(folder, name).relative_to(ROOT) for name in names]
    return sorted(found)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def room(path: Path) -> str:
    """The room of a module of proxy/: its folder, or its own name at the top (`cli`, `outcome`, `__init__`)."""
    return path.parts[1] if len(path.parts) > 2 else path.stem


def imported(path: Path) -> set[str]:
    """Dotted names that a module imports anywhere, `from a import b` as a.b."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.AST) -> str:
    """`a.b.c` of such an expression; "" for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else f".{node.attr}"
    return ""
