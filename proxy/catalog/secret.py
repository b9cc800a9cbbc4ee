"""The one type that holds a secret.

Lives here: `Secret`. May not live here: anything that prints, stores or compares by another way.
How it works: the value comes out only through `reveal()`, which is easy to search for; every other way of looking at it
(repr, str, format, pickle, JSON) shows a fingerprint or refuses.
"""

from __future__ import annotations

import hashlib
from typing import NoReturn


class Secret:
    """A credential or key. `fingerprint` (8 hex digits of its SHA-256) is what people may see."""

    __slots__ = ("__value", "fingerprint")

    def __init__(self, value: str) -> None:
        self.__value = value
        self.fingerprint = hashlib.sha256(value.encode()).hexdigest()[:8]

    def reveal(self) -> str:
        """The value itself. Call it where it is put on the wire or digested, nowhere else."""
        return self.__value

    def __repr__(self) -> str:
        return f"Secret(#{self.fingerprint})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.fingerprint == other.fingerprint and self.__value == other.__value

    def __hash__(self) -> int:
        return hash(self.fingerprint)
