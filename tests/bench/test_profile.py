"""The sidecar under a profiler: the same start, wrapped."""

from __future__ import annotations

import cProfile
from pathlib import Path

from bench.contestants import CONTESTANTS
from bench.profile import _listing, _under_cprofile


def test_the_profiled_start_is_the_usual_one_wrapped(tmp_path: Path) -> None:
    output = tmp_path / "profile"
    plain, wrapped = CONTESTANTS["llm-proxy"].start, _under_cprofile(output).start
    assert plain is not None and wrapped is not None
    usual, profiled = plain(1, tmp_path, "key"), wrapped(1, tmp_path, "key")
    assert profiled.command == [usual.command[0], "-m", "cProfile", "-o", str(output), *usual.command[1:]]
    assert profiled.environment.keys() == usual.environment.keys()


def test_the_listing_names_functions(tmp_path: Path) -> None:
    output = tmp_path / "profile"
    profiler = cProfile.Profile()
    profiler.runcall(sorted, [3, 1, 2])
    profiler.dump_stats(output)
    assert "sorted" in _listing(output, 10)
