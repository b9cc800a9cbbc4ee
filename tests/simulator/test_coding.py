"""Codings can be read as far as they were flushed, by a reader that shares no code with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.simulator.coding import coder
from proxy.wire.inflate import inflater

CODINGS = ["gzip", "deflate", "bare deflate", "br", "zstd"]
EVENTS = [b"data: %d\n\n" % number for number in range(50)]


@pytest.mark.parametrize("coding", CODINGS)
def test_what_was_flushed_can_be_read(coding: str) -> None:
    made = coder(coding)
    taken = inflater(coding.removeprefix("bare ").encode())
    assert taken is not None
    for event in EVENTS:
        assert taken.feed(made.compress(event) + made.flush()) == event
    assert taken.feed(made.finish()) == b""
    assert taken.feed(b"what follows") == b""
    assert not taken.is_broken  # the body was complete: what follows is not of it


@pytest.mark.parametrize("coding", CODINGS)
def test_several_bodies_do_not_mix(coding: str) -> None:
    one, two = coder(coding), coder(coding)
    assert one.compress(b"a") + one.flush() == two.compress(b"a") + two.flush()


def test_bare_deflate_has_no_wrapping() -> None:
    wrapped, bare = (made.compress(b"x") + made.finish() for made in map(coder, ("deflate", "bare deflate")))
    assert wrapped == b"\x78\x9c" + bare + b"\0\x79\0\x79"


def test_libraries_are_imported_at_first_need() -> None:
    script = (
        "import sys\n"
        "import proxy.simulator.provider\n"
        "found = {name.split('.')[0] for name in sys.modules} & {'brotli', 'backports', 'compression'}\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
