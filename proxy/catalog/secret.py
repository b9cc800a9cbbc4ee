"""The one type that holds a secret.

Lives here: `Secret`. May not live here: anything that prints, stores or compares by another way.
How it works: the value comes out only through `reveal()`, which is easy to search for; every other way of looking at it
(repr, str, format, copy, pickle, JSON, a walk over the attributes) shows a fingerprint or refuses. No attribute holds
the value: it is in the closure of a function, so what prints attributes (debuggers, crash reporters) finds a function.
Doubted: who holds the value itself, a frame between `reveal()` and the wire, shows it to whatever prints a traceback
with its locals; so nothing here prints one. The fingerprint is 32 bits of a hash without salt, so that it is the same
in each process and each ledger. It tells nothing of a random key, but a guess can be tried against it, four billion
wrong ones for each that seems right: that is why a value of less than 16 characters, which may be a word, has none.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import NoReturn

# The same number as the least length of our own keys (settings): 16 random letters and digits are 95 bits.
LEAST_FINGERPRINTED = 16
SHORT = "short"  # stands for the fingerprint of what has none


class Secret:
    """A credential or key. `fingerprint` (8 hex digits of its SHA-256) is what people may see."""

    __slots__ = ("_tell", "fingerprint")

    def __init__(self, value: str) -> None:
        self._tell: Callable[[], str] = lambda: value
        is_short = len(value) < LEAST_FINGERPRINTED
        self.fingerprint = SHORT if is_short else hashlib.sha256(_bytes(value)).hexdigest()[:8]

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("a Secret cannot be subclassed: what is added could show it")

    def reveal(self) -> str:
        """The value itself. Call it where it is put on the wire or digested, nowhere else."""
        return self._tell()

    def __repr__(self) -> str:
        return f"Secret(#{self.fingerprint})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Asked by pickle, copy and deepcopy, and so by dataclasses.asdict."""
        raise TypeError("a Secret cannot be copied or pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be copied or pickled")

    def __eq__(self, other: object) -> bool:
        """In a time that tells nothing but the lengths."""
        return isinstance(other, Secret) and hmac.compare_digest(_bytes(self._tell()), _bytes(other._tell()))

    def __hash__(self) -> int:
        return hash(self._tell())  # Python's own, with a salt for each process


def _bytes(value: str) -> bytes:
    """What the environment brought may be bytes that are no UTF-8."""
    return value.encode("utf-8", "surrogateescape")
