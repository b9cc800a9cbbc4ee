"""Compiles the rooms of the data path with mypyc: `compile.py <checkout>`, called by scripts/compile.

Lives here: which modules are compiled, and where the result goes. May not live here: anything that the sources need to
run; whoever has no compiler has the same program, slower.
How it works: the package is copied to build/compiled, the modules below become C and then one shared library beside
their sources, and a stamp is written last. Nothing is ever put between the sources themselves, where a stale library
would run in place of a changed file. A Python of another version does not load the library and runs the copies.
Doubted: nothing that the compiler could know is checked again when a module that is not compiled hands values over;
mypyc does it at each border, and raises TypeError where a value is not of the annotated type.
"""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Rooms, or single modules, through which every request and every event passes.
COMPILED = (
    *("outcome", "wire", "dialects", "policy", "relay"),
    *("catalog/price_table", "catalog/prices", "ledger/rows", "telemetry/lines"),
)
# Of these, what cannot be compiled, or would lose by it.
LEFT = {
    "dialects/shapes": "msgspec and C make these classes",
    "relay/connect": "it is not on the straight path, and other people's exceptions hold what they like",
    "dialects/resume": "for streams that were cut; slices of bytes by slice(), which the compiler does not know",
    "dialects/resume_event": "the same",
    "dialects/resume_chat": "the same",
    "dialects/resume_messages": "the same",
    "wire/inflate": "a class within a function",
}
_FLAGS = {"opt_level": "2", "debug_level": "0", "multi_file": True}


def modules(package: Path) -> list[str]:
    """The files to compile, as paths from the folder above the package."""
    found = []
    for name in COMPILED:
        path = package / name
        files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in filter(Path.is_file, files):
            relative = file.relative_to(package).with_suffix("").as_posix()
            if file.name != "__init__.py" and relative not in LEFT:
                found.append(f"{package.name}/{relative}.py")
    return found


def _build(folder: Path) -> None:
    """In `folder`, which holds a copy of the package. Changes this process for good: it runs in one of its own."""
    from mypyc.build import mypycify
    from setuptools import setup

    os.chdir(folder)
    sys.argv = ["compile", "--quiet", "build_ext", "--inplace", f"--parallel={os.cpu_count() or 1}"]
    setup(name="proxy", packages=[], ext_modules=mypycify(modules(Path("proxy")), **_FLAGS))


def main(arguments: list[str]) -> int:
    if arguments[0] == "--build":
        _build(Path(arguments[1]))
        return 0
    root = Path(arguments[0])
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        sys.stderr.write("scripts/compile: needs Python's headers (Debian: python3-dev) and a C compiler\n")
        return 1
    target, made = root / "build" / "compiled", root / "build" / "compiling"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(root / "proxy", made / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", made)  # mypy's settings
    log = made / "log"
    stamp = made / "stamp"
    stamp.touch()  # older than a source that is changed while we work
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, __file__, "--build", str(made)], stdout=output, stderr=output, check=False
        )
    if done.returncode:
        lines = log.read_text(errors="replace").splitlines()
        told = [line for line in lines if "error:" in line.lower()] or lines[-3:]
        sys.stderr.write(
            "\n".join(["scripts/compile: it cannot be compiled here:", *told[:10], f"All of it: {log}", ""])
        )
        return 1
    shutil.rmtree(made / "build", ignore_errors=True)
    # What stays sources, too: whoever sets PYTHONDONTWRITEBYTECODE, as containers do, starts 0.1 s sooner.
    compileall.compile_dir(made / "proxy", quiet=2)
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    sys.stdout.write(f"{len(modules(target / 'proxy'))} modules are compiled in {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
