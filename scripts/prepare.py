"""Makes .venv hold exactly what a lock file names.

Lives here: the slow path of venv.sh, on the standard library alone; called `prepare.py <caller> <checkout> <lock>`.
May not live here: anything the data path or a test needs.
How it works: a kernel lock on the lock file keeps two first starts apart and cannot outlive its process. Stamps are
removed before the first change and written after the last, by rename; a .venv without a valid stamp is a half-made one
and is made anew, one with a stamp of the other lock or of an older one is brought up to date in place. Packages are
installed with their hashes, from wheels alone, and the project itself without isolation: nothing is fetched that the
lock does not name.
Doubted: packages that left a lock stay in an environment that is brought up to date; remove .venv to be rid of them.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

# Settings of the caller's pip that would put packages elsewhere, or refuse what the lock names.
UNWANTED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_NO_BINARY", "PIP_REQUIRE_VIRTUALENV")
LOCKS = ("runtime", "test")  # what the second holds includes the first (tests/rules/test_locks.py)
NETWORK = re.compile(r"connection broken|NewConnection|Max retries|resolution|timed out|proxy|SSL|HTTP error", re.I)


class Failed(Exception):
    """The set-up cannot be finished. The message is the one sentence for the user."""


def stamp_text(root: Path, lock: str) -> bytes:
    """What venv.sh compares the stamp with."""
    return f"{root}\n".encode() + (root / "scripts" / f"{lock}.lock").read_bytes()


def stamp_path(root: Path, lock: str) -> Path:
    return root / ".venv" / f"{lock}.stamp"


def is_current(root: Path, lock: str) -> bool:
    stamp = stamp_path(root, lock)
    return stamp.is_file() and stamp.read_bytes() == stamp_text(root, lock) and (root / ".venv/bin/python").exists()


def is_whole(root: Path) -> bool:
    """Whether .venv was finished once, for this checkout and with a Python that is still there."""
    first_line = f"{root}\n".encode()
    stamps = [path for path in (stamp_path(root, lock) for lock in LOCKS) if path.is_file()]
    return any(path.read_bytes().startswith(first_line) for path in stamps) and (root / ".venv/bin/python").exists()


def last_words(output: str) -> str:
    """The line of pip's output that says most: its last error, or its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no output"])[-1]


def reason(output: str) -> str:
    if NETWORK.search(output):
        return "no package index can be reached"
    if "from versions: none" in output:
        return "no package index has a wheel for this machine"
    return "it failed"


def run_python(python: str | Path, *arguments: str, doing: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0"}
    done = subprocess.run(
        [str(python), "-I", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise Failed(f"{doing}: {reason(done.stdout)} (last words: {last_words(done.stdout)})")


def prepare(caller: str, root: Path, lock: str) -> None:
    venv = root / ".venv"
    whole = is_whole(root)
    for each in LOCKS:
        stamp_path(root, each).unlink(missing_ok=True)
    print(f"{caller}: installing what scripts/{lock}.lock names into .venv (only when it changes)", file=sys.stderr)
    if not whole:
        # The real file, not python3 or a link: when the system moves on to another version the environment's link
        # dangles, which is seen, instead of leading to a Python that looks for its packages elsewhere.
        run_python(os.path.realpath(sys.executable), "-m", "venv", "--clear", str(venv), doing="making .venv")
    python = venv / "bin" / "python"
    pip = ("-m", "pip", "--quiet", "install")
    locked = str(root / "scripts" / f"{lock}.lock")
    only = ("--require-hashes", "--no-deps", "--only-binary", ":all:")
    run_python(python, *pip, *only, "--requirement", locked, doing="installing packages into .venv")
    ours = ("--no-index", "--no-deps", "--no-build-isolation", "--editable", str(root))
    run_python(python, *pip, *ours, doing="installing llm-proxy itself into .venv")
    for each in LOCKS[: LOCKS.index(lock) + 1]:
        stamp = stamp_path(root, each)
        fresh = stamp.with_suffix(".new")
        fresh.write_bytes(stamp_text(root, each))
        fresh.replace(stamp)


def main(caller: str, checkout: str, lock: str) -> int:
    root = Path(checkout)
    try:
        with (root / "scripts" / f"{LOCKS[0]}.lock").open() as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            if not is_current(root, lock):  # another start may have done it while this one waited
                prepare(caller, root, lock)
    except Failed as failed:
        print(f"{caller}: {failed}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{caller}: cannot prepare .venv: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{caller}: interrupted; the next start begins .venv anew", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
