"""An environment without secrets: `serve` starts itself again without them.

Lives here: which variables go, the second start in the same process, what it takes over, `forbid_dumps`.
May not live here: what variables mean (settings); reading the environment, which is passed in.
How it works: the kernel shows the environment a process was started with for as long as it lives (/proc/<pid>/environ,
`ps e`), whatever the process does to its own copy. So once the settings are known to be good, the process replaces
itself: same interpreter, arguments and process id, the environment without the variables below, whose values wait in a
file without a name that the new start reads and closes. All of our own and of the vendors' variables go, since a secret
may stand in the wrong one, and of all others those that look like a secret: nothing here needs them.
Doubted: a name or value that looks harmless stays. Between the two starts, for some milliseconds, the file can be read
by the same user; so could the environment of the first start. Interpreters that are not started by an executable of
their own (frozen programs) cannot start again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping, MutableMapping
from typing import NoReturn

from proxy.catalog.load import VARIABLES, secret_names

HANDED_OVER = "LLM_PROXY_HANDED_OVER"  # tells the second start the number of the descriptor
_OURS = re.compile(r"LLM_?PROXY.*")
_SECRET_NAME = re.compile(r".*(KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|COOKIE|AUTH).*", re.I)
_PLACE_NAME = re.compile(r".*(FILE|PATH|DIR|SOCK)", re.I)  # SSLKEYLOGFILE, SSH_AUTH_SOCK
_USERINFO = re.compile(r"//[^/?#\s]*@")  # of a URL
_PROXY_NAME = re.compile(r".*_proxy", re.I)  # whose URL may lack its scheme

_PR_SET_DUMPABLE = 4

Execute = Callable[[str, list[str], dict[str, str]], object]


class CannotClear(Exception):
    """The sentence says why, and what to do."""


def secrets_in(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that must not be seen."""
    names = secret_names(environ) | set(VARIABLES)
    return {name: value for name, value in environ.items() if name in names or _may_be_secret(name, value)}


def _may_be_secret(name: str, value: str) -> bool:
    if _OURS.fullmatch(name) or _USERINFO.search(value) or (_PROXY_NAME.fullmatch(name) and "@" in value):
        return True
    return _SECRET_NAME.fullmatch(name) is not None and _PLACE_NAME.fullmatch(name) is None


def start_again(environ: Mapping[str, str], execute: Execute = os.execve) -> NoReturn:
    """Replace this process by one without the secrets of `environ`. Raises CannotClear."""
    handed = secrets_in(environ)
    kept = {name: value for name, value in environ.items() if name not in handed}
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        descriptor = _nameless_file(json.dumps(handed).encode())
        # argv[0] in full: from a bare "python3" the interpreter would look for its home along PATH, and find another's.
        execute(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**kept, HANDED_OVER: str(descriptor)})
    except OSError as error:
        raise CannotClear(
            f"LLM_PROXY_CLEAR_ENV: this process cannot start itself again ({error.strerror or 'unknown reason'}): "
            "set it to off"
        ) from None
    raise CannotClear("LLM_PROXY_CLEAR_ENV: this process cannot start itself again: set it to off")


def _nameless_file(content: bytes) -> int:
    """A descriptor that is inherited, of a file that nobody else can open by a name; in memory where that exists."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("handed-over")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, content)
    os.set_inheritable(descriptor, True)
    return descriptor


def taken_over(environ: MutableMapping[str, str]) -> Mapping[str, str]:
    """The whole environment, if this is the second start; else `environ` itself. Raises CannotClear."""
    number = environ.pop(HANDED_OVER, None)
    if number is None:
        return environ
    try:
        handed = json.loads(_read_and_close(int(number)))
    except (OSError, ValueError):
        raise CannotClear(f"{HANDED_OVER}: is set by this program itself: unset it") from None
    forbid_dumps()
    return {**environ, **handed}


def _read_and_close(descriptor: int) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink:
        raise ValueError("no file of ours")
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def forbid_dumps() -> None:
    """No core dumps, which hold all secrets. On Linux other processes of the same user then cannot look into this one
    either, /proc/<pid>/environ and /proc/<pid>/mem included."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # A core_pattern that is a program gets dumps whatever the limit is; it does not get those of such a process.
        with contextlib.suppress(OSError, ImportError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
