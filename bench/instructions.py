"""Instructions of the straight path: `python -m bench.instructions KIND`.

Lives here: `bench.straight` under valgrind's callgrind, the difference of two runs, and the list of functions.
May not live here: what is run (bench/straight.py), any verdict.
How it works: a child does N units, another 3 N; a 2 N-th of the difference is one unit, so that the start falls out,
function by function. The seed of hashes is fixed and the straight path has no clock, so that the figure stays the same
within a few thousandths however noisy the machine is: it tells of changes that no clock would show. `--before DIR` does
the same with the package `proxy` of another checkout (`git worktree add DIR COMMIT`) on this checkout's stage.
Doubted: instructions are no time: a cache miss costs as much as a hundred of them, and callgrind sees none. Of the
kernel it sees nothing. Functions in C have names as far as their libraries have symbols.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import sidecar

_CHECKOUT = Path(__file__).resolve().parent.parent

# Units of the shorter run: enough that what happens once in many units (a collection, a batch of rows) is in it.
UNITS = {"unary": 200, "stream": 1000, "burst": 20, "short": 25}
_TOTAL = re.compile(r"^(?:summary|totals): (\d+)$", re.MULTILINE)
_LINE = re.compile(r"^ *([\d,]+)(?: \([ \d.]+%\))? +(\S*:.*)$")
_LIBRARY = re.compile(r"\s*\[(\S+)\]$")
_RECURSION = re.compile(r"'\d+$")
# The interpreter's own, for small pieces, which ask the C library for large ones; those who ask it directly.
_ALLOCATORS = {"_PyObject_Malloc", "_PyObject_Calloc", "_PyObject_Realloc"}


class CannotRun(Exception):
    """The message says why, for whoever asked."""


class Profile(NamedTuple):
    """Instructions in all, and of each function by itself; pieces of memory that were asked for."""

    total: float
    functions: dict[str, float]
    pieces: float

    def per_unit(self, shorter: Profile, units: int) -> Profile:
        """What one of the `units` took that this run did beyond `shorter`."""
        names = self.functions.keys() | shorter.functions.keys()
        functions = {
            name: (self.functions.get(name, 0) - shorter.functions.get(name, 0)) / units for name in sorted(names)
        }
        return Profile((self.total - shorter.total) / units, functions, (self.pieces - shorter.pieces) / units)


def read_profile(written: str, annotated: str) -> Profile:
    """`written` by callgrind into its file, `annotated` by callgrind_annotate."""
    found = _TOTAL.search(written)
    if found is None:
        raise CannotRun("callgrind has counted nothing")
    return Profile(int(found[1]), read_functions(annotated), read_pieces(written))


def read_functions(annotated: str) -> dict[str, float]:
    """Instructions by function: what each does itself, without what it calls."""
    functions: dict[str, float] = {}
    libraries: dict[str, str] = {}
    for line in annotated.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        count, place = found.groups()
        library = _LIBRARY.search(place)
        # The number behind a name is that of a recursion, which is callgrind's own idea.
        name = _RECURSION.sub("", _LIBRARY.sub("", place).partition(":")[2])
        if library is not None:  # it is missing where a line comes out of another file, as what stands in headers does
            libraries[name] = Path(library[1]).name.partition(".")[0]
        functions[name] = functions.get(name, 0) + int(count.replace(",", ""))
    return {f"{name} ({libraries.get(name, '?')})": count for name, count in functions.items()}


def read_pieces(written: str) -> int:
    """How often memory was asked for, great or small. What the interpreter keeps in stock (floats, short tuples,
    frames) is taken from there without asking, and is not in it."""
    pieces, is_allocator = 0, False
    allocators: set[str] = set()  # as the file numbers them: a name stands at its first place only
    for line in written.splitlines():
        if line.startswith(("fn=", "cfn=")):
            number, _, name = line.partition("=")[2].partition(" ")
            if _RECURSION.sub("", name) in _ALLOCATORS:
                allocators.add(number)
            is_allocator = line[0] == "c" and number in allocators
        elif is_allocator and line.startswith("calls="):
            pieces += int(line[len("calls=") :].partition(" ")[0])
    return pieces


def measure(kind: str, checkout: Path, units: int) -> Profile:
    """One unit of `kind` with the package `proxy` of `checkout`. Raises CannotRun."""
    valgrind = shutil.which("valgrind")
    if valgrind is None or shutil.which("callgrind_annotate") is None:
        raise CannotRun("valgrind is not installed")
    if not (checkout / "proxy" / "__init__.py").is_file():
        raise CannotRun(f"{checkout} is no checkout of this project")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        _copy(checkout, folder)
        shorter = _run(valgrind, folder, kind, units)
        return _run(valgrind, folder, kind, 3 * units).per_unit(shorter, 2 * units)


def _copy(checkout: Path, folder: Path) -> None:
    """The package of `checkout` and our own stage, compiled: what an import compiles lies elsewhere in memory than what
    it loads, and then dictionaries and caches meet other collisions, 0.3 % of a request. Nor can anybody write into it
    between two runs."""
    shutil.copytree(checkout / "proxy", folder / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "bench").mkdir()
    for module in (_CHECKOUT / "bench").glob("*.py"):
        shutil.copy2(module, folder / "bench")
    for library in checkout.glob("*.so"):  # beside the package, where it is compiled
        shutil.copy2(library, folder)
    command = [sys.executable, "-m", "compileall", "-q", "proxy", "bench"]
    subprocess.run(command, cwd=folder, capture_output=True, check=False)


def _run(valgrind: str, folder: Path, kind: str, units: int) -> Profile:
    output = folder / "callgrind.out"
    command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={output}"]
    command += [sys.executable, "-m", "bench.straight", kind, "--units", str(units)]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(folder),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("==")]
        raise CannotRun(f"the straight path does not run there: {said[-1] if said else 'it said nothing'}"[:300])
    listing = ["callgrind_annotate", "--threshold=100", "--auto=no", str(output)]
    annotated = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
    return read_profile(output.read_text(), annotated)


def describe(kind: str, now: Profile, before: Profile | None, lines: int) -> str:
    text = [f"{kind}: {now.total:,.0f} instructions, memory asked for {now.pieces:,.1f} times"]
    if before is not None:
        text.append(f"before: {before.total:,.0f}, {before.pieces:,.1f}; now {now.total / before.total:.4f} of it")
    for name, count in sorted(now.functions.items(), key=lambda each: -each[1])[:lines]:
        then = "" if before is None else f" {before.functions.get(name, 0):12,.0f}"
        text.append(f"{count:12,.0f}{then} {count / now.total:6.1%}  {name}")
    return "\n".join(text) + "\n"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.instructions", description="Instructions of the straight path.")
    parser.add_argument("kind", choices=list(UNITS))
    parser.add_argument("--before", type=Path, metavar="DIR", help="another checkout, to compare with")
    parser.add_argument("--compiled", action="store_true", help="what scripts/compile made, not the sources")
    parser.add_argument("--lines", type=int, default=0, help="so many functions, the most expensive first")
    parser.add_argument("--units", type=int, help="of the shorter run")
    options = parser.parse_args(arguments)
    units = options.units or UNITS[options.kind]
    checkout = sidecar.compiled() if options.compiled else _CHECKOUT
    if checkout is None:
        sys.stderr.write("nothing is compiled, or not any more: scripts/compile\n")
        return 2
    try:
        now = measure(options.kind, checkout, units)
    except CannotRun as reason:
        sys.stderr.write(f"{reason}\n")
        return 2
    before = None
    if options.before is not None:
        try:
            before = measure(options.kind, options.before, units)
        except CannotRun as reason:
            sys.stderr.write(f"before: skipped: {reason}\n")
    sys.stdout.write(describe(options.kind, now, before, options.lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
