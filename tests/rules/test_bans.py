"""What may be named where, beyond what the linter can say (it cannot lift one ban for a file and keep the next)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.rules.sources import DECISIONS, dotted, modules, room, tree

TASKS = Path("proxy/relay/tasks.py")
ENVIRONMENT = {Path("proxy/server/settings.py"), Path("proxy/cli.py")}


def breaks(path: Path, source: ast.Module) -> list[str]:
    """Every use in `source`, the module at `path`, of what is not to be used there, with its line."""
    found = []
    for node in ast.walk(source):
        if not isinstance(node, (ast.Attribute, ast.Name)) or not isinstance(node.ctx, ast.Load):
            continue
        name = dotted(node)
        last = name.rsplit(".", 1)[-1]
        why = ""
        if last == "set_dangerous_leniencies":
            why = "a lenient parser reads what the next one reads otherwise: request smuggling"
        elif last in ("create_task", "ensure_future") and path != TASKS:
            why = f"tasks are held weakly by the loop and fail unseen: use {TASKS}"
        elif name in ("os.environ", "os.getenv") and path not in ENVIRONMENT:
            why = "only settings read the environment (DESIGN 3)"
        elif name == "input" and str(path) == "proxy/outcome.py":
            pass  # a figure of Usage
        elif name in ("open", "eval", "exec", "input", "breakpoint", "__import__") and room(path) in DECISIONS:
            why = "a decision touches nothing outside its arguments (DESIGN 3)"
        if why:
            found.append(f"{path}:{node.lineno}: {name}: {why}")
    return found


@pytest.mark.parametrize("path", modules("proxy"), ids=str)
def test_nothing_banned_is_used(path: Path) -> None:
    assert breaks(path, tree(path)) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("proxy/relay/client.py", "loop.create_task(x)"),
        ("proxy/relay/client.py", "asyncio.ensure_future(x)"),
        ("proxy/wire/requests.py", "parser.set_dangerous_leniencies(x)"),
        ("proxy/relay/pool.py", "os.environ['X']"),
        ("proxy/catalog/load.py", "open(x)"),
    ],
)
def test_the_bans_bite(path: str, code: str) -> None:
    assert breaks(Path(path), ast.parse(code))
