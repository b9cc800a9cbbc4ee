"""No test is skipped, or expected to fail, without its reason in the list below."""

from __future__ import annotations

import ast

from tests.rules.sources import dotted, modules, tree

SKIPPING = {"skip", "skipif", "importorskip", "xfail", "skipTest", "SkipTest"}

# A packager's machine may lack a vendor's client; scripts/test installs them all.
CLIENTS = ("openai", "anthropic", "google", "ollama")

# (file, function or class in which it happens) -> why the test cannot run everywhere.
REASONS: dict[tuple[str, str], str] = {
    (
        "tests/scripts/test_compile.py",
        "test_a_compiled_package_does_the_same",
    ): "scripts/compile needs a C compiler, and nothing else does",
    ("tests/bench/test_load.py", "the module"): "the bench reads its figures from /proc: Linux only",
    ("tests/bench/test_machine.py", "the module"): "the bench reads its figures from /proc: Linux only",
    (
        "tests/whole/test_reload.py",
        "test_without_its_environment_it_knows_what_it_was_started_with",
    ): "what others see of a process is read from /proc: Linux only",
    ("tests/whole/test_clearing.py", "the module"): "what others see of a process is read from /proc: Linux only",
}


def is_about_a_client(call: ast.Call) -> bool:
    """Whether it is importorskip of a vendor's client, with a reason."""
    if not dotted(call.func).endswith("pytest.importorskip") or not call.args:
        return False
    name = call.args[0].value if isinstance(call.args[0], ast.Constant) else ""
    return str(name).split(".")[0] in CLIENTS and any(keyword.arg == "reason" for keyword in call.keywords)


def skips(source: ast.Module) -> set[str]:
    """The functions and classes of `source` in which a test can be skipped."""
    found: set[str] = set()
    for top in source.body:
        allowed = {call.func for call in ast.walk(top) if isinstance(call, ast.Call) and is_about_a_client(call)}
        for node in ast.walk(top):
            if node in allowed:
                continue
            words = dotted(node).split(".") if isinstance(node, ast.Attribute) else []
            if words and words[-1] in SKIPPING and words[0] in ("pytest", "unittest", "mark", "self"):
                found.add(getattr(top, "name", "the module"))
    return found


def test_every_skip_has_a_written_reason() -> None:
    found = {(str(path), name) for path in modules("tests") for name in skips(tree(path))}
    assert sorted(found - set(REASONS)) == [], "a skip without a written reason"
    assert sorted(set(REASONS) - found) == [], "a reason for a skip that is gone"


def test_the_search_finds_skips() -> None:
    marked = "@pytest.mark.skipif(x)\ndef test_a(): pass\n"
    called = "def test_b():\n    pytest.skip('no')\n"
    assert skips(ast.parse(marked + called + "pytest.importorskip('openai')\n")) == {"test_a", "test_b", "the module"}
    assert skips(ast.parse("pytest.importorskip('openai', reason='not installed')")) == set()
